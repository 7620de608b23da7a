//! The product itself: tiles of the destination that stay in registers while the inner dimension runs.
//!
//! A tile is some rows by up to three registers of columns. For every step of the inner dimension it loads those registers of `b` once and multiplies them with one number of `a` a row,
//! so that most operands of its multiply-adds are in registers already. Every element is summed up in the order of the inner dimension, whatever tile it lies in.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::{Accumulate, Operand};
use crate::scalar::Real;

/// Most registers of columns in a tile: with eight rows 24 sums, three numbers of `b` and one of `a` are in 28 of the 32 registers of AVX-512 and NEON.
pub(super) const REGISTERS: usize = 3;

/// Some rows of `width` columns of a product.
pub struct Panel<'a, E> {
    pub(super) dst: &'a mut [E],
    /// Columns of the destination.
    pub(super) cols: usize,
    /// The rows of it that are computed.
    pub(super) rows: Range<usize>,
    /// The first column that this panel writes.
    pub(super) from: usize,
    pub(super) width: usize,
    pub(super) accumulate: Accumulate,
    pub(super) a: Operand<'a, E>,
    /// `a.cols()` rows of `b`, `b_stride` apart, from the panel's first column on; whole registers of them can be read.
    pub(super) b: &'a [E],
    pub(super) b_stride: usize,
}

impl<E: Real> WithSimd for Panel<'_, E> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match self.width.div_ceil(E::lanes::<S>()) {
            0 => (),
            1 => self.rows::<S, 1>(simd),
            2 => self.rows::<S, 2>(simd),
            _ => self.rows::<S, REGISTERS>(simd),
        }
    }
}

impl<E: Real> Panel<'_, E> {
    #[inline(always)]
    fn rows<S: Simd, const N: usize>(mut self, simd: S) {
        let Range { start: mut row, end: rows } = self.rows;
        if S::REGISTER_COUNT >= 32 {
            while row + 8 <= rows {
                self.tile::<S, 8, N>(simd, row);
                row += 8;
            }
        }
        while row + 4 <= rows {
            self.tile::<S, 4, N>(simd, row);
            row += 4;
        }
        if row + 2 <= rows {
            self.tile::<S, 2, N>(simd, row);
            row += 2;
        }
        if row < rows {
            self.tile::<S, 1, N>(simd, row);
        }
    }

    #[inline(always)]
    fn tile<S: Simd, const M: usize, const N: usize>(&mut self, simd: S, row: usize) {
        let Operand { data, rows, cols: inner, transposed } = self.a;
        let mut sums = [[E::splat(simd, E::zero()); N]; M];
        // Both loops are written out, and sums are reached by constant indices alone: otherwise they would go through memory at every step.
        let steps = self.b.chunks(self.b_stride.max(1)).take(inner);
        if transposed {
            for (a, b) in data.chunks_exact(rows).zip(steps) {
                let (a, b) = (&a[row..row + M], &E::registers::<S>(b)[..N]);
                for i in 0..M {
                    let a = E::splat(simd, a[i]);
                    for j in 0..N {
                        sums[i][j] = E::multiply_add(simd, a, b[j], sums[i][j]);
                    }
                }
            }
        } else {
            let mut a = [data; M];
            for i in 0..M {
                a[i] = &data[(row + i) * inner..][..inner];
            }
            for (k, b) in steps.enumerate() {
                let b = &E::registers::<S>(b)[..N];
                for i in 0..M {
                    let a = E::splat(simd, a[i][k]);
                    for j in 0..N {
                        sums[i][j] = E::multiply_add(simd, a, b[j], sums[i][j]);
                    }
                }
            }
        }
        let (from, width, add) = (self.from, self.width, self.accumulate == Accumulate::Add);
        if width < N * E::lanes::<S>() {
            // A copy, since these go through memory.
            let sums = sums;
            for (i, sums) in sums.iter().enumerate() {
                store_part(simd, add, sums, &mut self.dst[(row + i) * self.cols + from..][..width]);
            }
            return;
        }
        for i in 0..M {
            let to = &mut E::registers_mut::<S>(&mut self.dst[(row + i) * self.cols + from..][..width])[..N];
            for j in 0..N {
                to[j] = if add { E::plus(simd, to[j], sums[i][j]) } else { sums[i][j] };
            }
        }
    }
}

/// The first numbers of some registers.
#[inline(always)]
fn store_part<S: Simd, E: Real, const N: usize>(simd: S, add: bool, sums: &[E::Vector<S>; N], to: &mut [E]) {
    for (to, &sum) in to.chunks_mut(E::lanes::<S>()).zip(sums) {
        let sum = if add { E::plus(simd, E::load_part(simd, to), sum) } else { sum };
        E::store_part(simd, to, sum);
    }
}
