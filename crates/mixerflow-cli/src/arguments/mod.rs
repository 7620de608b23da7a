//! The command line.

mod data;
mod device;
mod run;
mod sample;
mod score;
mod train;
mod values;

pub(crate) use data::{Data, LookAt, Part};
pub(crate) use device::Device;
pub(crate) use run::{Completions, Export, Import, Plot};
pub(crate) use sample::{Decode, Embed, Given, Interpolate, Sample};
pub(crate) use score::{Eval, Predict, Probe, Report, Score, Scoring};
pub(crate) use train::{Compare, Experiment, Inspect, Train, Training};

use clap::{Parser, Subcommand};
use score::SCORES;

/// Normalizing flows on images and vectors: train a density model, then score, sample and embed with it
#[derive(Parser)]
#[command(name = "mixerflow", version, after_help = EXAMPLES)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Number of threads [default: all of the machine's]. Results do not depend on it
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024), allow_negative_numbers = true)]
    pub(crate) threads: Option<u16>,
    /// Log to standard error; give it twice for more
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

const EXAMPLES: &str = "\
Examples:
  mixerflow inspect specs/digits-affine.ron --shape 1,8,8
  mixerflow train specs/digits-affine.ron --data digits --steps 1000 --out runs/digits
  mixerflow eval runs/digits --data digits
  mixerflow sample runs/digits --count 64 --out samples.png
  mixerflow score runs/digits --data images:new-photos --sort --out scores.csv";

/// The commands.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Show a spec's layers, parameters and memory
    Inspect(Inspect),
    /// Look at data: shape, parts, columns, classes, what is left out, and what may spoil a density
    Data(LookAt),
    /// Train a model, or resume a run
    Train(Train),
    /// Evaluate a model: bits/dim (nats for real-valued data) with standard error, the error of the inverse, of a
    /// hybrid model accuracy, cross-entropy and calibration, of a table how its rows compare with samples
    Eval(Eval),
    /// Score items one by one, to find unusual ones
    #[command(long_about = SCORES)]
    Score(Score),
    /// Write the class probabilities of items, by the classifier of a hybrid model, or by Bayes' rule with the
    /// densities of a model that is conditioned on classes
    Predict(Predict),
    /// Fit a classifier to frozen latents or activations, and tell how good it is
    Probe(Probe),
    /// Write a page about a run: curves, losses, samples, scores, the most and the least unusual items
    Report(Report),
    /// Draw samples
    Sample(Sample),
    /// Interpolate between two items in latent space
    Interpolate(Interpolate),
    /// Write latents, or activations of a layer, to an array file
    Embed(Embed),
    /// Turn latents back into events
    Decode(Decode),
    /// Train several specs on the same data and compare them
    Compare(Compare),
    /// Run a study: specs on data with seeds, at equal budgets and parameters; what is done is not done again
    Experiment(Experiment),
    /// Plot the learning curves of runs, or a table's rows beside samples (--corner)
    Plot(Plot),
    /// Export a model as a single safetensors file
    Export(Export),
    /// Turn an exported file back into a run folder
    Import(Import),
    /// List the specs that are built in: their names stand for their files
    Specs,
    /// List the devices that a model can run on, and what is missing for others
    Devices,
    /// Print shell completions
    Completions(Completions),
}
