//! The networks that the families of flows share, with kernels on row blocks.

mod residual_mlp;
pub mod smooth;

pub use residual_mlp::{Activation, ResidualMlp, ResidualMlpConfig, ResidualMlpKernel};
