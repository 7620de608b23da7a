//! What a study found: its file, its tables and its figures.

use super::line::Line;
use super::outcome::{Outcome, Unmade, write_json};
use super::{Study, StudyData, slug};
use crate::data::Split;
use crate::file::replace_file;
use crate::layout::RESULTS;
use crate::picture::{Over, Point, curves_over_svg, scatter_svg};
use crate::progress::Report;
use crate::{Baseline, Result, TrainError, baselines, page};
use flow_api::spec::to_ron;
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::Path;
use sysinfo::{CpuRefreshKind, RefreshKind, System};

const PAGE: &str = "index.html";

/// What the figures were made with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions {
    /// Version of the toolkit.
    pub toolkit: String,
    /// Instruction set of its kernels.
    pub instruction_set: String,
    /// Threads.
    pub threads: usize,
    /// System and processor.
    pub system: String,
    /// Day and minute at which these figures were begun; none in files of versions that did not tell.
    #[serde(default)]
    pub date: String,
}

impl Versions {
    fn here() -> Self {
        Self {
            toolkit: env!("CARGO_PKG_VERSION").to_owned(),
            instruction_set: flow_kernels::simd::instruction_set().unwrap_or("unknown").to_owned(),
            threads: rayon::current_num_threads(),
            system: format!("{} {}{}", std::env::consts::OS, std::env::consts::ARCH, processor()),
            date: jiff::Zoned::now().strftime("%Y-%m-%d %H:%M").to_string(),
        }
    }
}

/// What the system calls the processor, in brackets, if it does.
fn processor() -> String {
    let list = RefreshKind::nothing().with_cpu(CpuRefreshKind::nothing());
    let name = System::new_with_specifics(list).ok().and_then(|system| Some(system.cpus().first()?.brand().trim().to_owned()));
    name.filter(|name| !name.is_empty()).map_or(String::new(), |name| format!(" ({name})"))
}

/// What the data of a study are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DataFacts {
    /// Their name.
    pub name: String,
    /// Their source.
    pub source: String,
    /// Shape of an item.
    pub shape: String,
    /// Levels of a value, if the data are discrete.
    pub levels: Option<u32>,
    /// Training items, those for validation among them.
    pub train: usize,
    /// Test items.
    pub test: usize,
    /// A CRC-32 of all values and labels, of the first seed's items.
    pub hash: String,
    /// What simple densities reach on the test items, and what a lossless coding takes.
    pub baselines: Vec<Baseline>,
    /// Whether items are pictured.
    pub pictured: bool,
}

impl DataFacts {
    /// Of data, without baselines.
    pub(super) fn of(data: &StudyData, split: &Split, hash: &str, pictured: bool) -> (Self, impl FnOnce() -> Result<Vec<Baseline>>) {
        let facts = Self {
            name: data.name.clone(),
            source: data.source.to_string(),
            shape: split.train.shape().to_string(),
            levels: split.train.levels(),
            train: split.train.len(),
            test: split.test.len(),
            hash: hash.to_owned(),
            baselines: Vec::new(),
            pictured,
        };
        (facts, || baselines(split.train.as_ref(), split.test.as_ref()))
    }
}

/// What a study found.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Results {
    /// The study.
    pub study: Study,
    /// What it was run with.
    pub versions: Versions,
    /// The data, as far as runs were made on them.
    pub data: Vec<DataFacts>,
    /// The runs that are done.
    pub runs: Vec<Outcome>,
    /// Runs that could not be made.
    pub failed: Vec<Unmade>,
    /// Whether it was stopped before its end.
    pub stopped: bool,
    /// The run that was in training, or in its test, when it was stopped.
    pub unfinished: Option<Unmade>,
    /// What was known of data before.
    #[serde(skip)]
    before: Vec<DataFacts>,
}

/// A figure: its file, what it shows, and its text.
pub(crate) struct Figure {
    pub(crate) file: String,
    pub(crate) title: String,
    pub(crate) svg: String,
}

/// Name of a file of samples.
pub(super) fn samples_file(study: &Study, data: &str, variant: &str) -> String {
    format!("samples-{}{}.png", of_data(study, data, "-"), slug(variant))
}

/// Name of the file of test items.
pub(super) fn items_file(study: &Study, data: &StudyData) -> String {
    let of = of_data(study, &data.name, "");
    if of.is_empty() { "items.png".to_owned() } else { format!("items-{of}.png") }
}

/// The data as part of a file's name, where there are several.
fn of_data(study: &Study, data: &str, behind: &str) -> String {
    if study.data.len() > 1 { slug(data) + behind } else { String::new() }
}

impl Results {
    /// Those of a study that begins, or goes on in a folder.
    pub(super) fn begun(study: &Study, folder: &Path) -> Self {
        let before = fs::read(folder.join(RESULTS)).ok().and_then(|bytes| serde_json::from_slice::<Self>(&bytes).ok());
        let here = Versions::here();
        let date = before.as_ref().map(|before| before.versions.date.clone()).filter(|date| !date.is_empty());
        Self {
            study: study.clone(),
            versions: Versions { date: date.unwrap_or(here.date), ..here },
            data: Vec::new(),
            runs: Vec::new(),
            failed: Vec::new(),
            stopped: false,
            unfinished: None,
            before: before.map_or(Vec::new(), |before| before.data),
        }
    }

    /// Adds data; baselines of data that were there before are not computed again.
    pub(super) fn take_data(&mut self, (facts, find): (DataFacts, impl FnOnce() -> Result<Vec<Baseline>>)) -> Result<()> {
        let known = self.before.iter().find(|known| known.hash == facts.hash && known.name == facts.name);
        let baselines = known.map_or_else(find, |known| Ok(known.baselines.clone()))?;
        self.data.push(DataFacts { baselines, ..facts });
        Ok(())
    }

    /// The unit of losses.
    pub fn unit(&self) -> &str {
        self.runs.first().map_or("loss", |run| &run.test.unit)
    }

    /// What the figures do not tell, a line each.
    pub fn notes(&self) -> Vec<String> {
        let name = |data: &str, variant: &str, seed| self.study.run_name(data, variant, seed);
        let mut notes: Vec<String> = self.runs.iter().flat_map(|run| run.notes(&name(&run.data, &run.variant, run.seed))).collect();
        let unmade = |unmade: &Unmade| name(&unmade.data, &unmade.variant, unmade.seed);
        notes.extend(self.failed.iter().map(|failed| format!("{}: failed: {}", unmade(failed), failed.reason)));
        if let Some(unfinished) = &self.unfinished {
            let steps = unfinished.history.last().map_or(0, |report| report.step);
            notes.push(format!("{}: {}, last reported at step {steps}, and not tested", unmade(unfinished), unfinished.reason));
        }
        if self.stopped {
            notes.push("stopped before the end: what is done is kept, and the rest goes on from there".to_owned());
        }
        notes
    }

    /// Figures of every data: learning curves over steps, seconds and multiply-adds, and test losses over parameters.
    pub(crate) fn figures(&self) -> Result<Vec<Figure>> {
        let mut figures = Vec::new();
        for data in &self.data {
            let lines: Vec<Line<'_>> = Line::of(&self.runs).into_iter().filter(|line| line.data == data.name).collect();
            let mut curves: Vec<(&str, Vec<Report>, f64)> = lines
                .iter()
                .map(|line| {
                    let step = line.mean(|run| Some(run.training_multiply_adds / run.steps.max(1) as f64)).unwrap_or(0.0);
                    (line.variant, line.history(), step)
                })
                .collect();
            let unmade = self.failed.iter().chain(&self.unfinished).filter(|unmade| unmade.data == data.name && !unmade.history.is_empty());
            curves.extend(unmade.map(|unmade| (unmade.variant.as_str(), unmade.history.clone(), 0.0)));
            let drawn = curves.iter().any(|(_, history, _)| history.iter().any(|report| report.train.is_finite()));
            if !drawn {
                continue;
            }
            let of = of_data(&self.study, &data.name, "");
            let file = |over: &str| if of.is_empty() { format!("{over}.svg") } else { format!("{over}-{of}.svg") };
            let on = if of.is_empty() { String::new() } else { format!(", {}", data.name) };
            let runs: Vec<(&str, &[Report])> = curves.iter().map(|(name, history, _)| (*name, history.as_slice())).collect();
            let of_steps: Vec<f64> = curves.iter().map(|(.., step)| *step).collect();
            for (over, name, words) in [
                (Over::Steps, "steps", "optimiser steps"),
                (Over::Seconds, "seconds", "seconds of training"),
                (Over::MultiplyAdds(&of_steps), "multiply-adds", "multiply-adds of training"),
            ] {
                // One line is drawn once, and what needs no products over steps alone.
                let is_shown =
                    matches!(over, Over::Steps) || runs.len() > 1 && (matches!(over, Over::Seconds) || of_steps.iter().any(|x| *x > 0.0));
                if is_shown {
                    let svg = curves_over_svg(&runs, self.unit(), over)?;
                    figures.push(Figure { file: file(name), title: format!("Loss over {words}{on}"), svg });
                }
            }
            let point = |line: &Line<'_>| {
                let (x, y) = (line.mean(|run| Some(run.parameters as f64))?, line.loss()?);
                Some(Point { name: line.variant.to_owned(), x, y, spread: line.spread(|run| run.test.loss).unwrap_or(0.0) })
            };
            let points: Vec<Point> = lines.iter().filter_map(point).filter(|point| point.y.is_finite()).collect();
            if points.len() > 1 {
                let svg = scatter_svg(&points, "parameters", &format!("test loss, {}", self.unit()))?;
                figures.push(Figure { file: file("parameters"), title: format!("Test loss over parameters{on}"), svg });
            }
        }
        Ok(figures)
    }

    /// Files of pictures, with captions: of items and of samples.
    pub(crate) fn pictures(&self) -> Vec<(String, String)> {
        let mut pictures = Vec::new();
        for data in &self.data {
            let on = if self.study.data.len() > 1 { format!("{}: ", data.name) } else { String::new() };
            let own = self.study.data.iter().find(|own| own.name == data.name).filter(|_| data.pictured);
            pictures.extend(own.map(|own| (format!("{on}the data: test items"), items_file(&self.study, own))));
            let drawn = self.runs.iter().filter(|run| run.pictured && run.data == data.name);
            pictures.extend(drawn.map(|run| (format!("{on}{}", run.variant), samples_file(&self.study, &run.data, &run.variant))));
        }
        pictures
    }

    /// Writes the JSON, the figures and the page.
    pub(super) fn write(&self, folder: &Path) -> Result<()> {
        write_json(&folder.join(RESULTS), self)?;
        let figures = self.figures()?;
        for figure in &figures {
            replace_file(&folder.join(&figure.file), figure.svg.as_bytes())?;
        }
        let read = |file: &str| {
            let path = folder.join(file);
            fs::read(&path).map_err(TrainError::io(&path))
        };
        let pictures = self.pictures().into_iter().map(|(caption, file)| Ok((caption, read(&file)?))).collect::<Result<Vec<_>>>()?;
        replace_file(&folder.join(PAGE), page::study(self, &figures, &pictures)?.as_bytes())
    }

    /// The study as RON text.
    pub(crate) fn study_text(&self) -> Result<String> {
        Ok(to_ron(&self.study)?)
    }
}
