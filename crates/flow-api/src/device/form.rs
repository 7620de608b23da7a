//! What flows are on a device: numbers and sizes, without a type of any engine.

use super::MissingForm;
use crate::rows::{AffineMap, RowView};
use crate::{Context, Scalar};
use std::borrow::Cow;

/// A flow on rows of R^d, as one part of a list that is run in order.
#[non_exhaustive]
pub enum RowForm<'a, E: Scalar> {
    /// y = W x + b.
    Affine {
        /// W, b, their inverse and log|det W|; it takes their gradients too.
        map: Box<dyn AffineMap<E> + 'a>,
        /// Parameters that the map is made of.
        parameters: usize,
    },
    /// Some features condition what is done to the others.
    Coupling(CouplingForm<'a, E>),
    /// Every feature is conditioned by those before it: kept and moved are all features in their order, and masks of
    /// the network see to it that numbers of a feature come of earlier ones. The inverse goes feature by feature.
    Autoregressive(CouplingForm<'a, E>),
    /// Every feature goes through a map by itself.
    Elements(ElementsForm<'a, E>),
    /// There is no form.
    Missing(MissingForm),
}

impl<E: Scalar> RowForm<'_, E> {
    /// For the flow of this kind at the context's path there is no form.
    pub fn missing(cx: &Context<E>, kind: &str, reason: impl Into<String>) -> Self {
        Self::Missing(MissingForm { path: cx.path().to_owned(), kind: kind.to_owned(), reason: reason.into() })
    }
}

/// A map of every feature by itself, with parameters of its own for each.
pub struct ElementsForm<'a, E: Clone> {
    /// The map.
    pub map: Snippet,
    /// The first parameter of all features, the second of all.
    pub parameters: Cow<'a, [E]>,
}

/// An increasing map of one number as text in CUDA C, which an engine of CUDA compiles into its kernels: what a flow of
/// one's own brings to run there. It takes parameters p of the feature (for a coupling what its network gives) and
/// settings s that all features share.
///
/// The text has two functions, and a third if `inverse` says so:
///
/// ```c
/// // f(x), and ln f′(x).
/// __device__ float forward(float x, const float* p, const float* s, float& log_slope);
/// // ∂L/∂x given ∂L/∂f(x) and ∂L/∂ln f′(x), and ∂L/∂p.
/// __device__ float pullback(float x, const float* p, const float* s, float for_y, float for_log_slope, float* for_p);
/// // The x of y, and ln f′(x).
/// __device__ float inverse(float y, const float* p, const float* s, float& log_slope);
/// ```
///
/// Without the third a map of all of ℝ is inverted by Newton's method within a bracket. Every text is in a namespace of
/// its own, so that names in two of them do not meet. Where a map is not defined, its value is to be no number: the
/// call's error then names the sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Snippet {
    /// Name of the kind, as in specs.
    pub kind: &'static str,
    /// The functions.
    pub text: Cow<'static, str>,
    /// Parameters of a feature.
    pub parameters: usize,
    /// s.
    pub settings: Vec<f64>,
    /// There is an `inverse`.
    pub inverse: bool,
}

/// A coupling with a residual MLP.
pub struct CouplingForm<'a, E: Clone> {
    /// Features that pass and condition the others, in the order in which the network takes them.
    pub kept: Vec<usize>,
    /// Features that are moved, in the order in which the network's numbers are theirs.
    pub moved: Vec<usize>,
    /// Width of the condition, one vector a sample, which the network takes behind the kept features; 0 without one.
    pub condition: usize,
    /// The network of the kept features.
    pub net: NetForm<'a, E>,
    /// What is done to the moved features.
    pub transformer: TransformerForm,
}

/// A residual MLP: h = W x + b; per block h ← h + W₁ φ(W₀ φ(h) + b₀) + b₁; out = V h + c.
pub struct NetForm<'a, E: Clone> {
    /// φ.
    pub activation: ActivationForm,
    /// W.
    pub initial: LinearForm<'a, E>,
    /// W₀ and W₁ of every block.
    pub blocks: Vec<[LinearForm<'a, E>; 2]>,
    /// V.
    pub last: LinearForm<'a, E>,
    /// Parts that the outputs lie in, one after the other: 2 for log-scales of all features before shifts of all
    /// features.
    pub parts: usize,
}

impl<'a, E: Clone> NetForm<'a, E> {
    /// All layers in the order of their parameters.
    pub fn layers(&self) -> impl Iterator<Item = &LinearForm<'a, E>> {
        std::iter::once(&self.initial).chain(self.blocks.iter().flatten()).chain(std::iter::once(&self.last))
    }
}

/// y = W x + b; the parameters are W, then b.
pub struct LinearForm<'a, E: Clone> {
    /// W, outputs × inputs, row-major; zero where it is masked.
    pub weight: Cow<'a, [E]>,
    /// b.
    pub bias: &'a [E],
    /// Where weights are masked, which then have no gradient; empty without a mask.
    pub masked: Vec<bool>,
}

impl<E: Clone> LinearForm<'_, E> {
    /// Numbers that come out.
    pub fn outputs(&self) -> usize {
        self.bias.len()
    }

    /// Numbers that go in.
    pub fn inputs(&self) -> usize {
        self.weight.len() / self.bias.len().max(1)
    }
}

/// The nonlinearity of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ActivationForm {
    /// max(x, 0).
    Relu,
    /// x σ(x).
    Silu,
    /// tanh x.
    Tanh,
    /// x (1 + tanh(√(2/π)(x + 0.044715 x³))) / 2.
    Gelu,
}

/// What a coupling does to a moved feature.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum TransformerForm {
    /// y = x + t.
    Additive,
    /// y = x e^s + t with s = c tanh(r / c); the network gives r of all moved features, then t of all.
    Affine {
        /// c.
        bound: f64,
    },
    /// y = (x + t) e^s with e^s = m/(1 + (m − 1) e^(−r)); the network gives r and t.
    SigmoidAffine {
        /// m.
        max_scale: f64,
    },
    /// A rational-quadratic spline, whose formulas are those of `flow_nets::RationalQuadratic`; the network gives the
    /// numbers of the widths, of the heights and of the inner slopes.
    Spline(SplineForm),
    /// A map of one's own; the network gives its parameters.
    Custom(Snippet),
}

impl TransformerForm {
    /// Numbers that the network gives for a feature.
    pub fn parameters(&self) -> usize {
        match self {
            Self::Additive => 1,
            Self::Affine { .. } | Self::SigmoidAffine { .. } => 2,
            Self::Spline(spline) => 3 * spline.bins - 1,
            Self::Custom(snippet) => snippet.parameters,
        }
    }
}

/// A spline of K bins on \[−B, B\], the identity outside. Widths and heights of bins are a softmax times `scale` plus
/// `least`, slopes at inner knots are `least_slope` + softplus(number + `offset`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SplineForm {
    /// K.
    pub bins: usize,
    /// B.
    pub bound: f64,
    /// Size of a bin per unit of softmax.
    pub scale: f64,
    /// Size of a bin at the least.
    pub least: f64,
    /// What is added to a slope's number.
    pub offset: f64,
    /// The least slope.
    pub least_slope: f64,
}

/// Row flows on the rows of a view of the sample, which they change in place.
pub struct SideForm<'a, E: Scalar> {
    /// Dotted path.
    pub path: String,
    /// Which numbers of a sample are its rows.
    pub view: Cow<'a, RowView>,
    /// The flows in order.
    pub parts: Vec<RowForm<'a, E>>,
}

impl<'a, E: Scalar> SideForm<'a, E> {
    /// These flows on the rows of `view`, at the context's path.
    pub fn new(cx: &Context<E>, view: Cow<'a, RowView>, parts: Vec<RowForm<'a, E>>) -> Self {
        Self { path: cx.path().to_owned(), view, parts }
    }

    /// For the layer of this kind at the context's path there is no form.
    pub fn missing(cx: &Context<E>, kind: &str, reason: impl Into<String>) -> Self {
        Self::new(cx, Cow::Owned(RowView::single(0)), vec![RowForm::missing(cx, kind, reason)])
    }
}

/// All parts without a form.
pub fn missing_forms<E: Scalar>(sides: &[SideForm<'_, E>]) -> Vec<MissingForm> {
    let parts = sides.iter().flat_map(|side| &side.parts);
    let missing = parts.filter_map(|part| if let RowForm::Missing(missing) = part { Some(missing.clone()) } else { None });
    missing.collect()
}
