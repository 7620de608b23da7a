//! Adam on one flat buffer.

use crate::Result;
use flow_api::{EntryMut, Gradients, Module, Scalar, update};
use flow_kernels::vectorized;
use serde::{Deserialize, Serialize};

/// Adam (Kingma & Ba, arXiv:1412.6980) with gradient-norm clipping, decoupled weight decay (Loshchilov & Hutter, arXiv:1711.05101) and an exponential moving average of the weights,
/// all in one pass over the parameters.
///
/// With g the gradient, scaled down to norm `clip` if it is longer: m ← β₁m + (1−β₁)g, v ← β₂v + (1−β₂)g², θ ← θ(1 − ηλ) − η m̂/(√v̂ + ε) with m̂ = m/(1−β₁ᵗ), v̂ = v/(1−β₂ᵗ), and
/// ema ← κ ema + (1−κ)θ.
#[derive(Clone, Debug, PartialEq)]
pub struct Adam<E> {
    config: AdamConfig,
    step: u64,
    first: Vec<E>,
    second: Vec<E>,
    average: Option<Vec<E>>,
}

/// Settings of [`Adam`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct AdamConfig {
    /// β₁.
    pub beta1: f64,
    /// β₂.
    pub beta2: f64,
    /// ε.
    pub epsilon: f64,
    /// λ.
    pub weight_decay: f64,
    /// Bound of the gradient's Euclidean norm.
    pub clip: Option<f64>,
    /// κ.
    pub ema: Option<f64>,
}

impl Default for AdamConfig {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.0, clip: None, ema: None }
    }
}

/// The optimiser's state, for checkpoints.
#[derive(Debug, Clone, PartialEq)]
pub struct AdamState<E> {
    /// Steps made.
    pub step: u64,
    /// First moments of all parameters, flat.
    pub first: Vec<E>,
    /// Second moments of all parameters, flat.
    pub second: Vec<E>,
    /// Averaged weights, flat, if there is an average.
    pub average: Option<Vec<E>>,
}

/// What all parameters of a step have in common.
#[derive(Clone, Copy)]
struct Factors<E> {
    gradient: E,
    keep_first: E,
    keep_second: E,
    rate: E,
    decay: E,
    correct_second: E,
    epsilon: E,
}

vectorized! {
    /// One step for one parameter's slices.
    fn adam_step<E: Scalar>(theta: &mut [E], gradient: &[E], first: &mut [E], second: &mut [E], f: Factors<E>) {
        for (((theta, &g), m), v) in theta.iter_mut().zip(gradient).zip(first).zip(second) {
            let g = g * f.gradient;
            *m = f.keep_first * *m + (E::one() - f.keep_first) * g;
            *v = f.keep_second * *v + (E::one() - f.keep_second) * g * g;
            *theta = f.decay * *theta - f.rate * *m / (num_traits::Float::sqrt(*v * f.correct_second) + f.epsilon);
        }
    }
}

vectorized! {
    /// average ← κ average + (1 − κ) θ.
    fn average_step<E: Scalar>(average: &mut [E], theta: &[E], keep: E) {
        for (average, &theta) in average.iter_mut().zip(theta) {
            *average = keep * *average + (E::one() - keep) * theta;
        }
    }
}

impl<E: Scalar> Adam<E> {
    /// An optimiser for the parameters of `model`, whose average starts at their values.
    pub fn new<M: Module<E> + ?Sized>(model: &M, config: AdamConfig) -> Self {
        let weights = flat_weights(model);
        let zeros = vec![E::zero(); weights.len()];
        Self { config, step: 0, first: zeros.clone(), second: zeros, average: config.ema.map(|_| weights) }
    }

    /// Steps made.
    pub fn steps(&self) -> u64 {
        self.step
    }

    /// The averaged weights, flat, if there is an average.
    pub fn average(&self) -> Option<&[E]> {
        self.average.as_deref()
    }

    /// One step down the gradient; the gradient's norm before clipping.
    ///
    /// # Errors
    /// Those of [`Module::refresh`].
    pub fn step<M: Module<E> + ?Sized>(&mut self, model: &mut M, gradients: &Gradients<E>, learning_rate: f64) -> Result<f64> {
        let AdamConfig { beta1, beta2, epsilon, weight_decay, clip, ema } = self.config;
        let norm = gradients.norm();
        self.step += 1;
        let t = self.step as f64;
        let factors = Factors {
            gradient: E::of(clip.filter(|clip| norm > *clip).map_or(1.0, |clip| clip / norm)),
            keep_first: E::of(beta1),
            keep_second: E::of(beta2),
            rate: E::of(learning_rate / (1.0 - beta1.powf(t))),
            decay: E::of(1.0 - learning_rate * weight_decay),
            correct_second: E::of(1.0 / (1.0 - beta2.powf(t))),
            epsilon: E::of(epsilon),
        };
        let mut at = 0;
        update(model, |_, entry| {
            if let EntryMut::Parameter { values, .. } = entry {
                let range = at..at + values.len();
                at = range.end;
                adam_step(
                    values,
                    &gradients.values()[range.clone()],
                    &mut self.first[range.clone()],
                    &mut self.second[range.clone()],
                    factors,
                );
                if let (Some(average), Some(keep)) = (&mut self.average, ema) {
                    average_step(&mut average[range], values, E::of(keep));
                }
            }
        })?;
        Ok(norm)
    }

    /// The state to save.
    pub fn state(&self) -> AdamState<E> {
        AdamState { step: self.step, first: self.first.clone(), second: self.second.clone(), average: self.average.clone() }
    }

    /// Goes on from a saved state.
    ///
    /// # Errors
    /// A description of what does not fit this model and these settings.
    pub fn restore(&mut self, state: AdamState<E>) -> Result<(), String> {
        let len = self.first.len();
        let sizes = [state.first.len(), state.second.len(), state.average.as_ref().map_or(len, Vec::len)];
        if sizes != [len; 3] {
            return Err(format!("optimiser moments for {len} parameters expected, got {sizes:?}"));
        }
        if state.average.is_some() != self.average.is_some() {
            return Err("the settings and the checkpoint differ in whether weights are averaged".to_owned());
        }
        let AdamState { step, first, second, average } = state;
        (self.step, self.first, self.second, self.average) = (step, first, second, average);
        Ok(())
    }
}

/// All parameters in order, flat.
pub fn flat_weights<E: Scalar, M: Module<E> + ?Sized>(model: &M) -> Vec<E> {
    let mut weights = Vec::new();
    flow_api::visit(model, |_, entry| {
        if let flow_api::Entry::Parameter { values, .. } = entry {
            weights.extend_from_slice(values);
        }
    });
    weights
}

/// Sets all parameters from a flat buffer.
///
/// # Errors
/// Those of [`Module::refresh`].
pub fn set_flat_weights<E: Scalar, M: Module<E> + ?Sized>(model: &mut M, weights: &[E]) -> Result<()> {
    let mut rest = weights;
    Ok(update(model, |_, entry| {
        if let EntryMut::Parameter { values, .. } = entry
            && rest.len() >= values.len()
        {
            let (own, later) = rest.split_at(values.len());
            values.copy_from_slice(own);
            rest = later;
        }
    })?)
}
