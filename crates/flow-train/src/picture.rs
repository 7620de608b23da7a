//! Pictures: grids of samples, and learning curves.

use crate::data::ItemShape;
use crate::training::Report;
use crate::{Result, TrainError};
use image::{Rgb, RgbImage};
use plotters::prelude::*;
use plotters::style::FontStyle;
use std::path::Path;

/// Draws images (N × channels × height × width, levels below `levels`) as a grid with a thin border, small images enlarged by whole factors.
///
/// One channel is grey, three are red, green and blue; of any other number the first is drawn.
///
/// # Errors
/// [`TrainError::Picture`] for vectors, and for files that cannot be written.
pub fn save_grid(path: &Path, pixels: &[u8], shape: ItemShape, levels: u32, columns: usize) -> Result<()> {
    /// Side that small images are enlarged towards.
    const SIDE: usize = 64;
    const BORDER: usize = 2;
    let failed = |reason: String| TrainError::Picture { path: path.to_owned(), reason };
    let ItemShape::Image { channels, height, width } = shape else { return Err(failed("vectors are no images".to_owned())) };
    let len = channels * height * width;
    if len == 0 || levels < 2 || pixels.len() < len {
        return Err(failed(format!("no images of shape {shape} with {levels} levels in {} values", pixels.len())));
    }
    let count = pixels.len() / len;
    let columns = columns.clamp(1, count);
    let rows = count.div_ceil(columns);
    let scale = (SIDE / height.max(width)).max(1);
    let (cell_height, cell_width) = (height * scale + BORDER, width * scale + BORDER);
    let size = |cells: usize, cell: usize| u32::try_from(cells * cell + BORDER).map_err(|e| failed(e.to_string()));
    let mut grid = RgbImage::from_pixel(size(columns, cell_width)?, size(rows, cell_height)?, Rgb([128; 3]));
    for (i, image) in pixels.chunks_exact(len).enumerate() {
        let (top, left) = (i / columns * cell_height + BORDER, i % columns * cell_width + BORDER);
        for y in 0..height * scale {
            for x in 0..width * scale {
                let at = y / scale * width + x / scale;
                let level = |channel: usize| {
                    let value = u32::from(image[channel * height * width + at]) * 255 / (levels - 1);
                    u8::try_from(value).unwrap_or(u8::MAX)
                };
                let pixel = if channels == 3 { [level(0), level(1), level(2)] } else { [level(0); 3] };
                if let (Ok(x), Ok(y)) = (u32::try_from(left + x), u32::try_from(top + y)) {
                    grid.put_pixel(x, y, Rgb(pixel));
                }
            }
        }
    }
    grid.save(path).map_err(|e| failed(e.to_string()))
}

/// Draws learning curves of one or several runs: training loss thin, validation loss (where there is one) thick.
///
/// # Errors
/// [`TrainError::Picture`] where there is nothing to draw, or the file cannot be written.
pub fn save_curves(path: &Path, runs: &[(String, Vec<Report>)], unit: &str) -> Result<()> {
    let failed = |e: &dyn std::fmt::Display| TrainError::Picture { path: path.to_owned(), reason: e.to_string() };
    // Fonts of the system would make the picture depend on the machine.
    let _ = plotters::style::register_font("sans-serif", FontStyle::Normal, epaint_default_fonts::UBUNTU_LIGHT);
    let losses = || runs.iter().flat_map(|(_, reports)| reports.iter().flat_map(|r| [Some(r.train), r.validation])).flatten();
    let mut finite: Vec<f64> = losses().filter(|loss| loss.is_finite()).collect();
    let last = runs.iter().filter_map(|(_, reports)| reports.last()).map(|report| report.step).max();
    let (Some(last), false) = (last, finite.is_empty()) else { return Err(failed(&"no reports to draw")) };
    finite.sort_by(f64::total_cmp);
    let low = finite[0];
    // The first reports of a run tower over the rest: the upper end is where nine tenths of all reports lie below.
    let high = finite[(finite.len() - 1) * 9 / 10].max(low + 0.05 * low.abs().max(0.1));
    let margin = 0.06 * (high - low);

    let root = BitMapBackend::new(path, (1100, 640)).into_drawing_area();
    root.fill(&WHITE).map_err(|e| failed(&e))?;
    let mut chart = ChartBuilder::on(&root)
        .margin(18)
        .x_label_area_size(48)
        .y_label_area_size(72)
        .build_cartesian_2d(0..last, low - margin..high + margin)
        .map_err(|e| failed(&e))?;
    chart
        .configure_mesh()
        .x_desc("optimiser steps")
        .y_desc(unit)
        .label_style(("sans-serif", 17))
        .axis_desc_style(("sans-serif", 19))
        .light_line_style(WHITE)
        .bold_line_style(RGBColor(225, 225, 225))
        .draw()
        .map_err(|e| failed(&e))?;
    for (i, (name, reports)) in runs.iter().enumerate() {
        let color = Palette99::pick(i).to_rgba();
        let visible = |value: f64| value.is_finite().then(|| value.min(high + margin));
        let train = reports.iter().filter_map(|r| Some((r.step, visible(r.train)?)));
        chart
            .draw_series(LineSeries::new(train, color.stroke_width(2)))
            .map_err(|e| failed(&e))?
            .label(name.as_str())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 22, y)], color.stroke_width(3)));
        let validation = reports.iter().filter_map(|r| Some((r.step, visible(r.validation?)?)));
        chart.draw_series(LineSeries::new(validation, color.stroke_width(4))).map_err(|e| failed(&e))?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.85))
        .border_style(RGBColor(200, 200, 200))
        .label_font(("sans-serif", 17))
        .draw()
        .map_err(|e| failed(&e))?;
    root.present().map_err(|e| failed(&e))
}
