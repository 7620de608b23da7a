//! The nonlinearities that a field can have.

use flow_nets::smooth;
use serde::{Deserialize, Serialize};

/// The nonlinearity of the field.
///
/// Only smooth ones: the trace of the Jacobian has to be differentiable, and a solver's error estimate takes for
/// granted that its derivatives exist. A spec that names one with a kink is refused with this reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "AnyActivation")]
pub enum Activation {
    /// tanh z.
    #[default]
    Tanh,
    /// ln(1 + eᶻ).
    Softplus,
    /// z σ(z).
    Silu,
}

/// Activations that a spec may name, to say why some will not do.
#[derive(Debug, Deserialize)]
#[serde(rename = "Activation")]
enum AnyActivation {
    Tanh,
    Softplus,
    Silu,
    Relu,
    LeakyRelu,
    Elu,
}

impl TryFrom<AnyActivation> for Activation {
    type Error = String;

    fn try_from(any: AnyActivation) -> std::result::Result<Self, String> {
        match any {
            AnyActivation::Tanh => Ok(Self::Tanh),
            AnyActivation::Softplus => Ok(Self::Softplus),
            AnyActivation::Silu => Ok(Self::Silu),
            AnyActivation::Relu | AnyActivation::LeakyRelu | AnyActivation::Elu => Err(format!(
                "{any:?} is not smooth: the log-det of a continuous flow integrates the trace of the field's Jacobian, which would jump, and its gradient \
                 needs the second derivative, which does not exist; use Tanh, Softplus or Silu"
            )),
        }
    }
}

impl From<Activation> for smooth::Activation {
    fn from(activation: Activation) -> Self {
        match activation {
            Activation::Tanh => Self::Tanh,
            Activation::Softplus => Self::Softplus,
            Activation::Silu => Self::Silu,
        }
    }
}
