//! `mixerflow sample`.

use super::on::model_on;
use super::sources::fits;
use super::write::{Form, write_events, wrote};
use crate::Result;
use crate::arguments::Sample;
use flow_train::{Drawing, draw_samples, sample};

pub(crate) fn run(arguments: &Sample) -> Result<()> {
    let Sample { count, temperature, seed, columns, out, .. } = arguments;
    if *count == 0 {
        return Err("--count: expected at least 1, got 0".into());
    }
    let form = Form::of(out)?;
    let opened = model_on(&arguments.run, arguments.on.device)?;
    fits("--count", *count, opened.model.event())?;
    if form == Form::Grid {
        let drawing =
            Drawing { count: Some(*count), columns: *columns, temperature: f64::from(*temperature), seed: *seed, half_side: None };
        if draw_samples(out, &opened.model, &opened.events, &drawing)? {
            wrote(out, *count);
            return Ok(());
        }
        return Err(format!(
            "{}: events of shape {} make no picture; write them to a .npy or .csv file",
            out.display(),
            opened.model.event()
        )
        .into());
    }
    let samples = sample(&opened.model, *count, f64::from(*temperature), *seed)?;
    write_events(out, form, &opened, &samples, *columns)
}
