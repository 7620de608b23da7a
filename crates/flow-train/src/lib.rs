//! Training of normalizing flows: data sets, dequantisation, the training loop, checkpoints, evaluation, comparison.
//!
//! Start at [`data`] for data sets (every source, from the bundled digits to a folder of photographs, opens from one line of text, a [`data::DataSource`]) and
//! at [`Trainer`] for training. [`evaluate()`] says how good, how fast and how exact a model is; [`compare`] does all of it for a list of specs.

pub mod checkpoint;
pub mod compare;
pub mod data;
mod error;
mod evaluate;
mod events;
mod optimiser;
pub mod picture;
mod progress;
mod settings;
mod training;

pub use error::{Result, TrainError};
pub use evaluate::{EvaluateOptions, Evaluation, Scores, evaluate, score};
pub use events::Events;
pub use optimiser::{Adam, AdamConfig, AdamState, flat_weights, set_flat_weights};
pub use progress::Bar;
pub use settings::Settings;
pub use training::{Best, Ending, Observer, Report, Silent, Trainer};
