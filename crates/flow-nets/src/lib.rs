//! The networks that the families of flows share, with kernels on row blocks: the residual conditioner of couplings, and smooth networks with explicit first
//! and second derivatives.

mod residual_mlp;
pub mod smooth;

pub use residual_mlp::{Activation, ResidualMlp, ResidualMlpConfig, ResidualMlpKernel};
