//! Whether probabilities are what they say.

use super::Known;
use crate::Result;
use crate::mean::Mean;
use crate::plots::{Place, diagonal_svg};
use crate::text::number_or_null;
use serde::{Deserialize, Serialize};

/// Bins of confidence, of equal width.
pub const BINS: usize = 15;

/// The items whose predicted class has a probability within an interval.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bin {
    /// The interval (low, high].
    pub low: f64,
    /// Its end.
    pub high: f64,
    /// Items in it.
    pub items: usize,
    /// Mean probability of their predicted classes; NaN of none.
    #[serde(deserialize_with = "number_or_null")]
    pub confidence: f64,
    /// Share of them that is predicted rightly; NaN of none.
    #[serde(deserialize_with = "number_or_null")]
    pub accuracy: f64,
}

/// Expected calibration error: the mean over items of |accuracy − confidence| of the bin that an item is in (Naeini et
/// al. 2015; with 15 bins as in Guo et al. 2017, arXiv:1706.04599).
///
/// It is above zero for perfect probabilities too, by what chance leaves in every bin: about Σ √(n a (1 − a)) / N ·
/// √(2/π) over bins of n items and accuracy a.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// The error.
    pub error: f64,
    /// Its standard error, given which bins are over- and which underconfident.
    #[serde(deserialize_with = "number_or_null")]
    pub standard_error: f64,
    /// The bins, from low to high confidence; those without items too.
    pub bins: Vec<Bin>,
}

impl Calibration {
    /// A reliability diagram (Murphy and Winkler 1977): accuracy over confidence of the bins that have items.
    pub(crate) fn svg(&self) -> Result<String> {
        let all: usize = self.bins.iter().map(|bin| bin.items).sum();
        let place = |bin: &Bin| Place {
            said: bin.confidence,
            found: bin.accuracy,
            error: 2.0 * (bin.confidence * (1.0 - bin.confidence) / bin.items as f64).max(0.0).sqrt(),
            share: bin.items as f64 / all as f64,
        };
        let places: Vec<Place> = self.bins.iter().filter(|bin| bin.items > 0).map(place).collect();
        diagonal_svg(&places, "confidence", "accuracy")
    }

    pub(super) fn of(items: &[Known]) -> Self {
        let bin = |item: &Known| {
            let at = (item.confidence * BINS as f64).ceil() - 1.0;
            num_traits::cast::<f64, usize>(at.max(0.0)).unwrap_or(0).min(BINS - 1)
        };
        let mut bins: Vec<Bin> = (0..BINS)
            .map(|at| {
                let edge = |at: usize| at as f64 / BINS as f64;
                Bin { low: edge(at), high: edge(at + 1), items: 0, confidence: 0.0, accuracy: 0.0 }
            })
            .collect();
        for item in items {
            let bin = &mut bins[bin(item)];
            bin.items += 1;
            bin.confidence += item.confidence;
            bin.accuracy += item.right();
        }
        for bin in &mut bins {
            bin.confidence /= bin.items as f64;
            bin.accuracy /= bin.items as f64;
        }
        // |Σ (right − confidence)| of a bin is a sum over its items of that with the sign of the bin.
        let signed = items.iter().map(|item| {
            let Bin { accuracy, confidence, .. } = bins[bin(item)];
            (item.source, (item.right() - item.confidence) * (accuracy - confidence).signum())
        });
        let Mean { value: error, error: standard_error } = Mean::of(signed);
        Self { error, standard_error, bins }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(source: usize, confidence: f64, is_right: bool) -> Known {
        Known { source, label: 0, is_right, confidence, nats: 0.0 }
    }

    #[test]
    fn the_error_is_that_of_the_bins() {
        // Ten items of confidence 0.8 of which six are right, and ten of 1 of which all are.
        let items: Vec<Known> = (0..10).map(|i| item(i, 0.79, i < 6)).chain((10..20).map(|i| item(i, 1.0, true))).collect();
        let found = Calibration::of(&items);
        assert!((found.error - 0.5 * 0.19).abs() < 1e-12, "{found:?}");
        let filled: Vec<(usize, usize)> = found.bins.iter().enumerate().filter(|(_, b)| b.items > 0).map(|(i, b)| (i, b.items)).collect();
        assert_eq!(filled, [(11, 10), (14, 10)]);
        assert!((found.bins[11].accuracy - 0.6).abs() < 1e-12 && (found.bins[11].confidence - 0.79).abs() < 1e-12);
        assert!(found.standard_error > 0.0);
    }

    /// Items that are right as often as they say have an error that goes to zero as chance does.
    #[test]
    fn honest_probabilities_are_calibrated() {
        let count = 4000;
        let items: Vec<Known> = (0..count)
            .map(|i| {
                let confidence = 0.5 + 0.5 * (f64::from(i) + 0.5) / f64::from(count);
                // A low-discrepancy sequence in place of chance.
                let drawn = (f64::from(i) * 0.618_033_988_749_895).fract();
                item(0, confidence, drawn < confidence)
            })
            .collect();
        assert!(Calibration::of(&items).error < 0.02);
        let liars: Vec<Known> = items.iter().map(|i| Known { confidence: 0.5 + 0.5 * i.confidence, ..i.clone() }).collect();
        assert!(Calibration::of(&liars).error > 0.05);
    }
}
