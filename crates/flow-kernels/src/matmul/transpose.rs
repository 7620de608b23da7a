//! Columns of a row-major matrix as rows.

use pulp::{Simd, WithSimd};

use crate::scalar::Real;

/// Numbers of every row that are moved before the next ones: what is written then stays in the first-level cache until its lines are whole.
const AT_ONCE: usize = 64;

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
        if len == 0 || count == 0 {
            return to.fill(E::zero());
        }
        let x = &x[first * len..][..count * len];
        let (fours, rest) = x.split_at(count / 4 * 4 * len);
        for (start, to) in (0..len).step_by(AT_ONCE).zip(to.chunks_mut(AT_ONCE * stride)) {
            let lanes = AT_ONCE.min(len - start);
            for (rows, column) in fours.chunks_exact(4 * len).zip((0..).step_by(4)) {
                let [a, b, c, d] = [0, 1, 2, 3].map(|i| &rows[i * len + start..][..lanes]);
                four(a, b, c, d, to, stride, column);
            }
            for (row, column) in rest.chunks_exact(len).zip(count / 4 * 4..) {
                for (to, &x) in to.chunks_exact_mut(stride).zip(&row[start..start + lanes]) {
                    to[column] = x;
                }
            }
            if count < stride {
                to.chunks_exact_mut(stride).for_each(|to| to[count..].fill(E::zero()));
            }
        }
    }
}

/// Four rows at once, square by square.
#[inline(always)]
fn four<E: Real>(a: &[E], b: &[E], c: &[E], d: &[E], to: &mut [E], stride: usize, column: usize) {
    let ((a, last_a), (b, last_b)) = (a.as_chunks::<4>(), b.as_chunks::<4>());
    let ((c, last_c), (d, last_d)) = (c.as_chunks::<4>(), d.as_chunks::<4>());
    let mut squares = to.chunks_exact_mut(4 * stride);
    let places = [column, stride + column, 2 * stride + column, 3 * stride + column];
    for ((((a, b), c), d), to) in a.iter().zip(b).zip(c).zip(d).zip(squares.by_ref()) {
        let [a, b, c, d] = E::transpose([*a, *b, *c, *d]);
        to[places[0]..places[0] + 4].copy_from_slice(&a);
        to[places[1]..places[1] + 4].copy_from_slice(&b);
        to[places[2]..places[2] + 4].copy_from_slice(&c);
        to[places[3]..places[3] + 4].copy_from_slice(&d);
    }
    let rest = squares.into_remainder().chunks_exact_mut(stride);
    for ((((&a, &b), &c), &d), to) in last_a.iter().zip(last_b).zip(last_c).zip(last_d).zip(rest) {
        to[column..column + 4].copy_from_slice(&[a, b, c, d]);
    }
}
