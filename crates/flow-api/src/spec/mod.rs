//! Architectures as text: specs are plain data that build bijectors, and every family registers its own.
//!
//! A spec is a RON value such as `AffineCoupling(hidden: 128, blocks: 2)`. Row flows ([`RowFlowSpec`]) plug into any
//! model, maps of whole samples ([`SampleFlowSpec`]) into models of images; models ([`ModelSpec`]) are what a file
//! holds. All are open: a crate registers a kind with [`register_row_flow!`](crate::register_row_flow),
//! [`register_sample_flow!`](crate::register_sample_flow), [`register_base!`](crate::register_base) or
//! [`register_model!`](crate::register_model), and every spec file can name it.

mod bases;
mod bounds;
mod by_level;
mod condition;
mod conditioner;
mod cost;
mod dense;
#[cfg(feature = "ron")]
mod edit;
mod element_maps;
mod error;
mod event;
mod flows;
mod head;
mod image;
mod kinds;
mod latents;
mod limits;
#[cfg(feature = "linalg")]
mod lu_linear;
mod model;
mod objective;
mod preprocessing;
mod receivers;
#[cfg(feature = "ron")]
mod ron_text;
mod sample_flows;
mod samples;
mod scope;
mod standardiser;
mod table;
mod vector;

pub use bases::{Conditional, DiagonalNormal, Logistic, Mixture, StandardNormal, StudentT, Uniform};
pub use bounds::Bounds;
pub use condition::{Classes, ConditionSpec, Vector};
pub use conditioner::{Conditioner, ConditionerPass};
pub use cost::{Cost, MAX_FLOWS, MAX_NUMBERS, MAX_PREPARATION};
pub use dense::{LastLayer, Mlp, MlpPass};
#[cfg(feature = "ron")]
pub use edit::set_field;
pub use element_maps::{LeakyRelu, Logit, SinhArcsinh, Softsign};
pub use error::SpecError;
pub use event::{EventBijector, EventFlow, EventShape};
pub use flows::{ActNorm, Order, Permutation, build_flows};
pub use head::Head;
pub use image::{ImageFlow, image_grid};
pub use kinds::{
    BaseDensitySpec, BaseSpec, BuildBase, BuildModel, BuildRowFlow, BuildSampleFlow, FlowSpec, Kind, ModelSpec, RowFlowSpec,
    SampleFlowSpec, SampleSpec, Spec, SpecScalar,
};
pub use latents::LatentLevel;
pub use limits::{MAX_EVENT, MAX_LAYERS, MAX_SIZE, MAX_WEIGHTS, size_range};
#[cfg(feature = "linalg")]
pub use lu_linear::LuLinear;
pub use model::{Conditioned, Model};
pub use objective::{HeadSpec, ObjectiveSpec};
pub use preprocessing::Preprocessing;
pub use receivers::{Receiver, Receivers};
#[cfg(feature = "ron")]
pub use ron_text::{from_ron, to_ron};
pub use sample_flows::{ChannelWise, PixelWise, Repeat, Squeeze};
pub use samples::{below, build_sample_flows, grid_behind, one_flow, turns_of};
pub use scope::{BuildScope, Given};
pub use standardiser::{Moments, Standardiser};
pub use table::{LayerTable, Table};
pub use vector::VectorFlow;
