//! The network g with a Lipschitz constant below 1.

use crate::setting::setting;
use crate::spectral::{BadWeight, PowerIteration, SpectralNorm};
use flow_api::module::{Visitor, VisitorMut};
use flow_api::{FlowError, Module, Parameter, Result, Scalar};
use flow_kernels::Real;
use flow_kernels::scalar::{sigmoid, softplus};
use flow_nets::smooth::{self, ConditionInput, Mlp, MlpConfig, MlpKernel, MlpLayer, Modulated};
use num_traits::Float;
use serde::{Deserialize, Serialize};

/// The nonlinearity of g, with a Lipschitz constant of at most 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Activation {
    /// z σ(softplus(β) z) / 1.1 with learned β (Chen et al. 2019, arXiv:1906.02735, section 3.3).
    #[default]
    LipSwish,
    /// `[LipSwish(z) ; LipSwish(−z)] / 1.004`: twice the width (Perugachi-Diaz et al. 2021, arXiv:2102.02694,
    /// section 3.3).
    CLipSwish,
    /// z for z > 0, else eᶻ − 1. Its second derivative jumps at 0, which the gradient of the log-det sees.
    Elu,
    /// tanh z.
    Tanh,
}

impl Activation {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::LipSwish, Self::CLipSwish, Self::Elu, Self::Tanh];
}

impl From<Activation> for smooth::Activation {
    fn from(activation: Activation) -> Self {
        match activation {
            Activation::LipSwish => Self::LipSwish,
            Activation::CLipSwish => Self::CLipSwish,
            Activation::Elu => Self::Elu,
            Activation::Tanh => Self::Tanh,
        }
    }
}

/// What a [`LipschitzMlp`] is made of.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct LipschitzConfig {
    pub(crate) dim: usize,
    pub(crate) hidden: usize,
    pub(crate) layers: usize,
    pub(crate) coefficient: f64,
    pub(crate) activation: Activation,
    pub(crate) dense: bool,
    pub(crate) zero_init: bool,
    pub(crate) power_iteration: PowerIteration,
    /// Width of the condition, 0 without one.
    pub(crate) condition: usize,
}

/// A multilayer perceptron on R^d whose every layer has a Lipschitz constant of at most c′ = c (1 + tolerance) in the
/// 2-norm, with the tolerance of its [`PowerIteration`], which keeps c′ below 1; so that the whole has one of at most
/// c′ⁿ (n layers).
///
/// Layer i multiplies with `W / max(1, σ(W)/c)`. The activations' constants are at most 1. Densely connected, a hidden
/// layer gives `[η₁ h ; η₂ φ(W h + b)]` with (η₁, η₂) = c (a, b)/√(a² + b²), a and b = softplus(K) + 0.1 with learned K
/// (Perugachi-Diaz et al. 2021, "Invertible `DenseNets`", arXiv:2102.02694, section 3.2).
///
/// A condition is a further input of the first layer, W x + C c + b ([`ConditionInput`]). The bound is one on the
/// dependence on x, so W alone is divided by its norm: C may be as large as it likes.
///
/// # Parameters and state
/// `net.layers.{i}.weight` (out × in), `.bias` (out), `.beta` (1, raw: before the softplus; `LipSwish` and
/// `CLipSwish`), `concat.{i}` (the two K of a hidden layer, densely connected), `condition.weight` (C), and the state
/// of the power iteration, `spectral.{i}.u`, `.v` and `.weights` (a hash of the weights that u and v belong to).
#[derive(Debug, Clone)]
pub struct LipschitzMlp<E: Scalar> {
    net: Mlp<E>,
    concat: Vec<Parameter<E>>,
    condition: ConditionInput<E>,
    norms: Vec<SpectralNorm<E>>,
    coefficient: E,
    power_iteration: PowerIteration,
}

impl<E: Scalar> LipschitzMlp<E> {
    pub(crate) fn new(config: &LipschitzConfig, seed: u64) -> Result<Self> {
        let &LipschitzConfig { dim, hidden, layers, coefficient, activation, dense, zero_init, power_iteration, condition } = config;
        if layers == 0 {
            return Err(setting("layers", "at least 1", 0));
        }
        // What is below 1 may be 1 in fewer digits.
        let bound = E::of(coefficient);
        if !(bound > E::zero() && bound < E::one()) {
            let expected = format!("a number greater than 0 and less than 1 in {}", std::any::type_name::<E>());
            return Err(setting("coefficient", &expected, coefficient));
        }
        let sizes = MlpConfig {
            activation: activation.into(),
            concat: dense,
            zero_last: zero_init,
            ..MlpConfig::new(dim, vec![hidden; layers - 1], dim)
        };
        let net = Mlp::new(&sizes, seed)?;
        let concat = if dense { layers - 1 } else { 0 };
        let concat = (0..concat).map(|_| Parameter::new(&[2], vec![E::zero(); 2])).collect();
        let condition = ConditionInput::new(net.layers().first().map_or(0, |layer| layer.shape().0), condition, seed)?;
        let tolerance = power_iteration.tolerance.min((1.0 / bound.as_f64() - 1.0) / 2.0);
        let power_iteration = PowerIteration { tolerance, ..power_iteration };
        let norm = |(i, layer): (usize, &MlpLayer<E>)| {
            SpectralNorm::new(layer.weight().values(), layer.shape().0, tolerance).map_err(|got| bad_weight(i, got))
        };
        let norms = net.layers().iter().enumerate().map(norm).collect::<Result<_>>()?;
        Ok(Self { net, concat, condition, norms, coefficient: bound, power_iteration })
    }

    /// The network with its parameters.
    pub fn net(&self) -> &Mlp<E> {
        &self.net
    }

    /// How the condition enters.
    pub fn condition(&self) -> &ConditionInput<E> {
        &self.condition
    }

    /// c.
    pub fn coefficient(&self) -> f64 {
        self.coefficient.as_f64()
    }

    /// σ of every layer's weight, as the power iteration has it.
    pub fn spectral_norms(&self) -> Vec<f64> {
        self.net.layers().iter().zip(&self.norms).map(|(layer, norm)| norm.sigma(layer.weight().values()).as_f64()).collect()
    }

    /// W / max(1, σ/c) of every layer, out × in.
    pub fn normalised_weights(&self) -> Vec<Vec<E>> {
        self.normalised().map(std::borrow::Cow::into_owned).collect()
    }

    fn normalised(&self) -> impl Iterator<Item = std::borrow::Cow<'_, [E]>> {
        self.net.layers().iter().zip(&self.norms).map(|(layer, norm)| norm.normalised(layer.weight().values(), self.coefficient))
    }

    fn mixes(&self) -> impl Iterator<Item = Mix<E>> {
        self.concat.iter().map(|raw| Mix::new([raw.values()[0], raw.values()[1]], self.coefficient))
    }

    /// The kernel with normalised weights.
    pub(crate) fn kernel(&self) -> Result<MlpKernel<'_, E>> {
        let eta: Vec<[E; 2]> = self.mixes().map(|mix| mix.eta()).collect();
        self.net.kernel_with(self.normalised(), &eta, Modulated::No)
    }

    /// The way from gradients of normalised weights to those of the parameters, on the host.
    pub(crate) fn chain_rule(&self) -> ChainRule<'_, E> {
        let layers = self.net.layers().iter().zip(&self.norms);
        let layers = layers.map(|(layer, norm)| {
            let others = layer.bias().values().len() + usize::from(layer.beta().is_some());
            (layer.weight().values(), norm, others)
        });
        ChainRule { layers: layers.collect(), mixes: self.mixes().collect(), coefficient: self.coefficient }
    }
}

/// What a kernel needs of a network to find its parameters' gradients.
pub(crate) struct ChainRule<'a, E> {
    /// Weights, their norm, and how many biases and βs follow.
    layers: Vec<(&'a [E], &'a SpectralNorm<E>, usize)>,
    mixes: Vec<Mix<E>>,
    coefficient: E,
}

impl<E: Scalar> ChainRule<'_, E> {
    /// Adds the gradients of the parameters but the condition's, which come last, in the order of the visit, given the
    /// sums of `kernel`, which are those of the normalised weights.
    pub(crate) fn add_gradients(&self, kernel: &MlpKernel<'_, E>, sums: &[E], mut gradients: &mut [E]) {
        let mut take = |len: usize| {
            let (own, rest) = std::mem::take(&mut gradients).split_at_mut(len);
            gradients = rest;
            own
        };
        for (i, &(weight, norm, others)) in self.layers.iter().enumerate() {
            let places = kernel.layer_sums(i);
            norm.add_gradient(weight, self.coefficient, &sums[places.weight.clone()], take(weight.len()));
            let rest = sums[places.bias.clone()].iter().chain(places.beta.map(|at| &sums[at]));
            take(others).iter_mut().zip(rest).for_each(|(gradient, &sum)| *gradient += sum);
        }
        for (i, mix) in self.mixes.iter().enumerate() {
            let own = take(2);
            if let Some(at) = kernel.layer_sums(i).concat.clone() {
                let pulled = mix.pull([sums[at.start], sums[at.start + 1]]);
                own.iter_mut().zip(pulled).for_each(|(gradient, sum)| *gradient += sum);
            }
        }
    }
}

impl<E: Scalar> Module<E> for LipschitzMlp<E> {
    fn visit<'m>(&'m self, visitor: &mut Visitor<'_, 'm, E>) {
        visitor.child("net", &self.net);
        for (i, raw) in self.concat.iter().enumerate() {
            visitor.parameter(format_args!("concat.{i}"), raw);
        }
        visitor.child("condition", &self.condition);
        for (i, norm) in self.norms.iter().enumerate() {
            visitor.reals(format_args!("spectral.{i}.u"), &norm.u);
            visitor.reals(format_args!("spectral.{i}.v"), &norm.v);
            visitor.indices(format_args!("spectral.{i}.weights"), &norm.hash);
        }
    }

    fn visit_mut<'m>(&'m mut self, visitor: &mut VisitorMut<'_, 'm, E>) {
        visitor.child("net", &mut self.net);
        for (i, raw) in self.concat.iter_mut().enumerate() {
            visitor.parameter(format_args!("concat.{i}"), raw);
        }
        visitor.child("condition", &mut self.condition);
        for (i, norm) in self.norms.iter_mut().enumerate() {
            visitor.reals(format_args!("spectral.{i}.u"), &mut norm.u);
            visitor.reals(format_args!("spectral.{i}.v"), &mut norm.v);
            visitor.indices(format_args!("spectral.{i}.weights"), &mut norm.hash);
        }
    }

    fn refresh(&mut self) -> Result<()> {
        let mut layers = self.net.layers().iter().zip(&mut self.norms).enumerate();
        layers.try_for_each(|(i, (layer, norm))| {
            norm.refresh(layer.weight().values(), self.power_iteration).map_err(|got| bad_weight(i, got))
        })
    }
}

/// The error for the weight of layer i, of which no norm can be found.
fn bad_weight(i: usize, got: BadWeight) -> FlowError {
    let expected = "finite numbers, and a spectral norm with a finite square".to_owned();
    FlowError::Setting { layer: format!("net.layers.{i}"), field: "weight", expected, got: format!("{:e}", got.0) }
}

/// The two learned factors of a densely connected layer.
pub(crate) struct Mix<E> {
    raw: [E; 2],
    /// softplus(K) + 0.1.
    parts: [E; 2],
    coefficient: E,
}

impl<E: Real> Mix<E> {
    fn new(raw: [E; 2], coefficient: E) -> Self {
        Self { raw, parts: raw.map(|k| softplus(k) + E::of(0.1)), coefficient }
    }

    fn size(&self) -> E {
        Float::hypot(self.parts[0], self.parts[1])
    }

    /// η₁, η₂ with η₁² + η₂² = c².
    fn eta(&self) -> [E; 2] {
        self.parts.map(|part| self.coefficient * part / self.size())
    }

    /// ∂L/∂K from ∂L/∂η.
    fn pull(&self, eta: [E; 2]) -> [E; 2] {
        let size = self.size();
        let along = (eta[0] * self.parts[0] + eta[1] * self.parts[1]) / (size * size);
        std::array::from_fn(|i| self.coefficient / size * (eta[i] - along * self.parts[i]) * sigmoid(self.raw[i]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mixes_are_normalised_and_their_gradient_is_theirs() {
        for raw in [[0.0, 0.0], [-3.0, 2.0], [10.0, -40.0], [0.7, 0.1]] {
            let eta = |raw| Mix::new(raw, 0.9_f64).eta();
            assert!((eta(raw)[0].hypot(eta(raw)[1]) - 0.9).abs() < 1e-15 && eta(raw).iter().all(|&e| e > 0.0));
            let weights = [0.3, -0.8];
            let loss = |raw| eta(raw).iter().zip(weights).map(|(e, w)| e * w).sum::<f64>();
            let own = Mix::new(raw, 0.9).pull(weights);
            for (i, own) in own.into_iter().enumerate() {
                let shifted = |by: f64| loss(std::array::from_fn(|j| raw[j] + if i == j { by } else { 0.0 }));
                let expected = (shifted(1e-5) - shifted(-1e-5)) / 2e-5;
                assert!((own - expected).abs() < 1e-9, "{raw:?}: {expected}, got {own}");
            }
        }
    }
}
