//! Charts of numbers by name: points with their spreads, and histograms.

use super::canvas::{COLORS, FONT, GRID, IN_MEMORY, exponent, ink, picture_error, short_number, svg, with_font};
use crate::Result;
use plotters::prelude::*;
use std::fmt::Display;
use std::path::Path;

/// A point of [`scatter_svg`] with the spread of its height.
#[derive(Clone, Debug)]
pub(crate) struct Point {
    pub(crate) name: String,
    pub(crate) x: f64,
    pub(crate) y: f64,
    pub(crate) spread: f64,
}

/// Named points with their spreads as SVG.
pub(crate) fn scatter_svg(points: &[Point], across: &str, up: &str) -> Result<String> {
    let failed = |reason: &dyn Display| picture_error(Path::new(IN_MEMORY), reason);
    let range = |ends: &mut dyn Iterator<Item = f64>| {
        let (low, high) = ends.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| (low.min(x), high.max(x)));
        let margin = 0.08 * (high - low).max(0.02 * high.abs()).max(f64::MIN_POSITIVE);
        low - margin..high + margin
    };
    let (x, y) = (
        range(&mut points.iter().map(|point| point.x)),
        range(&mut points.iter().flat_map(|point| [point.y - point.spread, point.y + point.spread])),
    );
    if points.is_empty() || ![x.start, x.end, y.start, y.end].iter().all(|end| end.is_finite()) {
        return Err(failed(&"no numbers to draw"));
    }
    let longest = points.iter().map(|point| point.name.chars().count()).max().unwrap_or(0).clamp(6, 40);
    svg((1200, 640), |root| {
        let (ink, grid) = (ink(), GRID);
        root.fill(&WHITE).map_err(|e| failed(&e))?;
        let (plot, legend) = root.split_horizontally(1130 - 10 * i32::try_from(longest).unwrap_or(40));
        let chart = ChartBuilder::on(&plot).margin(20).x_label_area_size(56).y_label_area_size(80).build_cartesian_2d(x, y);
        let mut chart = chart.map_err(|e| failed(&e))?;
        chart
            .configure_mesh()
            .x_desc(across)
            .y_desc(up)
            .x_labels(8)
            .x_label_formatter(&|x| short_number(*x))
            .label_style((FONT, 19).into_font().color(&ink))
            .axis_desc_style((FONT, 21).into_font().color(&ink))
            .axis_style(grid)
            .light_line_style(WHITE)
            .bold_line_style(grid)
            .draw()
            .map_err(|e| failed(&e))?;
        for (i, point) in points.iter().enumerate() {
            let Point { name, x, y, spread } = point;
            let color = COLORS[i % COLORS.len()];
            // Beyond the colours rings are told from discs.
            let style = if (i / COLORS.len()).is_multiple_of(2) { color.filled() } else { color.stroke_width(3) };
            let line = LineSeries::new([(*x, y - spread), (*x, y + spread)], color.stroke_width(3));
            chart.draw_series(line).map_err(|e| failed(&e))?;
            chart.draw_series([Circle::new((*x, *y), 8, style)]).map_err(|e| failed(&e))?;
            let Ok(down) = i32::try_from(40 + 30 * i) else { break };
            legend.draw(&Circle::new((13, down), 8, style)).map_err(|e| failed(&e))?;
            legend.draw(&Text::new(name.clone(), (36, down - 9), with_font(19.0, ink))).map_err(|e| failed(&e))?;
        }
        Ok(())
    })
}

/// Shares of the finite values of sets in equal parts of their common range, without the outermost half per cent on
/// either side, as SVG.
pub(crate) fn histogram_svg(sets: &[(String, Vec<f64>)], axis: &str) -> Result<String> {
    const PARTS: usize = 25;
    let failed = |reason: &dyn Display| picture_error(Path::new(IN_MEMORY), reason);
    let mut all: Vec<f64> = sets.iter().flat_map(|(_, values)| values).copied().filter(|x| x.is_finite()).collect();
    all.sort_by(f64::total_cmp);
    let Some(last) = all.len().checked_sub(1) else { return Err(failed(&"no numbers to draw")) };
    let exponent = exponent(all.iter().copied());
    let scale = 10_f64.powi(exponent);
    let (low, high) = (all[last / 200] / scale, all[last - last / 200] / scale);
    let width = ((high - low) / PARTS as f64).max(1e-9 * low.abs().max(1e-3));
    let share = |values: &[f64]| -> Vec<f64> {
        let mut counts = vec![0.0; PARTS];
        let finite: Vec<f64> = values.iter().copied().filter(|x| x.is_finite()).collect();
        for x in &finite {
            let part = num_traits::cast::<f64, usize>(((x / scale - low) / width).floor().max(0.0)).unwrap_or(PARTS);
            counts[part.min(PARTS - 1)] += 1.0 / finite.len() as f64;
        }
        counts
    };
    let shares: Vec<Vec<f64>> = sets.iter().map(|(_, values)| share(values)).collect();
    let top = 1.05 * shares.iter().flatten().copied().fold(0.0, f64::max);
    let axis = if exponent == 0 { axis.to_owned() } else { format!("10^{exponent} {axis}") };
    let longest = sets.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0).clamp(6, 40);
    svg((1200, 420), |root| {
        let (ink, grid) = (ink(), GRID);
        root.fill(&WHITE).map_err(|e| failed(&e))?;
        let (plot, legend) = root.split_horizontally(1130 - 10 * i32::try_from(longest).unwrap_or(40));
        let mut chart = ChartBuilder::on(&plot)
            .margin(20)
            .x_label_area_size(56)
            .y_label_area_size(80)
            .build_cartesian_2d(low..low + width * PARTS as f64, 0.0..top)
            .map_err(|e| failed(&e))?;
        chart
            .configure_mesh()
            .x_desc(axis)
            .y_desc("share of items")
            .disable_x_mesh()
            .label_style((FONT, 19).into_font().color(&ink))
            .axis_desc_style((FONT, 21).into_font().color(&ink))
            .axis_style(grid)
            .light_line_style(WHITE)
            .bold_line_style(grid)
            .draw()
            .map_err(|e| failed(&e))?;
        for (i, ((name, _), shares)) in sets.iter().zip(&shares).enumerate() {
            let color = COLORS[i % COLORS.len()];
            let steps = shares.iter().enumerate().flat_map(|(part, share)| [(part, *share), (part + 1, *share)]);
            let line: Vec<(f64, f64)> = steps.map(|(part, share)| (low + width * part as f64, share)).collect();
            chart.draw_series(LineSeries::new(line, color.stroke_width(3))).map_err(|e| failed(&e))?;
            let Ok(y) = i32::try_from(40 + 30 * i) else { break };
            legend.draw(&PathElement::new([(0, y), (26, y)], color.stroke_width(4))).map_err(|e| failed(&e))?;
            legend.draw(&Text::new(name.clone(), (36, y - 9), with_font(19.0, ink))).map_err(|e| failed(&e))?;
        }
        Ok(())
    })
}
