//! Training steps that stay on a device: parameters, moments and average live there, and a step brings back three
//! numbers.

use super::DeviceError;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A piece of an affine map of R^d, with what it has besides its parameters.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum AffinePiece<'a, E> {
    /// y = e^s ⊙ (x − m) + t. Parameters: s, t.
    Scale {
        /// m.
        middle: &'a [E],
    },
    /// y = x\[π\]. No parameters.
    Permutation {
        /// π.
        indices: &'a [usize],
    },
    /// y = L U x\[π\] + b with L unit lower triangular and U upper triangular with the diagonal e^s. Parameters: the
    /// strict triangles of L and of U, row by row, s, b.
    Lu {
        /// d.
        dim: usize,
        /// π, if there is one.
        permutation: Option<&'a [usize]>,
    },
}

impl<E> AffinePiece<'_, E> {
    /// Number of its parameters.
    pub fn parameters(&self) -> usize {
        match self {
            Self::Scale { middle } => 2 * middle.len(),
            Self::Permutation { .. } => 0,
            Self::Lu { dim, .. } => dim * (dim + 1),
        }
    }
}

/// A base density on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BaseForm {
    /// N(0, I), which has no parameters.
    StandardNormal,
}

/// How discrete levels become the numbers of events: (x + u)/L − ½ with the level x behind `dropped` shifts to the
/// right and noise u.
///
/// u = (k + ½)/2¹⁶ with the 16-bit halves k of the words of a `ChaCha8` stream (the lower half first) whose key is
/// (seed, purpose, epoch, item), each of 64 bits. Where samples may be mirrored, the lowest bit of the first half says
/// whether this one is, and the noise begins with the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LevelsForm {
    /// Seed of the noise.
    pub seed: u64,
    /// What the noise is for, among what the seed is used for.
    pub purpose: u64,
    /// L.
    pub levels: u32,
    /// Bits that are dropped.
    pub dropped: u32,
    /// Numbers in a row of a sample, which are mirrored.
    pub row: usize,
    /// Whether samples are mirrored at random.
    pub mirror: bool,
}

/// Adam with clipping, decoupled weight decay and an average of the weights, as flow-train's `Adam` has it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamForm {
    /// Factor of the gradient before everything else.
    pub gradient_scale: f64,
    /// β₁ and β₂.
    pub betas: (f64, f64),
    /// ε.
    pub epsilon: f64,
    /// λ.
    pub weight_decay: f64,
    /// Bound of the gradient's norm, or none.
    pub clip: Option<f64>,
    /// κ of the average, or none.
    pub ema: Option<f64>,
}

/// What products of matrices are computed in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Precision {
    /// f32.
    #[default]
    F32,
    /// TF32: factors are rounded to 10 bits of mantissa, sums are f32's. For training steps on a device alone.
    Tf32,
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Self::F32 { "f32" } else { "tf32" })
    }
}

impl FromStr for Precision {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = [Self::F32, Self::Tf32].into_iter().find(|precision| precision.to_string() == text);
        found.ok_or_else(|| format!("`{text}` is not f32 or tf32"))
    }
}

/// What training steps on a device are made of, besides the model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepForm {
    /// Samples in a step at the most.
    pub samples: usize,
    /// How levels become numbers; none where samples come as numbers.
    pub levels: Option<LevelsForm>,
    /// The base density.
    pub base: BaseForm,
    /// The optimiser.
    pub adam: AdamForm,
    /// What products are computed in.
    pub precision: Precision,
}

/// The samples of a step.
#[derive(Clone, Copy, Debug)]
pub enum StepSamples<'a> {
    /// Levels, with the epoch and the item of every sample.
    Levels {
        /// Of all samples, one after the other.
        values: &'a [u8],
        /// Epoch and item.
        items: &'a [[u64; 2]],
    },
    /// The numbers of events.
    Numbers(&'a [f32]),
}

/// What lives on a device between steps: numbers of all parameters, in their order ([`Gradients`](crate::Gradients)'
/// layout).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TrainingState {
    /// The parameters.
    pub parameters: Vec<f32>,
    /// First moments.
    pub first: Vec<f32>,
    /// Second moments.
    pub second: Vec<f32>,
    /// Averaged parameters, if there is an average.
    pub average: Option<Vec<f32>>,
}

/// What a step tells.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepReport {
    /// Mean of −log p of the samples as the model sees them, in nats.
    pub nll: f64,
    /// Norm of the scaled gradient before clipping.
    pub norm: f64,
    /// Both are finite; if not, no parameter has changed.
    pub finite: bool,
}

/// Training steps on a device for the likelihood, and what lives there between them.
pub trait TrainingSession: Send {
    /// One step with the learning rate `rate`; `number` counts the steps from 1.
    ///
    /// # Errors
    /// [`DeviceError::Size`] for samples of another kind or of more than were prepared for, failures of the device.
    fn step(&mut self, samples: StepSamples<'_>, rate: f64, number: u64) -> Result<StepReport, DeviceError>;

    /// Brings parameters, moments and average to the device.
    ///
    /// # Errors
    /// [`DeviceError::Size`], failures of the device.
    fn write(&mut self, state: &TrainingState) -> Result<(), DeviceError>;

    /// Parameters, moments and average as the last step left them.
    ///
    /// # Errors
    /// Failures of the device.
    fn read(&mut self) -> Result<TrainingState, DeviceError>;

    /// How a step is done, in a few words, for a log.
    fn describe(&self) -> String;
}
