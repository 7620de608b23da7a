//! Folders of runs: what is not the run's own is never touched, and what was lost is said.

use crate::{digits, never, settings, spec, text_of};
use flow_train::{Ending, RunFolder, RunPlan, Settings, Silent, checkpoint};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

fn plan(settings: Settings) -> RunPlan {
    RunPlan { spec: spec(), settings, data: "digits".parse().unwrap() }
}

/// A run of `steps` steps in a folder that lives as long as the first value.
fn trained(steps: u64) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    let run = RunFolder::create(&path, plan(settings(steps))).unwrap();
    run.train::<f32>(&digits(), &mut Silent, &never()).unwrap();
    (folder, path)
}

/// Every file below a folder with its bytes, and every folder.
fn contents(path: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    let below =
        |entry: PathBuf| if entry.is_dir() { contents(&entry) } else { BTreeMap::from([(entry.clone(), fs::read(&entry).unwrap())]) };
    entries.flat_map(|entry| [(entry.clone(), Vec::new())].into_iter().chain(below(entry))).collect()
}

#[test]
fn a_folder_with_something_in_it_is_refused_every_time_and_stays_as_it_was() {
    let own: [&[(&str, &str)]; 6] = [
        &[("metrics.jsonl", "mine"), ("spec.ron", "mine"), ("samples/step-00000001.png", "mine")],
        &[("lock", ""), ("spec.ron", "mine")],
        &[("lock", ""), ("letter.txt", "mine")],
        &[("lock", "mine")],
        &[("spec.ron", "mine"), ("settings.ron", "mine")],
        &[(".hidden", "")],
    ];
    for files in own {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let file = folder.path().join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        let before = contents(folder.path());
        for _ in 0..2 {
            let error = text_of(RunFolder::create(folder.path(), plan(settings(2))));
            assert!(error.contains("the folder is not empty: it contains `"), "{files:?}: {error}");
            assert_eq!(contents(folder.path()), before, "{files:?}");
        }
    }
}

#[test]
fn the_same_run_begins_where_its_beginning_was_cut_off() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    drop(RunFolder::create(&path, plan(settings(2))).unwrap());
    let whole = contents(&path);
    for (lost, draft) in [("data.txt", ".data.txt.draft"), ("settings.ron", ".settings.ron.draft"), ("spec.ron", ".spec.ron.draft")] {
        fs::remove_file(path.join(lost)).unwrap();
        fs::write(path.join(draft), "half").unwrap();
        assert!(!RunFolder::exists(&path));
        drop(RunFolder::create(&path, plan(settings(2))).unwrap());
        assert_eq!(contents(&path), whole, "{lost}");
    }
}

#[test]
fn a_run_that_lost_a_file_of_its_plan_is_not_begun_again() {
    let (folder, path) = trained(2);
    let error = text_of(RunFolder::resume(folder.path(), |s| s));
    assert!(error.ends_with(": not a run folder: `spec.ron`, `settings.ron`, `data.txt` are missing"), "{error}");
    for (lost, expected) in [
        (&["spec.ron"][..], "run: this run has lost `spec.ron`; `latest/spec.ron` is a copy"),
        (&["data.txt"], "run: this run has lost `data.txt`"),
        (&["spec.ron", "settings.ron"], "run: this run has lost `spec.ron` and `settings.ron`; `latest/spec.ron` is a copy; `latest/se"),
    ] {
        let kept: Vec<_> = lost.iter().map(|name| fs::read(path.join(name)).unwrap()).collect();
        lost.iter().for_each(|name| fs::remove_file(path.join(name)).unwrap());
        let before = contents(&path);
        let other = plan(Settings { seed: 7, ..settings(2) });
        let errors =
            [text_of(RunFolder::create(&path, other)), text_of(RunFolder::resume(&path, |s| s)), text_of(RunFolder::read_plan(&path))];
        for error in errors {
            assert!(error.contains(expected), "{lost:?}: {error}");
        }
        assert_eq!(contents(&path), before);
        lost.iter().zip(kept).for_each(|(name, bytes)| fs::write(path.join(name), bytes).unwrap());
    }
    RunFolder::resume(&path, |s| s).unwrap();
}

#[test]
fn a_plan_that_was_changed_by_hand_is_refused_before_anything_is_written() {
    let (_folder, path) = trained(2);
    for (file, from, to, expected) in [
        ("spec.ron", "hidden: 8", "hidden: 9", "run/spec.ron: expected the architecture that was trained, which is in `"),
        // Weights of the same shapes behind another preprocessing.
        ("spec.ron", "flip: false", "flip: true", "run/spec.ron: expected the architecture that was trained, which is in `"),
        ("settings.ron", "seed: 0", "seed: 7", "seed: expected 0, with which the run was begun, got 7"),
        ("settings.ron", "ema: 0.9", "ema: None", "ema: expected Some(0.9), with which the run was begun, got None"),
    ] {
        let file = path.join(file);
        let kept = fs::read_to_string(&file).unwrap();
        assert!(kept.contains(from), "{kept}");
        fs::write(&file, kept.replace(from, to)).unwrap();
        let before = contents(&path);
        let error = text_of(RunFolder::resume(&path, |s| Settings { steps: 4, ..s }));
        assert!(error.contains(expected), "{to}: {error}");
        assert_eq!(contents(&path), before, "{to}");
        fs::write(&file, kept).unwrap();
    }
    let run = RunFolder::resume(&path, |s| Settings { steps: 4, ..s }).unwrap();
    run.train::<f32>(&digits(), &mut Silent, &never()).unwrap();
}

#[test]
fn a_run_that_lost_its_checkpoint_says_so_and_does_not_begin_again() {
    let (_folder, path) = trained(4);
    let resume = || text_of(RunFolder::resume(&path, |s| s).and_then(|run| run.train::<f32>(&digits(), &mut Silent, &never())));
    for (lost, expected) in [
        ("progress.ron", "run/latest/progress.ron: No such file"),
        ("optimiser.safetensors", "run/latest/optimiser.safetensors: No such file"),
        ("model.safetensors", "run/latest: no checkpoint: there is no `model.safetensors` in it"),
        ("spec.ron", "run/latest: no checkpoint: there is no `spec.ron` in it"),
    ] {
        let file = path.join("latest").join(lost);
        let kept = fs::read(&file).unwrap();
        fs::remove_file(&file).unwrap();
        let before = contents(&path);
        let error = resume();
        assert!(error.contains(expected), "{lost}: {error}");
        assert_eq!(contents(&path), before, "{lost}");
        fs::write(file, kept).unwrap();
    }
    let error = text_of(checkpoint::open::<f32>(&path.join("samples")));
    assert!(error.contains("run/samples: no checkpoint: there is no `spec.ron` and no `model.safetensors` in it"), "{error}");

    fs::remove_dir_all(path.join("latest")).unwrap();
    for (name, is_folder) in [("best", true), ("metrics.jsonl", false), ("samples", true)] {
        let before = contents(&path);
        let error = resume();
        assert!(error.contains(&format!("run/latest: missing, though `{name}` says that steps were made")), "{error}");
        assert_eq!(contents(&path), before, "{name}");
        if is_folder { fs::remove_dir_all(path.join(name)) } else { fs::remove_file(path.join(name)) }.unwrap();
    }
    // The plan alone is a run that is still to make its first step.
    assert_eq!(resume(), "no error");
}

#[test]
fn settings_with_which_no_step_is_made_are_not_written_down() {
    let (folder, path) = trained(8);
    let before = contents(&path);
    let resume = |change: fn(Settings) -> Settings| RunFolder::resume(&path, change)?.train::<f32>(&digits(), &mut Silent, &never());
    assert_eq!(
        text_of(resume(|s| Settings { steps: 5, ..s })),
        "steps: expected at least 8: the run has already made that many steps, got 5"
    );
    assert_eq!(resume(|s| Settings { learning_rate: 0.5, ..s }).unwrap(), Ending::Finished);
    assert_eq!(contents(&path), before);
    // What kills between two renames, and before the last report was written down, have left is put right even then.
    fs::rename(path.join("latest"), path.join(".latest.checkpoint-new")).unwrap();
    fs::create_dir(path.join(".latest.checkpoint-old")).unwrap();
    fs::write(path.join("metrics.jsonl"), "").unwrap();
    assert_eq!(resume(|s| s).unwrap(), Ending::Finished);
    assert_eq!(contents(&path), before);

    // With a step to make they are.
    assert_eq!(resume(|s| Settings { steps: 9, learning_rate: 0.5, ..s }).unwrap(), Ending::Finished);
    for place in ["run", "run/latest"] {
        let text = fs::read_to_string(folder.path().join(place).join("settings.ron")).unwrap();
        assert!(text.contains("learning_rate: 0.5"), "{place}: {text}");
    }
}

/// A run that never made a step is in nobody's way, and leaves no folder where it is given up; one that made steps
/// stays.
#[test]
fn a_run_without_a_step_does_not_block_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    let run = RunFolder::create(&path, plan(settings(2))).unwrap();
    run.write_items("train a\n").unwrap();
    assert_eq!(RunFolder::read_items(&path).unwrap().as_deref(), Some("train a\n"));
    run.discard_unless_begun().unwrap();
    assert!(!path.exists());

    drop(RunFolder::create(&path, plan(settings(2))).unwrap());
    let other = Settings { seed: 7, ..settings(2) };
    drop(RunFolder::create(&path, plan(other.clone())).unwrap());
    assert_eq!(RunFolder::read_plan(&path).unwrap().settings.seed, 7);
    // With something of the user's in it, it is theirs.
    fs::write(path.join("letter.txt"), "mine").unwrap();
    let before = contents(&path);
    assert!(text_of(RunFolder::create(&path, plan(settings(2)))).contains("already holds a run"));
    assert_eq!(contents(&path), before);

    let (_folder, path) = trained(2);
    assert!(text_of(RunFolder::create(&path, plan(other))).contains("already holds a run"));
    RunFolder::resume(&path, |plan| plan).unwrap().discard_unless_begun().unwrap();
    assert!(path.join("latest").exists());
}
