//! Affine maps: neighbouring ones become a single matrix product.

use super::kernel::{Direction, Lanes, Pull, RowKernel, RowTape};
use super::matrix::Matrix;
use crate::device::AffinePiece;
use crate::{Result, Scalar};
use flow_kernels::matmul::Bias;
use flow_kernels::simd::add_lanes;
use flow_kernels::workspace::Buffer;
use std::sync::OnceLock;

/// An invertible affine map y = W x + b of R^d, made ready for one call.
///
/// A [`RowFlow`](crate::RowFlow) that is one says so by [`RowFlow::affine`](crate::RowFlow::affine); a
/// [`RowChain`](crate::rows::RowChain) then multiplies neighbours together, so that `ActNorm` and a linear map cost one
/// product a row.
pub trait AffineMap<E: Scalar>: Send + Sync {
    /// W.
    fn matrix(&self) -> Matrix<E>;

    /// W⁻¹.
    fn inverse_matrix(&self) -> Matrix<E>;

    /// b.
    fn offset(&self) -> Vec<E>;

    /// log|det W|.
    fn log_det(&self) -> E;

    /// Adds the parameters' gradients, given ∂L/∂W, ∂L/∂b and Σ ∂L/∂log|det W| over all rows.
    fn finish(&self, for_matrix: &Matrix<E>, for_offset: &[E], log_det: E, gradients: &mut [E]);

    /// The map in pieces of known form, in the order in which they are run, which is that of their parameters: with
    /// them a device makes W and b of the parameters by itself, step after step. None, the default, of other maps.
    fn pieces(&self) -> Option<Vec<AffinePiece<'_, E>>> {
        None
    }
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
    prefixes: Vec<(Matrix<E>, Vec<E>)>,
    /// W of each part but the first.
    matrices: Vec<Matrix<E>>,
    matrix: Matrix<E>,
    /// W⁻¹, when a pass asks for it: a forward pass and its pullback do not.
    inverse: OnceLock<Matrix<E>>,
    offset: Vec<E>,
    log_det: E,
}

impl<'a, E: Scalar> AffineKernel<'a, E> {
    /// `first`, followed by the others.
    pub(crate) fn new(first: AffinePart<'a, E>, others: Vec<AffinePart<'a, E>>) -> Self {
        let (mut matrix, mut offset) = (first.map.matrix(), first.map.offset());
        let dim = offset.len();
        let (mut prefixes, mut matrices) = (Vec::with_capacity(others.len()), Vec::with_capacity(others.len()));
        for AffinePart { map, .. } in &others {
            let (own, mut moved) = (map.matrix(), vec![E::zero(); dim]);
            own.apply(&offset, 1, &mut moved, &mut Bias(&map.offset()));
            let whole = own.times(&matrix, dim);
            prefixes.push((std::mem::replace(&mut matrix, whole), std::mem::replace(&mut offset, moved)));
            matrices.push(own);
        }
        let parts: Vec<_> = std::iter::once(first).chain(others).collect();
        let log_det = parts.iter().map(|part| part.map.log_det()).sum();
        Self { dim, parts, prefixes, matrices, matrix, inverse: OnceLock::new(), offset, log_det }
    }

    /// Some part has parameters, so that a pullback needs the input.
    fn trained(&self) -> bool {
        self.parts.iter().any(|part| part.parameters > 0)
    }

    fn pull(&self, x: &[E], cotangent: &mut [E], lanes: usize, sums: &mut [E]) {
        if self.trained() {
            let (for_matrix, for_offset) = sums.split_at_mut(self.matrix.entries().len());
            self.matrix.add_outer(cotangent, x, lanes, for_matrix);
            add_lanes(for_offset, cotangent, lanes);
        }
        let out = Buffer::copy_of(cotangent);
        self.matrix.apply_transposed(&out, lanes, cotangent);
    }

    /// W⁻¹ = W₁⁻¹ W₂⁻¹ ….
    fn inverse_matrix(&self) -> &Matrix<E> {
        self.inverse.get_or_init(|| {
            let inverses = self.parts.iter().map(|part| part.map.inverse_matrix());
            inverses.reduce(|so_far, next| so_far.times(&next, self.dim)).unwrap_or(Matrix::Dense(Vec::new()))
        })
    }

    /// y → W⁻¹(y − b).
    fn invert(&self, values: &mut [E], lanes: usize) {
        let mut shifted = Buffer::take(values.len());
        for ((shifted, values), &b) in shifted.chunks_exact_mut(lanes).zip(values.chunks_exact(lanes)).zip(&self.offset) {
            shifted.iter_mut().zip(values).for_each(|(shifted, &y)| *shifted = y - b);
        }
        self.inverse_matrix().apply(&shifted, lanes, values, &mut ());
    }
}

impl<E: Scalar> RowKernel<E> for AffineKernel<'_, E> {
    fn forward(&self, values: &mut [E], lanes: &mut Lanes<'_, E>, tape: &mut RowTape<E>) -> Result<()> {
        let x = Buffer::copy_of(values);
        self.matrix.apply(&x, lanes.lanes, values, &mut Bias(&self.offset));
        lanes.log_det.iter_mut().for_each(|l| *l += self.log_det);
        if self.trained() {
            tape.push(x);
        }
        Ok(())
    }

    fn prepare_for(&self, direction: Direction) {
        if direction == Direction::Inverse {
            self.inverse_matrix();
        }
    }

    fn inverse(&self, values: &mut [E], lanes: &mut Lanes<'_, E>) -> Result<()> {
        self.invert(values, lanes.lanes);
        lanes.log_det.iter_mut().for_each(|l| *l -= self.log_det);
        Ok(())
    }

    fn pullback(&self, cotangent: &mut [E], pull: &mut Pull<'_, E>, tape: &mut RowTape<E>, sums: &mut [E]) -> Result<()> {
        let x = if self.trained() { tape.pop()? } else { Buffer::take(0) };
        self.pull(&x, cotangent, pull.lanes, sums);
        Ok(())
    }

    fn pullback_inverting(&self, values: &mut [E], cotangent: &mut [E], pull: &mut Pull<'_, E>, sums: &mut [E]) -> Result<()> {
        self.invert(values, pull.lanes);
        self.pull(values, cotangent, pull.lanes, sums);
        Ok(())
    }

    /// ∂L/∂W and ∂L/∂b of the product.
    fn sums_len(&self) -> usize {
        if self.trained() { self.matrix.entries().len() + self.dim } else { 0 }
    }

    fn finish(&self, sums: &[E], log_det: E, gradients: &mut [E]) -> Result<()> {
        if self.trained() {
            let (for_matrix, for_offset) = sums.split_at(self.matrix.entries().len());
            AffineMap::finish(self, &self.matrix.with_entries(for_matrix.to_vec()), for_offset, log_det, gradients);
        }
        Ok(())
    }
}

/// A product of maps is one.
impl<E: Scalar> AffineMap<E> for AffineKernel<'_, E> {
    fn matrix(&self) -> Matrix<E> {
        self.matrix.clone()
    }

    fn inverse_matrix(&self) -> Matrix<E> {
        self.inverse_matrix().clone()
    }

    fn offset(&self) -> Vec<E> {
        self.offset.clone()
    }

    fn log_det(&self) -> E {
        self.log_det
    }

    fn pieces(&self) -> Option<Vec<AffinePiece<'_, E>>> {
        let pieces = self.parts.iter().map(|part| part.map.pieces()).collect::<Option<Vec<_>>>()?;
        Some(pieces.into_iter().flatten().collect())
    }

    /// With W = W₂ W₁ and b = W₂ b₁ + b₂: ∂L/∂W₂ = ∂L/∂W W₁ᵀ + ∂L/∂b b₁ᵀ, ∂L/∂W₁ = W₂ᵀ ∂L/∂W and ∂L/∂b₁ = W₂ᵀ ∂L/∂b.
    fn finish(&self, for_matrix: &Matrix<E>, for_offset: &[E], log_det: E, gradients: &mut [E]) {
        let (mut for_matrix, mut for_offset) = (for_matrix.clone(), for_offset.to_vec());
        let mut gradients = gradients;
        let behind_the_first = self.parts.iter().skip(1).zip(&self.matrices).zip(&self.prefixes);
        for ((part, own), (prefix, prefix_offset)) in behind_the_first.rev() {
            let (before, own_gradients) = gradients.split_at_mut(gradients.len() - part.parameters);
            let (for_own, for_prefix) = Matrix::pull_product(own, prefix, &for_matrix, self.dim);
            let mut for_own_entries = for_own.entries().to_vec();
            own.add_outer(&for_offset, prefix_offset, 1, &mut for_own_entries);
            part.map.finish(&own.with_entries(for_own_entries), &for_offset, log_det, own_gradients);
            let mut for_prefix_offset = vec![E::zero(); self.dim];
            own.apply_transposed(&for_offset, 1, &mut for_prefix_offset);
            (for_matrix, for_offset, gradients) = (for_prefix, for_prefix_offset, before);
        }
        if let Some(first) = self.parts.first() {
            first.map.finish(&for_matrix, &for_offset, log_det, gradients);
        }
    }
}
