//! IDX, the format of MNIST and its relatives: a big-endian header and raw bytes, plain or gzipped.
//!
//! Layout (as on the MNIST home page): two zero bytes, the type (`0x08`, unsigned byte), the number of axes, one 32-bit
//! size an axis, data.

use std::fs::File;
use std::io::{BufReader, Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flate2::read::MultiGzDecoder;

use super::{DataError, InMemory, ItemShape, Labels, Result, Split, SplitOption, SplitRule, Values, read_limit};

const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// Opens a set of grey pictures from an IDX file and, if given, its labels.
///
/// # Which items are test items
/// If the file name of `images` contains `train` and a file with `t10k` or `test` in its place exists beside it (as
/// MNIST ships), that one is the test part, with labels from the file so named after `labels`: [`SplitRule::Files`].
/// One of the two may be compressed, and a dot may stand for a hyphen. Otherwise the last tenth is:
/// [`SplitRule::LastTenth`].
///
/// # Errors
/// As [`read_images`] and [`read_labels`], [`DataError::Io`], [`DataError::TooFew`] for a single picture without a test
/// file, [`DataError::Missing`] for a test file without labels, and [`DataError::PartsDiffer`] if train and test
/// pictures differ in size or in classes.
pub fn open(images: &Path, labels: Option<&Path>) -> Result<Split> {
    parts(images, labels, None, None)?.of_two(images)
}

/// As [`open`], where the training part may be empty and the test part may be said: `test` as `IMAGES[,LABELS]`.
pub(super) fn parts(images: &Path, labels: Option<&Path>, test: Option<&str>, split: Option<SplitOption>) -> Result<Split> {
    let train = Part::read(images.to_owned(), labels.map(Path::to_owned))?;
    let test_files = match test {
        Some(test) => {
            let (images, labels) = test.split_once(',').map_or((test, None), |(images, labels)| (images, Some(labels)));
            Some((PathBuf::from(images), labels.map(PathBuf::from)))
        }
        None if split.is_some() => None,
        None => beside(images, labels)?,
    };
    let Some((test_images, test_labels)) = test_files else {
        let labels = train.labels.map(|l| Labels::numbered(images, &[l])).transpose()?;
        let set = in_memory(images, train.images, labels.map(|[l]| l))?;
        return set.parts(&split.map_or(SplitRule::LastTenth, Into::into));
    };
    let also = test_labels.as_ref().map_or_else(String::new, |labels| format!(",{}", labels.display()));
    let rule = SplitRule::Files(format!("{}{also}", test_images.display()));
    let test = Part::read(test_images, test_labels)?;
    let [train_labels, test_labels] = match (train.labels, test.labels) {
        (Some(a), Some(b)) => Labels::numbered(images, &[a, b])?.map(Some),
        _ => [None, None],
    };
    let train = in_memory(&train.path, train.images, train_labels)?;
    let test = in_memory(&test.path, test.images, test_labels)?;
    Split::new(Arc::new(train), Arc::new(test), rule)
}

/// The test files beside training files: pictures, and labels if the training part has any.
fn beside(images: &Path, labels: Option<&Path>) -> Result<Option<(PathBuf, Option<PathBuf>)>> {
    let Some(test_images) = test_sibling(images) else { return Ok(None) };
    let test_labels = labels.map(|labels| {
        test_sibling(labels).ok_or_else(|| DataError::Missing {
            path: labels.parent().unwrap_or(labels).to_owned(),
            expected: "labels of the test pictures beside those of the training pictures; test=IMAGES,LABELS names them, split=last-tenth \
                       takes the last tenth instead",
        })
    });
    Ok(Some((test_images, test_labels.transpose()?)))
}

/// `…/t10k-images` for `…/train-images`, if there is such a file: one compressed as the training file is, rather than
/// another.
fn test_sibling(path: &Path) -> Option<PathBuf> {
    let plain = |name: &str| {
        let lower = name.to_ascii_lowercase();
        let plain = lower.strip_suffix(".gz");
        (plain.unwrap_or(&lower).replace(['.', '_'], "-"), plain.is_some())
    };
    let (name, compressed) = plain(path.file_name()?.to_str()?);
    let wanted: Vec<String> =
        if name.contains("train") { ["t10k", "test"].map(|part| name.replacen("train", part, 1)).into() } else { return None };
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut found: Vec<(usize, bool, PathBuf)> = std::fs::read_dir(folder)
        .ok()?
        .filter_map(|entry| {
            let file = entry.ok()?.file_name();
            let (other, other_compressed) = plain(file.to_str()?);
            let place = wanted.iter().position(|name| *name == other)?;
            Some((place, other_compressed != compressed, path.with_file_name(file)))
        })
        .collect();
    found.sort();
    found.into_iter().next().map(|(_, _, path)| path)
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
/// [`DataError::Header`] for a wrong magic number, [`DataError::Empty`] if a size is zero, [`DataError::TooLarge`],
/// [`DataError::Truncated`], [`DataError::Trailing`], [`DataError::Compressed`], [`DataError::Io`].
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
        assert!(matches!(missing, Err(DataError::Missing { path, .. }) if path == dir.path()));
        std::fs::write(at("t10k-labels"), idx(&[5], &[1; 5]))?;
        let split = open(&at("train-images"), Some(&at("train-labels")))?;
        let files = SplitRule::Files(format!("{},{}", at("t10k-images").display(), at("t10k-labels").display()));
        assert_eq!((split.train.len(), split.test.len(), split.rule), (20, 5, files));
        assert_eq!(split.test.classes().len(), 10, "classes are those of both parts");

        // A rule that is said does not look beside the file, and a test part that is said needs no name.
        let tenth = parts(&at("train-images"), None, None, Some(SplitOption::EveryTenth))?;
        assert_eq!((tenth.train.len(), tenth.test.len()), (18, 2));
        std::fs::write(at("else"), idx(&[3, 1, 1], &[4; 3]))?;
        let said = at("else").display().to_string();
        assert_eq!(parts(&at("train-images"), None, Some(&said), None)?.test.len(), 3);

        // Compressed, with a dot, or by another name.
        for (train, test) in [
            ("a/train-images-idx3-ubyte", "a/t10k-images-idx3-ubyte.gz"),
            ("b/train-images.idx3-ubyte.gz", "b/t10k-images-idx3-ubyte"),
            ("c/emnist-letters-train-images-idx3-ubyte", "c/emnist-letters-test-images-idx3-ubyte"),
        ] {
            std::fs::create_dir_all(at(train).parent().expect("a folder"))?;
            for (name, count) in [(train, 12), (test, 4)] {
                let bytes = idx(&[count, 1, 1], &vec![1; count as usize]);
                std::fs::write(at(name), if name.ends_with("gz") { gzip(&bytes) } else { bytes })?;
            }
            let split = open(&at(train), None)?;
            assert_eq!((split.train.len(), split.test.len()), (12, 4), "{train}");
            assert_eq!(split.rule, SplitRule::Files(at(test).display().to_string()));
        }

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
