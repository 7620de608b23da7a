//! What a flow needs of the network that conditions it, whichever it is.

use flow_api::device::NetForm;
use flow_api::rows::{RowTape, Taped};
use flow_api::{Module, Result, Scalar};
use flow_kernels::workspace::Buffer;

/// A network from features, and a condition, to the parameters of a [`Transformer`](crate::Transformer): what families
/// of flows see of it, so that any network can take another's place.
///
/// [`ResidualMlp`](crate::ResidualMlp) is one, and [`MaskedMlp`](crate::MaskedMlp) is one whose outputs see earlier
/// inputs alone.
///
/// ```
/// use flow_api::rows::RowTape;
/// use flow_nets::{Activation, ConditionerNet, ResidualMlp, ResidualMlpConfig};
/// fn outputs(net: &dyn ConditionerNet<f32>, input: &[f32]) -> flow_api::Result<Vec<f32>> {
///     let lanes = input.len() / net.inputs();
///     Ok(net.kernel(lanes).forward(input, None, lanes, &mut RowTape::idle())?.to_vec())
/// }
/// let config = ResidualMlpConfig { inputs: 2, condition: 0, outputs: 3, hidden: 8, blocks: 1, activation: Activation::Relu };
/// assert_eq!(outputs(&ResidualMlp::new(config, 7)?, &[0.5; 4])?, [0.0; 6]);
/// # Ok::<(), flow_api::FlowError>(())
/// ```
pub trait ConditionerNet<E: Scalar>: Module<E> {
    /// Features that go in.
    fn inputs(&self) -> usize;

    /// Width of the condition that it sees besides, 0 without one.
    fn condition(&self) -> usize;

    /// Numbers that come out.
    fn outputs(&self) -> usize;

    /// Multiply-adds of matrix products for one row.
    fn multiply_adds(&self) -> u64;

    /// The kernel for one call with so many rows in all.
    fn kernel<'a>(&'a self, rows: usize) -> Box<dyn ConditionerKernel<E> + 'a>;

    /// What it is on a device, if it has a form there.
    fn device_form(&self) -> Option<NetForm<'_, E>> {
        None
    }

    /// The form in plain dfdx operations, if there is one. The fused form is held against it.
    fn taped(&self) -> Option<&dyn TapedNet<E>> {
        None
    }
}

/// A [`ConditionerNet`] made ready for one call.
///
/// # Shapes
/// Inputs, conditions and outputs are feature-major: feature j of lane r at `j * lanes + r`.
pub trait ConditionerKernel<E: Scalar>: Send + Sync {
    /// Does to the weights what [`ConditionerKernel::forward`] needs, which else does it when it first runs.
    fn prepare_forward(&self) {}

    /// The output (outputs × lanes) for an input (inputs × lanes) and a condition (condition × lanes); pushes on the
    /// tape what [`ConditionerKernel::pullback`] needs.
    ///
    /// # Errors
    /// [`FlowError::Condition`](flow_api::FlowError::Condition) if a condition is missing or has another width.
    fn forward(&self, input: &[E], condition: Option<&[E]>, lanes: usize, tape: &mut RowTape<E>) -> Result<Buffer<E>>;

    /// ∂L/∂input (inputs × lanes) with ∂L/∂condition (condition × lanes) behind, from ∂L/∂output, popping what
    /// [`ConditionerKernel::forward`] pushed; adds to `sums` what [`ConditionerKernel::finish`] makes the parameters'
    /// gradients of.
    ///
    /// # Errors
    /// An unsupported pullback if the tape holds no forward pass.
    fn pullback(&self, output: &[E], lanes: usize, tape: &mut RowTape<E>, sums: &mut [E]) -> Result<Buffer<E>>;

    /// Length of the sums of [`ConditionerKernel::pullback`].
    fn sums_len(&self) -> usize;

    /// Adds to the parameters' gradients, in the order of [`Module::visit`], what the sums over all rows make.
    fn finish(&self, sums: &[E], gradients: &mut [E]);
}

/// A [`ConditionerNet`] in plain dfdx operations.
pub trait TapedNet<E: Scalar> {
    /// The output (rows, outputs), recorded on the tape of `input` (rows, inputs + condition): the input with the
    /// condition behind.
    fn forward_taped(&self, input: Taped<(usize, usize), E>) -> Taped<(usize, usize), E>;
}
