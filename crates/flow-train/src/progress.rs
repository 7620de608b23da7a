//! A progress bar for a run.

use crate::Result;
use crate::training::{Observer, Report, Trainer};
use flow_api::spec::SpecScalar;
use indicatif::{ProgressBar, ProgressStyle};

/// Shows a run on the terminal: steps, loss, seconds a step, time left. Nothing is shown where standard error is no terminal.
#[derive(Debug)]
pub struct Bar {
    shown: ProgressBar,
    unit: &'static str,
    smoothed: Option<f64>,
}

impl Bar {
    /// A bar of `steps` steps with a name in front; losses are in `unit`.
    pub fn new(name: &str, steps: u64, unit: &'static str) -> Self {
        let style = ProgressStyle::with_template("{prefix:24} {bar:30} {pos}/{len} {msg}, {eta} left")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::new(steps).with_style(style).with_prefix(name.to_owned());
        Self { shown: bar, unit, smoothed: None }
    }

    /// Ends the bar and leaves it on the screen.
    pub fn finish(&self) {
        self.shown.abandon();
    }
}

impl<E: SpecScalar> Observer<E> for Bar {
    fn step(&mut self, step: u64, loss: f64) {
        /// Weight of the past in the loss that is shown.
        const KEEP: f64 = 0.95;
        let smoothed = self.smoothed.map_or(loss, |old| KEEP * old + (1.0 - KEEP) * loss);
        self.smoothed = Some(smoothed);
        self.shown.set_position(step);
        let seconds = self.shown.elapsed().as_secs_f64() / step.max(1) as f64;
        self.shown.set_message(format!("{smoothed:.3} {}, {seconds:.4} s a step", self.unit));
    }

    fn report(&mut self, _: &Report, _: &Trainer<E>) -> Result<()> {
        self.shown.tick();
        Ok(())
    }
}
