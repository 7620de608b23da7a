//! The contract of an engine.

use super::{DeviceError, SideForm, StepForm, TrainingSession};
use crate::rows::Direction;
use std::fmt;

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

    /// Prepares training steps that stay on the device, for a model of events of `event` numbers whose parameters are
    /// those of its sides alone, and zeros for what lives there ([`TrainingSession::write`] brings it). An engine
    /// without such steps, the default, says so.
    ///
    /// # Errors
    /// [`DeviceError::NoStep`] for a model, or a step, that the device has no form of; [`DeviceError::Memory`];
    /// failures of the device.
    fn train(&self, event: usize, sides: &[SideForm<'_, f32>], form: &StepForm) -> Result<Box<dyn TrainingSession>, DeviceError> {
        let _ = (event, sides, form);
        Err(DeviceError::NoStep { device: self.info().device.clone(), reason: "its engine has none".to_owned() })
    }
}

/// What a pullback on a device gives besides ∂L/∂x.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PulledSums {
    /// What the parameters' gradients are made of, as [`Session::pullback`] has it.
    pub parameters: Vec<f32>,
    /// ∂L/∂condition, a vector a sample; empty without a condition.
    pub condition: Vec<f32>,
}

/// A model on a device.
pub trait Session: Send {
    /// Brings new numbers of the same model, for passes in this direction. Those of a forward pass are there when a
    /// model is loaded.
    ///
    /// # Errors
    /// As [`Engine::load`].
    fn write(&mut self, sides: &[SideForm<'_, f32>], direction: Direction) -> Result<(), DeviceError>;

    /// Brings what the samples of the calls that follow are conditioned on, one vector after the other; an empty slice
    /// for a model without a condition.
    ///
    /// # Errors
    /// As [`Session::encode`].
    fn condition(&mut self, vectors: &[f32]) -> Result<(), DeviceError>;

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
    /// as one more column, outputs × (inputs + 1), without what log-dets that are the same for all rows add; and those
    /// of the parameters of every map of single numbers.
    ///
    /// # Errors
    /// As [`Session::encode`].
    fn pullback(&mut self, pass: Option<u64>, x: &[f32], cotangent: &mut [f32], log_det: &[f32]) -> Result<PulledSums, DeviceError>;
}
