//! The items of a source in its own order, each with the part that it belongs to.

use std::fmt;
use std::sync::Arc;

use super::dataset::check_draws;
use super::{Batch, Column, DataError, Dataset, Draw, ItemShape, Result, Split, SplitRule, Values};

/// What a run uses an item for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// To train on.
    Train,
    /// To choose the best model with.
    Validation,
    /// To test on.
    Test,
}

/// `train`, `validation`, `test`.
impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Train => "train",
            Self::Validation => "validation",
            Self::Test => "test",
        })
    }
}

/// Items of a [`Split`] in the order of the file or folder that they come from, whatever they are used for.
///
/// It is a set by itself, so that what is computed item by item stands in the order of the source. Batches keep the
/// numbers that items have in
/// their part: an item has the same dequantisation noise here and there.
///
/// ```
/// use flow_train::data::{self, Dataset, Items, Part};
/// let split = data::digits()?;
/// let items = Items::of(&split, &[0, 2]);
/// assert_eq!((items.len(), items.row(1600)), (1797, 1600));
/// assert_eq!([0, 1, 1600].map(|i| items.part(i)), [Some(Part::Validation), Some(Part::Train), Some(Part::Test)]);
/// assert_eq!(items.only(Part::Test).len(), 297);
/// # Ok::<(), flow_train::data::DataError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Items {
    sets: [Arc<dyn Dataset>; 2],
    items: Vec<Place>,
}

/// Where an item stands.
#[derive(Clone, Copy, Debug)]
struct Place {
    set: usize,
    index: usize,
    part: Option<Part>,
}

impl Items {
    /// All items, of which those of the training part with the numbers `held_out` are for validation.
    pub fn of(split: &Split, held_out: &[usize]) -> Self {
        let mut items = Self::new(split, [Some(Part::Train), Some(Part::Test)]);
        let mut held = vec![false; split.train.len()];
        held_out.iter().for_each(|&index| held[index] = true);
        for place in items.items.iter_mut().filter(|place| place.set == 0 && held[place.index]) {
            place.part = Some(Part::Validation);
        }
        items
    }

    /// All items of data that no run has seen: one part.
    pub fn unseen(split: &Split) -> Self {
        Self::new(split, [None, None])
    }

    fn new(split: &Split, parts: [Option<Part>; 2]) -> Self {
        let sets = [split.train.clone(), split.test.clone()];
        let places = |set: usize| (0..sets[set].len()).map(move |index| Place { set, index, part: parts[set] });
        let there = |place: &Place| !sets[place.set].is_gone(place.index);
        let mut items: Vec<Place> = places(0).chain(places(1)).filter(there).collect();
        // Rows of several files are each counted from 0.
        if !matches!(split.rule, SplitRule::Fixed | SplitRule::Files(_) | SplitRule::Generated) {
            items.sort_by_key(|place| sets[place.set].row(place.index));
        }
        Self { sets, items }
    }

    /// The items of one part.
    #[must_use]
    pub fn only(&self, part: Part) -> Self {
        let items = self.items.iter().copied().filter(|place| place.part == Some(part)).collect();
        Self { sets: self.sets.clone(), items }
    }

    /// The part of an item; none of data that no run has seen.
    pub fn part(&self, index: usize) -> Option<Part> {
        self.items.get(index)?.part
    }

    /// Items in each part, in the order of training, validation, test.
    pub fn counts(&self) -> [(Part, usize); 3] {
        let count = |part| (part, self.items.iter().filter(|place| place.part == Some(part)).count());
        [Part::Train, Part::Validation, Part::Test].map(count)
    }
}

impl Dataset for Items {
    fn len(&self) -> usize {
        self.items.len()
    }

    fn shape(&self) -> ItemShape {
        self.sets[0].shape()
    }

    fn levels(&self) -> Option<u32> {
        self.sets[0].levels()
    }

    fn are_whole(&self) -> bool {
        self.sets[0].are_whole()
    }

    fn classes(&self) -> &[String] {
        self.sets[0].classes()
    }

    fn conditions(&self) -> &[Column] {
        self.sets[0].conditions()
    }

    fn columns(&self) -> &[Column] {
        self.sets[0].columns()
    }

    fn item_name(&self, index: usize) -> Option<String> {
        let place = self.items.get(index)?;
        self.sets[place.set].item_name(place.index)
    }

    fn label(&self, index: usize) -> Option<usize> {
        let place = self.items.get(index)?;
        self.sets[place.set].label(place.index)
    }

    /// Numbered apart in the two parts.
    fn source(&self, index: usize) -> usize {
        self.items.get(index).map_or(index, |place| 2 * self.sets[place.set].source(place.index) + place.set)
    }

    fn item_key(&self, index: usize) -> Option<String> {
        let place = self.items.get(index)?;
        self.sets[place.set].item_key(place.index)
    }

    fn is_gone(&self, index: usize) -> bool {
        self.items.get(index).is_some_and(|place| self.sets[place.set].is_gone(place.index))
    }

    fn row(&self, index: usize) -> usize {
        self.items.get(index).map_or(index, |place| self.sets[place.set].row(place.index))
    }

    fn corner(&self, draw: Draw) -> Result<Option<(usize, usize)>> {
        let place = |place: &Place| self.sets[place.set].corner(Draw { index: place.index, ..draw });
        self.items.get(draw.index).map_or(Ok(None), place)
    }

    /// The `draws` of the batch are numbered as in the part of each item.
    fn batch(&self, draws: &[Draw]) -> Result<Batch> {
        check_draws(draws, self.len())?;
        let places: Vec<Place> = draws.iter().map(|draw| self.items[draw.index]).collect();
        let inner: Vec<Draw> = draws.iter().zip(&places).map(|(draw, place)| Draw { index: place.index, ..*draw }).collect();
        let of = |set: usize| -> Result<Batch> {
            let of_set = inner.iter().zip(&places).filter(|(_, place)| place.set == set).map(|(draw, _)| *draw);
            self.sets[set].batch(&of_set.collect::<Vec<_>>())
        };
        if let Some(set) = places.first().map(|place| place.set).filter(|set| places.iter().all(|place| place.set == *set)) {
            return of(set);
        }
        let [a, b] = [of(0)?, of(1)?];
        let sets: Vec<usize> = places.iter().map(|place| place.set).collect();
        let dims = self.shape().dims();
        let values = match (a.values, b.values) {
            (Values::Levels(a), Values::Levels(b)) => Values::Levels(merge(&sets, [&a, &b], dims)),
            (Values::Real(a), Values::Real(b)) => Values::Real(merge(&sets, [&a, &b], dims)),
            _ => {
                let [train, test] = self.sets.each_ref().map(|set| format!("{:?} levels", set.levels()));
                return Err(DataError::PartsDiffer { train, test });
            }
        };
        let labels = merge(&sets, [&a.labels, &b.labels], 1);
        let conditions = merge(&sets, [&a.conditions, &b.conditions], self.conditions().len());
        Ok(Batch { values, labels, conditions, draws: inner })
    }
}

/// `width` numbers for every entry of `sets`, from the first or the second list in turn.
fn merge<T: Copy>(sets: &[usize], lists: [&[T]; 2], width: usize) -> Vec<T> {
    let mut lists = lists.map(|list| list.chunks_exact(width.max(1)));
    sets.iter().filter_map(|&set| lists[set].next()).flatten().copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::InMemory;

    /// Thirty rows of which every tenth is a test row: they come back in the order of the file, over batches of any
    /// size.
    #[test]
    fn items_stand_in_the_order_of_the_file() -> Result<()> {
        let values: Vec<f64> = (0..30).flat_map(|i| [f64::from(i), f64::from(i * i)]).collect();
        let whole = InMemory::new("t".as_ref(), Values::Real(values.clone()), ItemShape::Vector { dims: 2 }, None, None)?;
        let split = whole.parts(&SplitRule::EveryTenth)?;
        let items = Items::of(&split, &[9]);
        for size in [1, 7, 30] {
            let mut seen = Vec::new();
            for draws in crate::data::each_once(30, size) {
                let batch = items.batch(&draws)?;
                let Values::Real(values) = batch.values else { panic!("real numbers") };
                seen.extend(values);
            }
            assert_eq!(seen, values, "batches of {size}");
        }
        // The tenth training item is row 10: row 9 is a test row.
        assert_eq!((items.part(9), items.part(10), items.part(11)), (Some(Part::Test), Some(Part::Validation), Some(Part::Train)));
        assert_eq!(items.counts().map(|(_, count)| count), [26, 1, 3]);
        let test = items.only(Part::Test);
        assert_eq!((0..3).map(|i| test.row(i)).collect::<Vec<_>>(), [9, 19, 29]);
        assert_eq!(Items::unseen(&split).part(3), None);
        Ok(())
    }
}
