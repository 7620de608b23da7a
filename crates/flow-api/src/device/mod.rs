//! Models on a device that is not the host: what a flow is there, as data, and the contract of an engine.
//!
//! A flow does not know devices. It describes itself: a [`RowFlow`](crate::RowFlow) by a list of [`RowForm`]s, affine
//! maps, couplings and maps of single numbers with their parameters; a layer of whole samples by a list of
//! [`SideForm`]s, rows of a view. An [`Engine`] turns the description of a whole model into a [`Session`], which maps
//! batches there and back. What has no form is said by path, and no engine loads a model with such a part: nothing is
//! moved to the host in silence.
//!
//! [`Model::on`](crate::spec::Model::on) puts a model's bijector on a device. It stays a model: scoring, sampling and
//! embedding know nothing of it. The base density, dequantisation and preprocessing remain on the host there, so that
//! latents and noise are the same bit for bit on every device. A whole training step, with the base density, the loss,
//! the optimiser and the host's own noise, is the [`TrainingSession`] that an engine may have
//! ([`Engine::train`]).

mod engine;
mod error;
mod form;
mod on_device;
mod training;

pub use engine::{DeviceInfo, Engine, PulledSums, Session};
pub use error::{DeviceError, MissingForm};
pub use form::{
    ActivationForm, CouplingForm, ElementsForm, LinearForm, NetForm, RowForm, SideForm, Snippet, SplineForm, TransformerForm, missing_forms,
};
pub use on_device::OnDevice;
pub use training::{
    AdamForm, AffinePiece, BaseForm, LevelsForm, Precision, StepForm, StepReport, StepSamples, TrainingSession, TrainingState,
};
