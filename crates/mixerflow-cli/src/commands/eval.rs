//! `mixerflow eval`.

use super::sources::{choose, model, skipping, test_part};
use crate::arguments::Eval;
use crate::{Result, output};
use flow_train::data::Dataset;
use flow_train::{Evaluation, auroc, evaluate, score};
use serde_json::json;

pub(crate) fn run(arguments: &Eval) -> Result<()> {
    let opened = model(&arguments.run)?;
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
    found.insert(name, serde_json::to_value(&evaluation)?);
    let source = chosen.source.to_string();
    found.insert("data".to_owned(), json!({ "source": source, "items": chosen.all, "seen": chosen.seen, "rule": chosen.rule.to_string() }));
    if !arguments.against.is_empty() {
        let usual = score(&opened.model, &chosen.items, &opened.events, &options)?.log_likelihood;
        let (mut areas, mut counts) = (serde_json::Map::new(), serde_json::Map::new());
        for source in &arguments.against {
            let other = choose(&skipping(source, arguments.data.skip_bad), &opened, None, |_| None)?;
            let unusual = score(&opened.model, &other.items, &opened.events, &options)?.log_likelihood;
            let area = auroc(&usual, &unusual);
            if !arguments.json {
                let (a, b) = (usual.len(), unusual.len());
                output::line(format_args!("AUROC {area:.4} of {a} items against {b} of {source}"))?;
            }
            areas.insert(source.to_string(), area.into());
            counts.insert(source.to_string(), json!([usual.len(), unusual.len()]));
        }
        found.insert("auroc".to_owned(), areas.into());
        found.insert("auroc_items".to_owned(), counts.into());
    }
    if arguments.json {
        output::line(serde_json::to_string_pretty(&found)?)?;
    }
    Ok(())
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
    Ok(())
}
