//! Metrics as `TensorBoard` reads them.

use crate::file::replace_file;
use crate::progress::Report;
use crate::training::Observer;
use crate::training::Trainer;
use crate::{Result, TrainError};
use crc::{CRC_32_ISCSI, Crc};
use flow_api::spec::SpecScalar;
use prost::Message;
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

/// Name of the file: `TensorBoard` looks for names with `tfevents` in them.
const FILE: &str = "events.out.tfevents.mixerflow";

/// The checksum of records: CRC-32C.
const CRC_32C: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);

/// What of `TensorFlow`'s `event.proto` is written. Fields of a `oneof` are encoded as optional ones are.
#[derive(Clone, PartialEq, Message)]
struct Event {
    /// Seconds since 1970.
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    /// Of the first event alone.
    #[prost(string, optional, tag = "3")]
    file_version: Option<String>,
    #[prost(message, optional, tag = "5")]
    summary: Option<Summary>,
}

/// Of `summary.proto`.
#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<Value>,
}

#[derive(Clone, PartialEq, Message)]
struct Value {
    #[prost(string, tag = "1")]
    tag: String,
    #[prost(float, optional, tag = "2")]
    simple_value: Option<f32>,
}

/// Writes every report as scalars to an event file that `TensorBoard` shows: `loss/train` and `loss/validation` in the
/// unit of reports, the same of every named term of a loss, and below `step/` the learning rate, the gradient's norm
/// and the seconds that a step takes.
///
/// The file is a sequence of records (`TFRecord`): length, its checksum, an `Event` in Protocol Buffers, its checksum.
#[derive(Debug)]
pub struct TensorBoard {
    path: PathBuf,
    file: Option<File>,
}

impl TensorBoard {
    /// To a file in this folder, which is made if it is not there. A run that goes on begins the file anew with the
    /// reports so far, so that steps made after the last checkpoint and lost are not in it twice.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { path: folder.into().join(FILE), file: None }
    }
}

/// A checksum as records have it: turned, so that one of data that hold checksums is not one of checksums.
fn masked(bytes: &[u8]) -> [u8; 4] {
    CRC_32C.checksum(bytes).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}

fn record(event: &Event) -> Vec<u8> {
    let data = event.encode_to_vec();
    let length = (data.len() as u64).to_le_bytes();
    [length.as_slice(), &masked(&length), &data, &masked(&data)].concat()
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// The record of a report that was made at this time.
fn of_report(report: &Report, wall_time: f64) -> Vec<u8> {
    let own = [
        ("loss/train".to_owned(), Some(report.train)),
        ("loss/validation".to_owned(), report.validation),
        ("step/learning rate".to_owned(), Some(report.learning_rate)),
        ("step/gradient norm".to_owned(), Some(report.gradient_norm)),
        ("step/seconds".to_owned(), Some(report.seconds_per_step)),
    ];
    let terms = report
        .terms
        .iter()
        .flat_map(|term| [(format!("{}/train", term.name), term.train), (format!("{}/validation", term.name), term.validation)]);
    // TensorBoard has no doubles.
    let single = |x: f64| num_traits::cast(x).unwrap_or(f32::NAN);
    let value = own.into_iter().chain(terms).filter_map(|(tag, x)| Some(Value { tag, simple_value: Some(single(x?)) }));
    let step = i64::try_from(report.step).unwrap_or(i64::MAX);
    record(&Event { wall_time, step, file_version: None, summary: Some(Summary { value: value.collect() }) })
}

impl<E: SpecScalar> Observer<E> for TensorBoard {
    fn begin(&mut self, trainer: &Trainer<E>) -> Result<()> {
        let io = |source| TrainError::Io { path: self.path.clone(), source };
        if let Some(folder) = self.path.parent() {
            std::fs::create_dir_all(folder).map_err(io)?;
        }
        let now = now();
        let mut bytes = record(&Event { wall_time: now, step: 0, file_version: Some("brain.Event:2".to_owned()), summary: None });
        let last = trainer.history().last().map_or(0.0, |report| report.seconds);
        // When reports of earlier processes were made is known by the seconds of training between them.
        bytes.extend(trainer.history().iter().flat_map(|report| of_report(report, now - (last - report.seconds))));
        replace_file(&self.path, &bytes)?;
        self.file = Some(File::options().append(true).open(&self.path).map_err(io)?);
        Ok(())
    }

    fn report(&mut self, report: &Report, _: &Trainer<E>) -> Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        file.write_all(&of_report(report, now())).map_err(TrainError::io(&self.path))
    }
}
