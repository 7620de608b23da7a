//! Autoregressive flows in RON.
//!
//! ```
//! use flow_api::spec::{FlowSpec, from_ron, to_ron};
//! use flows_autoregressive as _; // registers the kind
//! let spec: FlowSpec = from_ron("Autoregressive(hidden: 64, transformer: Spline(bins: 8), order: Reverse)")?;
//! assert!(to_ron(&spec)?.contains("inverse: Sequential"));
//! # Ok::<(), flow_api::spec::SpecError>(())
//! ```

use crate::{AutoregressiveFlow, Inverse};
use flow_api::spec::{BuildRowFlow, BuildScope, Cost, Order, Receiver, SpecError, SpecScalar};
use flow_api::{FlowError, Result, RowFlow, Scalar, register_row_flow};
use flow_nets::{Activation, MaskedMlp, MaskedMlpConfig, Transformer, TransformerSpec};
use serde::{Deserialize, Serialize};

/// [`AutoregressiveFlow`]: every feature is moved by what a masked network makes of the features before it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Autoregressive {
    /// Width of the network's hidden layers. Default 128.
    pub hidden: usize,
    /// Residual blocks of the network, two linear layers each. Default 1.
    pub blocks: usize,
    /// The network's nonlinearity. Default `Relu`.
    pub activation: Activation,
    /// What moves a feature: `Affine(bound: 2.0)` (default), `Spline(bins: 8, tail_bound: 3.0)` or `Additive`.
    pub transformer: TransformerSpec,
    /// Which features come first. Default `Identity`.
    pub order: Order,
    /// How the inverse is found. Default `Sequential`.
    pub inverse: Inverse,
    /// Width of the condition that the network sees besides the features. Default that of the model, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub condition: Option<usize>,
}
register_row_flow!(Autoregressive);

impl Default for Autoregressive {
    fn default() -> Self {
        Self {
            hidden: 128,
            blocks: 1,
            activation: Activation::default(),
            transformer: TransformerSpec::default(),
            order: Order::default(),
            inverse: Inverse::default(),
            condition: None,
        }
    }
}

impl Autoregressive {
    /// The flow on R^dim with initial parameters drawn from `seed`, and a random order from `order_seed`.
    fn flow<E: Scalar>(&self, dim: usize, condition: usize, seed: u64, order_seed: u64) -> Result<AutoregressiveFlow<E>> {
        let transformer = self.transformer.build::<E>()?;
        let Self { hidden, blocks, activation, .. } = *self;
        let sizes = MaskedMlpConfig { features: dim, condition, parameters: transformer.parameters(), hidden, blocks, activation };
        AutoregressiveFlow::new(MaskedMlp::new(sizes, seed)?, transformer, self.order.permutation(dim, order_seed), self.inverse)
    }
}

impl BuildRowFlow for Autoregressive {
    fn build<E: SpecScalar>(&self, dim: usize, scope: &BuildScope) -> Result<Box<dyn RowFlow<E>>, SpecError> {
        let named = scope.child("Autoregressive");
        let condition = self.condition.or_else(|| scope.condition(Receiver::Autoregressive));
        let condition = condition.map_or(Ok(0), |width| named.size("condition", width, 1))?;
        match self.flow::<E>(named.size("dim", dim, 1)?, condition, scope.seed(), scope.child("order").seed()) {
            Ok(flow) => Ok(Box::new(flow)),
            Err(FlowError::Setting { field, expected, got, .. }) => Err(named.field_error(field, expected, got)),
            Err(other) => Err(other.into()),
        }
    }

    fn cost(&self, dim: usize) -> Cost {
        // Two linear layers a block, between the first and the last.
        let hidden_layers = self.blocks.saturating_mul(2).saturating_add(1);
        let outputs = dim.saturating_mul(self.transformer.parameters());
        Cost::of_numbers(Cost::weights(dim, self.hidden, hidden_layers, outputs))
    }
}
