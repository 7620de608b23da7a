//! The additive and the affine transformer.

use super::{TapedTransformer, Transformer, within};
use dfdx::prelude::*;
use flow_api::device::TransformerForm;
use flow_api::rows::{MappedRows, Real, RowTape, Taped, TapedMap};
use flow_api::{Result, Scalar, Tensor};
use flow_kernels::workspace::Buffer;
use flow_kernels::{scalar, vectorized};
use num_traits::Float;

/// y = x + t: volume-preserving, log-det 0. The network gives t.
///
/// Source: Dinh et al., "NICE", section 3.2 (arXiv:1410.8516).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Additive;

impl<E: Scalar> Transformer<E> for Additive {
    fn parameters(&self) -> usize {
        1
    }

    fn forward(&self, values: &mut [E], parameters: Buffer<E>, _: &mut [E], _: &mut RowTape<E>) {
        values.iter_mut().zip(parameters.iter()).for_each(|(x, &t)| *x += t);
    }

    fn inverse(&self, values: &mut [E], parameters: Buffer<E>, _: &mut [E], _: &mut RowTape<E>) {
        values.iter_mut().zip(parameters.iter()).for_each(|(y, &t)| *y -= t);
    }

    fn pullback(&self, cotangent: &mut [E], _: &[E], _: &mut RowTape<E>) -> Result<Buffer<E>> {
        Ok(Buffer::copy_of(cotangent))
    }

    fn device_form(&self) -> Option<TransformerForm> {
        Some(TransformerForm::Additive)
    }

    fn taped(&self) -> Option<&dyn TapedTransformer<E>> {
        Some(self)
    }
}

impl<E: Scalar> TapedTransformer<E> for Additive {
    fn forward_taped(&self, x: Taped<(usize, usize), E>, parameters: Taped<(usize, usize), E>) -> TapedMap<E> {
        let log_det = E::zeros((x.shape().0,)).retaped();
        (x + parameters, log_det)
    }

    fn inverse(&self, y: Tensor<(usize, usize), E>, parameters: Tensor<(usize, usize), E>) -> MappedRows<E> {
        let log_det = E::zeros((y.shape().0,));
        (y - parameters, log_det)
    }
}

/// y = x e^s + t with the log-scale s = c tanh(r / c) bounded by ±c, so that e^s and e^(−s) keep their full precision;
/// log-det Σ s.
///
/// The parameters of a feature are r and t; where both are zero, y = x exactly.
/// Source: Dinh et al., "Density estimation using Real NVP", section 3.2 (arXiv:1605.08803).
///
/// ```
/// use flow_nets::Affine;
/// assert!(Affine::new(2.0_f32).is_ok());
/// assert_eq!(Affine::new(0.0_f32).unwrap_err().to_string(), "Affine: bound: expected a number from 1.2e-38 to 8.7e1 in f32, got 0");
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Affine<E> {
    bound: E,
}

impl<E: Scalar> Affine<E> {
    /// The transformer with the bound c.
    ///
    /// # Errors
    /// [`FlowError::Setting`](flow_api::FlowError::Setting) for a bound that is not a number above 0, or with which c,
    /// 1/c or e^(−c) would be below E's least number of full precision: from 1.2e-38 to 87 in f32, from 2.2e-308 to 708
    /// in f64.
    pub fn new(bound: E) -> Result<Self> {
        let least = E::min_positive_value();
        within("Affine", "bound", bound, [least, -Float::ln(least)]).map(|bound| Self { bound })
    }
}

// What is kept is s in the place of r and x e^s in the place of t.
impl<E: Scalar> Transformer<E> for Affine<E> {
    fn parameters(&self) -> usize {
        2
    }

    fn forward(&self, values: &mut [E], mut parameters: Buffer<E>, log_det: &mut [E], tape: &mut RowTape<E>) {
        scale_and_shift(self.bound, values, &mut parameters, log_det);
        tape.push(parameters);
    }

    fn inverse(&self, values: &mut [E], mut parameters: Buffer<E>, log_det: &mut [E], tape: &mut RowTape<E>) {
        shift_and_scale_back(self.bound, values, &mut parameters, log_det);
        tape.push(parameters);
    }

    fn pullback(&self, cotangent: &mut [E], log_det: &[E], tape: &mut RowTape<E>) -> Result<Buffer<E>> {
        let mut parameters = tape.pop()?;
        pull(self.bound, cotangent, &mut parameters, log_det);
        Ok(parameters)
    }

    /// |s| / c.
    fn bound_used(&self, parameters: &[E], lanes: usize) -> Option<E> {
        Some(shares(self.bound, parameters, lanes))
    }

    fn device_form(&self) -> Option<TransformerForm> {
        Some(TransformerForm::Affine { bound: self.bound.as_f64() })
    }

    fn taped(&self) -> Option<&dyn TapedTransformer<E>> {
        Some(self)
    }
}

/// x, r and t of every feature.
#[inline(always)]
fn features<'a, E: Real>(
    values: &'a mut [E],
    parameters: &'a mut [E],
    lanes: usize,
) -> impl Iterator<Item = ((&'a mut [E], &'a mut [E]), &'a mut [E])> {
    let lanes = lanes.max(1);
    values.chunks_exact_mut(lanes).zip(parameters.chunks_exact_mut(2 * lanes)).map(move |(x, own)| {
        let (r, t) = own.split_at_mut(lanes);
        ((x, r), t)
    })
}

vectorized! {
    /// x → y, r → s, t → x e^s.
    fn scale_and_shift<E: Real>(bound: E, values: &mut [E], parameters: &mut [E], log_det: &mut [E]) {
        let steepness = Float::recip(bound);
        for ((x, r), t) in features(values, parameters, log_det.len()) {
            for (((x, r), t), l) in x.iter_mut().zip(r).zip(t).zip(&mut *log_det) {
                let s = bound * scalar::tanh(*r * steepness);
                let scaled = *x * scalar::exp(s);
                *x = scaled + *t;
                *l += s;
                (*r, *t) = (s, scaled);
            }
        }
    }

    /// y → x, r → s, t → x e^s.
    fn shift_and_scale_back<E: Real>(bound: E, values: &mut [E], parameters: &mut [E], log_det: &mut [E]) {
        let steepness = Float::recip(bound);
        for ((y, r), t) in features(values, parameters, log_det.len()) {
            for (((y, r), t), l) in y.iter_mut().zip(r).zip(t).zip(&mut *log_det) {
                let s = bound * scalar::tanh(*r * steepness);
                let scaled = *y - *t;
                *y = scaled * scalar::exp(-s);
                *l -= s;
                (*r, *t) = (s, scaled);
            }
        }
    }

    /// Σ |tanh(r / c)|.
    fn shares<E: Real>(bound: E, parameters: &[E], lanes: usize) -> E {
        let steepness = Float::recip(bound);
        let of_scales = parameters.chunks_exact((2 * lanes).max(1)).flat_map(|own| &own[..lanes]);
        of_scales.map(|&r| scalar::tanh(r * steepness).abs()).sum()
    }

    /// ∂L/∂y → ∂L/∂x, s → ∂L/∂r, x e^s → ∂L/∂t.
    fn pull<E: Real>(bound: E, cotangent: &mut [E], parameters: &mut [E], log_det: &[E]) {
        let steepness = Float::recip(bound);
        for ((g, s), scaled) in features(cotangent, parameters, log_det.len()) {
            for (((g, s), scaled), &l) in g.iter_mut().zip(s).zip(scaled).zip(log_det) {
                let for_scale = *g * *scaled + l;
                let tanh = *s * steepness;
                *scaled = *g;
                *g *= scalar::exp(*s);
                *s = for_scale * (E::one() - tanh) * (E::one() + tanh);
            }
        }
    }
}

impl<E: Scalar> Affine<E> {
    /// s and t.
    fn scale_and_shift_of<T: Tape<E, E::Device>>(&self, parameters: Tensor<(usize, usize), E, T>) -> [Tensor<(usize, usize), E, T>; 2] {
        let (rows, features) = (parameters.shape().0, parameters.shape().1 / 2);
        let pairs = parameters.reshape_like(&(rows, features, 2));
        let r = pairs.with_empty_tape().slice((.., .., ..1)).reshape_like(&(rows, features));
        [(r * self.bound.recip()).tanh() * self.bound, pairs.slice((.., .., 1..)).reshape_like(&(rows, features))]
    }
}

impl<E: Scalar> TapedTransformer<E> for Affine<E> {
    fn forward_taped(&self, x: Taped<(usize, usize), E>, parameters: Taped<(usize, usize), E>) -> TapedMap<E> {
        let [s, t] = self.scale_and_shift_of(parameters);
        let log_det = s.with_empty_tape().sum::<(usize,), Axis<1>>();
        (x * s.exp() + t, log_det)
    }

    fn inverse(&self, y: Tensor<(usize, usize), E>, parameters: Tensor<(usize, usize), E>) -> MappedRows<E> {
        let [s, t] = self.scale_and_shift_of(parameters);
        let negative = s.negate();
        ((y - t) * negative.clone().exp(), negative.sum::<(usize,), Axis<1>>())
    }
}
