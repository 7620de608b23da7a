//! Levels of which a share is replaced at random: what a background model is trained on.

use rand::Rng;

use super::mapped::{Item, ItemMap, Mapped};
use super::random::{Purpose, stream};
use super::{DataError, Dataset, Draw, Result};
use std::sync::Arc;

/// A data set whose values are each replaced, with a probability, by a level drawn uniformly from all.
///
/// What is left is the background: a model of it knows how common levels and smooth places are, and not what is shown.
/// The likelihood ratio of a model to it is the part of the likelihood that the content has (Ren et al.
/// 2019, *Likelihood ratios for out-of-distribution detection*, arXiv:1906.02845, section 3.2, where rates are 0.1
/// to 0.3). A visit of an item (its draw) always meets the same values.
pub type Mutated = Mapped<Mutation>;

/// What happens to the items of [`Mutated`].
#[derive(Clone, Debug)]
pub struct Mutation {
    rate: f64,
    seed: u64,
    levels: u32,
}

impl Mutated {
    /// The items of `of`, mutated at a rate from 0 to 1.
    ///
    /// # Errors
    /// [`DataError::Setting`] for data that have no levels, and another rate.
    pub fn new(of: Arc<dyn Dataset>, rate: f64, seed: u64) -> Result<Self> {
        let bad = |expected, got: String| Err(DataError::Setting { what: "mutate", expected, got });
        if !(0.0..=1.0).contains(&rate) {
            return bad("a share from 0 to 1", rate.to_string());
        }
        let Some(levels) = of.levels() else { return bad("0 for data that have no levels", rate.to_string()) };
        Ok(Self { of, map: Mutation { rate, seed, levels } })
    }
}

impl ItemMap for Mutation {
    fn change(&self, item: &mut Item<'_>, draw: Draw) {
        let Item::Levels(values) = item else { return };
        let mut rng = stream(self.seed, Purpose::Mutate, draw);
        for value in values.iter_mut() {
            // Both are drawn for every value: one that is replaced does not shift what the others meet.
            let (chance, level) = (rng.gen_range(0.0..1.0), rng.gen_range(0..self.levels));
            if chance < self.rate {
                *value = u8::try_from(level).unwrap_or(u8::MAX);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{self, InMemory, ItemShape, Subset, Values};

    fn levels(data: &dyn Dataset, draws: &[Draw]) -> Vec<u8> {
        let Values::Levels(levels) = data.batch(draws).unwrap().values else { panic!("levels") };
        levels
    }

    #[test]
    fn a_share_of_the_values_is_replaced_and_stays_so() {
        let digits = data::digits().unwrap().train;
        let draws: Vec<Draw> = (0..300).map(|index| Draw { epoch: 1, index }).collect();
        let before = levels(&*digits, &draws);
        let mutated = Mutated::new(digits.clone(), 0.2, 5).unwrap();
        let after = levels(&mutated, &draws);
        assert_eq!(after, levels(&mutated, &draws));
        let changed = before.iter().zip(&after).filter(|(a, b)| a != b).count() as f64;
        // One of 17 levels is the one that was there.
        let (expected, values) = (0.2 * 16.0 / 17.0, before.len() as f64);
        let error = 4.0 * (expected * (1.0 - expected) / values).sqrt();
        assert!((changed / values - expected).abs() < error, "{changed} of {values}");
        assert!(after.iter().all(|level| *level < 17));
        // An item alone, and in another epoch.
        assert_eq!(levels(&mutated, &draws[7..8]), after[7 * 64..8 * 64]);
        assert_ne!(levels(&mutated, &[Draw { epoch: 2, index: 7 }]), after[7 * 64..8 * 64]);
        assert_eq!(levels(&Mutated::new(digits.clone(), 0.0, 5).unwrap(), &draws), before);
        assert_eq!(mutated.len(), digits.len());
        assert!(Subset::new(Arc::new(mutated), vec![3]).is_ok());
    }

    #[test]
    fn real_numbers_and_other_rates_are_errors() {
        let real = InMemory::new("t".as_ref(), Values::Real(vec![0.5; 4]), ItemShape::Vector { dims: 2 }, None, None).unwrap();
        let error = Mutated::new(Arc::new(real), 0.1, 0).unwrap_err().to_string();
        assert_eq!(error, "mutate: expected 0 for data that have no levels, got 0.1");
        assert!(Mutated::new(data::digits().unwrap().train, f64::NAN, 0).is_err());
    }
}
