//! What simple densities reach: figures to read those of a flow beside.

use super::Sample;
use crate::Result;
use crate::data::{Dataset, ItemShape, Values};
use crate::scores::png_bits;
use flow_kernels::matmul::{Accumulate, Operand, matmul};
use serde::{Deserialize, Serialize};
use std::f64::consts::{LN_2, TAU};

/// What one normal density may take, and how many pictures are coded.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// The most columns.
    columns: usize,
    /// The most multiplications for covariances.
    work: usize,
    /// The most numbers in one PNG.
    numbers: usize,
}

impl Limits {
    /// Within the time of a look.
    pub(super) const LOOK: Self = Self { columns: 512, work: 2_000_000_000, numbers: 300_000 };
    /// Within some minutes.
    const STUDY: Self = Self { columns: 4096, work: 400_000_000_000, numbers: 32_000_000 };
}

/// A density that takes no training, and its loss on the test items.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Baseline {
    /// What density it is.
    pub name: String,
    /// Mean loss: bits per dimension of discrete data, nats an item of real numbers.
    pub loss: f64,
    /// The unit of the loss.
    pub unit: String,
}

/// What simple densities of training items reach on test items, and what a lossless coding takes.
///
/// | name | of |
/// |---|---|
/// | uniform | levels: log₂ of their number |
/// | a histogram of each value | levels: one of every place, with one item of every level added |
/// | one normal density | levels, dequantised: the expectation over uniform noise of −log density, by the training items' mean and covariance; real numbers as they are |
/// | a normal density of each value | real numbers |
/// | one PNG of all pictures | pictures of one or three channels: bits of a file of the test pictures, one below the other, by the best of PNG's filters |
///
/// # Errors
/// Items that cannot be read.
pub fn baselines(train: &dyn Dataset, test: &dyn Dataset) -> Result<Vec<Baseline>> {
    const MOST: usize = 200_000_000;
    let most = MOST / train.shape().dims().max(1);
    let (own, tested) = (Sample::of(train, most)?, Sample::of(test, most)?);
    Ok(of(&own, &tested, train.levels(), train.shape(), Limits::STUDY))
}

pub(super) fn of(train: &Sample, test: &Sample, levels: Option<u32>, shape: ItemShape, limits: Limits) -> Vec<Baseline> {
    if train.len() == 0 || test.len() == 0 {
        return Vec::new();
    }
    match (&train.values, &test.values) {
        (Values::Levels(train_values), Values::Levels(test_values)) => {
            let levels = levels.unwrap_or(256);
            let bits = |name: &str, loss| Baseline { name: name.to_owned(), loss, unit: "bits/dim".to_owned() };
            let mut all = vec![
                bits("uniform", f64::from(levels).log2()),
                bits("a histogram of each value", histograms(train_values, test_values, train.dims, levels)),
            ];
            // The mean of x + u, u between 0 and 1, is ½ above that of x, and its covariance I/12.
            let noisy = |values: &[u8]| values.iter().map(|level| f64::from(*level) + 0.5).collect::<Vec<f64>>();
            let values = noisy(train_values);
            let (mean, _) = moments(&values, train.dims);
            let nats = together(&values, &noisy(test_values), &mean, Noise(1.0 / 12.0), limits);
            all.extend(nats.map(|nats| bits("one normal density", nats / (train.dims as f64 * LN_2))));
            let few = &test_values[..test_values.len().min((limits.numbers / test.dims).max(1) * test.dims)];
            all.extend(png_bits(few, shape).map(|total| bits("one PNG of all pictures", total / few.len() as f64)));
            all
        }
        (Values::Real(train_values), Values::Real(test_values)) => {
            let nats = |name: &str, loss| Baseline { name: name.to_owned(), loss, unit: "nats".to_owned() };
            let (mean, variance) = moments(train_values, train.dims);
            let apart = apart(test_values, &mean, &variance);
            let together = together(train_values, test_values, &mean, Noise(0.0), limits);
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

/// Variance of independent noise on every value, of training and of test items.
#[derive(Clone, Copy)]
struct Noise(f64);

/// The same of one normal density with all covariances, by Cholesky's factorisation, in expectation over the noise;
/// none where columns depend on each other, or are too many.
fn together(train: &[f64], test: &[f64], mean: &[f64], noise: Noise, limits: Limits) -> Option<f64> {
    /// Rows that are worked on at a time.
    const ROWS: usize = 256;
    let d = mean.len();
    let n = train.len() / d;
    if !(2..=limits.columns).contains(&d) || n <= d {
        return None;
    }
    let stride = (n * d * d).div_ceil(limits.work).max(1);
    let rows: Vec<&[f64]> = train.chunks_exact(d).step_by(stride).collect();
    if rows.len() <= d {
        return None;
    }
    let centred = |rows: &[&[f64]]| -> Vec<f64> { rows.iter().flat_map(|row| row.iter().zip(mean).map(|(x, m)| x - m)).collect() };
    let mut factor = vec![0.0; d * d];
    for some in rows.chunks(ROWS) {
        let x = centred(some);
        let x = Operand::new(&x, some.len(), d);
        matmul(&mut factor, Accumulate::Add, x.transposed(), x);
    }
    factor.iter_mut().for_each(|sum| *sum /= rows.len() as f64);
    (0..d).for_each(|i| factor[i * d + i] += noise.0);
    cholesky(&mut factor, d)?;
    let log_det: f64 = (0..d).map(|i| factor[i * d + i].ln()).sum();
    // L⁻¹ row by row, for all test items: Σ⁻¹ is L⁻ᵀ L⁻¹.
    let inverse = inverse_of_lower(&factor, d);
    let of_noise = 0.5 * noise.0 * inverse.iter().map(|x| x * x).sum::<f64>();
    let tested: Vec<&[f64]> = test.chunks_exact(d).collect();
    let mut total = 0.0;
    for some in tested.chunks(ROWS) {
        let x = centred(some);
        let mut z = vec![0.0; x.len()];
        matmul(&mut z, Accumulate::Replace, Operand::new(&x, some.len(), d), Operand::new(&inverse, d, d).transposed());
        total += 0.5 * z.iter().map(|z| z * z).sum::<f64>();
    }
    Some(total / tested.len() as f64 + of_noise + log_det + 0.5 * d as f64 * TAU.ln())
}

/// The lower factor L of a symmetric matrix L Lᵀ in its place; none where it is not positive definite.
fn cholesky(matrix: &mut [f64], d: usize) -> Option<()> {
    for i in 0..d {
        let (above, own) = matrix.split_at_mut(i * d);
        for j in 0..i {
            let row = &above[j * d..j * d + j];
            let sum: f64 = row.iter().zip(&own[..j]).map(|(a, b)| a * b).sum();
            own[j] = (own[j] - sum) / above[j * d + j];
        }
        let left = own[i] - own[..i].iter().map(|x| x * x).sum::<f64>();
        if left.is_nan() || left <= 1e-12 * own[i] {
            return None;
        }
        own[i] = left.sqrt();
        own[i + 1..d].fill(0.0);
    }
    Some(())
}

/// The inverse of a lower triangular matrix.
fn inverse_of_lower(l: &[f64], d: usize) -> Vec<f64> {
    let mut inverse = vec![0.0; d * d];
    for i in 0..d {
        let (above, own) = inverse.split_at_mut(i * d);
        for k in 0..i {
            let factor = l[i * d + k];
            own[..=k].iter_mut().zip(&above[k * d..=k * d + k]).for_each(|(own, x)| *own -= factor * x);
        }
        own[i] = 1.0;
        let scale = l[i * d + i].recip();
        own[..=i].iter_mut().for_each(|x| *x *= scale);
    }
    inverse
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
        let found = baselines(&*split.train, &*split.test).unwrap();
        assert!((found[0].loss - 4.087).abs() < 1e-3, "{found:?}");
        assert!((found[1].loss - 2.364).abs() < 2e-2, "{found:?}");
        assert!((found[2].loss - 2.947).abs() < 2e-2, "{found:?}");
        // What a PNG takes is what its bytes say, and a coder of pictures beats four bits of 17 levels.
        assert!(found[3].name == "one PNG of all pictures" && (2.0..4.0).contains(&found[3].loss), "{found:?}");
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
        let found = of(&sample(&set), &sample(&set), None, ItemShape::Vector { dims: 2 }, Limits::LOOK);
        let entropy = TAU.ln() + 1.0 + 3f64.ln();
        assert!((found[0].loss - entropy).abs() < 0.03, "{found:?}");
        assert!((found[0].loss - found[1].loss + 0.5 * (1.0 - rho * rho).ln()).abs() < 0.02, "{found:?}");
    }
}
