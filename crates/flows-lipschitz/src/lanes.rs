//! Loops over blocks of rows: feature j of lane r at `j * lanes + r`, with one number a lane on the side.

use flow_kernels::workspace::Buffer;
use flow_kernels::{Real, vectorized};

/// Some lanes of a block.
pub(crate) fn pick<E: Real>(values: &[E], lanes: usize, index: &[usize]) -> Buffer<E> {
    let mut picked = Buffer::take(values.len() / lanes.max(1) * index.len());
    for (to, from) in picked.chunks_exact_mut(index.len().max(1)).zip(values.chunks_exact(lanes.max(1))) {
        to.iter_mut().zip(index).for_each(|(to, &at)| *to = from[at]);
    }
    picked
}

vectorized! {
    /// `out[r] += Σ_j a[j, r] b[j, r]`.
    pub(crate) fn add_products<E: Real>(out: &mut [E], a: &[E], b: &[E]) {
        let lanes = out.len().max(1);
        for (a, b) in a.chunks_exact(lanes).zip(b.chunks_exact(lanes)) {
            for ((out, &a), &b) in out.iter_mut().zip(a).zip(b) {
                *out += a * b;
            }
        }
    }

    /// `out[j, r] += a[r] x[j, r]`.
    pub(crate) fn add_scaled<E: Real>(out: &mut [E], a: &[E], x: &[E]) {
        let lanes = a.len().max(1);
        for (out, x) in out.chunks_exact_mut(lanes).zip(x.chunks_exact(lanes)) {
            for ((out, &x), &a) in out.iter_mut().zip(x).zip(a) {
                *out += a * x;
            }
        }
    }

    /// `x[j, r] *= a[r]`.
    pub(crate) fn multiply<E: Real>(x: &mut [E], a: &[E]) {
        for x in x.chunks_exact_mut(a.len().max(1)) {
            for (x, &a) in x.iter_mut().zip(a) {
                *x *= a;
            }
        }
    }
}
