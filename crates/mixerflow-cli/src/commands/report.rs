//! `mixerflow report`, and the report that `train` writes at its end.

use super::against::{self, Scored};
use super::by_class::ByClass;
use super::diagnostics;
use super::on::model_on;
use super::reference::reference;
use super::sources::{Begun, choose, skipping};
use crate::arguments::Report as Arguments;
use crate::{Result, output};
use flow_api::module::parameter_count;
use flow_api::spec::{Conditioner, to_ron};
use flow_train::checkpoint::Opened;
use flow_train::data::{Dataset, Items, Part, Subset};
use flow_train::diagnostics::is_table;
use flow_train::report::{Report, Set};
use flow_train::scores::Reference;
use flow_train::text::count;
use flow_train::{Baseline, EvaluateOptions, Evaluation, Look, RunFolder, evaluate, score_every_class};
use std::path::Path;
use std::sync::Arc;

/// The most items of a set that are looked at: nobody waits for more.
const MOST: usize = 2048;
/// Pictures of each kind on the sheet.
const TOP: usize = 32;

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let opened = model_on(&arguments.run, arguments.on.device)?;
    let Some((folder, begun)) = Begun::near(&arguments.run) else {
        return Err(format!("{}: expected the folder of a run, or a checkpoint in one", arguments.run.display()).into());
    };
    let own = choose(&skipping(&begun.data, arguments.data.skip_bad), &opened, Some(&begun), |_| None);
    let own = match own {
        Ok(chosen) if chosen.seen => Some(chosen.items),
        other => {
            let why = other.err().map_or_else(|| "it is not as it was when the run was begun on it".to_owned(), |e| e.to_string());
            output::say(format_args!("the report is without the run's own data: {why}"));
            None
        }
    };
    let mut sets = Vec::new();
    if let Some(source) = &arguments.data.data {
        let chosen = arguments.data.choose(&arguments.run, &opened, |_| None)?;
        sets.push((source.to_string(), chosen.items));
    }
    let mut against = Vec::new();
    for source in &arguments.against {
        let source = skipping(source, arguments.data.skip_bad);
        against.push((source.to_string(), choose(&source, &opened, None, |_| None)?.items));
    }
    let reference = reference(&arguments.run, &opened, None)?;
    let out = arguments.out.clone().unwrap_or_else(|| RunFolder::report(folder));
    write(folder, &opened, &Shown { own, sets, against, reference }, &out)?;
    Ok(output::line(out.display())?)
}

/// What a report is of.
pub(super) struct Shown {
    /// The run's own items.
    pub(super) own: Option<Items>,
    /// Other sets to look at, and sets whose items count as unusual, by name.
    pub(super) sets: Vec<(String, Items)>,
    pub(super) against: Vec<(String, Items)>,
    pub(super) reference: Option<Reference>,
}

/// Writes the report of the run in a folder.
pub(super) fn write(folder: &Path, opened: &Opened<f32>, shown: &Shown, out: &Path) -> Result<()> {
    let plan = RunFolder::read_plan(folder)?;
    let history = RunFolder::history(folder).unwrap_or_default();
    let name = folder.file_name().unwrap_or(folder.as_os_str()).to_string_lossy().into_owned();
    let steps = history.last().map_or(0, |last| last.step);
    let now = jiff::Zoned::now().strftime("%Y-%m-%d %H:%M");
    let mut report =
        Report::new(&name, &format!("Trained on {} for {steps} of {}. Written on {now}.", plan.data, count(plan.settings.steps, "step")));
    report.model(&facts(opened)?, &[("spec.ron", to_ron(&opened.spec)?), ("settings.ron", to_ron(&opened.settings)?)]);
    report.curves(&name, &history, opened.events.unit())?;

    let part = |part| shown.own.as_ref().map(|own| own.only(part)).filter(|items| !items.is_empty());
    let mut losses = Vec::new();
    for (name, items) in [("training", part(Part::Train)), ("validation", part(Part::Validation)), ("test", part(Part::Test))] {
        let Some(items) = items else { continue };
        // One part tells how exactly the model inverts.
        let options = EvaluateOptions { likelihood_alone: name != "test", ..EvaluateOptions::default() };
        losses.push((name.to_owned(), evaluated(opened, &items, &options)?));
    }
    if !losses.is_empty() {
        report.losses(&losses, &baselines(part(Part::Train), part(Part::Test))?);
    }
    let usual = [Part::Test, Part::Validation].into_iter().find_map(|kind| Some((kind, part(kind)?)));
    if let Some((kind, items)) = &usual {
        classes(&mut report, opened, (&kind.to_string(), items), &losses)?;
        rows_and_samples(&mut report, opened, &kind.to_string(), items)?;
    }
    if let Some(train) = part(Part::Train) {
        report.samples(&opened.model, &opened.events, &train, opened.settings.seed)?;
    }
    scores(&mut report, opened, shown, usual.as_ref())?;
    Ok(report.write(out)?)
}

/// Whether class probabilities are what they say: of the classifier, or by Bayes' rule.
fn classes(report: &mut Report, opened: &Opened<f32>, (part, items): (&str, &Items), losses: &[(String, Evaluation)]) -> Result<()> {
    if let Some(found) = losses.iter().find(|(name, _)| name == part).and_then(|(_, found)| found.classification.as_ref()) {
        return Ok(report.calibration("The classifier", part, found)?);
    }
    if opened.model.conditioner().and_then(Conditioner::classes).is_none() {
        return Ok(());
    }
    let some = few(items)?;
    let every = score_every_class(&opened.model, &some, &opened.events, &EvaluateOptions::default())?;
    let by_class = ByClass::of(&every, &some, &opened.events);
    let Some(found) = by_class.classification() else { return Ok(()) };
    Ok(report.calibration("Bayes' rule with the densities of all classes", part, found)?)
}

/// How rows of a table compare with samples.
fn rows_and_samples(report: &mut Report, opened: &Opened<f32>, part: &str, items: &Items) -> Result<()> {
    if !is_table(&opened.events) {
        return Ok(());
    }
    let found = diagnostics::of(opened, items)?;
    let lines: Vec<Vec<String>> = diagnostics::lines(&found).into_iter().map(|(name, text)| vec![name.to_owned(), text]).collect();
    report.table("Rows beside samples", &["what", "is"].map(str::to_owned), &lines, 2);
    let Ok(found) = found else { return Ok(()) };
    report.table("", &diagnostics::HEADS.map(str::to_owned), &diagnostics::rows(&found), 1);
    Ok(report.diagnostics(part, &found)?)
}

/// Histograms, what separates the sets, and the most and least unusual items.
fn scores(report: &mut Report, opened: &Opened<f32>, shown: &Shown, usual: Option<&(Part, Items)>) -> Result<()> {
    let scored = |items: &Items| -> Result<(Subset, Scored)> {
        let some = few(items)?;
        let scored = Scored::of(opened, None, shown.reference.as_ref(), &some, &EvaluateOptions::default())?;
        Ok((some, scored))
    };
    let mut all = Vec::new();
    if let Some((part, items)) = usual {
        all.push((part.to_string(), scored(items)?));
    }
    for (name, items) in shown.sets.iter().chain(&shown.against) {
        all.push((name.clone(), scored(items)?));
    }
    let sets: Vec<Set<'_>> = all.iter().map(|(name, (items, scored))| Set { name, items, judged: scored.judged() }).collect();
    if sets.is_empty() {
        return Ok(());
    }
    report.histograms(&sets, &opened.events)?;
    report.note(&shown.reference.as_ref().map_or_else(
        || "There are no reference items to compare with: the run holds nothing out for validation.".to_owned(),
        |kept| format!("Compared with {} of the run; `unusual` comes from ranks among them.", count(kept.len(), "validation item")),
    ));
    let first = usual.map(|(part, _)| (part, &all[0].1.1));
    for (name, (_, unusual)) in all.iter().skip(all.len() - shown.against.len()) {
        let Some((part, usual)) = first else { continue };
        let lines = against::lines(usual, unusual, opened.settings.seed);
        report.table(
            &format!("How well scores tell {name} from {part} items"),
            &against::HEADS.map(str::to_owned),
            &against::rows(&lines),
            1,
        );
        for line in lines.iter().filter(|line| line.is_inverted()) {
            report.note(&format!("{} is inverted: by it those items are more usual than the others.", line.score()));
        }
    }
    // What was asked to be looked at, else the run's own.
    let looked_at = usize::from(first.is_some() && !shown.sets.is_empty());
    report.sheet(&sets[looked_at.min(sets.len() - 1)], &opened.events, TOP)?;
    Ok(())
}

fn facts(opened: &Opened<f32>) -> Result<Vec<(&'static str, String)>> {
    let table = opened.model.describe()?;
    let mut kinds: Vec<&str> = Vec::new();
    for layer in &table {
        if !kinds.contains(&layer.kind.as_str()) {
            kinds.push(&layer.kind);
        }
    }
    let (events, settings) = (&opened.events, &opened.settings);
    let values = events.levels().map_or("real numbers".to_owned(), |levels| format!("{levels} levels"));
    let facts = opened.model.flow().bijector().facts();
    Ok(vec![
        ("model", opened.spec.kind().to_owned()),
        ("events", format!("{} in {values}", opened.model.event())),
        ("layers", format!("{}: {}", table.len(), kinds.join(", "))),
        ("parameters", parameter_count(&opened.model).to_string()),
        ("log-det", facts.log_det.to_string()),
        ("inverse", facts.inverse.to_string()),
        ("training", format!("batches of {}, learning rate {}, seed {}", settings.batch, settings.learning_rate, settings.seed)),
    ])
}

/// Every so many items of a set.
fn few(items: &Items) -> Result<Subset> {
    let every = items.len().div_ceil(MOST).max(1);
    Ok(Subset::new(Arc::new(items.clone()), (0..items.len()).step_by(every).collect())?)
}

fn evaluated(opened: &Opened<f32>, items: &Items, options: &EvaluateOptions) -> Result<Evaluation> {
    Ok(evaluate(&opened.model, &few(items)?, &opened.events, options)?)
}

fn baselines(train: Option<Items>, test: Option<Items>) -> Result<Vec<Baseline>> {
    Ok(match (train, test) {
        (Some(train), Some(test)) => Look::at(&train, &test)?.baselines,
        _ => Vec::new(),
    })
}
