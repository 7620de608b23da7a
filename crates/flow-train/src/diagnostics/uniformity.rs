//! Whether numbers between 0 and 1 are uniform.

use crate::text::number_or_null;
use serde::{Deserialize, Serialize};
use statrs::distribution::Uniform;
use statrs::stats_tests::NaNPolicy;
use statrs::stats_tests::ks_test::{KSOneSampleAlternativeMethod, ks_onesample};

/// Equal parts of the interval that numbers are counted in.
pub const BINS: usize = 10;

/// How far numbers are from uniform ones.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Uniformity {
    /// The largest distance between their distribution function and that of uniform numbers (Kolmogorov and Smirnov);
    /// NaN of no numbers.
    #[serde(deserialize_with = "number_or_null")]
    pub statistic: f64,
    /// The probability that as many uniform numbers are as far away or further, by Kolmogorov's limit.
    #[serde(deserialize_with = "number_or_null")]
    pub p_value: f64,
    /// Their mean.
    #[serde(deserialize_with = "number_or_null")]
    pub mean: f64,
    /// The share of them in each of [`BINS`] equal parts.
    pub bins: Vec<f64>,
}

/// How numbers are distributed that are ranks of the truth among predictions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// As good as uniform.
    Uniform,
    /// Too many high ones: predictions are too low.
    Low,
    /// Too many low ones: predictions are too high.
    High,
    /// Too many at both ends: predictions vary too little.
    Narrow,
    /// Too many in the middle: predictions vary too much.
    Wide,
}

impl Uniformity {
    /// What they look like, as one of so many tests: uniform unless p < 1 % over the number of tests (Bonferroni).
    pub fn shape(&self, tests: usize) -> Shape {
        const LEVEL: f64 = 0.01;
        if self.p_value.is_nan() || self.p_value >= LEVEL / tests.max(1) as f64 {
            return Shape::Uniform;
        }
        let outer = self.bins.first().zip(self.bins.last()).map_or(0.0, |(low, high)| low + high) - 2.0 / BINS as f64;
        match self.mean - 0.5 {
            aside if 2.0 * aside.abs() <= outer.abs() && outer > 0.0 => Shape::Narrow,
            aside if 2.0 * aside.abs() <= outer.abs() => Shape::Wide,
            aside if aside > 0.0 => Shape::Low,
            _ => Shape::High,
        }
    }

    /// Of independent numbers.
    pub fn of(numbers: &[f64]) -> Self {
        let count = numbers.len() as f64;
        let mut bins = vec![0.0; BINS];
        for x in numbers {
            let bin = num_traits::cast::<f64, usize>((x * BINS as f64).floor().max(0.0)).unwrap_or(0);
            bins[bin.min(BINS - 1)] += 1.0 / count;
        }
        let method = KSOneSampleAlternativeMethod::TwoSidedAsymptotic;
        let found = ks_onesample(numbers.to_vec(), &Uniform::standard(), method, NaNPolicy::Propogate);
        let (statistic, p_value) = found.unwrap_or((f64::NAN, f64::NAN));
        Self { statistic, p_value, mean: numbers.iter().sum::<f64>() / count, bins }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against scipy.stats.kstest(x, "uniform", method="asymp").
    #[test]
    fn the_test_is_kolmogorov_s() {
        let numbers: Vec<f64> = (0..200).map(|i| (f64::from(i) * 0.618_033_988_749_895).fract().powf(1.2)).collect();
        let found = Uniformity::of(&numbers);
        assert!(
            (found.statistic - 0.072_985_308_188_712_57).abs() < 1e-12 && (found.p_value - 0.237_100_591_281_035_72).abs() < 1e-9,
            "{found:?}"
        );
        assert!((found.bins.iter().sum::<f64>() - 1.0).abs() < 1e-12 && (found.bins[0] - 0.15).abs() < 1e-12);
        let ends = Uniformity::of(&[0.0, 1.0]);
        assert_eq!((ends.bins[0], ends.bins[BINS - 1]), (0.5, 0.5));
        assert!(Uniformity::of(&[]).p_value.is_nan());
    }
}
