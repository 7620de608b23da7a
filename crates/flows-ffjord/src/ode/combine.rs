//! The passes over a state that a Runge-Kutta step is made of.

use flow_kernels::{Real, vectorized};

/// Numbers that are worked on at a time: they stay in registers and the L1 cache while all terms are added.
const CHUNK: usize = 256;

/// A factor and the numbers that it multiplies.
pub(crate) type Term<'a, E> = (E, &'a [E]);

/// The terms h wᵢ kᵢ of a row of a tableau, without those whose weight is zero.
pub(crate) fn terms<'a, E: Real, K: std::ops::Deref<Target = [E]>>(h: f64, weights: &[f64], k: &'a [K]) -> Vec<Term<'a, E>> {
    weights.iter().zip(k).filter(|(w, _)| **w != 0.0).map(|(w, k)| (E::of(h * w), &k[..])).collect()
}

vectorized! {
    /// `out` = y + Σ aᵢ xᵢ, over the length of `out`.
    pub(crate) fn combine<E: Real>(out: &mut [E], y: &[E], terms: &[Term<'_, E>]) {
        for (i, out) in out.chunks_mut(CHUNK).enumerate() {
            let at = i * CHUNK..i * CHUNK + out.len();
            let Some((&(a, x), others)) = terms.split_first() else {
                out.copy_from_slice(&y[at]);
                continue;
            };
            for ((out, &y), &x) in out.iter_mut().zip(&y[at.clone()]).zip(&x[at.clone()]) {
                *out = y + a * x;
            }
            for &(a, x) in others {
                for (out, &x) in out.iter_mut().zip(&x[at.clone()]) {
                    *out += a * x;
                }
            }
        }
    }

    /// Σ of the squares of Σ aᵢ xᵢ / (atol + rtol max(|y₀|, |y₁|)).
    pub(crate) fn scaled_squares<E: Real>(terms: &[Term<'_, E>], y0: &[E], y1: &[E], atol: E, rtol: E) -> E {
        let mut sums = [E::zero(); 32];
        let mut error = [E::zero(); CHUNK];
        for (i, (y0, y1)) in y0.chunks(CHUNK).zip(y1.chunks(CHUNK)).enumerate() {
            let error = &mut error[..y0.len()];
            let at = i * CHUNK..i * CHUNK + y0.len();
            error.fill(E::zero());
            for &(a, x) in terms {
                for (error, &x) in error.iter_mut().zip(&x[at.clone()]) {
                    *error += a * x;
                }
            }
            for ((error, y0), y1) in error.chunks(32).zip(y0.chunks(32)).zip(y1.chunks(32)) {
                for (((sum, &error), &y0), &y1) in sums.iter_mut().zip(error).zip(y0).zip(y1) {
                    let (y0, y1) = (num_traits::Float::abs(y0), num_traits::Float::abs(y1));
                    let ratio = error / (atol + rtol * if y0 > y1 { y0 } else { y1 });
                    *sum += ratio * ratio;
                }
            }
        }
        sums.iter().copied().sum()
    }
}
