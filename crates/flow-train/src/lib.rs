//! Training of normalizing flows: data sets, dequantisation, the training loop, checkpoints, evaluation, comparison.
//!
//! Start at [`data`] for data sets (every source, from the bundled digits to a folder of photographs, opens from one
//! line of text, a [`data::DataSource`]) and at [`Trainer`] for training. What sees a run go on is an [`Observer`]: a
//! progress [`Bar`], [`Metrics`], [`Checkpoints`] ([`checkpoint`] opens them again). [`evaluate()`] says how good, how
//! fast and how exact a model is; a [`study`] does all of it for a list of specs, data and seeds. A [`RunFolder`] keeps
//! everything about a run in one place, to go on with at any time.

mod by_column;
pub mod checkpoint;
mod checksums;
pub mod classify;
pub mod data;
mod device_steps;
pub mod diagnostics;
mod embed;
mod error;
mod evaluate;
mod event_batch;
mod event_kind;
mod events;
mod every_class;
mod file;
mod given;
mod guidance;
mod history;
mod hold_out;
mod layout;
mod look;
mod mean;
mod objective;
mod observe;
mod optimiser;
mod page;
pub mod picture;
mod plots;
mod progress;
mod record;
mod replace;
pub mod report;
mod run_folder;
mod samples;
pub mod scores;
mod settings;
mod sharpness;
mod state_file;
pub mod study;
mod tensorboard;
mod terms;
pub mod text;
mod threads;
mod training;
mod waiting;

pub use by_column::{ByColumn, score_by_column};
pub use embed::{embed, interpolate};
pub use error::{Item, Result, TrainError};
pub use evaluate::{EvaluateOptions, Evaluation, Inverse, Scores, auroc, evaluate, score};
pub use event_batch::{EventBatch, Purpose, ScoredGiven};
pub use event_kind::EventKind;
pub use events::Events;
pub use every_class::{EveryClass, score_every_class};
pub use file::write_whole;
pub use given::{conditions_of_items, drawn_conditions};
pub use guidance::{Guidance, Guided, sample_guided};
pub use hold_out::hold_out;
pub use look::{Baseline, ColumnLook, Finding, Look, Severity, baselines};
pub use objective::{Hybrid, Likelihood, Lost, Objective, Seen, Validated, differentiate, objective_of};
pub use observe::{Bar, Checkpoints, Metrics, SampleGrids};
pub use optimiser::{Adam, AdamConfig, AdamState, flat_weights, set_flat_weights};
pub use progress::{Best, Ending, Progress, Report, Run, Since};
pub use record::{DataRecord, model_for};
pub use run_folder::{RunFolder, RunPlan, check_empty};
pub use samples::{Drawing, draw_events, draw_samples, sample, sample_given, shades};
pub use settings::Settings;
pub use sharpness::Sharpness;
pub use tensorboard::TensorBoard;
pub use terms::{ReportedTerm, Term};
pub use threads::{on_one_thread, start_threads};
pub use training::{Observer, Silent, Trainer};
pub use waiting::waiting;
