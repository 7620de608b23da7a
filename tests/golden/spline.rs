//! The rational-quadratic spline against nflows.

use super::{Golden, assert_close};
use flow_api::rows::RowTape;
use flow_kernels::workspace::Buffer;
use mixerflow_toolkit::coupling::{RationalQuadratic, Transformer};

#[test]
fn spline_agrees_with_nflows() {
    let golden = Golden::open("spline");
    let bins = golden.size("bins");
    let spline = RationalQuadratic::new(bins, golden.number("tail_bound")).unwrap();
    for least in ["min_bin_width", "min_bin_height", "min_derivative"] {
        assert!((golden.number(least) - 1e-3).abs() < 1e-15, "{least}");
    }
    // Every number with its own spline: one feature, as many lanes as numbers.
    let x = golden.values("x");
    let lanes = x.len();
    let parts = [("widths", bins, 0.0), ("heights", bins, 0.0), ("derivatives", bins - 1, spline.slope_offset())];
    let mut numbers = Buffer::take(Transformer::<f64>::parameters(&spline) * lanes);
    let mut at = 0;
    for (name, count, offset) in parts {
        for (k, value) in golden.values(name).into_iter().enumerate() {
            numbers[(at + k % count) * lanes + k / count] = value - offset;
        }
        at += count;
    }
    let numbers_again = || {
        let mut copy = Buffer::take(numbers.len());
        copy.copy_from_slice(&numbers);
        copy
    };
    let (mut values, mut log_slopes, mut tape) = (x.clone(), vec![0.0; lanes], RowTape::recording());
    spline.forward(&mut values, numbers_again(), &mut log_slopes, &mut tape);
    assert_close("y", &values, &golden.values("y"), 1e-9);
    assert_close("logdet", &log_slopes, &golden.values("logdet"), 1e-9);

    // `meta.grad_of`: ⟨linspace(−1, 1), y⟩ + Σ logdet.
    let mut cotangent: Vec<f64> = (0..lanes).map(|k| 2.0 * k as f64 / (lanes as f64 - 1.0) - 1.0).collect();
    let gradients = spline.pullback(&mut cotangent, &vec![1.0; lanes], &mut tape).unwrap();
    assert_close("grad.x", &cotangent, &golden.values("grad.x"), 1e-9);
    let mut at = 0;
    for (name, count, _) in parts {
        let got: Vec<f64> = (0..count * lanes).map(|k| gradients[(at + k % count) * lanes + k / count]).collect();
        assert_close(&format!("grad.{name}"), &got, &golden.values(&format!("grad.{name}")), 1e-9);
        at += count;
    }

    let mut inverse_log_slopes = vec![0.0; lanes];
    spline.inverse(&mut values, numbers_again(), &mut inverse_log_slopes, &mut RowTape::idle());
    assert_close("x from y", &values, &x, 1e-9);
    let negative: Vec<f64> = inverse_log_slopes.iter().map(|l| -l).collect();
    assert_close("log-slopes of the inverse", &negative, &log_slopes, 1e-9);
}
