//! Pictures of what a model draws.

use crate::data::{DataError, Dataset, Draw, ItemShape, Values, each_once};
use crate::event_batch::{EventBatch, Purpose};
use crate::events::Events;
use crate::given::{conditions_of_items, drawn_conditions};
use crate::{Result, TrainError, picture};
use flow_api::spec::{Conditioner, Model, SpecScalar};
use flow_api::{Conditions, FlowError};
use std::path::Path;

/// Images in a grid of samples.
pub(crate) const GRID: usize = 32;
/// Images in a row of it.
pub(crate) const GRID_COLUMNS: usize = 8;
/// Points in a cloud of samples.
pub(crate) const CLOUD: usize = 4000;

/// What to draw.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Drawing {
    /// Samples; by default 32 images, or 4,000 points.
    pub count: Option<usize>,
    /// Images in a row of the grid.
    pub columns: usize,
    /// Scale of the latents' standard deviation.
    pub temperature: f64,
    /// Seed of the latents.
    pub seed: u64,
    /// Half the side of the square that points are drawn in; by default it holds all of them.
    pub half_side: Option<f64>,
}

impl Default for Drawing {
    fn default() -> Self {
        Self { count: None, columns: GRID_COLUMNS, temperature: 1.0, seed: 0, half_side: None }
    }
}

/// `count` samples (count × event, row by row), all of them finite.
///
/// ```
/// use flow_api::spec::{EventShape, ModelSpec, Spec, from_ron};
/// let spec: Spec<dyn ModelSpec> = from_ron("VectorFlow(flows: [LuLinear()])")?; // the identity, until it is trained
/// let model = spec.build::<f32>(EventShape::Vector(2), 7)?;
/// assert_eq!(flow_train::sample(&model, 3, 1.0, 0)?.len(), 3 * 2);
/// assert!(flow_train::sample(&model, 3, f64::INFINITY, 0).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// Those of [`Model::sample`], and [`FlowError::NotFinite`] with the number of the first sample that is not finite.
pub fn sample<E: SpecScalar>(model: &Model<E>, count: usize, temperature: f64, seed: u64) -> Result<Vec<E>> {
    sample_given(model, &Conditions::Nothing, count, temperature, seed)
}

/// As [`sample`], each sample given its own of `given`.
///
/// # Errors
/// As [`sample`].
pub fn sample_given<E: SpecScalar>(model: &Model<E>, given: &Conditions, count: usize, temperature: f64, seed: u64) -> Result<Vec<E>> {
    let cx = EventBatch::of_values(Vec::new(), count).given(given).context(model, seed, Purpose::Map)?;
    let samples = model.sample(count, E::of(temperature), &cx)?;
    match samples.iter().position(|x| !num_traits::Float::is_finite(*x)) {
        None => Ok(samples),
        Some(at) => Err(FlowError::NotFinite { layer: "flow".to_owned(), what: "the sample", row: at / model.event().len().max(1) }.into()),
    }
}

/// Draws samples to a PNG: a grid of images, or a cloud of points of the plane. Whether they are either.
///
/// Where nothing says what samples are given, a grid of a model that is conditioned on classes has a row a class, of
/// the first 16, and all others are samples of p(x) ([`drawn_conditions`]).
///
/// # Errors
/// Those of [`Model::sample`], and files that cannot be written.
pub fn draw_samples<E: SpecScalar>(
    path: &Path,
    model: &Model<E>,
    events: &Events,
    drawing: &Drawing,
    given: Option<&Conditions>,
) -> Result<bool> {
    /// Rows of a grid that has a row a class.
    const CLASSES: usize = 16;
    let draw = |given: &Conditions, count| sample_given(model, given, count, drawing.temperature, drawing.seed);
    let sample = |count| match given {
        Some(given) => draw(given, count),
        None => draw(&drawn_conditions(model, events.record(), count, drawing.seed)?, count),
    };
    let classes = model.conditioner().and_then(Conditioner::classes).filter(|_| given.is_none() && drawing.count.is_none());
    match (events.kind().item(), events.dequantiser()) {
        (ItemShape::Image { .. }, _) => {
            let samples = match classes {
                None => sample(drawing.count.unwrap_or(GRID))?,
                Some(classes) => {
                    let each = (0..classes.min(CLASSES)).flat_map(|class| vec![Some(class); drawing.columns]).collect::<Vec<_>>();
                    draw(&Conditions::Classes(each.clone()), each.len())?
                }
            };
            draw_events(path, &samples, events, drawing.columns)?;
        }
        (ItemShape::Vector { dims: 2 }, None) => {
            let points = events.values(&sample(drawing.count.unwrap_or(CLOUD))?);
            let all = 1.05 * points.iter().fold(f64::MIN_POSITIVE, |largest, x| largest.max(x.abs()));
            picture::save_points(path, &points, drawing.half_side.unwrap_or(all))?;
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// As [`draw_samples`], where samples that cannot be drawn from the model, or are no numbers, are no failure: they make
/// no picture.
///
/// # Errors
/// Files that cannot be written.
pub(crate) fn try_draw_samples<E: SpecScalar>(
    path: &Path,
    model: &Model<E>,
    events: &Events,
    drawing: &Drawing,
    given: Option<&Conditions>,
) -> Result<bool> {
    match draw_samples(path, model, events, drawing, given) {
        Err(TrainError::Flow(_) | TrainError::Data(_) | TrainError::NothingGiven { .. }) => Ok(false),
        result => result,
    }
}

/// What the samples of a picture are given where a model has to be told numbers: those of the first items; none for
/// other models.
///
/// # Errors
/// Items that cannot be read.
pub(crate) fn given_numbers<E: SpecScalar>(model: &Model<E>, data: &dyn Dataset, events: &Events) -> Result<Option<Conditions>> {
    let wants = model.conditioner().is_some_and(|conditioner| conditioner.numbers().is_some() && !conditioner.takes_nothing());
    if !wants {
        return Ok(None);
    }
    let samples = if matches!(events.kind().item(), ItemShape::Image { .. }) { GRID } else { CLOUD };
    conditions_of_items(model, data, events, samples).map(Some)
}

/// Draws the first items of a set, to compare samples with: whether they are pictures, or points of the plane.
///
/// # Errors
/// Items that cannot be read, and files that cannot be written.
pub(crate) fn picture_items(path: &Path, data: &dyn Dataset) -> Result<bool> {
    match (data.shape(), data.levels()) {
        (shape @ ItemShape::Image { .. }, Some(levels)) => {
            let Values::Levels(pixels) = first_items(data, GRID)? else { return Ok(false) };
            picture::save_grid(path, &pixels, shape, levels, GRID_COLUMNS)?;
        }
        (ItemShape::Vector { dims: 2 }, None) => {
            let Values::Real(points) = first_items(data, CLOUD)? else { return Ok(false) };
            picture::save_points(path, &points, half_side(data)?)?;
        }
        _ => return Ok(false),
    }
    Ok(true)
}

fn first_items(data: &dyn Dataset, count: usize) -> Result<Values> {
    let draws: Vec<Draw> = each_once(data.len().min(count), count).flatten().collect();
    Ok(data.batch(&draws)?.values)
}

/// Half the side of the square around the origin that holds the first items.
///
/// # Errors
/// Items that cannot be read.
pub(crate) fn half_side(data: &dyn Dataset) -> Result<f64> {
    let Values::Real(points) = first_items(data, CLOUD)? else { return Ok(1.0) };
    Ok(1.1 * points.iter().fold(f64::MIN_POSITIVE, |largest, x| largest.max(x.abs())))
}

/// Draws events of a model of images as a grid.
///
/// # Errors
/// Events that are no images, that are no numbers, and files that cannot be written.
pub fn draw_events<E: SpecScalar>(path: &Path, values: &[E], events: &Events, columns: usize) -> Result<()> {
    let (shades, levels) = shades(values, events)?;
    picture::save_grid(path, &shades, events.kind().item(), levels, columns)
}

/// What is drawn of events: their levels and how many there are, or of real numbers 256 shades from 0 to 1, or to 255,
/// where most values lie there, and otherwise from the smallest to the largest of most of them.
///
/// # Errors
/// Events that are no numbers.
pub fn shades<E: SpecScalar>(values: &[E], events: &Events) -> Result<(Vec<u8>, u32)> {
    /// What is cut off at either end.
    const CUT: f64 = 0.005;
    if let Some(levels) = events.levels() {
        return Ok((events.quantise(values)?, levels));
    }
    let values = events.values(values);
    let mut sorted = values.clone();
    if let Some(at) = sorted.iter().position(|x| !x.is_finite()) {
        let got = sorted[at].to_string();
        return Err(DataError::Setting { what: "events", expected: "finite numbers", got }.into());
    }
    sorted.sort_by(f64::total_cmp);
    let cut = num_traits::cast::<f64, usize>(sorted.len() as f64 * CUT).unwrap_or(0);
    let (Some(&low), Some(&high)) = (sorted.get(cut), sorted.iter().rev().nth(cut)) else { return Ok((Vec::new(), 256)) };
    let (low, high) = match (low, high) {
        (low, high) if low > -0.25 && high < 1.25 => (0.0, 1.0),
        (low, high) if low > -64.0 && high < 319.0 && high > 64.0 => (0.0, 255.0),
        range => range,
    };
    let scale = 255.0 / (high - low).max(f64::MIN_POSITIVE);
    let shade = |x: &f64| num_traits::cast::<f64, u8>(((x - low) * scale).round().clamp(0.0, 255.0)).unwrap_or(0);
    Ok((values.iter().map(shade).collect(), 256))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::EventKind;
    use flow_api::spec::{BuildScope, EventShape, ModelSpec, Preprocessing, Spec, from_ron};

    #[test]
    fn real_pictures_are_drawn_in_their_range() {
        let kind = EventKind { shape: EventShape::Image { channels: 1, height: 1, width: 2 }, levels: None };
        let events = Events::of_kind(kind, &Preprocessing::default(), 0).unwrap();
        let cases = [
            (vec![0.0, 1.0, 0.5, 1.1], vec![0, 255, 128, 255]),
            (vec![0.0, 255.0, 128.0, -3.0], vec![0, 255, 128, 0]),
            (vec![-3.0, 3.0, 0.0, 1.5], vec![0, 255, 128, 191]),
        ];
        for (values, expected) in cases {
            assert_eq!(shades::<f64>(&values, &events).unwrap(), (expected, 256), "{values:?}");
        }
        assert!(matches!(shades(&[0.0, f64::NAN], &events), Err(TrainError::Data(DataError::Setting { .. }))));
        // Levels are drawn as they are: of two, black and white.
        let two = EventKind { levels: Some(2), ..kind };
        let events = Events::of_kind(two, &Preprocessing::default(), 0).unwrap();
        assert_eq!(shades(&[-0.2, 0.4], &events).unwrap(), (vec![0, 1], 2));
    }

    #[test]
    fn a_model_that_cannot_be_sampled_makes_no_picture() {
        let spec: Spec<dyn ModelSpec> = from_ron("VectorFlow(flows: [ActNorm()])").unwrap();
        let kind = EventKind { shape: EventShape::Vector(2), levels: None };
        let events = Events::of_kind(kind, &Preprocessing::default(), 0).unwrap();
        // Its statistics have not been read off any data.
        let model = f32::model(&spec, kind.shape, &BuildScope::new(0)).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("samples.png");
        assert!(matches!(draw_samples(&path, &model, &events, &Drawing::default(), None), Err(TrainError::Flow(_))));
        assert!(!try_draw_samples(&path, &model, &events, &Drawing::default(), None).unwrap() && !path.exists());
        let nowhere = folder.path().join("no/folder.png");
        let linear: Spec<dyn ModelSpec> = from_ron("VectorFlow(flows: [LuLinear()])").unwrap();
        let linear = f32::model(&linear, kind.shape, &BuildScope::new(0)).unwrap();
        assert!(matches!(try_draw_samples(&nowhere, &linear, &events, &Drawing::default(), None), Err(TrainError::Io { .. })));
        assert!(try_draw_samples(&path, &linear, &events, &Drawing::default(), None).unwrap() && path.exists());
    }
}
