//! The [`Dataset`] trait and what goes in and out of it.

use std::collections::BTreeSet;
use std::fmt::{self, Debug};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Column, DataError, Found, Result, SplitRule};

/// The shape of one item, without the batch axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ItemShape {
    /// A picture, laid out channel by channel, row by row: `[channels, height, width]`.
    Image {
        /// 1 for grey, 3 for red, green, blue.
        channels: usize,
        /// Rows.
        height: usize,
        /// Columns.
        width: usize,
    },
    /// A plain vector: `[dims]`.
    Vector {
        /// Entries.
        dims: usize,
    },
}

impl ItemShape {
    /// Values in one item: the D of bits per dimension.
    pub const fn dims(&self) -> usize {
        match *self {
            Self::Image { channels, height, width } => channels * height * width,
            Self::Vector { dims } => dims,
        }
    }
}

/// `3×32×32` for a picture (C×H×W), `10` for a vector.
impl fmt::Display for ItemShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Image { channels, height, width } => write!(f, "{channels}×{height}×{width}"),
            Self::Vector { dims } => write!(f, "{dims}"),
        }
    }
}

/// One visit to one item: which item, and in which pass over the data.
///
/// Whatever is random about a visit (the window of a crop, a flip, dequantisation noise) is a pure function of the seed
/// and of this pair. It does not depend on the batch that the visit falls in, on the number of threads, or on where a
/// run was resumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Draw {
    /// Number of passes over the whole set made before this one.
    pub epoch: u64,
    /// Which item, `0..len`.
    pub index: usize,
}

/// The values of a set or of a batch, item after item.
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    /// Discrete values `0..levels`: to be dequantised before a density model sees them.
    Levels(Vec<u8>),
    /// Continuous values: taken as they are.
    Real(Vec<f64>),
}

impl Values {
    /// Number of values, over all items.
    pub fn len(&self) -> usize {
        match self {
            Self::Levels(v) => v.len(),
            Self::Real(v) => v.len(),
        }
    }

    /// Whether there is no value at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Items in the order in which they were asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// Values of shape `[draws, item shape…]`.
    pub values: Values,
    /// The class of each item, an index into [`Dataset::classes`]; `None` for an item without a label, and for all
    /// items of a set without labels.
    pub labels: Vec<Option<usize>>,
    /// The numbers that each item is conditioned on ([`Dataset::conditions`]), item after item.
    pub conditions: Vec<f64>,
    /// What was asked for: keys the noise that dequantisation adds.
    pub draws: Vec<Draw>,
}

impl Batch {
    /// Items without labels and conditions.
    pub fn new(values: Values, draws: &[Draw]) -> Self {
        Self { values, labels: vec![None; draws.len()], conditions: Vec::new(), draws: draws.to_vec() }
    }
}

/// A set of items of one shape that can be drawn by number.
///
/// One trait for sets in memory, pictures decoded from disk when they are drawn, and generated samples. All methods
/// take `&self` and may be called from many threads.
pub trait Dataset: Debug + Send + Sync {
    /// Number of items in one epoch.
    fn len(&self) -> usize;

    /// Whether there is no item.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The shape of every item.
    fn shape(&self) -> ItemShape;

    /// Number of discrete levels of a value (256 for 8-bit pictures); `None` if values are continuous.
    fn levels(&self) -> Option<u32>;

    /// Whether values that are continuous stand for whole numbers, all of them, so that they are dequantised: of more
    /// levels than [`Dataset::levels`] has.
    fn are_whole(&self) -> bool {
        false
    }

    /// Names of the classes, by label; empty for a set without labels.
    fn classes(&self) -> &[String] {
        &[]
    }

    /// The numbers that an item is conditioned on, beside its values: what is known of each; empty for sets that have
    /// none.
    fn conditions(&self) -> &[Column] {
        &[]
    }

    /// What is known of the columns of a table; empty for sets that have none, such as pictures.
    fn columns(&self) -> &[Column] {
        &[]
    }

    /// The name of an item, such as its file; `None` if items have no names or there is no such item.
    fn item_name(&self, index: usize) -> Option<String> {
        let _ = index;
        None
    }

    /// The class of an item, without its values where the set can tell; by default the item is read.
    fn label(&self, index: usize) -> Option<usize> {
        if self.classes().is_empty() {
            return None;
        }
        self.batch(&[Draw { epoch: 0, index }]).ok()?.labels.first().copied().flatten()
    }

    /// Number of what an item was cut from: items of one source are not independent. Crops of one picture have one
    /// source, other items each have their own.
    fn source(&self, index: usize) -> usize {
        index
    }

    /// What tells an item from all others of its source wherever that lies, such as its path inside a folder; by
    /// default its name. Items of one file, such as crops of a picture, share a key.
    fn item_key(&self, index: usize) -> Option<String> {
        self.item_name(index)
    }

    /// Whether an item that the set had is no longer there: it has a number, and cannot be drawn.
    fn is_gone(&self, index: usize) -> bool {
        let _ = index;
        false
    }

    /// The number of an item in the file or folder that it comes from, counted from 0, whatever part of it this set is:
    /// what joins results to their table. Items that were left out are counted too.
    fn row(&self, index: usize) -> usize {
        index
    }

    /// Where the window that a draw cuts at random out of a larger picture has its upper left corner: columns from the
    /// left and rows from the top; none of items that are no such windows.
    ///
    /// # Errors
    /// Pictures that cannot be read.
    fn corner(&self, draw: Draw) -> Result<Option<(usize, usize)>> {
        let _ = draw;
        Ok(None)
    }

    /// Items that the source itself sets aside to choose the best model with, such as those of a folder `val`.
    fn held_out(&self) -> &[usize] {
        &[]
    }

    /// The drawn items: a pure function of the seed that the set was opened with and of `draws`.
    ///
    /// An item of a given epoch is one fixed thing. Evaluation draws every item in epoch 0.
    ///
    /// # Shapes
    /// `values`: `[draws.len(), shape…]`; `labels`: `[draws.len()]`; `conditions`: `[draws.len(), conditions().len()]`.
    ///
    /// # Errors
    /// [`DataError::NoSuchItem`] for an index of `len` or more; reading and decoding errors of streamed sets.
    fn batch(&self, draws: &[Draw]) -> Result<Batch>;
}

/// Fails with [`DataError::NoSuchItem`] unless every draw is of an item below `len`.
pub(super) fn check_draws(draws: &[Draw], len: usize) -> Result<()> {
    match draws.iter().find(|d| d.index >= len) {
        Some(draw) => Err(DataError::NoSuchItem { index: draw.index, len }),
        None => Ok(()),
    }
}

/// Some items of a set, renumbered from 0; nothing is copied.
#[derive(Clone, Debug)]
pub struct Subset {
    of: Arc<dyn Dataset>,
    items: Vec<usize>,
    /// Of these items, by their number here.
    held_out: Vec<usize>,
}

impl Subset {
    /// The given items of `of`, in that order.
    ///
    /// # Errors
    /// [`DataError::NoSuchItem`] for an item that `of` has not.
    pub fn new(of: Arc<dyn Dataset>, items: Vec<usize>) -> Result<Self> {
        if let Some(&index) = items.iter().find(|&&i| i >= of.len()) {
            return Err(DataError::NoSuchItem { index, len: of.len() });
        }
        let held: BTreeSet<usize> = of.held_out().iter().copied().collect();
        let held_out = (0..items.len()).filter(|&i| held.contains(&items[i])).collect();
        Ok(Self { of, items, held_out })
    }
}

impl Dataset for Subset {
    fn len(&self) -> usize {
        self.items.len()
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
        self.of.item_name(*self.items.get(index)?)
    }

    fn label(&self, index: usize) -> Option<usize> {
        self.of.label(*self.items.get(index)?)
    }

    /// Numbered as in the whole set.
    fn source(&self, index: usize) -> usize {
        self.items.get(index).map_or(index, |&item| self.of.source(item))
    }

    fn item_key(&self, index: usize) -> Option<String> {
        self.of.item_key(*self.items.get(index)?)
    }

    fn is_gone(&self, index: usize) -> bool {
        self.items.get(index).is_some_and(|&inner| self.of.is_gone(inner))
    }

    fn row(&self, index: usize) -> usize {
        self.items.get(index).map_or(index, |&inner| self.of.row(inner))
    }

    fn corner(&self, draw: Draw) -> Result<Option<(usize, usize)>> {
        self.items.get(draw.index).map_or(Ok(None), |&index| self.of.corner(Draw { index, ..draw }))
    }

    fn held_out(&self) -> &[usize] {
        &self.held_out
    }

    /// The `draws` of the batch are numbered as in this subset.
    fn batch(&self, draws: &[Draw]) -> Result<Batch> {
        check_draws(draws, self.len())?;
        let inner: Vec<_> = draws.iter().map(|d| Draw { index: self.items[d.index], ..*d }).collect();
        Ok(Batch { draws: draws.to_vec(), ..self.of.batch(&inner)? })
    }
}

/// A file that was left out of a set because it could not be read, or a folder that is no data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// The file or folder.
    pub path: PathBuf,
    /// Why.
    pub reason: String,
}

/// A training part and a test part that share no item.
#[derive(Clone, Debug)]
pub struct Split {
    /// To train on.
    pub train: Arc<dyn Dataset>,
    /// To test on. Random crops of it are the same in every epoch, so that test figures can be compared.
    pub test: Arc<dyn Dataset>,
    /// How the two were told apart.
    pub rule: SplitRule,
    /// Files left out because they are broken, where the source was told to skip them, and folders of runs and
    /// comparisons, which are no data.
    pub skipped: Vec<Skipped>,
    /// What was found and what else was left out.
    pub found: Found,
}

impl Split {
    /// Two parts, with nothing skipped.
    ///
    /// # Errors
    /// [`DataError::PartsDiffer`] unless both have the same item shape, levels, and classes or no classes.
    pub fn new(train: Arc<dyn Dataset>, test: Arc<dyn Dataset>, rule: SplitRule) -> Result<Self> {
        let kind = |d: &dyn Dataset| {
            let given = d.conditions().len();
            let given = if given > 0 { format!(", {given} conditions") } else { String::new() };
            format!("{} items, {:?} levels, {} classes{given}", d.shape(), d.levels(), d.classes().len())
        };
        let differ = train.conditions().len() != test.conditions().len();
        if train.shape() != test.shape() || train.levels() != test.levels() || train.classes() != test.classes() || differ {
            return Err(DataError::PartsDiffer { train: kind(&*train), test: kind(&*test) });
        }
        Ok(Self { train, test, rule, skipped: Vec::new(), found: Found::default() })
    }

    /// The same, if neither part is empty; `name` stands in errors for where they came from.
    pub(super) fn of_two(self, name: &Path) -> Result<Self> {
        if self.train.is_empty() || self.test.is_empty() && self.rule != SplitRule::Nothing {
            return Err(DataError::TooFew { path: name.to_owned(), got: self.train.len() + self.test.len() });
        }
        Ok(self)
    }
}
