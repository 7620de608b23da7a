//! What can be wrong with data.

use std::io;
use std::path::PathBuf;

/// A result with a [`DataError`].
pub type Result<T, E = DataError> = std::result::Result<T, E>;

/// Why data could not be opened, read or drawn. Every case about a file names it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    // === Files ===
    /// A file or folder could not be opened or read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A compressed stream is cut off or broken.
    #[error("{}: broken compressed data: {source}", path.display())]
    Compressed {
        /// The file.
        path: PathBuf,
        /// What the decompressor said.
        source: io::Error,
    },
    /// The header of a file is not what its format asks for.
    #[error("{}: {field}: expected {expected}, got {got}", path.display())]
    Header {
        /// The file.
        path: PathBuf,
        /// Which part of the header.
        field: &'static str,
        /// What the format allows there.
        expected: String,
        /// What stands there.
        got: String,
    },
    /// A picture could not be decoded.
    #[error("{}: not a readable picture: {reason}", path.display())]
    Image {
        /// The file.
        path: PathBuf,
        /// What the decoder said.
        reason: String,
    },
    /// A picture has a size that does not fit.
    #[error("{}: expected {expected}, got {}×{} (width × height)", path.display(), got.0, got.1)]
    ImageSize {
        /// The file.
        path: PathBuf,
        /// The size that is needed, and what would help.
        expected: String,
        /// Width and height.
        got: (u32, u32),
    },
    /// A folder has not the files of its kind of set.
    #[error("{}: expected a folder with {expected}", path.display())]
    Missing {
        /// The folder.
        path: PathBuf,
        /// The files that tell the set.
        expected: &'static str,
    },
    /// There is no item in the file or folder.
    #[error("{}: holds no items", path.display())]
    Empty {
        /// The file or folder.
        path: PathBuf,
    },
    /// The sizes in a header multiply to more than an array may take in memory ([`read_limit`](super::read_limit)).
    #[error("{}: sizes {sizes:?} are more than {limit} bytes, which are what the memory at hand has room for", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The sizes as the header states them.
        sizes: Vec<u64>,
        /// The most bytes there may be.
        limit: u64,
    },
    /// The file ends before its data do.
    #[error("{}: cut off: expected {expected} bytes of data, got {got}", path.display())]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Bytes that the header announces.
        expected: u64,
        /// Bytes that there are.
        got: u64,
    },
    /// Bytes follow the end of the data.
    #[error("{}: more bytes follow the {expected} bytes of data", path.display())]
    Trailing {
        /// The file.
        path: PathBuf,
        /// Bytes that the header announces.
        expected: u64,
    },

    // === Values and labels ===
    /// There are more or fewer labels than items.
    #[error("{}: expected {expected} labels, one for each item, got {got}", path.display())]
    LabelCount {
        /// The file with the labels.
        path: PathBuf,
        /// Number of items.
        expected: usize,
        /// Number of labels.
        got: usize,
    },
    /// A value is not one that its place allows.
    #[error("{}: item {item}: expected {expected}, got {got}", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// The item, counted from 0.
        item: usize,
        /// What is allowed.
        expected: String,
        /// What stands there.
        got: String,
    },

    /// A line of a text file is malformed.
    #[error("{}:{line}: expected {expected}, got {got}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: u64,
        /// What is allowed.
        expected: String,
        /// What stands there.
        got: String,
    },
    /// A file of named arrays has none of this name.
    #[error("{}: no array `{key}`; there are: {}", path.display(), known.join(", "))]
    MissingKey {
        /// The file.
        path: PathBuf,
        /// The name asked for.
        key: String,
        /// The names that there are.
        known: Vec<String>,
    },

    // === Splits and draws ===
    /// There are too few items to split into a training and a test part.
    #[error("{}: {got} item is too few to split into a training and a test part, which takes 2", path.display())]
    TooFew {
        /// The file or folder.
        path: PathBuf,
        /// Number of items.
        got: usize,
    },
    /// The training and the test part do not hold the same kind of items.
    #[error("the training part ({train}) and the test part ({test}) differ")]
    PartsDiffer {
        /// What the training part holds.
        train: String,
        /// What the test part holds.
        test: String,
    },
    /// An item was drawn that does not exist.
    #[error("no item {index} in a set of {len}")]
    NoSuchItem {
        /// The number asked for.
        index: usize,
        /// Number of items.
        len: usize,
    },

    // === Sources as text ===
    /// There is no such kind of source.
    #[error("no kind of data `{got}`; there are: {}", known.join(", "))]
    UnknownKind {
        /// What stands before the colon.
        got: String,
        /// The kinds that there are.
        known: &'static [&'static str],
    },
    /// A kind of source has no such option.
    #[error("{kind}: no option `{option}`; there are{}{}", if known.is_empty() { " none" } else { ": " }, known.join(", "))]
    UnknownOption {
        /// The kind of source.
        kind: &'static str,
        /// The option.
        option: String,
        /// The options that the kind has.
        known: &'static [&'static str],
    },
    /// An option of a source has no such value.
    #[error("{kind}: {option}: expected {expected}, got {got}")]
    BadOption {
        /// The kind of source.
        kind: &'static str,
        /// The option, or `path` or `name` for what stands before the options.
        option: String,
        /// What is allowed.
        expected: String,
        /// What it was set to.
        got: String,
    },

    // === Use ===
    /// A setting or a value has no meaning here.
    #[error("{what}: expected {expected}, got {got}")]
    Setting {
        /// What was set.
        what: &'static str,
        /// What is allowed.
        expected: &'static str,
        /// What it was set to.
        got: String,
    },
    /// A buffer has the wrong length.
    #[error("{what}: expected {expected} elements, got {got}")]
    Size {
        /// Which buffer.
        what: &'static str,
        /// The length that fits.
        expected: usize,
        /// Its length.
        got: usize,
    },
}
