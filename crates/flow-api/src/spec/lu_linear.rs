//! The spec of LU-linear maps.

use super::{BuildRowFlow, BuildScope, Cost, MAX_SIZE, Order, SpecError, SpecScalar};
use crate::{RowFlow, layers, register_row_flow};
use serde::{Deserialize, Serialize};

/// [`layers::LuLinear`]: an invertible linear map, the identity at the start, with an optional fixed permutation in
/// front.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LuLinear {
    /// Order of the features in front of the linear map.
    pub permutation: Order,
}
register_row_flow!(LuLinear);

impl BuildRowFlow for LuLinear {
    fn build<E: SpecScalar>(&self, dim: usize, scope: &BuildScope) -> Result<Box<dyn RowFlow<E>>, SpecError> {
        // A matrix of dim × dim.
        let linear = layers::LuLinear::new(scope.child("LuLinear").size("dim", dim, 1)?);
        Ok(Box::new(match self.permutation {
            Order::Identity => linear,
            Order::Reverse => linear.with_permutation((0..dim).rev().collect())?,
            Order::Random => linear.with_random_permutation(scope.seed()),
        }))
    }

    fn cost(&self, dim: usize) -> Cost {
        // Larger ones are refused for themselves.
        Cost::of_numbers(if dim > MAX_SIZE { 0 } else { dim * dim })
    }
}
