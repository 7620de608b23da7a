//! Autoregressive flows: every feature is moved by a transformer whose parameters a masked network makes of the
//! features before it.
//!
//! [`AutoregressiveFlow`] goes from data to latents in one pass of the network, and back feature by feature;
//! [`InverseOf`](flow_api::compose::InverseOf) turns it round (inverse autoregressive flows: fast samples, slow
//! densities of data). Its spec is [`spec::Autoregressive`]: `Autoregressive(…)`.

mod flow;
mod inverse;
mod kernel;
pub mod spec;

pub use flow::AutoregressiveFlow;
pub use inverse::{Inverse, Jacobi};
