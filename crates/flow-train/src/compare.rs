//! Compares architectures: trains each spec with the same data, seed, steps and batch, and sets what came of them side by side.

use crate::data::{ItemShape, Split};
use crate::evaluate::{EvaluateOptions, Evaluation, evaluate};
use crate::training::{Ending, Observer, Report, Trainer};
use crate::{Bar, Result, Settings, TrainError, picture};
use flow_api::spec::{BuildScope, EventShape, ModelSpec, Spec, SpecScalar};
use flow_api::{Context, LayerInfo, parameter_count};
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// One line of the table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Name of the spec.
    pub spec: String,
    /// Kinds of flows in it, linear and normalising layers left out.
    pub flows: String,
    /// Trainable values.
    pub parameters: usize,
    /// Steps made.
    pub steps: u64,
    /// Mean seconds a training step.
    pub seconds_per_step: f64,
    /// On the test items.
    pub test: Evaluation,
    /// Learning curve.
    pub history: Vec<Report>,
}

/// What a comparison found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// Name of the data.
    pub data: String,
    /// Settings that all specs were trained with.
    pub settings: Settings,
    /// A line a spec, in the order in which they were given; fewer if the comparison was stopped.
    pub rows: Vec<Row>,
    /// Specs that could not be built or trained, with the reason.
    pub failed: Vec<(String, String)>,
    /// Whether it was stopped before its end.
    pub stopped: bool,
}

/// Kinds of flows of a model's table, each once, in order.
fn flow_kinds(table: &[LayerInfo]) -> String {
    const PLUMBING: [&str; 3] = ["ActNorm", "LuLinear", "Permutation"];
    let mut kinds: Vec<&str> = Vec::new();
    for layer in table {
        if !PLUMBING.contains(&layer.kind.as_str()) && !kinds.contains(&layer.kind.as_str()) {
            kinds.push(&layer.kind);
        }
    }
    if kinds.is_empty() { "linear".to_owned() } else { kinds.join(" + ") }
}

/// Samples of a model as levels, images of `shape`.
fn samples(trainer: &Trainer<f32>, count: usize) -> Result<Option<Vec<u8>>> {
    let Some(dequantiser) = trainer.events().dequantiser() else { return Ok(None) };
    let events = trainer.model().sample(count, 1.0, &Context::new(trainer.settings().seed))?;
    let mut levels = vec![0; events.len()];
    dequantiser.quantise(&events, &mut levels)?;
    Ok(Some(levels))
}

/// Trains and evaluates every spec, and writes a folder: `comparison.json`, `curves.png`, `samples-{spec}.png` and `index.html`, anew after every spec, so that a stop loses nothing.
///
/// A spec that cannot be built or trained is listed with its reason, and the others go on.
///
/// # Errors
/// Settings out of range, and files that cannot be written.
pub fn compare(
    specs: &[(String, Spec<dyn ModelSpec>)],
    data: &str,
    split: &Split,
    settings: &Settings,
    folder: &Path,
    stop: &AtomicBool,
) -> Result<Comparison> {
    settings.check()?;
    fs::create_dir_all(folder).map_err(TrainError::io(folder))?;
    let mut comparison =
        Comparison { data: data.to_owned(), settings: settings.clone(), rows: Vec::new(), failed: Vec::new(), stopped: false };
    for (name, spec) in specs {
        match train_one(name, spec, split, settings, folder, stop) {
            Ok((row, ending)) => {
                comparison.rows.push(row);
                comparison.stopped = ending == Ending::Stopped;
            }
            Err(error @ (TrainError::Io { .. } | TrainError::Picture { .. })) => return Err(error),
            Err(error) => comparison.failed.push((name.clone(), error.to_string())),
        }
        comparison.stopped |= stop.load(Ordering::Relaxed);
        comparison.write(folder)?;
        if comparison.stopped {
            break;
        }
    }
    Ok(comparison)
}

fn train_one(
    name: &str,
    spec: &Spec<dyn ModelSpec>,
    split: &Split,
    settings: &Settings,
    folder: &Path,
    stop: &AtomicBool,
) -> Result<(Row, Ending)> {
    let shape = split.train.shape();
    let event = match shape {
        ItemShape::Image { channels, height, width } => EventShape::Image { channels, height, width },
        ItemShape::Vector { dims } => EventShape::Vector(dims),
    };
    let model = f32::model(spec.0.as_ref(), event, &BuildScope::new(flow_api::DefaultDevice::default(), settings.seed))?;
    let table = model.describe()?;
    let mut trainer = Trainer::new(model, split.train.clone(), settings.clone())?;
    let mut bar = Bar::new(name, settings.steps, trainer.events().unit());
    let observer: &mut (dyn Observer<f32> + Send) = &mut bar;
    let ending = trainer.run(observer, stop);
    bar.finish();
    let ending = ending?;
    let options = EvaluateOptions { dequantisations: 4, seed: settings.seed, ..EvaluateOptions::default() };
    let test = evaluate(trainer.model(), split.test.as_ref(), trainer.events(), &options)?;
    if let (ItemShape::Image { .. }, Some(levels)) = (shape, samples(&trainer, 64)?) {
        let count = trainer.events().levels().unwrap_or(256);
        picture::save_grid(&folder.join(format!("samples-{name}.png")), &levels, shape, count, 16)?;
    }
    let history = trainer.history().to_vec();
    let timed: f64 = history.iter().map(|report| report.seconds_per_step).sum();
    let row = Row {
        spec: name.to_owned(),
        flows: flow_kinds(&table),
        parameters: parameter_count(trainer.model()),
        steps: trainer.optimiser().steps(),
        seconds_per_step: timed / history.len().max(1) as f64,
        test,
        history,
    };
    Ok((row, ending))
}

/// Heads of the table.
const HEADS: [&str; 9] = ["spec", "flows", "parameters", "test loss", "s/step", "scored/s", "sampled/s", "inverse error", "evaluations"];

impl Row {
    fn cells(&self) -> [String; 9] {
        let test = &self.test;
        [
            self.spec.clone(),
            self.flows.clone(),
            self.parameters.to_string(),
            format!("{:.3} ± {:.3} {}", test.loss, test.standard_error, test.unit),
            format!("{:.4}", self.seconds_per_step),
            format!("{:.0}", test.scored_per_second),
            test.sampled_per_second.map_or_else(String::new, |s| format!("{s:.0}")),
            test.inverse_error.map_or_else(String::new, |e| format!("{e:.1e}")),
            if test.evaluations == 0 { "–".to_owned() } else { test.evaluations.to_string() },
        ]
    }
}

impl std::fmt::Display for Comparison {
    /// The table as aligned text.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let rows: Vec<[String; 9]> = self.rows.iter().map(Row::cells).collect();
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).chain([HEADS[column].len()]).max().unwrap_or(0);
        let widths: [usize; 9] = std::array::from_fn(width);
        let mut line = |cells: [&str; 9]| {
            let mut text = String::new();
            for (column, cell) in cells.into_iter().enumerate() {
                let pad = " ".repeat(widths[column].saturating_sub(cell.chars().count()));
                // Words to the left, numbers to the right.
                let _ = if column < 2 { write!(text, "{cell}{pad}  ") } else { write!(text, "{pad}{cell}  ") };
            }
            writeln!(f, "{}", text.trim_end())
        };
        line(HEADS)?;
        for row in &rows {
            line(std::array::from_fn(|column| row[column].as_str()))?;
        }
        for (spec, reason) in &self.failed {
            writeln!(f, "{spec}: failed: {reason}")?;
        }
        if self.stopped {
            writeln!(f, "(stopped before the end)")?;
        }
        Ok(())
    }
}

impl Comparison {
    /// Writes the JSON, the curves and the page.
    fn write(&self, folder: &Path) -> Result<()> {
        let put = |name: &str, bytes: &[u8]| {
            let path = folder.join(name);
            fs::write(&path, bytes).map_err(TrainError::io(&path))
        };
        let json = serde_json::to_vec_pretty(self)
            .map_err(|e| TrainError::Checkpoint { path: folder.join("comparison.json"), reason: e.to_string() })?;
        put("comparison.json", &json)?;
        let runs: Vec<_> = self.rows.iter().map(|row| (row.spec.clone(), row.history.clone())).collect();
        let drawn = runs.iter().any(|(_, history)| !history.is_empty());
        if drawn {
            let unit = self.rows.first().map_or("", |row| row.test.unit.as_str());
            picture::save_curves(&folder.join("curves.png"), &runs, &format!("training loss, {unit}"))?;
        }
        put("index.html", self.page(folder, drawn).as_bytes())
    }

    fn page(&self, folder: &Path, curves: bool) -> String {
        let mut page = format!(
            "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\n\
             <title>Flows compared on {data}</title>\n<style>{STYLE}</style>\n<main>\n<h1>Flows compared on {data}</h1>\n\
             <p>{steps} steps of {batch} items each, seed {seed}. Lower loss is better; ± is the standard error over test items.</p>\n<div class=\"wide\"><table>\n<tr>",
            data = escape(&self.data),
            steps = self.settings.steps,
            batch = self.settings.batch,
            seed = self.settings.seed
        );
        let best = self.rows.iter().map(|row| row.test.loss).fold(f64::INFINITY, f64::min);
        for head in HEADS {
            let _ = write!(page, "<th>{head}</th>");
        }
        page.push_str("</tr>\n");
        for row in &self.rows {
            let class = if row.test.loss <= best { " class=\"best\"" } else { "" };
            let _ = write!(page, "<tr{class}>");
            for cell in row.cells() {
                let _ = write!(page, "<td>{}</td>", escape(&cell));
            }
            page.push_str("</tr>\n");
        }
        page.push_str("</table></div>\n");
        for (spec, reason) in &self.failed {
            let _ = writeln!(page, "<p class=\"failed\"><b>{}</b> failed: {}</p>", escape(spec), escape(reason));
        }
        if self.stopped {
            page.push_str("<p class=\"failed\">Stopped before the end.</p>\n");
        }
        if curves {
            page.push_str("<h2>Learning curves</h2>\n<img src=\"curves.png\" alt=\"Training loss over steps\">\n");
        }
        let grids: Vec<&Row> = self.rows.iter().filter(|row| folder.join(format!("samples-{}.png", row.spec)).exists()).collect();
        if !grids.is_empty() {
            page.push_str("<h2>Samples</h2>\n");
        }
        for row in grids {
            let name = escape(&row.spec);
            let _ = writeln!(
                page,
                "<figure><img class=\"grid\" src=\"samples-{name}.png\" alt=\"Samples of {name}\"><figcaption>{name}</figcaption></figure>"
            );
        }
        page.push_str("</main></html>\n");
        page
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

const STYLE: &str = "
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0; background: light-dark(#fff, #16181c); color: light-dark(#1c1e21, #e3e5e8); }
main { max-width: 1160px; margin: 2rem auto; padding: 0 1.2rem; }
h1 { font-size: 1.7rem; } h2 { font-size: 1.25rem; margin-top: 2.2rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; white-space: nowrap; font-size: .86rem; }
th, td { padding: .4rem .55rem; text-align: right; border-bottom: 1px solid light-dark(#ddd, #333); }
th:nth-child(-n+2), td:nth-child(-n+2) { text-align: left; }
th { font-weight: 600; color: light-dark(#555, #aaa); }
tr.best td { font-weight: 600; background: light-dark(#eaf5ea, #1d2b1f); }
.failed { color: light-dark(#a11, #f88); }
img { max-width: 100%; border-radius: 6px; background: #fff; }
.grid { image-rendering: pixelated; }
figure { margin: 0 0 1.4rem; } figcaption { color: light-dark(#555, #aaa); font-size: .92rem; }
";
