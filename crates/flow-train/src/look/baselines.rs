//! What simple densities reach: figures to read those of a flow beside.

use super::Sample;
use crate::data::Values;
use serde::Serialize;
use std::f64::consts::TAU;

/// The most columns of one normal density.
const MAX_COLUMNS: usize = 512;
/// The most multiplications for its covariances.
const MAX_WORK: usize = 2_000_000_000;

/// A density that takes no training, and its loss on the test items.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Baseline {
    /// What density it is.
    pub name: &'static str,
    /// Mean loss: bits per dimension of discrete data, nats an item of real numbers.
    pub loss: f64,
    /// The unit of the loss.
    pub unit: &'static str,
}

pub(super) fn of(train: &Sample, test: &Sample, levels: Option<u32>) -> Vec<Baseline> {
    if train.len() == 0 || test.len() == 0 {
        return Vec::new();
    }
    match (&train.values, &test.values) {
        (Values::Levels(train_values), Values::Levels(test_values)) => {
            let levels = levels.unwrap_or(256);
            let bits = |name, loss| Baseline { name, loss, unit: "bits/dim" };
            vec![
                bits("uniform", f64::from(levels).log2()),
                bits("a histogram of each value", histograms(train_values, test_values, train.dims, levels)),
            ]
        }
        (Values::Real(train_values), Values::Real(test_values)) => {
            let nats = |name, loss| Baseline { name, loss, unit: "nats" };
            let (mean, variance) = moments(train_values, train.dims);
            let apart = apart(test_values, &mean, &variance);
            let together = together(train_values, test_values, &mean);
            let all =
                [apart.map(|loss| nats("a normal density of each value", loss)), together.map(|loss| nats("one normal density", loss))];
            all.into_iter().flatten().collect()
        }
        _ => Vec::new(),
    }
}

/// Mean −log₂ of the share of the level among the training items, in each place, with one item of every level added.
fn histograms(train: &[u8], test: &[u8], dims: usize, levels: u32) -> f64 {
    let levels = levels as usize;
    let mut counts = vec![1_u32; dims * levels];
    for item in train.chunks_exact(dims) {
        item.iter().enumerate().for_each(|(place, &level)| counts[place * levels + usize::from(level)] += 1);
    }
    let all = (train.len() / dims + levels) as f64;
    let bits = |(i, &level): (usize, &u8)| -(f64::from(counts[i % dims * levels + usize::from(level)]) / all).log2();
    test.iter().enumerate().map(bits).sum::<f64>() / test.len() as f64
}

/// Mean and variance of every column.
fn moments(values: &[f64], dims: usize) -> (Vec<f64>, Vec<f64>) {
    let count = (values.len() / dims) as f64;
    let origin = &values[..dims];
    let mut mean = vec![0.0; dims];
    values.chunks_exact(dims).for_each(|row| (0..dims).for_each(|j| mean[j] += (row[j] - origin[j]) / count));
    (0..dims).for_each(|j| mean[j] += origin[j]);
    let mut variance = vec![0.0; dims];
    values.chunks_exact(dims).for_each(|row| (0..dims).for_each(|j| variance[j] += (row[j] - mean[j]).powi(2) / count));
    (mean, variance)
}

/// Mean −log density of independent normals, in nats an item; none where a column does not vary.
fn apart(test: &[f64], mean: &[f64], variance: &[f64]) -> Option<f64> {
    if variance.iter().any(|v| !(*v > 0.0 && v.is_finite())) {
        return None;
    }
    let dims = mean.len();
    let constant: f64 = variance.iter().map(|v| 0.5 * (TAU * v).ln()).sum();
    let squares = test.iter().enumerate().map(|(i, x)| 0.5 * (x - mean[i % dims]).powi(2) / variance[i % dims]).sum::<f64>();
    Some(constant + squares / (test.len() / dims) as f64)
}

/// The same of one normal density with all covariances, by Cholesky's factorisation; none where columns depend on each
/// other, or are too many.
fn together(train: &[f64], test: &[f64], mean: &[f64]) -> Option<f64> {
    let d = mean.len();
    let n = train.len() / d;
    if !(2..=MAX_COLUMNS).contains(&d) || n <= d {
        return None;
    }
    let stride = (n * d * d).div_ceil(MAX_WORK).max(1);
    let rows = || train.chunks_exact(d).step_by(stride);
    let count = rows().count() as f64;
    let mut factor = vec![0.0; d * d];
    let mut centred = vec![0.0; d];
    for row in rows() {
        (0..d).for_each(|j| centred[j] = row[j] - mean[j]);
        (0..d).for_each(|i| (0..=i).for_each(|j| factor[i * d + j] += centred[i] * centred[j] / count));
    }
    for i in 0..d {
        for j in 0..=i {
            let sum: f64 = (0..j).map(|k| factor[i * d + k] * factor[j * d + k]).sum();
            let left = factor[i * d + j] - sum;
            if i == j {
                if left.is_nan() || left <= 1e-12 * factor[i * d + i] {
                    return None;
                }
                factor[i * d + i] = left.sqrt();
            } else {
                factor[i * d + j] = left / factor[j * d + j];
            }
        }
    }
    let log_det: f64 = (0..d).map(|i| factor[i * d + i].ln()).sum();
    let mut total = 0.0;
    let mut solved = vec![0.0; d];
    for row in test.chunks_exact(d) {
        for i in 0..d {
            let sum: f64 = (0..i).map(|k| factor[i * d + k] * solved[k]).sum();
            solved[i] = (row[i] - mean[i] - sum) / factor[i * d + i];
        }
        total += 0.5 * solved.iter().map(|z| z * z).sum::<f64>();
    }
    Some(total / (test.len() / d) as f64 + log_det + 0.5 * d as f64 * TAU.ln())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{self, Dataset};

    fn sample(set: &dyn Dataset) -> Sample {
        Sample::of(set, usize::MAX).unwrap()
    }

    /// The figures that the documentation of the digits gives, which were computed with Python.
    #[test]
    fn the_digits_have_their_published_baselines() {
        let split = data::digits().unwrap();
        let found = of(&sample(&*split.train), &sample(&*split.test), Some(17));
        assert!((found[0].loss - 4.087).abs() < 1e-3, "{found:?}");
        assert!((found[1].loss - 2.364).abs() < 2e-2, "{found:?}");
    }

    /// Of normal data with correlation ρ one normal density is better by −½ ln(1 − ρ²).
    #[test]
    fn one_normal_density_knows_correlations() {
        let (n, rho) = (20_000, 0.8_f64);
        let normal = |i: usize, salt: u64| -> f64 {
            use rand::{Rng, SeedableRng};
            rand_chacha::ChaCha8Rng::seed_from_u64(i as u64 * 2 + salt).sample(rand_distr::StandardNormal)
        };
        let values: Vec<f64> = (0..n)
            .flat_map(|i| {
                let (a, b) = (normal(i, 0), normal(i, 1));
                [1e6 + 3.0 * a, rho * a + (1.0 - rho * rho).sqrt() * b]
            })
            .collect();
        let set = data::InMemory::new("n".as_ref(), Values::Real(values), data::ItemShape::Vector { dims: 2 }, None, None).unwrap();
        let found = of(&sample(&set), &sample(&set), None);
        let entropy = TAU.ln() + 1.0 + 3f64.ln();
        assert!((found[0].loss - entropy).abs() < 0.03, "{found:?}");
        assert!((found[0].loss - found[1].loss + 0.5 * (1.0 - rho * rho).ln()).abs() < 0.02, "{found:?}");
    }
}
