//! What was found over what is said: on the diagonal both are equal.

use super::failed;
use crate::Result;
use crate::picture::{COLORS, GRID, ink, svg as draw_svg, with_font};
use plotters::prelude::*;

/// A point of the plot, both shares between 0 and 1.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) said: f64,
    pub(crate) found: f64,
    /// What chance would make of `found` is within this distance.
    pub(crate) error: f64,
    /// The share of all items that it is of: the area of the point.
    pub(crate) share: f64,
}

/// The plot of these points, by the names of what is said and what was found.
pub(crate) fn svg(places: &[Place], said: &str, found: &str) -> Result<String> {
    let color = COLORS[0];
    draw_svg((560, 520), |root| {
        root.fill(&WHITE).map_err(|e| failed(&e))?;
        let mut chart = ChartBuilder::on(root)
            .margin(16)
            .x_label_area_size(56)
            .y_label_area_size(72)
            .build_cartesian_2d(0.0..1.0, 0.0..1.0)
            .map_err(|e| failed(&e))?;
        chart
            .configure_mesh()
            .x_desc(said)
            .y_desc(found)
            .x_labels(6)
            .y_labels(6)
            .label_style(with_font(17.0, ink()))
            .axis_desc_style(with_font(19.0, ink()))
            .axis_style(GRID)
            .light_line_style(WHITE)
            .bold_line_style(GRID)
            .draw()
            .map_err(|e| failed(&e))?;
        chart.draw_series(DashedLineSeries::new([(0.0, 0.0), (1.0, 1.0)], 6, 5, ink().stroke_width(1))).map_err(|e| failed(&e))?;
        let bars = places.iter().map(|p| {
            let ends = [(p.said, (p.found - p.error).max(0.0)), (p.said, (p.found + p.error).min(1.0))];
            PathElement::new(ends.to_vec(), color.stroke_width(2))
        });
        chart.draw_series(bars).map_err(|e| failed(&e))?;
        chart.draw_series(LineSeries::new(places.iter().map(|p| (p.said, p.found)), color.stroke_width(2))).map_err(|e| failed(&e))?;
        let dots = places.iter().map(|p| Circle::new((p.said, p.found), super::pixels(3.0 + 14.0 * p.share.sqrt()), color.filled()));
        chart.draw_series(dots).map(drop).map_err(|e| failed(&e))
    })
}
