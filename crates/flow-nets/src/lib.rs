//! What the families of flows share below them: the networks that condition, with explicit derivatives, and what they
//! condition.
//!
//! [`Transformer`] is an element-wise bijection whose parameters a [`ConditionerNet`] gives; a [`Split`] says which
//! features of a row pass. [`ResidualMlp`] and [`Kan`] condition couplings of rows, [`ConvNet`] and [`TokenNet`] those
//! of whole images, [`SampleCoupling`]s; the kernel of all is [`CouplingKernel`]. [`MaskedMlp`] conditions autoregressive
//! flows;
//! [`smooth`] holds the network of residual and continuous flows, with derivatives of second order. All are fused
//! kernels on feature-major blocks.

mod bound_watch;
mod conditioner;
mod convolutional;
mod coupling;
mod kan;
mod masked_mlp;
mod residual_mlp;
mod sample_coupling;
pub mod smooth;
mod split;
mod taped;
mod tokens;
mod transformers;

pub use bound_watch::BoundWatch;
pub use conditioner::{ConditionerKernel, ConditionerNet, TapedNet};
pub use convolutional::{ConvLayers, ConvNet, ConvNetConfig};
pub use coupling::CouplingKernel;
pub use kan::{Kan, KanConfig};
pub use masked_mlp::{MaskedMlp, MaskedMlpConfig, MaskedMlpKernel, MaskedSteps};
pub use residual_mlp::{Activation, ResidualMlp, ResidualMlpConfig, ResidualMlpKernel};
pub use sample_coupling::SampleCoupling;
pub use split::{Partition, Progression, Split};
pub use taped::{columns_at, with_condition};
pub use tokens::{TokenLayout, TokenMixing, TokenNet, TokenNetConfig};
pub use transformers::{
    Additive, Affine, AffineSpec, RationalQuadratic, SigmoidAffine, SigmoidAffineSpec, SplineSpec, TapedTransformer, Transformer,
    TransformerSpec,
};
