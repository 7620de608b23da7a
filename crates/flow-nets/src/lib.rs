//! The networks that the families of flows share, as fused kernels on feature-major blocks with explicit derivatives.
//!
//! [`ResidualMlp`] conditions couplings; [`smooth`] holds the network of residual and continuous flows, with derivatives of second order.

mod residual_mlp;
pub mod smooth;

pub use residual_mlp::{Activation, ResidualMlp, ResidualMlpConfig, ResidualMlpKernel};
