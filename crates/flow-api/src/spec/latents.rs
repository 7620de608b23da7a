//! Latents by level: which leave the flow together, and samples with a temperature each.

use super::build::{BuildScope, SpecScalar};
use super::model::Model;
use super::{SampleSpec, SpecError};
use crate::samples::Grid;
use crate::{Context, FlowError, Result};

/// Latents that leave a flow at the same place.
///
/// ```
/// use flow_api::Context;
/// use flow_api::spec::{EventShape, LatentLevel, Model, ModelSpec, Spec, from_ron};
/// let spec: Spec<dyn ModelSpec> = from_ron("VectorFlow(flows: [LuLinear()])")?; // the identity, until it is trained
/// let level = |name: &str, places: &[usize]| LatentLevel { name: name.to_owned(), places: places.to_vec() };
/// let model = spec.build::<f64>(EventShape::Vector(3), 7)?.with_levels(vec![level("fine", &[0, 2]), level("coarse", &[1])]);
/// let (cx, both) = (Context::new(1), model.sample(1, 1.0, &Context::new(1))?);
/// // Of the fine level the means alone.
/// assert_eq!(model.sample_by_level(1, &[0.0, 1.0], &cx)?, [0.0, both[1], 0.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LatentLevel {
    /// What it is called: the path of the maps behind which it leaves.
    pub name: String,
    /// Where its numbers lie within the latent.
    pub places: Vec<usize>,
}

impl LatentLevel {
    /// The numbers that a map takes off a grid, if it takes any.
    pub fn left(name: impl Into<String>, before: &Grid, behind: &Grid) -> Result<Option<Self>> {
        let (before, behind) = (before.pixels()?, behind.pixels()?);
        let mut gone = vec![false; before.sample_len()];
        before.places().for_each(|place| gone[place] = true);
        behind.places().for_each(|place| gone[place] = false);
        let places: Vec<_> = (0..gone.len()).filter(|place| gone[*place]).collect();
        Ok((!places.is_empty()).then(|| Self { name: name.into(), places }))
    }

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

    /// These levels, if there are any, and what is left in the end.
    ///
    /// # Errors
    /// None for a grid that was made.
    pub fn with_rest(mut levels: Vec<Self>, grid: &Grid) -> Result<Vec<Self>, SpecError> {
        if !levels.is_empty() {
            levels.push(Self::rest("rest", grid)?);
        }
        Ok(levels)
    }

    /// The numbers of a grid that is left at the end.
    fn rest(name: impl Into<String>, grid: &Grid) -> Result<Self> {
        let mut places: Vec<_> = grid.pixels()?.places().collect();
        places.sort_unstable();
        Ok(Self { name: name.into(), places })
    }
}

impl<E: SpecScalar> Model<E> {
    /// The levels of the latents, from the first that leaves to the last; none of a model whose latents are all of one
    /// level.
    pub fn levels(&self) -> &[LatentLevel] {
        &self.levels
    }

    /// The same with these levels of the latents.
    #[must_use]
    pub fn with_levels(mut self, levels: Vec<LatentLevel>) -> Self {
        self.levels = levels;
        self
    }

    /// As [`Model::sample`], with a temperature for every level of the latents. Numbers of no level are drawn at
    /// temperature 1.
    ///
    /// # Errors
    /// [`FlowError::Setting`] for as many temperatures as there are no levels, or for a level with numbers that the
    /// latent does not have; those of [`Model::sample`].
    pub fn sample_by_level(&self, count: usize, temperatures: &[E], cx: &Context<E>) -> Result<Vec<E>> {
        let wrong =
            |field, expected: String, got: usize| FlowError::Setting { layer: "model".to_owned(), field, expected, got: got.to_string() };
        if temperatures.len() != self.levels.len() {
            return Err(wrong("temperatures", format!("one for each of {} levels", self.levels.len()), temperatures.len()));
        }
        let dim = self.event().len();
        let at = self.conditioned(count, cx)?;
        let draw = |temperature: E| self.flow().base().sample(count, temperature, &at.cx().child("base"));
        let mut latents = draw(E::one())?;
        for (level, &temperature) in self.levels.iter().zip(temperatures) {
            if let Some(place) = level.places.iter().find(|place| **place >= dim) {
                return Err(wrong("levels", format!("places below {dim}"), *place));
            }
            // The noise is one at all temperatures.
            let own = draw(temperature)?;
            for (latent, own) in latents.chunks_exact_mut(dim).zip(own.chunks_exact(dim)) {
                level.places.iter().for_each(|&place| latent[place] = own[place]);
            }
        }
        self.decode(latents, &cx.clone().without_log_det())
    }
}
