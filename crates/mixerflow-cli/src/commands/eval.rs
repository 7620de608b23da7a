//! `mixerflow eval`.

use super::sources::model;
use crate::Result;
use crate::arguments::Eval;
use flow_train::{EvaluateOptions, Evaluation, evaluate};

pub(crate) fn run(arguments: &Eval) -> Result<()> {
    let opened = model(&arguments.run)?;
    let options = EvaluateOptions { batch: arguments.batch, dequantisations: arguments.dequantisations, ..EvaluateOptions::default() };
    let mut found = serde_json::Map::new();
    for (part, data) in arguments.data.parts(arguments.part)? {
        let evaluation = evaluate(&opened.model, data.as_ref(), &opened.events, &options)?;
        if arguments.json {
            found.insert(part.to_owned(), serde_json::to_value(&evaluation)?);
        } else {
            println!("{part}");
            tell(&evaluation);
        }
    }
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&found)?);
    }
    Ok(())
}

fn tell(found: &Evaluation) {
    let mut lines = vec![
        ("items", found.items.to_string()),
        (found.unit.as_str(), format!("{:.4} ± {:.4}", found.loss, found.standard_error)),
        ("log-likelihood", format!("{:.3} nats an item", found.log_likelihood)),
        ("not finite", format!("{:.2} %", 100.0 * found.non_finite)),
        ("largest |z|", format!("{:.2}", found.largest_latent)),
        ("scored", format!("{:.0} items/s", found.scored_per_second)),
    ];
    if let Some(error) = found.log_det_standard_error {
        lines.push(("log-det estimate", format!("± {error:.3} nats an item")));
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
        println!("  {name:<18} {value}");
    }
}
