//! `mixerflow interpolate`.

use super::on::model_on;
use super::sources::{fits, test_part};
use super::write::makes_pictures;
use crate::arguments::Interpolate;
use crate::{Result, output};
use flow_train::data::{Dataset, Draw};
use flow_train::text::count;
use flow_train::{EventBatch, ScoredGiven, draw_events, interpolate};

pub(crate) fn run(arguments: &Interpolate) -> Result<()> {
    let opened = model_on(&arguments.run, arguments.on.device)?;
    makes_pictures(&arguments.out, &opened, "")?;
    let items = arguments.data.choose(&arguments.run, &opened, test_part(arguments.part))?.items;
    let shape = opened.model.event();
    fits("--steps", arguments.steps.saturating_mul(arguments.pair.len()), shape)?;
    let events = opened.events.evaluating(&items, &opened.model, ScoredGiven::Own)?;
    if let Some(index) = arguments.pair.iter().flat_map(|&(i, j)| [i, j]).find(|index| *index >= items.len()) {
        return Err(format!("--pair: there is no item {index}: there are {}", items.len()).into());
    }
    let ends =
        |i: usize, j: usize| -> Result<EventBatch<f32>> { Ok(events.of(&items.batch(&[i, j].map(|index| Draw { epoch: 0, index }))?)?) };
    let mut way = Vec::new();
    for &(i, j) in &arguments.pair {
        way.extend(interpolate(&opened.model, ends(i, j)?, arguments.steps)?);
    }
    draw_events(&arguments.out, &way, &opened.events, arguments.steps)?;
    output::say(format_args!(
        "{}: {} of {}",
        arguments.out.display(),
        count(arguments.pair.len(), "row"),
        count(arguments.steps, "picture")
    ));
    Ok(())
}
