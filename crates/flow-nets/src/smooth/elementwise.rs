//! The passes over single elements: each goes row by row, and over a row's contiguous lanes.

use flow_kernels::{Real, vectorized};

use super::activation::{Smooth, WithSmooth};

/// What makes a pre-activation of a product: z = s (W h + b) + t. An empty scale is 1, an empty shift 0.
#[derive(Clone, Copy)]
pub(super) struct Affine<'b, E> {
    pub(super) bias: &'b [E],
    pub(super) scale: &'b [E],
    pub(super) shift: &'b [E],
}

impl<E: Real> Affine<'_, E> {
    /// s and s b + t of one row.
    #[inline(always)]
    fn row(&self, j: usize) -> (E, E) {
        let scale = self.scale.get(j).copied().unwrap_or_else(E::one);
        (scale, scale * self.bias[j] + self.shift.get(j).copied().unwrap_or_else(E::zero))
    }
}

#[inline(always)]
fn affine_row<E: Real>(row: &mut [E], (scale, offset): (E, E)) {
    for z in row {
        *z = scale * *z + offset;
    }
}

/// From W h: z in place, and rows of η₂ φ(z) and, unless `slope` is empty, of its derivative.
pub(super) struct Activate<'b, E> {
    pub(super) z: &'b mut [E],
    pub(super) affine: Affine<'b, E>,
    pub(super) out: &'b mut [E],
    pub(super) slope: &'b mut [E],
    pub(super) gain: E,
    pub(super) lanes: usize,
}

impl<E: Real> WithSmooth<E> for Activate<'_, E> {
    fn call<P: Smooth<E>>(self, phi: P) {
        activate(phi, self);
    }
}

/// Forward-over-reverse through an activation, for all tangents: ż̄ₖ = φ′ wₖ and z̄ = φ′ c + φ″ Σₖ wₖ żₖ (times η₂;
/// summed over the branches).
pub(super) struct Curve<'b, E> {
    pub(super) z: &'b [E],
    /// η₂ φ, every branch.
    pub(super) out: &'b [E],
    /// η₂ φ′, every branch.
    pub(super) slope: &'b [E],
    /// ∂S/∂h, every branch.
    pub(super) c: &'b [E],
    /// ∂S/∂ḣ, every branch.
    pub(super) w: &'b [E],
    /// ż.
    pub(super) dz: &'b [E],
    pub(super) z_bar: &'b mut [E],
    pub(super) dz_bar: &'b mut [E],
    pub(super) gain: E,
    pub(super) lanes: usize,
    pub(super) columns: usize,
    /// Scratch for one row.
    pub(super) products: &'b mut [E],
}

impl<E: Real> WithSmooth<E> for Curve<'_, E> {
    fn call<P: Smooth<E>>(self, phi: P) {
        curve(phi, self);
    }
}

/// The sign of z in a branch of an activation: the second one sees −z.
#[inline(always)]
fn sign<E: Real>(branch: usize) -> E {
    if branch == 0 { E::one() } else { -E::one() }
}

vectorized! {
    /// W h → z in place.
    pub(super) fn shift_rows<E: Real>(z: &mut [E], affine: Affine<'_, E>, lanes: usize) {
        for (j, row) in z.chunks_exact_mut(lanes).enumerate() {
            affine_row(row, affine.row(j));
        }
    }

    fn activate<E: Real, P: Smooth<E>>(phi: P, pass: Activate<'_, E>) {
        let Activate { z, affine, out, slope, gain, lanes } = pass;
        let rows = z.len() / lanes;
        for (j, z) in z.chunks_exact_mut(lanes).enumerate() {
            affine_row(z, affine.row(j));
            for branch in 0..out.len() / (rows * lanes) {
                let (sign, at) = (sign::<E>(branch), (branch * rows + j) * lanes);
                let out = &mut out[at..at + lanes];
                if slope.is_empty() {
                    for (out, &z) in out.iter_mut().zip(&*z) {
                        let [f, ..] = phi.eval(sign * z);
                        *out = gain * f;
                    }
                } else {
                    for ((out, slope), &z) in out.iter_mut().zip(&mut slope[at..at + lanes]).zip(&*z) {
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
            let rows = out.chunks_exact_mut(columns).zip(dz.chunks_exact(columns)).zip(slope.chunks_exact(lanes));
            for ((out, dz), slope) in rows {
                for (out, dz) in out.chunks_exact_mut(lanes).zip(dz.chunks_exact(lanes)) {
                    for ((out, &dz), &slope) in out.iter_mut().zip(dz).zip(slope) {
                        *out = slope * dz;
                    }
                }
            }
        }
    }

    /// The same with the tangents of a lane together: element (tangent t, lane r) of a row at r · `tangents` + t, for
    /// some of the slope's lanes.
    pub(super) fn push_lane_tangents<E: Real>(slope: &[E], dz: &[E], out: &mut [E], tangents: usize) {
        for ((out, dz), &slope) in out.chunks_exact_mut(tangents).zip(dz.chunks_exact(tangents)).zip(slope) {
            for (out, &dz) in out.iter_mut().zip(dz) {
                *out = slope * dz;
            }
        }
    }

    /// ż̄ = Σ over branches of slope ⊙ c, for every cotangent.
    pub(super) fn pull_cotangents<E: Real>(slope: &[E], c: &[E], dz: &mut [E], lanes: usize, columns: usize) {
        let branches = c.chunks_exact(dz.len()).zip(slope.chunks_exact(dz.len() / columns * lanes));
        for (branch, (c, slope)) in branches.enumerate() {
            let rows = dz.chunks_exact_mut(columns).zip(c.chunks_exact(columns)).zip(slope.chunks_exact(lanes));
            for ((dz, c), slope) in rows {
                for (dz, c) in dz.chunks_exact_mut(lanes).zip(c.chunks_exact(lanes)) {
                    pull_row(branch == 0, slope, c, dz);
                }
            }
        }
    }

    fn curve<E: Real, P: Smooth<E>>(phi: P, pass: Curve<'_, E>) {
        let Curve { z, out, slope, c, w, dz, z_bar, dz_bar, gain, lanes, columns, products } = pass;
        let plain = E::one() / gain;
        for (branch, (c, out)) in c.chunks_exact(z.len()).zip(out.chunks_exact(z.len())).enumerate() {
            let (slope, w) = (&slope[branch * z.len()..][..z.len()], &w[branch * dz.len()..][..dz.len()]);
            let sign = sign::<E>(branch);
            for j in 0..z.len() / lanes {
                let (row, wide) = (j * lanes..(j + 1) * lanes, j * columns..(j + 1) * columns);
                let (slope, z_bar) = (&slope[row.clone()], &mut z_bar[row.clone()]);
                let tangents = w[wide.clone()].chunks_exact(lanes).zip(dz[wide.clone()].chunks_exact(lanes));
                products.fill(E::zero());
                for ((w, dz), dz_bar) in tangents.zip(dz_bar[wide].chunks_exact_mut(lanes)) {
                    pull_row(branch == 0, slope, w, dz_bar);
                    for ((q, &w), &dz) in products.iter_mut().zip(w).zip(dz) {
                        *q += w * dz;
                    }
                }
                pull_row(branch == 0, slope, &c[row.clone()], z_bar);
                let known = z[row.clone()].iter().zip(&out[row]).zip(slope);
                for ((z_bar, ((&z, &f), &d)), &q) in z_bar.iter_mut().zip(known).zip(&*products) {
                    *z_bar += gain * phi.bend(sign * z, plain * f, plain * sign * d) * q;
                }
            }
        }
    }

    /// `row *= s` for every row; nothing without a scale.
    pub(super) fn scale_rows<E: Real>(rows: &mut [E], columns: usize, scale: &[E]) {
        for (row, &s) in rows.chunks_exact_mut(columns.max(1)).zip(scale) {
            for x in row {
                *x *= s;
            }
        }
    }

    /// `out = a x`.
    pub(super) fn scaled<E: Real>(out: &mut [E], a: E, x: &[E]) {
        for (out, &x) in out.iter_mut().zip(x) {
            *out = a * x;
        }
    }
}

/// `out` = or += slope ⊙ c.
#[inline(always)]
fn pull_row<E: Real>(first: bool, slope: &[E], c: &[E], out: &mut [E]) {
    let terms = out.iter_mut().zip(c).zip(slope);
    if first {
        terms.for_each(|((out, &c), &slope)| *out = slope * c);
    } else {
        terms.for_each(|((out, &c), &slope)| *out += slope * c);
    }
}
