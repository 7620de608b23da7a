//! The rational-quadratic-spline transformer.

mod segment;

use crate::math;
use crate::transformer::Transformer;
use flow_api::{FlowError, Result, RowTape, Scalar};
use flow_kernels::workspace::Buffer;
use num_traits::Float;
use segment::Segment;

/// Least width and height of a bin as a part of the interval, and least slope at a knot.
const LEAST: f64 = 1e-3;

/// A monotone rational-quadratic spline of K bins on \[−B, B\], the identity outside: Durkan et al., "Neural Spline Flows" (arXiv:1906.04032), with linear tails.
///
/// # The conditioner's output
/// 3K − 1 numbers for every moved feature, those of one feature together: K for the widths, K for the heights, K − 1 for the slopes at the inner knots. Widths are
/// 2B(10⁻³ + (1 − 10⁻³K) softmax), heights likewise, slopes 10⁻³ + softplus(number + o) with the offset o ([`RationalQuadratic::slope_offset`]) at which a number of zero is a slope
/// of one; the slope at both ends of the interval is one. So where the conditioner is zero, y = x exactly.
/// The authors' code has no such offset: its unnormalised derivatives are these numbers plus o.
///
/// There is no plain dfdx form (dfdx has neither a cumulative sum nor a search): a spline coupling runs on host row blocks on every device.
///
/// The spline alone, on slices, for three numbers with a spline of their own each; the log-slopes are added to the last slice:
/// ```
/// use flow_api::RowTape;
/// use flow_kernels::workspace::Buffer;
/// use flows_coupling::{RationalQuadratic, Transformer};
/// let spline = RationalQuadratic::new(4, 3.0)?;
/// let (mut values, mut log_slopes) = ([-1.0, 0.5, 7.0], [0.0; 3]);
/// // Number i of value r at `i * 3 + r`; widths of all but the first value's first bin as at the start.
/// let mut numbers = Buffer::<f64>::zeroed(Transformer::<f64>::numbers(&spline) * 3);
/// numbers[0] = 1.0;
/// spline.forward(&mut values, numbers, &mut log_slopes, &mut RowTape::idle());
/// assert!(values[0] < -1.0 && log_slopes[0] != 0.0);
/// assert_eq!((values[1], values[2], log_slopes[1], log_slopes[2]), (0.5, 7.0, 0.0, 0.0));
/// # Ok::<(), flow_api::FlowError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RationalQuadratic<E> {
    bins: usize,
    bound: E,
    offset: E,
    /// The least slope, so rounded that a number of zero is a slope of exactly one.
    least_slope: E,
    /// Size of a bin per unit of softmax, and at the least.
    scale: E,
    least: E,
}

impl<E: Scalar> RationalQuadratic<E> {
    /// A spline of `bins` bins on ±`tail_bound`.
    ///
    /// # Errors
    /// [`FlowError::Setting`] for less than 2 or more than 999 bins, and for a bound whose double is not a finite number above 0.
    pub fn new(bins: usize, tail_bound: E) -> Result<Self> {
        if !(2..1000).contains(&bins) {
            let expected = "between 2 and 999".to_owned();
            return Err(FlowError::Setting { layer: "SplineCoupling".to_owned(), field: "bins", expected, got: bins.to_string() });
        }
        let bound = crate::positive("SplineCoupling", "tail_bound", tail_bound)?;
        let interval = crate::positive("SplineCoupling", "tail_bound", bound + bound)?;
        let offset = E::of(((1.0 - LEAST).exp() - 1.0).ln());
        let least_slope = E::one() - math::softplus(offset);
        let scale = interval * E::of(1.0 - LEAST * bins as f64);
        Ok(Self { bins, bound, offset, least_slope, scale, least: interval * E::of(LEAST) })
    }

    /// ln(e^(1 − 10⁻³) − 1), which is added to a slope's number before the softplus.
    pub fn slope_offset(&self) -> E {
        self.offset
    }

    fn inside(&self, x: E) -> bool {
        x >= -self.bound && x <= self.bound
    }

    #[inline(always)]
    fn clamped(&self, x: E) -> E {
        Float::max(Float::min(x, self.bound), -self.bound)
    }

    /// The numbers of widths and heights of one feature become their softmax.
    fn normalise(&self, numbers: &mut [E], lanes: usize, scratch: &mut [E]) {
        let (largest, sum) = scratch[..2 * lanes].split_at_mut(lanes);
        for part in numbers[..2 * self.bins * lanes].chunks_exact_mut(self.bins * lanes) {
            largest.copy_from_slice(&part[..lanes]);
            for row in part.chunks_exact(lanes) {
                largest.iter_mut().zip(row).for_each(|(largest, &x)| *largest = Float::max(*largest, x));
            }
            sum.fill(E::zero());
            for row in part.chunks_exact_mut(lanes) {
                for ((x, &largest), sum) in row.iter_mut().zip(&*largest).zip(&mut *sum) {
                    *x = math::exp(*x - largest);
                    *sum += *x;
                }
            }
            for row in part.chunks_exact_mut(lanes) {
                row.iter_mut().zip(&*sum).for_each(|(x, &sum)| *x /= sum);
            }
        }
    }

    /// Where bin number `bin` starts, given the softmax of all bins before it.
    #[inline(always)]
    fn edge(&self, bin: E, before: E) -> E {
        self.scale * before + (self.least * bin - self.bound)
    }

    /// Finds every lane's bin: the last one that starts at or below it. `WAY` says along which axis.
    fn locate<const WAY: usize>(&self, at: &[E], numbers: &[E], bins: &mut Bins<E>) {
        let lanes = at.len();
        let row = |k: usize| &numbers[k * lanes..][..lanes];
        let (heights, slopes) = (self.bins, 2 * self.bins);
        let [before_w, own_w, before_h, own_h, left, right, bin, sum_w, sum_h] = bins.rows(lanes);
        for zeros in [&mut *before_w, &mut *before_h, &mut *left, &mut *bin] {
            zeros.fill(E::zero());
        }
        for (to, from) in
            [(&mut *own_w, row(0)), (sum_w, row(0)), (&mut *own_h, row(heights)), (sum_h, row(heights)), (&mut *right, row(slopes))]
        {
            to.copy_from_slice(from);
        }
        for k in 1..self.bins {
            let number = E::of(k as f64);
            let (w, h, l) = (row(k), row(heights + k), row(slopes + k - 1));
            // The number of the last knot is zero, like that of the first.
            let last = k + 1 == self.bins;
            let r = if last { l } else { row(slopes + k) };
            for i in 0..lanes {
                let start = self.edge(number, if WAY == FORWARD { sum_w[i] } else { sum_h[i] });
                let here = self.clamped(at[i]) >= start;
                let choose = |new: E, old: E| if here { new } else { old };
                before_w[i] = choose(sum_w[i], before_w[i]);
                before_h[i] = choose(sum_h[i], before_h[i]);
                own_w[i] = choose(w[i], own_w[i]);
                own_h[i] = choose(h[i], own_h[i]);
                left[i] = choose(l[i], left[i]);
                right[i] = choose(if last { E::zero() } else { r[i] }, right[i]);
                bin[i] = choose(number, bin[i]);
                sum_w[i] += w[i];
                sum_h[i] += h[i];
            }
        }
    }

    /// The bin of a lane, from what [`RationalQuadratic::locate`] found.
    #[inline(always)]
    fn segment(&self, [before_w, own_w, before_h, own_h, left, right, bin]: [E; 7]) -> Segment<E> {
        Segment {
            left: self.edge(bin, before_w),
            bottom: self.edge(bin, before_h),
            width: self.scale * own_w + self.least,
            height: self.scale * own_h + self.least,
            slope_left: self.least_slope + math::softplus(left + self.offset),
            slope_right: self.least_slope + math::softplus(right + self.offset),
        }
    }

    /// Both directions: the features of a block one by one.
    fn run<const WAY: usize>(&self, values: &mut [E], mut numbers: Buffer<E>, log_det: &mut [E], tape: &mut RowTape<E>) {
        let lanes = log_det.len();
        let mut bins = Bins::new(lanes);
        let mut x = Buffer::take(if tape.is_recording() { values.len() } else { 0 });
        if WAY == FORWARD {
            let kept = x.len();
            x.copy_from_slice(&values[..kept]);
        }
        for (values, numbers) in values.chunks_exact_mut(lanes).zip(numbers.chunks_exact_mut((3 * self.bins - 1) * lanes)) {
            self.normalise(numbers, lanes, &mut bins.0);
            self.locate::<WAY>(values, numbers, &mut bins);
            let rows = bins.rows(lanes);
            for i in 0..lanes {
                let segment = self.segment([rows[0][i], rows[1][i], rows[2][i], rows[3][i], rows[4][i], rows[5][i], rows[6][i]]);
                let (value, at) = (values[i], self.clamped(values[i]));
                let (mapped, log_slope) = if WAY == FORWARD { segment.forward(at) } else { segment.inverse(at) };
                let signed = if WAY == FORWARD { log_slope } else { -log_slope };
                values[i] = if self.inside(value) { self.clamped(mapped) } else { value };
                log_det[i] += if self.inside(value) { signed } else { E::zero() };
            }
        }
        if WAY == INVERSE {
            let kept = x.len();
            x.copy_from_slice(&values[..kept]);
        }
        tape.push(numbers);
        tape.push(x);
    }

    /// ∂L/∂numbers of one feature in the place of what was kept of them.
    fn pull_feature(&self, x: &[E], numbers: &mut [E], cotangent: &mut [E], log_det: &[E], bins: &mut Bins<E>) {
        let lanes = x.len();
        self.locate::<FORWARD>(x, numbers, bins);
        let [before_w, own_w, before_h, own_h, left, right, bin, mean_w, mean_h] = bins.rows(lanes);
        // The rows of a bin's properties take the derivatives by them: own_w and own_h those by its size, before_w and before_h those by its corner.
        for i in 0..lanes {
            let found = [before_w[i], own_w[i], before_h[i], own_h[i], left[i], right[i], bin[i]];
            let (for_x, pulled) = self.segment(found).pull(self.clamped(x[i]), cotangent[i], log_det[i]);
            let inside = self.inside(x[i]);
            let within = |value: E| if inside { value } else { E::zero() };
            cotangent[i] = if inside { for_x } else { cotangent[i] };
            mean_w[i] = within(pulled.left * before_w[i] + pulled.width * own_w[i]);
            mean_h[i] = within(pulled.bottom * before_h[i] + pulled.height * own_h[i]);
            (before_w[i], own_w[i]) = (within(pulled.left), within(pulled.width));
            (before_h[i], own_h[i]) = (within(pulled.bottom), within(pulled.height));
            left[i] = within(pulled.slope_left * math::sigmoid(left[i] + self.offset));
            right[i] = within(pulled.slope_right * math::sigmoid(right[i] + self.offset));
        }
        let (sizes, slopes) = numbers.split_at_mut(2 * self.bins * lanes);
        let (widths, heights) = sizes.split_at_mut(self.bins * lanes);
        for (part, before, own, mean) in [(widths, before_w, own_w, mean_w), (heights, before_h, own_h, mean_h)] {
            for (k, row) in part.chunks_exact_mut(lanes).enumerate() {
                let k = E::of(k as f64);
                for i in 0..lanes {
                    // A bin's corner is moved by all bins before it.
                    let by_size = if k < bin[i] { before[i] } else { E::zero() };
                    let by_size = if k == bin[i] { own[i] } else { by_size };
                    row[i] *= self.scale * (by_size - mean[i]);
                }
            }
        }
        for (k, row) in slopes.chunks_exact_mut(lanes).enumerate() {
            let (k, next) = (E::of(k as f64), E::of((k + 1) as f64));
            for i in 0..lanes {
                let as_right = if bin[i] == k { right[i] } else { E::zero() };
                row[i] = if bin[i] == next { left[i] } else { as_right };
            }
        }
    }
}

const FORWARD: usize = 0;
const INVERSE: usize = 1;

/// What is known of every lane's bin: softmax before it and its own, for widths and heights; numbers of the slopes at its ends; its index. Two rows more are scratch.
struct Bins<E: Scalar>(Buffer<E>);

impl<E: Scalar> Bins<E> {
    const ROWS: usize = 9;

    fn new(lanes: usize) -> Self {
        Self(Buffer::take(Self::ROWS * lanes))
    }

    fn rows(&mut self, lanes: usize) -> [&mut [E]; 9] {
        let mut rows = self.0.chunks_exact_mut(lanes);
        std::array::from_fn(|_| rows.next().unwrap_or_default())
    }
}

impl<E: Scalar> Transformer<E> for RationalQuadratic<E> {
    fn kind(&self) -> &'static str {
        "SplineCoupling"
    }

    fn numbers(&self) -> usize {
        3 * self.bins - 1
    }

    fn forward(&self, values: &mut [E], numbers: Buffer<E>, log_det: &mut [E], tape: &mut RowTape<E>) {
        self.run::<FORWARD>(values, numbers, log_det, tape);
    }

    fn inverse(&self, values: &mut [E], numbers: Buffer<E>, log_det: &mut [E], tape: &mut RowTape<E>) {
        self.run::<INVERSE>(values, numbers, log_det, tape);
    }

    fn pullback(&self, cotangent: &mut [E], log_det: &[E], tape: &mut RowTape<E>) -> Result<Buffer<E>> {
        let (x, mut numbers) = (tape.pop()?, tape.pop()?);
        let lanes = log_det.len();
        let mut bins = Bins::new(lanes);
        let features = x.chunks_exact(lanes).zip(numbers.chunks_exact_mut((3 * self.bins - 1) * lanes));
        for ((x, numbers), cotangent) in features.zip(cotangent.chunks_exact_mut(lanes)) {
            self.pull_feature(x, numbers, cotangent, log_det, &mut bins);
        }
        Ok(numbers)
    }
}
