//! The mixing skeleton: row flows on views of an event, one after the other, on one buffer.

use crate::groups::{GroupTrace, LayerPoint, ReadySide, Samples, Totals};
use crate::schedule::schedule;
use crate::side::Side;
use dfdx::prelude::*;
use flow_api::{
    Bijector, Context, Cotangent, Direction, FlowDevice, FlowError, Gradients, HostCondition, InverseKind, Kept, LayerInfo, LogDetKind,
    Mapped, Memory, Module, Point, Pulled, Recorded, Result, RowFlow, RowPass, Scalar, SolveReport, Threaded, Visitor, VisitorMut,
    foreign_point, leads_to, shape_error, to_host,
};
use flow_kernels::workspace::Buffer;
use std::sync::{Mutex, PoisonError};

/// A layer: sides, one after the other, each with its path.
type Layer<E, D> = Vec<(String, Recorded<Side<E, D>>)>;

/// Row flows on views of one event, layer by layer.
///
/// On host memory all sides work in place on one buffer that holds the batch, block by block. What a training pass keeps is the context's [`Memory`]:
/// every side's activations, every layer's input, or nothing but the output (and the inputs of layers whose inverse is iterative).
///
/// It is a bijector of tensors of any shape whose samples have as many numbers as the views' events. Paths are those given to the sides, with the flows' own behind.
///
/// Events of 6 numbers as a matrix of 2 × 3: one layer transforms its rows, then its columns.
///
/// ```
/// use flow_api::dfdx::prelude::*;
/// use flow_api::layers::LuLinear;
/// use flow_api::{Bijector, Context, RowChain, RowView, parameter_count, to_host};
/// use mixerflow::{Side, Skeleton};
/// let device = Cpu::default();
/// let side = |name: &str, view: RowView| {
///     let flow = RowChain::<f64, Cpu>::new(view.dim(), vec![Box::new(LuLinear::new(view.dim(), &device))])?;
///     Ok::<_, flow_api::FlowError>((name.to_owned(), Side::new(view, flow)?))
/// };
/// // Element (i, j) lies at 3i + j.
/// let rows = side("layers.0.rows", RowView::new(6, vec![0, 3], vec![0, 1, 2])?)?;
/// let columns = side("layers.0.columns", RowView::new(6, vec![0, 1, 2], vec![0, 3])?)?;
/// let mixer = Skeleton::new("Mixer", 6, vec![vec![rows, columns]])?;
/// assert_eq!(parameter_count(&mixer), (3 + 3 + 3 + 3) + (1 + 1 + 2 + 2)); // of 3 × 3 and of 2 × 2, with offsets
///
/// let x = device.tensor_from_vec((0..12).map(f64::from).collect(), (2, 6)); // two events
/// let mapped = mixer.forward(x.clone(), &Context::new(0))?;
/// assert_eq!(to_host(&mapped.value), to_host(&x)); // both maps start as the identity
/// # Ok::<(), flow_api::FlowError>(())
/// ```
pub struct Skeleton<E: Scalar, D: FlowDevice<E>> {
    kind: &'static str,
    event: usize,
    layers: Vec<Layer<E, D>>,
}

impl<E: Scalar, D: FlowDevice<E>> Skeleton<E, D> {
    /// Layers on events of `event` numbers, each a list of sides with their paths; `kind` names the whole in tables.
    ///
    /// # Errors
    /// [`FlowError::Composition`] for a side on events of another size, [`FlowError::Shape`] for events of no numbers.
    pub fn new(kind: &'static str, event: usize, layers: Vec<Vec<(String, Side<E, D>)>>) -> Result<Self> {
        if event == 0 {
            return Err(shape_error(kind, "build", "events of at least one number", event));
        }
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

    /// The kernels of a layer for a batch, with what passes in a direction need if there will be any.
    fn prepare(&self, layer: usize, batch: usize, direction: Option<Direction>, cx: &Context<E, D>) -> Result<Vec<ReadySide<'_, E>>> {
        let sides = self.layers.get(layer).into_iter().flatten();
        sides
            .map(|(path, Recorded(side))| {
                let cx = cx.child(path);
                let kernel = side.flow.prepare(batch * side.view.rows(), &cx)?;
                if let Some(direction) = direction {
                    kernel.prepare_for(direction);
                }
                Ok(ReadySide { view: &side.view, kernel, path: cx.path().to_owned() })
            })
            .collect()
    }

    /// Sides run as fused host kernels: by the context's choice, because one has no other form, or because dfdx has no operations on nothing.
    fn fused(&self, batch: usize, cx: &Context<E, D>) -> bool {
        batch == 0 || cx.fused() || self.layers.iter().flatten().any(|(_, side)| side.0.flow.plain().is_none())
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

    /// The fused path, in place on the host, on all threads: `each` takes a group of samples through a layer, and what it gives is returned by group, then in the order of the way.
    fn fused_map<R: Threaded>(
        &self,
        values: &mut [E],
        batch: usize,
        direction: Direction,
        cx: &Context<E, D>,
        each: impl Fn(&mut Samples<'_, E>, usize, &[RowPass<'_, E>]) -> Result<R> + Threaded,
    ) -> Result<(Totals<E>, Vec<Vec<R>>)> {
        let condition = self.condition(cx, batch)?;
        let samples = self.group_samples(batch);
        let count = batch.div_ceil(samples);
        let mut totals =
            Totals { log_det: vec![E::zero(); batch], variance: vec![E::zero(); batch], estimated: false, report: SolveReport::default() };
        let values = values.chunks_mut((samples * self.event).max(1));
        let sums = totals.log_det.chunks_mut(samples).zip(totals.variance.chunks_mut(samples));
        let groups = values.zip(sums).enumerate().map(|(group, (values, (log_det, variance)))| {
            let samples = Samples { values, first: group * samples, log_det, variance, estimated: false, report: SolveReport::default() };
            // No thread waits for one of these locks: a group is in one layer at a time.
            Mutex::new((samples, Vec::with_capacity(self.layers.len())))
        });
        let groups: Vec<_> = groups.collect();
        let layer = |step| match direction {
            Direction::Forward => step,
            Direction::Inverse => self.layers.len() - 1 - step,
        };
        schedule(
            self.layers.len(),
            count,
            |step| self.prepare(layer(step), batch, Some(direction), cx),
            |step, group, sides| {
                let passes: Vec<_> = sides.iter().map(|side| side.pass(condition.as_ref(), count)).collect();
                let (samples, results) = &mut *groups[group].lock().unwrap_or_else(PoisonError::into_inner);
                results.push(each(samples, layer(step), &passes)?);
                Ok(())
            },
            |_, _| Ok(()),
        )?;
        let groups = groups.into_iter().map(|group| group.into_inner().unwrap_or_else(PoisonError::into_inner));
        let (ends, results): (Vec<_>, _) = groups.map(|(samples, results)| ((samples.estimated, samples.report), results)).unzip();
        for (estimated, report) in ends {
            totals.estimated |= estimated;
            totals.report = totals.report.beside(report);
        }
        Ok((totals, results))
    }

    /// Samples in a group: enough for blocks of every side, and twice as many where that leaves groups for several threads, since every group has its own sums.
    fn group_samples(&self, batch: usize) -> usize {
        const GROUPS: usize = 8;
        let samples = self.layers.iter().flatten().map(|(_, side)| side.0.view.group_samples(batch)).max().unwrap_or(1);
        if batch >= 2 * samples * GROUPS { 2 * samples } else { samples }
    }

    fn mapped<X: Shape>(&self, device: &D, values: Vec<E>, shape: X, totals: Totals<E>) -> Mapped<X, E, D> {
        let batch = totals.log_det.len();
        let estimate = totals.estimated
            || Bijector::<(usize, usize), E, D>::log_det_kind(self) == LogDetKind::Estimate
            || totals.variance.iter().any(|v| *v > E::zero());
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

/// What a forward pass keeps.
enum Trace<E: Scalar, D: FlowDevice<E>> {
    /// A batch, by group of samples.
    Fused(usize, Vec<GroupTrace<E>>),
    /// Plain kernels: the input of every side.
    Plain(Vec<Tensor<(usize, usize), E, D>>),
}

impl<E: Scalar, D: FlowDevice<E>> Module<E> for Skeleton<E, D> {
    fn visit<'m>(&'m self, visitor: &mut Visitor<'_, 'm, E>) {
        for (path, side) in self.layers.iter().flatten() {
            visitor.child(path, side);
        }
    }
    fn visit_mut<'m>(&'m mut self, visitor: &mut VisitorMut<'_, 'm, E>) {
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
        if !self.fused(flat.0, cx) {
            let mapped = self.plain_map(x.reshape_like(&flat), cx, false, |_| ())?;
            return Ok(Mapped { value: mapped.value.reshape_like(&shape), log_det: mapped.log_det, report: mapped.report });
        }
        let mut values = to_host(&x);
        let (totals, _) = self.fused_map(&mut values, flat.0, Direction::Forward, cx, |samples, _, sides| {
            sides.iter().try_for_each(|side| samples.forward(side, false).map(drop))
        })?;
        Ok(self.mapped(x.device(), values, shape, totals))
    }

    /// On the host, whatever the context's kernels.
    fn forward_until(&self, x: Tensor<X, E, D>, layer: &str, cx: &Context<E, D>) -> Result<Option<Vec<E>>> {
        let (batch, _) = self.check(x.shape(), "forward", cx)?;
        let condition = self.condition(cx, batch)?;
        let mut values = to_host(&x);
        for (Recorded(side), cx) in self.sides(cx) {
            if leads_to(cx.path(), layer) {
                let Some(kernel) = side.flow.prepare_until(layer, batch * side.view.rows(), &cx)? else { return Ok(None) };
                let pass =
                    RowPass { view: &side.view, kernel: kernel.as_ref(), path: cx.path(), condition: condition.as_ref(), spread: false };
                pass.forward(&mut values, false)?;
                return Ok(Some(values));
            }
            side.run(batch, condition.as_ref(), &cx, |pass| pass.forward(&mut values, false))?;
        }
        Ok((cx.path() == layer).then_some(values))
    }

    fn inverse(&self, y: Tensor<X, E, D>, cx: &Context<E, D>) -> Result<Mapped<X, E, D>> {
        let (shape, flat) = (*y.shape(), self.check(y.shape(), "inverse", cx)?);
        if !self.fused(flat.0, cx) {
            let mapped = self.plain_map(y.reshape_like(&flat), cx, true, |_| ())?;
            return Ok(Mapped { value: mapped.value.reshape_like(&shape), log_det: mapped.log_det, report: mapped.report });
        }
        let mut values = to_host(&y);
        let (totals, _) = self.fused_map(&mut values, flat.0, Direction::Inverse, cx, |samples, _, sides| {
            sides.iter().rev().try_for_each(|side| samples.inverse(side))
        })?;
        Ok(self.mapped(y.device(), values, shape, totals))
    }

    fn forward_keeping(&self, x: Tensor<X, E, D>, cx: &Context<E, D>) -> Result<(Mapped<X, E, D>, Kept)> {
        let (shape, flat) = (*x.shape(), self.check(x.shape(), "forward", cx)?);
        if !self.fused(flat.0, cx) {
            let mut inputs = Vec::new();
            let mapped = self.plain_map(x.reshape_like(&flat), cx, false, |input| inputs.push(input.clone()))?;
            let mapped = Mapped { value: mapped.value.reshape_like(&shape), log_det: mapped.log_det, report: mapped.report };
            return Ok((mapped, Box::new(Trace::Plain(inputs))));
        }
        let device = x.device().clone();
        let mut values = to_host(&x);
        drop(x);
        let store = cx.memory() == Memory::Store;
        let keep_inputs =
            (0..self.layers.len()).map(|layer| cx.memory() == Memory::Recompute || self.layer_inverse(layer) == InverseKind::Iterative);
        let keep_inputs: Vec<bool> = keep_inputs.collect();
        let (totals, points) = self.fused_map(&mut values, flat.0, Direction::Forward, cx, |samples, layer, sides| {
            if store {
                return Ok(LayerPoint::Tapes(sides.iter().map(|side| samples.forward(side, true)).collect::<Result<_>>()?));
            }
            let point = if keep_inputs[layer] { LayerPoint::Input(samples.values.to_vec()) } else { LayerPoint::Output };
            sides.iter().try_for_each(|side| samples.forward(side, false).map(drop))?;
            Ok(point)
        })?;
        let outputs = values.chunks((self.group_samples(flat.0) * self.event).max(1));
        let traces = points.into_iter().zip(outputs).map(|(points, output)| {
            let values = if store { Vec::new() } else { output.to_vec() };
            GroupTrace { points, values }
        });
        let traces = traces.collect();
        Ok((self.mapped(&device, values, shape, totals), Box::new(Trace::<E, D>::Fused(flat.0, traces))))
    }

    fn pullback(
        &self,
        at: Point<X, X, E, D>,
        cotangent: Cotangent<X, E, D>,
        gradients: &mut Gradients<E>,
        cx: &Context<E, D>,
    ) -> Result<Pulled<X, E, D>> {
        let (shape, flat) = (*cotangent.value.shape(), self.check(cotangent.value.shape(), "pullback", cx)?);
        let given = match &at {
            Point::Kept(_) => flat,
            Point::Input(point) | Point::Output(point) => self.check(point.shape(), "pullback", cx)?,
        };
        if (given, cotangent.log_det.shape().0) != (flat, flat.0) {
            let layer = if cx.path().is_empty() { self.kind } else { cx.path() };
            return Err(shape_error(layer, "pullback", (flat, flat.0), (given, cotangent.log_det.shape().0)));
        }
        gradients.check(cx.path(), self)?;
        let device = cotangent.value.device().clone();
        let at_input = match &at {
            Point::Input(x) => Some(x.clone()),
            _ => None,
        };
        let trace = match at {
            Point::Kept(kept) => *kept.downcast::<Trace<E, D>>().map_err(|_| foreign_point(cx.path()))?,
            Point::Input(x) => *self.forward_keeping(x, cx)?.1.downcast().map_err(|_| foreign_point(cx.path()))?,
            Point::Output(y) if self.fused(flat.0, cx) => {
                let points = || self.layers.iter().map(|_| LayerPoint::Output).collect();
                let groups = to_host(&y);
                let groups = groups.chunks((self.group_samples(flat.0) * self.event).max(1));
                Trace::Fused(flat.0, groups.map(|values| GroupTrace { points: points(), values: values.to_vec() }).collect())
            }
            Point::Output(y) => {
                let x = self.inverse(y, cx)?.value;
                *self.forward_keeping(x, cx)?.1.downcast().map_err(|_| foreign_point(cx.path()))?
            }
        };
        let groups = match trace {
            Trace::Fused(batch, groups) if batch == flat.0 => groups,
            Trace::Plain(inputs) if inputs.first().is_none_or(|input| *input.shape() == flat) => {
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
            _ => return Err(foreign_point(cx.path())),
        };
        let (mut pulled, log_det) = (to_host(&cotangent.value), to_host(&cotangent.log_det));
        drop(cotangent);
        let input = self.pull_fused(groups, &mut pulled, &log_det, gradients, cx)?;
        let input = at_input.or_else(|| (!input.is_empty()).then(|| device.tensor_from_vec(input, shape)));
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
            side.flow.initialise(&matrix, rows, &cx).map_err(|e| e.by_sample(side.view.rows()))?;
            side.run(batch, condition.as_ref(), &cx, |pass| pass.forward(&mut values, false))?;
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

    /// Pulls a cotangent back through all sides in place; the recovered input, empty if tapes were kept.
    fn pull_fused(
        &self,
        groups: Vec<GroupTrace<E>>,
        pulled: &mut [E],
        log_det: &[E],
        gradients: &mut Gradients<E>,
        cx: &Context<E, D>,
    ) -> Result<Vec<E>> {
        let batch = log_det.len();
        let (samples, condition) = (self.group_samples(batch), self.condition(cx, batch)?);
        if pulled.len() != batch * self.event || groups.len() != batch.div_ceil(samples) {
            return Err(foreign_point(cx.path()));
        }
        let direction = |point: &LayerPoint<E>| match point {
            LayerPoint::Tapes(_) => None,
            LayerPoint::Input(_) => Some(Direction::Forward),
            LayerPoint::Output => Some(Direction::Inverse),
        };
        let directions: Vec<_> = groups.first().map_or(Vec::new(), |group| group.points.iter().map(direction).collect());
        let (layers, count) = (self.layers.len(), groups.len());
        let log_dets: Vec<&[E]> = log_det.chunks(samples).collect();
        // No thread waits for one of these locks: a group is in one layer at a time.
        let groups: Vec<_> = groups.into_iter().zip(pulled.chunks_mut((samples * self.event).max(1))).map(Mutex::new).collect();
        let gradients = Mutex::new(gradients);
        // From the last layer to the first.
        schedule(
            layers,
            count,
            |step| {
                let layer = layers - 1 - step;
                self.prepare(layer, batch, directions.get(layer).copied().flatten(), cx)
            },
            |_, group, sides| {
                let passes: Vec<_> = sides.iter().map(|side| side.pass(condition.as_ref(), count)).collect();
                let (trace, pulled) = &mut *groups[group].lock().unwrap_or_else(PoisonError::into_inner);
                trace.pull(&passes, pulled, log_dets[group], group * samples)
            },
            |sides, sums: Vec<Vec<Buffer<E>>>| {
                let mut sums: Vec<_> = sums.into_iter().map(Vec::into_iter).collect();
                let mut gradients = gradients.lock().unwrap_or_else(PoisonError::into_inner);
                sides.iter().rev().try_for_each(|side| {
                    let sums = sums.iter_mut().filter_map(Iterator::next);
                    side.pass(None, count).finish(sums, log_det, gradients.slice_mut(&side.path))
                })
            },
        )?;
        let traces = groups.into_iter().map(|group| group.into_inner().unwrap_or_else(PoisonError::into_inner).0);
        Ok(traces.flat_map(|trace| trace.values).collect())
    }
}

impl<E: Scalar, D: FlowDevice<E>> std::fmt::Debug for Skeleton<E, D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct(self.kind).field("event", &self.event).field("layers", &self.layers.len()).finish()
    }
}
