//! The command line.

use clap::{Args, Parser, Subcommand, ValueEnum};
use flow_train::data::DataSource;
use std::path::{Path, PathBuf};

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

/// What DATA may be, for the help of every command that takes it.
const DATA: &str = "\
Data sources:
  digits                                    1,797 handwritten digits of 8×8, built in
  idx:IMAGES[,LABELS]                       MNIST's format, plain or gzip
  cifar10:DIR                               CIFAR-10: its binary files, or its pictures as PNG strips
  images:DIR[?size=S&crop=random|center|none&crops=K&resize=1&grey=1&test=GLOB,…&skip-bad=1&cache=MIB|DIR]
                                            pictures in a folder; its sub-folders are parts (train, val, test) or classes
  npy:FILE[?layout=chw|hwc&levels=L]        u8 or real arrays: N×H×W, N×C×H×W, N×H×W×C, N×D
  npz:FILE[?x=KEY&y=KEY&c=KEY&layout=…]     arrays of an archive: items, labels, numbers to be conditioned on
  safetensors:FILE[?x=KEY&y=KEY&c=KEY&layout=…]
                                            tensors of a file
  csv:FILE[?label=first|last|NAME&condition=NAME,…&id=NAME&columns=NAME,…&drop=NAME,…&sep=…&header=1|0&missing=drop|unlabelled]
                                            a table of numbers, with or without a header, plain or gzip
  toy:two-moons|eight-gaussians|checkerboard|circles|rings[?n=N&noise=S]

Of every source, take=N[,M] takes N training (and M test) items, and permute=SIDE puts squares of SIDE pixels of
pictures into one random order. Which items are for testing: every source but cifar10 and toy takes split=every-tenth|last-tenth|hash:SHARE|none
(of pictures also folders), and files take test=FILE (of npz and safetensors keys). A ? or & in a name is written
%3F or %26. A path whose ending says what it is needs no kind: wine.csv.";

/// What `score` is about.
const SCORES: &str = "\
Score items one by one, to find unusual ones

Columns, and what is unusual:
  log_likelihood      ln p(x) in nats                                                    low
  bits_per_dim        the same as a loss (real numbers: negative_log_likelihood)         high
  typicality          two-sided p-value of ln p(x)                                       low
  p_likelihood        its one-sided p-value                                              low
  complexity_bits     bits of the shortest lossless coding of the picture                -
  p_complexity        its two-sided p-value                                              low
  corrected           -log2 p(x) - complexity, in bits                                   high
  p_corrected         its two-sided p-value                                              low
  likelihood_ratio    ln p(x) - ln p0(x) in nats, of the model of --minus                low
  p_ratio             its one-sided p-value                                              low
  unusual             0 to 1: by the least of the p-values (of pictures typicality,
                      of other data p_likelihood), ranked among reference items          high
  is_unusual          yes or no, with --false-alarm
  nats_COLUMN         of tables with --by-column: -ln p of the column given those before it  high

p-values are ranks among reference items: the run's validation items. A likelihood alone also rewards what is
simple, such as a white card.";

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
    /// Fit a linear classifier to frozen latents or activations, and tell how good it is
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

/// Where a model runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Device {
    /// On the processor.
    Cpu,
    /// On the GPU of this number.
    Cuda(usize),
    /// On a GPU, where there is one and the whole model can run there; else on the processor.
    Auto,
}

impl std::str::FromStr for Device {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "cpu" => Ok(Self::Cpu),
            "auto" => Ok(Self::Auto),
            "cuda" => Ok(Self::Cuda(0)),
            _ => text
                .strip_prefix("cuda:")
                .and_then(|number| number.parse().ok())
                .map(Self::Cuda)
                .ok_or_else(|| "expected cpu, cuda, cuda:N or auto".to_owned()),
        }
    }
}

/// The device of a command that uses a model.
#[derive(Args)]
pub(crate) struct On {
    /// Where the model runs: `cpu`; `cuda` or `cuda:N`, a GPU (`mixerflow devices` lists them); `auto`, a GPU where
    /// there is one that can run the whole model, else the processor
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    pub(crate) device: Device,
}

/// Where data comes from.
#[derive(Args)]
#[command(after_help = DATA)]
pub(crate) struct Data {
    /// Data, such as `digits` or `images:DIR?size=32&crop=random`; see the list below [default: the run's own]
    #[arg(long, value_name = "DATA")]
    pub(crate) data: Option<DataSource>,
    /// Skip pictures that cannot be read, and report how many there were
    #[arg(long)]
    pub(crate) skip_bad: bool,
}

/// Which items of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// The items that are trained on.
    Train,
    /// Those held out of them to choose the best model with.
    Validation,
    /// The test items.
    Test,
    /// All items, in the order of the file or folder.
    All,
}

#[derive(Args)]
#[command(after_help = DATA)]
pub(crate) struct LookAt {
    /// Data, such as `wine.csv` or `images:DIR`; see the list below
    #[arg(value_name = "DATA")]
    pub(crate) data: DataSource,
    /// Skip pictures that cannot be read, and report how many there were
    #[arg(long)]
    pub(crate) skip_bad: bool,
    /// Seed of random crops and generated points
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(crate) seed: u64,
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

/// How items are scored.
#[derive(Args)]
pub(crate) struct Scoring {
    /// Draws of dequantisation noise to average each item's log-likelihood over
    #[arg(long, default_value_t = 1, value_name = "N", allow_negative_numbers = true)]
    pub(crate) dequantisations: u64,
    /// Items per batch
    #[arg(long, default_value_t = 128, value_name = "N", allow_negative_numbers = true)]
    pub(crate) batch: usize,
}

#[derive(Args)]
pub(crate) struct Eval {
    /// The run folder, or one of its checkpoints
    pub(crate) run: PathBuf,
    #[command(flatten)]
    pub(crate) on: On,
    #[command(flatten)]
    pub(crate) data: Data,
    /// Part of the data to use [default: test, or all where the run has not seen the data]
    #[arg(long, value_enum)]
    pub(crate) part: Option<Part>,
    /// Other data, all of whose items count as unusual: reports how well the model separates them from --data (AUROC)
    #[arg(long, value_name = "DATA")]
    pub(crate) against: Vec<DataSource>,
    /// A background model of the same data, as `train --mutate` makes one: its log-likelihood is subtracted
    /// (`likelihood_ratio`)
    #[arg(long, value_name = "RUN")]
    pub(crate) minus: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) scoring: Scoring,
    /// Of a model that is conditioned on classes: also log p(x) by the mixture of all classes, and how well Bayes' rule
    /// tells them: accuracy, cross-entropy, calibration
    #[arg(long)]
    pub(crate) every_class: bool,
    /// Of a table, leave out what compares its rows with samples of the model: PIT of columns, expected coverage, and
    /// the two-sample test
    #[arg(long)]
    pub(crate) no_diagnostics: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// How the items of one source are put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Aggregate {
    /// Each crop by itself.
    None,
    /// A picture is as unusual as its most unusual crop.
    Max,
    /// The mean of its crops.
    Mean,
}

impl From<Aggregate> for flow_train::scores::Aggregate {
    fn from(aggregate: Aggregate) -> Self {
        match aggregate {
            Aggregate::None => Self::None,
            Aggregate::Max => Self::Max,
            Aggregate::Mean => Self::Mean,
        }
    }
}

#[derive(Args)]
pub(crate) struct Score {
    /// The run folder, or one of its checkpoints
    pub(crate) run: PathBuf,
    #[command(flatten)]
    pub(crate) on: On,
    #[command(flatten)]
    pub(crate) data: Data,
    /// Part of the data to use
    #[arg(long, value_enum, default_value_t = Part::All)]
    pub(crate) part: Part,
    #[command(flatten)]
    pub(crate) scoring: Scoring,
    /// Estimates of each item's log-det to average, at the least, where log-dets are estimates: the standard error of a
    /// single item needs many
    #[arg(long, default_value_t = 16, value_name = "N", allow_negative_numbers = true)]
    pub(crate) estimates: u64,
    /// Of a model that is conditioned on classes: also log p(x|class) of every class, log p(x) by their mixture, and
    /// p(class|x)
    #[arg(long)]
    pub(crate) every_class: bool,
    /// Of a table, the part of −ln p(x) that each column explains given those before it, which add up to it: of models
    /// that allow it, such as those of autoregressive flows of one order
    #[arg(long)]
    pub(crate) by_column: bool,
    /// A background model of the same data, as `train --mutate` makes one: its log-likelihood is subtracted
    /// (`likelihood_ratio`)
    #[arg(long, value_name = "RUN")]
    pub(crate) minus: Option<PathBuf>,
    /// One row a picture of which there are several crops
    #[arg(long, value_enum, default_value_t = Aggregate::None)]
    pub(crate) aggregate: Aggregate,
    /// Put the most unusual items first, by a column
    /// [default: `unusual`, or `log_likelihood` where nothing is compared]
    #[arg(long, value_name = "COLUMN", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    pub(crate) sort: Option<String>,
    /// Say of every item whether it is unusual, such that of usual items about this share would be called so; the exit
    /// code is 3 if any is
    #[arg(long, value_name = "RATE", value_parser = rate, allow_negative_numbers = true)]
    pub(crate) false_alarm: Option<f64>,
    /// Draw the most and the least unusual pictures with their scores
    #[arg(long, value_name = "FILE.png", value_parser = png)]
    pub(crate) sheet: Option<PathBuf>,
    /// Pictures of each kind on the sheet
    #[arg(long, default_value_t = 64, value_name = "N", value_parser = at_least_one, requires = "sheet", allow_negative_numbers = true)]
    pub(crate) top: usize,
    /// The CSV file to write [default: standard output]. Where log-dets are estimates it has a column `standard_error`,
    /// in nats
    #[arg(long, value_name = "FILE.csv", value_parser = file)]
    pub(crate) out: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct Report {
    /// The run folder
    pub(crate) run: PathBuf,
    #[command(flatten)]
    pub(crate) on: On,
    #[command(flatten)]
    pub(crate) data: Data,
    /// Other data, all of whose items count as unusual: how well each score tells them from the test items
    #[arg(long, value_name = "DATA")]
    pub(crate) against: Vec<DataSource>,
    /// The page to write [default: report.html in the run's folder]
    #[arg(long, value_name = "FILE.html", value_parser = file)]
    pub(crate) out: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct Predict {
    /// The run folder of a hybrid model (`objective: Hybrid(…)` in its spec) or of one that is conditioned on classes
    /// (`condition: Classes(…)`), or one of its checkpoints
    pub(crate) run: PathBuf,
    #[command(flatten)]
    pub(crate) on: On,
    #[command(flatten)]
    pub(crate) data: Data,
    /// Part of the data to use
    #[arg(long, value_enum, default_value_t = Part::All)]
    pub(crate) part: Part,
    #[command(flatten)]
    pub(crate) scoring: Scoring,
    /// The CSV file to write [default: standard output]: row, part, name, label, a probability a class, and the most
    /// probable class
    #[arg(long, value_name = "FILE.csv", value_parser = file)]
    pub(crate) out: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct Probe {
    /// The run folder, or one of its checkpoints
    pub(crate) run: PathBuf,
    #[command(flatten)]
    pub(crate) on: On,
    #[command(flatten)]
    pub(crate) data: Data,
    /// The layer whose activations to classify, as listed by `mixerflow inspect`, such as `bijector.layers.3.channel`
    /// [default: the latents]
    #[arg(long, value_name = "PATH")]
    pub(crate) layer: Option<String>,
    /// Items per batch
    #[arg(long, default_value_t = 128, value_name = "N", value_parser = at_least_one, allow_negative_numbers = true)]
    pub(crate) batch: usize,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

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
    /// Images per row of the grid
    #[arg(long, default_value_t = 8, value_name = "N", value_parser = at_least_one, allow_negative_numbers = true)]
    pub(crate) columns: usize,
    /// What to write: a grid (.png), the numbers (.npy), a table (.csv), or a folder with one PNG per sample
    #[arg(long, value_name = "FILE.png|FILE.npy|FILE.csv|DIR")]
    pub(crate) out: PathBuf,
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

fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|number| *number > 0).ok_or_else(|| "expected at least 1".to_owned())
}

/// A share between 0 and 1.
fn rate(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|rate| *rate > 0.0 && *rate < 1.0).ok_or_else(|| "expected a share between 0 and 1, such as 0.01".to_owned())
}

/// A file that can be written, which is told before anything is computed.
fn file(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if path.is_dir() {
        return Err("expected a file, got a folder".to_owned());
    }
    match path.parent().filter(|folder| !folder.as_os_str().is_empty() && !folder.is_dir()) {
        Some(folder) => Err(format!("there is no folder {}", folder.display())),
        None => Ok(path),
    }
}

/// Pictures are written as PNG.
fn png(text: &str) -> Result<PathBuf, String> {
    file(text).and_then(|path| if has_ending(&path, &["png"]) { Ok(path) } else { Err("use .png".to_owned()) })
}

/// Latents are written as arrays or tables; what has no ending, such as a pipe, gets an array.
fn embedding(text: &str) -> Result<PathBuf, String> {
    let expected = || Err("use .npy, .npz or .csv".to_owned());
    file(text).and_then(|path| if path.extension().is_none() || has_ending(&path, &["npy", "npz", "csv"]) { Ok(path) } else { expected() })
}

fn has_ending(path: &Path, known: &[&str]) -> bool {
    path.extension().is_some_and(|ending| known.iter().any(|known| ending.eq_ignore_ascii_case(known)))
}

/// Plots are written as PNG or SVG.
fn png_or_svg(text: &str) -> Result<PathBuf, String> {
    let expected = || Err("use .png or .svg".to_owned());
    file(text).and_then(|path| if has_ending(&path, &["png", "svg"]) { Ok(path) } else { expected() })
}

fn pair(text: &str) -> Result<(usize, usize), String> {
    let parse = |number: &str| number.trim().parse::<usize>().map_err(|e| format!("`{number}`: {e}"));
    let (i, j) = text.split_once(',').ok_or("two numbers with a comma between them, such as 3,17")?;
    Ok((parse(i)?, parse(j)?))
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

#[derive(Args)]
pub(crate) struct Plot {
    /// The run folders
    #[arg(required = true)]
    pub(crate) runs: Vec<PathBuf>,
    /// The picture to write; one in SVG is light or dark as its reader is
    #[arg(long, value_name = "FILE.png|FILE.svg", value_parser = png_or_svg)]
    pub(crate) out: PathBuf,
    /// Light on a dark background
    #[arg(long)]
    pub(crate) dark: bool,
    /// In place of curves, of one run on a table: its rows beside samples of the model, by column and by pairs of
    /// columns (a corner plot, in SVG)
    #[arg(long, conflicts_with = "dark")]
    pub(crate) corner: bool,
    /// Data whose rows are drawn with --corner [default: the run's own]
    #[arg(long, value_name = "DATA", requires = "corner")]
    pub(crate) data: Option<DataSource>,
    /// Part of the data to draw with --corner [default: test, or all where the run has not seen the data]
    #[arg(long, value_enum, requires = "corner")]
    pub(crate) part: Option<Part>,
}

#[derive(Args)]
pub(crate) struct Export {
    /// The run folder, or one of its checkpoints
    pub(crate) run: PathBuf,
    /// The file to write
    #[arg(long, value_name = "FILE.safetensors", value_parser = file)]
    pub(crate) out: PathBuf,
}

#[derive(Args)]
pub(crate) struct Import {
    /// A file written by `mixerflow export`
    pub(crate) file: PathBuf,
    /// Folder to write the model to
    #[arg(long, value_name = "RUN")]
    pub(crate) out: PathBuf,
}

#[derive(Args)]
pub(crate) struct Completions {
    /// The shell
    pub(crate) shell: clap_complete::Shell,
}

/// `NAME=SOURCE`.
fn named_source(text: &str) -> Result<(String, DataSource), String> {
    let (name, source) = text.split_once('=').ok_or("expected NAME=SOURCE")?;
    Ok((name.to_owned(), source.parse().map_err(|e| format!("{e}"))?))
}
