//! The classifier of a hybrid model.

use super::Mlp;
use crate::{Module, Scalar, module_fields};

/// A classifier on the latents of a model, or on the activations behind one of its layers, with its weight in the loss.
///
/// Parameter paths are those of its network, below `head`.
#[derive(Clone, Debug)]
pub struct Head<E: Scalar> {
    network: Mlp<E>,
    layer: Option<String>,
    weight: f64,
}

impl<E: Scalar> Head<E> {
    /// A network from latents, or the activations behind `layer`, to one logit a class.
    pub fn new(network: Mlp<E>, layer: Option<String>, weight: f64) -> Self {
        Self { network, layer, weight }
    }

    /// The network.
    pub fn network(&self) -> &Mlp<E> {
        &self.network
    }

    /// The layer whose activations it sees; none for the latents.
    pub fn layer(&self) -> Option<&str> {
        self.layer.as_deref().filter(|layer| *layer != "bijector")
    }

    /// Weight of its cross-entropy beside a likelihood per dimension.
    pub fn weight(&self) -> f64 {
        self.weight
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.network.outputs()
    }
}

impl<E: Scalar> Module<E> for Head<E> {
    module_fields!(E; delegate network);
}
