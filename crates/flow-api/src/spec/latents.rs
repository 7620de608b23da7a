//! Latents by level: which leave the flow together.

use super::SpecError;
use crate::Result;
use crate::samples::Grid;

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
