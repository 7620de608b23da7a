//! Learning curves.

use super::canvas::{COLORS, FONT, GRID, IN_MEMORY, exponent, ink, picture_error, save_chart, short_number, standalone, svg};
use crate::Result;
use crate::file::replace_file;
use crate::progress::Report;
use plotters::coord::Shift;
use plotters::prelude::*;
use std::fmt::Display;
use std::path::Path;

/// The colours around learning curves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Theme {
    /// Dark lines on white.
    #[default]
    Light,
    /// Bright lines on near-black.
    Dark,
}

/// How the lines of runs differ besides their colours, so that more runs than there are colours can be told apart:
/// length of dashes and of the gaps between them.
const DASHES: [Option<(u32, u32)>; 3] = [None, Some((14, 7)), Some((4, 5))];

/// Draws learning curves of one or several runs over optimiser steps: training loss, and thick, where there is one,
/// validation loss. `unit` is that of the losses, which have none where they have named terms. Each of these has a
/// panel of its own below, that of the likelihood with the runs whose loss it is. A file that ends in `.svg` follows
/// the reader's light or dark, whatever the theme.
///
/// # Errors
/// [`TrainError::Picture`](crate::TrainError::Picture) where there is nothing to draw, and
/// [`TrainError::Io`](crate::TrainError::Io) where the file cannot be written.
pub fn save_curves(path: &Path, runs: &[(&str, &[Report])], unit: &str, theme: Theme) -> Result<()> {
    if path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("svg")) {
        return replace_file(path, standalone(&curves_svg(runs, unit)?).as_bytes());
    }
    let panels = Panel::of(runs, unit);
    save_chart(path, curves_size(&panels), |root| draw_curves(path, root, runs, &panels, (theme, Over::Steps)))
}

/// Curves of the loss, or of one of its terms.
struct Panel<'a> {
    term: Option<&'a str>,
    unit: &'a str,
}

impl<'a> Panel<'a> {
    fn of(runs: &[(&str, &'a [Report])], unit: &'a str) -> Vec<Self> {
        let mut panels: Vec<Self> = Vec::new();
        for term in runs.iter().flat_map(|(_, reports)| reports.iter().flat_map(|report| &report.terms)) {
            if panels.iter().all(|panel| panel.term != Some(&term.name)) {
                panels.push(Self { term: Some(&term.name), unit: &term.unit });
            }
        }
        panels.insert(0, Self { term: None, unit: if panels.is_empty() { unit } else { "" } });
        panels
    }

    /// What is drawn of a report: over training items, and over validation items.
    fn values(&self, report: &Report) -> [Option<f64>; 2] {
        self.term.map_or([Some(report.train), report.validation], |name| report.term(name).into())
    }
}

/// What curves are drawn over.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Over<'a> {
    /// Optimiser steps.
    Steps,
    /// Seconds in training steps.
    Seconds,
    /// Multiply-adds, of which a step of each run takes so many.
    MultiplyAdds(&'a [f64]),
}

impl Over<'_> {
    fn label(self) -> &'static str {
        match self {
            Self::Steps => "optimiser steps",
            Self::Seconds => "seconds of training",
            Self::MultiplyAdds(_) => "multiply-adds of training",
        }
    }

    fn at(self, run: usize, report: &Report) -> f64 {
        match self {
            Self::Steps => report.step as f64,
            Self::Seconds => report.seconds,
            Self::MultiplyAdds(of_steps) => report.step as f64 * of_steps.get(run).copied().unwrap_or(0.0),
        }
    }

    /// There is no half step.
    fn tick(self, x: f64) -> String {
        match self {
            Self::Steps if (x - x.round()).abs() >= 1e-6 => String::new(),
            Self::Steps => format!("{x:.0}"),
            _ => short_number(x),
        }
    }

    /// How many ticks there are at the most, up to `last`.
    fn ticks(self, last: f64) -> usize {
        match self {
            Self::Steps => num_traits::cast::<f64, usize>(last).map_or(11, |last| last.saturating_add(1).min(11)),
            _ => 8,
        }
    }
}

/// Width and height of learning curves.
fn curves_size(panels: &[Panel<'_>]) -> (u32, u32) {
    const HEIGHT: u32 = 640;
    (1200, u32::try_from(panels.len()).map_or(HEIGHT, |count| count.saturating_mul(HEIGHT)))
}

fn draw_curves<B: DrawingBackend>(
    path: &Path,
    root: &DrawingArea<B, Shift>,
    runs: &[(&str, &[Report])],
    panels: &[Panel<'_>],
    style: (Theme, Over<'_>),
) -> Result<()>
where
    B::ErrorType: 'static,
{
    let areas = root.split_evenly((panels.len(), 1));
    areas.iter().zip(panels).try_for_each(|(area, panel)| draw_panel(path, area, runs, panel, style))
}

fn draw_panel<B: DrawingBackend>(
    path: &Path,
    root: &DrawingArea<B, Shift>,
    runs: &[(&str, &[Report])],
    panel: &Panel<'_>,
    (theme, over): (Theme, Over<'_>),
) -> Result<()>
where
    B::ErrorType: 'static,
{
    let failed = |reason: &dyn Display| picture_error(path, reason);
    let losses = || runs.iter().flat_map(|(_, reports)| reports.iter().flat_map(|r| panel.values(r))).flatten();
    let exponent = exponent(losses());
    let scaled = |loss: f64| loss / 10_f64.powi(exponent);
    let unit = if exponent == 0 { panel.unit.to_owned() } else { format!("10^{exponent} {}", panel.unit) };
    let name = panel.term.unwrap_or("loss");
    let what = if unit.is_empty() { name.to_owned() } else { format!("{name}, {unit}") };
    let mut finite: Vec<f64> = losses().map(scaled).filter(|loss| loss.is_finite()).collect();
    let ends = runs.iter().enumerate().filter_map(|(run, (_, reports))| Some(over.at(run, reports.last()?)));
    let (Some(last), false) = (ends.reduce(f64::max), finite.is_empty()) else { return Err(failed(&"no reports to draw")) };
    finite.sort_by(f64::total_cmp);
    let low = finite[0];
    // The first reports of a run tower over the rest: the upper end is where nine tenths of all reports lie below.
    let high = finite[(finite.len() - 1) * 9 / 10].max(low + 0.05 * low.abs().max(0.1));
    let margin = 0.06 * (high - low);
    let validated = runs.iter().any(|(_, reports)| reports.iter().any(|r| panel.values(r)[1].is_some()));
    let (paper, ink, grid) = match theme {
        Theme::Light => (WHITE, ink(), GRID),
        Theme::Dark => (RGBColor(27, 30, 36), RGBColor(214, 217, 222), RGBColor(54, 59, 68)),
    };

    root.fill(&paper).map_err(|e| failed(&e))?;
    let longest = runs.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0).clamp(6, 40);
    // The legend stands beside the curves: there is no corner that no curve ever comes to.
    let (plot, legend) = root.split_horizontally(1130 - 10 * i32::try_from(longest).unwrap_or(40));
    let (low, high) = (low - margin, high + margin);
    let mut chart = ChartBuilder::on(&plot)
        .margin(20)
        .x_label_area_size(56)
        .y_label_area_size(80)
        .build_cartesian_2d(0.0..if last > 0.0 { last } else { 1.0 }, low..high)
        .map_err(|e| failed(&e))?;
    chart
        .configure_mesh()
        .x_desc(over.label())
        .y_desc(if validated { format!("{what} (thick: validation)") } else { format!("training {what}") })
        .x_labels(over.ticks(last))
        .x_label_formatter(&|x| over.tick(*x))
        .y_label_formatter(&|loss| format!("{loss:.2}"))
        .label_style((FONT, 19).into_font().color(&ink))
        .axis_desc_style((FONT, 21).into_font().color(&ink))
        .axis_style(grid)
        .light_line_style(paper)
        .bold_line_style(grid)
        .draw()
        .map_err(|e| failed(&e))?;
    for (i, (name, reports)) in runs.iter().enumerate() {
        let color = COLORS[i % COLORS.len()];
        let dashes = DASHES[i / COLORS.len() % DASHES.len()];
        let [train, validation] =
            [0, 1].map(|part: usize| within(reports.iter().filter_map(|r| Some((over.at(i, r), scaled(panel.values(r)[part]?)))), high));
        for (curve, width) in [(train, 2), (validation, 4)] {
            let style = color.stroke_width(width);
            if let [point] = curve[..] {
                chart.draw_series([Circle::new(point, 2 + width, color.filled())]).map_err(|e| failed(&e))?;
            } else if let Some((dash, gap)) = dashes {
                chart.draw_series(DashedLineSeries::new(curve, dash, gap, style)).map_err(|e| failed(&e))?;
            } else {
                chart.draw_series(LineSeries::new(curve, style)).map_err(|e| failed(&e))?;
            }
        }
        let Ok(y) = i32::try_from(40 + 30 * i) else { break };
        let line = [(0, y), (26, y)];
        if let Some((dash, gap)) = dashes {
            legend.draw(&plotters::element::DashedPathElement::new(line, dash, gap, color.stroke_width(4))).map_err(|e| failed(&e))?;
        } else {
            legend.draw(&PathElement::new(line, color.stroke_width(4))).map_err(|e| failed(&e))?;
        }
        legend.draw(&Text::new(*name, (36, y - 9), (FONT, 19).into_font().color(&ink))).map_err(|e| failed(&e))?;
    }
    Ok(())
}

/// Learning curves ([`save_curves`]) as SVG in the light theme.
pub(crate) fn curves_svg(runs: &[(&str, &[Report])], unit: &str) -> Result<String> {
    curves_over_svg(runs, unit, Over::Steps)
}

/// The same over something else than steps.
pub(crate) fn curves_over_svg(runs: &[(&str, &[Report])], unit: &str, over: Over<'_>) -> Result<String> {
    let panels = Panel::of(runs, unit);
    svg(curves_size(&panels), |root| draw_curves(Path::new(IN_MEMORY), root, runs, &panels, (Theme::Light, over)))
}

/// The finite points of a curve, as far as they lie below `high`: a curve comes in where it crosses it, and a later
/// excursion stays at the edge.
fn within(points: impl Iterator<Item = (f64, f64)>, high: f64) -> Vec<(f64, f64)> {
    let mut inside: Vec<(f64, f64)> = Vec::new();
    let mut above = None;
    for (x, y) in points.filter(|(_, y)| y.is_finite()) {
        if y > high && inside.is_empty() {
            above = Some((x, y));
            continue;
        }
        if let Some((x0, y0)) = above.take() {
            inside.push((x0 + (x - x0) * (y0 - high) / (y0 - y), high));
        }
        inside.push((x, y.min(high)));
    }
    // A curve that never comes in ends at the edge.
    inside.extend(above.map(|(x, _)| (x, high)));
    inside
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::picture::save_points;
    use image::RgbImage;

    fn report(step: u64, train: f64) -> Report {
        let (seconds, seconds_per_step, gradient_norm, learning_rate) = (1.0, 1.0, 1.0, 1e-3);
        Report {
            step,
            train,
            validation: None,
            seconds,
            seconds_per_step,
            gradient_norm,
            learning_rate,
            terms: Vec::new(),
            bounds_used: Vec::new(),
        }
    }

    fn drawn(runs: &[Vec<Report>]) -> RgbImage {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("curves.png");
        let runs: Vec<_> = runs.iter().map(|reports| ("run", reports.as_slice())).collect();
        save_curves(&path, &runs, "nats", Theme::Light).unwrap();
        image::open(&path).unwrap().to_rgb8()
    }

    /// With an axis as wide as the numbers are, ticks without end were looked for.
    #[test]
    fn curves_of_any_finite_loss_end() {
        for losses in
            [[f64::MAX, 1.0], [f64::MIN, f64::MAX], [-1e300, -1e300], [1e18, 1e18], [1e-300, 0.0], [-0.0, f64::INFINITY], [1e15, -3.0]]
        {
            for steps in [[1, 2], [0, 0], [1, u64::MAX]] {
                let reports = steps.into_iter().zip(losses).map(|(step, loss)| report(step, loss)).collect();
                let picture = drawn(&[reports]);
                let there = picture.pixels().any(|p| p.0 == [COLORS[0].0, COLORS[0].1, COLORS[0].2]);
                assert!(there, "{losses:?} at {steps:?}");
            }
        }
        for half_side in [f64::MIN_POSITIVE, 1e-17, 1e-5, 1e17, 1e300, f64::MAX] {
            let folder = tempfile::tempdir().unwrap();
            save_points(&folder.path().join("points.png"), &[0.0, half_side], half_side).unwrap();
        }
    }

    #[test]
    fn a_dozen_runs_are_told_apart_and_one_report_is_a_point() {
        let picture = drawn(&(0..12).map(|run| [1, 2, 3].map(|step| report(step, f64::from(run))).to_vec()).collect::<Vec<_>>());
        // The legend's line of a run, as wide as the shortest name leaves it.
        let left = 1130 - 60;
        let line = |run: u32| (left..left + 27).map(|x| *picture.get_pixel(x, 40 + 30 * run)).collect::<Vec<_>>();
        let lines: Vec<_> = (0..12).map(line).collect();
        for (i, line) in lines.iter().enumerate() {
            assert!(!lines[..i].contains(line), "run {i} looks like another");
        }

        // Two runs of one report, one far above the other.
        let picture = drawn(&[vec![report(1, 1.0)], vec![report(1, 100.0)]]);
        for color in [COLORS[0], COLORS[1]] {
            let there = picture.enumerate_pixels().any(|(x, _, p)| x < left - 20 && p.0 == [color.0, color.1, color.2]);
            assert!(there, "{color:?}");
        }
    }
}
