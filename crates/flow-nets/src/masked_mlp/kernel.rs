//! The masked network on a block of rows.

use super::MaskedMlp;
use super::steps::{MaskedSteps, StepWeights};
use crate::{ConditionerKernel, ResidualMlpKernel};
use flow_api::module::parameter_count;
use flow_api::rows::RowTape;
use flow_api::{Result, Scalar};
use flow_kernels::simd::add;
use flow_kernels::workspace::Buffer;
use std::sync::OnceLock;

/// A [`MaskedMlp`] made ready for one call: its weights with zeros where they are masked, once for all blocks.
#[derive(Debug)]
pub struct MaskedMlpKernel<'a, E: Scalar> {
    net: &'a MaskedMlp<E>,
    whole: ResidualMlpKernel<'a, E>,
    /// The weights of every step, from the first pass feature by feature on.
    steps: OnceLock<StepWeights<'a, E>>,
}

impl<'a, E: Scalar> MaskedMlpKernel<'a, E> {
    pub(super) fn new(net: &'a MaskedMlp<E>, rows: usize) -> Self {
        Self { net, whole: net.net.kernel_of(rows, |place, layer| net.masked(place, layer)), steps: OnceLock::new() }
    }

    /// The same parameters feature by feature, each from the features before it, for a block of so many lanes and its
    /// condition (condition × lanes). All steps together take the multiply-adds of the weights that are not masked:
    /// what earlier features gave is kept.
    ///
    /// # Errors
    /// [`FlowError::Condition`](flow_api::FlowError::Condition) if a condition is missing or has another width.
    pub fn steps(&self, condition: Option<&[E]>, lanes: usize) -> Result<MaskedSteps<'_, E>> {
        MaskedSteps::new(self.net, self.step_weights(), condition, lanes)
    }

    /// Packs the weights for [`MaskedMlpKernel::steps`], which else does it when it first needs them.
    pub fn prepare_steps(&self) {
        self.step_weights();
    }

    fn step_weights(&self) -> &StepWeights<'a, E> {
        self.steps.get_or_init(|| StepWeights::new(self.net))
    }
}

impl<E: Scalar> ConditionerKernel<E> for MaskedMlpKernel<'_, E> {
    fn prepare_forward(&self) {
        self.whole.prepare_forward();
    }

    fn forward(&self, input: &[E], condition: Option<&[E]>, lanes: usize, tape: &mut RowTape<E>) -> Result<Buffer<E>> {
        self.whole.forward(input, condition, lanes, tape)
    }

    fn pullback(&self, output: &[E], lanes: usize, tape: &mut RowTape<E>, sums: &mut [E]) -> Result<Buffer<E>> {
        self.whole.pullback(output, lanes, tape, sums)
    }

    fn sums_len(&self) -> usize {
        self.whole.sums_len()
    }

    /// Products with a mask have no gradient there.
    fn finish(&self, sums: &[E], gradients: &mut [E]) {
        let mut own = Buffer::zeroed(parameter_count(self.net));
        self.whole.finish(sums, &mut own);
        let mut rest = &mut own[..];
        for (place, layer) in self.net.net.layers().enumerate() {
            let (weight, behind) = rest.split_at_mut(layer.weight.values().len());
            self.net.clear_masked(place, weight);
            rest = &mut behind[layer.bias.values().len()..];
        }
        add(gradients, &own);
    }
}
