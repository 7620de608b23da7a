//! `mixerflow predict`.

use super::rows::{HEADS, rows};
use super::sources::model;
use super::write::write_table;
use crate::arguments::Predict;
use crate::{Result, output};
use flow_train::data::Dataset;
use flow_train::score;

pub(crate) fn run(arguments: &Predict) -> Result<()> {
    let opened = model(&arguments.run)?;
    if opened.model.head().is_none() {
        let run = arguments.run.display();
        return Err(format!(
            "{run}: the model has no classifier: its spec has no `objective: Hybrid(…)`; `mixerflow probe` fits one to its latents"
        )
        .into());
    }
    let options = arguments.scoring.options();
    let items = arguments.data.choose(&arguments.run, &opened, |_| arguments.part.into())?.items;
    let scores = score(&opened.model, &items, &opened.events, &options)?;
    let Some(log_probs) = scores.class_log_probs else { return Err("the model gave no class probabilities".into()) };
    let classes = opened.events.record().class_names(log_probs.classes);
    let heads = HEADS.iter().map(|head| (*head).to_owned()).chain(classes.iter().cloned()).chain(["predicted".to_owned()]);
    let heads: Vec<String> = heads.collect();
    let lines = rows(&items, &scores.labels).into_iter().enumerate().map(|(item, row)| {
        let own = log_probs.of(item).unwrap_or_default();
        let predicted = log_probs.predicted(item).map(|class| classes[class].clone()).unwrap_or_default();
        let probabilities = own.iter().map(|log_prob| log_prob.exp().to_string());
        row.cells().into_iter().chain(probabilities).chain([predicted]).collect()
    });
    if let Some(path) = &arguments.out {
        write_table(path, &heads, lines)?;
        output::say(format_args!("{}: {} items, {} classes", path.display(), items.len(), classes.len()));
    } else {
        let mut table = csv::Writer::from_writer(Vec::new());
        table.write_record(&heads)?;
        lines.into_iter().try_for_each(|line: Vec<String>| table.write_record(line))?;
        output::print(String::from_utf8(table.into_inner()?)?)?;
    }
    Ok(())
}
