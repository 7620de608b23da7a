//! A linear probe: multinomial logistic regression on frozen latents or activations.

use super::{ClassLogProbs, Classification};
use crate::data::{Dataset, Split, Subset, each_once};
use crate::{Events, Result, Settings, TrainError, embed, hold_out};
use argmin::core::{CostFunction, Executor, Gradient, State as _};
use argmin::solver::linesearch::MoreThuenteLineSearch;
use argmin::solver::quasinewton::LBFGS;
use flow_api::spec::{Model, SpecScalar};
use flow_api::threads::parallel;
use flow_kernels::matmul::{Accumulate, Operand, matmul};
use flow_kernels::simd;
use serde::{Deserialize, Serialize};
use std::cell::RefCell;

/// Penalties that are tried, from strong to weak, each fit beginning where the one before it ended.
const PENALTIES: [f64; 9] = [1.0, 0.3, 0.1, 0.03, 0.01, 1e-3, 1e-4, 1e-5, 1e-6];

/// Items whose logits are computed at a time: it decides the order of sums, and so does not depend on threads.
const ROWS: usize = 256;

/// Share of the training items that the penalty is chosen on, where the source holds none out itself.
const HELD_OUT: f64 = 0.2;

/// How to probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeOptions {
    /// The layer whose activations are classified, as [`embed`] takes it: `bijector` for the latents.
    pub layer: String,
    /// Items that go through the model at a time.
    pub batch: usize,
}

impl Default for ProbeOptions {
    fn default() -> Self {
        Self { layer: "bijector".to_owned(), batch: 128 }
    }
}

/// The held-out cross-entropy that a penalty reached.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tried {
    /// λ.
    pub penalty: f64,
    /// In nats.
    pub held_out: f64,
}

/// What a probe found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Probe {
    /// The layer whose activations were classified.
    pub layer: String,
    /// Numbers in an item's activations.
    pub features: usize,
    /// The λ that was chosen.
    pub penalty: f64,
    /// All that were tried, with what each reached on the held-out items.
    pub tried: Vec<Tried>,
    /// Held-out items that λ was chosen on.
    pub held_out: usize,
    /// On the items that the probe was fitted to: those to train on with those held out, by the chosen λ.
    pub train: Classification,
    /// On the test items, if any has a label.
    pub test: Option<Classification>,
}

/// Fits logits V x + c to the labels of `train`, where x are the activations of items behind a layer, every feature
/// scaled to mean 0 and standard deviation 1 over the items that are fitted to, by minimising the mean cross-entropy +
/// λ/2 ‖V‖² with L-BFGS (Nocedal and Wright 2006, chapter 7). λ is that of the smallest cross-entropy on `held_out`, of
/// nine between 1 and 10⁻⁶; the probe is then fitted to both parts with it.
///
/// Items without a label are left out.
///
/// # Errors
/// Data that cannot be read or does not fit, a layer that is not there, and [`TrainError::Probe`] where fewer than two
/// classes have items to fit to, none has items to choose λ on, or activations are not finite.
pub fn probe<E: SpecScalar>(
    model: &Model<E>,
    events: &Events,
    [train, held_out, test]: [&dyn Dataset; 3],
    options: &ProbeOptions,
) -> Result<Probe> {
    let classes = train.classes().len();
    let read = |data| Labelled::read(model, events, data, options);
    let (mut fitted, mut chosen_on, mut tested) = (read(train)?, read(held_out)?, read(test)?);
    let distinct: std::collections::BTreeSet<usize> = fitted.labels.iter().copied().collect();
    if distinct.len() < 2 {
        let count = fitted.labels.len();
        return Err(TrainError::Probe(format!("expected items of at least 2 classes to fit to, got {count} of {}", distinct.len())));
    }
    if chosen_on.labels.is_empty() {
        return Err(TrainError::Probe("expected held-out items with a label to choose the penalty on, got none".to_owned()));
    }
    let scale = Scale::of(&fitted);
    [&mut fitted, &mut chosen_on, &mut tested].into_iter().for_each(|part| scale.apply(part));
    let mut weights = vec![0.0; classes * (fitted.features + 1)];
    let mut tried = Vec::with_capacity(PENALTIES.len());
    for penalty in PENALTIES {
        weights = fit(&fitted, classes, penalty, weights)?;
        let held_out = chosen_on.log_probs(&weights, classes).classification(&chosen_on.known(), |i| chosen_on.sources[i]);
        tried.push((Tried { penalty, held_out: held_out.map_or(f64::INFINITY, |c| c.cross_entropy_nats) }, weights.clone()));
    }
    let best = tried.iter().min_by(|(a, _), (b, _)| a.held_out.total_cmp(&b.held_out));
    let Some((penalty, weights)) = best.map(|(tried, weights)| (tried.penalty, weights.clone())) else {
        return Err(TrainError::Probe("no penalty was tried".to_owned()));
    };
    let (held_out, tried) = (chosen_on.labels.len(), tried.into_iter().map(|(tried, _)| tried).collect());
    fitted.extend(chosen_on);
    let weights = fit(&fitted, classes, penalty, weights)?;
    let found = |part: &Labelled| part.log_probs(&weights, classes).classification(&part.known(), |i| part.sources[i]);
    let train = found(&fitted).ok_or_else(|| TrainError::Probe("no item was fitted to".to_owned()))?;
    Ok(Probe { layer: options.layer.clone(), features: fitted.features, penalty, tried, held_out, train, test: found(&tested) })
}

/// As [`probe`], of the parts of a source: λ is chosen on a fifth of the training items, where the source sets none
/// aside itself.
///
/// # Errors
/// As [`probe`].
pub fn probe_parts<E: SpecScalar>(
    model: &Model<E>,
    events: &Events,
    split: &Split,
    settings: &Settings,
    options: &ProbeOptions,
) -> Result<Probe> {
    // More than a run validates on: few items choose a penalty badly.
    let (held, kept) = hold_out(&*split.train, &Settings { validation: HELD_OUT, ..settings.clone() });
    let (held_out, kept) = (Subset::new(split.train.clone(), held)?, Subset::new(split.train.clone(), kept)?);
    probe(model, events, [&kept, &held_out, &*split.test], options)
}

/// The labelled items of a part: activations row by row.
struct Labelled {
    features: usize,
    x: Vec<f64>,
    labels: Vec<usize>,
    /// Which items depend on each other.
    sources: Vec<usize>,
}

impl Labelled {
    fn read<E: SpecScalar>(model: &Model<E>, events: &Events, data: &dyn Dataset, options: &ProbeOptions) -> Result<Self> {
        let features = model.event().len();
        let mut part = Self { features, x: Vec::new(), labels: Vec::new(), sources: Vec::new() };
        let mut labels = Vec::with_capacity(data.len());
        for draws in each_once(data.len(), options.batch) {
            labels.extend(data.batch(&draws)?.labels);
        }
        let mut item = 0;
        embed(model, data, events, &options.layer, options.batch, |rows| {
            for row in rows.chunks_exact(features) {
                if let Some(label) = labels[item] {
                    part.x.extend(row.iter().map(|x| x.as_f64()));
                    part.labels.push(label);
                    part.sources.push(data.source(item));
                }
                item += 1;
            }
            Ok(())
        })?;
        match part.x.iter().position(|x| !x.is_finite()) {
            None => Ok(part),
            Some(at) => Err(TrainError::Probe(format!("the activations of labelled item {} are not finite", at / features))),
        }
    }

    fn known(&self) -> Vec<Option<usize>> {
        self.labels.iter().copied().map(Some).collect()
    }

    fn extend(&mut self, other: Self) {
        self.x.extend(other.x);
        self.labels.extend(other.labels);
        self.sources.extend(other.sources);
    }

    fn log_probs(&self, weights: &[f64], classes: usize) -> ClassLogProbs {
        let blocks = self.x.chunks(ROWS * self.features);
        ClassLogProbs::of_logits(blocks.flat_map(|x| logits(x, weights, self.features, classes)), classes)
    }
}

/// V x + c of rows x; the weights are V, (classes, features), with c behind.
fn logits(x: &[f64], weights: &[f64], features: usize, classes: usize) -> Vec<f64> {
    let (v, c) = weights.split_at(classes * features);
    let rows = x.len() / features;
    let mut logits = vec![0.0; rows * classes];
    matmul(&mut logits, Accumulate::Replace, Operand::new(x, rows, features), Operand::new(v, classes, features).transposed());
    logits.chunks_exact_mut(classes).for_each(|row| simd::add(row, c));
    logits
}

/// Mean and standard deviation of every feature.
struct Scale(Vec<(f64, f64)>);

impl Scale {
    fn of(part: &Labelled) -> Self {
        let count = part.labels.len() as f64;
        let columns = (0..part.features).map(|at| {
            let column = || part.x.iter().skip(at).step_by(part.features);
            let mean = column().sum::<f64>() / count;
            let spread = (column().map(|x| (x - mean).powi(2)).sum::<f64>() / count).sqrt();
            // What is constant here tells nothing.
            (mean, if spread > 1e-12 * mean.abs() { spread } else { f64::INFINITY })
        });
        Self(columns.collect())
    }

    fn apply(&self, part: &mut Labelled) {
        for row in part.x.chunks_exact_mut(part.features) {
            row.iter_mut().zip(&self.0).for_each(|(x, (mean, spread))| *x = (*x - mean) / spread);
        }
    }
}

/// The regularised cross-entropy of items, with the last place that it was computed at: L-BFGS asks for value and
/// gradient one after the other.
struct Regression<'a> {
    items: &'a Labelled,
    classes: usize,
    penalty: f64,
    last: RefCell<Option<(Vec<f64>, f64, Vec<f64>)>>,
}

impl Regression<'_> {
    fn at<R>(&self, weights: &[f64], get: impl FnOnce(f64, &[f64]) -> R) -> R {
        let mut last = self.last.borrow_mut();
        let (_, value, gradient) = match last.take() {
            Some(last_one) if last_one.0 == weights => last.insert(last_one),
            _ => {
                let (value, gradient) = self.compute(weights);
                last.insert((weights.to_vec(), value, gradient))
            }
        };
        get(*value, gradient)
    }

    fn compute(&self, weights: &[f64]) -> (f64, Vec<f64>) {
        let Self { items, classes, penalty, .. } = *self;
        let Labelled { features, x, labels, .. } = items;
        let blocks: Vec<(&[f64], &[usize])> = x.chunks(ROWS * features).zip(labels.chunks(ROWS)).collect();
        let parts = parallel(blocks.len(), |block| {
            let (x, labels) = blocks[block];
            let mut rows = logits(x, weights, *features, classes);
            let mut value = 0.0;
            for (row, &label) in rows.chunks_exact_mut(classes).zip(labels) {
                let log_probs = ClassLogProbs::of_logits(row.iter().copied(), classes).values;
                value -= log_probs[label];
                row.iter_mut().zip(&log_probs).for_each(|(derivative, log_prob)| *derivative = log_prob.exp());
                row[label] -= 1.0;
            }
            let mut gradient = vec![0.0; weights.len()];
            let (for_v, for_c) = gradient.split_at_mut(classes * features);
            let by_row = Operand::new(&rows, labels.len(), classes);
            matmul(for_v, Accumulate::Replace, by_row.transposed(), Operand::new(x, labels.len(), *features));
            rows.chunks_exact(classes).for_each(|row| simd::add(for_c, row));
            (value, gradient)
        });
        let (mut value, mut gradient) = (0.0, vec![0.0; weights.len()]);
        for (own, part) in parts {
            value += own;
            simd::add(&mut gradient, &part);
        }
        let count = labels.len() as f64;
        gradient.iter_mut().for_each(|g| *g /= count);
        value /= count;
        let v = ..classes * features;
        value += 0.5 * penalty * weights[v].iter().map(|w| w * w).sum::<f64>();
        gradient[v].iter_mut().zip(&weights[v]).for_each(|(g, w)| *g += penalty * w);
        (value, gradient)
    }
}

impl CostFunction for &Regression<'_> {
    type Param = Vec<f64>;
    type Output = f64;

    fn cost(&self, weights: &Vec<f64>) -> Result<f64, argmin::core::Error> {
        Ok(self.at(weights, |value, _| value))
    }
}

impl Gradient for &Regression<'_> {
    type Param = Vec<f64>;
    type Gradient = Vec<f64>;

    fn gradient(&self, weights: &Vec<f64>) -> Result<Vec<f64>, argmin::core::Error> {
        Ok(self.at(weights, |_, gradient| gradient.to_vec()))
    }
}

/// The weights where the loss is smallest, found from some.
fn fit(items: &Labelled, classes: usize, penalty: f64, from: Vec<f64>) -> Result<Vec<f64>> {
    /// Pairs of steps that the Hessian is known from.
    const MEMORY: usize = 10;
    const ITERATIONS: u64 = 500;
    let failed = |error: argmin::core::Error| TrainError::Probe(format!("L-BFGS failed at penalty {penalty}: {error}"));
    let regression = Regression { items, classes, penalty, last: RefCell::default() };
    let begun = from.clone();
    let solver = LBFGS::new(MoreThuenteLineSearch::new(), MEMORY).with_tolerance_grad(1e-6).map_err(failed)?;
    let solver = solver.with_tolerance_cost(1e-12).map_err(failed)?;
    let found = Executor::new(&regression, solver).configure(|state| state.param(from).max_iters(ITERATIONS)).run().map_err(failed)?;
    Ok(found.state().get_best_param().cloned().unwrap_or(begun))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items() -> Labelled {
        let wave = |i: usize| (1.3 * i as f64 + 0.2).sin();
        let labels = (0..40).map(|i| i % 3).collect();
        Labelled { features: 2, x: (0..80).map(wave).collect(), labels, sources: (0..40).collect() }
    }

    #[test]
    fn the_gradient_equals_differences_and_vanishes_at_the_end() {
        let items = items();
        let at = |penalty| Regression { items: &items, classes: 3, penalty, last: RefCell::default() };
        let regression = at(0.1);
        let weights: Vec<f64> = (0..9).map(|i| f64::from(i).cos()).collect();
        let gradient = regression.at(&weights, |_, gradient| gradient.to_vec());
        for (number, gradient) in gradient.iter().enumerate() {
            let moved = |by: f64| {
                let mut weights = weights.clone();
                weights[number] += by;
                regression.compute(&weights).0
            };
            let found = (moved(1e-5) - moved(-1e-5)) / 2e-5;
            assert!((found - gradient).abs() < 1e-9, "weight {number}: {found} and {gradient}");
        }
        let fitted = fit(&items, 3, 0.1, weights).unwrap();
        let (_, gradient) = regression.compute(&fitted);
        assert!(gradient.iter().all(|g| g.abs() < 1e-5), "{gradient:?}");
    }

    /// A feature that is constant over the items fitted to is no reason for numbers that are none.
    #[test]
    fn constant_features_tell_nothing() {
        let mut part = items();
        part.x.iter_mut().skip(1).step_by(2).for_each(|x| *x = 7.0);
        Scale::of(&part).apply(&mut part);
        assert!(part.x.iter().skip(1).step_by(2).all(|x| *x == 0.0));
        let mean = part.x.iter().step_by(2).sum::<f64>() / 40.0;
        assert!(mean.abs() < 1e-12);
    }
}
