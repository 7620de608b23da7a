//! A side of a layer by itself: as a kernel on rows of a view, and in plain dfdx operations.

use dfdx::prelude::*;
use flow_api::{
    Context, FlowDevice, FlowError, HostCondition, Mapped, Module, Result, RowChain, RowFlow, RowPass, RowView, Scalar, Taped,
    TapedBijector, Visitor, VisitorMut, shape_error, to_host,
};

/// One side of a layer: a flow on R^d that is shared by all rows of a view. [`Skeleton`](crate::Skeleton) has an example.
pub struct Side<E: Scalar, D: FlowDevice<E>> {
    pub(crate) view: RowView,
    pub(crate) flow: RowChain<E, D>,
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

    /// Runs `f` with the kernel of a batch, made for this call.
    pub(crate) fn run<R>(
        &self,
        batch: usize,
        condition: Option<&HostCondition<E>>,
        cx: &Context<E, D>,
        f: impl FnOnce(&RowPass<'_, E>) -> Result<R>,
    ) -> Result<R> {
        let kernel = self.flow.prepare(batch * self.view.rows(), cx)?;
        f(&RowPass { view: &self.view, kernel: kernel.as_ref(), path: cx.path(), condition, spread: false })
    }
}

impl<E: Scalar, D: FlowDevice<E>> Module<E> for Side<E, D> {
    fn visit<'m>(&'m self, visitor: &mut Visitor<'_, 'm, E>) {
        self.flow.visit(visitor);
    }
    fn visit_mut<'m>(&'m mut self, visitor: &mut VisitorMut<'_, 'm, E>) {
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

    /// The context of the rows: the condition of a sample is that of each of them.
    fn by_row(&self, cx: &Context<E, D>) -> Context<E, D> {
        let Some(condition) = cx.condition() else { return cx.clone() };
        let (batch, width) = *condition.shape();
        let repeated = to_host(condition).chunks_exact(width.max(1)).flat_map(|vector| vector.repeat(self.view.rows())).collect();
        cx.clone().with_condition(condition.device().tensor_from_vec(repeated, (batch * self.view.rows(), width)))
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
        let (rows, log_det) = self.plain(cx)?.forward_taped(self.gather(x), &self.by_row(cx))?;
        let log_det = log_det.reshape_like(&(batch, self.view.rows())).sum::<(usize,), Axis<1>>();
        Ok((self.scatter(rows, rest), log_det))
    }

    fn inverse(&self, y: Tensor<(usize, usize), E, D>, cx: &Context<E, D>) -> Result<Mapped<(usize, usize), E, D>> {
        let batch = y.shape().0;
        let (rows, log_det) = self.plain(cx)?.inverse(self.gather(y.clone()), &self.by_row(cx))?;
        let log_det = log_det.reshape_like(&(batch, self.view.rows())).sum::<(usize,), Axis<1>>();
        Ok(Mapped::exact(self.scatter(rows, y), log_det))
    }
}
