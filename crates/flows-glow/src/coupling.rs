//! The coupling of channels that sees neighbours.

use flow_api::bijector::LayerInfo;
use flow_api::module::parameter_count;
use flow_api::rows::RowView;
use flow_api::samples::{Grid, SampleKernel, SideKernel};
use flow_api::{Context, Facts, Module, Result, SampleFlow, Scalar, module_fields};
use flow_nets::{ConditionerNet, ConvLayers, ConvNet, ConvNetConfig, CouplingKernel, Partition, Transformer};
use std::borrow::Cow;

/// A coupling of the channels of a grid: some channels pass unchanged, a convolutional network of them (and of the
/// condition) gives the parameters with which a transformer moves the others, value by value.
///
/// # Log-det
/// The sum of the log-slopes of all moved values, exact: the Jacobian is triangular.
///
/// The inverse costs what the forward map does. It starts as the identity, because the network starts as zero.
///
/// # Parameters
/// Those of the network, [`ConvNet`], below `net`.
///
/// ```
/// use flow_api::samples::{Grid, Skeleton};
/// use flow_api::{Bijector, Context, Scalar, to_host};
/// use flow_nets::{Affine, ConvLayers, Split};
/// use flows_glow::ConvCoupling;
/// // Two channels of 4 × 4 pixels: the first passes, the second is moved by what its pixel's neighbours are there.
/// let grid = Grid::image(2, 4, 4)?;
/// let (split, layers) = (Split::Halves.partition(2, false)?, ConvLayers::Three { hidden: 8 });
/// let coupling = ConvCoupling::<f64>::new(&grid, split, Box::new(Affine::new(2.0)?), layers, 0, 7)?;
/// let flow = Skeleton::new("Coupling", 32, vec![vec![("coupling".to_owned(), Box::new(coupling) as _)]])?;
/// let x = f64::tensor((0..32).map(f64::from).collect(), (1, 32));
/// let mapped = flow.forward(x.clone(), &Context::new(0))?;
/// assert_eq!((to_host(&mapped.value), to_host(&mapped.log_det.value)), (to_host(&x), vec![0.0]));
/// # Ok::<(), flow_api::FlowError>(())
/// ```
#[derive(Debug)]
pub struct ConvCoupling<E: Scalar> {
    view: RowView,
    partition: Partition,
    net: ConvNet<E>,
    transformer: Box<dyn Transformer<E>>,
}

impl<E: Scalar> ConvCoupling<E> {
    /// A coupling on a grid with initial parameters drawn from `seed`; `condition` is the width of the condition, 0
    /// without one.
    ///
    /// # Errors
    /// [`FlowError::Setting`](flow_api::FlowError::Setting) for networks that cannot be.
    pub fn new(
        grid: &Grid,
        partition: Partition,
        transformer: Box<dyn Transformer<E>>,
        layers: ConvLayers,
        condition: usize,
        seed: u64,
    ) -> Result<Self> {
        let outputs = transformer.parameters() * partition.transformed.len();
        let (height, width) = (grid.height(), grid.width());
        let config = ConvNetConfig { inputs: partition.identity.len(), condition, outputs, height, width, layers };
        Ok(Self { view: grid.pixels()?, partition, net: ConvNet::new(config, seed)?, transformer })
    }
}

impl<E: Scalar> Module<E> for ConvCoupling<E> {
    module_fields!(E; child net);
}

impl<E: Scalar> SampleFlow<E> for ConvCoupling<E> {
    fn facts(&self) -> Facts {
        let facts = Facts::new("ConvCoupling").with_condition(self.net.condition()).with_multiply_adds(self.net.multiply_adds());
        facts.for_rows(self.view.rows())
    }

    fn event(&self) -> usize {
        self.view.sample_len()
    }

    fn prepare<'a>(&'a self, batch: usize, cx: &Context<E>) -> Result<Box<dyn SampleKernel<E> + 'a>> {
        let net = self.net.kernel(batch * self.view.rows());
        let kernel = Box::new(CouplingKernel::new(self.partition, net, &self.transformer));
        Ok(Box::new(SideKernel::new(Cow::Borrowed(&self.view), kernel, cx.layer("ConvCoupling")).in_whole_samples()))
    }

    fn group_samples(&self, batch: usize) -> usize {
        self.view.group_samples(batch)
    }

    fn describe(&self, path: &str, table: &mut Vec<LayerInfo>) {
        let ConvNetConfig { height, width, .. } = *self.net.config();
        table.push(LayerInfo::new(path, vec![self.partition.dim(), height, width], parameter_count(self), self.facts()));
    }
}
