//! The coupling whose conditioner sees all tokens.

use crate::TokenSplit;
use flow_api::samples::Grid;
use flow_api::{Result, Scalar};
use flow_nets::{SampleCoupling, TokenLayout, TokenMixing, TokenNet, TokenNetConfig, Transformer};

/// Sizes of the network of a [`token_coupling`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TokenConditioner {
    /// Features of a token.
    pub width: usize,
    /// Blocks.
    pub blocks: usize,
    /// Width of the hidden layer of the MLP over features.
    pub hidden: usize,
    /// How tokens learn of each other.
    pub mixing: TokenMixing,
    /// Width of the condition, 0 without one.
    pub condition: usize,
}

impl TokenConditioner {
    /// The network's sizes for a layout and so many parameters of a value.
    pub(crate) fn config(&self, layout: TokenLayout, parameters: usize) -> TokenNetConfig {
        let Self { width, blocks, hidden, mixing, condition } = *self;
        TokenNetConfig { layout, parameters, condition, width, blocks, hidden, mixing }
    }
}

/// A coupling of a grid: half of it passes unchanged, a network in which all tokens of that half see each other gives
/// the parameters with which a transformer moves the other half, value by value. Its initial parameters are drawn from
/// `seed`; it starts as the identity.
///
/// ```
/// use flow_api::samples::{Grid, Skeleton};
/// use flow_api::{Bijector, Context, Scalar, to_host};
/// use flow_nets::{SigmoidAffine, TokenMixing};
/// use flows_jet::{TokenConditioner, TokenSplit, token_coupling};
/// // 2 × 2 places of 3 channels: places (0, 0) and (1, 1) pass.
/// let grid = Grid::image(3, 2, 2)?;
/// let mixing = TokenMixing::Attention { heads: 2 };
/// let net = TokenConditioner { width: 8, blocks: 1, hidden: 16, mixing, condition: 0 };
/// let scale = Box::new(SigmoidAffine::new(2.0)?);
/// let coupling = token_coupling::<f64>(&grid, TokenSplit::Checkerboard, false, scale, &net, 7)?;
/// let flow = Skeleton::new("Coupling", 12, vec![vec![("coupling".to_owned(), Box::new(coupling) as _)]])?;
/// let x = f64::tensor((0..12).map(f64::from).collect(), (1, 12));
/// let mapped = flow.forward(x.clone(), &Context::new(0))?;
/// assert_eq!((to_host(&mapped.value), to_host(&mapped.log_det.value)), (to_host(&x), vec![0.0]));
/// # Ok::<(), flow_api::FlowError>(())
/// ```
///
/// # Errors
/// [`FlowError::Setting`](flow_api::FlowError::Setting) for networks that cannot be, and for grids that the split
/// leaves whole.
pub fn token_coupling<E: Scalar>(
    grid: &Grid,
    split: TokenSplit,
    flipped: bool,
    transformer: Box<dyn Transformer<E>>,
    conditioner: &TokenConditioner,
    seed: u64,
) -> Result<SampleCoupling<E, TokenNet<E>>> {
    let cut = split.cut(grid, flipped)?;
    let net = TokenNet::new(conditioner.config(cut.layout, transformer.parameters()), seed)?;
    SampleCoupling::new("TokenCoupling", grid, (cut.view, cut.partition), transformer, net)
}
