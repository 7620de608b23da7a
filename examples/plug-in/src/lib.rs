//! A flow in a crate of its own, as one would publish it: the contract, serde and typetag are all that it asks for.
//!
//! Programs that depend on this crate can name `Scale()` in every spec.

use flow_api::dfdx::prelude::*;
use flow_api::rows::{MappedRows, Taped, TapedMap, TapedRows};
use flow_api::spec::{BuildRowFlow, BuildScope, SpecError, SpecScalar};
use flow_api::{Context, Facts, Module, Parameter, Result, RowFlow, Scalar, Tensor, module_fields, register_row_flow};
use serde::{Deserialize, Serialize};

/// y = e^s ⊙ x with a log-scale s for every feature; log|det J| = Σⱼ sⱼ, exact.
#[derive(Clone, Debug)]
pub struct ScaleFlow<E: Scalar> {
    log_scale: Parameter<E>,
}

impl<E: Scalar> ScaleFlow<E> {
    /// One that scales every feature of R^dim alike.
    pub fn new(dim: usize, log_scale: E) -> Self {
        Self { log_scale: Parameter::new(&[dim], vec![log_scale; dim]) }
    }
}

impl<E: Scalar> Module<E> for ScaleFlow<E> {
    module_fields!(E; parameter log_scale);
}

impl<E: Scalar> TapedRows<E> for ScaleFlow<E> {
    fn forward_taped(&self, x: Taped<(usize, usize), E>, _: &Context<E>) -> Result<TapedMap<E>> {
        let s = self.log_scale.tensor().retaped::<OwnedTape<E, E::Device>>().broadcast_like::<_, Axis<0>>(&*x.shape());
        Ok((x * s.with_empty_tape().exp(), s.sum::<(usize,), Axis<1>>()))
    }

    fn inverse_taped(&self, y: Tensor<(usize, usize), E>, _: &Context<E>) -> Result<MappedRows<E>> {
        let s = self.log_scale.tensor().clone().broadcast_like::<_, Axis<0>>(y.shape());
        Ok((y / s.clone().exp(), s.sum::<(usize,), Axis<1>>().negate()))
    }
}

impl<E: Scalar> RowFlow<E> for ScaleFlow<E> {
    fn facts(&self) -> Facts {
        Facts::new("Scale")
    }

    fn dim(&self) -> usize {
        self.log_scale.values().len()
    }

    fn taped(&self) -> Option<&dyn TapedRows<E>> {
        Some(self)
    }
}

/// The spec of [`ScaleFlow`].
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Scale {
    /// Where the log-scales start.
    pub log_scale: f64,
}
register_row_flow!(Scale);

impl BuildRowFlow for Scale {
    fn build<E: SpecScalar>(&self, dim: usize, _: &BuildScope) -> Result<Box<dyn RowFlow<E>>, SpecError> {
        Ok(Box::new(ScaleFlow::new(dim, E::of(self.log_scale))))
    }
}
