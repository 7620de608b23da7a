//! The spline on feature-major blocks, some lanes at a time.
//!
//! The lanes of a step lie in arrays of fixed size and not in slices of the block: there are too many of them for LLVM
//! to check at run time that slices do not overlap, as it must before it vectorises a loop.

use super::RationalQuadratic;
use super::segment::Segment;
use flow_api::rows::Real;
use flow_kernels::{scalar, vectorized};
use num_traits::Float;

/// Lanes of a step. With 16 LLVM unrolls the loops before it vectorises them, and then does not; with 64 it spills
/// more.
const WIDTH: usize = 32;

type Pack<E> = [E; WIDTH];

/// The lanes of a step. A type each, since a choice at every load would keep packs in memory.
trait Lanes: Copy {
    /// Lanes from `from` on.
    fn load<E: Real>(self, row: &[E], from: usize) -> Pack<E>;

    /// The counterpart of [`Lanes::load`].
    fn store<E: Real>(self, row: &mut [E], from: usize, pack: &Pack<E>);
}

/// As many as a pack has.
#[derive(Clone, Copy)]
struct Whole;

/// What is left at the end of a row; zeros behind it, which are not written.
#[derive(Clone, Copy)]
struct Rest;

impl Lanes for Whole {
    #[inline(always)]
    fn load<E: Real>(self, row: &[E], from: usize) -> Pack<E> {
        let mut pack = [E::zero(); WIDTH];
        pack.copy_from_slice(&row[from..from + WIDTH]);
        pack
    }

    #[inline(always)]
    fn store<E: Real>(self, row: &mut [E], from: usize, pack: &Pack<E>) {
        row[from..from + WIDTH].copy_from_slice(pack);
    }
}

impl Lanes for Rest {
    #[inline(always)]
    fn load<E: Real>(self, row: &[E], from: usize) -> Pack<E> {
        let mut pack = [E::zero(); WIDTH];
        pack.iter_mut().zip(&row[from..]).for_each(|(to, &x)| *to = x);
        pack
    }

    #[inline(always)]
    fn store<E: Real>(self, row: &mut [E], from: usize, pack: &Pack<E>) {
        row[from..].iter_mut().zip(pack).for_each(|(to, &x)| *to = x);
    }
}

/// `new` where the mask is one, `old` where it is zero: exact, and unlike a choice between two loads, nothing that LLVM
/// makes a branch of.
#[inline(always)]
fn blend<E: Real>(mask: E, new: E, old: E) -> E {
    mask * new + (E::one() - mask) * old
}

/// A direction, as a type so that each is compiled for itself.
pub(super) trait Way {
    const INVERSE: bool;
}
pub(super) struct Forward;
pub(super) struct Inverse;
impl Way for Forward {
    const INVERSE: bool = false;
}
impl Way for Inverse {
    const INVERSE: bool = true;
}

vectorized! {
    /// Maps a block (features × lanes); of the numbers of every feature, those of widths and heights become their
    /// softmax.
    pub(super) fn map<E: Real, W: Way>(way: W, spline: &RationalQuadratic<E>, values: &mut [E], numbers: &mut [E], log_det: &mut [E]) {
        let lanes = log_det.len();
        if lanes == 0 {
            return;
        }
        for (values, numbers) in values.chunks_exact_mut(lanes).zip(numbers.chunks_exact_mut(spline.rows() * lanes)) {
            let whole = lanes / WIDTH * WIDTH;
            for from in (0..whole).step_by(WIDTH) {
                spline.map_lanes(&way, Whole, values, numbers, log_det, from);
            }
            if whole < lanes {
                spline.map_lanes(&way, Rest, values, numbers, log_det, whole);
            }
        }
    }

    /// ∂L/∂y → ∂L/∂x, and what [`map`] left of the numbers → ∂L/∂numbers.
    pub(super) fn pull<E: Real>(spline: &RationalQuadratic<E>, x: &[E], numbers: &mut [E], cotangent: &mut [E], log_det: &[E]) {
        let lanes = log_det.len();
        if lanes == 0 {
            return;
        }
        let features = x.chunks_exact(lanes).zip(numbers.chunks_exact_mut(spline.rows() * lanes));
        for ((x, numbers), cotangent) in features.zip(cotangent.chunks_exact_mut(lanes)) {
            let whole = lanes / WIDTH * WIDTH;
            for from in (0..whole).step_by(WIDTH) {
                spline.pull_lanes(Whole, x, numbers, cotangent, log_det, from);
            }
            if whole < lanes {
                spline.pull_lanes(Rest, x, numbers, cotangent, log_det, whole);
            }
        }
    }
}

/// The bin of every lane: the softmax of all bins before it and its own, for widths and heights; the numbers of the
/// slopes at its ends; its index.
struct Bins<E> {
    before_w: Pack<E>,
    own_w: Pack<E>,
    before_h: Pack<E>,
    own_h: Pack<E>,
    left: Pack<E>,
    right: Pack<E>,
    index: Pack<E>,
}

/// Softmax over the rows.
#[inline(always)]
fn normalise<E: Real>(step: impl Lanes, rows: &mut [E], lanes: usize, from: usize) {
    let mut largest = step.load(&rows[..lanes], from);
    for row in rows.chunks_exact(lanes) {
        let x = step.load(row, from);
        for i in 0..WIDTH {
            largest[i] = Float::max(largest[i], x[i]);
        }
    }
    let mut sum = [E::zero(); WIDTH];
    for row in rows.chunks_exact_mut(lanes) {
        let mut x = step.load(row, from);
        for i in 0..WIDTH {
            x[i] = scalar::exp(x[i] - largest[i]);
            sum[i] += x[i];
        }
        step.store(row, from, &x);
    }
    for sum in &mut sum {
        *sum = E::one() / *sum;
    }
    for row in rows.chunks_exact_mut(lanes) {
        let mut x = step.load(row, from);
        for i in 0..WIDTH {
            x[i] *= sum[i];
        }
        step.store(row, from, &x);
    }
}

impl<E: Real> RationalQuadratic<E> {
    /// Numbers of a feature.
    #[inline(always)]
    fn rows(&self) -> usize {
        3 * self.bins - 1
    }

    #[inline(always)]
    fn inside(&self, x: E) -> bool {
        x >= -self.bound && x <= self.bound
    }

    /// Where bin number `index` starts, given the softmax of all bins before it.
    #[inline(always)]
    fn edge(&self, index: E, before: E) -> E {
        self.scale * before + (self.least * index - self.bound)
    }

    /// Finds every lane's bin: the last one that starts at or below it, along y for the inverse and along x otherwise.
    #[inline(always)]
    fn locate<W: Way>(&self, _way: &W, step: impl Lanes, at: &Pack<E>, numbers: &[E], lanes: usize, from: usize) -> Bins<E> {
        let row = |k: usize| step.load(&numbers[k * lanes..][..lanes], from);
        let (heights, slopes) = (self.bins, 2 * self.bins);
        let zeros = [E::zero(); WIDTH];
        let (own_w, own_h) = (row(0), row(heights));
        let (mut sum_w, mut sum_h) = (own_w, own_h);
        let mut bins = Bins { before_w: zeros, own_w, before_h: zeros, own_h, left: zeros, right: row(slopes), index: zeros };
        for k in 1..self.bins {
            let index = E::of(k as f64);
            // The number of the last knot is zero, like that of the first.
            let right = if k + 1 < self.bins { row(slopes + k) } else { zeros };
            let (w, h, left) = (row(k), row(heights + k), row(slopes + k - 1));
            for i in 0..WIDTH {
                let start = self.edge(index, if W::INVERSE { sum_h[i] } else { sum_w[i] });
                let here = if at[i] >= start { E::one() } else { E::zero() };
                bins.before_w[i] = blend(here, sum_w[i], bins.before_w[i]);
                bins.before_h[i] = blend(here, sum_h[i], bins.before_h[i]);
                bins.own_w[i] = blend(here, w[i], bins.own_w[i]);
                bins.own_h[i] = blend(here, h[i], bins.own_h[i]);
                bins.left[i] = blend(here, left[i], bins.left[i]);
                bins.right[i] = blend(here, right[i], bins.right[i]);
                bins.index[i] += here;
                sum_w[i] += w[i];
                sum_h[i] += h[i];
            }
        }
        bins
    }

    #[inline(always)]
    fn segment(&self, bins: &Bins<E>, i: usize) -> Segment<E> {
        Segment {
            left: self.edge(bins.index[i], bins.before_w[i]),
            bottom: self.edge(bins.index[i], bins.before_h[i]),
            width: self.scale * bins.own_w[i] + self.least,
            height: self.scale * bins.own_h[i] + self.least,
            slope_left: self.least_slope + scalar::softplus(bins.left[i] + self.offset),
            slope_right: self.least_slope + scalar::softplus(bins.right[i] + self.offset),
        }
    }

    #[inline(always)]
    fn map_lanes<W: Way>(&self, way: &W, step: impl Lanes, values: &mut [E], numbers: &mut [E], log_det: &mut [E], from: usize) {
        let lanes = log_det.len();
        let (sizes, _) = numbers.split_at_mut(2 * self.bins * lanes);
        let (widths, heights) = sizes.split_at_mut(self.bins * lanes);
        normalise(step, widths, lanes, from);
        normalise(step, heights, lanes, from);
        let (mut value, mut sum) = (step.load(values, from), step.load(log_det, from));
        // What is outside gets a bin too, and finite numbers from it that are not used.
        let bins = self.locate(way, step, &value, numbers, lanes, from);
        for i in 0..WIDTH {
            let segment = self.segment(&bins, i);
            let (mapped, log_slope) = if W::INVERSE { segment.inverse(value[i]) } else { segment.forward(value[i]) };
            let signed = if W::INVERSE { -log_slope } else { log_slope };
            sum[i] += if self.inside(value[i]) { signed } else { E::zero() };
            value[i] = if self.inside(value[i]) { Float::max(Float::min(mapped, self.bound), -self.bound) } else { value[i] };
        }
        step.store(values, from, &value);
        step.store(log_det, from, &sum);
    }

    #[inline(always)]
    fn pull_lanes(&self, step: impl Lanes, x: &[E], numbers: &mut [E], cotangent: &mut [E], log_det: &[E], from: usize) {
        let lanes = log_det.len();
        let (x, mut g, l) = (step.load(x, from), step.load(cotangent, from), step.load(log_det, from));
        let bins = self.locate(&Forward, step, &x, numbers, lanes, from);
        // Derivatives by the corner, by the size, and their mean under the softmax; then by the numbers of the slopes.
        let zeros = [E::zero(); WIDTH];
        let (mut corner_w, mut size_w, mut mean_w) = (zeros, zeros, zeros);
        let (mut corner_h, mut size_h, mut mean_h) = (zeros, zeros, zeros);
        let (mut for_left, mut for_right) = (zeros, zeros);
        for i in 0..WIDTH {
            let (for_x, pulled) = self.segment(&bins, i).pull(x[i], g[i], l[i]);
            let inside = self.inside(x[i]);
            let within = |value: E| if inside { value } else { E::zero() };
            g[i] = if inside { for_x } else { g[i] };
            (corner_w[i], size_w[i]) = (within(pulled.left), within(pulled.width));
            (corner_h[i], size_h[i]) = (within(pulled.bottom), within(pulled.height));
            mean_w[i] = corner_w[i] * bins.before_w[i] + size_w[i] * bins.own_w[i];
            mean_h[i] = corner_h[i] * bins.before_h[i] + size_h[i] * bins.own_h[i];
            for_left[i] = within(pulled.slope_left * scalar::sigmoid(bins.left[i] + self.offset));
            for_right[i] = within(pulled.slope_right * scalar::sigmoid(bins.right[i] + self.offset));
        }
        step.store(cotangent, from, &g);
        let (sizes, slopes) = numbers.split_at_mut(2 * self.bins * lanes);
        let (widths, heights) = sizes.split_at_mut(self.bins * lanes);
        for (rows, corner, size, mean) in [(widths, corner_w, size_w, mean_w), (heights, corner_h, size_h, mean_h)] {
            for (k, row) in rows.chunks_exact_mut(lanes).enumerate() {
                let k = E::of(k as f64);
                let mut p = step.load(row, from);
                for i in 0..WIDTH {
                    // A bin's corner is moved by all bins before it.
                    let by_corner = if k < bins.index[i] { corner[i] } else { E::zero() };
                    let by_size = if k == bins.index[i] { size[i] } else { by_corner };
                    p[i] *= self.scale * (by_size - mean[i]);
                }
                step.store(row, from, &p);
            }
        }
        for (k, row) in slopes.chunks_exact_mut(lanes).enumerate() {
            let (k, next) = (E::of(k as f64), E::of((k + 1) as f64));
            let mut slope = zeros;
            for i in 0..WIDTH {
                let as_right = if bins.index[i] == k { for_right[i] } else { E::zero() };
                slope[i] = if bins.index[i] == next { for_left[i] } else { as_right };
            }
            step.store(row, from, &slope);
        }
    }
}
