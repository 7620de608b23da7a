//! What follows the products of the residual MLP, done to each row of a product while it is in the cache. A row is the
//! hidden features of one lane.

use super::activation::Nonlinear;
use flow_api::rows::Real;
use flow_kernels::matmul::Epilogue;
use std::marker::PhantomData;

/// h = z + b.
pub(crate) struct Shifted<'a, E>(pub(crate) &'a [E]);

impl<E: Real> Epilogue<E> for Shifted<'_, E> {
    #[inline(always)]
    fn apply(&mut self, _: usize, values: &mut [E]) {
        for (h, &bias) in values.iter_mut().zip(self.0) {
            *h += bias;
        }
    }
}

/// h = z + b, and φ(h) beside it.
pub(crate) struct ActivatedBeside<'a, N, E> {
    pub(crate) activation: PhantomData<N>,
    pub(crate) bias: &'a [E],
    pub(crate) activated: &'a mut [E],
}

impl<N: Nonlinear, E: Real> Epilogue<E> for ActivatedBeside<'_, N, E> {
    #[inline(always)]
    fn apply(&mut self, row: usize, values: &mut [E]) {
        let activated = of_row(self.activated, row, values.len());
        for ((h, u), &bias) in values.iter_mut().zip(activated).zip(self.bias) {
            *h += bias;
            *u = N::value(*h);
        }
    }
}

/// φ(z + b).
pub(crate) struct Activated<'a, N, E> {
    pub(crate) activation: PhantomData<N>,
    pub(crate) bias: &'a [E],
}

impl<N: Nonlinear, E: Real> Epilogue<E> for Activated<'_, N, E> {
    #[inline(always)]
    fn apply(&mut self, _: usize, values: &mut [E]) {
        for (z, &bias) in values.iter_mut().zip(self.bias) {
            *z = N::value(*z + bias);
        }
    }
}

/// Adds up the rows: the gradient of the bias behind the values whose cotangents these are.
pub(super) struct Summed<'a, E> {
    pub(super) sums: &'a mut [E],
}

impl<E: Real> Epilogue<E> for Summed<'_, E> {
    #[inline(always)]
    fn apply(&mut self, _: usize, cotangent: &mut [E]) {
        for (sum, &mut cotangent) in self.sums.iter_mut().zip(cotangent) {
            *sum += cotangent;
        }
    }
}

/// ∂L/∂φ(x) → ∂L/∂x, summed as by [`Summed`]; turns what was kept into φ(x).
pub(crate) struct Pulled<'a, N, E> {
    pub(crate) activation: PhantomData<N>,
    pub(crate) kept: &'a mut [E],
    pub(crate) sums: &'a mut [E],
}

impl<N: Nonlinear, E: Real> Epilogue<E> for Pulled<'_, N, E> {
    #[inline(always)]
    fn apply(&mut self, row: usize, cotangent: &mut [E]) {
        let kept = of_row(self.kept, row, cotangent.len());
        for ((kept, cotangent), sum) in kept.iter_mut().zip(cotangent).zip(&mut *self.sums) {
            *cotangent *= slope::<N, E>(kept);
            *sum += *cotangent;
        }
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
        let (kept, skip) = (of_row(self.kept, row, cotangent.len()), of_row(self.skip, row, cotangent.len()));
        for (((kept, skip), cotangent), sum) in kept.iter_mut().zip(skip).zip(cotangent).zip(&mut *self.sums) {
            *skip += *cotangent * slope::<N, E>(kept);
            *sum += *skip;
        }
    }
}

#[inline(always)]
fn of_row<E>(x: &mut [E], row: usize, len: usize) -> &mut [E] {
    &mut x[row * len..][..len]
}

/// φ'(x), and φ(x) in the place of what was kept of x; where that is φ(x), it stands there already.
#[inline(always)]
fn slope<N: Nonlinear, E: Real>(kept: &mut E) -> E {
    let (value, slope) = N::value_and_slope(*kept);
    if !N::KEEPS_OUTPUT {
        *kept = value;
    }
    slope
}
