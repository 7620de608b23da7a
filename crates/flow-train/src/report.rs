//! A report of a run: one self-contained page.

use crate::classify::Classification;
use crate::data::{Dataset, Draw, ItemShape, Values};
use crate::diagnostics::Diagnostics;
use crate::events::Events;
use crate::file::replace_file;
use crate::page::{Page, Table, png_address};
use crate::progress::Report as Losses;
use crate::samples::{GRID, shades};
use crate::scores::Judged;
use crate::{Baseline, Evaluation, Result, drawn_conditions, picture, sample_given};
use flow_api::spec::{Model, SpecScalar};
use std::path::Path;

/// A report in the making: a section a call, in the order of the calls.
///
/// ```
/// use flow_train::report::Report;
/// # let folder = tempfile::tempdir()?;
/// let mut report = Report::new("rings", "512 points of the plane");
/// report.note("trained for a moment");
/// report.write(&folder.path().join("report.html"))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Report(Page);

/// A set of items with its scores.
#[derive(Clone, Copy, Debug)]
pub struct Set<'a> {
    /// What it is called.
    pub name: &'a str,
    /// Its items.
    pub items: &'a dyn Dataset,
    /// Their scores.
    pub judged: &'a Judged,
}

impl Report {
    /// Begins a report on a run.
    pub fn new(run: &str, lead: &str) -> Self {
        Self(Page::new("The run", run, lead))
    }

    /// What must not be overlooked.
    pub fn note(&mut self, text: &str) {
        self.0.note(text);
    }

    /// What the model is: facts by name, and texts that open on demand.
    pub fn model(&mut self, facts: &[(&str, String)], texts: &[(&str, String)]) {
        self.0.heading("The model");
        let rows: Vec<Vec<String>> = facts.iter().map(|(name, value)| vec![(*name).to_owned(), value.clone()]).collect();
        self.0.table(&Table { heads: &["what", "is"].map(str::to_owned), rows: &rows, words: 2, best: None });
        texts.iter().for_each(|(name, text)| self.0.details(name, text));
    }

    /// Learning curves.
    ///
    /// # Errors
    /// What the plotting library cannot draw.
    pub fn curves(&mut self, run: &str, history: &[Losses], unit: &str) -> Result<()> {
        if !history.iter().any(|report| report.train.is_finite()) {
            return Ok(());
        }
        self.0.heading("Learning curves");
        self.0.plot(&picture::curves_svg(&[(run, history)], unit)?, "Loss over optimiser steps");
        Ok(())
    }

    /// Losses of parts of the data, and what simple densities reach.
    pub fn losses(&mut self, parts: &[(String, Evaluation)], baselines: &[Baseline]) {
        self.0.heading("Losses");
        let unit = parts.first().map_or("loss", |(_, found)| found.unit.as_str());
        let heads = ["of", "items", unit, "not finite"].map(str::to_owned);
        let of_part = |(name, found): &(String, Evaluation)| {
            vec![name.clone(), found.items.to_string(), found.loss_text(4), format!("{:.2} %", 100.0 * found.non_finite)]
        };
        let of_baseline = |baseline: &Baseline| {
            vec![format!("baseline: {}", baseline.name), String::new(), format!("{:.4}", baseline.loss), String::new()]
        };
        let rows: Vec<Vec<String>> = parts.iter().map(of_part).chain(baselines.iter().map(of_baseline)).collect();
        self.0.table(&Table { heads: &heads, rows: &rows, words: 1, best: None });
        self.0.legend(
            "A lower loss is better; ± is its standard error over items. Baselines are densities without training, on the test items.",
        );
        for (name, found) in parts {
            if let Some(inverse) = &found.inverse {
                self.0.legend(&match &inverse.failure {
                    Some(failure) => format!("The inverse failed on {name} items: {failure}"),
                    None => format!("Items of {name} come back through the inverse to {:.1e} at most.", inverse.error),
                });
            }
            found.failure.iter().for_each(|failure| self.0.note(&format!("{name}: a layer failed on {failure}")));
        }
    }

    /// Whether class probabilities of some items are what they say; `by` is what gives them.
    ///
    /// # Errors
    /// What the plotting library cannot draw.
    pub fn calibration(&mut self, by: &str, items: &str, found: &Classification) -> Result<()> {
        self.0.heading("Calibration");
        self.0.legend(&format!(
            "{by}: right on {:.4} ± {:.4} of {} labelled {items} items, where the commonest class has {:.4}; a cross-entropy of {:.4} ± {:.4} \
             bits and an expected calibration error of {:.4} ± {:.4}.",
            found.accuracy,
            found.accuracy_error,
            found.items,
            found.chance,
            found.cross_entropy_bits,
            found.cross_entropy_bits_error,
            found.calibration.error,
            found.calibration.standard_error,
        ));
        self.0.small_plot(&found.calibration.svg()?, "Accuracy over confidence");
        self.0.legend(
            "Accuracy of the items within each bin of confidence, the larger the more items; on the dashed line probabilities are what they \
             say, and bars are two standard errors of chance. Above it the model is too modest, below too sure.",
        );
        Ok(())
    }

    /// Rows of a table beside samples: how uniform ranks are, coverage, and a corner plot. `part` is what the rows are.
    ///
    /// # Errors
    /// What the plotting library cannot draw.
    pub fn diagnostics(&mut self, part: &str, found: &Diagnostics) -> Result<()> {
        const HISTOGRAMS: usize = 15;
        self.0.plot(&found.ranks_svg(HISTOGRAMS)?, "Histograms of ranks of rows among samples");
        self.0.legend(&format!(
            "Ranks of {} {part} rows among {} samples given the same, by column (PIT) and by density: flat where the model is right, within the \
             dashed lines nine times of ten; higher at both ends where it is too narrow, on the right where its numbers are too small{}.",
            found.rows,
            found.samples,
            if found.columns.len() > HISTOGRAMS { format!("; the {HISTOGRAMS} least uniform of {} columns", found.columns.len()) } else { String::new() },
        ));
        self.0.small_plot(&found.coverage_svg()?, "Coverage of highest-density regions");
        self.0.legend("Rows within the densest region that holds a share of the samples: below the dashed line the model is too sure.");
        self.0.plot(&found.corner_svg()?, "Columns of rows and samples, and pairs of columns");
        self.0.legend("A row and its sample are each a dot; of every column the outermost half per cent is left out at either end.");
        Ok(())
    }

    /// Samples beside items of the data, and the training items that are nearest to them.
    ///
    /// # Errors
    /// Data that cannot be read. Samples that cannot be drawn are a note.
    pub fn samples<E: SpecScalar>(&mut self, model: &Model<E>, events: &Events, train: &dyn Dataset, seed: u64) -> Result<()> {
        /// Training items among which the nearest are looked for.
        const LOOKED_AT: usize = 4096;
        const SHOWN: usize = 16;
        let shape = events.kind().item();
        if !matches!(shape, ItemShape::Image { .. }) {
            return Ok(());
        }
        let given = drawn_conditions(model, events.record(), GRID, seed);
        let samples = given.and_then(|given| sample_given(model, &given, GRID, 1.0, seed));
        let drawn = match samples.and_then(|samples| shades(&samples, events)) {
            Ok((drawn, levels)) => (drawn, levels),
            Err(error) => {
                self.0.note(&format!("No samples can be drawn: {error}"));
                return Ok(());
            }
        };
        let looked_at = looked_at(train, LOOKED_AT);
        let levels = |draws: &[Draw]| -> Result<Vec<u8>> {
            let batch = train.batch(draws)?;
            Ok(match (batch.values, events.dequantiser()) {
                (Values::Levels(levels), Some(dequantiser)) => levels.into_iter().map(|level| dequantiser.modelled(level)).collect(),
                (Values::Levels(levels), None) => levels,
                (Values::Real(values), _) => shades(&values, events)?.0,
            })
        };
        let items = levels(&looked_at)?;
        let dims = shape.dims().max(1);
        self.0.heading("Samples");
        let grid = |values: &[u8]| Ok::<_, crate::TrainError>(png_address(&picture::grid_png(values, shape, drawn.1, 8)?));
        let first = &items[..items.len().min(GRID * dims)];
        self.0.pictures("grids", [("the data: training items", grid(first)?), ("samples", grid(&drawn.0)?)]);
        // Each sample, and below it the item that is nearest to it.
        let distance = |a: &[u8], b: &[u8]| a.iter().zip(b).map(|(a, b)| u64::from(a.abs_diff(*b)).pow(2)).sum::<u64>();
        let mut pairs = Vec::new();
        let shown: Vec<&[u8]> = drawn.0.chunks_exact(dims).take(SHOWN).collect();
        let nearest = shown.iter().filter_map(|sample| items.chunks_exact(dims).min_by_key(|item| distance(sample, item)));
        shown.iter().for_each(|sample| pairs.extend_from_slice(sample));
        nearest.for_each(|item| pairs.extend_from_slice(item));
        let png = picture::grid_png(&pairs, shape, drawn.1, SHOWN)?;
        let caption = format!("samples, and below each the nearest of {} training items by squared differences", looked_at.len());
        self.0.pictures("grids", [(caption.as_str(), png_address(&png))]);
        Ok(())
    }

    /// Histograms of the losses of sets, and of how unusual their items are where they are compared with others.
    ///
    /// # Errors
    /// What the plotting library cannot draw.
    pub fn histograms(&mut self, sets: &[Set<'_>], events: &Events) -> Result<()> {
        let unit_of_nats = events.report(0.0) - events.report(1.0);
        self.0.heading("Scores");
        for (column, axis, factor) in [("log_likelihood", events.unit(), -unit_of_nats), ("unusual", "unusual", 1.0)] {
            let values =
                |set: &Set<'_>| Some((set.name.to_owned(), set.judged.column(column)?.iter().map(|x| factor * x).collect::<Vec<f64>>()));
            let values: Vec<(String, Vec<f64>)> = sets.iter().filter_map(values).collect();
            if values.iter().any(|(_, values)| values.iter().any(|x| x.is_finite())) {
                self.0.plot(&picture::histogram_svg(&values, axis)?, &format!("Shares of items by {axis}"));
            }
        }
        self.0.legend("Shares of the items of each set; those beyond the ends are counted at the ends.");
        Ok(())
    }

    /// A table of figures, the first `words` columns of which hold words, below a heading, if it has one.
    pub fn table(&mut self, heading: &str, heads: &[String], rows: &[Vec<String>], words: usize) {
        if !heading.is_empty() {
            self.0.heading(heading);
        }
        self.0.table(&Table { heads, rows, words, best: None });
    }

    /// The most and the least unusual items of a set.
    ///
    /// # Errors
    /// Data that cannot be read.
    pub fn sheet(&mut self, set: &Set<'_>, events: &Events, top: usize) -> Result<()> {
        let by = if set.judged.unusual.is_empty() { "log_likelihood" } else { "unusual" };
        let Some(values) = set.judged.column(by) else { return Ok(()) };
        let shape = set.items.shape();
        if !matches!(shape, ItemShape::Image { .. }) {
            return Ok(());
        }
        let sign = if by == "unusual" { -1.0 } else { 1.0 };
        let mut order: Vec<usize> = (0..values.len()).collect();
        order.sort_by(|&a, &b| (sign * values[a]).total_cmp(&(sign * values[b])));
        let most: Vec<usize> = order.iter().copied().take(top).collect();
        let least: Vec<usize> = order.iter().rev().copied().take(top).collect();
        for (heading, chosen) in [("The most unusual", most), ("The least unusual", least)] {
            self.0.heading(&format!("{heading} of {}", set.name));
            let draws: Vec<Draw> = chosen.iter().map(|&at| Draw { epoch: 0, index: set.judged.items[at] }).collect();
            let (pixels, levels) = match set.items.batch(&draws)?.values {
                Values::Levels(pixels) => (pixels, events.kind().levels.unwrap_or(256)),
                Values::Real(real) => shades(&real, events)?,
            };
            let mut pictures = Vec::new();
            for (pixels, &at) in pixels.chunks_exact(shape.dims().max(1)).zip(&chosen) {
                let address = png_address(&picture::image_png(pixels, shape, levels)?);
                pictures.push((format!("{:.4}\nrow {}", values[at], set.items.row(set.judged.items[at])), address));
            }
            self.0.pictures("sheet", pictures.iter().map(|(caption, address)| (caption.as_str(), address.clone())));
        }
        Ok(())
    }

    /// Writes the page.
    ///
    /// # Errors
    /// [`TrainError::Io`](crate::TrainError::Io).
    pub fn write(self, path: &Path) -> Result<()> {
        replace_file(path, self.0.finish().as_bytes())
    }
}

/// At most so many items, spread over the set.
fn looked_at(data: &dyn Dataset, most: usize) -> Vec<Draw> {
    let every = data.len().div_ceil(most).max(1);
    (0..data.len()).step_by(every).filter(|&index| !data.is_gone(index)).map(|index| Draw { epoch: 0, index }).collect()
}
