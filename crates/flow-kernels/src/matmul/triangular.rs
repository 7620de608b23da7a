//! Products of square matrices of which only triangles matter.

use super::{Accumulate, Operand, matmul};
use crate::instruction_set::is_restricted;
use crate::real::Real;
use faer::linalg::matmul::triangular::{self, BlockStructure};
use faer::{Accum, MatMut, MatRef, Par};

impl<'a, E> Operand<'a, E> {
    fn view(self) -> MatRef<'a, E> {
        if self.transposed {
            MatRef::from_column_major_slice(self.data, self.rows, self.cols)
        } else {
            MatRef::from_row_major_slice(self.data, self.rows, self.cols)
        }
    }
}

/// The part of a square matrix that a product reads or writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    Full,
    /// The diagonal and below.
    Lower,
    /// Below the diagonal, which is taken as ones.
    UnitLower,
    /// The diagonal and above.
    Upper,
    /// Above the diagonal, which is taken as ones.
    UnitUpper,
}

impl From<Part> for BlockStructure {
    fn from(part: Part) -> Self {
        match part {
            Part::Full => Self::Rectangular,
            Part::Lower => Self::TriangularLower,
            Part::UnitLower => Self::UnitTriangularLower,
            Part::Upper => Self::TriangularUpper,
            Part::UnitUpper => Self::UnitTriangularUpper,
        }
    }
}

/// Sides from which on a product of triangles by halves is faster than one that multiplies their zeros too.
const TRIANGULAR_FROM: usize = 128;

/// `dst = a · b` for square matrices of which only parts matter: what is outside of `dst`'s part has no defined value,
/// what is outside of an operand's has to be zero (and a unit diagonal one). With two triangles it takes a third of the
/// full product's work.
///
/// ```
/// use flow_kernels::matmul::{triangular_matmul, Operand, Part};
/// let (lower, upper) = ([1.0, 0.0, 3.0, 1.0], [2.0, 5.0, 0.0, 4.0]);
/// let mut product = [0.0; 4];
/// let lower = (Operand::new(&lower, 2, 2), Part::UnitLower);
/// triangular_matmul(&mut product, Part::Full, lower, (Operand::new(&upper, 2, 2), Part::Upper));
/// assert_eq!(product, [2.0, 5.0, 6.0, 19.0]);
/// ```
///
/// # Panics
/// If the sizes do not match.
pub fn triangular_matmul<E: Real>(dst: &mut [E], part: Part, (a, a_part): (Operand<'_, E>, Part), (b, b_part): (Operand<'_, E>, Part)) {
    // faer picks the widest instruction set.
    if a.rows < TRIANGULAR_FROM || is_restricted() {
        return matmul(dst, Accumulate::Replace, a, b);
    }
    let dst = MatMut::from_row_major_slice_mut(dst, a.rows, b.cols);
    triangular::matmul(dst, part.into(), Accum::Replace, a.view(), a_part.into(), b.view(), b_part.into(), E::one(), Par::Seq);
}

#[cfg(test)]
#[allow(clippy::float_cmp, reason = "results are exact")]
mod tests {
    use super::super::tests::entries;
    use super::*;

    #[test]
    fn products_of_triangles() {
        let keeps = |part: Part, i: usize, j: usize| match part {
            Part::Full => true,
            Part::Lower => j <= i,
            Part::UnitLower => j < i,
            Part::Upper => j >= i,
            Part::UnitUpper => j > i,
        };
        let cases = [
            (Part::Full, Part::UnitLower, Part::Upper),
            (Part::Lower, Part::Full, Part::Lower),
            (Part::Upper, Part::UnitUpper, Part::Full),
        ];
        for n in [1, 5, TRIANGULAR_FROM - 1, TRIANGULAR_FROM, 200] {
            for (part, a_part, b_part) in cases {
                let triangle = |part: Part, seed: usize| -> Vec<f64> {
                    let mut x = entries::<f64>(n * n, seed);
                    for (k, x) in x.iter_mut().enumerate().filter(|(k, _)| !keeps(part, k / n, k % n)) {
                        *x = if k / n == k % n { 1.0 } else { 0.0 };
                    }
                    x
                };
                let (a, b) = (triangle(a_part, 1), triangle(b_part, 5));
                let (mut whole, mut y) = (vec![0.0; n * n], vec![f64::NAN; n * n]);
                matmul(&mut whole, Accumulate::Replace, Operand::new(&a, n, n), Operand::new(&b, n, n));
                triangular_matmul(&mut y, part, (Operand::new(&a, n, n), a_part), (Operand::new(&b, n, n), b_part));
                for k in (0..n * n).filter(|k| keeps(part, k / n, k % n)) {
                    assert_eq!(y[k], whole[k], "{part:?} = {a_part:?} · {b_part:?}, {n}, at {k}");
                }
            }
        }
    }
}
