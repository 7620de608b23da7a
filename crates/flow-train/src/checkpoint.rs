//! Checkpoints: one folder that holds a run or a model, written so that a kill at any moment leaves the old one or the
//! new one.
//!
//! | file | holds |
//! |---|---|
//! | `spec.ron` | the architecture |
//! | `settings.ron` | the [`Settings`], seed included |
//! | `data.ron` | the [`EventKind`] of the data, what happens to their columns, and a [`DataRecord`] of them |
//! | `model.safetensors` | parameters and all other state, keyed by path |
//! | `optimiser.safetensors` | Adam's moments `first` and `second`, and the weights' `average` if there is one, each flat in the order of the parameters |
//! | `best.safetensors` | the model of the best validation, if one was finite |
//! | `progress.ron` | step, number of items in the data and a hash of some of them, number of reports, sums since the last report |
//! | `reports.ron` | all reports, one a line: added to, not written anew |
//! | `checksums.txt` | CRC-32 and length of each of the others, which are checked whenever one is read |
//!
//! A folder with the model alone has the first four and the last. [`export`] writes the four as one file for other
//! programs, with a checksum of its own, [`import`] reads it. Numbers that are not
//! finite are neither written nor read.

use crate::checksums::{CHECKSUMS, Checksum, Checksums, Files, to_text};
use crate::data::{ColumnMap, Dataset};
use crate::error::broken;
use crate::event_kind::EventKind;
use crate::events::Events;
use crate::file::replace_file;
use crate::history::History;
use crate::layout::{DATA, LATEST, MODEL, PROGRESS, SETTINGS, SPEC, is_checkpoint};
use crate::optimiser::{AdamState, set_flat_weights};
use crate::progress::{Best, Progress, Run};
use crate::replace::{Content, present, replace};
use crate::state_file::{self, Notes};
use crate::training::Trainer;
use crate::{DataRecord, Result, Settings, TrainError};
use flow_api::module::{Saved, State, load, parameter_count, save};
use flow_api::spec::{BuildScope, EventShape, Model, ModelSpec, Preprocessing, Spec, SpecScalar, Standardiser, from_ron, to_ron};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const OPTIMISER: &str = "optimiser.safetensors";
const BEST: &str = "best.safetensors";
const REPORTS: &str = "reports.ron";

/// The value of an export's metadata that says what it is.
const FORMAT: &str = "mixerflow-toolkit 1";

const FIRST: &str = "first";
const SECOND: &str = "second";
const AVERAGE: &str = "average";

/// The longest text file that is written or read: room for the reports of the longest run of versions that kept them
/// in `progress.ron`.
const MAX_TEXT: u64 = 64 << 20;

/// A model with all that is needed to use it.
#[derive(Debug)]
pub struct Opened<E: SpecScalar> {
    /// The architecture.
    pub spec: Spec<dyn ModelSpec>,
    /// How it was trained.
    pub settings: Settings,
    /// How items become events.
    pub events: Events,
    /// The model.
    pub model: Model<E>,
    /// What there is to say of the files: that they are of a version which took no checksums, so that a change would
    /// not be seen.
    pub note: Option<String>,
}

impl<E: SpecScalar> Opened<E> {
    /// What tells the model, its weights and all other state, from others: a CRC-32 of its file, as hexadecimal digits.
    ///
    /// # Errors
    /// [`TrainError::Checkpoint`] for numbers that are not finite.
    pub fn fingerprint(&self) -> Result<String> {
        let bytes = state_file::encode(Path::new(MODEL), &save(&self.model), &Notes::new())?;
        Ok(format!("{:08x}", crc32fast::hash(&bytes)))
    }
}

/// Writes the checkpoint of a run to `folder`, in place of the one that may be there.
///
/// # Errors
/// [`TrainError::Io`], and [`TrainError::Checkpoint`] where `folder` is something else than a checkpoint; what was
/// there stays.
pub fn write<E: SpecScalar>(folder: &Path, spec: &Spec<dyn ModelSpec>, trainer: &Trainer<E>) -> Result<()> {
    let mut files = model_files(folder, spec, trainer.settings(), trainer.events(), &save(trainer.model()))?;
    let optimiser = moments(trainer.optimiser().state());
    files.push((OPTIMISER, state_file::encode(&folder.join(OPTIMISER), &optimiser, &Notes::new())?));
    if let Some(best) = trainer.best() {
        files.push((BEST, state_file::encode(&folder.join(BEST), &best.state, &Notes::new())?));
    }
    files.push((PROGRESS, ron_bytes(folder, PROGRESS, &trainer.place())?));
    put(folder, files, Some(trainer.recorded()))
}

/// Writes the files of a checkpoint with their checksums, in place of the ones that may be there, whose reports are
/// added to.
fn put(folder: &Path, files: Vec<(&'static str, Vec<u8>)>, history: Option<&History>) -> Result<()> {
    let mut sums: Checksums = files.iter().map(|(name, bytes)| ((*name).to_owned(), Checksum::of(bytes))).collect();
    let mut contents: Vec<(&str, Content)> = files.into_iter().map(|(name, bytes)| (name, Content::New(bytes))).collect();
    if let Some(history) = history {
        let there = Files::of(&present(folder, is_checkpoint)).ok().and_then(|files| files.sums?.get(REPORTS).copied());
        let (kept, bytes) = history.added_to(there)?;
        contents.push((REPORTS, Content::Added { kept, bytes }));
        sums.insert(REPORTS.to_owned(), history.checksum());
    }
    contents.push((CHECKSUMS, Content::New(to_text(&sums).into_bytes())));
    replace(folder, &contents, is_checkpoint)
}

/// Writes a model, with what is needed to use it, to `folder`, in place of the checkpoint that may be there.
///
/// # Errors
/// As [`write()`].
pub fn write_model<E: SpecScalar>(
    folder: &Path,
    spec: &Spec<dyn ModelSpec>,
    settings: &Settings,
    events: &Events,
    state: &State<E>,
) -> Result<()> {
    put(folder, model_files(folder, spec, settings, events, state)?, None)
}

/// Opens a checkpoint, or the last one of a [`RunFolder`](crate::RunFolder), to score, sample or evaluate: of a run's
/// checkpoint the model that [`Trainer::finish`] would give.
///
/// # Errors
/// [`TrainError::Io`]; [`TrainError::Checkpoint`] for malformed files; [`TrainError::State`] where model and spec
/// differ.
pub fn open<E: SpecScalar>(folder: &Path) -> Result<Opened<E>> {
    read(folder, |files| {
        let mut opened = build::<E>(files)?;
        if files.contains(BEST) && read_ron::<Progress>(files, PROGRESS)?.finite_best().is_some() {
            load_state(files, BEST, &mut opened)?;
            return Ok(opened);
        }
        load_state(files, MODEL, &mut opened)?;
        if opened.settings.ema.is_some() && files.contains(OPTIMISER) {
            let moments = read_moments(files, &opened)?;
            if let Some(Saved::Reals(average)) = moments.get(AVERAGE) {
                set_flat_weights(&mut opened.model, average)?;
            }
        }
        Ok(opened)
    })
}

/// Reads the checkpoint at `folder`, or the latest one of the run there, again where a process that trains has
/// replaced it meanwhile.
pub(crate) fn read<T>(folder: &Path, read: impl Fn(&Files) -> Result<T>) -> Result<T> {
    const TRIES: usize = 20;
    for _ in 1..TRIES {
        let files = Files::of(&find(folder)?)?;
        let got = read(&files);
        let replaced = || Files::of(&find(folder)?).map(|now| now.sums != files.sums);
        if got.is_ok() || !replaced().unwrap_or(true) {
            return got;
        }
    }
    read(&Files::of(&find(folder)?)?)
}

/// Goes on with a run on its data, with settings that `change` may alter: more steps, other threads, another memory
/// setting.
///
/// With the settings as they were, the run goes on bit for bit as if it had never stopped.
///
/// # Errors
/// As [`open`], and those of [`Trainer::resume`].
pub fn resume<E: SpecScalar>(
    folder: &Path,
    data: Arc<dyn Dataset>,
    change: impl FnOnce(Settings) -> Settings,
) -> Result<(Trainer<E>, Spec<dyn ModelSpec>)> {
    let (opened, run) = read(folder, |files| {
        let mut opened = build::<E>(files)?;
        load_state(files, MODEL, &mut opened)?;
        let run = read_run(files, &opened)?;
        Ok((opened, run))
    })?;
    let Opened { spec, settings, model, events, .. } = opened;
    if model.head().is_some() {
        events.record().check_classes(data.as_ref())?;
    }
    Ok((Trainer::resume(model, data, change(settings), run)?, spec))
}

/// Writes the model of a checkpoint as one safetensors file: keys are parameter paths; spec, settings and kind of data
/// are its metadata, under the names of the checkpoint's files.
///
/// # Errors
/// As [`open`], and files that cannot be written.
pub fn export<E: SpecScalar>(folder: &Path, file: &Path) -> Result<()> {
    let opened = open::<E>(folder)?;
    let texts = [
        (SPEC, to_ron(&opened.spec)),
        (SETTINGS, to_ron(&opened.settings)),
        (DATA, to_ron(&DataFile::of(&opened.events))),
        ("format", Ok(FORMAT.to_owned())),
    ];
    let notes =
        texts.into_iter().map(|(name, text)| Ok((name.to_owned(), text.map_err(|e| broken(file, e))?))).collect::<Result<Notes>>()?;
    replace_file(file, &state_file::encode_export(file, &save(&opened.model), notes)?)
}

/// Reads what [`export`] wrote and makes a checkpoint of it at `folder`. A file whose weights were changed elsewhere
/// is one too, once `crc32` is taken out of its metadata.
///
/// # Errors
/// As [`open`] and [`write()`]; [`TrainError::Checkpoint`] for a file without the metadata of an export, and where
/// there is a checkpoint already.
pub fn import<E: SpecScalar>(file: &Path, folder: &Path) -> Result<()> {
    if is_checkpoint(&present(folder, is_checkpoint)) {
        return Err(broken(folder, "there is a checkpoint already, which is not overwritten: another folder can be taken"));
    }
    let notes = state_file::export_notes(file)?;
    let text = |name: &str| {
        let missing = || broken(file, format!("no `{name}` in its metadata: only exports of this program can be imported"));
        notes.get(name).ok_or_else(missing)
    };
    let parse = |e: flow_api::spec::SpecError| broken(file, e);
    let spec = from_ron(text(SPEC)?).map_err(parse)?;
    let settings = from_ron(text(SETTINGS)?).map_err(parse)?;
    let mut opened = assemble::<E>(spec, settings, from_ron(text(DATA)?).map_err(parse)?, file)?;
    set_state(file, &mut opened, File::open(file).map_err(TrainError::io(file))?)?;
    write_model(folder, &opened.spec, &opened.settings, &opened.events, &save(&opened.model))
}

/// The checkpoint at `folder`, or the latest one of the run there.
fn find(folder: &Path) -> Result<PathBuf> {
    let mut found = present(folder, is_checkpoint);
    if !is_checkpoint(&found) {
        let latest = present(&folder.join(LATEST), is_checkpoint);
        if is_checkpoint(&latest) {
            found = latest;
        }
    }
    if !found.exists() {
        return Err(TrainError::io(folder)(io::Error::new(io::ErrorKind::NotFound, "there is no such folder")));
    }
    if found.is_file() {
        return Err(broken(folder, "a file, where a run or a checkpoint is a folder"));
    }
    if found.is_dir() && !is_checkpoint(&found) {
        let latest = folder.join(LATEST);
        return Err(no_checkpoint(if latest.is_dir() { &latest } else { folder }));
    }
    Ok(found)
}

/// The error for a folder that should be a checkpoint: what is missing in it.
pub(crate) fn no_checkpoint(folder: &Path) -> TrainError {
    let missing: Vec<_> = [SPEC, MODEL].into_iter().filter(|name| !folder.join(name).is_file()).collect();
    broken(folder, format!("no checkpoint: there is no `{}` in it", missing.join("` and no `")))
}

fn model_files<E: SpecScalar>(
    folder: &Path,
    spec: &Spec<dyn ModelSpec>,
    settings: &Settings,
    events: &Events,
    state: &State<E>,
) -> Result<Vec<(&'static str, Vec<u8>)>> {
    Ok(vec![
        (SPEC, ron_bytes(folder, SPEC, spec)?),
        (SETTINGS, ron_bytes(folder, SETTINGS, settings)?),
        (DATA, ron_bytes(folder, DATA, &DataFile::of(events))?),
        (MODEL, state_file::encode(&folder.join(MODEL), state, &Notes::new())?),
    ])
}

/// The spec's model, with its initial weights, and the rest of the texts.
fn build<E: SpecScalar>(files: &Files) -> Result<Opened<E>> {
    let spec: Spec<dyn ModelSpec> = read_ron(files, SPEC)?;
    let settings: Settings = read_ron(files, SETTINGS)?;
    let note = "a checkpoint of a version that took no checksums: whether its files were changed is not known";
    let note = files.sums.is_none().then(|| format!("{}: {note}", files.path("").display()));
    Ok(Opened { note, ..assemble(spec, settings, read_ron(files, DATA)?, &files.path(MODEL))? })
}

/// `data.ron`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DataFile {
    shape: EventShape,
    levels: Option<u32>,
    /// What happens to the columns of real numbers; none where nothing happens to any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    columns: Vec<ColumnMap>,
    /// Whether the model has the state of a standardiser; none has in checkpoints of versions that did not standardise.
    #[serde(default)]
    standardised: bool,
    /// Empty in checkpoints of versions that kept no record.
    #[serde(default)]
    record: DataRecord,
}

impl DataFile {
    fn of(events: &Events) -> Self {
        let EventKind { shape, levels } = events.kind();
        let columns = events.reals().map_or(Vec::new(), |reals| reals.columns().to_vec());
        let standardised = events.reals().is_some_and(|reals| reals.standardiser().is_some());
        Self { shape, levels, columns, standardised, record: events.record().clone() }
    }
}

/// The spec's model for the weights of a file.
fn assemble<E: SpecScalar>(spec: Spec<dyn ModelSpec>, settings: Settings, data: DataFile, weights: &Path) -> Result<Opened<E>> {
    /// So many numbers are built in a moment, and all differences from the file are told. Of more, the first part that
    /// is not as in the file ends the building.
    const FEW: u64 = 1 << 22;
    settings.check()?;
    let DataFile { shape, levels, columns, standardised, record } = data;
    let kind = EventKind { shape, levels };
    let (asked, (shapes, there)) = (spec.cost(kind.shape).numbers as u64, state_file::shapes::<E>(weights)?);
    if asked > there.max(FEW) {
        return Err(broken(weights, format!("holds {there} numbers at most, where its spec asks for at least {asked}")));
    }
    let scope = BuildScope::new(settings.seed).with_given(record.given());
    let mut model = if asked > FEW {
        E::model(&spec, kind.shape, &scope.for_saved(shapes)).map_err(|e| broken(weights, e))?
    } else {
        E::model(&spec, kind.shape, &scope)?
    };
    if levels.is_none() {
        let own = Preprocessing { standardise: Some(standardised), ..model.preprocessing().clone() };
        // The columns that the spec names were found when the run was begun.
        let found = Preprocessing { bounds: BTreeMap::new(), discrete: BTreeSet::new(), ..own.clone() };
        model.set_standardiser(standardised.then(|| Standardiser::identity(kind.shape.len())))?;
        model = model.with_preprocessing(own);
        let events = Events::of_kind(kind, &found, settings.seed)?.with_columns(columns)?.with_record(record);
        return Ok(Opened { spec, settings, events, model, note: None });
    }
    let events = Events::of_kind(kind, model.preprocessing(), settings.seed)?.with_record(record);
    Ok(Opened { spec, settings, events, model, note: None })
}

fn load_state<E: SpecScalar>(files: &Files, name: &str, opened: &mut Opened<E>) -> Result<()> {
    set_state(&files.path(name), opened, files.open(name)?)
}

fn set_state<E: SpecScalar>(path: &Path, opened: &mut Opened<E>, file: File) -> Result<()> {
    let state = state_file::read(path, file, &save(&opened.model))?;
    // Values that the model cannot have, such as a permutation that is none.
    load(&mut opened.model, &state).map_err(|e| broken(path, e))?;
    opened.events = opened.events.clone().with_standardiser(opened.model.standardiser().cloned());
    Ok(())
}

fn moments<E: SpecScalar>(state: AdamState<E>) -> State<E> {
    let AdamState { step: _, first, second, average } = state;
    let named = [(FIRST, Some(first)), (SECOND, Some(second)), (AVERAGE, average)];
    named.into_iter().filter_map(|(name, values)| Some((name.to_owned(), Saved::Reals(values?)))).collect()
}

fn read_moments<E: SpecScalar>(files: &Files, opened: &Opened<E>) -> Result<State<E>> {
    let zeros = vec![E::zero(); parameter_count(&opened.model)];
    let average = opened.settings.ema.map(|_| zeros.clone());
    let expected = moments(AdamState { step: 0, first: zeros.clone(), second: zeros, average });
    state_file::read(&files.path(OPTIMISER), files.open(OPTIMISER)?, &expected)
}

fn read_run<E: SpecScalar>(files: &Files, opened: &Opened<E>) -> Result<Run<E>> {
    let mut progress: Progress = read_ron(files, PROGRESS)?;
    if let Some(count) = progress.reports {
        progress.history = History::read(files.open(REPORTS)?, &files.path(REPORTS), count)?.reports().to_vec();
    }
    let mut moments = read_moments(files, opened)?;
    let mut take = |name: &str| match moments.remove(name) {
        Some(Saved::Reals(values)) => Some(values),
        _ => None,
    };
    let optimiser = AdamState {
        step: progress.step,
        first: take(FIRST).unwrap_or_default(),
        second: take(SECOND).unwrap_or_default(),
        average: take(AVERAGE),
    };
    let best = match progress.finite_best() {
        Some((value, step)) => {
            let state = state_file::read(&files.path(BEST), files.open(BEST)?, &save(&opened.model))?;
            Some(Best { value, step, state })
        }
        None => None,
    };
    Ok(Run { progress, optimiser, best })
}

fn ron_bytes<T: Serialize>(folder: &Path, name: &str, value: &T) -> Result<Vec<u8>> {
    let path = folder.join(name);
    let text = to_ron(value).map_err(|e| broken(&path, e))?;
    check_length(&path, text.len() as u64)?;
    Ok(text.into_bytes())
}

pub(crate) fn read_ron<T: for<'de> Deserialize<'de>>(files: &Files, name: &str) -> Result<T> {
    let path = files.path(name);
    from_ron(&text_of(files.open(name)?, &path)?).map_err(|e| broken(&path, e))
}

/// A text file of bounded length.
pub(crate) fn read_text(path: &Path) -> Result<String> {
    text_of(File::open(path).map_err(TrainError::io(path))?, path)
}

fn text_of(file: File, path: &Path) -> Result<String> {
    let mut bytes = Vec::new();
    file.take(MAX_TEXT + 1).read_to_end(&mut bytes).map_err(TrainError::io(path))?;
    check_length(path, bytes.len() as u64)?;
    String::from_utf8(bytes).map_err(|e| broken(path, e))
}

/// What is not read is not written either.
fn check_length(path: &Path, bytes: u64) -> Result<()> {
    if bytes > MAX_TEXT { Err(broken(path, format!("a text of more than {MAX_TEXT} bytes"))) } else { Ok(()) }
}
