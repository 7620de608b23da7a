//! The mixing skeleton: row flows on views of an event, one after the other, on one buffer.

use crate::pipeline::pipeline;
use dfdx::prelude::*;
use flow_api::{
    Bijector, Context, Cotangent, FlowDevice, FlowError, Gradients, HostCondition, InverseKind, Kept, LayerInfo, LogDetKind, Mapped,
    Memory, Module, Point, Pulled, Recorded, Result, RowChain, RowFlow, RowKernel, RowPass, RowPoint, RowSums, RowTapes, RowView, Scalar,
    SolveReport, Taped, TapedBijector, Threaded, Visitor, VisitorMut, foreign_point, leads_to, shape_error, to_host,
};

/// One side of a layer: a flow on R^d that is shared by all rows of a view.
pub struct Side<E: Scalar, D: FlowDevice<E>> {
    view: RowView,
    flow: RowChain<E, D>,
}

impl<E: Scalar, D: FlowDevice<E>> Side<E, D> {
    /// A flow on the rows of a view.
    ///
    /// # Errors
    /// [`FlowError::Composition`] if the rows have another size than the flow takes.
    pub fn new(view: RowView, flow: RowChain<E, D>) -> Result<Self> {
        if view.dim() == flow.dim() {
            return Ok(Self { view, flow });
        }
        Err(FlowError::Composition {
            first: "RowView".to_owned(),
            second: flow.kind().to_owned(),
            expected: format!("rows of {}", flow.dim()),
            got: format!("rows of {}", view.dim()),
        })
    }

    fn run<R>(&self, condition: Option<&HostCondition<E>>, cx: &Context<E, D>, f: impl FnOnce(&RowPass<'_, E>) -> Result<R>) -> Result<R> {
        let kernel = self.flow.prepare(cx)?;
        f(&RowPass { view: &self.view, kernel: kernel.as_ref(), path: cx.path(), condition })
    }
}

impl<E: Scalar, D: FlowDevice<E>> Module<E> for Side<E, D> {
    fn visit(&self, visitor: &mut Visitor<'_, E>) {
        self.flow.visit(visitor);
    }
    fn visit_mut(&mut self, visitor: &mut VisitorMut<'_, E>) {
        self.flow.visit_mut(visitor);
    }
    fn refresh(&mut self) -> Result<()> {
        self.flow.refresh()
    }
}

/// Gathers and scatters between events and the rows of a view in dfdx operations.
impl<E: Scalar, D: FlowDevice<E>> Side<E, D> {
    fn plain(&self, cx: &Context<E, D>) -> Result<&dyn flow_api::PlainRows<E, D>> {
        self.flow.plain().ok_or_else(|| FlowError::Unsupported {
            layer: cx.path().to_owned(),
            operation: "plain kernels",
            reason: "a flow of this side runs on host row blocks alone".to_owned(),
        })
    }

    /// (batch, event) → (batch · rows, d).
    fn gather<T: Tape<E, D>>(&self, x: Tensor<(usize, usize), E, D, T>) -> Tensor<(usize, usize), E, D, T> {
        let batch = x.shape().0;
        columns(x, self.view.places().collect()).reshape_like(&(batch * self.view.rows(), self.view.dim()))
    }

    /// (batch · rows, d) → (batch, event), with the numbers of `x` wherever the view has none.
    fn scatter<T: Tape<E, D> + Merge<NoneTape> + Merge<S>, S: Tape<E, D>>(
        &self,
        rows: Tensor<(usize, usize), E, D, T>,
        x: Tensor<(usize, usize), E, D, S>,
    ) -> Tensor<(usize, usize), E, D, T> {
        let shape = *x.shape();
        let device = x.device().clone();
        let (mut from, mut viewed) = (vec![0; shape.1], vec![E::zero(); shape.1]);
        for (at, place) in self.view.places().enumerate() {
            (from[place], viewed[place]) = (at, E::one());
        }
        let rest: Vec<E> = viewed.iter().map(|&viewed| E::one() - viewed).collect();
        let mask = |values: Vec<E>| device.tensor_from_vec(values, (shape.1,)).broadcast_like::<_, Axis<0>>(&shape);
        let back = columns(rows.reshape_like(&(shape.0, self.view.rows() * self.view.dim())), from);
        back * mask(viewed) + x * mask(rest)
    }
}

/// Columns of `x` by index.
fn columns<E: Scalar, D: FlowDevice<E>, T: Tape<E, D>>(
    x: Tensor<(usize, usize), E, D, T>,
    indices: Vec<usize>,
) -> Tensor<(usize, usize), E, D, T> {
    let shape = (indices.len(),);
    let indices: Tensor<(usize,), usize, D> = x.device().tensor_from_vec(indices, shape);
    x.permute::<_, Axes2<1, 0>>().gather(indices).permute::<_, Axes2<1, 0>>()
}

/// One side in plain dfdx operations, for devices whose memory is not the host's.
impl<E: Scalar, D: FlowDevice<E>> TapedBijector<(usize, usize), E, D> for Side<E, D> {
    type Out = (usize, usize);

    fn kind(&self) -> &'static str {
        "Side"
    }

    fn output_shape(&self, input: &(usize, usize)) -> Result<(usize, usize)> {
        if input.1 == self.view.sample_len() {
            Ok(*input)
        } else {
            Err(shape_error("Side", "build", ("batch", self.view.sample_len()), input))
        }
    }

    fn forward_taped(
        &self,
        x: Taped<(usize, usize), E, D>,
        cx: &Context<E, D>,
    ) -> Result<(Taped<(usize, usize), E, D>, Taped<(usize,), E, D>)> {
        let batch = x.shape().0;
        let rest = x.with_empty_tape();
        let (rows, log_det) = self.plain(cx)?.forward_taped(self.gather(x), cx)?;
        let log_det = log_det.reshape_like(&(batch, self.view.rows())).sum::<(usize,), Axis<1>>();
        Ok((self.scatter(rows, rest), log_det))
    }

    fn inverse(&self, y: Tensor<(usize, usize), E, D>, cx: &Context<E, D>) -> Result<Mapped<(usize, usize), E, D>> {
        let batch = y.shape().0;
        let (rows, log_det) = self.plain(cx)?.inverse(self.gather(y.clone()), cx)?;
        let log_det = log_det.reshape_like(&(batch, self.view.rows())).sum::<(usize,), Axis<1>>();
        Ok(Mapped::exact(self.scatter(rows, y), log_det))
    }
}

/// A layer: sides, one after the other, each with its path.
type Layer<E, D> = Vec<(String, Recorded<Side<E, D>>)>;

/// Row flows on views of one event, layer by layer.
///
/// On host memory all sides work in place on one buffer that holds the batch, block by block. What a training pass keeps is the context's [`Memory`]:
/// every side's activations, every layer's input, or nothing but the output (and the inputs of layers whose inverse is iterative).
///
/// It is a bijector of tensors of any shape whose samples have as many numbers as the views' events. Paths are those given to the sides, with the flows' own behind.
pub struct Skeleton<E: Scalar, D: FlowDevice<E>> {
    kind: &'static str,
    event: usize,
    layers: Vec<Layer<E, D>>,
}

impl<E: Scalar, D: FlowDevice<E>> Skeleton<E, D> {
    /// Layers on events of `event` numbers, each a list of sides with their paths; `kind` names the whole in tables.
    ///
    /// # Errors
    /// [`FlowError::Composition`] for a side on events of another size.
    pub fn new(kind: &'static str, event: usize, layers: Vec<Vec<(String, Side<E, D>)>>) -> Result<Self> {
        let mut before = "the input";
        for (path, side) in layers.iter().flatten() {
            let expected = side.view.sample_len();
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
        let layers = layers.into_iter().filter(|layer| !layer.is_empty());
        let layers = layers.map(|layer| layer.into_iter().map(|(path, side)| (path, Recorded(side))).collect()).collect();
        Ok(Self { kind, event, layers })
    }

    /// All sides in order with their contexts.
    fn sides<'s>(&'s self, cx: &'s Context<E, D>) -> impl DoubleEndedIterator<Item = (&'s Recorded<Side<E, D>>, Context<E, D>)> {
        self.layers.iter().flatten().map(move |(path, side)| (side, cx.child(path)))
    }

    /// The kernels of a layer.
    fn prepare(&self, layer: usize, cx: &Context<E, D>) -> Result<Vec<ReadySide<'_, E>>> {
        let sides = self.layers.get(layer).into_iter().flatten();
        sides
            .map(|(path, Recorded(side))| {
                let cx = cx.child(path);
                Ok(ReadySide { view: &side.view, kernel: side.flow.prepare(&cx)?, path: cx.path().to_owned() })
            })
            .collect()
    }

    /// Sides run as fused host kernels: by the context's choice, or because one has no other form.
    fn fused(&self, cx: &Context<E, D>) -> bool {
        cx.fused() || self.layers.iter().flatten().any(|(_, side)| side.0.flow.plain().is_none())
    }

    fn condition(&self, cx: &Context<E, D>, batch: usize) -> Result<Option<HostCondition<E>>> {
        HostCondition::of(cx, Bijector::<(usize, usize), E, D>::condition_width(self), batch)
    }

    /// The plain path, side by side.
    fn plain_map(
        &self,
        x: Tensor<(usize, usize), E, D>,
        cx: &Context<E, D>,
        backwards: bool,
        mut keep: impl FnMut(&Tensor<(usize, usize), E, D>),
    ) -> Result<Mapped<(usize, usize), E, D>> {
        let log_det = flow_api::LogDet::zero(x.device(), x.shape().0);
        let mut so_far = Mapped { value: x, log_det, report: SolveReport::default() };
        let mut sides: Vec<_> = self.sides(cx).collect();
        if backwards {
            sides.reverse();
        }
        for (side, cx) in sides {
            keep(&so_far.value);
            let next = if backwards { side.inverse(so_far.value.clone(), &cx)? } else { side.forward(so_far.value.clone(), &cx)? };
            so_far = so_far.then(next);
        }
        Ok(so_far)
    }

    /// The fused path, in place on the host.
    fn fused_map(
        &self,
        values: &mut [E],
        batch: usize,
        cx: &Context<E, D>,
        mut each: impl FnMut(usize, &RowPass<'_, E>, &mut [E]) -> Result<Totals<E>> + Threaded,
        backwards: bool,
    ) -> Result<Totals<E>> {
        let condition = self.condition(cx, batch)?;
        let mut totals = Totals { log_det: vec![E::zero(); batch], variance: vec![E::zero(); batch], report: SolveReport::default() };
        let count = self.layers.len();
        let order = (0..count).map(|i| if backwards { count - 1 - i } else { i });
        let run = |layer: usize, sides: &Vec<ReadySide<'_, E>>| {
            let mut run = |side: &ReadySide<'_, E>| {
                totals.add(&each(layer, &side.pass(condition.as_ref()), values)?);
                Ok(())
            };
            if backwards { sides.iter().rev().try_for_each(&mut run) } else { sides.iter().try_for_each(&mut run) }
        };
        pipeline(order, |&layer| self.prepare(layer, cx), run, |_, ()| Ok(()))?;
        Ok(totals)
    }

    fn mapped<X: Shape>(&self, device: &D, values: Vec<E>, shape: X, totals: Totals<E>) -> Mapped<X, E, D> {
        let batch = totals.log_det.len();
        let estimate =
            Bijector::<(usize, usize), E, D>::log_det_kind(self) == LogDetKind::Estimate || totals.variance.iter().any(|v| *v > E::zero());
        let standard_error =
            estimate.then(|| device.tensor_from_vec(totals.variance.iter().map(|v| num_traits::Float::sqrt(*v)).collect(), (batch,)));
        let log_det = flow_api::LogDet { value: device.tensor_from_vec(totals.log_det, (batch,)), standard_error };
        Mapped { value: device.tensor_from_vec(values, shape), log_det, report: totals.report }
    }

    fn check<X: Shape>(&self, shape: &X, operation: &'static str, cx: &Context<E, D>) -> Result<(usize, usize)> {
        let batch = shape.concrete().into_iter().next().unwrap_or(0);
        if shape.num_elements() == batch * self.event {
            return Ok((batch, self.event));
        }
        let layer = if cx.path().is_empty() { self.kind } else { cx.path() };
        Err(shape_error(layer, operation, format!("a batch of events of {} numbers", self.event), shape.concrete()))
    }
}

/// A side made ready for one call.
struct ReadySide<'a, E: Scalar> {
    view: &'a RowView,
    kernel: Box<dyn RowKernel<E> + 'a>,
    path: String,
}

impl<E: Scalar> ReadySide<'_, E> {
    fn pass<'p>(&'p self, condition: Option<&'p HostCondition<E>>) -> RowPass<'p, E> {
        RowPass { view: self.view, kernel: self.kernel.as_ref(), path: &self.path, condition }
    }
}

/// Where the pullback of a layer starts.
enum LayerPoint<E: Scalar> {
    /// The tapes of its sides.
    Tapes(Vec<RowTapes<E>>),
    /// Its input.
    Input(Vec<E>),
    /// Its output, which the layers behind recovered.
    Output,
}

/// Sums over sides.
struct Totals<E> {
    log_det: Vec<E>,
    variance: Vec<E>,
    report: SolveReport,
}

impl<E: Scalar> Totals<E> {
    fn add(&mut self, other: &Self) {
        self.log_det.iter_mut().zip(&other.log_det).for_each(|(sum, &l)| *sum += l);
        self.variance.iter_mut().zip(&other.variance).for_each(|(sum, &v)| *sum += v);
        self.report = self.report.then(other.report);
    }
}

/// What a forward pass keeps, by memory setting.
enum Trace<E: Scalar, D: FlowDevice<E>> {
    /// Store: the tapes of every layer's sides.
    Tapes(Vec<Vec<RowTapes<E>>>),
    /// Recompute and Invert: inputs of layers (none for those that are inverted), and the output.
    Inputs { inputs: Vec<Option<Vec<E>>>, output: Vec<E> },
    /// Plain kernels: the input of every side.
    Plain(Vec<Tensor<(usize, usize), E, D>>),
}

impl<E: Scalar, D: FlowDevice<E>> Module<E> for Skeleton<E, D> {
    fn visit(&self, visitor: &mut Visitor<'_, E>) {
        for (path, side) in self.layers.iter().flatten() {
            visitor.child(path, side);
        }
    }
    fn visit_mut(&mut self, visitor: &mut VisitorMut<'_, E>) {
        for (path, side) in self.layers.iter_mut().flatten() {
            visitor.child(path, side);
        }
    }
    fn refresh(&mut self) -> Result<()> {
        self.layers.iter_mut().flatten().try_for_each(|(_, side)| side.refresh())
    }
}

impl<X: Shape, E: Scalar, D: FlowDevice<E>> Bijector<X, E, D> for Skeleton<E, D> {
    type Out = X;

    fn kind(&self) -> &'static str {
        self.kind
    }

    fn output_shape(&self, input: &X) -> Result<X> {
        self.check(input, "build", &Context::new(0)).map(|_| *input)
    }

    fn forward(&self, x: Tensor<X, E, D>, cx: &Context<E, D>) -> Result<Mapped<X, E, D>> {
        let (shape, flat) = (*x.shape(), self.check(x.shape(), "forward", cx)?);
        if !self.fused(cx) {
            let mapped = self.plain_map(x.reshape_like(&flat), cx, false, |_| ())?;
            return Ok(Mapped { value: mapped.value.reshape_like(&shape), log_det: mapped.log_det, report: mapped.report });
        }
        let mut values = to_host(&x);
        let totals = self.fused_map(&mut values, flat.0, cx, |_, pass, values| pass.forward(values, false).map(totals), false)?;
        Ok(self.mapped(x.device(), values, shape, totals))
    }

    /// On the host, whatever the context's kernels.
    fn forward_until(&self, x: Tensor<X, E, D>, layer: &str, cx: &Context<E, D>) -> Result<Option<Vec<E>>> {
        let (batch, _) = self.check(x.shape(), "forward", cx)?;
        let condition = self.condition(cx, batch)?;
        let mut values = to_host(&x);
        for (Recorded(side), cx) in self.sides(cx) {
            if leads_to(cx.path(), layer) {
                let Some(kernel) = side.flow.prepare_until(layer, &cx)? else { return Ok(None) };
                let pass = RowPass { view: &side.view, kernel: kernel.as_ref(), path: cx.path(), condition: condition.as_ref() };
                pass.forward(&mut values, false)?;
                return Ok(Some(values));
            }
            side.run(condition.as_ref(), &cx, |pass| pass.forward(&mut values, false))?;
        }
        Ok((cx.path() == layer).then_some(values))
    }

    fn inverse(&self, y: Tensor<X, E, D>, cx: &Context<E, D>) -> Result<Mapped<X, E, D>> {
        let (shape, flat) = (*y.shape(), self.check(y.shape(), "inverse", cx)?);
        if !self.fused(cx) {
            let mapped = self.plain_map(y.reshape_like(&flat), cx, true, |_| ())?;
            return Ok(Mapped { value: mapped.value.reshape_like(&shape), log_det: mapped.log_det, report: mapped.report });
        }
        let mut values = to_host(&y);
        let totals = self.fused_map(&mut values, flat.0, cx, |_, pass, values| pass.inverse(values).map(totals), true)?;
        Ok(self.mapped(y.device(), values, shape, totals))
    }

    fn forward_keeping(&self, x: Tensor<X, E, D>, cx: &Context<E, D>) -> Result<(Mapped<X, E, D>, Kept)> {
        let (shape, flat) = (*x.shape(), self.check(x.shape(), "forward", cx)?);
        if !self.fused(cx) {
            let mut inputs = Vec::new();
            let mapped = self.plain_map(x.reshape_like(&flat), cx, false, |input| inputs.push(input.clone()))?;
            let mapped = Mapped { value: mapped.value.reshape_like(&shape), log_det: mapped.log_det, report: mapped.report };
            return Ok((mapped, Box::new(Trace::Plain(inputs))));
        }
        let device = x.device().clone();
        let mut values = to_host(&x);
        drop(x);
        if cx.memory() == Memory::Store {
            let mut tapes: Vec<Vec<RowTapes<E>>> = Vec::with_capacity(self.layers.len());
            let record = |layer: usize, pass: &RowPass<'_, E>, values: &mut [E]| {
                let mut result = pass.forward(values, true)?;
                tapes.resize_with(layer + 1, Vec::new);
                tapes[layer].push(std::mem::take(&mut result.tapes));
                Ok(totals(result))
            };
            let totals = self.fused_map(&mut values, flat.0, cx, record, false)?;
            return Ok((self.mapped(&device, values, shape, totals), Box::new(Trace::<E, D>::Tapes(tapes))));
        }
        let mut inputs: Vec<Option<Vec<E>>> = Vec::with_capacity(self.layers.len());
        let keep = |layer: usize, pass: &RowPass<'_, E>, values: &mut [E]| {
            if inputs.len() == layer {
                let keep = cx.memory() == Memory::Recompute || self.layer_inverse(layer) == InverseKind::Iterative;
                inputs.push(keep.then(|| values.to_vec()));
            }
            pass.forward(values, false).map(totals)
        };
        let totals = self.fused_map(&mut values, flat.0, cx, keep, false)?;
        let trace = Trace::<E, D>::Inputs { inputs, output: values.clone() };
        Ok((self.mapped(&device, values, shape, totals), Box::new(trace)))
    }

    fn pullback(
        &self,
        at: Point<X, X, E, D>,
        cotangent: Cotangent<X, E, D>,
        gradients: &mut Gradients<E>,
        cx: &Context<E, D>,
    ) -> Result<Pulled<X, E, D>> {
        let (shape, flat) = (*cotangent.value.shape(), self.check(cotangent.value.shape(), "pullback", cx)?);
        let device = cotangent.value.device().clone();
        let at_input = match &at {
            Point::Input(x) => Some(x.clone()),
            _ => None,
        };
        let trace = match at {
            Point::Kept(kept) => *kept.downcast::<Trace<E, D>>().map_err(|_| foreign_point(cx.path()))?,
            Point::Input(x) => *self.forward_keeping(x, cx)?.1.downcast().map_err(|_| foreign_point(cx.path()))?,
            Point::Output(y) if self.fused(cx) => Trace::Inputs { inputs: vec![None; self.layers.len()], output: to_host(&y) },
            Point::Output(y) => {
                let x = self.inverse(y, cx)?.value;
                *self.forward_keeping(x, cx)?.1.downcast().map_err(|_| foreign_point(cx.path()))?
            }
        };
        if let Trace::Plain(inputs) = trace {
            let log_det = cotangent.log_det;
            let mut pulled = cotangent.value.reshape_like(&flat);
            let first = inputs.first().cloned();
            for ((side, cx), input) in self.sides(cx).zip(inputs).collect::<Vec<_>>().into_iter().rev() {
                let cotangent = Cotangent { value: pulled, log_det: log_det.clone() };
                pulled = side.pullback(Point::Input(input), cotangent, gradients, &cx)?.cotangent;
            }
            let input = at_input.or(first.map(|x| x.reshape_like(&shape)));
            return Ok(Pulled { input, cotangent: pulled.reshape_like(&shape) });
        }
        let (mut pulled, log_det) = (to_host(&cotangent.value), to_host(&cotangent.log_det));
        drop(cotangent);
        let input = self.pull_fused(trace, &mut pulled, &log_det, gradients, cx)?;
        let input = at_input.or_else(|| input.map(|values| device.tensor_from_vec(values, shape)));
        Ok(Pulled { input, cotangent: device.tensor_from_vec(pulled, shape) })
    }

    fn initialise(&mut self, x: Tensor<X, E, D>, cx: &Context<E, D>) -> Result<Tensor<X, E, D>> {
        let (shape, (batch, _)) = (*x.shape(), self.check(x.shape(), "initialise", cx)?);
        let condition = self.condition(cx, batch)?;
        let mut values = to_host(&x);
        for (path, Recorded(side)) in self.layers.iter_mut().flatten() {
            let cx = cx.child(path);
            let rows = batch * side.view.rows();
            let mut matrix = vec![E::zero(); rows * side.view.dim()];
            side.view.gather(&values, 0, rows, &mut matrix);
            side.flow.initialise(&matrix, rows, &cx)?;
            side.run(condition.as_ref(), &cx, |pass| pass.forward(&mut values, false))?;
        }
        Ok(x.device().tensor_from_vec(values, shape))
    }

    fn log_det_kind(&self) -> LogDetKind {
        self.layers.iter().flatten().fold(LogDetKind::Exact, |kind, (_, side)| kind.and(side.0.flow.log_det_kind()))
    }

    fn inverse_kind(&self) -> InverseKind {
        (0..self.layers.len()).fold(InverseKind::ClosedForm, |kind, layer| kind.and(self.layer_inverse(layer)))
    }

    fn condition_width(&self) -> Option<usize> {
        self.layers.iter().flatten().find_map(|(_, side)| side.0.flow.condition_width())
    }

    fn multiply_adds(&self, _: &X) -> u64 {
        self.layers.iter().flatten().map(|(_, side)| side.0.view.rows() as u64 * side.0.flow.multiply_adds()).sum()
    }

    fn describe(&self, path: &str, input: &X, table: &mut Vec<LayerInfo>) -> Result<()> {
        Bijector::<X, E, D>::output_shape(self, input)?;
        let dot = if path.is_empty() { "" } else { "." };
        for (name, side) in self.layers.iter().flatten() {
            side.0.flow.describe(&format!("{path}{dot}{name}"), side.0.view.rows(), table);
        }
        Ok(())
    }
}

impl<E: Scalar, D: FlowDevice<E>> Skeleton<E, D> {
    fn layer_inverse(&self, layer: usize) -> InverseKind {
        self.layers[layer].iter().fold(InverseKind::ClosedForm, |kind, (_, side)| kind.and(side.0.flow.inverse_kind()))
    }

    /// Pulls a cotangent back through all sides in place; the recovered input, unless tapes were kept.
    fn pull_fused(
        &self,
        trace: Trace<E, D>,
        pulled: &mut [E],
        log_det: &[E],
        gradients: &mut Gradients<E>,
        cx: &Context<E, D>,
    ) -> Result<Option<Vec<E>>> {
        let condition = self.condition(cx, log_det.len())?;
        let (points, mut values): (Vec<LayerPoint<E>>, _) = match trace {
            Trace::Tapes(tapes) => (tapes.into_iter().map(LayerPoint::Tapes).collect(), None),
            Trace::Inputs { inputs, output } => {
                (inputs.into_iter().map(|input| input.map_or(LayerPoint::Output, LayerPoint::Input)).collect(), Some(output))
            }
            Trace::Plain(_) => return Err(foreign_point(cx.path())),
        };
        let recovered = &mut values;
        let run = |(_, point): (usize, LayerPoint<E>), sides: &Vec<ReadySide<'_, E>>| {
            let pull =
                |side: &ReadySide<'_, E>, at: RowPoint<'_, E>, pulled: &mut [E]| side.pass(condition.as_ref()).pull(at, pulled, log_det);
            match point {
                LayerPoint::Tapes(tapes) => sides
                    .iter()
                    .zip(tapes)
                    .rev()
                    .map(|(side, tapes)| pull(side, RowPoint::Tapes(tapes), pulled))
                    .collect::<Result<Vec<_>>>(),
                LayerPoint::Output => {
                    let values = recovered.as_mut().ok_or_else(|| foreign_point(cx.path()))?;
                    sides.iter().rev().map(|side| pull(side, RowPoint::Outputs(values), pulled)).collect()
                }
                LayerPoint::Input(input) => {
                    // All sides but the last run forward once more for their tapes; the last records block by block.
                    let mut inner = input.clone();
                    let mut tapes = Vec::with_capacity(sides.len());
                    for side in sides.iter().take(sides.len().saturating_sub(1)) {
                        let mut result = side.pass(condition.as_ref()).forward(&mut inner, true)?;
                        tapes.push(std::mem::take(&mut result.tapes));
                    }
                    let points = tapes.into_iter().map(RowPoint::Tapes).chain([RowPoint::Inputs(&inner)]);
                    let points: Vec<_> = points.collect();
                    let sums = sides.iter().zip(points).rev().map(|(side, at)| pull(side, at, pulled)).collect();
                    *recovered = Some(input);
                    sums
                }
            }
        };
        let finish = |sides: &Vec<ReadySide<'_, E>>, sums: Vec<RowSums<E>>| {
            sides.iter().rev().zip(sums).try_for_each(|(side, sums)| side.pass(None).finish(&sums, gradients.slice_mut(&side.path)))
        };
        pipeline(points.into_iter().enumerate().rev(), |(layer, _)| self.prepare(*layer, cx), run, finish)?;
        Ok(values)
    }
}

fn totals<E: Scalar>(result: flow_api::PassResult<E>) -> Totals<E> {
    Totals { log_det: result.log_det, variance: result.variance, report: result.report }
}

impl<E: Scalar, D: FlowDevice<E>> std::fmt::Debug for Skeleton<E, D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct(self.kind).field("event", &self.event).field("layers", &self.layers.len()).finish()
    }
}
