//! `mixerflow interpolate`.

use super::on::model_on;
use super::sources::{fits, test_part};
use crate::arguments::Interpolate;
use crate::{Result, output};
use flow_train::data::{Dataset, Draw};
use flow_train::{EventBatch, ScoredGiven, draw_events, interpolate};

pub(crate) fn run(arguments: &Interpolate) -> Result<()> {
    let opened = model_on(&arguments.run, arguments.on.device)?;
    let items = arguments.data.choose(&arguments.run, &opened, test_part(arguments.part))?.items;
    let shape = opened.model.event();
    fits("--steps", arguments.steps.saturating_mul(arguments.pair.len()), shape)?;
    let events = opened.events.evaluating(&items, &opened.model, ScoredGiven::Own)?;
    let ends = |i: usize, j: usize| -> Result<EventBatch<f32>> {
        if let Some(index) = [i, j].into_iter().find(|index| *index >= items.len()) {
            return Err(format!("--pair: there is no item {index}: there are {}", items.len()).into());
        }
        Ok(events.of(&items.batch(&[i, j].map(|index| Draw { epoch: 0, index }))?)?)
    };
    let mut way = Vec::new();
    for &(i, j) in &arguments.pair {
        way.extend(interpolate(&opened.model, ends(i, j)?, arguments.steps)?);
    }
    draw_events(&arguments.out, &way, &opened.events, arguments.steps)?;
    output::say(format_args!("{}: {} rows of {} pictures", arguments.out.display(), arguments.pair.len(), arguments.steps));
    Ok(())
}
