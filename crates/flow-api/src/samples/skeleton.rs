//! The skeleton: sample flows one after the other, on one buffer.

use super::SampleFlow;
use super::driver::{Driver, Layers, forward_all};
use super::groups::Ready;
use crate::bijector::{Cotangent, Kept, LayerInfo, Mapped, Point, Pulled, leads_to, one_condition};
use crate::device::SideForm;
use crate::module::{Visitor, VisitorMut};
use crate::rows::{Direction, HostCondition};
use crate::{Bijector, Context, Facts, FlowError, Gradients, InverseKind, Module, Result, Scalar, Tensor, shape_error, to_host};
use dfdx::prelude::{HasShape, Shape};

/// A layer of a [`Skeleton`]: sample flows, one after the other, each with its path.
pub type SampleLayer<E> = Vec<(String, Box<dyn SampleFlow<E>>)>;

/// Sample flows on one event, layer by layer.
///
/// All of them work in place on one buffer that holds the batch, a group of samples at a time. What a training pass
/// keeps is the context's [`Memory`](crate::Memory):
/// every flow's activations, every layer's input, or nothing but the output (and the inputs of layers whose inverse
/// is not in closed form).
///
/// It is a bijector of tensors of any shape whose samples have as many values as the flows' events. Paths are those
/// given to the flows, with their own behind.
///
/// Events of 6 values as a matrix of 2 × 3: one layer transforms its rows, then its columns.
///
/// ```
/// use flow_api::layers::LuLinear;
/// use flow_api::module::parameter_count;
/// use flow_api::rows::RowView;
/// use flow_api::samples::{Side, Skeleton};
/// use flow_api::{Bijector, Context, SampleFlow, Scalar, to_host};
/// let side = |name: &str, view: RowView| {
///     let flow = LuLinear::<f64>::new(view.dim());
///     Ok::<_, flow_api::FlowError>((name.to_owned(), Box::new(Side::new(view, flow)?) as Box<dyn SampleFlow<f64>>))
/// };
/// // Element (i, j) lies at 3i + j.
/// let rows = side("layers.0.rows", RowView::new(6, vec![0, 3], vec![0, 1, 2])?)?;
/// let columns = side("layers.0.columns", RowView::new(6, vec![0, 1, 2], vec![0, 3])?)?;
/// let mixer = Skeleton::new("Mixer", 6, vec![vec![rows, columns]])?;
/// assert_eq!(parameter_count(&mixer), (3 + 3 + 3 + 3) + (1 + 1 + 2 + 2)); // of 3 × 3 and of 2 × 2, with offsets
///
/// let x = f64::tensor((0..12).map(f64::from).collect(), (2, 6)); // two events
/// let mapped = mixer.forward(x.clone(), &Context::new(0))?;
/// assert_eq!(to_host(&mapped.value), to_host(&x)); // both maps start as the identity
/// # Ok::<(), flow_api::FlowError>(())
/// ```
pub struct Skeleton<E: Scalar> {
    kind: &'static str,
    event: usize,
    layers: Vec<SampleLayer<E>>,
}

impl<E: Scalar> Skeleton<E> {
    /// Layers on events of `event` values, each a list of sample flows with their paths; `kind` names the whole in
    /// tables.
    ///
    /// # Errors
    /// [`FlowError::Composition`] for a flow on events of another size, [`FlowError::Shape`] for events of no values,
    /// [`FlowError::Condition`] for flows that take
    /// conditions of different widths.
    pub fn new(kind: &'static str, event: usize, layers: Vec<SampleLayer<E>>) -> Result<Self> {
        if event == 0 {
            return Err(shape_error(kind, "build", "events of at least one number", event));
        }
        let mut before = "the input";
        for (path, flow) in layers.iter().flatten() {
            let expected = flow.event();
            if expected != event {
                return Err(FlowError::Composition {
                    first: before.to_owned(),
                    second: path.clone(),
                    expected: format!("(batch, {expected})"),
                    got: format!("(batch, {event})"),
                });
            }
            before = path;
        }
        one_condition(layers.iter().flatten().map(|(path, flow)| (path.as_str(), flow.facts().condition)))?;
        Ok(Self { kind, event, layers: layers.into_iter().filter(|layer| !layer.is_empty()).collect() })
    }

    fn flows(&self) -> impl Iterator<Item = &(String, Box<dyn SampleFlow<E>>)> {
        self.layers.iter().flatten()
    }
}

impl<E: Scalar> Module<E> for Skeleton<E> {
    fn visit<'m>(&'m self, visitor: &mut Visitor<'_, 'm, E>) {
        for (path, flow) in self.layers.iter().flatten() {
            visitor.child(path, flow);
        }
    }
    fn visit_mut<'m>(&'m mut self, visitor: &mut VisitorMut<'_, 'm, E>) {
        for (path, flow) in self.layers.iter_mut().flatten() {
            visitor.child(path, flow);
        }
    }
    fn refresh(&mut self) -> Result<()> {
        self.layers.iter_mut().flatten().try_for_each(|(_, flow)| flow.refresh())
    }
}

impl<E: Scalar> Layers<E> for Skeleton<E> {
    fn facts(&self) -> Facts {
        Facts::of(self.kind, self.flows().map(|(_, flow)| flow.facts()))
    }

    fn event(&self) -> usize {
        self.event
    }

    fn count(&self) -> usize {
        self.layers.len()
    }

    fn inverse(&self, layer: usize) -> InverseKind {
        Facts::of("", self.layers[layer].iter().map(|(_, flow)| flow.facts())).inverse
    }

    fn prepare<'a>(&'a self, layer: usize, batch: usize, cx: &Context<E>) -> Result<Vec<Ready<'a, E>>> {
        self.layers[layer].iter().map(|(path, flow)| ready(path, flow.as_ref(), batch, cx)).collect()
    }

    fn holds(&self, layer: usize, part: &str, cx: &Context<E>) -> bool {
        self.layers[layer].iter().map(|(path, _)| cx.child(path)).any(|own| is_on_the_way(own.path(), part))
    }

    fn prepare_until<'a>(&'a self, layer: usize, part: &str, batch: usize, cx: &Context<E>) -> Result<Option<Vec<Ready<'a, E>>>> {
        let layer = &self.layers[layer];
        let Some(last) = layer.iter().rposition(|(path, _)| is_on_the_way(cx.child(path).path(), part)) else { return Ok(None) };
        let before = layer[..last].iter().map(|(path, flow)| ready(path, flow.as_ref(), batch, cx));
        let mut flows = before.collect::<Result<Vec<_>>>()?;
        let (path, flow) = &layer[last];
        let own = cx.child(path);
        if leads_to(part, own.path()) {
            flows.push(ready(path, flow.as_ref(), batch, cx)?);
            return Ok(Some(flows));
        }
        let kernel = flow.prepare_until(part, batch, &own).map_err(|e| e.in_layer(own.path()))?;
        Ok(kernel.map(|kernel| {
            flows.push(Ready { path: own.path().to_owned(), kernel });
            flows
        }))
    }

    /// Enough for blocks of every side, and twice as many where that leaves groups for several threads, since every
    /// group has its own sums.
    fn group_samples(&self, batch: usize) -> usize {
        const GROUPS: usize = 8;
        let samples = self.flows().map(|(_, flow)| flow.group_samples(batch)).max().unwrap_or(1);
        if batch >= 2 * samples * GROUPS { 2 * samples } else { samples }
    }
}

/// Whether the part is within the flow with this path, or the flow within the part.
fn is_on_the_way(flow: &str, part: &str) -> bool {
    leads_to(flow, part) || leads_to(part, flow)
}

fn ready<'a, E: Scalar>(path: &str, flow: &'a dyn SampleFlow<E>, batch: usize, cx: &Context<E>) -> Result<Ready<'a, E>> {
    let cx = cx.child(path);
    let kernel = flow.prepare(batch, &cx).map_err(|e| e.in_layer(cx.path()))?;
    Ok(Ready { path: cx.path().to_owned(), kernel })
}

impl<X: Shape, E: Scalar> Bijector<X, E> for Skeleton<E> {
    type Out = X;

    fn facts(&self) -> Facts {
        Layers::facts(self)
    }

    fn output_shape(&self, input: &X) -> Result<X> {
        Driver::new(self, &Context::new(0)).batch(input, "build").map(|_| *input)
    }

    fn forward(&self, x: Tensor<X, E>, cx: &Context<E>) -> Result<Mapped<X, E>> {
        Driver::new(self, cx).map(&x, Direction::Forward)
    }

    fn inverse(&self, y: Tensor<X, E>, cx: &Context<E>) -> Result<Mapped<X, E>> {
        Driver::new(self, cx).map(&y, Direction::Inverse)
    }

    fn forward_until(&self, x: Tensor<X, E>, layer: &str, cx: &Context<E>) -> Result<Option<Vec<E>>> {
        Driver::new(self, cx).forward_until(&x, layer)
    }

    fn pullback_until(
        &self,
        x: Tensor<X, E>,
        layer: &str,
        cotangent: Vec<E>,
        gradients: &mut Gradients<E>,
        cx: &Context<E>,
    ) -> Result<Option<Pulled<X, E>>> {
        Driver::new(self, cx).pullback_until(x, layer, cotangent, gradients)
    }

    fn forward_keeping(&self, x: Tensor<X, E>, cx: &Context<E>) -> Result<(Mapped<X, E>, Kept)> {
        Driver::new(self, cx).forward_keeping(x)
    }

    fn pullback(
        &self,
        at: Point<X, X, E>,
        cotangent: Cotangent<X, E>,
        gradients: &mut Gradients<E>,
        cx: &Context<E>,
    ) -> Result<Pulled<X, E>> {
        Driver::new(self, cx).pullback(at, cotangent, gradients)
    }

    fn device_form<'a>(&'a self, cx: &Context<E>) -> Result<Vec<SideForm<'a, E>>> {
        let mut sides = Vec::new();
        for (path, flow) in self.flows() {
            let cx = cx.child(path);
            sides.extend(flow.device_form(&cx).map_err(|e| e.in_layer(cx.path()))?);
        }
        Ok(sides)
    }

    fn initialise(&mut self, x: Tensor<X, E>, cx: &Context<E>) -> Result<Tensor<X, E>> {
        let (shape, batch) = (*x.shape(), Driver::new(self, cx).batch(x.shape(), "initialise")?);
        let condition = HostCondition::of(cx, Layers::facts(self).condition, batch)?;
        let mut values = to_host(&x);
        for (path, flow) in self.layers.iter_mut().flatten() {
            flow.initialise(&values, batch, &cx.child(&*path))?;
            forward_all(&ready(path, flow.as_ref(), batch, cx)?, &mut values, batch, condition.as_ref())?;
        }
        Ok(E::tensor(values, shape))
    }

    fn describe(&self, path: &str, input: &X, table: &mut Vec<LayerInfo>) -> Result<()> {
        Bijector::output_shape(self, input)?;
        let dot = if path.is_empty() { "" } else { "." };
        self.flows().for_each(|(name, flow)| flow.describe(&format!("{path}{dot}{name}"), table));
        Ok(())
    }
}

impl<E: Scalar> std::fmt::Debug for Skeleton<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct(self.kind).field("event", &self.event).field("layers", &self.layers.len()).finish()
    }
}
