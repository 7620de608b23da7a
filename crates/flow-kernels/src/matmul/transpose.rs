//! Columns of a row-major matrix as rows.

use pulp::{Simd, WithSimd};

use crate::vector::Vectors;

/// Side of the squares that are turned at once.
pub(super) const SIDE: usize = 8;

/// Rows of a square, or its columns.
pub(super) type Square<E> = [[E; SIDE]; SIDE];

/// Numbers of every row that are moved before the next ones: what is written then stays in the first-level cache until
/// its lines are whole.
const AT_ONCE: usize = 64;

/// Writes rows `first..first + count` of `x`, `len` numbers each, as columns of `to`: `len` rows of `stride` numbers,
/// zero behind the first `count`.
pub struct Transpose<'a, E> {
    pub(super) x: &'a [E],
    pub(super) len: usize,
    pub(super) first: usize,
    pub(super) count: usize,
    pub(super) to: &'a mut [E],
    pub(super) stride: usize,
}

/// As the compiler makes it.
impl<E: Vectors> WithSimd for Transpose<'_, E> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        self.by(|rows: Square<E>| std::array::from_fn(|j| std::array::from_fn(|i| rows[i][j])));
    }
}

impl<E: Vectors> Transpose<'_, E> {
    /// By a function that turns a square.
    #[inline(always)]
    pub(super) fn by(self, square: impl Fn(Square<E>) -> Square<E> + Copy) {
        let Self { x, len, first, count, to, stride } = self;
        if len == 0 || count == 0 {
            return to.fill(E::zero());
        }
        let x = &x[first * len..][..count * len];
        let (whole, rest) = x.split_at(count / SIDE * SIDE * len);
        for (start, to) in (0..len).step_by(AT_ONCE).zip(to.chunks_mut(AT_ONCE * stride)) {
            let lanes = AT_ONCE.min(len - start);
            for (rows, column) in whole.chunks_exact(SIDE * len).zip((0..).step_by(SIDE)) {
                turn_rows(std::array::from_fn(|i| &rows[i * len + start..][..lanes]), to, stride, column, square);
            }
            for (row, column) in rest.chunks_exact(len).zip(count / SIDE * SIDE..) {
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

/// Rows of one length as columns, square by square.
#[inline(always)]
fn turn_rows<E: Vectors>(rows: [&[E]; SIDE], to: &mut [E], stride: usize, column: usize, square: impl Fn(Square<E>) -> Square<E>) {
    let [a, b, c, d, e, f, g, h] = rows.map(|row| row.as_chunks::<SIDE>().0);
    let squares = to.chunks_exact_mut(SIDE * stride);
    for ((((((((a, b), c), d), e), f), g), h), to) in a.iter().zip(b).zip(c).zip(d).zip(e).zip(f).zip(g).zip(h).zip(squares) {
        let columns = square([*a, *b, *c, *d, *e, *f, *g, *h]);
        for (values, to) in columns.iter().zip(to.chunks_exact_mut(stride)) {
            to[column..column + SIDE].copy_from_slice(values);
        }
    }
    let done = a.len() * SIDE;
    for (lane, to) in to.chunks_exact_mut(stride).enumerate().skip(done) {
        for (to, row) in to[column..].iter_mut().zip(rows) {
            *to = row[lane];
        }
    }
}
