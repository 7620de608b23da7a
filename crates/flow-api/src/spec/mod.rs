//! Architectures as text: specs are plain data that build bijectors, and every family registers its own.
//!
//! A spec is a RON value such as `AffineCoupling(hidden: 128, blocks: 2)`. Row flows ([`RowFlowSpec`]) plug into any
//! model, maps of whole samples ([`SampleFlowSpec`]) into models of images; models ([`ModelSpec`]) are what a file
//! holds. All are open: a crate registers a kind with [`register_row_flow!`](crate::register_row_flow),
//! [`register_sample_flow!`](crate::register_sample_flow), [`register_base!`](crate::register_base) or
//! [`register_model!`](crate::register_model), and every spec file can name it.

mod bases;
mod bounds;
mod build;
mod condition;
mod conditioner;
mod cost;
mod dense;
#[cfg(feature = "ron")]
mod edit;
mod element_maps;
mod error;
mod flows;
mod head;
mod image;
mod kinds;
mod latents;
#[cfg(feature = "linalg")]
mod lu_linear;
mod model;
mod objective;
mod preprocessing;
#[cfg(feature = "ron")]
mod ron_text;
mod sample_flows;
mod samples;
mod standardiser;
mod table;
mod vector;

pub use bases::{BaseDensitySpec, BuildBase, Conditional, DiagonalNormal, Logistic, Mixture, StandardNormal, StudentT, Uniform};
pub use bounds::Bounds;
pub use build::{
    BuildModel, BuildRowFlow, BuildScope, Given, MAX_EVENT, MAX_LAYERS, MAX_SIZE, MAX_WEIGHTS, ModelSpec, RowFlowSpec, SpecScalar,
    size_range,
};
pub use condition::{Classes, ConditionSpec, Receiver, Receivers, Vector};
pub use conditioner::{Conditioner, ConditionerPass};
pub use cost::{Cost, MAX_FLOWS, MAX_NUMBERS, MAX_PREPARATION};
pub use dense::{LastLayer, Mlp, MlpPass};
#[cfg(feature = "ron")]
pub use edit::set_field;
pub use element_maps::{LeakyRelu, Logit, SinhArcsinh, Softsign};
pub use error::SpecError;
pub use flows::{ActNorm, Order, Permutation, build_flows};
pub use head::Head;
pub use image::{ImageFlow, image_grid};
pub use kinds::{BaseSpec, FlowSpec, Kind, SampleSpec, Spec};
pub use latents::LatentLevel;
#[cfg(feature = "linalg")]
pub use lu_linear::LuLinear;
pub use model::{Conditioned, EventBijector, EventFlow, EventShape, Model};
pub use objective::{HeadSpec, ObjectiveSpec};
pub use preprocessing::Preprocessing;
#[cfg(feature = "ron")]
pub use ron_text::{from_ron, to_ron};
pub use sample_flows::{ChannelWise, PixelWise, Repeat, Squeeze};
pub use samples::{BuildSampleFlow, SampleFlowSpec, below, build_sample_flows, grid_behind, one_flow, turns_of};
pub use standardiser::{Moments, Standardiser};
pub use table::{LayerTable, Table};
pub use vector::VectorFlow;
