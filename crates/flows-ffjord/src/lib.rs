//! Continuous normalizing flows: FFJORD.
//!
//! [`ContinuousFlow`] carries rows along a learned vector field ([`Field`]) and integrates the trace of its Jacobian as
//! the log-det. [`Ffjord`] is its spec, and registers the kind of that name. The parts:
//!
//! - [`ode`]: explicit Runge-Kutta solvers, adaptive and with fixed steps, on a block of rows;
//! - [`Trace`]: the exact trace, or Hutchinson's estimate with its standard error;
//! - [`Gradient`]: the continuous [`Adjoint`], or the gradient of the discrete steps;
//! - [`Regularisation`]: kinetic energy and Jacobian norm, after RNODE.
//!
//! # Why solvers of our own
//! A block of rows is one flat slice of memory that a solver should step in place, in f32 with the time in f64, with
//! the derivative written by the network's kernels, and by an error norm that sees the parts of the state (z, log-det,
//! adjoint, gradients) and may leave one out. What the crates at hand lack for that:
//!
//! - `ode_solvers` 0.6: the state is an nalgebra vector of its own, which `integrate` clones for every stage of every
//!   step, with a temporary for every term; every step's state is kept; the time has the state's number type; one norm
//!   over the whole state.
//! - `differential-equations` 0.7: the state is a value type that is cloned and allocated anew at every stage;
//!   Dormand-Prince works on the state through accessors of single numbers; the time has the state's number type; one
//!   norm over the whole state; numbers behind the coupled part (log-dets, gradients) are carried through all stages.
//! - `diffsol` 0.18: made for stiff systems from modelling languages: a problem is a set of operator types (right-hand
//!   side, mass matrix, roots, Jacobian) over its own vector types and contexts, built once and solved for long, not
//!   made for thousands of blocks a second; the time has the state's number type; its adjoint keeps checkpoints of the
//!   forward solve and is for its own equations.
//!
//! All three have good controllers and dense output, which a flow does not need. What is needed is
//! [`Solver::solve`](ode::Solver::solve), a few hundred lines.

mod activation;
mod adjoint;
mod build;
mod discrete;
mod field;
mod flow;
mod forward;
mod moment;
mod objective;
pub mod ode;
mod setting;
mod shallow;
mod spec;
mod trace;

pub use activation::Activation;
pub use adjoint::Adjoint;
pub use field::{Field, TimeInput};
pub use flow::{ContinuousFlow, Penalty};
pub use flow_api::log_det::Probe;
pub use objective::Regularisation;
pub use spec::{EndTime, Ffjord, Gradient};
pub use trace::{Hutchinson, Trace};
