//! A normal density with independent features.

use super::{BaseDensity, by_number, check_sizes, half_log_two_pi, standard_noise, sum_of_squares};
use crate::{Context, Module, Parameter, Result, Scalar, module_fields};
use num_traits::Float;

/// N(μ, diag(e^s)²) with learned mean μ and log-scale s: log p(z) = Σⱼ −½((zⱼ − μⱼ)e^{−sⱼ})² − sⱼ − ½ ln 2π.
#[derive(Debug, Clone)]
pub struct DiagonalNormal<E: Scalar> {
    mean: Parameter<E>,
    log_scale: Parameter<E>,
}

impl<E: Scalar> DiagonalNormal<E> {
    /// On R^dim, starting as N(0, I).
    pub fn new(dim: usize) -> Self {
        let zeros = || Parameter::new(&[dim], vec![E::zero(); dim]);
        Self { mean: zeros(), log_scale: zeros() }
    }
}

impl<E: Scalar> Module<E> for DiagonalNormal<E> {
    module_fields!(E; parameter mean, parameter log_scale);
}

impl<E: Scalar> BaseDensity<E> for DiagonalNormal<E> {
    fn kind(&self) -> &'static str {
        "DiagonalNormal"
    }

    fn dim(&self) -> usize {
        self.mean.values().len()
    }

    fn log_prob(&self, z: &[E], out: &mut [E], cx: &Context<E>) -> Result<()> {
        check_sizes(self, "log_prob", out.len(), &[z.len()], None, cx)?;
        let (mean, log_scale) = (self.mean.values(), self.log_scale.values());
        let constant = log_scale.iter().map(|s| s.as_f64()).sum::<f64>() + half_log_two_pi() * mean.len() as f64;
        for (row, out) in z.chunks_exact(mean.len().max(1)).zip(out) {
            let squares = sum_of_squares(row.iter().zip(mean).zip(log_scale).map(|((&z, &m), &s)| (z - m) * Float::exp(-s)));
            *out = E::of(-(squares * 0.5) - constant);
        }
        Ok(())
    }

    fn log_prob_by_number(&self, z: &[E], cx: &Context<E>) -> Result<Option<Vec<f64>>> {
        let feature = |(&mean, &log_scale): (&E, &E)| {
            move |z: E| {
                let u = ((z - mean) * Float::exp(-log_scale)).as_f64();
                -0.5 * u * u - log_scale.as_f64() - half_log_two_pi()
            }
        };
        by_number(self, z, self.mean.values().iter().zip(self.log_scale.values()).map(feature), cx)
    }

    fn sample(&self, rows: usize, temperature: E, cx: &Context<E>) -> Result<Vec<E>> {
        let dim = self.mean.values().len();
        let mut values = standard_noise::<E>(dim, rows, cx);
        for row in values.chunks_exact_mut(dim.max(1)) {
            for ((z, &m), &s) in row.iter_mut().zip(self.mean.values()).zip(self.log_scale.values()) {
                *z = m + Float::exp(s) * temperature * *z;
            }
        }
        Ok(values)
    }

    fn pullback(&self, z: &[E], weights: &[E], dz: &mut [E], gradients: &mut [E], cx: &Context<E>) -> Result<Option<Vec<E>>> {
        check_sizes(self, "pullback", weights.len(), &[z.len(), dz.len()], Some(gradients.len()), cx)?;
        let dim = self.mean.values().len().max(1);
        let (for_mean, for_scale) = gradients.split_at_mut(self.mean.values().len());
        for ((z, dz), &weight) in z.chunks_exact(dim).zip(dz.chunks_exact_mut(dim)).zip(weights) {
            for j in 0..z.len() {
                let inverse_scale = Float::exp(-self.log_scale.values()[j]);
                let u = (z[j] - self.mean.values()[j]) * inverse_scale;
                dz[j] = -weight * u * inverse_scale;
                for_mean[j] -= dz[j];
                for_scale[j] += weight * (u * u - E::one());
            }
        }
        Ok(None)
    }
}
