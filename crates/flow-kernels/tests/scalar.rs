//! Accuracy of the elementary functions over the whole range of f32 and f64: against the standard library's f64
//! functions.

#![allow(clippy::float_cmp, reason = "limits and symmetries are exact")]

use flow_kernels::Real;
use flow_kernels::scalar::{
    exp, exp_m1, gelu, gelu_with_derivative, ln, log_sigmoid, sigmoid, sigmoid_with_derivative, silu, silu_with_derivative, softplus, tanh,
};

fn sigmoid_std(x: f64) -> f64 {
    if x < 0.0 { x.exp() / (1.0 + x.exp()) } else { 1.0 / (1.0 + (-x).exp()) }
}

fn softplus_std(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

fn gelu_argument(x: f64) -> f64 {
    2.0 * (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3))
}

/// Zero instead of NaN where the gate is zero and `x` infinite.
fn gated_std(x: f64, gate: f64) -> f64 {
    if gate == 0.0 { 0.0 } else { x * gate }
}

/// A function, and its name.
type Named<E> = (&'static str, fn(E) -> E);

/// What to divide the error by: `gelu`'s exponential of a rounded cubic
/// magnifies that rounding (in the reference too), `silu`'s factor that of a subnormal gate, and a derivative takes
/// more roundings.
type Condition = fn(f64) -> f64;

struct Case<E> {
    name: &'static str,
    ours: fn(E) -> E,
    std: fn(f64) -> f64,
    condition: Condition,
}

fn cases<E: Real>() -> Vec<Case<E>> {
    let well = |_| 1.0;
    let case = |name, ours, std, condition| Case { name, ours, std, condition };
    vec![
        case("exp", exp, f64::exp, well),
        case("exp_m1", exp_m1, f64::exp_m1, well),
        case("ln", ln, f64::ln, well),
        case("tanh", tanh, f64::tanh, well),
        case("sigmoid", sigmoid, sigmoid_std, well),
        case("sigmoid'", |x| sigmoid_with_derivative(x).1, |x| sigmoid_std(x) * sigmoid_std(-x), |_| 1.5),
        case("softplus", softplus, softplus_std, well),
        case("log_sigmoid", log_sigmoid, |x| -softplus_std(-x), well),
        case(
            "silu",
            silu,
            |x| gated_std(x, sigmoid_std(x)),
            |x| {
                if sigmoid_std(x) < E::min_positive_value().as_f64() { x.abs() } else { 1.0 }
            },
        ),
        case("gelu", gelu, |x| gated_std(x, sigmoid_std(gelu_argument(x))), |x| 2.0 + 2.0 * gelu_argument(x.clamp(-30.0, 0.0)).abs()),
    ]
}

/// Error in units in the last place of E at the true value.
fn ulps<E: Real>(got: E, expected: f64) -> f64 {
    let rounded = E::of(expected);
    if got == rounded || (got.is_nan() && rounded.is_nan()) {
        return 0.0;
    }
    let (_, exponent, _) = num_traits::Float::integer_decode(rounded);
    let ulp = f64::from(exponent).exp2();
    ((got.as_f64() - expected) / ulp).abs()
}

/// Worst error of each function over the given arguments.
fn check<E: Real>(arguments: &(impl Iterator<Item = E> + Clone), bound: f64) {
    for Case { name, ours, std, condition } in cases::<E>() {
        let mut worst = (0.0, E::zero());
        for x in arguments.clone() {
            let error = ulps(ours(x), std(x.as_f64()));
            let error = if error > 0.0 { error / condition(x.as_f64()) } else { error };
            if error.is_nan() || error > worst.0 {
                worst = (error, x);
            }
        }
        println!("{name:>12} {:.2} ulp at {:e}", worst.0, worst.1.as_f64());
        assert!(worst.0 <= bound, "{name} is off by {} ulp at {}", worst.0, worst.1);
    }
}

#[test]
fn f32_is_accurate_over_all_bit_patterns() {
    // A prime stride through all of them; then densely where the functions bend.
    check(&(0..=u32::MAX).step_by(20_011).map(f32::from_bits), 4.0);
    check(&(-200_000..200_000).map(|i| i as f32 * 1e-4 + 1e-5), 4.0);
}

#[test]
fn f64_is_accurate_over_all_bit_patterns() {
    check(&(0..=u64::MAX).step_by(91_000_000_000_021).map(f64::from_bits), 4.0);
    check(&(-200_000..200_000).map(|i| f64::from(i) * 1e-4 + 1e-5), 4.0);
}

fn check_limits<E: Real>() {
    let (inf, nan, one, zero) = (E::infinity(), E::nan(), E::one(), E::zero());
    let million = E::of(1e6);
    // Function, then its values at -∞, -10⁶, 10⁶, ∞.
    let table: [(Named<E>, [E; 4]); 9] = [
        (("exp", exp), [zero, zero, inf, inf]),
        (("exp_m1", exp_m1), [-one, -one, inf, inf]),
        (("ln", ln), [nan, nan, E::of(1e6_f64.ln()), inf]),
        (("tanh", tanh), [-one, -one, one, one]),
        (("sigmoid", sigmoid), [zero, zero, one, one]),
        (("softplus", softplus), [zero, zero, million, inf]),
        (("log_sigmoid", log_sigmoid), [-inf, -million, zero, zero]),
        (("silu", silu), [zero, zero, million, inf]),
        (("gelu", gelu), [zero, zero, million, inf]),
    ];
    for ((name, f), expected) in table {
        for (x, expected) in [-inf, -million, million, inf].into_iter().zip(expected) {
            let y = f(x);
            assert!(y == expected || (y.is_nan() && expected.is_nan()), "{name}({x}) = {y}");
        }
        assert!(f(nan).is_nan(), "{name} of NaN");
    }
    assert_eq!((ln(zero), ln(-zero)), (-inf, -inf));
    for f in [tanh, silu, gelu] {
        assert!(f(-zero).is_sign_negative() && f(zero).is_sign_positive(), "the sign of zero is kept");
    }
    let derivatives: [fn(E) -> (E, E); 3] = [sigmoid_with_derivative, silu_with_derivative, gelu_with_derivative];
    for (f, right) in derivatives.into_iter().zip([zero, one, one]) {
        for x in [million, inf, E::max_value()] {
            assert_eq!((f(-x).1, f(x).1), (zero, right), "derivative at ±{x}");
        }
        assert!(f(nan).1.is_nan());
    }
}

#[test]
fn limits_signs_and_nan() {
    check_limits::<f32>();
    check_limits::<f64>();
}

#[test]
fn derivatives_are_those_of_the_functions() {
    type WithDerivative = fn(f64) -> (f64, f64);
    let table: [(WithDerivative, Named<f64>); 3] = [
        (sigmoid_with_derivative, ("sigmoid", sigmoid_std)),
        (silu_with_derivative, ("silu", |x| gated_std(x, sigmoid_std(x)))),
        (gelu_with_derivative, ("gelu", |x| gated_std(x, sigmoid_std(gelu_argument(x))))),
    ];
    for (f, (name, std)) in table {
        for i in -300..=300 {
            let (x, h) = (f64::from(i) * 0.05, 1e-4);
            let (value, slope) = f(x);
            // Central differences, fourth order.
            let numeric = (8.0 * (std(x + h) - std(x - h)) - (std(x + 2.0 * h) - std(x - 2.0 * h))) / (12.0 * h);
            assert!((slope - numeric).abs() < 1e-10, "{name}'({x}) = {slope}, numerically {numeric}");
            assert!((value - std(x)).abs() <= 1e-14, "{name}({x}) = {value}");
        }
    }
}
