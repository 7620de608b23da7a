//! The trace of the field's Jacobian, along unit vectors or random probes.

use crate::field::{Evaluation, FieldKernel};
use crate::shallow::add_feature_products;
use flow_api::log_det::Probe;
use flow_kernels::noise::Stream;
use flow_kernels::workspace::Buffer;
use flow_kernels::{Real, vectorized};
use flow_nets::smooth::{MlpKernel, Tangents};
use num_traits::Float;
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// How tr ∂f/∂z is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Trace {
    /// The sum over all d unit vectors of eᵀ J e, all of them through one blocked product a layer. Of a field with one
    /// or two hidden layers the value (not the gradient) is found at the price of a single direction: tr(W₃ D₂ W₂ D₁
    /// W₁) is a bilinear form in the slopes of the two layers.
    Exact,
    /// Hutchinson's estimate, the mean over random probes of εᵀ J ε.
    Hutchinson(Hutchinson),
}

/// Settings of Hutchinson's estimator (Hutchinson 1989; for continuous flows Grathwohl et al. 2019, section 3.1).
///
/// The probes are drawn once a solve, so that the solver sees a smooth right-hand side, and anew for every row,
/// training step and layer.
///
/// # Standard error
/// With n ≥ 2 probes the log-dets of the single probes are integrated side by side, and the standard error is that of
/// their mean, of which [`LogDet::standard_error`](flow_api::log_det::LogDet::standard_error) says how much it means at
/// few probes. A single probe tells nothing about its own spread, so with n = 1 an estimate of an upper bound is
/// reported: Var(εᵀJε) ≤ 2‖J‖² (Frobenius) for both distributions, whence the standard error of the integral is at most
/// √2 ∫ ‖J‖ dt; ‖J‖² is estimated by ‖Jε‖², which costs nothing. It is right in the mean square over many rows, and of
/// a single one may be too small: for the error of one row take many. The error control ignores it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Hutchinson {
    /// Probes n, 1 to [`MAX_SIZE`](flow_api::spec::MAX_SIZE). Default 1.
    pub probes: usize,
    /// Their distribution. Default `Rademacher`.
    pub distribution: Probe,
}

impl Default for Hutchinson {
    fn default() -> Self {
        Self { probes: 1, distribution: Probe::Rademacher }
    }
}

/// Most columns (directions × lanes) that go through the network at once, so that a layer of some dozen units stays in
/// the L2 cache.
const COLUMNS: usize = 512;

/// The directions along which the Jacobian of one block is seen, for one solve: u₁, u₂, … of every row, with tr J ≈
/// weight · Σ uᵀ J u.
#[derive(Debug)]
pub(crate) struct Directions<E: Real> {
    dim: usize,
    lanes: usize,
    /// How many a row.
    pub(crate) count: usize,
    /// Directions that go through the network at once.
    group: usize,
    /// The probes, group by group; nothing for unit vectors.
    probes: Option<Vec<Tangents<E>>>,
}

impl<E: Real> Directions<E> {
    pub(crate) fn new(trace: Trace, mlp: &MlpKernel<'_, E>, lanes: usize, noise: &Stream, first_row: u64) -> Self {
        let dim = mlp.input();
        let group = (COLUMNS / lanes.max(1)).max(1);
        let Trace::Hutchinson(Hutchinson { probes: count, distribution }) = trace else {
            return Self { dim, lanes, count: dim, group, probes: None };
        };
        let mut groups: Vec<Buffer<E>> =
            (0..count).step_by(group).map(|first| Buffer::take(dim * group.min(count - first) * lanes)).collect();
        let mut probe = Buffer::take(dim);
        for lane in 0..lanes {
            let mut row = noise.row(first_row + lane as u64);
            for values in &mut groups {
                let size = values.len() / (dim * lanes);
                for t in 0..size {
                    distribution.draw(&mut row, &mut probe);
                    probe.iter().enumerate().for_each(|(j, &e)| values[(j * size + t) * lanes + lane] = e);
                }
            }
        }
        let probes = groups.into_iter().map(|values| mlp.tangents(values)).collect();
        Self { dim, lanes, count, group, probes: Some(probes) }
    }

    pub(crate) fn is_exact(&self) -> bool {
        self.probes.is_none()
    }

    /// What Σ uᵀ J u is multiplied by: 1 for unit vectors, 1/n for probes.
    pub(crate) fn weight(&self) -> E {
        if self.is_exact() { E::one() } else { E::of(1.0 / self.count as f64) }
    }

    /// Calls `f` with groups of directions, d × (size · lanes), in order.
    pub(crate) fn for_each_group(&self, mlp: &MlpKernel<'_, E>, mut f: impl FnMut(Range<usize>, &Tangents<E>)) {
        let ranges = (0..self.count).step_by(self.group).map(|first| first..self.count.min(first + self.group));
        if let Some(probes) = &self.probes {
            ranges.zip(probes).for_each(|(range, probes)| f(range, probes));
            return;
        }
        for range in ranges {
            let (size, first) = (range.len(), range.start);
            let mut units = Buffer::zeroed(self.dim * size * self.lanes);
            for t in 0..size {
                units[((first + t) * size + t) * self.lanes..][..self.lanes].fill(E::one());
            }
            f(range, &mlp.tangents(units));
        }
    }
}

/// Which integrals over a solve are wanted besides the log-det, and how their numbers lie behind the state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Integrals {
    /// uᵀJu: of every probe, or summed over the unit vectors.
    pub(crate) log_det: Range<usize>,
    /// ‖Jε‖ of a single probe: the bound on its error.
    pub(crate) spread: Range<usize>,
    /// ½‖f‖².
    pub(crate) kinetic: Range<usize>,
    /// ‖J‖² (Frobenius), or its estimate.
    pub(crate) jacobian: Range<usize>,
}

impl Integrals {
    pub(crate) fn new<E: Real>(directions: &Directions<E>, penalties: bool) -> Self {
        let lanes = directions.lanes;
        let mut end = 0;
        let mut take = |rows: usize| {
            end += rows * lanes;
            end - rows * lanes..end
        };
        let single = !directions.is_exact() && directions.count == 1;
        Self {
            log_det: take(if directions.is_exact() { 1 } else { directions.count }),
            spread: take(usize::from(single)),
            kinetic: take(usize::from(penalties)),
            jacobian: take(usize::from(penalties)),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.jacobian.end
    }

    /// The integrands at one evaluation, where the field's value is `f`.
    pub(crate) fn rates<E: Real>(
        &self,
        field: &FieldKernel<'_, E>,
        evaluation: &Evaluation<E>,
        directions: &Directions<E>,
        f: &[E],
        out: &mut [E],
    ) {
        let (dim, lanes) = (directions.dim, directions.lanes);
        out.fill(E::zero());
        directions.for_each_group(&field.mlp, |range, tangents| {
            let u = tangents.values();
            let size = range.len();
            let mut ju = Buffer::take(u.len());
            field.mlp.jvp(&evaluation.trace, tangents, &mut ju);
            let log_det = &mut out[self.log_det.clone()];
            if directions.is_exact() {
                for (t, i) in range.enumerate() {
                    debug_assert!(i < dim);
                    let diagonal = &ju[(i * size + t) * lanes..][..lanes];
                    log_det.iter_mut().zip(diagonal).for_each(|(sum, &j)| *sum += j);
                }
            } else {
                add_feature_products(&mut log_det[range.start * lanes..range.end * lanes], u, &ju);
            }
            if !self.spread.is_empty() {
                add_feature_products(&mut out[self.spread.clone()], &ju, &ju);
            }
            if !self.jacobian.is_empty() {
                let mut squares = Buffer::zeroed(size * lanes);
                add_feature_products(&mut squares, &ju, &ju);
                let jacobian = &mut out[self.jacobian.clone()];
                for squares in squares.chunks_exact(lanes) {
                    jacobian.iter_mut().zip(squares).for_each(|(sum, &s)| *sum += directions.weight() * s);
                }
            }
        });
        out[self.spread.clone()].iter_mut().for_each(|s| *s = Float::sqrt(*s));
        if !self.kinetic.is_empty() {
            let kinetic = &mut out[self.kinetic.clone()];
            add_feature_products(kinetic, f, f);
            for k in kinetic {
                *k *= E::of(0.5);
            }
        }
    }

    /// Adds the log-dets that were integrated and their squared standard errors.
    pub(crate) fn add_log_dets<E: Real>(&self, integrals: &[E], log_det: &mut [E], variance: &mut [E]) {
        let lanes = log_det.len();
        let own = &integrals[self.log_det.clone()];
        let count = own.len() / lanes;
        let weight = E::of(1.0 / count as f64);
        for (r, (log_det, variance)) in log_det.iter_mut().zip(variance).enumerate() {
            let each = || own.iter().skip(r).step_by(lanes).copied();
            let mean = weight * each().sum::<E>();
            *log_det += mean;
            if count > 1 {
                let squares: E = each().map(|l| (l - mean) * (l - mean)).sum();
                *variance += squares * weight / E::of((count - 1) as f64);
            } else if let Some(&spread) = integrals[self.spread.clone()].get(r) {
                *variance += E::of(2.0) * spread * spread;
            }
        }
    }
}

vectorized! {
    /// `v = weight (g ⊙ u + norm_weight |g| ⊙ w)` for every direction: u, w and v are d × (size · lanes), g has the
    /// lanes; an empty w is 0.
    pub(crate) fn trace_cotangents<E: Real>(v: &mut [E], u: &[E], w: &[E], g: &[E], weight: E, norm_weight: E) {
        let lanes = g.len();
        for (v, u) in v.chunks_exact_mut(lanes).zip(u.chunks_exact(lanes)) {
            for ((v, &u), &g) in v.iter_mut().zip(u).zip(g) {
                *v = weight * g * u;
            }
        }
        for (v, w) in v.chunks_exact_mut(lanes).zip(w.chunks_exact(lanes)) {
            for ((v, &w), &g) in v.iter_mut().zip(w).zip(g) {
                *v += weight * Float::abs(g) * norm_weight * w;
            }
        }
    }

    /// `out = scale (a + kinetic |g| ⊙ f)`: a, f and out are d × lanes, g has the lanes.
    pub(crate) fn value_cotangent<E: Real>(out: &mut [E], scale: E, a: &[E], f: &[E], g: &[E], kinetic: E) {
        let lanes = g.len();
        for ((out, a), f) in out.chunks_exact_mut(lanes).zip(a.chunks_exact(lanes)).zip(f.chunks_exact(lanes)) {
            for (((out, &a), &f), &g) in out.iter_mut().zip(a).zip(f).zip(g) {
                *out = scale * (a + kinetic * Float::abs(g) * f);
            }
        }
    }
}
