//! The contract of what sees a run while it goes on.

use super::Trainer;
use crate::Result;
use crate::progress::{Ending, Report};
use flow_api::spec::SpecScalar;

/// Sees a run while it goes on. What it cannot do ends the run with its error.
pub trait Observer<E: SpecScalar> {
    /// Before the first step of a new run, or of one that goes on.
    ///
    /// # Errors
    /// Whatever the observer cannot do.
    fn begin(&mut self, trainer: &Trainer<E>) -> Result<()> {
        let _ = trainer;
        Ok(())
    }

    /// After every step, with the steps made and the step's loss in the unit of reports.
    fn step(&mut self, step: u64, loss: f64) {
        let _ = (step, loss);
    }

    /// After every report.
    ///
    /// # Errors
    /// Whatever the observer cannot do.
    fn report(&mut self, report: &Report, trainer: &Trainer<E>) -> Result<()> {
        let _ = (report, trainer);
        Ok(())
    }

    /// At the end of a run that did not fail.
    ///
    /// # Errors
    /// Whatever the observer cannot do.
    fn end(&mut self, ending: Ending, trainer: &Trainer<E>) -> Result<()> {
        let _ = (ending, trainer);
        Ok(())
    }
}

/// Sees nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;
impl<E: SpecScalar> Observer<E> for Silent {}

/// Several observers in turn.
impl<E: SpecScalar> Observer<E> for Vec<Box<dyn Observer<E> + Send>> {
    fn begin(&mut self, trainer: &Trainer<E>) -> Result<()> {
        self.iter_mut().try_for_each(|observer| observer.begin(trainer))
    }
    fn step(&mut self, step: u64, loss: f64) {
        self.iter_mut().for_each(|observer| observer.step(step, loss));
    }
    fn report(&mut self, report: &Report, trainer: &Trainer<E>) -> Result<()> {
        self.iter_mut().try_for_each(|observer| observer.report(report, trainer))
    }
    fn end(&mut self, ending: Ending, trainer: &Trainer<E>) -> Result<()> {
        self.iter_mut().try_for_each(|observer| observer.end(ending, trainer))
    }
}
