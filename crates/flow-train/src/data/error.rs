//! What can be wrong with data.

use crate::text::{count, list, number};
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
    /// The format of a file is read by programs alone that were built with a feature.
    #[error(
        "{}: {format} is not built into this program: `cargo install --path crates/mixerflow-cli --features {feature}` builds it in, and {instead}",
        path.display()
    )]
    NotBuiltIn {
        /// The file.
        path: PathBuf,
        /// The format.
        format: &'static str,
        /// The feature.
        feature: &'static str,
        /// What can be done without.
        instead: &'static str,
    },
    /// A picture could not be decoded.
    #[error("{}: not a readable picture: {}", path.display(), reason.trim_end())]
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
    /// What is in a folder can be meant in several ways.
    #[error("{}: {question}", path.display())]
    Undecided {
        /// The folder.
        path: PathBuf,
        /// What is in it, and the options that decide.
        question: String,
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

    /// Columns of a table hold words.
    #[error(
        "{}: {}: drop={} leaves {} out, label= takes one as classes, id= takes one as names of the rows",
        path.display(),
        columns.iter().map(|(name, _, field)| format!("{name} holds text, such as {field}")).collect::<Vec<_>>().join("; "),
        columns.iter().map(|(_, key, _)| key.as_str()).collect::<Vec<_>>().join(","),
        if columns.len() == 1 { "it" } else { "them" },
    )]
    TextColumns {
        /// The file.
        path: PathBuf,
        /// Each column as messages call it, as options call it, and a field of it with its line.
        columns: Vec<(String, String, String)>,
    },
    /// A column of a table has no values at all.
    #[error("{}: {column} has no values: drop={key} leaves it out", path.display())]
    EmptyColumn {
        /// The file.
        path: PathBuf,
        /// The column as messages call it.
        column: String,
        /// The column as options call it.
        key: String,
    },
    /// Rows of a table have no value in some column.
    #[error(
        "{}: {rows} of {all} rows {} no value in some column, the first in line {line}: {}; missing=drop leaves such rows out",
        path.display(),
        if *rows == 1 { "has" } else { "have" },
        columns.iter().map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", "),
    )]
    MissingValues {
        /// The file.
        path: PathBuf,
        /// Rows without a value somewhere.
        rows: usize,
        /// All rows.
        all: usize,
        /// The line of the first of them, counted from 1.
        line: u64,
        /// The columns, and how many values each lacks.
        columns: Vec<(String, usize)>,
    },
    /// A table has no column of this name.
    #[error("{}: {option}: no column `{got}`; there are: {}", path.display(), known.join(", "))]
    NoColumn {
        /// The file.
        path: PathBuf,
        /// The option that names it.
        option: &'static str,
        /// The name.
        got: String,
        /// The names that there are.
        known: Vec<String>,
    },

    /// Something names a column that the data have not.
    #[error("{option}: no column `{got}`; there are: {}", known.join(", "))]
    UnknownColumn {
        /// What names it.
        option: &'static str,
        /// The name.
        got: String,
        /// The names that there are.
        known: Vec<String>,
    },
    /// The values of a column differ by less than what f64 holds the square of.
    #[error(
        "{column} lies from {} to {} in {}, so close together that their variance is lost in f64: multiply the column by a power of ten",
        number(range.0),
        number(range.1),
        count(*items, "training item"),
    )]
    NarrowColumn {
        /// The column as messages call it, or the channel.
        column: String,
        /// Items.
        items: usize,
        /// The least and the largest value.
        range: (f64, f64),
    },
    /// A column holds one value alone.
    #[error(
        "{column} is {} in {}, which has no density{}",
        number(*value),
        if *items == 1 { "the only training item".to_owned() } else { format!("all {items} training items") },
        key.as_ref().map_or_else(String::new, |key| format!(": drop={key} leaves it out")),
    )]
    ConstantColumn {
        /// The column as messages call it, or the channel.
        column: String,
        /// The column as options call it.
        key: Option<String>,
        /// Number of items.
        items: usize,
        /// The value.
        value: f64,
    },
    /// A column holds a value that it cannot have by what is said of it.
    #[error("{column}: expected {expected}, got {} in row {row} (counted from 0)", number(*got))]
    OutOfBounds {
        /// The column as messages call it.
        column: String,
        /// Number of the item in its file, counted from 0.
        row: usize,
        /// What is allowed.
        expected: String,
        /// The value.
        got: f64,
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
    /// A source holds other items than it did.
    #[error("{}: {}", path.display(), differences(new, gone))]
    ItemsDiffer {
        /// The file or folder.
        path: PathBuf,
        /// Keys of the items that were not there.
        new: Vec<String>,
        /// Keys of the items that are no longer there.
        gone: Vec<String>,
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
    #[error(
        "no kind of data `{got}`; {}A source is KIND:PATH with one of the kinds {}",
        hint.as_ref().map_or_else(String::new, |hint| format!("did you mean {hint}? ")),
        known.join(", "),
    )]
    UnknownKind {
        /// What stands before the colon.
        got: String,
        /// What may be meant.
        hint: Option<String>,
        /// The kinds that there are.
        known: &'static [&'static str],
    },
    /// A kind of source has no such option.
    #[error(
        "{kind}: no option `{option}`; there are{}{}; a ? or & in a name is written %3F or %26",
        if known.is_empty() { " none" } else { ": " },
        known.join(", "),
    )]
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

fn differences(new: &[String], gone: &[String]) -> String {
    let say = |keys: &[String], what: &str, remedy: &str| {
        let (noun, verb) = if keys.len() == 1 { ("item", "is") } else { ("items", "are") };
        let of = if what == "gone" { " of the run" } else { "" };
        (!keys.is_empty()).then(|| format!("{} {noun}{of} {verb} {what} ({}){remedy}", keys.len(), list(keys)))
    };
    let both = [say(gone, "gone", ": --skip-bad goes on without"), say(new, "new", ": the run goes on where they are taken away")];
    both.into_iter().flatten().collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Some decoders end what they say with a line of its own.
    #[test]
    fn an_error_of_a_picture_is_one_line() {
        let reason = "Not enough bytes, expected 162 but found 49\n\n".to_owned();
        let text = DataError::Image { path: "cut.jpg".into(), reason }.to_string();
        assert_eq!(text, "cut.jpg: not a readable picture: Not enough bytes, expected 162 but found 49");
    }
}
