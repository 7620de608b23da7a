//! `mixerflow eval`.

use super::against::{self, Scored};
use super::by_class::ByClass;
use super::classified::tell_classes;
use super::diagnostics;
use super::on::model_on;
use super::reference::{background, reference};
use super::sources::{Chosen, choose, has_classes, skipping, test_part};
use crate::arguments::Eval;
use crate::{Result, output};
use flow_train::checkpoint::Opened;
use flow_train::data::{Dataset, Items};
use flow_train::diagnostics::is_table;
use flow_train::text::count;
use flow_train::{Baseline, EvaluateOptions, Evaluation, Look, evaluate, score_every_class};
use serde_json::{Value, json};

pub(crate) fn run(arguments: &Eval) -> Result<()> {
    let opened = model_on(&arguments.run, arguments.on.device)?;
    has_classes(&opened, arguments.every_class)?;
    let options = arguments.scoring.options();
    let mut found = serde_json::Map::new();
    let chosen = arguments.data.choose(&arguments.run, &opened, test_part(arguments.part))?;
    let part = chosen.items.part(0).filter(|_| chosen.items.len() < chosen.all);
    let evaluation = evaluate(&opened.model, &chosen.items, &opened.events, &options)?;
    if !arguments.json {
        output::line(chosen.title(part))?;
        tell(&evaluation)?;
    }
    let name = part.map_or_else(|| "all".to_owned(), |part| part.to_string());
    let mut of_part = serde_json::to_value(&evaluation)?;
    let baselines = baselines(&opened, &chosen)?;
    if !arguments.json {
        baselines.iter().try_for_each(|b| output::line(format_args!("  baseline: {} {:.4} {}", b.name, b.loss, b.unit)))?;
    }
    of_part["baselines"] = serde_json::to_value(&baselines)?;
    if arguments.every_class {
        let every = score_every_class(&opened.model, &chosen.items, &opened.events, &options)?;
        let by_class = ByClass::of(&every, &chosen.items, &opened.events);
        if !arguments.json {
            by_class.tell(opened.events.unit())?;
        }
        of_part["every_class"] = by_class.json()?;
    }
    if !arguments.no_diagnostics && is_table(&opened.events) {
        let found = diagnostics::of(&opened, &chosen.items)?;
        if !arguments.json {
            diagnostics::tell(&found)?;
        }
        of_part["diagnostics"] = diagnostics::json(&found)?;
    }
    found.insert(name, of_part);
    let source = chosen.source.to_string();
    found.insert("data".to_owned(), json!({ "source": source, "items": chosen.all, "seen": chosen.seen, "rule": chosen.rule.to_string() }));
    if !arguments.against.is_empty() {
        found.extend(compare_sets(arguments, &opened, &chosen.items, &options)?);
    }
    if arguments.json {
        output::line(serde_json::to_string_pretty(&found)?)?;
    }
    Ok(())
}

/// What simple densities of the run's own training items reach on the items; none where the model is of other levels
/// than the data.
fn baselines(opened: &Opened<f32>, chosen: &Chosen) -> Result<Vec<Baseline>> {
    let train = &*chosen.split.train;
    if !chosen.seen || train.is_empty() || opened.spec.preprocessing().bits.is_some() {
        return Ok(Vec::new());
    }
    Ok(Look::at(train, &chosen.items)?.baselines)
}

/// Scores the items and every other set, and tells how well each score tells them apart.
fn compare_sets(
    arguments: &Eval,
    opened: &Opened<f32>,
    items: &Items,
    options: &EvaluateOptions,
) -> Result<serde_json::Map<String, Value>> {
    let background = background(arguments.minus.as_deref(), opened, arguments.on.device)?;
    let reference = reference(&arguments.run, opened, background.as_ref())?;
    let scored = |items: &Items| Scored::of(opened, background.as_ref(), reference.as_ref(), items, options);
    let usual = scored(items)?;
    let (mut areas, mut counts, mut all) = (serde_json::Map::new(), serde_json::Map::new(), serde_json::Map::new());
    for source in &arguments.against {
        let other = choose(&skipping(source, arguments.data.skip_bad), opened, None, |_| None)?;
        let unusual = scored(&other.items)?;
        let lines = against::lines(&usual, &unusual, opened.settings.seed);
        if !arguments.json {
            output::line(format_args!("\n{} against {} of {source}", count(usual.len(), "item"), unusual.len()))?;
            against::tell(&lines, &source.to_string())?;
        }
        let name = source.to_string();
        areas.insert(name.clone(), against::area(&usual, &unusual).into());
        counts.insert(name.clone(), json!([usual.len(), unusual.len()]));
        all.insert(name, against::as_json(&lines));
    }
    Ok([("auroc", areas), ("auroc_items", counts), ("against", all)].map(|(name, of)| (name.to_owned(), of.into())).into_iter().collect())
}

fn tell(found: &Evaluation) -> Result<()> {
    let mut lines = vec![
        ("items", found.items.to_string()),
        (found.unit.as_str(), found.loss_text(4)),
        ("log-likelihood", format!("{:.3} nats an item", found.log_likelihood)),
        ("not finite", format!("{:.2} %", 100.0 * found.non_finite)),
        ("largest |z|", format!("{:.2}", found.largest_latent)),
        ("scored", format!("{:.0} items/s", found.scored_per_second)),
    ];
    lines.extend(found.failure.as_ref().map(|failure| ("a layer failed on", failure.clone())));
    if let Some(error) = found.log_det_standard_error {
        lines.push(("log-det estimate", format!("± {error:.3} nats an item")));
    }
    if found.log_det_solver_error.is_nan() {
        lines.push(("log-det solved", "to an error that fixed steps do not tell".to_owned()));
    } else if found.log_det_solver_error > 0.0 {
        lines.push(("log-det solved", format!("to about {:.1e} nats in the worst item", found.log_det_solver_error)));
    }
    if found.evaluations > 0 {
        lines.push(("evaluations", format!("{} in a forward pass", found.evaluations)));
    }
    if let Some(inverse) = &found.inverse {
        lines.push(("inverse error", format!("{:.1e} at most", inverse.error)));
        lines.push(("sampled", format!("{:.0} items/s", inverse.sampled_per_second)));
        lines.extend(inverse.failure.as_ref().map(|failure| ("the inverse failed", failure.clone())));
    }
    for (name, value) in lines {
        output::line(format_args!("  {name:<18} {value}"))?;
    }
    found.classification.as_ref().map_or(Ok(()), tell_classes)
}
