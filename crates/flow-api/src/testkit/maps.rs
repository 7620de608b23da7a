//! Values and log-dets, forward and inverse.

use super::bench::{BATCH, Bench, Direction, both_kernels, near, normal, size};
use super::{Checked, Failure, Flat, Item};
use crate::bijector::Point;
use crate::log_det::LogDetKind;
use crate::rows::BLOCK_LANES;
use crate::{Context, FlowError, Gradients, Scalar as _};
use faer::Mat;

/// Most numbers in a sample whose full Jacobian is formed.
const JACOBIAN_LIMIT: usize = 128;

/// Why a property of the inverse is not checked.
const NO_INVERSE: &str = "it has no inverse";

/// Shapes stay, and everything is finite.
pub(super) fn shapes<B: Flat>(bench: &Bench<'_, B>, item: Item) -> Checked {
    let (dim, cx) = (bench.subject.dim, bench.context(BATCH));
    let shape = bench.run(item, bench.bijector.output_shape(&(BATCH, dim)))?;
    if shape != (BATCH, dim) {
        return Err(bench.failure(item, format!("output_shape: expected {:?}, got {shape:?}", (BATCH, dim))));
    }
    if bench.bijector.facts().condition != bench.subject.condition {
        let (expected, got) = (bench.subject.condition, bench.bijector.facts().condition);
        return Err(bench.failure(item, format!("condition_width: expected {expected:?}, got {got:?}")));
    }
    let x = bench.typical(BATCH, 3);
    for &name in bench.directions() {
        let (values, log_det) = bench.map(name, item, &x, &cx)?;
        if (values.len(), log_det.len()) != (x.len(), BATCH) {
            let got = format!("{} values and {} log-dets for {BATCH} samples of {dim}", values.len(), log_det.len());
            return Err(bench.failure(item, format!("{name}: {got}")));
        }
        if let Some(at) = values.iter().position(|v| !v.is_finite()) {
            return Err(bench.failure(item, format!("{name}: number {} of sample {} is {}", at % dim, at / dim, values[at])));
        }
        if let Some(at) = log_det.iter().position(|v| !v.is_finite()) {
            return Err(bench.failure(item, format!("{name}: the log-det of sample {at} is {}", log_det[at])));
        }
    }
    Ok(None)
}

/// Where round trips start: normal numbers, far out ones, zeros, repeated rows, tiny ones, neighbours of zero, and the
/// subject's own points.
fn starts<B: Flat>(bench: &Bench<'_, B>) -> Vec<(&'static str, Vec<f64>)> {
    let len = BATCH * bench.subject.dim;
    let mut starts = vec![
        ("normal", bench.inputs(BATCH, 4, 1.0)),
        ("ten standard deviations out", bench.inputs(BATCH, 5, 10.0)),
        ("zeros", vec![0.0; len]),
        ("repeated rows", bench.inputs(1, 8, 1.0).repeat(BATCH)),
        ("tiny", bench.inputs(BATCH, 6, 1e-6)),
        ("neighbours of zero", (0..len).map(|i| if i % 2 == 0 { f64::from_bits(1) } else { -f64::MIN_POSITIVE }).collect()),
    ];
    starts.extend(bench.subject.points.iter().map(|point| ("a point of the subject", point.repeat(BATCH))));
    starts
}

/// f⁻¹(f(x)) = x and f(f⁻¹(z)) = z; equal rows have equal results where the condition does not differ.
pub(super) fn round_trips<B: Flat>(bench: &Bench<'_, B>, item: Item) -> Checked {
    if !bench.has_inverse() {
        return Ok(Some(NO_INVERSE));
    }
    let tolerance = bench.subject.round_trip();
    let cx = bench.context(BATCH);
    for (name, points) in &starts(bench) {
        // The inverse loses what the map's conditioning costs: judged against the size of all that takes part.
        let (y, log_det) = bench.forward(item, points, &cx)?;
        let back = bench.inverse(item, &y, &cx)?.0;
        bench.subject.close(item, &format!("f⁻¹(f(x)), {name}"), &back, points, tolerance * size(points.iter().chain(&y)), 0.0)?;
        let x = bench.inverse(item, points, &cx)?.0;
        let again = bench.forward(item, &x, &cx)?.0;
        bench.subject.close(item, &format!("f(f⁻¹(z)), {name}"), &again, points, tolerance * size(points.iter().chain(&x)), 0.0)?;
        if *name == "repeated rows" && bench.subject.condition.is_none() && bench.bijector.facts().log_det != LogDetKind::Estimate {
            let first = (y[..bench.subject.dim].repeat(BATCH), vec![log_det[0]; BATCH]);
            let tolerance = bench.subject.solved(1e-12) * size(&y);
            bench.subject.close(item, "f(x) of equal rows", &y, &first.0, tolerance, 0.0)?;
            bench.subject.close(item, "log-dets of equal rows", &log_det, &first.1, tolerance, 1e-12)?;
        }
    }
    Ok(None)
}

/// Log-dets of the two directions cancel: at f(x) for every start, and at latents that no x was mapped to.
pub(super) fn antisymmetry<B: Flat>(bench: &Bench<'_, B>, item: Item) -> Checked {
    if bench.bijector.facts().log_det == LogDetKind::Estimate {
        return Ok(Some("log-dets are estimates"));
    }
    if !bench.has_inverse() {
        return Ok(Some(NO_INVERSE));
    }
    let tolerance = bench.subject.round_trip();
    let cx = bench.context(BATCH);
    for (name, points) in &starts(bench) {
        let (y, forward) = bench.forward(item, points, &cx)?;
        let inverse = bench.inverse(item, &y, &cx)?.1;
        let cancelled: Vec<f64> = forward.iter().map(|l| -l).collect();
        let scale = size(points.iter().chain(&y));
        bench.subject.close(item, &format!("log-det of f⁻¹ at f(x), {name}"), &inverse, &cancelled, tolerance * scale, tolerance)?;
        let (x, inverse) = bench.inverse(item, points, &cx)?;
        let cancelled: Vec<f64> = bench.forward(item, &x, &cx)?.1.iter().map(|l| -l).collect();
        let scale = size(points.iter().chain(&x));
        bench.subject.close(item, &format!("log-det of f⁻¹ at z, {name}"), &inverse, &cancelled, tolerance * scale, tolerance)?;
    }
    Ok(None)
}

/// The Jacobian of one sample by central differences: column i is ∂y/∂xᵢ.
fn jacobian(dim: usize, x: &[f64], step: f64, map: impl Fn(&[f64]) -> Result<Vec<f64>, Failure>) -> Result<Mat<f64>, Failure> {
    let step = |x: f64| step * x.abs().max(1.0);
    // All shifted samples in one batch.
    let mut batch = Vec::with_capacity(2 * dim * dim);
    for i in 0..dim {
        for sign in [1.0, -1.0] {
            let mut shifted = x.to_vec();
            shifted[i] += sign * step(x[i]);
            batch.extend(shifted);
        }
    }
    let y = map(&batch)?;
    Ok(Mat::from_fn(dim, dim, |j, i| (y[2 * i * dim + j] - y[(2 * i + 1) * dim + j]) / (2.0 * step(x[i]))))
}

/// log|det| of a matrix by LU.
fn log_abs_det(matrix: &Mat<f64>) -> f64 {
    let lu = matrix.partial_piv_lu();
    (0..matrix.nrows()).map(|i| lu.U()[(i, i)].abs().ln()).sum()
}

/// Log-dets are those of the Jacobian by finite differences, in both directions.
pub(super) fn log_dets<B: Flat>(bench: &Bench<'_, B>, item: Item) -> Checked {
    let dim = bench.subject.dim;
    if bench.bijector.facts().log_det == LogDetKind::Estimate {
        return Ok(Some("log-dets are estimates"));
    }
    if dim > JACOBIAN_LIMIT {
        return Ok(Some("samples are too large for a full Jacobian"));
    }
    for (sample, seed) in [20, 21].into_iter().enumerate() {
        let x = bench.typical(1, seed);
        // All shifted copies have the condition of the one sample.
        let shifted = bench.context_of(std::iter::repeat_n(sample, 2 * dim));
        for &map in bench.directions() {
            // Differences of an iteration are differences of its errors.
            if map == Direction::Inverse && bench.subject.inverse_tolerance.is_some() {
                continue;
            }
            let own = bench.map(map, item, &x, &bench.context_of(std::iter::once(sample)))?.1;
            let difference = |step| Ok(log_abs_det(&jacobian(dim, &x, step, |batch| Ok(bench.map(map, item, batch, &shifted)?.0))?));
            agrees_with_differences(&difference, |expected| {
                // Differences lose half of the digits.
                bench.subject.close(
                    item,
                    &format!("log-det of {map} against differences"),
                    &own,
                    &[expected],
                    1e-6_f64.max(2e-7 * dim as f64),
                    1e-6,
                )
            })?;
        }
    }
    Ok(None)
}

/// Judges a value against differences of two steps: between the two points of a difference may lie a kink, which one of
/// the steps misses.
pub(super) fn agrees_with_differences(
    difference: &dyn Fn(f64) -> Result<f64, Failure>,
    judge: impl Fn(f64) -> Result<(), Failure>,
) -> Result<(), Failure> {
    judge(difference(1e-5)?).or_else(|failure| judge(difference(1e-6)?).map_err(|_| failure))
}

/// What must not depend on each other does not, bit for bit, in values and in derivatives.
pub(super) fn structure<B: Flat>(bench: &Bench<'_, B>, item: Item) -> Checked {
    if bench.subject.independent.is_empty() {
        return Ok(Some("no pairs are named"));
    }
    let dim = bench.subject.dim;
    let cx = bench.context(1);
    let x = bench.typical(1, 30);
    let y = bench.forward(item, &x, &cx)?.0;
    for &(output, input) in &bench.subject.independent {
        let mut moved = x.clone();
        moved[input] += 0.37;
        let (a, b) = (y[output], bench.forward(item, &moved, &cx)?.0[output]);
        let (untouched, independent) = (output == input, a.to_bits() == b.to_bits());
        if untouched && (a.to_bits() != x[input].to_bits() || b.to_bits() != moved[input].to_bits()) {
            return Err(bench.failure(item, format!("number {input} should pass untouched: {} became {a}", x[input])));
        }
        if !untouched && !independent {
            return Err(bench.failure(item, format!("output {output} changes with input {input}: {a}, {b}")));
        }
    }
    for output in 0..dim {
        let unit = bench.tensor(&(0..dim).map(|j| if j == output { 1.0 } else { 0.0 }).collect::<Vec<_>>());
        let cotangent = crate::bijector::Cotangent { value: unit, log_det: f64::tensor(vec![0.0], (1,)) };
        let mut gradients = Gradients::zeros(&bench.bijector);
        let pulled = bench.run(item, bench.bijector.pullback(Point::Input(bench.tensor(&x)), cotangent, &mut gradients, &cx))?;
        let row = crate::to_host(&pulled.cotangent);
        for &(_, input) in bench.subject.independent.iter().filter(|pair| pair.0 == output) {
            let expected = if input == output { 1.0 } else { 0.0 };
            if !near(row[input], expected, 0.0) {
                return Err(bench.failure(item, format!("∂y[{output}]/∂x[{input}]: expected {expected}, got {}", row[input])));
            }
        }
    }
    Ok(None)
}

/// A row alone is the row in a batch, and a permuted batch is the permuted result, in both directions.
pub(super) fn batches<B: Flat>(bench: &Bench<'_, B>, item: Item) -> Checked {
    if bench.bijector.facts().log_det == LogDetKind::Estimate {
        return Ok(Some("log-dets are estimates, whose noise depends on the row"));
    }
    let dim = bench.subject.dim;
    // More rows than a block holds; of large samples, which have many rows of their own, a few.
    let rows = if dim > JACOBIAN_LIMIT { BATCH } else { BLOCK_LANES + 3 };
    let x = bench.typical(rows, 31);
    let reversed: Vec<f64> = x.chunks_exact(dim).rev().flatten().copied().collect();
    let tolerance = bench.subject.solved(1e-10);
    for &map in bench.directions() {
        let (y, log_det) = bench.map(map, item, &x, &bench.context(rows))?;
        for row in [0, 1, rows - 1] {
            let (alone, l) = bench.map(map, item, &x[row * dim..][..dim], &bench.context_of(std::iter::once(row)))?;
            bench.subject.close(item, &format!("{map}: row {row} alone"), &alone, &y[row * dim..][..dim], tolerance, tolerance)?;
            bench.subject.close(item, &format!("{map}: log-det of row {row} alone"), &l, &log_det[row..=row], tolerance, tolerance)?;
        }
        let (z, mut l) = bench.map(map, item, &reversed, &bench.context_of((0..rows).rev()))?;
        let back: Vec<f64> = z.chunks_exact(dim).rev().flatten().copied().collect();
        bench.subject.close(item, &format!("{map}: reversed batch"), &back, &y, tolerance, tolerance)?;
        l.reverse();
        bench.subject.close(item, &format!("{map}: log-dets of the reversed batch"), &l, &log_det, tolerance, tolerance)?;
    }
    Ok(None)
}

/// Fused and plain kernels agree; a bijection that has one form gives it both times.
pub(super) fn kernels<B: Flat>(bench: &Bench<'_, B>, item: Item) -> Checked {
    let x = bench.typical(BATCH, 33);
    let [fused, plain] = both_kernels(&bench.context(BATCH));
    let (y, l) = bench.forward(item, &x, &fused)?;
    let (z, m) = bench.forward(item, &x, &plain)?;
    bench.subject.close(item, "f(x)", &z, &y, 1e-12 * size(&y), 1e-12)?;
    bench.subject.close(item, "log-det", &m, &l, 1e-12 * size(&l), 1e-12)?;
    if !bench.has_inverse() {
        return Ok(None);
    }
    // An inverse may be computed in another way altogether, and iterations stop at other places.
    let tolerance = bench.subject.solved(1e-10);
    let (y, l) = bench.inverse(item, &x, &fused)?;
    let (z, m) = bench.inverse(item, &x, &plain)?;
    bench.subject.close(item, "f⁻¹(x)", &z, &y, tolerance * size(&y), tolerance)?;
    bench.subject.close(item, "log-det of the inverse", &m, &l, tolerance * size(&l), tolerance)?;
    Ok(None)
}

/// Both directions depend on the condition; a missing one and one of another shape are typed errors. A bijection
/// without one ignores it.
pub(super) fn condition<B: Flat>(bench: &Bench<'_, B>, item: Item) -> Checked {
    let x = bench.typical(BATCH, 35);
    let with =
        |rows: usize, width: usize, seed: u64| Context::new(11).with_condition(f64::tensor(normal(rows * width, seed), (rows, width)));
    let Some(width) = bench.subject.condition else {
        let without = bench.forward(item, &x, &bench.context(BATCH))?.0;
        let with = bench.forward(item, &x, &with(BATCH, 2, 1))?.0;
        bench.subject.close(item, "f(x) with a condition that is not asked for", &with, &without, 1e-12 * size(&without), 0.0)?;
        return Ok(Some("not conditional"));
    };
    for &map in bench.directions() {
        let [a, b] = [1, 2].map(|seed| bench.map(map, item, &x, &with(BATCH, width, seed)));
        if a?.0 == b?.0 {
            return Err(bench.failure(item, format!("{map} does not depend on the condition")));
        }
    }
    for (name, cx) in [("none", Context::new(11)), ("too wide", with(BATCH, width + 1, 1)), ("too few", with(BATCH - 1, width, 1))] {
        let cotangent = crate::bijector::Cotangent { value: bench.tensor(&x), log_det: f64::tensor(vec![1.0; BATCH], (BATCH,)) };
        let mut gradients = Gradients::zeros(&bench.bijector);
        let calls = [
            ("forward", bench.bijector.forward(bench.tensor(&x), &cx).err()),
            ("inverse", bench.bijector.inverse(bench.tensor(&x), &cx).err()),
            ("pullback", bench.bijector.pullback(Point::Input(bench.tensor(&x)), cotangent, &mut gradients, &cx).err()),
        ];
        for (call, error) in calls {
            match error {
                Some(FlowError::Condition { .. }) => {}
                Some(other) => return Err(bench.failure(item, format!("{name}, {call}: expected a condition error, got: {other}"))),
                None => return Err(bench.failure(item, format!("{name}, {call}: expected a condition error, got a result"))),
            }
        }
    }
    Ok(None)
}

/// A fresh instance maps every row by one scale and shift per feature, which its log-det is the sum of: the identity up
/// to `ActNorm`.
pub(super) fn identity_start<B: Flat>(bench: &Bench<'_, B>, item: Item) -> Checked {
    let dim = bench.subject.dim;
    let x = bench.inputs(3, 36, 1.0);
    let (y, log_det) = bench.forward(item, &x, &bench.context(3))?;
    let mut total = 0.0;
    for j in 0..dim {
        let at = |values: &[f64], row: usize| values[row * dim + j];
        let scale = (at(&y, 1) - at(&y, 0)) / (at(&x, 1) - at(&x, 0));
        let expected = at(&y, 0) + scale * (at(&x, 2) - at(&x, 0));
        bench.subject.close(item, &format!("number {j} of the third row"), &[at(&y, 2)], &[expected], 1e-6, 1e-6)?;
        total += scale.abs().ln();
    }
    bench.subject.close(item, "log-det", &log_det, &[total; 3], 1e-6, 1e-6)?;
    Ok(None)
}
