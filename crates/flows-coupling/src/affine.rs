//! The additive and the affine transformer.

use crate::math;
use crate::transformer::{MappedRows, PlainTransformer, Transformer};
use dfdx::prelude::*;
use flow_api::{FlowDevice, Result, RowTape, Scalar, Taped, TapedRows};
use flow_kernels::workspace::Buffer;

/// y = x + t: volume-preserving, log-det 0. The conditioner gives t.
///
/// Source: Dinh et al., "NICE", section 3.2 (arXiv:1410.8516).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Additive;

impl<E: Scalar> Transformer<E> for Additive {
    fn kind(&self) -> &'static str {
        "AdditiveCoupling"
    }

    fn numbers(&self) -> usize {
        1
    }

    fn forward(&self, values: &mut [E], numbers: Buffer<E>, _: &mut [E], _: &mut RowTape<E>) {
        values.iter_mut().zip(numbers.iter()).for_each(|(x, &t)| *x += t);
    }

    fn inverse(&self, values: &mut [E], numbers: Buffer<E>, _: &mut [E], _: &mut RowTape<E>) {
        values.iter_mut().zip(numbers.iter()).for_each(|(y, &t)| *y -= t);
    }

    fn pullback(&self, cotangent: &mut [E], _: &[E], _: &mut RowTape<E>) -> Result<Buffer<E>> {
        let mut numbers = Buffer::take(cotangent.len());
        numbers.copy_from_slice(cotangent);
        Ok(numbers)
    }

    fn plain<D: FlowDevice<E>>(&self) -> Option<&dyn PlainTransformer<E, D>> {
        Some(self)
    }
}

impl<E: Scalar, D: FlowDevice<E>> PlainTransformer<E, D> for Additive {
    fn forward_taped(&self, x: Taped<(usize, usize), E, D>, numbers: Taped<(usize, usize), E, D>) -> TapedRows<E, D> {
        let log_det = x.device().zeros_like(&(x.shape().0,)).retaped();
        (x + numbers, log_det)
    }

    fn inverse(&self, y: Tensor<(usize, usize), E, D>, numbers: Tensor<(usize, usize), E, D>) -> MappedRows<E, D> {
        let log_det = y.device().zeros_like(&(y.shape().0,));
        (y - numbers, log_det)
    }
}

/// y = x e^s + t with the log-scale s = c tanh(r / c) bounded by ±c, so that neither direction can overflow; log-det Σ s.
///
/// The conditioner's output is r of all moved features, then t of all of them; where it is zero, y = x exactly.
/// Source: Dinh et al., "Density estimation using Real NVP", section 3.2 (arXiv:1605.08803).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Affine<E> {
    bound: E,
}

impl<E: Scalar> Affine<E> {
    /// The transformer with the bound c.
    ///
    /// # Errors
    /// [`FlowError::Setting`] for a bound that is not a finite number above 0.
    pub fn new(bound: E) -> Result<Self> {
        crate::positive("AffineCoupling", "bound", bound).map(|bound| Self { bound })
    }

    /// One sweep over the moved features: `f` takes x, r, t and a log-det, and changes them.
    #[inline(always)]
    fn sweep(&self, values: &mut [E], numbers: &mut [E], log_det: &mut [E], f: impl Fn(&mut E, &mut E, &mut E, &mut E)) {
        let lanes = log_det.len();
        let (r, t) = numbers.split_at_mut(values.len());
        for ((x, r), t) in values.chunks_exact_mut(lanes).zip(r.chunks_exact_mut(lanes)).zip(t.chunks_exact_mut(lanes)) {
            for (((x, r), t), l) in x.iter_mut().zip(r).zip(t).zip(&mut *log_det) {
                f(x, r, t, l);
            }
        }
    }
}

// What is kept is s in the place of r and x e^s in the place of t.
impl<E: Scalar> Transformer<E> for Affine<E> {
    fn kind(&self) -> &'static str {
        "AffineCoupling"
    }

    fn numbers(&self) -> usize {
        2
    }

    fn forward(&self, values: &mut [E], mut numbers: Buffer<E>, log_det: &mut [E], tape: &mut RowTape<E>) {
        let (bound, steepness) = (self.bound, self.bound.recip());
        self.sweep(values, &mut numbers, log_det, |x, r, t, l| {
            let s = bound * math::tanh(*r * steepness);
            let scaled = *x * math::exp(s);
            *x = scaled + *t;
            *l += s;
            (*r, *t) = (s, scaled);
        });
        tape.push(numbers);
    }

    fn inverse(&self, values: &mut [E], mut numbers: Buffer<E>, log_det: &mut [E], tape: &mut RowTape<E>) {
        let (bound, steepness) = (self.bound, self.bound.recip());
        self.sweep(values, &mut numbers, log_det, |y, r, t, l| {
            let s = bound * math::tanh(*r * steepness);
            let scaled = *y - *t;
            *y = scaled * math::exp(-s);
            *l -= s;
            (*r, *t) = (s, scaled);
        });
        tape.push(numbers);
    }

    fn pullback(&self, cotangent: &mut [E], log_det: &[E], tape: &mut RowTape<E>) -> Result<Buffer<E>> {
        let mut numbers = tape.pop()?;
        let steepness = self.bound.recip();
        let mut log_det_of = Buffer::take(log_det.len());
        log_det_of.copy_from_slice(log_det);
        self.sweep(cotangent, &mut numbers, &mut log_det_of, |g, s, scaled, l| {
            let for_scale = *g * *scaled + *l;
            let tanh = *s * steepness;
            *scaled = *g;
            *g *= math::exp(*s);
            *s = for_scale * (E::one() - tanh) * (E::one() + tanh);
        });
        Ok(numbers)
    }

    fn plain<D: FlowDevice<E>>(&self) -> Option<&dyn PlainTransformer<E, D>> {
        Some(self)
    }
}

impl<E: Scalar> Affine<E> {
    /// s and t.
    fn scale_and_shift<D: FlowDevice<E>, T: Tape<E, D>>(
        &self,
        numbers: Tensor<(usize, usize), E, D, T>,
    ) -> (Tensor<(usize, usize), E, D, T>, Tensor<(usize, usize), E, D, T>) {
        let moved = numbers.shape().1 / 2;
        let s = (numbers.with_empty_tape().slice((.., ..moved)) * self.bound.recip()).tanh() * self.bound;
        (s, numbers.slice((.., moved..)))
    }
}

impl<E: Scalar, D: FlowDevice<E>> PlainTransformer<E, D> for Affine<E> {
    fn forward_taped(&self, x: Taped<(usize, usize), E, D>, numbers: Taped<(usize, usize), E, D>) -> TapedRows<E, D> {
        let (s, t) = self.scale_and_shift(numbers);
        let log_det = s.with_empty_tape().sum::<(usize,), Axis<1>>();
        (x * s.exp() + t, log_det)
    }

    fn inverse(&self, y: Tensor<(usize, usize), E, D>, numbers: Tensor<(usize, usize), E, D>) -> MappedRows<E, D> {
        let (s, t) = self.scale_and_shift(numbers);
        let negative = s.negate();
        ((y - t) * negative.clone().exp(), negative.sum::<(usize,), Axis<1>>())
    }
}
