//! Which transformers make a kind of coupling, and how their weights are saved.

use flow_api::Scalar;
use flow_nets::{Additive, Affine, RationalQuadratic, Transformer};

/// A [`Transformer`] that couplings are made of.
pub trait CouplingTransformer<E: Scalar>: Transformer<E> {
    /// Name of the coupling that it makes, as in specs.
    const KIND: &'static str;

    /// Parts that the rows of a [`Coupling`](crate::Coupling)'s last layer lie in, one after the other, in place of
    /// feature by feature: 2 for log-scales of all features before shifts of all features
    /// ([`ResidualMlp::with_parts`](flow_nets::ResidualMlp::with_parts)). It decides how weights are saved and nothing
    /// else.
    const PARTS: usize = 1;
}

impl<E: Scalar> CouplingTransformer<E> for Additive {
    const KIND: &'static str = "AdditiveCoupling";
}

impl<E: Scalar> CouplingTransformer<E> for Affine<E> {
    const KIND: &'static str = "AffineCoupling";
    const PARTS: usize = 2;
}

impl<E: Scalar> CouplingTransformer<E> for RationalQuadratic<E> {
    const KIND: &'static str = "SplineCoupling";
}
