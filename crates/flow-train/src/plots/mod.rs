//! Plots as SVG, in the light theme's colours, which a style sheet exchanges where it is dark.

mod corner;
mod diagonal;
mod ranks;

pub(crate) use corner::{MOST_COLUMNS, Sets, svg as corner_svg};
pub(crate) use diagonal::{Place, svg as diagonal_svg};
pub(crate) use ranks::svg as ranks_svg;

use crate::TrainError;
use crate::picture::picture_error;
use std::fmt::Display;
use std::path::Path;

/// A plot that cannot be drawn.
fn failed(reason: &dyn Display) -> TrainError {
    picture_error(Path::new("a plot"), reason)
}

/// A whole number of pixels.
fn pixels(x: f64) -> i32 {
    num_traits::cast(x.round()).unwrap_or(i32::MAX)
}
