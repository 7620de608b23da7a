//! The one driver of kernels: a batch goes through layers of sample flows, forward, back, and back again with
//! cotangents.

use super::groups::{Batch, Group, GroupPull, GroupTrace, LayerPoint, Ready};
use super::schedule::schedule;
use crate::bijector::{Cotangent, Kept, Mapped, Point, Pulled};
use crate::error::foreign_point;
use crate::log_det::{LogDet, LogDetKind, SolveReport};
use crate::rows::{Direction, HostCondition};
use crate::{Context, Facts, Gradients, InverseKind, Module, Result, Scalar, Tensor, shape_error, to_host};
use dfdx::prelude::{HasShape, Shape};
use flow_kernels::simd::add;
use flow_kernels::workspace::Buffer;
use std::sync::{Mutex, PoisonError};

/// Fewer groups of samples than this have their kernels spread their work too. It depends on the batch alone, so that
/// sums are added up in one order on any number of threads.
const FEW_GROUPS: usize = 4;

/// Sums of groups that are added up at a time.
const SUMS_AT_ONCE: usize = 1 << 11;

/// Layers of sample flows: what the driver runs.
pub(crate) trait Layers<E: Scalar>: Module<E> {
    /// What they say of themselves together.
    fn facts(&self) -> Facts;

    /// Values in a sample.
    fn event(&self) -> usize;

    /// How many layers there are.
    fn count(&self) -> usize;

    /// How a layer is inverted.
    fn inverse(&self, layer: usize) -> InverseKind;

    /// The kernels of a layer for a batch.
    fn prepare<'a>(&'a self, layer: usize, batch: usize, cx: &Context<E>) -> Result<Vec<Ready<'a, E>>>;

    /// Whether the part with this path is in a layer, or the layer in the part.
    fn holds(&self, layer: usize, part: &str, cx: &Context<E>) -> bool;

    /// As [`Layers::prepare`], up to and with the part of the layer with this path; none if there is no such part in
    /// it.
    fn prepare_until<'a>(&'a self, layer: usize, part: &str, batch: usize, cx: &Context<E>) -> Result<Option<Vec<Ready<'a, E>>>>;

    /// Samples in a group.
    fn group_samples(&self, batch: usize) -> usize;
}

/// What a pass gives besides the values, which it writes in place.
struct Pass<E> {
    log_det: Vec<E>,
    variance: Vec<E>,
    /// Some kernel said that its log-dets are estimates.
    estimated: bool,
    report: SolveReport,
}

/// What a training pass keeps of a batch: by group of samples.
struct Trace<E: Scalar>(usize, Vec<GroupTrace<E>>);

/// A call: layers, and what all of its groups share.
pub(crate) struct Driver<'a, L: ?Sized, E: Scalar> {
    layers: &'a L,
    cx: &'a Context<E>,
    /// The layers that are run: all, or those up to a part with this path.
    count: usize,
    until: Option<&'a str>,
}

impl<'a, E: Scalar, L: Layers<E> + ?Sized> Driver<'a, L, E> {
    /// A call of these layers.
    pub(crate) fn new(layers: &'a L, cx: &'a Context<E>) -> Self {
        Self { layers, cx, count: layers.count(), until: None }
    }

    /// The same up to and with the part with this path; none if there is no such part.
    fn until(self, part: &'a str, batch: usize) -> Result<Option<Self>> {
        if part == self.cx.path() {
            return Ok(Some(self));
        }
        // What spans several layers, such as `layers`, is the beginning of their paths and no part.
        let mut holding = (0..self.count).filter(|&layer| self.layers.holds(layer, part, self.cx));
        let (Some(last), None) = (holding.next(), holding.next()) else { return Ok(None) };
        let is_there = self.layers.prepare_until(last, part, batch, self.cx).map_err(|e| e.in_layer(self.name()))?.is_some();
        Ok(is_there.then_some(Self { count: last + 1, until: Some(part), ..self }))
    }

    fn name(&self) -> &str {
        self.cx.layer(self.layers.facts().kind)
    }

    /// Samples in a batch of this shape, which has to have as many values a sample as the layers take.
    pub(crate) fn batch<X: Shape>(&self, shape: &X, operation: &'static str) -> Result<usize> {
        let batch = shape.concrete().into_iter().next().unwrap_or(0);
        let event = self.layers.event();
        if event > 0 && shape.num_elements() == batch * event {
            return Ok(batch);
        }
        Err(shape_error(self.name(), operation, format!("a batch of samples of {} values", event.max(1)), shape.concrete()))
    }

    fn condition(&self, batch: usize) -> Result<Option<HostCondition<E>>> {
        HostCondition::of(self.cx, self.layers.facts().condition, batch).map_err(|e| e.in_layer(self.name()))
    }

    /// The kernels of a layer, with what passes in a direction need.
    fn prepare(&self, layer: usize, batch: usize, direction: Option<Direction>) -> Result<Vec<Ready<'a, E>>> {
        let flows = match self.until.filter(|_| layer + 1 == self.count) {
            None => self.layers.prepare(layer, batch, self.cx),
            // It was found there when the call began.
            Some(part) => self.layers.prepare_until(layer, part, batch, self.cx).map(Option::unwrap_or_default),
        };
        let flows = flows.map_err(|e| e.in_layer(self.name()))?;
        if let Some(direction) = direction {
            flows.iter().for_each(|flow| flow.kernel.prepare_for(direction));
        }
        Ok(flows)
    }

    fn group_samples(&self, batch: usize) -> usize {
        self.layers.group_samples(batch).max(1)
    }

    /// Takes a batch through all layers in place, on all threads; keeps what the memory setting says if a pullback
    /// follows.
    fn pass(&self, values: &mut [E], batch: usize, direction: Direction, keeping: bool) -> Result<(Pass<E>, Vec<Vec<LayerPoint<E>>>)> {
        let condition = self.condition(batch)?;
        let (count, event) = (self.count, self.layers.event());
        let samples = self.group_samples(batch);
        let groups = batch.div_ceil(samples);
        let shared = Batch { condition: condition.as_ref(), spread: groups < FEW_GROUPS };
        let (mut log_det, mut variance) = (vec![E::zero(); batch], vec![E::zero(); batch]);
        let parts = values.chunks_mut((samples * event).max(1)).zip(log_det.chunks_mut(samples).zip(variance.chunks_mut(samples)));
        let parts = parts.enumerate().map(|(group, (values, (log_det, variance)))| {
            let (first, report, points) = (group * samples, SolveReport::default(), Vec::with_capacity(count));
            // No thread waits for one of these locks: a group is in one layer at a time.
            Mutex::new(Group { first, values, log_det, variance, estimated: false, report, points })
        });
        let parts: Vec<_> = parts.collect();
        let layer = |step| match direction {
            Direction::Forward => step,
            Direction::Inverse => count - 1 - step,
        };
        schedule(
            count,
            groups,
            |step| self.prepare(layer(step), batch, Some(direction)),
            |step, group, flows: &Vec<Ready<'_, E>>| {
                let mut group = parts[group].lock().unwrap_or_else(PoisonError::into_inner);
                match direction {
                    Direction::Forward => {
                        let keep = keeping.then(|| self.cx.memory().keep(self.layers.inverse(step)));
                        group.forward(flows, keep, shared)
                    }
                    Direction::Inverse => group.inverse(flows, shared),
                }
            },
            |_, _| Ok(()),
        )?;
        let (mut estimated, mut report, mut points) = (false, SolveReport::default(), Vec::with_capacity(groups));
        for group in parts {
            let group = group.into_inner().unwrap_or_else(PoisonError::into_inner);
            estimated |= group.estimated;
            report = report.beside(group.report);
            points.push(group.points);
        }
        Ok((Pass { log_det, variance, estimated, report }, points))
    }

    fn mapped<X: Shape>(&self, values: Vec<E>, shape: X, pass: Pass<E>) -> Mapped<X, E> {
        let batch = pass.log_det.len();
        let estimate =
            pass.estimated || self.layers.facts().log_det == LogDetKind::Estimate || pass.variance.iter().any(|v| *v > E::zero());
        let standard_error = estimate.then(|| E::tensor(pass.variance.iter().map(|v| num_traits::Float::sqrt(*v)).collect(), (batch,)));
        let log_det = LogDet { value: E::tensor(pass.log_det, (batch,)), standard_error };
        Mapped { value: E::tensor(values, shape), log_det, report: pass.report }
    }

    /// A batch through all layers in this direction.
    pub(crate) fn map<X: Shape>(&self, x: &Tensor<X, E>, direction: Direction) -> Result<Mapped<X, E>> {
        let operation = if direction == Direction::Forward { "forward" } else { "inverse" };
        let batch = self.batch(x.shape(), operation)?;
        let mut values = to_host(x);
        let (pass, _) = self.pass(&mut values, batch, direction, false)?;
        Ok(self.mapped(values, *x.shape(), pass))
    }

    /// A batch through all layers, with what the memory setting keeps.
    pub(crate) fn forward_keeping<X: Shape>(&self, x: Tensor<X, E>) -> Result<(Mapped<X, E>, Kept)> {
        let (mapped, trace) = self.trace(x)?;
        Ok((mapped, Box::new(trace)))
    }

    fn trace<X: Shape>(&self, x: Tensor<X, E>) -> Result<(Mapped<X, E>, Trace<E>)> {
        let (shape, batch) = (*x.shape(), self.batch(x.shape(), "forward")?);
        let mut values = to_host(&x);
        drop(x);
        let (pass, points) = self.pass(&mut values, batch, Direction::Forward, true)?;
        let outputs = values.chunks((self.group_samples(batch) * self.layers.event()).max(1));
        let traces = points.into_iter().zip(outputs).map(|(points, output)| {
            let all_tapes = points.iter().all(|point| matches!(point, LayerPoint::Tapes(_)));
            GroupTrace { points, values: if all_tapes { Vec::new() } else { output.to_vec() } }
        });
        let trace = Trace(batch, traces.collect());
        Ok((self.mapped(values, shape, pass), trace))
    }

    /// The activations behind the part with this path.
    pub(crate) fn forward_until<X: Shape>(self, x: &Tensor<X, E>, part: &'a str) -> Result<Option<Vec<E>>> {
        let batch = self.batch(x.shape(), "forward")?;
        let Some(until) = self.until(part, batch)? else { return Ok(None) };
        let mut values = to_host(x);
        until.pass(&mut values, batch, Direction::Forward, false)?;
        Ok(Some(values))
    }

    /// The pullback of a cotangent of the activations behind the part with this path.
    pub(crate) fn pullback_until<X: Shape>(
        self,
        x: Tensor<X, E>,
        part: &'a str,
        cotangent: Vec<E>,
        gradients: &mut Gradients<E>,
    ) -> Result<Option<Pulled<X, E>>> {
        let (shape, batch) = (*x.shape(), self.batch(x.shape(), "pullback")?);
        if cotangent.len() != shape.num_elements() {
            return Err(shape_error(self.name(), "pullback", shape, cotangent.len()));
        }
        let Some(until) = self.until(part, batch)? else { return Ok(None) };
        let cotangent = Cotangent { value: E::tensor(cotangent, shape), log_det: E::zeros((batch,)) };
        until.pullback(Point::Input(x), cotangent, gradients).map(Some)
    }

    /// The pullback of a batch through all layers.
    pub(crate) fn pullback<X: Shape>(
        &self,
        at: Point<X, X, E>,
        cotangent: Cotangent<X, E>,
        gradients: &mut Gradients<E>,
    ) -> Result<Pulled<X, E>> {
        let (shape, batch) = (*cotangent.value.shape(), self.batch(cotangent.value.shape(), "pullback")?);
        let given = match &at {
            Point::Kept(_) => batch,
            Point::Input(point) | Point::Output(point) => self.batch(point.shape(), "pullback")?,
        };
        let log_dets = cotangent.log_det.shape().0;
        if (given, log_dets) != (batch, batch) {
            let event = self.layers.event();
            return Err(shape_error(self.name(), "pullback", ((batch, event), batch), ((given, event), log_dets)));
        }
        gradients.check(self.cx.path(), self.layers)?;
        let given = match &at {
            Point::Input(x) => Some(x.clone()),
            _ => None,
        };
        let foreign = || foreign_point(self.cx.path());
        let Trace(kept, groups) = match at {
            Point::Kept(kept) => *kept.downcast::<Trace<E>>().map_err(|_| foreign())?,
            Point::Input(x) => self.trace(x)?.1,
            Point::Output(y) => {
                let points = || (0..self.count).map(|_| LayerPoint::Output).collect();
                let values = to_host(&y);
                let groups = values.chunks((self.group_samples(batch) * self.layers.event()).max(1));
                Trace(batch, groups.map(|values| GroupTrace { points: points(), values: values.to_vec() }).collect())
            }
        };
        if kept != batch || groups.len() != batch.div_ceil(self.group_samples(batch)) {
            return Err(foreign());
        }
        let (mut pulled, log_det) = (to_host(&cotangent.value), to_host(&cotangent.log_det));
        drop(cotangent);
        let (input, condition) = self.pull(groups, &mut pulled, &log_det, gradients)?;
        let input = given.or_else(|| (!input.is_empty()).then(|| E::tensor(input, shape)));
        let condition = condition.map(|condition| E::tensor(condition.values, (batch, condition.width)));
        Ok(Pulled { input, cotangent: E::tensor(pulled, shape), condition })
    }

    /// Pulls cotangents back through all layers in place; the recovered input, empty if tapes were kept, and
    /// ∂L/∂condition.
    fn pull(
        &self,
        groups: Vec<GroupTrace<E>>,
        pulled: &mut [E],
        log_det: &[E],
        gradients: &mut Gradients<E>,
    ) -> Result<(Vec<E>, Option<HostCondition<E>>)> {
        let batch = log_det.len();
        let (layers, count, samples) = (self.count, groups.len(), self.group_samples(batch));
        let condition = self.condition(batch)?;
        let mut through = condition
            .as_ref()
            .map(|HostCondition { width, values }| HostCondition { width: *width, values: vec![E::zero(); values.len()] });
        let shared = Batch { condition: condition.as_ref(), spread: count < FEW_GROUPS };
        let direction = |point: &LayerPoint<E>| match point {
            LayerPoint::Tapes(_) => None,
            LayerPoint::Input(_) => Some(Direction::Forward),
            LayerPoint::Output => Some(Direction::Inverse),
        };
        let directions: Vec<_> = groups.first().map_or(Vec::new(), |group| group.points.iter().map(direction).collect());
        let mut conditions: Vec<Option<&mut [E]>> = match &mut through {
            Some(through) => through.values.chunks_mut((samples * through.width).max(1)).map(Some).collect(),
            None => Vec::new(),
        };
        conditions.resize_with(count, || None);
        let parts = groups.into_iter().zip(pulled.chunks_mut((samples * self.layers.event()).max(1)));
        let parts = parts.zip(log_det.chunks(samples).zip(conditions)).enumerate();
        let parts = parts.map(|(group, ((trace, cotangent), (log_det, condition_cotangent)))| {
            // No thread waits for one of these locks: a group is in one layer at a time.
            Mutex::new(GroupPull { first: group * samples, trace, cotangent, condition_cotangent, log_det })
        });
        let parts: Vec<_> = parts.collect();
        let gradients = Mutex::new(gradients);
        let log_det = log_det.iter().copied().sum::<E>();
        // From the last layer to the first.
        schedule(
            layers,
            count,
            |step| {
                let layer = layers - 1 - step;
                self.prepare(layer, batch, directions.get(layer).copied().flatten())
            },
            |_, group, flows: &Vec<Ready<'_, E>>| parts[group].lock().unwrap_or_else(PoisonError::into_inner).pull(flows, shared),
            |flows, sums: Vec<Vec<Buffer<E>>>| {
                let mut sums: Vec<_> = sums.into_iter().map(Vec::into_iter).collect();
                let mut gradients = gradients.lock().unwrap_or_else(PoisonError::into_inner);
                flows.iter().rev().try_for_each(|flow| {
                    let Some(total) = added_up(sums.iter_mut().filter_map(Iterator::next)) else { return Ok(()) };
                    flow.kernel.finish(&total, log_det, gradients.slice_mut(&flow.path)).map_err(|e| e.in_layer(&flow.path))
                })
            },
        )?;
        let traces = parts.into_iter().map(|part| part.into_inner().unwrap_or_else(PoisonError::into_inner).trace);
        let input = traces.flat_map(|trace| trace.values).collect();
        Ok((input, through))
    }
}

/// The sums of all groups, added up in order.
fn added_up<E: Scalar>(mut sums: impl Iterator<Item = Buffer<E>>) -> Option<Buffer<E>> {
    let mut total = sums.next()?;
    let others: Vec<_> = sums.collect();
    // Part by part, so that the total stays in the first-level cache.
    for (at, total) in (0..).step_by(SUMS_AT_ONCE).zip(total.chunks_mut(SUMS_AT_ONCE)) {
        others.iter().for_each(|other| add(total, &other[at..at + total.len()]));
    }
    Some(total)
}

/// Data-dependent initialisation of flows one after the other, each seeing what the ones before it make of the batch.
pub(crate) fn forward_all<E: Scalar>(
    flow: &Ready<'_, E>,
    values: &mut [E],
    batch: usize,
    condition: Option<&HostCondition<E>>,
) -> Result<()> {
    let (mut log_det, mut variance) = (vec![E::zero(); batch], vec![E::zero(); batch]);
    let (report, points) = (SolveReport::default(), Vec::new());
    let mut all = Group { first: 0, values, log_det: &mut log_det, variance: &mut variance, estimated: false, report, points };
    all.forward(std::slice::from_ref(flow), None, Batch { condition, spread: true })
}
