//! The runs of a variant together.

use super::outcome::Outcome;
use crate::evaluate::{DASH, Inverse};
use crate::progress::Report;

/// The runs of a variant on data.
pub(super) struct Line<'a> {
    pub(super) data: &'a str,
    pub(super) variant: &'a str,
    pub(super) runs: Vec<&'a Outcome>,
}

impl<'a> Line<'a> {
    /// Those of all runs, in the order in which they come.
    pub(super) fn of(runs: &'a [Outcome]) -> Vec<Self> {
        let mut lines: Vec<Self> = Vec::new();
        for run in runs {
            match lines.iter_mut().find(|line| line.data == run.data && line.variant == run.variant) {
                Some(line) => line.runs.push(run),
                None => lines.push(Self { data: &run.data, variant: &run.variant, runs: vec![run] }),
            }
        }
        lines
    }

    /// Mean over seeds; none where a run has none.
    pub(super) fn mean(&self, of: impl Fn(&Outcome) -> Option<f64>) -> Option<f64> {
        let values: Vec<f64> = self.runs.iter().map(|run| of(run)).collect::<Option<_>>()?;
        Some(values.iter().sum::<f64>() / values.len() as f64)
    }

    /// Standard deviation over seeds; none of fewer than two.
    pub(super) fn spread(&self, of: impl Fn(&Outcome) -> f64) -> Option<f64> {
        let n = self.runs.len() as f64;
        let mean = self.mean(|run| Some(of(run)))?;
        let squares = self.runs.iter().map(|run| (of(run) - mean).powi(2)).sum::<f64>();
        (self.runs.len() > 1).then(|| (squares / (n - 1.0)).sqrt())
    }

    /// `mean ± error` with this many decimals, and `–` for an error that is unknown.
    pub(super) fn with_error(&self, decimals: usize, of: impl Fn(&Outcome) -> Option<(f64, f64)>) -> Option<String> {
        let (value, error) = (self.mean(|run| of(run).map(|(value, _)| value))?, self.mean(|run| of(run).map(|(_, error)| error))?);
        let error = if error.is_nan() { DASH.to_owned() } else { format!("{error:.decimals$}") };
        Some(format!("{value:.decimals$} ± {error}"))
    }

    /// A figure of the inverse; none where one is unknown.
    pub(super) fn inverse(&self, of: fn(&Inverse) -> f64) -> Option<f64> {
        self.mean(|run| run.test.inverse.as_ref().map(of)).filter(|mean| !mean.is_nan())
    }

    pub(super) fn loss(&self) -> Option<f64> {
        self.mean(|run| Some(run.test.loss))
    }

    /// The mean learning curve, where all seeds have the same steps; else that of the first.
    pub(super) fn history(&self) -> Vec<Report> {
        let Some((first, others)) = self.runs.split_first() else { return Vec::new() };
        let steps = |run: &Outcome| run.history.iter().map(|report| report.step).collect::<Vec<_>>();
        if others.iter().any(|run| steps(run) != steps(first)) {
            return first.history.clone();
        }
        let n = self.runs.len() as f64;
        let at = |(number, report): (usize, &Report)| {
            let mean = |of: fn(&Report) -> f64| self.runs.iter().map(|run| of(&run.history[number])).sum::<f64>() / n;
            let validation = self.runs.iter().map(|run| run.history[number].validation).sum::<Option<f64>>().map(|sum| sum / n);
            Report { train: mean(|r| r.train), seconds: mean(|r| r.seconds), validation, ..report.clone() }
        };
        first.history.iter().enumerate().map(at).collect()
    }
}
