//! How a model is trained: everything besides the architecture and the data.

use crate::data::most_items;
use crate::{AdamConfig, Result, TrainError};
use flow_api::Memory;
use flow_api::device::Precision;
use flow_api::spec::EventShape;
use serde::{Deserialize, Serialize};

/// Settings of a training run. Every field has a default; [`Settings::check`] says what is out of range.
///
/// ```
/// use flow_train::Settings;
/// let settings = Settings { steps: 500, batch: 64, ..Settings::default() };
/// assert!(settings.check().is_ok());
/// assert!((settings.learning_rate_at(0) - 2e-5).abs() < 1e-12); // the first of 50 warm-up steps, a tenth of all
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Optimiser steps. Default 2000.
    pub steps: u64,
    /// Items in a batch. Default 128.
    pub batch: usize,
    /// Seed of data order, dequantisation and estimators; [`RunFolder`](crate::RunFolder), studies
    /// ([`mod@crate::study`]) and the command line also seed parameters with it. Default 0.
    pub seed: u64,
    /// The largest learning rate. Default 0.001.
    pub learning_rate: f64,
    /// Steps of linear warm-up, of short runs at most a tenth of all. Default 100.
    pub warm_up: u64,
    /// Adam's β₁ and β₂. Default 0.9 and 0.999.
    pub betas: (f64, f64),
    /// Adam's ε. Default 1e-8.
    pub epsilon: f64,
    /// Bound of the norm of the gradient of the loss per dimension (nats/dim), or none. Default 5.
    pub clip: Option<f64>,
    /// Decay κ of the exponential moving average of the weights, or none. Where there is one, validation and the final
    /// model use it. After n steps it still holds κⁿ of the initial weights: 0.37 of them after 1000 steps with 0.999.
    /// Default none.
    pub ema: Option<f64>,
    /// Decoupled weight decay. Default 0.
    pub weight_decay: f64,
    /// What a step keeps between forward and backward pass. Default [`Memory::Store`].
    pub memory: Memory,
    /// What products of matrices are computed in where steps stay on a device ([`Trainer::on`](crate::Trainer::on)):
    /// everything else is computed in the numbers of the model. Default [`Precision::F32`].
    #[serde(skip_serializing_if = "is_default")]
    pub precision: Precision,
    /// Threads, or none for all of the machine's. Results do not depend on it. Default none.
    pub threads: Option<usize>,
    /// Items that data-dependent initialisation sees. Default 256.
    pub initial_batch: usize,
    /// Steps between two validations. Default 200.
    pub report_every: u64,
    /// Validations without an improvement after which training stops, or none. It takes items to validate on. Default
    /// none.
    pub patience: Option<u32>,
    /// Share of the training items that are held out for validation, all crops of a picture together: of two items
    /// (pictures) and more at least one, if it is above 0. Default 0.
    pub validation: f64,
    /// Share of the values that are replaced by random levels, in training and in validation: what makes a background
    /// model ([`Mutated`](crate::data::Mutated)). Default 0.
    #[serde(skip_serializing_if = "is_default")]
    pub mutate: f64,
}

/// Settings that came later are written where they are used: the others' files are as they were before.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
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
            precision: Precision::F32,
            threads: None,
            initial_batch: 256,
            report_every: 200,
            patience: None,
            validation: 0.0,
            mutate: 0.0,
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
        in_f32("learning_rate", self.learning_rate)?;
        if self.weight_decay != 0.0 {
            in_f32("weight_decay", self.weight_decay)?;
        }
        require("validation", "a share from 0 to 0.5", self.validation, (0.0..=0.5).contains(&self.validation))?;
        require("mutate", "a share from 0 to 1", self.mutate, (0.0..=1.0).contains(&self.mutate))?;
        let beta = |beta: f64| (0.0..1.0).contains(&beta);
        require("betas", "two numbers from 0 to below 1", format!("{:?}", self.betas), beta(self.betas.0) && beta(self.betas.1))?;
        in_f32("epsilon", self.epsilon)?;
        if let Some(clip) = self.clip {
            in_f32("clip", clip)?;
        }
        if let Some(ema) = self.ema {
            require("ema", "a decay between 0 and 1", ema, ema > 0.0 && ema < 1.0)?;
        }
        if let Some(patience) = self.patience {
            at_least_one("patience", patience.into())?;
            require("patience", "none where `validation` is 0", patience, self.validation > 0.0)?;
        }
        if let Some(threads) = self.threads {
            require("threads", "1 to 1024", threads, (1..=1024).contains(&threads))?;
        }
        Ok(())
    }

    /// Checks that a batch of events of this shape can be held.
    ///
    /// # Errors
    /// [`TrainError::Setting`] for a batch above [`most_items`](crate::data::most_items).
    pub fn check_batch<E>(&self, event: EventShape) -> Result<()> {
        let most = most_items::<E>(event.len());
        let expected = format!("at most {most} events of shape {event}");
        require("batch", &expected, self.batch, self.batch <= most)
    }

    /// How many of as many independent sources ([`Dataset::source`](crate::data::Dataset::source)) are held out for
    /// validation.
    pub fn held_out(&self, sources: usize) -> usize {
        let least = usize::from(self.validation > 0.0 && sources >= 2);
        num_traits::cast::<_, usize>(sources as f64 * self.validation).unwrap_or(0).clamp(least, sources)
    }

    /// What [`Adam`](crate::Adam) takes of these settings, for events of `dims` dimensions: the loss that is optimised
    /// is nats per dimension.
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

    /// Learning rate of a step, counted from 0: linear warm-up times half a cosine down to 0, η min(1,
    /// (step + 1)/warm-up) ½(1 + cos(π step/steps)).
    pub fn learning_rate_at(&self, step: u64) -> f64 {
        let warm_up = self.warm_up.min(self.steps / 10).max(1);
        let warm = ((step + 1) as f64 / warm_up as f64).min(1.0);
        let done = step.min(self.steps) as f64 / self.steps.max(1) as f64;
        self.learning_rate * warm * 0.5 * (1.0 + (std::f64::consts::PI * done).cos())
    }
}

/// A factor of the weights' own numbers, which may be f32: what is 0 or infinite there would end a run many steps
/// later.
fn in_f32(field: &'static str, value: f64) -> Result<()> {
    let holds = (f64::from(f32::MIN_POSITIVE)..=f64::from(f32::MAX)).contains(&value);
    require(field, "a finite number greater than 0 in f32", format!("{value:?}"), holds)
}

fn require(field: &'static str, expected: &str, got: impl std::fmt::Display, holds: bool) -> Result<()> {
    if holds { Ok(()) } else { Err(TrainError::Setting { field, expected: expected.to_owned(), got: got.to_string() }) }
}
