//! What a coupling does to the features that it moves.

use dfdx::prelude::Tensor;
use flow_api::{FlowDevice, Result, RowTape, Scalar, Taped, TapedRows};
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

    /// The form in plain dfdx operations, if there is one. Without it, the coupling runs on host row blocks on every device.
    fn plain<D: FlowDevice<E>>(&self) -> Option<&dyn PlainTransformer<E, D>> {
        None
    }
}

/// x or y of every row, and the log-det of every row.
pub type MappedRows<E, D> = (Tensor<(usize, usize), E, D>, Tensor<(usize,), E, D>);

/// A [`Transformer`] in plain dfdx operations, on row-major tensors: x (rows, moved), numbers (rows, numbers · moved).
pub trait PlainTransformer<E: Scalar, D: FlowDevice<E>> {
    /// y and log|det| of every row, recorded on the tapes of both.
    fn forward_taped(&self, x: Taped<(usize, usize), E, D>, numbers: Taped<(usize, usize), E, D>) -> TapedRows<E, D>;

    /// x and log|det| of the inverse of every row.
    fn inverse(&self, y: Tensor<(usize, usize), E, D>, numbers: Tensor<(usize, usize), E, D>) -> MappedRows<E, D>;
}
