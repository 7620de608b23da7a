//! What several commands read: specs, settings, data, models.

use crate::arguments::{self, Data, Scoring, Training};
use crate::{Result, output};
use flow_api::FlowError;
use flow_api::spec::{Conditioner, EventShape, ModelSpec, Preprocessing, Spec, from_ron, set_field};
use flow_train::checkpoint::Opened;
use flow_train::data::{DataSource, Dataset, Items, Part, SourceKind, Split, SplitRule, Subset, most_items, split_as_listed};
use flow_train::text::{agreeing, count};
use flow_train::{EvaluateOptions, Look, RunFolder, Settings, TrainError, checkpoint, embed, hold_out, waiting};
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

/// What begins the path of a setting in `--set`.
const SETTINGS: &str = "settings.";

/// The longest spec or study that is read, in bytes.
const MAX_TEXT: u64 = 1 << 20;

/// Reads a spec, a file or else one that is built in, and overrides fields.
pub(super) fn spec(path: &Path, set: &[String]) -> Result<Spec<dyn ModelSpec>> {
    let text = match path.to_str().filter(|_| !path.exists()).and_then(super::specs::built_in) {
        Some(own) => own.to_owned(),
        None => read_text(path, "a spec")
            .map_err(|e| if path.exists() { e } else { format!("{e}; `mixerflow specs` lists those that are built in").into() })?,
    };
    let spec = from_ron(&text).map_err(|e| format!("{}:{e}", path.display()))?;
    pairs(set)?
        .into_iter()
        .filter(|(path, _)| !path.starts_with(SETTINGS))
        .try_fold(spec, |spec, (path, value)| set_field(&spec, path, value).map_err(|e| format!("--set: {e}").into()))
}

/// Reads a text that is `what`.
pub(super) fn read_text(path: &Path, what: &str) -> Result<String> {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(MAX_TEXT + 1).read_to_string(&mut text));
    read.map_err(|e| format!("{}: {e}", path.display()))?;
    if text.len() as u64 > MAX_TEXT { Err(format!("{}: {what} of more than {MAX_TEXT} bytes", path.display()).into()) } else { Ok(text) }
}

fn pairs(set: &[String]) -> Result<Vec<(&str, &str)>> {
    set.iter().map(|text| text.split_once('=').ok_or_else(|| format!("--set {text}: expected PATH=VALUE").into())).collect()
}

/// The settings of a run that nothing else is said of.
pub(super) fn default_settings() -> Settings {
    Settings { validation: 0.05, ..Settings::default() }
}

/// `settings` with the fields that are overridden.
pub(super) fn settings(set: &[String], mut settings: Settings) -> Result<Settings> {
    for (path, value) in pairs(set)? {
        if let Some(field) = path.strip_prefix(SETTINGS) {
            settings = set_field(&settings, field, value).map_err(|e| format!("--set settings: {e}"))?;
        }
    }
    Ok(settings)
}

impl Training {
    /// `settings` with what the command line says, but for epochs, which take the data.
    pub(super) fn apply(&self, settings: Settings, threads: Option<usize>) -> Result<Settings> {
        let mut settings = self::settings(&self.set, settings)?;
        settings.batch = self.batch.unwrap_or(settings.batch);
        settings.learning_rate = self.learning_rate.unwrap_or(settings.learning_rate);
        settings.seed = self.seed.unwrap_or(settings.seed);
        settings.memory = self.memory.map_or(settings.memory, Into::into);
        settings.precision = self.precision.unwrap_or(settings.precision);
        settings.validation = self.validation.unwrap_or(settings.validation);
        settings.mutate = self.mutate.unwrap_or(settings.mutate);
        settings.threads = threads.or(settings.threads);
        settings.steps = self.steps.unwrap_or(settings.steps);
        Ok(settings)
    }

    /// The steps of `settings`, or those of as many epochs of the data as the command line says.
    pub(super) fn steps(&self, settings: &Settings, data: &dyn Dataset) -> u64 {
        self.epochs.map_or(settings.steps, |epochs| settings.steps_of_epochs(epochs, data))
    }

    /// The settings of a new run, and its data: opened with the seed that a resumed run will open it with, wherever it
    /// was set.
    pub(super) fn begin(&self, data: &DataSource, threads: Option<usize>) -> Result<(Settings, Split)> {
        /// What most of a run's time should not go into.
        const REPORTS: u64 = 20;
        let default = default_settings();
        let mut settings = self.apply(default.clone(), threads)?;
        let split = open(data, settings.seed)?;
        settings.steps = self.steps(&settings, split.train.as_ref());
        let by_length = (settings.steps / REPORTS).clamp(1, default.report_every);
        let set = self.set.iter().any(|set| set.starts_with("settings.report_every"));
        let report_every = self.report_every.unwrap_or(if set { settings.report_every } else { by_length });
        Ok((Settings { report_every, ..settings }, split))
    }
}

/// Opens data.
pub(super) fn open(source: &DataSource, seed: u64) -> Result<Split> {
    Ok(waiting("opening the data", || source.open(seed))?)
}

/// Opens data that nothing is trained on.
pub(super) fn open_any(source: &DataSource, seed: u64) -> Result<Split> {
    Ok(waiting("opening the data", || source.open_any(seed))?)
}

/// What a source tells of itself, line by line: what was found, and what may not be as the user means it or is left
/// out.
pub(super) struct Told {
    pub(super) notes: Vec<String>,
    pub(super) warnings: Vec<String>,
}

/// The same with what a look at the items found.
pub(super) struct Looked {
    pub(super) told: Told,
    pub(super) look: Look,
}

impl Looked {
    /// For a model with this preprocessing.
    pub(super) fn at(split: &Split, preprocessing: &Preprocessing) -> Result<Self> {
        let look = waiting("looking at the data", || Look::for_model(&*split.train, &*split.test, preprocessing))?;
        let mut told = Told::of(split);
        told.warnings.extend(look.findings.iter().map(ToString::to_string));
        Ok(Self { told, look })
    }

    /// What is certain to be wrong is not trained on.
    pub(super) fn refuse_errors(&self, source: &DataSource) -> Result<()> {
        let errors: Vec<String> = self.look.errors().map(ToString::to_string).collect();
        if errors.is_empty() { Ok(()) } else { Err(format!("{source}: {}", errors.join("; ")).into()) }
    }
}

impl Told {
    pub(super) fn of(split: &Split) -> Self {
        /// More than anyone reads.
        const SAID: usize = 20;
        let Split { found, skipped, .. } = split;
        let mut warnings = found.warnings.clone();
        warnings.extend(skipped.iter().take(SAID).map(|skipped| {
            let path = skipped.path.display().to_string();
            // What is wrong with a file names it.
            let reason = skipped.reason.strip_prefix(&path).and_then(|rest| rest.strip_prefix(": ")).unwrap_or(&skipped.reason);
            format!("{path} is left out: {reason}")
        }));
        if !skipped.is_empty() {
            let rest = if skipped.len() > SAID { "; `mixerflow data --json` names all of them" } else { "" };
            warnings.push(format!(
                "{} {} left out{rest}",
                skipped.len(),
                agreeing(skipped.len(), "file or folder is", "files or folders are")
            ));
        }
        warnings.extend(found.left_out_lines());
        Self { notes: found.notes.clone(), warnings }
    }

    /// To the user: notes as they are, warnings as such.
    pub(super) fn say(&self) {
        self.notes.iter().for_each(output::say);
        self.warn();
    }

    /// The warnings alone.
    pub(super) fn warn(&self) {
        self.warnings.iter().for_each(|warning| output::say(format_args!("warning: {warning}")));
    }
}

/// How many items a source has, and what they are for.
pub(super) fn parts_line(source: &DataSource, items: &Items, rule: &SplitRule) -> String {
    let [(_, train), (_, validation), (_, test)] = items.counts();
    let held = if validation > 0 { format!(", {validation} to validate on") } else { String::new() };
    format!("{source}: {}: {train} to train on{held}, {test} to test on ({rule})", count(items.len(), "item"))
}

/// `source` with broken pictures left out, if that is asked for.
pub(super) fn skipping(source: &DataSource, skip_bad: bool) -> DataSource {
    let mut source = source.clone();
    if let SourceKind::Images(folder) = &mut source.kind {
        folder.skip_bad |= skip_bad;
    }
    source
}

/// Items for a model, in the order of their source.
pub(super) struct Chosen {
    pub(super) items: Items,
    /// The parts of their source, all items of them.
    pub(super) split: Split,
    /// Of all parts.
    pub(super) all: usize,
    /// Whether the run knows the data.
    pub(super) seen: bool,
    pub(super) source: DataSource,
    pub(super) rule: SplitRule,
}

impl Chosen {
    /// What the items are: `test: 40 of 400 items (every tenth item)`.
    pub(super) fn title(&self, part: Option<Part>) -> String {
        match (self.seen, part) {
            (true, Some(part)) => format!("{part}: {} of {} ({})", self.items.len(), count(self.all, "item"), self.rule),
            (true, None) => format!("all: {}", count(self.items.len(), "item")),
            (false, Some(part)) => {
                format!("{part}: {} of {} of data that the run has not seen ({})", self.items.len(), count(self.all, "item"), self.rule)
            }
            (false, None) => format!("all: {} that the run has not seen", count(self.items.len(), "item")),
        }
    }
}

impl Data {
    /// The items that are asked for, of the run's own data where none are given. Data that the run has not seen are one
    /// part.
    pub(super) fn choose(&self, run: &Path, opened: &Opened<f32>, part: impl Fn(bool) -> Option<Part>) -> Result<Chosen> {
        let begun = Begun::near(run).map(|(_, begun)| begun);
        let source = match (&self.data, &begun) {
            (Some(source), _) | (None, Some(Begun { data: source, .. })) => skipping(source, self.skip_bad),
            (None, None) => return Err(format!("--data: `{}` does not say what data it was trained on", run.display()).into()),
        };
        choose(&source, opened, begun.as_ref(), part)
    }
}

/// What a run was begun on.
pub(super) struct Begun {
    pub(super) data: DataSource,
    /// Which items are in which part, where items have names.
    items: Option<String>,
}

impl Begun {
    /// That of a folder, or of the one that the checkpoint lies in, with the folder, if it says so.
    pub(super) fn near(run: &Path) -> Option<(&Path, Self)> {
        let read = |path| {
            let data = RunFolder::read_plan(path).ok()?.data;
            Some((path, Self { data, items: RunFolder::read_items(path).ok()? }))
        };
        read(run).or_else(|| read(run.parent()?))
    }
}

/// The items of a source that are asked for; `part` is told whether the run has seen the data.
pub(super) fn choose(
    source: &DataSource,
    opened: &Opened<f32>,
    begun: Option<&Begun>,
    part: impl Fn(bool) -> Option<Part>,
) -> Result<Chosen> {
    let split = open_any(source, opened.settings.seed)?;
    Told::of(&split).warn();
    // What does not fit is no reason to read any of it.
    opened.events.check(if split.train.is_empty() { &*split.test } else { &*split.train }, opened.model.event())?;
    // Named items are in the parts that they were in, of which some may be gone by now from where they were.
    let place = source.path().unwrap_or(Path::new("")).to_owned();
    let is_place = begun.is_some_and(|begun| begun.data.path() == source.path());
    let listed = begun.and_then(|begun| begun.items.as_ref()).map(|list| split_as_listed(list, split.clone(), &place, is_place));
    let (split, gone) = listed.and_then(Result::ok).unwrap_or((split, Vec::new()));
    let same = if gone.is_empty() { opened.events.record().is_of(split.train.as_ref())? } else { Some(true) };
    let begun = begun.map(|begun| &begun.data);
    // Checkpoints of earlier versions have no record of their data.
    let seen = same.unwrap_or_else(|| begun.is_some_and(|begun| begun == source));
    if same == Some(false) && begun.is_some_and(|begun| begun.path().is_some() && begun.path() == source.path()) {
        output::say(format_args!(
            "warning: {source} is not as it was when the run was begun on it, or is read or split in another way: its items count as unseen"
        ));
    }
    let part = part(seen);
    let items =
        if seen || part.is_some() { Items::of(&split, &hold_out(&*split.train, &opened.settings).0) } else { Items::unseen(&split) };
    let all = items.len();
    let items = part.map_or_else(|| items.clone(), |part| items.only(part));
    if items.is_empty() {
        let part = part.map_or_else(String::new, |part| format!("{part} "));
        return Err(format!("{source}: there are no {part}items ({})", split.rule).into());
    }
    let rule = split.rule.clone();
    Ok(Chosen { items, split, all, seen, source: source.clone(), rule })
}

impl From<arguments::Part> for Option<Part> {
    fn from(part: arguments::Part) -> Self {
        match part {
            arguments::Part::Train => Some(Part::Train),
            arguments::Part::Validation => Some(Part::Validation),
            arguments::Part::Test => Some(Part::Test),
            arguments::Part::All => None,
        }
    }
}

/// The part asked for, or test items of data that the run has seen and all of others.
pub(super) fn test_part(part: Option<arguments::Part>) -> impl Fn(bool) -> Option<Part> {
    move |seen| part.map_or(seen.then_some(Part::Test), Into::into)
}

impl Scoring {
    /// The library's options.
    pub(super) fn options(&self) -> EvaluateOptions {
        EvaluateOptions { batch: self.batch, dequantisations: self.dequantisations, ..EvaluateOptions::default() }
    }
}

/// Checks that `count` of the model's events fit into memory; `option` is what asks for them.
pub(super) fn fits(option: &str, count: usize, event: EventShape) -> Result<()> {
    let most = most_items::<f32>(event.len());
    if count > most {
        let room = "which are what the memory at hand has room for";
        Err(format!("{option}: expected at most {most} events of shape {event}, {room}, got {count}").into())
    } else {
        Ok(())
    }
}

/// Opens the model of a run or of a checkpoint.
pub(super) fn model(run: &Path) -> Result<checkpoint::Opened<f32>> {
    let opened = checkpoint::open(run)?;
    if let Some(note) = &opened.note {
        tracing::warn!("{note}");
    }
    Ok(opened)
}

/// The first of some items: what cannot be done is tried on it, before anything is computed for all of them.
pub(super) fn first(items: &Items) -> Result<Subset> {
    Ok(Subset::new(Arc::new(items.clone()), vec![0])?)
}

/// Checks that a model has the layer that `--layer` names.
pub(super) fn check_layer(opened: &Opened<f32>, items: &Items, layer: Option<&str>) -> Result<()> {
    let Some(layer) = layer else { return Ok(()) };
    match embed(&opened.model, &first(items)?, &opened.events, layer, 1, |_| Ok(())) {
        Err(TrainError::Flow(FlowError::Unsupported { layer: path, operation: "activations", .. })) if path == layer => {
            Err(format!("--layer {layer}: the model has no such layer; `mixerflow inspect` shows them").into())
        }
        // What is wrong with the item is told where all are taken.
        _ => Ok(()),
    }
}

/// Checks that a model is conditioned on classes, where `--every-class` asks for them, before anything is computed.
pub(super) fn has_classes(opened: &Opened<f32>, every_class: bool) -> Result<()> {
    let classes = opened.model.conditioner().and_then(Conditioner::classes);
    if every_class && classes.is_none() { Err(TrainError::NoClasses.into()) } else { Ok(()) }
}
