//! Samples, latents, and what lies between two items.

use super::data::{Data, Part};
use super::device::On;
use super::values::{at_least_one, embedding, pair, png};
use clap::Args;
use std::path::PathBuf;

#[derive(Args)]
pub(crate) struct Sample {
    /// The run folder, or one of its checkpoints
    pub(crate) run: PathBuf,
    #[command(flatten)]
    pub(crate) on: On,
    /// Number of samples; with --given, of each row [default: 32; with --given, 1 a row, of a grid a row of it]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(crate) count: Option<usize>,
    #[command(flatten)]
    pub(crate) given: Given,
    /// Guide samples towards their condition: p(x|c) (p(x|c)/p(x))^W, of a model that knows p(x) too
    #[arg(long, value_name = "W", allow_negative_numbers = true)]
    pub(crate) guidance: Option<f64>,
    /// Candidates that a guided sample is chosen from
    #[arg(long, default_value_t = 32, value_name = "K", value_parser = at_least_one, allow_negative_numbers = true, requires = "guidance")]
    pub(crate) candidates: usize,
    /// Scale of the latents' standard deviation: below 1, samples are cleaner but less varied
    #[arg(long, default_value_t = 1.0, value_name = "T", allow_negative_numbers = true)]
    pub(crate) temperature: f32,
    /// Seed of the latents
    #[arg(long, default_value_t = 0, value_name = "N", allow_negative_numbers = true)]
    pub(crate) seed: u64,
    /// Images per row of the grid [default: 8; with --given, as many as --count, at most 64]
    #[arg(long, value_name = "N", value_parser = at_least_one, allow_negative_numbers = true)]
    pub(crate) columns: Option<usize>,
    /// What to write: a grid (.png), the numbers (.npy), a table (.csv), or a folder with one PNG per sample
    #[arg(long, value_name = "FILE.png|FILE.npy|FILE.csv|DIR")]
    pub(crate) out: PathBuf,
}

impl Sample {
    /// Images per row of the grid: what a row of a file was asked for stands in a row.
    pub(crate) fn columns(&self) -> usize {
        const USUAL: usize = 8;
        const WIDEST: usize = 64;
        let by_row = self.count.filter(|count| self.given.given.is_some() && *count <= WIDEST);
        self.columns.or(by_row).unwrap_or(USUAL)
    }
}

/// What samples are given, of a model that is conditioned on something.
#[derive(Args)]
pub(crate) struct Given {
    /// The class of all samples, by name [default: classes drawn as often as the training items have them]
    #[arg(long, value_name = "NAME", conflicts_with = "given")]
    pub(crate) class: Option<String>,
    /// A file with what samples are given, row by row: a table with the columns that the model is conditioned on, or
    /// the name of a class a line
    #[arg(long, value_name = "FILE")]
    pub(crate) given: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct Interpolate {
    /// The run folder, or one of its checkpoints
    pub(crate) run: PathBuf,
    #[command(flatten)]
    pub(crate) on: On,
    #[command(flatten)]
    pub(crate) data: Data,
    /// Part of the data that item numbers refer to [default: test, or all where the run has not seen the data]
    #[arg(long, value_enum)]
    pub(crate) part: Option<Part>,
    /// The two items, numbered from 0; repeat the option for several rows
    #[arg(long, value_name = "I,J", required = true, value_parser = pair)]
    pub(crate) pair: Vec<(usize, usize)>,
    /// Pictures per row, both ends included
    #[arg(long, default_value_t = 9, value_name = "N", allow_negative_numbers = true)]
    pub(crate) steps: usize,
    /// The picture to write
    #[arg(long, value_name = "FILE.png", value_parser = png)]
    pub(crate) out: PathBuf,
}

#[derive(Args)]
pub(crate) struct Embed {
    /// The run folder, or one of its checkpoints
    pub(crate) run: PathBuf,
    #[command(flatten)]
    pub(crate) on: On,
    #[command(flatten)]
    pub(crate) data: Data,
    /// Part of the data to use
    #[arg(long, value_enum, default_value_t = Part::All)]
    pub(crate) part: Part,
    /// The layer whose activations to write, as listed by `mixerflow inspect`, such as `bijector.layers.3.channel`
    /// [default: the latents]
    #[arg(long, value_name = "PATH")]
    pub(crate) layer: Option<String>,
    /// Items per batch
    #[arg(long, default_value_t = 128, value_name = "N", value_parser = at_least_one, allow_negative_numbers = true)]
    pub(crate) batch: usize,
    /// What to write, one row per item in the order of the data: an array of f32 (.npy) with a table of row, part, name
    /// and label beside it (.index.csv), both in one archive (.npz), or one table (.csv)
    #[arg(long, value_name = "FILE.npy|FILE.npz|FILE.csv", value_parser = embedding)]
    pub(crate) out: PathBuf,
}

#[derive(Args)]
pub(crate) struct Decode {
    /// The run folder, or one of its checkpoints
    pub(crate) run: PathBuf,
    #[command(flatten)]
    pub(crate) on: On,
    /// The latents, as `embed` writes them: an array of one row per event (.npy), or the array `z` of an archive (.npz)
    #[arg(long, value_name = "FILE.npy|FILE.npz")]
    pub(crate) latents: PathBuf,
    #[command(flatten)]
    pub(crate) given: Given,
    /// Events decoded at a time
    #[arg(long, default_value_t = 128, value_name = "N", value_parser = at_least_one)]
    pub(crate) batch: usize,
    /// What to write: the numbers (.npy), a table (.csv), a grid of pictures (.png), or a folder with one PNG per event
    #[arg(long, value_name = "FILE.npy|FILE.csv|FILE.png|DIR")]
    pub(crate) out: PathBuf,
}
