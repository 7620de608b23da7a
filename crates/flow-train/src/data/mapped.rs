//! Data sets whose items are those of another set, changed.

use super::{Batch, Column, Dataset, Draw, ItemShape, Result, Values};
use std::fmt::Debug;
use std::sync::Arc;

/// What happens to the values of items: a pure function of the values and of the draw, which keeps shape and kind.
pub trait ItemMap: Debug + Send + Sync {
    /// Changes the values of one item.
    fn change(&self, item: &mut Item<'_>, draw: Draw);
}

/// The values of one item.
#[derive(Debug)]
pub enum Item<'a> {
    /// Discrete values.
    Levels(&'a mut [u8]),
    /// Continuous values.
    Real(&'a mut [f64]),
}

/// The items of a set, each changed by a map; all else is as in the set.
#[derive(Clone, Debug)]
pub struct Mapped<M> {
    pub(super) of: Arc<dyn Dataset>,
    pub(super) map: M,
}

impl<M: ItemMap> Dataset for Mapped<M> {
    fn len(&self) -> usize {
        self.of.len()
    }

    fn shape(&self) -> ItemShape {
        self.of.shape()
    }

    fn levels(&self) -> Option<u32> {
        self.of.levels()
    }

    fn are_whole(&self) -> bool {
        self.of.are_whole()
    }

    fn classes(&self) -> &[String] {
        self.of.classes()
    }

    fn conditions(&self) -> &[Column] {
        self.of.conditions()
    }

    fn columns(&self) -> &[Column] {
        self.of.columns()
    }

    fn item_name(&self, index: usize) -> Option<String> {
        self.of.item_name(index)
    }

    fn label(&self, index: usize) -> Option<usize> {
        self.of.label(index)
    }

    fn source(&self, index: usize) -> usize {
        self.of.source(index)
    }

    fn item_key(&self, index: usize) -> Option<String> {
        self.of.item_key(index)
    }

    fn is_gone(&self, index: usize) -> bool {
        self.of.is_gone(index)
    }

    fn row(&self, index: usize) -> usize {
        self.of.row(index)
    }

    fn corner(&self, draw: Draw) -> Result<Option<(usize, usize)>> {
        self.of.corner(draw)
    }

    fn held_out(&self) -> &[usize] {
        self.of.held_out()
    }

    fn batch(&self, draws: &[Draw]) -> Result<Batch> {
        let mut batch = self.of.batch(draws)?;
        let dims = self.shape().dims().max(1);
        match &mut batch.values {
            Values::Levels(values) => {
                values.chunks_exact_mut(dims).zip(draws).for_each(|(item, draw)| self.map.change(&mut Item::Levels(item), *draw));
            }
            Values::Real(values) => {
                values.chunks_exact_mut(dims).zip(draws).for_each(|(item, draw)| self.map.change(&mut Item::Real(item), *draw));
            }
        }
        Ok(batch)
    }
}
