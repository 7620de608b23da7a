//! The contract of normalizing flows: bijections of typed tensors with their log-determinants.
//!
//! A [`Bijector`] maps a batch forward (data to latent) and back, each time with log|det J| per sample; a [`Flow`] is
//! one with a base density ([`bases`]). Bijectors compose statically ([`compose`]) and dynamically
//! ([`rows::RowChain`], [`samples::Skeleton`]). Training needs no tape across layers: a layer's
//! [`pullback`](Bijector::pullback) takes its input, what it kept, or its output (a bijection can recover its input),
//! by the [`Memory`] setting.
//!
//! To write a flow of your own:
//! - on rows of R^d: implement [`RowFlow`], by a fused kernel ([`rows::RowKernel`]) or in dfdx operations
//!   ([`rows::TapedRows`], a forward pass and an inverse);
//! - on whole samples: implement [`SampleFlow`];
//! - then run [`testkit`] on it, and register a spec so that RON files can name it ([`spec`]).
//!
//! What nearly every author and user names is here at the root; the rest is in the module of its room.

pub mod bases;
pub mod bijector;
pub mod bounds_used;
pub mod compose;
mod conditions;
pub mod context;
pub mod device;
mod error;
mod facts;
pub mod flow;
mod gradients;
pub mod layers;
pub mod log_det;
pub mod module;
pub mod rows;
pub mod samples;
mod scalar;
pub mod spec;
#[cfg(feature = "testkit")]
pub mod testkit;
pub mod threads;

/// The tensor library, in the version that the public types are of.
pub use dfdx;
/// Random numbers of a context, a function of seed, step, path and row: [`Context::noise`] and
/// [`BaseDensity::sample`](bases::BaseDensity::sample) speak of them.
pub use flow_kernels::noise;

pub use bijector::Bijector;
pub use conditions::Conditions;
pub use context::{Context, Memory, Mode};
pub use error::{FlowError, Result, shape_error};
pub use facts::{Facts, InverseKind};
pub use flow::Flow;
pub use gradients::Gradients;
pub use module::{Module, Parameter};
pub use rows::RowFlow;
pub use samples::SampleFlow;
pub use scalar::{Scalar, Tensor, to_host};
