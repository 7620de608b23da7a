//! `mixerflow plot`.

use super::diagnostics;
use super::sources::{model, test_part};
use crate::arguments::{Data, Plot};
use crate::{Result, output};
use flow_train::diagnostics::is_table;
use flow_train::picture::{Theme, save_curves};
use flow_train::text::count;
use flow_train::{RunFolder, write_whole};
use std::io::Write as _;

pub(crate) fn run(arguments: &Plot) -> Result<()> {
    if arguments.corner {
        return corner(arguments);
    }
    let mut runs = Vec::new();
    let mut unit = None;
    for run in &arguments.runs {
        let opened = model(run)?;
        let own = opened.events.unit();
        if *unit.get_or_insert(own) != own {
            return Err(format!("{}: its losses are in {own}, those of the first run are not", run.display()).into());
        }
        runs.push((run.file_name().unwrap_or_default().to_string_lossy().into_owned(), RunFolder::history(run)?));
    }
    let runs: Vec<_> = runs.iter().map(|(name, history)| (name.as_str(), history.as_slice())).collect();
    let theme = if arguments.dark { Theme::Dark } else { Theme::Light };
    Ok(save_curves(&arguments.out, &runs, unit.unwrap_or_default(), theme)?)
}

/// Rows of a table beside samples.
fn corner(arguments: &Plot) -> Result<()> {
    let [run] = arguments.runs.as_slice() else {
        return Err(format!("--corner: expected one run, got {}", arguments.runs.len()).into());
    };
    let out = &arguments.out;
    if !out.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("svg")) {
        return Err(format!("--out {}: expected FILE.svg for a corner plot", out.display()).into());
    }
    let opened = model(run)?;
    if !is_table(&opened.events) {
        return Err(format!("--corner: expected a run on a table of real numbers, got events of shape {}", opened.model.event()).into());
    }
    let data = Data { data: arguments.data.clone(), skip_bad: false };
    let chosen = data.choose(run, &opened, test_part(arguments.part))?;
    let found = diagnostics::of(&opened, &chosen.items)?.map_err(|failure| format!("there are no samples to draw: {failure}"))?;
    let plot = found.corner_plot()?;
    write_whole(out, |file| -> Result<()> { Ok(file.write_all(plot.as_bytes())?) })?;
    output::say(format_args!("{}: {}, and a sample for each", out.display(), count(found.rows, "row")));
    Ok(())
}
