//! Affine maps: neighbouring ones become a single matrix product.

use super::kernel::{Lanes, Pull, RowKernel, RowTape};
use crate::{Result, Scalar};
use flow_kernels::matmul::{Accumulate, Operand, matmul};
use flow_kernels::workspace::Buffer;
use std::sync::OnceLock;

/// An invertible affine map y = W x + b of R^d, made ready for one call.
///
/// A [`RowFlow`](crate::RowFlow) that is one says so by [`RowFlow::affine`](crate::RowFlow::affine); a [`RowChain`](crate::RowChain) then multiplies neighbours together,
/// so that `ActNorm` and a linear map cost one product a row.
pub trait AffineMap<E: Scalar>: Send + Sync {
    /// d.
    fn dim(&self) -> usize;

    /// W, row-major.
    fn matrix(&self) -> Vec<E>;

    /// W⁻¹, row-major.
    fn inverse_matrix(&self) -> Vec<E>;

    /// b.
    fn offset(&self) -> Vec<E>;

    /// log|det W|.
    fn log_det(&self) -> E;

    /// Adds the parameters' gradients, given ∂L/∂W, ∂L/∂b and Σ ∂L/∂log|det W| over all rows.
    fn finish(&self, for_matrix: &[E], for_offset: &[E], log_det: E, gradients: &mut [E]);
}

/// One map of a product, with its number of parameters.
pub(crate) struct AffinePart<'a, E: Scalar> {
    pub(crate) map: Box<dyn AffineMap<E> + 'a>,
    pub(crate) parameters: usize,
}

/// One or several affine maps as a kernel of one matrix product.
pub(crate) struct AffineKernel<'a, E: Scalar> {
    dim: usize,
    parts: Vec<AffinePart<'a, E>>,
    /// W and b of the maps in front of each part but the first.
    prefixes: Vec<(Vec<E>, Vec<E>)>,
    /// W of each part.
    matrices: Vec<Vec<E>>,
    matrix: Vec<E>,
    /// W⁻¹, when a pass asks for it: a forward pass and its pullback do not.
    inverse: OnceLock<Vec<E>>,
    offset: Vec<E>,
    log_det: E,
}

fn product<E: Scalar>(a: &[E], b: &[E], dim: usize) -> Vec<E> {
    let mut out = vec![E::zero(); dim * dim];
    matmul(&mut out, Accumulate::Replace, Operand::new(a, dim, dim), Operand::new(b, dim, dim));
    out
}

fn transposed_product<E: Scalar>(a: &[E], b: &[E], dim: usize, columns: usize) -> Vec<E> {
    let mut out = vec![E::zero(); dim * columns];
    matmul(&mut out, Accumulate::Replace, Operand::new(a, dim, dim).transposed(), Operand::new(b, dim, columns));
    out
}

impl<'a, E: Scalar> AffineKernel<'a, E> {
    pub(crate) fn new(parts: Vec<AffinePart<'a, E>>) -> Self {
        let dim = parts.first().map_or(0, |part| part.map.dim());
        let (mut matrix, mut offset) = (Vec::new(), Vec::new());
        let (mut prefixes, mut matrices) = (Vec::with_capacity(parts.len()), Vec::with_capacity(parts.len()));
        for (i, AffinePart { map, .. }) in parts.iter().enumerate() {
            let (own, own_offset) = (map.matrix(), map.offset());
            if i == 0 {
                (matrix, offset) = (own.clone(), own_offset);
            } else {
                let mut moved = own_offset;
                matmul(&mut moved, Accumulate::Add, Operand::new(&own, dim, dim), Operand::new(&offset, dim, 1));
                let whole = product(&own, &matrix, dim);
                prefixes.push((std::mem::replace(&mut matrix, whole), std::mem::replace(&mut offset, moved)));
            }
            matrices.push(own);
        }
        let log_det = parts.iter().map(|part| part.map.log_det()).sum();
        Self { dim, parts, prefixes, matrices, matrix, inverse: OnceLock::new(), offset, log_det }
    }

    fn pull(&self, x: &[E], cotangent: &mut [E], lanes: usize, sums: &mut [E]) {
        let dim = self.dim;
        let (for_matrix, for_offset) = sums.split_at_mut(dim * dim);
        matmul(for_matrix, Accumulate::Add, Operand::new(cotangent, dim, lanes), Operand::new(x, dim, lanes).transposed());
        for (sum, feature) in for_offset.iter_mut().zip(cotangent.chunks_exact(lanes)) {
            *sum += feature.iter().copied().sum::<E>();
        }
        let mut out = Buffer::take(cotangent.len());
        out.copy_from_slice(cotangent);
        matmul(cotangent, Accumulate::Replace, Operand::new(&self.matrix, dim, dim).transposed(), Operand::new(&out, dim, lanes));
    }

    /// W⁻¹ = W₁⁻¹ W₂⁻¹ ….
    fn inverse_matrix(&self) -> &[E] {
        self.inverse.get_or_init(|| {
            let inverses = self.parts.iter().map(|part| part.map.inverse_matrix());
            inverses.reduce(|so_far, next| product(&so_far, &next, self.dim)).unwrap_or_default()
        })
    }

    /// y → W⁻¹(y − b).
    fn invert(&self, values: &mut [E], lanes: usize) {
        let mut shifted = Buffer::take(values.len());
        for ((shifted, values), &b) in shifted.chunks_exact_mut(lanes).zip(values.chunks_exact(lanes)).zip(&self.offset) {
            shifted.iter_mut().zip(values).for_each(|(shifted, &y)| *shifted = y - b);
        }
        matmul(
            values,
            Accumulate::Replace,
            Operand::new(self.inverse_matrix(), self.dim, self.dim),
            Operand::new(&shifted, self.dim, lanes),
        );
    }
}

impl<E: Scalar> RowKernel<E> for AffineKernel<'_, E> {
    fn forward(&self, values: &mut [E], lanes: &mut Lanes<'_, E>, tape: &mut RowTape<E>) -> Result<()> {
        let mut x = Buffer::take(values.len());
        x.copy_from_slice(values);
        for (feature, &b) in values.chunks_exact_mut(lanes.lanes).zip(&self.offset) {
            feature.fill(b);
        }
        matmul(values, Accumulate::Add, Operand::new(&self.matrix, self.dim, self.dim), Operand::new(&x, self.dim, lanes.lanes));
        lanes.log_det.iter_mut().for_each(|l| *l += self.log_det);
        tape.push(x);
        Ok(())
    }

    fn inverse(&self, values: &mut [E], lanes: &mut Lanes<'_, E>) -> Result<()> {
        self.invert(values, lanes.lanes);
        lanes.log_det.iter_mut().for_each(|l| *l -= self.log_det);
        Ok(())
    }

    fn pullback(&self, cotangent: &mut [E], pull: &Pull<'_, E>, tape: &mut RowTape<E>, sums: &mut [E]) -> Result<()> {
        self.pull(&tape.pop()?, cotangent, pull.lanes, sums);
        Ok(())
    }

    fn pullback_inverting(&self, values: &mut [E], cotangent: &mut [E], pull: &Pull<'_, E>, sums: &mut [E]) -> Result<()> {
        self.invert(values, pull.lanes);
        self.pull(values, cotangent, pull.lanes, sums);
        Ok(())
    }

    /// ∂L/∂W and ∂L/∂b of the product.
    fn sums_len(&self) -> usize {
        self.dim * self.dim + self.dim
    }

    /// With W = S Wᵢ P and b = S(Wᵢ p + bᵢ) + …: ∂L/∂Wᵢ = Sᵀ(∂L/∂W Pᵀ + ∂L/∂b pᵀ) and ∂L/∂bᵢ = Sᵀ ∂L/∂b.
    fn finish(&self, sums: &[E], log_det: E, gradients: &mut [E]) -> Result<()> {
        let dim = self.dim;
        let (for_matrix, for_offset) = sums.split_at(dim * dim);
        let (mut for_matrix, mut for_offset) = (for_matrix.to_vec(), for_offset.to_vec());
        let mut end = gradients.len();
        for (i, (part, own)) in self.parts.iter().zip(&self.matrices).enumerate().rev() {
            let start = end - part.parameters;
            let gradients = &mut gradients[start..end];
            let Some((prefix, prefix_offset)) = i.checked_sub(1).map(|before| &self.prefixes[before]) else {
                part.map.finish(&for_matrix, &for_offset, log_det, gradients);
                break;
            };
            let mut for_own = vec![E::zero(); dim * dim];
            matmul(&mut for_own, Accumulate::Replace, Operand::new(&for_matrix, dim, dim), Operand::new(prefix, dim, dim).transposed());
            matmul(&mut for_own, Accumulate::Add, Operand::new(&for_offset, dim, 1), Operand::new(prefix_offset, 1, dim));
            part.map.finish(&for_own, &for_offset, log_det, gradients);
            end = start;
            for_matrix = transposed_product(own, &for_matrix, dim, dim);
            for_offset = transposed_product(own, &for_offset, dim, 1);
        }
        Ok(())
    }
}
