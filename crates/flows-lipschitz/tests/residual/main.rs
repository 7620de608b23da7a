//! Residual flows against closed forms, finite differences and singular value decompositions.

mod common;
mod conformance;
mod estimators;
mod gradients;
mod inverse;
mod lipschitz;
mod specs;
