//! `mixerflow sample`.

use super::given::Rows;
use super::on::model_on;
use super::sources::fits;
use super::write::{Form, NUMBERS, makes_pictures, write_events, wrote};
use crate::arguments::Sample;
use crate::{Result, output};
use flow_api::Conditions;
use flow_train::checkpoint::Opened;
use flow_train::{Drawing, Guidance, draw_samples, drawn_conditions, sample_given, sample_guided};

/// Samples where nothing says how many.
const COUNT: usize = 32;

pub(crate) fn run(arguments: &Sample) -> Result<()> {
    let Sample { temperature, seed, out, .. } = arguments;
    let columns = arguments.columns();
    if arguments.count == Some(0) {
        return Err("--count: expected at least 1, got 0".into());
    }
    let form = Form::of(out)?;
    let opened = model_on(&arguments.run, arguments.on.device)?;
    // Unguided, a grid may be a cloud of points of the plane too.
    if form == Form::Folder || form == Form::Grid && arguments.guidance.is_some() {
        makes_pictures(out, &opened, NUMBERS)?;
    }
    let rows = arguments.given.rows(&opened)?;
    let (count, given) = conditions(arguments, form, &opened, rows.as_ref())?;
    let temperature = f64::from(*temperature);
    if form == Form::Grid && arguments.guidance.is_none() {
        let drawing = Drawing { count: Some(count), columns, temperature, seed: *seed, half_side: None };
        if draw_samples(out, &opened.model, &opened.events, &drawing, Some(&given))? {
            wrote(out, count);
            return Ok(());
        }
        return makes_pictures(out, &opened, NUMBERS);
    }
    let samples = match arguments.guidance {
        None => sample_given(&opened.model, &given, count, temperature, *seed)?,
        Some(weight) => {
            let guidance = Guidance { weight, candidates: arguments.candidates };
            let guided = sample_guided(&opened.model, &given, count, temperature, *seed, guidance)?;
            output::say(format_args!(
                "guided by {weight}: of {} candidates a sample {:.1} counted",
                arguments.candidates, guided.effective
            ));
            guided.values
        }
    };
    write_events(out, form, &opened, &samples, columns)
}

/// How many samples there are, and what each is given.
fn conditions(arguments: &Sample, form: Form, opened: &Opened<f32>, rows: Option<&Rows>) -> Result<(usize, Conditions)> {
    let Some(rows) = rows else {
        let count = arguments.count.unwrap_or(COUNT);
        fits("--count", count, opened.model.event())?;
        return Ok((count, drawn_conditions(&opened.model, opened.events.record(), count, arguments.seed)?));
    };
    // A row of a file is a row of a grid; a class is one for all samples.
    let by_row = if form == Form::Grid { arguments.columns() } else { 1 };
    let each = arguments.count.unwrap_or(if arguments.given.class.is_some() { COUNT } else { by_row });
    let count = rows.count.saturating_mul(each);
    fits("--count", count, opened.model.event())?;
    Ok((count, rows.each(each)))
}
