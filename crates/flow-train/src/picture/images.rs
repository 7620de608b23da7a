//! Images, alone and in grids.

use super::canvas::{IN_MEMORY, encode, picture_error, save};
use crate::Result;
use crate::data::ItemShape;
use image::codecs::png::{CompressionType, FilterType};
use image::{Rgb, RgbImage};
use std::fmt::Display;
use std::path::Path;

/// Draws images (N × channels × height × width, levels below `levels`) as a grid of `columns` with a thin border, small
/// images enlarged by whole factors.
///
/// One channel is grey, three are red, green and blue; of any other number the first is drawn.
///
/// # Errors
/// [`TrainError::Picture`](crate::TrainError::Picture) for vectors, and
/// [`TrainError::Io`](crate::TrainError::Io) where the file cannot be written.
pub fn save_grid(path: &Path, pixels: &[u8], shape: ItemShape, levels: u32, columns: usize) -> Result<()> {
    save(path, &grid(path, pixels, shape, levels, columns)?)
}

/// The same as the bytes of a PNG.
pub(crate) fn grid_png(pixels: &[u8], shape: ItemShape, levels: u32, columns: usize) -> Result<Vec<u8>> {
    let path = Path::new(IN_MEMORY);
    encode(path, &grid(path, pixels, shape, levels, columns)?, CompressionType::default(), FilterType::default())
}

fn grid(path: &Path, pixels: &[u8], shape: ItemShape, levels: u32, columns: usize) -> Result<RgbImage> {
    /// Side that small images are enlarged towards.
    const SIDE: usize = 64;
    const BORDER: usize = 2;
    /// A grid is drawn in memory.
    const MAX_PIXELS: u64 = 1 << 28;
    let failed = |reason: &dyn Display| picture_error(path, reason);
    let ItemShape::Image { channels, height, width } = shape else { return Err(failed(&"vectors are no images")) };
    let len = channels * height * width;
    if len == 0 || levels < 2 || pixels.len() < len {
        return Err(failed(&format!("no images of shape {shape} with {levels} levels in {} values", pixels.len())));
    }
    let count = pixels.len() / len;
    let columns = columns.clamp(1, count);
    let rows = count.div_ceil(columns);
    let scale = (SIDE / height.max(width)).max(1);
    let (cell_height, cell_width) = (height * scale + BORDER, width * scale + BORDER);
    let size = |cells: usize, cell: usize| u32::try_from(cells.saturating_mul(cell).saturating_add(BORDER)).map_err(|e| failed(&e));
    let (across, down) = (size(columns, cell_width)?, size(rows, cell_height)?);
    if u64::from(across) * u64::from(down) > MAX_PIXELS {
        return Err(failed(&format!("a grid of {across}×{down} pixels, where at most {MAX_PIXELS} can be drawn")));
    }
    let mut grid = RgbImage::from_pixel(across, down, Rgb([128; 3]));
    for (i, image) in pixels.chunks_exact(len).enumerate() {
        let (top, left) = (i / columns * cell_height + BORDER, i % columns * cell_width + BORDER);
        for y in 0..height * scale {
            for x in 0..width * scale {
                let at = y / scale * width + x / scale;
                let pixel = color(image, channels, height * width, at, levels);
                if let (Ok(x), Ok(y)) = (u32::try_from(left + x), u32::try_from(top + y)) {
                    grid.put_pixel(x, y, Rgb(pixel));
                }
            }
        }
    }
    Ok(grid)
}

/// Writes one image (channels × height × width, levels below `levels`) pixel by pixel, without a border.
///
/// # Errors
/// As [`save_grid`].
pub fn save_image(path: &Path, pixels: &[u8], shape: ItemShape, levels: u32) -> Result<()> {
    save(path, &image(path, pixels, shape, levels)?)
}

/// The same as the bytes of a PNG.
pub(crate) fn image_png(pixels: &[u8], shape: ItemShape, levels: u32) -> Result<Vec<u8>> {
    let path = Path::new(IN_MEMORY);
    encode(path, &image(path, pixels, shape, levels)?, CompressionType::default(), FilterType::default())
}

fn image(path: &Path, pixels: &[u8], shape: ItemShape, levels: u32) -> Result<RgbImage> {
    let failed = |reason: &dyn Display| picture_error(path, reason);
    let ItemShape::Image { channels, height, width } = shape else { return Err(failed(&"vectors are no images")) };
    let (Ok(columns), Ok(rows)) = (u32::try_from(width), u32::try_from(height)) else { return Err(failed(&"too large")) };
    if levels < 2 || pixels.len() != channels * height * width {
        return Err(failed(&format!("no image of shape {shape} with {levels} levels in {} values", pixels.len())));
    }
    Ok(RgbImage::from_fn(columns, rows, |x, y| Rgb(color(pixels, channels, height * width, y as usize * width + x as usize, levels))))
}

/// Red, green and blue of a pixel: three channels are those, of any other number the first is grey.
pub(crate) fn color(image: &[u8], channels: usize, plane: usize, at: usize, levels: u32) -> [u8; 3] {
    let level = |channel: usize| u8::try_from(u32::from(image[channel * plane + at]) * 255 / (levels - 1)).unwrap_or(u8::MAX);
    if channels == 3 { [level(0), level(1), level(2)] } else { [level(0); 3] }
}
