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
    /// There is no form.
    Missing(MissingForm),
}

impl<E: Scalar> RowForm<'_, E> {
    /// For the flow of this kind at the context's path there is no form.
    pub fn missing(cx: &Context<E>, kind: &str, reason: impl Into<String>) -> Self {
        Self::Missing(MissingForm { path: cx.path().to_owned(), kind: kind.to_owned(), reason: reason.into() })
    }
}

/// A coupling with a residual MLP.
pub struct CouplingForm<'a, E> {
    /// Features that pass and condition the others, in the order in which the network takes them.
    pub kept: Vec<usize>,
    /// Features that are moved, in the order in which the network's numbers are theirs.
    pub moved: Vec<usize>,
    /// The network of the kept features.
    pub net: NetForm<'a, E>,
    /// What is done to the moved features.
    pub transformer: TransformerForm,
}

/// A residual MLP: h = W x + b; per block h ← h + W₁ φ(W₀ φ(h) + b₀) + b₁; out = V h + c.
pub struct NetForm<'a, E> {
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

impl<'a, E> NetForm<'a, E> {
    /// All layers in the order of their parameters.
    pub fn layers(&self) -> impl Iterator<Item = &LinearForm<'a, E>> {
        std::iter::once(&self.initial).chain(self.blocks.iter().flatten()).chain(std::iter::once(&self.last))
    }
}

/// y = W x + b; the parameters are W, then b.
pub struct LinearForm<'a, E> {
    /// W, outputs × inputs, row-major.
    pub weight: &'a [E],
    /// b.
    pub bias: &'a [E],
}

impl<E> LinearForm<'_, E> {
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
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum TransformerForm {
    /// y = x + t.
    Additive,
    /// y = x e^s + t with s = c tanh(r / c); the network gives r of all moved features, then t of all.
    Affine {
        /// c.
        bound: f64,
    },
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
