//! Columns of real numbers, one by one.

use super::Finding;
use super::values::lattice;
use crate::data::{Column, ColumnKind, ColumnMap, Quartiles, column_key, column_name};
use crate::text::number;
use serde::Serialize;

/// How many items share a value, on average, where values are taken to repeat.
const REPEATS: usize = 4;
/// The share of the items from which one value is said to pile up.
const PILE: f64 = 0.1;

/// What one column holds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ColumnLook {
    /// Its name, kind and range, in the items that were looked at.
    #[serde(flatten)]
    pub column: Column,
    /// Mean.
    pub mean: f64,
    /// Standard deviation.
    pub spread: f64,
    /// Different values.
    pub distinct: usize,
}

/// What is known of the values besides.
pub(super) struct Of<'a> {
    /// The number of each item in its file.
    pub(super) rows: &'a [usize],
    pub(super) columns: &'a [Column],
    /// What happens to the columns before a model sees them.
    pub(super) maps: &'a [ColumnMap],
    /// Whether it sees them standardised.
    pub(super) standardised: bool,
}

pub(super) fn look(values: &[f64], of: &Of<'_>, dims: usize, findings: &mut Vec<Finding>) -> Vec<ColumnLook> {
    /// More columns than anyone reads messages of.
    const SAID: usize = 20;
    let own = Column::of((0..dims).map(|i| of.columns.get(i).map_or_else(String::new, |column| column.name.clone())), values);
    let mut said = Vec::new();
    let looks: Vec<ColumnLook> = own
        .into_iter()
        .enumerate()
        .map(|(index, column)| {
            let values: Vec<f64> = values.iter().skip(index).step_by(dims).copied().collect();
            look_at(&values, column, index, of, &mut said)
        })
        .collect();
    let rest = said.len().saturating_sub(SAID);
    said.truncate(SAID);
    findings.extend(said);
    if rest > 0 {
        findings.push(Finding::warning(format!("{rest} more such findings of other columns")));
    }
    looks
}

fn look_at(values: &[f64], column: Column, index: usize, of: &Of<'_>, said: &mut Vec<Finding>) -> ColumnLook {
    let Of { rows, columns, maps, standardised } = *of;
    let (name, key) = (column_name(columns, index), column_key(columns, index));
    let map = maps.get(index).copied().unwrap_or_default();
    let n = values.len();
    let count = n.max(1) as f64;
    // The mean of the differences from one of the values keeps its digits whatever the offset is.
    let origin = values.first().copied().unwrap_or_default();
    let mean = origin + values.iter().map(|x| x - origin).sum::<f64>() / count;
    let spread = (values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / count).sqrt();
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let runs: Vec<&[f64]> = sorted.chunk_by(|a, b| a.to_bits() == b.to_bits()).collect();
    let distinct = runs.len();
    let look = ColumnLook { column, mean, spread, distinct };
    let Column { low, high, kind, .. } = look.column;
    if n < 2 {
        return look;
    }
    if low.total_cmp(&high).is_eq() && !map.discrete {
        said.push(Finding::error(format!("{name} is constant ({}), which has no density: drop={key} leaves it out", number(low))));
        return look;
    }
    let width = high - low;
    if !map.discrete && low < high && width * width < f64::MIN_POSITIVE {
        said.push(Finding::error(format!(
            "{name} lies from {} to {}, so close together that its variance is lost in f64: multiply the column by a power of ten",
            number(low),
            number(high)
        )));
        return look;
    }
    let too_large = |x: &f64| x.abs() > f64::from(f32::MAX);
    if let Some(at) = values.iter().position(too_large) {
        let others = values.iter().filter(|x| too_large(x)).count() - 1;
        let more = if others > 0 { format!(" and {others} more are") } else { " is".to_owned() };
        let text = format!(
            "{name}: {:e} in row {} (counted from 0){more} beyond what f32 holds: rescale the column or leave such rows out",
            values[at], rows[at]
        );
        said.push(Finding::error(text));
        return look;
    }
    // Exact in f64 for any number of rows that fits into memory.
    if values.iter().zip(rows).all(|(x, row)| (x - values[0]).total_cmp(&((row - rows[0]) as f64)).is_eq()) {
        said.push(Finding::warning(format!("{name} counts the rows: drop={key} leaves it out")));
        return look;
    }
    // What f32 makes one value of is lost to a model that reads the column as it is.
    #[expect(clippy::cast_possible_truncation, reason = "the loss is what is measured")]
    let kept = sorted.chunk_by(|a, b| (*a as f32).to_bits() == (*b as f32).to_bits()).count();
    if !standardised && 10 * kept < 9 * distinct {
        said.push(Finding::warning(format!(
            "{name} has an offset that is large beside its spread ({mean:.6e} ± {spread:.3e}): f32 tells {kept} of its {distinct} values apart, which \
             preprocessing.standardise=true would not lose"
        )));
    }
    let quartiles = Quartiles { lower: sorted[n / 4], median: sorted[n / 2], upper: sorted[3 * n / 4] };
    let far: Vec<usize> = (0..n).filter(|&i| quartiles.is_far(values[i])).collect();
    let Quartiles { lower, median, upper } = quartiles;
    if let Some(&at) = far.iter().max_by(|&&a, &&b| (values[a] - median).abs().total_cmp(&(values[b] - median).abs())) {
        // What is mapped to bounded values may be no outlier there.
        let then = match (standardised, map.bounds) {
            (_, Some(_)) => "",
            (true, None) => "; the column is standardised by its quartiles, and what lies far outside them is drawn in",
            (false, None) => ", which preprocessing.standardise=true would draw in",
        };
        let s = if far.len() == 1 { "" } else { "s" };
        said.push(Finding::warning(format!(
            "{name} has {} outlier{s}, such as {} in row {} (counted from 0), where half of the values lie between {} and {}{then}",
            far.len(),
            number(values[at]),
            rows[at],
            number(lower),
            number(upper)
        )));
    }
    let most = runs.iter().max_by_key(|run| run.len()).map_or((0, 0.0), |run| (run.len(), run[0]));
    let unbounded = "a density grows without bound there";
    if map.discrete {
        return look;
    }
    if distinct * REPEATS <= n && kind != ColumnKind::Real {
        said.push(Finding::warning(format!(
            "{name} holds whole numbers alone ({distinct} different ones): {unbounded}; preprocessing.discrete=[\"{key}\"] dequantises it"
        )));
    } else if let Some(step) = lattice(&runs.iter().map(|run| run[0]).collect::<Vec<_>>()).filter(|_| distinct * REPEATS <= n) {
        said.push(Finding::warning(format!("{name} holds multiples of {} alone ({distinct} different values): {unbounded}", number(step))));
    } else if most.0 as f64 > PILE * count && most.0 > 1 && n >= 20 {
        let share = 100.0 * most.0 as f64 / count;
        said.push(Finding::warning(format!("{name} is {} in {share:.1} % of the rows: {unbounded}", number(most.1))));
    }
    look
}
