//! `mixerflow score`.

use super::sources::model;
use crate::arguments::Score;
use crate::{Result, output};
use flow_train::{EvaluateOptions, score, write_whole};
use std::io::Write;

/// A line of the table.
struct Line {
    part: &'static str,
    index: usize,
    name: String,
    label: String,
    log_likelihood: f64,
    loss: f64,
    /// Of an estimated log-likelihood, in nats.
    standard_error: Option<f64>,
}

pub(crate) fn run(arguments: &Score) -> Result<()> {
    let opened = model(&arguments.run)?;
    let options = EvaluateOptions { estimates: arguments.estimates, ..arguments.scoring.options() };
    let unit_of_nats = opened.events.report(0.0) - opened.events.report(1.0);
    let mut lines = Vec::new();
    for (part, data) in arguments.data.parts(arguments.part, opened.settings.seed)? {
        let scores = score(&opened.model, data.as_ref(), &opened.events, &options)?;
        let label = |index: usize| {
            let label = usize::try_from(*scores.labels.as_ref()?.get(index)?).ok()?;
            Some(data.classes().get(label).cloned().unwrap_or_else(|| label.to_string()))
        };
        lines.extend(scores.log_likelihood.iter().enumerate().map(|(index, &density)| {
            let loss = opened.events.report(density);
            Line {
                part,
                index,
                name: data.item_name(index).unwrap_or_default(),
                label: label(index).unwrap_or_default(),
                log_likelihood: -loss / unit_of_nats,
                loss,
                standard_error: scores.log_det_variance.as_ref().map(|variance| variance[index].sqrt()),
            }
        }));
    }
    if arguments.sort {
        // An item without a likelihood is the most unusual of all.
        let key = |line: &Line| if line.log_likelihood.is_nan() { f64::NEG_INFINITY } else { line.log_likelihood };
        lines.sort_by(|a, b| key(a).total_cmp(&key(b)));
    }
    let unit = if opened.events.levels().is_some() { "bits_per_dim" } else { "negative_log_likelihood" };
    let table = table(unit, &lines)?;
    match &arguments.out {
        Some(path) => write_whole(path, |file| Ok(file.write_all(table.as_bytes()).map_err(|e| format!("{}: {e}", path.display()))?)),
        None => Ok(output::print(table)?),
    }
}

fn table(unit: &str, lines: &[Line]) -> Result<String> {
    let mut table = csv::Writer::from_writer(Vec::new());
    // Exact log-likelihoods have no such column.
    let estimates = lines.iter().any(|line| line.standard_error.is_some());
    let heads = ["part", "index", "name", "label", "log_likelihood", unit];
    table.write_record(heads.into_iter().chain(estimates.then_some("standard_error")))?;
    for Line { part, index, name, label, log_likelihood, loss, standard_error } in lines {
        let cells = [part, &*index.to_string(), name, label, &log_likelihood.to_string(), &loss.to_string()];
        let error = estimates.then(|| standard_error.unwrap_or(f64::NAN).to_string());
        table.write_record(cells.into_iter().chain(error.as_deref()))?;
    }
    Ok(String::from_utf8(table.into_inner()?)?)
}
