//! What can go wrong in training, evaluation and checkpoints.

use crate::data::DataError;
use flow_api::FlowError;
use flow_api::spec::SpecError;
use std::io;
use std::path::{Path, PathBuf};

/// A result with a [`TrainError`].
pub type Result<T, E = TrainError> = std::result::Result<T, E>;

/// Errors of training, evaluation, checkpoints and reports.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// Data could not be read or drawn.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The architecture could not be built.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// A layer failed.
    #[error(transparent)]
    Flow(#[from] FlowError),
    /// A loss or a layer's result is not a number: training has stopped, and the model is as it was before the step.
    #[error("step {step}: {source}; items of the batch: {items}")]
    NotFinite {
        /// The step, counted from 0.
        step: u64,
        /// Which layer and row.
        source: Box<FlowError>,
        /// The item of the data set in that row, or the batch's items where the row is not one sample's.
        items: String,
    },
    /// A setting that nothing can be trained with.
    #[error("{field}: expected {expected}, got {got}")]
    Setting {
        /// The setting.
        field: &'static str,
        /// Its allowed values.
        expected: String,
        /// Its value.
        got: String,
    },
    /// The data has another shape than the model.
    #[error("the model is for events of shape {model}, the data has {data}")]
    Shape {
        /// The model's.
        model: String,
        /// The data's.
        data: String,
    },
    /// A file or folder could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file of a checkpoint is not what it should be.
    #[error("{}: {reason}", path.display())]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A picture could not be drawn.
    #[error("{}: {reason}", path.display())]
    Picture {
        /// The file.
        path: PathBuf,
        /// What the library said.
        reason: String,
    },
    /// The threads could not be started.
    #[error("threads: {0}")]
    Threads(String),
}

impl TrainError {
    /// An error of the file system, with its file.
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }
}
