//! Samples that are more of their condition than the model's own: guidance.

use crate::event_batch::{EventBatch, Purpose};
use crate::{Result, TrainError};
use flow_api::noise::Stream;
use flow_api::spec::{Conditioner, Model, SpecScalar};
use flow_api::{Conditions, Context};

/// How samples are guided: towards p(x | c) (p(x | c)/p(x))ʷ.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Guidance {
    /// w, at least 0: 0 is no guidance.
    pub weight: f64,
    /// Candidates K that a sample is chosen from.
    pub candidates: usize,
}

impl Guidance {
    /// Checks the settings.
    ///
    /// # Errors
    /// [`TrainError::Setting`].
    pub fn check(self) -> Result<()> {
        let error = |field, expected: &str, got: String| Err(TrainError::Setting { field, expected: expected.to_owned(), got });
        if !(self.weight.is_finite() && self.weight >= 0.0) {
            return error("guidance", "a finite number, at least 0", self.weight.to_string());
        }
        if self.candidates == 0 {
            return error("candidates", "at least 1", "0".to_owned());
        }
        Ok(())
    }
}

/// Samples, and how many of the candidates counted.
#[derive(Clone, Debug, PartialEq)]
pub struct Guided<E> {
    /// The samples, one after the other.
    pub values: Vec<E>,
    /// Mean over the samples of the effective number of candidates, (Σ w)²/Σ w²: near 1 the choice was always of the
    /// one with the largest ratio, and more candidates would have led further.
    pub effective: f64,
}

/// A sample for each of `samples` conditions, of the density that is proportional to p(x | c) (p(x | c)/p(x))ʷ, for a
/// model that knows both: one of which a share of conditions was dropped in training.
///
/// A flow has no score to be extrapolated step by step, as guided diffusion does it (Ho and Salimans 2022,
/// arXiv:2207.12598), but it has both densities exactly. So K candidates are drawn from p(x | c) and one of them is
/// chosen with probabilities proportional to (p(x | c)/p(x))ʷ: sampling importance resampling (Rubin 1987), whose
/// samples have the guided density in the limit of many candidates, and lie between it and p(x | c) with few. At a
/// temperature other than 1 candidates are those of that temperature. Candidate k of sample i is a function of the
/// seed, i and k.
///
/// # Errors
/// [`TrainError::Unguided`] for a model that does not know p(x); as [`Model::sample`].
pub fn sample_guided<E: SpecScalar>(
    model: &Model<E>,
    given: &Conditions,
    samples: usize,
    temperature: f64,
    seed: u64,
    guidance: Guidance,
) -> Result<Guided<E>> {
    /// Candidates that are drawn at a time.
    const AT_ONCE: usize = 256;
    guidance.check()?;
    if !model.conditioner().is_some_and(Conditioner::takes_nothing) {
        return Err(TrainError::Unguided);
    }
    let Guidance { weight, candidates } = guidance;
    let dim = model.event().len();
    let stream = Stream::new(seed, 0, "guidance");
    let (mut values, mut effective) = (Vec::with_capacity(samples * dim), 0.0);
    for sample in 0..samples {
        let (mut drawn, mut ratios) = (Vec::with_capacity(candidates * dim), Vec::with_capacity(candidates));
        for first in (0..candidates).step_by(AT_ONCE) {
            let count = AT_ONCE.min(candidates - first);
            let batch = EventBatch::of_values(Vec::new(), count).given(&one_of(given, sample, samples).repeat(count));
            // A stream of its own for every sample, and a step for every part of its candidates.
            let own = |cx: Context<E>| cx.child("guidance").rooted(sample as u64).at_step(first as u64);
            let cx = own(batch.context(model, seed, Purpose::Map)?);
            let events = model.sample(count, E::of(temperature), &cx)?;
            let known = model.log_prob(events.clone(), &cx)?.value;
            let nothing = own(batch.given(&Conditions::Nothing).context(model, seed, Purpose::Map)?);
            let unknown = model.log_prob(events.clone(), &nothing)?.value;
            ratios.extend(known.iter().zip(&unknown).map(|(known, unknown)| weight * (known.as_f64() - unknown.as_f64())));
            drawn.extend(events);
        }
        let largest = ratios.iter().copied().filter(|ratio| ratio.is_finite()).fold(f64::NEG_INFINITY, f64::max);
        // What has no finite ratio is never chosen.
        let weights: Vec<f64> = ratios.iter().map(|r| if r.is_finite() { (r - largest).exp() } else { 0.0 }).collect();
        let (sum, squares) = weights.iter().fold((0.0, 0.0), |(sum, squares), w| (sum + w, squares + w * w));
        let mut uniform = [0.0_f64];
        stream.row(sample as u64).uniform(&mut uniform);
        let mut left = uniform[0] * sum;
        let chosen = weights.iter().position(|w| {
            left -= w;
            left < 0.0
        });
        let chosen = chosen.or_else(|| weights.iter().rposition(|&w| w > 0.0)).unwrap_or(0);
        values.extend_from_slice(&drawn[chosen * dim..][..dim]);
        effective += if squares > 0.0 { sum * sum / squares } else { 0.0 };
    }
    Ok(Guided { values, effective: effective / samples.max(1) as f64 })
}

/// What one of so many samples is given.
fn one_of(given: &Conditions, sample: usize, samples: usize) -> Conditions {
    match given {
        Conditions::Classes(classes) => Conditions::Classes(classes.get(sample..=sample).unwrap_or_default().to_vec()),
        Conditions::Numbers(numbers) => {
            let width = numbers.len() / samples.max(1);
            Conditions::Numbers(numbers.get(sample * width..(sample + 1) * width).unwrap_or_default().to_vec())
        }
        Conditions::Nothing => Conditions::Nothing,
    }
}
