//! A convolutional network on a block of whole images in host memory.

use super::layer::{ConvKernel, Then};
use super::neighbours::pull_relu;
use super::{ConvLayers, ConvNetConfig};
use crate::ConditionerKernel;
use flow_api::rows::{RowTape, block_condition};
use flow_api::{Result, Scalar, shape_error};
use flow_kernels::matmul::{Operand, transpose};
use flow_kernels::simd::add;
use flow_kernels::workspace::Buffer;

/// A [`ConvNet`](super::ConvNet) made ready for one call: its weights, borrowed, those of 3 × 3 convolutions in the
/// order that their products want.
///
/// Inputs and outputs are feature-major: channel j of lane r at `j * lanes + r`, where the lanes are pixels of whole
/// images, row by row, one image after the other. Hidden values are pixel-major, so that the neighbours of a pixel are
/// three runs of memory. Convolutions are matrix products over gathered rows, a few at a time.
#[derive(Debug)]
pub(super) struct ConvNetKernel<'a, E: Scalar> {
    config: &'a ConvNetConfig,
    layers: Vec<ConvKernel<'a, E>>,
}

impl<'a, E: Scalar> ConvNetKernel<'a, E> {
    pub(super) fn new(config: &'a ConvNetConfig, layers: Vec<ConvKernel<'a, E>>) -> Self {
        Self { config, layers }
    }

    /// One convolution after the other, with max(x, 0) between.
    fn chain(&self, x: Buffer<E>, tape: &mut RowTape<E>) -> Buffer<E> {
        let mut value = x;
        for (i, layer) in self.layers.iter().enumerate() {
            let mut next = Buffer::take(value.len() / layer.inputs() * layer.outputs());
            layer.forward(&value, &mut next, if i + 1 < self.layers.len() { Then::Relu } else { Then::Write });
            tape.push(std::mem::replace(&mut value, next));
        }
        value
    }

    fn pull_chain(&self, cotangent: Buffer<E>, tape: &mut RowTape<E>, sums: &mut [E]) -> Result<Buffer<E>> {
        let (mut cotangent, mut sums) = (cotangent, sums);
        for (i, layer) in self.layers.iter().enumerate().rev() {
            let (before, own) = sums.split_at_mut(sums.len() - layer.len());
            let value = tape.pop()?;
            cotangent = layer.pull(&value, &cotangent, own);
            if i > 0 {
                pull_relu(&mut cotangent, &value);
            }
            sums = before;
        }
        Ok(cotangent)
    }

    /// The initial convolution, the two of every block, the last one.
    fn parts(&self) -> Option<(&ConvKernel<'a, E>, &[[ConvKernel<'a, E>; 2]], &ConvKernel<'a, E>)> {
        let [initial, blocks @ .., last] = self.layers.as_slice() else { return None };
        Some((initial, blocks.as_chunks().0, last))
    }

    fn residual(&self, x: Buffer<E>, tape: &mut RowTape<E>) -> Buffer<E> {
        let Some((initial, blocks, last)) = self.parts() else { return x };
        let pixels = x.len() / initial.inputs();
        let mut h = Buffer::take(pixels * initial.outputs());
        initial.forward(&x, &mut h, Then::Write);
        tape.push(x);
        for [first, second] in blocks {
            let (mut outer, mut inner) = (Buffer::copy_of(&h), Buffer::take(h.len()));
            // Unlike `max`, this lets NaN through, so that it is noticed.
            outer.iter_mut().for_each(|x| *x = if *x < E::zero() { E::zero() } else { *x });
            first.forward(&outer, &mut inner, Then::Relu);
            second.forward(&inner, &mut h, Then::Add);
            tape.push(outer);
            tape.push(inner);
        }
        let mut output = Buffer::take(pixels * last.outputs());
        last.forward(&h, &mut output, Then::Write);
        tape.push(h);
        output
    }

    fn pull_residual(&self, cotangent: Buffer<E>, tape: &mut RowTape<E>, sums: &mut [E]) -> Result<Buffer<E>> {
        let Some((initial, blocks, last)) = self.parts() else { return Ok(cotangent) };
        let (mut sums, of_last) = sums.split_at_mut(sums.len() - last.len());
        let mut hidden = last.pull(&tape.pop()?, &cotangent, of_last);
        for [first, second] in blocks.iter().rev() {
            let (inner, outer) = (tape.pop()?, tape.pop()?);
            let (before, of_second) = sums.split_at_mut(sums.len() - second.len());
            let (before, of_first) = before.split_at_mut(before.len() - first.len());
            let mut through = second.pull(&inner, &hidden, of_second);
            pull_relu(&mut through, &inner);
            let mut through = first.pull(&outer, &through, of_first);
            pull_relu(&mut through, &outer);
            add(&mut hidden, &through);
            sums = before;
        }
        Ok(initial.pull(&tape.pop()?, &hidden, sums))
    }
}

impl<E: Scalar> ConditionerKernel<E> for ConvNetKernel<'_, E> {
    fn prepare_forward(&self) {
        self.layers.iter().for_each(ConvKernel::prepare_forward);
    }

    /// Leaves on the tape what every convolution saw.
    fn forward(&self, input: &[E], condition: Option<&[E]>, lanes: usize, tape: &mut RowTape<E>) -> Result<Buffer<E>> {
        let ConvNetConfig { inputs, condition: width, outputs, height, width: across, .. } = *self.config;
        if input.len() != inputs * lanes || !lanes.is_multiple_of(height * across) {
            let expected = format!("{inputs} channels of images of {height} × {across}");
            return Err(shape_error("ConvNet", "forward", expected, (input.len(), lanes)));
        }
        let mut x = Buffer::take((inputs + width) * lanes);
        let (own, behind) = x.split_at_mut(inputs * lanes);
        own.copy_from_slice(input);
        behind.copy_from_slice(block_condition(condition, width, lanes)?);
        let x = turned(&x, inputs + width, lanes);
        let output = match self.config.layers {
            ConvLayers::Residual { .. } => self.residual(x, tape),
            ConvLayers::One | ConvLayers::Three { .. } => self.chain(x, tape),
        };
        Ok(turned(&output, lanes, outputs))
    }

    fn pullback(&self, output: &[E], lanes: usize, tape: &mut RowTape<E>, sums: &mut [E]) -> Result<Buffer<E>> {
        let cotangent = turned(output, self.config.outputs, lanes);
        let pulled = match self.config.layers {
            ConvLayers::Residual { .. } => self.pull_residual(cotangent, tape, sums)?,
            ConvLayers::One | ConvLayers::Three { .. } => self.pull_chain(cotangent, tape, sums)?,
        };
        Ok(turned(&pulled, lanes, self.config.inputs + self.config.condition))
    }

    fn sums_len(&self) -> usize {
        self.layers.iter().map(ConvKernel::len).sum()
    }

    fn finish(&self, mut sums: &[E], mut gradients: &mut [E]) {
        for layer in &self.layers {
            let (own_sums, later_sums) = sums.split_at(layer.len());
            let (own, later) = gradients.split_at_mut(layer.len());
            layer.finish(own_sums, own);
            (sums, gradients) = (later_sums, later);
        }
    }
}

/// A matrix of so many rows and columns, transposed.
fn turned<E: Scalar>(x: &[E], rows: usize, columns: usize) -> Buffer<E> {
    let mut turned = Buffer::take(x.len());
    transpose(&mut turned, Operand::new(x, rows, columns));
    turned
}
