//! What is wrong is said, with the exit code that says whose fault it is.

use crate::{Place, train};
use std::fs;

#[test]
fn wrong_usage_is_2_and_what_cannot_be_done_is_1() {
    let place = Place::new();
    place.run(&train("run", "--steps 4"));
    fs::write(place.path("broken.ron"), "MixerFlow(patch: 4,\n  layers: two)").unwrap();
    fs::create_dir(place.path("full")).unwrap();
    fs::write(place.path("full/letter.txt"), "dear").unwrap();
    fs::write(place.path("kept.npy"), "dear").unwrap();
    let cases = [
        ("", 2, "Usage: mixerflow"),
        ("trian", 2, "unrecognized subcommand 'trian'"),
        ("train tiny.ron", 2, "--data <DATA>"),
        ("train --resume", 2, "--out <RUN>"),
        ("train tiny.ron --data digits --steps 5 --epochs 1", 2, "cannot be used with"),
        ("train tiny.ron --data digitz --out x", 2, "no kind of data `digitz`; did you mean digits? A source is KIND:PATH"),
        ("train tiny.ron --data images:x?sise=3 --out x", 2, "sise"),
        ("eval run --data digits --part some", 2, "possible values: train, validation, test, all"),
        ("interpolate run --data digits --pair 3 --out x.png", 2, "two numbers with a comma"),
        ("interpolate run --data digits --pair 3,4 --out x.gif", 2, "use .png"),
        ("plot run --out x.jpg", 2, "use .png or .svg"),
        ("sample run --columns 0 --out x.png", 2, "expected at least 1"),
        ("embed run --data digits --batch 0 --out x.npy", 2, "expected at least 1"),
        ("inspect tiny.ron --shape 1,8,8 --threads 0", 2, "0 is not in 1..=1024"),
        ("inspect tiny.ron --shape 1,8,8 --threads 20000", 2, "20000 is not in 1..=1024"),
        ("train none.ron --data digits --out x", 1, "none.ron: No such file"),
        ("train broken.ron --data digits --out x", 1, "broken.ron:2:10-2:11: Expected integer"),
        ("train tiny.ron --data digits --set layer=3 --out x", 1, "--set: no `layer`; there are: patch, layers, channel"),
        ("train tiny.ron --data digits --set layers --out x", 1, "--set layers: expected PATH=VALUE"),
        ("train tiny.ron --data digits --set layers=0 --out x", 1, "layers: expected 1 to 2048, got 0"),
        ("train tiny.ron --data digits --set channel.AffineCoupling.hidden=1000000000000 --out x", 1, "hidden: expected 1 to 16384"),
        (
            "train tiny.ron --data digits --set preprocessing.bits=4 --out x",
            1,
            "preprocessing.bits: expected 1 to 8, of 256 levels, got 4, of 17 levels",
        ),
        ("train tiny.ron --data digits --set preprocessing.bit=4 --out x", 1, "no `bit` in `preprocessing`"),
        ("train tiny.ron --data digits --set settings.ema=2 --out x", 1, "ema: expected a decay between 0 and 1, got 2"),
        ("train tiny.ron --data digits --set settings.patience=0 --out x", 1, "patience: expected at least 1, got 0"),
        ("train tiny.ron --data digits --set settings.patience=3 --validation 0 --out x", 1, "patience: expected none where"),
        ("train tiny.ron --data digits --lr -1 --out x", 1, "learning_rate: expected a finite number greater than 0 in f32, got -1"),
        ("train tiny.ron --data digits --set patch=3 --out x", 1, "tiny.ron: bijector: height 8 is not divisible by patch 3"),
        ("inspect tiny.ron --shape 1,8,8 --set patch=3", 1, "tiny.ron: bijector: height 8 is not divisible by patch 3"),
        (
            "train tiny.ron --data digits --set channel.AffineCoupling.condition=2 --out x",
            1,
            "parts of the model see a condition of 2 numbers",
        ),
        ("inspect tiny.ron --shape 1,8,8 --set channel.AffineCoupling.condition=2", 1, "parts of the model see a condition of 2 numbers"),
        ("train tiny.ron --data digits --out run", 1, "run: already holds a run: continue it with --resume, or choose another folder"),
        ("train tiny.ron --data digits --out full", 1, "full: the folder is not empty: it contains `letter.txt`"),
        ("train --resume --out full", 1, "full: no run to resume here; to start one, give SPEC and --data"),
        ("train --resume --out run --seed 7", 1, "seed: expected 0, with which the run was begun, got 7"),
        ("train --resume --out run --data toy:rings", 1, "the data has 10000 items, where the run was begun with 1500"),
        ("train tiny.ron --resume --out run --set layers=3", 1, "run: the run was begun with another spec than tiny.ron"),
        ("train --resume --out run --set layers=3", 1, "the spec of an existing run cannot be changed"),
        ("eval nowhere --data digits", 1, "nowhere: there is no such folder"),
        ("eval full --data digits", 1, "full: no checkpoint"),
        ("eval run --data toy:two-moons", 1, "the model is for events of shape (1, 8, 8) in 17 levels, the data has (2)"),
        ("eval run --data npy:missing.npy", 1, "missing.npy: No such file"),
        ("eval run --data digits --dequantisations 0", 1, "dequantisations: expected at least 1, got 0"),
        ("embed run --data digits --layer bijector.layers.9 --out x.npy", 1, "the model has no such layer"),
        // The beginning of a layer's path that is no layer.
        ("embed run --data digits --layer bijector.layers --out kept.npy", 1, "--layer bijector.layers: the model has no such layer"),
        ("embed run --data digits --out /proc/z.npy", 1, "/proc/z.npy: No such file"),
        (
            "interpolate run --data toy:two-moons --pair 0,1 --out x.png",
            1,
            "the model is for events of shape (1, 8, 8) in 17 levels, the data has (2)",
        ),
        ("interpolate run --data digits --pair 0,1 --steps 99999999 --out x.png", 1, "--steps: expected at most "),
        ("sample run --count 99999999999 --out x.npy", 1, "which are what the memory at hand has room for, got 99999999999"),
        ("sample run --out x.jpg", 1, "--out x.jpg: expected FILE.png, FILE.npy, FILE.csv or a folder"),
        ("interpolate run --data digits --pair 0,999 --out x.png", 1, "--pair: there is no item 999"),
        ("interpolate run --data digits --pair 0,1 --steps 1 --out x.png", 1, "steps: expected at least 2, got 1"),
        ("sample run --count 0 --out x.png", 1, "--count: expected at least 1, got 0"),
        ("train tiny.ron --data digits --batch 18446744073709551615 --out x", 1, " events of shape (1, 8, 8), got 18446744073709551615"),
        ("sample run --temperature=-1 --out x.png", 1, "temperature"),
        ("sample run --out /proc/samples.png", 1, "/proc/samples.png"),
        ("inspect tiny.ron --shape 1,8,8 --set preprocessing.logit=-1.0", 1, "preprocessing.logit: expected 0 ≤ α < 0.5, got -1"),
        ("inspect tiny.ron --shape 1,8,8 --set preprocessing.levels=0", 1, "levels: expected 2 to 256, got 0"),
        ("inspect tiny.ron --shape 1,8,8 --set settings.clip=-1", 1, "clip: expected a finite number greater than 0 in f32, got -1"),
        ("inspect tiny.ron --shape 1,8,8 --set settings.foo=3", 1, "--set settings: no `foo`; there are: steps"),
        ("compare tiny.ron --data digits --dequantisations 0 --out x", 1, "dequantisations: expected at least 1, got 0"),
        ("compare tiny.ron --data digits --out full", 1, "full: the folder is not empty: it contains `letter.txt`"),
        ("inspect tiny.ron", 1, "--shape: the spec states no shape"),
        ("inspect tiny.ron --shape 1,2", 1, "--shape: expected C,H,W or D, got 2 numbers"),
        ("import tiny.ron --out x", 1, "tiny.ron: "),
        ("import run/latest/model.safetensors --out x", 1, "no `spec.ron` in its metadata"),
        ("plot full --out x.png", 1, "full: no checkpoint"),
    ];
    for (arguments, code, message) in cases {
        let (found, text) = place.fail(arguments);
        assert!(found == code && text.contains(message), "mixerflow {arguments}: {found}, expected {code} and `{message}`:\n{text}");
        assert!(!text.contains("panicked"), "{text}");
    }
    assert!(!place.path("x").exists(), "what is refused leaves nothing behind");
    assert!(fs::read_dir(place.path("")).unwrap().all(|entry| !entry.unwrap().file_name().to_string_lossy().ends_with(".draft")));
    for kept in ["full/letter.txt", "kept.npy"] {
        assert_eq!(fs::read_to_string(place.path(kept)).unwrap(), "dear", "{kept}");
    }
}

/// One file of a run is replaced by something else: the error names it, and no other run is touched.
#[test]
fn a_damaged_run_is_refused() {
    let place = Place::new();
    place.run(&train("run", "--steps 4 --validation 0"));
    let whole = fs::read(place.path("run/latest/model.safetensors")).unwrap();
    let lying = |length: u64| [&length.to_le_bytes(), &whole[8..]].concat();
    let spec = |from: &str, to: &str| place.read("run/latest/spec.ron").replace(from, to).into_bytes();
    let cases: [(&str, Vec<u8>, &str); 8] = [
        ("model.safetensors", whole[..whole.len() - 5].to_vec(), "bytes of data, where the header announces"),
        ("model.safetensors", whole[..4].to_vec(), "cut off: 4 bytes"),
        ("model.safetensors", lying(10 << 30), "a header of 10737418240 bytes, where at most"),
        ("model.safetensors", lying(7), "its header: "),
        ("spec.ron", spec("hidden: 8", "hidden: 9"), " is F32 "),
        ("spec.ron", spec("layers: 2", "layers: 3"), " missing ("),
        ("spec.ron", spec("layers: 2", "layers: 1"), " unexpected ("),
        ("data.ron", b"(shape: Vector(2), levels: None)".to_vec(), "expected "),
    ];
    // Each without the checksums first, which see any change.
    let checksums = place.path("run/latest/checksums.txt");
    let sums = fs::read(&checksums).unwrap();
    for (file, bytes, message) in cases {
        let path = place.path("run/latest").join(file);
        let kept = fs::read(&path).unwrap();
        fs::write(&path, bytes).unwrap();
        fs::remove_file(&checksums).unwrap();
        let (code, text) = place.fail("eval run --data digits");
        assert!(code == 1 && text.contains(message), "{file}: expected `{message}`:\n{text}");
        fs::write(&checksums, &sums).unwrap();
        let (code, text) = place.fail("eval run --data digits");
        // A header that cannot be one is told before anything is hashed.
        let changed = text.contains(&format!("{file}: it was changed since it was written"));
        assert!(code == 1 && (changed || file == "model.safetensors" && text.contains(message)), "{text}");
        fs::write(&path, kept).unwrap();
    }
    place.run("eval run --data digits");
}

/// A corrupt picture among good ones is named; `--skip-bad` goes on without it and says how many are left out.
#[test]
fn bad_pictures_are_named_or_left_out() {
    let place = Place::new();
    place.run(&train("run", "--steps 2"));
    place.run("sample run --count 12 --out pictures");
    fs::write(place.path("pictures/zz.jpg"), b"\xff\xd8\xff\xe0no picture").unwrap();
    let (code, text) = place.fail("train tiny.ron --data images:pictures --steps 2 --batch 4 --out photos");
    assert!(code == 1 && text.contains("zz.jpg"), "{text}");
    let output =
        place.program("train tiny.ron --data images:pictures --skip-bad --steps 2 --batch 4 --validation 0 --out photos").output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("zz.jpg is left out") && text.contains("1 file or folder is left out"), "{text}");
    assert_eq!(place.read("photos/data.txt").trim(), "images:pictures?skip-bad=1&split=every-tenth");
}

/// A comparison of which a spec fails has the others' results, and fails.
#[test]
fn a_failed_spec_fails_the_comparison() {
    let place = Place::new();
    fs::write(place.path("vectors.ron"), "VectorFlow(flows: [LuLinear()])").unwrap();
    let output = place.program("compare tiny.ron vectors.ron --data digits --steps 2 --batch 32").output().unwrap();
    let (table, text) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!((output.status.code(), text.as_ref()), (Some(1), text.as_ref()));
    assert!(text.ends_with("mixerflow: 1 of 2 specs failed\n"), "{text}");
    assert!(table.contains("\ntiny ") && table.contains("vectors: failed: "), "{table}");
}

/// With an item that no model can score among those held out there is no best model.
#[test]
fn a_run_whose_validation_is_never_finite_says_so() {
    let place = Place::new();
    fs::write(place.path("plane.ron"), "VectorFlow(flows: [LuLinear()])").unwrap();
    // Rows 9, 19, … are test items; training items are numbered without them.
    let held_out = flow_train::data::Shuffle { seed: 0 }.permutation(u64::MAX, 54)[0];
    let rows: Vec<String> =
        (0..60).map(|i| format!("{},{}", if i == held_out + held_out / 9 { 1e30 } else { (i as f64).sqrt() }, i * i % 7)).collect();
    fs::write(place.path("t.csv"), rows.join("\n")).unwrap();
    let output = place.program("train plane.ron --data csv:t.csv --batch 16 --steps 4 --validation 0.1 --out run").output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("there is no best model, and the last one is used"), "{text}");
    assert!(!place.path("run/best").exists());
    place.run("sample run --count 2 --out samples.npy");
}

#[test]
fn a_failed_step_is_told_once() {
    let place = Place::new();
    let (code, text) = place.fail(&train("run", "--steps 50 --lr 1e30 --set settings.warm_up=1"));
    assert!(code == 1 && text.matches("mixerflow: step ").count() == 1, "{text}");
    assert!(place.read("run/log").contains("ERROR step "));
}

/// Nobody reads any more: silence. A full disk: one line.
#[cfg(target_os = "linux")]
#[test]
fn results_that_cannot_be_written_are_no_panic() {
    let place = Place::new();
    place.run(&train("run", "--steps 2"));
    for command in [
        "eval run --data digits",
        "score run --data digits",
        "inspect tiny.ron --shape 1,8,8",
        "completions bash",
        "train --resume --out run",
    ] {
        let (reader, closed) = std::io::pipe().unwrap();
        drop(reader);
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let message = "mixerflow: standard output: No space left on device (os error 28)\n";
        for (to, expected, code) in [(std::process::Stdio::from(closed), "", 0), (full.into(), message, 1)] {
            let mut program = std::process::Command::new(assert_cmd::cargo::cargo_bin("mixerflow"));
            let output = program.current_dir(place.path("")).args(command.split_whitespace()).stdout(to).output().unwrap();
            let text = String::from_utf8_lossy(&output.stderr);
            let ends = text.lines().rfind(|line| line.starts_with("mixerflow: ")).map_or(String::new(), |line| format!("{line}\n"));
            assert_eq!((ends.as_str(), output.status.code()), (expected, Some(code)), "{command}");
        }
    }
}

/// Where a file cannot be written, or is of a kind that is not, nothing is computed first.
#[test]
fn files_that_cannot_be_written_are_refused_at_once() {
    let place = Place::new();
    std::fs::create_dir(place.path("folder")).unwrap();
    std::fs::write(place.path("t.csv"), "1,2\n").unwrap();
    for (arguments, message) in [
        ("score run --out folder", "expected a file, got a folder"),
        ("predict run --out nowhere/p.csv", "there is no folder nowhere"),
        ("report run --out nowhere/r.html", "there is no folder nowhere"),
        ("export run --out folder", "expected a file, got a folder"),
        ("embed run --out z.zip", "use .npy, .npz or .csv"),
        ("plot run --out nowhere/p.png", "there is no folder nowhere"),
        ("eval t.csv", "t.csv: a file, where a run or a checkpoint is a folder"),
    ] {
        let (_, text) = place.fail(arguments);
        assert!(text.contains(message), "{arguments}: {text}");
    }
    // A file that never ends is not read to the end.
    let (_, text) = place.fail("data safetensors:/dev/zero");
    assert!(text.contains("/dev/zero: safetensors header: expected a length from 2 to 100000000, got 0"), "{text}");
    // Numbers of any size are told in a few digits.
    let tiny: Vec<String> = (0..20).map(|_| "1e-300,1\n".to_owned()).collect();
    std::fs::write(place.path("tiny.csv"), tiny.concat()).unwrap();
    let (_, text) = place.fail("train plane-affine --data tiny.csv --out run");
    assert!(text.contains("column 1 is constant (1e-300)"), "{text}");
}
