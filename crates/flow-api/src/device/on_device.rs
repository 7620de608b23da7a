//! A bijector whose passes run on a device.

use super::{DeviceError, Engine, PulledSums, RowForm, Session, SideForm};
use crate::bijector::{Cotangent, Kept, LayerInfo, Mapped, Point, Pulled};
use crate::error::foreign_point;
use crate::module::{Visitor, VisitorMut};
use crate::rows::{Direction, HostCondition};
use crate::spec::EventBijector;
use crate::threads::parallel;
use crate::{Bijector, Context, Facts, FlowError, Gradients, Memory, Module, Result, Scalar, Tensor, to_host};
use dfdx::prelude::HasShape;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A bijector of events whose passes run on a device: forward, inverse and pullback. Its parameters are the host's, and
/// are brought there when they have changed; the pullback brings back the sums of which the host makes their gradients.
///
/// [`Model::on`](crate::spec::Model::on) makes one. Values that are not finite are named by their sample alone, since
/// no layer is looked at by itself.
///
/// With [`Memory::Store`] every side's input is kept on the device between forward pass and pullback; with the other
/// settings nothing is, and the pullback sends the inputs forward again.
pub struct OnDevice {
    inner: EventBijector<f32>,
    device: String,
    loaded: Mutex<Loaded>,
}

struct Loaded {
    session: Box<dyn Session>,
    /// The host's numbers are newer than those of passes forward, and of inverses.
    stale: [bool; 2],
}

/// What a forward pass keeps: its number on the device, and its inputs, in case that the device has forgotten.
struct Pass {
    number: Option<u64>,
    x: Events,
}

type Events = Tensor<(usize, usize), f32>;

impl OnDevice {
    /// Loads a bijector, whose path is the context's, of events of `event` numbers.
    ///
    /// # Errors
    /// Those of [`Engine::load`], and use before initialisation.
    pub fn new(inner: EventBijector<f32>, event: usize, engine: &dyn Engine, cx: &Context<f32>) -> Result<Self> {
        let session = engine.load(event, &inner.device_form(cx)?).map_err(FlowError::Engine)?;
        Ok(Self { inner, device: engine.info().device.clone(), loaded: Mutex::new(Loaded { session, stale: [false, true] }) })
    }

    /// The bijector on the host.
    pub fn into_inner(self) -> EventBijector<f32> {
        self.inner
    }

    fn mark(&mut self) {
        // A panic while the session was in use leaves nothing half done on the host.
        self.loaded.get_mut().unwrap_or_else(PoisonError::into_inner).stale = [true; 2];
    }

    /// The session with the host's numbers.
    fn loaded(&self, direction: Direction, cx: &Context<f32>) -> Result<MutexGuard<'_, Loaded>> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let which = usize::from(direction == Direction::Inverse);
        if loaded.stale[which] {
            loaded.session.write(&self.inner.device_form(cx)?, direction).map_err(FlowError::Engine)?;
            loaded.stale[which] = false;
        }
        Ok(loaded)
    }

    /// The condition of a batch; empty for a bijector that sees none.
    fn condition(&self, batch: usize, cx: &Context<f32>) -> Result<Vec<f32>> {
        Ok(HostCondition::of(cx, self.inner.facts().condition, batch)?.map_or_else(Vec::new, |condition| condition.values))
    }

    /// A pass, and what else it gives.
    fn run<R>(
        &self,
        x: &Events,
        direction: Direction,
        cx: &Context<f32>,
        pass: impl FnOnce(&mut dyn Session, &mut [f32], &mut [f32]) -> Result<R, DeviceError>,
    ) -> Result<(Mapped<(usize, usize), f32>, R)> {
        let shape = *x.shape();
        self.inner.output_shape(&shape)?;
        let (mut values, mut log_det) = (to_host(x), vec![0.0; shape.0]);
        let condition = self.condition(shape.0, cx)?;
        let mut loaded = self.loaded(direction, cx)?;
        let result = loaded.session.condition(&condition).and_then(|()| pass(loaded.session.as_mut(), &mut values, &mut log_det));
        let result = result.map_err(FlowError::Engine)?;
        drop(loaded);
        let mut samples = values.chunks_exact(shape.1.max(1)).zip(&log_det);
        match samples.position(|(values, log_det)| !log_det.is_finite() || values.iter().any(|value| !value.is_finite())) {
            Some(row) => Err(FlowError::NotFinite { layer: cx.layer("bijector").to_owned(), what: "what the device gives", row }),
            None => Ok((Mapped::exact(f32::tensor(values, shape), f32::tensor(log_det, (shape.0,))), result)),
        }
    }
}

/// Adds the gradients that the sums of a pullback make. `log_det` is Σ ∂L/∂log-det over the samples.
fn finish(sides: &[SideForm<'_, f32>], sums: &[f32], log_det: f64, gradients: &mut [f32]) {
    let sizes = |side: &SideForm<'_, f32>| {
        side.parts.iter().fold((0, 0), |(sums, parameters), part| {
            let (more, own) = size(part, side.view.dim());
            (sums + more, parameters + own)
        })
    };
    let mut before = (0, 0);
    let places: Vec<_> = sides
        .iter()
        .map(|side| {
            let at = before;
            let (sums, parameters) = sizes(side);
            before = (at.0 + sums, at.1 + parameters);
            (at, parameters)
        })
        .collect();
    let of_sides = parallel(sides.len(), |i| {
        let ((sums_at, _), parameters) = places[i];
        let mut own = vec![0.0; parameters];
        finish_side(&sides[i], &sums[sums_at..], log_det, &mut own);
        own
    });
    for (((_, at), _), own) in places.into_iter().zip(of_sides) {
        gradients[at..].iter_mut().zip(own).for_each(|(gradient, own)| *gradient += own);
    }
}

/// Numbers in a part's sums, and in its parameters.
fn size(part: &RowForm<'_, f32>, dim: usize) -> (usize, usize) {
    match part {
        RowForm::Affine { parameters, .. } => (dim * (dim + 1), *parameters),
        RowForm::Coupling(form) | RowForm::Autoregressive(form) => {
            let parameters = form.net.layers().map(|layer| layer.weight.len() + layer.bias.len()).sum();
            (parameters, parameters)
        }
        RowForm::Elements(form) => (form.parameters.len(), form.parameters.len()),
        RowForm::Missing(_) => (0, 0),
    }
}

fn finish_side(side: &SideForm<'_, f32>, mut sums: &[f32], log_det: f64, mut gradients: &mut [f32]) {
    let dim = side.view.dim();
    for part in &side.parts {
        let (count, parameters) = size(part, dim);
        let (own, others) = sums.split_at(count);
        let (own_gradients, other_gradients) = gradients.split_at_mut(parameters);
        match part {
            RowForm::Affine { map, .. } if parameters > 0 => {
                let rows = own.chunks_exact(dim + 1);
                let for_matrix: Vec<f32> = rows.clone().flat_map(|row| &row[..dim]).copied().collect();
                let for_offset: Vec<f32> = rows.map(|row| row[dim]).collect();
                #[expect(clippy::cast_possible_truncation, reason = "the sum is rounded to f32")]
                let log_det = (log_det * side.view.rows() as f64) as f32;
                map.finish(&map.matrix().gathered(&for_matrix), &for_offset, log_det, own_gradients);
            }
            RowForm::Elements(_) => own_gradients.copy_from_slice(own),
            RowForm::Coupling(form) | RowForm::Autoregressive(form) => {
                let (mut sums, mut gradients) = (own, own_gradients);
                for layer in form.net.layers() {
                    let inputs = layer.inputs();
                    let (own, others) = sums.split_at(layer.outputs() * (inputs + 1));
                    let (for_layer, for_others) = gradients.split_at_mut(own.len());
                    let (for_weight, for_bias) = for_layer.split_at_mut(layer.weight.len());
                    let to = for_weight.chunks_exact_mut(inputs.max(1)).zip(for_bias);
                    for ((weight, bias), row) in to.zip(own.chunks_exact(inputs + 1)) {
                        weight.copy_from_slice(&row[..inputs]);
                        *bias = row[inputs];
                    }
                    for_weight.iter_mut().zip(&layer.masked).filter(|(_, masked)| **masked).for_each(|(weight, _)| *weight = 0.0);
                    (sums, gradients) = (others, for_others);
                }
            }
            _ => {}
        }
        (sums, gradients) = (others, other_gradients);
    }
}

impl Module<f32> for OnDevice {
    fn visit<'m>(&'m self, visitor: &mut Visitor<'_, 'm, f32>) {
        self.inner.visit(visitor);
    }
    fn visit_mut<'m>(&'m mut self, visitor: &mut VisitorMut<'_, 'm, f32>) {
        self.mark();
        self.inner.visit_mut(visitor);
    }
    fn refresh(&mut self) -> Result<()> {
        self.mark();
        self.inner.refresh()
    }
}

impl Bijector<(usize, usize), f32> for OnDevice {
    type Out = (usize, usize);

    fn facts(&self) -> Facts {
        self.inner.facts()
    }

    fn output_shape(&self, input: &(usize, usize)) -> Result<(usize, usize)> {
        self.inner.output_shape(input)
    }

    fn forward(&self, x: Events, cx: &Context<f32>) -> Result<Mapped<(usize, usize), f32>> {
        self.run(&x, Direction::Forward, cx, |session, values, log_det| session.encode(values, log_det)).map(|(mapped, ())| mapped)
    }

    fn inverse(&self, y: Events, cx: &Context<f32>) -> Result<Mapped<(usize, usize), f32>> {
        self.run(&y, Direction::Inverse, cx, |session, values, log_det| session.decode(values, log_det)).map(|(mapped, ())| mapped)
    }

    fn forward_until(&self, x: Events, layer: &str, cx: &Context<f32>) -> Result<Option<Vec<f32>>> {
        if cx.path() == layer {
            return Ok(Some(to_host(&self.forward(x, cx)?.value)));
        }
        Err(FlowError::Unsupported {
            layer: layer.to_owned(),
            operation: "a look at single layers",
            reason: format!("{} gives the activations of the whole bijector alone", self.device),
        })
    }

    fn forward_keeping(&self, x: Events, cx: &Context<f32>) -> Result<(Mapped<(usize, usize), f32>, Kept)> {
        let keeps = cx.memory() == Memory::Store;
        let (mapped, number) = self.run(&x, Direction::Forward, cx, |session, values, log_det| {
            if keeps { session.encode_keeping(values, log_det) } else { session.encode(values, log_det).map(|()| None) }
        })?;
        Ok((mapped, Box::new(Pass { number, x })))
    }

    fn pullback(
        &self,
        at: Point<(usize, usize), (usize, usize), f32>,
        cotangent: Cotangent<(usize, usize), f32>,
        gradients: &mut Gradients<f32>,
        cx: &Context<f32>,
    ) -> Result<Pulled<(usize, usize), f32>> {
        let (Pass { number, x }, input) = match at {
            Point::Kept(kept) => (*kept.downcast::<Pass>().map_err(|_| foreign_point(cx.path()))?, None),
            Point::Input(x) => (Pass { number: None, x: x.clone() }, Some(x)),
            Point::Output(y) => {
                let x = self.inverse(y, cx)?.value;
                (Pass { number: None, x: x.clone() }, Some(x))
            }
        };
        let shape = *x.shape();
        crate::bijector::check_cotangent(&shape, &cotangent, cx.layer("bijector"))?;
        let (mut values, log_det) = (to_host(&cotangent.value), to_host(&cotangent.log_det));
        let condition = self.condition(shape.0, cx)?;
        let PulledSums { parameters: sums, condition: for_condition } = {
            let session = &mut self.loaded(Direction::Forward, cx)?.session;
            session.condition(&condition).map_err(FlowError::Engine)?;
            session.pullback(number, &to_host(&x), &mut values, &log_det).map_err(FlowError::Engine)?
        };
        let total = log_det.iter().map(|&l| f64::from(l)).sum();
        finish(&self.inner.device_form(cx)?, &sums, total, gradients.slice_mut(cx.path()));
        let width = self.inner.facts().condition.filter(|width| for_condition.len() == shape.0 * width);
        let for_condition = width.map(|width| f32::tensor(for_condition, (shape.0, width)));
        Ok(Pulled::new(input, f32::tensor(values, shape)).with_condition(for_condition))
    }

    fn initialise(&mut self, x: Events, cx: &Context<f32>) -> Result<Events> {
        self.mark();
        self.inner.initialise(x, cx)
    }

    fn describe(&self, path: &str, input: &(usize, usize), table: &mut Vec<LayerInfo>) -> Result<()> {
        self.inner.describe(path, input, table)
    }

    fn device_form<'a>(&'a self, cx: &Context<f32>) -> Result<Vec<SideForm<'a, f32>>> {
        self.inner.device_form(cx)
    }
}

impl std::fmt::Debug for OnDevice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OnDevice").field("device", &self.device).finish_non_exhaustive()
    }
}
