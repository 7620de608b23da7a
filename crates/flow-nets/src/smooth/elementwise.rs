//! The passes over single elements, each one sweep over contiguous lanes.

use flow_kernels::Real;
use num_traits::Float;

use super::activation::{Smooth, WithSmooth};

#[inline(always)]
pub(super) fn exp<E: Real>(x: E) -> E {
    Float::exp(x)
}

#[inline(always)]
pub(super) fn tanh<E: Real>(x: E) -> E {
    Float::tanh(x)
}

#[inline(always)]
pub(super) fn sigmoid<E: Real>(x: E) -> E {
    let e = exp(-Float::abs(x));
    (if x < E::zero() { e } else { E::one() }) / (E::one() + e)
}

#[inline(always)]
pub(super) fn softplus<E: Real>(x: E) -> E {
    Float::max(x, E::zero()) + Float::ln_1p(exp(-Float::abs(x)))
}

/// z = s (z + b) + t in place, row by row; a missing scale is 1, a missing shift 0.
pub(super) fn affine<E: Real>(z: &mut [E], bias: &[E], scale: &[E], shift: &[E], lanes: usize) {
    for (j, (row, &b)) in z.chunks_exact_mut(lanes).zip(bias).enumerate() {
        let s = scale.get(j).copied().unwrap_or_else(E::one);
        let offset = s * b + shift.get(j).copied().unwrap_or_else(E::zero);
        for z in row {
            *z = s * *z + offset;
        }
    }
}

/// Rows of z → rows of η₂ φ(z) and, unless `slope` is empty, of its derivative.
pub(super) struct Activate<'b, E> {
    pub(super) z: &'b [E],
    pub(super) out: &'b mut [E],
    pub(super) slope: &'b mut [E],
    pub(super) gain: E,
}

/// The signs of z in the branches of an activation: the second one sees −z.
#[inline(always)]
fn sign<E: Real>(branch: usize) -> E {
    if branch == 0 { E::one() } else { -E::one() }
}

impl<E: Real> WithSmooth<E> for Activate<'_, E> {
    type Output = ();
    fn call<P: Smooth<E>>(self, phi: P) {
        let Self { z, out, slope, gain } = self;
        for (branch, out) in out.chunks_exact_mut(z.len()).enumerate() {
            let sign = sign::<E>(branch);
            if slope.is_empty() {
                for (out, &z) in out.iter_mut().zip(z) {
                    let [f, ..] = phi.eval(sign * z);
                    *out = gain * f;
                }
            } else {
                let slope = &mut slope[branch * z.len()..][..z.len()];
                for ((out, slope), &z) in out.iter_mut().zip(slope).zip(z) {
                    let [f, d, _] = phi.eval(sign * z);
                    *out = gain * f;
                    *slope = gain * sign * d;
                }
            }
        }
    }
}

/// `out` = slope ⊙ ż for every branch and tangent: ż has `columns` = k · lanes columns.
pub(super) fn push_tangents<E: Real>(slope: &[E], dz: &[E], out: &mut [E], lanes: usize, columns: usize) {
    for (out, slope) in out.chunks_exact_mut(dz.len()).zip(slope.chunks_exact(dz.len() / columns * lanes)) {
        for ((out, dz), slope) in out.chunks_exact_mut(columns).zip(dz.chunks_exact(columns)).zip(slope.chunks_exact(lanes)) {
            for (out, dz) in out.chunks_exact_mut(lanes).zip(dz.chunks_exact(lanes)) {
                for ((out, &dz), &slope) in out.iter_mut().zip(dz).zip(slope) {
                    *out = slope * dz;
                }
            }
        }
    }
}

/// ż̄ = Σ over branches of slope ⊙ c, for every cotangent.
pub(super) fn pull_cotangents<E: Real>(slope: &[E], c: &[E], dz: &mut [E], lanes: usize, columns: usize) {
    for (branch, (c, slope)) in c.chunks_exact(dz.len()).zip(slope.chunks_exact(dz.len() / columns * lanes)).enumerate() {
        for ((dz, c), slope) in dz.chunks_exact_mut(columns).zip(c.chunks_exact(columns)).zip(slope.chunks_exact(lanes)) {
            for (dz, c) in dz.chunks_exact_mut(lanes).zip(c.chunks_exact(lanes)) {
                if branch == 0 {
                    for ((dz, &c), &slope) in dz.iter_mut().zip(c).zip(slope) {
                        *dz = slope * c;
                    }
                } else {
                    for ((dz, &c), &slope) in dz.iter_mut().zip(c).zip(slope) {
                        *dz += slope * c;
                    }
                }
            }
        }
    }
}

/// The second-order part of the reverse pass through an activation.
///
/// Given z, c = ∂S/∂h and, for all tangents, w = ∂S/∂ḣ and ż, computes z̄ = η₂ (φ′ c + φ″ q) with q = Σₖ wₖ żₖ, and adds to the lane-wise sums
/// of ∂S/∂b = η₂ (c ∂φ/∂b + q ∂φ′/∂b) and ∂S/∂η₂ = c φ + q φ′. φ(z) = F(b z)/b gives ∂φ/∂b = (z φ′ − φ)/b and ∂φ′/∂b = z φ″/b.
pub(super) struct Curve<'b, E> {
    pub(super) z: &'b [E],
    pub(super) c: &'b [E],
    pub(super) w: &'b [E],
    pub(super) dz: &'b [E],
    pub(super) zbar: &'b mut [E],
    pub(super) gain: E,
    pub(super) b: E,
    pub(super) lanes: usize,
    pub(super) columns: usize,
    /// Scratch of one row for q.
    pub(super) q: &'b mut [E],
    /// One row of sums over features each.
    pub(super) b_sum: &'b mut [E],
    pub(super) gain_sum: &'b mut [E],
}

impl<E: Real> WithSmooth<E> for Curve<'_, E> {
    type Output = ();
    fn call<P: Smooth<E>>(self, phi: P) {
        let Self { z, c, w, dz, zbar, gain, b, lanes, columns, q, b_sum, gain_sum } = self;
        let per_b = gain / b;
        for (branch, c) in c.chunks_exact(z.len()).enumerate() {
            let sign = sign::<E>(branch);
            for (j, ((z, c), zbar)) in z.chunks_exact(lanes).zip(c.chunks_exact(lanes)).zip(zbar.chunks_exact_mut(lanes)).enumerate() {
                q.fill(E::zero());
                if columns > 0 {
                    let w = &w[branch * dz.len() + j * columns..][..columns];
                    let dz = &dz[j * columns..][..columns];
                    for (w, dz) in w.chunks_exact(lanes).zip(dz.chunks_exact(lanes)) {
                        for ((q, &w), &dz) in q.iter_mut().zip(w).zip(dz) {
                            *q += w * dz;
                        }
                    }
                }
                let keep = if branch == 0 { E::zero() } else { E::one() };
                for (((((zbar, &z), &c), &q), b_sum), gain_sum) in
                    zbar.iter_mut().zip(z).zip(c).zip(q.iter()).zip(b_sum.iter_mut()).zip(gain_sum.iter_mut())
                {
                    let [f, d, d2] = phi.eval(sign * z);
                    let d = sign * d;
                    *zbar = keep * *zbar + gain * (d * c + d2 * q);
                    *b_sum += per_b * (c * (z * d - f) + q * z * d2);
                    *gain_sum += c * f + q * d;
                }
            }
        }
    }
}

/// Adds the sum of every row to `sums`.
pub(super) fn add_row_sums<E: Real>(rows: &[E], lanes: usize, sums: &mut [E]) {
    for (row, sum) in rows.chunks_exact(lanes).zip(sums) {
        *sum += total(row);
    }
}

/// Σ x, in sixteen strands.
pub(super) fn total<E: Real>(x: &[E]) -> E {
    strands(x, x, |x, _| x)
}

/// Σ x y, in sixteen strands.
pub(super) fn dot<E: Real>(x: &[E], y: &[E]) -> E {
    strands(x, y, |x, y| x * y)
}

#[inline(always)]
fn strands<E: Real>(x: &[E], y: &[E], f: impl Fn(E, E) -> E) -> E {
    let mut sums = [E::zero(); 16];
    let (xs, ys) = (x.chunks_exact(16), y.chunks_exact(16));
    let rest: E = xs.remainder().iter().zip(ys.remainder()).map(|(&x, &y)| f(x, y)).sum();
    for (x, y) in xs.zip(ys) {
        for ((sum, &x), &y) in sums.iter_mut().zip(x).zip(y) {
            *sum += f(x, y);
        }
    }
    sums.into_iter().sum::<E>() + rest
}

/// `row *= s` for every row.
pub(super) fn scale_rows<E: Real>(rows: &mut [E], columns: usize, scale: &[E]) {
    for (row, &s) in rows.chunks_exact_mut(columns).zip(scale) {
        for x in row {
            *x *= s;
        }
    }
}
