//! The elementary functions of the sweeps.

use flow_api::Real;
use num_traits::Float;

#[inline(always)]
pub(crate) fn exp<E: Real>(x: E) -> E {
    Float::exp(x)
}

#[inline(always)]
pub(crate) fn tanh<E: Real>(x: E) -> E {
    Float::tanh(x)
}

#[inline(always)]
pub(crate) fn ln<E: Real>(x: E) -> E {
    Float::ln(x)
}

#[inline(always)]
pub(crate) fn sigmoid<E: Real>(x: E) -> E {
    E::one() / (E::one() + exp(-x))
}

/// ln(1 + e^x).
#[inline(always)]
pub(crate) fn softplus<E: Real>(x: E) -> E {
    Float::max(x, E::zero()) + Float::ln_1p(exp(-Float::abs(x)))
}
