//! Images as vectors: latents, activations of layers, and ways between latents.

use crate::data::{Dataset, each_once};
use crate::event_batch::{EventBatch, Purpose, ScoredGiven};
use crate::events::Events;
use crate::{Result, TrainError};
use flow_api::spec::{Model, SpecScalar};
use flow_api::to_host;

/// Maps every item of a data set to its activations behind a layer of the model's table, such as
/// `bijector.layers.3.channel`; `bijector` gives the latents. `each` gets them batch by batch, in order, one row an
/// item.
///
/// ```
/// use flow_api::spec::{EventShape, ModelSpec, Spec, from_ron};
/// use flow_train::data::DataSource;
/// use flow_train::{Events, embed};
/// let spec: Spec<dyn ModelSpec> = from_ron("VectorFlow(flows: [LuLinear()])")?; // the identity, until it is trained
/// let model = spec.build::<f64>(EventShape::Vector(2), 7)?;
/// let source: DataSource = "toy:two-moons?n=500".parse()?;
/// let test = source.open(1)?.test;
/// let events = Events::new(test.as_ref(), model.preprocessing(), 0)?;
/// let mut latents = Vec::new();
/// embed(&model, test.as_ref(), &events, "bijector", 128, |batch| {
///     latents.extend_from_slice(batch);
///     Ok(())
/// })?;
/// assert_eq!(latents.len(), test.len() * 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// Data that cannot be read or does not fit, [`flow_api::FlowError::Unsupported`] for a layer that is not there,
/// failures of layers, and those of `each`.
pub fn embed<E: SpecScalar>(
    model: &Model<E>,
    data: &dyn Dataset,
    events: &Events,
    layer: &str,
    batch: usize,
    mut each: impl FnMut(&[E]) -> Result<()>,
) -> Result<()> {
    let events = events.evaluating(data, model, ScoredGiven::Own)?;
    for draws in each_once(data.len(), batch) {
        let events = events.of::<E>(&data.batch(&draws)?)?;
        let cx = events.context(model, 0, Purpose::Map)?;
        each(&model.activations(events.values, layer, &cx)?)?;
    }
    Ok(())
}

/// `steps` events from the first of two events to the second, both included, that lie at equal distances on the
/// straight line between their latents. Where the two are given different conditions, the vectors that layers see are
/// on the straight line between theirs.
///
/// ```
/// use flow_api::spec::{EventShape, ModelSpec, Spec, from_ron};
/// use flow_train::{EventBatch, interpolate};
/// let spec: Spec<dyn ModelSpec> = from_ron("VectorFlow(flows: [LuLinear()])")?; // the identity, until it is trained
/// let model = spec.build::<f64>(EventShape::Vector(2), 7)?;
/// let ends = EventBatch::of_values(vec![0.0, 0.0, 2.0, 4.0], 2);
/// assert_eq!(interpolate(&model, ends, 3)?, [0.0, 0.0, 1.0, 2.0, 2.0, 4.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// Other than two events, events of another shape than the model's, fewer than two steps, failures of layers.
pub fn interpolate<E: SpecScalar>(model: &Model<E>, ends: EventBatch<E>, steps: usize) -> Result<Vec<E>> {
    for (field, got, right) in [("steps", steps, steps >= 2), ("events", ends.len(), ends.len() == 2)] {
        if !right {
            let expected = if field == "steps" { "at least 2" } else { "2" };
            return Err(TrainError::Setting { field, expected: expected.to_owned(), got: got.to_string() });
        }
    }
    let cx = ends.context(model, 0, Purpose::Map)?;
    let at = model.conditioned(2, &cx)?;
    let latents = to_host(&model.flow().encode(model.batch(ends.values)?, at.cx())?.value);
    let cx = at.cx().clone().without_log_det();
    let cx = match cx.condition().map(to_host) {
        None => cx,
        Some(vectors) => {
            let width = vectors.len() / 2;
            cx.with_condition(E::tensor(between(&vectors, steps), (steps, width)))
        }
    };
    Ok(to_host(&model.flow().decode(model.batch(between(&latents, steps))?, &cx)?.value))
}

/// Points at equal distances on the straight line between two, both included.
fn between<E: SpecScalar>(both: &[E], steps: usize) -> Vec<E> {
    let (from, to) = both.split_at(both.len() / 2);
    let point = |step: usize| {
        let t = E::of(step as f64 / (steps - 1) as f64);
        from.iter().zip(to).map(move |(&from, &to)| from + t * (to - from))
    };
    (0..steps).flat_map(point).collect()
}
