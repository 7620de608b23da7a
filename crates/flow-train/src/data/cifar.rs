//! CIFAR-10: 60,000 colour pictures of 32×32 in ten classes (A. Krizhevsky, *Learning multiple layers of features from
//! tiny images*, 2009).

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek};
use std::path::Path;
use std::sync::Arc;

use image::{ColorType, ImageDecoder, ImageFormat, ImageReader};

use super::array::planes_apart;
use super::limits::Bounded;
use super::{DataError, InMemory, ItemShape, Labels, Result, Split, SplitRule, Values, read_limit};

const CLASSES: [&str; 10] = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];
const CHANNELS: usize = 3;
const SIDE: usize = 32;
const PIXELS: usize = CHANNELS * SIDE * SIDE;
/// Each file of the set has 10,000; more than this in one is a lying header.
const MAX_STRIP: u32 = 100_000;

/// Opens a folder with one of two layouts, told by the name of the first file:
/// - official: `data_batch_{1..5}.bin` and `test_batch.bin`, see [`read_records`];
/// - PNG strips: `data_batch_{1..5}.png` and `test_batch.png`, see [`read_strip`], with labels in `train_lables.json`
///   and `test_lables.json` (spelt so), each a flat list in the order of the pictures.
///
/// The test part is the test batch: [`SplitRule::Fixed`].
///
/// # Errors
/// [`DataError::Missing`] if the folder has neither layout, [`DataError::Io`] for a file that is missing, and those of
/// the readers.
pub fn open(dir: &Path) -> Result<Split> {
    let exists = |name: &str| dir.join(name).exists();
    let part = if exists("data_batch_1.bin") {
        |dir: &Path, names: &[String], _: &str| records(dir, names)
    } else if exists("data_batch_1.png") {
        strips
    } else {
        return Err(DataError::Missing {
            path: dir.to_owned(),
            expected: "data_batch_1.bin (the official layout) or data_batch_1.png (PNG strips)",
        });
    };
    let names: Vec<_> = (1..=5).map(|i| format!("data_batch_{i}")).collect();
    let train = part(dir, &names, "train_lables.json")?;
    let test = part(dir, &["test_batch".to_owned()], "test_lables.json")?;
    Split::new(Arc::new(train), Arc::new(test), SplitRule::Fixed)
}

/// Files of a part of the set, which are held all at once.
const FILES: u64 = 5;

/// A file of records or labels.
fn open_records(path: &Path) -> Result<Bounded<BufReader<File>>> {
    Ok(Bounded::new(open_file(path)?, read_limit() / FILES))
}

fn open_file(path: &Path) -> Result<BufReader<File>> {
    match File::open(path) {
        Ok(file) => Ok(BufReader::new(file)),
        Err(source) => Err(DataError::Io { path: path.to_owned(), source }),
    }
}

fn records(dir: &Path, names: &[String]) -> Result<InMemory> {
    let (mut pixels, mut labels) = (Vec::new(), Vec::new());
    for name in names {
        let path = dir.join(format!("{name}.bin"));
        read_records(&path, open_records(&path)?, &mut pixels, &mut labels)?;
    }
    in_memory(dir, pixels, labels)
}

fn strips(dir: &Path, names: &[String], labels: &str) -> Result<InMemory> {
    let mut pixels = Vec::new();
    for name in names {
        let path = dir.join(format!("{name}.png"));
        read_strip(&path, open_file(&path)?, &mut pixels)?;
    }
    let labels = dir.join(labels);
    let of_items = read_labels(&labels, open_records(&labels)?)?;
    in_memory(&labels, pixels, of_items)
}

fn in_memory(path: &Path, pixels: Vec<u8>, of_items: Vec<u8>) -> Result<InMemory> {
    let labels =
        Labels { of_items: of_items.into_iter().map(|label| Some(label.into())).collect(), classes: CLASSES.map(str::to_owned).into() };
    let shape = ItemShape::Image { channels: CHANNELS, height: SIDE, width: SIDE };
    InMemory::new(path, Values::Levels(pixels), shape, Some(256), Some(labels))
}

/// Reads records of the official layout, each a label byte and 3,072 bytes C, H, W, behind those in `pixels` and
/// `labels`; `path` only names the source in errors.
///
/// # Errors
/// [`DataError::Empty`], [`DataError::Truncated`] if the last record is not whole, [`DataError::Io`].
pub fn read_records(path: &Path, mut reader: impl Read, pixels: &mut Vec<u8>, labels: &mut Vec<u8>) -> Result<()> {
    let before = labels.len();
    let mut record = Vec::with_capacity(1 + PIXELS);
    loop {
        record.clear();
        let read = reader.by_ref().take(1 + PIXELS as u64).read_to_end(&mut record);
        match read.map_err(|source| DataError::Io { path: path.to_owned(), source })? {
            0 if labels.len() == before => {
                return Err(DataError::Empty { path: path.to_owned() });
            }
            0 => return Ok(()),
            got if got <= PIXELS => {
                let whole = ((labels.len() - before) * (1 + PIXELS)) as u64;
                let expected = whole + 1 + PIXELS as u64;
                return Err(DataError::Truncated { path: path.to_owned(), expected, got: whole + got as u64 });
            }
            _ => {
                labels.push(record[0]);
                pixels.extend_from_slice(&record[1..]);
            }
        }
    }
}

/// Reads a PNG strip, 1024 pixels wide and one row a picture of bytes H, W, C, behind those in `pixels` (as C, H, W);
/// `path` only names the source in errors.
///
/// # Errors
/// [`DataError::Image`] if it is not a PNG or is cut off, [`DataError::Header`] if it is not 1024 wide, 8-bit RGB and
/// at most 100,000 high.
pub fn read_strip(path: &Path, reader: impl BufRead + Seek, pixels: &mut Vec<u8>) -> Result<()> {
    let broken = |e: image::ImageError| DataError::Image { path: path.to_owned(), reason: e.to_string() };
    let decoder = ImageReader::with_format(reader, ImageFormat::Png).into_decoder().map_err(broken)?;
    let (width, height) = decoder.dimensions();
    let color = decoder.color_type();
    if width as usize != SIDE * SIDE || height > MAX_STRIP || color != ColorType::Rgb8 {
        return Err(DataError::Header {
            path: path.to_owned(),
            field: "strip",
            expected: format!("1024 pixels wide, at most {MAX_STRIP} high, Rgb8"),
            got: format!("{width} wide, {height} high, {color:?}"),
        });
    }
    let before = pixels.len();
    pixels.resize(before + height as usize * PIXELS, 0);
    decoder.read_image(&mut pixels[before..]).map_err(broken)?;
    planes_apart(&mut pixels[before..], CHANNELS, PIXELS);
    Ok(())
}

/// Reads a flat JSON list of labels; `path` only names the source in errors.
///
/// # Errors
/// [`DataError::Line`] for anything else than a list of numbers from 0 to 255.
pub fn read_labels(path: &Path, reader: impl Read) -> Result<Vec<u8>> {
    serde_json::from_reader(reader).map_err(|e| DataError::Line {
        path: path.to_owned(),
        line: e.line() as u64,
        expected: "a list of labels".to_owned(),
        got: e.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Draw;
    use image::{ImageEncoder, codecs::png::PngEncoder};
    use std::io::Cursor;

    /// A picture whose bytes name their channel and place.
    fn picture(index: usize) -> Vec<u8> {
        (0..PIXELS).map(|i| u8::try_from((i * 7 + i / 1024 * 50 + index) % 256).unwrap_or(0)).collect()
    }

    fn strip(pictures: &[Vec<u8>], width: u32) -> Vec<u8> {
        let mut rows = Vec::new();
        for p in pictures {
            rows.extend((0..1024).flat_map(|at| [p[at], p[1024 + at], p[2048 + at]]));
        }
        let mut out = Vec::new();
        let height = u32::try_from(rows.len()).expect("small") / 3 / width;
        PngEncoder::new(&mut out).write_image(&rows, width, height, image::ExtendedColorType::Rgb8).expect("memory");
        out
    }

    #[test]
    fn both_layouts_give_the_same_set() -> Result<(), Box<dyn std::error::Error>> {
        let dirs = [tempfile::tempdir()?, tempfile::tempdir()?];
        let mut labels = Vec::new();
        for (i, name) in ["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch"].iter().enumerate() {
            let pictures = [picture(2 * i), picture(2 * i + 1)];
            let label = u8::try_from(i)?;
            let records: Vec<u8> = pictures.iter().flat_map(|p| [&[label][..], p].concat()).collect();
            std::fs::write(dirs[0].path().join(format!("{name}.bin")), records)?;
            std::fs::write(dirs[1].path().join(format!("{name}.png")), strip(&pictures, 1024))?;
            labels.extend([label, label]);
        }
        std::fs::write(dirs[1].path().join("train_lables.json"), format!("{:?}", &labels[..10]))?;
        std::fs::write(dirs[1].path().join("test_lables.json"), format!("{:?}", &labels[10..]))?;
        for dir in &dirs {
            let split = open(dir.path())?;
            assert_eq!((split.train.len(), split.test.len(), split.rule), (10, 2, SplitRule::Fixed));
            let batch = split.test.batch(&[Draw { epoch: 0, index: 1 }])?;
            assert_eq!(batch.values, Values::Levels(picture(11)));
            assert_eq!(split.test.classes()[batch.labels[0].expect("labelled")], "dog");
        }
        std::fs::write(dirs[1].path().join("test_lables.json"), "[1]")?;
        assert!(matches!(open(dirs[1].path()), Err(DataError::LabelCount { expected: 2, got: 1, .. })));
        std::fs::write(dirs[1].path().join("test_lables.json"), "[1, 10]")?;
        assert!(matches!(open(dirs[1].path()), Err(DataError::Value { item: 1, .. })));
        assert!(matches!(open(&dirs[0].path().join("none")), Err(DataError::Missing { .. })));
        Ok(())
    }

    #[test]
    fn malformed_files_are_typed_errors() {
        let records = |bytes: &[u8]| read_records("c".as_ref(), bytes, &mut Vec::new(), &mut Vec::new());
        assert!(matches!(records(&[]), Err(DataError::Empty { .. })));
        assert!(matches!(records(&[0; 3074]), Err(DataError::Truncated { expected: 6146, got: 3074, .. })));

        let good = strip(&[picture(0), picture(1)], 1024);
        let strip_of = |bytes: &[u8]| read_strip("c".as_ref(), Cursor::new(bytes), &mut Vec::new());
        assert!(strip_of(&good).is_ok());
        for bytes in [&[][..], b"no picture", &good[..20], &good[..good.len() / 2]] {
            assert!(matches!(strip_of(bytes), Err(DataError::Image { .. })));
        }
        let mut high = good.clone();
        high[20..24].fill(0x7f);
        assert!(strip_of(&high).is_err(), "a lying height");
        assert!(matches!(strip_of(&strip(&[picture(0)], 512)), Err(DataError::Header { .. })));

        for text in ["", "[1", "{}", "[300]", "[-1]", "[1.5]", &"[".repeat(100_000)] {
            assert!(matches!(read_labels("c".as_ref(), text.as_bytes()), Err(DataError::Line { line: 0..=1, .. })));
        }
    }
}
