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
pub use transformer::{MappedRows, PlainTransformer, Transformer};

use flow_api::{FlowError, Result, Scalar};

/// Checks that a setting is a finite number above 0.
fn positive<E: Scalar>(kind: &str, field: &'static str, value: E) -> Result<E> {
    if value > E::zero() && num_traits::Float::is_finite(value) {
        return Ok(value);
    }
    let expected = "a finite number greater than 0".to_owned();
    Err(FlowError::Setting { layer: kind.to_owned(), field, expected, got: value.to_string() })
}
