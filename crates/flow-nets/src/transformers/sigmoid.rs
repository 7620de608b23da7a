//! The affine transformer whose scale is a sigmoid.

use super::{Transformer, within};
use flow_api::device::TransformerForm;
use flow_api::rows::RowTape;
use flow_api::{Result, Scalar};
use flow_kernels::Real;
use flow_kernels::workspace::Buffer;
use flow_kernels::{scalar, vectorized};

/// y = (x + t) e^s with the scale e^s = m/(1 + (m − 1) e^(−r)) between 0 and m; log-det Σ s. For m = 2 the scale is
/// 2σ(r).
///
/// The parameters of a feature are r and t; where both are zero, y = x exactly. A scale has no least value, so an
/// inverse can overflow where a feature is almost lost: that is an error of the call. With n such couplings of a value
/// ln|∂y/∂x| is at most n ln m.
///
/// Source: Kolesnikov et al., "Jet: a modern transformer-based normalizing flow" (arXiv:2412.15129), with m = 2.
///
/// ```
/// use flow_nets::SigmoidAffine;
/// assert!(SigmoidAffine::new(2.0_f32).is_ok());
/// let error = SigmoidAffine::new(1.0_f32).unwrap_err();
/// assert_eq!(error.to_string(), "SigmoidAffine: max_scale: expected a number from 1.1e0 to 1.0e3 in f32, got 1");
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SigmoidAffine<E> {
    most: E,
}

impl<E: Scalar> SigmoidAffine<E> {
    /// The transformer with the largest scale m.
    ///
    /// # Errors
    /// [`FlowError::Setting`](flow_api::FlowError::Setting) for a scale that is no number from 1.1 to 1000.
    pub fn new(max_scale: E) -> Result<Self> {
        within("SigmoidAffine", "max_scale", max_scale, [E::of(1.1), E::of(1e3)]).map(|most| Self { most })
    }
}

// What is kept is the scale in the place of r and y in the place of t.
impl<E: Scalar> Transformer<E> for SigmoidAffine<E> {
    fn parameters(&self) -> usize {
        2
    }

    fn forward(&self, values: &mut [E], mut parameters: Buffer<E>, log_det: &mut [E], tape: &mut RowTape<E>) {
        shift_and_scale(self.most, values, &mut parameters, log_det);
        tape.push(parameters);
    }

    fn inverse(&self, values: &mut [E], mut parameters: Buffer<E>, log_det: &mut [E], tape: &mut RowTape<E>) {
        scale_and_shift_back(self.most, values, &mut parameters, log_det);
        tape.push(parameters);
    }

    fn pullback(&self, cotangent: &mut [E], log_det: &[E], tape: &mut RowTape<E>) -> Result<Buffer<E>> {
        let mut parameters = tape.pop()?;
        pull(self.most, cotangent, &mut parameters, log_det);
        Ok(parameters)
    }

    /// s / ln m where the scale is above 1: below, there is no bound.
    fn bound_used(&self, parameters: &[E], lanes: usize) -> Option<E> {
        Some(shares(self.most, parameters, lanes))
    }

    fn device_form(&self) -> Option<TransformerForm> {
        Some(TransformerForm::SigmoidAffine { max_scale: self.most.as_f64() })
    }
}

/// m/(1 + (m − 1) e^(−r)): exactly 1 at 0 for the m whose successor is exact, 2 among them.
#[inline(always)]
fn scale<E: Real>(most: E, r: E) -> E {
    most / (E::one() + (most - E::one()) * scalar::exp(-r))
}

/// x, r and t of every feature.
#[inline(always)]
fn features<'a, E: Real>(values: &'a mut [E], parameters: &'a mut [E], lanes: usize) -> impl Iterator<Item = [&'a mut [E]; 3]> {
    let lanes = lanes.max(1);
    values.chunks_exact_mut(lanes).zip(parameters.chunks_exact_mut(2 * lanes)).map(move |(x, own)| {
        let (r, t) = own.split_at_mut(lanes);
        [x, r, t]
    })
}

vectorized! {
    /// x → y, r → e^s, t → y.
    fn shift_and_scale<E: Real>(most: E, values: &mut [E], parameters: &mut [E], log_det: &mut [E]) {
        for [x, r, t] in features(values, parameters, log_det.len()) {
            for (((x, r), t), l) in x.iter_mut().zip(r).zip(t).zip(&mut *log_det) {
                *r = scale(most, *r);
                *x = (*x + *t) * *r;
                *l += scalar::ln(*r);
                *t = *x;
            }
        }
    }

    /// y → x, r → e^s, t → y.
    fn scale_and_shift_back<E: Real>(most: E, values: &mut [E], parameters: &mut [E], log_det: &mut [E]) {
        for [y, r, t] in features(values, parameters, log_det.len()) {
            for (((y, r), t), l) in y.iter_mut().zip(r).zip(t).zip(&mut *log_det) {
                *r = scale(most, *r);
                let moved = *y;
                *y = moved / *r - *t;
                *l -= scalar::ln(*r);
                *t = moved;
            }
        }
    }

    /// Σ max(s, 0) / ln m.
    fn shares<E: Real>(most: E, parameters: &[E], lanes: usize) -> E {
        let of_scales = parameters.chunks_exact((2 * lanes).max(1)).flat_map(|own| &own[..lanes]);
        let logs = of_scales.map(|&r| scalar::ln(scale(most, r))).filter(|s| *s > E::zero());
        logs.sum::<E>() / scalar::ln(most)
    }

    /// ∂L/∂y → ∂L/∂x, e^s → ∂L/∂r, y → ∂L/∂t: ds/dr = 1 − e^s / m.
    fn pull<E: Real>(most: E, cotangent: &mut [E], parameters: &mut [E], log_det: &[E]) {
        let share = E::one() / most;
        for [g, scale, y] in features(cotangent, parameters, log_det.len()) {
            for (((g, scale), y), &l) in g.iter_mut().zip(scale).zip(y).zip(log_det) {
                let for_scale = *g * *y + l;
                *g *= *scale;
                *scale = for_scale * (E::one() - *scale * share);
                *y = *g;
            }
        }
    }
}
