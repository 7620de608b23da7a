//! Plots as SVG, in the light theme's colours, which a style sheet exchanges where it is dark.

mod corner;
mod diagonal;
mod ranks;

pub(crate) use corner::{MOST_COLUMNS, Sets, svg as corner_svg};
pub(crate) use diagonal::{Place, svg as diagonal_svg};
pub(crate) use ranks::svg as ranks_svg;

use crate::TrainError;
use crate::picture::picture_error;
use plotters::style::RGBColor;
use std::fmt::Display;
use std::path::Path;

/// Lines behind the data.
pub(crate) const GRID: RGBColor = RGBColor(228, 230, 234);

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

/// A plot that cannot be drawn.
fn failed(reason: &dyn Display) -> TrainError {
    picture_error(Path::new("a plot"), reason)
}

/// A whole number of pixels.
fn pixels(x: f64) -> i32 {
    num_traits::cast(x.round()).unwrap_or(i32::MAX)
}
