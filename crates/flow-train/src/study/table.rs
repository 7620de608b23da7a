//! The tables of a study.

use super::line::Line;
use super::{Published, Results};
use crate::classify::{Classification, Probe};
use crate::evaluate::DASH;
use crate::{Baseline, text};

const MIB: f64 = 1024.0 * 1024.0;

/// A column of the table: its head, and its cell of a line if that has one.
struct Column {
    head: String,
    is_words: bool,
    cell: Box<dyn Fn(&Line<'_>) -> Option<String>>,
}

/// A table that is ready to be shown.
#[derive(Debug, Default)]
pub(crate) struct Shown {
    pub(crate) heads: Vec<String>,
    pub(crate) rows: Vec<Vec<String>>,
    /// Columns of words.
    pub(crate) words: usize,
    /// The best row, and the column that it is best in.
    pub(crate) best: Option<(usize, usize)>,
}

impl Shown {
    /// The same with the rows ranked by the column that one is best in, baselines among them; rows without a number
    /// come last.
    pub(crate) fn ranked(mut self) -> Self {
        let Some((best, column)) = self.best else { return self };
        let number = |row: &[String]| row.get(column).and_then(|cell| cell.split(' ').next()?.parse().ok()).unwrap_or(f64::INFINITY);
        let mut order: Vec<usize> = (0..self.rows.len()).collect();
        order.sort_by(|&a, &b| number(&self.rows[a]).total_cmp(&number(&self.rows[b])));
        self.best = order.iter().position(|&row| row == best).map(|row| (row, column));
        self.rows = order.into_iter().map(|row| std::mem::take(&mut self.rows[row])).collect();
        self
    }
}

impl Results {
    fn columns(&self) -> Vec<Column> {
        let words =
            |head: &str, cell: fn(&Line<'_>) -> Option<String>| Column { head: head.to_owned(), is_words: true, cell: Box::new(cell) };
        let number =
            |head: &str, cell: fn(&Line<'_>) -> Option<String>| Column { head: head.to_owned(), is_words: false, cell: Box::new(cell) };
        let mut columns = vec![
            words("spec", |line| Some(line.variant.to_owned())),
            words("flows", |line| line.runs.first().map(|run| run.flows.clone())),
            number("parameters", |line| line.mean(|run| Some(run.parameters as f64)).map(|mean| format!("{mean:.0}"))),
            number(&format!("test {}", self.unit()), |line| line.with_error(3, |run| Some((run.test.loss, run.test.standard_error)))),
            number("over seeds", |line| line.spread(|run| run.test.loss).map(|spread| format!("± {spread:.3} ({})", line.runs.len()))),
            number("train", |line| line.mean(|run| run.train.as_ref().map(|found| found.loss)).map(|mean| format!("{mean:.3}"))),
            number("steps", |line| line.mean(|run| Some(run.steps as f64)).map(|mean| format!("{mean:.0}"))),
            number("s/step", |line| line.mean(|run| Some(run.seconds_per_step())).map(|mean| format!("{mean:.4}"))),
            number("multiply-adds", |line| line.mean(|run| Some(run.multiply_adds as f64)).map(|mean| format!("{mean:.2e}"))),
            number("peak MiB", |line| line.mean(|run| run.peak_bytes.map(|bytes| bytes as f64)).map(|mean| format!("{:.0}", mean / MIB))),
            number("scored/s", |line| line.mean(|run| Some(run.test.scored_per_second)).map(|mean| format!("{mean:.0}"))),
            number("sampled/s", |line| line.inverse(|found| found.sampled_per_second).map(|mean| format!("{mean:.0}"))),
            number("inverse error", |line| line.inverse(|found| found.error).map(|mean| format!("{mean:.1e}"))),
            number("accuracy", |line| {
                line.with_error(4, |run| run.test.classification.as_ref().map(|found| (found.accuracy, found.accuracy_error)))
            }),
            number("probe of latents", |line| {
                line.with_error(4, |run| run.latents()?.test.as_ref().map(|found| (found.accuracy, found.accuracy_error)))
            }),
            number("borders of samples", |line| line.mean(|run| run.borders?.samples).map(|mean| format!("{mean:.3}"))),
            number("borders of data", |line| line.mean(|run| run.borders.map(|borders| borders.data)).map(|mean| format!("{mean:.3}"))),
            number("evaluations", |line| {
                let [forward, inverse] = [
                    line.mean(|run| Some(run.test.evaluations as f64))?,
                    line.mean(|run| Some(run.test.inverse.as_ref().map_or(0, |inverse| inverse.evaluations) as f64))?,
                ];
                (forward + inverse > 0.0).then(|| format!("{forward:.0} / {inverse:.0}"))
            }),
        ];
        if self.study.data.len() > 1 {
            columns.insert(0, words("data", |line| Some(line.data.to_owned())));
        }
        columns
    }

    /// The table: a line a variant on data and, below, one a baseline. A column that no line has a cell of is left out.
    pub(crate) fn table(&self) -> Shown {
        let lines = Line::of(&self.runs);
        let columns: Vec<Column> =
            self.columns().into_iter().filter(|column| lines.iter().any(|line| (column.cell)(line).is_some())).collect();
        let cell = |column: &Column, line: &Line<'_>| (column.cell)(line).unwrap_or_else(|| DASH.to_owned());
        let mut rows: Vec<Vec<String>> = lines.iter().map(|line| columns.iter().map(|column| cell(column, line)).collect()).collect();
        let loss = columns.iter().position(|column| column.head.starts_with("test "));
        for data in &self.data {
            for Baseline { name, loss, .. } in &data.baselines {
                let baseline = |column: &Column| match column.head.as_str() {
                    "data" => data.name.clone(),
                    "spec" => format!("baseline: {name}"),
                    "flows" => String::new(),
                    head if head.starts_with("test ") => format!("{loss:.3}"),
                    _ => DASH.to_owned(),
                };
                rows.push(columns.iter().map(baseline).collect());
            }
        }
        let losses = lines.iter().map(|line| line.loss().unwrap_or(f64::NAN)).enumerate().filter(|(_, loss)| !loss.is_nan());
        // Of several data no line is the best.
        let best = losses.min_by(|a, b| a.1.total_cmp(&b.1)).map(|(row, _)| row).zip(loss).filter(|_| self.study.data.len() == 1);
        let words = columns.iter().take_while(|column| column.is_words).count();
        Shown { heads: columns.into_iter().map(|column| column.head).collect(), rows, words, best }
    }

    /// The table of probes: a line a variant, layer and kind of classifier.
    pub(crate) fn probes(&self) -> Shown {
        let heads =
            ["data", "spec", "layer", "features", "hidden", "accuracy", "cross-entropy, bits", "calibration error"].map(str::to_owned);
        let mut rows = Vec::new();
        for line in Line::of(&self.runs) {
            let count = line.runs.iter().map(|run| run.probes.len()).min().unwrap_or(0);
            for at in 0..count {
                let figure = |of: fn(&Classification) -> (f64, f64)| {
                    line.with_error(4, |run| run.probes[at].test.as_ref().map(of)).unwrap_or_else(|| DASH.to_owned())
                };
                let Probe { layer, features, hidden, .. } = &line.runs[0].probes[at];
                let layer = if layer == "bijector" { "latents".to_owned() } else { layer.clone() };
                let hidden = hidden.map_or_else(|| DASH.to_owned(), |units| units.to_string());
                let own = [line.data.to_owned(), line.variant.to_owned(), layer, features.to_string(), hidden];
                let figures = [
                    figure(|found| (found.accuracy, found.accuracy_error)),
                    figure(|found| (found.cross_entropy_bits, found.cross_entropy_bits_error)),
                    figure(|found| (found.calibration.error, found.calibration.standard_error)),
                ];
                rows.push(own.into_iter().chain(figures).collect());
            }
        }
        Shown { heads: heads.to_vec(), rows, words: 3, best: None }
    }

    /// Figures of others.
    pub(crate) fn published(&self) -> Shown {
        let row = |Published { of, figure, source }: &Published| vec![of.clone(), figure.clone(), source.clone()];
        let rows = self.study.published.iter().map(row).collect();
        Shown { heads: ["of", "figure", "source"].map(str::to_owned).to_vec(), rows, words: 3, best: None }
    }
}

impl std::fmt::Display for Results {
    /// The tables as aligned text, and below them what they do not tell.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let further = [self.probes(), self.published()].into_iter().filter(|table| !table.rows.is_empty());
        for (number, Shown { heads, rows, words, .. }) in std::iter::once(self.table()).chain(further).enumerate() {
            let between = if number > 0 { "\n" } else { "" };
            write!(f, "{between}{}", text::Table { heads: &heads, rows: &rows, words })?;
        }
        self.notes().iter().try_for_each(|note| writeln!(f, "{note}"))
    }
}
