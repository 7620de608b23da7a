//! What pictures are drawn on and written with: PNG and SVG, their font and their colours.

use crate::file::replace_file;
use crate::{Result, TrainError};
use image::RgbImage;
use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::FontStyle;
use std::fmt::Display;
use std::path::Path;

/// Distinct on both backgrounds.
pub(crate) const COLORS: [RGBColor; 8] = [
    RGBColor(66, 133, 214),
    RGBColor(226, 115, 42),
    RGBColor(60, 160, 90),
    RGBColor(208, 70, 90),
    RGBColor(145, 105, 200),
    RGBColor(30, 165, 175),
    RGBColor(185, 145, 30),
    RGBColor(150, 150, 155),
];

/// Lines behind the data.
pub(crate) const GRID: RGBColor = RGBColor(228, 230, 234);

/// What a chart is drawn on.
pub(crate) type Canvas<'a> = DrawingArea<BitMapBackend<'a>, Shift>;

/// Draws a picture of this width and height in memory and writes it.
pub(crate) fn save_chart(path: &Path, size: (u32, u32), draw: impl FnOnce(&Canvas<'_>) -> Result<()>) -> Result<()> {
    use_own_font();
    let mut picture = RgbImage::new(size.0, size.1);
    let root = BitMapBackend::with_buffer(&mut picture, size).into_drawing_area();
    draw(&root)?;
    root.present().map_err(|e| picture_error(path, &e))?;
    drop(root);
    save(path, &picture)
}

/// Writes a picture as a PNG.
pub(crate) fn save(path: &Path, picture: &RgbImage) -> Result<()> {
    save_with(path, picture, CompressionType::default(), FilterType::default())
}

pub(crate) fn save_with(path: &Path, picture: &RgbImage, compression: CompressionType, filter: FilterType) -> Result<()> {
    replace_file(path, &encode(path, picture, compression, filter)?)
}

pub(crate) fn encode(path: &Path, picture: &RgbImage, compression: CompressionType, filter: FilterType) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let encoder = PngEncoder::new_with_quality(&mut bytes, compression, filter);
    picture.write_with_encoder(encoder).map_err(|e| picture_error(path, &e))?;
    Ok(bytes)
}

/// What stands in messages about pictures that are no files.
pub(crate) const IN_MEMORY: &str = "a picture in memory";

/// Draws a plot of this width and height as SVG, whose texts are texts.
pub(crate) fn svg(size: (u32, u32), draw: impl FnOnce(&DrawingArea<SVGBackend<'_>, Shift>) -> Result<()>) -> Result<String> {
    use_own_font();
    let mut text = String::new();
    let root = SVGBackend::with_string(&mut text, size).into_drawing_area();
    draw(&root)?;
    root.present().map_err(|e| picture_error(Path::new(IN_MEMORY), &e))?;
    drop(root);
    Ok(text)
}

/// A plot as a file of its own: in the dark its colours are exchanged as a page does it.
pub(crate) fn standalone(svg: &str) -> String {
    const STYLE: &str = "<style>text { font-family: system-ui, 'Segoe UI', Roboto, sans-serif }\n@media (prefers-color-scheme: dark) {\n\
        svg { background: #14161a }\n[fill='#FFFFFF'] { fill: #14161a } [stroke='#FFFFFF'] { stroke: #14161a }\n\
        [fill='#2D3036'] { fill: #e4e6ea } [stroke='#2D3036'] { stroke: #e4e6ea }\n\
        [fill='#E4E6EA'] { fill: #333943 } [stroke='#E4E6EA'] { stroke: #333943 }\n}</style>";
    match svg.split_once('>') {
        Some((head, rest)) => format!("{head}>\n{STYLE}{rest}"),
        None => svg.to_owned(),
    }
}

/// A number of few digits.
pub(crate) fn short_number(x: f64) -> String {
    if x == 0.0 {
        "0".to_owned()
    } else if !(0.001..1e6).contains(&x.abs()) {
        format!("{x:.1e}")
    } else {
        // Without the zeros behind a point.
        let text = format!("{x:.3}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    }
}

/// The power of ten that numbers are divided by to be drawn: that of the largest where it has more digits than a label
/// has room for. It also keeps differences within the range of numbers.
pub(crate) fn exponent(numbers: impl Iterator<Item = f64>) -> i32 {
    const DIGITS: i32 = 6;
    let largest = numbers.filter(|x| x.is_finite()).fold(0.0_f64, |largest, x| largest.max(x.abs()));
    num_traits::cast::<f64, i32>(largest.log10().floor()).filter(|exponent| *exponent >= DIGITS).unwrap_or(0)
}

pub(crate) const FONT: &str = "sans-serif";

/// The colour of text on white.
pub(crate) fn ink() -> RGBColor {
    RGBColor(45, 48, 54)
}

/// Text of this size.
pub(crate) fn with_font(size: f64, color: RGBColor) -> TextStyle<'static> {
    (FONT, size).into_font().color(&color)
}

/// Fonts of the system would make the picture depend on the machine.
fn use_own_font() {
    let _ = plotters::style::register_font(FONT, FontStyle::Normal, epaint_default_fonts::UBUNTU_LIGHT);
}

pub(crate) fn picture_error(path: &Path, reason: &dyn Display) -> TrainError {
    TrainError::Picture { path: path.to_owned(), reason: reason.to_string() }
}
