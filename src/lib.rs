//! `MixerFlow` and a toolkit for normalizing flows.
//!
//! One `use` for a library user: the contract ([`api`]), the families ([`coupling`], [`lipschitz`], [`ffjord`]), the mixing skeleton ([`mixerflow`]) and training ([`train`]), with every
//! family registered, so that specs can name it.
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
//! let mut model = f32::model(spec.0.as_ref(), digits, &BuildScope::new(DefaultDevice::default(), 7))?;
//!
//! let images = vec![0.0, 0.1, 0.2, -0.3].repeat(64); // four images of 64 numbers
//! # let images: Vec<f32> = images.iter().enumerate().map(|(i, x)| x + (i as f32 * 0.7).sin()).collect();
//! let cx = Context::new(1);
//! let batch = model.batch(images.clone())?;
//! model.flow_mut().initialise(batch, &cx)?;
//! let density = model.log_prob(images, &cx)?;
//! assert_eq!(density.value.len(), 4);
//! let samples = model.sample(2, 1.0, &cx)?;
//! assert_eq!(samples.len(), 2 * 64);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub use flow_api as api;
pub use flow_train as train;
pub use flows_coupling as coupling;
pub use flows_ffjord as ffjord;
pub use flows_lipschitz as lipschitz;
pub use mixerflow;

/// What most programs need.
pub mod prelude {
    pub use flow_api::spec::{BuildScope, EventShape, Model, ModelSpec, RowFlowSpec, Spec, SpecError, SpecScalar, from_ron, to_ron};
    pub use flow_api::{
        Bijector, BoxBijector, Chain, Context, DefaultDevice, Flow, FlowDevice, FlowError, Gradients, InverseOf, LogDet, Mapped, Memory,
        Mode, Module, Parameter, Recorded, RowChain, RowFlow, Rows, Scalar, TapedBijector, Then,
    };
}

/// The README's example, compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
