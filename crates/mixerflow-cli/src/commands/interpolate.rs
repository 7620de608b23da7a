//! `mixerflow interpolate`.

use super::sources::{fits, model};
use crate::Result;
use crate::arguments::Interpolate;
use flow_train::data::Draw;
use flow_train::{draw_events, interpolate};

pub(crate) fn run(arguments: &Interpolate) -> Result<()> {
    let opened = model(&arguments.run)?;
    let parts = arguments.data.parts(arguments.part, opened.settings.seed)?;
    let shape = opened.model.event();
    for (_, data) in &parts {
        opened.events.check(data.as_ref(), shape)?;
    }
    fits("--steps", arguments.steps.saturating_mul(arguments.pair.len()), shape)?;
    let events = opened.events.for_evaluation();
    let event = |index: usize| -> Result<Vec<f32>> {
        let mut at = index;
        for (_, data) in &parts {
            if at < data.len() {
                return Ok(events.of(&data.batch(&[Draw { epoch: 0, index: at }])?)?.0);
            }
            at -= data.len();
        }
        Err(format!("--pair: there is no item {index}").into())
    };
    let mut way = Vec::new();
    for &(i, j) in &arguments.pair {
        way.extend(interpolate(&opened.model, &event(i)?, &event(j)?, arguments.steps)?);
    }
    Ok(draw_events(&arguments.out, &way, &opened.events, arguments.steps)?)
}
