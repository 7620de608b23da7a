//! The page that shows a comparison; its pictures stand beside it.

use super::{Page, Table};
use crate::compare::{Comparison, LOSS, WORDS};

/// The whole page. `curves` is the plot of learning curves, if there are any.
pub(crate) fn html(comparison: &Comparison, curves: Option<&str>) -> String {
    let settings = &comparison.settings;
    let lead = format!(
        "Each trained for {} steps of {} items with seed {}. A lower test loss is better; ± is its standard error over {} test items.",
        settings.steps,
        settings.batch,
        settings.seed,
        comparison.rows.first().map_or(0, |row| row.test.items),
    );
    let mut page = Page::new("Flows compared on", &comparison.data, &lead);
    let (heads, rows) = comparison.table();
    let losses = comparison.rows.iter().map(|row| row.test.loss).enumerate().filter(|(_, loss)| !loss.is_nan());
    let best = losses.min_by(|a, b| a.1.total_cmp(&b.1)).map(|(row, _)| (row, LOSS));
    page.table(&Table { heads: &heads, rows: &rows, words: WORDS, best });
    let mut legend =
        "s/step: seconds a training step. scored/s, sampled/s: items a second. inverse error: largest |f⁻¹(f(x)) − x|.".to_owned();
    if heads.iter().any(|head| head == "accuracy") {
        legend.push_str(" accuracy: of the classifier on test items, ± its standard error.");
    }
    if heads.last().is_some_and(|head| head == "evaluations") {
        legend.push_str(" evaluations: of the networks of iterative flows in one pass, forward / inverse.");
    }
    page.legend(&legend);
    comparison.notes().iter().for_each(|note| page.note(note));
    if let Some(svg) = curves {
        page.heading("Learning curves");
        page.plot(svg, "Loss over optimiser steps");
    }
    let samples = comparison.rows.iter().filter_map(|row| Some((row.spec.as_str(), row.samples.clone()?)));
    let items = comparison.items.clone().map(|file| ("the data: test items", file));
    let pictures: Vec<(&str, String)> = items.into_iter().chain(samples).collect();
    if pictures.len() > 1 {
        page.heading("Samples");
        page.pictures("grids", pictures);
    }
    page.heading("Specs");
    comparison.rows.iter().for_each(|row| page.details(&row.spec, &row.text));
    page.finish()
}
