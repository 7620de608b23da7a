//! From batches of a data set to events of a model.

use crate::data::{Batch, ColumnMap, DataError, Dataset, Dequantiser, Reals, Values};
use crate::event_batch::EventBatch;
use crate::event_batch::ScoredGiven;
use crate::event_kind::EventKind;
use crate::{DataRecord, Result, TrainError};
use flow_api::Scalar;
use flow_api::spec::{EventShape, Model, Preprocessing, SpecScalar, Standardiser};
use std::sync::Arc;

/// Turns a data set's batches into flattened events, and events back: levels are dequantised, columns of real numbers
/// standardised by what the model was fitted with.
#[derive(Clone, Debug)]
pub struct Events {
    kind: EventKind,
    way: Way,
    record: DataRecord,
    /// The class of the record that each class of the data is, where the data have others or have them in another
    /// order.
    classes: Option<Arc<[Option<usize>]>>,
}

/// How items become events.
#[derive(Clone, Debug)]
enum Way {
    Levels(Dequantiser),
    Reals(Reals),
}

impl Events {
    /// For the items of a data set, with noise that depends on the seed, the epoch and the item alone.
    ///
    /// # Errors
    /// [`TrainError::Data`] for a preprocessing that does not fit the levels, or that names columns which are not
    /// there.
    pub fn new(data: &dyn Dataset, preprocessing: &Preprocessing, seed: u64) -> Result<Self> {
        let kind = EventKind::of(data);
        let record = DataRecord::without_items(data);
        let way = match kind.levels {
            Some(levels) => Way::Levels(Dequantiser::new(preprocessing, levels, kind.item(), seed)?),
            None => Way::Reals(Reals::new(preprocessing, data.columns(), kind.item(), seed)?.of_whole(data.are_whole())),
        };
        Ok(Self { kind, way, record, classes: None })
    }

    /// For the events of a model that was trained: real numbers go through what its standardiser was fitted behind.
    #[must_use]
    pub fn with_standardiser(self, standardiser: Option<Standardiser>) -> Self {
        match self.way {
            Way::Reals(reals) => Self { way: Way::Reals(reals.with_standardiser(standardiser)), ..self },
            Way::Levels(_) => self,
        }
    }

    /// The same with what happens to columns as [`Reals::columns`] gave it.
    ///
    /// # Errors
    /// [`TrainError::Data`] for another number of columns.
    pub fn with_columns(self, columns: Vec<ColumnMap>) -> Result<Self> {
        match self.way {
            Way::Reals(reals) => Ok(Self { way: Way::Reals(reals.with_columns(columns)?), ..self }),
            Way::Levels(_) => Ok(self),
        }
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

    /// The same for items of a kind, without the items: columns can be named by their numbers alone.
    ///
    /// # Errors
    /// As [`Events::new`].
    pub fn of_kind(kind: EventKind, preprocessing: &Preprocessing, seed: u64) -> Result<Self> {
        let way = match kind.levels {
            Some(levels) => Way::Levels(Dequantiser::new(preprocessing, levels, kind.item(), seed)?),
            None => Way::Reals(Reals::new(preprocessing, &[], kind.item(), seed)?),
        };
        Ok(Self { kind, way, record: DataRecord::default(), classes: None })
    }

    /// The same for items of a data set whose classes may be others than the record's, or stand in another order: a
    /// label of [`Events::of`] is then the number that the run knows the class of that name by, and there is none for a
    /// class that it does not know.
    #[must_use]
    pub fn with_classes_of(&self, data: &dyn Dataset) -> Self {
        let own = &self.record.classes;
        let place = |class: &String| own.iter().position(|known| known == class);
        let same = own.as_slice() == data.classes();
        Self { classes: (!same).then(|| data.classes().iter().map(place).collect()), ..self.clone() }
    }

    /// The number by which the run knows a class of the data.
    pub fn class_of(&self, label: usize) -> Option<usize> {
        match &self.classes {
            None => Some(label),
            Some(places) => places.get(label).copied().flatten(),
        }
    }

    /// For evaluation of a model on the items of a data set: checked against them ([`Events::check`]), what they are
    /// conditioned on included, unless it is said what they are given.
    ///
    /// # Errors
    /// As [`Events::check`]; [`TrainError::NoLabels`] and [`TrainError::Class`] for a model that is conditioned on
    /// classes, [`TrainError::Conditions`] for one that is conditioned on numbers.
    pub fn evaluating<E: SpecScalar>(&self, data: &dyn Dataset, model: &Model<E>, given: ScoredGiven) -> Result<Self> {
        self.check(data, model.event())?;
        let events = self.for_evaluation().with_classes_of(data);
        let Some(conditioner) = model.conditioner().filter(|_| given == ScoredGiven::Own) else { return Ok(events) };
        if conditioner.classes().is_none() {
            return self.record.check_conditions(data).map(|()| events);
        }
        if data.classes().is_empty() {
            // Nothing is known of these items, and some models know what they are worth then.
            return if conditioner.takes_nothing() { Ok(events) } else { Err(TrainError::NoLabels) };
        }
        if (0..data.classes().len()).all(|class| events.class_of(class).is_some()) {
            return Ok(events);
        }
        // A class without an item is nobody's.
        let labels = (0..data.len()).filter(|&index| !data.is_gone(index)).filter_map(|index| data.label(index));
        match labels.into_iter().find(|&label| events.class_of(label).is_none()) {
            None => Ok(events),
            Some(label) => {
                let class = data.classes().get(label).cloned().unwrap_or_default();
                Err(TrainError::Class { class, known: self.record.classes.clone() })
            }
        }
    }

    /// The same for evaluation: without flips, and with noise of its own.
    #[must_use]
    pub fn for_evaluation(&self) -> Self {
        let way = match &self.way {
            Way::Levels(dequantiser) => Way::Levels(dequantiser.for_evaluation()),
            Way::Reals(reals) => Way::Reals(reals.for_evaluation()),
        };
        Self { way, ..self.clone() }
    }

    /// The kind of items.
    pub fn kind(&self) -> EventKind {
        self.kind
    }

    /// Levels of a dimension that are modelled, if the data is discrete: fewer than the data's where bits are dropped.
    pub fn levels(&self) -> Option<u32> {
        self.dequantiser().map(Dequantiser::levels)
    }

    /// The way back from events to levels, if the data is discrete.
    pub fn dequantiser(&self) -> Option<&Dequantiser> {
        match &self.way {
            Way::Levels(dequantiser) => Some(dequantiser),
            Way::Reals(_) => None,
        }
    }

    /// What happens to real numbers, if the data are such.
    pub fn reals(&self) -> Option<&Reals> {
        match &self.way {
            Way::Levels(_) => None,
            Way::Reals(reals) => Some(reals),
        }
    }

    /// Whether items become events with noise, so that one item has many.
    pub fn is_dequantised(&self) -> bool {
        self.reals().is_none_or(Reals::is_dequantised)
    }

    /// The events of a batch, with all that is known of them.
    ///
    /// # Errors
    /// [`TrainError::Data`] for values out of range.
    pub fn of<E: Scalar>(&self, batch: &Batch) -> Result<EventBatch<E>> {
        let mut log_det = vec![E::zero(); batch.draws.len()];
        let values = match (&batch.values, &self.way) {
            (Values::Levels(levels), Way::Levels(dequantiser)) => {
                let mut events = vec![E::zero(); levels.len()];
                dequantiser.dequantise(levels, &batch.draws, &mut events, &mut log_det)?;
                events
            }
            (Values::Real(values), Way::Reals(reals)) => {
                let mut events = vec![E::zero(); values.len()];
                reals.to_events(values, &batch.draws, &mut events, &mut log_det)?;
                events
            }
            (values, _) => {
                let got = if matches!(values, Values::Real(_)) { "real numbers" } else { "levels" };
                let expected = "levels exactly where the data set says that it has them";
                return Err(DataError::Setting { what: "batch", expected, got: got.to_owned() }.into());
            }
        };
        let labels = batch.labels.iter().map(|label| self.class_of((*label)?)).collect();
        Ok(EventBatch { values, log_det, draws: batch.draws.clone(), labels, conditions: batch.conditions.clone() })
    }

    /// The levels that events stand for.
    ///
    /// # Errors
    /// [`TrainError::Data`] for events that are not numbers, and for continuous data, which has no levels.
    pub fn quantise<E: Scalar>(&self, events: &[E]) -> Result<Vec<u8>> {
        let Some(dequantiser) = self.dequantiser() else {
            return Err(DataError::Setting { what: "data", expected: "values of levels", got: "real numbers".to_owned() }.into());
        };
        let mut levels = vec![0; events.len()];
        dequantiser.quantise(events, &mut levels)?;
        Ok(levels)
    }

    /// The real numbers that events stand for, in the units of the data; events of discrete levels as they are
    /// ([`Events::quantise`] gives their levels).
    pub fn values<E: Scalar>(&self, events: &[E]) -> Vec<f64> {
        match &self.way {
            Way::Levels(_) => events.iter().map(|event| event.as_f64()).collect(),
            Way::Reals(reals) => reals.to_values(events),
        }
    }

    /// A nats-per-event log-likelihood in the unit that is reported: bits per dimension of discrete data, negative nats
    /// of continuous data. Lower is better.
    pub fn report(&self, log_prob: f64) -> f64 {
        match self.levels() {
            Some(levels) => crate::data::bits_per_dim(log_prob, self.kind.shape.len(), levels),
            None => -log_prob,
        }
    }

    /// Name of the unit of [`Events::report`].
    pub fn unit(&self) -> &'static str {
        if self.levels().is_some() { "bits/dim" } else { "nats" }
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
