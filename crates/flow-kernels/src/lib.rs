//! What fused CPU kernels are made of.
//!
//! # The block
//!
//! A kernel works on a block of rows at a time, small enough that all its activations stay in the cache of a core while
//! the block goes through a layer. A block is **feature-major**: `d` features × `lanes` rows, and the element of
//! feature `j` in lane `r` is at `j * lanes + r`. Hence
//! - element-wise operations run over contiguous memory and vectorise,
//! - a bias or scale is one number a feature, broadcast over the lanes,
//! - the two halves of a coupling are two contiguous ranges,
//! - a log-det per row is a vertical sum over features,
//! - a linear layer is a matrix product `W · X`, with `W` (out × in) and `X` (in × lanes) both row-major, and what
//!   follows it is done to every row of the product while that is in the cache.
//!
//! # The parts
//!
//! - [`Real`]: the number type of all kernels, f32 or f64;
//! - [`scalar`]: elementary functions that LLVM can vectorise;
//! - [`mod@simd`]: run-time dispatch to the widest instruction set, and loops over slices;
//! - [`mod@matmul`]: matrix products over row-major slices, with an epilogue;
//! - [`noise`]: random numbers that are a pure function of seed, step, layer and row;
//! - [`workspace`]: scratch memory that is reused.

mod instruction_set;
pub mod matmul;
pub mod noise;
mod real;
pub mod scalar;
pub mod simd;
mod vector;
pub mod workspace;

pub use real::Real;
