//! From batches of a data set to events of a model.

use crate::data::{Batch, Dataset, Dequantise, Dequantiser, ItemShape, Values};
use crate::{Result, TrainError};
use flow_api::Scalar;
use flow_api::spec::EventShape;

/// Turns a data set's batches into flattened events: levels are dequantised, real numbers are taken as they are.
#[derive(Clone, Debug)]
pub struct Events {
    shape: EventShape,
    dequantiser: Option<Dequantiser>,
}

impl Events {
    /// For the items of a data set, with noise that depends on the seed, the epoch and the item alone.
    ///
    /// # Errors
    /// [`TrainError::Data`] for settings that do not fit the levels.
    pub fn new(data: &dyn Dataset, dequantise: &Dequantise, seed: u64) -> Result<Self> {
        let dequantiser = data.levels().map(|levels| dequantise.build(levels, data.shape(), seed)).transpose()?;
        let shape = match data.shape() {
            ItemShape::Image { channels, height, width } => EventShape::Image { channels, height, width },
            ItemShape::Vector { dims } => EventShape::Vector(dims),
        };
        Ok(Self { shape, dequantiser })
    }

    /// The same for evaluation: without flips.
    #[must_use]
    pub fn for_evaluation(&self) -> Self {
        Self { shape: self.shape, dequantiser: self.dequantiser.as_ref().map(Dequantiser::without_flips) }
    }

    /// Shape of an event.
    pub fn shape(&self) -> EventShape {
        self.shape
    }

    /// Levels of a dimension, if the data is discrete.
    pub fn levels(&self) -> Option<u32> {
        self.dequantiser.as_ref().map(Dequantiser::levels)
    }

    /// The way back from events to levels, if the data is discrete.
    pub fn dequantiser(&self) -> Option<&Dequantiser> {
        self.dequantiser.as_ref()
    }

    /// The events of a batch, and the log-det of preprocessing per event.
    ///
    /// # Errors
    /// [`TrainError::Data`] for values out of range.
    pub fn of<E: Scalar>(&self, batch: &Batch) -> Result<(Vec<E>, Vec<E>)> {
        let mut log_det = vec![E::zero(); batch.draws.len()];
        match (&batch.values, &self.dequantiser) {
            (Values::Levels(levels), Some(dequantiser)) => {
                let mut events = vec![E::zero(); levels.len()];
                dequantiser.dequantise(levels, &batch.draws, &mut events, &mut log_det)?;
                Ok((events, log_det))
            }
            (Values::Levels(levels), None) => Ok((levels.iter().map(|&x| E::of(f64::from(x))).collect(), log_det)),
            (Values::Real(values), _) => Ok((values.iter().map(|&x| E::of(x)).collect(), log_det)),
        }
    }

    /// A nats-per-event log-likelihood in the unit that is reported: bits per dimension of discrete data, negative nats of continuous data. Lower is better.
    pub fn report(&self, log_prob: f64) -> f64 {
        match self.levels() {
            Some(levels) => crate::data::bits_per_dim(log_prob, self.shape.len(), levels),
            None => -log_prob,
        }
    }

    /// Name of the unit of [`Events::report`].
    pub fn unit(&self) -> &'static str {
        if self.dequantiser.is_some() { "bits/dim" } else { "nats" }
    }

    /// The events' shape is the model's.
    pub(crate) fn check(&self, model: EventShape) -> Result<()> {
        if self.shape == model { Ok(()) } else { Err(TrainError::Shape { model: model.to_string(), data: self.shape.to_string() }) }
    }
}
