//! A Kolmogorov–Arnold network on a block of rows in host memory.

use super::basis::Basis;
use super::{Kan, KanLayer};
use crate::ConditionerKernel;
use flow_api::rows::{RowTape, block_condition};
use flow_api::{Result, Scalar};
use flow_kernels::matmul::{Accumulate, Operand, matmul};
use flow_kernels::workspace::Buffer;

/// A [`Kan`] made ready for one call. All values are feature-major, features × lanes: a layer is one product with the
/// functions of its inputs.
pub(super) struct KanKernel<'a, E: Scalar> {
    net: &'a Kan<E>,
    basis: Basis<E>,
    layers: Vec<Layer<'a, E>>,
}

struct Layer<'a, E: Scalar> {
    parameters: &'a KanLayer<E>,
    /// (outputs × (inputs · functions)): of every edge the factor of silu and those of the splines.
    weight: Buffer<E>,
    inputs: usize,
    outputs: usize,
}

impl<'a, E: Scalar> Layer<'a, E> {
    fn new(parameters: &'a KanLayer<E>, splines: usize) -> Self {
        let &[outputs, inputs] = parameters.base.shape() else {
            return Self { parameters, weight: Buffer::take(0), inputs: 0, outputs: 0 };
        };
        let mut weight = Buffer::take(outputs * inputs * (1 + splines));
        let edges =
            parameters.base.values().iter().zip(parameters.scale.values()).zip(parameters.coefficients.values().chunks_exact(splines));
        for (((&base, &scale), coefficients), edge) in edges.zip(weight.chunks_exact_mut(1 + splines)) {
            edge[0] = base;
            edge[1..].iter_mut().zip(coefficients).for_each(|(to, &c)| *to = scale * c);
        }
        Self { parameters, weight, inputs, outputs }
    }

    fn operand(&self) -> Operand<'_, E> {
        Operand::new(&self.weight, self.outputs, self.weight.len() / self.outputs)
    }

    /// Adds to the parameters' gradients those of the edges' factors.
    fn finish(&self, sums: &[E], gradients: &mut [E]) {
        let edges = self.inputs * self.outputs;
        let functions = sums.len() / edges.max(1);
        let (for_base, rest) = gradients.split_at_mut(edges);
        let (for_scale, for_coefficients) = rest.split_at_mut(edges);
        let parameters = self.parameters.scale.values().iter().zip(self.parameters.coefficients.values().chunks_exact(functions - 1));
        let gradients = for_base.iter_mut().zip(for_scale).zip(for_coefficients.chunks_exact_mut(functions - 1));
        for ((sums, (&scale, coefficients)), ((base, for_scale), for_coefficients)) in
            sums.chunks_exact(functions).zip(parameters).zip(gradients)
        {
            *base += sums[0];
            for ((&sum, &c), to) in sums[1..].iter().zip(coefficients).zip(for_coefficients) {
                *to += scale * sum;
                *for_scale += c * sum;
            }
        }
    }
}

impl<'a, E: Scalar> KanKernel<'a, E> {
    pub(super) fn new(net: &'a Kan<E>) -> Self {
        let basis = net.basis();
        Self { net, basis, layers: net.layers.iter().map(|layer| Layer::new(layer, basis.splines())).collect() }
    }
}

impl<E: Scalar> ConditionerKernel<E> for KanKernel<'_, E> {
    /// Leaves the input of every layer.
    fn forward(&self, input: &[E], condition: Option<&[E]>, lanes: usize, tape: &mut RowTape<E>) -> Result<Buffer<E>> {
        let (inputs, width) = (self.net.config.inputs, self.net.config.condition);
        let mut x = Buffer::take((inputs + width) * lanes);
        x[..inputs * lanes].copy_from_slice(&input[..inputs * lanes]);
        x[inputs * lanes..].copy_from_slice(block_condition(condition, width, lanes)?);
        for layer in &self.layers {
            let expanded = self.basis.expand(&x, lanes);
            let mut y = Buffer::take(layer.outputs * lanes);
            matmul(&mut y, Accumulate::Replace, layer.operand(), Operand::new(&expanded, expanded.len() / lanes, lanes));
            tape.push(std::mem::replace(&mut x, y));
        }
        Ok(x)
    }

    fn pullback(&self, output: &[E], lanes: usize, tape: &mut RowTape<E>, sums: &mut [E]) -> Result<Buffer<E>> {
        let (mut cotangent, mut sums) = (Buffer::copy_of(output), sums);
        for layer in self.layers.iter().rev() {
            let (before, own) = sums.split_at_mut(sums.len() - layer.weight.len());
            let x = tape.pop()?;
            let mut expanded = self.basis.expand(&x, lanes);
            let (functions, g) = (expanded.len() / lanes, Operand::new(&cotangent, layer.outputs, lanes));
            matmul(own, Accumulate::Add, g, Operand::new(&expanded, functions, lanes).transposed());
            matmul(&mut expanded, Accumulate::Replace, layer.operand().transposed(), g);
            cotangent = self.basis.pull(&x, &expanded, lanes);
            sums = before;
        }
        Ok(cotangent)
    }

    fn sums_len(&self) -> usize {
        self.layers.iter().map(|layer| layer.weight.len()).sum()
    }

    fn finish(&self, mut sums: &[E], mut gradients: &mut [E]) {
        for layer in &self.layers {
            let (own_sums, later_sums) = sums.split_at(layer.weight.len());
            let (own, later) = gradients.split_at_mut(layer.weight.len() + layer.inputs * layer.outputs);
            layer.finish(own_sums, own);
            (sums, gradients) = (later_sums, later);
        }
    }
}
