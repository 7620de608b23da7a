//! Checkpoints: one folder that holds a run, written so that a kill at any moment leaves the old one or the new one.

use crate::optimiser::AdamState;
use crate::training::{Best, Report, Trainer};
use crate::{Result, Settings, TrainError};
use flow_api::spec::{ModelSpec, Spec, SpecScalar, from_ron, to_ron};
use flow_api::{Module, Saved, Scalar, State, load, save};
use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// A file may exceed what the model needs by this much: room for its header.
const HEADER_ROOM: u64 = 64 << 20;

/// The place in a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// Steps made.
    pub step: u64,
    /// Reports since the best one.
    pub stale: u32,
    /// Value and step of the best validation.
    pub best: Option<(f64, u64)>,
    /// All reports.
    pub history: Vec<Report>,
}

const MODEL: &str = "model.safetensors";
const OPTIMISER: &str = "optimiser.safetensors";
const SPEC: &str = "spec.ron";
const SETTINGS: &str = "settings.ron";
const PROGRESS: &str = "progress.json";

/// Writes the checkpoint of a run to `folder`, in place of the one that may be there.
///
/// # Errors
/// [`TrainError::Io`]; the checkpoint that was there stays.
pub fn write<E: SpecScalar>(folder: &Path, spec: &Spec<dyn ModelSpec>, trainer: &Trainer<E>) -> Result<()> {
    let AdamState { step: _, first, second, average } = trainer.optimiser().state();
    let mut moments: Vec<(&str, &[E])> = vec![("first", &first), ("second", &second)];
    moments.extend(average.as_deref().map(|values| ("average", values)));
    moments.extend(trainer.best().map(|best| ("best", best.weights.as_slice())));
    let progress = serde_json::to_vec_pretty(&trainer.progress()).map_err(|e| broken(&folder.join(PROGRESS), e))?;
    let files = [
        (SPEC, to_ron(spec)?.into_bytes()),
        (SETTINGS, to_ron(trainer.settings())?.into_bytes()),
        (MODEL, model_bytes(trainer.model(), folder)?),
        (
            OPTIMISER,
            tensors_bytes(
                &moments.into_iter().map(|(name, values)| (name.to_owned(), Raw::numbers(values, vec![values.len()]))).collect(),
                folder,
            )?,
        ),
        (PROGRESS, progress),
    ];
    replace_folder(folder, &files)
}

/// Writes a model with its spec to `folder`, without a run.
///
/// # Errors
/// [`TrainError::Io`].
pub fn write_model<E: SpecScalar>(folder: &Path, spec: &Spec<dyn ModelSpec>, model: &impl Module<E>) -> Result<()> {
    replace_folder(folder, &[(SPEC, to_ron(spec)?.into_bytes()), (MODEL, model_bytes(model, folder)?)])
}

/// The folder that holds the checkpoint: `folder` itself or, after a kill between two renames, the new or the old one beside it.
fn present(folder: &Path) -> PathBuf {
    [folder.to_owned(), beside(folder, "new"), beside(folder, "old")]
        .into_iter()
        .find(|candidate| candidate.join(MODEL).exists())
        .unwrap_or_else(|| folder.to_owned())
}

fn beside(folder: &Path, suffix: &str) -> PathBuf {
    let mut name = folder.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{suffix}"));
    folder.with_file_name(name)
}

/// Writes all files to a folder of another name, then renames: a kill leaves the old folder, the new one, or both under names that [`present`] knows.
fn replace_folder(folder: &Path, files: &[(&str, Vec<u8>)]) -> Result<()> {
    let (draft, new, old) = (beside(folder, "draft"), beside(folder, "new"), beside(folder, "old"));
    for leftover in [&draft, &new] {
        // A complete `new` is only superseded: this very write replaces it.
        if leftover.exists() && (leftover == &draft || folder.exists()) {
            fs::remove_dir_all(leftover).map_err(TrainError::io(leftover))?;
        }
    }
    if !folder.exists() && new.exists() {
        fs::rename(&new, folder).map_err(TrainError::io(folder))?;
    }
    fs::create_dir_all(&draft).map_err(TrainError::io(&draft))?;
    for (name, bytes) in files {
        let path = draft.join(name);
        let mut file = File::create(&path).map_err(TrainError::io(&path))?;
        file.write_all(bytes).and_then(|()| file.sync_all()).map_err(TrainError::io(&path))?;
    }
    sync(&draft)?;
    fs::rename(&draft, &new).map_err(TrainError::io(&new))?;
    if old.exists() {
        fs::remove_dir_all(&old).map_err(TrainError::io(&old))?;
    }
    if folder.exists() {
        fs::rename(folder, &old).map_err(TrainError::io(&old))?;
    }
    fs::rename(&new, folder).map_err(TrainError::io(folder))?;
    sync(folder.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")))?;
    if old.exists() {
        fs::remove_dir_all(&old).map_err(TrainError::io(&old))?;
    }
    Ok(())
}

/// Makes a folder's entries durable.
fn sync(folder: &Path) -> Result<()> {
    File::open(folder).and_then(|file| file.sync_all()).map_err(TrainError::io(folder))
}

/// The spec of a checkpoint.
///
/// # Errors
/// Files that cannot be read or are no spec.
pub fn read_spec(folder: &Path) -> Result<Spec<dyn ModelSpec>> {
    Ok(from_ron(&text(&present(folder).join(SPEC))?)?)
}

/// The settings of a checkpoint.
///
/// # Errors
/// Files that cannot be read or are no settings.
pub fn read_settings(folder: &Path) -> Result<Settings> {
    Ok(from_ron(&text(&present(folder).join(SETTINGS))?)?)
}

/// Loads a checkpoint's weights and state into a model, which must have been built from its spec.
///
/// # Errors
/// [`TrainError::Checkpoint`] for a malformed file, and [`flow_api::FlowError::State`] with every difference; the model is then as it was.
pub fn read_model<E: SpecScalar>(folder: &Path, model: &mut impl Module<E>) -> Result<()> {
    let own = save(model);
    let path = present(folder).join(MODEL);
    let size = own.values().map(|entry| Raw::of(entry).bytes.len() as u64).sum();
    let bytes = bounded(&path, size)?;
    let tensors = SafeTensors::deserialize(&bytes).map_err(|e| broken(&path, e))?;
    let mut state = State::new();
    for (name, view) in tensors.iter() {
        let here = own.get(name);
        state.insert(name.to_owned(), saved(&view, here).map_err(|reason| broken(&path, format!("`{name}`: {reason}")))?);
    }
    Ok(load(model, &state)?)
}

/// What is needed to go on with a run, besides the model.
#[derive(Clone, Debug)]
pub struct Run<E> {
    /// The place in the run.
    pub progress: Progress,
    /// The optimiser's state.
    pub optimiser: AdamState<E>,
    /// The best validation with its weights.
    pub best: Option<Best<E>>,
}

/// Reads the optimiser's state and the place in the run; `parameters` is the model's number of them.
///
/// # Errors
/// [`TrainError::Checkpoint`] for malformed files.
pub fn read_run<E: Scalar>(folder: &Path, parameters: usize) -> Result<Run<E>> {
    let folder = present(folder);
    let path = folder.join(PROGRESS);
    let progress: Progress = serde_json::from_str(&text(&path)?).map_err(|e| broken(&path, e))?;
    let path = folder.join(OPTIMISER);
    let bytes = bounded(&path, 4 * (parameters * size_of::<E>()) as u64)?;
    let tensors = SafeTensors::deserialize(&bytes).map_err(|e| broken(&path, e))?;
    let read = |name: &str| -> Result<Vec<E>> {
        let view = tensors.tensor(name).map_err(|e| broken(&path, e))?;
        let values = numbers::<E>(&view).map_err(|reason| broken(&path, format!("`{name}`: {reason}")))?;
        if values.len() == parameters {
            Ok(values)
        } else {
            Err(broken(&path, format!("`{name}`: {} numbers, the model has {parameters}", values.len())))
        }
    };
    let has = |name: &str| tensors.names().contains(&name);
    let average = if has("average") { Some(read("average")?) } else { None };
    let best = match progress.best {
        Some((value, step)) => Some(Best { value, step, weights: read("best")? }),
        None => None,
    };
    let optimiser = AdamState { step: progress.step, first: read("first")?, second: read("second")?, average };
    Ok(Run { progress, optimiser, best })
}

#[expect(clippy::needless_pass_by_value, reason = "it takes errors where they arise")]
fn broken(path: &Path, reason: impl ToString) -> TrainError {
    TrainError::Checkpoint { path: path.to_owned(), reason: reason.to_string() }
}

fn text(path: &Path) -> Result<String> {
    let bytes = bounded(path, 0)?;
    String::from_utf8(bytes).map_err(|e| broken(path, e))
}

/// A whole file, if it is no larger than `size` and some room for headers; nothing is allocated before that is known.
fn bounded(path: &Path, size: u64) -> Result<Vec<u8>> {
    let file = File::open(path).map_err(TrainError::io(path))?;
    let length = file.metadata().map_err(TrainError::io(path))?.len();
    let limit = size + HEADER_ROOM;
    if length > limit {
        return Err(broken(path, format!("{length} bytes where at most {limit} are expected")));
    }
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes).map_err(TrainError::io(path))?;
    Ok(bytes)
}

/// A tensor's bytes.
struct Raw {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Raw {
    fn numbers<E: Scalar>(values: &[E], shape: Vec<usize>) -> Self {
        if size_of::<E>() == 4 {
            let bytes = values.iter().flat_map(|v| num_traits::cast::<E, f32>(*v).unwrap_or(f32::NAN).to_le_bytes()).collect();
            Self { dtype: Dtype::F32, shape, bytes }
        } else {
            Self { dtype: Dtype::F64, shape, bytes: values.iter().flat_map(|v| v.as_f64().to_le_bytes()).collect() }
        }
    }

    fn of<E: Scalar>(entry: &Saved<E>) -> Self {
        match entry {
            Saved::Parameter { shape, values } => Self::numbers(values, shape.clone()),
            Saved::Indices(values) => {
                let bytes = values.iter().flat_map(|&v| (v as u64).to_le_bytes()).collect();
                Self { dtype: Dtype::U64, shape: vec![values.len()], bytes }
            }
            Saved::Flag(value) => Self { dtype: Dtype::BOOL, shape: vec![1], bytes: vec![u8::from(*value)] },
            Saved::Reals(values) => Self::numbers(values, vec![values.len()]),
            _ => Self { dtype: Dtype::U8, shape: vec![0], bytes: Vec::new() },
        }
    }
}

fn model_bytes<E: SpecScalar>(model: &impl Module<E>, folder: &Path) -> Result<Vec<u8>> {
    tensors_bytes(&save(model).iter().map(|(path, entry)| (path.clone(), Raw::of(entry))).collect(), folder)
}

fn tensors_bytes(tensors: &BTreeMap<String, Raw>, folder: &Path) -> Result<Vec<u8>> {
    let views = tensors
        .iter()
        .map(|(name, raw)| TensorView::new(raw.dtype, raw.shape.clone(), &raw.bytes).map(|view| (name.clone(), view)))
        .collect::<std::result::Result<Vec<_>, _>>()
        .map_err(|e| broken(folder, e))?;
    serialize(views, None).map_err(|e| broken(folder, e))
}

fn numbers<E: Scalar>(view: &TensorView<'_>) -> std::result::Result<Vec<E>, String> {
    let expected = if size_of::<E>() == 4 { Dtype::F32 } else { Dtype::F64 };
    if view.dtype() != expected {
        return Err(format!("{:?} where {expected:?} is expected", view.dtype()));
    }
    Ok(if expected == Dtype::F32 {
        view.data().as_chunks::<4>().0.iter().map(|b| E::of(f64::from(f32::from_le_bytes(*b)))).collect()
    } else {
        view.data().as_chunks::<8>().0.iter().map(|b| E::of(f64::from_le_bytes(*b))).collect()
    })
}

/// A file's tensor as an entry, of the kind that the model has under its name.
fn saved<E: Scalar>(view: &TensorView<'_>, here: Option<&Saved<E>>) -> std::result::Result<Saved<E>, String> {
    match (view.dtype(), here) {
        (Dtype::U64, _) => {
            let indices = view.data().as_chunks::<8>().0.iter().map(|b| usize::try_from(u64::from_le_bytes(*b)));
            Ok(Saved::Indices(indices.collect::<std::result::Result<_, _>>().map_err(|e| e.to_string())?))
        }
        (Dtype::BOOL, _) => Ok(Saved::Flag(view.data().first().is_some_and(|b| *b != 0))),
        (_, Some(Saved::Reals(_))) => Ok(Saved::Reals(numbers(view)?)),
        _ => Ok(Saved::Parameter { shape: view.shape().to_vec(), values: numbers(view)? }),
    }
}
