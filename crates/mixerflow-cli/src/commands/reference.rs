//! What usual items score with the model of a run, to compare others with.

use super::sources::{Begun, Chosen, choose};
use crate::arguments::Device;
use crate::{Result, output};
use flow_train::checkpoint::Opened;
use flow_train::data::{Dataset, Items, Part, Subset};
use flow_train::scores::{Kind, Measures, Reference, measure};
use flow_train::{EvaluateOptions, RunFolder, score};
use std::path::Path;
use std::sync::Arc;

/// The most reference items: beyond them ranks hardly get finer, and nobody waits for more.
const MOST: usize = 2048;

/// How reference items are scored.
fn options() -> EvaluateOptions {
    EvaluateOptions { estimates: 16, ..EvaluateOptions::default() }
}

/// The background model that is subtracted, if there is one.
pub(super) fn background(run: Option<&Path>, opened: &Opened<f32>, device: Device) -> Result<Option<Opened<f32>>> {
    let Some(run) = run else { return Ok(None) };
    let background = super::on::model_on(run, device)?;
    let (own, other) = (opened.events.levels(), background.events.levels());
    if own != other || opened.events.kind() != background.events.kind() {
        let text = |levels: Option<u32>| levels.map_or("real numbers".to_owned(), |levels| format!("{levels} levels"));
        let (shape, background_shape) = (opened.model.event(), background.model.event());
        return Err(format!(
            "--minus {}: expected a model of {shape} in {} like the other one, got one of {background_shape} in {}",
            run.display(),
            text(own),
            text(other)
        )
        .into());
    }
    Ok(Some(background))
}

/// Measures of items, with the ratio to a background model if there is one. Standard errors of estimates come with
/// them.
pub(super) fn measured(
    opened: &Opened<f32>,
    background: Option<&Opened<f32>>,
    items: &dyn Dataset,
    options: &EvaluateOptions,
) -> Result<(flow_train::Scores, Measures)> {
    let (scores, mut measures) = measure(&opened.model, items, &opened.events, options)?;
    if let Some(background) = background {
        let unit_of_nats = background.events.report(0.0) - background.events.report(1.0);
        let density = |density: &f64| -background.events.report(*density) / unit_of_nats;
        let found = score(&background.model, items, &background.events, options)?.log_likelihood;
        measures = measures.minus(&found.iter().map(density).collect::<Vec<f64>>());
    }
    Ok((scores, measures))
}

/// The reference items of a run: those that it has kept, or else its validation items, which are scored now. Why there
/// are none is told.
pub(super) fn reference(run: &Path, opened: &Opened<f32>, background: Option<&Opened<f32>>) -> Result<Option<Reference>> {
    let Some((folder, begun)) = Begun::near(run) else {
        output::say(format_args!(
            "there are no reference items to compare with, as {} does not lie in the folder of a run: p-values and `unusual` are left out",
            run.display()
        ));
        return Ok(None);
    };
    let path = RunFolder::reference(folder);
    let model = opened.fingerprint()?;
    if background.is_none() {
        match Reference::read(&path, &model) {
            Ok(Some(kept)) => return Ok(Some(kept)),
            Ok(None) => {}
            Err(error) => output::say(format_args!("warning: {error}: made anew")),
        }
    }
    let chosen = choose(&begun.data, opened, Some(&begun), |_| Some(Part::Validation));
    let items = match chosen {
        Ok(Chosen { items, seen: true, .. }) => items,
        other => {
            let why =
                other.err().map_or_else(|| format!("{} is not as it was when the run was begun on it", begun.data), |e| e.to_string());
            output::say(format_args!("there are no reference items to compare with: p-values and `unusual` are left out ({why})"));
            return Ok(None);
        }
    };
    let reference = of_items(opened, background, items, model)?;
    if background.is_none() {
        keep(&reference, &path);
    }
    Ok(Some(reference))
}

/// Scores the validation items of a run at its end, and keeps what they measure.
pub(super) fn keep_reference(run: &Path, opened: &Opened<f32>, items: &Items) -> Result<Option<Reference>> {
    let items = items.only(Part::Validation);
    if items.is_empty() {
        return Ok(None);
    }
    let reference = of_items(opened, None, items, opened.fingerprint()?)?;
    keep(&reference, &RunFolder::reference(run));
    Ok(Some(reference))
}

/// Scores validation items, every so many of them where there are too many.
fn of_items(opened: &Opened<f32>, background: Option<&Opened<f32>>, items: Items, model: String) -> Result<Reference> {
    let every = items.len().div_ceil(MOST).max(1);
    let chosen: Vec<usize> = (0..items.len()).step_by(every).collect();
    let items = Subset::new(Arc::new(items), chosen)?;
    let (_, measures) = measured(opened, background, &items, &options())?;
    let sources = (0..items.len()).map(|item| items.source(item)).collect();
    Ok(Reference::new(Kind::of(&items), measures, sources, model))
}

/// A run that cannot be written to is scored all the same.
fn keep(reference: &Reference, path: &Path) {
    if let Err(error) = reference.write(path) {
        tracing::warn!("{error}: reference items are scored anew each time");
    }
}
