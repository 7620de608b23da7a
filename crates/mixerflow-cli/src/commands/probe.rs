//! `mixerflow probe`.

use super::classified::tell_classes;
use super::on::model_on;
use crate::arguments::Probe;
use crate::{Result, output};
use flow_api::FlowError;
use flow_train::TrainError;
use flow_train::classify::{ProbeOptions, probe_parts};
use flow_train::text::Table;

pub(crate) fn run(arguments: &Probe) -> Result<()> {
    let opened = model_on(&arguments.run, arguments.on.device)?;
    let chosen = arguments.data.choose(&arguments.run, &opened, |_| None)?;
    let source = &chosen.source;
    if chosen.split.train.classes().is_empty() {
        return Err(format!("{source}: the items have no labels to fit a probe to").into());
    }
    let layer = arguments.layer.clone().unwrap_or_else(|| "bijector".to_owned());
    let options = ProbeOptions { layer, batch: arguments.batch };
    let found = probe_parts(&opened.model, &opened.events, &chosen.split, &opened.settings, &options).map_err(|error| match error {
        TrainError::Flow(FlowError::Unsupported { layer: path, operation: "activations", .. }) if path == options.layer => {
            format!("--layer {path}: the model has no such layer; `mixerflow inspect` shows them").into()
        }
        other => crate::Error::from(other),
    })?;
    if arguments.json {
        return Ok(output::line(serde_json::to_string_pretty(&found)?)?);
    }
    output::line(format_args!("a linear probe of {} numbers behind {}, {source}", found.features, found.layer))?;
    let heads = ["penalty", "held-out cross-entropy, bits"].map(str::to_owned);
    let bits = |nats: f64| nats / std::f64::consts::LN_2;
    let rows: Vec<Vec<String>> =
        found.tried.iter().map(|tried| vec![format!("{:e}", tried.penalty), format!("{:.4}", bits(tried.held_out))]).collect();
    output::line(Table { heads: &heads, rows: &rows, words: 0 })?;
    output::line(format_args!("penalty {:e}, chosen on {} held-out items", found.penalty, found.held_out))?;
    output::line("train (fitted to, those held out among them)")?;
    tell_classes(&found.train)?;
    match &found.test {
        Some(test) => {
            output::line("test")?;
            tell_classes(test)
        }
        None => Ok(output::line("test: no item has a label")?),
    }
}
