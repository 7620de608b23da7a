//! Series of random length: how long, and with which weights.

use crate::estimator::{Estimator, Length, Roulette, Truncated};
use flow_api::log_det::Probe;
use flow_kernels::noise::RowNoise;

/// The weighted series Σ_{k=1}^{K} aₖ wₖ tr Jᵏ of an estimator, with aₖ = (−1)^{k+1}/k.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Series {
    /// Terms of weight 1.
    exact_terms: usize,
    /// Distribution of the number of terms behind them.
    tail: Option<Length>,
    pub(crate) probes: usize,
    pub(crate) distribution: Probe,
    /// The gradient is that of the Neumann series, not of this one.
    pub(crate) neumann: bool,
}

impl Series {
    /// None for the exact log-det.
    pub(crate) fn of(estimator: Estimator) -> Option<Self> {
        let (roulette, neumann) = match estimator {
            Estimator::Exact => return None,
            Estimator::Truncated(Truncated { terms, probes, distribution }) => {
                return Some(Self { exact_terms: terms, tail: None, probes, distribution, neumann: false });
            }
            Estimator::Roulette(roulette) => (roulette, false),
            Estimator::Neumann(roulette) => (roulette, true),
        };
        let Roulette { length, exact_terms, probes, distribution } = roulette;
        Some(Self { exact_terms, tail: Some(length), probes, distribution, neumann })
    }

    /// K, drawn for one probe of one row.
    pub(crate) fn draw_terms(&self, noise: &mut RowNoise) -> usize {
        self.exact_terms
            + self.tail.map_or(0, |length| {
                let mut uniform = [0.0_f64];
                noise.uniform(&mut uniform);
                length.at(uniform[0])
            })
    }

    /// The probability that term k is there, P(K ≥ k): its weight wₖ is one over it.
    pub(crate) fn survival(&self, k: usize) -> f64 {
        match self.tail {
            Some(length) if k > self.exact_terms => length.survival(k - self.exact_terms),
            Some(_) => 1.0,
            None => f64::from(k <= self.exact_terms),
        }
    }

    /// Weights wₖ of the terms 0 ..= `terms`, for a series that is that long.
    pub(crate) fn weights(&self, terms: usize) -> Vec<f64> {
        (0..=terms).map(|k| 1.0 / self.survival(k)).collect()
    }

    /// Terms that a series has on average, for the table of a model.
    pub(crate) fn mean_terms(&self) -> f64 {
        let tail = match self.tail {
            None => 0.0,
            Some(Length::Geometric(p)) => 1.0 / p,
            Some(Length::Poisson(rate)) => rate,
        };
        self.exact_terms as f64 + tail
    }
}

/// aₖ = (−1)^{k+1}/k.
pub(crate) fn coefficient(k: usize) -> f64 {
    alternating(k + 1) / k as f64
}

/// (−1)ᵏ.
pub(crate) fn alternating(k: usize) -> f64 {
    if k.is_multiple_of(2) { 1.0 } else { -1.0 }
}

impl Length {
    /// P(N ≥ j).
    pub(crate) fn survival(self, j: usize) -> f64 {
        match self {
            Self::Geometric(p) => (1.0 - p).powf(j.saturating_sub(1) as f64),
            // Summed from j on: the complement would cancel.
            Self::Poisson(rate) => {
                let mut term = (1..=j).fold((-rate).exp(), |term, i| term * rate / i as f64);
                let mut sum = 0.0;
                for i in j + 1.. {
                    sum += term;
                    term *= rate / i as f64;
                    if i as f64 > rate && term <= sum * f64::EPSILON {
                        break;
                    }
                }
                sum.min(1.0)
            }
        }
    }

    /// The N whose turn it is at a uniform number in [0, 1): the largest with P(N ≥ n) > u.
    fn at(self, uniform: f64) -> usize {
        match self {
            // P(N ≥ n) = (1−p)^{n−1} > u.
            Self::Geometric(p) if p < 1.0 => {
                let mut n = 1;
                let (stay, mut survival) = (1.0 - p, 1.0 - p);
                while survival > uniform && n < LONGEST {
                    n += 1;
                    survival *= stay;
                }
                n
            }
            Self::Geometric(_) => 1,
            Self::Poisson(rate) => {
                let mut term = (-rate).exp();
                let (mut n, mut survival) = (0, 1.0 - term);
                while survival > uniform && n < LONGEST {
                    n += 1;
                    term *= rate / n as f64;
                    survival -= term;
                }
                n
            }
        }
    }
}

/// No series is longer: a bound for lengths of which one in e^100 would be, which keeps a search from running on where
/// a survival has underflowed.
const LONGEST: usize = 100_000;

#[cfg(test)]
mod tests {
    use super::*;
    use flow_kernels::noise::Stream;

    /// The off-by-one between the two supports, in numbers: a geometric length is at least 1, so its first random term
    /// is always there; a Poisson length may be 0.
    #[test]
    fn supports() {
        let close = |length: Length, expected: [f64; 5]| {
            for (j, expected) in expected.into_iter().enumerate() {
                assert!((length.survival(j) - expected).abs() < 1e-15, "{length:?}: P(N ≥ {j}) = {}", length.survival(j));
            }
        };
        close(Length::Geometric(0.5), [1.0, 1.0, 0.5, 0.25, 0.125]);
        close(Length::Geometric(0.2), [1.0, 1.0, 0.8, 0.64, 0.512]);
        let e = (-2.0_f64).exp();
        close(Length::Poisson(2.0), [1.0, 1.0 - e, 1.0 - 3.0 * e, 1.0 - 5.0 * e, 1.0 - (5.0 + 4.0 / 3.0) * e]);
        close(Length::Geometric(1.0), [1.0, 1.0, 0.0, 0.0, 0.0]);

        let weights = |length| Series::of(Estimator::Roulette(Roulette { length, ..Roulette::default() })).unwrap().weights(4);
        assert_eq!(weights(Length::Geometric(0.5)), [1.0, 1.0, 1.0, 1.0, 2.0]);
        let poisson = weights(Length::Poisson(2.0));
        assert!(
            (poisson[2] - 1.0).abs() < 1e-15
                && (poisson[3] - 1.0 / (1.0 - e)).abs() < 1e-15
                && (poisson[4] - 1.0 / (1.0 - 3.0 * e)).abs() < 1e-14
        );
    }

    /// Draws have the survival that the weights are made of.
    #[test]
    fn draws() {
        const DRAWS: usize = 20_000;
        let stream = Stream::new(3, 0, "lengths");
        for length in [Length::Geometric(0.5), Length::Geometric(0.1), Length::Poisson(0.3), Length::Poisson(2.0), Length::Poisson(40.0)] {
            let series = Series::of(Estimator::Neumann(Roulette { length, exact_terms: 3, ..Roulette::default() })).unwrap();
            let terms: Vec<usize> = (0..DRAWS).map(|row| series.draw_terms(&mut stream.row(row as u64))).collect();
            let mean = terms.iter().sum::<usize>() as f64 / DRAWS as f64;
            assert!((mean - series.mean_terms()).abs() < 0.03 * series.mean_terms(), "{length:?}: {mean}");
            for k in 0..60 {
                let p = series.survival(k);
                let observed = terms.iter().filter(|&&t| t >= k).count() as f64 / DRAWS as f64;
                let bound = 5.0 * (p * (1.0 - p) / DRAWS as f64).sqrt() + 1e-4;
                assert!((observed - p).abs() <= bound, "{length:?}: P(K ≥ {k}) = {p}, drawn {observed}");
            }
        }
    }
}
