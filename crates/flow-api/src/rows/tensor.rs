//! Row flows as bijectors of tensors of shape (batch, d).

use super::flow::RowFlow;
use super::view::RowView;
use crate::bijector::{Cotangent, Kept, LayerInfo, Mapped, Point, Pulled, leads_to};
use crate::device::SideForm;
use crate::rows::Direction;
use crate::samples::{Driver, Layers, Ready, SideKernel};
use crate::{Bijector, Context, Facts, Gradients, InverseKind, Module, Result, Scalar, Tensor, module_fields, shape_error, to_host};
use dfdx::prelude::{Dim, HasShape};
use std::borrow::Cow;

/// A row flow as a [`Bijector`] of tensors of shape (batch, d), for any dimension type: a skeleton of one side.
///
/// Parameter paths are those of the flow itself.
#[derive(Debug, Clone)]
pub struct Rows<F>(pub F);

impl<E: Scalar, F: Module<E>> Module<E> for Rows<F> {
    module_fields!(E; delegate 0);
}

impl<E: Scalar, F: RowFlow<E>> Layers<E> for Rows<F> {
    fn facts(&self) -> Facts {
        self.0.facts()
    }

    fn event(&self) -> usize {
        self.0.dim()
    }

    fn count(&self) -> usize {
        1
    }

    fn inverse(&self, _: usize) -> InverseKind {
        self.0.facts().inverse
    }

    fn prepare<'a>(&'a self, _: usize, batch: usize, cx: &Context<E>) -> Result<Vec<Ready<'a, E>>> {
        let kernel = self.0.prepare(batch, cx)?;
        Ok(vec![ready(self.0.dim(), kernel, cx.layer(self.0.facts().kind), cx)])
    }

    fn holds(&self, _: usize, part: &str, cx: &Context<E>) -> bool {
        leads_to(cx.path(), part)
    }

    fn prepare_until<'a>(&'a self, _: usize, part: &str, batch: usize, cx: &Context<E>) -> Result<Option<Vec<Ready<'a, E>>>> {
        let kernel = self.0.prepare_until(part, batch, cx)?;
        Ok(kernel.map(|kernel| vec![ready(self.0.dim(), kernel, cx.layer(self.0.facts().kind), cx)]))
    }

    fn group_samples(&self, batch: usize) -> usize {
        RowView::single(self.0.dim()).group_samples(batch)
    }
}

fn ready<'a, E: Scalar>(dim: usize, kernel: Box<dyn crate::rows::RowKernel<E> + 'a>, name: &str, cx: &Context<E>) -> Ready<'a, E> {
    let view = Cow::Owned(RowView::single(dim));
    Ready { path: cx.path().to_owned(), kernel: Box::new(SideKernel::new(view, kernel, name)) }
}

impl<N: Dim, E: Scalar, F: RowFlow<E>> Bijector<(usize, N), E> for Rows<F> {
    type Out = (usize, N);

    fn facts(&self) -> Facts {
        self.0.facts()
    }

    fn output_shape(&self, input: &(usize, N)) -> Result<(usize, N)> {
        if input.1.size() == self.0.dim() {
            Ok(*input)
        } else {
            Err(shape_error(self.0.facts().kind, "build", ("batch", self.0.dim()), ("batch", input.1.size())))
        }
    }

    fn forward(&self, x: Tensor<(usize, N), E>, cx: &Context<E>) -> Result<Mapped<(usize, N), E>> {
        Driver::new(self, cx).map(&x, Direction::Forward)
    }

    fn inverse(&self, y: Tensor<(usize, N), E>, cx: &Context<E>) -> Result<Mapped<(usize, N), E>> {
        Driver::new(self, cx).map(&y, Direction::Inverse)
    }

    fn forward_until(&self, x: Tensor<(usize, N), E>, layer: &str, cx: &Context<E>) -> Result<Option<Vec<E>>> {
        Driver::new(self, cx).forward_until(&x, layer)
    }

    fn pullback_until(
        &self,
        x: Tensor<(usize, N), E>,
        layer: &str,
        cotangent: Vec<E>,
        gradients: &mut Gradients<E>,
        cx: &Context<E>,
    ) -> Result<Option<Pulled<(usize, N), E>>> {
        Driver::new(self, cx).pullback_until(x, layer, cotangent, gradients)
    }

    fn forward_keeping(&self, x: Tensor<(usize, N), E>, cx: &Context<E>) -> Result<(Mapped<(usize, N), E>, Kept)> {
        Driver::new(self, cx).forward_keeping(x)
    }

    fn pullback(
        &self,
        at: Point<(usize, N), (usize, N), E>,
        cotangent: Cotangent<(usize, N), E>,
        gradients: &mut Gradients<E>,
        cx: &Context<E>,
    ) -> Result<Pulled<(usize, N), E>> {
        Driver::new(self, cx).pullback(at, cotangent, gradients)
    }

    fn device_form<'a>(&'a self, cx: &Context<E>) -> Result<Vec<SideForm<'a, E>>> {
        Ok(vec![SideForm::new(cx, Cow::Owned(RowView::single(self.0.dim())), self.0.device_form(cx)?)])
    }

    fn initialise(&mut self, x: Tensor<(usize, N), E>, cx: &Context<E>) -> Result<Tensor<(usize, N), E>> {
        let batch = Driver::new(self, cx).batch(x.shape(), "initialise")?;
        let mut values = vec![E::zero(); batch * self.0.dim()];
        RowView::single(self.0.dim()).gather(&to_host(&x), 0, batch, &mut values);
        let kind = self.0.facts().kind;
        self.0.initialise(&values, batch, cx).map_err(|e| e.in_layer(cx.layer(kind)))?;
        Ok(self.forward(x, cx)?.value)
    }

    fn describe(&self, path: &str, input: &(usize, N), table: &mut Vec<LayerInfo>) -> Result<()> {
        self.output_shape(input)?;
        self.0.describe(path, 1, table);
        Ok(())
    }
}
