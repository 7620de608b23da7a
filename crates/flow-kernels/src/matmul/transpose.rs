//! Columns of a row-major matrix as rows.

use pulp::{Simd, WithSimd};

use crate::scalar::Real;

/// Numbers of a row that are moved together: a cache line of f32.
const LINE: usize = 16;

/// Writes rows `first..first + count` of `x`, `len` numbers each, as columns of `to`: `len` rows of `stride` numbers, zero behind the first `count`.
pub struct Transpose<'a, E> {
    pub(super) x: &'a [E],
    pub(super) len: usize,
    pub(super) first: usize,
    pub(super) count: usize,
    pub(super) to: &'a mut [E],
    pub(super) stride: usize,
}

impl<E: Real> WithSimd for Transpose<'_, E> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { x, len, first, count, to, stride } = self;
        if count < stride {
            to.chunks_exact_mut(stride).for_each(|row| row[count..].fill(E::zero()));
        }
        let x = &x[first * len..][..count * len];
        let whole = len / LINE * LINE;
        for (at, to) in (0..whole).step_by(LINE).zip(to.chunks_exact_mut(LINE * stride)) {
            let mut quads = x.chunks_exact(4 * len);
            for (quad, rows) in quads.by_ref().enumerate() {
                for k in 0..LINE / 4 {
                    let mut square = [[E::zero(); 4]; 4];
                    for i in 0..4 {
                        square[i] = rows[i * len + at..][..LINE].as_chunks().0[k];
                    }
                    let square = E::transpose(square);
                    for j in 0..4 {
                        to[(4 * k + j) * stride + 4 * quad..][..4].as_chunks_mut().0[0] = square[j];
                    }
                }
            }
            single(quads.remainder(), len, at..at + LINE, to, stride, count / 4 * 4);
        }
        single(x, len, whole..len, &mut to[whole * stride..], stride, 0);
    }
}

/// Moves the numbers `range` of each row of `x` one by one, to columns from `column` on.
#[inline(always)]
fn single<E: Real>(x: &[E], len: usize, range: std::ops::Range<usize>, to: &mut [E], stride: usize, column: usize) {
    for (row, to) in range.zip(to.chunks_exact_mut(stride)) {
        for (to, x) in to[column..].iter_mut().zip(x.chunks_exact(len)) {
            *to = x[row];
        }
    }
}
