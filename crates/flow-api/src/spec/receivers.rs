//! Which parts of a model see its condition.

use serde::{Deserialize, Serialize};

/// Which parts of a model see the condition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Receivers {
    /// All that can.
    #[default]
    All,
    /// These alone.
    Only(Vec<Receiver>),
}

/// A part of a model that can see a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Receiver {
    /// Couplings: their conditioners.
    Couplings,
    /// Autoregressive flows: the masked network.
    Autoregressive,
    /// Residual flows: the network g.
    Residual,
    /// Continuous flows: the vector field.
    Continuous,
    /// The base density: its shift and its scale.
    Base,
}

impl std::fmt::Display for Receiver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Couplings => "couplings",
            Self::Autoregressive => "autoregressive flows",
            Self::Residual => "residual flows",
            Self::Continuous => "continuous flows",
            Self::Base => "the base density",
        })
    }
}

impl std::fmt::Display for Receivers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Only(parts) => f.write_str(&parts.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")),
        }
    }
}

impl Receivers {
    /// Whether a part sees it.
    pub fn includes(&self, receiver: Receiver) -> bool {
        match self {
            Self::All => true,
            Self::Only(parts) => parts.contains(&receiver),
        }
    }
}
