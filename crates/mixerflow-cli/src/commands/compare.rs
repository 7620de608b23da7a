//! `mixerflow compare`: a study of several specs on one set of data.

use super::followed::follow;
use super::sources::{skipping, spec};
use crate::Result;
use crate::arguments::Compare;
use flow_train::check_empty;
use flow_train::study::{Budget, Study, StudyData, Testing, Variant};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

pub(crate) fn run(arguments: &Compare, threads: Option<usize>) -> Result<ExitCode> {
    let Compare { training, data, skip_bad, specs, dequantisations, .. } = arguments;
    check_empty(&arguments.out)?;
    let source = skipping(data, *skip_bad);
    let settings = training.begin(&source, threads)?.0;
    let variant = |path: &PathBuf| -> Result<Variant> {
        let spec = Some(spec(path, &training.set)?);
        Ok(Variant { name: name(path, specs), spec, ..Variant::default() })
    };
    let name = source.to_string();
    let study = Study {
        title: format!("flows on {name}"),
        seeds: vec![settings.seed],
        budget: Budget::Steps(settings.steps),
        settings,
        testing: Testing { dequantisations: *dequantisations, ..Testing::default() },
        ..Study::new(vec![StudyData { name, source }], specs.iter().map(variant).collect::<Result<_>>()?)
    };
    follow(&study, &arguments.out, arguments.json, "specs")
}

/// What a spec is called: its file, with its folders where another file of the same name is compared.
fn name(path: &Path, all: &[PathBuf]) -> String {
    let stem = |path: &Path| path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let is_alone = all.iter().filter(|other| stem(other) == stem(path)).count() == 1;
    if is_alone { stem(path) } else { path.with_extension("").display().to_string() }
}
