//! Event files, read back by hand and by `TensorBoard`'s own reader.

use crate::{StopAfter, build, never, settings, vectors};
use flow_api::spec::EventShape;
use flow_train::{Report, TensorBoard, Trainer};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// CRC-32C bit by bit (Castagnoli's polynomial, reflected).
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0x82f6_3b78 * (crc & 1))))
}

fn masked(bytes: &[u8]) -> u32 {
    crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// The records of a file, whose checksums hold.
fn records(mut bytes: &[u8]) -> Vec<&[u8]> {
    let number = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().unwrap());
    let mut records = Vec::new();
    while !bytes.is_empty() {
        let length = usize::try_from(u64::from_le_bytes(bytes[..8].try_into().unwrap())).unwrap();
        assert_eq!(number(&bytes[8..12]), masked(&bytes[..8]));
        let data = &bytes[12..12 + length];
        assert_eq!(number(&bytes[12 + length..16 + length]), masked(data));
        records.push(data);
        bytes = &bytes[16 + length..];
    }
    records
}

/// A field of a message of Protocol Buffers.
enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of a message with their numbers.
fn fields(mut bytes: &[u8]) -> Vec<(u64, Field<'_>)> {
    fn varint(bytes: &mut &[u8]) -> u64 {
        let (mut value, mut shift) = (0, 0);
        loop {
            let byte = bytes[0];
            *bytes = &bytes[1..];
            value |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                return value;
            }
        }
    }
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let length = match key & 7 {
            0 => {
                found.push((key >> 3, Field::Number(varint(&mut bytes))));
                continue;
            }
            1 => 8,
            2 => usize::try_from(varint(&mut bytes)).unwrap(),
            5 => 4,
            kind => panic!("a field of kind {kind}"),
        };
        found.push((key >> 3, Field::Bytes(&bytes[..length])));
        bytes = &bytes[length..];
    }
    found
}

/// Step and value of every scalar, by tag.
type Scalars = BTreeMap<String, Vec<(u64, f32)>>;

fn scalars(path: &Path) -> Scalars {
    let bytes = std::fs::read(path).unwrap();
    let records = records(&bytes);
    let version = fields(records[0]).into_iter().any(|(number, field)| number == 3 && matches!(field, Field::Bytes(b"brain.Event:2")));
    assert!(version, "the first event tells the version");
    let mut found = Scalars::new();
    for record in &records[1..] {
        let event = fields(record);
        let step = event.iter().find_map(|(number, field)| if let (2, Field::Number(step)) = (number, field) { Some(*step) } else { None });
        for (number, field) in &event {
            let (5, Field::Bytes(summary)) = (number, field) else { continue };
            for (_, value) in fields(summary) {
                let Field::Bytes(value) = value else { panic!("a value is a message") };
                let [(1, Field::Bytes(tag)), (2, Field::Bytes(number))] = &fields(value)[..] else { panic!("a tag and a number") };
                let tag = String::from_utf8(tag.to_vec()).unwrap();
                found.entry(tag).or_default().push((step.unwrap(), f32::from_le_bytes((*number).try_into().unwrap())));
            }
        }
    }
    found
}

/// What the reports say.
fn expected(history: &[Report]) -> Scalars {
    let mut found = Scalars::new();
    #[expect(clippy::cast_possible_truncation, reason = "TensorBoard has no doubles")]
    let mut add = |tag: &str, step: u64, x: f64| found.entry(tag.to_owned()).or_default().push((step, x as f32));
    for report in history {
        add("loss/train", report.step, report.train);
        report.validation.iter().for_each(|x| add("loss/validation", report.step, *x));
        add("step/learning rate", report.step, report.learning_rate);
        add("step/gradient norm", report.step, report.gradient_norm);
        add("step/seconds", report.step, report.seconds_per_step);
    }
    found
}

fn trainer() -> Trainer<f32> {
    let wave: Vec<f64> = (0..400).map(|i| (1.7 * f64::from(i)).sin() + 0.3 * (0.9 * f64::from(i * i % 83)).cos()).collect();
    let model = build::<f32>("VectorFlow(flows: [ActNorm(), LuLinear()])", EventShape::Vector(2), 1);
    Trainer::new(model, vectors(wave, 2), settings(12)).unwrap()
}

fn only_file(folder: &Path) -> PathBuf {
    let files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    let [file] = &files[..] else { panic!("one file: {files:?}") };
    assert!(file.file_name().unwrap().to_str().unwrap().contains("tfevents"));
    file.clone()
}

/// Reads scalars with `TensorBoard`'s own reader, if Python finds it (`PYTHON` says which Python).
fn by_tensorboard(folder: &Path) -> Option<Scalars> {
    const SCRIPT: &str = "import sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
events = EventAccumulator(sys.argv[1], size_guidance={'scalars': 0})
events.Reload()
for tag in events.Tags()['scalars']:
    for event in events.Scalars(tag):
        print(tag, event.step, repr(event.value), sep='\\t')";
    let python = std::env::var("PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let output = Command::new(python).args(["-c", SCRIPT]).arg(folder).output().ok()?;
    let errors = String::from_utf8_lossy(&output.stderr);
    if errors.contains("No module named") {
        return None;
    }
    assert!(output.status.success(), "{errors}");
    let mut found = Scalars::new();
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let [tag, step, value] = &line.split('\t').collect::<Vec<_>>()[..] else { panic!("{line}") };
        found.entry((*tag).to_owned()).or_default().push((step.parse().unwrap(), value.parse().unwrap()));
    }
    Some(found)
}

/// Every report is there once, by an own reader of the format and by `TensorBoard`'s; a run that goes on begins the
/// file anew with what was made before.
#[test]
fn tensorboard_reads_the_reports() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("run/tensorboard");
    let (mut trainer, stop) = (trainer(), never());
    let mut both: Vec<Box<dyn flow_train::Observer<f32> + Send>> = vec![Box::new(TensorBoard::new(&folder)), Box::new(StopAfter(8, &STOP))];
    trainer.run(&mut both, &STOP).unwrap();
    assert_eq!(scalars(&only_file(&folder)), expected(trainer.history()));
    // As if the process had been killed behind reports that no checkpoint has.
    let file = only_file(&folder);
    let bytes = std::fs::read(&file).unwrap();
    std::fs::write(&file, bytes.repeat(2)).unwrap();
    trainer.run(&mut TensorBoard::new(&folder), &stop).unwrap();
    let all = expected(trainer.history());
    assert!(all["loss/validation"].len() == 3 && all["loss/train"].last().unwrap().0 == 12, "{all:?}");
    assert_eq!(scalars(&only_file(&folder)), all);
    match by_tensorboard(&folder) {
        Some(found) => assert_eq!(found, all),
        None => eprintln!("SKIPPED: TensorBoard's own reader, which Python does not find"),
    }
}

static STOP: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);
