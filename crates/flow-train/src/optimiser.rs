//! Adam on flat buffers.

use crate::{Result, TrainError};
use flow_api::device::AdamForm;
use flow_api::module::{Entry, EntryMut, StateMismatch, parameter_count, update, update_parameters, visit};
use flow_api::{FlowError, Gradients, Module, Scalar};
use flow_kernels::vectorized;
use rayon::prelude::*;

/// Adam (Kingma & Ba, arXiv:1412.6980) with gradient-norm clipping, decoupled weight decay (Loshchilov & Hutter,
/// arXiv:1711.05101) and an exponential moving average of the weights, all in one pass over the parameters.
///
/// With g the gradient times `gradient_scale`, shortened to norm `clip` if it is longer: m ← m + (1−β₁)(g − m), v ← v +
/// (1−β₂)(g² − v), θ ← θ(1 − ηλ) − η m̂/(√v̂ + ε) with m̂ = m/(1−β₁ᵗ), v̂ = v/(1−β₂ᵗ), and ema ← ema + (1−κ)(θ − ema).
/// Written so, 1 − κ is rounded once: with κ rounded to f32 first, the weights of the average would not sum to 1.
///
/// ```
/// use flow_api::layers::ActNorm;
/// use flow_api::rows::Rows;
/// use flow_api::{Gradients, Parameter};
/// use flow_train::{Adam, AdamConfig, flat_weights};
/// let mut layer = ActNorm::<f64>::new(1);
/// let mut adam = Adam::new(&layer, AdamConfig::default());
/// let mut gradients = Gradients::zeros(&layer);
/// gradients.values_mut().copy_from_slice(&[3.0, -0.5]);
/// assert_eq!(adam.step(&mut layer, &gradients, 0.1)?, 9.25_f64.sqrt());
/// // The first step has the length of the learning rate, whatever the gradient's.
/// assert!(flat_weights(&layer).iter().zip([-0.1, 0.1]).all(|(w, expected)| (w - expected).abs() < 1e-8));
/// # Ok::<(), flow_train::TrainError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Adam<E> {
    config: AdamConfig,
    step: u64,
    first: Vec<E>,
    second: Vec<E>,
    average: Option<Vec<E>>,
}

/// Settings of [`Adam`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamConfig {
    /// Factor of the gradient before everything else, norms and clipping included.
    pub gradient_scale: f64,
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
        Self { gradient_scale: 1.0, beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.0, clip: None, ema: None }
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
    toward_first: E,
    toward_second: E,
    rate: E,
    decay: E,
    correct_second: E,
    epsilon: E,
    smallest: E,
}

/// Most numbers in a piece of work: all slices of it fit into a second-level cache.
const PIECE: usize = 1 << 13;

/// Some numbers of a parameter with all that belongs to them.
struct Piece<'a, E> {
    theta: &'a mut [E],
    gradient: &'a [E],
    first: &'a mut [E],
    second: &'a mut [E],
    /// Empty if there is none.
    average: &'a mut [E],
}

vectorized! {
    /// One step, the average's too.
    fn adam_step<E: Scalar>(piece: Piece<'_, E>, f: Factors<E>, toward_average: E) {
        let Piece { theta, gradient, first, second, average } = piece;
        for (((theta, &g), m), v) in theta.iter_mut().zip(gradient).zip(first).zip(second) {
            let g = g * f.gradient;
            let first = *m + f.toward_first * (g - *m);
            // A gradient that stays zero would leave a subnormal moment for ever, which processors are many times
            // slower with.
            *m = if num_traits::Float::abs(first) < f.smallest { E::zero() } else { first };
            *v += f.toward_second * (g * g - *v);
            *theta = f.decay * *theta - f.rate * *m / (num_traits::Float::sqrt(*v * f.correct_second) + f.epsilon);
        }
        for (average, &theta) in average.iter_mut().zip(&*theta) {
            *average += toward_average * (theta - *average);
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

    /// One step down the gradient; the norm of the scaled gradient before clipping. If that is not finite, nothing has
    /// changed: a norm counts as infinite where its square, after clipping, overflows the number type, as the second
    /// moments would.
    ///
    /// # Errors
    /// [`FlowError::Shape`] for a model, or gradients of one, that this optimiser was not made for: nothing has
    /// changed. [`TrainError::Update`] with an error of [`Module::refresh`]: the step was made, with weights that the
    /// model cannot have.
    pub fn step<M: Module<E> + ?Sized>(&mut self, model: &mut M, gradients: &Gradients<E>, learning_rate: f64) -> Result<f64> {
        let AdamConfig { gradient_scale, beta1, beta2, epsilon, weight_decay, clip, ema } = self.config;
        let norm = gradients.norm() * gradient_scale;
        if !norm.is_finite() {
            return Ok(norm);
        }
        let clipped = clip.map_or(norm, |clip| norm.min(clip));
        if !num_traits::Float::is_finite(E::of(clipped * clipped)) {
            return Ok(f64::INFINITY);
        }
        // Zipped slices of other lengths would leave parameters out in silence.
        self.check("gradients", gradients.values().len())?;
        self.check("parameters", parameter_count(model))?;
        self.step += 1;
        let t = self.step as f64;
        let factors = Factors {
            gradient: E::of(gradient_scale * clip.filter(|clip| norm > *clip).map_or(1.0, |clip| clip / norm)),
            toward_first: E::of(1.0 - beta1),
            toward_second: E::of(1.0 - beta2),
            rate: E::of(learning_rate / (1.0 - beta1.powf(t))),
            decay: E::of(1.0 - learning_rate * weight_decay),
            correct_second: E::of(1.0 / (1.0 - beta2.powf(t))),
            epsilon: E::of(epsilon),
            smallest: E::min_positive_value(),
        };
        let Self { first, second, average, .. } = self;
        let (mut first, mut second, mut average) = (&mut first[..], &mut second[..], average.as_deref_mut().unwrap_or_default());
        let (mut gradient, toward_average) = (gradients.values(), E::of(1.0 - ema.unwrap_or(1.0)));
        update_parameters(model, |parameters| {
            let mut pieces = Vec::with_capacity(parameters.len());
            for theta in parameters.into_iter().flat_map(|theta| theta.chunks_mut(PIECE)) {
                let len = theta.len();
                let gradient = gradient.split_off(..len).unwrap_or_default();
                let first = first.split_off_mut(..len).unwrap_or_default();
                let second = second.split_off_mut(..len).unwrap_or_default();
                let average = average.split_off_mut(..len).unwrap_or_default();
                pieces.push(Piece { theta, gradient, first, second, average });
            }
            let step = |piece| adam_step(piece, factors, toward_average);
            if gradients.values().len() < 8 * PIECE {
                pieces.into_iter().for_each(step);
            } else {
                pieces.into_par_iter().for_each(step);
            }
        })
        .map_err(|source| TrainError::Update { step: self.step, source: Box::new(source) })?;
        Ok(norm)
    }

    /// Counts a step that was made elsewhere, with moments that [`Adam::restore`] brings.
    pub(crate) fn count(&mut self) {
        self.step += 1;
    }

    /// The settings, for a step that is made on a device.
    pub(crate) fn device_form(&self) -> AdamForm {
        let AdamConfig { gradient_scale, beta1, beta2, epsilon, weight_decay, clip, ema } = self.config;
        AdamForm { gradient_scale, betas: (beta1, beta2), epsilon, weight_decay, clip, ema }
    }

    /// As many numbers as this optimiser has moments.
    fn check(&self, what: &str, count: usize) -> Result<()> {
        let expected = self.first.len();
        if count == expected {
            return Ok(());
        }
        let (expected, got) = (format!("{expected} {what}"), format!("{count}"));
        Err(FlowError::Shape { layer: "Adam".to_owned(), operation: "step", expected, got }.into())
    }

    /// The state to save.
    pub fn state(&self) -> AdamState<E> {
        AdamState { step: self.step, first: self.first.clone(), second: self.second.clone(), average: self.average.clone() }
    }

    /// Goes on from a saved state.
    ///
    /// # Errors
    /// [`FlowError::State`] naming the buffers that do not fit this model and these settings.
    pub fn restore(&mut self, state: AdamState<E>) -> Result<()> {
        let expected = self.first.len();
        let average = |average: &Option<Vec<E>>| average.as_ref().map(Vec::len);
        let mut mismatch = StateMismatch::default();
        let buffers = [
            ("first", Some(expected), Some(state.first.len())),
            ("second", Some(expected), Some(state.second.len())),
            ("average", average(&self.average), average(&state.average)),
        ];
        for (name, here, there) in buffers.into_iter().filter(|(_, here, there)| here != there) {
            match (here, there) {
                (Some(here), Some(there)) => {
                    mismatch.different.push((name.to_owned(), format!("{here} numbers"), format!("{there} numbers")));
                }
                (Some(_), None) => mismatch.missing.push(name.to_owned()),
                _ => mismatch.unexpected.push(name.to_owned()),
            }
        }
        if !mismatch.is_empty() {
            return Err(FlowError::State(mismatch).into());
        }
        let AdamState { step, first, second, average } = state;
        (self.step, self.first, self.second, self.average) = (step, first, second, average);
        Ok(())
    }
}

/// All parameters in order, flat.
pub fn flat_weights<E: Scalar, M: Module<E> + ?Sized>(model: &M) -> Vec<E> {
    let mut weights = Vec::new();
    visit(model, |_, entry| {
        if let Entry::Parameter { values, .. } = entry {
            weights.extend_from_slice(values);
        }
    });
    weights
}

/// Sets all parameters from a flat buffer, as [`flat_weights`] gives it.
///
/// # Errors
/// [`FlowError::State`] for a buffer of another length, and those of [`Module::refresh`].
pub fn set_flat_weights<E: Scalar, M: Module<E> + ?Sized>(model: &mut M, weights: &[E]) -> Result<()> {
    let count = parameter_count(model);
    if count != weights.len() {
        let different = vec![("weights".to_owned(), format!("{count} numbers"), format!("{} numbers", weights.len()))];
        return Err(FlowError::State(StateMismatch { different, ..StateMismatch::default() }).into());
    }
    let mut rest = weights;
    Ok(update(model, |_, entry| {
        if let EntryMut::Parameter { values, .. } = entry {
            let (own, later) = rest.split_at(values.len());
            values.copy_from_slice(own);
            rest = later;
        }
    })?)
}
