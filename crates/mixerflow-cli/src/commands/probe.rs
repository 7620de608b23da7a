//! `mixerflow probe`.

use super::classified::tell_classes;
use super::on::model_on;
use super::sources::check_layer;
use crate::arguments::Probe;
use crate::{Result, output};
use flow_train::classify::{ProbeOptions, probe_parts};
use flow_train::text::{Table, count};

pub(crate) fn run(arguments: &Probe) -> Result<()> {
    let opened = model_on(&arguments.run, arguments.on.device)?;
    let chosen = arguments.data.choose(&arguments.run, &opened, |_| None)?;
    let source = &chosen.source;
    if chosen.split.train.classes().is_empty() {
        return Err(format!("{source}: the items have no labels to fit a probe to").into());
    }
    check_layer(&opened, &chosen.items, arguments.layer.as_deref())?;
    let layer = arguments.layer.clone().unwrap_or_else(|| "bijector".to_owned());
    let options = ProbeOptions { layer, hidden: arguments.hidden, batch: arguments.batch };
    let found = probe_parts(&opened.model, &opened.events, &chosen.split, &opened.settings, &options)?;
    if arguments.json {
        return Ok(output::line(serde_json::to_string_pretty(&found)?)?);
    }
    let kind = found.hidden.map_or_else(|| "a linear probe".to_owned(), |units| format!("a probe with {}", count(units, "hidden unit")));
    output::line(format_args!("{kind} of {} behind {}, {source}", count(found.features, "number"), found.layer))?;
    let heads = ["penalty", "held-out cross-entropy, bits"].map(str::to_owned);
    let bits = |nats: f64| nats / std::f64::consts::LN_2;
    let rows: Vec<Vec<String>> =
        found.tried.iter().map(|tried| vec![format!("{:e}", tried.penalty), format!("{:.4}", bits(tried.held_out))]).collect();
    output::line(Table { heads: &heads, rows: &rows, words: 0 })?;
    output::line(format_args!("penalty {:e}, chosen on {}", found.penalty, count(found.held_out, "held-out item")))?;
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
