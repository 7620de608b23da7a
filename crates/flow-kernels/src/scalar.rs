//! Elementary functions that vectorise.
//!
//! `f32::exp`, `f64::tanh` and their like are calls into the C library, one number at a time, and a loop over them is
//! several times slower than the matrix products around it. The functions here are written once for both precisions,
//! without branches, calls or tables and `#[inline(always)]`, so that LLVM vectorises a loop over them to the width of
//! the instruction set that [`crate::simd`] dispatched to. They use a multiplication and an addition where a fused
//! multiply-add would do: results are then bit-equal on every machine.
//!
//! Errors are at most 4 units in the last place over the whole range, subnormal numbers included, and mostly below 2;
//! `σ'` has 6. The left tails of [`silu`] (where `σ` is subnormal) and [`gelu`] inherit the rounding of their gates,
//! and their derivatives, which cross zero, are accurate in absolute terms. NaN gives NaN, and infinities give the
//! limit. `tests/scalar.rs` holds them to that.
//!
//! Free functions and not methods, because [`num_traits::Float`] already has methods of these names.

#![allow(clippy::excessive_precision, reason = "the minimax coefficients stand as they were computed or published")]

use num_traits::{Float, FloatConst, NumAssign};

/// A floating-point type that the elementary functions are of: `f32` or `f64`. It gives access to the binary
/// representation, and has the constants of the approximations.
pub trait Elementary: Float + FloatConst + NumAssign + 'static {
    /// The number nearest to `x`.
    fn nearest(x: f64) -> Self;
    /// `q` in `exp(r) = 1 + r + r² q(r)` for `|r| ≤ ln(2)/2`, lowest degree first; minimax, relative error below a
    /// tenth of an ulp.
    const EXP: &'static [Self];
    /// `R` in `ln(1 + f) = f - s (f - R(s²))`, `s = f / (2 + f)`, for `1 + f` in `[√½, √2]`, without the constant term,
    /// which is zero (fdlibm).
    const LN: &'static [Self];
    /// `ln 2 = LN2_HI + LN2_LO`, where `LN2_HI` times any binary exponent is exact.
    const LN2_HI: Self;
    /// See [`Elementary::LN2_HI`].
    const LN2_LO: Self;
    /// Below this argument `exp` is exactly zero.
    const EXP_MIN: Self;
    /// Above this argument `exp` overflows.
    const EXP_MAX: Self;
    /// The integer `n` nearest to `x`, and `2^n` as the product of two normal numbers, for
    /// `|x| < 2 · (largest exponent)`.
    fn round_and_exp2(x: Self) -> (Self, Self, Self);
    /// `m` in `[√½, √2]` and integer `k` with `x = m · 2^k`, for positive, normal and finite `x`.
    fn mantissa_and_exponent(x: Self) -> (Self, Self);
    /// `2^n` that lifts every subnormal number to a normal one, and `n`.
    const LIFT: (Self, Self);
}

macro_rules! impl_elementary {
    ($float:ident, $uint:ident, round: $round:expr, sqrt_half: $sqrt_half:expr, lift: $lift:expr,
     ln2: ($hi:expr, $lo:expr), exp: [$min:expr, $max:expr] $exp:expr, ln: $ln:expr) => {
        impl Elementary for $float {
            const EXP: &'static [Self] = &$exp;
            const LN: &'static [Self] = &$ln;
            const LN2_HI: Self = $hi;
            const LN2_LO: Self = $lo;
            const EXP_MIN: Self = $min;
            const EXP_MAX: Self = $max;
            const LIFT: (Self, Self) = $lift;

            #[inline(always)]
            #[allow(clippy::cast_possible_truncation, reason = "rounding to the nearest is the purpose")]
            fn nearest(x: f64) -> Self {
                x as $float
            }

            #[inline(always)]
            fn round_and_exp2(x: Self) -> (Self, Self, Self) {
                const SHIFT: u32 = $float::MANTISSA_DIGITS - 1;
                const BIAS: $uint = $float::MAX_EXP as $uint - 1;
                // Adding 1.5 · 2^(mantissa bits) leaves the integer in the low bits.
                const ROUND: $float = $round;
                let shifted = x + ROUND;
                let n = shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(2 * BIAS);
                let half = n >> 1;
                (shifted - ROUND, $float::from_bits(half << SHIFT), $float::from_bits(n.wrapping_sub(half) << SHIFT))
            }

            #[inline(always)]
            fn mantissa_and_exponent(x: Self) -> (Self, Self) {
                const SHIFT: u32 = $float::MANTISSA_DIGITS - 1;
                const BIAS: $float = ($float::MAX_EXP - 1) as $float;
                const SQRT_HALF: $uint = $sqrt_half;
                // 2^(mantissa bits): or-ing a small integer into its mantissa adds that integer to it.
                const INTEGER: $float = ((1 as $uint) << SHIFT) as $float;
                let bits = x.to_bits().wrapping_add((1.0 as $float).to_bits() - SQRT_HALF);
                let mantissa = (bits & ((1 << SHIFT) - 1)) + SQRT_HALF;
                let exponent = $float::from_bits((bits >> SHIFT) | INTEGER.to_bits()) - (INTEGER + BIAS);
                ($float::from_bits(mantissa), exponent)
            }
        }
    };
}

impl_elementary!(f32, u32,
    round: 12_582_912.0,
    sqrt_half: 0x3f35_04f3,
    lift: (33_554_432.0, 25.0),
    ln2: (0.693_359_375, -2.121_944_4e-4),
    exp: [-104.0, 89.0] [0.499_999_934_029_158, 0.166_665_199_684_157_8, 0.041_668_395_897_260_05, 0.008_368_797_153_415_17, 0.001_381_442_831_565_183_9],
    ln: [0.666_666_626_93, 0.400_009_721_52, 0.284_987_866_88, 0.242_790_788_41]
);

impl_elementary!(f64, u64,
    round: 6_755_399_441_055_744.0,
    sqrt_half: 0x3fe6_a09e_667f_3bcd,
    lift: (18_014_398_509_481_984.0, 54.0),
    ln2: (6.931_471_803_691_238e-1, 1.908_214_929_270_587_7e-10),
    exp: [-746.0, 710.0] [
        0.500_000_000_000_001_074_7, 0.166_666_666_666_664_096_26, 0.041_666_666_666_528_924_371, 0.008_333_333_333_495_924_355_4,
        0.001_388_888_894_400_140_177_4, 1.984_126_950_431_049_880_2e-4, 2.480_149_267_306_181_2e-5, 2.755_758_757_213_680_838_6e-6,
        2.763_041_316_546_278_304_2e-7, 2.499_994_850_017_018_347_8e-8
    ],
    ln: [
        6.666_666_666_666_735_13e-1, 3.999_999_999_940_941_908e-1, 2.857_142_874_366_239_149e-1, 2.222_219_843_214_978_396e-1,
        1.818_357_216_161_805_012e-1, 1.531_383_769_920_937_332e-1, 1.479_819_860_511_658_591e-1
    ]
);

/// `c[0] + c[1] x + c[2] x² + …`; unrolled, because the length of a constant is known.
#[inline(always)]
fn polynomial<E: Elementary>(x: E, c: &'static [E]) -> E {
    let mut sum = E::zero();
    for (i, &c) in c.iter().rev().enumerate() {
        sum = if i == 0 { c } else { sum * x + c };
    }
    sum
}

/// `exp(x) = (1 + p) a b`, as `(p, a, b)`: `p` carries the relative precision near zero, `a b` is a power of two.
#[inline(always)]
fn exp_parts<E: Elementary>(x: E) -> (E, E, E) {
    let x = bounded(x);
    let (n, a, b) = E::round_and_exp2(x * E::LOG2_E());
    let r = x - n * E::LN2_HI - n * E::LN2_LO;
    (r + r * r * polynomial(r, E::EXP), a, b)
}

/// `ln(1 + f)` for `1 + f` in `[√½, √2]`, with full relative precision near zero.
#[inline(always)]
fn ln_1p_reduced<E: Elementary>(f: E) -> E {
    let s = f / (f + E::nearest(2.0));
    let z = s * s;
    f - s * (f - z * polynomial(z, E::LN))
}

/// `ln(1 + u)` for `u` in `[0, 1]`.
#[inline(always)]
fn ln_1p_unit<E: Elementary>(u: E) -> E {
    let upper = u > E::nearest(0.414);
    let f = if upper { (u - E::one()) * E::nearest(0.5) } else { u };
    let base = if upper { E::LN_2() } else { E::zero() };
    base + ln_1p_reduced(f)
}

/// `exp(-|x|)`, in `[0, 1]`: what all logistic functions are made of without overflow.
#[inline(always)]
fn exp_neg_abs<E: Elementary>(x: E) -> E {
    exp(-x.abs())
}

/// `x` limited to where [`exp`] neither vanishes nor overflows; NaN stays NaN.
#[inline(always)]
fn bounded<E: Elementary>(x: E) -> E {
    let x = if x > E::EXP_MAX { E::EXP_MAX } else { x };
    if x < E::EXP_MIN { E::EXP_MIN } else { x }
}

/// `x · gate` where the gate underflows to zero long before `x` overflows, so that `-∞` gives `-0` and not NaN.
#[inline(always)]
fn gated<E: Elementary>(x: E, gate: E) -> E {
    (if x < E::EXP_MIN { E::EXP_MIN } else { x }) * gate
}

/// `eˣ`.
///
/// ```
/// use flow_kernels::scalar::exp;
/// assert!((exp(1.0_f32) - std::f32::consts::E).abs() < 3e-7);
/// assert_eq!(exp(f64::NEG_INFINITY), 0.0);
/// ```
#[inline(always)]
pub fn exp<E: Elementary>(x: E) -> E {
    let (p, a, b) = exp_parts(x);
    (E::one() + p) * a * b
}

/// `eˣ - 1`, with full relative precision near zero.
#[inline(always)]
pub fn exp_m1<E: Elementary>(x: E) -> E {
    let (p, a, b) = exp_parts(x);
    // Above 1 nothing cancels, and there the order of `exp` does not overflow early.
    let large = (E::one() + p) * a * b - E::one();
    if x > E::one() { large } else { p * (a * b) + (a * b - E::one()) }
}

/// Natural logarithm: `-∞` at zero, NaN below.
#[inline(always)]
pub fn ln<E: Elementary>(x: E) -> E {
    let subnormal = x < E::min_positive_value();
    let (lift, lifted) = E::LIFT;
    let (m, k) = E::mantissa_and_exponent(if subnormal { x * lift } else { x });
    let k = if subnormal { k - lifted } else { k };
    let y = k * E::LN2_HI + (k * E::LN2_LO + ln_1p_reduced(m - E::one()));
    let y = if x < E::infinity() { y } else { x };
    let y = if x > E::zero() { y } else { E::nan() };
    if x == E::zero() { E::neg_infinity() } else { y }
}

/// Hyperbolic tangent, with full relative precision near zero. Its derivative is `1 - tanh²`.
#[inline(always)]
pub fn tanh<E: Elementary>(x: E) -> E {
    let e = exp_m1(E::nearest(-2.0) * x.abs());
    (-e / (e + E::nearest(2.0))).copysign(x)
}

/// Logistic function `σ(x) = 1 / (1 + e⁻ˣ)`. Its derivative is `σ(x) σ(-x)`, see [`sigmoid_with_derivative`].
#[inline(always)]
pub fn sigmoid<E: Elementary>(x: E) -> E {
    let e = exp_neg_abs(x);
    (if x < E::zero() { e } else { E::one() }) / (E::one() + e)
}

/// `(σ(x), σ'(x))`; the derivative keeps its relative precision where `σ` saturates.
#[inline(always)]
pub fn sigmoid_with_derivative<E: Elementary>(x: E) -> (E, E) {
    let e = exp_neg_abs(x);
    let larger = E::one() / (E::one() + e);
    let smaller = e * larger;
    (if x < E::zero() { smaller } else { larger }, larger * smaller)
}

/// `ln(1 + eˣ)`, with full relative precision at both ends. Its derivative is [`sigmoid`].
#[inline(always)]
pub fn softplus<E: Elementary>(x: E) -> E {
    (if x > E::zero() { x } else { E::zero() }) + ln_1p_unit(exp_neg_abs(x))
}

/// `ln σ(x) = -softplus(-x)`. Its derivative is `σ(-x)`.
#[inline(always)]
pub fn log_sigmoid<E: Elementary>(x: E) -> E {
    -softplus(-x)
}

/// Swish with unit slope, `x σ(x)`.
#[inline(always)]
pub fn silu<E: Elementary>(x: E) -> E {
    gated(x, sigmoid(x))
}

/// `(silu(x), silu'(x))`, where `silu'(x) = σ(x) + x σ'(x)`.
#[inline(always)]
pub fn silu_with_derivative<E: Elementary>(x: E) -> (E, E) {
    let (gate, slope) = sigmoid_with_derivative(x);
    (gated(x, gate), gate + bounded(x) * slope)
}

/// The two constants of the tanh form of GELU: the argument of σ is `c x (1 + k x²)`.
#[inline(always)]
fn gelu_argument<E: Elementary>(x: E) -> (E, E) {
    // 2 √(2/π), twice the factor inside tanh: (1 + tanh a) / 2 = σ(2 a).
    let (c, k) = (E::nearest(1.595_769_121_605_730_7), E::nearest(0.044_715));
    let square = x * x;
    (c * x * (E::one() + k * square), c * (E::one() + E::nearest(3.0) * k * square))
}

/// Gaussian error linear unit in its tanh form, `x/2 · (1 + tanh(√(2/π) (x + 0.044715 x³)))`, which is dfdx's
/// `fast_gelu` (Hendrycks and Gimpel 2016, section 2).
///
/// It is computed as `x σ(2 …)`, which is the same and does not cancel for negative `x`.
#[inline(always)]
pub fn gelu<E: Elementary>(x: E) -> E {
    gated(x, sigmoid(gelu_argument(x).0))
}

/// `(gelu(x), gelu'(x))` of the tanh form, see [`gelu`].
#[inline(always)]
pub fn gelu_with_derivative<E: Elementary>(x: E) -> (E, E) {
    let near = bounded(x);
    let (a, da) = gelu_argument(near);
    let (gate, slope) = sigmoid_with_derivative(a);
    (gated(x, gate), gate + near * da * slope)
}
