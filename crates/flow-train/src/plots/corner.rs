//! A corner plot: every column of two sets by itself, and every pair of columns.

use super::{failed, pixels};
use crate::Result;
use crate::picture::{COLORS, GRID, ink, svg as draw_svg, with_font};
use plotters::prelude::*;
use std::fmt::Write as _;

/// The most columns of one plot: with more of them nothing is seen in any.
pub(crate) const MOST_COLUMNS: usize = 8;
/// Width of the plot.
const WIDTH: f64 = 1200.0;
/// Room for the labels of the first column, and below the last row.
const LEFT: f64 = 84.0;
const BELOW: f64 = 64.0;
/// Parts that a column's range is divided into.
const PARTS: usize = 30;

/// Two sets of rows to be drawn over each other, each with its name.
#[derive(Clone, Copy)]
pub(crate) struct Sets<'a> {
    /// Names of the columns.
    pub(crate) columns: &'a [String],
    /// (rows, columns), in the order in which they are drawn.
    pub(crate) sets: [(&'a str, &'a [f64]); 2],
}

/// A column's range, and how its ticks are told.
struct Axis {
    name: String,
    /// What is taken off all numbers so that they fit a label, and what they are divided by.
    offset: f64,
    unit: f64,
    low: f64,
    high: f64,
}

impl Axis {
    /// The range of most values: half a per cent is left out at either end.
    fn of(name: &str, values: impl Iterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = values.filter(|x| x.is_finite()).collect();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len().saturating_sub(1);
        let at = |index: usize| sorted.get(index).copied().unwrap_or(0.0);
        let (low, high) = (at(last / 200), at(last - last / 200));
        let (low, high) = if high > low { (low, high) } else { (low - 0.5 * low.abs().max(1.0), high + 0.5 * high.abs().max(1.0)) };
        let margin = 0.04 * (high - low);
        let power = |x: f64| 10_f64.powf(x.abs().log10().floor());
        // A time stamp is told by its distance from a round one nearby.
        let centre = 0.5 * (low + high);
        let step = 10.0 * power(high - low);
        let offset = if centre.abs() > 100.0 * (high - low) { (centre / step).round() * step } else { 0.0 };
        let largest = (low - offset).abs().max((high - offset).abs());
        let unit = if (1e-2..1e5).contains(&largest) { 1.0 } else { power(largest) };
        let mut name = if name.chars().count() > 24 { name.chars().take(23).chain(['…']).collect() } else { name.to_owned() };
        if offset != 0.0 {
            let sign = if offset > 0.0 { '−' } else { '+' };
            let _ = write!(name, " {sign} {}", offset.abs());
        }
        if unit.to_bits() != 1_f64.to_bits() {
            let _ = write!(name, ", {unit:e}");
        }
        Self { name, offset, unit, low: (low - margin - offset) / unit, high: (high + margin - offset) / unit }
    }

    fn place(&self, x: f64) -> f64 {
        (x - self.offset) / self.unit
    }

    fn label(&self, x: f64) -> String {
        let digits = num_traits::cast::<f64, usize>((1.0 - (self.high - self.low).log10().floor()).max(0.0)).unwrap_or(0);
        let text = format!("{x:.digits$}");
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
    }

    fn range(&self) -> std::ops::Range<f64> {
        self.low..self.high
    }
}

/// The plot of these columns.
pub(crate) fn svg(sets: &Sets<'_>, shown: &[usize]) -> Result<String> {
    let width = sets.columns.len().max(1);
    let column = |set: usize, at: usize| sets.sets[set].1.iter().skip(at).step_by(width).copied();
    let axes: Vec<Axis> = shown.iter().map(|&at| Axis::of(&sets.columns[at], column(0, at).chain(column(1, at)))).collect();
    let count = axes.len();
    if count == 0 || sets.sets.iter().any(|(_, values)| values.is_empty()) {
        return Err(failed(&"no columns to draw"));
    }
    let cell = ((WIDTH - LEFT - 16.0) / count as f64).min(420.0);
    let height = cell * count as f64 + BELOW + 8.0;
    let mut dots = [String::new(), String::new()];
    let mut text = draw_svg((1200, num_traits::cast(height).unwrap_or(1200)), |root| {
        root.fill(&WHITE).map_err(|e| failed(&e))?;
        for (i, down) in axes.iter().enumerate() {
            for (j, across) in axes[..=i].iter().enumerate() {
                let (is_first, is_last) = (j == 0, i + 1 == count);
                let left = if is_first { 0.0 } else { LEFT + cell * j as f64 };
                let size = (cell + if is_first { LEFT } else { 0.0 }, cell + if is_last { BELOW } else { 0.0 });
                let corner = (pixels(left), pixels(8.0 + cell * i as f64));
                let area = root.clone().shrink(corner, (pixels(size.0), pixels(size.1)));
                let mut builder = ChartBuilder::on(&area);
                builder.margin_top(5).margin_right(10);
                builder.x_label_area_size(pixels(if is_last { BELOW } else { 5.0 })).y_label_area_size(pixels(if is_first {
                    LEFT
                } else {
                    5.0
                }));
                let pair = [across, down];
                if i == j {
                    let lines = [0, 1].map(|set| shares(column(set, shown[i]).map(|x| across.place(x)), across));
                    let top = 1.08 * lines.iter().flatten().map(|(_, y)| *y).fold(1e-9, f64::max);
                    let mut chart = builder.build_cartesian_2d(across.range(), 0.0..top).map_err(|e| failed(&e))?;
                    mesh(&mut chart, pair, (is_last, false))?;
                    for (line, color) in lines.into_iter().zip([COLORS[1], COLORS[0]]) {
                        chart.draw_series(LineSeries::new(line, color.stroke_width(2))).map_err(|e| failed(&e))?;
                    }
                } else {
                    let mut chart = builder.build_cartesian_2d(across.range(), down.range()).map_err(|e| failed(&e))?;
                    mesh(&mut chart, pair, (is_last, is_first))?;
                    let (x, y) = chart.plotting_area().get_pixel_range();
                    for (set, dots) in dots.iter_mut().enumerate() {
                        let points = column(set, shown[j]).zip(column(set, shown[i]));
                        scatter(dots, points.map(|(a, b)| (across.place(a), down.place(b))), pair, [x.clone(), y.clone()], count);
                    }
                }
            }
        }
        let (x, y) = (pixels(if count > 1 { LEFT + cell + 40.0 } else { WIDTH - 320.0 }), 30);
        for ((name, _), (at, color)) in sets.sets.iter().zip([(0, COLORS[1]), (1, COLORS[0])]) {
            let y = y + 30 * at;
            root.draw(&PathElement::new([(x, y), (x + 26, y)], color.stroke_width(4))).map_err(|e| failed(&e))?;
            root.draw(&Text::new((*name).to_owned(), (x + 36, y - 9), with_font(19.0, ink()))).map_err(|e| failed(&e))?;
        }
        Ok(())
    })?;
    // A dot is a stroke of no length with round ends: some bytes each, where thousands of circles make a slow page.
    if let Some(end) = text.rfind("</svg>") {
        let paths = dots.iter().zip([COLORS[1], COLORS[0]]).filter(|(dots, _)| !dots.is_empty());
        let paths = paths.map(|(dots, RGBColor(r, g, b))| {
            format!(
                "<path d=\"{dots}\" fill=\"none\" stroke=\"#{r:02X}{g:02X}{b:02X}\" stroke-width=\"3\" stroke-linecap=\"round\" stroke-opacity=\"0.5\"/>\n"
            )
        });
        text.insert_str(end, &paths.collect::<String>());
    }
    Ok(text)
}

/// The share of numbers in each part of the axis, as the line around a histogram.
fn shares(places: impl Iterator<Item = f64>, axis: &Axis) -> Vec<(f64, f64)> {
    let part_width = (axis.high - axis.low) / PARTS as f64;
    let (mut counts, mut all) = (vec![0.0; PARTS], 0.0);
    for place in places.filter(|place| place.is_finite()) {
        all += 1.0;
        let part = num_traits::cast::<f64, usize>(((place - axis.low) / part_width).floor());
        if let Some(count) = part.and_then(|part| counts.get_mut(part)) {
            *count += 1.0;
        }
    }
    let steps = counts.iter().enumerate().flat_map(|(part, count)| [(part, *count), (part + 1, *count)]);
    steps.map(|(part, count)| (axis.low + part_width * part as f64, count / f64::max(all, 1.0))).collect()
}

/// Axes with the labels that this cell has: below, and to the left.
fn mesh<B: DrawingBackend>(
    chart: &mut ChartContext<'_, B, Cartesian2d<plotters::coord::types::RangedCoordf64, plotters::coord::types::RangedCoordf64>>,
    [across, down]: [&Axis; 2],
    (is_last, is_first): (bool, bool),
) -> Result<()>
where
    B::ErrorType: 'static,
{
    let (x_label, y_label) = (|x: &f64| across.label(*x), |y: &f64| down.label(*y));
    let mut mesh = chart.configure_mesh();
    mesh.disable_mesh().axis_style(GRID).x_labels(if is_last { 4 } else { 0 }).y_labels(if is_first { 4 } else { 0 });
    mesh.x_label_formatter(&x_label).y_label_formatter(&y_label);
    mesh.label_style(with_font(16.0, ink())).axis_desc_style(with_font(18.0, ink()));
    if is_last {
        mesh.x_desc(across.name.clone());
    }
    if is_first {
        mesh.y_desc(down.name.clone());
    }
    mesh.draw().map_err(|e| failed(&e))
}

/// Adds dots within both axes to a path.
fn scatter(
    path: &mut String,
    points: impl Iterator<Item = (f64, f64)>,
    [across, down]: [&Axis; 2],
    [x, y]: [std::ops::Range<i32>; 2],
    columns: usize,
) {
    /// Dots of a set in all cells.
    const DOTS: usize = 12_000;
    let most = (DOTS / (columns * (columns - 1) / 2).max(1)).min(1000);
    let share = |axis: &Axis, place: f64| (place - axis.low) / (axis.high - axis.low);
    let inside =
        points.map(|(a, b)| (share(across, a), share(down, b))).filter(|(a, b)| (0.0..=1.0).contains(a) && (0.0..=1.0).contains(b));
    for (a, b) in inside.take(most) {
        let (px, py) = (f64::from(x.start) + a * f64::from(x.end - x.start), f64::from(y.end) - b * f64::from(y.end - y.start));
        let _ = write!(path, "M{px:.0} {py:.0}h0");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_tell_numbers_that_fit_a_label() {
        for (low, high, name, ends) in [
            (0.0, 1.0, "x", ["0", "1"]),
            (1.7e9 - 2000.0, 1.7e9 + 2000.0, "x − 1700000000", ["-2000", "2000"]),
            (-3e7, 3e7, "x, 1e7", ["-3", "3"]),
            (1e-5, 3e-5, "x, 1e-5", ["1", "3"]),
            (-270.0, -268.5, "x + 270", ["0", "1.5"]),
        ] {
            let axis = Axis::of("x", [low, high, f64::NAN].into_iter());
            assert_eq!(axis.name, name);
            assert_eq!([low, high].map(|x| axis.label(axis.place(x))), ends, "{name}");
        }
        let constant = Axis::of("x", [5.0; 4].into_iter());
        assert!(constant.low < 5.0 && constant.high > 5.0);
    }

    #[test]
    fn pairs_and_columns_are_drawn_within_the_plot() {
        let names = ["a".to_owned(), "b & c".to_owned(), "d".to_owned()];
        let wave = |shift: f64| (0..600).map(|i| (f64::from(i) * 1.7 + shift).sin()).collect::<Vec<f64>>();
        let (rows, samples) = (wave(0.0), wave(0.5));
        let sets = Sets { columns: &names, sets: [("rows", &rows), ("samples", &samples)] };
        let text = svg(&sets, &[0, 1, 2]).unwrap();
        assert!(text.contains("b &amp; c") && text.contains("\nsamples\n") && text.trim_end().ends_with("</svg>"), "{text:.300}");
        // Three pairs of two hundred rows in each of the two paths.
        let paths: Vec<&str> = text.split("<path d=\"").skip(1).collect();
        assert_eq!(paths.iter().map(|path| path.matches("h0").count() / 590).collect::<Vec<_>>(), [1, 1]);
        let width: f64 = text.split("width=\"").nth(1).unwrap().split('"').next().unwrap().parse().unwrap();
        let xs = paths[0].split('M').skip(1).map(|dot| dot.split(' ').next().unwrap().parse::<f64>().unwrap());
        assert!(xs.clone().all(|x| x > LEFT && x < width) && xs.fold(0.0, f64::max) > 700.0);
        assert!(svg(&sets, &[]).is_err());
        // One column alone is its histogram.
        assert!(svg(&sets, &[1]).unwrap().contains("<polyline"));
    }
}
