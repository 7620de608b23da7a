//! Building blocks of the fused host kernels.
pub mod matmul;
pub mod noise;
mod scalar;
pub mod workspace;
pub use scalar::Real;
