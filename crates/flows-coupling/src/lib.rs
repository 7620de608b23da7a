//! Coupling flows: additive, affine and rational-quadratic-spline couplings with a residual-MLP conditioner.
//!
//! One mechanism, [`Coupling`], splits a row in two, conditions on the part that passes, and moves the other part with a [`Transformer`]. Specs are in [`spec`]:
//! `AdditiveCoupling(…)`, `AffineCoupling(…)`, `SplineCoupling(…)`.

mod affine;
mod coupling;
pub mod spec;
mod spline;
mod split;
mod transformer;

/// The nonlinearity of a [`Conditioner`].
pub use flow_nets::Activation;

pub use affine::{Additive, Affine};
pub use coupling::{Conditioner, Coupling};
pub use spline::RationalQuadratic;
pub use split::Split;
pub use transformer::{TapedTransformer, Transformer};

use flow_api::{FlowError, Result, Scalar};

/// Checks that a setting, rounded to E, is within a range.
fn within<E: Scalar>(kind: &str, field: &'static str, value: E, [least, most]: [E; 2]) -> Result<E> {
    if least <= value && value <= most {
        return Ok(value);
    }
    let expected = format!("a number from {:.1e} to {:.1e} in {}", least.as_f64(), most.as_f64(), std::any::type_name::<E>());
    Err(FlowError::Setting { layer: kind.to_owned(), field, expected, got: value.to_string() })
}
