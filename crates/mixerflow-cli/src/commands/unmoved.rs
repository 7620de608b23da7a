//! Numbers of an event that no nonlinear flow of a model moves.

use super::given::made_up;
use crate::Result;
use flow_api::module::{EntryMut, update};
use flow_api::spec::{BuildScope, EventShape, Given, ModelSpec, Spec, SpecScalar};
use flow_api::to_host;
use flow_kernels::noise::Stream;
use flow_train::{EventBatch, Purpose};

/// Places around which curvature is looked for.
const PLACES: usize = 4;

/// Events that data-dependent initialisation sees.
const FIRST: usize = 8;

/// Size of the noise on weights, which begin where many flows are the identity; so small that splines stay within their
/// interval.
const SHAKE: f64 = 0.1;

/// Curvature below this share of the values is rounding.
const ROUNDING: f64 = 1e-10;

/// Which numbers of the latent are affine functions of the event, whatever the weights: those that no nonlinear flow
/// has moved.
///
/// With noise on all weights, second differences z(x + u) + z(x − u) − 2 z(x) vanish, up to rounding, for these numbers
/// alone.
pub(super) fn never_moved(spec: &Spec<dyn ModelSpec>, event: EventShape, given: Given) -> Result<Vec<usize>> {
    let mut model = f64::model(spec, event, &BuildScope::new(0).with_given(given))?;
    let dim = event.len();
    let noise = |len, name: &str| {
        let mut noise = vec![0.0; len];
        Stream::new(1, 0, name).row(0).gaussian(&mut noise);
        noise
    };
    let given = made_up(&mut model, FIRST)?;
    let first = EventBatch::of_values(noise(FIRST * dim, "first"), FIRST).given(&given);
    let cx = first.context(&model, 0, Purpose::Map)?;
    model.initialise(first.values, &cx)?;
    update(&mut model, |path, entry| {
        if let EntryMut::Parameter { shape, values } = entry {
            let scale = SHAKE / (shape.last().copied().unwrap_or(1).max(1) as f64).sqrt();
            let noise = noise(values.len(), path);
            values.iter_mut().zip(noise).for_each(|(value, noise)| *value += scale * noise);
        }
    })?;
    let (places, steps) = (noise(PLACES * dim, "places"), noise(PLACES * dim, "steps"));
    let at_places = made_up(&mut model, PLACES)?;
    let encode = |by: f64| -> Result<Vec<f64>> {
        let x = places.iter().zip(&steps).map(|(place, step)| place + by * step).collect();
        let x = EventBatch::of_values(x, PLACES).given(&at_places);
        let cx = x.context(&model, 0, Purpose::Map)?.without_log_det();
        let at = model.conditioned(PLACES, &cx)?;
        Ok(to_host(&model.flow().bijector().forward(model.batch(x.values)?, at.cx())?.value))
    };
    let (before, here, after) = (encode(-1.0)?, encode(0.0)?, encode(1.0)?);
    let is_bent = |at: usize| {
        let (a, b, c) = (before[at], here[at], after[at]);
        let bend = (a + c - 2.0 * b).abs();
        bend.is_nan() || bend > ROUNDING * (a.abs() + b.abs() + c.abs() + 1.0)
    };
    Ok((0..dim).filter(|number| (0..PLACES).all(|place| !is_bent(place * dim + number))).collect())
}

/// What is to be said about these numbers.
pub(super) fn warning(numbers: &[usize], dim: usize) -> String {
    let mut few: Vec<_> = numbers.iter().take(8).map(usize::to_string).collect();
    if few.len() < numbers.len() {
        few.push("…".to_owned());
    }
    let (count, few) = (numbers.len(), few.join(", "));
    format!("no nonlinear flow moves {count} of {dim} numbers ({few}): they are affine functions of the data, whatever is learned")
}
