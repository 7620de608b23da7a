//! Pictures: grids of images, clouds of points, and learning curves.

use crate::data::ItemShape;
use crate::file::replace_file;
use crate::plots::standalone;
use crate::progress::Report;
use crate::{Result, TrainError};
use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{Rgb, RgbImage};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::FontStyle;
use std::fmt::Display;
use std::path::Path;

/// Draws images (N × channels × height × width, levels below `levels`) as a grid of `columns` with a thin border, small
/// images enlarged by whole factors.
///
/// One channel is grey, three are red, green and blue; of any other number the first is drawn.
///
/// # Errors
/// [`TrainError::Picture`] for vectors, and [`TrainError::Io`] where the file cannot be written.
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

/// Draws points of the plane (N × 2) over the square [−`half_side`, `half_side`]².
///
/// # Errors
/// [`TrainError::Io`] where the file cannot be written.
pub fn save_points(path: &Path, points: &[f64], half_side: f64) -> Result<()> {
    save_chart(path, (420, 420), |root| draw_points(path, root, points, half_side))
}

fn draw_points(path: &Path, root: &Canvas, points: &[f64], half_side: f64) -> Result<()> {
    let failed = |reason: &dyn Display| picture_error(path, reason);
    root.fill(&WHITE).map_err(|e| failed(&e))?;
    let exponent = exponent(std::iter::once(half_side));
    let scaled = |x: f64| x / 10_f64.powi(exponent);
    let half_side = scaled(half_side);
    let range = -half_side..half_side;
    let mut chart = ChartBuilder::on(root)
        .margin(12)
        .x_label_area_size(28)
        .y_label_area_size(40)
        .build_cartesian_2d(range.clone(), range)
        .map_err(|e| failed(&e))?;
    let mesh = &mut chart.configure_mesh();
    if exponent != 0 {
        mesh.x_desc(format!("times 10^{exponent}"));
    }
    mesh.disable_mesh().x_labels(5).y_labels(5).label_style((FONT, 14)).draw().map_err(|e| failed(&e))?;
    let points = points.as_chunks::<2>().0.iter().map(|point| point.map(scaled));
    let inside = points.filter(|p| p.iter().all(|x| x.abs() <= half_side));
    let dots = inside.map(|[x, y]| Circle::new((x, y), 1, RGBColor(31, 87, 164).mix(0.5).filled()));
    chart.draw_series(dots).map(drop).map_err(|e| failed(&e))
}

/// What a panel of [`save_planes`] shows of the square [−`half_side`, `half_side`]².
#[derive(Clone, Copy, Debug)]
pub enum Plane<'a> {
    /// Points (N × 2).
    Points(&'a [f64]),
    /// A density at the centres of the panel's [`PLANE_SIDE`]² pixels, row by row from the top.
    Density(&'a [f64]),
}

/// Pixels along a side of a panel.
pub const PLANE_SIDE: usize = 200;

/// The centres of a panel's pixels as points of the plane (N × 2), row by row from the top.
pub fn plane_centres(half_side: f64) -> Vec<f64> {
    let at = |i: usize| half_side * ((2 * i + 1) as f64 / PLANE_SIDE as f64 - 1.0);
    (0..PLANE_SIDE).flat_map(|row| (0..PLANE_SIDE).flat_map(move |column| [at(column), -at(row)])).collect()
}

/// Draws panels side by side: clouds of points and densities of the plane, on one scale.
///
/// # Errors
/// [`TrainError::Picture`] for a density of another size, and [`TrainError::Io`] where the file cannot be written.
pub fn save_planes(path: &Path, panels: &[Plane<'_>], half_side: f64) -> Result<()> {
    const GAP: usize = 6;
    let failed = |reason: &dyn Display| picture_error(path, reason);
    let size = |pixels: usize| u32::try_from(pixels).map_err(|e| failed(&e));
    let width = (panels.len() * (PLANE_SIDE + GAP)).saturating_sub(GAP);
    let mut picture = RgbImage::from_pixel(size(width)?, size(PLANE_SIDE)?, Rgb([255; 3]));
    for (panel, left) in panels.iter().zip((0..).step_by(PLANE_SIDE + GAP)) {
        let shades = match panel {
            Plane::Points(points) => occupation(points, half_side),
            Plane::Density(density) if density.len() == PLANE_SIDE * PLANE_SIDE => relative(density),
            Plane::Density(density) => return Err(failed(&format!("a density at {} places", density.len()))),
        };
        for (at, shade) in shades.into_iter().enumerate() {
            picture.put_pixel(size(left + at % PLANE_SIDE)?, size(at / PLANE_SIDE)?, heat(shade));
        }
    }
    // Clouds of points are noise to filters.
    save_with(path, &picture, CompressionType::Best, FilterType::NoFilter)
}

/// How many points fall into each pixel, relative to a well filled one.
fn occupation(points: &[f64], half_side: f64) -> Vec<f64> {
    let mut counts = vec![0.0; PLANE_SIDE * PLANE_SIDE];
    let pixel =
        |x: f64| num_traits::cast::<f64, usize>(((x / half_side + 1.0) * 0.5 * PLANE_SIDE as f64).floor()).filter(|i| *i < PLANE_SIDE);
    for &[x, y] in points.as_chunks::<2>().0 {
        if let (Some(column), Some(row)) = (pixel(x), pixel(-y)) {
            counts[row * PLANE_SIDE + column] += 1.0;
        }
    }
    relative(&counts)
}

/// Relative to the value that one in two hundred filled pixels exceeds: a few high ones must not darken the rest.
fn relative(values: &[f64]) -> Vec<f64> {
    let mut filled: Vec<f64> = values.iter().copied().filter(|v| *v > 0.0).collect();
    filled.sort_by(f64::total_cmp);
    let full = filled.get(filled.len() * 199 / 200).or(filled.last()).copied().unwrap_or(1.0);
    values.iter().map(|v| if v.is_finite() { (v / full).clamp(0.0, 1.0) } else { 0.0 }).collect()
}

/// From white over blue to near-black, in sixteen shades: finer ones are not seen and make the file twice as large.
fn heat(shade: f64) -> Rgb<u8> {
    const STOPS: [[f64; 3]; 4] = [[255.0, 255.0, 255.0], [140.0, 180.0, 230.0], [40.0, 90.0, 175.0], [12.0, 22.0, 60.0]];
    let place = (shade.sqrt() * 15.0).round() / 5.0;
    let stop = num_traits::cast::<f64, usize>(place).unwrap_or(0).min(2);
    let t = place - stop as f64;
    Rgb([0, 1, 2].map(|c| num_traits::cast::<f64, u8>(STOPS[stop][c] * (1.0 - t) + STOPS[stop + 1][c] * t).unwrap_or(u8::MAX)))
}

/// The colours around learning curves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Theme {
    /// Dark lines on white.
    #[default]
    Light,
    /// Bright lines on near-black.
    Dark,
}

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

/// How the lines of runs differ besides their colours, so that more runs than there are colours can be told apart:
/// length of dashes and of the gaps between them.
const DASHES: [Option<(u32, u32)>; 3] = [None, Some((14, 7)), Some((4, 5))];

/// Draws learning curves of one or several runs over optimiser steps: training loss, and thick, where there is one,
/// validation loss. `unit` is that of the losses, which have none where they have named terms. Each of these has a
/// panel of its own below, that of the likelihood with the runs whose loss it is. A file that ends in `.svg` follows
/// the reader's light or dark, whatever the theme.
///
/// # Errors
/// [`TrainError::Picture`] where there is nothing to draw, and [`TrainError::Io`] where the file cannot be written.
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

/// A number of few digits.
fn short_number(x: f64) -> String {
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
        Theme::Light => (WHITE, ink(), RGBColor(228, 230, 234)),
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
fn save(path: &Path, picture: &RgbImage) -> Result<()> {
    save_with(path, picture, CompressionType::default(), FilterType::default())
}

fn save_with(path: &Path, picture: &RgbImage, compression: CompressionType, filter: FilterType) -> Result<()> {
    replace_file(path, &encode(path, picture, compression, filter)?)
}

fn encode(path: &Path, picture: &RgbImage, compression: CompressionType, filter: FilterType) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let encoder = PngEncoder::new_with_quality(&mut bytes, compression, filter);
    picture.write_with_encoder(encoder).map_err(|e| picture_error(path, &e))?;
    Ok(bytes)
}

/// What stands in messages about pictures that are no files.
const IN_MEMORY: &str = "a picture in memory";

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

/// Learning curves ([`save_curves`]) as SVG in the light theme.
pub(crate) fn curves_svg(runs: &[(&str, &[Report])], unit: &str) -> Result<String> {
    curves_over_svg(runs, unit, Over::Steps)
}

/// The same over something else than steps.
pub(crate) fn curves_over_svg(runs: &[(&str, &[Report])], unit: &str, over: Over<'_>) -> Result<String> {
    let panels = Panel::of(runs, unit);
    svg(curves_size(&panels), |root| draw_curves(Path::new(IN_MEMORY), root, runs, &panels, (Theme::Light, over)))
}

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
        let (ink, grid) = (ink(), RGBColor(228, 230, 234));
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
        let (ink, grid) = (ink(), RGBColor(228, 230, 234));
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

/// The power of ten that numbers are divided by to be drawn: that of the largest where it has more digits than a label
/// has room for. It also keeps differences within the range of numbers.
fn exponent(numbers: impl Iterator<Item = f64>) -> i32 {
    const DIGITS: i32 = 6;
    let largest = numbers.filter(|x| x.is_finite()).fold(0.0_f64, |largest, x| largest.max(x.abs()));
    num_traits::cast::<f64, i32>(largest.log10().floor()).filter(|exponent| *exponent >= DIGITS).unwrap_or(0)
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

const FONT: &str = "sans-serif";

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

#[cfg(test)]
mod tests {
    use super::*;

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
