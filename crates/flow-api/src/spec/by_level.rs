//! Samples with a temperature for every level of the latents.

use super::{LatentLevel, Model};
use crate::{Context, FlowError, Result, Scalar};

impl<E: Scalar> Model<E> {
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
