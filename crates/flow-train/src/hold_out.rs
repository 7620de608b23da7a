//! Which items of a data set a run does not train on.

use crate::Settings;
use crate::data::{Dataset, Shuffle};

/// The "epoch" whose order says what is held out: one that no run comes to.
const SPLIT_EPOCH: u64 = u64::MAX;

/// Items to validate with and items to train on: those that the data set aside themselves ([`Dataset::held_out`]), or
/// else the share that the settings say. Whole sources ([`Dataset::source`]) are held out, so that no crop of a picture
/// that is validated with is trained on; of a single source nothing is. Items that are gone ([`Dataset::is_gone`]) are
/// in neither list.
pub fn hold_out(data: &dyn Dataset, settings: &Settings) -> (Vec<usize>, Vec<usize>) {
    let (mut held, mut kept) = all(data, settings);
    for list in [&mut held, &mut kept] {
        list.retain(|&item| !data.is_gone(item));
    }
    (held, kept)
}

/// As [`hold_out`], with those that are gone.
fn all(data: &dyn Dataset, settings: &Settings) -> (Vec<usize>, Vec<usize>) {
    let own = data.held_out();
    if !own.is_empty() {
        let mut is_held = vec![false; data.len()];
        own.iter().for_each(|&item| is_held[item] = true);
        return (own.to_vec(), (0..data.len()).filter(|&item| !is_held[item]).collect());
    }
    if settings.validation == 0.0 {
        return (Vec::new(), (0..data.len()).collect());
    }
    let mut by_source: Vec<usize> = (0..data.len()).collect();
    by_source.sort_by_key(|&item| data.source(item));
    let sources: Vec<&[usize]> = by_source.chunk_by(|&a, &b| data.source(a) == data.source(b)).collect();
    let mut held = Shuffle { seed: settings.seed }.permutation(SPLIT_EPOCH, sources.len());
    let kept = held.split_off(settings.held_out(sources.len()));
    let items = |chosen: Vec<usize>| chosen.into_iter().flat_map(|source| sources[source].iter().copied()).collect();
    (items(held), items(kept))
}

impl Settings {
    /// The steps in which each item of a data set is drawn `epochs` times, with the share for validation held out.
    pub fn steps_of_epochs(&self, epochs: u64, data: &dyn Dataset) -> u64 {
        let kept = hold_out(data, self).1.len() as u64;
        epochs.saturating_mul(kept).div_ceil(self.batch.max(1) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Batch, Crop, Draw, ImageFolder, ItemShape, Result, digits};
    use std::collections::BTreeSet;

    fn settings(validation: f64) -> Settings {
        Settings { validation, ..Settings::default() }
    }

    #[test]
    fn crops_of_a_picture_are_held_out_together() -> std::result::Result<(), Box<dyn std::error::Error>> {
        let dir = tempfile::tempdir()?;
        for i in 0..10 {
            image::GrayImage::new(12, 12).save(dir.path().join(format!("{i}.png")))?;
        }
        let folder = ImageFolder { size: Some(8), crop: Crop::Random, crops: 30, ..ImageFolder::new(dir.path()) };
        let train = folder.open(0)?.train;
        let (held, kept) = hold_out(train.as_ref(), &settings(0.25));
        assert_eq!((held.len(), kept.len()), (2 * 30, 7 * 30));
        let names = |items: &[usize]| items.iter().map(|&item| train.item_name(item)).collect::<BTreeSet<_>>();
        assert_eq!((names(&held).len(), names(&kept).len()), (2, 7));
        assert!(names(&held).is_disjoint(&names(&kept)));
        assert_eq!(settings(0.25).steps_of_epochs(1, train.as_ref()), 210_u64.div_ceil(128));
        Ok(())
    }

    /// Two items of one source.
    #[derive(Debug)]
    struct Pair;

    impl Dataset for Pair {
        fn len(&self) -> usize {
            2
        }
        fn shape(&self) -> ItemShape {
            ItemShape::Vector { dims: 1 }
        }
        fn levels(&self) -> Option<u32> {
            None
        }
        fn source(&self, _: usize) -> usize {
            0
        }
        fn batch(&self, draws: &[Draw]) -> Result<Batch> {
            digits()?.train.batch(draws)
        }
    }

    #[test]
    fn items_of_their_own_are_held_out_one_by_one_and_a_single_source_is_not() -> std::result::Result<(), Box<dyn std::error::Error>> {
        let train = digits()?.train;
        let (held, kept) = hold_out(train.as_ref(), &settings(0.1));
        let mut expected = Shuffle { seed: 0 }.permutation(SPLIT_EPOCH, 1500);
        assert_eq!(kept, expected.split_off(150));
        assert_eq!(held, expected);
        assert_eq!(hold_out(train.as_ref(), &settings(0.0)), (vec![], (0..1500).collect()));
        assert_eq!(hold_out(&Pair, &settings(0.5)), (vec![], vec![0, 1]));
        Ok(())
    }
}
