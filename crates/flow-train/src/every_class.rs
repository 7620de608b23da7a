//! A model that is conditioned on classes as a classifier, and as a density of items whose class nobody says.

use crate::classify::ClassLogProbs;
use crate::data::Dataset;
use crate::evaluate::{EvaluateOptions, Scores, score};
use crate::event_batch::ScoredGiven;
use crate::events::Events;
use crate::{Result, TrainError};
use flow_api::spec::{Conditioner, Model, SpecScalar};

/// The likelihood of every item given every class.
#[derive(Clone, Debug, PartialEq)]
pub struct EveryClass {
    /// What scoring found, class after class: log p(x | class) of every item in nats, preprocessing included.
    pub scores: Vec<Scores>,
    /// The logarithm of every class's share of the training items, π.
    pub log_prior: Vec<f64>,
    /// log p(x) = ln Σ π p(x | class) of every item, in nats; NaN where a class has no finite likelihood.
    pub log_mixture: Vec<f64>,
    /// ln p(class | x) by Bayes' rule with these shares.
    pub log_probs: ClassLogProbs,
}

/// Scores every item given every class of the run: p(x | class), and with the classes' shares of the training items
/// p(x) by the mixture and p(class | x) by Bayes' rule. All classes see an item with the same noise.
///
/// ```
/// use flow_api::spec::{ModelSpec, Spec, from_ron};
/// use flow_train::data::DataSource;
/// use flow_train::{DataRecord, EvaluateOptions, Events, model_for, score_every_class};
/// let spec: Spec<dyn ModelSpec> = from_ron("VectorFlow(flows: [LuLinear()], condition: Classes())")?;
/// let source: DataSource = "toy:two-moons?n=500".parse()?;
/// let split = source.open(1)?;
/// let model = model_for::<f64>(&spec, split.train.as_ref(), 7)?;
/// let events = Events::new(split.test.as_ref(), model.preprocessing(), 0)?.with_record(DataRecord::of(split.train.as_ref())?);
/// let found = score_every_class(&model, split.test.as_ref(), &events, &EvaluateOptions::default())?;
/// // Nothing is trained yet, so that the classes' shares are all that is known of an item.
/// assert_eq!(found.scores.len(), 2);
/// assert!((found.log_probs.values[0] - found.log_prior[0]).abs() < 1e-9);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`TrainError::NoClasses`] for a model that is not conditioned on classes; as [`score`].
pub fn score_every_class<E: SpecScalar>(
    model: &Model<E>,
    data: &dyn Dataset,
    events: &Events,
    options: &EvaluateOptions,
) -> Result<EveryClass> {
    let classes = model.conditioner().and_then(Conditioner::classes).ok_or(TrainError::NoClasses)?;
    let of = |class| score(model, data, events, &EvaluateOptions { given: ScoredGiven::Class(class), ..*options });
    let scores: Vec<Scores> = (0..classes).map(of).collect::<Result<_>>()?;
    let log_prior: Vec<f64> = events.record().class_shares(classes).into_iter().map(f64::ln).collect();
    let joint = |item: usize| scores.iter().zip(&log_prior).map(move |(scores, prior)| scores.log_likelihood[item] + prior);
    let log_sum = |item: usize| {
        let largest = joint(item).fold(f64::NEG_INFINITY, f64::max);
        // No class has a density there.
        if joint(item).all(|l| l == f64::NEG_INFINITY) {
            return f64::NEG_INFINITY;
        }
        largest + joint(item).map(|l| (l - largest).exp()).sum::<f64>().ln()
    };
    let log_mixture = (0..data.len()).map(log_sum).collect();
    let log_probs = ClassLogProbs::of_logits((0..data.len()).flat_map(joint), classes);
    Ok(EveryClass { scores, log_prior, log_mixture, log_probs })
}
