//! Budgets as optimiser steps.

use super::Budget;
use crate::data::Dataset;
use crate::training::Silent;
use crate::training::Trainer;
use crate::{Result, Settings};
use flow_api::bijector::LayerInfo;
use flow_api::spec::{Model, SpecScalar};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Passes forward that a training step costs: one forward, and about two backward.
const PASSES: f64 = 3.0;

/// Multiply-adds of an event forward.
pub(super) fn multiply_adds(table: &[LayerInfo]) -> u64 {
    table.iter().map(|layer| layer.multiply_adds).sum()
}

/// Multiply-adds of a training step.
pub(super) fn of_step(multiply_adds: u64, batch: usize) -> f64 {
    PASSES * multiply_adds as f64 * batch as f64
}

/// The steps that a budget has room for, at least one. `model` makes the model anew, which seconds are measured of.
pub(super) fn of<E: SpecScalar>(
    budget: Budget,
    settings: &Settings,
    data: &Arc<dyn Dataset>,
    multiply_adds: u64,
    model: impl FnOnce() -> Result<Model<E>>,
    stop: &AtomicBool,
) -> Result<u64> {
    let whole = |steps: f64| num_traits::cast::<f64, u64>(steps).unwrap_or(u64::MAX).max(1);
    Ok(match budget {
        Budget::Steps(steps) => steps,
        Budget::Epochs(epochs) => settings.steps_of_epochs(epochs, data.as_ref()).max(1),
        Budget::MultiplyAdds(all) => whole(all / of_step(multiply_adds.max(1), settings.batch)),
        Budget::Seconds(seconds) => whole(seconds / seconds_per_step(model()?, settings, data, stop)?),
    })
}

/// Of steps that memory and caches are ready for.
fn seconds_per_step<E: SpecScalar>(model: Model<E>, settings: &Settings, data: &Arc<dyn Dataset>, stop: &AtomicBool) -> Result<f64> {
    /// Steps that are made first, and again as many that are timed.
    const TIMED: u64 = 5;
    let few = Settings { steps: 2 * TIMED, report_every: TIMED, validation: 0.0, patience: None, ..settings.clone() };
    let mut trainer = Trainer::new(model, data.clone(), few)?;
    trainer.run(&mut Silent, stop)?;
    trainer.history().last().map(|report| report.seconds_per_step).ok_or(crate::TrainError::Stopped)
}
