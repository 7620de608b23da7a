//! Glow and its parts in RON.
//!
//! ```
//! use flow_api::spec::{EventShape, ModelSpec, Spec, from_ron};
//! use flows_glow as _; // registers the kinds
//! let glow: Spec<dyn ModelSpec> = from_ron("Glow(levels: 2, steps: 2, coupling: Affine(hidden: 16))")?;
//! let parts: Spec<dyn ModelSpec> = from_ron(
//!     "ImageFlow(flows: [
//!         Squeeze(),
//!         Repeat(times: 2, flows: [ActNorm(), Conv1x1(), ConvCoupling(hidden: 16)]),
//!         FactorOut(),
//!         Squeeze(),
//!         Repeat(times: 2, flows: [ActNorm(), Conv1x1(), ConvCoupling(hidden: 16)]),
//!     ])",
//! )?;
//! let event = EventShape::Image { channels: 3, height: 8, width: 8 };
//! let parameters = |spec: &Spec<dyn ModelSpec>| spec.build::<f32>(event, 7).map(|model| flow_api::module::parameter_count(&model));
//! assert_eq!(parameters(&glow)?, parameters(&parts)?);
//! # Ok::<(), flow_api::spec::SpecError>(())
//! ```

mod glow;
mod parts;

pub use glow::{AffineStep, Glow, SplineStep, StepCoupling};
pub use parts::{Conv1x1, ConvCoupling, FactorOut, Network};
