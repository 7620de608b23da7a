//! Couplings of whole samples: one mechanism for every network that sees all rows of a sample together.

use crate::{ConditionerNet, CouplingKernel, Partition, Transformer};
use flow_api::bijector::LayerInfo;
use flow_api::module::parameter_count;
use flow_api::rows::RowView;
use flow_api::samples::{Grid, SampleKernel, SideKernel};
use flow_api::{Context, Facts, Module, Result, SampleFlow, Scalar, module_fields, shape_error};
use std::borrow::Cow;

/// A coupling of a grid of channels at places: some features of the rows of a view pass unchanged, a network `N` that
/// sees those of all rows of a sample (and the condition) gives the parameters with which a transformer moves the
/// others, value by value.
///
/// With places as rows it is a coupling of channels, with channels as rows one of places.
///
/// # Log-det
/// The sum of the log-slopes of all moved values, exact: the Jacobian is triangular.
///
/// The inverse costs what the forward map does. With a network that starts as zero it starts as the identity.
///
/// # Parameters
/// Those of the network, below `net`.
#[derive(Debug)]
pub struct SampleCoupling<E: Scalar, N> {
    kind: &'static str,
    shape: Vec<usize>,
    view: RowView,
    partition: Partition,
    net: N,
    transformer: Box<dyn Transformer<E>>,
}

impl<E: Scalar, N: ConditionerNet<E>> SampleCoupling<E, N> {
    /// A coupling on rows of a grid, named `kind` in tables and errors, whose network gets the features that pass and
    /// gives [`Transformer::parameters`] for each of the others, feature by feature. Its rows are the lanes of whole
    /// samples, in the view's order.
    ///
    /// # Errors
    /// [`FlowError::Shape`](flow_api::FlowError::Shape) for a view or a network of other sizes.
    pub fn new(
        kind: &'static str,
        grid: &Grid,
        (view, partition): (RowView, Partition),
        transformer: Box<dyn Transformer<E>>,
        net: N,
    ) -> Result<Self> {
        let expected = (partition.dim(), partition.identity.len(), transformer.parameters() * partition.transformed.len());
        let got = (view.dim(), net.inputs(), net.outputs());
        if got != expected {
            let names = "features, inputs, outputs";
            return Err(shape_error(kind, "build", (names, expected), (names, got)));
        }
        let shape = vec![grid.channels(), grid.height(), grid.width()];
        Ok(Self { kind, shape, view, partition, net, transformer })
    }
}

impl<E: Scalar, N: Module<E>> Module<E> for SampleCoupling<E, N> {
    module_fields!(E; child net);
}

impl<E: Scalar, N: ConditionerNet<E>> SampleFlow<E> for SampleCoupling<E, N> {
    fn facts(&self) -> Facts {
        let facts = Facts::new(self.kind).with_condition(self.net.condition()).with_multiply_adds(self.net.multiply_adds());
        facts.for_rows(self.view.rows())
    }

    fn event(&self) -> usize {
        self.view.sample_len()
    }

    fn prepare<'a>(&'a self, batch: usize, cx: &Context<E>) -> Result<Box<dyn SampleKernel<E> + 'a>> {
        let net = self.net.kernel(batch * self.view.rows());
        let kernel = Box::new(CouplingKernel::new(self.partition, net, &self.transformer, cx));
        Ok(Box::new(SideKernel::new(Cow::Borrowed(&self.view), kernel, cx.layer(self.kind)).in_whole_samples()))
    }

    fn group_samples(&self, batch: usize) -> usize {
        self.view.group_samples(batch)
    }

    fn describe(&self, path: &str, table: &mut Vec<LayerInfo>) {
        table.push(LayerInfo::new(path, self.shape.clone(), parameter_count(self), self.facts()));
    }
}
