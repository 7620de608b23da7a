//! Products of rows with rows, a · bᵀ: dot products, as many at a time as stay in registers.
//!
//! The registers of both operands are along the inner dimension, where their numbers lie, so nothing has to be turned.
//! What a tile leaves are sums by lane, which are folded at the end.

use pulp::{Simd, WithSimd};

use super::operand::Accumulate;
use crate::vector::Vectors;

/// Dot products of the rows of two matrices.
pub struct Dots<'a, E> {
    /// a.rows × b.rows.
    pub(super) dst: &'a mut [E],
    pub(super) accumulate: Accumulate,
    pub(super) a: Rows<'a, E>,
    pub(super) b: Rows<'a, E>,
}

/// Rows, one after the other.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a, E> {
    pub(super) data: &'a [E],
    pub(super) count: usize,
    pub(super) len: usize,
}

impl<'a, E> Rows<'a, E> {
    /// Row `i`, or the last one: a tile that is cut off reads it several times.
    #[inline(always)]
    fn row(&self, i: usize) -> &'a [E] {
        &self.data[i.min(self.count - 1) * self.len..][..self.len]
    }
}

/// Adds up the lanes of each of some registers.
pub(super) trait Fold<S: Simd, E: Vectors, const SUMS: usize>: Copy {
    /// Has to be `#[inline(always)]`, so that the registers stay where they are.
    fn fold(self, simd: S, sums: [E::Vector<S>; SUMS]) -> [E; SUMS];
}

/// One register after the other.
#[derive(Clone, Copy)]
struct OneByOne;

impl<S: Simd, E: Vectors, const SUMS: usize> Fold<S, E, SUMS> for OneByOne {
    #[inline(always)]
    fn fold(self, simd: S, sums: [E::Vector<S>; SUMS]) -> [E; SUMS] {
        let mut out = [E::zero(); SUMS];
        for (out, sum) in out.iter_mut().zip(sums) {
            *out = E::sum_of(simd, sum);
        }
        out
    }
}

impl<E: Vectors> WithSimd for Dots<'_, E> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        if S::REGISTER_COUNT >= 32 {
            self.by::<S, 16>(simd, OneByOne);
        } else {
            self.by::<S, 8>(simd, OneByOne);
        }
    }
}

/// The shape of a tile of `sums` sums for so many rows of `a` and `b`: the least tiles, of equals the squarest, which
/// reads the fewest registers; and how many they are.
#[inline(always)]
pub(super) fn shape(a: usize, b: usize, sums: usize) -> (usize, usize) {
    let tiles = |m: usize| (m, a.div_ceil(m) * b.div_ceil(sums / m));
    [4, 2, 8, 1, 16].into_iter().filter(|m| *m <= sums).map(tiles).min_by_key(|(_, tiles)| *tiles).unwrap_or((1, 0))
}

impl<E: Vectors> Dots<'_, E> {
    /// By a way to add up the lanes of the registers: 8 or 16 of them.
    #[inline(always)]
    pub(super) fn by<S: Simd, const SUMS: usize>(mut self, simd: S, fold: impl Fold<S, E, SUMS>) {
        if self.a.count == 0 || self.b.count == 0 {
            return;
        }
        match (shape(self.a.count, self.b.count, SUMS).0, SUMS) {
            (1, 16) => self.tiles::<S, 1, 16, SUMS>(simd, fold),
            (2, 16) => self.tiles::<S, 2, 8, SUMS>(simd, fold),
            (4, 16) => self.tiles::<S, 4, 4, SUMS>(simd, fold),
            (8, 16) => self.tiles::<S, 8, 2, SUMS>(simd, fold),
            (_, 16) => self.tiles::<S, 16, 1, SUMS>(simd, fold),
            (1, _) => self.tiles::<S, 1, 8, SUMS>(simd, fold),
            (2, _) => self.tiles::<S, 2, 4, SUMS>(simd, fold),
            (4, _) => self.tiles::<S, 4, 2, SUMS>(simd, fold),
            _ => self.tiles::<S, 8, 1, SUMS>(simd, fold),
        }
    }

    #[inline(always)]
    fn tiles<S: Simd, const M: usize, const N: usize, const SUMS: usize>(&mut self, simd: S, fold: impl Fold<S, E, SUMS>) {
        let (add, cols) = (self.accumulate == Accumulate::Add, self.b.count);
        for row in (0..self.a.count).step_by(M) {
            for col in (0..cols).step_by(N) {
                let dots = fold.fold(simd, self.sums::<S, M, N, SUMS>(simd, row, col));
                let width = N.min(cols - col);
                for (to, dots) in self.dst[row * cols..].chunks_mut(cols).zip(dots.chunks_exact(N)).take(M) {
                    for (to, &dot) in to[col..col + width].iter_mut().zip(dots) {
                        *to = if add { *to + dot } else { dot };
                    }
                }
            }
        }
    }

    /// The sums by lane of a tile, M rows of `a` by N rows of `b`.
    #[allow(clippy::needless_range_loop, reason = "an array stays in registers where it is reached by constant indices alone")]
    #[inline(always)]
    fn sums<S: Simd, const M: usize, const N: usize, const SUMS: usize>(&self, simd: S, row: usize, col: usize) -> [E::Vector<S>; SUMS] {
        let (mut a, mut b) = ([self.a.data; M], [self.b.data; N]);
        for i in 0..M {
            a[i] = self.a.row(row + i);
        }
        for j in 0..N {
            b[j] = self.b.row(col + j);
        }
        let zero = E::splat(simd, E::zero());
        let whole = self.a.len / E::lanes::<S>();
        let rest = whole * E::lanes::<S>();
        let mut sums = [zero; SUMS];
        {
            let (mut a_whole, mut b_whole) = ([E::registers::<S>(a[0]); M], [E::registers::<S>(b[0]); N]);
            for i in 0..M {
                a_whole[i] = &E::registers::<S>(a[i])[..whole];
            }
            for j in 0..N {
                b_whole[j] = &E::registers::<S>(b[j])[..whole];
            }
            for k in 0..whole {
                for i in 0..M {
                    for j in 0..N {
                        sums[i * N + j] = E::multiply_add(simd, a_whole[i][k], b_whole[j][k], sums[i * N + j]);
                    }
                }
            }
        }
        if rest < self.a.len {
            let mut b_rest = [zero; N];
            for j in 0..N {
                b_rest[j] = E::load_part(simd, &b[j][rest..]);
            }
            for i in 0..M {
                let a = E::load_part(simd, &a[i][rest..]);
                for j in 0..N {
                    sums[i * N + j] = E::multiply_add(simd, a, b_rest[j], sums[i * N + j]);
                }
            }
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Register files of both sizes, whatever this machine has. Small integers, so that every order of summation is
    /// exact.
    #[test]
    fn tiles_of_8_and_of_16_sums() {
        for (m, n, len) in [(1, 32, 7), (2, 15, 7), (5, 6, 3), (8, 8, 1), (15, 2, 4), (33, 1, 0)] {
            let entries = |count: usize| -> Vec<f32> { (0..count * len).map(|i| ((i * 7) % 13) as f32 - 6.0).collect() };
            let (a, b) = (entries(m), entries(n));
            let expected: Vec<f32> =
                (0..m * n).map(|i| (0..len).map(|k| a[i / n * len + k] * b[i % n * len + k]).sum::<f32>() + 1.0).collect();
            let mut y = [vec![1.0; m * n], vec![1.0; m * n]];
            let dots = y.each_mut().map(|dst| Dots {
                dst,
                accumulate: Accumulate::Add,
                a: Rows { data: &a, count: m, len },
                b: Rows { data: &b, count: n, len },
            });
            let [eight, sixteen] = dots;
            eight.by::<_, 8>(pulp::Scalar::new(), OneByOne);
            sixteen.by::<_, 16>(pulp::Scalar::new(), OneByOne);
            assert_eq!(y, [expected.clone(), expected], "{m}×{len}×{n}");
        }
    }
}
