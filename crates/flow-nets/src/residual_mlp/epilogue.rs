//! What follows the products of the residual MLP, done to each row of a product while it is in the cache.
//!
//! A row is the hidden features of one lane, too few for loops that have to find out first how long their slices are and whether they overlap: so the elements are worked on in
//! [`PIECE`]s of a fixed size.

use super::activation::Nonlinear;
use flow_api::Real;
use flow_kernels::matmul::Epilogue;
use std::marker::PhantomData;

/// Elements that are loaded, changed and stored at once: a register of AVX-512.
const PIECE: usize = 16;

/// A function of the elements at one place of O slices that change and I slices that do not. Its method has to be `#[inline(always)]`, as an epilogue's.
trait Elementwise<E, const O: usize, const I: usize> {
    fn of(changing: [E; O], fixed: [E; I]) -> [E; O];
}

#[inline(always)]
fn change<F: Elementwise<E, O, I>, E: Real, const O: usize, const I: usize>(mut changing: [&mut [E]; O], fixed: [&[E]; I]) {
    let len = changing[0].len();
    let mut start = 0;
    while start + PIECE <= len {
        let (mut out, mut given) = ([[E::zero(); PIECE]; O], [[E::zero(); PIECE]; I]);
        for (out, x) in out.iter_mut().zip(&changing) {
            out.copy_from_slice(&x[start..start + PIECE]);
        }
        for (given, x) in given.iter_mut().zip(&fixed) {
            given.copy_from_slice(&x[start..start + PIECE]);
        }
        let out = piece::<F, E, O, I>(out, given);
        for (x, out) in changing.iter_mut().zip(&out) {
            x[start..start + PIECE].copy_from_slice(out);
        }
        start += PIECE;
    }
    for at in start..len {
        let (mut out, mut given) = ([E::zero(); O], [E::zero(); I]);
        out.iter_mut().zip(&changing).for_each(|(out, x)| *out = x[at]);
        given.iter_mut().zip(&fixed).for_each(|(given, x)| *given = x[at]);
        let out = F::of(out, given);
        changing.iter_mut().zip(out).for_each(|(x, out)| x[at] = out);
    }
}

#[inline(always)]
fn piece<F: Elementwise<E, O, I>, E: Real, const O: usize, const I: usize>(
    mut changing: [[E; PIECE]; O],
    fixed: [[E; PIECE]; I],
) -> [[E; PIECE]; O] {
    for at in 0..PIECE {
        let (mut out, mut given) = ([E::zero(); O], [E::zero(); I]);
        for k in 0..O {
            out[k] = changing[k][at];
        }
        for k in 0..I {
            given[k] = fixed[k][at];
        }
        let out = F::of(out, given);
        for k in 0..O {
            changing[k][at] = out[k];
        }
    }
    changing
}

/// h = z + b.
pub(super) struct Shifted<'a, E>(pub(super) &'a [E]);

impl<E: Real> Epilogue<E> for Shifted<'_, E> {
    #[inline(always)]
    fn apply(&mut self, _: usize, values: &mut [E]) {
        change::<Self, _, _, _>([values], [self.0]);
    }
}

impl<E: Real> Elementwise<E, 1, 1> for Shifted<'_, E> {
    #[inline(always)]
    fn of([z]: [E; 1], [bias]: [E; 1]) -> [E; 1] {
        [z + bias]
    }
}

/// h = z + b, and φ(h) beside it.
pub(super) struct ActivatedBeside<'a, N, E> {
    pub(super) activation: PhantomData<N>,
    pub(super) bias: &'a [E],
    pub(super) activated: &'a mut [E],
}

impl<N: Nonlinear, E: Real> Epilogue<E> for ActivatedBeside<'_, N, E> {
    #[inline(always)]
    fn apply(&mut self, row: usize, values: &mut [E]) {
        let activated = of_row(self.activated, row, values.len());
        change::<Self, _, _, _>([values, activated], [self.bias]);
    }
}

impl<N: Nonlinear, E: Real> Elementwise<E, 2, 1> for ActivatedBeside<'_, N, E> {
    #[inline(always)]
    fn of([z, _]: [E; 2], [bias]: [E; 1]) -> [E; 2] {
        let h = z + bias;
        [h, N::value(h)]
    }
}

/// φ(z + b).
pub(super) struct Activated<'a, N, E> {
    pub(super) activation: PhantomData<N>,
    pub(super) bias: &'a [E],
}

impl<N: Nonlinear, E: Real> Epilogue<E> for Activated<'_, N, E> {
    #[inline(always)]
    fn apply(&mut self, _: usize, values: &mut [E]) {
        change::<Self, _, _, _>([values], [self.bias]);
    }
}

impl<N: Nonlinear, E: Real> Elementwise<E, 1, 1> for Activated<'_, N, E> {
    #[inline(always)]
    fn of([z]: [E; 1], [bias]: [E; 1]) -> [E; 1] {
        [N::value(z + bias)]
    }
}

/// Adds up the rows: the gradient of the bias behind the values whose cotangents these are.
pub(super) struct Summed<'a, E> {
    pub(super) sums: &'a mut [E],
}

impl<E: Real> Epilogue<E> for Summed<'_, E> {
    #[inline(always)]
    fn apply(&mut self, _: usize, cotangent: &mut [E]) {
        change::<Self, _, _, _>([&mut *self.sums], [&*cotangent]);
    }
}

impl<E: Real> Elementwise<E, 1, 1> for Summed<'_, E> {
    #[inline(always)]
    fn of([sum]: [E; 1], [cotangent]: [E; 1]) -> [E; 1] {
        [sum + cotangent]
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
        let kept = of_row(self.kept, row, cotangent.len());
        change::<Self, _, _, _>([cotangent, kept, &mut *self.sums], []);
    }
}

impl<N: Nonlinear, E: Real> Elementwise<E, 3, 0> for Pulled<'_, N, E> {
    #[inline(always)]
    fn of([cotangent, kept, sum]: [E; 3], []: [E; 0]) -> [E; 3] {
        let (kept, slope) = value_and_slope::<N, E>(kept);
        let cotangent = cotangent * slope;
        [cotangent, kept, sum + cotangent]
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
        change::<Self, _, _, _>([kept, skip, &mut *self.sums], [&*cotangent]);
    }
}

impl<N: Nonlinear, E: Real> Elementwise<E, 3, 1> for PulledOntoSkip<'_, N, E> {
    #[inline(always)]
    fn of([kept, skip, sum]: [E; 3], [cotangent]: [E; 1]) -> [E; 3] {
        let (kept, slope) = value_and_slope::<N, E>(kept);
        let skip = skip + cotangent * slope;
        [kept, skip, sum + skip]
    }
}

#[inline(always)]
fn of_row<E>(x: &mut [E], row: usize, len: usize) -> &mut [E] {
    &mut x[row * len..][..len]
}

/// φ(x) and φ'(x) from what was kept of x; where that is φ(x), it stands there already.
#[inline(always)]
fn value_and_slope<N: Nonlinear, E: Real>(kept: E) -> (E, E) {
    let (value, slope) = N::value_and_slope(kept);
    (if N::KEEPS_OUTPUT { kept } else { value }, slope)
}
