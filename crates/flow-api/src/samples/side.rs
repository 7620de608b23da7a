//! A row flow on the rows of a view: what the two sides of a mixing layer are.

use super::{SampleFlow, SampleKernel, SideKernel};
use crate::bijector::{LayerInfo, leads_to};
use crate::device::SideForm;
use crate::rows::RowView;
use crate::{Context, Facts, FlowError, Module, Result, RowFlow, Scalar, module_fields};
use std::borrow::Cow;

/// A flow on R^d that is shared by all rows of a view of the sample. [`Skeleton`](crate::samples::Skeleton) has an
/// example.
#[derive(Clone, Debug)]
pub struct Side<F> {
    view: RowView,
    flow: F,
}

impl<F> Side<F> {
    /// A flow on the rows of a view.
    ///
    /// # Errors
    /// [`FlowError::Composition`] if the rows have another size than the flow takes.
    pub fn new<E: Scalar>(view: RowView, flow: F) -> Result<Self>
    where
        F: RowFlow<E>,
    {
        if view.dim() == flow.dim() {
            return Ok(Self { view, flow });
        }
        Err(FlowError::Composition {
            first: "RowView".to_owned(),
            second: flow.facts().kind.to_owned(),
            expected: format!("rows of {}", flow.dim()),
            got: format!("rows of {}", view.dim()),
        })
    }
}

impl<E: Scalar, F: Module<E>> Module<E> for Side<F> {
    module_fields!(E; delegate flow);
}

impl<E: Scalar, F: RowFlow<E>> SampleFlow<E> for Side<F> {
    fn facts(&self) -> Facts {
        self.flow.facts().for_rows(self.view.rows())
    }

    fn event(&self) -> usize {
        self.view.sample_len()
    }

    fn prepare<'a>(&'a self, batch: usize, cx: &Context<E>) -> Result<Box<dyn SampleKernel<E> + 'a>> {
        let path = cx.layer(self.flow.facts().kind).to_owned();
        let kernel = self.flow.prepare(batch * self.view.rows(), cx).map_err(|e| e.in_layer(&path))?;
        Ok(Box::new(SideKernel::new(Cow::Borrowed(&self.view), kernel, path)))
    }

    fn prepare_until<'a>(&'a self, layer: &str, batch: usize, cx: &Context<E>) -> Result<Option<Box<dyn SampleKernel<E> + 'a>>> {
        if !leads_to(cx.path(), layer) {
            return Ok(None);
        }
        let path = cx.layer(self.flow.facts().kind).to_owned();
        let kernel = self.flow.prepare_until(layer, batch * self.view.rows(), cx).map_err(|e| e.in_layer(&path))?;
        Ok(kernel.map(|kernel| Box::new(SideKernel::new(Cow::Borrowed(&self.view), kernel, path)) as _))
    }

    fn device_form<'a>(&'a self, cx: &Context<E>) -> Result<Vec<SideForm<'a, E>>> {
        Ok(vec![SideForm::new(cx, Cow::Borrowed(&self.view), self.flow.device_form(cx)?)])
    }

    fn group_samples(&self, batch: usize) -> usize {
        self.view.group_samples(batch)
    }

    fn initialise(&mut self, values: &[E], batch: usize, cx: &Context<E>) -> Result<()> {
        let rows = batch * self.view.rows();
        let mut matrix = vec![E::zero(); rows * self.view.dim()];
        self.view.gather(values, 0, rows, &mut matrix);
        let kind = self.flow.facts().kind;
        self.flow.initialise(&matrix, rows, cx).map_err(|e| e.in_layer(cx.layer(kind)).by_sample(self.view.rows()))
    }

    fn describe(&self, path: &str, table: &mut Vec<LayerInfo>) {
        self.flow.describe(path, self.view.rows(), table);
    }
}
