//! How well each score tells other data from those of a run.

use super::reference::measured;
use crate::{Result, output};
use flow_train::checkpoint::Opened;
use flow_train::data::Dataset;
use flow_train::scores::{Aggregate, Groups, Judged, Reference, Separation, separation};
use flow_train::text::Table;
use flow_train::{EvaluateOptions, auroc};
use serde_json::{Value, json};

/// Scores of a set, and the source of each item.
pub(super) struct Scored {
    judged: Judged,
    sources: Vec<usize>,
}

impl Scored {
    pub(super) fn of(
        opened: &Opened<f32>,
        background: Option<&Opened<f32>>,
        reference: Option<&Reference>,
        items: &dyn Dataset,
        options: &EvaluateOptions,
    ) -> Result<Self> {
        let (_, measures) = measured(opened, background, items, options)?;
        let alone = Groups::single(items.len());
        let judged =
            reference.map_or_else(|| Judged::alone(measures.clone()), |reference| reference.judge(&measures, &alone, Aggregate::None));
        Ok(Self { judged, sources: (0..items.len()).map(|item| items.source(item)).collect() })
    }

    pub(super) fn len(&self) -> usize {
        self.sources.len()
    }

    pub(super) fn judged(&self) -> &Judged {
        &self.judged
    }

    /// ln p(x) of each.
    fn log_likelihood(&self) -> &[f64] {
        self.judged.measures.get(flow_train::scores::Measure::LogLikelihood).unwrap_or_default()
    }

    fn mean(&self, score: &str) -> f64 {
        let values = self.judged.column(score).unwrap_or_default();
        let finite: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
        finite.iter().sum::<f64>() / finite.len() as f64
    }
}

/// A score, the means of both sets, and how well it tells them apart.
pub(super) struct Line {
    score: &'static str,
    means: [f64; 2],
    found: Separation,
}

pub(super) fn lines(usual: &Scored, unusual: &Scored, seed: u64) -> Vec<Line> {
    let others = unusual.judged.unusualness();
    let line = |(score, usual_values): (&'static str, Vec<f64>)| {
        let (_, unusual_values) = others.iter().find(|(name, _)| *name == score)?;
        let found = separation((&usual_values, &usual.sources), (unusual_values, &unusual.sources), seed);
        Some(Line { score, means: [usual.mean(score), unusual.mean(score)], found })
    };
    usual.judged.unusualness().into_iter().filter_map(line).collect()
}

pub(super) fn area(usual: &Scored, unusual: &Scored) -> f64 {
    auroc(usual.log_likelihood(), unusual.log_likelihood())
}

pub(super) fn as_json(lines: &[Line]) -> Value {
    let one =
        |line: &Line| (line.score.to_owned(), json!({ "mean": line.means[0], "mean_against": line.means[1], "separation": line.found }));
    Value::Object(lines.iter().map(one).collect())
}

/// Heads of the columns of [`rows`].
pub(super) const HEADS: [&str; 6] = ["score", "mean", "mean against", "AUROC", "average precision", "false positives at 95 %"];

/// The lines as cells.
pub(super) fn rows(lines: &[Line]) -> Vec<Vec<String>> {
    let number = |x: f64| if x.abs() >= 1000.0 { format!("{x:.1}") } else { format!("{x:.4}") };
    lines
        .iter()
        .map(|Line { score, means, found }| {
            let figures = [found.auroc, found.average_precision, found.false_positives_at_95];
            let figures = figures.map(|figure| format!("{:.4} ± {:.4}", figure.value, figure.error));
            [(*score).to_owned()].into_iter().chain(means.map(number)).chain(figures).collect()
        })
        .collect()
}

/// Shows the table, and warns where a score is inverted.
pub(super) fn tell(lines: &[Line], source: &str) -> Result<()> {
    output::print(Table { heads: &HEADS.map(str::to_owned), rows: &rows(lines), words: 1 })?;
    for Line { score, found, .. } in lines.iter().filter(|line| line.is_inverted()) {
        output::say(format_args!(
            "warning: {score} is inverted against {source}: by it those items are more usual than the others (AUROC {:.4})",
            found.auroc.value
        ));
    }
    Ok(())
}

impl Line {
    pub(super) fn score(&self) -> &str {
        self.score
    }

    /// Below one half by more than chance.
    pub(super) fn is_inverted(&self) -> bool {
        self.found.auroc.value + 3.0 * self.found.auroc.error < 0.5
    }
}
