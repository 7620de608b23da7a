//! Coupling flows: additive, affine and rational-quadratic-spline couplings, by default with a residual-MLP
//! conditioner.
//!
//! One mechanism, [`Coupling`], splits a row in two, conditions on the part that passes, and moves the other part with
//! a [`Transformer`]. Specs are in [`spec`]: `AdditiveCoupling(…)`, `AffineCoupling(…)`, `SplineCoupling(…)`.

mod coupling;
mod kind;
pub mod spec;

/// What a coupling is made of: the nonlinearity of a [`Conditioner`], how features are split, and what moves them.
pub use flow_nets::{Activation, Additive, Affine, RationalQuadratic, Split, TapedTransformer, Transformer};

pub use coupling::{Conditioner, Coupling};
pub use kind::CouplingTransformer;
