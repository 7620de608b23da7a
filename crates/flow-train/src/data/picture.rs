//! One decoded picture.

use std::fs::File;
use std::io::{BufReader, ErrorKind, Read};
use std::path::Path;

use image::imageops::FilterType;
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader};

use super::limits::Room;
use super::{DataError, Result, read_limit};

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
}

/// What the beginning of a file says.
pub(super) struct Header {
    /// Width and height once prepared.
    pub(super) size: (u32, u32),
    /// Whether values have more than 8 bits.
    pub(super) deep: bool,
}

/// 8-bit pixels, row by row, channels interleaved.
pub(super) struct Picture {
    width: usize,
    height: usize,
    channels: usize,
    pixels: Vec<u8>,
}

impl Prepare {
    /// Decodes and prepares a file.
    pub(super) fn read(self, path: &Path) -> Result<Picture> {
        let (decoder, orientation, format) = decoder(path)?;
        // The decoder fills what is missing with grey.
        if format == Some(ImageFormat::Jpeg) && !has_jpeg_end(path)? {
            return Err(DataError::Image { path: path.to_owned(), reason: "cut off: the end of the JPEG data is missing".to_owned() });
        }
        let _room = DECODED.take(decoder.total_bytes().saturating_mul(FORMS), read_limit());
        let mut image = DynamicImage::from_decoder(decoder).map_err(|e| broken(path, &e))?;
        image.apply_orientation(orientation);
        if image.color().has_alpha() {
            image = over_white(&image);
        }
        let (width, height) = self.scaled(path, (image.width(), image.height()))?;
        if (width, height) != (image.width(), image.height()) {
            image = image.resize_exact(width, height, FilterType::Lanczos3);
        }
        let (channels, pixels) = if self.grey { (1, image.into_luma8().into_raw()) } else { (3, image.into_rgb8().into_raw()) };
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
    let mut decoder = reader.into_decoder().map_err(|e| broken(path, &e))?;
    if decoder.total_bytes() > MAX_BYTES {
        let expected = format!("a picture of at most {MAX_BYTES} bytes");
        return Err(DataError::ImageSize { path: path.to_owned(), expected, got: decoder.dimensions() });
    }
    let orientation = decoder.orientation().map_err(|e| broken(path, &e))?;
    Ok((decoder, orientation, format))
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

fn over_white(image: &DynamicImage) -> DynamicImage {
    let rgba = image.to_rgba8();
    let mut rgb = image::RgbImage::new(rgba.width(), rgba.height());
    for (to, from) in rgb.pixels_mut().zip(rgba.pixels()) {
        let [colours @ .., alpha] = from.0.map(u32::from);
        to.0 = colours.map(|c| {
            let mixed = (c * alpha + 255 * (255 - alpha) + 127) / 255;
            u8::try_from(mixed).unwrap_or(u8::MAX)
        });
    }
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
        self.pixels.len()
    }

    /// Size, checksum and pixels, as [`Picture::from_bytes`] reads them.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let (width, height) = self.size();
        let channels = u32::try_from(self.channels).unwrap_or(u32::MAX);
        let head = [width, height, channels, crc32fast::hash(&self.pixels)];
        head.iter().flat_map(|number| number.to_le_bytes()).chain(self.pixels.iter().copied()).collect()
    }

    /// What [`Picture::to_bytes`] wrote, if it is whole.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (head, pixels) = bytes.split_first_chunk::<16>()?;
        let [width, height, channels, crc] = std::array::from_fn(|i| {
            let at = 4 * i;
            u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]])
        });
        let [width, height, channels] = [width, height, channels].map(|size| size as usize);
        let expected = width.checked_mul(height)?.checked_mul(channels)?;
        let is_whole = expected > 0 && pixels.len() == expected && crc32fast::hash(pixels) == crc;
        is_whole.then(|| Self { width, height, channels, pixels: pixels.to_vec() })
    }

    /// Copies a window that lies inside the picture to `out`, channel by channel.
    pub(super) fn copy_window(&self, left: usize, top: usize, width: usize, height: usize, out: &mut [u8]) {
        let rows = self.pixels.chunks_exact(self.width * self.channels).skip(top).take(height);
        for (y, row) in rows.enumerate() {
            let pixels = row.chunks_exact(self.channels).skip(left).take(width);
            for (x, pixel) in pixels.enumerate() {
                for (channel, &value) in pixel.iter().enumerate() {
                    out[(channel * height + y) * width + x] = value;
                }
            }
        }
    }
}
