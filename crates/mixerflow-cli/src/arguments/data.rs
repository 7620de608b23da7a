//! Where data come from.

use clap::{Args, ValueEnum};
use flow_train::data::DataSource;

/// What DATA may be, for the help of every command that takes it.
pub(super) const DATA: &str = "\
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
