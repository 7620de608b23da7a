//! Columns that other columns determine.

use super::Finding;
use crate::data::{Column, column_key, column_name};
use crate::text::count;

/// The most columns that are looked at together.
const MAX_COLUMNS: usize = 512;
/// The most multiplications for it.
const MAX_WORK: usize = 2_000_000_000;
/// A column whose variance is explained by others but for this share depends on them.
const UNEXPLAINED: f64 = 1e-9;
/// A coefficient below this, of standardised columns, is rounding.
const COEFFICIENT: f64 = 1e-4;

/// The correlations of columns (those that vary), and their numbers.
fn correlations(values: &[f64], dims: usize) -> (Vec<usize>, Vec<f64>) {
    let n = values.len() / dims.max(1);
    let stride = (n * dims * dims).div_ceil(MAX_WORK).max(1);
    let rows = || values.chunks_exact(dims).step_by(stride);
    let count = rows().count().max(1) as f64;
    // Differences from the first row keep their digits whatever the offsets are.
    let origin: Vec<f64> = values.iter().take(dims).copied().collect();
    let mut mean = vec![0.0; dims];
    rows().for_each(|row| (0..dims).for_each(|j| mean[j] += (row[j] - origin[j]) / count));
    let mut spread = vec![0.0_f64; dims];
    rows().for_each(|row| (0..dims).for_each(|j| spread[j] += (row[j] - origin[j] - mean[j]).powi(2)));
    let varying: Vec<usize> = (0..dims).filter(|&j| spread[j] > 0.0 && spread[j].is_finite()).collect();
    let d = varying.len();
    let mut matrix = vec![0.0; d * d];
    let mut standard = vec![0.0; d];
    for row in rows() {
        for (to, &j) in standard.iter_mut().zip(&varying) {
            *to = (row[j] - origin[j] - mean[j]) / spread[j].sqrt();
        }
        for i in 0..d {
            for j in 0..=i {
                matrix[i * d + j] += standard[i] * standard[j];
            }
        }
    }
    (varying, matrix)
}

/// Goes through the columns in order, by Cholesky's factorisation: one that those before it determine is told with
/// them, and left out of what follows.
pub(super) fn look(values: &[f64], columns: &[Column], dims: usize, findings: &mut Vec<Finding>) {
    if !(2..=MAX_COLUMNS).contains(&dims) || values.len() < 3 * dims {
        return;
    }
    let n = values.len() / dims;
    let (varying, matrix) = correlations(values, dims);
    let d = varying.len();
    if n <= d {
        let text =
            format!("{} of {}: with fewer rows than columns every column depends on the others", count(n, "row"), count(d, "column"));
        findings.push(Finding::warning(text));
        return;
    }
    // Rows of the factor, of the columns that are kept.
    let mut factor: Vec<Vec<f64>> = Vec::new();
    let mut kept: Vec<usize> = Vec::new();
    for j in 0..d {
        let mut row: Vec<f64> = Vec::with_capacity(kept.len() + 1);
        for (k, other) in factor.iter().enumerate() {
            let (a, b) = (j.max(kept[k]), j.min(kept[k]));
            let sum: f64 = row.iter().zip(other).map(|(x, y)| x * y).sum();
            row.push((matrix[a * d + b] - sum) / other[k]);
        }
        let left = matrix[j * d + j] - row.iter().map(|x| x * x).sum::<f64>();
        if left > UNEXPLAINED {
            row.push(left.sqrt());
            factor.push(row);
            kept.push(j);
            continue;
        }
        // Coefficients of the columns before it: the factor transposed is solved from its last row up.
        let mut coefficients = row;
        for k in (0..kept.len()).rev() {
            let sum: f64 = (k + 1..kept.len()).map(|i| factor[i][k] * coefficients[i]).sum();
            coefficients[k] = (coefficients[k] - sum) / factor[k][k];
        }
        let of: Vec<usize> = (0..kept.len()).filter(|&k| coefficients[k].abs() > COEFFICIENT).map(|k| varying[kept[k]]).collect();
        let names: Vec<String> = of.iter().take(6).map(|&i| column_name(columns, i)).collect();
        let more = if of.len() > names.len() { format!(" and {} more", of.len() - names.len()) } else { String::new() };
        let index = varying[j];
        let (name, key) = (column_name(columns, index), column_key(columns, index));
        let what = if of.len() == 1 { "is a multiple of" } else { "is a combination of" };
        findings.push(Finding::warning(format!(
            "{name} {what} {}{more}: a density of columns that determine each other grows without bound; drop={key} leaves it out",
            names.join(", ")
        )));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_that_others_determine_are_named_with_them() {
        let noise = |i: usize, salt: usize| ((i * 7919 + salt * 104_729) % 1009) as f64 / 100.0;
        let names = ["a", "b", "c", "d", "e"].map(str::to_owned);
        let row = |i: usize| {
            let (a, b, d) = (noise(i, 1), 1.7e9 + noise(i, 2), noise(i * i, 3));
            [a, b, a - 3.0 * b, d, 2.0 * d + 1e6]
        };
        let values: Vec<f64> = (0..300).flat_map(row).collect();
        let columns = Column::of(names, &values);
        let mut findings = Vec::new();
        look(&values, &columns, 5, &mut findings);
        let texts: Vec<String> = findings.iter().map(ToString::to_string).collect();
        assert_eq!(texts.len(), 2, "{texts:?}");
        assert!(texts[0].starts_with("column `c` (3) is a combination of column `a` (1), column `b` (2):"), "{texts:?}");
        assert!(texts[1].starts_with("column `e` (5) is a multiple of column `d` (4):"), "{texts:?}");

        let independent: Vec<f64> = (0..300).flat_map(|i| [noise(i, 1), noise(i * i, 3)]).collect();
        findings.clear();
        look(&independent, &[], 2, &mut findings);
        assert!(findings.is_empty(), "{findings:?}");
    }
}
