//! Images as vectors: latents, activations of layers, and ways between latents.

use crate::data::{Dataset, each_once};
use crate::event_batch::{EventBatch, Purpose};
use crate::events::Events;
use crate::{Result, TrainError};
use flow_api::spec::{Model, SpecScalar};

/// Maps every item of a data set to its activations behind a layer of the model's table, such as `bijector.layers.3.channel`; `bijector` gives the latents. `each` gets them batch by
/// batch, in order, one row an item.
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
/// Data that cannot be read or does not fit, [`flow_api::FlowError::Unsupported`] for a layer that is not there, failures of layers, and those of `each`.
pub fn embed<E: SpecScalar>(
    model: &Model<E>,
    data: &dyn Dataset,
    events: &Events,
    layer: &str,
    batch: usize,
    mut each: impl FnMut(&[E]) -> Result<()>,
) -> Result<()> {
    events.check(data, model.event())?;
    let events = events.for_evaluation();
    for draws in each_once(data.len(), batch) {
        let events = events.of::<E>(&data.batch(&draws)?)?;
        let cx = events.context(model, 0, Purpose::Map)?;
        each(&model.activations(events.values, layer, &cx)?)?;
    }
    Ok(())
}

/// `steps` events from `a` to `b`, both included, that lie at equal distances on the straight line between their latents.
///
/// ```
/// use flow_api::spec::{EventShape, ModelSpec, Spec, from_ron};
/// use flow_train::interpolate;
/// let spec: Spec<dyn ModelSpec> = from_ron("VectorFlow(flows: [LuLinear()])")?; // the identity, until it is trained
/// let model = spec.build::<f64>(EventShape::Vector(2), 7)?;
/// assert_eq!(interpolate(&model, &[0.0, 0.0], &[2.0, 4.0], 3)?, [0.0, 0.0, 1.0, 2.0, 2.0, 4.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// Events of another shape than the model's, fewer than two steps, failures of layers.
pub fn interpolate<E: SpecScalar>(model: &Model<E>, a: &[E], b: &[E], steps: usize) -> Result<Vec<E>> {
    if steps < 2 {
        return Err(TrainError::Setting { field: "steps", expected: "at least 2".to_owned(), got: steps.to_string() });
    }
    let ends = EventBatch::of_values([a, b].concat(), 2);
    let cx = ends.context(model, 0, Purpose::Map)?;
    let latents = model.encode(ends.values, &cx)?;
    let (from, to) = latents.split_at(latents.len() / 2);
    let way = (0..steps).flat_map(|step| {
        let t = E::of(step as f64 / (steps - 1) as f64);
        from.iter().zip(to).map(move |(&from, &to)| from + t * (to - from))
    });
    Ok(model.decode(way.collect(), &cx.without_log_det())?)
}
