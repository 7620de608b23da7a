//! `mixerflow data`.

use super::sources::{Looked, Told, default_settings, open_any, parts_line, skipping};
use crate::arguments::LookAt;
use crate::{Result, output};
use flow_api::spec::Preprocessing;
use flow_train::data::Items;
use flow_train::text::Table;
use flow_train::{Look, hold_out};
use serde_json::json;

pub(crate) fn run(arguments: &LookAt) -> Result<()> {
    let source = skipping(&arguments.data, arguments.skip_bad);
    let split = open_any(&source, arguments.seed)?;
    let Looked { told: Told { notes, warnings }, look } = Looked::at(&split, &Preprocessing::default())?;
    let items = Items::of(&split, &hold_out(&*split.train, &default_settings()).0);
    if arguments.json {
        let parts: serde_json::Map<_, _> = items.counts().into_iter().map(|(part, count)| (part.to_string(), count.into())).collect();
        let skipped: Vec<_> = split.skipped.iter().map(|skipped| json!([skipped.path, skipped.reason])).collect();
        let left_out: Vec<_> = split.found.left_out().map(|(reason, count, first)| json!([reason, count, first])).collect();
        let rule = split.rule.to_string();
        let all = json!({
            "source": source.to_string(), "parts": parts, "rule": rule, "notes": notes, "warnings": warnings, "skipped": skipped, "left_out": left_out, "look": look,
        });
        return Ok(output::line(serde_json::to_string_pretty(&all)?)?);
    }
    output::line(parts_line(&source, &items, &split.rule))?;
    notes.iter().try_for_each(output::line)?;
    show(&look)?;
    Ok(warnings.iter().try_for_each(|warning| output::line(format_args!("warning: {warning}")))?)
}

/// Six digits behind the point, or an exponent where they would say nothing.
fn short(x: f64) -> String {
    if x == 0.0 || (1e-4..1e12).contains(&x.abs()) { format!("{x:.6}") } else { format!("{x:.6e}") }
}

fn show(look: &Look) -> Result<()> {
    let values = look.levels.map_or("real numbers".to_owned(), |levels| format!("{levels} levels"));
    let of = if look.looked_at < look.items { format!("; {} of them are looked at", look.looked_at) } else { String::new() };
    output::line(format_args!("items of shape {} in {values}{of}", look.shape))?;
    if !look.columns.is_empty() {
        let heads = ["column", "kind", "low", "high", "mean", "spread", "distinct"].map(str::to_owned);
        let name = |i: usize, name: &str| if name.is_empty() { (i + 1).to_string() } else { name.to_owned() };
        let rows: Vec<Vec<String>> = look
            .columns
            .iter()
            .enumerate()
            .map(|(i, c)| {
                let numbers = [c.column.low, c.column.high, c.mean, c.spread].map(short);
                let words = [name(i, &c.column.name), c.column.kind.to_string()];
                words.into_iter().chain(numbers).chain([c.distinct.to_string()]).collect()
            })
            .collect();
        output::print(format_args!("\n{}\n", Table { heads: &heads, rows: &rows, words: 2 }))?;
    }
    if !look.classes.is_empty() {
        let shown: Vec<String> = look.classes.iter().map(|(name, count)| format!("{name} {count}")).collect();
        output::line(format_args!("classes: {}", shown.join(", ")))?;
    }
    for baseline in &look.baselines {
        output::line(format_args!("baseline: {} {:.4} {}", baseline.name, baseline.loss, baseline.unit))?;
    }
    Ok(())
}
