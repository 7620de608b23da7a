//! `.npy`, an array of `numpy`: a magic string, a version, a Python dictionary that describes the array, raw elements.
//!
//! The format is that of `numpy.lib.format`, versions 1.0 to 3.0. Header keys may stand in any order; objects, records,
//! strings and complex numbers are refused, and so are arrays in Fortran order. The dictionary is read here, because
//! the crates that read it overflow their stack or their integers on a hostile header.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use super::array::{self, Array, Element};
use super::{DataError, Result};

const MAGIC: &[u8; 6] = b"\x93NUMPY";
/// `numpy` itself writes headers of a few hundred bytes.
const MAX_HEADER: u64 = 1 << 16;

/// Reads one array to the end of `reader`; `path` only names the source in errors.
///
/// # Errors
/// [`DataError::Header`] for anything but an array of numbers in C order, [`DataError::TooLarge`],
/// [`DataError::Truncated`], [`DataError::Trailing`], [`DataError::Io`].
pub fn read(path: &Path, mut reader: impl Read) -> Result<Array> {
    let header =
        |field, expected: &str, got: String| DataError::Header { path: path.to_owned(), field, expected: expected.to_owned(), got };
    let mut take = |bytes: u64| -> Result<Vec<u8>> {
        let mut out = Vec::new();
        let read = reader.by_ref().take(bytes).read_to_end(&mut out);
        read.map_err(|source| DataError::Io { path: path.to_owned(), source })?;
        if out.len() as u64 == bytes {
            Ok(out)
        } else {
            Err(DataError::Truncated { path: path.to_owned(), expected: bytes, got: out.len() as u64 })
        }
    };
    let start = take(8)?;
    if !start.starts_with(MAGIC) {
        return Err(header("magic string", "\\x93NUMPY", start[..6].escape_ascii().to_string()));
    }
    let length_bytes = match start[6..] {
        [1, 0] => 2,
        [2 | 3, 0] => 4,
        _ => {
            return Err(header("version", "1.0, 2.0 or 3.0", format!("{}.{}", start[6], start[7])));
        }
    };
    let length = take(length_bytes)?.iter().rev().fold(0, |all, &b| all << 8 | u64::from(b));
    if length > MAX_HEADER {
        return Err(header("header length", "at most 65536", length.to_string()));
    }
    let text = take(length)?;
    let text = std::str::from_utf8(&text).map_err(|e| header("header", "text", e.to_string()))?;
    let dict = Dict::parse(text).ok_or_else(|| {
        let shown: String = text.trim_end().chars().take(120).collect();
        header("header", "a dictionary of 'descr', 'fortran_order' and 'shape'", shown)
    })?;
    if dict.fortran_order && dict.shape.len() > 1 {
        return Err(header("fortran_order", "False; save numpy.ascontiguousarray of it", "True".to_owned()));
    }
    let (element, big_endian) = element(dict.descr).ok_or_else(|| header("descr", array::TYPES, dict.descr.chars().take(120).collect()))?;
    let bytes = Array::size(path, &dict.shape, element)?;
    let raw = take(bytes)?;
    match io::copy(&mut reader.take(1), &mut io::sink()) {
        Ok(0) => {}
        Ok(_) => {
            return Err(DataError::Trailing { path: path.to_owned(), expected: bytes });
        }
        Err(source) => {
            return Err(DataError::Io { path: path.to_owned(), source });
        }
    }
    // Every size fits a usize: `Array::size` has checked it.
    let shape = dict.shape.iter().filter_map(|&s| usize::try_from(s).ok()).collect();
    Ok(Array::decode(shape, element, big_endian, raw))
}

/// What stands before the elements of an array of this type and shape.
pub(super) fn start(descr: &str, shape: &[usize]) -> Vec<u8> {
    let sizes: Vec<String> = shape.iter().map(usize::to_string).collect();
    // A Python tuple of one has a comma.
    let comma = if sizes.len() == 1 { "," } else { "" };
    let mut header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({}{comma}), }}", sizes.join(", "));
    // Magic, version, length, header and line break together are a multiple of 64 bytes.
    let unpadded = MAGIC.len() + 2 + 2 + header.len() + 1;
    header.extend(std::iter::repeat_n(' ', unpadded.next_multiple_of(64) - unpadded));
    header.push('\n');
    let length = u16::try_from(header.len()).unwrap_or(u16::MAX).to_le_bytes();
    [MAGIC.as_slice(), &[1, 0], &length, header.as_bytes()].concat()
}

/// A number type that arrays are written in.
pub trait Number: Copy {
    /// Its name in the header.
    const DESCR: &'static str;

    /// Adds its bytes, the lowest first.
    fn append(self, to: &mut Vec<u8>);
}

macro_rules! number {
    ($($type:ty, $descr:literal;)*) => { $(
        impl Number for $type {
            const DESCR: &'static str = $descr;

            fn append(self, to: &mut Vec<u8>) {
                to.extend(self.to_le_bytes());
            }
        }
    )* };
}
number! { f32, "<f4"; f64, "<f8"; }

/// Writes an array of f32 or f64 row by row, without holding it in memory.
#[derive(Debug)]
pub struct Writer<W: Write, T: Number = f32> {
    of: std::marker::PhantomData<T>,
    to: W,
    path: PathBuf,
    /// Numbers that are still to come.
    missing: usize,
}

impl<W: Write, T: Number> Writer<W, T> {
    /// Begins an array of this shape; `path` only names the destination in errors.
    ///
    /// ```
    /// use flow_train::data::{Dataset, npy::{self, Writer}};
    /// use std::path::Path;
    /// let (path, mut bytes) = (Path::new("z.npy"), Vec::new());
    /// let mut writer = Writer::new(&mut bytes, path, &[2, 3])?;
    /// writer.write(&[1.0_f32, 2.0, 3.0])?;
    /// writer.write(&[4.0, 5.0, 6.0])?;
    /// writer.finish()?;
    /// assert_eq!(npy::read(path, bytes.as_slice())?.into_dataset(path, Default::default(), None)?.len(), 2);
    /// # Ok::<(), flow_train::data::DataError>(())
    /// ```
    ///
    /// # Errors
    /// [`DataError::Io`].
    pub fn new(mut to: W, path: &Path, shape: &[usize]) -> Result<Self> {
        to.write_all(&start(T::DESCR, shape)).map_err(|source| DataError::Io { path: path.to_owned(), source })?;
        Ok(Self { of: std::marker::PhantomData, to, path: path.to_owned(), missing: shape.iter().product() })
    }

    /// The next numbers.
    ///
    /// # Errors
    /// [`DataError::Size`] for more than the array has, [`DataError::Io`].
    pub fn write(&mut self, values: &[T]) -> Result<()> {
        let Some(missing) = self.missing.checked_sub(values.len()) else {
            return Err(DataError::Size { what: "values", expected: self.missing, got: values.len() });
        };
        self.missing = missing;
        let mut bytes = Vec::with_capacity(size_of_val(values));
        values.iter().for_each(|value| value.append(&mut bytes));
        self.to.write_all(&bytes).map_err(|source| DataError::Io { path: self.path.clone(), source })
    }

    /// Ends the array.
    ///
    /// # Errors
    /// [`DataError::Size`] if numbers are missing, [`DataError::Io`].
    pub fn finish(mut self) -> Result<()> {
        if self.missing > 0 {
            return Err(DataError::Size { what: "values", expected: self.missing, got: 0 });
        }
        self.to.flush().map_err(|source| DataError::Io { path: self.path, source })
    }
}

/// The element type and whether it is big-endian.
fn element(descr: &str) -> Option<(Element, bool)> {
    let (order, kind) = descr.split_at_checked(1)?;
    let element = match kind {
        "u1" => Element::U8,
        "i1" => Element::I8,
        "u2" => Element::U16,
        "i2" => Element::I16,
        "u4" => Element::U32,
        "i4" => Element::I32,
        "u8" => Element::U64,
        "i8" => Element::I64,
        "b1" => Element::Bool,
        "f2" => Element::F16,
        "f4" => Element::F32,
        "f8" => Element::F64,
        _ => return None,
    };
    match order {
        "<" => Some((element, false)),
        ">" => Some((element, true)),
        "|" if element.bytes() == 1 => Some((element, false)),
        _ => None,
    }
}

/// The header's dictionary: `{'descr': '<f8', 'fortran_order': False, 'shape': (3, 2), }`.
struct Dict<'a> {
    descr: &'a str,
    fortran_order: bool,
    shape: Vec<u64>,
}

impl<'a> Dict<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let (mut descr, mut fortran_order, mut shape) = (None, None, None);
        let mut rest = text.trim().strip_prefix('{')?.strip_suffix('}')?.trim();
        while !rest.is_empty() {
            let (key, after) = quoted(rest)?;
            let value = after.trim_start().strip_prefix(':')?.trim_start();
            // A key that comes twice counts as malformed.
            rest = match key {
                "descr" if descr.is_none() => {
                    let (text, after) = quoted(value)?;
                    descr = Some(text);
                    after
                }
                "fortran_order" if fortran_order.is_none() => {
                    let (truth, after) = match value.strip_prefix("True") {
                        Some(after) => (true, after),
                        None => (false, value.strip_prefix("False")?),
                    };
                    fortran_order = Some(truth);
                    after
                }
                "shape" if shape.is_none() => {
                    let (sizes, after) = value.strip_prefix('(')?.split_once(')')?;
                    shape = Some(tuple(sizes)?);
                    after
                }
                _ => return None,
            }
            .trim_start();
            rest = match rest.strip_prefix(',') {
                Some(after) => after.trim_start(),
                None if rest.is_empty() => rest,
                None => return None,
            };
        }
        Some(Self { descr: descr?, fortran_order: fortran_order?, shape: shape? })
    }
}

/// A string in single or double quotes, without escapes, and what follows it.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let quote = text.chars().next().filter(|q| ['\'', '"'].contains(q))?;
    text[1..].split_once(quote)
}

/// `3, 2`, `3,` or nothing.
fn tuple(sizes: &str) -> Option<Vec<u64>> {
    let sizes = sizes.trim();
    if sizes.is_empty() {
        return Some(Vec::new());
    }
    sizes.strip_suffix(',').unwrap_or(sizes).split(',').map(|s| s.trim().parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::super::array::{ArrayOptions, Layout, Numbers};
    use super::super::{Dataset, Draw, ItemShape, Values};
    use super::*;
    use proptest::prelude::*;

    fn npy(header: &str, data: &[u8]) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend([1, 0]);
        bytes.extend(u16::try_from(header.len()).expect("short").to_le_bytes());
        bytes.extend(header.as_bytes());
        bytes.extend(data);
        bytes
    }

    fn dict(descr: &str, shape: &str) -> String {
        format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({shape}), }}          \n")
    }

    fn parse(bytes: &[u8]) -> Result<Array> {
        read("a.npy".as_ref(), bytes)
    }

    #[test]
    fn every_type_and_byte_order_is_read() -> Result<()> {
        let cases = [
            ("|u1", vec![1, 255], Numbers::Bytes(vec![1, 255])),
            ("|i1", vec![1, 255], Numbers::Integers(vec![1, -1])),
            ("<u2", vec![1, 0, 0, 255], Numbers::Integers(vec![1, 0xff00])),
            (">i2", vec![0, 1, 255, 254], Numbers::Integers(vec![1, -2])),
            ("<f2", vec![0, 0x3e, 1, 0], Numbers::Floats(vec![1.5, 2f64.powi(-24)])),
            ("|b1", vec![0, 2], Numbers::Bytes(vec![0, 1])),
            ("<u8", [7u64, u64::MAX].map(u64::to_le_bytes).concat(), Numbers::Integers(vec![7, i64::MAX])),
            (">i8", [7i64, -9].map(i64::to_be_bytes).concat(), Numbers::Integers(vec![7, -9])),
            ("<f4", [0.5f32, -2.0].map(f32::to_le_bytes).concat(), Numbers::Floats(vec![0.5, -2.0])),
            (">f8", [0.1f64, 1e300].map(f64::to_be_bytes).concat(), Numbers::Floats(vec![0.1, 1e300])),
        ];
        for (descr, data, numbers) in cases {
            assert_eq!(parse(&npy(&dict(descr, "2,"), &data))?, Array { shape: vec![2], numbers }, "{descr}");
        }
        Ok(())
    }

    #[test]
    fn malformed_files_are_typed_errors() {
        let cases = [
            ("nothing", vec![], "a.npy: cut off: expected 8 bytes of data, got 0"),
            ("other magic", b"\x93NUMPX\x01\x00".to_vec(), "a.npy: magic string: expected \\x93NUMPY, got \\x93NUMPX"),
            ("version", b"\x93NUMPY\x04\x00".to_vec(), "a.npy: version: expected 1.0, 2.0 or 3.0, got 4.0"),
            ("huge header", b"\x93NUMPY\x02\x00\xff\xff\xff\xff".to_vec(), "a.npy: header length: expected at most 65536, got 4294967295"),
            ("header cut off", b"\x93NUMPY\x01\x00\x50\x00{'d".to_vec(), "a.npy: cut off: expected 80 bytes of data, got 3"),
            (
                "nested",
                npy(&"(".repeat(60_000), &[]),
                "a.npy: header: expected a dictionary of 'descr', 'fortran_order' and 'shape', got (((",
            ),
            ("missing key", npy("{'descr': '|u1', 'shape': (1,)}", &[1]), "a.npy: header: expected a dictionary"),
            ("key twice", npy("{'shape': (1,), 'shape': (1,)}", &[1]), "a.npy: header: expected a dictionary"),
            ("negative size", npy(&dict("|u1", "-1,"), &[]), "a.npy: header: expected a dictionary"),
            (
                "object",
                npy(&dict("|O", "1,"), &[0]),
                "a.npy: descr: expected bool, an integer type, float16, float32 or float64; convert with .astype, got |O",
            ),
            (
                "no byte order",
                npy(&dict("|f8", "1,"), &[0; 8]),
                "a.npy: descr: expected bool, an integer type, float16, float32 or float64; convert with .astype, got |f8",
            ),
            (
                "not ascii",
                npy(&dict("é8", "1,"), &[0; 8]),
                "a.npy: descr: expected bool, an integer type, float16, float32 or float64; convert with .astype, got é8",
            ),
            (
                "fortran",
                npy("{'descr': '|u1', 'fortran_order': True, 'shape': (1, 1)}", &[1]),
                "a.npy: fortran_order: expected False; save numpy.ascontiguousarray of it, got True",
            ),
            ("overflow", npy(&dict("<f8", "4294967296, 4294967296"), &[]), "a.npy: sizes [4294967296, 4294967296] are more than"),
            ("a little too large", npy(&dict("|u1", "131072, 131073"), &[]), "a.npy: sizes [131072, 131073] are more than"),
            (
                "overflow hidden by 0",
                npy(&dict("|u1", "18446744073709551615, 0"), &[]),
                "a.npy: sizes [18446744073709551615, 0] are more than",
            ),
            ("lying", npy(&dict("<f8", "1000, 1000"), &[1, 2]), "a.npy: cut off: expected 8000000 bytes of data, got 2"),
            ("trailing", npy(&dict("|u1", "1,"), &[1, 2]), "a.npy: more bytes follow the 1 bytes of data"),
        ];
        for (case, bytes, message) in cases {
            let error = parse(&bytes).expect_err(case).to_string();
            assert!(error.starts_with(message), "{case}: {error}");
        }
    }

    #[test]
    fn shapes_become_items_or_say_why_not() -> Result<()> {
        let set = |shape: &str, descr: &str, layout: Layout, n: u8| -> Result<_> {
            let width = if descr == "<f8" { 8 } else { 1 };
            let data: Vec<u8> = (0..n).flat_map(|i| if width == 8 { f64::from(i).to_le_bytes().to_vec() } else { vec![i] }).collect();
            parse(&npy(&dict(descr, shape), &data))?.into_dataset("a.npy".as_ref(), layout.into(), None)
        };
        let image = |channels, height, width| ItemShape::Image { channels, height, width };
        let cases = [
            ("2, 3", "|u1", Layout::Auto, ItemShape::Vector { dims: 3 }),
            ("2, 3", "<f8", Layout::Auto, ItemShape::Vector { dims: 3 }),
            ("1, 2, 3", "|u1", Layout::Auto, image(1, 2, 3)),
            ("1, 2, 3", "<f8", Layout::Auto, image(1, 2, 3)),
            ("1, 3, 2, 2", "|u1", Layout::Auto, image(3, 2, 2)),
            ("1, 2, 2, 3", "|u1", Layout::Auto, image(3, 2, 2)),
            ("1, 3, 2, 1", "|u1", Layout::Hwc, image(1, 3, 2)),
            ("1, 3, 2, 1", "|u1", Layout::Chw, image(3, 2, 1)),
        ];
        for (shape, descr, layout, expected) in cases {
            let n = shape.split(", ").map(|s| s.parse::<u8>().unwrap_or(0)).product();
            assert_eq!(set(shape, descr, layout, n)?.shape(), expected, "{shape} {layout:?}");
        }
        for (shape, descr, n) in [("1, 3, 2, 1", "|u1", 6), ("1, 2, 2, 2", "|u1", 8), ("4,", "|u1", 4), ("", "|u1", 1)] {
            let error = set(shape, descr, Layout::Auto, n);
            assert!(matches!(error, Err(DataError::Header { .. })), "({shape}) {descr}: {error:?}");
        }
        // Other integers are the numbers that they are, as far as f64 holds them, and bytes of 0 and 1 alone have two
        // levels.
        let integers = |values: [i64; 2]| {
            let data = values.map(i64::to_le_bytes).concat();
            parse(&npy(&dict("<i8", "2, 1"), &data))?.into_dataset("a.npy".as_ref(), ArrayOptions::default(), None)
        };
        let both = [0, 1].map(|index| Draw { epoch: 0, index });
        assert_eq!(integers([-7, 1 << 53])?.batch(&both)?.values, Values::Real(vec![-7.0, 9_007_199_254_740_992.0]));
        assert!(matches!(integers([0, (1 << 53) + 1]), Err(DataError::Value { item: 1, .. })));
        let bytes = |values: [u8; 2], levels| {
            let options = ArrayOptions { levels, ..ArrayOptions::default() };
            parse(&npy(&dict("|u1", "2, 1"), &values))?.into_dataset("a.npy".as_ref(), options, None)
        };
        assert_eq!(
            (bytes([0, 1], None)?.levels(), bytes([0, 2], None)?.levels(), bytes([0, 2], Some(3))?.levels()),
            (Some(2), Some(256), Some(3))
        );
        assert!(matches!(bytes([0, 2], Some(2)), Err(DataError::Value { item: 1, .. })));
        // Interleaved pixels come apart into planes.
        for layout in [Layout::Auto, Layout::Hwc] {
            let batch = set("1, 2, 2, 3", "|u1", layout, 12)?.batch(&[Draw { epoch: 0, index: 0 }])?;
            assert_eq!(batch.values, Values::Levels(vec![0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11]));
        }
        Ok(())
    }

    proptest! {
        /// Any header text and any data end in a value or an error.
        #[test]
        fn no_bytes_panic(junk in proptest::collection::vec(any::<u8>(), 0..100), text in "[{}'(),: a-z0-9<>|éTrueFalse]{0,80}") {
            let _ = parse(&junk);
            let _ = parse(&npy(&text, &junk));
            let _ = parse(&npy(&format!("{{'descr': '{text}', 'fortran_order': False, 'shape': ({text})}}"), &junk));
        }

        #[test]
        fn any_shape_is_read_or_refused(sizes in proptest::collection::vec(0u64..5, 0..5), n in 0usize..300) {
            let shape = format!("{sizes:?}").replace(['[', ']'], "");
            let array = parse(&npy(&dict("|u1", &shape), &vec![0; n]));
            prop_assert_eq!(array.is_ok(), sizes.iter().product::<u64>() == n as u64);
            for layout in [Layout::Auto, Layout::Chw, Layout::Hwc] {
                if let Ok(array) = &array {
                    let _ = array.clone().into_dataset("a.npy".as_ref(), layout.into(), None);
                }
            }
        }
    }
}
