//! `MixerFlow` and a toolkit for normalizing flows.
//!
//! One `use` for a library user: the contract ([`api`]), the families ([`coupling`], [`autoregressive`], [`lipschitz`],
//! [`ffjord`], [`glow`], [`jet`]), the mixing skeleton ([`mixerflow`]) and training ([`train`]), with every family
//! registered, so that specs can name it.
//!
//! ```
//! use mixerflow_toolkit::prelude::*;
//!
//! let spec: Spec<dyn ModelSpec> = from_ron("MixerFlow(
//!     patch: 2,
//!     layers: 4,
//!     channel: [ActNorm(), LuLinear(), AffineCoupling(hidden: 32)],
//!     patches: [ActNorm(), LuLinear(), SplineCoupling(hidden: 32)],
//! )")?;
//! let digits = EventShape::Image { channels: 1, height: 8, width: 8 };
//! let mut model = spec.build::<f32>(digits, 7)?;
//!
//! let images = vec![0.0, 0.1, 0.2, -0.3].repeat(64); // four images of 64 numbers
//! # let images: Vec<f32> = images.iter().enumerate().map(|(i, x)| x + (i as f32 * 0.7).sin()).collect();
//! let cx = Context::new(1);
//! model.initialise(images.clone(), &cx)?;
//! let density = model.log_prob(images, &cx)?;
//! assert_eq!(density.value.len(), 4);
//! let samples = model.sample(2, 1.0, &cx)?;
//! assert_eq!(samples.len(), 2 * 64);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub use flow_api as api;
pub use flow_api::{dfdx, noise};
#[cfg(feature = "cuda")]
pub use flow_cuda as cuda;
pub use flow_train as train;
pub use flows_autoregressive as autoregressive;
pub use flows_coupling as coupling;
pub use flows_ffjord as ffjord;
pub use flows_glow as glow;
pub use flows_jet as jet;
pub use flows_lipschitz as lipschitz;
pub use mixerflow;

/// What most programs need: to read specs, to compose flows in Rust, and to write flows and models of one's own.
///
/// dfdx's prelude has a `Module` and `Gradients` too: a file that takes both preludes whole names these two,
/// `use mixerflow_toolkit::api::{Gradients, Module}`.
pub mod prelude {
    pub use flow_api::bases::{BaseDensity, DiagonalNormal, StandardNormal};
    pub use flow_api::bijector::{BoxBijector, Mapped};
    pub use flow_api::compose::{InverseOf, Then};
    pub use flow_api::context::Kernels;
    pub use flow_api::flow::LogProb;
    pub use flow_api::log_det::LogDet;
    pub use flow_api::module::parameter_count;
    pub use flow_api::rows::{
        ElementMap, ElementWise, Inverted, MappedRows, Number, RowChain, RowKernel, RowView, Rows, Taped, TapedFlow, TapedMap, TapedRows,
    };
    pub use flow_api::samples::{Grid, SampleKernel, SampleLayer, Side, Skeleton};
    pub use flow_api::spec::{
        BaseSpec, BuildBase, BuildModel, BuildRowFlow, BuildSampleFlow, BuildScope, ConditionSpec, EventBijector, EventShape, FlowSpec,
        Given, Model, ModelSpec, Preprocessing, RowFlowSpec, SampleFlowSpec, SampleSpec, Spec, SpecError, SpecScalar, from_ron, to_ron,
    };
    pub use flow_api::{
        Bijector, Conditions, Context, Facts, Flow, FlowError, Gradients, InverseKind, Memory, Mode, Module, Parameter, RowFlow,
        SampleFlow, Scalar, Tensor, bases, layers, module_fields, register_base, register_model, register_row_flow, register_sample_flow,
        shape_error, to_host,
    };
}

/// The README's example, compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
