//! IDX, the format of MNIST and its relatives: a big-endian header and raw bytes, plain or gzipped.
//!
//! Layout (as on the MNIST home page): two zero bytes, the type (`0x08`, unsigned byte), the number of axes, one 32-bit size an axis, data.

use std::fs::File;
use std::io::{BufReader, Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flate2::read::MultiGzDecoder;

use super::{DataError, InMemory, ItemShape, Labels, Result, Split, SplitRule, Values, read_limit};

const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// Opens a set of grey pictures from an IDX file and, if given, its labels.
///
/// # Which items are test items
/// If the file name of `images` contains `train` and a file named `t10k` in its place exists beside it (as MNIST ships), that one is
/// the test part, with labels from the file so named after `labels`: [`SplitRule::Fixed`]. Otherwise the last tenth is: [`SplitRule::LastTenth`].
///
/// # Errors
/// As [`read_images`] and [`read_labels`], [`DataError::Io`], [`DataError::TooFew`] for a single picture without a test file, and
/// [`DataError::PartsDiffer`] if train and test pictures differ in size or in classes.
pub fn open(images: &Path, labels: Option<&Path>) -> Result<Split> {
    parts(images, labels)?.of_two(images)
}

/// As [`open`], where the training part may be empty.
pub(super) fn parts(images: &Path, labels: Option<&Path>) -> Result<Split> {
    let train = Part::read(images.to_owned(), labels.map(Path::to_owned))?;
    let Some(test_images) = test_sibling(images).filter(|p| p.exists()) else {
        let labels = train.labels.map(|l| Labels::numbered(images, &[l])).transpose()?;
        let set = in_memory(images, train.images, labels.map(|[l]| l))?;
        return set.parts(&SplitRule::LastTenth);
    };
    let test_labels = labels.map(|l| test_sibling(l).unwrap_or_else(|| l.to_owned()));
    let test = Part::read(test_images, test_labels)?;
    let [train_labels, test_labels] = match (train.labels, test.labels) {
        (Some(a), Some(b)) => Labels::numbered(images, &[a, b])?.map(Some),
        _ => [None, None],
    };
    let train = in_memory(&train.path, train.images, train_labels)?;
    let test = in_memory(&test.path, test.images, test_labels)?;
    Split::new(Arc::new(train), Arc::new(test), SplitRule::Fixed)
}

/// `…/t10k-images` for `…/train-images`; none if the file is not named so.
fn test_sibling(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?;
    name.contains("train").then(|| path.with_file_name(name.replacen("train", "t10k", 1)))
}

/// One images file and its labels, as read.
struct Part {
    path: PathBuf,
    images: Images,
    labels: Option<Vec<u8>>,
}

impl Part {
    fn read(path: PathBuf, labels: Option<PathBuf>) -> Result<Self> {
        let open = |path: &Path| match File::open(path) {
            Ok(file) => Ok(BufReader::new(file)),
            Err(source) => Err(DataError::Io { path: path.to_owned(), source }),
        };
        let images = read_images(&path, open(&path)?)?;
        let labels = labels.map(|l| read_labels(&l, open(&l)?, images.count)).transpose()?;
        Ok(Self { path, images, labels })
    }
}

fn in_memory(path: &Path, images: Images, labels: Option<Labels>) -> Result<InMemory> {
    let Images { height, width, .. } = images;
    let shape = ItemShape::Image { channels: 1, height, width };
    InMemory::new(path, Values::Levels(images.pixels), shape, Some(256), labels)
}

/// The pictures of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Images {
    /// Number of pictures.
    pub count: usize,
    /// Rows of a picture.
    pub height: usize,
    /// Columns of a picture.
    pub width: usize,
    /// Pixels, picture by picture, row by row.
    pub pixels: Vec<u8>,
}

/// Reads pictures; `path` only names the source in errors.
///
/// Gzip is told by its first bytes. Memory grows with the bytes that are really there, whatever the header says.
///
/// # Errors
/// [`DataError::Header`] for a wrong magic number, [`DataError::Empty`] if a size is zero, [`DataError::TooLarge`], [`DataError::Truncated`],
/// [`DataError::Trailing`], [`DataError::Compressed`], [`DataError::Io`].
pub fn read_images(path: &Path, reader: impl Read) -> Result<Images> {
    let ([count, height, width], pixels) = read_array::<3>(path, reader)?;
    Ok(Images { count, height, width, pixels })
}

/// Reads the labels of `items` pictures; `path` only names the source in errors.
///
/// # Errors
/// As [`read_images`], and [`DataError::LabelCount`].
pub fn read_labels(path: &Path, reader: impl Read, items: usize) -> Result<Vec<u8>> {
    let ([n], labels) = read_array::<1>(path, reader)?;
    if n != items {
        return Err(DataError::LabelCount { path: path.to_owned(), expected: items, got: n });
    }
    Ok(labels)
}

fn read_array<const AXES: usize>(path: &Path, mut reader: impl Read) -> Result<([usize; AXES], Vec<u8>)> {
    let mut head = Vec::new();
    let io = |source| DataError::Io { path: path.to_owned(), source };
    reader.by_ref().take(GZIP_MAGIC.len() as u64).read_to_end(&mut head).map_err(io)?;
    if head == GZIP_MAGIC {
        let broken = |source| DataError::Compressed { path: path.to_owned(), source };
        read_plain(path, MultiGzDecoder::new(Cursor::new(head).chain(reader)), broken)
    } else {
        read_plain(path, Cursor::new(head).chain(reader), io)
    }
}

fn read_plain<const AXES: usize>(
    path: &Path,
    mut reader: impl Read,
    failed: impl Fn(std::io::Error) -> DataError,
) -> Result<([usize; AXES], Vec<u8>)> {
    let truncated = |expected, got| DataError::Truncated { path: path.to_owned(), expected, got };
    let mut header = Vec::new();
    let header_bytes = 4 * (1 + AXES) as u64;
    reader.by_ref().take(header_bytes).read_to_end(&mut header).map_err(&failed)?;
    let (words, _) = header.as_chunks::<4>();
    let magic = [0, 0, 8, u8::try_from(AXES).unwrap_or(u8::MAX)];
    if let Some(got) = words.first().filter(|&w| *w != magic) {
        let hex = |bytes: &[u8; 4]| format!("{:#010x}", u32::from_be_bytes(*bytes));
        let expected = format!("{} (unsigned bytes, {AXES} axes)", hex(&magic));
        return Err(DataError::Header { path: path.to_owned(), field: "magic number", expected, got: hex(got) });
    }
    if words.len() < 1 + AXES {
        return Err(truncated(header_bytes, header.len() as u64));
    }
    let sizes: Vec<u64> = words[1..].iter().map(|w| u32::from_be_bytes(*w).into()).collect();
    if sizes.contains(&0) {
        return Err(DataError::Empty { path: path.to_owned() });
    }
    let limit = read_limit();
    let bytes = sizes.iter().try_fold(1u64, |all, &s| all.checked_mul(s)).filter(|&b| b <= limit);
    let axes: Option<Vec<usize>> = sizes.iter().map(|&s| s.try_into().ok()).collect();
    let (Some(bytes), Some(axes)) = (bytes, axes.and_then(|a| a.try_into().ok())) else {
        return Err(DataError::TooLarge { path: path.to_owned(), sizes, limit });
    };
    let mut data = Vec::new();
    reader.take(bytes + 1).read_to_end(&mut data).map_err(failed)?;
    match data.len() as u64 {
        got if got < bytes => Err(truncated(bytes, got)),
        got if got > bytes => Err(DataError::Trailing { path: path.to_owned(), expected: bytes }),
        _ => Ok((axes, data)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compression, read::GzEncoder};
    use proptest::prelude::*;

    fn idx(axes: &[u32], data: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0, 0, 8, axes.len().try_into().expect("few axes")];
        bytes.extend(axes.iter().flat_map(|a| a.to_be_bytes()));
        bytes.extend_from_slice(data);
        bytes
    }

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        GzEncoder::new(data, Compression::default()).read_to_end(&mut out).expect("reads a slice");
        out
    }

    fn read(bytes: &[u8]) -> Result<Images> {
        read_images("file".as_ref(), bytes)
    }

    #[test]
    fn plain_and_gzipped_are_told_by_content() -> Result<()> {
        let good = idx(&[2, 1, 3], &[1, 2, 3, 4, 5, 6]);
        let expected = Images { count: 2, height: 1, width: 3, pixels: vec![1, 2, 3, 4, 5, 6] };
        assert_eq!(read(&good)?, expected);
        assert_eq!(read(&gzip(&good))?, expected);
        Ok(())
    }

    #[test]
    fn malformed_files_are_typed_errors() {
        let huge = u32::MAX;
        let zipped = gzip(&idx(&[1, 1, 2], &[1, 2]));
        let mut bad_sum = zipped.clone();
        bad_sum[zipped.len() - 8] ^= 1;
        let cases: [(&str, Vec<u8>, &str); 13] = [
            ("empty file", vec![], "file: cut off: expected 16 bytes of data, got 0"),
            ("half a magic number", vec![0, 0], "file: cut off: expected 16 bytes of data, got 2"),
            ("labels for images", idx(&[1], &[1]), "file: magic number: expected 0x00000803 (unsigned bytes, 3 axes), got 0x00000801"),
            ("floats", vec![0, 0, 0x0d, 3, 0, 0, 0, 1], "file: magic number: expected 0x00000803 (unsigned bytes, 3 axes), got 0x00000d03"),
            ("half a header", idx(&[1, 1, 1], &[])[..9].to_vec(), "file: cut off: expected 16 bytes of data, got 9"),
            ("no images", idx(&[0, 28, 28], &[]), "file: holds no items"),
            ("no pixels", idx(&[5, 0, 28], &[]), "file: holds no items"),
            ("sizes overflow", idx(&[huge, huge, huge], &[]), "file: sizes [4294967295, 4294967295, 4294967295] are more than "),
            ("lying header", idx(&[1 << 10, 64, 64], &[7; 9]), "file: cut off: expected 4194304 bytes of data, got 9"),
            ("trailing byte", idx(&[1, 1, 1], &[1, 2]), "file: more bytes follow the 1 bytes of data"),
            ("gzip cut off", zipped[..zipped.len() - 9].to_vec(), "file: broken compressed data: "),
            ("gzip checksum", bad_sum, "file: broken compressed data: "),
            ("gzip of junk", gzip(b"junk junk junk junk"), "file: magic number: "),
        ];
        for (case, bytes, message) in cases {
            let error = read(&bytes).expect_err(case).to_string();
            let exact = !message.ends_with(' ');
            assert!(error == message || !exact && error.starts_with(message), "{case}: {error}");
        }
        let labels = read_labels("labels".as_ref(), &idx(&[2], &[1, 2])[..], 3);
        assert_eq!(labels.expect_err("too few").to_string(), "labels: expected 3 labels, one for each item, got 2");
    }

    /// The rule of the test part, on files: a `t10k` sibling is used, and without one the last tenth is.
    #[test]
    fn the_test_part_is_the_sibling_or_the_last_tenth() -> Result<(), Box<dyn std::error::Error>> {
        let dir = tempfile::tempdir()?;
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("train-images"), idx(&[20, 1, 1], &[3; 20]))?;
        std::fs::write(at("train-labels"), idx(&[20], &[9; 20]))?;
        let split = open(&at("train-images"), Some(&at("train-labels")))?;
        assert_eq!((split.train.len(), split.test.len(), split.rule), (18, 2, SplitRule::LastTenth));

        std::fs::write(at("t10k-images"), idx(&[5, 1, 1], &[4; 5]))?;
        let missing = open(&at("train-images"), Some(&at("train-labels")));
        assert!(matches!(missing, Err(DataError::Io { path, .. }) if path == at("t10k-labels")));
        std::fs::write(at("t10k-labels"), idx(&[5], &[1; 5]))?;
        let split = open(&at("train-images"), Some(&at("train-labels")))?;
        assert_eq!((split.train.len(), split.test.len(), split.rule), (20, 5, SplitRule::Fixed));
        assert_eq!(split.test.classes().len(), 10, "classes are those of both parts");

        std::fs::write(at("t10k-images"), idx(&[5, 1, 2], &[4; 10]))?;
        assert!(matches!(open(&at("train-images"), None), Err(DataError::PartsDiffer { .. })));
        Ok(())
    }

    proptest! {
        /// Any bytes end in a value or an error, with and without a valid start.
        #[test]
        fn no_bytes_panic(junk in proptest::collection::vec(any::<u8>(), 0..200), sizes in any::<[u32; 3]>()) {
            let _ = read(&junk);
            let _ = read(&gzip(&junk));
            if let Ok(images) = read(&idx(&sizes, &junk)) {
                prop_assert_eq!(images.count * images.height * images.width, junk.len());
            }
        }
    }
}
