//! Specs of maps of whole samples that belong to no family: other grids of the same values, row flows on a grid, and
//! repetition.

use super::flows::{ActNorm, build_flows_from};
use super::samples::{build_sample_flows, grid_behind, one_flow, turns_of};
use super::{BuildSampleFlow, BuildScope, Cost, FlowSpec, SampleSpec, SpecError, SpecScalar};
use crate::samples::{Grid, SampleLayer, Side};
use crate::{layers, register_sample_flow};
use serde::{Deserialize, Serialize};

/// Every `factor` × `factor` places become the channels of one ([`Grid::squeeze`]). Nothing is moved, and its log-det
/// is 0: the maps behind see the same values on another grid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Squeeze {
    /// Places on a side that become one.
    pub factor: usize,
}
register_sample_flow!(Squeeze);

impl Default for Squeeze {
    fn default() -> Self {
        Self { factor: 2 }
    }
}

impl BuildSampleFlow for Squeeze {
    fn build<E: SpecScalar>(&self, _: &Grid, _: &BuildScope) -> Result<Vec<SampleLayer<E>>, SpecError> {
        Ok(Vec::new())
    }

    fn cost(&self, _: &Grid) -> Cost {
        Cost::default()
    }

    fn output(&self, grid: &Grid, scope: &BuildScope) -> Result<Grid, SpecError> {
        let factor = scope.size("factor", self.factor, 2)?;
        grid.squeeze(factor).ok_or_else(|| {
            let [height, width] = [("height", grid.height()), ("width", grid.width())];
            let (dividend_name, dividend) = if height.1.is_multiple_of(factor) { width } else { height };
            SpecError::Indivisible { path: scope.path().to_owned(), dividend_name, dividend, divisor_name: "factor", divisor: factor }
        })
    }
}

/// Row flows on R^c that all places share, one after the other: every place is a row of its channels. With `ActNorm`
/// and `LuLinear` it is an invertible 1×1 convolution behind a normalisation.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PixelWise {
    /// The flows.
    pub flows: Vec<FlowSpec>,
}
register_sample_flow!(PixelWise);

impl BuildSampleFlow for PixelWise {
    fn build<E: SpecScalar>(&self, grid: &Grid, scope: &BuildScope) -> Result<Vec<SampleLayer<E>>, SpecError> {
        let chain = build_flows_from::<E>(&self.flows, grid.channels(), scope.index(), scope)?;
        Ok(one_flow(Side::new(grid.pixels()?, chain)?))
    }

    fn cost(&self, grid: &Grid) -> Cost {
        at_least_one(Cost::of_flows(&self.flows, grid.channels()))
    }

    fn turns(&self) -> usize {
        self.flows.iter().filter(|flow| flow.takes_turns()).count()
    }
}

/// A side costs as much as a flow, whatever is in it.
fn at_least_one(cost: Cost) -> Cost {
    Cost { flows: cost.flows.max(1), ..cost }
}

/// Row flows on R^(h·w) that all channels share, one after the other: every channel is a row of its places, row by row.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChannelWise {
    /// The flows.
    pub flows: Vec<FlowSpec>,
}
register_sample_flow!(ChannelWise);

impl BuildSampleFlow for ChannelWise {
    fn build<E: SpecScalar>(&self, grid: &Grid, scope: &BuildScope) -> Result<Vec<SampleLayer<E>>, SpecError> {
        let chain = build_flows_from::<E>(&self.flows, grid.places(), scope.index(), scope)?;
        Ok(one_flow(Side::new(grid.channel_rows()?, chain)?))
    }

    fn cost(&self, grid: &Grid) -> Cost {
        at_least_one(Cost::of_flows(&self.flows, grid.places()))
    }

    fn turns(&self) -> usize {
        self.flows.iter().filter(|flow| flow.takes_turns()).count()
    }
}

register_sample_flow!(ActNorm);

/// A scale and a shift for every channel, which all places share.
impl BuildSampleFlow for ActNorm {
    fn build<E: SpecScalar>(&self, grid: &Grid, _: &BuildScope) -> Result<Vec<SampleLayer<E>>, SpecError> {
        Ok(one_flow(Side::new(grid.pixels()?, layers::ActNorm::<E>::new(grid.channels()))?))
    }

    fn cost(&self, grid: &Grid) -> Cost {
        Cost::of_numbers(grid.channels().saturating_mul(2))
    }
}

/// A list of maps again and again, each time with parameters of its own and on the grid that the time before left.
///
/// A round whose maps are single flows is one layer: what a training pass keeps is kept for it as a whole.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Repeat {
    /// How often.
    pub times: usize,
    /// The maps of one round.
    pub flows: Vec<SampleSpec>,
}
register_sample_flow!(Repeat);

impl Repeat {
    /// The grids that rounds begin with, up to the one behind the last; of rounds that leave the grid as it is, the
    /// one.
    fn grids(&self, grid: &Grid, scope: &BuildScope) -> Result<Vec<Grid>, SpecError> {
        scope.layers("times", self.times)?;
        scope.size("flows", self.flows.len(), 1)?;
        let mut grids = vec![grid.clone()];
        for round in 0..self.times {
            let last = &grids[grids.len() - 1];
            let next = grid_behind(&self.flows, last, &scope.child(round))?;
            if next == *last {
                break;
            }
            grids.push(next);
        }
        Ok(grids)
    }
}

impl BuildSampleFlow for Repeat {
    fn build<E: SpecScalar>(&self, grid: &Grid, scope: &BuildScope) -> Result<Vec<SampleLayer<E>>, SpecError> {
        let (grids, each) = (self.grids(grid, scope)?, turns_of(&self.flows));
        let mut all = Vec::new();
        for round in 0..self.times {
            let index = scope.index().saturating_add(round.saturating_mul(each));
            let own = scope.child(round).at(index);
            let (layers, _) = build_sample_flows::<E>(&self.flows, &grids[round.min(grids.len() - 1)], &own)?;
            let layers = super::samples::below(round, layers);
            if layers.iter().all(|layer| layer.len() == 1) {
                all.push(layers.into_iter().flatten().collect());
            } else {
                all.extend(layers);
            }
        }
        Ok(all)
    }

    fn output(&self, grid: &Grid, scope: &BuildScope) -> Result<Grid, SpecError> {
        Ok(self.grids(grid, scope)?.pop().unwrap_or_else(|| grid.clone()))
    }

    fn cost(&self, grid: &Grid) -> Cost {
        let (scope, mut rounds, mut grid) = (BuildScope::new(0), Cost::default(), grid.clone());
        for round in 0..self.times {
            let own = Cost::of_sample_flows(&self.flows, &grid);
            match grid_behind(&self.flows, &grid, &scope) {
                Ok(next) if next == grid => return rounds.and(own.times(self.times - round)),
                Ok(next) => grid = next,
                // It is refused when it is built.
                Err(_) => return rounds.and(own),
            }
            rounds = rounds.and(own);
        }
        rounds
    }

    fn turns(&self) -> usize {
        turns_of(&self.flows).saturating_mul(self.times)
    }
}
