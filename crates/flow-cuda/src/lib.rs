//! Models on NVIDIA GPUs.
//!
//! [`Cuda`] is an [`Engine`]: it takes a model's description as data ([`flow_api::device`]) and runs each side of it,
//! all flows of a row one after the other, as one kernel on tiles of 32 rows that stay in shared memory. Products are
//! f32's on tensor cores: a factor is split into two of TF32, and three products of the halves are summed in f32.
//!
//! The driver (libcuda) and the compiler (NVRTC) are looked for when a device is opened, so that one program runs on
//! machines with and without. Kernels are CUDA C, in `kernels/`, and compiled for the device that is there.
//!
//! There are no atomics, and sums have a fixed order: results are bit-equal from run to run on one kind of device, and
//! do not depend on the size of a batch. They equal the host's to about 1e-6 of the greatest value, not to the bit.
//!
//! Its tests run on an emulated driver; on a real device it has never been run or timed (`docs/gpu.md`).
//!
//! ```no_run
//! use flow_api::spec::{EventShape, ModelSpec, Spec, from_ron};
//! use flow_api::Context;
//! use flow_cuda::Cuda;
//! # use flows_coupling as _;
//! let spec: Spec<dyn ModelSpec> = from_ron("VectorFlow(flows: [LuLinear(), AffineCoupling()])")?;
//! let model = spec.build::<f32>(EventShape::Vector(6), 7)?.on(&Cuda::open(0)?)?;
//! let samples = model.sample(1000, 1.0, &Context::new(1))?;
//! assert_eq!(samples.len(), 1000 * 6);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod driver;
mod kernels;
mod moves;
mod plan;
mod session;
mod snippets;
mod step;
mod step_kernels;
mod step_plan;

use driver::Device;
use flow_api::device::{DeviceError, DeviceInfo, Engine, Session, SideForm, StepForm, TrainingSession};
use std::sync::Arc;

/// A GPU, with the kernels compiled for it.
#[derive(Debug, Clone)]
pub struct Cuda(Arc<Device>);

impl Cuda {
    /// Opens the device with this number, as the driver counts them, and compiles the kernels for it, which takes a few
    /// seconds.
    ///
    /// # Errors
    /// Without a driver, a compiler or such a device; for a device of compute capability below 8.0.
    pub fn open(number: usize) -> Result<Self, DeviceError> {
        Device::open(number).map(|device| Self(Arc::new(device)))
    }

    /// All devices that the driver knows.
    ///
    /// # Errors
    /// Without a driver, and where it fails. A driver that knows no device gives an empty list.
    pub fn list() -> Result<Vec<DeviceInfo>, DeviceError> {
        driver::list()
    }

    /// Version of the compiler, NVRTC.
    ///
    /// # Errors
    /// [`DeviceError::Library`] where there is none.
    pub fn compiler() -> Result<(i32, i32), DeviceError> {
        driver::compiler()
    }
}

impl Engine for Cuda {
    fn info(&self) -> &DeviceInfo {
        self.0.info()
    }

    fn load(&self, event: usize, sides: &[SideForm<'_, f32>]) -> Result<Box<dyn Session>, DeviceError> {
        Ok(Box::new(session::CudaSession::load(self.0.clone(), event, sides)?))
    }

    fn train(&self, event: usize, sides: &[SideForm<'_, f32>], form: &StepForm) -> Result<Box<dyn TrainingSession>, DeviceError> {
        Ok(Box::new(step::CudaTraining::load(self.0.clone(), event, sides, form)?))
    }
}
