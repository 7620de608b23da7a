//! Transformers: element-wise bijections whose parameters a network gives, below all families that have one.

mod affine;
mod sigmoid;
mod spec;
mod spline;

pub use affine::{Additive, Affine};
pub use sigmoid::SigmoidAffine;
pub use spec::{AffineSpec, SigmoidAffineSpec, SplineSpec, TransformerSpec};
pub use spline::RationalQuadratic;

use flow_api::device::TransformerForm;
use flow_api::rows::{MappedRows, RowTape, Taped, TapedMap};
use flow_api::{FlowError, Result, Scalar, Tensor};
use flow_kernels::workspace::Buffer;

/// An element-wise bijection yⱼ = τ(xⱼ; θⱼ), increasing in xⱼ, whose parameters θⱼ a network gives: what a coupling
/// does to the part that it moves, and an autoregressive flow to every feature.
///
/// # Shapes
/// Values are feature-major blocks (features × lanes), as many lanes as `log_det` has elements. Parameters are one
/// too, *feature by feature*: with P = [`Transformer::parameters`], number k of feature j in lane r lies at
/// `((j * P) + k) * lanes + r`. So the parameters of some features that lie together are one slice, and a map of these
/// features alone takes that slice.
///
/// # Log-det
/// Exact: Σⱼ ln τ′(xⱼ; θⱼ).
///
/// ```
/// use flow_api::rows::RowTape;
/// use flow_kernels::workspace::Buffer;
/// use flow_nets::{Affine, Transformer};
/// let affine = Affine::new(2.0)?;
/// // Two features in one lane: r and t of the first, then of the second.
/// let parameters = Buffer::<f64>::copy_of(&[0.0, 0.5, 0.0, -1.0]);
/// let (mut values, mut log_det) = ([1.0, 2.0], [0.0]);
/// affine.forward(&mut values, parameters, &mut log_det, &mut RowTape::idle());
/// assert_eq!((values, log_det), ([1.5, 1.0], [0.0]));
/// # Ok::<(), flow_api::FlowError>(())
/// ```
pub trait Transformer<E: Scalar>: std::fmt::Debug + Send + Sync {
    /// Parameters of a feature, P.
    fn parameters(&self) -> usize;

    /// x → y in place; adds ln τ′ to every row's log-det; pushes on the tape what [`Transformer::pullback`] needs. It
    /// has the parameters to itself.
    fn forward(&self, values: &mut [E], parameters: Buffer<E>, log_det: &mut [E], tape: &mut RowTape<E>);

    /// y → x in place; adds ln dx/dy to every row's log-det; pushes on the tape what [`Transformer::pullback`] at x
    /// needs.
    fn inverse(&self, values: &mut [E], parameters: Buffer<E>, log_det: &mut [E], tape: &mut RowTape<E>);

    /// ∂L/∂y → ∂L/∂x in place, and gives ∂L/∂parameters; `log_det` is ∂L/∂log|det J| of every row.
    ///
    /// # Errors
    /// An unsupported pullback if the tape holds no forward pass.
    fn pullback(&self, cotangent: &mut [E], log_det: &[E], tape: &mut RowTape<E>) -> Result<Buffer<E>>;

    /// Which shares of its bound the scales use that these parameters give in so many lanes, from 0 to 1 a value, added
    /// up; none for a transformer without a bounded scale.
    fn bound_used(&self, parameters: &[E], lanes: usize) -> Option<E> {
        let _ = (parameters, lanes);
        None
    }

    /// What it is on a device, if it has a form there.
    fn device_form(&self) -> Option<TransformerForm> {
        None
    }

    /// The form in plain dfdx operations, if there is one. The fused form is held against it.
    fn taped(&self) -> Option<&dyn TapedTransformer<E>> {
        None
    }
}

/// A [`Transformer`] in plain dfdx operations, on row-major tensors: x (rows, features), parameters (rows, features ·
/// P), feature by feature.
pub trait TapedTransformer<E: Scalar> {
    /// y and log|det| of every row, recorded on the tapes of both.
    fn forward_taped(&self, x: Taped<(usize, usize), E>, parameters: Taped<(usize, usize), E>) -> TapedMap<E>;

    /// x and log|det| of the inverse of every row.
    fn inverse(&self, y: Tensor<(usize, usize), E>, parameters: Tensor<(usize, usize), E>) -> MappedRows<E>;
}

impl<E: Scalar> Transformer<E> for Box<dyn Transformer<E>> {
    fn parameters(&self) -> usize {
        (**self).parameters()
    }

    fn forward(&self, values: &mut [E], parameters: Buffer<E>, log_det: &mut [E], tape: &mut RowTape<E>) {
        (**self).forward(values, parameters, log_det, tape);
    }

    fn inverse(&self, values: &mut [E], parameters: Buffer<E>, log_det: &mut [E], tape: &mut RowTape<E>) {
        (**self).inverse(values, parameters, log_det, tape);
    }

    fn pullback(&self, cotangent: &mut [E], log_det: &[E], tape: &mut RowTape<E>) -> Result<Buffer<E>> {
        (**self).pullback(cotangent, log_det, tape)
    }

    fn bound_used(&self, parameters: &[E], lanes: usize) -> Option<E> {
        (**self).bound_used(parameters, lanes)
    }

    fn device_form(&self) -> Option<TransformerForm> {
        (**self).device_form()
    }

    fn taped(&self) -> Option<&dyn TapedTransformer<E>> {
        (**self).taped()
    }
}

/// Checks that a setting, rounded to E, is within a range.
fn within<E: Scalar>(layer: &str, field: &'static str, value: E, [least, most]: [E; 2]) -> Result<E> {
    if least <= value && value <= most {
        return Ok(value);
    }
    let expected = format!("a number from {:.1e} to {:.1e} in {}", least.as_f64(), most.as_f64(), std::any::type_name::<E>());
    Err(FlowError::Setting { layer: layer.to_owned(), field, expected, got: value.to_string() })
}
