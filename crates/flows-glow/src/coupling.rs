//! The coupling of channels that sees neighbours.

use flow_api::samples::Grid;
use flow_api::{Result, Scalar};
use flow_nets::{ConvLayers, ConvNet, ConvNetConfig, Partition, SampleCoupling, Transformer};

/// A coupling of the channels of a grid: some channels pass unchanged, a convolutional network of them (and of the
/// condition, of a width of 0 without one) gives the parameters with which a transformer moves the others, value by
/// value. Its initial parameters are drawn from `seed`.
///
/// ```
/// use flow_api::samples::{Grid, Skeleton};
/// use flow_api::{Bijector, Context, Scalar, to_host};
/// use flow_nets::{Affine, ConvLayers, Split};
/// // Two channels of 4 × 4 pixels: the first passes, the second is moved by what its pixel's neighbours are there.
/// let grid = Grid::image(2, 4, 4)?;
/// let (split, layers) = (Split::Halves.partition(2, false)?, ConvLayers::Three { hidden: 8 });
/// let coupling = flows_glow::conv_coupling::<f64>(&grid, split, Box::new(Affine::new(2.0)?), layers, 0, 7)?;
/// let flow = Skeleton::new("Coupling", 32, vec![vec![("coupling".to_owned(), Box::new(coupling) as _)]])?;
/// let x = f64::tensor((0..32).map(f64::from).collect(), (1, 32));
/// let mapped = flow.forward(x.clone(), &Context::new(0))?;
/// assert_eq!((to_host(&mapped.value), to_host(&mapped.log_det.value)), (to_host(&x), vec![0.0]));
/// # Ok::<(), flow_api::FlowError>(())
/// ```
///
/// # Errors
/// [`FlowError::Setting`](flow_api::FlowError::Setting) for networks that cannot be.
pub fn conv_coupling<E: Scalar>(
    grid: &Grid,
    partition: Partition,
    transformer: Box<dyn Transformer<E>>,
    layers: ConvLayers,
    condition: usize,
    seed: u64,
) -> Result<SampleCoupling<E, ConvNet<E>>> {
    let outputs = transformer.parameters() * partition.transformed.len();
    let (height, width) = (grid.height(), grid.width());
    let config = ConvNetConfig { inputs: partition.identity.len(), condition, outputs, height, width, layers };
    SampleCoupling::new("ConvCoupling", grid, (grid.pixels()?, partition), transformer, ConvNet::new(config, seed)?)
}
