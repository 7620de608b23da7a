//! Specs, and how they are trained.

use super::data::DATA;
use super::device::On;
use super::values::named_source;
use clap::{Args, ValueEnum};
use flow_train::data::DataSource;
use std::path::PathBuf;

#[derive(Args)]
pub(crate) struct Inspect {
    /// The spec, a RON file or the name of a built-in one (`mixerflow specs`), or a run folder
    #[arg(value_name = "SPEC|RUN")]
    pub(crate) spec: PathBuf,
    /// Shape of an item: C,H,W for images, D for vectors
    /// [default: that of the run, or the spec's own, if it states one]
    #[arg(long, value_name = "C,H,W", value_delimiter = ',')]
    pub(crate) shape: Vec<usize>,
    /// Data whose items have the shape
    #[arg(long, value_name = "DATA", conflicts_with = "shape")]
    pub(crate) data: Option<DataSource>,
    /// Batch size to report memory for
    #[arg(long, default_value_t = 128, allow_negative_numbers = true)]
    pub(crate) batch: usize,
    /// Override a field of the spec, such as `layers=8` or `channel.AffineCoupling.hidden=64`
    #[arg(long, value_name = "PATH=VALUE")]
    pub(crate) set: Vec<String>,
    /// Measure the memory of training steps however long that takes; without it, what takes longer than a moment is
    /// left out
    #[arg(long)]
    pub(crate) measure: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// What a training step keeps between forward and backward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Memory {
    /// All activations: fastest.
    Store,
    /// Each layer's input; the rest is computed again.
    Recompute,
    /// Nothing: layers are inverted on the way back.
    Invert,
}

impl From<Memory> for flow_api::Memory {
    fn from(memory: Memory) -> Self {
        match memory {
            Memory::Store => Self::Store,
            Memory::Recompute => Self::Recompute,
            Memory::Invert => Self::Invert,
        }
    }
}

/// How to train: everything else is the library's default, or set by `--set settings.…`.
#[derive(Args)]
pub(crate) struct Training {
    /// Optimiser steps [default: 2000]
    #[arg(long, conflicts_with = "epochs", value_name = "N", allow_negative_numbers = true)]
    pub(crate) steps: Option<u64>,
    /// Passes over the training items, instead of --steps
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(crate) epochs: Option<u64>,
    /// Items per batch [default: 128]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(crate) batch: Option<usize>,
    /// Peak learning rate [default: 0.001]
    #[arg(long = "lr", value_name = "X", allow_negative_numbers = true)]
    pub(crate) learning_rate: Option<f64>,
    /// Seed of everything random [default: 0]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(crate) seed: Option<u64>,
    /// What a step keeps between forward and backward pass [default: store]
    #[arg(long, value_enum)]
    pub(crate) memory: Option<Memory>,
    /// What training steps that stay on a GPU compute products in: `f32`, or `tf32`, whose factors have 10 bits;
    /// validation and everything else remain in f32 [default: f32]
    #[arg(long, value_name = "PRECISION")]
    pub(crate) precision: Option<flow_api::device::Precision>,
    /// Share of the training items to hold out for validation [default: 0.05]
    #[arg(long, value_name = "SHARE", allow_negative_numbers = true)]
    pub(crate) validation: Option<f64>,
    /// Steps between reports, each with validation, a checkpoint and samples
    /// [default: a twentieth of all steps, at most 200]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(crate) report_every: Option<u64>,
    /// Replace this share of the values by random levels, for a background model (`score --minus`) [default: 0]
    #[arg(long, value_name = "SHARE", allow_negative_numbers = true)]
    pub(crate) mutate: Option<f64>,
    /// Override a field of the spec, such as `layers=8` or `channel.AffineCoupling.hidden=64`, or of the settings, such
    /// as `settings.ema=0.999`
    #[arg(long, value_name = "PATH=VALUE")]
    pub(crate) set: Vec<String>,
}

#[derive(Args)]
#[command(after_help = DATA)]
pub(crate) struct Train {
    /// The spec, a RON file or the name of a built-in one (`mixerflow specs`); with --resume or --from, the run's own
    #[arg(required_unless_present_any = ["resume", "from"])]
    pub(crate) spec: Option<PathBuf>,
    /// Begin with the trained model of another run, on its data or others
    #[arg(long, value_name = "RUN", conflicts_with = "spec")]
    pub(crate) from: Option<PathBuf>,
    /// Data, such as `digits` or `images:DIR?size=32&crop=random`; see the list below; with --resume or --from, the
    /// run's own
    #[arg(long, value_name = "DATA", required_unless_present_any = ["resume", "from"])]
    pub(crate) data: Option<DataSource>,
    /// Skip pictures that cannot be read, and report how many there were
    #[arg(long)]
    pub(crate) skip_bad: bool,
    /// Folder of the run, new or empty unless it is resumed [default: runs/SPEC-TIME]
    #[arg(long, value_name = "RUN", required_if_eq("resume", "true"))]
    pub(crate) out: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) on: On,
    #[command(flatten)]
    pub(crate) training: Training,
    /// Resume the run in --out from its last checkpoint; start it if there is none
    #[arg(long)]
    pub(crate) resume: bool,
    #[arg(long, help = "Also write the metrics as an event file for TensorBoard, in the folder `tensorboard` of the run")]
    pub(crate) tensorboard: bool,
    /// Stop after this step, to continue later with --resume; the learning-rate schedule remains that of all steps
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(crate) stop_at: Option<u64>,
}

#[derive(Args)]
#[command(after_help = DATA)]
pub(crate) struct Compare {
    /// The specs
    #[arg(required = true)]
    pub(crate) specs: Vec<PathBuf>,
    /// Data, such as `digits` or `images:DIR?size=32&crop=random`; see the list below
    #[arg(long, value_name = "DATA")]
    pub(crate) data: DataSource,
    /// Skip pictures that cannot be read, and report how many there were
    #[arg(long)]
    pub(crate) skip_bad: bool,
    #[command(flatten)]
    pub(crate) training: Training,
    /// Draws of dequantisation noise to average each test item's log-likelihood over
    #[arg(long, default_value_t = 4, value_name = "N", allow_negative_numbers = true)]
    pub(crate) dequantisations: u64,
    /// New or empty folder for the table, curves, samples and a page that shows them
    #[arg(long, value_name = "DIR", default_value = "comparison")]
    pub(crate) out: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args)]
#[command(after_help = DATA)]
pub(crate) struct Experiment {
    /// The study, a RON file such as those of specs/experiments; docs/experiments/README.md tells its fields
    #[arg(value_name = "STUDY.ron")]
    pub(crate) study: PathBuf,
    /// Folder of the study: it goes on with the runs that are not done there [default: experiments/STUDY]
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// The shortened form of the study, which takes moments and shows that it runs
    #[arg(long)]
    pub(crate) short: bool,
    /// Where the study's data of this name lie on this machine; see the list below
    #[arg(long, value_name = "NAME=DATA", value_parser = named_source)]
    pub(crate) data: Vec<(String, DataSource)>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}
