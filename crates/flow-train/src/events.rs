//! From batches of a data set to events of a model.

use crate::data::{Batch, DataError, Dataset, Dequantiser, ItemShape, Values};
use crate::event_batch::EventBatch;
use crate::{DataRecord, Result, TrainError};
use flow_api::Scalar;
use flow_api::spec::{EventShape, Preprocessing};
use serde::{Deserialize, Serialize};

/// What kind of items a model is for: all that is needed besides the model to score others of the kind, or to show samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventKind {
    /// Shape of an item.
    pub shape: EventShape,
    /// Levels of a value in the data, if it is discrete.
    pub levels: Option<u32>,
}

impl EventKind {
    /// That of a data set.
    pub fn of(data: &dyn Dataset) -> Self {
        let shape = match data.shape() {
            ItemShape::Image { channels, height, width } => EventShape::Image { channels, height, width },
            ItemShape::Vector { dims } => EventShape::Vector(dims),
        };
        Self { shape, levels: data.levels() }
    }

    /// The shape as data sets have it.
    pub fn item(self) -> ItemShape {
        match self.shape {
            EventShape::Image { channels, height, width } => ItemShape::Image { channels, height, width },
            EventShape::Vector(dims) => ItemShape::Vector { dims },
        }
    }
}

/// Turns a data set's batches into flattened events: levels are dequantised, real numbers are taken as they are.
#[derive(Clone, Debug)]
pub struct Events {
    kind: EventKind,
    dequantiser: Option<Dequantiser>,
    record: DataRecord,
}

impl Events {
    /// For the items of a data set, with noise that depends on the seed, the epoch and the item alone.
    ///
    /// # Errors
    /// [`TrainError::Data`] for a preprocessing that does not fit the levels.
    pub fn new(data: &dyn Dataset, preprocessing: Preprocessing, seed: u64) -> Result<Self> {
        Ok(Self::of_kind(EventKind::of(data), preprocessing, seed)?.with_record(DataRecord::without_items(data)))
    }

    /// The same with what is remembered of the data.
    #[must_use]
    pub fn with_record(self, record: DataRecord) -> Self {
        Self { record, ..self }
    }

    /// What is remembered of the data.
    pub fn record(&self) -> &DataRecord {
        &self.record
    }

    /// The same for items of a kind, without the items.
    ///
    /// # Errors
    /// As [`Events::new`].
    pub fn of_kind(kind: EventKind, preprocessing: Preprocessing, seed: u64) -> Result<Self> {
        if kind.levels.is_none() && preprocessing != Preprocessing::default() {
            let got = format!("{preprocessing:?}");
            return Err(DataError::Setting { what: "preprocessing", expected: "none for data that have no levels", got }.into());
        }
        let dequantiser = kind.levels.map(|levels| Dequantiser::new(preprocessing, levels, kind.item(), seed)).transpose()?;
        Ok(Self { kind, dequantiser, record: DataRecord::default() })
    }

    /// The same for evaluation: without flips, and with noise of its own.
    #[must_use]
    pub fn for_evaluation(&self) -> Self {
        Self { dequantiser: self.dequantiser.as_ref().map(Dequantiser::for_evaluation), ..self.clone() }
    }

    /// The kind of items.
    pub fn kind(&self) -> EventKind {
        self.kind
    }

    /// Levels of a dimension that are modelled, if the data is discrete: fewer than the data's where bits are dropped.
    pub fn levels(&self) -> Option<u32> {
        self.dequantiser.as_ref().map(Dequantiser::levels)
    }

    /// The way back from events to levels, if the data is discrete.
    pub fn dequantiser(&self) -> Option<&Dequantiser> {
        self.dequantiser.as_ref()
    }

    /// The events of a batch, with all that is known of them.
    ///
    /// # Errors
    /// [`TrainError::Data`] for values out of range.
    pub fn of<E: Scalar>(&self, batch: &Batch) -> Result<EventBatch<E>> {
        let reals = |values: &[f64]| values.iter().map(|&x| E::of(x)).collect();
        let mut log_det = vec![E::zero(); batch.draws.len()];
        let values = match (&batch.values, &self.dequantiser) {
            (Values::Levels(levels), Some(dequantiser)) => {
                let mut events = vec![E::zero(); levels.len()];
                dequantiser.dequantise(levels, &batch.draws, &mut events, &mut log_det)?;
                events
            }
            (Values::Real(values), None) => reals(values),
            (values, _) => {
                let got = if matches!(values, Values::Real(_)) { "real numbers" } else { "levels" };
                let expected = "levels exactly where the data set says that it has them";
                return Err(DataError::Setting { what: "batch", expected, got: got.to_owned() }.into());
            }
        };
        let (draws, labels) = (batch.draws.clone(), batch.labels.clone());
        Ok(EventBatch { values, log_det, draws, labels, conditions: reals(&batch.conditions) })
    }

    /// The levels that events stand for.
    ///
    /// # Errors
    /// [`TrainError::Data`] for events that are not numbers, and for continuous data, which has no levels.
    pub fn quantise<E: Scalar>(&self, events: &[E]) -> Result<Vec<u8>> {
        let Some(dequantiser) = &self.dequantiser else {
            return Err(DataError::Setting { what: "data", expected: "values of levels", got: "real numbers".to_owned() }.into());
        };
        let mut levels = vec![0; events.len()];
        dequantiser.quantise(events, &mut levels)?;
        Ok(levels)
    }

    /// A nats-per-event log-likelihood in the unit that is reported: bits per dimension of discrete data, negative nats of continuous data. Lower is better.
    pub fn report(&self, log_prob: f64) -> f64 {
        match self.levels() {
            Some(levels) => crate::data::bits_per_dim(log_prob, self.kind.shape.len(), levels),
            None => -log_prob,
        }
    }

    /// Name of the unit of [`Events::report`].
    pub fn unit(&self) -> &'static str {
        if self.dequantiser.is_some() { "bits/dim" } else { "nats" }
    }

    /// Checks that the items of a data set are of this kind, and that a model takes it.
    ///
    /// # Errors
    /// [`TrainError::Shape`], and [`TrainError::Columns`] where those of a table are others.
    pub fn check(&self, data: &dyn Dataset, model: EventShape) -> Result<()> {
        let kind = EventKind::of(data);
        let text = |kind: EventKind| kind.levels.map_or(kind.shape.to_string(), |levels| format!("{} in {levels} levels", kind.shape));
        // A table with a column too many or too few is told by their names.
        self.record.check_columns(data)?;
        if kind == self.kind && kind.shape == model {
            Ok(())
        } else {
            let model = if self.kind.shape == model { text(self.kind) } else { model.to_string() };
            Err(TrainError::Shape { model, data: text(kind) })
        }
    }
}
