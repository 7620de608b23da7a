//! Row flows as bijectors of tensors of shape (batch, d).

use super::kernel::{PlainRows, RowFlow, RowKernel};
use super::run::{HostCondition, PassResult, RowPass, RowPoint, RowTapes};
use super::view::RowView;
use crate::bijector::{foreign_point, shape_error};
use crate::{
    Bijector, Context, Cotangent, FlowDevice, FlowError, Gradients, InverseKind, Kept, LayerInfo, LogDet, LogDetKind, Mapped, Memory,
    Module, Point, Pulled, Result, Scalar, Visitor, VisitorMut, recorded,
};
use dfdx::prelude::{Dim, HasShape, ReshapeTo, Shape, Tensor, Trace};

/// A tensor's values in host memory, row-major.
pub fn to_host<S: Shape, E: Scalar, D: FlowDevice<E>>(x: &Tensor<S, E, D>) -> Vec<E> {
    let mut values = vec![E::zero(); x.shape().num_elements()];
    x.clone().contiguous().copy_into(&mut values);
    values
}

impl<E: Scalar> HostCondition<E> {
    /// The context's condition for a layer that takes one of width `width`, checked against the batch.
    ///
    /// # Errors
    /// [`FlowError::Condition`] for a condition that is missing or has another shape. A layer that takes none ignores it.
    pub fn of<D: FlowDevice<E>>(cx: &Context<E, D>, width: Option<usize>, batch: usize) -> Result<Option<Self>> {
        let Some(width) = width else { return Ok(None) };
        let wrong = |got: String| FlowError::Condition { layer: cx.path().to_owned(), expected: format!("({batch}, {width})"), got };
        let condition = cx.condition().ok_or_else(|| wrong("none".to_owned()))?;
        if *condition.shape() != (batch, width) {
            return Err(wrong(format!("{:?}", condition.shape())));
        }
        Ok(Some(Self { width, values: to_host(condition) }))
    }
}

impl<E: Scalar> HostCondition<E> {
    /// The condition of each of `rows` rows, which come sample by sample, as many of each sample.
    ///
    /// # Errors
    /// As [`HostCondition::of`].
    pub(super) fn of_rows<D: FlowDevice<E>>(cx: &Context<E, D>, width: Option<usize>, rows: usize) -> Result<Option<Self>> {
        let samples = cx.condition().map_or(rows, |condition| condition.shape().0).max(1);
        let each = rows / samples;
        let samples = if each * samples == rows { samples } else { rows };
        Ok(Self::of(cx, width, samples)?.map(|Self { width, values }| {
            let repeated = values.chunks_exact(width.max(1)).flat_map(|vector| vector.repeat(each));
            Self { width, values: repeated.collect() }
        }))
    }
}

impl<E: Scalar> PassResult<E> {
    /// The log-det as tensors: an estimate where the flow's kind is, or the kernel's in this call, or where it reported a variance; else exact.
    pub fn log_det<D: FlowDevice<E>>(&self, device: &D, kind: LogDetKind) -> LogDet<E, D> {
        let batch = self.log_det.len();
        let estimated = self.estimated || kind == LogDetKind::Estimate || self.variance.iter().any(|v| *v > E::zero());
        let standard_error =
            estimated.then(|| device.tensor_from_vec(self.variance.iter().map(|v| num_traits::Float::sqrt(*v)).collect(), (batch,)));
        LogDet { value: device.tensor_from_vec(self.log_det.clone(), (batch,)), standard_error }
    }
}

/// Runs `f` with the flow's kernel over the rows of a batch.
fn with_pass<E: Scalar, D: FlowDevice<E>, F: RowFlow<E, D> + ?Sized, R>(
    flow: &F,
    batch: usize,
    cx: &Context<E, D>,
    f: impl FnOnce(&RowPass<'_, E>) -> Result<R>,
) -> Result<R> {
    let view = RowView::single(flow.dim());
    let condition = HostCondition::of(cx, flow.condition_width(), batch)?;
    let path = cx.layer(flow.kind());
    let kernel: Box<dyn RowKernel<E> + '_> = flow.prepare(batch, cx).map_err(|e| e.in_layer(path))?;
    f(&RowPass { view: &view, kernel: kernel.as_ref(), path, condition: condition.as_ref(), spread: false })
}

/// A row flow as a [`Bijector`] of tensors of shape (batch, d), for any dimension type.
///
/// Parameter paths are those of the flow itself.
#[derive(Debug, Clone)]
pub struct Rows<F>(pub F);

impl<E: Scalar, F: Module<E>> Module<E> for Rows<F> {
    fn visit<'m>(&'m self, visitor: &mut Visitor<'_, 'm, E>) {
        self.0.visit(visitor);
    }
    fn visit_mut<'m>(&'m mut self, visitor: &mut VisitorMut<'_, 'm, E>) {
        self.0.visit_mut(visitor);
    }
    fn refresh(&mut self) -> Result<()> {
        self.0.refresh()
    }
}

impl<N: Dim, E: Scalar, D: FlowDevice<E>, F: RowFlow<E, D>> Bijector<(usize, N), E, D> for Rows<F> {
    type Out = (usize, N);

    fn kind(&self) -> &'static str {
        self.0.kind()
    }

    fn output_shape(&self, input: &(usize, N)) -> Result<(usize, N)> {
        if input.1.size() == self.0.dim() {
            Ok(*input)
        } else {
            Err(shape_error(self.0.kind(), "build", ("batch", self.0.dim()), ("batch", input.1.size())))
        }
    }

    fn forward(&self, x: Tensor<(usize, N), E, D>, cx: &Context<E, D>) -> Result<Mapped<(usize, N), E, D>> {
        let shape = check(&self.0, x.shape(), "forward", cx)?;
        let device = x.device().clone();
        if let Some(plain) = plain(&self.0, shape.0, cx) {
            let (y, log_det) = recorded::detach(plain.forward_taped(x.reshape_like(&(shape.0, self.0.dim())).leaky_traced(), cx)?);
            recorded::check_log_det(&log_det).map_err(|e| e.in_layer(cx.layer(self.0.kind())))?;
            return Ok(Mapped::exact(y.reshape_like(&shape), log_det));
        }
        with_pass(&self.0, shape.0, cx, |pass| {
            let mut values = to_host(&x);
            let result = pass.forward(&mut values, false)?;
            Ok(mapped(&device, values, shape, &result, self.0.log_det_kind()))
        })
    }

    fn inverse(&self, y: Tensor<(usize, N), E, D>, cx: &Context<E, D>) -> Result<Mapped<(usize, N), E, D>> {
        let shape = check(&self.0, y.shape(), "inverse", cx)?;
        let device = y.device().clone();
        if let Some(plain) = plain(&self.0, shape.0, cx) {
            let (x, log_det) = plain.inverse(y.reshape_like(&(shape.0, self.0.dim())), cx)?;
            recorded::check_log_det(&log_det).map_err(|e| e.in_layer(cx.layer(self.0.kind())))?;
            return Ok(Mapped::exact(x.reshape_like(&shape), log_det));
        }
        with_pass(&self.0, shape.0, cx, |pass| {
            let mut values = to_host(&y);
            let result = pass.inverse(&mut values)?;
            Ok(mapped(&device, values, shape, &result, self.0.log_det_kind()))
        })
    }

    fn forward_until(&self, x: Tensor<(usize, N), E, D>, layer: &str, cx: &Context<E, D>) -> Result<Option<Vec<E>>> {
        let (batch, _) = check(&self.0, x.shape(), "forward", cx)?;
        let condition = HostCondition::of(cx, self.0.condition_width(), batch)?;
        let path = cx.layer(self.0.kind());
        let Some(kernel) = self.0.prepare_until(layer, batch, cx).map_err(|e| e.in_layer(path))? else { return Ok(None) };
        let view = RowView::single(self.0.dim());
        let mut values = to_host(&x);
        RowPass { view: &view, kernel: kernel.as_ref(), path, condition: condition.as_ref(), spread: false }.forward(&mut values, false)?;
        Ok(Some(values))
    }

    fn forward_keeping(&self, x: Tensor<(usize, N), E, D>, cx: &Context<E, D>) -> Result<(Mapped<(usize, N), E, D>, Kept)> {
        let shape = check(&self.0, x.shape(), "forward", cx)?;
        if cx.memory() != Memory::Store || plain(&self.0, shape.0, cx).is_some() {
            return Ok((self.forward(x.clone(), cx)?, Box::new(x)));
        }
        let device = x.device().clone();
        with_pass(&self.0, shape.0, cx, |pass| {
            let mut values = to_host(&x);
            let mut result = pass.forward(&mut values, true)?;
            let tapes = std::mem::take(&mut result.tapes);
            Ok((mapped(&device, values, shape, &result, self.0.log_det_kind()), Box::new(tapes) as Kept))
        })
    }

    fn pullback(
        &self,
        at: Point<(usize, N), (usize, N), E, D>,
        cotangent: Cotangent<(usize, N), E, D>,
        gradients: &mut Gradients<E>,
        cx: &Context<E, D>,
    ) -> Result<Pulled<(usize, N), E, D>> {
        let shape = check(&self.0, cotangent.value.shape(), "pullback", cx)?;
        // Where no tapes were kept, the input was.
        let at = match at {
            Point::Kept(kept) => kept.downcast::<Tensor<(usize, N), E, D>>().map_or_else(Point::Kept, |x| Point::Input(*x)),
            given => given,
        };
        let given = match &at {
            Point::Kept(_) => shape,
            Point::Input(x) => *x.shape(),
            Point::Output(y) => *y.shape(),
        };
        if given != shape || cotangent.log_det.shape().0 != shape.0 {
            return Err(shape_error(cx.layer(self.0.kind()), "pullback", shape, (given, cotangent.log_det.shape())));
        }
        gradients.check(cx.path(), self)?;
        if let Some(plain) = plain(&self.0, shape.0, cx) {
            let x = at.input(self, cx)?;
            let flat = (shape.0, self.0.dim());
            let cotangent = Cotangent { value: cotangent.value.reshape_like(&flat), log_det: cotangent.log_det };
            let pulled = recorded::pull_through_tape(&self.0, &x.clone().reshape_like(&flat), cotangent, gradients, cx, |x| {
                plain.forward_taped(x, cx)
            })?;
            return Ok(Pulled { input: Some(x), cotangent: pulled.reshape_like(&shape) });
        }
        let device = cotangent.value.device().clone();
        let (mut pulled, log_det) = (to_host(&cotangent.value), to_host(&cotangent.log_det));
        with_pass(&self.0, shape.0, cx, |pass| {
            let own = gradients.slice_mut(cx.path());
            let input = match at {
                Point::Kept(kept) => {
                    let tapes = kept.downcast::<RowTapes<E>>().map_err(|_| foreign_point(cx.path()))?;
                    pass.pullback(RowPoint::Tapes(*tapes), &mut pulled, &log_det, own)?;
                    None
                }
                Point::Input(x) => {
                    pass.pullback(RowPoint::Inputs(&to_host(&x)), &mut pulled, &log_det, own)?;
                    Some(x)
                }
                Point::Output(y) => {
                    let mut values = to_host(&y);
                    pass.pullback(RowPoint::Outputs(&mut values), &mut pulled, &log_det, own)?;
                    Some(device.tensor_from_vec(values, shape))
                }
            };
            Ok(Pulled { input, cotangent: device.tensor_from_vec(pulled, shape) })
        })
    }

    fn initialise(&mut self, x: Tensor<(usize, N), E, D>, cx: &Context<E, D>) -> Result<Tensor<(usize, N), E, D>> {
        let shape = check(&self.0, x.shape(), "initialise", cx)?;
        let view = RowView::single(self.0.dim());
        let mut values = vec![E::zero(); shape.num_elements()];
        view.gather(&to_host(&x), 0, shape.0, &mut values);
        self.0.initialise(&values, shape.0, cx).map_err(|e| e.in_layer(cx.layer(self.0.kind())))?;
        Ok(self.forward(x, cx)?.value)
    }

    fn log_det_kind(&self) -> LogDetKind {
        self.0.log_det_kind()
    }

    fn inverse_kind(&self) -> InverseKind {
        self.0.inverse_kind()
    }

    fn condition_width(&self) -> Option<usize> {
        self.0.condition_width()
    }

    fn multiply_adds(&self, _: &(usize, N)) -> u64 {
        self.0.multiply_adds()
    }

    fn describe(&self, path: &str, input: &(usize, N), table: &mut Vec<LayerInfo>) -> Result<()> {
        self.output_shape(input)?;
        self.0.describe(path, 1, table);
        Ok(())
    }
}

fn mapped<S: Shape, E: Scalar, D: FlowDevice<E>>(
    device: &D,
    values: Vec<E>,
    shape: S,
    result: &PassResult<E>,
    kind: LogDetKind,
) -> Mapped<S, E, D> {
    Mapped { value: device.tensor_from_vec(values, shape), log_det: result.log_det(device, kind), report: result.report }
}

/// The plain form, where the context asks for it; dfdx has no operations on nothing.
fn plain<'a, E: Scalar, D: FlowDevice<E>>(
    flow: &'a dyn RowFlow<E, D>,
    batch: usize,
    cx: &Context<E, D>,
) -> Option<&'a dyn PlainRows<E, D>> {
    flow.plain().filter(|_| batch > 0 && !cx.fused())
}

fn check<N: Dim, E: Scalar, D: FlowDevice<E>, F: RowFlow<E, D> + ?Sized>(
    flow: &F,
    shape: &(usize, N),
    operation: &'static str,
    cx: &Context<E, D>,
) -> Result<(usize, N)> {
    let layer = cx.layer(flow.kind());
    if shape.1.size() != flow.dim() || flow.dim() == 0 {
        return Err(shape_error(layer, operation, ("batch", flow.dim().max(1)), shape.concrete()));
    }
    recorded::check_condition(flow.condition_width(), shape.0, cx).map_err(|e| e.in_layer(layer))?;
    Ok(*shape)
}
