//! What a model says of items.

use super::data::{Data, Part};
use super::device::On;
use super::values::{at_least_one, file, png, rate};
use clap::{Args, ValueEnum};
use flow_train::data::DataSource;
use std::path::PathBuf;

/// What `score` is about.
pub(super) const SCORES: &str = "\
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
    /// Units of one hidden layer of the classifier [default: none, it is linear]
    #[arg(long, value_name = "N", value_parser = at_least_one, allow_negative_numbers = true)]
    pub(crate) hidden: Option<usize>,
    /// Items per batch
    #[arg(long, default_value_t = 128, value_name = "N", value_parser = at_least_one, allow_negative_numbers = true)]
    pub(crate) batch: usize,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}
