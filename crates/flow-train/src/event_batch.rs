//! What travels from a data set to a loss: one value a batch, and the context that a model sees it in.

use crate::data::Draw;
use crate::{Result, TrainError};
use flow_api::spec::{Conditioner, Model, SpecScalar};
use flow_api::{Conditions, Context, Memory, Mode, Scalar};

/// A batch as a model and its loss see it.
#[derive(Clone, Debug, PartialEq)]
pub struct EventBatch<E> {
    /// Flattened events, one after the other.
    pub values: Vec<E>,
    /// Log-det of preprocessing of every event, in nats.
    pub log_det: Vec<E>,
    /// Which items they are, and in which pass over the data; of events that are no items of a data set, their number.
    pub draws: Vec<Draw>,
    /// The class of every event, an index into the data set's classes; none for an item without a label.
    pub labels: Vec<Option<usize>>,
    /// The numbers that every event is conditioned on, event after event, as the data have them; empty where they have
    /// none.
    pub conditions: Vec<f64>,
}

/// What a model is called for: it decides on the noise and on what is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A training step.
    Train {
        /// Steps made before it.
        step: u64,
        /// What is kept for the way back.
        memory: Memory,
    },
    /// A pass of an evaluation: its noise is not that of a training step with the same seed.
    Evaluate {
        /// Number of the pass.
        pass: u64,
    },
    /// Everything else: initialisation, latents, samples.
    Map,
}

/// What items are given when they are scored, by a model that is conditioned on something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ScoredGiven {
    /// Their own classes or numbers.
    #[default]
    Own,
    /// All of them one class, by the number that the run knows it by.
    Class(usize),
    /// Nothing: p(x) of a model that knows it.
    Nothing,
}

impl ScoredGiven {
    /// Events as they are to be scored.
    pub(crate) fn to<E: Scalar>(self, events: EventBatch<E>) -> EventBatch<E> {
        let samples = events.len();
        match self {
            Self::Own => events,
            Self::Class(class) => events.given(&Conditions::class(class, samples)),
            Self::Nothing => events.given(&Conditions::Nothing),
        }
    }
}

impl<E: Scalar> EventBatch<E> {
    /// Events that are no items of a data set, without labels and conditions; without values, the samples that are to
    /// be drawn.
    pub fn of_values(values: Vec<E>, samples: usize) -> Self {
        let draws = (0..samples).map(|index| Draw { epoch: 0, index }).collect();
        Self { values, log_det: vec![E::zero(); samples], draws, labels: vec![None; samples], conditions: Vec::new() }
    }

    /// Number of events.
    pub fn len(&self) -> usize {
        self.draws.len()
    }

    /// Whether there is no event.
    pub fn is_empty(&self) -> bool {
        self.draws.is_empty()
    }

    /// One of the events, as a batch of its own; empty if there is no such event.
    #[must_use]
    pub fn only(&self, event: usize) -> Self {
        fn part<T: Clone>(all: &[T], event: usize, of: usize) -> Vec<T> {
            let width = all.len() / of.max(1);
            all.get(event * width..(event + 1) * width).unwrap_or_default().to_vec()
        }
        let of = self.len();
        Self {
            values: part(&self.values, event, of),
            log_det: part(&self.log_det, event, of),
            draws: part(&self.draws, event, of),
            labels: part(&self.labels, event, of),
            conditions: part(&self.conditions, event, of),
        }
    }

    /// What the events are given, for a model that is conditioned on classes or on numbers: nothing where no event has
    /// any.
    fn conditions_of(&self, conditioner: &Conditioner<E>) -> Conditions {
        match conditioner.classes() {
            Some(_) if self.labels.iter().all(Option::is_none) => Conditions::Nothing,
            Some(_) => Conditions::Classes(self.labels.clone()),
            None if self.conditions.is_empty() => Conditions::Nothing,
            None => Conditions::Numbers(self.conditions.clone()),
        }
    }

    /// The same events, given these conditions.
    #[must_use]
    pub fn given(self, conditions: &Conditions) -> Self {
        let nothing = vec![None; self.len()];
        let (labels, conditions) = match conditions {
            Conditions::Classes(classes) => (classes.clone(), Vec::new()),
            Conditions::Numbers(numbers) => (nothing, numbers.clone()),
            Conditions::Nothing => (nothing, Vec::new()),
        };
        Self { labels, conditions, ..self }
    }

    /// The context that a model sees these events in.
    ///
    /// # Errors
    /// [`TrainError::Conditional`] where the model takes a condition of another width than the events have.
    pub fn context(&self, model: &Model<E>, seed: u64, purpose: Purpose) -> Result<Context<E>>
    where
        E: SpecScalar,
    {
        let cx = Context::new(seed);
        let cx = match purpose {
            Purpose::Train { step, memory } => cx.at_step(step).in_mode(Mode::Train).with_memory(memory),
            Purpose::Evaluate { pass } => cx.child("evaluation").rooted(0).at_step(pass),
            Purpose::Map => cx,
        };
        if let Some(conditioner) = model.conditioner() {
            return Ok(cx.given(self.conditions_of(conditioner)));
        }
        let Some(width) = model.condition() else { return Ok(cx) };
        if self.conditions.len() != width * self.len() {
            return Err(TrainError::Conditional { width });
        }
        let vectors = self.conditions.iter().map(|&c| E::of(c)).collect();
        Ok(cx.with_condition(E::tensor(vectors, (self.len(), width))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flow_api::bases::{Conditional, StandardNormal};
    use flow_api::layers::LuLinear;
    use flow_api::rows::Rows;
    use flow_api::spec::EventShape;
    use flow_api::to_host;

    #[test]
    fn conditions_come_with_the_batch_and_with_a_part_of_it() {
        let base = Conditional::new(StandardNormal::new(1), 2).unwrap();
        let model = Model::<f64>::new(Box::new(Rows(LuLinear::new(1))), Box::new(base), EventShape::Vector(1)).unwrap();
        let bare = EventBatch::of_values(vec![1.0, 2.0, 3.0], 3);
        let error = bare.context(&model, 0, Purpose::Map).unwrap_err();
        assert!(matches!(error, TrainError::Conditional { width: 2 }), "{error}");
        let labels = vec![Some(1), None, Some(0)];
        let batch = EventBatch { conditions: (0..6).map(f64::from).collect(), labels, ..bare };
        let given = |batch: &EventBatch<f64>| {
            let cx = batch.context(&model, 0, Purpose::Evaluate { pass: 1 }).unwrap();
            cx.condition().map(to_host)
        };
        assert_eq!(given(&batch), Some(batch.conditions.clone()));
        let last = batch.only(2);
        assert_eq!((given(&last), last.values, last.labels), (Some(vec![4.0, 5.0]), vec![3.0], vec![Some(0)]));
        assert!(batch.only(3).is_empty());
    }
}
