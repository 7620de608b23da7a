//! Arrays of numbers with a shape, whatever file they came from, and how they become a data set.

use std::path::Path;

use super::{DataError, InMemory, ItemShape, Labels, Result, Values, read_limit};

/// Where the channels of a four-axis picture array stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Layout {
    /// Told by the axis that has 1 or 3 entries; an error if both axes or neither could be it.
    #[default]
    Auto,
    /// N×C×H×W.
    Chw,
    /// N×H×W×C.
    Hwc,
}

/// How an array becomes items.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ArrayOptions {
    /// Order of a picture's axes.
    pub layout: Layout,
    /// Levels of bytes, where they are fewer than 256.
    pub levels: Option<u32>,
}

impl From<Layout> for ArrayOptions {
    fn from(layout: Layout) -> Self {
        Self { layout, levels: None }
    }
}

/// The type of an array's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Element {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    U64,
    I64,
    F16,
    Bf16,
    F32,
    F64,
    Bool,
}

impl Element {
    pub(super) fn bytes(self) -> u64 {
        match self {
            Self::U8 | Self::I8 | Self::Bool => 1,
            Self::U16 | Self::I16 | Self::F16 | Self::Bf16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 => 8,
        }
    }
}

/// Elements in one of the three forms that a data set needs.
#[derive(Clone, Debug, PartialEq)]
pub enum Numbers {
    /// Unsigned bytes.
    Bytes(Vec<u8>),
    /// Floats of either width.
    Floats(Vec<f64>),
    /// Integers of any other type; those above `i64::MAX` stand as `i64::MAX`.
    Integers(Vec<i64>),
}

/// An array in row-major order: its last axis varies fastest.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    /// Size of each axis.
    pub shape: Vec<usize>,
    /// The elements, as many as the product of `shape`.
    pub numbers: Numbers,
}

impl Array {
    /// Bytes in the file of an array of this shape, if it is not too large to be held; `path` names it in errors.
    pub(super) fn size(path: &Path, shape: &[u64], element: Element) -> Result<u64> {
        let limit = read_limit();
        let bytes = |each| shape.iter().try_fold(each, |all: u64, &s| all.checked_mul(s));
        // Bytes stay bytes, other numbers become words.
        let held = bytes(if matches!(element, Element::U8) { 1 } else { 8 });
        // A zero makes the product small however large the other sizes are.
        let fits = shape.iter().all(|&s| s <= limit && usize::try_from(s).is_ok()) && held.is_some_and(|held| held <= limit);
        bytes(element.bytes()).filter(|_| fits).ok_or_else(|| DataError::TooLarge { path: path.to_owned(), sizes: shape.to_vec(), limit })
    }

    /// Decodes `raw`, whose length is [`Array::size`].
    pub(super) fn decode(shape: Vec<usize>, element: Element, big_endian: bool, raw: Vec<u8>) -> Self {
        fn each<const N: usize, T>(raw: &[u8], big: bool, from: impl Fn([u8; N]) -> T) -> Vec<T> {
            let (words, _) = raw.as_chunks::<N>();
            let native = |mut word: [u8; N]| {
                if big {
                    word.reverse();
                }
                word
            };
            words.iter().map(|&w| from(native(w))).collect()
        }
        let numbers = match element {
            Element::U8 => Numbers::Bytes(raw),
            Element::I8 => Numbers::Integers(each(&raw, big_endian, |b| i8::from_le_bytes(b).into())),
            Element::U16 => Numbers::Integers(each(&raw, big_endian, |b| u16::from_le_bytes(b).into())),
            Element::I16 => Numbers::Integers(each(&raw, big_endian, |b| i16::from_le_bytes(b).into())),
            Element::U32 => Numbers::Integers(each(&raw, big_endian, |b| u32::from_le_bytes(b).into())),
            Element::I32 => Numbers::Integers(each(&raw, big_endian, |b| i32::from_le_bytes(b).into())),
            Element::U64 => {
                let from = |b| i64::try_from(u64::from_le_bytes(b)).unwrap_or(i64::MAX);
                Numbers::Integers(each(&raw, big_endian, from))
            }
            Element::I64 => Numbers::Integers(each(&raw, big_endian, i64::from_le_bytes)),
            Element::F16 => Numbers::Floats(each(&raw, big_endian, |b| half::f16::from_le_bytes(b).into())),
            Element::Bf16 => Numbers::Floats(each(&raw, big_endian, |b| half::bf16::from_le_bytes(b).into())),
            Element::Bool => Numbers::Bytes(raw.into_iter().map(|byte| u8::from(byte != 0)).collect()),
            Element::F32 => Numbers::Floats(each(&raw, big_endian, |b| f32::from_le_bytes(b).into())),
            Element::F64 => Numbers::Floats(each(&raw, big_endian, f64::from_le_bytes)),
        };
        Self { shape, numbers }
    }

    /// A data set of these items; `path` names it in errors.
    ///
    /// Unsigned bytes are pictures of 256 levels, N×H×W (grey), N×C×H×W or N×H×W×C, or vectors of 256 levels, N×d: of 2
    /// levels if all are 0 or 1, and of as many as `options` say. Other integers and floats are the same without
    /// levels: their density is modelled as they are.
    ///
    /// # Errors
    /// [`DataError::Header`] for any other shape and where the layout of four axes is ambiguous; [`DataError::Value`]
    /// for a label that is not from 0 to 65,535 and an integer beyond 2⁵³; and those of [`InMemory::new`].
    pub fn into_dataset(self, path: &Path, options: ArrayOptions, labels: Option<Self>) -> Result<InMemory> {
        let ArrayOptions { layout, levels: said } = options;
        let error = |field, expected: &str, got: String| {
            Err(DataError::Header { path: path.to_owned(), field, expected: expected.to_owned(), got })
        };
        let axes = format!("{:?}", self.shape);
        let (shape, interleaved) = match (self.shape.get(1..), layout) {
            (Some(&[dims]), _) => (ItemShape::Vector { dims }, false),
            (Some(&[height, width]), _) => (ItemShape::Image { channels: 1, height, width }, false),
            (Some(&[a, b, c]), layout) => {
                let chw = ItemShape::Image { channels: a, height: b, width: c };
                let hwc = ItemShape::Image { channels: c, height: a, width: b };
                let colour = |channels| channels == 1 || channels == 3;
                match layout {
                    Layout::Chw => (chw, false),
                    Layout::Hwc => (hwc, true),
                    Layout::Auto if colour(a) && !colour(c) => (chw, false),
                    Layout::Auto if colour(c) && !colour(a) => (hwc, true),
                    Layout::Auto => {
                        let expected = "N×C×H×W or N×H×W×C with 1 or 3 channels; it is ambiguous here: say layout=chw or layout=hwc";
                        return error("shape", expected, axes);
                    }
                }
            }
            _ => {
                return error("shape", "2 axes (vectors), 3 (grey pictures) or 4 (pictures)", axes);
            }
        };
        let (values, levels) = match (self.numbers, shape) {
            (Numbers::Bytes(mut pixels), ItemShape::Image { channels, .. }) if interleaved => {
                planes_apart(&mut pixels, channels, shape.dims());
                (Values::Levels(pixels), Some(256))
            }
            (Numbers::Bytes(v), _) => (Values::Levels(v), Some(256)),
            (Numbers::Floats(mut pixels), ItemShape::Image { channels, .. }) if interleaved => {
                planes_apart(&mut pixels, channels, shape.dims());
                (Values::Real(pixels), None)
            }
            (Numbers::Floats(v), _) => (Values::Real(v), None),
            (Numbers::Integers(v), _) => {
                let mut reals = Vec::with_capacity(v.len());
                for (at, &value) in v.iter().enumerate() {
                    if value.unsigned_abs() > EXACT {
                        let expected = format!("a whole number of at most {EXACT}, which f64 holds exactly");
                        let item = at / shape.dims().max(1);
                        return Err(DataError::Value { path: path.to_owned(), item, expected, got: value.to_string() });
                    }
                    reals.push(value as f64);
                }
                if let (ItemShape::Image { channels, .. }, true) = (shape, interleaved) {
                    planes_apart(&mut reals, channels, shape.dims());
                }
                (Values::Real(reals), None)
            }
        };
        // Pictures of 0 and 1 alone are black and white.
        let levels = match (&values, levels) {
            (Values::Levels(v), Some(256)) if v.contains(&1) && v.iter().all(|&level| level < 2) => Some(2),
            (_, levels) => levels,
        };
        let labels = labels.map(|l| l.labels(path)).transpose()?;
        let levels = match (levels, said) {
            (Some(_), Some(said)) => Some(said),
            (None, Some(said)) => return error("element type", "bytes, of which levels= says how many levels they have", said.to_string()),
            (levels, None) => levels,
        };
        InMemory::new(path, values, shape, levels, labels)
    }

    /// The elements as numbers that `items` items are conditioned on, and how many an item has: N, or N×k.
    pub(super) fn into_conditions(self, path: &Path, items: usize) -> Result<(Vec<f64>, usize)> {
        let width = match self.shape[..] {
            [rows] if rows == items => 1,
            [rows, width] if rows == items && width > 0 => width,
            _ => {
                let (expected, got) = (format!("({items}), or ({items}, k): one condition an item"), format!("{:?}", self.shape));
                return Err(DataError::Header { path: path.to_owned(), field: "shape of conditions", expected, got });
            }
        };
        let values = match self.numbers {
            Numbers::Bytes(v) => v.into_iter().map(f64::from).collect(),
            Numbers::Floats(v) => v,
            Numbers::Integers(v) => v.into_iter().map(|n| n as f64).collect(),
        };
        Ok((values, width))
    }

    /// The elements as labels of items.
    fn labels(self, path: &Path) -> Result<Labels> {
        if self.shape.len() != 1 {
            let got = format!("{:?}", self.shape);
            return Err(DataError::Header { path: path.to_owned(), field: "shape of labels", expected: "1 axis".to_owned(), got });
        }
        let numbers: Vec<i64> = match self.numbers {
            Numbers::Bytes(v) => v.into_iter().map(i64::from).collect(),
            Numbers::Integers(v) => v,
            Numbers::Floats(_) => {
                let (expected, got) = ("an integer type".to_owned(), "floats".to_owned());
                return Err(DataError::Header { path: path.to_owned(), field: "labels", expected, got });
            }
        };
        let [labels] = Labels::numbered(path, &[numbers])?;
        Ok(labels)
    }
}

/// What items may consist of.
pub(super) const TYPES: &str = "bool, an integer type, float16, float32 or float64; convert with .astype";

/// The largest whole number up to which f64 holds all.
const EXACT: u64 = 1 << 53;

/// Reorders pictures of `dims` values in place, from pixel by pixel (H, W, C) to channel by channel (C, H, W).
pub(super) fn planes_apart<T: Copy + Default>(pictures: &mut [T], channels: usize, dims: usize) {
    let mut pixels = vec![T::default(); dims];
    for picture in pictures.chunks_exact_mut(dims.max(1)) {
        pixels.copy_from_slice(picture);
        for (channel, plane) in picture.chunks_exact_mut((dims / channels).max(1)).enumerate() {
            for (value, pixel) in plane.iter_mut().zip(pixels.chunks_exact(channels)) {
                *value = pixel[channel];
            }
        }
    }
}
