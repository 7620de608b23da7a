//! How good class probabilities are: those of a classifier head, of Bayes' rule, or of a probe.

mod calibration;
mod probe;

pub use calibration::{BINS, Bin, Calibration};
pub use probe::{Probe, ProbeOptions, Tried, probe, probe_parts};

use crate::mean::Mean;
use crate::text::number_or_null;
use serde::{Deserialize, Serialize};

/// Log-probabilities of the classes of items, in nats.
#[derive(Clone, Debug, PartialEq)]
pub struct ClassLogProbs {
    /// Item after item, one number a class; NaN where an item has none.
    pub values: Vec<f64>,
    /// How many classes there are.
    pub classes: usize,
}

/// What class probabilities were found to be worth on labelled items.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Classification {
    /// Labelled items that have probabilities: all means are over these.
    pub items: usize,
    /// Labelled items that have none, such as those whose latents are not finite.
    pub left_out: usize,
    /// Classes that the probabilities are of.
    pub classes: usize,
    /// Share of items whose most probable class is their own; of equally probable ones the first is taken.
    #[serde(deserialize_with = "number_or_null")]
    pub accuracy: f64,
    /// Its standard error; here as below items of one source count as dependent.
    #[serde(deserialize_with = "number_or_null")]
    pub accuracy_error: f64,
    /// The accuracy of who always says the class that most of these items have.
    #[serde(deserialize_with = "number_or_null")]
    pub chance: f64,
    /// Mean of −ln p(own class), in nats; infinite where an own class has probability zero.
    #[serde(deserialize_with = "number_or_null")]
    pub cross_entropy_nats: f64,
    /// Its standard error, in nats.
    #[serde(deserialize_with = "number_or_null")]
    pub cross_entropy_nats_error: f64,
    /// The same mean in bits.
    #[serde(deserialize_with = "number_or_null")]
    pub cross_entropy_bits: f64,
    /// Its standard error, in bits.
    #[serde(deserialize_with = "number_or_null")]
    pub cross_entropy_bits_error: f64,
    /// Whether probabilities are what they say.
    pub calibration: Calibration,
}

impl ClassLogProbs {
    /// Log-probabilities of logits: ln softmax, row by row; NaN for a row that is not finite.
    pub fn of_logits(logits: impl Iterator<Item = f64>, classes: usize) -> Self {
        let mut values: Vec<f64> = logits.collect();
        values.chunks_exact_mut(classes.max(1)).for_each(normalise);
        Self { values, classes }
    }

    /// The log-probabilities of an item.
    pub fn of(&self, item: usize) -> Option<&[f64]> {
        self.values.chunks_exact(self.classes.max(1)).nth(item)
    }

    /// The most probable class of an item: of equally probable ones the first; none where it has no probabilities.
    pub fn predicted(&self, item: usize) -> Option<usize> {
        let own = self.of(item)?;
        let largest = own.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        if own.iter().any(|log_prob| log_prob.is_nan()) { None } else { own.iter().position(|&log_prob| log_prob >= largest) }
    }

    /// How good they are for items with these labels, the sources of which say which items depend on each other; none
    /// where no item has both a label and probabilities.
    ///
    /// ```
    /// use flow_train::classify::ClassLogProbs;
    /// let log_probs = ClassLogProbs::of_logits([2.0, 0.0, 0.0, 1.0, 0.0, 0.0].into_iter(), 2);
    /// let found = log_probs.classification(&[Some(0), Some(0), None], |item| item).expect("two labelled items");
    /// assert_eq!((found.items, found.accuracy), (2, 0.5));
    /// ```
    pub fn classification(&self, labels: &[Option<usize>], source: impl Fn(usize) -> usize) -> Option<Classification> {
        let labelled = || labels.iter().enumerate().filter_map(|(item, label)| Some((item, (*label)?)));
        let known: Vec<Known> = labelled()
            .filter_map(|(item, label)| {
                let (predicted, own) = (self.predicted(item)?, self.of(item)?);
                let (confidence, nats) = (own[predicted].exp(), -own.get(label)?);
                Some(Known { source: source(item), label, is_right: predicted == label, confidence, nats })
            })
            .collect();
        if known.is_empty() {
            return None;
        }
        let mean = |value: fn(&Known) -> f64| Mean::of(known.iter().map(|item| (item.source, value(item))));
        let (accuracy, nats) = (mean(Known::right), mean(|item| item.nats));
        let mut counts = vec![0_usize; self.classes];
        known.iter().for_each(|item| counts[item.label] += 1);
        Some(Classification {
            items: known.len(),
            left_out: labelled().count() - known.len(),
            classes: self.classes,
            accuracy: accuracy.value,
            accuracy_error: accuracy.error,
            chance: counts.into_iter().max().unwrap_or_default() as f64 / known.len() as f64,
            cross_entropy_nats: nats.value,
            cross_entropy_nats_error: nats.error,
            cross_entropy_bits: nats.value / std::f64::consts::LN_2,
            cross_entropy_bits_error: nats.error / std::f64::consts::LN_2,
            calibration: Calibration::of(&known),
        })
    }
}

/// Subtracts ln Σ exp, so that probabilities sum to one.
fn normalise(row: &mut [f64]) {
    let largest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let norm = largest + row.iter().map(|logit| (logit - largest).exp()).sum::<f64>().ln();
    let is_finite = row.iter().all(|logit| !logit.is_nan()) && norm.is_finite();
    row.iter_mut().for_each(|logit| *logit = if is_finite { *logit - norm } else { f64::NAN });
}

/// Mean probabilities over several draws of the same items, such as those of dequantisation noise, of which some may
/// be missing.
#[derive(Clone, Debug)]
pub struct MeanProbs {
    sums: Vec<f64>,
    counts: Vec<f64>,
    classes: usize,
}

impl MeanProbs {
    /// Of so many items.
    pub fn new(items: usize, classes: usize) -> Self {
        Self { sums: vec![f64::NEG_INFINITY; items * classes], counts: vec![0.0; items], classes }
    }

    /// Adds a draw of some items, unless it has no probabilities.
    pub fn add(&mut self, items: &[usize], draw: &ClassLogProbs) {
        for (&item, own) in items.iter().zip(draw.values.chunks_exact(self.classes.max(1))) {
            if own.iter().any(|log_prob| log_prob.is_nan()) {
                continue;
            }
            self.counts[item] += 1.0;
            // ln(eᵃ + eᵇ), which does not underflow as the sum itself does.
            for (sum, &log_prob) in self.sums[item * self.classes..][..self.classes].iter_mut().zip(own) {
                let (small, large) = if *sum < log_prob { (*sum, log_prob) } else { (log_prob, *sum) };
                *sum = if small == f64::NEG_INFINITY { large } else { large + (small - large).exp().ln_1p() };
            }
        }
    }

    /// Their logarithms; NaN for an item without any draw.
    pub fn log_probs(self) -> ClassLogProbs {
        let Self { sums: mut values, counts, classes } = self;
        for (own, count) in values.chunks_exact_mut(classes.max(1)).zip(counts) {
            own.iter_mut().for_each(|sum| *sum = if count > 0.0 { *sum - count.ln() } else { f64::NAN });
        }
        ClassLogProbs { values, classes }
    }
}

/// A labelled item with its probabilities.
#[derive(Clone, Debug)]
struct Known {
    source: usize,
    label: usize,
    is_right: bool,
    /// Probability of the predicted class.
    confidence: f64,
    /// −ln p(own class).
    nats: f64,
}

impl Known {
    fn right(&self) -> f64 {
        f64::from(u8::from(self.is_right))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Probabilities p and 1 − p of two classes.
    fn two(p: &[f64]) -> ClassLogProbs {
        ClassLogProbs { values: p.iter().flat_map(|p| [p.ln(), (1.0 - p).ln()]).collect(), classes: 2 }
    }

    #[test]
    fn figures_are_those_of_a_hand_calculation() {
        let probs = two(&[0.9, 0.6, 0.2, 0.7, f64::NAN, 0.5]);
        let labels = [Some(0), Some(1), Some(1), Some(0), Some(1), None];
        let found = probs.classification(&labels, |item| item).unwrap();
        assert_eq!((found.items, found.left_out, found.accuracy, found.chance), (4, 1, 0.75, 0.5));
        // Three of four: √(p(1 − p)/(n − 1)).
        assert!((found.accuracy_error - (0.75 * 0.25 / 3.0_f64).sqrt()).abs() < 1e-15);
        let nats = -(0.9_f64.ln() + 0.4_f64.ln() + 0.8_f64.ln() + 0.7_f64.ln()) / 4.0;
        assert!((found.cross_entropy_nats - nats).abs() < 1e-15);
        assert!((found.cross_entropy_bits - nats / 2.0_f64.ln()).abs() < 1e-15);
        // Items of one source are one: two groups of equal means leave no error of the mean, where those of the
        // single items do.
        let pairs = probs.classification(&[Some(0), Some(1), Some(0), Some(0)], |item| item % 2).unwrap();
        assert!(pairs.accuracy_error < 1e-15 && (pairs.accuracy - 0.5).abs() < 1e-15, "{pairs:?}");
        assert!(probs.classification(&[None; 6], |item| item).is_none());
        // Equal probabilities predict the first class, and NaN none.
        assert_eq!([4, 5, 6].map(|item| probs.predicted(item)), [None, Some(0), None]);
    }

    #[test]
    fn logits_are_normalised_and_draws_averaged() {
        let huge = ClassLogProbs::of_logits([1e4, 0.0, 3.0, 3.0, f64::NAN, 0.0, f64::INFINITY, 0.0].into_iter(), 2);
        assert_eq!(huge.values[..2], [0.0, -1e4]);
        assert!((huge.values[2] - 0.5_f64.ln()).abs() < 1e-15);
        assert!(huge.values[4..].iter().all(|v| v.is_nan()));
        let mut mean = MeanProbs::new(3, 2);
        mean.add(&[2, 0], &two(&[0.9, 1.0]));
        mean.add(&[2, 0], &two(&[0.5, f64::NAN]));
        let mean = mean.log_probs();
        assert!((mean.of(2).unwrap()[0].exp() - 0.7).abs() < 1e-15);
        assert_eq!(mean.of(0).unwrap(), [0.0, f64::NEG_INFINITY]);
        assert!(mean.of(1).unwrap()[0].is_nan());
        // Probabilities that underflow keep their logarithm.
        let mut tiny = MeanProbs::new(1, 2);
        for log_prob in [-5000.0, -5001.0] {
            tiny.add(&[0], &ClassLogProbs { values: vec![log_prob, 0.0], classes: 2 });
        }
        let expected = -5000.0 + (-1.0_f64).exp().ln_1p() - 2.0_f64.ln();
        assert!((tiny.log_probs().values[0] - expected).abs() < 1e-9);
    }

    /// A class of probability zero is a finite mistake only where it is not the item's own.
    #[test]
    fn certainty_costs_infinitely_much_where_it_is_wrong() {
        let sure = two(&[1.0, 1.0]);
        let nats = |labels: [usize; 2]| sure.classification(&labels.map(Some), |i| i).map(|found| found.cross_entropy_nats);
        assert_eq!((nats([0, 0]), nats([0, 1])), (Some(0.0), Some(f64::INFINITY)));
    }
}
