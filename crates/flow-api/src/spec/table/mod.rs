//! Tables: of any cells as aligned text, and of a model's layers.

mod folded;
mod text;

pub use text::Table;

use crate::bijector::LayerInfo;
use folded::fold;
use std::fmt;

/// Layers as a table: each with its path, its kind, the shapes of a sample that goes in and comes out, how it computes
/// log-dets and inverses, its parameters and multiply-adds. What comes again and again stands once.
#[derive(Clone, Copy, Debug)]
pub struct LayerTable<'a>(pub &'a [LayerInfo]);

impl fmt::Display for LayerTable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let heads = ["layer", "kind", "in → out", "log-det", "inverse", "parameters", "multiply-adds"].map(str::to_owned);
        let rows = fold(self.0.iter().map(cells).collect());
        Table { heads: &heads, rows: &rows, words: 5 }.fmt(f)
    }
}

fn shape(sizes: &[usize]) -> String {
    sizes.iter().map(usize::to_string).collect::<Vec<_>>().join("×")
}

fn cells(layer: &LayerInfo) -> Vec<String> {
    vec![
        layer.path.clone(),
        layer.kind.clone(),
        format!("{} → {}", shape(&layer.input), shape(&layer.output)),
        layer.log_det.to_string(),
        layer.inverse.to_string(),
        layer.parameters.to_string(),
        layer.multiply_adds.to_string(),
    ]
}
