//! Specs of the bijectors that belong to no family, and of lists of flows.

use super::{BuildRowFlow, BuildScope, Cost, FlowSpec, SpecError, SpecScalar};
use crate::rows::RowChain;
use crate::{RowFlow, layers, register_row_flow};
use serde::{Deserialize, Serialize};

/// [`layers::ActNorm`]: a scale and a shift per feature, initialised from data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ActNorm {}
register_row_flow!(ActNorm);

impl BuildRowFlow for ActNorm {
    fn build<E: SpecScalar>(&self, dim: usize, _: &BuildScope) -> Result<Box<dyn RowFlow<E>>, SpecError> {
        Ok(Box::new(layers::ActNorm::new(dim)))
    }

    fn cost(&self, dim: usize) -> Cost {
        Cost::of_numbers(dim.saturating_mul(2))
    }
}

/// An order of features.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// As they are.
    #[default]
    Identity,
    /// Backwards.
    Reverse,
    /// Drawn from the model's seed.
    Random,
}

impl Order {
    /// The permutation of R^dim that it stands for.
    pub fn permutation(self, dim: usize, seed: u64) -> layers::Permutation {
        match self {
            Self::Identity => layers::Permutation::identity(dim),
            Self::Reverse => layers::Permutation::reverse(dim),
            Self::Random => layers::Permutation::random(dim, seed),
        }
    }
}

/// [`layers::Permutation`]: a fixed order of the features.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Permutation {
    /// The order.
    pub order: Order,
}
register_row_flow!(Permutation);

impl BuildRowFlow for Permutation {
    fn build<E: SpecScalar>(&self, dim: usize, scope: &BuildScope) -> Result<Box<dyn RowFlow<E>>, SpecError> {
        Ok(Box::new(self.order.permutation(dim, scope.seed())))
    }

    fn cost(&self, dim: usize) -> Cost {
        Cost::of_numbers(dim)
    }
}

/// Builds a list of flows on R^dim; `round` counts the lists that a model builds for the same place, layer by layer, so
/// that all couplings of the list take turns over the layers, whatever their kinds ([`BuildRowFlow::takes_turns`]).
///
/// # Errors
/// As [`BuildRowFlow::build`].
pub fn build_flows<E: SpecScalar>(flows: &[FlowSpec], dim: usize, round: usize, scope: &BuildScope) -> Result<RowChain<E>, SpecError> {
    let each_round = flows.iter().filter(|flow| flow.takes_turns()).count();
    build_flows_from(flows, dim, round * each_round, scope)
}

/// The same, where `before` flows that take turns stand before the list.
pub(super) fn build_flows_from<E: SpecScalar>(
    flows: &[FlowSpec],
    dim: usize,
    before: usize,
    scope: &BuildScope,
) -> Result<RowChain<E>, SpecError> {
    let mut index = before;
    let mut build = |(i, flow): (usize, &FlowSpec)| {
        let own = scope.child(i).at(index);
        index = index.saturating_add(usize::from(flow.takes_turns()));
        E::row_flow(flow, dim, &own)
    };
    Ok(RowChain::new(dim, flows.iter().enumerate().map(&mut build).collect::<Result<_, _>>()?)?)
}

impl Cost {
    /// That of flows on R^dim.
    pub fn of_flows(flows: &[FlowSpec], dim: usize) -> Self {
        flows.iter().map(|flow| flow.cost(dim)).fold(Self::default(), Self::and)
    }
}
