//! `mixerflow interpolate`.

use super::on::model_on;
use super::sources::{fits, test_part};
use crate::arguments::Interpolate;
use crate::{Result, output};
use flow_train::data::{Dataset, Draw};
use flow_train::{draw_events, interpolate};

pub(crate) fn run(arguments: &Interpolate) -> Result<()> {
    let opened = model_on(&arguments.run, arguments.on.device)?;
    let items = arguments.data.choose(&arguments.run, &opened, test_part(arguments.part))?.items;
    let shape = opened.model.event();
    fits("--steps", arguments.steps.saturating_mul(arguments.pair.len()), shape)?;
    let events = opened.events.for_evaluation();
    let event = |index: usize| -> Result<Vec<f32>> {
        if index >= items.len() {
            return Err(format!("--pair: there is no item {index}: there are {}", items.len()).into());
        }
        Ok(events.of(&items.batch(&[Draw { epoch: 0, index }])?)?.values)
    };
    let mut way = Vec::new();
    for &(i, j) in &arguments.pair {
        way.extend(interpolate(&opened.model, &event(i)?, &event(j)?, arguments.steps)?);
    }
    draw_events(&arguments.out, &way, &opened.events, arguments.steps)?;
    output::say(format_args!("{}: {} rows of {} pictures", arguments.out.display(), arguments.pair.len(), arguments.steps));
    Ok(())
}
