//! What samples are given where nobody says it: drawn as the training items have it, or taken off items.

use crate::data::{Dataset, Draw};
use crate::events::Events;
use crate::record::DataRecord;
use crate::{Result, TrainError};
use flow_api::Conditions;
use flow_api::noise::Stream;
use flow_api::spec::{Model, SpecScalar};

/// What `samples` samples are given so that they are ones of p(x): nothing for a model that is not conditioned on
/// anything; classes drawn from their shares of the training items; nothing known for numbers, where that was trained.
///
/// Equal seeds give equal classes, of fewer samples the first ones.
///
/// # Errors
/// [`TrainError::NothingGiven`] for a model that has to be told numbers.
pub fn drawn_conditions<E: SpecScalar>(model: &Model<E>, record: &DataRecord, samples: usize, seed: u64) -> Result<Conditions> {
    let Some(conditioner) = model.conditioner() else { return Ok(Conditions::Nothing) };
    let Some(classes) = conditioner.classes() else {
        let names = record.conditions.iter().map(|column| column.name.clone()).collect();
        return if conditioner.takes_nothing() { Ok(Conditions::Nothing) } else { Err(TrainError::NothingGiven { names }) };
    };
    let shares = record.class_shares(classes);
    let stream = Stream::new(seed, 0, "classes of samples");
    let draw = |sample: usize| {
        let mut uniform = [0.0_f64];
        stream.row(sample as u64).uniform(&mut uniform);
        let mut left = uniform[0];
        let found = shares.iter().position(|share| {
            left -= share;
            left < 0.0
        });
        // Shares may add up to a little less than 1; the last class that has items is that of what is left.
        found.or_else(|| shares.iter().rposition(|&share| share > 0.0))
    };
    Ok(Conditions::Classes((0..samples).map(draw).collect()))
}

/// What so many samples are given as the first items of a data set are, one item after the other and again from the
/// first.
///
/// # Errors
/// Items that cannot be read.
pub fn conditions_of_items<E: SpecScalar>(model: &Model<E>, data: &dyn Dataset, events: &Events, samples: usize) -> Result<Conditions> {
    let Some(conditioner) = model.conditioner() else { return Ok(Conditions::Nothing) };
    let there: Vec<usize> = (0..data.len()).filter(|&index| !data.is_gone(index)).take(samples).collect();
    let draws: Vec<Draw> = (0..samples).filter_map(|i| Some(Draw { epoch: 0, index: *there.get(i % there.len().max(1))? })).collect();
    let batch = data.batch(&draws)?;
    Ok(match conditioner.classes() {
        Some(_) => Conditions::Classes(batch.labels.iter().map(|label| events.class_of((*label)?)).collect()),
        None if batch.conditions.is_empty() => Conditions::Nothing,
        None => Conditions::Numbers(batch.conditions),
    })
}
