//! Who asks which share of their bounds scales use.

use crate::Transformer;
use flow_api::bounds_used::BoundUse;
use flow_api::{Context, Scalar};
use std::sync::Arc;

/// Tells what a transformer uses of its scales' bounds, if the context of the call asks for it.
#[derive(Clone, Debug)]
pub struct BoundWatch(Option<Arc<BoundUse>>);

impl BoundWatch {
    /// For the layer that this context is of.
    pub fn new<E: Scalar>(cx: &Context<E>) -> Self {
        Self(cx.bound_use())
    }

    /// Sees the parameters of all values of so many lanes.
    pub fn see<E: Scalar>(&self, transformer: &(impl Transformer<E> + ?Sized), parameters: &[E], lanes: usize) {
        if let Some(asked) = &self.0
            && let Some(used) = transformer.bound_used(parameters, lanes)
        {
            asked.add(used.as_f64(), parameters.len() / transformer.parameters().max(1));
        }
    }
}
