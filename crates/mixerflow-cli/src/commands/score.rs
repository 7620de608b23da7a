//! `mixerflow score`.

use super::rows::{self, Row, rows};
use super::sources::model;
use crate::arguments::Score;
use crate::{Result, output};
use flow_train::{EvaluateOptions, score, write_whole};
use std::io::Write;

/// A line of the table.
struct Line {
    row: Row,
    log_likelihood: f64,
    loss: f64,
    /// Of an estimated log-likelihood, in nats.
    standard_error: Option<f64>,
}

pub(crate) fn run(arguments: &Score) -> Result<()> {
    let opened = model(&arguments.run)?;
    let options = EvaluateOptions { estimates: arguments.estimates, ..arguments.scoring.options() };
    let unit_of_nats = opened.events.report(0.0) - opened.events.report(1.0);
    let chosen = arguments.data.choose(&arguments.run, &opened, |_| arguments.part.into())?;
    let scores = score(&opened.model, &chosen.items, &opened.events, &options)?;
    let rows = rows(&chosen.items, &scores.labels);
    let line = |(index, (row, &density)): (usize, (Row, &f64))| {
        let loss = opened.events.report(density);
        let standard_error = scores.log_det_variance.as_ref().map(|variance| variance[index].sqrt());
        Line { row, log_likelihood: -loss / unit_of_nats, loss, standard_error }
    };
    let mut lines: Vec<Line> = rows.into_iter().zip(&scores.log_likelihood).enumerate().map(line).collect();
    if arguments.sort {
        // An item without a likelihood is the most unusual of all.
        let key = |line: &Line| if line.log_likelihood.is_nan() { f64::NEG_INFINITY } else { line.log_likelihood };
        lines.sort_by(|a, b| key(a).total_cmp(&key(b)));
    }
    let unit = if opened.events.levels().is_some() { "bits_per_dim" } else { "negative_log_likelihood" };
    let table = table(unit, &lines)?;
    match &arguments.out {
        Some(path) => {
            write_whole(path, |file| -> Result<()> {
                Ok(file.write_all(table.as_bytes()).map_err(|e| format!("{}: {e}", path.display()))?)
            })?;
            output::say(format_args!("{}: {} items", path.display(), lines.len()));
            Ok(())
        }
        None => Ok(output::print(table)?),
    }
}

fn table(unit: &str, lines: &[Line]) -> Result<String> {
    let mut table = csv::Writer::from_writer(Vec::new());
    // Exact log-likelihoods have no such column.
    let estimates = lines.iter().any(|line| line.standard_error.is_some());
    let heads = rows::HEADS.into_iter().chain(["log_likelihood", unit]);
    table.write_record(heads.chain(estimates.then_some("standard_error")))?;
    for Line { row, log_likelihood, loss, standard_error } in lines {
        let cells = row.cells().into_iter().chain([log_likelihood.to_string(), loss.to_string()]);
        let error = estimates.then(|| standard_error.unwrap_or(f64::NAN).to_string());
        table.write_record(cells.chain(error))?;
    }
    Ok(String::from_utf8(table.into_inner()?)?)
}
