//! Data sets: what a flow is trained on and tested on.
//!
//! Every source, in memory or streamed from disk, is a [`Dataset`]; opening a source gives a [`Split`] into a training
//! and a test part.
//!
//! ```
//! use flow_train::data::{self, Draw, ItemShape, Values};
//!
//! let split = data::digits()?;
//! assert_eq!((split.train.len(), split.test.len()), (1500, 297));
//! assert_eq!(split.train.shape(), ItemShape::Image { channels: 1, height: 8, width: 8 });
//! assert_eq!(split.train.levels(), Some(17));
//!
//! let batch = split.train.batch(&[Draw { epoch: 0, index: 3 }, Draw { epoch: 0, index: 7 }])?;
//! let Values::Levels(pixels) = &batch.values else { unreachable!("digits have levels") };
//! assert_eq!(pixels.len(), 2 * 64);
//! assert_eq!(batch.labels, [Some(3), Some(7)]);
//! # Ok::<(), flow_train::data::DataError>(())
//! ```

mod array;
pub mod cifar;
mod column;
mod count;
mod dataset;
pub mod dequantise;
mod digits;
mod error;
mod found;
pub mod idx;
mod images;
mod items;
mod kept;
mod limits;
mod loader;
mod mapped;
mod memory;
mod mutated;
pub mod npy;
pub mod npz;
mod order;
mod permuted;
mod picture;
mod random;
mod reals;
mod source;
mod split;
pub mod table;
pub mod tensors;
mod toy;

pub use array::{Array, ArrayOptions, Layout, Numbers};
pub use column::{Column, ColumnKind, column_key, column_name, column_names};
pub(crate) use count::PICTURES;
pub use dataset::{Batch, Dataset, Draw, ItemShape, Skipped, Split, Subset, Values};
pub use dequantise::{Dequantiser, bits_per_dim};
pub use digits::digits;
pub use error::{DataError, Result};
pub use found::Found;
pub use images::{Crop, Depth, ImageFolder};
pub use items::{Items, Part};
pub use kept::{list_items, split_as_listed};
pub use limits::read_limit;
pub use loader::Loader;
pub use mapped::{Item as MappedItem, ItemMap, Mapped};
pub use memory::{InMemory, Labels};
pub use mutated::{Mutated, Mutation};
pub use order::{Shuffle, TrainOrder, each_once};
pub use permuted::{Permutation, Permuted};
pub use reals::{ColumnMap, Quartiles, Reals};
pub use source::{Arrays, DataSource, SourceKind};
pub use split::{SplitOption, SplitRule};
pub use table::{LabelColumn, TableOptions};
pub use toy::{Toy, ToyKind};

/// The most bytes that one array read into memory may have after decompression, however much memory is at hand (16
/// GiB); where less is, it is [`read_limit`].
///
/// Memory grows with the bytes really read, never with what a header claims; this bounds what a compressed file can
/// blow up to. A set of pictures larger than memory is read as a folder, which streams.
pub const MAX_ARRAY_BYTES: u64 = 1 << 34;

/// The most events of `dims` numbers that fit into [`read_limit`] bytes: what a batch, or a number of samples, may be.
///
/// ```
/// let most = flow_train::data::most_items::<f32>(1 << 10);
/// assert!(most <= 1 << 22, "16 GiB of events of 4 KiB");
/// ```
pub fn most_items<E>(dims: usize) -> usize {
    let bytes = (dims as u64).saturating_mul(size_of::<E>() as u64).max(1);
    usize::try_from(read_limit() / bytes).unwrap_or(usize::MAX).clamp(1, MAX_ITEMS)
}

/// The most items of an epoch of generated points or of crops, and of a batch: their order is held in memory.
pub const MAX_ITEMS: usize = 100_000_000;
