//! A flow in a crate of its own, as one would publish it: the contract, serde and typetag are all that it asks for.
//!
//! Programs that depend on this crate can name `Scale()` in every spec.

use flow_api::rows::{ElementMap, Inverted, Number};
use flow_api::{InverseKind, register_row_flow};
use serde::{Deserialize, Serialize};

/// y = e^s ⊙ x with a log-scale s that is learned for every feature; log|det J| = Σⱼ sⱼ, exact.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Scale {
    /// Where the log-scales start.
    pub log_scale: f64,
}
register_row_flow!(Scale);

impl ElementMap for Scale {
    const KIND: &'static str = "Scale";
    const INVERSE: InverseKind = InverseKind::ClosedForm;

    fn parameters(&self) -> Vec<(&'static str, f64)> {
        vec![("log_scale", self.log_scale)]
    }

    fn map<N: Number>(&self, x: N, parameters: &[N]) -> (N, N) {
        (parameters[0].exp() * x, parameters[0])
    }

    fn inverse(&self, y: f64, parameters: &[f64]) -> Inverted {
        Inverted::closed_form(y * (-parameters[0]).exp(), parameters[0])
    }
}
