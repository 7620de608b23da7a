//! Smooth activations with their first two derivatives.

use flow_kernels::Real;
use flow_kernels::scalar::{exp, exp_m1, sigmoid, sigmoid_with_derivative, softplus, tanh};
use serde::{Deserialize, Serialize};

/// A smooth activation φ.
///
/// | φ | formula | Lipschitz constant |
/// |---|---|---|
/// | `Tanh` | tanh z | 1 |
/// | `Softplus` | ln(1 + eᶻ) | 1 |
/// | `Silu` | z σ(z) | 1.0999 |
/// | `Elu` | z for z > 0, else eᶻ − 1 (its second derivative jumps at 0) | 1 |
/// | `LipSwish` | z σ(b z) / 1.1, b = softplus(β), β learned | 1 |
/// | `CLipSwish` | `[LipSwish(z) ; LipSwish(−z)]` / 1.004: twice the width | 1 |
///
/// Sources: Chen et al. 2019, "Residual Flows for Invertible Generative Modeling", section 3.3 (arXiv:1906.02735) for
/// `LipSwish`; Perugachi-Diaz et al. 2021, "Invertible `DenseNets` with Concatenated `LipSwish`", section 3.3
/// (arXiv:2102.02694) for `CLipSwish`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum Activation {
    /// tanh z.
    Tanh,
    /// ln(1 + eᶻ).
    Softplus,
    /// z σ(z), also called swish.
    Silu,
    /// z for z > 0, else eᶻ − 1.
    Elu,
    /// z σ(softplus(β) z) / 1.1 with learned β.
    #[default]
    LipSwish,
    /// `[LipSwish(z) ; LipSwish(−z)]` / 1.004 with learned β.
    CLipSwish,
}

/// Chen et al. divide by 1.1: max |d/dz z σ(b z)| = 1.09984 for every b.
const LIP_SWISH: f64 = 1.1;
/// max of ‖d/dz `[LipSwish(z) ; LipSwish(−z)]`‖₂ is 1.00397 for every b.
const C_LIP_SWISH: f64 = 1.004;

impl Activation {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Tanh, Self::Softplus, Self::Silu, Self::Elu, Self::LipSwish, Self::CLipSwish];
    /// The β that training starts from (Chen et al. 2019).
    pub const INITIAL_BETA: f64 = 0.5;

    /// An upper bound on the Lipschitz constant in the 2-norm, whatever β is; tight to four digits.
    pub fn lipschitz(self) -> f64 {
        match self {
            Self::Silu => 1.0999,
            Self::Tanh | Self::Softplus | Self::Elu | Self::LipSwish | Self::CLipSwish => 1.0,
        }
    }

    /// Outputs per input: 2 for the concatenated one, else 1.
    pub fn branches(self) -> usize {
        if self == Self::CLipSwish { 2 } else { 1 }
    }

    /// Whether it has the parameter β.
    pub fn has_beta(self) -> bool {
        matches!(self, Self::LipSwish | Self::CLipSwish)
    }
}

/// φ of one branch: value, first and second derivative, from one evaluation of the exponential.
pub(super) trait Smooth<E>: Copy {
    fn eval(self, z: E) -> [E; 3];

    /// φ″ alone, where φ and φ′ are known.
    #[inline(always)]
    fn bend(self, z: E, _: E, _: E) -> E {
        let [.., d2] = self.eval(z);
        d2
    }
}

#[derive(Clone, Copy)]
pub(super) struct Tanh;
impl<E: Real> Smooth<E> for Tanh {
    #[inline(always)]
    fn eval(self, z: E) -> [E; 3] {
        let f = tanh(z);
        let d = E::one() - f * f;
        [f, d, self.bend(z, f, d)]
    }

    #[inline(always)]
    fn bend(self, _: E, f: E, d: E) -> E {
        -(f + f) * d
    }
}

#[derive(Clone, Copy)]
pub(super) struct Softplus;
impl<E: Real> Smooth<E> for Softplus {
    #[inline(always)]
    fn eval(self, z: E) -> [E; 3] {
        let (d, d2) = sigmoid_with_derivative(z);
        [softplus(z), d, d2]
    }
}

#[derive(Clone, Copy)]
pub(super) struct Elu;
impl<E: Real> Smooth<E> for Elu {
    #[inline(always)]
    fn eval(self, z: E) -> [E; 3] {
        let negative = z < E::zero();
        let below = if negative { z } else { E::zero() };
        let e = exp(below);
        if negative { [exp_m1(below), e, e] } else { [z, E::one(), E::zero()] }
    }
}

/// c z σ(b z).
#[derive(Clone, Copy)]
pub(super) struct Swish<E> {
    pub(super) b: E,
    pub(super) c: E,
}
impl<E: Real> Smooth<E> for Swish<E> {
    #[inline(always)]
    fn eval(self, z: E) -> [E; 3] {
        let u = self.b * z;
        let (s, ds) = sigmoid_with_derivative(u);
        let cs = self.c * s;
        [z * cs, cs + self.c * u * ds, self.c * self.b * ds * (E::of(2.0) + u * (E::one() - s - s))]
    }
}

/// An activation with its β, as the kernels evaluate it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Prepared<E> {
    pub(super) kind: Activation,
    /// b = softplus(β).
    b: E,
    /// ∂ ln b/∂β = σ(β)/softplus(β).
    pub(super) log_slope: E,
}

impl<E: Real> Prepared<E> {
    pub(super) fn new(kind: Activation, beta: E) -> Self {
        let b = softplus(beta);
        // The limit, where both have underflown.
        let log_slope = if b > E::zero() { sigmoid(beta) / b } else { E::one() };
        Self { kind, b, log_slope }
    }

    /// Calls `f` with the function of one branch.
    pub(super) fn with(self, f: impl WithSmooth<E>) {
        match self.kind {
            Activation::Tanh => f.call(Tanh),
            Activation::Softplus => f.call(Softplus),
            Activation::Elu => f.call(Elu),
            Activation::Silu => f.call(Swish { b: E::one(), c: E::one() }),
            Activation::LipSwish => f.call(Swish { b: self.b, c: E::of(1.0 / LIP_SWISH) }),
            Activation::CLipSwish => f.call(Swish { b: self.b, c: E::of(1.0 / (LIP_SWISH * C_LIP_SWISH)) }),
        }
    }
}

/// A pass that is compiled for every activation.
pub(super) trait WithSmooth<E> {
    fn call<P: Smooth<E>>(self, phi: P);
}
