//! The contract of an engine.

use super::{MissingForm, SideForm};
use crate::rows::Direction;
use std::fmt;

/// What can go wrong on a device, or on the way to it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// A library that the machine must have is not there.
    #[error("{device}: {library} was not found: {cure}")]
    Library {
        /// The device, or its kind.
        device: String,
        /// The library's file name.
        library: &'static str,
        /// What it belongs to and where it is looked for.
        cure: String,
    },
    /// There is no such device.
    #[error("{device}: no such device: {found}")]
    NoDevice {
        /// The device that was asked for.
        device: String,
        /// What there is.
        found: String,
    },
    /// The device is too old.
    #[error("{device}: {name} has compute capability {got}, and the kernels need {least} at the least")]
    Capability {
        /// The device.
        device: String,
        /// Its product name.
        name: String,
        /// What it has.
        got: String,
        /// What is needed.
        least: &'static str,
    },
    /// Parts of the model have no form on the device.
    #[error("{device}: these parts of the model cannot run there: {}", parts.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Missing {
        /// The device.
        device: String,
        /// All such parts.
        parts: Vec<MissingForm>,
    },
    /// The device's memory does not suffice.
    #[error("{device}: no memory for {what} of {bytes} bytes")]
    Memory {
        /// The device.
        device: String,
        /// What it was for.
        what: &'static str,
        /// How much was asked for.
        bytes: u64,
    },
    /// A kernel could not be compiled.
    #[error("{device}: the kernels do not compile: {log}")]
    Compiler {
        /// The device.
        device: String,
        /// The compiler's words.
        log: String,
    },
    /// A call failed. Most failures of a device are final: what was loaded is lost.
    #[error("{device}: {what} failed: {message}")]
    Failed {
        /// The device.
        device: String,
        /// The call.
        what: &'static str,
        /// The driver's words.
        message: String,
    },
    /// A buffer that is not of the size that the session was loaded for.
    #[error("{device}: expected {expected} numbers, got {got}")]
    Size {
        /// The device.
        device: String,
        /// How many there should be.
        expected: usize,
        /// How many came.
        got: usize,
    },
}

/// What a device is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeviceInfo {
    /// As it is asked for, for example `cuda:0`.
    pub device: String,
    /// Product name.
    pub name: String,
    /// Version of its instruction set, as its maker writes it.
    pub capability: String,
    /// Memory in bytes.
    pub memory: u64,
}

impl DeviceInfo {
    /// A device with all that is known of it.
    pub fn new(device: String, name: String, capability: String, memory: u64) -> Self {
        Self { device, name, capability, memory }
    }
}

impl fmt::Display for DeviceInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, capability, memory, .. } = self;
        write!(f, "{name}, compute capability {capability}, {:.1} GiB", *memory as f64 / f64::from(1 << 30))
    }
}

/// A device with what runs models on it.
pub trait Engine: Send + Sync + fmt::Debug {
    /// What the device is.
    fn info(&self) -> &DeviceInfo;

    /// Loads a model of events of `event` numbers.
    ///
    /// # Errors
    /// [`DeviceError::Missing`] with all parts that have no form, or none on this device; [`DeviceError::Memory`];
    /// failures of the device.
    fn load(&self, event: usize, sides: &[SideForm<'_, f32>]) -> Result<Box<dyn Session>, DeviceError>;
}

/// A model on a device.
pub trait Session: Send {
    /// Brings new numbers of the same model, for passes in this direction. Those of a forward pass are there when a
    /// model is loaded.
    ///
    /// # Errors
    /// As [`Engine::load`].
    fn write(&mut self, sides: &[SideForm<'_, f32>], direction: Direction) -> Result<(), DeviceError>;

    /// x → z of all samples in place, and log|det ∂z/∂x| of every sample.
    ///
    /// # Errors
    /// [`DeviceError::Size`], [`DeviceError::Memory`], failures of the device.
    fn encode(&mut self, values: &mut [f32], log_det: &mut [f32]) -> Result<(), DeviceError>;

    /// z → x of all samples in place, and log|det ∂x/∂z| of every sample.
    ///
    /// # Errors
    /// As [`Session::encode`].
    fn decode(&mut self, values: &mut [f32], log_det: &mut [f32]) -> Result<(), DeviceError>;

    /// As [`Session::encode`], and keeps what the pullback needs, until the next such pass or new numbers; the pass's
    /// number, or none where there is no room for all of it.
    ///
    /// # Errors
    /// As [`Session::encode`].
    fn encode_keeping(&mut self, values: &mut [f32], log_det: &mut [f32]) -> Result<Option<u64>, DeviceError>;

    /// ∂L/∂z → ∂L/∂x of all samples in place, given ∂L/∂log|det ∂z/∂x| of every sample, and the sums for the
    /// parameters' gradients. What [`Session::encode_keeping`] kept in this pass is used if it is there; else the
    /// inputs `x` are sent forward again.
    ///
    /// The sums are those of every affine map and every linear layer of a network, in order: ∂L/∂W with ∂L/∂b behind it
    /// as one more column, outputs × (inputs + 1), without what log-dets that are the same for all rows add.
    ///
    /// # Errors
    /// As [`Session::encode`].
    fn pullback(&mut self, pass: Option<u64>, x: &[f32], cotangent: &mut [f32], log_det: &[f32]) -> Result<Vec<f32>, DeviceError>;
}
