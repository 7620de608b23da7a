//! Linear maps between the features of a lane, and hidden values as rows of a matrix.

use flow_api::Scalar;
use flow_kernels::matmul::{Accumulate, Epilogue, Operand, matmul, matmul_with, transpose};
use flow_kernels::workspace::{Buffer, fetch};
use flow_kernels::{Real, vectorized};
use std::borrow::Cow;
use std::ops::Deref;
use std::sync::OnceLock;

/// Hidden values: one row a lane.
pub(crate) fn rows<E>(x: &[E], features: usize) -> Operand<'_, E> {
    Operand::new(x, x.len() / features, features)
}

/// W (outputs × inputs), row-major: borrowed from a module, or made for one call.
#[derive(Debug)]
pub(crate) struct Weight<E: Scalar, W> {
    values: W,
    outputs: usize,
    /// Wᵀ, row-major, from the first forward pass on.
    turned: OnceLock<Buffer<E>>,
}

impl<E: Scalar, W: Deref<Target = [E]>> Weight<E, W> {
    pub(crate) fn new(values: W, outputs: usize) -> Self {
        Self { values, outputs, turned: OnceLock::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.values.len()
    }

    pub(crate) fn inputs(&self) -> usize {
        self.values.len() / self.outputs
    }

    pub(crate) fn operand(&self) -> Operand<'_, E> {
        Operand::new(&self.values, self.outputs, self.inputs())
    }

    /// Wᵀ as rows: turned once, not by every block's product.
    pub(crate) fn turned(&self) -> Operand<'_, E> {
        let turned = self.turned.get_or_init(|| {
            let mut turned = Buffer::take(self.values.len());
            fetch(&self.values);
            transpose(&mut turned, self.operand());
            turned
        });
        Operand::new(turned, self.inputs(), self.outputs)
    }

    /// X Wᵀ for rows X.
    pub(crate) fn product(&self, x: &[E], accumulate: Accumulate, y: &mut [E], epilogue: &mut impl Epilogue<E>) {
        matmul_with(y, accumulate, rows(x, self.inputs()), self.turned(), epilogue);
    }

    /// Adds Gᵀ X to `sums`, for rows G and X.
    pub(crate) fn add_outer(&self, cotangent: &[E], x: &[E], sums: &mut [E]) {
        matmul(sums, Accumulate::Add, rows(cotangent, self.outputs).transposed(), rows(x, self.inputs()));
    }

    /// G W for rows G: the cotangents of what the product was of.
    pub(crate) fn pull(&self, cotangent: &[E], pulled: &mut [E]) {
        matmul(pulled, Accumulate::Replace, rows(cotangent, self.outputs), self.operand());
    }
}

/// y = W x + b of a module: as it is, or made of it for one call.
#[derive(Debug)]
pub(crate) struct Affine<'a, E: Scalar> {
    pub(crate) weight: Weight<E, Cow<'a, [E]>>,
    pub(crate) bias: Cow<'a, [E]>,
}

impl<'a, E: Scalar> Affine<'a, E> {
    pub(crate) fn new(weight: impl Into<Cow<'a, [E]>>, bias: impl Into<Cow<'a, [E]>>) -> Self {
        let bias = bias.into();
        Self { weight: Weight::new(weight.into(), bias.len()), bias }
    }

    /// Number of parameters.
    pub(crate) fn len(&self) -> usize {
        self.weight.len() + self.bias.len()
    }

    /// Takes this layer's sums, those of the weight and of the bias, off the end of `sums`; those in front of them.
    pub(crate) fn take_sums<'s>(&self, sums: &'s mut [E]) -> (Sums<'s, E>, &'s mut [E]) {
        let (before, own) = sums.split_at_mut(sums.len() - self.len());
        let (weight, bias) = own.split_at_mut(self.weight.len());
        (Sums { weight, bias }, before)
    }
}

/// Gradients of an affine map, to be added to.
pub(crate) struct Sums<'s, E> {
    pub(crate) weight: &'s mut [E],
    pub(crate) bias: &'s mut [E],
}

vectorized! {
    /// Adds up rows: the gradient of what was added to each of them.
    pub(crate) fn add_rows<E: Real>(sums: &mut [E], rows: &[E]) {
        for row in rows.chunks_exact(sums.len().max(1)) {
            sums.iter_mut().zip(row).for_each(|(sum, &x)| *sum += x);
        }
    }
}
