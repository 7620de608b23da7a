//! The number types and devices that flows run on.

use crate::Threaded;
use dfdx::prelude::{Cpu, Device, Dtype};
pub use flow_kernels::Real;

/// A number type that flows compute in: `f32` or `f64`.
///
/// It is both a [`Real`] of the host kernels and a dfdx [`Dtype`].
pub trait Scalar: Real + Dtype {}
impl<E: Real + Dtype> Scalar for E {}

/// A dfdx device that flows run on.
///
/// A flow has up to two implementations, tested equal: fused kernels over row blocks in host memory, and plain dfdx operations that
/// run wherever dfdx does. [`FlowDevice::FUSED`] says which one a device takes unless the call's context says otherwise.
pub trait FlowDevice<E: Scalar>: Device<E> + Threaded {
    /// The device's memory is the host's, so that the fused row-block kernels are the fast path.
    const FUSED: bool;
}

impl<E: Scalar> FlowDevice<E> for Cpu
where
    Cpu: Device<E>,
{
    const FUSED: bool = true;
}

#[cfg(feature = "cuda")]
impl<E: Scalar> FlowDevice<E> for dfdx::prelude::Cuda
where
    dfdx::prelude::Cuda: Device<E>,
{
    const FUSED: bool = false;
}

/// The device that specs are built on: dfdx's [`Cpu`], or its CUDA device with the `cuda` feature.
pub type DefaultDevice = dfdx::prelude::AutoDevice;
