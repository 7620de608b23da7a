//! Flows on R^d that are shared by all rows of a batch: the plug-in of the mixing skeleton.
//!
//! [`RowFlow`] is what a family implements; [`RowKernel`] is its form for one call, on blocks of rows in host memory; [`RowView`] says which numbers of a
//! sample are its rows; [`RowPass`] runs a kernel over a batch; [`RowChain`] composes row flows; [`Rows`] makes a [`Bijector`](crate::Bijector) of one.

mod affine;
mod blocked;
mod chain;
mod kernel;
mod matrix;
mod run;
mod tensor;
mod view;

pub use affine::AffineMap;
pub(crate) use affine::{AffineKernel, AffinePart};
pub use blocked::BlockedRows;
pub use chain::RowChain;
pub use kernel::{Direction, Lanes, PlainRows, Pull, RowFlow, RowKernel, RowTape, Taped, TapedRows};
pub use matrix::Matrix;
pub use run::{BLOCK_LANES, HostCondition, PassResult, RowPass, RowPoint, RowTapes, SamplesPoint};
pub use tensor::{Rows, to_host};
pub use view::RowView;
