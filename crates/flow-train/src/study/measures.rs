//! What a study measures besides losses.

use super::{Probing, Testing};
use crate::classify::{Probe, ProbeOptions, probe_parts};
use crate::data::{Dataset, Draw, ItemShape, Split, Subset, Values, each_once};
use crate::evaluate::evaluate_until;
use crate::samples::{sample, shades};
use crate::{EvaluateOptions, Evaluation, Events, Result, Settings, TrainError, hold_out};
use flow_api::spec::{Model, SpecScalar};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Pictures that borders are looked at in.
const PICTURES: usize = 512;

/// How much pixels differ across the borders of patches: the mean |difference| of neighbours with a border between
/// them over that of neighbours within a patch. Without an artefact of patches samples have what the data have.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Borders {
    /// Pixels along the side of a patch.
    pub patch: usize,
    /// In samples; none where they cannot be drawn.
    pub samples: Option<f64>,
    /// In test items.
    pub data: f64,
}

impl Borders {
    /// Of samples of the model and of test items; none of what are no pictures of levels with a border in them.
    pub(super) fn of<E: SpecScalar>(
        patch: usize,
        model: &Model<E>,
        events: &Events,
        test: &dyn Dataset,
        seed: u64,
    ) -> Result<Option<Self>> {
        let draws: Vec<Draw> = each_once(test.len().min(PICTURES), PICTURES).flatten().collect();
        let Values::Levels(items) = test.batch(&draws)?.values else { return Ok(None) };
        let Some(data) = ratio(&items, test.shape(), patch) else { return Ok(None) };
        let samples = match sample(model, PICTURES, 1.0, seed).and_then(|samples| shades(&samples, events)) {
            Ok((pixels, _)) => ratio(&pixels, test.shape(), patch),
            Err(TrainError::Flow(_) | TrainError::Data(_) | TrainError::NothingGiven { .. }) => None,
            Err(other) => return Err(other),
        };
        Ok(Some(Self { patch, samples, data }))
    }
}

/// Of pictures (N × channels × height × width); none where nothing differs within patches, or there is no border.
fn ratio(pixels: &[u8], shape: ItemShape, patch: usize) -> Option<f64> {
    let ItemShape::Image { channels, height, width } = shape else { return None };
    // Sum and count within patches, and across borders.
    let mut sums = [(0_u64, 0_u64); 2];
    for picture in pixels.chunks_exact(shape.dims().max(1)) {
        for plane in picture.chunks_exact(height * width).take(channels) {
            let mut add = |a: usize, b: usize, at: usize| {
                let sum = &mut sums[usize::from((at + 1).is_multiple_of(patch))];
                *sum = (sum.0 + u64::from(plane[a].abs_diff(plane[b])), sum.1 + 1);
            };
            for (y, x) in (0..height).flat_map(|y| (0..width).map(move |x| (y, x))) {
                if x + 1 < width {
                    add(y * width + x, y * width + x + 1, x);
                }
                if y + 1 < height {
                    add(y * width + x, (y + 1) * width + x, y);
                }
            }
        }
    }
    let [within, across] = sums.map(|(sum, count)| (count > 0).then(|| sum as f64 / count as f64));
    Some(across? / within.filter(|mean| *mean > 0.0)?)
}

/// Likelihoods of training items and of those held out of them, of at most so many each.
pub(super) fn parts<E: SpecScalar>(
    model: &Model<E>,
    events: &Events,
    train: &Arc<dyn Dataset>,
    settings: &Settings,
    testing: &Testing,
    stop: &AtomicBool,
) -> Result<[Option<Evaluation>; 2]> {
    let (held, kept) = hold_out(train.as_ref(), settings);
    let options = EvaluateOptions { batch: testing.batch, seed: settings.seed, likelihood_alone: true, ..EvaluateOptions::default() };
    let part = |items: Vec<usize>| -> Result<Option<Evaluation>> {
        if items.is_empty() {
            return Ok(None);
        }
        let every = items.len().div_ceil(testing.items).max(1);
        let some = Subset::new(train.clone(), items.into_iter().step_by(every).collect())?;
        evaluate_until(model, &some, events, &options, stop).map(Some)
    };
    Ok([part(kept)?, part(held)?])
}

/// Probes of layers and, last, of the latents, those with a hidden layer before the linear ones; none for data without
/// classes.
pub(super) fn probes<E: SpecScalar>(
    probing: &Probing,
    model: &Model<E>,
    events: &Events,
    split: &Split,
    settings: &Settings,
) -> Result<Vec<Probe>> {
    if split.train.classes().is_empty() {
        return Ok(Vec::new());
    }
    let table = model.describe()?;
    let at = |number: usize| table.get(number * table.len() / (probing.layers + 1)).map(|layer| layer.path.clone());
    let mut layers: Vec<String> = (1..=probing.layers).filter_map(at).chain(["bijector".to_owned()]).collect();
    // A model may have fewer.
    layers.dedup();
    let kinds = probing.hidden.map(Some).into_iter().chain([None]);
    let options =
        kinds.flat_map(|hidden| layers.iter().map(move |layer| ProbeOptions { layer: layer.clone(), hidden, ..ProbeOptions::default() }));
    options.map(|options| probe_parts(model, events, split, settings, &options)).collect()
}

/// A CRC-32 of all values and labels of both parts, in hexadecimal digits.
pub(super) fn hash(split: &Split) -> Result<String> {
    let mut hasher = crc32fast::Hasher::new();
    for part in [&split.train, &split.test] {
        for mut draws in each_once(part.len(), 1024) {
            draws.retain(|draw| !part.is_gone(draw.index));
            let batch = part.batch(&draws)?;
            match batch.values {
                Values::Levels(levels) => hasher.update(&levels),
                Values::Real(values) => values.iter().for_each(|value| hasher.update(&value.to_le_bytes())),
            }
            batch.labels.iter().for_each(|label| hasher.update(&label.map_or(u64::MAX, |label| label as u64).to_le_bytes()));
            batch.conditions.iter().for_each(|value| hasher.update(&value.to_le_bytes()));
        }
    }
    Ok(format!("{:08x}", hasher.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_at_borders_are_told_from_steps_within() {
        let shape = ItemShape::Image { channels: 2, height: 4, width: 4 };
        let picture =
            |of: fn(usize, usize) -> usize| -> Vec<u8> { (0..32).map(|at| u8::try_from(of(at / 4 % 4, at % 4)).unwrap()).collect() };
        // Steps of 2 within patches, and of 6 between them, in both directions.
        let steps = picture(|y, x| 2 * (y + x) + 4 * (y / 2 + x / 2));
        assert_eq!(ratio(&steps, shape, 2), Some(3.0));
        assert_eq!(ratio(&picture(|y, x| y + x), shape, 2), Some(1.0));
        // Nothing differs, or no border lies within.
        assert_eq!(ratio(&[7; 32], shape, 2), None);
        assert_eq!(ratio(&steps, shape, 4), None);
    }
}
