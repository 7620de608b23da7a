//! One decoded picture.

use std::fs::File;
use std::io::{BufReader, ErrorKind, Read};
use std::path::Path;

use image::imageops::FilterType;
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader};

use super::limits::Room;
use super::{DataError, PICTURES, Result, read_limit};

/// The most bytes of one decoded picture (512 MiB).
const MAX_BYTES: u64 = 1 << 29;

/// Forms that a picture has at a time, at the most: as it was decoded, over white, and scaled or turned.
const FORMS: u64 = 3;

/// What all threads decode at the same time.
static DECODED: Room = Room::new();

/// What is done to a picture after decoding.
#[derive(Clone, Copy, Debug)]
pub(super) struct Prepare {
    /// Scale so that the shorter side has this many pixels.
    pub(super) resize: Option<usize>,
    pub(super) grey: bool,
    /// Keep up to 16 bits of a value.
    pub(super) deep: bool,
}

/// What the beginning of a file says.
pub(super) struct Header {
    /// Width and height once prepared.
    pub(super) size: (u32, u32),
    /// Whether values have more than 8 bits.
    pub(super) deep: bool,
}

/// Pixels, row by row, channels interleaved.
pub(super) struct Picture {
    width: usize,
    height: usize,
    channels: usize,
    pixels: Pixels,
}

/// Values of 8 or of 16 bits.
enum Pixels {
    Narrow(Vec<u8>),
    Wide(Vec<u16>),
}

/// What a value of a picture becomes: a level, or a whole number among the reals.
pub(super) trait Value: Copy {
    fn of(level: u16) -> Self;
}

impl Value for u8 {
    /// Of a wide picture there are no such levels.
    fn of(level: u16) -> Self {
        Self::try_from(level).unwrap_or(Self::MAX)
    }
}

impl Value for f64 {
    fn of(level: u16) -> Self {
        Self::from(level)
    }
}

impl Prepare {
    /// Decodes and prepares a file.
    pub(super) fn read(self, path: &Path) -> Result<Picture> {
        let (decoder, orientation, format) = decoder(path)?;
        PICTURES.add();
        // The decoder fills what is missing with grey.
        if format == Some(ImageFormat::Jpeg) && !has_jpeg_end(path)? {
            return Err(DataError::Image { path: path.to_owned(), reason: "cut off: the end of the JPEG data is missing".to_owned() });
        }
        let _room = DECODED.take(decoder.total_bytes().saturating_mul(FORMS), read_limit());
        let mut image = DynamicImage::from_decoder(decoder).map_err(|e| broken(path, &e))?;
        image.apply_orientation(orientation);
        if image.color().has_alpha() {
            image = over_white(&image, self.deep);
        }
        let (width, height) = self.scaled(path, (image.width(), image.height()))?;
        if (width, height) != (image.width(), image.height()) {
            image = image.resize_exact(width, height, FilterType::Lanczos3);
        }
        let (channels, pixels) = match (self.grey, self.deep) {
            (true, false) => (1, Pixels::Narrow(image.into_luma8().into_raw())),
            (false, false) => (3, Pixels::Narrow(image.into_rgb8().into_raw())),
            (true, true) => (1, Pixels::Wide(image.into_luma16().into_raw())),
            (false, true) => (3, Pixels::Wide(image.into_rgb16().into_raw())),
        };
        Ok(Picture { width: width as usize, height: height as usize, channels, pixels })
    }

    /// What [`read`](Self::read) gives, from the header alone.
    pub(super) fn read_header(self, path: &Path) -> Result<Header> {
        let (decoder, orientation, _) = decoder(path)?;
        let color = decoder.color_type();
        let deep = color.bytes_per_pixel() > color.channel_count();
        let (width, height) = decoder.dimensions();
        let turned = matches!(
            orientation,
            Orientation::Rotate90 | Orientation::Rotate270 | Orientation::Rotate90FlipH | Orientation::Rotate270FlipH
        );
        Ok(Header { size: self.scaled(path, if turned { (height, width) } else { (width, height) })?, deep })
    }

    /// The size after scaling. A very thin picture could grow without bound.
    fn scaled(self, path: &Path, size: (u32, u32)) -> Result<(u32, u32)> {
        let Some(side) = self.resize else {
            return Ok(size);
        };
        let shorter = u128::from(size.0.min(size.1).max(1));
        let scale = |x: u32| (u128::from(x) * side as u128 + shorter / 2) / shorter;
        let (width, height) = (scale(size.0), scale(size.1));
        let fits = width.saturating_mul(height).saturating_mul(3) <= MAX_BYTES.into();
        match (u32::try_from(width), u32::try_from(height)) {
            (Ok(width), Ok(height)) if fits => Ok((width, height)),
            _ => {
                let expected = format!("a picture of less than {MAX_BYTES} bytes when scaled to a shorter side of {side}");
                Err(DataError::ImageSize { path: path.to_owned(), expected, got: size })
            }
        }
    }
}

fn broken(path: &Path, error: &image::ImageError) -> DataError {
    DataError::Image { path: path.to_owned(), reason: error.to_string() }
}

/// Opens a file by its content.
fn decoder(path: &Path) -> Result<(impl ImageDecoder, Orientation, Option<ImageFormat>)> {
    let io = |source| DataError::Io { path: path.to_owned(), source };
    let file = BufReader::new(File::open(path).map_err(io)?);
    let reader = ImageReader::new(file).with_guessed_format().map_err(io)?;
    let format = reader.format();
    if format.is_none() {
        return Err(DataError::Image { path: path.to_owned(), reason: unknown(path).map_err(io)? });
    }
    let mut decoder = reader.into_decoder().map_err(|e| broken(path, &e))?;
    if decoder.total_bytes() > MAX_BYTES {
        let expected = format!("a picture of at most {MAX_BYTES} bytes");
        return Err(DataError::ImageSize { path: path.to_owned(), expected, got: decoder.dimensions() });
    }
    let orientation = decoder.orientation().map_err(|e| broken(path, &e))?;
    Ok((decoder, orientation, format))
}

/// What there is to say of a file that does not begin as any picture.
fn unknown(path: &Path) -> std::io::Result<String> {
    const SHOWN: u64 = 16;
    let mut start = Vec::new();
    File::open(path)?.take(SHOWN).read_to_end(&mut start)?;
    let text = String::from_utf8_lossy(&start);
    Ok(if start.is_empty() {
        "it is empty".to_owned()
    } else {
        format!("it begins with `{}`, as no format that is read", text.escape_debug())
    })
}

/// Whether the data of a JPEG file come to their end mark.
fn has_jpeg_end(path: &Path) -> Result<bool> {
    let io = |source| DataError::Io { path: path.to_owned(), source };
    match jpeg_end(BufReader::new(File::open(path).map_err(io)?)) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
        found => found.map(|()| true).map_err(io),
    }
}

/// Reads markers and what they announce, up to the end of the image (ITU T.81, annex B).
fn jpeg_end(mut file: impl Read) -> std::io::Result<()> {
    const STUFFED: u8 = 0;
    let mut byte = move || -> std::io::Result<u8> {
        let mut one = [0];
        file.read_exact(&mut one)?;
        Ok(one[0])
    };
    loop {
        // Compressed data hold 0xff only before a stuffed zero or a restart mark.
        while byte()? != 0xff {}
        let mut marker = byte()?;
        while marker == 0xff {
            marker = byte()?;
        }
        match marker {
            0xd9 => return Ok(()),
            STUFFED | 0x01 | 0xd0..=0xd8 => {}
            _ => {
                let length = u16::from_be_bytes([byte()?, byte()?]);
                for _ in 2..length {
                    byte()?;
                }
            }
        }
    }
}

fn over_white(image: &DynamicImage, deep: bool) -> DynamicImage {
    /// One pixel of values up to `white`.
    fn mixed<T>(rgba: [T; 4], white: T) -> [T; 3]
    where
        u64: From<T>,
        T: Copy + TryFrom<u64>,
    {
        let ([colours @ .., alpha], most) = (rgba.map(u64::from), u64::from(white));
        colours.map(|c| T::try_from((c * alpha + most * (most - alpha) + most / 2) / most).unwrap_or(white))
    }
    if deep {
        let rgba = image.to_rgba16();
        let mut rgb = image::ImageBuffer::<image::Rgb<u16>, _>::new(rgba.width(), rgba.height());
        rgb.pixels_mut().zip(rgba.pixels()).for_each(|(to, from)| to.0 = mixed(from.0, u16::MAX));
        return rgb.into();
    }
    let rgba = image.to_rgba8();
    let mut rgb = image::RgbImage::new(rgba.width(), rgba.height());
    rgb.pixels_mut().zip(rgba.pixels()).for_each(|(to, from)| to.0 = mixed(from.0, u8::MAX));
    rgb.into()
}

impl Picture {
    /// Width and height.
    pub(super) fn size(&self) -> (u32, u32) {
        // They came from the decoder as u32.
        let side = |s: usize| u32::try_from(s).unwrap_or(u32::MAX);
        (side(self.width), side(self.height))
    }

    pub(super) fn bytes(&self) -> usize {
        match &self.pixels {
            Pixels::Narrow(pixels) => pixels.len(),
            Pixels::Wide(pixels) => 2 * pixels.len(),
        }
    }

    /// Size, checksum and pixels, as [`Picture::from_bytes`] reads them.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let (width, height) = self.size();
        let channels = u32::try_from(self.channels).unwrap_or(u32::MAX);
        let pixels = match &self.pixels {
            Pixels::Narrow(pixels) => pixels.clone(),
            Pixels::Wide(pixels) => pixels.iter().flat_map(|value| value.to_le_bytes()).collect(),
        };
        let head = [width, height, channels, crc32fast::hash(&pixels)];
        head.iter().flat_map(|number| number.to_le_bytes()).chain(pixels).collect()
    }

    /// What [`Picture::to_bytes`] wrote, if it is whole and of as many bits.
    pub(super) fn from_bytes(bytes: &[u8], deep: bool) -> Option<Self> {
        let (head, pixels) = bytes.split_first_chunk::<16>()?;
        let [width, height, channels, crc] = std::array::from_fn(|i| {
            let at = 4 * i;
            u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]])
        });
        let [width, height, channels] = [width, height, channels].map(|size| size as usize);
        let expected = width.checked_mul(height)?.checked_mul(channels)?.checked_mul(1 + usize::from(deep))?;
        let is_whole = expected > 0 && pixels.len() == expected && crc32fast::hash(pixels) == crc;
        let wide = || pixels.as_chunks::<2>().0.iter().map(|value| u16::from_le_bytes(*value)).collect();
        let values = || if deep { Pixels::Wide(wide()) } else { Pixels::Narrow(pixels.to_vec()) };
        is_whole.then(|| Self { width, height, channels, pixels: values() })
    }

    /// Copies a window, given by its upper left corner and its size, that lies inside the picture to `out`, channel by
    /// channel.
    pub(super) fn copy_window<T: Value>(&self, corner: (usize, usize), size: (usize, usize), out: &mut [T]) {
        match &self.pixels {
            Pixels::Narrow(pixels) => self.copy(pixels, corner, size, out),
            Pixels::Wide(pixels) => self.copy(pixels, corner, size, out),
        }
    }

    fn copy<P: Copy + Into<u16>, T: Value>(&self, pixels: &[P], corner: (usize, usize), size: (usize, usize), out: &mut [T]) {
        let ((left, top), (width, height)) = (corner, size);
        let rows = pixels.chunks_exact(self.width * self.channels).skip(top).take(height);
        for (y, row) in rows.enumerate() {
            let pixels = row.chunks_exact(self.channels).skip(left).take(width);
            for (x, pixel) in pixels.enumerate() {
                for (channel, &value) in pixel.iter().enumerate() {
                    out[(channel * height + y) * width + x] = T::of(value.into());
                }
            }
        }
    }
}
