//! `mixerflow predict`.

use super::on::model_on;
use super::rows::{HEADS, rows};
use super::write::write_table;
use crate::arguments::Predict;
use crate::{Result, output};
use flow_api::spec::Conditioner;
use flow_train::checkpoint::Opened;
use flow_train::classify::ClassLogProbs;
use flow_train::data::{Dataset, Items};
use flow_train::text::count;
use flow_train::{EvaluateOptions, score, score_every_class};

pub(crate) fn run(arguments: &Predict) -> Result<()> {
    let opened = model_on(&arguments.run, arguments.on.device)?;
    let is_conditioned = opened.model.conditioner().and_then(Conditioner::classes).is_some();
    if opened.model.head().is_none() && !is_conditioned {
        let run = arguments.run.display();
        return Err(format!(
            "{run}: the model has no classifier: its spec has neither `objective: Hybrid(…)` nor `condition: Classes(…)`; \
             `mixerflow probe` fits one to its latents"
        )
        .into());
    }
    let options = arguments.scoring.options();
    let items = arguments.data.choose(&arguments.run, &opened, |_| arguments.part.into())?.items;
    let (labels, log_probs) = class_log_probs(&opened, &items, &options)?;
    let classes = opened.events.record().class_names(log_probs.classes);
    let heads = HEADS.iter().map(|head| (*head).to_owned()).chain(classes.iter().cloned()).chain(["predicted".to_owned()]);
    let heads: Vec<String> = heads.collect();
    let lines = rows(&items, &labels).into_iter().enumerate().map(|(item, row)| {
        let own = log_probs.of(item).unwrap_or_default();
        let predicted = log_probs.predicted(item).map(|class| classes[class].clone()).unwrap_or_default();
        let probabilities = own.iter().map(|log_prob| log_prob.exp().to_string());
        row.cells().into_iter().chain(probabilities).chain([predicted]).collect()
    });
    if let Some(path) = &arguments.out {
        write_table(path, &heads, lines)?;
        output::say(format_args!("{}: {}, {}", path.display(), count(items.len(), "item"), count(classes.len(), "class")));
    } else {
        let mut table = csv::Writer::from_writer(Vec::new());
        table.write_record(&heads)?;
        lines.into_iter().try_for_each(|line: Vec<String>| table.write_record(line))?;
        output::print(String::from_utf8(table.into_inner()?)?)?;
    }
    Ok(())
}

/// The label of every item, and its log-probabilities of the model's classes: those of the classifier, if the model has
/// one, else by Bayes' rule.
fn class_log_probs(opened: &Opened<f32>, items: &Items, options: &EvaluateOptions) -> Result<(Vec<Option<usize>>, ClassLogProbs)> {
    if opened.model.head().is_some() {
        let scores = score(&opened.model, items, &opened.events, options)?;
        let log_probs = scores.class_log_probs.ok_or("the model gave no class probabilities")?;
        return Ok((scores.labels, log_probs));
    }
    output::say("by Bayes' rule, with the classes' shares of the training items");
    let every = score_every_class(&opened.model, items, &opened.events, options)?;
    let labels = every.scores.into_iter().next().map(|scores| scores.labels).unwrap_or_default();
    Ok((labels, every.log_probs))
}
