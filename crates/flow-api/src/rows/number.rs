//! Numbers with and without a derivative, for maps that are written once and differentiated by themselves.

use flow_kernels::{Real, scalar};
use num_traits::Float;
use std::cmp::Ordering;
use std::ops::{Add, Div, Mul, Neg, Sub};

/// A number that an [`ElementMap`](super::ElementMap) computes in: a value alone, or one with its derivative along some
/// direction (a dual number: Clifford, "Preliminary sketch of biquaternions", 1871).
///
/// Comparisons are those of the values, so that a map in pieces is written with `if`.
pub trait Number:
    Copy + PartialOrd + Add<Output = Self> + Sub<Output = Self> + Mul<Output = Self> + Div<Output = Self> + Neg<Output = Self>
{
    /// A constant.
    fn of(x: f64) -> Self;
    /// eˣ.
    #[must_use]
    fn exp(self) -> Self;
    /// The natural logarithm.
    #[must_use]
    fn ln(self) -> Self;
    /// √x.
    #[must_use]
    fn sqrt(self) -> Self;
    /// |x|, whose derivative at 0 is taken as 0.
    #[must_use]
    fn abs(self) -> Self;
    /// The hyperbolic tangent.
    #[must_use]
    fn tanh(self) -> Self;
    /// The hyperbolic sine.
    #[must_use]
    fn sinh(self) -> Self;
    /// The inverse hyperbolic sine.
    #[must_use]
    fn asinh(self) -> Self;
    /// ln cosh x, without overflow.
    #[must_use]
    fn ln_cosh(self) -> Self;
    /// σ(x) = 1 / (1 + e⁻ˣ).
    #[must_use]
    fn sigmoid(self) -> Self;
    /// ln(1 + eˣ), without overflow.
    #[must_use]
    fn softplus(self) -> Self;
}

/// A value alone.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub(super) struct Plain<E>(pub(super) E);

/// A value with its derivative.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dual<E> {
    pub(super) value: E,
    pub(super) slope: E,
}

impl<E: Real> Dual<E> {
    /// What does not change along the direction.
    pub(super) fn fixed(value: E) -> Self {
        Self { value, slope: E::zero() }
    }

    /// The variable itself.
    pub(super) fn moving(value: E) -> Self {
        Self { value, slope: E::one() }
    }

    /// A function's value here, and its derivative: the chain rule.
    #[inline(always)]
    fn chain(self, value: E, slope: E) -> Self {
        Self { value, slope: slope * self.slope }
    }
}

impl<E: Real> PartialEq for Dual<E> {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl<E: Real> PartialOrd for Dual<E> {
    #[inline(always)]
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        self.value.partial_cmp(&other.value)
    }
}

/// The operators of both, from what they do to values and to derivatives.
macro_rules! operators {
    ($($trait:ident, $method:ident, |$a:ident, $b:ident| $value:expr, $slope:expr;)*) => { $(
        impl<E: Real> $trait for Plain<E> {
            type Output = Self;
            #[inline(always)]
            fn $method(self, other: Self) -> Self {
                Self($trait::$method(self.0, other.0))
            }
        }

        impl<E: Real> $trait for Dual<E> {
            type Output = Self;
            #[inline(always)]
            fn $method(self, other: Self) -> Self {
                let ($a, $b) = (self, other);
                Self { value: $value, slope: $slope }
            }
        }
    )* };
}
operators! {
    Add, add, |a, b| a.value + b.value, a.slope + b.slope;
    Sub, sub, |a, b| a.value - b.value, a.slope - b.slope;
    Mul, mul, |a, b| a.value * b.value, a.slope * b.value + a.value * b.slope;
    Div, div, |a, b| a.value / b.value, (a.slope - a.value / b.value * b.slope) / b.value;
}

impl<E: Real> Neg for Plain<E> {
    type Output = Self;
    #[inline(always)]
    fn neg(self) -> Self {
        Self(-self.0)
    }
}

impl<E: Real> Neg for Dual<E> {
    type Output = Self;
    #[inline(always)]
    fn neg(self) -> Self {
        Self { value: -self.value, slope: -self.slope }
    }
}

/// |x| + ln(1 + e^(−2|x|)) − ln 2.
#[inline(always)]
fn ln_cosh<E: Real>(x: E) -> E {
    let size = Float::abs(x);
    size + scalar::softplus(E::of(-2.0) * size) - E::LN_2()
}

/// The functions of both, from their values and derivatives at x.
macro_rules! functions {
    ($($name:ident, |$x:ident| $value:expr, |$y:ident| $slope:expr;)*) => {
        impl<E: Real> Number for Plain<E> {
            #[inline(always)]
            fn of(x: f64) -> Self {
                Self(E::of(x))
            }
            $(
                #[inline(always)]
                fn $name(self) -> Self {
                    let $x = self.0;
                    Self($value)
                }
            )*
        }

        impl<E: Real> Number for Dual<E> {
            #[inline(always)]
            fn of(x: f64) -> Self {
                Self::fixed(E::of(x))
            }
            $(
                #[inline(always)]
                fn $name(self) -> Self {
                    let $x = self.value;
                    let $y = $value;
                    self.chain($y, $slope)
                }
            )*
        }
    };
}
functions! {
    exp, |x| scalar::exp(x), |y| y;
    ln, |x| scalar::ln(x), |_y| E::one() / x;
    sqrt, |x| Float::sqrt(x), |y| E::of(0.5) / y;
    abs, |x| Float::abs(x), |_y| if x == E::zero() { E::zero() } else { Float::signum(x) };
    tanh, |x| scalar::tanh(x), |y| E::one() - y * y;
    sinh, |x| Float::sinh(x), |_y| Float::cosh(x);
    asinh, |x| Float::asinh(x), |_y| E::one() / Float::hypot(x, E::one());
    ln_cosh, |x| ln_cosh(x), |_y| scalar::tanh(x);
    sigmoid, |x| scalar::sigmoid(x), |_y| scalar::sigmoid_with_derivative(x).1;
    softplus, |x| scalar::softplus(x), |_y| scalar::sigmoid(x);
}

#[cfg(test)]
mod tests {
    use super::{Dual, Number, Plain};

    /// Every function against the standard library's, and its derivative against central differences.
    #[test]
    fn functions_and_their_derivatives() {
        type Function<N> = fn(N) -> N;
        /// A function of plain numbers, of numbers with derivatives, and as the standard library has it.
        type Case = (&'static str, Function<Plain<f64>>, Function<Dual<f64>>, Function<f64>);
        macro_rules! cases {
            ($($name:ident: $reference:expr),*) => { [$((stringify!($name), Number::$name, Number::$name, $reference)),*] };
        }
        let cases: [Case; 10] = cases![
            exp: f64::exp, ln: f64::ln, sqrt: f64::sqrt, abs: f64::abs, tanh: f64::tanh, sinh: f64::sinh, asinh: f64::asinh,
            ln_cosh: |x| x.cosh().ln(), sigmoid: |x| 1.0 / (1.0 + (-x).exp()), softplus: |x| x.exp().ln_1p()
        ];
        for (name, plain, dual, reference) in cases {
            for x in [0.3, 1.7, 4.1, -0.8, -2.3] {
                if x < 0.0 && ["ln", "sqrt"].contains(&name) {
                    continue;
                }
                let (value, found) = (plain(Plain(x)).0, dual(Dual::moving(x)));
                assert!((value - reference(x)).abs() < 1e-13 * value.abs().max(1.0), "{name}({x}) = {value}");
                assert!((found.value - value).abs() == 0.0, "{name}({x}): {} and {value}", found.value);
                let step = 1e-6;
                let slope = (reference(x + step) - reference(x - step)) / (2.0 * step);
                assert!((found.slope - slope).abs() < 1e-8 * slope.abs().max(1.0), "{name}'({x}): {} and {slope}", found.slope);
            }
        }
        // (x² − 3) / (−x), at 2: −½, with derivative −(1 + 3/x²).
        let x = Dual::moving(2.0_f64);
        let quotient = (x * x - Dual::of(3.0)) / -x;
        assert!((quotient.value + 0.5).abs() < 1e-15 && (quotient.slope + 1.75).abs() < 1e-15, "{quotient:?}");
    }
}
