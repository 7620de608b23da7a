//! Matrix products over row-major slices, with what is done to their elements next.
//!
//! They are made for the products of a block of rows: small enough that operands stay in the cache and that packing
//! them first, as libraries for large products do, is a loss. Products of triangles, whose operands are as large as a
//! flow is wide, are by [faer](https://docs.rs/faer), with the feature `linalg`.
//!
//! A product gives the same bits on one instruction set at any number of threads. Over instruction sets it does not:
//! wider registers add a dot product up in more sums, and the baseline rounds a product before it adds it, where AVX2,
//! AVX-512 and NEON have fused operations. One order for all would be that of the narrowest, and a fused operation
//! without an instruction for it is a call into the C library for every number.
//!
//! Always on one thread: kernels are parallel over blocks of rows, not inside of a product.

mod dots;
mod operand;
mod products;
mod tile;
mod transpose;
#[cfg(feature = "linalg")]
mod triangular;

use dots::{Dots, Rows};
pub use operand::{Accumulate, Operand};
pub(crate) use products::Products;
use tile::{Columns, Strip, columns};
use transpose::Transpose;
#[cfg(feature = "linalg")]
pub use triangular::{Part, triangular_matmul};

use crate::real::Real;
use crate::simd::add;
use crate::vectorized;
use crate::workspace::Buffer;

/// `dst = a · b` or `dst += a · b`, where `dst` is row-major, `a.rows()` × `b.cols()`.
///
/// With a weight `W` (out × in), a block `X` (in × lanes) and a cotangent `dY` (out × lanes), a linear layer is
///
/// | | | |
/// |---|---|---|
/// | forward | `Y = W · X` | `matmul(y, Replace, w, x)` |
/// | input's cotangent | `dX = Wᵀ · dY` | `matmul(dx, Replace, w.transposed(), dy)` |
/// | weight's gradient | `dW += dY · Xᵀ` | `matmul(dw, Add, dy, x.transposed())` |
///
/// ```
/// use flow_kernels::matmul::{matmul, Accumulate, Operand};
/// let w = Operand::new(&[1.0, 2.0, 3.0, 4.0], 2, 2);
/// let x = Operand::new(&[1.0, 0.0, 1.0, 0.0, 1.0, 1.0], 2, 3);
/// let mut y = [0.0; 6];
/// matmul(&mut y, Accumulate::Replace, w, x);
/// assert_eq!(y, [1.0, 2.0, 3.0, 3.0, 4.0, 7.0]);
/// ```
///
/// # Panics
/// If the sizes do not match.
pub fn matmul<E: Real>(dst: &mut [E], accumulate: Accumulate, a: Operand<'_, E>, b: Operand<'_, E>) {
    matmul_with(dst, accumulate, a, b, &mut ());
}

/// What is done to the elements of a product while they are in the cache: a bias, an activation, a slope.
///
/// Its method has to be `#[inline(always)]`, so that it is compiled for the instruction set that was dispatched to.
pub trait Epilogue<E> {
    /// Given a row of the product; every row comes once.
    fn apply(&mut self, row: usize, values: &mut [E]);
}

impl<E> Epilogue<E> for () {
    #[inline(always)]
    fn apply(&mut self, _: usize, _: &mut [E]) {}
}

/// Adds b\[i\] to row i.
#[derive(Debug, Clone, Copy)]
pub struct Bias<'a, E>(pub &'a [E]);

impl<E: Real> Epilogue<E> for Bias<'_, E> {
    #[inline(always)]
    fn apply(&mut self, row: usize, values: &mut [E]) {
        let bias = self.0[row];
        values.iter_mut().for_each(|x| *x += bias);
    }
}

/// As [`matmul`], with an epilogue on every finished row.
///
/// ```
/// use flow_kernels::matmul::{matmul_with, Accumulate, Bias, Operand};
/// let mut y = [0.0; 2];
/// let (w, x) = (Operand::new(&[1.0, 2.0, 3.0, 4.0], 2, 2), Operand::new(&[1.0, 1.0], 2, 1));
/// matmul_with(&mut y, Accumulate::Replace, w, x, &mut Bias(&[10.0, 20.0]));
/// assert_eq!(y, [13.0, 27.0]);
/// ```
///
/// # Panics
/// As [`matmul`].
pub fn matmul_with<E: Real>(dst: &mut [E], accumulate: Accumulate, a: Operand<'_, E>, b: Operand<'_, E>, epilogue: &mut impl Epilogue<E>) {
    assert_eq!((a.data.len(), b.data.len()), (a.rows * a.cols, b.rows * b.cols), "operands are as large as they say");
    assert_eq!((a.cols, dst.len()), (b.rows, a.rows * b.cols), "the sizes of a product meet");
    if b.transposed {
        let turning = turning_cost(a.rows, a.cols, b.cols);
        // The other way round it is `a` that is turned, and the result.
        let swapped = turning_cost(b.cols, a.cols, a.rows) + a.rows * b.cols;
        let dots = dots_cost(a.rows, a.cols, b.cols);
        if a.transposed || swapped < turning.min(dots) {
            return multiply_turned(dst, accumulate, a, b, epilogue);
        }
        if dots <= turning {
            let (a, b) = (Rows { data: a.data, count: a.rows, len: a.cols }, Rows { data: b.data, count: b.cols, len: b.rows });
            E::dots(Dots { dst: &mut *dst, accumulate, a, b });
            return finish(dst, b.count, 0, epilogue);
        }
    }
    let (lanes, inner, cols) = (E::lanes_here(), b.rows, b.cols);
    // Whole registers are read where they lie; what has to be turned, and the rest behind them, is copied first.
    let in_place = if b.transposed { 0 } else { cols / lanes * lanes };
    let mut copied = Buffer::take(inner * (cols - in_place).next_multiple_of(lanes));
    for Columns { from, width, stride } in columns(in_place..cols, lanes) {
        let to = &mut copied[(from - in_place) * inner..][..stride * inner];
        if b.transposed {
            E::turn(Transpose { x: b.data, len: inner, first: from, count: width, to, stride });
        } else {
            for (to, b) in to.chunks_exact_mut(stride).zip(b.data.chunks_exact(cols)) {
                to[..width].copy_from_slice(&b[from..]);
                to[width..].fill(E::zero());
            }
        }
    }
    // Few enough rows to be in the first-level cache still when the epilogue runs.
    let at_once = (STRIP_BYTES / size_of::<E>() / cols.max(1) / 8 * 8).max(8);
    for first in (0..a.rows).step_by(at_once) {
        let rows = first..(first + at_once).min(a.rows);
        let dst = &mut dst[rows.start * cols..rows.end * cols];
        E::multiply(Strip { dst: &mut *dst, cols, rows, accumulate, a, b: b.data, in_place, copied: &copied });
        finish(dst, cols, first, epilogue);
    }
}

/// Half a first-level cache.
const STRIP_BYTES: usize = 16 << 10;

vectorized! {
    /// Runs the epilogue on rows of a product, `first` and those behind it.
    fn finish<E: Real, F: Epilogue<E>>(rows: &mut [E], cols: usize, first: usize, epilogue: &mut F) {
        for (row, values) in rows.chunks_exact_mut(cols.max(1)).enumerate() {
            epilogue.apply(first + row, values);
        }
    }
}

/// Clock cycles, about, of a product rows × inner × cols whose second operand is turned first: a register of
/// multiply-adds each, and one for every number turned, since they come from farther away than the first-level cache.
fn turning_cost(rows: usize, inner: usize, cols: usize) -> usize {
    const LANES: usize = 16;
    // A few rows alone have too few sums to keep the multipliers busy.
    inner * (rows.max(4) * cols.div_ceil(LANES) + cols)
}

/// Clock cycles, about, of the same product as dot products: those of a tile, whose sums then have to be folded.
fn dots_cost(rows: usize, inner: usize, cols: usize) -> usize {
    const SUMS: usize = 16;
    let (_, tiles) = dots::shape(rows, cols, SUMS);
    tiles * (inner.next_multiple_of(SUMS) + 40)
}

/// A product by its transpose, (bᵀ aᵀ)ᵀ.
fn multiply_turned<E: Real>(dst: &mut [E], accumulate: Accumulate, a: Operand<'_, E>, b: Operand<'_, E>, epilogue: &mut impl Epilogue<E>) {
    let (rows, cols) = (a.rows, b.cols);
    let mut turned = Buffer::take(dst.len());
    matmul(&mut turned, Accumulate::Replace, b.transposed(), a.transposed());
    let turned = Operand::new(&turned, cols, rows);
    match accumulate {
        Accumulate::Replace => transpose(dst, turned),
        Accumulate::Add => {
            let mut product = Buffer::take(dst.len());
            transpose(&mut product, turned);
            add(dst, &product);
        }
    }
    finish(dst, cols, 0, epilogue);
}

/// Writes the transpose of `x` to `dst`, row-major.
///
/// ```
/// use flow_kernels::matmul::{transpose, Operand};
/// let mut turned = [0.0; 6];
/// transpose(&mut turned, Operand::new(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 2, 3));
/// assert_eq!(turned, [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
/// ```
///
/// # Panics
/// If the sizes do not match.
pub fn transpose<E: Real>(dst: &mut [E], x: Operand<'_, E>) {
    assert_eq!((x.data.len(), dst.len()), (x.rows * x.cols, x.rows * x.cols), "a transpose is as large as what it is of");
    if x.transposed {
        dst.copy_from_slice(x.data);
    } else {
        E::turn(Transpose { x: x.data, len: x.cols, first: 0, count: x.rows, to: dst, stride: x.rows });
    }
}

#[cfg(test)]
#[allow(clippy::float_cmp, reason = "results are exact")]
mod tests {
    use super::*;

    pub(super) fn entries<E: Real>(len: usize, seed: usize) -> Vec<E> {
        (0..len).map(|i| E::of(((i * 7 + seed) % 13) as f64 - 6.0)).collect()
    }

    /// Small integers, so that every order of summation is exact.
    fn check<E: Real>(rows: usize, inner: usize, cols: usize) {
        let (a, b) = (entries::<E>(rows * inner, 1), entries::<E>(inner * cols, 5));
        let transpose =
            |x: &[E], rows: usize, cols: usize| -> Vec<E> { (0..rows * cols).map(|i| x[(i % rows) * cols + i / rows]).collect() };
        let (at, bt) = (transpose(&a, rows, inner), transpose(&b, inner, cols));
        let product = |i: usize, j: usize| (0..inner).map(|k| a[i * inner + k] * b[k * cols + j]).sum::<E>();
        let views = [(Operand::new(&a, rows, inner), "a"), (Operand::new(&at, inner, rows).transposed(), "aᵀ")];
        for (a, name_a) in views {
            for (b, name_b) in [(Operand::new(&b, inner, cols), "b"), (Operand::new(&bt, cols, inner).transposed(), "bᵀ")] {
                let mut y = vec![E::nan(); rows * cols];
                matmul(&mut y, Accumulate::Replace, a, b);
                let mut z = vec![E::one(); rows * cols];
                matmul(&mut z, Accumulate::Add, a, b);
                for i in 0..rows * cols {
                    let expected = product(i / cols, i % cols);
                    assert_eq!((y[i], z[i]), (expected, expected + E::one()), "{name_a} {name_b} {rows}×{inner}×{cols} at {i}");
                }
            }
        }
    }

    #[test]
    fn few_rows_with_few_rows_are_dot_products() {
        for (rows, inner, cols) in [(1, 70, 32), (2, 70, 15), (5, 70, 6), (8, 64, 8), (15, 70, 2), (33, 70, 1)] {
            let swapped = turning_cost(cols, inner, rows) + rows * cols;
            assert!(dots_cost(rows, inner, cols) <= turning_cost(rows, inner, cols).min(swapped), "{rows}×{inner}×{cols}");
        }
    }

    #[test]
    fn products_in_all_orientations() {
        for (rows, inner, cols) in [(1, 1, 1), (1, 5, 7), (6, 1, 3), (5, 7, 1), (2, 3, 4), (17, 24, 33), (48, 40, 100), (130, 67, 64)]
            .into_iter()
            // With a transpose behind, dot products in tiles of every shape: whole ones, cut off ones, with a rest of
            // the inner dimension.
            .chain([(1, 70, 32), (2, 70, 15), (5, 70, 6), (8, 64, 8), (15, 70, 2), (33, 70, 1)])
        {
            check::<f32>(rows, inner, cols);
            check::<f64>(rows, inner, cols);
        }
    }

    /// Adds the row's number and counts its visits.
    struct Visits(Vec<usize>);

    impl Epilogue<f64> for Visits {
        #[inline(always)]
        fn apply(&mut self, row: usize, values: &mut [f64]) {
            self.0[row] += 1;
            values.iter_mut().for_each(|x| *x += row as f64);
        }
    }

    #[test]
    fn an_epilogue_sees_every_finished_row_once() {
        // Narrow and wide ones, that are turned and that are not, of one strip and of several.
        for (rows, inner, cols) in [(1, 3, 5), (70, 9, 2), (9, 70, 130), (300, 4, 100), (5, 0, 7)] {
            let (a, b) = (entries::<f64>(rows * inner, 1), entries::<f64>(inner * cols, 5));
            let a = Operand::new(&a, rows, inner);
            for b in [Operand::new(&b, inner, cols), Operand::new(&b, cols, inner).transposed()] {
                let (mut bare, mut y, mut visits) = (vec![1.0; rows * cols], vec![1.0; rows * cols], Visits(vec![0; rows]));
                matmul(&mut bare, Accumulate::Add, a, b);
                matmul_with(&mut y, Accumulate::Add, a, b, &mut visits);
                assert_eq!(visits.0, vec![1; rows]);
                assert!((0..rows * cols).all(|i| y[i] == bare[i] + (i / cols) as f64), "{rows}×{inner}×{cols}");
            }
        }
    }

    #[test]
    fn an_empty_inner_dimension_gives_zero() {
        let mut y = [f32::NAN; 6];
        matmul(&mut y, Accumulate::Replace, Operand::new(&[], 2, 0), Operand::new(&[], 0, 3));
        assert_eq!(y, [0.0; 6]);
    }
}
