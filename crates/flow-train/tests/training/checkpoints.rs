//! Checkpoints: bit-equal after reload, whole after a kill at any moment, and a typed error for every broken file.

use crate::{DIGITS, SPEC, digits, model, never, settings, spec, text_of};
use flow_api::Context;
use flow_api::spec::{Model, ModelSpec, Spec, from_ron, to_ron};
use flow_train::data::{Dataset, Subset};
use flow_train::{Settings, Silent, TrainError, Trainer, checkpoint, flat_weights};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A checkpoint after `steps` steps in a folder that lives as long as the first value.
fn written(steps: u64) -> (tempfile::TempDir, PathBuf, Trainer<f32>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("latest");
    let mut trainer = Trainer::<f32>::new(model(6), digits(), settings(steps)).unwrap();
    trainer.run(&mut Silent, &never()).unwrap();
    checkpoint::write(&path, &spec(), &trainer).unwrap();
    (folder, path, trainer)
}

/// What stands behind the checksums is tested without them.
fn remove_checksums(path: &Path) {
    fs::remove_file(path.join("checksums.txt")).unwrap();
}

fn resumed(path: &Path) -> flow_train::Result<u64> {
    checkpoint::resume::<f32>(path, digits(), |settings| settings).map(|(trainer, _)| trainer.optimiser().steps())
}

#[test]
fn an_opened_model_scores_bit_for_bit() {
    let (_folder, path, trainer) = written(5);
    let images: Vec<f32> = (0_u8..128).map(|i| (f32::from(i) * 0.37).sin() * 0.5).collect();
    let score = |model: &Model<f32>| model.log_prob(images.clone(), &Context::new(0)).unwrap().value;
    let opened = checkpoint::open::<f32>(&path).unwrap();
    assert_eq!(to_ron(&opened.spec).unwrap(), to_ron(&spec()).unwrap());
    assert_eq!(&opened.settings, trainer.settings());
    assert_eq!((opened.events.kind().shape, opened.events.levels()), (DIGITS, Some(17)));
    let raw = checkpoint::resume::<f32>(&path, digits(), |settings| settings).unwrap().0;
    assert_eq!(score(raw.model()), score(trainer.model()));
    assert_eq!(score(&opened.model), score(&trainer.finish().unwrap()));

    // Without validation the averaged weights are the model to use, and a run of one type is none of another.
    let mut averaged = Trainer::<f32>::new(model(6), digits(), Settings { validation: 0.0, ..settings(2) }).unwrap();
    averaged.run(&mut Silent, &never()).unwrap();
    checkpoint::write(&path, &spec(), &averaged).unwrap();
    assert_eq!(score(&checkpoint::open::<f32>(&path).unwrap().model), score(&averaged.finish().unwrap()));
    let error = checkpoint::open::<f64>(&path).unwrap_err().to_string();
    assert!(error.contains(" is F64 [") && error.contains("in the model and F32 ["), "{error}");
}

#[test]
fn another_architecture_is_refused_with_what_differs() {
    let (_folder, path, _) = written(1);
    remove_checksums(&path);
    let cases = [
        (
            "hidden: 8",
            "hidden: 9",
            "`bijector.layers.0.channel.2.net.blocks.0.0.weight` is F32 [9, 9] in the model and F32 [8, 8] in the file; ",
        ),
        ("layers: 2", "layers: 3", "39 missing (`bijector.layers.2.channel.0.initialised`, "),
        ("layers: 2, shift: (every: 2)", "layers: 1, shift: None", "unexpected (`bijector.layers.1.channel.0.initialised`, "),
    ];
    for (from, to, expected) in cases {
        let other: Spec<dyn ModelSpec> = from_ron(&SPEC.replace(from, to)).unwrap();
        fs::write(path.join("spec.ron"), to_ron(&other).unwrap()).unwrap();
        let error = checkpoint::open::<f32>(&path).unwrap_err();
        assert!(matches!(&error, TrainError::State { path, .. } if path.ends_with("latest/best.safetensors")), "{error}");
        assert!(error.to_string().contains(expected), "{from} → {to}: {error}");
    }
}

/// A safetensors file with this header.
fn with_header(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

/// The bytes with the first occurrence of one text replaced by another of the same length.
fn replaced(bytes: &[u8], from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let at = bytes.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
    [&bytes[..at], to.as_bytes(), &bytes[at + from.len()..]].concat()
}

#[test]
fn broken_tensors_are_typed_errors_in_bounded_memory() {
    let (_folder, path, _) = written(1);
    remove_checksums(&path);
    let file = path.join("model.safetensors");
    let good = fs::read(&file).unwrap();
    let header_len = usize::try_from(u64::from_le_bytes(good[..8].try_into().unwrap())).unwrap();
    let header = std::str::from_utf8(&good[8..8 + header_len]).unwrap();
    let body = &good[8 + header_len..];
    let data_at = |name: &str| {
        let entry = &header[header.find(&format!("\"{name}\"")).unwrap()..];
        let offsets = &entry[entry.find("data_offsets\":[").unwrap() + 15..];
        8 + header_len + offsets[..offsets.find(',').unwrap()].parse::<usize>().unwrap()
    };
    let changed = |at: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[at] = value;
        bytes
    };
    let deep = "[".repeat(1 << 20);
    let overflow = r#"{"x":{"dtype":"F64","shape":[4294967296,4294967296],"data_offsets":[0,0]}}"#;
    let huge = r#"{"x":{"dtype":"U8","shape":[1000000000,1000],"data_offsets":[0,1000000000000]}}"#;
    let cases = [
        ("nothing", Vec::new(), "cut off: 0 bytes"),
        ("no whole length", good[..5].to_vec(), "cut off: 5 bytes"),
        ("cut off in the header", good[..100].to_vec(), "bytes, where at most 92 can be"),
        ("cut off in the data", good[..good.len() - 1].to_vec(), "bytes of data, where the header announces"),
        ("more bytes", [&good[..], &[0]].concat(), "bytes of data, where the header announces"),
        ("a header longer than the file", changed(7, 0xff), "a header of 18374686479671"),
        ("a header that is no JSON", with_header("nonsense", body), "its header: "),
        ("a deep header", with_header(&deep, &[]), "its header: "),
        ("sizes that overflow", with_header(overflow, &[]), "its header: "),
        ("a terabyte that is not there", with_header(huge, &[]), "1 unexpected (`x`)"),
        ("an empty header", with_header("{}", &[]), "missing ("),
        ("another type", replaced(&good, "\"F32\"", "\"I32\""), "is F32 ["),
        ("an unknown type", replaced(&good, "\"F32\"", "\"Q32\""), "its header: "),
        ("overlapping tensors", replaced(&good, "\"data_offsets\":[0,", "\"data_offsets\":[1,"), "its header: "),
        ("a flag of 2", changed(data_at("bijector.layers.0.channel.0.initialised"), 2), "a flag is 0 or 1, got [2]"),
        ("no permutation", changed(data_at("bijector.layers.0.patch.1.permutation"), 200), "each of 0..16 once"),
        ("an index of no memory", changed(data_at("bijector.layers.0.patch.1.permutation") + 7, 200), "each of 0..16 once"),
    ];
    for (name, bytes, expected) in cases {
        fs::write(&file, bytes).unwrap();
        let error = resumed(&path).unwrap_err();
        assert!(matches!(error, TrainError::Checkpoint { .. } | TrainError::State { .. }), "{name}: {error}");
        let text = error.to_string();
        assert!(text.contains("latest/model.safetensors: ") && text.contains(expected), "{name}: {text}");
    }
    // Files of a terabyte, most of it a hole: a header that fills it, and data that should not be there.
    for start in [(1_u64 << 40).to_le_bytes().to_vec(), good.clone()] {
        fs::write(&file, start).unwrap();
        fs::File::options().write(true).open(&file).unwrap().set_len(1 << 40).unwrap();
        assert!(matches!(resumed(&path).unwrap_err(), TrainError::Checkpoint { .. }));
    }
    fs::write(&file, good).unwrap();
    assert_eq!(resumed(&path).unwrap(), 1);
}

#[test]
fn broken_texts_and_missing_files_are_typed_errors() {
    let (_folder, path, trainer) = written(1);
    remove_checksums(&path);
    let cases = [
        ("spec.ron", "MixerFlow(patch: 2", "spec.ron: 1:"),
        ("spec.ron", "\u{0}\u{0}", "spec.ron: 1:"),
        ("settings.ron", "(steps: -3)", "settings.ron: 1:"),
        ("settings.ron", "(stepz: 3)", "settings.ron: 1:"),
        ("settings.ron", "(learning_rate: inf)", "learning_rate: expected a finite number greater than 0 in f32, got inf"),
        ("settings.ron", "(ema: None)", "optimiser.safetensors: the saved state does not fit this model: 1 unexpected (`average`)"),
        ("data.ron", "(shape: Image(channels: 1, height: 8, width: 0), levels: Some(17))", "0"),
        ("data.ron", "(shape: Vector(64), levels: Some(17))", "expected images"),
        ("data.ron", "(shape: Image(channels: 1, height: 8, width: 8), levels: Some(1))", "levels: expected 2 to 256, got 1"),
        ("progress.ron", "(step: 1", "progress.ron: 1:"),
        ("progress.ron", &"(".repeat(100_000), "progress.ron: 1:"),
    ];
    for (file, text, expected) in cases {
        let file = path.join(file);
        let good = fs::read(&file).unwrap();
        fs::write(&file, text).unwrap();
        let got = text_of(resumed(&path));
        assert!(got.contains(expected), "{text:.80}: {got}");
        fs::write(&file, good).unwrap();
    }
    fs::write(path.join("settings.ron"), [0xff, 0xfe]).unwrap();
    assert!(matches!(resumed(&path), Err(TrainError::Checkpoint { .. })));
    for file in ["optimiser.safetensors", "best.safetensors", "progress.ron", "data.ron", "reports.ron"] {
        checkpoint::write(&path, &spec(), &trainer).unwrap();
        fs::remove_file(path.join(file)).unwrap();
        let error = resumed(&path).unwrap_err();
        assert!(matches!(&error, TrainError::Io { path, .. } if path.ends_with(file)), "{file}: {error}");
    }
    assert!(matches!(resumed(Path::new("no/such/folder")), Err(TrainError::Io { .. })));
    assert!(matches!(resumed(Path::new("/")), Err(TrainError::Checkpoint { .. })));
}

/// Files that the folder of a run's checkpoint has.
const ALL: usize = 9;

#[test]
fn a_kill_at_any_moment_leaves_the_old_checkpoint_or_the_new_one() {
    let (folder, path, _) = written(1);
    let mut newer = Trainer::<f32>::new(model(6), digits(), settings(2)).unwrap();
    newer.run(&mut Silent, &never()).unwrap();
    let beside = |role: &str| folder.path().join(format!(".latest.checkpoint-{role}"));
    let (old, other) = (folder.path().join("kept-old"), folder.path().join("kept-new"));
    checkpoint::write(&other, &spec(), &newer).unwrap();
    fs::rename(&path, &old).unwrap();
    let copy = |from: &Path, to: &Path, files: usize| {
        fs::create_dir(to).unwrap();
        for entry in fs::read_dir(from).unwrap().take(files) {
            let entry = entry.unwrap();
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    };
    // What stands where when the writer is killed, and the step that the reader must find.
    let moments: [(&str, &[(&str, &Path, usize)], u64); 6] = [
        ("while the draft is written", &[("", &old, ALL), ("draft", &other, 3)], 1),
        ("when the draft is written", &[("", &old, ALL), ("draft", &other, ALL)], 1),
        ("when the new one has its name", &[("", &old, ALL), ("new", &other, ALL)], 1),
        ("when the old one is aside", &[("old", &old, ALL), ("new", &other, ALL)], 2),
        ("when the new one is in place", &[("", &other, ALL), ("old", &old, ALL)], 2),
        ("while the old one is removed", &[("", &other, ALL), ("old", &old, 2)], 2),
    ];
    for (moment, stand, step) in moments {
        for (role, from, files) in stand {
            copy(from, &if role.is_empty() { path.clone() } else { beside(role) }, *files);
        }
        assert_eq!(resumed(&path).unwrap(), step, "{moment}");
        checkpoint::write(&path, &spec(), &newer).unwrap();
        assert_eq!(resumed(&path).unwrap(), 2, "{moment}, written again");
        for role in ["draft", "new", "old"] {
            assert!(!beside(role).exists(), "{moment}: {role} is left");
        }
        fs::remove_dir_all(&path).unwrap();
    }
}

#[test]
fn what_is_no_checkpoint_is_never_replaced() {
    let (folder, _, trainer) = written(1);
    let photos = folder.path().join("photos");
    fs::create_dir(&photos).unwrap();
    // An empty folder is free to take.
    checkpoint::write(&photos, &spec(), &trainer).unwrap();
    fs::remove_dir_all(&photos).unwrap();
    fs::create_dir(&photos).unwrap();
    fs::write(photos.join("holiday.jpg"), "precious").unwrap();
    let error = checkpoint::write(&photos, &spec(), &trainer).unwrap_err().to_string();
    assert!(error.contains("holds something else, which is not overwritten"), "{error}");
    assert_eq!(fs::read_to_string(photos.join("holiday.jpg")).unwrap(), "precious");
    assert!(checkpoint::write(Path::new("/"), &spec(), &trainer).is_err());
    // A file where a folder should be made.
    let blocked = photos.join("holiday.jpg").join("run");
    assert!(matches!(checkpoint::write(&blocked, &spec(), &trainer), Err(TrainError::Io { .. })));
}

#[test]
fn data_of_another_number_of_items_is_refused() {
    let (_folder, path, _) = written(1);
    let fewer: Arc<dyn Dataset> = Arc::new(Subset::new(digits(), (0..1400).collect()).unwrap());
    let of_fewer = || checkpoint::resume::<f32>(&path, fewer.clone(), |settings| settings).map(|(trainer, _)| trainer.optimiser().steps());
    assert!(matches!(of_fewer(), Err(TrainError::DataChanged { expected: 1500, got: 1400 })));
    // As many others.
    let others: Arc<dyn Dataset> = Arc::new(Subset::new(digits(), (0..1500).rev().collect()).unwrap());
    let error = text_of(checkpoint::resume::<f32>(&path, others, |settings| settings));
    assert_eq!(error, "the data has 1500 items, where the run was begun with 1500 others");
    // A checkpoint of a version that did not look at them.
    remove_checksums(&path);
    let file = path.join("progress.ron");
    let text = fs::read_to_string(&file).unwrap();
    let older: String = text.lines().filter(|line| !line.contains(" items: ") && !line.contains(" fingerprint: ")).collect();
    assert!(older.contains("reports: ") && !older.contains("1500"), "{older}");
    fs::write(&file, older).unwrap();
    assert_eq!(of_fewer().unwrap(), 1);
}

#[test]
fn an_import_never_replaces_a_checkpoint() {
    let (folder, path, trainer) = written(1);
    let (file, copy) = (folder.path().join("model.safetensors"), folder.path().join("copy"));
    checkpoint::export::<f32>(&path, &file).unwrap();
    checkpoint::import::<f32>(&file, &copy).unwrap();
    for taken in [&path, &copy] {
        let error = text_of(checkpoint::import::<f32>(&file, taken));
        assert!(error.contains("there is a checkpoint already, which is not overwritten"), "{error}");
    }
    assert_eq!(resumed(&path).unwrap(), trainer.optimiser().steps());
    // A kill between two renames has left the checkpoint beside its place.
    fs::rename(&path, folder.path().join(".latest.checkpoint-old")).unwrap();
    assert!(checkpoint::import::<f32>(&file, &path).is_err());
    assert_eq!(resumed(&path).unwrap(), trainer.optimiser().steps());
}

#[test]
fn progress_that_is_not_finite_survives() {
    let (_folder, path, trainer) = written(4);
    remove_checksums(&path);
    let validation = trainer.history()[0].validation.unwrap();
    for (file, expected) in [("progress.ron", "(inf, 4)"), ("reports.ron", "validation: inf")] {
        let text = fs::read_to_string(path.join(file)).unwrap().replace(&format!("{validation:?}"), "inf");
        assert!(text.contains(expected), "{text}");
        fs::write(path.join(file), text).unwrap();
    }
    let (trainer, _) = checkpoint::resume::<f32>(&path, digits(), |settings| settings).unwrap();
    assert_eq!(trainer.history()[0].validation, Some(f64::INFINITY));
    // A checkpoint of a version that took it for the best.
    assert!(trainer.best().is_none() && path.join("best.safetensors").exists());
    let opened = checkpoint::open::<f32>(&path).unwrap();
    assert_eq!(Some(flat_weights(&opened.model).as_slice()), trainer.optimiser().average());
}

/// Every file of a checkpoint and of an export: no flip of a single bit is read. The bits are spread over each file,
/// its ends among them.
#[test]
fn no_flipped_bit_is_read() {
    const FLIPS: usize = 48;
    let (folder, path, _) = written(4);
    let (file, copy) = (folder.path().join("model.safetensors"), folder.path().join("copy"));
    checkpoint::export::<f32>(&path, &file).unwrap();
    let is_refused = |file: &Path, read: &dyn Fn() -> flow_train::Result<()>| {
        let good = fs::read(file).unwrap();
        let last = 8 * good.len() - 1;
        for bit in (0..FLIPS).map(|i| i * last / (FLIPS - 1)) {
            let mut flipped = good.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            fs::write(file, flipped).unwrap();
            let read = read();
            let typed = matches!(read, Err(TrainError::Checkpoint { .. } | TrainError::Spec(_) | TrainError::State { .. }));
            assert!(typed, "{}, bit {bit}: {read:?}", file.display());
        }
        fs::write(file, good).unwrap();
        read().unwrap();
    };
    let mut names: Vec<_> = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    assert_eq!(names.len(), ALL);
    for name in names {
        is_refused(&name, &|| resumed(&path).map(drop));
    }
    is_refused(&file, &|| {
        let read = checkpoint::import::<f32>(&file, &copy);
        if read.is_ok() {
            fs::remove_dir_all(&copy).unwrap();
        }
        read
    });
}

#[test]
fn numbers_that_are_not_finite_are_neither_written_nor_imported() {
    let (folder, path, trainer) = written(1);
    let (file, copy) = (folder.path().join("model.safetensors"), folder.path().join("copy"));
    checkpoint::export::<f32>(&path, &file).unwrap();
    let good = replaced(&fs::read(&file).unwrap(), "\"crc32\":", "\"none1\":");
    let header = 8 + usize::try_from(u64::from_le_bytes(good[..8].try_into().unwrap())).unwrap();
    // Real numbers stand behind the indices, at the end of the file's body but for flags.
    let text = std::str::from_utf8(&good[8..header]).unwrap();
    let entry = &text[text.find("channel.0.log_scale").unwrap()..];
    let start = &entry[entry.find("data_offsets\":[").unwrap() + 15..];
    let at = header + start[..start.find(',').unwrap()].parse::<usize>().unwrap();
    for (value, name) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf"), (f32::NEG_INFINITY, "-inf")] {
        let mut bytes = good.clone();
        bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        fs::write(&file, bytes).unwrap();
        let error = text_of(checkpoint::import::<f32>(&file, &copy));
        assert!(error.contains("channel.0.log_scale`: number 0 is ") && error.contains(name) && !copy.exists(), "{error}");
    }
    // A file that was changed without a checksum to tell is read as it is.
    fs::write(&file, &good).unwrap();
    checkpoint::import::<f32>(&file, &copy).unwrap();
    let mut state = flow_api::module::save(trainer.model());
    let weights = state.iter_mut().find_map(|(_, entry)| match entry {
        flow_api::module::Saved::Parameter { values, .. } => Some(values),
        _ => None,
    });
    weights.unwrap()[0] = f32::NAN;
    let error = text_of(checkpoint::write_model(&path, &spec(), trainer.settings(), trainer.events(), &state));
    assert!(error.contains("number 0 is NaN: expected finite numbers"), "{error}");
    assert_eq!(resumed(&path).unwrap(), 1);
}

#[test]
fn equal_models_are_equal_files() {
    let (folder, path, trainer) = written(2);
    let again = folder.path().join("again");
    checkpoint::write(&again, &spec(), &trainer).unwrap();
    for entry in fs::read_dir(&path).unwrap() {
        let name = entry.unwrap().file_name();
        assert_eq!(fs::read(path.join(&name)).unwrap(), fs::read(again.join(&name)).unwrap(), "{name:?}");
    }
    let export = |i: usize| {
        let file = folder.path().join(format!("{i}.safetensors"));
        checkpoint::export::<f32>(if i == 3 { &path } else { &again }, &file).unwrap();
        fs::read(file).unwrap()
    };
    let first = export(0);
    // The order of a hash table would be another in most of these.
    assert!((1..6).all(|i| export(i) == first));
}

/// A large model whose file has other tensors than its spec asks for is not built to its end.
#[test]
fn a_large_model_is_compared_part_by_part_while_it_is_built() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model");
    let wide = |flows: &str| from_ron::<Spec<dyn ModelSpec>>(&format!("VectorFlow(flows: [{flows}])")).unwrap();
    let kind = flow_train::EventKind { shape: flow_api::spec::EventShape::Vector(2_100), levels: None };
    let spec = wide("ActNorm(), LuLinear()");
    let events = flow_train::Events::of_kind(kind, &spec.preprocessing(), 0).unwrap();
    let model = spec.build::<f32>(kind.shape, 0).unwrap();
    checkpoint::write_model(&path, &spec, &Settings::default(), &events, &flow_api::module::save(&model)).unwrap();
    checkpoint::open::<f32>(&path).unwrap();
    remove_checksums(&path);
    fs::write(path.join("spec.ron"), to_ron(&wide("ActNorm(), Permutation(order: Reverse), LuLinear()")).unwrap()).unwrap();
    let error = checkpoint::open::<f32>(&path).unwrap_err();
    let expected = "model.safetensors: bijector.1.indices: shape: expected no such tensor, as was saved, got [2100]";
    assert!(matches!(error, TrainError::Checkpoint { .. }) && error.to_string().ends_with(expected), "{error}");
}

/// What the longest runs and the deepest models of the bounds come to; `docs/reliability.md` has the figures.
#[test]
#[ignore = "takes minutes"]
fn ninety_thousand_tensors_and_a_quarter_of_a_million_reports_are_read_again() {
    const REPORTS: u64 = 225_000;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model");
    let text = format!("VectorFlow(repeat: 2048, flows: [{}])", "AffineCoupling(hidden: 1), ".repeat(6));
    let spec: Spec<dyn ModelSpec> = from_ron(&text).unwrap();
    let points = crate::vectors((0..64).map(|i| f64::from(i * i % 17)).collect(), 2);
    let began = std::time::Instant::now();
    let seconds = |what: &str| println!("{:6.1} s: {what}", began.elapsed().as_secs_f64());
    let model = spec.build::<f32>(flow_api::spec::EventShape::Vector(2), 0).unwrap();
    let tensors = flow_api::module::save(&model).len();
    assert!(tensors >= 90_000, "{tensors}");
    let step = Settings { steps: 1, batch: 8, ..Settings::default() };
    let mut trainer = Trainer::<f32>::new(model, points.clone(), step).unwrap();
    trainer.run(&mut Silent, &never()).unwrap();
    seconds(&format!("{tensors} tensors built and trained for a step"));
    checkpoint::write(&path, &spec, &trainer).unwrap();
    seconds("written");
    let (again, _) = checkpoint::resume::<f32>(&path, points.clone(), |settings| settings).unwrap();
    assert_eq!(flow_api::module::save(again.model()), flow_api::module::save(trainer.model()));
    seconds("read again");
    let header = u64::from_le_bytes(fs::read(path.join("model.safetensors")).unwrap()[..8].try_into().unwrap());
    println!("a header of {header} bytes");

    let spec: Spec<dyn ModelSpec> = from_ron("VectorFlow(flows: [ActNorm()])").unwrap();
    let model = spec.build::<f32>(flow_api::spec::EventShape::Vector(2), 0).unwrap();
    let settings = |steps| Settings { steps, batch: 1, report_every: 1, ..Settings::default() };
    let mut trainer = Trainer::<f32>::new(model, points.clone(), settings(REPORTS)).unwrap();
    trainer.run(&mut Silent, &never()).unwrap();
    seconds(&format!("{REPORTS} reports made"));
    checkpoint::write(&path, &spec, &trainer).unwrap();
    seconds("written");
    let (mut again, _) = checkpoint::resume::<f32>(&path, points, |_| settings(REPORTS + 1)).unwrap();
    assert_eq!(again.history(), trainer.history());
    seconds("read again");
    again.run(&mut Silent, &never()).unwrap();
    let before = fs::metadata(path.join("reports.ron")).unwrap().len();
    checkpoint::write(&path, &spec, &again).unwrap();
    let after = fs::metadata(path.join("reports.ron")).unwrap().len();
    seconds(&format!("one more added: {before} and {} bytes", after - before));
}

/// Reports are added to those of the last checkpoint, which the old folder and the new one share.
#[cfg(unix)]
#[test]
fn reports_are_added_to_and_belong_to_one_run() {
    use std::os::unix::fs::MetadataExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("latest");
    let every = |steps| Settings { report_every: 1, ..settings(steps) };
    let mut trainer = Trainer::<f32>::new(model(6), digits(), every(3)).unwrap();
    trainer.run(&mut Silent, &never()).unwrap();
    checkpoint::write(&path, &spec(), &trainer).unwrap();
    let file = path.join("reports.ron");
    let (inode, before) = (fs::metadata(&file).unwrap().ino(), fs::read(&file).unwrap());
    // A kill has cut off what the next checkpoint would have added.
    fs::write(&file, [&*before, b"(step: 4, tra"].concat()).unwrap();
    let (mut trainer, _) = checkpoint::resume::<f32>(&path, digits(), |_| every(5)).unwrap();
    trainer.run(&mut Silent, &never()).unwrap();
    let kept = folder.path().join("kept.ron");
    checkpoint::write(&path, &spec(), &trainer).unwrap();
    assert_eq!(fs::metadata(&file).unwrap().ino(), inode);
    let after = fs::read(&file).unwrap();
    assert!(after.starts_with(&before) && std::str::from_utf8(&after).unwrap().lines().count() == 5);
    let (resumed, _) = checkpoint::resume::<f32>(&path, digits(), |settings| settings).unwrap();
    assert_eq!(resumed.history(), trainer.history());
    // Somebody's copy of the checkpoint that shares the file stays as it is.
    fs::hard_link(&file, &kept).unwrap();
    checkpoint::write(&path, &spec(), &trainer).unwrap();
    assert!(fs::metadata(&file).unwrap().ino() != inode && fs::read(&kept).unwrap() == after);
    // Those of another run in the same place are written anew.
    let mut other = Trainer::<f32>::new(model(7), digits(), every(2)).unwrap();
    other.run(&mut Silent, &never()).unwrap();
    checkpoint::write(&path, &spec(), &other).unwrap();
    let (resumed, _) = checkpoint::resume::<f32>(&path, digits(), |settings| settings).unwrap();
    assert_eq!(resumed.history(), other.history());
}

/// A checkpoint of a version that took no checksums, and kept its reports elsewhere: it goes on, and what is opened
/// says so.
#[test]
fn an_older_checkpoint_is_read_with_a_note() {
    let (_folder, path, trainer) = written(4);
    assert!(checkpoint::open::<f32>(&path).unwrap().note.is_none());
    remove_checksums(&path);
    fs::remove_file(path.join("reports.ron")).unwrap();
    let older = flow_train::Progress { reports: None, ..trainer.progress() };
    fs::write(path.join("progress.ron"), to_ron(&older).unwrap()).unwrap();
    let note = checkpoint::open::<f32>(&path).unwrap().note.unwrap();
    assert!(note.contains("latest") && note.contains("a version that took no checksums"), "{note}");
    let (resumed, _) = checkpoint::resume::<f32>(&path, digits(), |settings| settings).unwrap();
    assert_eq!(resumed.history(), trainer.history());
    checkpoint::write(&path, &spec(), &resumed).unwrap();
    assert!(checkpoint::open::<f32>(&path).unwrap().note.is_none());
}
