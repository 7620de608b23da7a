//! What the families of flows share below them: the networks that condition, with explicit derivatives, and what they
//! condition.
//!
//! [`Transformer`] is an element-wise bijection whose parameters a [`ConditionerNet`] gives; a [`Split`] says which
//! features of a row pass. [`ResidualMlp`] and, of images, [`ConvNet`] condition couplings, whose kernel is
//! [`CouplingKernel`]; [`MaskedMlp`] autoregressive flows; [`smooth`] holds the network of residual and continuous
//! flows, with derivatives of second order. All are fused kernels on feature-major blocks.

mod conditioner;
mod convolutional;
mod coupling;
mod masked_mlp;
mod residual_mlp;
pub mod smooth;
mod split;
mod taped;
mod transformers;

pub use conditioner::{ConditionerKernel, ConditionerNet, TapedNet};
pub use convolutional::{ConvLayers, ConvNet, ConvNetConfig};
pub use coupling::CouplingKernel;
pub use masked_mlp::{MaskedMlp, MaskedMlpConfig, MaskedMlpKernel, MaskedSteps};
pub use residual_mlp::{Activation, ResidualMlp, ResidualMlpConfig, ResidualMlpKernel};
pub use split::{Partition, Progression, Split};
pub use taped::{columns_at, with_condition};
pub use transformers::{Additive, Affine, AffineSpec, RationalQuadratic, SplineSpec, TapedTransformer, Transformer, TransformerSpec};
