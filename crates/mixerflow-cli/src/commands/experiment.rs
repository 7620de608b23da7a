//! `mixerflow experiment`.

use super::followed::follow;
use super::sources::{read_text, spec};
use crate::Result;
use crate::arguments::Experiment;
use flow_api::spec::from_ron;
use flow_train::study::{Study, StudyData};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

pub(crate) fn run(arguments: &Experiment, threads: Option<usize>) -> Result<ExitCode> {
    let path = &arguments.study;
    let at = |e: &dyn std::fmt::Display| format!("{}:{e}", path.display());
    let mut study: Study = from_ron(&read_text(path, "a study")?).map_err(|e| at(&e))?;
    for (name, source) in &arguments.data {
        let known: Vec<String> = study.data.iter().map(|data| data.name.clone()).collect();
        let Some(data) = study.data.iter_mut().find(|data| data.name == *name) else {
            return Err(format!("--data {name}={source}: the study has no data `{name}`; there are: {}", known.join(", ")).into());
        };
        *data = StudyData { name: name.clone(), source: source.clone() };
    }
    if arguments.short {
        study = study.shortened().map_err(|e| at(&format_args!(" {e}")))?;
    }
    study.settings.threads = threads.or(study.settings.threads);
    // Specs lie where the paths say, or beside the study.
    let beside = path.parent().unwrap_or(Path::new(""));
    let study = study.with_specs(|name| {
        let file = beside.join(name);
        spec(if file.is_file() { &file } else { Path::new(name) }, &[])
    })?;
    let short = if arguments.short { "-short" } else { "" };
    let name = || Path::new("experiments").join(format!("{}{short}", path.file_stem().unwrap_or_default().to_string_lossy()));
    let folder: PathBuf = arguments.out.clone().unwrap_or_else(name);
    follow(&study, &folder, arguments.json, "runs")
}
