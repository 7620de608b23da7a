//! How good a model is, how fast, and how exactly it inverts.

use crate::classify::{ClassLogProbs, Classification, MeanProbs};
use crate::data::{Batch, Dataset, each_once};
use crate::error::Item;
use crate::event_batch::{EventBatch, Purpose, ScoredGiven};
use crate::events::Events;
use crate::given::conditions_of_items;
use crate::mean::Mean;
use crate::text::number_or_null;
use crate::{Result, TrainError};
use flow_api::bijector::leads_to;
use flow_api::flow::LogProb;
use flow_api::log_det::LogDetKind;
use flow_api::spec::{Model, SpecScalar};
use flow_api::{Bijector as _, FlowError};
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// How to evaluate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EvaluateOptions {
    /// Items in a batch.
    pub batch: usize,
    /// Draws of dequantisation noise that an item's log-likelihood is averaged over: more of them steady the bound
    /// ([`Evaluation::loss`]) but do not tighten it.
    pub dequantisations: u64,
    /// Independent estimates of every item's log-det that are averaged, at the least, where log-dets are estimates;
    /// each is a pass over the data.
    ///
    /// They are what the error of a single item rests on. A layer that estimates with two probes knows its spread to
    /// one degree of freedom, and not at all where both probes agree: in a model of one such layer, the truth is more
    /// than two standard errors away for 30 % of items (Student's t), and more in few dimensions. After 16 estimates it
    /// is for 6 to 7 %. Means over items, such as [`Evaluation::log_det_standard_error`], need no more than one.
    pub estimates: u64,
    /// Seed of estimators' noise and of samples.
    pub seed: u64,
    /// Items whose reconstruction f⁻¹(f(x)) is compared.
    pub inverted_items: usize,
    /// Samples in a timed draw.
    pub timed_samples: usize,
    /// Only the likelihood: no reconstruction, no samples.
    pub likelihood_alone: bool,
    /// What items are given when they are scored, by a model that is conditioned on something.
    pub given: ScoredGiven,
}

impl Default for EvaluateOptions {
    fn default() -> Self {
        Self {
            batch: 128,
            dequantisations: 1,
            estimates: 1,
            seed: 0,
            inverted_items: 256,
            timed_samples: 128,
            likelihood_alone: false,
            given: ScoredGiven::Own,
        }
    }
}

impl EvaluateOptions {
    pub(crate) fn check(&self) -> Result<()> {
        for (field, value) in [
            ("batch", self.batch as u64),
            ("dequantisations", self.dequantisations),
            ("estimates", self.estimates),
            ("inverted_items", self.inverted_items as u64),
            ("timed_samples", self.timed_samples as u64),
        ] {
            if value == 0 {
                return Err(TrainError::Setting { field, expected: "at least 1".to_owned(), got: "0".to_owned() });
            }
        }
        Ok(())
    }

    /// Noise matters to discrete data alone.
    pub(crate) fn draws(&self, events: &Events) -> u64 {
        if events.is_dequantised() { self.dequantisations } else { 1 }
    }

    /// Passes over the data: every draw of noise as often, and estimates in every pass.
    fn passes<E: SpecScalar>(&self, model: &Model<E>, events: &Events) -> u64 {
        let draws = self.draws(events);
        match model.flow().bijector().facts().log_det {
            LogDetKind::Estimate => draws.saturating_mul(self.estimates.div_ceil(draws)),
            LogDetKind::Exact | LogDetKind::Solved => draws,
        }
    }
}

/// What an evaluation found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Items that were scored.
    pub items: usize,
    /// Unit of `loss` and `standard_error`: bits/dim for discrete data, nats for continuous data.
    pub unit: String,
    /// Mean over the items of the mean over dequantisations, of those that are finite; NaN if none is. Noise is
    /// uniform, so that of discrete data it is in expectation an upper bound on the discrete code length, however many
    /// draws there are: log-likelihoods are averaged, not importance-weighted
    /// ([`bits_per_dim`](crate::data::bits_per_dim)).
    #[serde(deserialize_with = "number_or_null")]
    pub loss: f64,
    /// Standard error of that mean over items, items of one source ([`Dataset::source`]) counted as dependent (Liang
    /// and Zeger 1986, *Longitudinal data analysis using generalized linear models*, with the factor G/(G − 1) of G
    /// sources); NaN of a single source.
    #[serde(deserialize_with = "number_or_null")]
    pub standard_error: f64,
    /// Mean log-likelihood of an item in nats, preprocessing included: of discrete data the lower bound on that of the
    /// value, whose bits per dimension `loss` is.
    #[serde(deserialize_with = "number_or_null")]
    pub log_likelihood: f64,
    /// Root mean square over items of the log-det estimate's own standard error in nats; none where log-dets are exact.
    pub log_det_standard_error: Option<f64>,
    /// What ODE solvers estimate to have left of error in an item's log-det, in nats, of the worst item; 0 without such
    /// layers, NaN where a solver has no estimate
    /// ([`SolveReport::log_det_error`](flow_api::log_det::SolveReport::log_det_error)).
    #[serde(default, deserialize_with = "number_or_null")]
    pub log_det_solver_error: f64,
    /// Share of item draws whose likelihood is not finite, or that a layer failed on.
    pub non_finite: f64,
    /// The first item that a layer failed on, with the layer's own words.
    #[serde(default)]
    pub failure: Option<String>,
    /// Largest |z|.
    pub largest_latent: f64,
    /// Evaluations of residual branches and vector fields in a forward pass, the most that any block took, summed over
    /// layers; 0 for closed forms.
    pub evaluations: usize,
    /// Items scored a second, reading and dequantisation not counted.
    pub scored_per_second: f64,
    /// How the inverse did; none where only the likelihood was asked for.
    pub inverse: Option<Inverse>,
    /// How good the model's classifier is on those items that have a label; none of a model without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classification: Option<Classification>,
}

impl Evaluation {
    /// `loss ± standard error` with this many decimals, and `–` for a standard error that is unknown.
    pub fn loss_text(&self, decimals: usize) -> String {
        let Self { loss, standard_error, .. } = self;
        let error = if standard_error.is_nan() { DASH.to_owned() } else { format!("{standard_error:.decimals$}") };
        format!("{loss:.decimals$} ± {error}")
    }
}

/// Stands where there is no number.
pub(crate) const DASH: &str = "–";

/// How the inverse of a model did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Inverse {
    /// Largest |f⁻¹(f(x)) − x| over items and dimensions.
    #[serde(deserialize_with = "number_or_null")]
    pub error: f64,
    /// Evaluations in an inverse pass, counted like [`Evaluation::evaluations`].
    pub evaluations: usize,
    /// Samples drawn a second.
    #[serde(deserialize_with = "number_or_null")]
    pub sampled_per_second: f64,
    /// Why a figure is NaN, if one is: the layer's own words.
    pub failure: Option<String>,
}

/// The likelihood of every item.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scores {
    /// Log-density per item in nats, preprocessing included, averaged over those passes (draws of dequantisation noise,
    /// estimates) that gave a finite one; NaN where none did.
    pub log_likelihood: Vec<f64>,
    /// Squared standard error of the log-det estimate per item, of the average over passes; none where log-dets are
    /// exact. Unbiased; what it says of a single item depends on [`EvaluateOptions::estimates`].
    pub log_det_variance: Option<Vec<f64>>,
    /// The class of each item, an index into the set's classes; none for an item without a label.
    pub labels: Vec<Option<usize>>,
    /// Log-probabilities of the model's classes, of means over passes; none of a model without a classifier.
    pub class_log_probs: Option<ClassLogProbs>,
    /// Draws that gave no finite number.
    pub non_finite: u64,
    /// The first item that a layer failed on, or that lies where there is no density, with the layer's own words.
    pub failure: Option<String>,
    /// Largest |z|.
    pub largest_latent: f64,
    /// Most evaluations in a batch.
    pub evaluations: usize,
    /// The largest [`SolveReport::log_det_error`](flow_api::log_det::SolveReport::log_det_error) of a batch.
    pub log_det_solver_error: f64,
    /// Seconds spent in the model.
    pub seconds: f64,
}

impl Scores {
    /// Adds the results of a part of a batch to the sums that its items, from the first, have so far.
    fn add<E: SpecScalar>(&mut self, sums: &mut [Sum], items: &[usize], preprocessing: &[E], part: &LogProb<E>) {
        self.largest_latent = self.largest_latent.max(part.largest_latent.as_f64());
        self.evaluations = self.evaluations.max(part.report.evaluations);
        self.log_det_solver_error = self.log_det_solver_error.max(part.report.log_det_error);
        if part.standard_error.is_some() {
            self.log_det_variance.get_or_insert_default();
        }
        for (i, (&item, log_prob)) in items.iter().zip(&part.value).enumerate() {
            let total = log_prob.as_f64() + preprocessing[i].as_f64();
            if total.is_finite() {
                sums[item].total += total;
                sums[item].count += 1.0;
                sums[item].variance += part.standard_error.as_ref().map_or(0.0, |errors| errors[i].as_f64().powi(2));
            } else {
                self.non_finite += 1;
            }
        }
    }
}

/// Of the finite draws of one item.
#[derive(Clone, Copy, Default)]
struct Sum {
    total: f64,
    count: f64,
    variance: f64,
}

/// Area under the ROC curve of telling `unusual` items from `usual` ones by their log-likelihood: the probability that
/// an item of the first is less likely than one of the second, ties counted half. ½ is chance, 1 is a perfect order. A
/// likelihood that is not a number counts as the lowest; NaN if either list is empty.
///
/// It is the Mann–Whitney statistic U over the number of pairs (Hanley and `McNeil`, *The meaning and use of the area
/// under a ROC curve*, 1982).
///
/// ```
/// assert_eq!(flow_train::auroc(&[-1.0, -2.0], &[-3.0, -9.0]), 1.0);
/// assert_eq!(flow_train::auroc(&[-1.0, -3.0], &[-2.0, f64::NAN]), 0.75);
/// assert_eq!(flow_train::auroc(&[-1.0], &[-1.0]), 0.5);
/// ```
pub fn auroc(usual: &[f64], unusual: &[f64]) -> f64 {
    let key = |density: &f64| if density.is_nan() { f64::NEG_INFINITY } else { *density };
    let mut usual: Vec<f64> = usual.iter().map(key).collect();
    usual.sort_by(f64::total_cmp);
    let above = |density: f64| {
        let (below, up_to) = (usual.partition_point(|u| *u < density), usual.partition_point(|u| *u <= density));
        (usual.len() - up_to) as f64 + 0.5 * (up_to - below) as f64
    };
    unusual.iter().map(|density| above(key(density))).sum::<f64>() / (usual.len() as f64 * unusual.len() as f64)
}

/// Whether an error is due to the values of one item: numbers that are not finite, or a solve that fails.
pub(crate) fn is_of_an_item(error: &FlowError) -> bool {
    use FlowError::{NotConverged, NotFinite, StepUnderflow, TooManyEvaluations};
    matches!(error, NotFinite { .. } | NotConverged { .. } | StepUnderflow { .. } | TooManyEvaluations { .. })
}

/// Whether an error says that an item lies where the model has no density: outside the box of a base density, or of
/// what a flow is defined on.
pub(crate) fn is_outside(error: &FlowError) -> bool {
    let FlowError::Domain { layer, .. } = error else { return false };
    ["base", "bijector"].iter().any(|part| leads_to(part, layer))
}

/// Scores every item of a data set: its log-likelihood in nats, preprocessing included. One whose numbers are not
/// finite, or for which a solve fails, is counted and has no likelihood: NaN. One that lies where the model has no
/// density, such as outside the box of a uniform base, is counted and has the log-likelihood −∞.
///
/// ```
/// use flow_api::spec::{EventShape, ModelSpec, Spec, from_ron};
/// use flow_train::data::DataSource;
/// use flow_train::{EvaluateOptions, Events, score};
/// let spec: Spec<dyn ModelSpec> = from_ron("VectorFlow(flows: [LuLinear()])")?; // the identity, until it is trained
/// let model = spec.build::<f64>(EventShape::Vector(2), 7)?;
/// let source: DataSource = "toy:two-moons?n=500".parse()?;
/// let test = source.open(1)?.test;
/// let events = Events::new(test.as_ref(), model.preprocessing(), 0)?;
/// let scores = score(&model, test.as_ref(), &events, &EvaluateOptions::default())?;
/// assert_eq!(scores.log_likelihood.len(), test.len());
/// assert_eq!(scores.non_finite, 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// Data that cannot be read or does not fit; other failures of layers.
pub fn score<E: SpecScalar>(model: &Model<E>, data: &dyn Dataset, events: &Events, options: &EvaluateOptions) -> Result<Scores> {
    score_with(model, data, events, options, &AtomicBool::new(false), &mut |_| Ok(()))
}

/// As [`score`], but it ends with [`TrainError::Stopped`] when `stop` is raised; `each` sees every batch as it is read.
pub(crate) fn score_with<E: SpecScalar>(
    model: &Model<E>,
    data: &dyn Dataset,
    events: &Events,
    options: &EvaluateOptions,
    stop: &AtomicBool,
    each: &mut dyn FnMut(&Batch) -> Result<()>,
) -> Result<Scores> {
    let check = || check(stop);
    options.check()?;
    let events = events.evaluating(data, model, options.given)?;
    let mut sums = vec![Sum::default(); data.len()];
    let mut scores = Scores {
        log_likelihood: Vec::new(),
        log_det_variance: None,
        labels: vec![None; data.len()],
        class_log_probs: None,
        non_finite: 0,
        failure: None,
        largest_latent: 0.0,
        evaluations: 0,
        log_det_solver_error: 0.0,
        seconds: 0.0,
    };
    let mut probabilities = model.head().map(|head| MeanProbs::new(data.len(), head.classes()));
    let mut classify = |items: &[usize], logits: Option<Vec<E>>| {
        if let Some((mean, logits)) = probabilities.as_mut().zip(logits) {
            mean.add(items, &ClassLogProbs::of_logits(logits.iter().map(|logit| logit.as_f64()), logits.len() / items.len().max(1)));
        }
    };
    let batches = data.len().div_ceil(options.batch) as u64;
    let (noises, passes) = (options.draws(&events), options.passes(model, &events));
    for (number, draws) in each_once(data.len(), options.batch).enumerate() {
        let items: Vec<usize> = draws.iter().map(|draw| draw.index).collect();
        // The items are read once: only what is added to them below is drawn again.
        let mut batch = data.batch(&draws)?;
        each(&batch)?;
        items.iter().zip(&batch.labels).for_each(|(&item, &label)| scores.labels[item] = label);
        for pass in 0..passes {
            check()?;
            // Every batch has noise of its own, so that errors of estimates are independent over items.
            let purpose = Purpose::Evaluate { pass: pass * batches + number as u64 };
            batch.draws.iter_mut().for_each(|draw| draw.epoch = pass % noises);
            let whole = options.given.to(events.of::<E>(&batch)?);
            let cx = whole.context(model, options.seed, purpose)?;
            let began = Instant::now();
            let found = model.log_prob_and_logits(whole.values.clone(), &cx);
            scores.seconds += began.elapsed().as_secs_f64();
            match found {
                Ok((part, logits)) => {
                    scores.add(&mut sums, &items, &whole.log_det, &part);
                    classify(&items, logits);
                }
                // One item that cannot be scored must not hide the others: each is scored alone, with noise of its own.
                Err(error) if is_of_an_item(&error) || is_outside(&error) => {
                    for i in 0..whole.len() {
                        check()?;
                        let event = whole.only(i);
                        let cx = event.context(model, options.seed, purpose)?.rooted(i as u64);
                        match model.log_prob_and_logits(event.values, &cx) {
                            Ok((part, logits)) => {
                                scores.add(&mut sums, &items[i..=i], &event.log_det, &part);
                                classify(&items[i..=i], logits);
                            }
                            Err(error) if is_of_an_item(&error) || is_outside(&error) => {
                                scores.non_finite += 1;
                                if is_outside(&error) {
                                    sums[items[i]].total = f64::NEG_INFINITY;
                                    sums[items[i]].count += 1.0;
                                }
                                let item = Item { index: data.row(items[i]), name: data.item_name(items[i]) };
                                scores.failure.get_or_insert_with(|| format!("{item}: {error}"));
                            }
                            Err(other) => return Err(other.into()),
                        }
                    }
                }
                Err(other) => return Err(other.into()),
            }
        }
    }
    scores.class_log_probs = probabilities.map(MeanProbs::log_probs);
    scores.log_likelihood = sums.iter().map(|sum| sum.total / sum.count).collect();
    if let Some(variance) = &mut scores.log_det_variance {
        *variance = sums.iter().map(|sum| sum.variance / (sum.count * sum.count)).collect();
    }
    Ok(scores)
}

/// Evaluates a model on a data set: its loss, how exactly it inverts, and how fast it scores and samples.
///
/// ```
/// use flow_api::spec::{EventShape, ModelSpec, Spec, from_ron};
/// use flow_train::data::DataSource;
/// use flow_train::{EvaluateOptions, Events, evaluate};
/// let spec: Spec<dyn ModelSpec> = from_ron("VectorFlow(flows: [LuLinear()])")?; // the identity, until it is trained
/// let model = spec.build::<f64>(EventShape::Vector(2), 7)?;
/// let source: DataSource = "toy:two-moons?n=500".parse()?;
/// let test = source.open(1)?.test;
/// let events = Events::new(test.as_ref(), model.preprocessing(), 0)?;
/// let found = evaluate(&model, test.as_ref(), &events, &EvaluateOptions::default())?;
/// assert_eq!((found.items, found.unit.as_str()), (test.len(), "nats"));
/// println!("{:.3} ± {:.3} {}", found.loss, found.standard_error, found.unit);
/// assert!(found.inverse.is_some_and(|inverse| inverse.error < 1e-12));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// As [`score`]. An inverse that fails is told in [`Inverse::failure`].
pub fn evaluate<E: SpecScalar>(model: &Model<E>, data: &dyn Dataset, events: &Events, options: &EvaluateOptions) -> Result<Evaluation> {
    evaluate_until(model, data, events, options, &AtomicBool::new(false))
}

/// [`TrainError::Stopped`] when `stop` is raised.
fn check(stop: &AtomicBool) -> Result<()> {
    if stop.load(Ordering::Relaxed) { Err(TrainError::Stopped) } else { Ok(()) }
}

/// As [`evaluate`], but it ends with [`TrainError::Stopped`] when `stop` is raised.
///
/// # Errors
/// As [`evaluate`], and [`TrainError::Stopped`].
pub(crate) fn evaluate_until<E: SpecScalar>(
    model: &Model<E>,
    data: &dyn Dataset,
    events: &Events,
    options: &EvaluateOptions,
    stop: &AtomicBool,
) -> Result<Evaluation> {
    let scores = score_with(model, data, events, options, stop, &mut |_| Ok(()))?;
    let finite = scores.log_likelihood.iter().copied().enumerate().filter(|(_, l)| l.is_finite());
    let Mean { value: mean, error } = Mean::of(finite.map(|(item, l)| (data.source(item), l)));
    let classification = classification(&scores, data, events)?;
    let unit_of_nats = events.report(0.0) - events.report(1.0);
    let draws = data.len() as f64 * options.passes(model, events) as f64;
    Ok(Evaluation {
        items: data.len(),
        unit: events.unit().to_owned(),
        loss: events.report(mean),
        standard_error: error * unit_of_nats,
        log_likelihood: -events.report(mean) / unit_of_nats,
        log_det_standard_error: scores.log_det_variance.map(|v| {
            let finite: Vec<f64> = v.into_iter().filter(|v| v.is_finite()).collect();
            (finite.iter().sum::<f64>() / finite.len() as f64).sqrt()
        }),
        log_det_solver_error: if scores.log_det_solver_error.is_finite() { scores.log_det_solver_error } else { f64::NAN },
        non_finite: scores.non_finite as f64 / draws.max(1.0),
        failure: scores.failure,
        largest_latent: scores.largest_latent,
        evaluations: scores.evaluations,
        scored_per_second: draws / scores.seconds,
        inverse: if options.likelihood_alone { None } else { Some(invert(model, data, events, options, stop)?) },
        classification,
    })
}

/// How good class probabilities are, where there are some.
fn classification(scores: &Scores, data: &dyn Dataset, events: &Events) -> Result<Option<Classification>> {
    let Some(log_probs) = &scores.class_log_probs else { return Ok(None) };
    let numbers = events.record().class_numbers(data)?;
    let labels: Vec<Option<usize>> = scores.labels.iter().map(|label| numbers.get((*label)?).copied()).collect();
    Ok(log_probs.classification(&labels, |item| data.source(item)))
}

/// Measures the inverse: a layer's failure is a finding.
fn invert<E: SpecScalar>(
    model: &Model<E>,
    data: &dyn Dataset,
    events: &Events,
    options: &EvaluateOptions,
    stop: &AtomicBool,
) -> Result<Inverse> {
    let mut inverse = Inverse { error: f64::NAN, evaluations: 0, sampled_per_second: f64::NAN, failure: None };
    let found = reconstruct(model, data, events, options, stop, &mut inverse).and_then(|()| {
        inverse.sampled_per_second = samples_per_second(model, data, events, options, stop)?;
        Ok(())
    });
    match found {
        Err(TrainError::Flow(error)) => inverse.failure = Some(error.to_string()),
        other => other?,
    }
    Ok(inverse)
}

fn reconstruct<E: SpecScalar>(
    model: &Model<E>,
    data: &dyn Dataset,
    events: &Events,
    options: &EvaluateOptions,
    stop: &AtomicBool,
    inverse: &mut Inverse,
) -> Result<()> {
    let events = events.evaluating(data, model, options.given)?;
    let mut largest = 0.0_f64;
    for batch in each_once(options.inverted_items.min(data.len()), options.batch) {
        check(stop)?;
        let events = options.given.to(events.of::<E>(&data.batch(&batch)?)?);
        let cx = events.context(model, options.seed, Purpose::Evaluate { pass: 0 })?;
        let at = model.conditioned(events.len(), &cx)?;
        let z = model.flow().encode(model.batch(events.values.clone())?, at.cx())?.value;
        let back = model.flow().decode(z, at.cx())?;
        inverse.evaluations = inverse.evaluations.max(back.report.evaluations);
        for (a, b) in flow_api::to_host(&back.value).iter().zip(&events.values) {
            let error = (a.as_f64() - b.as_f64()).abs();
            // `f64::max` would drop a NaN.
            largest = if error > largest || error.is_nan() { error } else { largest };
        }
        if largest.is_nan() {
            break;
        }
    }
    inverse.error = largest;
    Ok(())
}

fn samples_per_second<E: SpecScalar>(
    model: &Model<E>,
    data: &dyn Dataset,
    events: &Events,
    options: &EvaluateOptions,
    stop: &AtomicBool,
) -> Result<f64> {
    /// Shorter times are mostly noise.
    const LEAST_SECONDS: f64 = 0.1;
    let samples = options.timed_samples;
    let items = conditions_of_items(model, data, &events.with_classes_of(data), samples)?;
    let given = options.given.to(EventBatch::of_values(Vec::new(), samples).given(&items));
    let draw = |pass| -> Result<Vec<E>> {
        let cx = given.context(model, options.seed, Purpose::Evaluate { pass })?;
        Ok(model.sample(given.len(), E::one(), &cx)?)
    };
    check(stop)?;
    draw(0)?; // memory is taken from the system once
    let began = Instant::now();
    let mut draws = 0;
    while began.elapsed().as_secs_f64() < LEAST_SECONDS {
        draws += 1;
        check(stop)?;
        draw(draws)?;
    }
    Ok(draws as f64 * options.timed_samples as f64 / began.elapsed().as_secs_f64())
}
