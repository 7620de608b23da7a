//! What the terminal shows of a study, and how it ends.

use super::sources::{Told, parts_line};
use crate::{INTERRUPTED, MEMORY, Result, interrupt, output};
use flow_train::data::{DataSource, Items, Split};
use flow_train::study::{self, Audience, Outcome, Results, Study};
use flow_train::text::count;
use flow_train::{Bar, Observer, Settings, hold_out};
use std::path::Path;
use std::process::ExitCode;

/// Shows bars, a line a run that is done, and counts memory.
struct Followed;

impl Audience<f32> for Followed {
    fn opened(&mut self, source: &DataSource, split: &Split, settings: &Settings) {
        Told::of(split).say();
        output::say(parts_line(source, &Items::of(split, &hold_out(&*split.train, settings).0), &split.rule));
    }

    fn begins(&mut self, run: &str) -> Box<dyn Observer<f32> + Send> {
        Box::new(Bar::new(run))
    }

    fn done(&mut self, run: &str, outcome: &Outcome) {
        let Outcome { test, steps, seconds, .. } = outcome;
        output::say(format_args!("{run}: test {} {}, {} in {seconds:.1} s", test.loss_text(4), test.unit, count(*steps, "step")));
    }

    fn held_bytes(&mut self) -> Option<u64> {
        MEMORY.reset_peak_usage();
        Some(MEMORY.current_usage() as u64)
    }

    fn most_bytes(&mut self) -> Option<u64> {
        Some(MEMORY.peak_usage() as u64)
    }
}

/// Makes the runs of a study and shows what came of them; `of` is what is counted where some failed.
pub(super) fn follow(study: &Study, folder: &Path, json: bool, of: &str) -> Result<ExitCode> {
    let results: Results = study::run(study, folder, &mut Followed, &*interrupt::flag()?)?;
    if json {
        output::line(serde_json::to_string_pretty(&results)?)?;
    } else {
        output::line(format_args!("{results}\n{}", folder.join("index.html").display()))?;
    }
    if results.stopped {
        return Ok(ExitCode::from(INTERRUPTED));
    }
    match results.failed.len() {
        0 => Ok(ExitCode::SUCCESS),
        failed => Err(format!("{failed} of {} {of} failed", failed + results.runs.len()).into()),
    }
}
