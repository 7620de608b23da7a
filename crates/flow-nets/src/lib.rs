//! The networks that the families of flows share, with kernels on row blocks.

mod residual_mlp;

pub use residual_mlp::{Activation, ResidualMlp, ResidualMlpConfig, ResidualMlpKernel};
//! Conditioner networks that the flow families share, with explicit derivatives.
pub mod smooth;
