//! What several commands read: specs, settings, data, models.

use crate::Result;
use crate::arguments::{Data, Part, Scoring, Training};
use flow_api::spec::{EventShape, ModelSpec, Spec, from_ron, set_field};
use flow_train::data::{DataSource, Dataset, Split, most_items};
use flow_train::{EvaluateOptions, Settings, checkpoint};
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

/// What begins the path of a setting in `--set`.
const SETTINGS: &str = "settings.";

/// The longest spec that is read, in bytes.
const MAX_SPEC: u64 = 1 << 20;

/// Reads a spec and overrides fields.
pub(super) fn spec(path: &Path, set: &[String]) -> Result<Spec<dyn ModelSpec>> {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(MAX_SPEC + 1).read_to_string(&mut text));
    read.map_err(|e| format!("{}: {e}", path.display()))?;
    if text.len() as u64 > MAX_SPEC {
        return Err(format!("{}: a spec of more than {MAX_SPEC} bytes", path.display()).into());
    }
    let spec = from_ron(&text).map_err(|e| format!("{}:{e}", path.display()))?;
    pairs(set)?
        .into_iter()
        .filter(|(path, _)| !path.starts_with(SETTINGS))
        .try_fold(spec, |spec, (path, value)| set_field(&spec, path, value).map_err(|e| format!("--set: {e}").into()))
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
        settings.validation = self.validation.unwrap_or(settings.validation);
        settings.threads = threads.or(settings.threads);
        settings.steps = self.steps.unwrap_or(settings.steps);
        Ok(settings)
    }

    /// The steps of `settings`, or those of as many epochs of the data as the command line says.
    pub(super) fn steps(&self, settings: &Settings, data: &dyn Dataset) -> u64 {
        self.epochs.map_or(settings.steps, |epochs| settings.steps_of_epochs(epochs, data))
    }

    /// The settings of a new run, and its data: opened with the seed that a resumed run will open it with, wherever it was set.
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

/// Opens data, telling of every file that is left out.
pub(super) fn open(source: &DataSource, seed: u64) -> Result<Split> {
    Ok(tell_skipped(source.open(seed)?))
}

fn tell_skipped(split: Split) -> Split {
    for skipped in &split.skipped {
        tracing::warn!("{} is left out: {}", skipped.path.display(), skipped.reason);
    }
    if !split.skipped.is_empty() {
        tracing::warn!("{} files or folders are left out", split.skipped.len());
    }
    split
}

/// `source` with broken pictures left out, if that is asked for.
pub(super) fn skipping(source: &DataSource, skip_bad: bool) -> DataSource {
    match source.clone() {
        DataSource::Images(folder) if skip_bad => DataSource::Images(flow_train::data::ImageFolder { skip_bad: true, ..folder }),
        other => other,
    }
}

impl Data {
    /// The parts that are asked for, with their names. With the seed of a run on this data, they are the items that it was trained and can be tested on.
    pub(super) fn parts(&self, part: Part, seed: u64) -> Result<Vec<(&'static str, Arc<dyn Dataset>)>> {
        let source = skipping(&self.data, self.skip_bad);
        // One item is enough where all are asked for.
        let split = if part == Part::All { tell_skipped(source.open_any(seed)?) } else { open(&source, seed)? };
        Ok(match part {
            Part::Train => vec![("train", split.train)],
            Part::Test => vec![("test", split.test)],
            Part::All => [("train", split.train), ("test", split.test)].into_iter().filter(|(_, data)| !data.is_empty()).collect(),
        })
    }
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
