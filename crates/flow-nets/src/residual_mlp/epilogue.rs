//! What follows the products of the residual MLP, done to each row of a product while it is in the cache.

use super::activation::Nonlinear;
use flow_api::Real;
use flow_kernels::matmul::Epilogue;
use flow_kernels::simd::sum_here;
use std::marker::PhantomData;

/// h = z + b, and φ(h) beside it.
pub(super) struct ActivatedBeside<'a, N, E> {
    pub(super) activation: PhantomData<N>,
    pub(super) bias: &'a [E],
    pub(super) activated: &'a mut [E],
}

impl<N: Nonlinear, E: Real> Epilogue<E> for ActivatedBeside<'_, N, E> {
    #[inline(always)]
    fn apply(&mut self, row: usize, values: &mut [E]) {
        let bias = self.bias[row];
        let activated = &mut self.activated[row * values.len()..][..values.len()];
        for (h, u) in values.iter_mut().zip(activated) {
            *h += bias;
            *u = N::value(*h);
        }
    }
}

/// φ(z + b).
pub(super) struct Activated<'a, N, E> {
    pub(super) activation: PhantomData<N>,
    pub(super) bias: &'a [E],
}

impl<N: Nonlinear, E: Real> Epilogue<E> for Activated<'_, N, E> {
    #[inline(always)]
    fn apply(&mut self, row: usize, values: &mut [E]) {
        let bias = self.bias[row];
        for z in values {
            *z = N::value(*z + bias);
        }
    }
}

/// Adds up the lanes of each row: the gradient of the bias behind the values whose cotangents these are.
pub(super) struct Summed<'a, E> {
    pub(super) sums: &'a mut [E],
}

impl<E: Real> Epilogue<E> for Summed<'_, E> {
    #[inline(always)]
    fn apply(&mut self, row: usize, cotangent: &mut [E]) {
        self.sums[row] += sum_here(cotangent);
    }
}

/// ∂L/∂φ(x) → ∂L/∂x, summed as by [`Summed`]; turns what was kept into φ(x).
pub(super) struct Pulled<'a, N, E> {
    pub(super) activation: PhantomData<N>,
    pub(super) kept: &'a mut [E],
    pub(super) sums: &'a mut [E],
}

impl<N: Nonlinear, E: Real> Epilogue<E> for Pulled<'_, N, E> {
    #[inline(always)]
    fn apply(&mut self, row: usize, cotangent: &mut [E]) {
        let kept = &mut self.kept[row * cotangent.len()..][..cotangent.len()];
        for (kept, cotangent) in kept.iter_mut().zip(&mut *cotangent) {
            *cotangent *= pull::<N, E>(kept);
        }
        self.sums[row] += sum_here(cotangent);
    }
}

/// As [`Pulled`], and adds the cotangent to that of the skip connection, which is then what is summed.
pub(super) struct PulledOntoSkip<'a, N, E> {
    pub(super) activation: PhantomData<N>,
    pub(super) kept: &'a mut [E],
    pub(super) skip: &'a mut [E],
    pub(super) sums: &'a mut [E],
}

impl<N: Nonlinear, E: Real> Epilogue<E> for PulledOntoSkip<'_, N, E> {
    #[inline(always)]
    fn apply(&mut self, row: usize, cotangent: &mut [E]) {
        let kept = &mut self.kept[row * cotangent.len()..][..cotangent.len()];
        let skip = &mut self.skip[row * cotangent.len()..][..cotangent.len()];
        for ((kept, skip), cotangent) in kept.iter_mut().zip(&mut *skip).zip(cotangent) {
            *skip += *cotangent * pull::<N, E>(kept);
        }
        self.sums[row] += sum_here(skip);
    }
}

/// φ'(x), and φ(x) in the place of what was kept of x; where that is φ(x), it stands there already.
#[inline(always)]
fn pull<N: Nonlinear, E: Real>(kept: &mut E) -> E {
    let (value, slope) = N::value_and_slope(*kept);
    if !N::KEEPS_OUTPUT {
        *kept = value;
    }
    slope
}
