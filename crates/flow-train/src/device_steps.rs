//! Training steps that stay on a device.

use crate::data::{Batch, Dequantiser, Values};
use crate::events::Events;
use crate::objective::Objective;
use crate::optimiser::{Adam, AdamState, flat_weights, set_flat_weights};
use crate::terms::{LIKELIHOOD, Term};
use crate::{Result, Settings, TrainError};
use flow_api::FlowError;
use flow_api::device::{DeviceError, Engine, StepForm, StepSamples, TrainingSession, TrainingState};
use flow_api::module::parameter_count;
use flow_api::spec::{Model, SpecScalar};

/// Steps that are made elsewhere, with parameters, moments and average of their own.
pub(crate) trait Elsewhere<E: SpecScalar>: Send {
    /// A step; none where something of it is not finite, and nothing has changed.
    fn step(&mut self, batch: &Batch, events: &Events, rate: f64, number: u64) -> Result<Option<Done>>;

    /// Brings what lives elsewhere to the model and its optimiser.
    fn read(&mut self, model: &mut Model<E>, optimiser: &mut Adam<E>) -> Result<()>;

    /// Takes it from them.
    fn write(&mut self, model: &Model<E>, optimiser: &Adam<E>) -> Result<()>;
}

/// What a step came to.
pub(crate) struct Done {
    /// In the unit of reports.
    pub(crate) loss: f64,
    pub(crate) terms: Vec<Term>,
    pub(crate) norm: f64,
}

/// Those of an engine.
pub(crate) struct DeviceSteps {
    session: Box<dyn TrainingSession>,
    takes_levels: bool,
    /// Epoch and item of every sample.
    items: Vec<[u64; 2]>,
}

impl DeviceSteps {
    /// The steps of a model, or why they are the host's.
    pub(crate) fn new(
        engine: &dyn Engine,
        model: &Model<f32>,
        objective: &dyn Objective<f32>,
        events: &Events,
        settings: &Settings,
        optimiser: &Adam<f32>,
    ) -> Result<Result<Self, String>> {
        let sides = model.device_form()?;
        let base = match model.flow().base().device_form() {
            _ if !objective.is_likelihood() => return Ok(Err("the loss is not the likelihood alone".to_owned())),
            _ if model.condition().is_some() => return Ok(Err("the model is conditioned".to_owned())),
            None => return Ok(Err(format!("the base density {} has no form there", model.flow().base().kind()))),
            Some(_) if parameter_count(model) != parameter_count(model.flow().bijector()) => {
                return Ok(Err("there are parameters besides those of the bijector".to_owned()));
            }
            Some(base) => base,
        };
        let levels = events.dequantiser().and_then(Dequantiser::device_form);
        let form = StepForm { samples: settings.batch, levels, base, adam: optimiser.device_form(), precision: settings.precision };
        match engine.train(model.event().len(), &sides, &form) {
            Ok(session) => {
                let mut steps = Self { session, takes_levels: levels.is_some(), items: Vec::with_capacity(settings.batch) };
                steps.write(model, optimiser)?;
                Ok(Ok(steps))
            }
            Err(DeviceError::NoStep { reason, .. }) => Ok(Err(reason)),
            Err(error @ DeviceError::Memory { .. }) => Ok(Err(error.to_string())),
            Err(error) => Err(failed(error)),
        }
    }

    /// How they are made, for a log.
    pub(crate) fn describe(&self) -> String {
        self.session.describe()
    }
}

fn failed(error: DeviceError) -> TrainError {
    FlowError::Engine(error).into()
}

impl Elsewhere<f32> for DeviceSteps {
    fn step(&mut self, batch: &Batch, events: &Events, rate: f64, number: u64) -> Result<Option<Done>> {
        let of_step = |error| TrainError::Step { step: number, source: Box::new(FlowError::Engine(error)) };
        let (report, preprocessing) = match (&batch.values, events.dequantiser()) {
            (Values::Levels(values), Some(dequantiser)) if self.takes_levels => {
                dequantiser.check(values)?;
                self.items.clear();
                self.items.extend(batch.draws.iter().map(|draw| [draw.epoch, draw.index as u64]));
                (self.session.step(StepSamples::Levels { values, items: &self.items }, rate, number).map_err(of_step)?, 0.0)
            }
            // Prepared here.
            _ => {
                let made = events.of::<f32>(batch)?;
                let log_det = made.log_det.iter().map(|&l| f64::from(l)).sum::<f64>() / made.len().max(1) as f64;
                (self.session.step(StepSamples::Numbers(&made.values), rate, number).map_err(of_step)?, log_det)
            }
        };
        if !report.finite {
            return Ok(None);
        }
        let loss = events.report(preprocessing - report.nll);
        let terms = vec![Term::new(LIKELIHOOD, events.unit(), loss, batch.draws.len())];
        Ok(Some(Done { loss, terms, norm: report.norm }))
    }

    fn read(&mut self, model: &mut Model<f32>, optimiser: &mut Adam<f32>) -> Result<()> {
        let step = optimiser.steps();
        let TrainingState { parameters, first, second, average } = self.session.read().map_err(failed)?;
        optimiser.restore(AdamState { step, first, second, average })?;
        set_flat_weights(model, &parameters).map_err(|error| match error {
            TrainError::Flow(source) => TrainError::Update { step, source: Box::new(source) },
            other => other,
        })
    }

    fn write(&mut self, model: &Model<f32>, optimiser: &Adam<f32>) -> Result<()> {
        let AdamState { first, second, average, .. } = optimiser.state();
        self.session.write(&TrainingState { parameters: flat_weights(model), first, second, average }).map_err(failed)
    }
}
