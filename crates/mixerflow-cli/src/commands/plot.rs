//! `mixerflow plot`.

use super::sources::model;
use crate::Result;
use crate::arguments::Plot;
use flow_train::RunFolder;
use flow_train::picture::{Theme, save_curves};

pub(crate) fn run(arguments: &Plot) -> Result<()> {
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
