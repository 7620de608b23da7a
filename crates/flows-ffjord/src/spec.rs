//! Continuous flows in RON.
//!
//! ```
//! use flow_api::spec::{FlowSpec, from_ron, to_ron};
//! use flows_ffjord as _; // registers the kind
//! let spec: FlowSpec =
//!     from_ron("Ffjord(hidden: 64, layers: 2, time: ConcatSquash, solver: Dopri5(rtol: 1e-5, atol: 1e-5), trace: Hutchinson(probes: 1))")?;
//! assert!(to_ron(&spec)?.contains("evaluation_trace: Exact"));
//! # Ok::<(), flow_api::spec::SpecError>(())
//! ```

use crate::activation::Activation;
use crate::adjoint::Adjoint;
use crate::field::TimeInput;
use crate::objective::Regularisation;
use crate::ode::{OdeError, Solver, Steps};
use crate::setting::setting;
use crate::trace::{Hutchinson, Trace};
use flow_api::spec::{MAX_SIZE, size_range};
use flow_api::{FlowError, Result, Scalar};
use serde::{Deserialize, Serialize};

/// The time T at which a path ends.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum EndTime {
    /// It stays as it is.
    Fixed(f64),
    /// T = s² with s learned, from this T on.
    Learned(f64),
}

/// How gradients are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Gradient {
    /// By the continuous adjoint: memory does not depend on the steps, gradients are exact up to the tolerance.
    Adjoint(Adjoint),
    /// Of the discrete steps themselves: exact to rounding, memory grows with the square root of the steps. For the
    /// methods with fixed steps.
    Discrete,
}

/// [`ContinuousFlow`](crate::ContinuousFlow): a neural ODE.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ffjord {
    /// Width of the field's hidden layers. Default 64.
    pub hidden: usize,
    /// Hidden layers of the field. Default 2.
    pub layers: usize,
    /// The field's nonlinearity: `Tanh` (default), `Softplus` or `Silu`.
    pub activation: Activation,
    /// How the time enters the field. Default `ConcatSquash`.
    pub time: TimeInput,
    /// The end time. Default `Fixed(1.0)`.
    pub end_time: EndTime,
    /// The method and its tolerance: results are those of the continuous flow up to its error, see [`Solver`]. Default
    /// `Dopri5(rtol: 1e-5, atol: 1e-5)`.
    pub solver: Solver,
    /// How the trace is found in training. Default `Hutchinson(probes: 1)`.
    pub trace: Trace,
    /// How the trace is found in evaluation. Default `Exact`.
    pub evaluation_trace: Trace,
    /// How gradients are found. Default `Adjoint(seminorm: true)`.
    pub gradient: Gradient,
    /// Regularisers. Default none.
    pub regularisation: Regularisation,
    /// The field starts as zero, and so the flow as the identity. Default true.
    pub zero_init: bool,
    /// Width of the condition that the field sees besides z. Default that of the model, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub condition: Option<usize>,
}

impl Default for Ffjord {
    fn default() -> Self {
        Self {
            hidden: 64,
            layers: 2,
            activation: Activation::default(),
            time: TimeInput::default(),
            end_time: EndTime::Fixed(1.0),
            solver: Solver::default(),
            trace: Trace::Hutchinson(Hutchinson::default()),
            evaluation_trace: Trace::Exact,
            gradient: Gradient::Adjoint(Adjoint::default()),
            regularisation: Regularisation::default(),
            zero_init: true,
            condition: None,
        }
    }
}

impl Trace {
    pub(crate) fn check(self) -> Result<()> {
        match self {
            Self::Hutchinson(Hutchinson { probes, .. }) if !(1..=MAX_SIZE).contains(&probes) => {
                Err(setting("probes", &size_range(1), probes))
            }
            Self::Exact | Self::Hutchinson(_) => Ok(()),
        }
    }
}

/// The error for a setting of the solver.
fn solver_setting(error: OdeError) -> FlowError {
    match error {
        OdeError::Setting { field, expected, got } => setting(field, expected, got),
        other => setting("solver", "valid settings", other),
    }
}

impl Ffjord {
    /// Checks all settings for a flow in numbers of type E, to which some of them are rounded.
    ///
    /// # Errors
    /// As [`Ffjord::check`], and [`FlowError::Setting`] for tolerances as of [`Solver::check_in`] and a learned end
    /// time whose square root E does not hold at full precision.
    pub fn check_in<E: Scalar>(&self) -> Result<()> {
        self.check()?;
        self.solver.check_in::<E>().map_err(solver_setting)?;
        match self.end_time {
            EndTime::Learned(end) if !E::of(end.sqrt()).is_normal() => {
                let expected = format!("a number whose square root {} holds at full precision", std::any::type_name::<E>());
                Err(setting("end_time", &expected, format!("{end:e}")))
            }
            _ => Ok(()),
        }
    }

    /// Checks all settings.
    ///
    /// # Errors
    /// [`FlowError::Setting`].
    pub fn check(&self) -> Result<()> {
        for (field, size) in [("hidden", self.hidden), ("layers", self.layers)] {
            if !(1..=MAX_SIZE).contains(&size) {
                return Err(setting(field, &size_range(1), size));
            }
        }
        if let Some(width) = self.condition.filter(|width| !(1..=MAX_SIZE).contains(width)) {
            return Err(setting("condition", &size_range(1), width));
        }
        let (EndTime::Fixed(end) | EndTime::Learned(end)) = self.end_time;
        if !(end.is_finite() && end > 0.0) {
            return Err(setting("end_time", "a finite number greater than 0", end));
        }
        if let Steps::Fixed(steps) = self.solver.parts().1
            && !(1..=MAX_SIZE).contains(&steps)
        {
            return Err(setting("steps", &size_range(1), steps));
        }
        self.solver.check().map_err(solver_setting)?;
        self.trace.check()?;
        self.evaluation_trace.check()?;
        for (field, weight) in [("kinetic", self.regularisation.kinetic), ("jacobian", self.regularisation.jacobian)] {
            if !(weight.is_finite() && weight >= 0.0) {
                return Err(setting(field, "a finite number, at least 0", weight));
            }
        }
        if self.gradient == Gradient::Discrete && matches!(self.solver.parts().1, Steps::Adaptive(_)) {
            let expected = "Adjoint with an adaptive solver (Discrete differentiates the steps of Rk4, Midpoint or Euler)";
            return Err(setting("gradient", expected, "Discrete"));
        }
        Ok(())
    }
}
