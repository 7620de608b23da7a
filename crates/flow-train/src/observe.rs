//! What sees a run while it goes on: a progress bar, a file of metrics, checkpoints.

use crate::checkpoint;
use crate::events::Events;
use crate::file::replace_file;
use crate::layout::{BEST_MODEL, LATEST};
use crate::progress::{Ending, Report};
use crate::samples::{Drawing, given_numbers, try_draw_samples};
use crate::training::{Observer, Trainer};
use crate::{Result, TrainError};
use flow_api::spec::{ModelSpec, Spec, SpecScalar};
use indicatif::{ProgressBar, ProgressStyle};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Shows a run on the terminal: steps, loss, seconds a step, time left. Nothing is shown where standard error is no
/// terminal.
#[derive(Debug)]
pub struct Bar {
    shown: ProgressBar,
    unit: &'static str,
    /// Moving averages of loss and seconds a step.
    smoothed: Option<(f64, f64)>,
    /// Seconds when the last step ended.
    last: f64,
    /// The last validation and the best, as text.
    validation: String,
    /// The terms of the last report, as text.
    terms: String,
}

impl Bar {
    /// A bar with a name in front.
    pub fn new(name: &str) -> Self {
        let style = ProgressStyle::with_template("{prefix:22} {wide_bar} {pos}/{len}  {msg}  {eta} left")
            .unwrap_or_else(|_| ProgressStyle::default_bar())
            .progress_chars("━╸ ");
        let shown = ProgressBar::no_length().with_style(style).with_prefix(name.to_owned());
        Self { shown, unit: "", smoothed: None, last: 0.0, validation: String::new(), terms: String::new() }
    }
}

impl<E: SpecScalar> Observer<E> for Bar {
    fn begin(&mut self, trainer: &Trainer<E>) -> Result<()> {
        self.unit = trainer.unit();
        self.shown.set_length(trainer.settings().steps);
        self.shown.set_position(trainer.optimiser().steps());
        self.shown.reset_eta();
        self.shown.reset_elapsed();
        // It is there before the first step ends, which may be a while with pictures to decode.
        self.shown.tick();
        Ok(())
    }

    fn step(&mut self, step: u64, loss: f64) {
        /// Weight of the newest step in what is shown.
        const NEW: f64 = 0.05;
        let now = self.shown.elapsed().as_secs_f64();
        let took = now - self.last;
        let (loss, seconds) = self.smoothed.map_or((loss, took), |(l, s)| (l + NEW * (loss - l), s + NEW * (took - s)));
        (self.smoothed, self.last) = (Some((loss, seconds)), now);
        self.shown.set_position(step);
        self.shown.set_message(format!("{loss:.3}{} {}{}, {seconds:.3} s a step", self.validation, self.unit, self.terms));
    }

    fn report(&mut self, report: &Report, trainer: &Trainer<E>) -> Result<()> {
        let best = trainer.best().map_or(String::new(), |best| format!(", best {:.3}", best.value));
        self.validation = report.validation.map_or(String::new(), |loss| format!(", validation {loss:.3}{best}"));
        self.terms = report.terms_text();
        Ok(())
    }

    fn end(&mut self, _: Ending, _: &Trainer<E>) -> Result<()> {
        self.shown.abandon();
        // What comes next begins a line.
        if !self.shown.is_hidden() {
            let _ = writeln!(std::io::stderr());
        }
        Ok(())
    }
}

/// Writes every report as a line of JSON, for example to `metrics.jsonl`. A number that is not finite is null.
#[derive(Debug)]
pub struct Metrics {
    path: PathBuf,
    file: Option<File>,
}

impl Metrics {
    /// To this file. A run that goes on begins it anew with the reports so far, so that steps made after the last
    /// checkpoint and lost are not in it twice.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), file: None }
    }

    fn line(path: &Path, report: &Report) -> Result<String> {
        let line = serde_json::to_string(report).map_err(|e| TrainError::Io { path: path.to_owned(), source: e.into() })?;
        Ok(line + "\n")
    }
}

impl<E: SpecScalar> Observer<E> for Metrics {
    fn begin(&mut self, trainer: &Trainer<E>) -> Result<()> {
        let text = trainer.history().iter().map(|report| Self::line(&self.path, report)).collect::<Result<String>>()?;
        replace_file(&self.path, text.as_bytes())?;
        self.file = Some(File::options().append(true).open(&self.path).map_err(TrainError::io(&self.path))?);
        Ok(())
    }

    fn report(&mut self, report: &Report, _: &Trainer<E>) -> Result<()> {
        let line = Self::line(&self.path, report)?;
        let Some(file) = &mut self.file else { return Ok(()) };
        file.write_all(line.as_bytes()).map_err(TrainError::io(&self.path))
    }
}

/// Draws a grid of samples to `step-NNNNNNNN.png` below a folder at every report, always from the same latents. Models
/// whose samples are no pictures, or fail, draw nothing: training goes on. A run that goes on draws the grid of its
/// last report where a kill came before it.
#[derive(Debug)]
pub struct SampleGrids {
    folder: PathBuf,
}

impl SampleGrids {
    /// Below `folder`.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    fn path(&self, report: &Report) -> PathBuf {
        self.folder.join(format!("step-{:08}.png", report.step))
    }
}

impl<E: SpecScalar> Observer<E> for SampleGrids {
    fn begin(&mut self, trainer: &Trainer<E>) -> Result<()> {
        std::fs::create_dir_all(&self.folder).map_err(TrainError::io(&self.folder))?;
        match trainer.history().last() {
            Some(last) if last.step == trainer.optimiser().steps() && !self.path(last).exists() => self.report(last, trainer),
            _ => Ok(()),
        }
    }

    fn report(&mut self, report: &Report, trainer: &Trainer<E>) -> Result<()> {
        let path = self.path(report);
        let drawing = Drawing { seed: trainer.settings().seed, ..Drawing::default() };
        let given = given_numbers(trainer.model(), trainer.train(), trainer.events())?;
        try_draw_samples(&path, trainer.model(), trainer.events(), &drawing, given.as_ref()).map(drop)
    }
}

/// Writes the run to `latest` at its beginning, at every report and at its end, and its best model to `best` whenever
/// validation improves, both folders below one.
#[derive(Debug)]
pub struct Checkpoints {
    folder: PathBuf,
    spec: Spec<dyn ModelSpec>,
    /// The step of the last one.
    written: Option<u64>,
}

impl Checkpoints {
    /// Below `folder`.
    pub fn new(folder: impl Into<PathBuf>, spec: Spec<dyn ModelSpec>) -> Self {
        Self { folder: folder.into(), spec, written: None }
    }

    fn write<E: SpecScalar>(&mut self, trainer: &Trainer<E>) -> Result<()> {
        let step = trainer.optimiser().steps();
        if self.written == Some(step) {
            return Ok(());
        }
        let place = self.folder.join(BEST_MODEL);
        if let Some(best) = trainer.best().filter(|best| best.step == step || !place.exists()) {
            let events: &Events = trainer.events();
            checkpoint::write_model(&place, &self.spec, trainer.settings(), events, &best.state)?;
        }
        checkpoint::write(&self.folder.join(LATEST), &self.spec, trainer)?;
        self.written = Some(step);
        Ok(())
    }
}

impl<E: SpecScalar> Observer<E> for Checkpoints {
    /// From its first moment a run can go on.
    fn begin(&mut self, trainer: &Trainer<E>) -> Result<()> {
        self.write(trainer)
    }

    fn report(&mut self, _: &Report, trainer: &Trainer<E>) -> Result<()> {
        self.write(trainer)
    }

    fn end(&mut self, _: Ending, trainer: &Trainer<E>) -> Result<()> {
        self.write(trainer)
    }
}
