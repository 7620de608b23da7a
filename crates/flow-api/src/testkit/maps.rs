//! Values and log-dets, forward and inverse.

use super::{BATCH, Bench, Failure, Flat, both_kernels};
use faer::Mat;

/// Shapes stay, and everything is finite.
pub(super) fn shapes<B: Flat>(bench: &Bench<'_, B>) -> Result<(), Failure> {
    const ITEM: &str = "shapes";
    let (dim, cx) = (bench.subject.dim, bench.context(BATCH));
    let shape = bench.run(ITEM, bench.bijector.output_shape(&(BATCH, dim)))?;
    if shape != (BATCH, dim) {
        return Err(bench.failure(ITEM, format!("output_shape: expected {:?}, got {shape:?}", (BATCH, dim))));
    }
    let x = bench.inputs(BATCH, 3, bench.subject.spread);
    let (y, log_det) = bench.forward(ITEM, &x, &cx)?;
    if (y.len(), log_det.len()) != (x.len(), BATCH) {
        return Err(bench.failure(ITEM, format!("{} values and {} log-dets for {BATCH} samples of {dim}", y.len(), log_det.len())));
    }
    match y.iter().chain(&log_det).position(|v| !v.is_finite()) {
        Some(at) => Err(bench.failure(ITEM, format!("number {at} of values and log-dets is not finite"))),
        None => Ok(()),
    }
}

/// f⁻¹(f(x)) = x and f(f⁻¹(z)) = z, with log-dets that cancel: on normal numbers, zeros, repeated rows, tiny numbers and far out ones.
pub(super) fn round_trips<B: Flat>(bench: &Bench<'_, B>) -> Result<(), Failure> {
    let dim = bench.subject.dim;
    let tolerance = bench.subject.round_trip();
    let one = bench.inputs(1, 8, 1.0);
    let cases = [
        ("normal", bench.inputs(BATCH, 4, 1.0)),
        ("ten standard deviations out", bench.inputs(BATCH, 5, 10.0)),
        ("zeros", vec![0.0; BATCH * dim]),
        ("repeated rows", one.repeat(BATCH)),
        ("tiny", bench.inputs(BATCH, 6, 1e-6)),
    ];
    let cx = bench.context(BATCH);
    for (name, points) in &cases {
        let (y, forward) = bench.forward("round trip", points, &cx)?;
        let (back, inverse) = bench.inverse("round trip", &y, &cx)?;
        // The inverse loses what the map's conditioning costs: judged against the size of all that takes part.
        let size = points.iter().chain(&y).fold(1.0_f64, |m, v| m.max(v.abs()));
        bench.close("round trip", &format!("f⁻¹(f(x)), {name}"), &back, points, tolerance * size, 0.0)?;
        let negated: Vec<f64> = forward.iter().map(|l| -l).collect();
        bench.close("antisymmetry", &format!("log-det of f⁻¹ at f(x), {name}"), &inverse, &negated, tolerance * size, tolerance)?;
        let (x, inverse) = bench.inverse("round trip", points, &cx)?;
        let (again, forward) = bench.forward("round trip", &x, &cx)?;
        let size = points.iter().chain(&x).fold(1.0_f64, |m, v| m.max(v.abs()));
        bench.close("round trip", &format!("f(f⁻¹(z)), {name}"), &again, points, tolerance * size, 0.0)?;
        let negated: Vec<f64> = forward.iter().map(|l| -l).collect();
        bench.close("antisymmetry", &format!("log-det of f⁻¹ at z, {name}"), &inverse, &negated, tolerance * size, tolerance)?;
    }
    Ok(())
}

/// The Jacobian of one sample by central differences: column i is ∂y/∂xᵢ.
fn jacobian(dim: usize, x: &[f64], map: impl Fn(&[f64]) -> Result<Vec<f64>, Failure>) -> Result<Mat<f64>, Failure> {
    let step = |x: f64| 1e-5 * x.abs().max(1.0);
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
pub(super) fn log_dets<B: Flat>(bench: &Bench<'_, B>) -> Result<(), Failure> {
    const ITEM: &str = "log-det";
    let dim = bench.subject.dim;
    let cx = bench.context(1);
    let wide = bench.context(2 * dim);
    // The one condition of a single sample for all shifted copies of it.
    let same_condition = |rows: usize| match (bench.subject.condition, cx.condition()) {
        (Some(width), Some(one)) => {
            use dfdx::prelude::TensorFromVec;
            let values = crate::to_host(one).repeat(rows);
            wide.clone().with_condition(bench.device.tensor_from_vec(values, (rows, width)))
        }
        _ => wide.clone(),
    };
    let wide = same_condition(2 * dim);
    for seed in [20, 21] {
        let x = bench.inputs(1, seed, bench.subject.spread);
        let (_, own) = bench.forward(ITEM, &x, &cx)?;
        let expected = log_abs_det(&jacobian(dim, &x, |batch| Ok(bench.forward(ITEM, batch, &wide)?.0))?);
        // Differences lose half of the digits.
        let tolerance = 1e-6_f64.max(2e-7 * dim as f64);
        bench.close(ITEM, "log|det ∂f/∂x| against differences", &own, &[expected], tolerance, 1e-6)?;
        if bench.subject.inverse_tolerance.is_none() {
            let (_, own) = bench.inverse(ITEM, &x, &cx)?;
            let expected = log_abs_det(&jacobian(dim, &x, |batch| Ok(bench.inverse(ITEM, batch, &wide)?.0))?);
            bench.close(ITEM, "log|det ∂f⁻¹/∂y| against differences", &own, &[expected], tolerance, 1e-6)?;
        }
    }
    Ok(())
}

/// What must not depend on each other does not, bit for bit.
#[expect(clippy::float_cmp, reason = "bit for bit")]
pub(super) fn structure<B: Flat>(bench: &Bench<'_, B>) -> Result<(), Failure> {
    const ITEM: &str = "structure";
    let cx = bench.context(1);
    let x = bench.inputs(1, 30, bench.subject.spread);
    for &(output, input) in &bench.subject.independent {
        let mut moved = x.clone();
        moved[input] += 0.37;
        let (a, b) = (bench.forward(ITEM, &x, &cx)?.0[output], bench.forward(ITEM, &moved, &cx)?.0[output]);
        if output == input && (a != x[input] || b != moved[input]) {
            return Err(bench.failure(ITEM, format!("number {input} should pass untouched: {} became {a}", x[input])));
        }
        if output != input && a.to_bits() != b.to_bits() {
            return Err(bench.failure(ITEM, format!("output {output} changes with input {input}: {a}, {b}")));
        }
    }
    Ok(())
}

/// A row alone is the row in a batch, and a permuted batch is the permuted result. In evaluation no bijection of ours draws noise.
pub(super) fn batches<B: Flat>(bench: &Bench<'_, B>) -> Result<(), Failure> {
    const ITEM: &str = "batch independence";
    if bench.bijector.log_det_kind() == crate::LogDetKind::Estimate || bench.subject.condition.is_some() {
        return Ok(());
    }
    let dim = bench.subject.dim;
    // More rows than a block holds.
    let rows = crate::BLOCK_LANES + 3;
    let x = bench.inputs(rows, 31, bench.subject.spread);
    let cx = bench.context(rows);
    let (y, log_det) = bench.forward(ITEM, &x, &cx)?;
    let tolerance = bench.subject.inverse_tolerance.map_or(1e-10, |t| (10.0 * t).max(1e-10));
    for row in [0, 1, rows - 1] {
        let (alone, l) = bench.forward(ITEM, &x[row * dim..][..dim], &bench.context(1))?;
        bench.close(ITEM, &format!("row {row} alone"), &alone, &y[row * dim..][..dim], tolerance, tolerance)?;
        bench.close(ITEM, &format!("log-det of row {row} alone"), &l, &log_det[row..=row], tolerance, tolerance)?;
    }
    let reversed: Vec<f64> = x.chunks_exact(dim).rev().flatten().copied().collect();
    let (z, l) = bench.forward(ITEM, &reversed, &cx)?;
    let back: Vec<f64> = z.chunks_exact(dim).rev().flatten().copied().collect();
    bench.close(ITEM, "reversed batch", &back, &y, tolerance, tolerance)?;
    let l: Vec<f64> = l.into_iter().rev().collect();
    bench.close(ITEM, "log-dets of the reversed batch", &l, &log_det, tolerance, tolerance)
}

/// Fused and plain kernels agree.
pub(super) fn kernels<B: Flat>(bench: &Bench<'_, B>) -> Result<(), Failure> {
    const ITEM: &str = "fused and plain kernels";
    let x = bench.inputs(BATCH, 33, bench.subject.spread);
    let [fused, plain] = both_kernels(&bench.context(BATCH));
    let size = |values: &[f64]| 1e-11 * values.iter().fold(1.0_f64, |m, v| m.max(v.abs()));
    let (y, l) = bench.forward(ITEM, &x, &fused)?;
    let (z, m) = bench.forward(ITEM, &x, &plain)?;
    bench.close(ITEM, "f(x)", &z, &y, size(&y), 1e-11)?;
    bench.close(ITEM, "log-det", &m, &l, size(&l), 1e-11)?;
    let (y, l) = bench.inverse(ITEM, &x, &fused)?;
    let (z, m) = bench.inverse(ITEM, &x, &plain)?;
    bench.close(ITEM, "f⁻¹(x)", &z, &y, 10.0 * size(&y), 1e-10)?;
    bench.close(ITEM, "log-det of the inverse", &m, &l, 10.0 * size(&l), 1e-10)
}

/// The output depends on the condition; a missing one and one of another shape are typed errors.
pub(super) fn condition<B: Flat>(bench: &Bench<'_, B>) -> Result<(), Failure> {
    use dfdx::prelude::TensorFromVec;
    const ITEM: &str = "condition";
    let Some(width) = bench.subject.condition else { return Ok(()) };
    let x = bench.inputs(BATCH, 35, bench.subject.spread);
    let with = |rows: usize, width: usize, seed: u64| {
        crate::Context::new(11).with_condition(bench.device.tensor_from_vec(super::normal(rows * width, seed), (rows, width)))
    };
    let (a, b) = (bench.forward(ITEM, &x, &with(BATCH, width, 1))?.0, bench.forward(ITEM, &x, &with(BATCH, width, 2))?.0);
    if a == b {
        return Err(bench.failure(ITEM, "the output does not depend on the condition"));
    }
    for (name, cx) in [("none", crate::Context::new(11)), ("too wide", with(BATCH, width + 1, 1)), ("too few", with(BATCH - 1, width, 1))] {
        match bench.bijector.forward(bench.tensor(&x), &cx) {
            Err(crate::FlowError::Condition { .. }) => {}
            other => return Err(bench.failure(ITEM, format!("{name}: expected a condition error, got {:?}", other.map(|m| m.log_det)))),
        }
    }
    Ok(())
}

/// A fresh instance maps every row by one scale and shift per feature, which its log-det is the sum of: the identity up to `ActNorm`.
pub(super) fn identity_start<B: Flat>(bench: &Bench<'_, B>) -> Result<(), Failure> {
    const ITEM: &str = "identity start";
    let dim = bench.subject.dim;
    let x = bench.inputs(3, 36, 1.0);
    let (y, log_det) = bench.forward(ITEM, &x, &bench.context(3))?;
    let mut total = 0.0;
    for j in 0..dim {
        let at = |values: &[f64], row: usize| values[row * dim + j];
        let scale = (at(&y, 1) - at(&y, 0)) / (at(&x, 1) - at(&x, 0));
        let expected = at(&y, 0) + scale * (at(&x, 2) - at(&x, 0));
        bench.close(ITEM, &format!("number {j} of the third row"), &[at(&y, 2)], &[expected], 1e-6, 1e-6)?;
        total += scale.abs().ln();
    }
    bench.close(ITEM, "log-det", &log_det, &[total; 3], 1e-6, 1e-6)
}
