//! The rational-quadratic-spline transformer.

mod kernel;
mod segment;

use super::{Transformer, within};
use flow_api::device::{SplineForm, TransformerForm};
use flow_api::rows::RowTape;
use flow_api::{FlowError, Result, Scalar};
use flow_kernels::scalar;
use flow_kernels::workspace::Buffer;
use kernel::{Forward, Inverse};

/// Least width and height of a bin as a part of the interval, and least slope at a knot.
const LEAST: f64 = 1e-3;

/// A monotone rational-quadratic spline of K bins on \[−B, B\], the identity outside: Durkan et al., "Neural Spline
/// Flows" (arXiv:1906.04032), with linear tails.
///
/// # Parameters of a feature
/// 3K − 1 numbers: K for the widths, K for the heights, K − 1 for the slopes at the inner knots. Widths are
/// 2B(10⁻³ + (1 − 10⁻³K) softmax), heights likewise, slopes 10⁻³ + softplus(number + o) with the offset o
/// ([`RationalQuadratic::slope_offset`]) at which a number of zero is a slope of one; the slope at both ends of the
/// interval is one. So where they are all zero, y = x exactly. The authors' code has no such offset: its unnormalised
/// derivatives are these numbers plus o.
///
/// There is no form in dfdx operations, which has neither a cumulative sum nor a search.
///
/// The spline alone, on slices, for three numbers with a spline of their own each; the log-slopes are added to the last
/// slice:
/// ```
/// use flow_api::rows::RowTape;
/// use flow_kernels::workspace::Buffer;
/// use flow_nets::{RationalQuadratic, Transformer};
/// let spline = RationalQuadratic::new(4, 3.0)?;
/// let (mut values, mut log_slopes) = ([-1.0, 0.5, 7.0], [0.0; 3]);
/// // Number i of value r at `i * 3 + r`; widths of all but the first value's first bin as at the start.
/// let mut parameters = Buffer::<f64>::zeroed(Transformer::<f64>::parameters(&spline) * 3);
/// parameters[0] = 1.0;
/// spline.forward(&mut values, parameters, &mut log_slopes, &mut RowTape::idle());
/// assert!(values[0] < -1.0 && log_slopes[0] != 0.0);
/// assert_eq!((values[1], values[2], log_slopes[1], log_slopes[2]), (0.5, 7.0, 0.0, 0.0));
/// # Ok::<(), flow_api::FlowError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RationalQuadratic<E> {
    bins: usize,
    bound: E,
    offset: E,
    /// The least slope, so rounded that a number of zero is a slope of exactly one.
    least_slope: E,
    /// Size of a bin per unit of softmax, and at the least.
    scale: E,
    least: E,
}

impl<E: Scalar> RationalQuadratic<E> {
    /// A spline of `bins` bins on ±`tail_bound`.
    ///
    /// # Errors
    /// [`FlowError::Setting`] for less than 2 or more than 999 bins, and for a bound that is not a number above 0, or
    /// with which the size of a bin or its reciprocal would not be of E's full precision.
    pub fn new(bins: usize, tail_bound: E) -> Result<Self> {
        if !(2..1000).contains(&bins) {
            let expected = "between 2 and 999".to_owned();
            return Err(FlowError::Setting { layer: "RationalQuadratic".to_owned(), field: "bins", expected, got: bins.to_string() });
        }
        let least = E::min_positive_value();
        let range = [least * E::of(1.0 / LEAST), E::of(LEAST) / least];
        let bound = within("RationalQuadratic", "tail_bound", tail_bound, range)?;
        let interval = bound + bound;
        let offset = E::of(((1.0 - LEAST).exp() - 1.0).ln());
        let least_slope = E::one() - scalar::softplus(offset);
        let scale = interval * E::of(1.0 - LEAST * bins as f64);
        Ok(Self { bins, bound, offset, least_slope, scale, least: interval * E::of(LEAST) })
    }

    /// ln(e^(1 − 10⁻³) − 1), which is added to a slope's number before the softplus.
    pub fn slope_offset(&self) -> E {
        self.offset
    }
}

impl<E: Scalar> Transformer<E> for RationalQuadratic<E> {
    fn parameters(&self) -> usize {
        3 * self.bins - 1
    }

    fn forward(&self, values: &mut [E], mut parameters: Buffer<E>, log_det: &mut [E], tape: &mut RowTape<E>) {
        keep(values, tape);
        kernel::map(Forward, self, values, &mut parameters, log_det);
        tape.push(parameters);
    }

    fn inverse(&self, values: &mut [E], mut parameters: Buffer<E>, log_det: &mut [E], tape: &mut RowTape<E>) {
        kernel::map(Inverse, self, values, &mut parameters, log_det);
        keep(values, tape);
        tape.push(parameters);
    }

    fn pullback(&self, cotangent: &mut [E], log_det: &[E], tape: &mut RowTape<E>) -> Result<Buffer<E>> {
        let (mut parameters, x) = (tape.pop()?, tape.pop()?);
        kernel::pull(self, &x, &mut parameters, cotangent, log_det);
        Ok(parameters)
    }

    fn device_form(&self) -> Option<TransformerForm> {
        let [bound, scale, least, offset, least_slope] =
            [self.bound, self.scale, self.least, self.offset, self.least_slope].map(flow_kernels::Real::as_f64);
        Some(TransformerForm::Spline(SplineForm { bins: self.bins, bound, scale, least, offset, least_slope }))
    }
}

/// Leaves a copy of x for the pullback.
fn keep<E: Scalar>(x: &[E], tape: &mut RowTape<E>) {
    if tape.is_recording() {
        tape.push(Buffer::copy_of(x));
    }
}
