//! How the inverse is found: feature by feature, or all features at once until nothing changes.

use flow_api::{FlowError, Result};
use serde::{Deserialize, Serialize};

/// How the inverse of an autoregressive flow is found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum Inverse {
    /// Feature by feature: exact to rounding, in d steps that together take one pass of the network.
    #[default]
    Sequential,
    /// All features at once, pass after pass.
    Jacobi(Jacobi),
}

/// Jacobi's iteration for a triangular system: x ← τ⁻¹(y; θ(x)) for all features at once, from x = y on.
///
/// The p-th pass makes feature p exact, whatever the later ones still are, so d passes are exact to rounding; where
/// features depend on each other weakly, fewer are enough. A pass is a whole network and a step of
/// [`Inverse::Sequential`] is a small part of one, so this pays where passes are few beside d and blocks are small.
///
/// # Stopping
/// By the true residual maxⱼ |τ(xⱼ; θⱼ(x)) − yⱼ| of every row, in units of the data, evaluated at the very x that is
/// returned; a row that is done stays as it is. After d passes a row is done whatever its residual, which is then of
/// rounding alone. The report has the largest.
///
/// Source: Song et al., "Accelerating Feedforward Computation via Parallel Nonlinear Equation Solving"
/// (arXiv:2002.03629), section 3.2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Jacobi {
    /// The largest residual. Default: 1e-5 in f32 and 1e-10 in f64.
    pub tolerance: Option<f64>,
}

impl Inverse {
    /// Checks the settings.
    ///
    /// # Errors
    /// [`FlowError::Setting`].
    pub(crate) fn check(&self) -> Result<()> {
        match *self {
            Self::Jacobi(Jacobi { tolerance: Some(tolerance) }) if !(tolerance.is_finite() && tolerance > 0.0) => {
                let expected = "a finite number greater than 0".to_owned();
                Err(FlowError::Setting { layer: "Autoregressive".to_owned(), field: "tolerance", expected, got: tolerance.to_string() })
            }
            _ => Ok(()),
        }
    }
}
