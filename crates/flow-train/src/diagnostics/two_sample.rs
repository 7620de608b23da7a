//! A classifier that tries to tell rows from samples.

use super::Compared;
use crate::classify::ClassLogProbs;
use crate::optimiser::{Adam, AdamConfig};
use crate::{Result, flat_weights, set_flat_weights};
use flow_api::Gradients;
use flow_api::spec::{LastLayer, Mlp};
use serde::Serialize;

/// Fewer rows than this tell nothing.
const FEWEST: usize = 20;

/// How well a classifier tells rows from samples.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct TwoSample {
    /// Its accuracy on rows and samples that it was not fitted to, as many of each: ½ where it cannot tell them apart.
    pub accuracy: f64,
    /// Standard error of the accuracy: √(a (1 − a)/n) of n rows and samples.
    pub standard_error: f64,
    /// Rows, and as many samples, that it was tested on.
    pub rows: usize,
}

impl TwoSample {
    /// Whether it tells them apart: the accuracy is above ½ by more than three standard errors.
    pub fn tells_apart(&self) -> bool {
        self.accuracy > 0.5 + 3.0 * self.standard_error
    }
}

/// Rows and samples with their features.
struct Items {
    width: usize,
    /// Of rows, and behind them of the samples: (2 n, width).
    features: Vec<f64>,
    rows: usize,
}

/// The parts of the items, by row.
#[derive(Clone, Copy, PartialEq)]
enum Part {
    Fit,
    /// To choose how long it is fitted.
    Choose,
    Test,
}

impl Part {
    fn of(row: usize) -> Self {
        match row % 10 {
            at if at % 2 == 0 => Self::Test,
            1 => Self::Choose,
            _ => Self::Fit,
        }
    }
}

impl Items {
    /// Numbers by their ranks among all of their column, which are told apart as well as the numbers are, whatever
    /// their unit and however far out they lie; behind them what a row is given.
    fn of(compared: &Compared, given: &[f64], rows: usize) -> Self {
        let columns = |values: &[f64], width: usize| -> Vec<Vec<f64>> {
            (0..width).map(|column| values.iter().skip(column).step_by(width).copied().collect()).collect()
        };
        let own = compared.rows.len() / rows;
        let mut features: Vec<Vec<f64>> = columns(&compared.rows, own);
        features.iter_mut().zip(columns(&compared.samples, own)).for_each(|(column, samples)| column.extend(samples));
        features.extend(columns(given, given.len() / rows).into_iter().map(|column| column.repeat(2)));
        features.iter_mut().for_each(|column| ranked(column));
        let width = features.len();
        Self { width, features: (0..2 * rows).flat_map(|item| features.iter().map(move |column| column[item])).collect(), rows }
    }

    /// Features and classes of a part: 1 of samples. A row and its sample are in the same one.
    fn part(&self, part: Part) -> (Vec<f64>, Vec<usize>) {
        let items: Vec<usize> = (0..2 * self.rows).filter(|item| Part::of(item % self.rows) == part).collect();
        let features = items.iter().flat_map(|item| self.features[item * self.width..][..self.width].iter().copied()).collect();
        (features, items.iter().map(|item| item / self.rows).collect())
    }
}

/// Ranks with mean 0 and variance 1; equal numbers have their mean rank.
fn ranked(column: &mut [f64]) {
    let mut sorted = column.to_vec();
    sorted.sort_by(f64::total_cmp);
    let count = sorted.len() as f64;
    for x in column {
        let below = sorted.partition_point(|other| other.total_cmp(x).is_lt());
        let up_to = sorted.partition_point(|other| other.total_cmp(x).is_le());
        *x = 12.0_f64.sqrt() * ((below + up_to) as f64 / (2.0 * count) - 0.5);
    }
}

/// Fits a network with one hidden layer to half of the rows and samples and tests it on the other half. Steps are those
/// that do best on a fifth of the first half.
pub(super) fn test(compared: &Compared, given: &[f64], rows: usize, seed: u64) -> Result<Option<TwoSample>> {
    const HIDDEN: usize = 64;
    const STEPS: u64 = 300;
    const RATE: f64 = 0.02;
    /// Steps between looks at the part that chooses.
    const EVERY: u64 = 10;
    if rows < FEWEST {
        return Ok(None);
    }
    let items = Items::of(compared, given, rows);
    let mut net = Mlp::<f64>::new(&[items.width, HIDDEN, 2], LastLayer::Zero, seed)?;
    let mut adam = Adam::new(&net, AdamConfig { weight_decay: 0.01, ..AdamConfig::default() });
    let (x, classes) = items.part(Part::Fit);
    let (chosen_on, chosen_classes) = items.part(Part::Choose);
    let mut best = (f64::INFINITY, flat_weights(&net));
    for step in 1..=STEPS {
        let pass = net.forward(x.clone())?;
        let mut cotangent: Vec<f64> = log_probs(pass.output()).iter().map(|l| l.exp() / classes.len() as f64).collect();
        classes.iter().enumerate().for_each(|(item, class)| cotangent[2 * item + class] -= 1.0 / classes.len() as f64);
        let mut gradients = Gradients::zeros(&net);
        net.pullback(&pass, cotangent, gradients.slice_mut(""))?;
        adam.step(&mut net, &gradients, RATE)?;
        if step % EVERY == 0 {
            let found = log_probs(net.forward(chosen_on.clone())?.output());
            let loss = -chosen_classes.iter().enumerate().map(|(item, class)| found[2 * item + class]).sum::<f64>();
            if loss < best.0 {
                best = (loss, flat_weights(&net));
            }
        }
    }
    set_flat_weights(&mut net, &best.1)?;
    let (x, classes) = items.part(Part::Test);
    let found = log_probs(net.forward(x)?.output());
    let right = |(item, class): (usize, &usize)| (found[2 * item + 1] > found[2 * item]) == (*class == 1);
    let count = classes.len() as f64;
    let accuracy = classes.iter().enumerate().filter(|item| right(*item)).count() as f64 / count;
    Ok(Some(TwoSample { accuracy, standard_error: (accuracy * (1.0 - accuracy) / count).sqrt(), rows: classes.len() / 2 }))
}

fn log_probs(logits: &[f64]) -> Vec<f64> {
    ClassLogProbs::of_logits(logits.iter().copied(), 2).values
}
