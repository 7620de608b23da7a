//! Values of pictures, all pixels together, and lattices.

use super::Finding;
use std::collections::HashSet;

/// The most different values that make a lattice.
const MAX_DISTINCT: usize = 4096;

/// The step of a lattice that all of these different values, in ascending order, lie on: a step that is 1 over a whole
/// number comes out as such.
pub(super) fn lattice(sorted: &[f64]) -> Option<f64> {
    let least = sorted.windows(2).map(|pair| pair[1] - pair[0]).filter(|gap| *gap > 0.0).min_by(f64::total_cmp)?;
    if sorted.len() > MAX_DISTINCT {
        return None;
    }
    let range = sorted.last()? - sorted[0];
    // Values that came from f32 are off by as much.
    let tolerance = (1e-4_f64).max(f64::from(f32::EPSILON) * 4.0 * sorted.iter().fold(0.0, |all: f64, x| all.max(x.abs())) / least);
    // The mean step is more exact than any one of them.
    let steps = (range / least).round();
    let step = range / steps.max(1.0);
    let on = |x: &f64| {
        let at = (x - sorted[0]) / step;
        (at - at.round()).abs() < tolerance.min(0.05)
    };
    let whole = (1.0 / step).round();
    let exact = whole > 0.0 && (whole * step - 1.0).abs() < 1e-4;
    // More steps than the values could tell make anything a lattice.
    (steps < 1e6 && sorted.iter().all(on)).then_some(if exact { 1.0 / whole } else { step })
}

/// Pictures of real numbers, or of whole ones that are dequantised.
pub(super) fn look_at_reals(values: &[f64], are_whole: bool, findings: &mut Vec<Finding>) {
    let mut distinct = HashSet::new();
    for value in values {
        distinct.insert(value.to_bits());
        if distinct.len() > MAX_DISTINCT {
            return;
        }
    }
    let mut sorted: Vec<f64> = distinct.into_iter().map(f64::from_bits).collect();
    sorted.sort_by(f64::total_cmp);
    if let [one] = sorted[..] {
        findings.push(Finding::error(format!("all pixels are {one}, which has no density")));
    } else if let Some(step) = lattice(&sorted).filter(|_| sorted.len() * 4 <= values.len()) {
        if are_whole {
            if step > 1.0 {
                let text = format!(
                    "all values are multiples of {step} ({} different ones): a density of them grows without bound; depth=8 scales to 8 bits",
                    sorted.len()
                );
                findings.push(Finding::warning(text));
            }
            return;
        }
        let over = (1.0 / step).round();
        let step = if (over * step - 1.0).abs() < 1e-9 && over > 1.0 { format!("1/{over}") } else { step.to_string() };
        findings.push(Finding::warning(format!(
            "all pixels are multiples of {step} ({} different values): a density grows without bound there; keep them as bytes (uint8), \
             which are dequantised",
            sorted.len()
        )));
    }
}

/// Values of levels.
pub(super) fn look_at_levels(values: &[u8], levels: u32, findings: &mut Vec<Finding>) {
    let mut used = [false; 256];
    values.iter().for_each(|&level| used[usize::from(level)] = true);
    let distinct = used.iter().filter(|used| **used).count();
    let highest = used.iter().rposition(|used| *used).unwrap_or(0);
    if distinct == 1 {
        findings.push(Finding::error(format!("all values are {highest}: there is nothing to learn")));
    } else if levels == 256 && highest < 128 {
        let text =
            format!("no value is above {highest}, of 255: levels={} counts as many levels (of npy, npz and safetensors)", highest + 1);
        findings.push(Finding::warning(text));
    } else if levels == 256 && distinct <= 32 {
        findings.push(Finding::warning(format!("only {distinct} of 256 levels occur: bits/dim count levels that are never there")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lattices_are_found_and_continuous_values_are_none() {
        let of = |values: Vec<f64>| lattice(&values);
        assert_eq!(of((0..256).map(|i| f64::from(i) / 255.0).collect()), Some(1.0 / 255.0));
        // As f32 rounds them.
        assert_eq!(of((0..=255u8).map(|i| f64::from(f32::from(i) / 255.0)).collect()), Some(1.0 / 255.0));
        assert_eq!(of(vec![-0.5, 0.0, 1.0, 3.5]), Some(0.5));
        assert_eq!(of(vec![1.0, 2.0, 2.0 + 1.0 / 3.0_f64.sqrt()]), None);
        assert_eq!(of((1..200).map(|i| f64::from(i).sqrt()).collect()), None);
        assert_eq!(of(vec![3.0]), None);
    }
}
