//! log|det M| and M⁻¹ of many small matrices at once, for M = I + J with ‖J‖ < 1.

use faer::MatRef;
use faer::linalg::solvers::DenseSolveCore;
use flow_kernels::workspace::Buffer;
use flow_kernels::{Real, vectorized};
use num_traits::Float;

/// Matrices that are eliminated side by side: element (i, j) of all of them lies in one group of so many numbers.
pub(crate) const WIDE: usize = 16;

/// Matrices M of size n × n, `WIDE` of them side by side: element (i, j) of the matrix in lane r at
/// `(i * n + j) * WIDE + r`.
///
/// # Without pivots
/// For M = I + J with ‖J‖ ≤ L < 1, xᵀMx ≥ (1 − L)‖x‖², which every Schur complement inherits; so all pivots are at
/// least 1 − L without exchanging rows, and the determinant is positive. A lane in which that fails, because the bound
/// did not hold, is done again by faer with exchanges.
#[derive(Debug)]
pub(crate) struct Matrices<E: Real> {
    size: usize,
    lanes: usize,
    pub(crate) elements: Buffer<E>,
    /// A copy of what has been eliminated, for the lanes that have to be done again.
    original: Buffer<E>,
}

impl<E: Real> Matrices<E> {
    /// I + J for `lanes` ≤ [`WIDE`] matrices, with element (i, j) of lane r at `at(i * size + j, r)`.
    pub(crate) fn identity_plus(size: usize, lanes: usize, at: impl Fn(usize, usize) -> E) -> Self {
        // Lanes that are not used hold the identity.
        let mut elements = Buffer::zeroed(size * size * WIDE);
        for (index, group) in elements.chunks_exact_mut(WIDE).enumerate() {
            for (lane, element) in group[..lanes].iter_mut().enumerate() {
                *element = at(index, lane);
            }
        }
        for group in elements.chunks_exact_mut(WIDE).step_by(size + 1) {
            group.iter_mut().for_each(|diagonal| *diagonal += E::one());
        }
        let original = Buffer::copy_of(&elements);
        Self { size, lanes, elements, original }
    }

    /// log|det M| of every lane.
    pub(crate) fn log_dets(mut self) -> [E; WIDE] {
        let mut pivots = [E::infinity(); WIDE];
        let mut log_dets = [E::zero(); WIDE];
        eliminate(&mut self.elements, self.size, &mut pivots, &mut log_dets);
        for lane in self.failed(&pivots) {
            let lu = self.lane(lane);
            let lu = MatRef::from_row_major_slice(&lu, self.size, self.size).partial_piv_lu();
            log_dets[lane] = E::of((0..self.size).map(|i| lu.U()[(i, i)].abs().ln()).sum());
        }
        log_dets
    }

    /// Replaces every matrix by its inverse.
    pub(crate) fn invert(&mut self) {
        let mut pivots = [E::infinity(); WIDE];
        invert(&mut self.elements, self.size, &mut pivots);
        for lane in self.failed(&pivots) {
            let matrix = self.lane(lane);
            let inverse = MatRef::from_row_major_slice(&matrix, self.size, self.size).partial_piv_lu().inverse();
            for (index, group) in self.elements.chunks_exact_mut(WIDE).enumerate() {
                group[lane] = E::of(inverse[(index / self.size, index % self.size)]);
            }
        }
    }

    /// The lanes in which a pivot was too small.
    fn failed(&self, pivots: &[E; WIDE]) -> Vec<usize> {
        let least = Float::sqrt(E::epsilon());
        (0..self.lanes).filter(|&lane| pivots[lane] < least).collect()
    }

    /// One matrix, row-major.
    fn lane(&self, lane: usize) -> Vec<f64> {
        self.original.iter().skip(lane).step_by(WIDE).map(|element| element.as_f64()).collect()
    }
}

/// a − b c in every lane.
#[inline(always)]
fn minus_product<E: Real>(a: &mut [E; WIDE], b: &[E; WIDE], c: &[E; WIDE]) {
    // A loop that works in place is taken apart into scalars before it is vectorised.
    *a = std::array::from_fn(|r| a[r] - b[r] * c[r]);
}

vectorized! {
    /// Gaussian elimination; the least pivot and Σ ln pivot of every lane.
    fn eliminate<E: Real>(elements: &mut [E], size: usize, least: &mut [E; WIDE], log_dets: &mut [E; WIDE]) {
        let (groups, _) = elements.as_chunks_mut::<WIDE>();
        for p in 0..size {
            let (above, below) = groups.split_at_mut((p + 1) * size);
            let pivot_row = &above[p * size + p..];
            let pivot = pivot_row[0];
            *least = std::array::from_fn(|r| if pivot[r] < least[r] { pivot[r] } else { least[r] });
            *log_dets = std::array::from_fn(|r| log_dets[r] + flow_kernels::scalar::ln(pivot[r]));
            let reciprocal: [E; WIDE] = std::array::from_fn(|r| E::one() / pivot[r]);
            for row in below.chunks_exact_mut(size) {
                let factor = std::array::from_fn(|r| row[p][r] * reciprocal[r]);
                for (a, c) in row[p..].iter_mut().zip(pivot_row) {
                    minus_product(a, &factor, c);
                }
            }
        }
    }

    /// Gauss-Jordan elimination in place.
    fn invert<E: Real>(elements: &mut [E], size: usize, least: &mut [E; WIDE]) {
        let (groups, _) = elements.as_chunks_mut::<WIDE>();
        let mut pivot_row = vec![[E::zero(); WIDE]; size];
        for p in 0..size {
            let pivot = groups[p * size + p];
            *least = std::array::from_fn(|r| if pivot[r] < least[r] { pivot[r] } else { least[r] });
            let reciprocal: [E; WIDE] = std::array::from_fn(|r| E::one() / pivot[r]);
            groups[p * size + p] = [E::one(); WIDE];
            for (from, to) in groups[p * size..(p + 1) * size].iter_mut().zip(&mut pivot_row) {
                *from = std::array::from_fn(|r| from[r] * reciprocal[r]);
                *to = *from;
            }
            for (i, row) in groups.chunks_exact_mut(size).enumerate() {
                if i == p {
                    continue;
                }
                let factor = row[p];
                row[p] = [E::zero(); WIDE];
                for (a, c) in row.iter_mut().zip(&pivot_row) {
                    minus_product(a, &factor, c);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use faer::Mat;
    use flow_kernels::noise::Stream;

    /// Against faer, for contractions and for matrices that need exchanges of rows.
    #[test]
    fn elimination_is_that_of_faer() {
        for (size, lanes, spread, exchange) in
            [(1, 3, 0.5, false), (2, 16, 0.4, false), (7, 5, 0.3, false), (20, 16, 0.2, false), (4, 6, 0.1, true)]
        {
            let mut values = vec![0.0; size * size * lanes];
            Stream::new(size as u64, 0, "matrices").row(0).gaussian(&mut values);
            values.iter_mut().for_each(|v: &mut f64| *v *= spread / (size as f64).sqrt());
            if exchange {
                // A zero pivot at once, and the determinant of an exchange of rows.
                for r in 0..lanes {
                    for (index, value) in [(0, -1.0), (1, 1.5), (size, 1.2), (size + 1, -1.0)] {
                        values[index * lanes + r] = value;
                    }
                }
            }
            let matrices = || Matrices::identity_plus(size, lanes, |index, r| values[index * lanes + r]);
            let mut inverses = matrices();
            inverses.invert();
            let log_dets = matrices().log_dets();
            for r in 0..lanes {
                let m = Mat::from_fn(size, size, |i, j| values[(i * size + j) * lanes + r] + f64::from(i == j));
                let expected = m.determinant().abs().ln();
                assert!((log_dets[r] - expected).abs() < 1e-12, "{size}: {expected}, got {}", log_dets[r]);
                let inverse = m.partial_piv_lu().inverse();
                for (index, group) in inverses.elements.chunks_exact(WIDE).enumerate() {
                    let expected = inverse[(index / size, index % size)];
                    assert!((group[r] - expected).abs() < 1e-11, "{size}: {expected}, got {}", group[r]);
                }
            }
        }
    }
}
