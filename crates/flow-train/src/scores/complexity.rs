//! How complex a picture is: the length of its shortest lossless coding.

use crate::data::ItemShape;
use crate::{Result, TrainError};
use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::codecs::webp::WebPEncoder;
use image::{ExtendedColorType, ImageEncoder, ImageResult};
use std::path::Path;

const FILTERS: [FilterType; 6] =
    [FilterType::NoFilter, FilterType::Sub, FilterType::Up, FilterType::Avg, FilterType::Paeth, FilterType::Adaptive];

/// L(x): bits of the shortest file of a picture (channels × height × width, levels as they are) among PNG by each of
/// its filters, as tight as it compresses, and lossless WebP.
///
/// It stands for the codes of PNG, JPEG 2000 and FLIF of Serrà et al. 2020 (*Input complexity and out-of-distribution
/// detection with likelihood-based generative models*, arXiv:1909.11480, section 3). What every file begins with is
/// counted too, some hundred bits: among pictures of one shape it makes no difference. One channel is grey, three are
/// red, green and blue; others are coded grey, one below the other.
///
/// ```
/// use flow_train::{data::ItemShape, scores::complexity_bits};
/// let shape = ItemShape::Image { channels: 1, height: 16, width: 16 };
/// let noise: Vec<u8> = (0..256_u32).map(|i| (i * i * 7919 >> 5) as u8).collect();
/// assert!(complexity_bits(&[200; 256], shape)? < complexity_bits(&noise, shape)?);
/// # Ok::<(), flow_train::TrainError>(())
/// ```
///
/// # Errors
/// [`TrainError::Picture`] for vectors, and for another number of values than the shape has.
pub fn complexity_bits(levels: &[u8], shape: ItemShape) -> Result<f64> {
    let failed = |reason: String| TrainError::Picture { path: Path::new("a picture in memory").to_owned(), reason };
    let ItemShape::Image { channels, height, width } = shape else { return Err(failed(format!("vectors of {shape} are no pictures"))) };
    if levels.len() != shape.dims() || levels.is_empty() {
        return Err(failed(format!("{} values, where {shape} takes {}", levels.len(), shape.dims())));
    }
    let interleaved: Vec<u8>;
    let (pixels, rows, color) = if channels == 3 {
        interleaved = by_pixel(levels, height * width);
        (interleaved.as_slice(), height, ExtendedColorType::Rgb8)
    } else {
        (levels, channels * height, ExtendedColorType::L8)
    };
    let size = |side: usize| u32::try_from(side).map_err(|e| failed(format!("{shape}: {e}")));
    let (across, down) = (size(width)?, size(rows)?);
    let mut least = shortest_png(pixels, across, down, color).map_err(|e| failed(e.to_string()))?;
    let mut file = Vec::new();
    // WebP has room for sides of 16,384.
    if WebPEncoder::new_lossless(&mut file).write_image(pixels, across, down, color).is_ok() {
        least = least.min(file.len());
    }
    Ok(8.0 * least as f64)
}

/// The colours of a pixel one behind the other, of a picture whose three channels are.
fn by_pixel(levels: &[u8], plane: usize) -> Vec<u8> {
    (0..plane).flat_map(|at| [levels[at], levels[plane + at], levels[2 * plane + at]]).collect()
}

/// Bytes of the shortest PNG of a picture, by each of its filters.
fn shortest_png(pixels: &[u8], across: u32, down: u32, color: ExtendedColorType) -> ImageResult<usize> {
    let mut least = usize::MAX;
    let mut file = Vec::new();
    for filter in FILTERS {
        file.clear();
        PngEncoder::new_with_quality(&mut file, CompressionType::Best, filter).write_image(pixels, across, down, color)?;
        least = least.min(file.len());
    }
    Ok(least)
}

/// Bits of the shortest PNG of pictures of one shape (N × channels × height × width), one below the other, so that what
/// a file begins with is paid for once; none of what is no picture of one or three channels, or too many of them.
pub(crate) fn png_bits(levels: &[u8], shape: ItemShape) -> Option<f64> {
    let ItemShape::Image { channels, height, width } = shape else { return None };
    let (plane, len) = (height * width, shape.dims());
    let (across, down) = (u32::try_from(width).ok()?, u32::try_from(height * (levels.len() / len.max(1))).ok()?);
    let bytes = match channels {
        1 => shortest_png(levels, across, down, ExtendedColorType::L8),
        3 => {
            let pixels: Vec<u8> = levels.chunks_exact(len).flat_map(|picture| by_pixel(picture, plane)).collect();
            shortest_png(&pixels, across, down, ExtendedColorType::Rgb8)
        }
        _ => return None,
    };
    bytes.ok().map(|bytes| 8.0 * bytes as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngCore, SeedableRng};

    /// A flat picture takes next to nothing, a gradient little more, noise all of its bits, and no picture more than
    /// that and a header.
    #[test]
    fn simple_pictures_are_short() {
        for channels in [1, 2, 3, 4] {
            let shape = ItemShape::Image { channels, height: 32, width: 32 };
            let flat = vec![77; shape.dims()];
            let ramp: Vec<u8> = (0..shape.dims()).map(|i| u8::try_from(i % 32 * 3 + i / 32 % 32).unwrap()).collect();
            let mut noise = vec![0; shape.dims()];
            rand_chacha::ChaCha8Rng::seed_from_u64(1).fill_bytes(&mut noise);
            let bits = [&flat, &ramp, &noise].map(|levels| complexity_bits(levels, shape).unwrap());
            let raw = 8.0 * shape.dims() as f64;
            assert!(bits[0] < 800.0 && bits[1] < 0.3 * raw, "{channels} channels: {bits:?} of {raw}");
            assert!((raw..raw + 1600.0).contains(&bits[2]), "{channels} channels: {bits:?} of {raw}");
        }
    }

    /// Of a picture that is smooth along its columns, stored channel by channel, the neighbours must be neighbours in
    /// the file.
    #[test]
    fn channels_are_those_of_a_pixel() {
        let shape = ItemShape::Image { channels: 3, height: 32, width: 32 };
        let mut grey = vec![0; 32 * 32];
        rand_chacha::ChaCha8Rng::seed_from_u64(2).fill_bytes(&mut grey);
        // Equal channels cost a lossless coding of colours little more than one of them does.
        let equal = complexity_bits(&grey.repeat(3), shape).unwrap();
        let one = complexity_bits(&grey, ItemShape::Image { channels: 1, height: 32, width: 32 }).unwrap();
        assert!(equal < 1.3 * one, "{equal} and {one}");
    }

    #[test]
    fn what_is_no_picture_is_an_error() {
        let shape = ItemShape::Image { channels: 1, height: 2, width: 2 };
        assert!(complexity_bits(&[0; 3], shape).unwrap_err().to_string().contains("3 values, where 1×2×2 takes 4"));
        assert!(complexity_bits(&[0; 4], ItemShape::Vector { dims: 4 }).unwrap_err().to_string().contains("vectors of 4 are no pictures"));
    }
}
