//! Couplings in RON.
//!
//! ```
//! use flow_api::spec::{from_ron, to_ron, FlowSpec};
//! use flows_coupling as _; // registers the kinds
//! let spec: FlowSpec = from_ron("AffineCoupling(hidden: 64, activation: Silu, split: Interleaved)")?;
//! assert!(to_ron(&spec)?.contains("blocks: 2"));
//! # Ok::<(), flow_api::spec::SpecError>(())
//! ```

use crate::{Conditioner, Coupling, CouplingTransformer};
use flow_api::spec::{BuildRowFlow, BuildScope, Cost, Receiver, SpecError, SpecScalar};
use flow_api::{FlowError, RowFlow, register_row_flow};
use flow_nets::{Activation, Additive, Affine, Kan, KanConfig, Partition, RationalQuadratic, Split};
use serde::{Deserialize, Serialize};

/// The network of a coupling.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum Network {
    /// The residual MLP that the fields `hidden`, `blocks` and `activation` give the sizes of.
    #[default]
    Residual,
    /// A Kolmogorov–Arnold network, [`flow_nets::Kan`].
    Kan(KanSpec),
}

/// Sizes of a Kolmogorov–Arnold network, whose edges are silu and B-splines.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KanSpec {
    /// Width of the hidden layers. Default 16.
    pub hidden: usize,
    /// Hidden layers. Default 1.
    pub layers: usize,
    /// Intervals of the grid that the splines are on. Default 5.
    pub grid: usize,
    /// Order of the splines. Default 3.
    pub order: usize,
    /// Half the width of the grid. Default 3.
    pub range: f64,
}

impl Default for KanSpec {
    fn default() -> Self {
        Self { hidden: 16, layers: 1, grid: 5, order: 3, range: 3.0 }
    }
}

impl KanSpec {
    fn config(self, inputs: usize, condition: usize, outputs: usize) -> KanConfig {
        let Self { hidden, layers, grid, order, range } = self;
        KanConfig { inputs, condition, outputs, hidden, layers, grid, order, range }
    }
}

impl Network {
    fn is_residual(&self) -> bool {
        *self == Self::Residual
    }

    /// The coupling of a transformer with this network.
    fn coupling<T: CouplingTransformer<E> + 'static, E: SpecScalar>(
        self,
        (dim, split, flipped): (usize, Split, bool),
        transformer: T,
        conditioner: Conditioner,
        seed: u64,
    ) -> flow_api::Result<Box<dyn RowFlow<E>>> {
        match self {
            Self::Residual => Ok(Box::new(Coupling::<_, E>::new(dim, split, flipped, transformer, conditioner, seed)?)),
            Self::Kan(kan) => {
                let partition = split.partition(dim, flipped)?;
                let outputs = transformer.parameters() * partition.transformed.len();
                let net = Kan::<E>::new(kan.config(partition.identity.len(), conditioner.condition, outputs), seed)?;
                Ok(Box::new(Coupling::with_net(partition, transformer, net)?))
            }
        }
    }

    /// Weights between so many features, at the least.
    fn weights(self, parts: Option<Partition>, hidden: usize, blocks: usize) -> usize {
        let least = parts.map_or(0, |parts| parts.identity.len().min(parts.transformed.len()));
        match self {
            // Two linear layers a block, between the first and the last.
            Self::Residual => Cost::weights(least, hidden, blocks.saturating_mul(2).saturating_add(1), least),
            Self::Kan(kan) => kan.config(least, 0, least).weights(),
        }
    }
}

/// Writes a spec with the fields that all couplings share, and its own.
macro_rules! coupling_spec {
    (
        $(#[$doc:meta])*
        $name:ident { $( $(#[$field_doc:meta])* $field:ident: $type:ty = $default:expr, )* }
        |$spec:ident| $transformer:expr
    ) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct $name {
            /// Width of the conditioner's hidden layers. Default 128.
            pub hidden: usize,
            /// Residual blocks of the conditioner, two linear layers each. Default 2.
            pub blocks: usize,
            /// The conditioner's nonlinearity. Default `Relu`.
            pub activation: Activation,
            /// The conditioner. Default `Residual`, the MLP of the three fields before, which stand beside no other.
            #[serde(skip_serializing_if = "Network::is_residual")]
            pub network: Network,
            /// Which features pass. With `Halves` and `Interleaved` all couplings of a list take turns between this
            /// form and the flipped one, whatever their kinds; `First(n)`, `Last(n)`, `Even` and `Odd` say it once and
            /// for all. Default `Halves`.
            pub split: Split,
            /// Width of the condition that the conditioner sees besides the features that pass. Default that of the
            /// model, if it has one.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub condition: Option<usize>,
            $( $(#[$field_doc])* pub $field: $type, )*
        }

        impl Default for $name {
            fn default() -> Self {
                let (activation, split) = (Activation::Relu, Split::Halves);
                let network = Network::default();
                Self { hidden: 128, blocks: 2, activation, network, split, condition: None, $( $field: $default, )* }
            }
        }

        register_row_flow!($name);

        impl BuildRowFlow for $name {
            fn build<E: SpecScalar>(&self, dim: usize, scope: &BuildScope) -> Result<Box<dyn RowFlow<E>>, SpecError> {
                let $spec = self;
                let named = scope.child(stringify!($name));
                let condition = self.condition.or_else(|| scope.condition(Receiver::Couplings));
                let condition = condition.map_or(Ok(0), |width| named.size("condition", width, 1))?;
                if !self.network.is_residual() {
                    let (own, default) = (self, Self::default());
                    let activations = [own.activation, default.activation].map(|activation| format!("{activation:?}"));
                    for (field, [own, default]) in [
                        ("hidden", [own.hidden, default.hidden].map(|size| size.to_string())),
                        ("blocks", [own.blocks, default.blocks].map(|size| size.to_string())),
                        ("activation", activations),
                    ] {
                        if own != default {
                            return Err(named.field_error(field, "none beside a network with sizes of its own", own));
                        }
                    }
                }
                let conditioner = Conditioner { hidden: self.hidden, blocks: self.blocks, activation: self.activation, condition };
                let flipped = scope.index() % 2 == 1;
                let coupling = $transformer
                    .and_then(|t| self.network.coupling::<_, E>((dim, self.split, flipped), t, conditioner, scope.seed()));
                match coupling {
                    Ok(coupling) => Ok(coupling),
                    Err(FlowError::Setting { field, expected, got, .. }) => Err(named.field_error(field, expected, got)),
                    Err(other) => Err(other.into()),
                }
            }

            fn cost(&self, dim: usize) -> Cost {
                // A split that cannot be is refused for itself.
                Cost::of_numbers(self.network.weights(self.split.partition(dim, false).ok(), self.hidden, self.blocks))
            }

            fn takes_turns(&self) -> bool {
                self.split.takes_turns()
            }
        }
    };
}

coupling_spec! {
    /// [`Additive`] coupling: y = x + t, volume-preserving.
    AdditiveCoupling {}
    |_spec| Ok(Additive)
}

coupling_spec! {
    /// [`Affine`] coupling: y = x e^s + t with a bounded log-scale s.
    AffineCoupling {
        /// Bound c of the log-scale s = c tanh(r / c). Default 2.
        bound: f64 = 2.0,
    }
    |spec| Affine::new(E::of(spec.bound))
}

coupling_spec! {
    /// [`RationalQuadratic`] coupling: a monotone spline on an interval, the identity outside.
    SplineCoupling {
        /// Bins of the spline, 2 to 999. Default 8.
        bins: usize = 8,
        /// Half the width B of the interval \[−B, B\] that the spline acts on. Default 3.
        tail_bound: f64 = 3.0,
    }
    |spec| RationalQuadratic::new(spec.bins, E::of(spec.tail_bound))
}
