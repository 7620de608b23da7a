//! Residual flows in RON.
//!
//! ```
//! use flow_api::spec::{FlowSpec, from_ron, to_ron};
//! use flows_lipschitz as _; // registers the kind
//! let spec: FlowSpec = from_ron("Residual(hidden: 128, layers: 3, coefficient: 0.97, activation: LipSwish, log_det: Roulette(length: Poisson(2.0)))")?;
//! assert!(to_ron(&spec)?.contains("evaluation: Exact"));
//! # Ok::<(), flow_api::spec::SpecError>(())
//! ```

use crate::estimator::{Estimator, Roulette};
use crate::inverse::FixedPoint;
use crate::network::Activation;
use crate::setting::setting;
use crate::spectral::PowerIteration;
use flow_api::Result;
use flow_api::spec::{MAX_SIZE, size_range};
use serde::{Deserialize, Serialize};

/// [`ResidualFlow`](crate::ResidualFlow): y = x + g(x) with a network g of Lipschitz constant below 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Residual {
    /// Width of g's hidden layers. Default 128.
    pub hidden: usize,
    /// Linear layers of g, one more than it has hidden ones. Default 3.
    pub layers: usize,
    /// Every layer's weight is divided by max(1, σ/c), between 0 and 1; its Lipschitz constant is then at most c (1 +
    /// tolerance), with the tolerance of the power iteration that finds σ, and below 1. Default 0.97.
    pub coefficient: f64,
    /// `LipSwish` (default), `CLipSwish`, `Elu` or `Tanh`.
    pub activation: Activation,
    /// Hidden layers are densely connected, as in i-DenseNets: each one hands on its input beside what it computed.
    /// Default false.
    pub dense: bool,
    /// How log-dets are found in training. Default `Roulette()`.
    pub log_det: Estimator,
    /// How log-dets are found in evaluation. Default `Exact`.
    pub evaluation: Estimator,
    /// How the inverse is found.
    pub inverse: FixedPoint,
    /// How far the power iteration of the spectral norms goes when the weights have changed.
    pub power_iteration: PowerIteration,
    /// The last layer starts as zero, and so the flow as the identity. Default false.
    pub zero_init: bool,
    /// Width of the condition that g sees besides x. Default that of the model, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub condition: Option<usize>,
}

impl Default for Residual {
    fn default() -> Self {
        Self {
            hidden: 128,
            layers: 3,
            coefficient: 0.97,
            activation: Activation::default(),
            dense: false,
            log_det: Estimator::Roulette(Roulette::default()),
            evaluation: Estimator::Exact,
            inverse: FixedPoint::default(),
            power_iteration: PowerIteration::default(),
            zero_init: false,
            condition: None,
        }
    }
}

impl Residual {
    /// Checks all settings.
    ///
    /// # Errors
    /// [`FlowError::Setting`](flow_api::FlowError::Setting).
    pub fn check(&self) -> Result<()> {
        for (field, size) in [("hidden", self.hidden), ("layers", self.layers), ("iterations", self.power_iteration.iterations)] {
            if !(1..=MAX_SIZE).contains(&size) {
                return Err(setting(field, &size_range(1), size));
            }
        }
        if let Some(width) = self.condition.filter(|width| !(1..=MAX_SIZE).contains(width)) {
            return Err(setting("condition", &size_range(1), width));
        }
        if !(self.coefficient > 0.0 && self.coefficient < 1.0) {
            return Err(setting("coefficient", "a number greater than 0 and less than 1", self.coefficient));
        }
        let tolerance = self.power_iteration.tolerance;
        if !(tolerance > 0.0 && tolerance < 1.0) {
            return Err(setting("tolerance", "a number greater than 0 and less than 1", tolerance));
        }
        self.log_det.check()?;
        self.evaluation.check()?;
        self.inverse.check()
    }
}
