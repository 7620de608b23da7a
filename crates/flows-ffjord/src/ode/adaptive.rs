//! Steps chosen by an error estimate.

use super::combine::{combine, scaled_squares, terms};
use super::tableau::Tableau;
use super::{Adaptive, Layout, OdeError, System, Work, finite};
use flow_kernels::Real;
use flow_kernels::workspace::Buffer;

/// A rest of the interval that is longer than the step by no more than this factor is done in the same step, rather
/// than left over as a sliver.
const STRETCH: f64 = 1.01;

/// The norm by which errors are judged.
struct Norm<'s, E> {
    layout: &'s Layout,
    atol: E,
    rtol: E,
}

impl<E: Real> Norm<'_, E> {
    /// The largest RMS of a controlled part of Σ aᵢ xᵢ / (atol + rtol max(|y₀|, |y₁|)).
    fn of(&self, combination: &[(E, &[E])], y0: &[E], y1: &[E]) -> f64 {
        let mut largest = 0.0;
        for part in self.layout.controlled.iter().filter(|part| !part.is_empty()) {
            let terms: Vec<_> = combination.iter().map(|&(a, x)| (a, &x[part.clone()])).collect();
            let squares = scaled_squares(&terms, &y0[part.clone()], &y1[part.clone()], self.atol, self.rtol);
            let rms = (squares.as_f64() / part.len() as f64).sqrt();
            // A comparison would lose a NaN.
            if rms.is_nan() {
                return rms;
            }
            largest = f64::max(largest, rms);
        }
        largest
    }
}

/// Solves from `from` to `to`, which differ.
pub(super) fn solve<E: Real, S: System<E> + ?Sized>(
    tableau: &Tableau,
    settings: &Adaptive,
    system: &mut S,
    [from, to]: [f64; 2],
    y: &mut [E],
) -> Result<Work, OdeError> {
    let layout = system.layout(y.len());
    let norm = Norm { layout: &layout, atol: E::of(settings.atol), rtol: E::of(settings.rtol) };
    let direction = (to - from).signum();
    let order = f64::from(tableau.order);
    let last = tableau.nodes.len() - 1;
    let mut k: Vec<Buffer<E>> = tableau.nodes.iter().map(|_| Buffer::take(y.len())).collect();
    let (mut stage, mut next) = (Buffer::take(layout.coupled), Buffer::take(y.len()));

    system.derivative(from, &y[..layout.coupled], &mut k[0]);
    finite("the derivative", &k[0])?;
    let mut h = {
        let (first, rest) = k.split_at_mut(1);
        let (next, scratch) = (&mut next, &mut rest[0]);
        first_step(&norm, order, system, [from, to], y, &first[0], next, scratch)
    };
    let mut work = Work { evaluations: 2, ..Work::default() };
    let mut t = from;
    loop {
        let remaining = (to - t).abs();
        if h < settings.smallest_step || (t + direction * h).total_cmp(&t).is_eq() {
            return Err(OdeError::StepUnderflow { t, dt: direction * h, nfe: work.evaluations });
        }
        if work.evaluations + last > settings.max_evaluations {
            return Err(OdeError::TooManyEvaluations { t, nfe: work.evaluations, limit: settings.max_evaluations });
        }
        let arrives = STRETCH * h >= remaining;
        h = if arrives { remaining } else { h };
        let dt = direction * h;
        for i in 1..last {
            let (before, own) = k.split_at_mut(i);
            combine(&mut stage, y, &terms(dt, tableau.stages[i], before));
            let needed = tableau.needed(i, layout.coupled, y.len());
            system.derivative(t + tableau.nodes[i] * dt, &stage, &mut own[0][..needed]);
        }
        let (before, own) = k.split_at_mut(last);
        combine(&mut next, y, &terms(dt, tableau.weights, before));
        let arrival = if arrives { to } else { t + dt };
        // It enters the next step, if there is one, and the error.
        let needed = if arrives { layout.judged(y.len()) } else { y.len() };
        system.derivative(arrival, &next[..layout.coupled], &mut own[0][..needed]);
        work.evaluations += last;

        let ratio = norm.of(&terms(dt, tableau.error, &k), y, &next);
        let allowed = settings.safety * ratio.powf(-1.0 / order);
        if ratio <= 1.0 {
            work.accepted += 1;
            work.error += ratio;
            t = arrival;
            y.copy_from_slice(&next);
            if arrives {
                return Ok(work);
            }
            k.swap(0, last);
            h *= allowed.clamp(1.0, settings.growth);
        } else {
            work.rejected += 1;
            // A NaN says nothing about the step that would do.
            h *= if ratio.is_finite() { allowed.clamp(settings.shrink, 1.0) } else { settings.shrink };
        }
    }
}

/// The rule of Hairer, Nørsett & Wanner, section II.4, for a method whose error estimate is of order p − 1;
/// `torchdiffeq` takes the same.
#[allow(clippy::too_many_arguments, reason = "the state of a solve that has not begun")]
fn first_step<E: Real, S: System<E> + ?Sized>(
    norm: &Norm<'_, E>,
    order: f64,
    system: &mut S,
    [from, to]: [f64; 2],
    y: &[E],
    slope: &[E],
    next: &mut [E],
    next_slope: &mut [E],
) -> f64 {
    let one = E::one();
    let (size, speed) = (norm.of(&[(one, y)], y, y), norm.of(&[(one, slope)], y, y));
    let (direction, span) = ((to - from).signum(), (to - from).abs());
    let guess = if size < 1e-5 || speed < 1e-5 { 1e-6 } else { 0.01 * size / speed };
    let guess = guess.min(span);
    combine(next, y, &[(E::of(direction * guess), slope)]);
    system.derivative(from + direction * guess, &next[..norm.layout.coupled], &mut next_slope[..norm.layout.judged(y.len())]);
    let bend = norm.of(&[(one, next_slope), (-one, slope)], y, y) / guess;
    let step = if speed <= 1e-15 && bend <= 1e-15 { f64::max(1e-6, guess * 1e-3) } else { (0.01 / speed.max(bend)).powf(1.0 / order) };
    // NaN in a trial that went too far: begin with the guess.
    if step.is_finite() { step.min(100.0 * guess).min(span) } else { guess }
}
