//! `mixerflow embed`.

use super::on::model_on;
use super::rows::{HEADS, Row, labels, rows};
use super::sources::check_layer;
use super::write::{write_table, wrote};
use crate::arguments::Embed;
use crate::{Result, output};
use flow_train::checkpoint::Opened;
use flow_train::data::{Dataset, Items, npy, npz};
use flow_train::{TrainError, embed, write_whole};
use std::path::Path;

pub(crate) fn run(arguments: &Embed) -> Result<()> {
    let opened = model_on(&arguments.run, arguments.on.device)?;
    let items = arguments.data.choose(&arguments.run, &opened, |_| arguments.part.into())?.items;
    check_layer(&opened, &items, arguments.layer.as_deref())?;
    let out = arguments.out.as_path();
    let is = |ending: &str| out.extension().is_some_and(|e| e.eq_ignore_ascii_case(ending));
    let known = rows(&items, &labels(&items, arguments.batch)?);
    if is("npz") {
        write_archive(out, arguments, &opened, &items, &known)?;
    } else if is("csv") {
        write_joined(out, arguments, &opened, &items, &known)?;
    } else {
        write_whole(out, |file| {
            let mut array = npy::Writer::new(file, out, &[items.len(), opened.model.event().len()])?;
            each(arguments, &opened, &items, |rows| Ok(array.write(rows)?))?;
            Ok::<_, crate::Error>(array.finish()?)
        })?;
        if out.is_file() {
            let index = out.with_extension("index.csv");
            let heads = HEADS.map(str::to_owned);
            write_table(&index, &heads, known.iter().map(|row| row.cells().to_vec()))?;
            output::say(format_args!("{}: row, part, name and label of each", index.display()));
        }
    }
    wrote(out, items.len());
    Ok(())
}

/// The activations of all items, batch by batch.
fn each(arguments: &Embed, opened: &Opened<f32>, items: &Items, to: impl FnMut(&[f32]) -> Result<(), TrainError>) -> Result<()> {
    let layer = arguments.layer.as_deref().unwrap_or("bijector");
    Ok(embed(&opened.model, items, &opened.events, layer, arguments.batch, to)?)
}

fn write_archive(out: &Path, arguments: &Embed, opened: &Opened<f32>, items: &Items, known: &[Row]) -> Result<()> {
    write_whole(out, |file| {
        let mut archive = npz::Writer::new(file, out);
        archive.floats("z", &[items.len(), opened.model.event().len()], |array| {
            each(arguments, opened, items, |rows| Ok(array.write(rows)?))
        })?;
        archive.integers("row", known.iter().map(|row| i64::try_from(row.number).unwrap_or(i64::MAX)))?;
        for (name, cells) in [("part", 1), ("name", 2), ("label", 3)] {
            archive.strings(name, &known.iter().map(|row| row.cells()[cells].clone()).collect::<Vec<_>>())?;
        }
        Ok::<_, crate::Error>(archive.finish()?)
    })
}

fn write_joined(out: &Path, arguments: &Embed, opened: &Opened<f32>, items: &Items, known: &[Row]) -> Result<()> {
    let width = opened.model.event().len();
    let mut values = Vec::with_capacity(items.len().saturating_mul(width));
    each(arguments, opened, items, |rows| {
        values.extend_from_slice(rows);
        Ok(())
    })?;
    let heads: Vec<String> = HEADS.map(str::to_owned).into_iter().chain((0..width).map(|i| format!("z{i}"))).collect();
    let joined = known.iter().zip(values.chunks_exact(width.max(1)));
    write_table(out, &heads, joined.map(|(row, z)| row.cells().into_iter().chain(z.iter().map(f32::to_string)).collect()))
}
