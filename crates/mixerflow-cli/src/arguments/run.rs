//! Runs as pictures and as files, and the program itself.

use super::data::Part;
use super::values::{file, png_or_svg};
use clap::Args;
use flow_train::data::DataSource;
use std::path::PathBuf;

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
