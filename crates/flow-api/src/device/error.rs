//! What can go wrong on a device.

use std::fmt;

/// A part of a model that has no form on a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingForm {
    /// Its dotted path.
    pub path: String,
    /// Its kind, as in specs.
    pub kind: String,
    /// Why, if there is more to say than that it has none.
    pub reason: String,
}

impl fmt::Display for MissingForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, kind, reason } = self;
        let between = if reason.is_empty() { "" } else { ", " };
        write!(f, "{path} ({kind}{between}{reason})")
    }
}

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
    /// Training steps cannot stay on the device.
    #[error("{device}: no whole training step there: {reason}")]
    NoStep {
        /// The device.
        device: String,
        /// What it has no form of.
        reason: String,
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
    /// The text that a flow brings as its form there could not be compiled.
    #[error("{device}: the text of {kind} does not compile: {log}")]
    Snippet {
        /// The device.
        device: String,
        /// The flow's kind.
        kind: String,
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
