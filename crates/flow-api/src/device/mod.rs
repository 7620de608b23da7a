//! Models on a device that is not the host: what a flow is there, as data, and the contract of an engine.
//!
//! A flow does not know devices. It describes itself: a [`RowFlow`](crate::RowFlow) by a list of [`RowForm`]s, affine
//! maps and couplings with their numbers; a layer of whole samples by a list of [`SideForm`]s, rows of a view. An
//! [`Engine`] turns the description of a whole model into a [`Session`], which maps batches there and back. What has
//! no form is said by path, and no engine loads a model with such a part: nothing is moved to the host in silence.
//!
//! [`Model::on`](crate::spec::Model::on) puts a model's bijector on a device. It stays a model: scoring, sampling and
//! embedding know nothing of it. The base density, dequantisation and preprocessing remain on the host, so that
//! latents and noise are the same bit for bit on every device.

mod engine;
mod error;
mod form;
mod on_device;

pub use engine::{DeviceInfo, Engine, Session};
pub use error::{DeviceError, MissingForm};
pub use form::{ActivationForm, CouplingForm, LinearForm, NetForm, RowForm, SideForm, TransformerForm, missing_forms};
pub use on_device::OnDevice;
