//! Matrix products on row-major slices.

use crate::Real;
use faer::{Accum, MatMut, MatRef, Par};

/// What a product does with the values that the destination holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accumulate {
    /// Overwrite them.
    Replace,
    /// Add to them.
    Add,
}

/// A row-major matrix, or its transpose, as an operand of a product.
#[derive(Clone, Copy, Debug)]
pub struct Operand<'a, E: Real>(MatRef<'a, E>);

impl<'a, E: Real> Operand<'a, E> {
    /// The row-major matrix of this size.
    pub fn new(values: &'a [E], rows: usize, columns: usize) -> Self {
        Self(MatRef::from_row_major_slice(&values[..rows * columns], rows, columns))
    }
    /// Its transpose.
    #[must_use]
    pub fn transposed(self) -> Self {
        Self(self.0.transpose())
    }
}

/// dst = A·B or dst += A·B, on one thread: parallelism is over blocks of rows.
pub fn matmul<E: Real>(dst: &mut [E], accumulate: Accumulate, a: Operand<'_, E>, b: Operand<'_, E>) {
    let accum = match accumulate {
        Accumulate::Replace => Accum::Replace,
        Accumulate::Add => Accum::Add,
    };
    let (rows, columns) = (a.0.nrows(), b.0.ncols());
    faer::linalg::matmul::matmul(
        MatMut::from_row_major_slice_mut(&mut dst[..rows * columns], rows, columns),
        accum,
        a.0,
        b.0,
        <E as num_traits::One>::one(),
        Par::Seq,
    );
}
