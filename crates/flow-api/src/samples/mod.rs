//! Bijections of whole samples: an image, or the matrix of its patches.
//!
//! [`SampleFlow`] is what a layer on whole samples implements, [`SampleKernel`] its form for one call, on a group of
//! samples in host memory. A [`Side`] makes one of a row flow and a
//! view; a convolutional coupling, or one whose conditioner sees all patches, implements it itself. A [`Skeleton`]
//! runs them one after the other: it is the one driver of all kernels.

mod driver;
mod flow;
mod grid;
mod groups;
mod schedule;
mod side;
mod side_kernel;
mod skeleton;

pub(crate) use driver::{Driver, Layers};
pub use flow::{SampleFlow, SampleKernel, SamplePoint, SamplePull, SampleTape, Samples};
pub use grid::Grid;
pub(crate) use groups::Ready;
pub use side::Side;
pub use side_kernel::SideKernel;
pub use skeleton::{SampleLayer, Skeleton};
