//! Events of a model to files: numbers, tables, pictures.

use crate::{Result, output};
use flow_train::checkpoint::Opened;
use flow_train::data::npy::{Number, Writer};
use flow_train::data::{ItemShape, column_names};
use flow_train::picture::save_image;
use flow_train::text;
use flow_train::{draw_events, shades, write_whole};
use std::path::Path;

/// What a path asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// `.npy`.
    Array,
    /// `.csv`.
    Table,
    /// `.png`.
    Grid,
    /// One PNG an event.
    Folder,
}

impl Form {
    /// Told by the ending.
    pub(super) fn of(out: &Path) -> Result<Self> {
        // A folder that is not there yet has no ending, or a slash behind it.
        if out.is_dir() || out.extension().is_none() || out.as_os_str().as_encoded_bytes().ends_with(b"/") {
            return Ok(Self::Folder);
        }
        let ending = out.extension().unwrap_or_default().to_ascii_lowercase();
        match ending.to_str() {
            Some("npy") => Ok(Self::Array),
            Some("csv") => Ok(Self::Table),
            Some("png") => Ok(Self::Grid),
            _ => {
                let expected = "expected FILE.png, FILE.npy, FILE.csv or a folder; of a new folder with a dot end the name in /";
                Err(format!("--out {}: {expected}", out.display()).into())
            }
        }
    }
}

/// What else than pictures events can be written as.
pub(super) const NUMBERS: &str = "; write them to a .npy or .csv file";

/// Checks that the events of a model are pictures, before anything is computed for them; `else_what` says what can be
/// done with others.
pub(super) fn makes_pictures(out: &Path, opened: &Opened<f32>, else_what: &str) -> Result<()> {
    match opened.events.kind().item() {
        ItemShape::Image { .. } => Ok(()),
        ItemShape::Vector { .. } => {
            let (out, event) = (out.display(), opened.model.event());
            Err(format!("{out}: events of shape {event} make no picture{else_what}").into())
        }
    }
}

/// Writes events; a grid has `columns` pictures in a row.
pub(super) fn write_events(out: &Path, form: Form, opened: &Opened<f32>, events: &[f32], columns: usize) -> Result<()> {
    let width = opened.model.event().len();
    let count = events.len() / width.max(1);
    match form {
        Form::Array => write_whole(out, |file| -> Result<()> {
            match opened.events.reals() {
                // Offsets large beside the spread are lost in f32.
                Some(reals) => write_array(file, out, count, &reals.to_values(events)),
                None => write_array(file, out, count, events),
            }
        })?,
        Form::Table => {
            let numbered = || (1..=width).map(|i| format!("x{i}")).collect();
            let own = |names: Vec<&str>| names.into_iter().map(str::to_owned).collect();
            let names: Vec<String> = column_names(&opened.events.record().columns).map_or_else(numbered, own);
            let cells: Vec<String> = match opened.events.reals() {
                Some(reals) => reals.to_values(events).iter().map(f64::to_string).collect(),
                None => events.iter().map(f32::to_string).collect(),
            };
            write_table(out, &names, cells.chunks_exact(width.max(1)).map(<[String]>::to_vec))?;
        }
        Form::Grid => draw_events(out, events, &opened.events, columns)?,
        Form::Folder => {
            let (shades, levels) = shades(events, &opened.events)?;
            std::fs::create_dir_all(out).map_err(|e| format!("{}: {e}", out.display()))?;
            for (i, image) in shades.chunks_exact(width.max(1)).enumerate() {
                save_image(&out.join(format!("{i:06}.png")), image, opened.events.kind().item(), levels)?;
            }
        }
    }
    wrote(out, count);
    Ok(())
}

/// Writes `count` rows of numbers.
fn write_array<T: Number>(file: impl std::io::Write, out: &Path, count: usize, values: &[T]) -> Result<()> {
    let mut array = Writer::new(file, out, &[count, values.len() / count.max(1)])?;
    array.write(values)?;
    Ok(array.finish()?)
}

/// Writes a table.
pub(super) fn write_table(out: &Path, heads: &[String], rows: impl Iterator<Item = Vec<String>>) -> Result<()> {
    write_whole(out, |file| {
        let mut table = csv::Writer::from_writer(file);
        table.write_record(heads)?;
        for row in rows {
            table.write_record(row)?;
        }
        Ok(table.flush().map_err(|e| format!("{}: {e}", out.display()))?)
    })
}

/// Says what was written.
pub(super) fn wrote(out: &Path, count: usize) {
    output::say(format_args!("{}: {}", out.display(), text::count(count, "event")));
}
