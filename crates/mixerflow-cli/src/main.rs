//! `mixerflow`: density models of images from the command line. `mixerflow --help` tells the rest.
//!
//! Everything that it does is a few lines of library code: see [`flow_train`]. Exit codes: 0 done, 1 failed, 2 wrong
//! usage, 3 unusual items were found (`score --false-alarm`), 130 interrupted. Results go to standard output, progress
//! and log to standard error.

mod arguments;
mod commands;
mod interrupt;
mod logging;
mod output;
mod program;

use arguments::{Arguments, Command};
use clap::Parser;
use program::{Error, INTERRUPTED, MEMORY, Result, UNUSUAL};
use std::io::Write;
use std::process::ExitCode;

// The families that specs can name.
use flows_autoregressive as _;
use flows_coupling as _;
use flows_ffjord as _;
use flows_glow as _;
use flows_jet as _;
use flows_lipschitz as _;
use mixerflow as _;

fn main() -> ExitCode {
    let Arguments { command, threads, verbose } = Arguments::parse();
    let threads = threads.map(usize::from);
    let run = || -> Result<ExitCode> {
        logging::start(verbose)?;
        if matches!(command, Command::Train(_) | Command::Compare(_) | Command::Experiment(_)) {
            interrupt::take_termination()?;
        }
        let (set, threads_there) = (flow_kernels::simd::instruction_set()?, flow_train::start_threads(threads)?);
        tracing::debug!("{threads_there} threads, instruction set {set}");
        match command {
            Command::Train(arguments) => return commands::train::run(&arguments, threads),
            Command::Compare(arguments) => return commands::compare::run(&arguments, threads),
            Command::Experiment(arguments) => return commands::experiment::run(&arguments, threads),
            Command::Data(arguments) => commands::data::run(&arguments),
            Command::Inspect(arguments) => commands::inspect::run(&arguments),
            Command::Eval(arguments) => commands::eval::run(&arguments),
            Command::Score(arguments) => return commands::score::run(&arguments),
            Command::Report(arguments) => commands::report::run(&arguments),
            Command::Sample(arguments) => commands::sample::run(&arguments),
            Command::Predict(arguments) => commands::predict::run(&arguments),
            Command::Probe(arguments) => commands::probe::run(&arguments),
            Command::Interpolate(arguments) => commands::interpolate::run(&arguments),
            Command::Embed(arguments) => commands::embed::run(&arguments),
            Command::Decode(arguments) => commands::decode::run(&arguments),
            Command::Plot(arguments) => commands::plot::run(&arguments),
            Command::Export(arguments) => commands::exchange::export(&arguments),
            Command::Import(arguments) => commands::exchange::import(&arguments),
            Command::Specs => commands::specs::run(),
            Command::Devices => commands::devices::run(threads_there),
            Command::Completions(arguments) => commands::completions::run(&arguments),
        }?;
        Ok(ExitCode::SUCCESS)
    };
    run().unwrap_or_else(|error| {
        // A pipe that nobody reads any more is how `| head` ends a program.
        let causes = std::iter::successors(Some(error.as_ref() as &dyn std::error::Error), |cause| cause.source());
        let mut io = causes.filter_map(|cause| cause.downcast_ref::<std::io::Error>());
        let broken_pipe = io.any(|e| e.kind() == std::io::ErrorKind::BrokenPipe);
        if broken_pipe {
            return ExitCode::SUCCESS;
        }
        // Where standard error fails too there is nobody to tell.
        let _ = writeln!(std::io::stderr(), "mixerflow: {}", output::shown(&error.to_string()));
        ExitCode::FAILURE
    })
}
