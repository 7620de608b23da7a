//! How good a model is, how fast, and how exactly it inverts.

use crate::data::{Dataset, each_once};
use crate::events::Events;
use crate::{Result, TrainError};
use flow_api::spec::{Model, SpecScalar};
use flow_api::{Bijector, Context, FlowError, to_host};
use serde::{Deserialize, Serialize};
use std::time::Instant;

/// How to evaluate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EvaluateOptions {
    /// Items in a batch.
    pub batch: usize,
    /// Draws of dequantisation noise that an item's likelihood is averaged over.
    pub dequantisations: u64,
    /// Seed of estimators' noise and of samples.
    pub seed: u64,
    /// Items whose reconstruction f⁻¹(f(x)) is compared.
    pub inverted_items: usize,
    /// Samples that are drawn for the time that they take.
    pub timed_samples: usize,
    /// Only the likelihood: no reconstruction, no samples.
    pub likelihood_alone: bool,
}

impl Default for EvaluateOptions {
    fn default() -> Self {
        Self { batch: 128, dequantisations: 1, seed: 0, inverted_items: 256, timed_samples: 128, likelihood_alone: false }
    }
}

/// What an evaluation found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Items that were scored.
    pub items: usize,
    /// Unit of `loss` and `standard_error`: bits/dim for discrete data, nats for continuous data.
    pub unit: String,
    /// Mean over the items of the mean over dequantisations.
    pub loss: f64,
    /// Standard error of that mean over items.
    pub standard_error: f64,
    /// Mean log-likelihood of an item in nats, preprocessing included.
    pub log_likelihood: f64,
    /// Root mean square over items of the log-det estimate's own standard error in nats; none where log-dets are exact.
    pub log_det_standard_error: Option<f64>,
    /// Share of item draws whose likelihood is not a number.
    pub non_finite: f64,
    /// Largest |z|.
    pub largest_latent: f64,
    /// Largest |f⁻¹(f(x)) − x|.
    pub inverse_error: Option<f64>,
    /// Evaluations of residual branches and vector fields in a forward pass, the most that any block took, summed over layers.
    pub evaluations: usize,
    /// Items scored a second.
    pub scored_per_second: f64,
    /// Samples drawn a second.
    pub sampled_per_second: Option<f64>,
}

/// The likelihood of every item in nats, preprocessing included, averaged over draws of dequantisation noise; NaN where no draw gave a number.
#[derive(Clone, Debug, PartialEq)]
pub struct Scores {
    /// Per item.
    pub log_likelihood: Vec<f64>,
    /// Squared standard errors of log-det estimates per item, averaged like the likelihood.
    pub log_det_variance: Option<Vec<f64>>,
    /// Draws that gave no number.
    pub non_finite: usize,
    /// Largest |z|.
    pub largest_latent: f64,
    /// Most evaluations in a batch.
    pub evaluations: usize,
    /// Seconds spent in the model.
    pub seconds: f64,
}

/// Scores every item of a data set.
///
/// # Errors
/// Data that cannot be read or does not fit; failures of layers other than non-finite numbers, which are counted.
pub fn score<E: SpecScalar>(model: &Model<E>, data: &dyn Dataset, events: &Events, options: &EvaluateOptions) -> Result<Scores> {
    if options.batch == 0 || options.dequantisations == 0 {
        let (field, got) = if options.batch == 0 { ("batch", 0) } else { ("dequantisations", options.dequantisations) };
        return Err(TrainError::Setting { field, expected: "at least 1".to_owned(), got: got.to_string() });
    }
    events.check(model.event())?;
    let events = events.for_evaluation();
    let cx = Context::new(options.seed);
    // Noise matters to discrete data alone.
    let draws = if events.levels().is_some() { options.dequantisations } else { 1 };
    let mut sums = vec![(0.0, 0_u32); data.len()];
    let mut variances = vec![0.0; data.len()];
    let (mut estimated, mut non_finite, mut largest, mut evaluations, mut seconds) = (false, 0, 0.0_f64, 0, 0.0);
    for epoch in 0..draws {
        for batch in each_once(data.len(), options.batch, epoch) {
            let drawn = data.batch(&batch)?;
            let (values, preprocessing) = events.of::<E>(&drawn)?;
            let dim = model.event().len();
            let began = Instant::now();
            let whole = model.log_prob(values.clone(), &cx);
            seconds += began.elapsed().as_secs_f64();
            // One sample that is not a number must not hide the others: then each is scored alone.
            let parts: Vec<_> = match whole {
                Ok(scores) => vec![(0, Ok(scores))],
                Err(FlowError::NotFinite { .. }) => {
                    values.chunks_exact(dim).enumerate().map(|(i, x)| (i, model.log_prob(x.to_vec(), &cx))).collect()
                }
                Err(other) => return Err(other.into()),
            };
            for (first, part) in parts {
                match part {
                    Ok(scores) => {
                        largest = largest.max(scores.largest_latent.as_f64());
                        evaluations = evaluations.max(scores.report.evaluations);
                        for (i, log_prob) in scores.value.iter().enumerate() {
                            let at = first + i;
                            let total = log_prob.as_f64() + preprocessing[at].as_f64();
                            let item = batch[at].index;
                            if total.is_finite() {
                                sums[item].0 += total;
                                sums[item].1 += 1;
                            } else {
                                non_finite += 1;
                            }
                            if let Some(errors) = &scores.standard_error {
                                estimated = true;
                                variances[item] += errors[i].as_f64().powi(2) / (draws * draws) as f64;
                            }
                        }
                    }
                    Err(FlowError::NotFinite { .. }) => non_finite += 1,
                    Err(other) => return Err(other.into()),
                }
            }
        }
    }
    let log_likelihood = sums.iter().map(|&(sum, count)| sum / f64::from(count)).collect();
    let log_det_variance = estimated.then_some(variances);
    Ok(Scores { log_likelihood, log_det_variance, non_finite, largest_latent: largest, evaluations, seconds })
}

/// Evaluates a model on a data set.
///
/// # Errors
/// As [`score`].
pub fn evaluate<E: SpecScalar>(model: &Model<E>, data: &dyn Dataset, events: &Events, options: &EvaluateOptions) -> Result<Evaluation> {
    let scores = score(model, data, events, options)?;
    let losses: Vec<f64> = scores.log_likelihood.iter().filter(|l| l.is_finite()).map(|&l| events.report(l)).collect();
    let count = losses.len().max(1) as f64;
    let loss = losses.iter().sum::<f64>() / count;
    let variance = losses.iter().map(|l| (l - loss).powi(2)).sum::<f64>() / (count - 1.0).max(1.0);
    let likelihoods = scores.log_likelihood.iter().filter(|l| l.is_finite());
    let draws = data.len() as f64 * if events.levels().is_some() { options.dequantisations as f64 } else { 1.0 };
    let (inverse_error, sampled_per_second) = if options.likelihood_alone {
        (None, None)
    } else {
        let began = Instant::now();
        model.sample(options.timed_samples, E::one(), &Context::new(options.seed))?;
        (Some(inverse_error(model, data, events, options)?), Some(options.timed_samples as f64 / began.elapsed().as_secs_f64()))
    };
    Ok(Evaluation {
        items: data.len(),
        unit: events.unit().to_owned(),
        loss: if losses.is_empty() { f64::NAN } else { loss },
        standard_error: (variance / count).sqrt(),
        log_likelihood: likelihoods.sum::<f64>() / count,
        log_det_standard_error: scores.log_det_variance.map(|v| (v.iter().sum::<f64>() / v.len().max(1) as f64).sqrt()),
        non_finite: scores.non_finite as f64 / draws,
        largest_latent: scores.largest_latent,
        inverse_error,
        evaluations: scores.evaluations,
        scored_per_second: draws / scores.seconds,
        sampled_per_second,
    })
}

/// Largest |f⁻¹(f(x)) − x| over the first items.
fn inverse_error<E: SpecScalar>(model: &Model<E>, data: &dyn Dataset, events: &Events, options: &EvaluateOptions) -> Result<f64> {
    let events = events.for_evaluation();
    let cx = Context::new(options.seed).child("bijector");
    let mut largest = 0.0_f64;
    for batch in each_once(options.inverted_items.min(data.len()), options.batch, 0) {
        let (values, _) = events.of::<E>(&data.batch(&batch)?)?;
        let bijector = model.flow().bijector();
        let z = bijector.forward(model.batch(values.clone())?, &cx)?.value;
        let back = to_host(&bijector.inverse(z, &cx)?.value);
        for (a, b) in back.iter().zip(&values) {
            let error = (a.as_f64() - b.as_f64()).abs();
            largest = if error.is_nan() { f64::NAN } else { largest.max(error) };
        }
    }
    Ok(largest)
}
