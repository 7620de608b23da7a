//! Explicit Runge-Kutta solvers for dy/dt = f(t, y), where y is one flat slice: a block of rows.
//!
//! A solve steps one block by the error of that block alone. Time is kept in f64 whatever the numbers are, so that many
//! small steps add up; it may run in either direction. Nothing loops for ever: a step that vanishes, more evaluations
//! or steps than a limit, and numbers that are not finite are errors.
//!
//! ```
//! use flows_ffjord::ode::{Adaptive, Solver};
//! // x' = −x from 1, over [0, 2], and back.
//! let solver = Solver::Dopri5(Adaptive { rtol: 1e-9, atol: 1e-9, ..Adaptive::default() });
//! let mut decay = |_t: f64, x: &[f64], dx: &mut [f64]| dx[0] = -x[0];
//! let mut x = [1.0];
//! let work = solver.solve(&mut decay, 0.0, 2.0, &mut x)?;
//! assert!((x[0] - (-2.0_f64).exp()).abs() < 1e-8 && work.accepted > 0);
//! solver.solve(&mut decay, 2.0, 0.0, &mut x)?;
//! assert!((x[0] - 1.0).abs() < 1e-7);
//! # Ok::<(), flows_ffjord::ode::OdeError>(())
//! ```

mod adaptive;
pub(crate) mod combine;
mod fixed;
pub(crate) mod tableau;

pub(crate) use fixed::{Grid, advance};

use flow_kernels::Real;
use num_traits::Float;
use serde::{Deserialize, Serialize};
use std::ops::Range;
use tableau::Tableau;

/// The right-hand side of dy/dt = f(t, y).
///
/// A closure `FnMut(f64, &[E], &mut [E])` is one, with the plain [`Layout`].
pub trait System<E> {
    /// Writes f(t, y) to `derivative`. Where the state has quadratures behind its coupled part (see [`Layout`]), `y`
    /// may be the coupled part alone, and `derivative` is too where no quadrature is needed: as long as the state, or
    /// as the coupled part.
    fn derivative(&mut self, t: f64, y: &[E], derivative: &mut [E]);

    /// How a state of this length is made up. By default every number counts, as one part.
    fn layout(&self, len: usize) -> Layout {
        Layout { coupled: len, controlled: std::iter::once(0..len).collect() }
    }
}

impl<E, F: FnMut(f64, &[E], &mut [E])> System<E> for F {
    fn derivative(&mut self, t: f64, y: &[E], derivative: &mut [E]) {
        self(t, y, derivative);
    }
}

/// How a state is made up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Length of the leading part that the derivative depends on. Behind it lie quadratures, such as a log-det: they
    /// need no value at inner stages.
    pub coupled: usize,
    /// The parts whose error is controlled. The error of a step is the largest of the parts' root mean squares (as in
    /// `torchdiffeq` for a tuple of states), so that a short part counts as much as a long one. A part that is left out
    /// is integrated, but does not shorten the steps.
    pub controlled: Vec<Range<usize>>,
}

impl Layout {
    /// How much of a derivative an error estimate needs, of a state of this length: the quadratures only if one of them
    /// is controlled.
    fn judged(&self, len: usize) -> usize {
        if self.controlled.iter().any(|part| part.end > self.coupled) { len } else { self.coupled }
    }
}

/// Settings of the methods that choose their steps by an error estimate.
///
/// A step of size h with error estimate e is accepted if the RMS over the state of e / (atol + rtol max(|y|, |y⁺|)) is
/// at most 1. The next step is h · min(growth, max(safety / ratio^(1/p), shrink)), and never shorter after an accepted
/// one. The first step is found by the rule of Hairer, Nørsett & Wanner, "Solving Ordinary Differential Equations I",
/// section II.4, at the price of one evaluation.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Adaptive {
    /// Relative tolerance. Default 1e-5.
    pub rtol: f64,
    /// Absolute tolerance. Default 1e-5.
    pub atol: f64,
    /// Factor on the step that the error estimate would allow, below 1. Default 0.9.
    pub safety: f64,
    /// Smallest factor from one step to the next, below 1. Default 0.2.
    pub shrink: f64,
    /// Largest factor from one step to the next, at least 1. Default 10.
    pub growth: f64,
    /// Steps below this one, in units of time, are [`OdeError::StepUnderflow`]; so are those that no longer change the
    /// time, whatever this is. Default 0.
    pub smallest_step: f64,
    /// Most evaluations of one solve, beyond which it is [`OdeError::TooManyEvaluations`]. Default 10,000.
    pub max_evaluations: usize,
}

impl Default for Adaptive {
    fn default() -> Self {
        Self { rtol: 1e-5, atol: 1e-5, safety: 0.9, shrink: 0.2, growth: 10.0, smallest_step: 0.0, max_evaluations: 10_000 }
    }
}

/// The most steps of a fixed grid.
pub const MAX_STEPS: usize = 1 << 20;

/// Settings of the methods with fixed steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fixed {
    /// Steps of equal size over the interval, 1 to [`MAX_STEPS`]; in a spec, to [`MAX_SIZE`](flow_api::spec::MAX_SIZE).
    pub steps: usize,
}

/// A method with its settings; in RON for example `Dopri5(rtol: 1e-5, atol: 1e-5)` or `Rk4(steps: 8)`.
///
/// | method | order | evaluations a step | source |
/// |---|---|---|---|
/// | `Dopri5` | 5(4) | 6 | Dormand & Prince 1980, error weights of Shampine 1986 |
/// | `Bosh3` | 3(2) | 3 | Bogacki & Shampine 1989: cheaper at loose tolerances |
/// | `Rk4` | 4 | 4 | Kutta 1901 |
/// | `Midpoint` | 2 | 2 | Runge 1895 |
/// | `Euler` | 1 | 1 | |
///
/// # Error
/// A solve is the continuous flow's up to the method's error. An adaptive method holds every step to its tolerance. A
/// fixed grid is held to nothing: one that is too coarse gives a map of its own, whose log-det is not the integrated
/// trace and whose inverse is not the solve back. An Euler step of ż = −a z maps x to (1 − a) x, whose log-det is ln|1
/// − a|; the integrated trace is −a, and the step back gives (1 − a²) x. Likelihoods by a fixed grid want steps so
/// small that more of them change nothing; the residual of an inverse ([`SolveReport`](flow_api::log_det::SolveReport))
/// tells when they are not.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum Solver {
    /// Dormand-Prince 5(4), adaptive.
    Dopri5(Adaptive),
    /// Bogacki-Shampine 3(2), adaptive.
    Bosh3(Adaptive),
    /// The classical method of order 4.
    Rk4(Fixed),
    /// The explicit midpoint rule.
    Midpoint(Fixed),
    /// Euler's method.
    Euler(Fixed),
}

impl Default for Solver {
    fn default() -> Self {
        Self::Dopri5(Adaptive::default())
    }
}

/// How a method chooses its steps.
pub(crate) enum Steps {
    Adaptive(Adaptive),
    Fixed(usize),
}

impl Solver {
    pub(crate) fn parts(&self) -> (&'static Tableau, Steps) {
        match *self {
            Self::Dopri5(settings) => (&tableau::DOPRI5, Steps::Adaptive(settings)),
            Self::Bosh3(settings) => (&tableau::BOSH3, Steps::Adaptive(settings)),
            Self::Rk4(Fixed { steps }) => (&tableau::RK4, Steps::Fixed(steps)),
            Self::Midpoint(Fixed { steps }) => (&tableau::MIDPOINT, Steps::Fixed(steps)),
            Self::Euler(Fixed { steps }) => (&tableau::EULER, Steps::Fixed(steps)),
        }
    }

    /// The order p of the method: over a fixed interval the error falls as h^p.
    pub fn order(&self) -> u8 {
        self.parts().0.order
    }

    /// Evaluations of the shortest solve that the method can make: all steps of a fixed grid, or one accepted step with
    /// the choice of the first step size.
    pub fn least_evaluations(&self) -> usize {
        match self.parts() {
            (tableau, Steps::Adaptive(_)) => tableau.nodes.len() + 1,
            (tableau, Steps::Fixed(steps)) => tableau.nodes.len().saturating_mul(steps),
        }
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// [`OdeError::Setting`] for tolerances, factors and numbers of steps that no solve can be run with.
    pub fn check(&self) -> Result<(), OdeError> {
        let Adaptive { rtol, atol, safety, shrink, growth, smallest_step, max_evaluations } = match self.parts().1 {
            Steps::Adaptive(settings) => settings,
            Steps::Fixed(1..=MAX_STEPS) => return Ok(()),
            Steps::Fixed(steps) => return Err(OdeError::Setting { field: "steps", expected: "1 to 1048576", got: steps.to_string() }),
        };
        let below_one = |x: f64| x > 0.0 && x < 1.0;
        let tolerance = |x: f64| x >= 0.0 && x.is_finite();
        let numbers = [
            ("rtol", rtol, "a finite number, at least 0", tolerance(rtol)),
            ("atol", atol, "a finite number greater than 0", tolerance(atol) && atol > 0.0),
            ("safety", safety, "a number between 0 and 1", below_one(safety)),
            ("shrink", shrink, "a number between 0 and 1", below_one(shrink)),
            ("growth", growth, "a finite number, at least 1", growth >= 1.0 && growth.is_finite()),
            ("smallest_step", smallest_step, "a finite number, at least 0", tolerance(smallest_step)),
        ];
        match numbers.into_iter().find(|(.., valid)| !valid) {
            Some((field, got, expected, _)) => Err(OdeError::Setting { field, expected, got: got.to_string() }),
            None if max_evaluations == 0 => {
                Err(OdeError::Setting { field: "max_evaluations", expected: "at least 1", got: "0".to_owned() })
            }
            None => Ok(()),
        }
    }

    /// Checks the settings for numbers of type E: tolerances are rounded to it.
    ///
    /// # Errors
    /// As [`Solver::check`], and [`OdeError::Setting`] for an absolute tolerance that E does not hold at full
    /// precision, or a relative one that is infinite in it.
    pub fn check_in<E: Real>(&self) -> Result<(), OdeError> {
        self.check()?;
        let Steps::Adaptive(Adaptive { rtol, atol, .. }) = self.parts().1 else { return Ok(()) };
        let numbers = [
            ("rtol", rtol, "a number that is finite in the state's type", Float::is_finite(E::of(rtol))),
            ("atol", atol, "a number that the state's type holds at full precision", Float::is_normal(E::of(atol))),
        ];
        match numbers.into_iter().find(|(.., valid)| !valid) {
            Some((field, got, expected, _)) => Err(OdeError::Setting { field, expected, got: format!("{got:e}") }),
            None => Ok(()),
        }
    }

    /// Solves from time `from` to time `to`, which may be the earlier one; `y` is the state at `from`, and then the one
    /// at `to`.
    ///
    /// Where both times are the same nothing is evaluated and `y` stays as it is.
    ///
    /// # Errors
    /// [`OdeError`]: settings that [`Solver::check_in`] refuses, a vanishing step, too many evaluations, numbers that
    /// are not finite. `y` is then unspecified.
    pub fn solve<E: Real, S: System<E> + ?Sized>(&self, system: &mut S, from: f64, to: f64, y: &mut [E]) -> Result<Work, OdeError> {
        self.check_in::<E>()?;
        finite("the initial state", y)?;
        if !(to - from).is_finite() {
            return Err(OdeError::NotFinite { what: "the time interval", index: 0 });
        }
        if (to - from).abs() == 0.0 || y.is_empty() {
            return Ok(Work::default());
        }
        match self.parts() {
            (tableau, Steps::Adaptive(settings)) => adaptive::solve(tableau, &settings, system, [from, to], y),
            (tableau, Steps::Fixed(steps)) => {
                let work = advance(tableau, system, Grid { from, to, steps }, 0..steps, y);
                finite("the state", y).map(|()| work)
            }
        }
    }
}

/// All numbers are finite.
pub(crate) fn finite<E: Real>(what: &'static str, y: &[E]) -> Result<(), OdeError> {
    match y.iter().position(|y| !Float::is_finite(*y)) {
        None => Ok(()),
        Some(index) => Err(OdeError::NotFinite { what, index }),
    }
}

/// What a solve did.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Work {
    /// Evaluations of the right-hand side.
    pub evaluations: usize,
    /// Accepted steps.
    pub accepted: usize,
    /// Rejected steps.
    pub rejected: usize,
    /// Sum over the accepted steps of their estimated errors, each in units of the tolerance, so at most the number of
    /// steps; 0 for a fixed grid, which has no estimates.
    pub error: f64,
}

/// What can go wrong in a solve.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum OdeError {
    /// A setting that no solve can be run with.
    #[error("{field}: expected {expected}, got {got}")]
    Setting {
        /// The setting.
        field: &'static str,
        /// Which values it takes.
        expected: &'static str,
        /// The value that it has.
        got: String,
    },
    /// The step became smaller than allowed, or than what time resolves: the system is too stiff for an explicit method
    /// at this tolerance, or has a singularity.
    #[error("step size underflow at t = {t}: dt = {dt:e} after {nfe} evaluations")]
    StepUnderflow {
        /// Time reached.
        t: f64,
        /// The step that would have been needed.
        dt: f64,
        /// Evaluations spent.
        nfe: usize,
    },
    /// The limit on evaluations would be passed by the next step.
    #[error("{nfe} evaluations and only at t = {t}; the limit is {limit}")]
    TooManyEvaluations {
        /// Time reached.
        t: f64,
        /// Evaluations spent.
        nfe: usize,
        /// The limit.
        limit: usize,
    },
    /// NaN or infinity where a number has to be.
    #[error("{what} is not finite at index {index}")]
    NotFinite {
        /// Which quantity.
        what: &'static str,
        /// Index within the state.
        index: usize,
    },
}
