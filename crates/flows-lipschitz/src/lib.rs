//! Residual flows: y = x + g(x) with a network g of Lipschitz constant below 1.
//!
//! [`ResidualFlow`] is the flow and [`Residual`] its spec, which registers the kind of that name. The parts:
//!
//! - [`LipschitzMlp`]: a network whose weights are divided by their spectral norms, found by a power iteration
//!   ([`PowerIteration`]) that goes on through training;
//! - [`Estimator`]: log|det(I + ∂g/∂x)| exactly, by a truncated series, by Russian roulette, or trained on the Neumann
//!   series of its gradient;
//! - [`FixedPoint`]: the inverse, to a true residual, with Anderson's acceleration.

mod build;
mod estimate;
mod estimator;
mod exact;
mod flow;
mod inverse;
mod kernel;
mod lanes;
mod network;
mod series;
mod setting;
mod spec;
mod spectral;

pub use estimator::{Estimator, Length, Roulette, Truncated};
pub use flow::ResidualFlow;
pub use flow_api::log_det::Probe;
pub use inverse::FixedPoint;
pub use network::{Activation, LipschitzMlp};
pub use spec::Residual;
pub use spectral::PowerIteration;
