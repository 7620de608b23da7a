//! `mixerflow decode`.

use super::on::model_on;
use super::write::{Form, write_events};
use crate::Result;
use crate::arguments::Decode;
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
    let latents = latents(&arguments.latents, opened.model.event().len())?;
    let mut events = Vec::with_capacity(latents.len());
    let rows = arguments.batch.saturating_mul(opened.model.event().len()).max(1);
    for batch in latents.chunks(rows) {
        let given = EventBatch::of_values(batch.to_vec(), batch.len() / opened.model.event().len().max(1));
        let cx = given.context(&opened.model, 0, Purpose::Map)?.without_log_det();
        events.extend(opened.model.decode(given.values, &cx)?);
    }
    write_events(&arguments.out, form, &opened, &events, COLUMNS)
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
