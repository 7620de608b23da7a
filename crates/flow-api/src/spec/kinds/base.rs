//! Base densities that a spec can name.

use super::SpecScalar;
use crate::bases::BaseDensity;
use crate::spec::{BuildScope, SpecError};

/// What the author of a base density's spec writes; [`register_base!`](crate::register_base) makes a
/// [`BaseDensitySpec`] of it.
///
/// A spec without fields is a unit struct, and its name alone is its text, as `StandardNormal`. The spec's type has
/// serde's derives, and `typetag` is among the crate's dependencies:
///
/// ```
/// use flow_api::bases::BaseDensity;
/// use flow_api::spec::{BuildBase, BuildScope, EventShape, ModelSpec, Spec, SpecError, SpecScalar, from_ron};
/// use flow_api::{bases, register_base};
/// use serde::{Deserialize, Serialize};
///
/// /// Uniform on [−r, r]^d.
/// #[derive(Clone, Debug, Serialize, Deserialize)]
/// #[serde(deny_unknown_fields)]
/// struct Cube {
///     /// r.
///     radius: f64,
/// }
/// register_base!(Cube);
///
/// impl BuildBase for Cube {
///     fn build<E: SpecScalar>(&self, dim: usize, scope: &BuildScope) -> Result<Box<dyn BaseDensity<E>>, SpecError> {
///         let radius = E::of(scope.positive("radius", self.radius)?);
///         Ok(Box::new(bases::Uniform::new(dim, -radius, radius)?))
///     }
/// }
///
/// # fn main() -> Result<(), SpecError> {
/// let spec: Spec<dyn ModelSpec> = from_ron("VectorFlow(flows: [LuLinear()], base: Cube(radius: 2.0))")?;
/// assert!(spec.build::<f64>(EventShape::Vector(3), 7).is_ok());
/// let spec: Spec<dyn ModelSpec> = from_ron("VectorFlow(flows: [LuLinear()], base: Cube(radius: -1.0))")?;
/// let error = spec.build::<f64>(EventShape::Vector(3), 7).unwrap_err();
/// assert_eq!(error.to_string(), "base: radius: expected a finite number greater than 0, got -1");
/// # Ok(())
/// # }
/// ```
pub trait BuildBase {
    /// Builds the density on R^dim with its initial parameters.
    ///
    /// # Errors
    /// [`SpecError::Field`] for values that no density can be built with.
    fn build<E: SpecScalar>(&self, dim: usize, scope: &BuildScope) -> Result<Box<dyn BaseDensity<E>>, SpecError>;

    /// How many numbers the density on R^dim will hold at the least, for any fields: it is asked before the density is
    /// built, and before the fields are checked.
    fn numbers(&self, dim: usize) -> usize {
        let _ = dim;
        0
    }
}

/// A base density that a spec can name.
///
/// Not implemented by hand: implement [`BuildBase`] and call [`register_base!`](crate::register_base).
#[typetag::deserialize]
pub trait BaseDensitySpec: erased_serde::Serialize + std::fmt::Debug + Send + Sync {
    /// Name of the kind, as in RON.
    fn kind(&self) -> &'static str;
    /// Numbers that it holds on R^dim.
    fn numbers(&self, dim: usize) -> usize;
    /// Builds it in f32.
    ///
    /// # Errors
    /// As [`BuildBase::build`].
    fn base_f32(&self, dim: usize, scope: &BuildScope) -> Result<Box<dyn BaseDensity<f32>>, SpecError>;
    /// Builds it in f64.
    ///
    /// # Errors
    /// As [`BuildBase::build`].
    fn base_f64(&self, dim: usize, scope: &BuildScope) -> Result<Box<dyn BaseDensity<f64>>, SpecError>;
    /// A copy.
    fn boxed_clone(&self) -> Box<dyn BaseDensitySpec>;
}

/// Registers a spec type, which implements [`BuildBase`](crate::spec::BuildBase), serde's traits, `Clone` and `Debug`,
/// under its own name.
///
/// The calling crate needs `typetag` among its dependencies. [`BuildBase`](crate::spec::BuildBase) has an example.
#[macro_export]
macro_rules! register_base {
    ($spec:ident) => {
        #[::typetag::deserialize]
        impl $crate::spec::BaseDensitySpec for $spec {
            fn kind(&self) -> &'static str {
                stringify!($spec)
            }
            fn numbers(&self, dim: usize) -> usize {
                $crate::spec::BuildBase::numbers(self, dim)
            }
            fn base_f32(
                &self,
                dim: usize,
                scope: &$crate::spec::BuildScope,
            ) -> $crate::Result<Box<dyn $crate::bases::BaseDensity<f32>>, $crate::spec::SpecError> {
                $crate::spec::BuildBase::build(self, dim, scope)
            }
            fn base_f64(
                &self,
                dim: usize,
                scope: &$crate::spec::BuildScope,
            ) -> $crate::Result<Box<dyn $crate::bases::BaseDensity<f64>>, $crate::spec::SpecError> {
                $crate::spec::BuildBase::build(self, dim, scope)
            }
            fn boxed_clone(&self) -> Box<dyn $crate::spec::BaseDensitySpec> {
                Box::new(self.clone())
            }
        }
    };
}
