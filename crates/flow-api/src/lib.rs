//! The contract of normalizing flows: bijections of typed tensors with their log-determinants.
//!
//! A [`Bijector`] maps a batch forward (data to latent) and back, each time with log|det J| per sample; a [`Flow`] is one with a [`BaseDensity`].
//! Bijectors compose statically ([`Then`]) and dynamically ([`Chain`], [`RowChain`]). Training needs no tape across layers: a layer's
//! [`pullback`](Bijector::pullback) takes its input, what it kept, or its output (a bijection can recover its input), by the [`Memory`] setting.
//!
//! To write a flow of your own:
//! - in dfdx operations: implement [`TapedBijector`] (a forward pass and an inverse) and wrap it in [`Recorded`];
//! - on rows of R^d, with fused kernels: implement [`RowFlow`];
//! - then run [`testkit`] on it, and register a spec so that RON files can name it ([`spec`]).

mod base;
mod bijector;
mod compose;
mod context;
mod error;
mod flow;
mod gradients;
pub mod layers;
mod log_det;
mod module;
mod recorded;
mod rows;
mod scalar;
pub mod spec;
pub mod testkit;
mod threads;

/// The tensor library, in the version that the public types are of.
pub use dfdx;
/// Random numbers of a context, a function of seed, step, path and row: [`Context::noise`] and [`BaseDensity::sample`] speak of them.
pub use flow_kernels::noise;
/// Scratch memory of kernels, which a [`RowTape`] keeps.
pub use flow_kernels::workspace::Buffer;

pub use base::{BaseDensity, DiagonalNormal, StandardNormal};
pub use bijector::{
    Bijector, BoxBijector, Cotangent, InverseKind, Kept, LayerInfo, Mapped, Point, Pulled, foreign_point, leads_to, shape_error,
};
pub use compose::{Chain, InverseOf, Pinned, Then};
pub use context::{Context, Kernels, Memory, Mode};
pub use error::{FlowError, Result, StateMismatch};
pub use flow::{Flow, LogProb, Loss};
pub use gradients::Gradients;
pub use log_det::{LogDet, LogDetKind, Probe, SolveReport};
pub use module::{
    Entry, EntryMut, Module, Parameter, Saved, State, Visitor, VisitorMut, load, parameter_count, save, update, update_parameters, visit,
};
pub use recorded::{Recorded, TapedBijector};
pub use rows::{
    AffineMap, BLOCK_LANES, BlockedRows, Direction, HostCondition, Lanes, Matrix, PassResult, PlainRows, Pull, RowChain, RowFlow,
    RowKernel, RowPass, RowPoint, RowTape, RowTapes, RowView, Rows, SamplesPoint, Taped, TapedRows, to_host,
};
pub use scalar::{DefaultDevice, FlowDevice, Real, Scalar};
pub use threads::{Threaded, parallel, work_through};
