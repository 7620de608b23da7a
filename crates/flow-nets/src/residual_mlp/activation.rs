//! Activations of the residual MLP with their slopes.

use flow_api::device::ActivationForm;
use flow_api::rows::Real;
use flow_kernels::scalar;
use serde::{Deserialize, Serialize};

/// The nonlinearity φ of a [`ResidualMlp`](super::ResidualMlp).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Activation {
    /// max(x, 0): the cheapest, and what the reference implementations use.
    #[default]
    Relu,
    /// x σ(x), also called swish.
    Silu,
    /// tanh x.
    Tanh,
    /// x Φ(x) in the usual form with tanh: x (1 + tanh(√(2/π)(x + 0.044715 x³))) / 2 (Hendrycks & Gimpel,
    /// arXiv:1606.08415, section 2).
    Gelu,
}

impl From<Activation> for ActivationForm {
    fn from(activation: Activation) -> Self {
        match activation {
            Activation::Relu => Self::Relu,
            Activation::Silu => Self::Silu,
            Activation::Tanh => Self::Tanh,
            Activation::Gelu => Self::Gelu,
        }
    }
}

/// An activation as a type, so that every sweep is compiled for it.
pub(crate) trait Nonlinear: Copy {
    /// The slope follows from φ(x), so that φ(x) is kept for the pullback; otherwise x is.
    const KEEPS_OUTPUT: bool;
    /// φ(x).
    fn value<E: Real>(x: E) -> E;
    /// φ(x) and φ'(x) from what was kept.
    fn value_and_slope<E: Real>(kept: E) -> (E, E);
}

#[derive(Clone, Copy)]
pub(crate) struct Relu;
#[derive(Clone, Copy)]
pub(crate) struct Silu;
#[derive(Clone, Copy)]
pub(crate) struct Tanh;
#[derive(Clone, Copy)]
pub(crate) struct Gelu;

impl Nonlinear for Relu {
    const KEEPS_OUTPUT: bool = true;
    #[inline(always)]
    fn value<E: Real>(x: E) -> E {
        // Unlike `max`, this lets NaN through, so that it is noticed.
        if x < E::zero() { E::zero() } else { x }
    }
    #[inline(always)]
    fn value_and_slope<E: Real>(kept: E) -> (E, E) {
        (kept, if kept > E::zero() { E::one() } else { E::zero() })
    }
}

impl Nonlinear for Silu {
    const KEEPS_OUTPUT: bool = false;
    #[inline(always)]
    fn value<E: Real>(x: E) -> E {
        scalar::silu(x)
    }
    #[inline(always)]
    fn value_and_slope<E: Real>(kept: E) -> (E, E) {
        scalar::silu_with_derivative(kept)
    }
}

impl Nonlinear for Tanh {
    const KEEPS_OUTPUT: bool = true;
    #[inline(always)]
    fn value<E: Real>(x: E) -> E {
        scalar::tanh(x)
    }
    #[inline(always)]
    fn value_and_slope<E: Real>(kept: E) -> (E, E) {
        (kept, (E::one() - kept) * (E::one() + kept))
    }
}

impl Nonlinear for Gelu {
    const KEEPS_OUTPUT: bool = false;
    #[inline(always)]
    fn value<E: Real>(x: E) -> E {
        scalar::gelu(x)
    }
    #[inline(always)]
    fn value_and_slope<E: Real>(kept: E) -> (E, E) {
        scalar::gelu_with_derivative(kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<N: Nonlinear>(at_one: f64) {
        assert!((N::value(1.0_f64) - at_one).abs() < 1e-7, "{}", N::value(1.0_f64));
        for k in -40..=40 {
            let x = 0.3 * f64::from(k) + 0.01;
            let (h, kept) = (1e-6, if N::KEEPS_OUTPUT { N::value(x) } else { x });
            let (value, slope) = N::value_and_slope(kept);
            let expected = (N::value(x + h) - N::value(x - h)) / (2.0 * h);
            assert!((value - N::value(x)).abs() < 1e-15 && (slope - expected).abs() < 1e-8, "{x}: {slope}, expected {expected}");
        }
        for x in [-1e30_f32, -100.0, 0.0, 100.0, 1e30] {
            let (value, slope) = N::value_and_slope(if N::KEEPS_OUTPUT { N::value(x) } else { x });
            assert!(value.is_finite() && (-0.2..=1.2).contains(&slope), "{x}: {value}, {slope}");
        }
    }

    #[test]
    fn slopes_are_those_of_the_values() {
        check::<Relu>(1.0);
        check::<Silu>(0.731_058_578_630_004_9);
        check::<Tanh>(0.761_594_155_955_764_9);
        check::<Gelu>(0.841_191_990_607_477_3);
    }
}
