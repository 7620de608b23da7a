//! `mixerflow eval`.

use super::sources::model;
use crate::arguments::{Data, Eval, Part};
use crate::{Result, output};
use flow_train::{Evaluation, auroc, evaluate, score};

pub(crate) fn run(arguments: &Eval) -> Result<()> {
    let opened = model(&arguments.run)?;
    let options = arguments.scoring.options();
    let mut found = serde_json::Map::new();
    for (part, data) in arguments.data.parts(arguments.part, opened.settings.seed)? {
        let evaluation = evaluate(&opened.model, data.as_ref(), &opened.events, &options)?;
        if !arguments.json {
            output::line(part)?;
            tell(&evaluation)?;
        }
        found.insert(part.to_owned(), serde_json::to_value(&evaluation)?);
    }
    let densities = |data: &Data, part| -> Result<Vec<f64>> {
        let scores = data
            .parts(part, opened.settings.seed)?
            .into_iter()
            .map(|(_, data)| score(&opened.model, data.as_ref(), &opened.events, &options));
        Ok(scores.collect::<Result<Vec<_>, _>>()?.into_iter().flat_map(|scores| scores.log_likelihood).collect())
    };
    if !arguments.against.is_empty() {
        let usual = densities(&arguments.data, arguments.part)?;
        let mut areas = serde_json::Map::new();
        for source in &arguments.against {
            let other = Data { data: source.clone(), skip_bad: arguments.data.skip_bad };
            let area = auroc(&usual, &densities(&other, Part::All)?);
            if !arguments.json {
                output::line(format_args!("AUROC {area:.4} against {source}"))?;
            }
            areas.insert(source.to_string(), area.into());
        }
        found.insert("auroc".to_owned(), areas.into());
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
