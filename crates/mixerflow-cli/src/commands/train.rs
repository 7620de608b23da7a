//! `mixerflow train`.

use super::sources::{open, skipping, spec};
use crate::arguments::Train;
use crate::{INTERRUPTED, Result, interrupt, logging, output};
use flow_api::spec::{BuildScope, SpecScalar, to_ron};
use flow_train::data::Split;
use flow_train::{Bar, Ending, EventKind, Events, Observer, Report, RunFolder, RunPlan, TrainError, Trainer};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub(crate) fn run(arguments: &Train, threads: Option<usize>) -> Result<ExitCode> {
    let path = arguments.out.clone().unwrap_or_else(|| new_folder(arguments.spec.as_deref()));
    let (run, split) =
        if arguments.resume && RunFolder::exists(&path) { resume(arguments, &path, threads)? } else { begin(arguments, &path, threads)? };
    logging::to_file(&path.join("log"))?;
    let RunPlan { settings, data, .. } = run.plan();
    tracing::info!("{} of {data}: {} training items, {} steps", path.display(), split.train.len(), settings.steps);

    let stop = interrupt::flag()?;
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut observers: Vec<Box<dyn Observer<f32> + Send>> = vec![
        Box::new(Bar::new(&name)),
        Box::new(Log),
        Box::new(StopAt { at: arguments.stop_at.unwrap_or(u64::MAX), reported: (1, 0), raised: stop.clone() }),
    ];
    let ending = run
        .train::<f32>(&split.train, &mut observers, &stop)
        .inspect_err(|error| tracing::error!(target: logging::FILE_ALONE, "{error}"))?;
    output::line(path.display())?;
    let was_interrupted = ending == Ending::Stopped && interrupt::came();
    Ok(if was_interrupted { ExitCode::from(INTERRUPTED) } else { ExitCode::SUCCESS })
}

fn begin(arguments: &Train, path: &Path, threads: Option<usize>) -> Result<(RunFolder, Split)> {
    let (Some(file), Some(source)) = (&arguments.spec, &arguments.data) else {
        return Err(format!("{}: no run to resume here; to start one, give SPEC and --data", path.display()).into());
    };
    let training = &arguments.training;
    let (spec, data) = (spec(file, &training.set)?, skipping(source, arguments.skip_bad));
    let (settings, split) = training.begin(&data, threads)?;
    // A model that cannot be built leaves no folder, nor does one for other data.
    let kind = EventKind::of(split.train.as_ref());
    settings.check_batch::<f32>(kind.shape)?;
    Events::of_kind(kind, spec.0.preprocessing(), settings.seed)?;
    let model = f32::model(spec.0.as_ref(), kind.shape, &BuildScope::new(settings.seed)).map_err(|e| format!("{}: {e}", file.display()))?;
    Trainer::check_model(&model)?;
    Ok((RunFolder::create(path, RunPlan { spec, settings, data })?, split))
}

fn resume(arguments: &Train, path: &Path, threads: Option<usize>) -> Result<(RunFolder, Split)> {
    let training = &arguments.training;
    let begun = RunFolder::read_plan(path)?;
    if let Some(file) = &arguments.spec {
        let given = spec(file, &training.set)?;
        if to_ron(&given)? != to_ron(&begun.spec)? {
            return Err(format!("{}: the run was begun with another spec than {}", path.display(), file.display()).into());
        }
    } else if let Some(set) = training.set.iter().find(|set| !set.starts_with("settings.")) {
        return Err(format!("--set {set}: the spec of an existing run cannot be changed").into());
    }
    if let Some(given) = arguments.data.as_ref().map(|source| skipping(source, arguments.skip_bad)).filter(|given| *given != begun.data) {
        return Err(format!("{}: the run was begun on {}, not on {given}", path.display(), begun.data).into());
    }
    let split = open(&begun.data, begun.settings.seed)?;
    let mut settings = training.apply(begun.settings, threads)?;
    settings.steps = training.steps(&settings, split.train.as_ref());
    settings.report_every = training.report_every.unwrap_or(settings.report_every);
    Ok((RunFolder::resume(path, |_| settings)?, split))
}

/// `runs/SPEC-TIME`.
fn new_folder(spec: Option<&Path>) -> PathBuf {
    let name = spec.and_then(Path::file_stem).unwrap_or_default().to_string_lossy();
    Path::new("runs").join(format!("{name}-{}", jiff::Zoned::now().strftime("%Y%m%d-%H%M%S")))
}

/// Writes reports to the log.
struct Log;

impl Observer<f32> for Log {
    fn begin(&mut self, trainer: &Trainer<f32>) -> Result<(), TrainError> {
        tracing::info!("at step {} of {}", trainer.optimiser().steps(), trainer.settings().steps);
        if trainer.settings().validation > 0.0 && trainer.held_out() == 0 {
            tracing::warn!("nothing is held out for validation: all training items come from one source");
        }
        Ok(())
    }

    fn report(&mut self, report: &Report, trainer: &Trainer<f32>) -> Result<(), TrainError> {
        let unit = trainer.events().unit();
        let validation = report.validation.map_or(String::new(), |loss| format!(", validation {loss:.4}"));
        let Report { step, train, seconds_per_step, gradient_norm, .. } = report;
        tracing::info!("step {step}: train {train:.4}{validation} {unit}, gradient {gradient_norm:.3}, {seconds_per_step:.4} s a step");
        Ok(())
    }

    fn end(&mut self, ending: Ending, trainer: &Trainer<f32>) -> Result<(), TrainError> {
        let why = match ending {
            Ending::Finished => "all steps are made",
            Ending::Early => "validation no longer improves",
            Ending::Stopped => "stopped",
        };
        tracing::info!("step {}: {why}", trainer.optimiser().steps());
        if Report::none_is_valid(trainer.history()) {
            tracing::warn!("no validation was finite: there is no best model, and the last one is used");
        }
        Ok(())
    }
}

/// Raises the stop flag when a number of steps is made, and reported where a report ends with them: a validation
/// would be interrupted.
struct StopAt {
    at: u64,
    /// Steps between reports, and of the run.
    reported: (u64, u64),
    raised: Arc<AtomicBool>,
}

impl StopAt {
    fn check(&self, made: u64) {
        if made >= self.at {
            self.raised.store(true, Ordering::Relaxed);
        }
    }
}

impl Observer<f32> for StopAt {
    fn begin(&mut self, trainer: &Trainer<f32>) -> Result<(), TrainError> {
        self.reported = (trainer.settings().report_every, trainer.settings().steps);
        self.check(trainer.optimiser().steps());
        Ok(())
    }

    fn step(&mut self, step: u64, _: f64) {
        let (every, steps) = self.reported;
        if !step.is_multiple_of(every) && step != steps {
            self.check(step);
        }
    }

    fn report(&mut self, report: &Report, _: &Trainer<f32>) -> Result<(), TrainError> {
        self.check(report.step);
        Ok(())
    }
}
