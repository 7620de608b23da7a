//! `mixerflow compare`.

use super::sources::{Told, parts_line, skipping, spec};
use crate::arguments::Compare;
use crate::{INTERRUPTED, Result, interrupt, output};
use flow_train::compare::{Plan, compare};
use flow_train::data::Items;
use flow_train::{Bar, EvaluateOptions, Observer, check_empty, hold_out};
use std::process::ExitCode;

pub(crate) fn run(arguments: &Compare, threads: Option<usize>) -> Result<ExitCode> {
    let Compare { training, data, skip_bad, .. } = arguments;
    check_empty(&arguments.out)?;
    let specs = arguments
        .specs
        .iter()
        .map(|path| Ok((path.file_stem().unwrap_or_default().to_string_lossy().into_owned(), spec(path, &training.set)?)));
    let specs = specs.collect::<Result<Vec<_>>>()?;
    let source = skipping(data, *skip_bad);
    let (settings, split) = training.begin(&source, threads)?;
    Told::of(&split).say();
    output::say(parts_line(&source, &Items::of(&split, &hold_out(&*split.train, &settings).0), &split.rule));
    let plan = Plan {
        specs: &specs,
        data: &source.to_string(),
        split: &split,
        settings: &settings,
        evaluation: EvaluateOptions { dequantisations: arguments.dequantisations, seed: settings.seed, ..EvaluateOptions::default() },
        folder: &arguments.out,
    };
    let stop = interrupt::flag()?;
    let mut observe = |name: &str| -> Box<dyn Observer<f32> + Send> { Box::new(Bar::new(name)) };
    let comparison = compare(&plan, &mut observe, &stop)?;
    if arguments.json {
        output::line(serde_json::to_string_pretty(&comparison)?)?;
    } else {
        output::line(format_args!("{comparison}\n{}", arguments.out.join("index.html").display()))?;
    }
    if comparison.stopped {
        return Ok(ExitCode::from(INTERRUPTED));
    }
    match comparison.failed.len() {
        0 => Ok(ExitCode::SUCCESS),
        failed => Err(format!("{failed} of {} specs failed", specs.len()).into()),
    }
}
