//! A bijector whose passes run on a device.

use super::{Engine, Session, SideForm};
use crate::spec::EventBijector;
use crate::{
    Bijector, Context, Cotangent, Facts, FlowError, Gradients, LayerInfo, Mapped, Module, Point, Pulled, Result, Scalar, Tensor, Visitor,
    VisitorMut, to_host,
};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A bijector of events whose forward pass and inverse run on a device; its parameters are the host's, and are brought there when they have
/// changed.
///
/// [`Model::on`](crate::spec::Model::on) makes one. It is not trained there: [`Bijector::pullback`] is [`FlowError::Unsupported`]. Values that are not finite are named by their sample
/// alone, since no layer is looked at by itself.
pub struct OnDevice {
    inner: EventBijector<f32>,
    device: String,
    loaded: Mutex<Loaded>,
}

struct Loaded {
    session: Box<dyn Session>,
    /// The host's numbers are newer.
    stale: bool,
}

type Events = Tensor<(usize, usize), f32>;

impl OnDevice {
    /// Loads a bijector, whose path is the context's, of events of `event` numbers.
    ///
    /// # Errors
    /// Those of [`Engine::load`], and use before initialisation.
    pub fn new(inner: EventBijector<f32>, event: usize, engine: &dyn Engine, cx: &Context<f32>) -> Result<Self> {
        let session = engine.load(event, &inner.device_form(cx)?).map_err(FlowError::Engine)?;
        Ok(Self { inner, device: engine.info().device.clone(), loaded: Mutex::new(Loaded { session, stale: false }) })
    }

    /// The bijector on the host.
    pub fn into_inner(self) -> EventBijector<f32> {
        self.inner
    }

    /// A panic while the session was in use leaves nothing half done on the host.
    fn loaded(&self) -> MutexGuard<'_, Loaded> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn mark(&mut self) {
        self.loaded.get_mut().unwrap_or_else(PoisonError::into_inner).stale = true;
    }

    fn run(
        &self,
        x: &Events,
        cx: &Context<f32>,
        pass: impl FnOnce(&mut dyn Session, &mut [f32], &mut [f32]) -> Result<(), super::DeviceError>,
    ) -> Result<Mapped<(usize, usize), f32>> {
        use dfdx::prelude::HasShape;
        let shape = *x.shape();
        self.inner.output_shape(&shape)?;
        let (mut values, mut log_det) = (to_host(x), vec![0.0; shape.0]);
        let mut loaded = self.loaded();
        if loaded.stale {
            loaded.session.write(&self.inner.device_form(cx)?).map_err(FlowError::Engine)?;
            loaded.stale = false;
        }
        pass(loaded.session.as_mut(), &mut values, &mut log_det).map_err(FlowError::Engine)?;
        let mut samples = values.chunks_exact(shape.1.max(1)).zip(&log_det);
        match samples.position(|(values, log_det)| !log_det.is_finite() || values.iter().any(|value| !value.is_finite())) {
            Some(row) => Err(FlowError::NotFinite { layer: cx.layer("bijector").to_owned(), what: "what the device gives", row }),
            None => Ok(Mapped::exact(f32::tensor(values, shape), f32::tensor(log_det, (shape.0,)))),
        }
    }

    fn unsupported<T>(&self, operation: &'static str, cx: &Context<f32>, reason: &str) -> Result<T> {
        let layer = cx.layer("bijector").to_owned();
        Err(FlowError::Unsupported { layer, operation, reason: format!("{reason} (the model is on {})", self.device) })
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
        self.run(&x, cx, |session, values, log_det| session.encode(values, log_det))
    }

    fn inverse(&self, y: Events, cx: &Context<f32>) -> Result<Mapped<(usize, usize), f32>> {
        self.run(&y, cx, |session, values, log_det| session.decode(values, log_det))
    }

    fn forward_until(&self, x: Events, layer: &str, cx: &Context<f32>) -> Result<Option<Vec<f32>>> {
        if cx.path() == layer {
            return Ok(Some(to_host(&self.forward(x, cx)?.value)));
        }
        self.unsupported("a look at single layers", cx, "a device gives the activations of the whole bijector alone")
    }

    fn pullback(
        &self,
        _: Point<(usize, usize), (usize, usize), f32>,
        _: Cotangent<(usize, usize), f32>,
        _: &mut Gradients<f32>,
        cx: &Context<f32>,
    ) -> Result<Pulled<(usize, usize), f32>> {
        self.unsupported("pullback", cx, "models are trained on the host")
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
