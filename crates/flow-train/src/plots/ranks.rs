//! Histograms of numbers that should be uniform, side by side.

use super::{failed, pixels};
use crate::Result;
use crate::picture::{COLORS, GRID, ink, svg as draw_svg, with_font};
use plotters::prelude::*;

/// Histograms in a row.
const ACROSS: usize = 4;

/// Shares in equal parts of the interval, each with a title: bars relative to the share of uniform numbers, with the
/// band that nine of ten bars of `count` uniform numbers lie in.
pub(crate) fn svg(panels: &[(String, &[f64])], count: usize) -> Result<String> {
    const HEIGHT: i32 = 230;
    /// Of the standard deviation.
    const WITHIN: f64 = 1.645;
    let rows = panels.len().div_ceil(ACROSS).max(1);
    let across = panels.len().clamp(1, ACROSS);
    let width = 1200 / i32::try_from(ACROSS).unwrap_or(4);
    let size = (across as f64 * f64::from(width), rows as f64 * f64::from(HEIGHT));
    let whole = |x: f64| num_traits::cast::<f64, u32>(x).unwrap_or(1200);
    let highest = panels.iter().flat_map(|(_, bins)| bins.iter().map(|share| share * bins.len() as f64)).fold(0.0, f64::max);
    let top = (1.1 * highest).max(2.0);
    draw_svg((whole(size.0), whole(size.1)), |root| {
        root.fill(&WHITE).map_err(|e| failed(&e))?;
        for (at, (title, bins)) in panels.iter().enumerate() {
            let corner = (pixels((at % ACROSS) as f64 * f64::from(width)), pixels((at / ACROSS) as f64 * f64::from(HEIGHT)));
            let area = root.clone().shrink(corner, (width, HEIGHT));
            let parts = bins.len().max(1) as f64;
            let mut chart = ChartBuilder::on(&area)
                .margin(10)
                .caption(title, with_font(18.0, ink()))
                .x_label_area_size(26)
                .y_label_area_size(34)
                .build_cartesian_2d(0.0..1.0, 0.0..top)
                .map_err(|e| failed(&e))?;
            chart
                .configure_mesh()
                .disable_mesh()
                .x_labels(3)
                .y_labels(4)
                .label_style(with_font(15.0, ink()))
                .axis_style(GRID)
                .draw()
                .map_err(|e| failed(&e))?;
            let bars = bins.iter().enumerate().map(|(bin, share)| {
                let (low, high) = (bin as f64 / parts, (bin + 1) as f64 / parts);
                Rectangle::new([(low + 0.006, 0.0), (high - 0.006, share * parts)], COLORS[0].mix(0.75).filled())
            });
            chart.draw_series(bars).map_err(|e| failed(&e))?;
            let error = WITHIN * ((parts - 1.0) / count.max(1) as f64).sqrt();
            for y in [1.0 - error, 1.0 + error].map(|y| y.clamp(0.0, top)) {
                chart.draw_series(DashedLineSeries::new([(0.0, y), (1.0, y)], 5, 4, ink().stroke_width(1))).map_err(|e| failed(&e))?;
            }
        }
        Ok(())
    })
}
