//! Flows on R^d that are shared by all rows of a batch: the plug-in of the mixing skeleton.
//!
//! [`RowFlow`] is what a family implements; [`RowKernel`] is its form for one call, on blocks of rows in host memory;
//! [`RowView`] says which numbers of a sample are its rows; [`RowChain`] composes row flows; [`Rows`] makes a
//! [`Bijector`](crate::Bijector) of one. [`ElementMap`] and [`TapedFlow`] are two short ways to write one.

mod affine;
mod blocks;
mod chain;
mod element_wise;
mod flow;
mod kernel;
mod matrix;
mod number;
mod taped;
mod taped_flow;
mod tensor;
mod view;

/// The number type of kernels, and the scratch memory that a [`RowTape`] keeps.
pub use flow_kernels::{Real, workspace::Buffer};

pub use affine::AffineMap;
pub(crate) use affine::{AffineKernel, AffinePart};
pub(crate) use blocks::finite;
pub use blocks::{BLOCK_LANES, HostCondition, block_condition};
pub use chain::RowChain;
pub use element_wise::{ElementMap, ElementWise, Inverted};
pub use flow::RowFlow;
pub use kernel::{Direction, Lanes, Pull, RowKernel, RowTape};
pub use matrix::Matrix;
pub use number::Number;
pub use taped::{MappedRows, Taped, TapedMap, TapedRows};
pub use taped_flow::TapedFlow;
pub use tensor::Rows;
pub use view::RowView;
