//! Lists of maps of whole samples.

use super::{BuildScope, Cost, LatentLevel, SampleSpec, SpecError, SpecScalar};
use crate::SampleFlow;
use crate::samples::{Grid, SampleLayer};

/// What a spec builds whose maps are one flow: its path is the spec's own.
pub fn one_flow<E: SpecScalar>(flow: impl SampleFlow<E> + 'static) -> Vec<SampleLayer<E>> {
    vec![vec![(String::new(), Box::new(flow))]]
}

/// Layers with their paths below `name`.
pub fn below<E: SpecScalar>(name: impl std::fmt::Display, layers: Vec<SampleLayer<E>>) -> Vec<SampleLayer<E>> {
    let path = |own: String| if own.is_empty() { name.to_string() } else { format!("{name}.{own}") };
    let layer = |layer: SampleLayer<E>| layer.into_iter().map(|(own, flow)| (path(own), flow)).collect();
    layers.into_iter().map(layer).collect()
}

/// Builds a list of maps on a grid, and gives the grid behind them; those that take turns begin with the scope's index
/// ([`BuildScope::at`]).
///
/// # Errors
/// As [`BuildSampleFlow::build`](super::BuildSampleFlow::build) and
/// [`BuildSampleFlow::output`](super::BuildSampleFlow::output).
pub fn build_sample_flows<E: SpecScalar>(
    flows: &[SampleSpec],
    grid: &Grid,
    scope: &BuildScope,
) -> Result<(Vec<SampleLayer<E>>, Grid), SpecError> {
    let (mut layers, mut grid, mut index) = (Vec::new(), grid.clone(), scope.index());
    for (i, flow) in flows.iter().enumerate() {
        let own = scope.child(i).at(index);
        let output = flow.output(&grid, &own)?;
        layers.extend(below(i, E::sample_flow(flow, &grid, &own)?));
        index = index.saturating_add(flow.turns());
        grid = output;
    }
    Ok((layers, grid))
}

/// The grid behind a list of maps.
///
/// # Errors
/// As [`BuildSampleFlow::output`](super::BuildSampleFlow::output).
pub fn grid_behind(flows: &[SampleSpec], grid: &Grid, scope: &BuildScope) -> Result<Grid, SpecError> {
    flows.iter().enumerate().try_fold(grid.clone(), |grid, (i, flow)| flow.output(&grid, &scope.child(i)))
}

/// How many flows of a list take turns ([`BuildSampleFlow::turns`](super::BuildSampleFlow::turns)).
pub fn turns_of(flows: &[SampleSpec]) -> usize {
    flows.iter().fold(0, |turns: usize, flow| turns.saturating_add(flow.turns()))
}

impl Cost {
    /// That of maps of whole samples, as far as they work on the grids that they get: what does not is refused when it
    /// is built.
    pub fn of_sample_flows(flows: &[SampleSpec], grid: &Grid) -> Self {
        let (mut cost, mut grid, scope) = (Self::default(), grid.clone(), BuildScope::new(0));
        for flow in flows {
            cost = cost.and(flow.cost(&grid));
            match flow.output(&grid, &scope) {
                Ok(output) => grid = output,
                Err(_) => break,
            }
        }
        cost
    }
}

impl LatentLevel {
    /// Those of a list of maps on a grid, each called by its place in the list, and what is left behind the last one;
    /// none if no map takes numbers off.
    ///
    /// # Errors
    /// As [`BuildSampleFlow::output`](super::BuildSampleFlow::output).
    pub fn of_flows(flows: &[SampleSpec], grid: &Grid, scope: &BuildScope) -> Result<Vec<Self>, SpecError> {
        let (mut levels, mut grid) = (Vec::new(), grid.clone());
        for (i, flow) in flows.iter().enumerate() {
            let behind = flow.output(&grid, &scope.child(i))?;
            levels.extend(Self::left(i.to_string(), &grid, &behind)?);
            grid = behind;
        }
        Self::with_rest(levels, &grid)
    }
}
