//! A contact sheet: pictures with what is told of each.

use crate::data::ItemShape;
use crate::picture::{color, ink, picture_error, save_chart, with_font};
use crate::{Result, TrainError};
use plotters::prelude::*;
use std::path::Path;

/// Pictures below a heading, each with lines of text below it.
#[derive(Clone, Debug)]
pub struct Block {
    /// The heading.
    pub heading: String,
    /// Values (channels × height × width) and lines of each picture.
    pub pictures: Vec<(Vec<u8>, Vec<String>)>,
}

/// Draws blocks of pictures of one shape, whose values lie below `levels`, one below the other.
///
/// # Errors
/// [`TrainError::Picture`] for vectors, pictures of another size, and a sheet that is too large; [`TrainError::Io`]
/// where the file cannot be written.
pub fn save_sheet(path: &Path, blocks: &[Block], shape: ItemShape, levels: u32) -> Result<()> {
    /// Side that small pictures are enlarged towards, and of text.
    const SIDE: usize = 96;
    const GAP: usize = 12;
    const LINE: usize = 17;
    const HEADING: usize = 44;
    /// Width that rows are filled to.
    const WIDTH: usize = 1200;
    /// A sheet is drawn in memory.
    const MAX_PIXELS: u64 = 1 << 28;
    let failed = |reason: String| TrainError::Picture { path: path.to_owned(), reason };
    let ItemShape::Image { channels, height, width } = shape else {
        return Err(failed("a sheet shows pictures, and vectors are none".to_owned()));
    };
    let len = shape.dims();
    if len == 0 || levels < 2 || blocks.iter().flat_map(|block| &block.pictures).any(|(values, _)| values.len() != len) {
        return Err(failed(format!("pictures that are not of shape {shape}")));
    }
    let scale = (SIDE / height.max(width)).max(1);
    let lines = blocks.iter().flat_map(|block| &block.pictures).map(|(_, lines)| lines.len()).max().unwrap_or(0);
    let cell_width = (width * scale).max(SIDE + 24) + GAP;
    let cell_height = height * scale + lines * LINE + 2 * GAP;
    let columns = (WIDTH / cell_width).max(1);
    let rows = |block: &Block| block.pictures.len().div_ceil(columns);
    let down = blocks.iter().map(|block| HEADING + rows(block) * cell_height).sum::<usize>() + GAP;
    let size = |pixels: usize| u32::try_from(pixels).map_err(|e| failed(e.to_string()));
    let (across, down) = (size(columns * cell_width + GAP)?, size(down)?);
    if u64::from(across) * u64::from(down) > MAX_PIXELS {
        return Err(failed(format!("a sheet of {across}×{down} pixels, where at most {MAX_PIXELS} can be drawn")));
    }
    save_chart(path, (across, down), |root| {
        let at = |pixels: usize| i32::try_from(pixels).unwrap_or(i32::MAX);
        let draw = |text: &str, place: (usize, usize), size: f64| {
            root.draw_text(text, &with_font(size, ink()), (at(place.0), at(place.1))).map_err(|e| picture_error(path, &e))
        };
        root.fill(&WHITE).map_err(|e| picture_error(path, &e))?;
        let mut top = 0;
        for block in blocks {
            draw(&block.heading, (GAP, top + 14), 22.0)?;
            top += HEADING;
            for (number, (values, lines)) in block.pictures.iter().enumerate() {
                let (x, y) = (GAP + number % columns * cell_width, top + number / columns * cell_height);
                for place in 0..height * scale * width * scale {
                    let (down, right) = (place / (width * scale), place % (width * scale));
                    let [r, g, b] = color(values, channels, height * width, down / scale * width + right / scale, levels);
                    let point = (at(x + right), at(y + down));
                    root.draw_pixel(point, &RGBColor(r, g, b)).map_err(|e| picture_error(path, &e))?;
                }
                for (i, line) in lines.iter().enumerate() {
                    draw(line, (x, y + height * scale + GAP / 2 + i * LINE), 15.0)?;
                }
            }
            top += rows(block) * cell_height;
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_stand_below_their_headings() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sheet.png");
        let shape = ItemShape::Image { channels: 3, height: 4, width: 4 };
        let red = [vec![3; 16], vec![0; 32]].concat();
        let block =
            |count: usize| Block { heading: "most unusual".to_owned(), pictures: vec![(red.clone(), vec!["0.99".to_owned()]); count] };
        save_sheet(&path, &[block(11), block(1)], shape, 4).unwrap();
        let sheet = image::open(&path).unwrap().to_rgb8();
        let red = sheet.pixels().filter(|pixel| pixel.0 == [255, 0, 0]).count();
        assert_eq!(red, 12 * 96 * 96, "enlarged by 24");
        assert!(sheet.pixels().any(|pixel| pixel.0.iter().all(|c| *c < 90)), "there is text");
        let wrong = Block { heading: String::new(), pictures: vec![(vec![0; 5], Vec::new())] };
        assert!(save_sheet(&path, &[wrong], shape, 4).unwrap_err().to_string().contains("not of shape 3×4×4"));
        assert!(save_sheet(&path, &[], ItemShape::Vector { dims: 2 }, 4).unwrap_err().to_string().contains("vectors are none"));
    }
}
