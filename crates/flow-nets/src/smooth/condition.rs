//! A condition's way into a network: as an offset of the first layer.

use flow_api::rows::block_condition;
use flow_api::spec::{MAX_SIZE, MAX_WEIGHTS, size_range};
use flow_api::{FlowError, Module, Parameter, Result, Scalar, module_fields};
use flow_kernels::matmul::{Accumulate, Operand, matmul};
use flow_kernels::workspace::Buffer;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// The share of a condition c in the first layer of a smooth network g(x, c): z₀ = W x + C c + b.
///
/// The condition is a further input that is not moved, so what is said of g as a map of x stays true whatever C is: its
/// Jacobian ∂g/∂x, and a Lipschitz constant in x that bounds on W and on the layers behind give. C c does not change
/// while x moves, as in a fixed-point iteration or along a path; so it is found once a block, the network takes it as
/// an offset of every row ([`Modulation`](super::Modulation)), and the gradients of C and of c follow from the sum of
/// the offset's cotangents.
///
/// # Parameters
/// `weight` C (outputs of the first layer × width); nothing where the width is 0.
///
/// ```
/// use flow_nets::smooth::{ConditionInput, Mlp, MlpConfig, Modulation};
/// let mlp = Mlp::<f64>::new(&MlpConfig::new(2, [8], 2), 7)?;
/// let input = ConditionInput::new(8, 3, 7)?;
/// // One row, at two conditions.
/// let value = |condition: &[f64]| -> flow_api::Result<Vec<f64>> {
///     let offset = input.offset(Some(condition), 1)?;
///     let mut y = vec![0.0; 2];
///     mlp.kernel()?.forward(&[0.3, -0.2], 1, Modulation { offset: &offset, ..Modulation::default() }, &mut y);
///     Ok(y)
/// };
/// assert_ne!(value(&[1.0, 0.0, 0.0])?, value(&[0.0, 1.0, 0.0])?);
/// assert!(input.offset(None, 1).is_err());
/// # Ok::<(), flow_api::FlowError>(())
/// ```
#[derive(Debug, Clone)]
pub struct ConditionInput<E: Scalar> {
    outputs: usize,
    width: usize,
    weight: Option<Parameter<E>>,
}

impl<E: Scalar> ConditionInput<E> {
    /// For a first layer with so many outputs and conditions of `width` numbers, or none of width 0; drawn from the
    /// seed, uniform in ±1/√width.
    ///
    /// # Errors
    /// [`FlowError::Setting`] for conditions of more than [`MAX_SIZE`] numbers, and for more than [`MAX_WEIGHTS`]
    /// weights.
    pub fn new(outputs: usize, width: usize, seed: u64) -> Result<Self> {
        let setting = |expected, got: usize| FlowError::Setting {
            layer: "ConditionInput".to_owned(),
            field: "condition",
            expected,
            got: got.to_string(),
        };
        if width > MAX_SIZE {
            return Err(setting(size_range(1), width));
        }
        let weights = outputs.saturating_mul(width);
        if weights > MAX_WEIGHTS {
            return Err(setting(format!("at most {MAX_WEIGHTS} weights"), weights));
        }
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        // The network's own weights are drawn from the first stream of the seed.
        rng.set_stream(1);
        let bound = 1.0 / (width.max(1) as f64).sqrt();
        let values = (0..weights).map(|_| E::of(rng.gen_range(-bound..bound))).collect();
        Ok(Self { outputs, width, weight: (width > 0).then(|| Parameter::new(&[outputs, width], values)) })
    }

    /// Numbers in a condition; 0 without one.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Multiply-adds of C c for one row.
    pub fn multiply_adds(&self) -> u64 {
        (self.outputs * self.width) as u64
    }

    /// Length of the sums of [`ConditionInput::pullback`].
    pub fn sums_len(&self) -> usize {
        self.outputs * self.width
    }

    fn operand(&self) -> Option<Operand<'_, E>> {
        self.weight.as_ref().map(|weight| Operand::new(weight.values(), self.outputs, self.width))
    }

    /// C c of a block, outputs × lanes, for conditions width × lanes; empty without a condition.
    ///
    /// # Errors
    /// [`FlowError::Condition`] if it is missing or has another width.
    pub fn offset(&self, condition: Option<&[E]>, lanes: usize) -> Result<Buffer<E>> {
        let condition = block_condition(condition, self.width, lanes)?;
        let Some(weight) = self.operand() else { return Ok(Buffer::take(0)) };
        let mut offset = Buffer::take(self.outputs * lanes);
        matmul(&mut offset, Accumulate::Replace, weight, Operand::new(condition, self.width, lanes));
        Ok(offset)
    }

    /// Adds Cᵀ ō to the condition's cotangent, where somebody asks for it, and ō cᵀ to the sums, which are the gradient
    /// of C.
    ///
    /// # Errors
    /// As [`ConditionInput::offset`].
    pub fn pullback(
        &self,
        condition: Option<&[E]>,
        offset_cotangent: &[E],
        lanes: usize,
        condition_cotangent: Option<&mut [E]>,
        sums: &mut [E],
    ) -> Result<()> {
        let condition = block_condition(condition, self.width, lanes)?;
        let Some(weight) = self.operand() else { return Ok(()) };
        let cotangent = Operand::new(offset_cotangent, self.outputs, lanes);
        matmul(sums, Accumulate::Add, cotangent, Operand::new(condition, self.width, lanes).transposed());
        if let Some(condition_cotangent) = condition_cotangent {
            matmul(condition_cotangent, Accumulate::Add, weight.transposed(), cotangent);
        }
        Ok(())
    }
}

impl<E: Scalar> Module<E> for ConditionInput<E> {
    module_fields!(E; parameter weight);
}
