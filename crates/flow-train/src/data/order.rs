//! In which order items are drawn.

use rand::seq::SliceRandom;

use super::random::{Purpose, stream};
use super::{DataError, Draw, MAX_ITEMS, Result};

/// A fresh permutation of the items in every epoch, as a pure function of (seed, epoch).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shuffle {
    /// Seed of all epochs.
    pub seed: u64,
}

impl Shuffle {
    /// The order of `items` items in an epoch.
    pub fn permutation(self, epoch: u64, items: usize) -> Vec<usize> {
        let mut order: Vec<_> = (0..items).collect();
        order.shuffle(&mut stream(self.seed, Purpose::Order, Draw { epoch, index: 0 }));
        order
    }
}

/// Training batches without end: the shuffled epochs one after another, cut into batches of one size.
///
/// Batch `step` is draws `step·size .. (step+1)·size` of that sequence, so a run resumed at a step sees what it would
/// have seen. Every batch is full and every item comes exactly once an epoch; a batch may span the end of an epoch, and
/// several epochs of a small set.
///
/// ```
/// use flow_train::data::{Shuffle, TrainOrder};
///
/// let mut order = TrainOrder::new(Shuffle { seed: 1 }, 10, 4)?;
/// let batches: Vec<_> = order.clone().take(3).collect();
/// assert!(batches.iter().all(|b| b.len() == 4));
/// order.seek(2);
/// assert_eq!(order.next().as_ref(), Some(&batches[2]));
/// # Ok::<(), flow_train::data::DataError>(())
/// ```
#[derive(Clone, Debug)]
pub struct TrainOrder {
    shuffle: Shuffle,
    batch: usize,
    step: u64,
    /// The permutation in use and its epoch.
    epoch: u64,
    permutation: Vec<usize>,
}

impl TrainOrder {
    /// Batches of `batch` from a set of `items`, from step 0.
    ///
    /// # Errors
    /// [`DataError::Setting`] if there is no item, or `batch` is 0 or above [`MAX_ITEMS`].
    pub fn new(shuffle: Shuffle, items: usize, batch: usize) -> Result<Self> {
        for (what, size) in [("number of items", items), ("batch size", batch)] {
            if size == 0 {
                return Err(DataError::Setting { what, expected: "at least 1", got: "0".to_owned() });
            }
        }
        if batch > MAX_ITEMS {
            return Err(DataError::Setting { what: "batch size", expected: "at most 100000000", got: batch.to_string() });
        }
        Ok(Self { shuffle, batch, step: 0, epoch: 0, permutation: shuffle.permutation(0, items) })
    }

    /// Goes to a step: the next batch is number `step`, counted from 0.
    pub fn seek(&mut self, step: u64) {
        self.step = step;
    }
}

impl Iterator for TrainOrder {
    type Item = Vec<Draw>;

    fn next(&mut self) -> Option<Vec<Draw>> {
        let (items, batch) = (self.permutation.len(), self.batch as u64);
        let start = self.step.checked_mul(batch)?;
        let end = start.checked_add(batch)?;
        self.step += 1;
        let draws = (start..end).map(|position| {
            let epoch = position / items as u64;
            if epoch != self.epoch {
                self.permutation = self.shuffle.permutation(epoch, items);
                self.epoch = epoch;
            }
            // The remainder is below the number of items, a usize.
            #[allow(clippy::cast_possible_truncation)]
            let at = (position % items as u64) as usize;
            Draw { epoch, index: self.permutation[at] }
        });
        Some(draws.collect())
    }
}

/// Every item of a set once, in order, in batches of `batch` (at least 1) and a smaller last one: to evaluate, where no
/// item may be left out.
///
/// All are drawn in epoch 0, so that every item is one and the same thing however often it is evaluated: a crop does
/// not wander.
pub fn each_once(items: usize, batch: usize) -> impl Iterator<Item = Vec<Draw>> + Send + 'static {
    let batch = batch.max(1);
    (0..items).step_by(batch).map(move |start| {
        let end = items.min(start.saturating_add(batch));
        (start..end).map(|index| Draw { epoch: 0, index }).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_are_distinct_permutations_of_the_seed() {
        let order = |seed, epoch| Shuffle { seed }.permutation(epoch, 100);
        let mut sorted = order(7, 3);
        sorted.sort_unstable();
        assert!(sorted.into_iter().eq(0..100));
        assert_eq!(order(7, 3), order(7, 3));
        assert_ne!(order(7, 3), order(7, 4));
        assert_ne!(order(7, 3), order(8, 3));
    }

    #[test]
    fn batches_cover_each_epoch_once_and_resume_anywhere() -> Result<()> {
        for (items, batch) in [(10, 4), (3, 8), (5, 5), (1, 3)] {
            let order = TrainOrder::new(Shuffle { seed: 1 }, items, batch)?;
            let steps: Vec<_> = order.clone().take(items * 2).collect();
            assert!(steps.iter().all(|b| b.len() == batch));
            for epoch in 0..2 * batch as u64 {
                let seen = steps.iter().flatten().filter(|d| d.epoch == epoch).map(|d| d.index);
                let expected = Shuffle { seed: 1 }.permutation(epoch, items);
                assert!(seen.eq(expected), "{items} items, batches of {batch}, epoch {epoch}");
            }
            for (step, expected) in steps.iter().enumerate() {
                let mut resumed = order.clone();
                resumed.seek(step as u64);
                assert_eq!(resumed.next().as_ref(), Some(expected));
            }
        }
        assert!(TrainOrder::new(Shuffle { seed: 1 }, 0, 1).is_err());
        assert!(TrainOrder::new(Shuffle { seed: 1 }, 1, 0).is_err());
        assert!(TrainOrder::new(Shuffle { seed: 1 }, 1, usize::MAX).is_err());
        Ok(())
    }

    #[test]
    fn evaluation_leaves_no_item_out() {
        let sizes = |items, batch| each_once(items, batch).map(|b| b.len()).collect::<Vec<_>>();
        assert_eq!(sizes(10, 4), [4, 4, 2]);
        assert_eq!(sizes(3, usize::MAX), [3]);
        assert_eq!(sizes(2, 0), [1, 1]);
        assert!(each_once(10, 4).flatten().map(|d| (d.epoch, d.index)).eq((0..10).map(|i| (0, i))));
    }
}
