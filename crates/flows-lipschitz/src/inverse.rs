//! x from y = x + g(x), by fixed-point iteration on a block of rows.

use crate::lanes;
use flow_api::log_det::SolveReport;
use flow_api::{FlowError, Result};
use flow_kernels::workspace::Buffer;
use flow_kernels::{Real, vectorized};
use serde::{Deserialize, Serialize};

/// How the inverse is found and when it is good enough.
///
/// # Iteration
/// x ← y − g(x) = x + r with the residual r = y − x − g(x), from x = y on (Behrmann et al. 2019, arXiv:1811.00995,
/// section 3, algorithm 1): every step divides ‖r‖ by at least 1/L. Anderson's acceleration of depth m (Walker & Ni
/// 2011, "Anderson Acceleration for Fixed-Point Iterations", SIAM J. Numer. Anal. 49) takes, in every row, the
/// combination of the last m steps with the least linearised residual; a step that does not lessen the residual is
/// taken back and replaced by a plain one, so it converges wherever the plain iteration is a contraction.
///
/// # Stopping
/// By the true residual ‖x + g(x) − y‖₂ of every row, in units of the data, evaluated at the very x that is returned.
/// Rows that are done leave the iteration.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FixedPoint {
    /// The largest residual; but no smaller than 4 units in the last place of the larger of ‖y‖ and ‖g(x)‖, which is
    /// what rounding leaves. Default: 1e-5 in f32 and 1e-10 in f64.
    pub tolerance: Option<f64>,
    /// Evaluations of g that a row gets. Default 1000.
    pub max_iterations: usize,
    /// Steps m that Anderson's acceleration combines; 0 is the plain iteration, at most 8. Default 3.
    pub anderson: usize,
}

impl Default for FixedPoint {
    fn default() -> Self {
        Self { tolerance: None, max_iterations: 1000, anderson: 3 }
    }
}

/// The deepest history.
pub(crate) const MAX_DEPTH: usize = 8;

impl FixedPoint {
    /// The tolerance for numbers of type E.
    pub(crate) fn tolerance<E: Real>(&self) -> f64 {
        self.tolerance.unwrap_or(if size_of::<E>() == 4 { 1e-5 } else { 1e-10 })
    }

    /// y → x in place, for `lanes` rows; `g` writes g(x) for a block of some of the rows, given their places.
    ///
    /// # Errors
    /// [`FlowError::NotConverged`], with the row (counted from `first_row` on) whose residual is the largest.
    pub(crate) fn solve<E: Real>(
        &self,
        values: &mut [E],
        lanes: usize,
        first_row: u64,
        mut g: impl FnMut(&[E], &[usize], &mut [E]),
    ) -> Result<SolveReport> {
        let mut state = State::new(values, lanes, self.anderson, self.tolerance::<E>());
        let mut report = SolveReport::default();
        while state.lanes() > 0 {
            if report.iterations == self.max_iterations || state.diverged() {
                let (residual, row) = state.worst();
                return Err(FlowError::NotConverged {
                    layer: String::new(),
                    iterations: report.iterations,
                    residual,
                    tolerance: self.tolerance::<E>(),
                    row: usize::try_from(first_row).unwrap_or(usize::MAX).saturating_add(row),
                });
            }
            report.iterations += 1;
            state.evaluate(&mut g);
            report.residual = report.residual.max(state.finish(values, lanes));
            state.step();
        }
        report.evaluations = report.iterations;
        Ok(report)
    }
}

/// The rows that are still iterated.
///
/// `rows` holds, feature-major, sections of d × lanes each: y, the trial x, its residual r, the best x so far, its
/// residual, and the last `depth` differences of best x and of their residuals.
struct State<E: Real> {
    dim: usize,
    depth: usize,
    rows: Buffer<E>,
    lanes: Vec<Lane>,
    tolerance: f64,
    iteration: usize,
}

/// Where the sections begin, in sections; y is the first, and the best x is followed by its residual.
const X: usize = 1;
const R: usize = 2;
const BEST_X: usize = 3;
const HISTORY: usize = 5;

/// What is known of one row. Squares are added up in f64, where those of f32 do not overflow.
#[derive(Clone, Copy)]
struct Lane {
    /// Its place in the block.
    index: usize,
    /// ‖y‖².
    size: f64,
    /// The residual that will do.
    tolerance: f64,
    /// ‖r‖ of the trial x.
    residual: f64,
    /// ‖r‖ of the best x.
    best: f64,
    /// The trial x is the result of a combination of steps.
    accelerated: bool,
}

impl<E: Real> State<E> {
    fn new(y: &[E], lanes: usize, depth: usize, tolerance: f64) -> Self {
        let dim = y.len() / lanes.max(1);
        let mut rows = Buffer::zeroed((HISTORY + 2 * depth) * y.len());
        rows[..y.len()].copy_from_slice(y);
        rows[X * y.len()..][..y.len()].copy_from_slice(y);
        let mut sizes = vec![0.0; lanes];
        add_squares(&mut sizes, y);
        let lane = |(index, size)| Lane { index, size, tolerance, residual: f64::INFINITY, best: f64::INFINITY, accelerated: false };
        Self { dim, depth, rows, lanes: sizes.into_iter().enumerate().map(lane).collect(), tolerance, iteration: 0 }
    }

    fn lanes(&self) -> usize {
        self.lanes.len()
    }

    /// Numbers in a section.
    fn section(&self) -> usize {
        self.dim * self.lanes()
    }

    /// Some row's best residual has overflowed: there is no way back.
    fn diverged(&self) -> bool {
        self.iteration > 0 && self.lanes.iter().any(|lane| !lane.best.is_finite())
    }

    /// The largest residual, and the row that it is in.
    fn worst(&self) -> (f64, usize) {
        let worst = |(residual, row), lane: &Lane| {
            // NaN is the worst of all.
            if lane.best <= residual { (residual, row) } else { (lane.best, lane.index) }
        };
        self.lanes.iter().fold((-1.0, 0), worst)
    }

    /// r = y − x − g(x), its norms, and what of them is rounding.
    fn evaluate(&mut self, g: &mut impl FnMut(&[E], &[usize], &mut [E])) {
        let (section, lanes) = (self.section(), self.lanes());
        let (before, behind) = self.rows.split_at_mut(R * section);
        let (y, x) = before.split_at(section);
        let r = &mut behind[..section];
        let places: Vec<usize> = self.lanes.iter().map(|lane| lane.index).collect();
        g(x, &places, r);
        let (mut sizes, mut squares) = (vec![0.0; lanes], vec![0.0; lanes]);
        add_squares(&mut sizes, r);
        residual(r, y, x);
        add_squares(&mut squares, r);
        for (lane, (size, square)) in self.lanes.iter_mut().zip(sizes.into_iter().zip(squares)) {
            lane.residual = square.sqrt();
            // An infinite size excuses no residual.
            let rounding = 4.0 * E::epsilon().as_f64() * lane.size.max(size).min(f64::MAX).sqrt();
            lane.tolerance = self.tolerance.max(rounding);
        }
    }

    /// Writes the rows that are done to `values` and lets them leave; the largest of their residuals.
    fn finish(&mut self, values: &mut [E], block_lanes: usize) -> f64 {
        let lanes = self.lanes();
        let is_done = |lane: &Lane| lane.residual <= lane.tolerance;
        let x = &self.rows[X * self.section()..];
        let mut largest = 0.0;
        for (at, lane) in self.lanes.iter().enumerate().filter(|(_, lane)| is_done(lane)) {
            for j in 0..self.dim {
                values[j * block_lanes + lane.index] = x[j * lanes + at];
            }
            largest = f64::max(largest, lane.residual);
        }
        let kept: Vec<usize> = (0..lanes).filter(|&at| !is_done(&self.lanes[at])).collect();
        if kept.len() < lanes {
            // Element by element from the front: none is read after it has been written.
            let sections = HISTORY + 2 * self.depth;
            for row in 0..sections * self.dim {
                for (to, &from) in kept.iter().enumerate() {
                    self.rows[row * kept.len() + to] = self.rows[row * lanes + from];
                }
            }
            self.lanes.retain(|lane| !is_done(lane));
        }
        largest
    }

    /// The next trial x.
    fn step(&mut self) {
        let (section, lanes, depth) = (self.section(), self.lanes(), self.depth);
        if lanes == 0 {
            return;
        }
        // 1 where the trial x is taken; a plain step always is.
        let taken: Vec<bool> = self.lanes.iter().map(|lane| lane.residual < lane.best || !lane.accelerated).collect();
        let slot = if depth == 0 { 0 } else { self.iteration % depth };
        let (front, history) = self.rows.split_at_mut(HISTORY * section);
        let (trial, best) = front.split_at_mut(BEST_X * section);
        let (trial_x, trial_r) = trial[X * section..].split_at_mut(section);
        let (best_x, best_r) = best.split_at_mut(section);
        if depth > 0 {
            let (history_x, history_r) = history.split_at_mut(depth * section);
            // The first step has nothing before it.
            let differs = self.iteration > 0;
            difference(&mut history_x[slot * section..][..section], trial_x, best_x, differs, &taken);
            difference(&mut history_r[slot * section..][..section], trial_r, best_r, differs, &taken);
            // A row whose step is taken back forgets its history.
            for (at, _) in taken.iter().enumerate().filter(|(_, taken)| !**taken) {
                history.iter_mut().skip(at).step_by(lanes).for_each(|h| *h = E::zero());
            }
        }
        select(best_x, trial_x, &taken);
        select(best_r, trial_r, &taken);
        trial_x.copy_from_slice(best_x);
        for (x, &r) in trial_x.iter_mut().zip(&*best_r) {
            *x += r;
        }
        for (lane, &taken) in self.lanes.iter_mut().zip(&taken) {
            lane.best = if taken { lane.residual } else { lane.best };
            lane.accelerated = false;
        }
        if depth > 0 && self.iteration > 0 {
            let (history_x, history_r) = history.split_at(depth * section);
            let weights = combination(history_r, best_r, lanes, depth);
            for (lane, at) in self.lanes.iter_mut().zip(0..) {
                lane.accelerated = weights.iter().skip(at).step_by(lanes).any(|w| *w != E::zero());
            }
            for (i, weights) in weights.chunks_exact(lanes).enumerate() {
                lanes::add_scaled(trial_x, weights, &history_x[i * section..][..section]);
                lanes::add_scaled(trial_x, weights, &history_r[i * section..][..section]);
            }
        }
        self.iteration += 1;
    }
}

/// The weights γ (depth × lanes) with the least ‖r + Σ γᵢ Δrᵢ‖ in every row, by the normal equations with a touch of
/// regularisation.
fn combination<E: Real>(history_r: &[E], r: &[E], lanes: usize, depth: usize) -> Vec<E> {
    let section = r.len();
    let difference = |i: usize| &history_r[i * section..][..section];
    let mut gram = vec![E::zero(); depth * (depth + 1) * lanes];
    for i in 0..depth {
        for j in 0..=i {
            lanes::add_products(&mut gram[(i * (depth + 1) + j) * lanes..][..lanes], difference(i), difference(j));
        }
        lanes::add_products(&mut gram[(i * (depth + 1) + depth) * lanes..][..lanes], difference(i), r);
    }
    let mut weights = vec![E::zero(); depth * lanes];
    for lane in 0..lanes {
        let at = |i: usize, j: usize| gram[(i * (depth + 1) + j) * lanes + lane].as_f64();
        let solved = solve_normal(depth, at, E::epsilon().as_f64());
        for (i, weight) in solved.into_iter().take(depth).enumerate() {
            weights[i * lanes + lane] = E::of(-weight);
        }
    }
    weights
}

/// x with (A + λ I) x = b by Cholesky's factorisation, where A's lower triangle is at(i, j) and b at(i, n); zeros if
/// there is none.
fn solve_normal(n: usize, at: impl Fn(usize, usize) -> f64, epsilon: f64) -> [f64; MAX_DEPTH] {
    let mut x = [0.0; MAX_DEPTH];
    let mut factor = [[0.0; MAX_DEPTH]; MAX_DEPTH];
    let trace: f64 = (0..n).map(|i| at(i, i)).sum();
    for i in 0..n {
        for j in 0..=i {
            let ridge = if i == j { 4.0 * epsilon * trace } else { 0.0 };
            let rest = at(i, j) + ridge - (0..j).map(|k| factor[i][k] * factor[j][k]).sum::<f64>();
            factor[i][j] = if i == j { rest.sqrt() } else { rest / factor[j][j] };
        }
        // NaN is none either.
        if factor[i][i].is_nan() || factor[i][i] <= 0.0 {
            return [0.0; MAX_DEPTH];
        }
        x[i] = (at(i, n) - (0..i).map(|k| factor[i][k] * x[k]).sum::<f64>()) / factor[i][i];
    }
    for i in (0..n).rev() {
        x[i] = (x[i] - (i + 1..n).map(|k| factor[k][i] * x[k]).sum::<f64>()) / factor[i][i];
    }
    if x.iter().all(|x| x.is_finite()) { x } else { [0.0; MAX_DEPTH] }
}

vectorized! {
    /// g(x) → y − x − g(x) in place.
    fn residual<E: Real>(r: &mut [E], y: &[E], x: &[E]) {
        for ((r, &y), &x) in r.iter_mut().zip(y).zip(x) {
            *r = (y - x) - *r;
        }
    }

    /// `out[r] += Σ_j x[j, r]²`.
    fn add_squares<E: Real>(out: &mut [f64], x: &[E]) {
        for x in x.chunks_exact(out.len().max(1)) {
            for (out, &x) in out.iter_mut().zip(x) {
                let x = x.as_f64();
                *out += x * x;
            }
        }
    }

    /// a − b in the lanes that are taken, if it is to be taken at all, else 0.
    fn difference<E: Real>(out: &mut [E], a: &[E], b: &[E], differs: bool, taken: &[bool]) {
        let lanes = taken.len();
        for ((out, a), b) in out.chunks_exact_mut(lanes).zip(a.chunks_exact(lanes)).zip(b.chunks_exact(lanes)) {
            for (((out, &a), &b), &taken) in out.iter_mut().zip(a).zip(b).zip(taken) {
                *out = if differs && taken { a - b } else { E::zero() };
            }
        }
    }

    /// a = b in the lanes that are taken.
    fn select<E: Real>(a: &mut [E], b: &[E], taken: &[bool]) {
        for (a, b) in a.chunks_exact_mut(taken.len()).zip(b.chunks_exact(taken.len())) {
            for ((a, &b), &taken) in a.iter_mut().zip(b).zip(taken) {
                *a = if taken { b } else { *a };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(anderson: usize) -> FixedPoint {
        FixedPoint { anderson, ..FixedPoint::default() }
    }

    /// g(x) = A x + ½ sin(x) · share, A a rotation by a right angle times `size`, on any number of rows of R².
    fn rotate(size: f64, share: f64) -> impl FnMut(&[f64], &[usize], &mut [f64]) {
        move |x, places, out| {
            let lanes = places.len();
            for r in 0..lanes {
                out[r] = -size * x[lanes + r] + share * x[r].sin();
                out[lanes + r] = size * x[r] + share * x[lanes + r].sin();
            }
        }
    }

    #[test]
    fn rows_are_solved_to_their_true_residual() {
        for (depth, size, share) in [(0, 0.6, 0.3), (0, 0.9, 0.0), (1, 0.6, 0.3), (3, 0.6, 0.3), (3, 0.9, 0.0), (8, 0.5, 0.45)] {
            // Rows of very different sizes, one of them zero: they finish one after the other.
            let x: Vec<f64> = (0..40).map(|i| if i == 20 || i == 0 { 0.0 } else { f64::from(i) * 10f64.powi(i % 7 - 5) }).collect();
            let mut y = vec![0.0; x.len()];
            let all: Vec<usize> = (0..20).collect();
            rotate(size, share)(&x, &all, &mut y);
            y.iter_mut().zip(&x).for_each(|(y, x)| *y += x);
            let mut found = y.clone();
            let report = settings(depth).solve(&mut found, 20, 0, rotate(size, share)).unwrap();
            let mut again = vec![0.0; x.len()];
            rotate(size, share)(&found, &all, &mut again);
            let residual = |r: usize| [r, r + 20].map(|at| y[at] - found[at] - again[at]).iter().map(|d| d * d).sum::<f64>().sqrt();
            let largest = (0..20).map(residual).fold(0.0, f64::max);
            assert!(largest <= 1e-10 && (largest - report.residual).abs() < 1e-13, "depth {depth}: {largest} and {}", report.residual);
            assert!(found.iter().zip(&x).all(|(f, x)| (f - x).abs() < 1e-8));
            assert!(report.iterations > 3 && report.iterations < [300, 60, 40][depth.min(2)], "depth {depth}: {}", report.iterations);
            assert_eq!(report.evaluations, report.iterations);
        }
    }

    #[test]
    fn what_is_no_contraction_does_not_converge() {
        for depth in [0, 3] {
            // No solution within reach: x + g(x) = x + x² + 1 has no zero.
            let unsolvable = |x: &[f64], _: &[usize], out: &mut [f64]| out.iter_mut().zip(x).for_each(|(o, x)| *o = x * x + 1.0);
            let error = settings(depth).solve(&mut [0.0, -3.0], 2, 100, unsolvable).unwrap_err();
            let FlowError::NotConverged { iterations, residual, tolerance, row, .. } = error else { panic!("{error}") };
            assert!(
                iterations <= 1000 && (residual.is_nan() || residual > 0.5) && (tolerance - 1e-10).abs() < 1e-20,
                "{iterations}, {residual}"
            );
            assert!(row == 100 || row == 101);
        }
        // Turned outwards at every step.
        let error = settings(0).solve(&mut [1.0, 1.0], 1, 7, rotate(1.5, 0.0)).unwrap_err();
        assert!(matches!(error, FlowError::NotConverged { row: 7, .. }), "{error}");
        // Too few iterations.
        let few = FixedPoint { max_iterations: 3, ..settings(0) };
        let error = few.solve(&mut [1.0, 1.0], 1, 0, rotate(0.9, 0.0)).unwrap_err();
        let FlowError::NotConverged { iterations: 3, residual, .. } = error else { panic!("{error}") };
        // After three evaluations two steps are done, each of which turns and shrinks the residual g(y) = 0.9 ‖y‖.
        assert!((residual - 0.9_f64.powi(3) * 2f64.sqrt()).abs() < 1e-12);
    }

    #[test]
    fn acceleration_takes_fewer_evaluations() {
        let evaluations = |depth| settings(depth).solve(&mut [1.0, -0.4], 1, 0, rotate(0.7, 0.2)).unwrap().evaluations;
        let (plain, accelerated) = (evaluations(0), evaluations(3));
        assert!(3 * accelerated < plain, "{accelerated} instead of {plain}");
    }
}
