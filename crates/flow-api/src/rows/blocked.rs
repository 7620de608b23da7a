//! Any bijector of (rows, d) tensors as a row flow, block by block.

use super::kernel::{Lanes, Pull, RowFlow, RowKernel, RowTape};
use super::run::HostCondition;
use super::tensor::to_host;
use super::view::RowView;
use crate::{
    Bijector, Context, Cotangent, FlowDevice, FlowError, Gradients, InverseKind, LogDetKind, Mapped, Module, Point, Result, Scalar,
    Threaded, Visitor, VisitorMut,
};
use dfdx::prelude::Tensor;
use flow_kernels::workspace::Buffer;

/// Lets any bijector of shape (rows, d) plug into the mixing skeleton: every block of rows becomes a tensor.
///
/// The bijector must treat rows independently of each other. `BlockedRows::new(Recorded(my_flow), dim, device)` is how a flow
/// written as a [`TapedBijector`](crate::TapedBijector) becomes a [`RowFlow`].
#[derive(Debug, Clone)]
pub struct BlockedRows<B, D> {
    inner: B,
    dim: usize,
    device: D,
}

impl<B, D> BlockedRows<B, D> {
    /// Wraps a bijector on R^dim.
    ///
    /// # Errors
    /// [`FlowError::Shape`](crate::FlowError::Shape) if it does not take rows of this size.
    pub fn new<E: Scalar>(inner: B, dim: usize, device: D) -> Result<Self>
    where
        D: FlowDevice<E>,
        B: Bijector<(usize, usize), E, D, Out = (usize, usize)>,
    {
        inner.output_shape(&(1, dim))?;
        Ok(Self { inner, dim, device })
    }
}

impl<E: Scalar, B: Module<E>, D: Threaded> Module<E> for BlockedRows<B, D> {
    fn visit<'m>(&'m self, visitor: &mut Visitor<'_, 'm, E>) {
        self.inner.visit(visitor);
    }
    fn visit_mut<'m>(&'m mut self, visitor: &mut VisitorMut<'_, 'm, E>) {
        self.inner.visit_mut(visitor);
    }
    fn refresh(&mut self) -> Result<()> {
        self.inner.refresh()
    }
}

struct BlockedKernel<'a, B, E: Scalar, D: FlowDevice<E>> {
    inner: &'a B,
    kind: &'static str,
    device: &'a D,
    view: RowView,
    /// Gradients below the root: the block's own parameters alone.
    gradients: Gradients<E>,
    cx: Context<E, D>,
}

impl<B, E: Scalar, D: FlowDevice<E>> BlockedKernel<'_, B, E, D> {
    fn to_tensor(&self, block: &[E], lanes: usize) -> Tensor<(usize, usize), E, D> {
        let mut rows = vec![E::zero(); block.len()];
        self.view.scatter(block, 0, lanes, &mut rows);
        self.device.tensor_from_vec(rows, (lanes, self.view.dim()))
    }

    fn write_block(&self, tensor: &Tensor<(usize, usize), E, D>, lanes: usize, block: &mut [E]) {
        self.view.gather(&to_host(tensor), 0, lanes, block);
    }

    fn context(&self, condition: Option<&[E]>, first_row: u64, lanes: usize) -> Context<E, D> {
        let cx = self.cx.rooted(first_row);
        match condition {
            None => cx,
            Some(condition) => {
                let width = condition.len() / lanes;
                let rows = (0..lanes * width).map(|k| condition[(k % width) * lanes + k / width]).collect();
                cx.with_condition(self.device.tensor_from_vec(rows, (lanes, width)))
            }
        }
    }

    /// An error of a block as one of the whole call.
    fn located(&self, error: FlowError, first_row: u64) -> FlowError {
        error.of_block(self.cx.path(), self.kind, first_row)
    }

    fn write(&self, mapped: &Mapped<(usize, usize), E, D>, values: &mut [E], lanes: &mut Lanes<'_, E>) {
        self.write_block(&mapped.value, lanes.lanes, values);
        for (sum, l) in lanes.log_det.iter_mut().zip(to_host(&mapped.log_det.value)) {
            *sum += l;
        }
        for (sum, se) in lanes.variance.iter_mut().zip(mapped.log_det.standard_error.iter().flat_map(to_host)) {
            *sum += se * se;
        }
        *lanes.report = lanes.report.then(mapped.report);
    }
}

impl<B, E: Scalar, D: FlowDevice<E> + Send + Sync> RowKernel<E> for BlockedKernel<'_, B, E, D>
where
    B: Bijector<(usize, usize), E, D, Out = (usize, usize)> + Sync,
{
    fn forward(&self, values: &mut [E], lanes: &mut Lanes<'_, E>, tape: &mut RowTape<E>) -> Result<()> {
        if tape.is_recording() {
            tape.push(Buffer::copy_of(values));
        }
        let x = self.to_tensor(values, lanes.lanes);
        let cx = self.context(lanes.condition, lanes.first_row, lanes.lanes);
        let mapped = self.inner.forward(x, &cx).map_err(|e| self.located(e, lanes.first_row))?;
        self.write(&mapped, values, lanes);
        Ok(())
    }

    fn inverse(&self, values: &mut [E], lanes: &mut Lanes<'_, E>) -> Result<()> {
        let y = self.to_tensor(values, lanes.lanes);
        let cx = self.context(lanes.condition, lanes.first_row, lanes.lanes);
        let mapped = self.inner.inverse(y, &cx).map_err(|e| self.located(e, lanes.first_row))?;
        self.write(&mapped, values, lanes);
        Ok(())
    }

    fn pullback(&self, cotangent: &mut [E], pull: &Pull<'_, E>, tape: &mut RowTape<E>, sums: &mut [E]) -> Result<()> {
        let x = self.to_tensor(&tape.pop()?, pull.lanes);
        let mut gradients = self.gradients.clone();
        let out = Cotangent {
            value: self.to_tensor(cotangent, pull.lanes),
            log_det: self.device.tensor_from_vec(pull.log_det.to_vec(), (pull.lanes,)),
        };
        let cx = self.context(pull.condition, pull.first_row, pull.lanes);
        let pulled = self.inner.pullback(Point::Input(x), out, &mut gradients, &cx).map_err(|e| self.located(e, pull.first_row))?;
        for (sum, &gradient) in sums.iter_mut().zip(gradients.values()) {
            *sum += gradient;
        }
        self.write_block(&pulled.cotangent, pull.lanes, cotangent);
        Ok(())
    }

    fn sums_len(&self) -> usize {
        self.gradients.values().len()
    }
}

/// For devices that several threads can use at once: dfdx's CPU, not its CUDA device.
impl<E: Scalar, D: FlowDevice<E> + Send + Sync, B: Bijector<(usize, usize), E, D, Out = (usize, usize)> + Sync> RowFlow<E, D>
    for BlockedRows<B, D>
{
    fn kind(&self) -> &'static str {
        self.inner.kind()
    }

    fn dim(&self) -> usize {
        self.dim
    }

    fn prepare<'a>(&'a self, _: usize, cx: &Context<E, D>) -> Result<Box<dyn RowKernel<E> + 'a>> {
        Ok(Box::new(BlockedKernel {
            inner: &self.inner,
            kind: self.inner.kind(),
            device: &self.device,
            view: RowView::single(self.dim),
            gradients: Gradients::zeros(&self.inner),
            cx: cx.clone(),
        }))
    }

    fn initialise(&mut self, values: &[E], rows: usize, cx: &Context<E, D>) -> Result<()> {
        let mut batch = vec![E::zero(); values.len()];
        RowView::single(self.dim).scatter(values, 0, rows, &mut batch);
        let cx = match HostCondition::of_rows(cx, self.inner.condition_width(), rows)? {
            None => cx.clone(),
            Some(HostCondition { width, values }) => cx.clone().with_condition(self.device.tensor_from_vec(values, (rows, width))),
        };
        self.inner.initialise(self.device.tensor_from_vec(batch, (rows, self.dim)), &cx).map(|_| ())
    }

    fn log_det_kind(&self) -> LogDetKind {
        self.inner.log_det_kind()
    }

    fn inverse_kind(&self) -> InverseKind {
        self.inner.inverse_kind()
    }

    fn condition_width(&self) -> Option<usize> {
        self.inner.condition_width()
    }

    fn multiply_adds(&self) -> u64 {
        self.inner.multiply_adds(&(1, self.dim))
    }
}
