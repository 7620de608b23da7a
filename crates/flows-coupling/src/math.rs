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
