//! Trains every spec of a list on the same data with the same seed, steps and batch, and compares them.
//!
//! With no arguments it trains the digit-size specs of `specs/` on the bundled handwritten digits (1,500 of them for
//! training, 297 for the test) and takes some three minutes on two cores. It prints one table (test bits/dim with its
//! standard error, seconds a step, images scored and sampled a second, the largest error of the inverse) and writes
//! `results.json`, a grid of samples per spec and `index.html` to a folder. The affine model should reach about 2.64
//! bits/dim; an independent histogram of each pixel has 2.364, a full Gaussian 2.947.
//!
//! ```sh
//! cargo run --release --example compare_flows
//! cargo run --release --example compare_flows -- --spec specs/digits-affine.ron my-flow.ron --steps 500 --out comparison
//! ```

use clap::Parser;
use flow_train::data::DataSource;
use flow_train::study::{self, Audience, Budget, Study, StudyData, Variant};
use flow_train::{Bar, Observer, Settings};
use mixerflow_toolkit::prelude::*;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Train specs on the same data and compare them.
#[derive(Parser)]
struct Arguments {
    /// Specs to compare [default: every specs/digits-*.ron]
    #[arg(long, num_args = 1.., value_name = "FILE")]
    spec: Vec<PathBuf>,
    /// Data: `digits`, an IDX file of images, or any source such as `idx:IMAGES,LABELS` or `toy:two-moons`
    #[arg(long, default_value = "digits")]
    data: String,
    /// Optimiser steps of each spec
    #[arg(long, default_value_t = 300)]
    steps: u64,
    /// Learning rate of Adam, the same for all
    #[arg(long, default_value_t = 0.003)]
    learning_rate: f64,
    /// Items in a batch
    #[arg(long, default_value_t = 128)]
    batch: usize,
    /// Seed of parameters, data order and noise
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Folder for the results
    #[arg(long, default_value = "target/compare_flows")]
    out: PathBuf,
}

/// The digit-size specs that come with the toolkit, by name: a new family joins by a file of its own.
fn bundled() -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("specs");
    let mut specs = Vec::new();
    for entry in std::fs::read_dir(&folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with("digits-") && name.ends_with(".ron") {
            specs.push(path);
        }
    }
    specs.sort();
    Ok(specs)
}

fn read(path: &Path) -> Result<(String, Spec<dyn ModelSpec>), Box<dyn Error>> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let spec = from_ron(&text).map_err(|e| format!("{}:{e}", path.display()))?;
    Ok((path.file_stem().unwrap_or_default().to_string_lossy().into_owned(), spec))
}

fn main() -> ExitCode {
    run().map_or_else(
        |error| {
            eprintln!("compare_flows: {error}");
            ExitCode::FAILURE
        },
        |()| ExitCode::SUCCESS,
    )
}

fn run() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let paths = if arguments.spec.is_empty() { bundled()? } else { arguments.spec };
    let specs = paths.iter().map(|path| read(path)).collect::<Result<Vec<_>, _>>()?;
    let text = if Path::new(&arguments.data).is_file() { format!("idx:{}", arguments.data) } else { arguments.data };
    let source: DataSource = text.parse()?;

    let stop = Arc::new(AtomicBool::new(false));
    let flag = stop.clone();
    ctrlc::set_handler(move || {
        if flag.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        eprintln!("\nstopping after this step; what is done so far will be written");
    })?;
    let report_every = (arguments.steps / 20).max(1);
    let settings = Settings { batch: arguments.batch, learning_rate: arguments.learning_rate, report_every, ..Settings::default() };
    let name = source.to_string();
    let variant = |(name, spec)| Variant { name, spec: Some(spec), ..Variant::default() };
    let study = Study {
        title: format!("flows on {name}"),
        seeds: vec![arguments.seed],
        budget: Budget::Steps(arguments.steps),
        settings,
        ..Study::new(vec![StudyData { name, source }], specs.into_iter().map(variant).collect())
    };
    let results = study::run(&study, &arguments.out, &mut Bars, &stop)?;
    println!("{results}\n{}", arguments.out.join("index.html").display());
    match results.failed.len() {
        0 => Ok(()),
        failed => Err(format!("{failed} of {} specs failed", study.variants.len()).into()),
    }
}

/// Shows a bar a run.
struct Bars;

impl Audience<f32> for Bars {
    fn begins(&mut self, run: &str) -> Box<dyn Observer<f32> + Send> {
        Box::new(Bar::new(run))
    }
}
