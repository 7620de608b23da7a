//! A mixture of normal densities with independent features.

use super::{BaseDensity, check_sizes, half_log_two_pi, sum_of_squares};
use crate::{Context, FlowError, Module, Parameter, Result, Scalar, module_fields, noise::Stream};
use num_traits::Float;
use rand::Rng;

/// A mixture of K normal densities with diagonal covariances: log p(z) = ln Σₖ πₖ N(z; μₖ, diag(e^{sₖ})²), with
/// learned weights π = softmax(a), means μ and
/// log-scales s.
///
/// # Shapes
/// `logits` a: (K); `mean` μ and `log_scale` s: (K, d).
#[derive(Debug, Clone)]
pub struct Mixture<E: Scalar> {
    dim: usize,
    logits: Parameter<E>,
    mean: Parameter<E>,
    log_scale: Parameter<E>,
}

impl<E: Scalar> Mixture<E> {
    /// On R^dim, starting with equal weights, unit scales and means drawn from N(0, I) by `seed`: equal ones would
    /// stay equal for ever.
    ///
    /// # Errors
    /// [`FlowError::Setting`] for no components.
    pub fn new(dim: usize, components: usize, seed: u64) -> Result<Self> {
        if components == 0 {
            return Err(FlowError::Setting {
                layer: "Mixture".to_owned(),
                field: "components",
                expected: "at least 1".to_owned(),
                got: "0".to_owned(),
            });
        }
        let mut mean = vec![E::zero(); components * dim];
        Stream::new(seed, 0, "mean").row(0).gaussian(&mut mean);
        Ok(Self {
            dim,
            logits: Parameter::new(&[components], vec![E::zero(); components]),
            mean: Parameter::new(&[components, dim], mean),
            log_scale: Parameter::new(&[components, dim], vec![E::zero(); components * dim]),
        })
    }

    /// Mean and log-scale of component k.
    fn component(&self, k: usize) -> (&[E], &[E]) {
        let range = k * self.dim..(k + 1) * self.dim;
        (&self.mean.values()[range.clone()], &self.log_scale.values()[range])
    }

    fn components(&self) -> usize {
        self.logits.values().len()
    }

    /// πₖ.
    fn weights(&self) -> Vec<f64> {
        let mut weights: Vec<f64> = self.logits.values().iter().map(|a| a.as_f64()).collect();
        normalise(&mut weights);
        weights
    }

    /// ln πₖ − Σⱼ sₖⱼ − (d/2) ln 2π.
    fn constants(&self) -> Vec<f64> {
        let constant = |(k, weight): (usize, f64)| {
            let log_scales: f64 = self.component(k).1.iter().map(|s| s.as_f64()).sum();
            weight.ln() - log_scales - half_log_two_pi() * self.dim as f64
        };
        self.weights().into_iter().enumerate().map(constant).collect()
    }

    /// log p(z) of a row; `terms` becomes p(k | z).
    fn posterior(&self, z: &[E], constants: &[f64], terms: &mut [f64]) -> f64 {
        for (k, (term, constant)) in terms.iter_mut().zip(constants).enumerate() {
            let (mean, log_scale) = self.component(k);
            let u = z.iter().zip(mean).zip(log_scale).map(|((&z, &m), &s)| (z - m) * Float::exp(-s));
            *term = constant - 0.5 * sum_of_squares(u);
        }
        normalise(terms)
    }
}

/// Turns aₖ into e^{aₖ}/Σe^a; gives ln Σe^a.
fn normalise(terms: &mut [f64]) -> f64 {
    let largest = terms.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    // Where all are −∞, no one of them can be taken off.
    let shift = if largest.is_finite() { largest } else { 0.0 };
    terms.iter_mut().for_each(|a| *a = (*a - shift).exp());
    let sum: f64 = terms.iter().sum();
    terms.iter_mut().for_each(|a| *a /= sum);
    shift + sum.ln()
}

impl<E: Scalar> Module<E> for Mixture<E> {
    module_fields!(E; parameter logits, parameter mean, parameter log_scale);
}

impl<E: Scalar> BaseDensity<E> for Mixture<E> {
    fn kind(&self) -> &'static str {
        "Mixture"
    }

    fn dim(&self) -> usize {
        self.dim
    }

    fn log_prob(&self, z: &[E], out: &mut [E], cx: &Context<E>) -> Result<()> {
        check_sizes(self, "log_prob", out.len(), &[z.len()], None, cx)?;
        let (constants, mut terms) = (self.constants(), vec![0.0; self.components()]);
        for (row, out) in z.chunks_exact(self.dim.max(1)).zip(out) {
            *out = E::of(self.posterior(row, &constants, &mut terms));
        }
        Ok(())
    }

    fn sample(&self, rows: usize, temperature: E, cx: &Context<E>) -> Result<Vec<E>> {
        let weights = self.weights();
        let mut centre = vec![0.0; self.dim];
        for (k, weight) in weights.iter().enumerate() {
            centre.iter_mut().zip(self.component(k).0).for_each(|(centre, mean)| *centre += weight * mean.as_f64());
        }
        let (noise, mut values) = (cx.noise(), vec![E::zero(); rows * self.dim]);
        for (row, values) in values.chunks_exact_mut(self.dim.max(1)).enumerate() {
            let mut noise = noise.row(row as u64);
            let mut left: f64 = noise.r#gen();
            let chosen = weights.iter().position(|weight| {
                left -= weight;
                left < 0.0
            });
            // Rounding may leave a little behind the last weight.
            let (mean, log_scale) = self.component(chosen.unwrap_or(weights.len() - 1));
            noise.gaussian(values);
            for (((z, &mean), &log_scale), &centre) in values.iter_mut().zip(mean).zip(log_scale).zip(&centre) {
                let centre = E::of(centre);
                *z = centre + temperature * (mean - centre + Float::exp(log_scale) * *z);
            }
        }
        Ok(values)
    }

    fn pullback(&self, z: &[E], weights: &[E], dz: &mut [E], gradients: &mut [E], cx: &Context<E>) -> Result<Option<Vec<E>>> {
        check_sizes(self, "pullback", weights.len(), &[z.len(), dz.len()], Some(gradients.len()), cx)?;
        let (dim, components, prior) = (self.dim, self.components(), self.weights());
        let (constants, mut posterior) = (self.constants(), vec![0.0; components]);
        let (for_logits, others) = gradients.split_at_mut(components);
        let (for_mean, for_scale) = others.split_at_mut(components * dim);
        dz.fill(E::zero());
        for ((z, dz), &weight) in z.chunks_exact(dim.max(1)).zip(dz.chunks_exact_mut(dim.max(1))).zip(weights) {
            self.posterior(z, &constants, &mut posterior);
            for k in 0..components {
                for_logits[k] += weight * E::of(posterior[k] - prior[k]);
                let share = weight * E::of(posterior[k]);
                let (mean, log_scale) = self.component(k);
                for j in 0..dim {
                    let inverse_scale = Float::exp(-log_scale[j]);
                    let u = (z[j] - mean[j]) * inverse_scale;
                    let slope = share * u * inverse_scale;
                    dz[j] -= slope;
                    for_mean[k * dim + j] += slope;
                    for_scale[k * dim + j] += share * (u * u - E::one());
                }
            }
        }
        Ok(None)
    }
}
