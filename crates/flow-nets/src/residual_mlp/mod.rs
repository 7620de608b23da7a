//! The residual MLP that conditions couplings.

mod activation;
mod epilogue;
mod folded;
mod kernel;
mod linear;
mod plain;

pub use activation::Activation;
pub(crate) use activation::{Gelu, Nonlinear, Relu, Silu, Tanh};
pub(crate) use epilogue::{Activated, ActivatedBeside, Pulled, Shifted};
pub use kernel::ResidualMlpKernel;

use crate::{ConditionerKernel, ConditionerNet, TapedNet};
use flow_api::device::{LinearForm, NetForm};
use flow_api::spec::{MAX_SIZE, MAX_WEIGHTS, size_range};
use flow_api::{FlowError, Module, Parameter, Result, Scalar, module_fields};
pub(crate) use linear::{Affine, Weight, add_rows, rows};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::borrow::Cow;

/// Sizes of a [`ResidualMlp`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ResidualMlpConfig {
    /// Numbers that go in.
    pub inputs: usize,
    /// Width of the condition, 0 without one: it is appended to the input.
    pub condition: usize,
    /// Numbers that come out.
    pub outputs: usize,
    /// Width of the hidden layers.
    pub hidden: usize,
    /// Residual blocks of two linear layers each.
    pub blocks: usize,
    /// The nonlinearity φ.
    pub activation: Activation,
}

/// h = W x + b; per block h ← h + W₁ φ(W₀ φ(h) + b₀) + b₁; out = V h + c.
///
/// The pre-activation residual network that "Neural Spline Flows" conditions its couplings with (Durkan et al.,
/// arXiv:1906.04032, appendix B.1), without dropout and batch normalisation.
///
/// # Parameters
/// `initial.weight`, `initial.bias`, `blocks.{k}.{0,1}.weight`, `blocks.{k}.{0,1}.bias`, `final.weight`, `final.bias`;
/// weights (outputs × inputs), row-major.
///
/// # Initialisation
/// Weights and biases uniform in ±1/√inputs (`PyTorch`'s default), except the last linear layer of every block, uniform
/// in ±10⁻³, and `final`, which is zero: the network starts as zero, so that a coupling starts as the identity. Values
/// are a function of the seed and the same in every number type.
///
/// ```
/// use flow_nets::{Activation, ResidualMlp, ResidualMlpConfig};
/// use flow_api::module::parameter_count;
/// use flow_api::rows::RowTape;
/// let config = ResidualMlpConfig { inputs: 2, condition: 0, outputs: 3, hidden: 8, blocks: 1, activation: Activation::Relu };
/// let net = ResidualMlp::<f32>::new(config, 7)?;
/// assert_eq!(parameter_count(&net), (2 + 1) * 8 + 2 * (8 + 1) * 8 + (8 + 1) * 3);
/// // Four rows, feature-major.
/// let output = net.kernel(4).forward(&[0.5; 8], None, 4, &mut RowTape::idle())?;
/// assert_eq!(output[..], [0.0; 12]);
/// # Ok::<(), flow_api::FlowError>(())
/// ```
#[derive(Clone, Debug)]
pub struct ResidualMlp<E: Scalar> {
    config: ResidualMlpConfig,
    /// The outputs are of so many parts one after the other.
    parts: usize,
    initial: Linear<E>,
    blocks: Vec<[Linear<E>; 2]>,
    last: Linear<E>,
}

#[derive(Clone, Debug)]
pub(crate) struct Linear<E: Scalar> {
    pub(crate) weight: Parameter<E>,
    pub(crate) bias: Parameter<E>,
}

/// What the last linear layer of a block starts below.
const BLOCK_OUTPUT_BOUND: f64 = 1e-3;

impl<E: Scalar> Linear<E> {
    /// Uniform in ±`bound`.
    pub(crate) fn new(inputs: usize, outputs: usize, bound: f64, rng: &mut ChaCha8Rng) -> Self {
        let mut uniform = |len: usize| (0..len).map(|_| E::of(rng.gen_range(-1.0..1.0) * bound)).collect();
        Self { weight: Parameter::new(&[outputs, inputs], uniform(outputs * inputs)), bias: Parameter::new(&[outputs], uniform(outputs)) }
    }

    pub(crate) fn affine(&self) -> Affine<'_, E> {
        Affine::new(self.weight.values(), self.bias.values())
    }

    /// The same, with outputs that lie part after part feature by feature.
    fn affine_by_feature(&self, parts: usize) -> Affine<'_, E> {
        if parts == 1 {
            return self.affine();
        }
        let outputs = self.bias.values().len();
        let by_feature = |rows: &[E]| -> Cow<'_, [E]> {
            let (width, mut turned) = (rows.len() / outputs, rows.to_vec());
            for (row, from) in rows.chunks_exact(width).enumerate() {
                turned[kernel::by_part(row, outputs, parts) * width..][..width].copy_from_slice(from);
            }
            Cow::Owned(turned)
        };
        Affine::new(by_feature(self.weight.values()), by_feature(self.bias.values()))
    }

    fn device_form(&self) -> LinearForm<'_, E> {
        LinearForm { weight: Cow::Borrowed(self.weight.values()), bias: self.bias.values(), masked: Vec::new() }
    }
}

impl<E: Scalar> ResidualMlp<E> {
    /// A network of these sizes with initial parameters drawn from `seed`.
    ///
    /// # Errors
    /// [`FlowError::Setting`] for a size of zero (a condition of width zero is none), and for more than [`MAX_SIZE`]
    /// units or blocks or [`MAX_WEIGHTS`] weights.
    pub fn new(config: ResidualMlpConfig, seed: u64) -> Result<Self> {
        let ResidualMlpConfig { inputs, condition, outputs, hidden, blocks, .. } = config;
        for (field, value) in [("inputs", inputs), ("outputs", outputs), ("hidden", hidden), ("blocks", blocks)] {
            let most = if matches!(field, "hidden" | "blocks") { MAX_SIZE } else { usize::MAX };
            if value == 0 || value > most {
                let expected = if most == MAX_SIZE { size_range(1) } else { "at least 1".to_owned() };
                return Err(FlowError::Setting { layer: "ResidualMlp".to_owned(), field, expected, got: value.to_string() });
            }
        }
        let each = [inputs, condition, outputs].into_iter().fold(2 * blocks * hidden, usize::saturating_add);
        let weights = hidden.saturating_mul(each);
        if weights > MAX_WEIGHTS {
            let expected = format!("a network of at most {MAX_WEIGHTS} weights");
            return Err(FlowError::Setting { layer: "ResidualMlp".to_owned(), field: "hidden", expected, got: weights.to_string() });
        }
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let default_bound = |inputs: usize| 1.0 / (inputs as f64).sqrt();
        let mut linear = |inputs, outputs, bound| Linear::new(inputs, outputs, bound, &mut rng);
        Ok(Self {
            config,
            parts: 1,
            initial: linear(inputs + condition, hidden, default_bound(inputs + condition)),
            blocks: (0..blocks)
                .map(|_| [linear(hidden, hidden, default_bound(hidden)), linear(hidden, hidden, BLOCK_OUTPUT_BOUND)])
                .collect(),
            last: linear(hidden, outputs, 0.0),
        })
    }

    /// The same network, whose last layer has its outputs part after part and gives them feature by feature: `final`'s
    /// row k M + j is output j · `parts` + k, for M = outputs / `parts` features. So the weights of an affine coupling
    /// lie as those of other implementations do, log-scales before shifts, whatever order their reader asks for.
    ///
    /// # Errors
    /// [`FlowError::Setting`] for a number of parts that does not divide the outputs.
    pub fn with_parts(self, parts: usize) -> Result<Self> {
        if !self.config.outputs.is_multiple_of(parts) {
            let expected = format!("a divisor of {} outputs", self.config.outputs);
            return Err(FlowError::Setting { layer: "ResidualMlp".to_owned(), field: "parts", expected, got: parts.to_string() });
        }
        Ok(Self { parts, ..self })
    }

    /// Its sizes.
    pub fn config(&self) -> &ResidualMlpConfig {
        &self.config
    }

    /// Multiply-adds of matrix products for one row, layer after layer; a [`kernel`](Self::kernel) for many rows does
    /// with fewer.
    pub fn multiply_adds(&self) -> u64 {
        let ResidualMlpConfig { inputs, condition, outputs, hidden, blocks, .. } = self.config;
        (hidden * (inputs + condition + 2 * blocks * hidden + outputs)) as u64
    }

    /// The kernel for one call with so many rows in all. For many rows the linear layers behind the last activation, V
    /// and W₁ in V (h + W₁ v + b₁) + c, are multiplied together once.
    pub fn kernel(&self, rows: usize) -> ResidualMlpKernel<'_, E> {
        let blocks = self.blocks.iter().map(|[first, second]| [first.affine(), second.affine()]);
        let last = (self.last.affine_by_feature(self.parts), self.parts);
        ResidualMlpKernel::new(&self.config, self.initial.affine(), blocks.collect(), last, rows)
    }

    /// The kernel with every layer made by `prepare`, which gets a layer and its place: 0, those of the blocks, and the
    /// last.
    pub(crate) fn kernel_of<'a>(
        &'a self,
        rows: usize,
        prepare: impl Fn(usize, &'a Linear<E>) -> Affine<'a, E>,
    ) -> ResidualMlpKernel<'a, E> {
        let mut layers = self.layers().enumerate().map(|(at, layer)| prepare(at, layer));
        let mut next = || layers.next().unwrap_or_else(|| prepare(0, &self.initial));
        let initial = next();
        let blocks = self.blocks.iter().map(|_| [next(), next()]).collect();
        ResidualMlpKernel::new(&self.config, initial, blocks, (next(), 1), rows)
    }

    /// What it is on a device with every layer made by `prepare`, which gets a layer and its place.
    pub(crate) fn device_form_of<'a>(&'a self, prepare: impl Fn(usize, &'a Linear<E>) -> LinearForm<'a, E>) -> NetForm<'a, E> {
        let blocks = self.blocks.iter().enumerate();
        NetForm {
            activation: self.config.activation.into(),
            initial: prepare(0, &self.initial),
            blocks: blocks.map(|(k, [first, second])| [prepare(2 * k + 1, first), prepare(2 * k + 2, second)]).collect(),
            last: prepare(2 * self.blocks.len() + 1, &self.last),
            parts: self.parts,
        }
    }

    /// All layers, in the order of the visit.
    pub(crate) fn layers(&self) -> impl Iterator<Item = &Linear<E>> {
        std::iter::once(&self.initial).chain(self.blocks.iter().flatten()).chain([&self.last])
    }
}

impl<E: Scalar> ConditionerNet<E> for ResidualMlp<E> {
    fn inputs(&self) -> usize {
        self.config.inputs
    }

    fn condition(&self) -> usize {
        self.config.condition
    }

    fn outputs(&self) -> usize {
        self.config.outputs
    }

    fn multiply_adds(&self) -> u64 {
        self.multiply_adds()
    }

    fn kernel<'a>(&'a self, rows: usize) -> Box<dyn ConditionerKernel<E> + 'a> {
        Box::new(self.kernel(rows))
    }

    fn device_form(&self) -> Option<NetForm<'_, E>> {
        Some(self.device_form_of(|_, layer| layer.device_form()))
    }

    fn taped(&self) -> Option<&dyn TapedNet<E>> {
        Some(self)
    }
}

impl<E: Scalar> Module<E> for Linear<E> {
    module_fields!(E; parameter weight, parameter bias);
}

impl<E: Scalar> Module<E> for ResidualMlp<E> {
    module_fields!(E; child initial, child blocks, child last as "final");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sizes that each are allowed, but make a network that no memory holds.
    #[test]
    fn networks_of_too_many_weights_are_refused() {
        let small = ResidualMlpConfig { inputs: 2, condition: 0, outputs: 3, hidden: 8, blocks: 1, activation: Activation::Relu };
        for (config, got) in [
            (ResidualMlpConfig { hidden: MAX_SIZE, blocks: MAX_SIZE, ..small }, "8796093104128"),
            (ResidualMlpConfig { outputs: 1 << 26, ..small }, "536871056"),
            (ResidualMlpConfig { inputs: usize::MAX, condition: usize::MAX, ..small }, "18446744073709551615"),
        ] {
            let error = ResidualMlp::<f32>::new(config, 7).unwrap_err();
            assert_eq!(error.to_string(), format!("ResidualMlp: hidden: expected a network of at most 268435456 weights, got {got}"));
        }
    }
}
