//! Networks of tokens that condition couplings of whole samples: vision transformers and mixers.

mod attention;
mod kernel;
mod layout;
mod mlp;
mod norm;

pub use layout::TokenLayout;

use crate::residual_mlp::{Linear, Weight};
use crate::{ConditionerKernel, ConditionerNet};
use attention::Attention;
use flow_api::module::{Visitor, VisitorMut};
use flow_api::spec::{MAX_SIZE, MAX_WEIGHTS, size_range};
use flow_api::{FlowError, Module, Parameter, Result, Scalar, module_fields};
use kernel::{Branch, Part, TokenKernel};
use mlp::{FeatureMlp, TokenMlp};
use norm::NormKernel;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// How the tokens of a [`TokenNet`] learn of each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TokenMixing {
    /// Self-attention of so many heads, of tokens with learned positions: a vision transformer.
    Attention {
        /// Heads.
        heads: usize,
    },
    /// An MLP over the tokens, the same for every feature: an MLP-Mixer.
    Mlp {
        /// Width of its hidden layer.
        hidden: usize,
    },
}

/// Sizes of a [`TokenNet`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TokenNetConfig {
    /// What is a token.
    pub layout: TokenLayout,
    /// Numbers that come out for every value that is moved, P.
    pub parameters: usize,
    /// Width of the condition, 0 without one.
    pub condition: usize,
    /// Features of a token within the network, w.
    pub width: usize,
    /// Blocks.
    pub blocks: usize,
    /// Width of the hidden layer of the MLP over features.
    pub hidden: usize,
    /// How tokens learn of each other.
    pub mixing: TokenMixing,
}

/// A network in which all tokens of a sample see each other. With h the tokens as rows,
///
/// h = W x + b, plus learned positions p of the tokens (with attention), plus U c of the condition c;
/// per block h ← h + mix(norm h), then h ← h + W₁ φ(W₀ norm(h) + b₀) + b₁ with φ = GELU in its tanh form;
/// out = V norm(h) + v.
///
/// norm is layer normalisation with a scale and a shift, with 10⁻⁶ added to variances. mix is multi-head self-attention
/// or, over the tokens of every feature, a second MLP of the same form.
///
/// Sources: Dosovitskiy et al., "An image is worth 16×16 words" (arXiv:2010.11929), whose encoder is this one with
/// attention; Tolstikhin et al., "MLP-Mixer" (arXiv:2105.01601).
///
/// # Parameters
/// `embedding.{weight,bias}`, `positions` (tokens × w), `condition` (w × condition);
/// `blocks.{k}.mixing_norm.{weight,bias}`, `blocks.{k}.mixing.{0,1}.{weight,bias}`, `blocks.{k}.norm.{weight,bias}`,
/// `blocks.{k}.mlp.{0,1}.{weight,bias}`; `norm.{weight,bias}`, `final.{weight,bias}`. Weights are (outputs × inputs),
/// row-major. With attention `mixing.0` gives queries, keys and values, one after the other, each head by head, and
/// `mixing.1` is the map behind the heads. `final`'s rows are value by value, P together.
///
/// # Initialisation
/// Weights and biases uniform in ±1/√inputs, positions and the condition's weight uniform with variance 1/w; the norms
/// as they are without a scale and a shift; `final` zero: the network starts as zero. Values are a function of the seed
/// and the same in every number type.
///
/// ```
/// use flow_api::rows::RowTape;
/// use flow_nets::{ConditionerNet, TokenLayout, TokenMixing, TokenNet, TokenNetConfig};
/// // Of 16 places three channels pass, which gives two numbers for each of three others.
/// let layout = TokenLayout::Lanes { tokens: 16, passing: 3, moved: 3 };
/// let mixing = TokenMixing::Attention { heads: 2 };
/// let config = TokenNetConfig { layout, parameters: 2, condition: 0, width: 8, blocks: 1, hidden: 16, mixing };
/// let net = TokenNet::<f32>::new(config, 7)?;
/// assert_eq!((net.inputs(), net.outputs()), (3, 6));
/// let output = net.kernel(32).forward(&[0.5; 3 * 32], None, 32, &mut RowTape::idle())?;
/// assert_eq!(output[..], [0.0; 6 * 32]);
/// # Ok::<(), flow_api::FlowError>(())
/// ```
#[derive(Clone, Debug)]
pub struct TokenNet<E: Scalar> {
    config: TokenNetConfig,
    embedding: Linear<E>,
    positions: Option<Parameter<E>>,
    condition: Option<Parameter<E>>,
    blocks: Vec<Block<E>>,
    norm: Norm<E>,
    last: Linear<E>,
}

#[derive(Clone, Debug)]
struct Block<E: Scalar> {
    mixing_norm: Norm<E>,
    mixing: [Linear<E>; 2],
    norm: Norm<E>,
    mlp: [Linear<E>; 2],
}

#[derive(Clone, Debug)]
struct Norm<E: Scalar> {
    weight: Parameter<E>,
    bias: Parameter<E>,
}

impl<E: Scalar> Norm<E> {
    fn new(width: usize) -> Self {
        Self { weight: Parameter::new(&[width], vec![E::one(); width]), bias: Parameter::new(&[width], vec![E::zero(); width]) }
    }

    fn kernel(&self) -> NormKernel<'_, E> {
        NormKernel { scale: self.weight.values(), shift: self.bias.values() }
    }
}

/// Inputs and outputs of a linear layer.
type Size = [usize; 2];

impl TokenNetConfig {
    /// The layer in front, those of a block (the mixing's two and the MLP's two), and the last one.
    fn sizes(&self) -> (Size, [Size; 4], Size) {
        let Self { layout, parameters, width, hidden, .. } = *self;
        let mixing = match self.mixing {
            TokenMixing::Attention { .. } => [[width, width.saturating_mul(3)], [width, width]],
            TokenMixing::Mlp { hidden } => [[layout.tokens(), hidden], [hidden, layout.tokens()]],
        };
        let block = [mixing[0], mixing[1], [width, hidden], [hidden, width]];
        ([layout.inputs(), width], block, [width, layout.outputs().saturating_mul(parameters)])
    }

    fn has_positions(&self) -> bool {
        matches!(self.mixing, TokenMixing::Attention { .. })
    }

    /// Weights, positions among them.
    fn all_weights(&self) -> usize {
        let of = |[inputs, outputs]: Size| inputs.saturating_mul(outputs);
        let (first, block, last) = self.sizes();
        let block = block.into_iter().map(of).fold(0, usize::saturating_add).saturating_mul(self.blocks);
        let positions = if self.has_positions() { self.layout.tokens() } else { 0 };
        let rest = of([positions.saturating_add(self.condition), self.width]);
        [of(first), block, of(last), rest].into_iter().fold(0, usize::saturating_add)
    }

    fn check(&self) -> Result<()> {
        let wrong = |field, expected: String, got: String| Err(FlowError::Setting { layer: "TokenNet".to_owned(), field, expected, got });
        let mixing = match self.mixing {
            TokenMixing::Attention { heads } => ("heads", heads),
            TokenMixing::Mlp { hidden } => ("token_hidden", hidden),
        };
        for (field, value) in [("width", self.width), ("blocks", self.blocks), ("hidden", self.hidden), mixing] {
            if value == 0 || value > MAX_SIZE {
                return wrong(field, size_range(1), value.to_string());
            }
        }
        if let TokenMixing::Attention { heads } = self.mixing
            && !self.width.is_multiple_of(heads)
        {
            return wrong("heads", format!("a divisor of the width {}", self.width), heads.to_string());
        }
        let layout = self.layout;
        for (field, value) in
            [("lanes", layout.lanes()), ("passing", layout.passing()), ("moved", layout.moved()), ("parameters", self.parameters)]
        {
            if value == 0 {
                return wrong(field, "at least 1".to_owned(), "0".to_owned());
            }
        }
        let weights = self.all_weights();
        if weights > MAX_WEIGHTS {
            return wrong("width", format!("a network of at most {MAX_WEIGHTS} weights"), weights.to_string());
        }
        Ok(())
    }

    /// Weights of the network, at the least. None where it is refused for itself.
    pub fn weights(&self) -> usize {
        if self.check().is_ok() { self.all_weights() } else { 0 }
    }
}

impl<E: Scalar> TokenNet<E> {
    /// A network of these sizes with initial parameters drawn from `seed`.
    ///
    /// # Errors
    /// [`FlowError::Setting`] for a size of zero (a condition of width zero is none), for more than [`MAX_SIZE`] units,
    /// heads or blocks, for heads that do not divide the width, and for more than [`MAX_WEIGHTS`] weights.
    pub fn new(config: TokenNetConfig, seed: u64) -> Result<Self> {
        config.check()?;
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let (first, block, last) = config.sizes();
        let width = config.width;
        let mut linear = |[inputs, outputs]: Size, scale: f64| Linear::new(inputs, outputs, scale / (inputs as f64).sqrt(), &mut rng);
        let embedding = linear(first, 1.0);
        let block = |_| {
            let [mixing_in, mixing_out, mlp_in, mlp_out] = block.map(|size| linear(size, 1.0));
            Block { mixing_norm: Norm::new(width), mixing: [mixing_in, mixing_out], norm: Norm::new(width), mlp: [mlp_in, mlp_out] }
        };
        let blocks = (0..config.blocks).map(block).collect();
        let last = linear(last, 0.0);
        // Uniform with the variance 1/w.
        let bound = (3.0 / width as f64).sqrt();
        let mut uniform = |shape: [usize; 2]| {
            let values = (0..shape[0] * shape[1]).map(|_| E::of(rng.gen_range(-1.0..1.0) * bound)).collect();
            Parameter::new(&shape, values)
        };
        let positions = config.has_positions().then(|| uniform([config.layout.tokens(), width]));
        let condition = (config.condition > 0).then(|| uniform([width, config.condition]));
        Ok(Self { config, embedding, positions, condition, blocks, norm: Norm::new(width), last })
    }

    /// Its sizes.
    pub fn config(&self) -> &TokenNetConfig {
        &self.config
    }

    fn branches<'a>(&'a self, block: &'a Block<E>) -> [Branch<'a, E>; 2] {
        let [first, second] = &block.mixing;
        let layers = [first.affine(), second.affine()];
        let mixing: Box<dyn Part<E> + 'a> = match self.config.mixing {
            TokenMixing::Attention { heads } => {
                let [projection, output] = layers;
                Box::new(Attention { heads, tokens: self.config.layout.tokens(), projection, output })
            }
            TokenMixing::Mlp { .. } => Box::new(TokenMlp(layers)),
        };
        let [first, second] = &block.mlp;
        let mlp = Box::new(FeatureMlp([first.affine(), second.affine()]));
        [Branch { norm: block.mixing_norm.kernel(), part: mixing }, Branch { norm: block.norm.kernel(), part: mlp }]
    }
}

/// Rows are those of a block: the lanes of a sample beside each other.
impl<E: Scalar> ConditionerNet<E> for TokenNet<E> {
    fn inputs(&self) -> usize {
        self.config.layout.passing()
    }

    fn condition(&self) -> usize {
        self.config.condition
    }

    fn outputs(&self) -> usize {
        self.config.layout.moved() * self.config.parameters
    }

    /// Those of a sample, divided among its lanes.
    fn multiply_adds(&self) -> u64 {
        let TokenNetConfig { layout, width, blocks, condition, .. } = self.config;
        let tokens = layout.tokens();
        let of = |[inputs, outputs]: Size| inputs * outputs;
        let (first, [mixing_in, mixing_out, mlp_in, mlp_out], last) = self.config.sizes();
        // Of a block for all tokens.
        let mixing = match self.config.mixing {
            TokenMixing::Attention { .. } => tokens * (of(mixing_in) + of(mixing_out) + 2 * tokens * width),
            TokenMixing::Mlp { .. } => width * (of(mixing_in) + of(mixing_out)),
        };
        let block = mixing + tokens * (of(mlp_in) + of(mlp_out));
        let sample = tokens * (of(first) + of(last)) + blocks * block + condition * width;
        sample.div_ceil(layout.lanes()) as u64
    }

    fn kernel<'a>(&'a self, _: usize) -> Box<dyn ConditionerKernel<E> + 'a> {
        Box::new(TokenKernel {
            config: &self.config,
            embedding: self.embedding.affine(),
            positions: self.positions.as_ref().map_or(&[], Parameter::values),
            condition: self.condition.as_ref().map(|weight| Weight::new(weight.values(), self.config.width)),
            branches: self.blocks.iter().flat_map(|block| self.branches(block)).collect(),
            norm: self.norm.kernel(),
            last: self.last.affine(),
        })
    }
}

impl<E: Scalar> Module<E> for Norm<E> {
    module_fields!(E; parameter weight, parameter bias);
}

impl<E: Scalar> Module<E> for Block<E> {
    fn visit<'m>(&'m self, visitor: &mut Visitor<'_, 'm, E>) {
        visitor.child("mixing_norm", &self.mixing_norm);
        self.mixing.iter().enumerate().for_each(|(i, layer)| visitor.child(format_args!("mixing.{i}"), layer));
        visitor.child("norm", &self.norm);
        self.mlp.iter().enumerate().for_each(|(i, layer)| visitor.child(format_args!("mlp.{i}"), layer));
    }
    fn visit_mut<'m>(&'m mut self, visitor: &mut VisitorMut<'_, 'm, E>) {
        visitor.child("mixing_norm", &mut self.mixing_norm);
        self.mixing.iter_mut().enumerate().for_each(|(i, layer)| visitor.child(format_args!("mixing.{i}"), layer));
        visitor.child("norm", &mut self.norm);
        self.mlp.iter_mut().enumerate().for_each(|(i, layer)| visitor.child(format_args!("mlp.{i}"), layer));
    }
}

impl<E: Scalar> Module<E> for TokenNet<E> {
    fn visit<'m>(&'m self, visitor: &mut Visitor<'_, 'm, E>) {
        visitor.child("embedding", &self.embedding);
        if let Some(positions) = &self.positions {
            visitor.parameter("positions", positions);
        }
        if let Some(condition) = &self.condition {
            visitor.parameter("condition", condition);
        }
        visitor.child("blocks", &self.blocks);
        visitor.child("norm", &self.norm);
        visitor.child("final", &self.last);
    }
    fn visit_mut<'m>(&'m mut self, visitor: &mut VisitorMut<'_, 'm, E>) {
        visitor.child("embedding", &mut self.embedding);
        if let Some(positions) = &mut self.positions {
            visitor.parameter("positions", positions);
        }
        if let Some(condition) = &mut self.condition {
            visitor.parameter("condition", condition);
        }
        visitor.child("blocks", &mut self.blocks);
        visitor.child("norm", &mut self.norm);
        visitor.child("final", &mut self.last);
    }
}
