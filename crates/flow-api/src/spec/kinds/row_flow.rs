//! Row flows that a spec can name.

use super::SpecScalar;
use crate::spec::{BuildScope, Cost, SpecError};
use crate::{Result, RowFlow};

/// What the author of a row flow's spec writes; [`register_row_flow!`](crate::register_row_flow) makes a
/// [`RowFlowSpec`] of it.
///
/// The spec's fields are those of the RON text, so its type has serde's derives, and `typetag` is among the crate's
/// dependencies:
///
/// ```
/// use flow_api::spec::{BuildRowFlow, BuildScope, EventShape, ModelSpec, Spec, SpecError, SpecScalar, from_ron};
/// use flow_api::{RowFlow, layers, register_row_flow};
/// use serde::{Deserialize, Serialize};
///
/// /// Features turned round in a ring by some places.
/// #[derive(Clone, Debug, Serialize, Deserialize)]
/// #[serde(deny_unknown_fields)]
/// struct Ring {
///     /// Places.
///     by: usize,
/// }
/// register_row_flow!(Ring);
///
/// impl BuildRowFlow for Ring {
///     fn build<E: SpecScalar>(&self, dim: usize, scope: &BuildScope) -> Result<Box<dyn RowFlow<E>>, SpecError> {
///         if self.by >= dim {
///             return Err(scope.field_error("by", format!("less than {dim}"), self.by));
///         }
///         let order = (0..dim).map(|feature| (feature + self.by) % dim).collect();
///         Ok(Box::new(layers::Permutation::new(order)?))
///     }
/// }
///
/// # fn main() -> Result<(), SpecError> {
/// let spec: Spec<dyn ModelSpec> = from_ron("VectorFlow(flows: [Ring(by: 1)])")?;
/// assert_eq!(spec.build::<f64>(EventShape::Vector(3), 7)?.describe()?[0].kind, "Permutation");
/// let error = spec.build::<f64>(EventShape::Vector(1), 7).unwrap_err();
/// assert_eq!(error.to_string(), "bijector.0: by: expected less than 1, got 1");
/// # Ok(())
/// # }
/// ```
pub trait BuildRowFlow {
    /// Builds the flow on R^dim with its initial parameters.
    ///
    /// # Errors
    /// [`SpecError::Field`] for values that no flow can be built with.
    fn build<E: SpecScalar>(&self, dim: usize, scope: &BuildScope) -> Result<Box<dyn RowFlow<E>>, SpecError>;

    /// What the flow on R^dim will cost at the least, for any fields: it is asked before the flow is built, and before
    /// the fields are checked.
    fn cost(&self, dim: usize) -> Cost {
        let _ = dim;
        Cost::of_numbers(0)
    }

    /// Whether the flow leaves features as they are, which ones by its place among all flows of its list that do so:
    /// [`BuildScope::index`] counts those, and those alone. Default false.
    fn takes_turns(&self) -> bool {
        false
    }
}

/// A row flow that a spec can name.
///
/// Not implemented by hand: implement [`BuildRowFlow`] and call [`register_row_flow!`](crate::register_row_flow).
#[typetag::deserialize]
pub trait RowFlowSpec: erased_serde::Serialize + std::fmt::Debug + Send + Sync {
    /// Name of the kind, as in RON.
    fn kind(&self) -> &'static str;
    /// What it costs on R^dim.
    fn cost(&self, dim: usize) -> Cost;
    /// Builds it in f32.
    ///
    /// # Errors
    /// As [`BuildRowFlow::build`].
    fn row_flow_f32(&self, dim: usize, scope: &BuildScope) -> Result<Box<dyn RowFlow<f32>>, SpecError>;
    /// Builds it in f64.
    ///
    /// # Errors
    /// As [`BuildRowFlow::build`].
    fn row_flow_f64(&self, dim: usize, scope: &BuildScope) -> Result<Box<dyn RowFlow<f64>>, SpecError>;
    /// As [`BuildRowFlow::takes_turns`].
    fn takes_turns(&self) -> bool;
    /// A copy.
    fn boxed_clone(&self) -> Box<dyn RowFlowSpec>;
}

/// Registers a spec type, which implements [`BuildRowFlow`](crate::spec::BuildRowFlow), serde's traits, `Clone` and
/// `Debug`, under its own name.
///
/// The calling crate needs `typetag` among its dependencies. [`BuildRowFlow`](crate::spec::BuildRowFlow) has an
/// example.
#[macro_export]
macro_rules! register_row_flow {
    ($spec:ident) => {
        #[::typetag::deserialize]
        impl $crate::spec::RowFlowSpec for $spec {
            fn kind(&self) -> &'static str {
                stringify!($spec)
            }
            fn cost(&self, dim: usize) -> $crate::spec::Cost {
                $crate::spec::BuildRowFlow::cost(self, dim)
            }
            fn row_flow_f32(
                &self,
                dim: usize,
                scope: &$crate::spec::BuildScope,
            ) -> $crate::Result<Box<dyn $crate::RowFlow<f32>>, $crate::spec::SpecError> {
                $crate::spec::BuildRowFlow::build(self, dim, scope)
            }
            fn row_flow_f64(
                &self,
                dim: usize,
                scope: &$crate::spec::BuildScope,
            ) -> $crate::Result<Box<dyn $crate::RowFlow<f64>>, $crate::spec::SpecError> {
                $crate::spec::BuildRowFlow::build(self, dim, scope)
            }
            fn takes_turns(&self) -> bool {
                $crate::spec::BuildRowFlow::takes_turns(self)
            }
            fn boxed_clone(&self) -> Box<dyn $crate::spec::RowFlowSpec> {
                Box::new(self.clone())
            }
        }
    };
}
