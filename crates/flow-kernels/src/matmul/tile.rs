//! The product itself: tiles of the destination that stay in registers while the inner dimension runs.
//!
//! A tile is some rows by up to three registers of columns. For every step of the inner dimension it loads those
//! registers of `b` once and multiplies them with one number of `a` a row, so that most operands of its multiply-adds
//! are in registers already. Every element is summed up in the order of the inner dimension, whatever tile it lies in.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::operand::{Accumulate, Operand};
use crate::vector::Vectors;

/// Most registers of columns in a tile: with eight rows 24 sums, three numbers of `b` and one of `a` are in 28 of the
/// 32 registers of AVX-512 and NEON.
const REGISTERS: usize = 3;

/// Columns of a tile: `width` of them, and with what is behind a whole number of registers.
pub(super) struct Columns {
    pub(super) from: usize,
    pub(super) width: usize,
    pub(super) stride: usize,
}

/// Cuts columns for the registers of a tile.
#[inline(always)]
pub(super) fn columns(range: Range<usize>, lanes: usize) -> impl Iterator<Item = Columns> {
    let mut from = range.start;
    std::iter::from_fn(move || {
        let registers = match (range.end - from).div_ceil(lanes) {
            0 => return None,
            // Better cut in half than into three and one.
            4 => 2,
            registers => registers.min(REGISTERS),
        };
        let stride = registers * lanes;
        let part = Columns { from, width: stride.min(range.end - from), stride };
        from += part.width;
        Some(part)
    })
}

/// Some rows of a product.
pub struct Strip<'a, E> {
    /// These rows of the destination.
    pub(super) dst: &'a mut [E],
    /// Columns of the destination.
    pub(super) cols: usize,
    /// Which rows of it they are.
    pub(super) rows: Range<usize>,
    pub(super) accumulate: Accumulate,
    pub(super) a: Operand<'a, E>,
    /// Row-major; as many columns of it are read here.
    pub(super) b: &'a [E],
    pub(super) in_place: usize,
    /// The others, those of every tile for themselves and filled up to whole registers.
    pub(super) copied: &'a [E],
}

/// `b` as a tile reads it: from its first column on.
#[derive(Clone, Copy)]
struct Side<'a, E> {
    data: &'a [E],
    stride: usize,
}

impl<E: Vectors> WithSimd for Strip<'_, E> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let (b, copied, lanes, inner) = (self.b, self.copied, E::lanes::<S>(), self.a.cols());
        for columns in columns(0..self.in_place, lanes) {
            let b = Side { data: b.get(columns.from..).unwrap_or_default(), stride: self.cols };
            self.columns(simd, &columns, b);
        }
        for columns in columns(self.in_place..self.cols, lanes) {
            let b = Side { data: &copied[(columns.from - self.in_place) * inner..], stride: columns.stride };
            self.columns(simd, &columns, b);
        }
    }
}

impl<E: Vectors> Strip<'_, E> {
    #[inline(always)]
    fn columns<S: Simd>(&mut self, simd: S, columns: &Columns, b: Side<'_, E>) {
        match columns.stride / E::lanes::<S>() {
            1 => self.tiles::<S, 1>(simd, columns, b),
            2 => self.tiles::<S, 2>(simd, columns, b),
            _ => self.tiles::<S, REGISTERS>(simd, columns, b),
        }
    }

    #[inline(always)]
    fn tiles<S: Simd, const N: usize>(&mut self, simd: S, columns: &Columns, b: Side<'_, E>) {
        let rows = self.rows.len();
        let mut row = 0;
        if S::REGISTER_COUNT >= 32 {
            while row + 8 <= rows {
                self.tile::<S, 8, N>(simd, row, columns, b);
                row += 8;
            }
        }
        while row + 4 <= rows {
            self.tile::<S, 4, N>(simd, row, columns, b);
            row += 4;
        }
        if row + 2 <= rows {
            self.tile::<S, 2, N>(simd, row, columns, b);
            row += 2;
        }
        if row < rows {
            self.tile::<S, 1, N>(simd, row, columns, b);
        }
    }

    #[allow(clippy::needless_range_loop, reason = "an array stays in registers where it is reached by constant indices alone")]
    #[inline(always)]
    fn tile<S: Simd, const M: usize, const N: usize>(&mut self, simd: S, row: usize, columns: &Columns, b: Side<'_, E>) {
        let Operand { data, rows, cols: inner, transposed } = self.a;
        let first = self.rows.start + row;
        let mut sums = [[E::splat(simd, E::zero()); N]; M];
        // Both loops are written out: behind a function the sums would go through memory at every step.
        let steps = b.data.chunks(b.stride.max(1)).take(inner);
        if transposed {
            for (a, b) in data.chunks_exact(rows).zip(steps) {
                let (a, b) = (&a[first..first + M], &E::registers::<S>(b)[..N]);
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
                a[i] = &data[(first + i) * inner..][..inner];
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
        let (from, width, add) = (columns.from, columns.width, self.accumulate == Accumulate::Add);
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
fn store_part<S: Simd, E: Vectors, const N: usize>(simd: S, add: bool, sums: &[E::Vector<S>; N], to: &mut [E]) {
    for (to, &sum) in to.chunks_mut(E::lanes::<S>()).zip(sums) {
        let sum = if add { E::plus(simd, E::load_part(simd, to), sum) } else { sum };
        E::store_part(simd, to, sum);
    }
}
