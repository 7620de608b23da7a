//! Pictures: images and grids of them, clouds of points, learning curves, and charts.

mod canvas;
mod charts;
mod curves;
mod images;
mod plane;

pub(crate) use canvas::{COLORS, GRID, ink, picture_error, save_chart, standalone, svg, with_font};
pub(crate) use charts::{Point, histogram_svg, scatter_svg};
pub(crate) use curves::{Over, curves_over_svg, curves_svg};
pub use curves::{Theme, save_curves};
pub(crate) use images::{color, grid_png, image_png};
pub use images::{save_grid, save_image};
pub use plane::{PLANE_SIDE, Plane, plane_centres, save_planes, save_points};
