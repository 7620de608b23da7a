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
                let (rows, column) = (&rows[at..], 4 * quad);
                let [a, b, c, d] = [&rows[..LINE], &rows[len..][..LINE], &rows[2 * len..][..LINE], &rows[3 * len..][..LINE]]
                    .map(|row| row.as_chunks::<4>().0);
                for ((((a, b), c), d), to) in a.iter().zip(b).zip(c).zip(d).zip(to.chunks_exact_mut(4 * stride)) {
                    let turned = E::transpose([*a, *b, *c, *d]);
                    for (to, turned) in to.chunks_exact_mut(stride).zip(turned) {
                        to[column..column + 4].copy_from_slice(&turned);
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
