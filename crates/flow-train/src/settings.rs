//! How a model is trained: everything besides the architecture and the data.

use crate::{AdamConfig, Result, TrainError};
use flow_api::Memory;
use serde::{Deserialize, Serialize};

/// Settings of a training run. Every field has a default; [`Settings::check`] says what is out of range.
///
/// ```
/// use flow_train::Settings;
/// let settings = Settings { steps: 500, batch: 64, ..Settings::default() };
/// assert!(settings.check().is_ok());
/// assert!((settings.learning_rate_at(0) - 1e-5).abs() < 1e-12); // the first of 100 warm-up steps
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Optimiser steps.
    pub steps: u64,
    /// Items in a batch.
    pub batch: usize,
    /// Seed of everything random: parameters, data order, dequantisation noise, estimators.
    pub seed: u64,
    /// The largest learning rate.
    pub learning_rate: f64,
    /// Steps of linear warm-up.
    pub warm_up: u64,
    /// Adam's β₁ and β₂.
    pub betas: (f64, f64),
    /// Adam's ε.
    pub epsilon: f64,
    /// Bound of the norm of the gradient of the loss per dimension (nats/dim), or none.
    pub clip: Option<f64>,
    /// Decay of the exponential moving average of the weights, or none. Where there is one, validation and the final model use it.
    pub ema: Option<f64>,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// What a step keeps between its two sweeps.
    pub memory: Memory,
    /// Threads; all of the machine's if not given. Results do not depend on it.
    pub threads: Option<usize>,
    /// Items that data-dependent initialisation sees.
    pub initial_batch: usize,
    /// Steps between two validations.
    pub report_every: u64,
    /// Validations without an improvement after which training stops, or none.
    pub patience: Option<u32>,
    /// Share of the training items that are held out for validation.
    pub validation: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            steps: 2000,
            batch: 128,
            seed: 0,
            learning_rate: 1e-3,
            warm_up: 100,
            betas: (0.9, 0.999),
            epsilon: 1e-8,
            clip: Some(5.0),
            ema: None,
            weight_decay: 0.0,
            memory: Memory::Store,
            threads: None,
            initial_batch: 256,
            report_every: 200,
            patience: None,
            validation: 0.0,
        }
    }
}

impl Settings {
    /// Checks every field's range.
    ///
    /// # Errors
    /// [`TrainError::Setting`] naming the field.
    pub fn check(&self) -> Result<()> {
        let at_least_one = |field, value: u64| require(field, "at least 1", value, value >= 1);
        at_least_one("steps", self.steps)?;
        at_least_one("batch", self.batch as u64)?;
        at_least_one("report_every", self.report_every)?;
        require("initial_batch", "at least 2", self.initial_batch, self.initial_batch >= 2)?;
        require("learning_rate", "a finite number greater than 0", self.learning_rate, positive(self.learning_rate))?;
        require(
            "weight_decay",
            "a finite number that is not negative",
            self.weight_decay,
            self.weight_decay == 0.0 || positive(self.weight_decay),
        )?;
        require("validation", "a share from 0 to 0.5", self.validation, (0.0..=0.5).contains(&self.validation))?;
        let beta = |beta: f64| (0.0..1.0).contains(&beta);
        require("betas", "two numbers from 0 to below 1", format!("{:?}", self.betas), beta(self.betas.0) && beta(self.betas.1))?;
        require("epsilon", "a finite number greater than 0", self.epsilon, positive(self.epsilon))?;
        if let Some(clip) = self.clip {
            require("clip", "a finite number greater than 0", clip, positive(clip))?;
        }
        if let Some(ema) = self.ema {
            require("ema", "a decay between 0 and 1", ema, ema > 0.0 && ema < 1.0)?;
        }
        if let Some(patience) = self.patience {
            at_least_one("patience", patience.into())?;
        }
        if let Some(threads) = self.threads {
            at_least_one("threads", threads as u64)?;
        }
        Ok(())
    }

    /// The steps in which each of `items` is drawn `epochs` times, with the share for validation held out.
    pub fn steps_of_epochs(&self, epochs: u64, items: usize) -> u64 {
        let kept = (items - self.held_out(items)) as u64;
        epochs.saturating_mul(kept).div_ceil(self.batch.max(1) as u64)
    }

    /// How many of `items` are held out for validation.
    pub fn held_out(&self, items: usize) -> usize {
        num_traits::cast::<_, usize>(items as f64 * self.validation).unwrap_or(0).min(items)
    }

    /// What [`Adam`](crate::Adam) takes of these settings, for events of `dims` dimensions: the loss that is optimised is nats per dimension.
    pub fn adam(&self, dims: usize) -> AdamConfig {
        AdamConfig {
            gradient_scale: 1.0 / dims.max(1) as f64,
            beta1: self.betas.0,
            beta2: self.betas.1,
            epsilon: self.epsilon,
            weight_decay: self.weight_decay,
            clip: self.clip,
            ema: self.ema,
        }
    }

    /// Learning rate of a step, counted from 0: linear warm-up times half a cosine down to 0, η min(1, (step + 1)/warm-up) ½(1 + cos(π step/steps)).
    pub fn learning_rate_at(&self, step: u64) -> f64 {
        let warm = ((step + 1) as f64 / self.warm_up.max(1) as f64).min(1.0);
        let done = step.min(self.steps) as f64 / self.steps.max(1) as f64;
        self.learning_rate * warm * 0.5 * (1.0 + (std::f64::consts::PI * done).cos())
    }
}

fn positive(value: f64) -> bool {
    value.is_finite() && value > 0.0
}

fn require(field: &'static str, expected: &str, got: impl std::fmt::Display, holds: bool) -> Result<()> {
    if holds { Ok(()) } else { Err(TrainError::Setting { field, expected: expected.to_owned(), got: got.to_string() }) }
}
