//! What a coupling does to the features that it moves.

use flow_api::{MappedRows, Result, RowTape, Scalar, Taped, TapedMap, Tensor};
use flow_kernels::workspace::Buffer;

/// An element-wise bijection of the moved features whose numbers the conditioner gives: the exchangeable part of a [`Coupling`](crate::Coupling).
///
/// Values are feature-major blocks (moved features × lanes), and the conditioner's output is one too, with [`Transformer::numbers`] features for every moved one;
/// their order is the implementation's own. The lanes are as many as `log_det` has elements.
pub trait Transformer<E: Scalar>: Send + Sync {
    /// Name of the coupling that it makes, as in specs.
    fn kind(&self) -> &'static str;

    /// Numbers from the conditioner for every moved feature.
    fn numbers(&self) -> usize;

    /// x → y in place; adds log|dy/dx| to every row's log-det; pushes on the tape what [`Transformer::pullback`] needs. It has the conditioner's output to itself.
    fn forward(&self, values: &mut [E], numbers: Buffer<E>, log_det: &mut [E], tape: &mut RowTape<E>);

    /// y → x in place; adds log|dx/dy| to every row's log-det; pushes on the tape what [`Transformer::pullback`] at x needs.
    fn inverse(&self, values: &mut [E], numbers: Buffer<E>, log_det: &mut [E], tape: &mut RowTape<E>);

    /// ∂L/∂y → ∂L/∂x in place, and gives ∂L/∂numbers; `log_det` is ∂L/∂log|det J| of every row.
    ///
    /// # Errors
    /// An unsupported pullback if the tape holds no forward pass.
    fn pullback(&self, cotangent: &mut [E], log_det: &[E], tape: &mut RowTape<E>) -> Result<Buffer<E>>;

    /// The form in plain dfdx operations, if there is one. The fused form is held against it.
    fn taped(&self) -> Option<&dyn TapedTransformer<E>> {
        None
    }
}

/// A [`Transformer`] in plain dfdx operations, on row-major tensors: x (rows, moved), numbers (rows, numbers · moved).
pub trait TapedTransformer<E: Scalar> {
    /// y and log|det| of every row, recorded on the tapes of both.
    fn forward_taped(&self, x: Taped<(usize, usize), E>, numbers: Taped<(usize, usize), E>) -> TapedMap<E>;

    /// x and log|det| of the inverse of every row.
    fn inverse(&self, y: Tensor<(usize, usize), E>, numbers: Tensor<(usize, usize), E>) -> MappedRows<E>;
}
