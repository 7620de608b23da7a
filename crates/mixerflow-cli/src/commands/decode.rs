//! `mixerflow decode`.

use super::given::Rows;
use super::on::model_on;
use super::write::{Form, NUMBERS, makes_pictures, write_events};
use crate::Result;
use crate::arguments::Decode;
use flow_api::Conditions;
use flow_train::checkpoint::Opened;
use flow_train::data::{Array, DataError, Numbers, npy, npz};
use flow_train::{EventBatch, Purpose};
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

pub(crate) fn run(arguments: &Decode) -> Result<()> {
    /// Pictures in a row of a grid.
    const COLUMNS: usize = 8;
    let form = Form::of(&arguments.out)?;
    let opened = model_on(&arguments.run, arguments.on.device)?;
    if matches!(form, Form::Grid | Form::Folder) {
        makes_pictures(&arguments.out, &opened, NUMBERS)?;
    }
    let latents = latents(&arguments.latents, opened.model.event().len())?;
    let mut events = Vec::with_capacity(latents.len());
    let width = opened.model.event().len().max(1);
    let conditions = conditions(arguments, &opened, latents.len() / width)?;
    for (number, batch) in latents.chunks(arguments.batch.saturating_mul(width).max(1)).enumerate() {
        let first = number * arguments.batch;
        let count = batch.len() / width;
        let given = EventBatch::of_values(batch.to_vec(), count).given(&conditions.part(first..first + count));
        let cx = given.context(&opened.model, 0, Purpose::Map)?.without_log_det();
        events.extend(opened.model.decode(given.values, &cx)?);
    }
    write_events(&arguments.out, form, &opened, &events, COLUMNS)
}

/// What every event is given: one row for all of them, or a row for each.
fn conditions(arguments: &Decode, opened: &Opened<f32>, events: usize) -> Result<Rows> {
    match arguments.given.rows(opened)? {
        None => Ok(Rows { conditions: Conditions::Nothing, count: events }),
        Some(rows) if rows.count == 1 => Ok(Rows { conditions: rows.each(events), count: events }),
        Some(rows) if rows.count == events => Ok(rows),
        Some(rows) => Err(format!("--given: expected 1 row, or one for each of {events} latents, got {}", rows.count).into()),
    }
}

/// Rows of as many numbers as an event has.
fn latents(path: &Path, width: usize) -> Result<Vec<f32>> {
    let file = BufReader::new(File::open(path).map_err(|source| DataError::Io { path: path.to_owned(), source })?);
    let is_archive = path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("npz"));
    let Array { shape, numbers } = if is_archive { npz::read(path, file, "z") } else { npy::read(path, file) }?;
    let [count, columns] = shape[..] else {
        return Err(format!("{}: expected rows of {width} latents, got an array of shape {shape:?}", path.display()).into());
    };
    let Numbers::Floats(values) = numbers else {
        return Err(format!("{}: expected real numbers, got integers", path.display()).into());
    };
    if columns != width || count == 0 {
        return Err(format!("{}: expected rows of {width} latents, got {count} rows of {columns}", path.display()).into());
    }
    // Latents are written as f32.
    #[expect(clippy::cast_possible_truncation, reason = "the model computes in f32")]
    Ok(values.into_iter().map(|value| value as f32).collect())
}
