//! Couplings in RON.
//!
//! ```
//! use flow_api::spec::{from_ron, to_ron, FlowSpec};
//! use flows_coupling as _; // registers the kinds
//! let spec: FlowSpec = from_ron("AffineCoupling(hidden: 64, activation: Silu, split: Interleaved)")?;
//! assert!(to_ron(&spec)?.contains("blocks: 2"));
//! # Ok::<(), flow_api::spec::SpecError>(())
//! ```

use crate::{Conditioner, Coupling};
use flow_api::spec::{BuildRowFlow, BuildScope, Cost, Receiver, SpecError, SpecScalar};
use flow_api::{FlowError, RowFlow, register_row_flow};
use flow_nets::{Activation, Additive, Affine, RationalQuadratic, Split};
use serde::{Deserialize, Serialize};

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
                Self { hidden: 128, blocks: 2, activation, split, condition: None, $( $field: $default, )* }
            }
        }

        register_row_flow!($name);

        impl BuildRowFlow for $name {
            fn build<E: SpecScalar>(&self, dim: usize, scope: &BuildScope) -> Result<Box<dyn RowFlow<E>>, SpecError> {
                let $spec = self;
                let named = scope.child(stringify!($name));
                let condition = self.condition.or_else(|| scope.condition(Receiver::Couplings));
                let condition = condition.map_or(Ok(0), |width| named.size("condition", width, 1))?;
                let conditioner = Conditioner { hidden: self.hidden, blocks: self.blocks, activation: self.activation, condition };
                let flipped = scope.index() % 2 == 1;
                let coupling = $transformer
                    .and_then(|t| Coupling::<_, E>::new(dim, self.split, flipped, t, conditioner, scope.seed()));
                match coupling {
                    Ok(coupling) => Ok(Box::new(coupling)),
                    Err(FlowError::Setting { field, expected, got, .. }) => Err(named.field_error(field, expected, got)),
                    Err(other) => Err(other.into()),
                }
            }

            fn cost(&self, dim: usize) -> Cost {
                // Two linear layers a block, between the first and the last. A split that cannot be is refused for
                // itself.
                let parts = self.split.partition(dim, false).map_or((0, 0), |parts| (parts.identity.len(), parts.transformed.len()));
                let least = parts.0.min(parts.1);
                let hidden_layers = self.blocks.saturating_mul(2).saturating_add(1);
                Cost::of_numbers(Cost::weights(least, self.hidden, hidden_layers, least))
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
