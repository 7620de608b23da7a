//! Bijectors that belong to no family: normalisation, linear maps, permutations.

mod act_norm;
mod lu;
mod permutation;

pub use act_norm::ActNorm;
pub use lu::LuLinear;
pub use permutation::Permutation;
