//! What is fuzzed: texts and files from outside. Each function takes any bytes, and must neither panic nor take memory
//! or time out of proportion.
//!
//! `cargo +nightly fuzz run TARGET` searches; `tests/corpora.rs` of the toolkit runs the same functions over the files
//! of `corpus/` on every build.

use mixerflow_toolkit::api::spec::{BuildScope, EventShape, Model, ModelSpec, Spec, SpecScalar, from_ron, set_field, to_ron};
use mixerflow_toolkit::train::data::{DataSource, Draw};
use mixerflow_toolkit::train::{EventKind, Events, Settings, checkpoint};
use std::fs;
use std::path::Path;

/// A spec as text: what parses is written and read back, and fields of it are changed.
pub fn spec(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (path, text) = text.split_once('\n').unwrap_or(("layers", text));
    let Ok(spec) = from_ron::<Spec<dyn ModelSpec>>(text) else { return };
    let written = to_ron(&spec).expect("a spec that was read can be written");
    let again: Spec<dyn ModelSpec> = from_ron(&written).expect("a spec that was written can be read");
    assert_eq!(to_ron(&again).expect("a spec"), written);
    let (path, value) = path.split_once('=').unwrap_or((path, "2"));
    let _ = set_field(&spec, path, value);
}

/// A file of tensors in a checkpoint that is whole otherwise, and as an export.
pub fn checkpoint(bytes: &[u8]) {
    const SPEC: &str = "VectorFlow(flows: [ActNorm(), LuLinear(permutation: Random), Permutation(order: Random)])";
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("checkpoint");
    let spec: Spec<dyn ModelSpec> = from_ron(SPEC).expect("a spec");
    let kind = EventKind { shape: EventShape::Vector(2), levels: None };
    let settings = Settings::default();
    let events = Events::of_kind(kind, &spec.0.preprocessing(), 0).expect("events");
    let scope = BuildScope::new(0);
    let model: Model<f32> = f32::model(&spec, kind.shape, &scope).expect("a model");
    checkpoint::write_model(&path, &spec, &settings, &events, &mixerflow_toolkit::api::module::save(&model)).expect("a checkpoint");
    // What stands behind the checksums is searched.
    let unsealed = || fs::remove_file(path.join("checksums.txt")).expect("checksums");
    unsealed();
    let file = path.join("model.safetensors");
    fs::write(&file, bytes).expect("a file");
    if let Ok(opened) = checkpoint::open::<f32>(&path) {
        let _ = opened.model.log_prob(vec![0.5, -0.5], &mixerflow_toolkit::api::Context::new(0));
    }
    let _ = checkpoint::import::<f32>(&file, &folder.path().join("imported"));
    // The texts of a checkpoint are files from outside too.
    for name in ["settings.ron", "data.ron", "progress.ron"] {
        checkpoint::write_model(&path, &spec, &settings, &events, &mixerflow_toolkit::api::module::save(&model)).expect("a checkpoint");
        unsealed();
        fs::write(path.join(name), bytes).expect("a file");
        let _ = checkpoint::open::<f32>(&path);
    }
}

/// One file as every kind of array and table.
pub fn arrays(bytes: &[u8]) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("file");
    fs::write(&file, bytes).expect("a file");
    let file = file.display();
    for source in [
        "idx:FILE",
        "idx:FILE,FILE",
        "npy:FILE",
        "npy:FILE?layout=hwc",
        "npz:FILE?x=x&y=y",
        "safetensors:FILE?x=x&y=y",
        "csv:FILE",
        "csv:FILE?label=last&header=1",
    ] {
        open(&source.replace("FILE", &file.to_string()));
    }
}

/// One file as a picture of a folder, and as those of CIFAR-10.
pub fn pictures(bytes: &[u8]) {
    let folder = tempfile::tempdir().expect("a folder");
    let names = ["picture.png", "picture.jpg", "picture.webp", "data_batch_1.bin", "test_batch.bin"];
    for name in names {
        fs::write(folder.path().join(name), bytes).expect("a file");
    }
    let path = folder.path().display();
    for source in ["images:DIR", "images:DIR?size=4&crop=random&skip-bad=1", "images:DIR?size=4&resize=1&grey=1&skip-bad=1", "cifar10:DIR"]
    {
        open(&source.replace("DIR", &path.to_string()));
    }
}

/// The text of a source: what parses is written and read back. No file is opened.
pub fn sources(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(source) = text.parse::<DataSource>() {
        assert_eq!(source.to_string().parse::<DataSource>().expect("what was written can be read"), source);
    }
}

fn open(source: &str) {
    let source: DataSource = source.parse().expect("a source");
    if let Ok(split) = source.open(0) {
        for set in [&split.train, &split.test] {
            let draws: Vec<Draw> = (0..set.len().min(3)).map(|index| Draw { epoch: 0, index }).collect();
            let _ = set.batch(&draws);
            let _ = set.item_name(0);
        }
    }
}

/// The functions by the names of their corpora.
pub const TARGETS: [(&str, fn(&[u8])); 5] =
    [("spec", spec), ("checkpoint", checkpoint), ("arrays", arrays), ("pictures", pictures), ("sources", sources)];

/// Runs every file of `corpora` through its function: how many there were.
pub fn run_corpora(corpora: &Path) -> usize {
    let mut count = 0;
    for (name, run) in TARGETS {
        for entry in fs::read_dir(corpora.join(name)).expect("a corpus of every target") {
            run(&fs::read(entry.expect("an entry").path()).expect("a file of a corpus"));
            count += 1;
        }
    }
    count
}
