//! Convolutional networks that condition couplings of images.

mod kernel;
mod layer;
mod neighbours;

use crate::residual_mlp::Linear;
use crate::{ConditionerKernel, ConditionerNet};
use flow_api::module::{Visitor, VisitorMut};
use flow_api::spec::{MAX_SIZE, MAX_WEIGHTS, size_range};
use flow_api::{FlowError, Module, Parameter, Result, Scalar};
use kernel::ConvNetKernel;
use layer::ConvKernel;
use neighbours::Plane;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// The layers of a [`ConvNet`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConvLayers {
    /// One 3 × 3 convolution, zero at the start: what gives the prior of a factor-out.
    One,
    /// 3 × 3, 1 × 1 and 3 × 3 convolutions with max(x, 0) between, the last one zero at the start: Glow's.
    Three {
        /// Channels between them.
        hidden: usize,
    },
    /// h = W x + b by a 1 × 1 convolution; per block h ← h + V₁ ∗ φ(V₀ ∗ φ(h)) with 3 × 3 convolutions and
    /// φ = max(x, 0); a last 1 × 1 convolution, zero at the start. That of RQ-NSF (C).
    Residual {
        /// Channels of h.
        hidden: usize,
        /// Blocks.
        blocks: usize,
    },
}

/// Sizes of a [`ConvNet`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConvNetConfig {
    /// Channels that go in.
    pub inputs: usize,
    /// Width of the condition, 0 without one: it is appended to the channels of every pixel.
    pub condition: usize,
    /// Channels that come out.
    pub outputs: usize,
    /// Rows of pixels.
    pub height: usize,
    /// Pixels in a row.
    pub width: usize,
    /// Its layers.
    pub layers: ConvLayers,
}

/// A convolutional network of images with zeros around them: as many pixels come out as go in.
///
/// # Parameters
/// Weights are (outputs, inputs, k, k), row-major, as of `PyTorch`'s `Conv2d`. Of [`ConvLayers::One`] and
/// [`ConvLayers::Three`]: `{i}.weight`, `{i}.bias`. Of [`ConvLayers::Residual`]: `initial.…`, `blocks.{k}.{0,1}.…` and
/// `final.…`.
///
/// # Initialisation
/// Uniform in ±1/√(inputs k²), `PyTorch`'s default; the second convolution of a block uniform in ±10⁻³; the last one is
/// zero, so that a coupling starts as the identity. Values are a function of the seed, the same in every number type.
///
/// Sources: Kingma & Dhariwal, "Glow", section 3.3 (arXiv:1807.03039), without the normalisation between convolutions;
/// Durkan et al., "Neural Spline Flows", appendix B.2 (arXiv:1906.04032), without dropout and batch normalisation.
///
/// ```
/// use flow_api::module::parameter_count;
/// use flow_api::rows::RowTape;
/// use flow_nets::{ConditionerNet, ConvLayers, ConvNet, ConvNetConfig};
/// let (layers, size) = (ConvLayers::Three { hidden: 8 }, 4);
/// let config = ConvNetConfig { inputs: 2, condition: 0, outputs: 3, height: size, width: size, layers };
/// let net = ConvNet::<f32>::new(config, 7)?;
/// assert_eq!(parameter_count(&net), (2 * 9 + 1) * 8 + (8 + 1) * 8 + (8 * 9 + 1) * 3);
/// // Two images, feature-major: of every channel the pixels of the first, then those of the second.
/// let output = net.kernel(32).forward(&[0.5; 2 * 32], None, 32, &mut RowTape::idle())?;
/// assert_eq!(output[..], [0.0; 3 * 32]);
/// # Ok::<(), flow_api::FlowError>(())
/// ```
#[derive(Clone, Debug)]
pub struct ConvNet<E: Scalar> {
    config: ConvNetConfig,
    /// In order; of a residual network the initial one, two a block, and the last.
    layers: Vec<Conv<E>>,
}

/// A convolution and what goes into it.
#[derive(Clone, Debug)]
struct Conv<E: Scalar> {
    linear: Linear<E>,
    inputs: usize,
}

/// Inputs, outputs and k of a convolution, and what its initial values are below.
type Size = (usize, usize, usize, Bound);

/// What initial values are below.
#[derive(Clone, Copy)]
enum Bound {
    Default,
    Of(f64),
}

/// What the second convolution of a block starts below.
const BLOCK_OUTPUT: Bound = Bound::Of(1e-3);

const ZERO: Bound = Bound::Of(0.0);

impl ConvNetConfig {
    fn plane(&self) -> Plane {
        Plane { height: self.height, width: self.width }
    }

    /// Sizes of all convolutions.
    fn sizes(&self) -> Vec<Size> {
        let (inputs, outputs) = (self.inputs.saturating_add(self.condition), self.outputs);
        match self.layers {
            ConvLayers::One => vec![(inputs, outputs, 3, ZERO)],
            ConvLayers::Three { hidden } => {
                vec![(inputs, hidden, 3, Bound::Default), (hidden, hidden, 1, Bound::Default), (hidden, outputs, 3, ZERO)]
            }
            ConvLayers::Residual { hidden, blocks } => {
                let block = [(hidden, hidden, 3, Bound::Default), (hidden, hidden, 3, BLOCK_OUTPUT)];
                let first = std::iter::once((inputs, hidden, 1, Bound::Default));
                first.chain(std::iter::repeat_n(block, blocks).flatten()).chain([(hidden, outputs, 1, ZERO)]).collect()
            }
        }
    }

    fn check(&self) -> Result<()> {
        let wrong =
            |field, expected, got: usize| Err(FlowError::Setting { layer: "ConvNet".to_owned(), field, expected, got: got.to_string() });
        let (hidden, blocks) = match self.layers {
            ConvLayers::One => (1, 1),
            ConvLayers::Three { hidden } => (hidden, 1),
            ConvLayers::Residual { hidden, blocks } => (hidden, blocks),
        };
        for (field, value) in [("hidden", hidden), ("blocks", blocks)] {
            if value == 0 || value > MAX_SIZE {
                return wrong(field, size_range(1), value);
            }
        }
        let sides = [("height", self.height), ("width", self.width)];
        for (field, value) in [("inputs", self.inputs), ("outputs", self.outputs)].into_iter().chain(sides) {
            if value == 0 {
                return wrong(field, "at least 1".to_owned(), value);
            }
        }
        let weights = self.sizes().into_iter().fold(0_usize, |sum, (inputs, outputs, side, _)| {
            sum.saturating_add(inputs.saturating_mul(outputs).saturating_mul(side * side))
        });
        if weights > MAX_WEIGHTS {
            return wrong("hidden", format!("a network of at most {MAX_WEIGHTS} weights"), weights);
        }
        Ok(())
    }

    /// Weights of the network, at the least. None where it is refused for itself.
    pub fn weights(&self) -> usize {
        if self.check().is_err() {
            return 0;
        }
        self.sizes().into_iter().map(|(inputs, outputs, side, _)| inputs * outputs * side * side).sum()
    }
}

impl<E: Scalar> ConvNet<E> {
    /// A network of these sizes with initial parameters drawn from `seed`.
    ///
    /// # Errors
    /// [`FlowError::Setting`] for a size of zero (a condition of width zero is none), for more than [`MAX_SIZE`] hidden
    /// channels or blocks, and for more than [`MAX_WEIGHTS`] weights.
    pub fn new(config: ConvNetConfig, seed: u64) -> Result<Self> {
        config.check()?;
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let conv = |(inputs, outputs, side, bound): Size| {
            let fan_in = inputs * side * side;
            let bound = match bound {
                Bound::Default => 1.0 / (fan_in as f64).sqrt(),
                Bound::Of(bound) => bound,
            };
            let mut linear = Linear::new(fan_in, outputs, bound, &mut rng);
            linear.weight = Parameter::new(&[outputs, inputs, side, side], linear.weight.values().to_vec());
            Conv { linear, inputs }
        };
        Ok(Self { config, layers: config.sizes().into_iter().map(conv).collect() })
    }

    /// Its sizes.
    pub fn config(&self) -> &ConvNetConfig {
        &self.config
    }

    /// The name of a layer.
    fn name(&self, layer: usize) -> String {
        match self.config.layers {
            ConvLayers::One | ConvLayers::Three { .. } => layer.to_string(),
            ConvLayers::Residual { .. } if layer == 0 => "initial".to_owned(),
            ConvLayers::Residual { blocks, .. } if layer > 2 * blocks => "final".to_owned(),
            ConvLayers::Residual { .. } => format!("blocks.{}.{}", (layer - 1) / 2, (layer - 1) % 2),
        }
    }
}

/// The rows are pixels: those of whole images, row by row, one image after the other. A kernel's convolutions are
/// matrix products over gathered rows, a few at a time; those of 3 × 3 convolutions want the weights in another order,
/// which is made once a call.
impl<E: Scalar> ConditionerNet<E> for ConvNet<E> {
    fn inputs(&self) -> usize {
        self.config.inputs
    }

    fn condition(&self) -> usize {
        self.config.condition
    }

    fn outputs(&self) -> usize {
        self.config.outputs
    }

    /// Neighbours outside of an image are counted.
    fn multiply_adds(&self) -> u64 {
        self.layers.iter().map(|conv| conv.linear.weight.values().len() as u64).sum()
    }

    fn kernel<'a>(&'a self, _: usize) -> Box<dyn ConditionerKernel<E> + 'a> {
        let plane = self.config.plane();
        let conv = |conv: &'a Conv<E>| ConvKernel::new(plane, conv.linear.weight.values(), conv.linear.bias.values(), conv.inputs);
        Box::new(ConvNetKernel::new(&self.config, self.layers.iter().map(conv).collect()))
    }
}

impl<E: Scalar> Module<E> for ConvNet<E> {
    fn visit<'m>(&'m self, visitor: &mut Visitor<'_, 'm, E>) {
        for (i, conv) in self.layers.iter().enumerate() {
            visitor.child(self.name(i), &conv.linear);
        }
    }
    fn visit_mut<'m>(&'m mut self, visitor: &mut VisitorMut<'_, 'm, E>) {
        let names: Vec<_> = (0..self.layers.len()).map(|i| self.name(i)).collect();
        for (name, conv) in names.into_iter().zip(&mut self.layers) {
            visitor.child(name, &mut conv.linear);
        }
    }
}
