//! L U as one dense matrix, which neighbouring affine maps are multiplied with.

use super::packed::{Triangle, places};
use crate::Scalar;
use crate::device::AffinePiece;
use crate::layers::permutation::inverse_indices;
use crate::rows::{AffineMap, Matrix};
use faer::linalg::triangular_solve::{solve_unit_lower_triangular_in_place, solve_upper_triangular_in_place};
use faer::{MatMut, MatRef, Par, reborrow::ReborrowMut};
use flow_kernels::matmul::{Operand, Part, triangular_matmul};
use flow_kernels::workspace::Buffer;

/// Dense row-major L and U.
pub(super) struct Factors<E> {
    pub(super) dim: usize,
    pub(super) lower: Vec<E>,
    pub(super) upper: Vec<E>,
}

impl<E: Scalar> Factors<E> {
    fn operands(&self) -> (Operand<'_, E>, Operand<'_, E>) {
        (Operand::new(&self.lower, self.dim, self.dim), Operand::new(&self.upper, self.dim, self.dim))
    }

    fn product(&self) -> Vec<E> {
        let mut product = vec![E::zero(); self.dim * self.dim];
        let (lower, upper) = self.operands();
        triangular_matmul(&mut product, Part::Full, (lower, Part::UnitLower), (upper, Part::Upper));
        product
    }

    /// U⁻¹ L⁻¹.
    pub(super) fn inverse(&self) -> Vec<E> {
        let dim = self.dim;
        let mut values: Vec<E> = (0..dim * dim).map(|k| if k % (dim + 1) == 0 { E::one() } else { E::zero() }).collect();
        let mut x = MatMut::from_row_major_slice_mut(&mut values, dim, dim);
        solve_unit_lower_triangular_in_place(MatRef::from_row_major_slice(&self.lower, dim, dim), x.rb_mut(), Par::Seq);
        solve_upper_triangular_in_place(MatRef::from_row_major_slice(&self.upper, dim, dim), x, Par::Seq);
        values
    }
}

/// The map of one call.
pub(super) struct Map<'a, E> {
    pub(super) factors: Factors<E>,
    pub(super) bias: &'a [E],
    pub(super) permutation: Option<&'a [usize]>,
    pub(super) log_det: E,
}

impl<E: Scalar> AffineMap<E> for Map<'_, E> {
    /// L U with its columns where the permutation takes them from.
    fn matrix(&self) -> Matrix<E> {
        let product = Matrix::Dense(self.factors.product());
        match self.permutation {
            None => product,
            Some(indices) => product.times(&Matrix::permutation(indices.to_vec()), self.factors.dim),
        }
    }

    /// Two triangular solves against the identity.
    fn inverse_matrix(&self) -> Matrix<E> {
        let inverse = Matrix::Dense(self.factors.inverse());
        match self.permutation {
            None => inverse,
            Some(indices) => Matrix::permutation(inverse_indices(indices)).times(&inverse, self.factors.dim),
        }
    }

    fn offset(&self) -> Vec<E> {
        self.bias.to_vec()
    }

    fn log_det(&self) -> E {
        self.log_det
    }

    /// ∂L/∂L = ∂L/∂(LU) Uᵀ and ∂L/∂U = Lᵀ ∂L/∂(LU), each on its triangle; ∂L/∂s = diag(∂L/∂U) e^s + ∂L/∂log-det.
    fn finish(&self, for_matrix: &Matrix<E>, for_offset: &[E], log_det: E, gradients: &mut [E]) {
        let dim = self.factors.dim;
        let back = self.permutation.map(|indices| for_matrix.times(&Matrix::permutation(inverse_indices(indices)), dim));
        let for_product = Operand::new(back.as_ref().unwrap_or(for_matrix).entries(), dim, dim);
        let (lower, upper) = self.factors.operands();
        let (mut for_lower, mut for_upper) = (Buffer::take(dim * dim), Buffer::take(dim * dim));
        triangular_matmul(&mut for_lower, Part::Lower, (for_product, Part::Full), (upper.transposed(), Part::Lower));
        triangular_matmul(&mut for_upper, Part::Upper, (lower.transposed(), Part::UnitUpper), (for_product, Part::Full));
        let own = places(dim, Triangle::Lower)
            .map(|place| for_lower[place])
            .chain(places(dim, Triangle::Upper).map(|place| for_upper[place]))
            .chain((0..dim).map(|j| for_upper[j * (dim + 1)] * self.factors.upper[j * (dim + 1)] + log_det))
            .chain(for_offset.iter().copied());
        gradients.iter_mut().zip(own).for_each(|(gradient, own)| *gradient += own);
    }
    fn pieces(&self) -> Option<Vec<AffinePiece<'_, E>>> {
        Some(vec![AffinePiece::Lu { dim: self.factors.dim, permutation: self.permutation }])
    }
}
