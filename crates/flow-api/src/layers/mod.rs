//! Bijectors that belong to no family: normalisation, linear maps, permutations.

mod act_norm;
#[cfg(feature = "linalg")]
mod lu;
mod permutation;

pub use act_norm::ActNorm;
#[cfg(feature = "linalg")]
pub use lu::LuLinear;
pub use permutation::Permutation;
