//! How rows of a table compare with samples of a model.

use crate::{Result, output};
use flow_train::TrainError;
use flow_train::checkpoint::Opened;
use flow_train::data::Dataset;
use flow_train::diagnostics::{BINS, Coverage, DiagnosticOptions, Diagnostics, Shape, TwoSample, diagnose};
use flow_train::text::Table;
use flow_train::text::{agreeing, count};
use flow_train::waiting;

/// Columns that are told: those that are least uniform.
const TOLD: usize = 16;

/// What was found, or the words of the layer that made it impossible.
pub(super) type Found = std::result::Result<Diagnostics, String>;

pub(super) fn of(opened: &Opened<f32>, rows: &dyn Dataset) -> Result<Found> {
    let options = DiagnosticOptions::of(&opened.model);
    match waiting("comparing rows with samples", || diagnose(&opened.model, rows, &opened.events, &options)) {
        Err(TrainError::Flow(error)) => Ok(Err(error.to_string())),
        other => Ok(Ok(other?)),
    }
}

pub(super) fn json(found: &Found) -> Result<serde_json::Value> {
    Ok(match found {
        Ok(found) => serde_json::to_value(found)?,
        Err(failure) => serde_json::json!({ "failure": failure }),
    })
}

pub(super) fn tell(found: &Found) -> Result<()> {
    for (name, value) in lines(found) {
        output::line(format_args!("  {name:<18} {value}"))?;
    }
    let Ok(found) = found else { return Ok(()) };
    Ok(output::print(Table { heads: &HEADS.map(str::to_owned), rows: &rows(found), words: 1 })?)
}

/// What is said of all columns together, by name.
pub(super) fn lines(found: &Found) -> Vec<(&'static str, String)> {
    let found = match found {
        Ok(found) => found,
        Err(failure) => return vec![("against samples", format!("nothing can be compared: {failure}"))],
    };
    let Diagnostics { rows, samples, left_out, failure, .. } = found;
    let why = failure.as_ref().map_or(String::new(), |failure| format!(": {failure}"));
    let out = if *left_out > 0 {
        format!("; {} {} left out{why}", count(*left_out, "row"), agreeing(*left_out, "is", "are"))
    } else {
        String::new()
    };
    let two_sample = found.two_sample.as_ref().map_or_else(|| "too few rows".to_owned(), two_sample_text);
    let mut lines = vec![
        ("against samples", format!("{}, each beside {} of the model{out}", count(*rows, "row"), count(*samples, "sample"))),
        ("two-sample test", two_sample),
        ("coverage", coverage_text(&found.coverage)),
    ];
    if found.columns.len() > TOLD {
        lines.push(("PIT of columns", format!("the {TOLD} least uniform of {}", found.columns.len())));
    }
    lines
}

fn two_sample_text(found: &TwoSample) -> String {
    let TwoSample { accuracy, standard_error, rows } = found;
    let verdict = if found.tells_apart() { "tells them apart" } else { "cannot tell them apart" };
    format!("a classifier of rows and samples is right in {accuracy:.4} ± {standard_error:.4} of {} (0.5 is best): it {verdict}", 2 * rows)
}

fn coverage_text(found: &Coverage) -> String {
    let some: Vec<String> =
        found.levels.iter().step_by(2).map(|level| format!("{:.1} in {:.0} %", 100.0 * level.empirical, 100.0 * level.nominal)).collect();
    let verdict = match found.ranks.shape(1) {
        Shape::Uniform => "as it should be",
        _ if found.ranks.mean > 0.5 => "overconfident",
        _ => "underconfident",
    };
    format!("{} (p {}): {verdict}", some.join(", "), p_text(found.ranks.p_value))
}

pub(super) fn p_text(p: f64) -> String {
    if p < 1e-4 { format!("{p:.1e}") } else { format!("{p:.4}") }
}

/// Heads of the columns of [`rows`].
pub(super) const HEADS: [&str; 6] = ["PIT of", "KS", "p", "mean", "outer tenths", "the model is"];

/// The PIT of columns, the least uniform ones where there are many, in the order of the table.
pub(super) fn rows(found: &Diagnostics) -> Vec<Vec<String>> {
    let tests = found.columns.len();
    let row = |at: usize| {
        let (column, pit) = (&found.columns[at].column, &found.columns[at].pit);
        let outer = pit.bins[0] + pit.bins[BINS - 1];
        let verdict = match pit.shape(tests) {
            Shape::Uniform => "right",
            Shape::Low => "too low",
            Shape::High => "too high",
            Shape::Narrow => "too narrow",
            Shape::Wide => "too wide",
        };
        let numbers = [format!("{:.4}", pit.statistic), p_text(pit.p_value), format!("{:.4}", pit.mean), format!("{outer:.4}")];
        [column.clone()].into_iter().chain(numbers).chain([verdict.to_owned()]).collect()
    };
    found.least_uniform(TOLD).into_iter().map(row).collect()
}
