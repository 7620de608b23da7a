//! Compares architectures: trains each spec with the same data, seed, steps and batch, and sets what came of them side
//! by side.

use crate::data::{Dataset, Draw, ItemShape, Split, Values, each_once};
use crate::evaluate::{DASH, EvaluateOptions, Evaluation, Inverse, evaluate_until};
use crate::events::Events;
use crate::file::replace_file;
use crate::observe::Observer;
use crate::progress::{Ending, Report};
use crate::record::model_for;
use crate::samples::{CLOUD, Drawing, GRID, GRID_COLUMNS, given_numbers, try_draw_samples};
use crate::training::Trainer;
use crate::{Result, Settings, TrainError, page, picture, text};
use flow_api::bijector::LayerInfo;
use flow_api::module::parameter_count;
use flow_api::spec::{Model, ModelSpec, Spec, SpecScalar, to_ron};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// The file that a comparison's folder has.
pub(crate) const RESULTS: &str = "comparison.json";

/// What to compare, on what, and where to.
#[derive(Clone, Copy, Debug)]
pub struct Plan<'a> {
    /// The specs, by name.
    pub specs: &'a [(String, Spec<dyn ModelSpec>)],
    /// Name of the data.
    pub data: &'a str,
    /// The data.
    pub split: &'a Split,
    /// How each is trained.
    pub settings: &'a Settings,
    /// How each is tested.
    pub evaluation: EvaluateOptions,
    /// The folder for `comparison.json`, `index.html` and pictures.
    pub folder: &'a Path,
}

/// One line of the table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Name of the spec.
    pub spec: String,
    /// The spec as RON text.
    pub text: String,
    /// Kinds of flows in it, linear and normalising layers left out.
    pub flows: String,
    /// Trainable values.
    pub parameters: usize,
    /// Steps made.
    pub steps: u64,
    /// Why training ended.
    pub ending: Ending,
    /// Mean seconds a training step.
    pub seconds_per_step: f64,
    /// On the test items.
    pub test: Evaluation,
    /// Learning curve.
    pub history: Vec<Report>,
    /// File of the picture of samples, if samples can be pictured.
    pub samples: Option<String>,
}

/// A spec without a row: one that could not be built or trained, or that the comparison was stopped at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// Name of the spec.
    pub spec: String,
    /// Why.
    pub reason: String,
    /// Its learning curve, as far as it came.
    #[serde(default)]
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
    /// Specs that could not be built or trained.
    pub failed: Vec<Failure>,
    /// Whether it was stopped before its end.
    pub stopped: bool,
    /// The spec that was in training, or in its test, when it was stopped.
    #[serde(default)]
    pub unfinished: Option<Failure>,
    /// File of the picture of test items, if they can be pictured.
    pub items: Option<String>,
}

/// Trains and evaluates every spec, and writes the folder anew after each, so that a stop loses nothing:
/// `comparison.json`, a picture of samples per spec, and `index.html`, which shows it all, the learning curves among
/// it. `observe` gives the observer of the run of the spec with a name.
///
/// A spec that cannot be built or trained is listed with its reason, and the others go on. When `stop` is raised, the
/// spec in training ends after its step, and one that is being tested at once: it is named in
/// [`Comparison::unfinished`], and is the last.
///
/// ```
/// use flow_api::spec::from_ron;
/// use flow_train::compare::{Plan, compare};
/// use flow_train::data::DataSource;
/// use flow_train::{EvaluateOptions, Observer, Settings, Silent};
/// use std::sync::atomic::AtomicBool;
/// let source: DataSource = "toy:two-moons?n=500".parse()?;
/// let folder = tempfile::tempdir()?;
/// let plan = Plan {
///     specs: &[
///         ("scale".to_owned(), from_ron("VectorFlow(flows: [ActNorm()])")?),
///         ("linear".to_owned(), from_ron("VectorFlow(flows: [ActNorm(), LuLinear()])")?),
///     ],
///     data: "two moons",
///     split: &source.open(1)?,
///     settings: &Settings { steps: 3, ..Settings::default() },
///     evaluation: EvaluateOptions::default(),
///     folder: folder.path(),
/// };
/// let comparison = compare::<f32>(&plan, &mut |_| Box::new(Silent), &AtomicBool::new(false))?;
/// assert_eq!(comparison.rows.len(), 2);
/// println!("{comparison}");
/// assert!(folder.path().join("index.html").exists());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// Settings and options out of range, and files that cannot be written.
pub fn compare<E: SpecScalar>(
    plan: &Plan<'_>,
    observe: &mut dyn FnMut(&str) -> Box<dyn Observer<E> + Send>,
    stop: &AtomicBool,
) -> Result<Comparison> {
    plan.settings.check()?;
    // Wrong options must not come to light after hours of training.
    plan.evaluation.check()?;
    fs::create_dir_all(plan.folder).map_err(TrainError::io(plan.folder))?;
    let mut comparison = Comparison {
        data: plan.data.to_owned(),
        settings: plan.settings.clone(),
        rows: Vec::new(),
        failed: Vec::new(),
        stopped: false,
        unfinished: None,
        items: picture_items(plan)?,
    };
    for (number, (name, _)) in plan.specs.iter().enumerate() {
        let (mut made, mut history) = (0, Vec::new());
        match train_one(plan, number, observe(name).as_mut(), stop, (&mut made, &mut history)) {
            Ok(row) => comparison.rows.push(row),
            Err(error @ (TrainError::Io { .. } | TrainError::Picture { .. })) => return Err(error),
            Err(TrainError::Stopped) => {
                let reason = format!("stopped after {made} of {} steps, and not tested", plan.settings.steps);
                comparison.unfinished = Some(Failure { spec: name.clone(), reason, history });
            }
            Err(error) => comparison.failed.push(Failure { spec: name.clone(), reason: error.to_string(), history }),
        }
        comparison.stopped = stop.load(Ordering::Relaxed);
        comparison.write(plan.folder)?;
        if comparison.stopped {
            break;
        }
    }
    Ok(comparison)
}

/// Trains and tests a spec. How far it came is told whatever becomes of it.
fn train_one<E: SpecScalar>(
    plan: &Plan<'_>,
    number: usize,
    observer: &mut (dyn Observer<E> + Send),
    stop: &AtomicBool,
    (made, history): (&mut u64, &mut Vec<Report>),
) -> Result<Row> {
    let (name, spec) = &plan.specs[number];
    let settings = plan.settings;
    let model = model_for::<E>(spec, plan.split.train.as_ref(), settings.seed)?;
    let flows = flow_kinds(&model.describe()?);
    let mut trainer = Trainer::new(model, plan.split.train.clone(), settings.clone())?;
    let ending = trainer.run(observer, stop);
    let progress = trainer.progress();
    (*made, *history) = (progress.step, progress.history.clone());
    let ending = ending?;
    let events = trainer.events().clone();
    let model = trainer.finish()?;
    // Nothing is tested any more once the flag is raised.
    let test = evaluate_until(&model, plan.split.test.as_ref(), &events, &plan.evaluation, stop)?;
    let file = format!("samples-{}.png", file_stem(plan, number));
    // Samples of some flows take their time.
    let samples = if stop.load(Ordering::Relaxed) { None } else { picture_samples(plan, &file, &model, &events)? };
    Ok(Row {
        spec: name.clone(),
        text: to_ron(spec)?,
        flows,
        parameters: parameter_count(&model),
        steps: progress.step,
        ending,
        seconds_per_step: progress.seconds / progress.step.max(1) as f64,
        test,
        history: progress.history,
        samples,
    })
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

/// A spec's name as part of a file's, its number added where another spec has the same.
fn file_stem(plan: &Plan<'_>, number: usize) -> String {
    let plain = |name: &str| name.chars().map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' }).collect::<String>();
    let own = plain(&plan.specs[number].0);
    let taken = plan.specs.iter().enumerate().any(|(i, (name, _))| i != number && plain(name) == own);
    if taken { format!("{own}-{}", number + 1) } else { own }
}

/// Draws samples of the model to a file of the folder, if they can be pictured.
fn picture_samples<E: SpecScalar>(plan: &Plan<'_>, file: &str, model: &Model<E>, events: &Events) -> Result<Option<String>> {
    let half_side = if events.levels().is_none() { Some(half_side(plan.split.test.as_ref())?) } else { None };
    let drawing = Drawing { seed: plan.settings.seed, half_side, ..Drawing::default() };
    // The table tells of samples that fail.
    let given = given_numbers(model, plan.split.test.as_ref(), events)?;
    Ok(try_draw_samples(&plan.folder.join(file), model, events, &drawing, given.as_ref())?.then(|| file.to_owned()))
}

/// Draws the first test items, to compare samples with.
fn picture_items(plan: &Plan<'_>) -> Result<Option<String>> {
    const FILE: &str = "items.png";
    let path = plan.folder.join(FILE);
    let test = plan.split.test.as_ref();
    match (test.shape(), test.levels()) {
        (shape @ ItemShape::Image { .. }, Some(levels)) => {
            let Values::Levels(pixels) = first_items(test, GRID)? else { return Ok(None) };
            picture::save_grid(&path, &pixels, shape, levels, GRID_COLUMNS)?;
        }
        (ItemShape::Vector { dims: 2 }, None) => {
            let Values::Real(points) = first_items(test, CLOUD)? else { return Ok(None) };
            picture::save_points(&path, &points, half_side(test)?)?;
        }
        _ => return Ok(None),
    }
    Ok(Some(FILE.to_owned()))
}

fn first_items(data: &dyn Dataset, count: usize) -> Result<Values> {
    let draws: Vec<Draw> = each_once(data.len().min(count), count).flatten().collect();
    Ok(data.batch(&draws)?.values)
}

/// Half the side of the square around the origin that holds the first items.
fn half_side(data: &dyn Dataset) -> Result<f64> {
    let Values::Real(points) = first_items(data, CLOUD)? else { return Ok(1.0) };
    Ok(1.1 * points.iter().fold(f64::MIN_POSITIVE, |largest, x| largest.max(x.abs())))
}

/// Columns of the table that hold words; numbers follow.
pub(crate) const WORDS: usize = 2;
/// The column of the test loss.
pub(crate) const LOSS: usize = 3;

impl Row {
    /// Evaluations of networks, forward and inverse; none where everything is in closed form.
    fn evaluations(&self) -> Option<String> {
        let (forward, inverse) = (self.test.evaluations, self.test.inverse.as_ref().map_or(0, |inverse| inverse.evaluations));
        (forward + inverse > 0).then(|| format!("{forward} / {inverse}"))
    }

    /// Of the classifier, if the model has one.
    fn accuracy(&self) -> Option<String> {
        self.test.classification.as_ref().map(|found| format!("{:.4} ± {:.4}", found.accuracy, found.accuracy_error))
    }

    fn cells(&self) -> Vec<String> {
        let Evaluation { scored_per_second, inverse, .. } = &self.test;
        let or_dash = |value: f64, text: String| if value.is_nan() { DASH.to_owned() } else { text };
        let of_inverse = |get: fn(&Inverse) -> f64| inverse.as_ref().map_or(f64::NAN, get);
        let (error, sampled) = (of_inverse(|i| i.error), of_inverse(|i| i.sampled_per_second));
        vec![
            self.spec.clone(),
            self.flows.clone(),
            self.parameters.to_string(),
            self.test.loss_text(3),
            format!("{:.4}", self.seconds_per_step),
            format!("{scored_per_second:.0}"),
            or_dash(sampled, format!("{sampled:.0}")),
            or_dash(error, format!("{error:.1e}")),
        ]
    }
}

impl Comparison {
    /// The unit of losses.
    fn unit(&self) -> &str {
        self.rows.first().map_or("loss", |row| &row.test.unit)
    }

    /// The table: its heads, and a line a row. Evaluations are a column where any flow has some.
    pub(crate) fn table(&self) -> (Vec<String>, Vec<Vec<String>>) {
        let loss = format!("test {}", self.unit());
        let heads = ["spec", "flows", "parameters", &loss, "s/step", "scored/s", "sampled/s", "inverse error"];
        let mut heads: Vec<String> = heads.into_iter().map(str::to_owned).collect();
        let mut lines: Vec<Vec<String>> = self.rows.iter().map(Row::cells).collect();
        let evaluations: Vec<Option<String>> = self.rows.iter().map(Row::evaluations).collect();
        let accuracies: Vec<Option<String>> = self.rows.iter().map(Row::accuracy).collect();
        if accuracies.iter().any(Option::is_some) {
            heads.push("accuracy".to_owned());
            lines.iter_mut().zip(accuracies).for_each(|(line, cell)| line.push(cell.unwrap_or_else(|| DASH.to_owned())));
        }
        if evaluations.iter().any(Option::is_some) {
            heads.push("evaluations".to_owned());
            lines.iter_mut().zip(evaluations).for_each(|(line, cell)| line.push(cell.unwrap_or_else(|| DASH.to_owned())));
        }
        (heads, lines)
    }

    /// What the figures do not tell, a line each.
    pub(crate) fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        for row in &self.rows {
            let test = &row.test;
            if row.ending != Ending::Finished {
                notes.push(format!("{}: validation no longer improved after {} of {} steps", row.spec, row.steps, self.settings.steps));
            }
            if Report::none_is_valid(&row.history) {
                notes.push(format!("{}: no validation was finite: tested with the last weights", row.spec));
            }
            if test.non_finite > 0.0 {
                let why = test.failure.as_ref().map_or(String::new(), |failure| format!(": {failure}"));
                notes.push(format!("{}: {:.2} % of likelihoods are not finite and are left out{why}", row.spec, 100.0 * test.non_finite));
            }
            if let Some(error) = test.log_det_standard_error {
                notes.push(format!("{}: log-determinants are estimates with a standard error of {error:.2} nats an item", row.spec));
            }
            if let Some(failure) = test.inverse.as_ref().and_then(|inverse| inverse.failure.as_ref()) {
                notes.push(format!("{}: the inverse failed: {failure}", row.spec));
            }
        }
        notes.extend(self.failed.iter().map(|failure| format!("{}: failed: {}", failure.spec, failure.reason)));
        notes.extend(self.unfinished.iter().map(|unfinished| format!("{}: {}", unfinished.spec, unfinished.reason)));
        if self.stopped {
            notes.push("the comparison was stopped before its end".to_owned());
        }
        notes
    }

    /// Writes the JSON, the curves and the page.
    fn write(&self, folder: &Path) -> Result<()> {
        let put = |name: &str, bytes: &[u8]| replace_file(&folder.join(name), bytes);
        let json = serde_json::to_vec_pretty(self).map_err(|e| TrainError::Io { path: folder.join(RESULTS), source: e.into() })?;
        put(RESULTS, &json)?;
        let tested = self.rows.iter().map(|row| (row.spec.as_str(), row.history.as_slice()));
        let others = self.failed.iter().chain(&self.unfinished).filter(|other| !other.history.is_empty());
        let runs: Vec<(&str, &[Report])> = tested.chain(others.map(|other| (other.spec.as_str(), other.history.as_slice()))).collect();
        let drawn = runs.iter().any(|(_, history)| history.iter().any(|report| report.train.is_finite()));
        let curves = drawn.then(|| picture::curves_svg(&runs, self.unit())).transpose()?;
        put("index.html", page::comparison(self, curves.as_deref()).as_bytes())
    }
}

impl std::fmt::Display for Comparison {
    /// The table as aligned text, and below it what it does not tell.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (heads, rows) = self.table();
        write!(f, "{}", text::Table { heads: &heads, rows: &rows, words: WORDS })?;
        self.notes().iter().try_for_each(|note| writeln!(f, "{note}"))
    }
}
