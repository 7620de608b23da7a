//! The contract of normalizing flows: bijections of typed tensors with their log-determinants.
//!
//! A [`Bijector`] maps a batch forward (data to latent) and back, each time with log|det J| per sample; a [`Flow`] is
//! one with a [`BaseDensity`]. Bijectors compose statically ([`Then`]) and dynamically ([`RowChain`], [`Skeleton`]).
//! Training needs no tape across layers: a layer's [`pullback`](Bijector::pullback) takes its input, what it kept, or
//! its output (a bijection can recover its input), by the [`Memory`] setting.
//!
//! To write a flow of your own:
//! - on rows of R^d: implement [`RowFlow`], by a fused kernel ([`RowKernel`]) or in dfdx operations ([`TapedRows`], a
//!   forward pass and an inverse);
//! - on whole samples: implement [`SampleFlow`];
//! - then run [`testkit`] on it, and register a spec so that RON files can name it ([`spec`]).

pub mod bases;
mod bijector;
mod compose;
mod conditions;
mod context;
mod dense;
pub mod device;
mod error;
mod facts;
mod flow;
mod gradients;
pub mod layers;
mod log_det;
mod module;
mod rows;
mod samples;
mod scalar;
pub mod spec;
mod standardiser;
pub mod testkit;
mod threads;

/// The tensor library, in the version that the public types are of.
pub use dfdx;
/// Random numbers of a context, a function of seed, step, path and row: [`Context::noise`] and [`BaseDensity::sample`]
/// speak of them.
pub use flow_kernels::noise;
/// Scratch memory of kernels, which a [`RowTape`] keeps.
pub use flow_kernels::workspace::Buffer;

pub use bases::{BaseDensity, DiagonalNormal, StandardNormal};
pub use bijector::{Bijector, BoxBijector, Cotangent, Kept, LayerInfo, Mapped, Point, Pulled, foreign_point, leads_to, shape_error};
pub use compose::{InverseOf, Pinned, Then};
pub use conditions::Conditions;
pub use context::{Context, Keep, Kernels, Memory, Mode};
pub use dense::{LastLayer, Mlp, MlpPass};
pub use error::{FlowError, Result, StateMismatch};
pub use facts::{Facts, InverseKind};
pub use flow::{Flow, LatentCotangent, Latents, LogProb, Loss};
pub use gradients::Gradients;
pub use log_det::{LogDet, LogDetKind, Probe, SolveReport};
pub use module::{
    Entry, EntryMut, Module, Parameter, Saved, State, Visitor, VisitorMut, load, parameter_count, save, update, update_parameters, visit,
};
pub use rows::{
    AffineMap, BLOCK_LANES, Direction, HostCondition, Lanes, MappedRows, Matrix, Pull, RowChain, RowFlow, RowKernel, RowTape, RowView,
    Rows, Taped, TapedMap, TapedRows, block_condition,
};
pub use samples::{Grid, SampleFlow, SampleKernel, SampleLayer, SamplePoint, SamplePull, SampleTape, Samples, Side, SideKernel, Skeleton};
pub use scalar::{Real, Scalar, Tensor, to_host};
pub use standardiser::{Moments, Standardiser};
pub use threads::{parallel, work_through};
