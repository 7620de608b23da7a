//! Clouds of points and densities of the plane.

use super::canvas::{Canvas, FONT, exponent, picture_error, save_chart, save_with};
use crate::Result;
use image::codecs::png::{CompressionType, FilterType};
use image::{Rgb, RgbImage};
use plotters::prelude::*;
use std::fmt::Display;
use std::path::Path;

/// Draws points of the plane (N × 2) over the square [−`half_side`, `half_side`]².
///
/// # Errors
/// [`TrainError::Io`](crate::TrainError::Io) where the file cannot be written.
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
/// [`TrainError::Picture`](crate::TrainError::Picture) for a density of another size, and
/// [`TrainError::Io`](crate::TrainError::Io) where the file cannot be written.
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
