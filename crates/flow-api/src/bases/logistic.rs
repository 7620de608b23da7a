//! A logistic density with independent features.

use super::{BaseDensity, by_number, check_sizes};
use crate::{Context, Module, Parameter, Result, Scalar, module_fields};
use flow_kernels::scalar::softplus;
use num_traits::Float;
use rand::Rng;
use rand::distributions::Open01;

/// A logistic density with learned location μ and log-scale s: with u = (z − μ)e^{−s},
/// log p(z) = Σⱼ −uⱼ − 2 ln(1 + e^{−uⱼ}) − sⱼ. Its tails fall as e^{−|u|}; NICE has it as base (arXiv:1410.8516).
#[derive(Debug, Clone)]
pub struct Logistic<E: Scalar> {
    location: Parameter<E>,
    log_scale: Parameter<E>,
}

impl<E: Scalar> Logistic<E> {
    /// On R^dim, starting at location 0 and scale 1.
    pub fn new(dim: usize) -> Self {
        let zeros = || Parameter::new(&[dim], vec![E::zero(); dim]);
        Self { location: zeros(), log_scale: zeros() }
    }

    /// Location and log-scale of every feature.
    fn features(&self) -> impl Iterator<Item = (E, E)> {
        self.location.values().iter().copied().zip(self.log_scale.values().iter().copied())
    }
}

/// log p of a number, given its feature's location and log-scale.
fn log_prob_of<E: Scalar>(z: E, (location, log_scale): (E, E)) -> f64 {
    // The density is even in u, and e^{−|u|} cannot overflow.
    let u = Float::abs((z - location) * Float::exp(-log_scale)).as_f64();
    -u - 2.0 * softplus(-u) - log_scale.as_f64()
}

impl<E: Scalar> Module<E> for Logistic<E> {
    module_fields!(E; parameter location, parameter log_scale);
}

impl<E: Scalar> BaseDensity<E> for Logistic<E> {
    fn kind(&self) -> &'static str {
        "Logistic"
    }

    fn dim(&self) -> usize {
        self.location.values().len()
    }

    fn log_prob(&self, z: &[E], out: &mut [E], cx: &Context<E>) -> Result<()> {
        check_sizes(self, "log_prob", out.len(), &[z.len()], None, cx)?;
        for (row, out) in z.chunks_exact(self.dim().max(1)).zip(out) {
            *out = E::of(row.iter().zip(self.features()).map(|(&z, feature)| log_prob_of(z, feature)).sum());
        }
        Ok(())
    }

    fn log_prob_by_number(&self, z: &[E], cx: &Context<E>) -> Result<Option<Vec<f64>>> {
        by_number(self, z, self.features().map(|feature| move |z| log_prob_of(z, feature)), cx)
    }

    fn sample(&self, rows: usize, temperature: E, cx: &Context<E>) -> Result<Vec<E>> {
        let noise = cx.noise();
        let mut values = Vec::with_capacity(rows * self.dim());
        for row in 0..rows {
            let mut noise = noise.row(row as u64);
            values.extend(self.features().map(|(location, log_scale)| {
                let p: f64 = noise.sample(Open01);
                location + Float::exp(log_scale) * temperature * E::of((p / (1.0 - p)).ln())
            }));
        }
        Ok(values)
    }

    fn pullback(&self, z: &[E], weights: &[E], dz: &mut [E], gradients: &mut [E], cx: &Context<E>) -> Result<Option<Vec<E>>> {
        check_sizes(self, "pullback", weights.len(), &[z.len(), dz.len()], Some(gradients.len()), cx)?;
        let dim = self.dim();
        let (for_location, for_scale) = gradients.split_at_mut(dim);
        let (rows, half) = (z.chunks_exact(dim.max(1)).zip(dz.chunks_exact_mut(dim.max(1))), E::of(0.5));
        for ((z, dz), &weight) in rows.zip(weights) {
            for (j, (location, log_scale)) in self.features().enumerate() {
                let inverse_scale = Float::exp(-log_scale);
                let u = (z[j] - location) * inverse_scale;
                let slope = -Float::tanh(half * u);
                dz[j] = weight * slope * inverse_scale;
                for_location[j] -= dz[j];
                for_scale[j] -= weight * (u * slope + E::one());
            }
        }
        Ok(None)
    }
}
