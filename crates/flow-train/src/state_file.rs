//! Parameters and state of a module as a safetensors file: keys are paths.
//!
//! Numbers are F32 or F64 as the module has them ([`Saved::Doubles`] always F64), indices U64, flags BOOL. The header
//! is read and compared with the module before any tensor is, so a file that does not fit costs no more memory than its
//! header, which is bounded, and one that fits costs what the module itself does.

use crate::error::broken;
use crate::{Result, TrainError, checksums};
use flow_api::Scalar;
use flow_api::module::{Saved, State, StateMismatch};
use safetensors::tensor::{Dtype, Metadata, TensorView, serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// The longest header that is written or read, as the format has it: room for some hundred thousand tensors.
const MAX_HEADER: u64 = 100_000_000;

/// The checksum's name among the texts of an export.
const CHECKSUM: &str = "crc32";

/// Bytes of the header's length, which a safetensors file begins with.
const LENGTH_BYTES: u64 = 8;

/// Texts beside the tensors.
pub(crate) type Notes = BTreeMap<String, String>;

/// The file's bytes: those of equal states and texts are equal.
///
/// # Errors
/// [`TrainError::Checkpoint`] for kinds of state that safetensors cannot hold.
pub(crate) fn encode<E: Scalar>(path: &Path, state: &State<E>, notes: &Notes) -> Result<Vec<u8>> {
    let tensors = state
        .iter()
        .map(|(name, entry)| {
            check_finite(name, entry).map_err(|reason| broken(path, reason))?;
            let (dtype, shape) = layout(entry).ok_or_else(|| broken(path, format!("`{name}` is of a kind that cannot be saved")))?;
            Ok((name.as_str(), dtype, shape, bytes(entry)))
        })
        .collect::<Result<Vec<_>>>()?;
    let views = tensors
        .iter()
        .map(|(name, dtype, shape, bytes)| Ok((*name, TensorView::new(*dtype, shape.clone(), bytes)?)))
        .collect::<std::result::Result<Vec<_>, safetensors::SafeTensorError>>();
    let bytes = views.and_then(|views| serialize(views, None)).map_err(|e| broken(path, e))?;
    let bytes =
        if notes.is_empty() { bytes } else { with_notes(&bytes, notes).ok_or_else(|| broken(path, "its texts cannot be written"))? };
    let header = bytes.first_chunk::<8>().map_or(0, |length| u64::from_le_bytes(*length));
    if header > MAX_HEADER { Err(too_long(path, header, MAX_HEADER)) } else { Ok(bytes) }
}

/// The bytes of an export: among its texts is a checksum of the others and of the tensors.
///
/// # Errors
/// As [`encode`].
pub(crate) fn encode_export<E: Scalar>(path: &Path, state: &State<E>, mut notes: Notes) -> Result<Vec<u8>> {
    let tensors = state.iter().filter_map(|(name, entry)| {
        let (dtype, shape) = layout(entry)?;
        Some((name.as_str(), (dtype, shape, crc32fast::hash(&bytes(entry)))))
    });
    let sum = checksum(&notes, &tensors.collect());
    notes.insert(CHECKSUM.to_owned(), sum);
    encode(path, state, &notes)
}

/// CRC-32 of what a file says, in whatever order it says it: texts, and name, type, shape and CRC-32 of every tensor.
fn checksum(notes: &Notes, tensors: &BTreeMap<&str, (Dtype, Vec<usize>, u32)>) -> String {
    let mut hasher = crc32fast::Hasher::new();
    for (name, text) in notes.iter().filter(|(name, _)| *name != CHECKSUM) {
        hasher.update(format!("{name:?} {text:?}\n").as_bytes());
    }
    for (name, (dtype, shape, crc)) in tensors {
        hasher.update(format!("{name:?} {dtype:?} {shape:?} {crc:08x}\n").as_bytes());
    }
    format!("{:08x}", hasher.finalize())
}

/// The file with texts in its header, in the order of their names: safetensors writes them in the order of a hash
/// table, another in every process.
fn with_notes(bytes: &[u8], notes: &Notes) -> Option<Vec<u8>> {
    let (length, rest) = bytes.split_first_chunk::<8>()?;
    let (header, body) = rest.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
    let tensors = std::str::from_utf8(header).ok()?.trim_end().strip_prefix('{')?;
    let comma = if tensors == "}" { "" } else { "," };
    let mut header = format!("{{\"__metadata__\":{}{comma}{tensors}", serde_json::to_string(notes).ok()?).into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    Some([&(header.len() as u64).to_le_bytes(), &*header, body].concat())
}

/// Reads a file, from its beginning, that holds what `own` does, with other values.
///
/// # Errors
/// [`TrainError::Io`]; [`TrainError::Checkpoint`] for a malformed file and numbers that are not finite;
/// [`TrainError::State`] with every difference in names, types and shapes.
pub(crate) fn read<E: Scalar>(path: &Path, mut file: File, own: &State<E>) -> Result<State<E>> {
    let (header, body) = read_header(path, &mut file)?;
    let mismatch = differences(own, &header);
    if !mismatch.is_empty() {
        return Err(TrainError::State { path: path.to_owned(), mismatch });
    }
    check_body(path, &header, body)?;
    let body = read_bytes(&mut file, body, path)?;
    own.iter()
        .map(|(name, entry)| {
            if header.info(name).is_none() {
                return Ok((name.clone(), zeros_like(entry)));
            }
            let raw = header.info(name).and_then(|info| body.get(info.data_offsets.0..info.data_offsets.1)).unwrap_or_default();
            let entry = decode(entry, raw).map_err(|reason| broken(path, format!("`{name}`: {reason}")))?;
            check_finite(name, &entry).map_err(|reason| broken(path, reason))?;
            Ok((name.clone(), entry))
        })
        .collect()
}

/// The texts beside the tensors of an export, once its checksum is known to be that of the file; one without a
/// checksum is taken as it is.
///
/// # Errors
/// [`TrainError::Io`]; [`TrainError::Checkpoint`] for a malformed file, and for one that was changed.
pub(crate) fn export_notes(path: &Path) -> Result<Notes> {
    let mut file = File::open(path).map_err(TrainError::io(path))?;
    let (header, body) = read_header(path, &mut file)?;
    let notes: Notes = header.metadata().iter().flatten().map(|(name, text)| (name.clone(), text.clone())).collect();
    let Some(expected) = notes.get(CHECKSUM) else { return Ok(notes) };
    check_body(path, &header, body)?;
    let tensors = header.tensors();
    let mut in_order: Vec<_> = tensors.iter().collect();
    in_order.sort_by_key(|(_, info)| info.data_offsets);
    let mut sums = BTreeMap::new();
    for (name, info) in in_order {
        let bytes = (info.data_offsets.1 - info.data_offsets.0) as u64;
        let crc = checksums::checksum(&mut file, bytes).map_err(TrainError::io(path))?;
        sums.insert(name.as_str(), (info.dtype, info.shape.clone(), crc));
    }
    if checksum(&notes, &sums) != *expected {
        let remedy = format!("take `{CHECKSUM}` out of its metadata if that was meant");
        return Err(broken(path, format!("it was changed since it was exported: its checksum is another; {remedy}")));
    }
    Ok(notes)
}

/// The shapes of a file's tensors by name, and how many numbers it can hold by its length.
///
/// # Errors
/// [`TrainError::Io`]; [`TrainError::Checkpoint`] for a malformed file.
pub(crate) fn shapes<E: Scalar>(path: &Path) -> Result<(BTreeMap<String, Vec<usize>>, u64)> {
    let mut file = File::open(path).map_err(TrainError::io(path))?;
    let (header, body) = read_header(path, &mut file)?;
    let mut shapes: BTreeMap<String, Vec<usize>> = header.tensors().into_iter().map(|(name, info)| (name, info.shape.clone())).collect();
    for New { name, siblings } in NEW {
        let layers: Vec<String> = shapes.keys().filter_map(|path| path.strip_suffix(siblings[0]).map(str::to_owned)).collect();
        for layer in layers {
            let new = format!("{layer}{name}");
            if !shapes.contains_key(&new) && is_new(&new, &shapes) {
                let shape = shapes.get(&format!("{layer}{}", siblings[0])).cloned().unwrap_or_default();
                shapes.insert(new, shape);
            }
        }
    }
    Ok((shapes, body / size_of::<E>() as u64))
}

/// A file's header and the bytes behind it, where the file then stands.
fn read_header(path: &Path, file: &mut File) -> Result<(Metadata, u64)> {
    let length = file.metadata().map_err(TrainError::io(path))?.len();
    let mut header_length = [0; 8];
    if length < LENGTH_BYTES {
        return Err(broken(path, format!("cut off: {length} bytes")));
    }
    file.read_exact(&mut header_length).map_err(TrainError::io(path))?;
    let header_length = u64::from_le_bytes(header_length);
    let room = length - LENGTH_BYTES;
    if header_length > room.min(MAX_HEADER) {
        return Err(too_long(path, header_length, room.min(MAX_HEADER)));
    }
    let header = read_bytes(file, header_length, path)?;
    let header: Metadata = serde_json::from_slice(&header).map_err(|e| broken(path, format!("its header: {e}")))?;
    Ok((header, room - header_length))
}

fn too_long(path: &Path, header: u64, most: u64) -> TrainError {
    broken(path, format!("a header of {header} bytes, where at most {most} can be"))
}

/// Checks that a file is as long as its header says.
fn check_body(path: &Path, header: &Metadata, body: u64) -> Result<()> {
    if body == header.data_len() as u64 {
        return Ok(());
    }
    Err(broken(path, format!("{body} bytes of data, where the header announces {}", header.data_len())))
}

/// Refuses numbers that are not finite: of such weights nothing can be computed.
fn check_finite<E: Scalar>(name: &str, entry: &Saved<E>) -> std::result::Result<(), String> {
    let bad = match entry {
        Saved::Parameter { values, .. } | Saved::Reals(values) => {
            values.iter().map(|value| value.as_f64()).enumerate().find(|(_, value)| !value.is_finite())
        }
        Saved::Doubles(values) => values.iter().copied().enumerate().find(|(_, value)| !value.is_finite()),
        _ => None,
    };
    bad.map_or(Ok(()), |(at, value)| Err(format!("`{name}`: number {at} is {value}: expected finite numbers")))
}

/// Exactly `count` bytes, which the file is known to have.
fn read_bytes(file: &mut File, count: u64, path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let got = file.take(count).read_to_end(&mut bytes).map_err(TrainError::io(path))?;
    if got as u64 == count { Ok(bytes) } else { Err(broken(path, format!("cut off: {got} bytes where {count} were announced"))) }
}

fn differences<E: Scalar>(own: &State<E>, header: &Metadata) -> StateMismatch {
    let there = header.tensors();
    let mut names: Vec<&String> = there.keys().filter(|name| !own.contains_key(*name)).collect();
    names.sort_unstable();
    let mut mismatch = StateMismatch { unexpected: names.into_iter().cloned().collect(), ..StateMismatch::default() };
    for (name, entry) in own {
        match there.get(name) {
            None if is_new(name, own) => {}
            None => mismatch.missing.push(name.clone()),
            Some(info) => {
                let there = (info.dtype, info.shape.clone());
                if layout(entry).as_ref() != Some(&there) {
                    let text = |(dtype, shape): (Dtype, Vec<usize>)| format!("{dtype:?} {shape:?}");
                    let here = layout(entry).map_or_else(|| "of another kind".to_owned(), text);
                    mismatch.different.push((name.clone(), here, text(there)));
                }
            }
        }
    }
    mismatch
}

/// State that files of earlier versions have not, and that is read as zeros.
struct New {
    name: &'static str,
    /// What stands beside it, of which the first has its shape.
    siblings: &'static [&'static str],
}

/// The middle of an `ActNorm`, which was y = e^s ⊙ x + t, and the tails of a standardiser, which had none.
const NEW: [New; 2] =
    [New { name: "middle", siblings: &["log_scale", "shift", "initialised"] }, New { name: "tail", siblings: &["mean", "scale"] }];

/// Whether files of earlier versions have no such entry, where it stands for zeros.
fn is_new<T>(path: &str, own: &BTreeMap<String, T>) -> bool {
    NEW.iter().any(|New { name, siblings }| {
        let is_beside = |layer: &str| siblings.iter().all(|sibling| own.contains_key(&format!("{layer}{sibling}")));
        path.strip_suffix(name).is_some_and(is_beside)
    })
}

fn zeros_like<E: Scalar>(entry: &Saved<E>) -> Saved<E> {
    match entry {
        Saved::Reals(values) => Saved::Reals(vec![E::zero(); values.len()]),
        Saved::Doubles(values) => Saved::Doubles(vec![0.0; values.len()]),
        other => other.clone(),
    }
}

fn number_type<E: Scalar>() -> Dtype {
    if size_of::<E>() == 4 { Dtype::F32 } else { Dtype::F64 }
}

/// Type and shape in the file; none for kinds of entry that are newer than this code.
fn layout<E: Scalar>(entry: &Saved<E>) -> Option<(Dtype, Vec<usize>)> {
    match entry {
        Saved::Parameter { shape, .. } => Some((number_type::<E>(), shape.clone())),
        Saved::Reals(values) => Some((number_type::<E>(), vec![values.len()])),
        Saved::Doubles(values) => Some((Dtype::F64, vec![values.len()])),
        Saved::Indices(values) => Some((Dtype::U64, vec![values.len()])),
        Saved::Flag(_) => Some((Dtype::BOOL, vec![1])),
        _ => None,
    }
}

fn bytes<E: Scalar>(entry: &Saved<E>) -> Vec<u8> {
    match entry {
        Saved::Parameter { values, .. } | Saved::Reals(values) => match number_type::<E>() {
            // The cast of an f32 to an f32.
            Dtype::F32 => values.iter().flat_map(|v| num_traits::cast::<E, f32>(*v).unwrap_or(f32::NAN).to_le_bytes()).collect(),
            _ => values.iter().flat_map(|v| v.as_f64().to_le_bytes()).collect(),
        },
        Saved::Doubles(values) => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        Saved::Indices(values) => values.iter().flat_map(|&v| (v as u64).to_le_bytes()).collect(),
        Saved::Flag(value) => vec![u8::from(*value)],
        _ => Vec::new(),
    }
}

/// The entry like `own` in these bytes, which are as many as it takes.
fn decode<E: Scalar>(own: &Saved<E>, raw: &[u8]) -> std::result::Result<Saved<E>, String> {
    let numbers = || match number_type::<E>() {
        Dtype::F32 => raw.as_chunks::<4>().0.iter().map(|b| E::of(f64::from(f32::from_le_bytes(*b)))).collect(),
        _ => raw.as_chunks::<8>().0.iter().map(|b| E::of(f64::from_le_bytes(*b))).collect(),
    };
    match own {
        Saved::Parameter { shape, .. } => Ok(Saved::Parameter { shape: shape.clone(), values: numbers() }),
        Saved::Reals(_) => Ok(Saved::Reals(numbers())),
        Saved::Doubles(_) => Ok(Saved::Doubles(raw.as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b)).collect())),
        Saved::Indices(_) => {
            let indices = raw.as_chunks::<8>().0.iter().map(|b| usize::try_from(u64::from_le_bytes(*b)));
            Ok(Saved::Indices(indices.collect::<std::result::Result<_, _>>().map_err(|e| e.to_string())?))
        }
        Saved::Flag(_) => match raw {
            [0] => Ok(Saved::Flag(false)),
            [1] => Ok(Saved::Flag(true)),
            other => Err(format!("a flag is 0 or 1, got {other:?}")),
        },
        _ => Err("of a kind that cannot be read".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flow_api::layers::ActNorm;
    use flow_api::module::{load, save};

    /// Writers and readers share the bound of a header: 90,000 tensors were once trained and never read again.
    #[test]
    fn ninety_thousand_tensors_are_read_again() {
        const TENSORS: usize = 90_000;
        let path = |i: usize| {
            format!(
                "bijector.layers.{i:012}.channel.2.transformer.conditioner.net.blocks.0.1.weights_of_a_name_as_long_as_paths_of_deep_models_are"
            )
        };
        let state: State<f32> = (0..TENSORS).map(|i| (path(i), Saved::Flag(i % 3 == 0))).collect();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("many.safetensors");
        let bytes = encode(&file, &state, &Notes::new()).unwrap();
        let header = u64::from_le_bytes(*bytes.first_chunk::<8>().unwrap());
        assert!(header > 1 << 24, "a header of {header} bytes");
        std::fs::write(&file, bytes).unwrap();
        assert_eq!(read(&file, File::open(&file).unwrap(), &state).unwrap(), state);
        // What would not be read is not written.
        let too_long: State<f32> = (0..64).map(|i| (format!("{i}{}", "x".repeat(2 << 20)), Saved::Flag(true))).collect();
        let error = encode(&file, &too_long, &Notes::new()).unwrap_err().to_string();
        assert!(error.contains("many.safetensors: header too large"), "{error}");
        let notes = Notes::from([("spec".to_owned(), "x".repeat(usize::try_from(MAX_HEADER).unwrap()))]);
        let error = encode(&file, &State::<f32>::new(), &notes).unwrap_err().to_string();
        assert!(error.contains("many.safetensors: a header of 1000000") && error.contains("at most 100000000 can be"), "{error}");
    }

    /// Files of versions whose standardisers had no tails are read with none.
    #[test]
    fn a_standardiser_without_tails_has_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        let own: State<f32> = [("p.mean", 1.0), ("p.scale", 2.0), ("p.tail", 4.0), ("q.tail", 3.0)]
            .map(|(name, value)| (name.to_owned(), Saved::Doubles(vec![value; 2])))
            .into();
        let mut old = own.clone();
        old.remove("p.tail");
        std::fs::write(&path, encode(&path, &old, &Notes::new()).unwrap()).unwrap();
        let back = read(&path, File::open(&path).unwrap(), &own).unwrap();
        assert_eq!((&back["p.tail"], &back["q.tail"]), (&Saved::Doubles(vec![0.0; 2]), &own["q.tail"]));
        assert_eq!(shapes::<f32>(&path).unwrap().0["p.tail"], [2]);
        old.remove("q.tail");
        std::fs::write(&path, encode(&path, &old, &Notes::new()).unwrap()).unwrap();
        let error = read(&path, File::open(&path).unwrap(), &own).unwrap_err();
        assert!(matches!(&error, TrainError::State { mismatch, .. } if mismatch.missing == ["q.tail"]), "{error}");
    }

    /// Files of versions whose `ActNorm` was y = e^s ⊙ x + t have no middle, which is 0 then, and nothing else may be
    /// missing.
    #[test]
    fn an_act_norm_without_a_middle_has_it_at_zero() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        let write = |state: &State<f32>| {
            std::fs::write(&path, encode(&path, state, &Notes::new()).unwrap()).unwrap();
            File::open(&path).unwrap()
        };
        let flows = vec![ActNorm::<f32>::new(2)];
        let mut own = save(&flows);
        let Some(Saved::Reals(middle)) = own.get_mut("0.middle") else { panic!("{own:?}") };
        middle.fill(7.0);
        let mut old = own.clone();
        old.remove("0.middle");
        let read_back = read(&path, write(&old), &own).unwrap();
        assert_eq!(read_back["0.middle"], Saved::Reals(vec![0.0; 2]));
        load(&mut vec![ActNorm::<f32>::new(2)], &read_back).unwrap();
        old.remove("0.shift");
        let error = read(&path, write(&old), &own).unwrap_err();
        assert!(matches!(&error, TrainError::State { mismatch, .. } if mismatch.missing == ["0.shift"]), "{error}");
    }
}
