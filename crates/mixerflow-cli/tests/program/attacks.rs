//! Attacks on what is written: kills before operations on files, full disks, writers at once, planted links, streams
//! and signals. `docs/reliability.md` has their counts.

#![cfg(target_os = "linux")]

use crate::nothing_lost::{essence, started};
use crate::{Place, train};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Commands that write one file, with the file.
const WRITERS: [(&str, &str); 7] = [
    ("export run --out file.safetensors", "file.safetensors"),
    ("sample run --count 4 --out file.png", "file.png"),
    ("sample run --count 4 --out file.npy", "file.npy"),
    ("interpolate run --data digits --pair 3,4 --out file.png", "file.png"),
    ("embed run --data digits --out file.npy", "file.npy"),
    ("score run --data digits --out file.csv", "file.csv"),
    ("plot run --out file.png", "file.png"),
];

/// A run of a few steps in a place of its own.
fn with_run() -> Place {
    let place = Place::new();
    place.run(&train("run", "--steps 4 --report-every 2"));
    place
}

/// The program below a shell line, which calls it as `"$0" "$@"`.
fn shell(place: &Place, line: &str, arguments: &str) -> Output {
    let program = assert_cmd::cargo::cargo_bin("mixerflow");
    Command::new("sh").current_dir(place.path("")).args(["-c", line]).arg(program).args(arguments.split_whitespace()).output().unwrap()
}

/// Compiles what kills before operations on files.
fn killer(place: &Place) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/program/kill.c");
    let library = place.path("kill.so");
    let made = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source).arg("-ldl").status().unwrap();
    assert!(made.success());
    library
}

/// The program with a kill before this operation; whether it was killed.
fn killed(place: &Place, killer: &Path, arguments: &str, at: u64) -> bool {
    use std::os::unix::process::ExitStatusExt;
    let output =
        place.program(&format!("{arguments} --threads 1")).env("LD_PRELOAD", killer).env("KILL_AT", at.to_string()).output().unwrap();
    let killed = output.status.signal() == Some(9);
    assert!(killed || output.status.success(), "{arguments}, kill {at}: {}", String::from_utf8_lossy(&output.stderr));
    killed
}

/// How many operations there are.
fn operations(place: &Place, killer: &Path, arguments: &str) -> u64 {
    let count = place.path("count");
    let output = place.program(&format!("{arguments} --threads 1")).env("LD_PRELOAD", killer).env("COUNT_TO", &count).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    place.read("count").parse().unwrap()
}

/// Kills spread over the operations of a run; with `EVERY_OPERATION` set, one before each.
#[test]
fn kills_before_operations_on_files_lose_nothing_of_a_run() {
    const KILLS: u64 = 16;
    const RUN: &str = "--steps 3 --report-every 1 --set settings.ema=0.9 --validation 0.1 --resume";
    let place = Place::new();
    let killer = killer(&place);
    let all = operations(&place, &killer, &train("whole", RUN));
    let expected = essence(&place, "whole");
    let stride = if std::env::var_os("EVERY_OPERATION").is_some() { 1 } else { (all / KILLS).max(1) };
    let mut kills = 0;
    for at in (1..=all).step_by(usize::try_from(stride).unwrap()) {
        let arguments = train("run", RUN);
        if killed(&place, &killer, &arguments, at) {
            kills += 1;
            // With the very settings that the killed one may have begun to write down.
            place.run(&format!("{arguments} --threads 1"));
        }
        assert_eq!(essence(&place, "run"), expected, "kill before operation {at} of {all}");
        let names: Vec<_> = fs::read_dir(place.path("run/samples")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names.len(), 3, "kill before operation {at} of {all}: {names:?}");
        fs::remove_dir_all(place.path("run")).unwrap();
    }
    assert!(kills >= KILLS.min(all), "{kills} of {all}");
    println!("{kills} kills before the {all} operations of a run");
}

/// Every command that writes a file, killed before each of its operations: the file is the old one or the new one.
#[test]
fn kills_before_operations_on_files_leave_a_whole_file() {
    let place = with_run();
    let killer = killer(&place);
    let mut kills = 0;
    for (command, file) in WRITERS {
        place.run(command);
        let new = fs::read(place.path(file)).unwrap();
        let mut states = [0, 0];
        for at in 1.. {
            fs::write(place.path(file), "old").unwrap();
            let over = !killed(&place, &killer, command, at);
            let found = fs::read(place.path(file)).unwrap();
            assert!(found == b"old" || found == new, "{command}: kill before operation {at}");
            states[usize::from(found == new)] += 1;
            if over {
                break;
            }
            kills += 1;
        }
        assert!(states[0] >= 3 && states[1] >= 1, "{command}: {states:?}");
        fs::remove_file(place.path(file)).unwrap();
    }
    println!("{kills} kills of commands that write a file");
}

/// A file size limit of nothing is a disk that is full: an error, and the good file stays.
#[test]
fn a_full_disk_leaves_good_files() {
    let place = with_run();
    for (command, file) in WRITERS {
        fs::write(place.path(file), "good").unwrap();
        let output = shell(&place, "trap '' XFSZ; ulimit -f 0; exec \"$0\" \"$@\"", command);
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && text.contains("File too large"), "{command}: {text}");
        assert_eq!(place.read(file), "good", "{command}");
    }
    // A comparison writes several.
    let output =
        shell(&place, "trap '' XFSZ; ulimit -f 0; exec \"$0\" \"$@\"", "compare tiny.ron --data digits --steps 1 --out comparison");
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(fs::read_dir(place.path("comparison")).unwrap().count(), 0);
    let drafts = fs::read_dir(place.path("")).unwrap().filter(|entry| {
        let name = entry.as_ref().unwrap().file_name();
        name.to_string_lossy().ends_with(".draft")
    });
    assert_eq!(drafts.count(), 0);
}

#[test]
fn exports_at_once_are_each_whole() {
    const WRITERS: usize = 3;
    let place = with_run();
    place.run("export run --out model.safetensors");
    let whole = fs::read(place.path("model.safetensors")).unwrap();
    for round in 0..4 {
        let mut children: Vec<_> = (0..WRITERS).map(|_| started(&place, "export run --out model.safetensors --threads 1")).collect();
        while children.iter_mut().any(|child| child.try_wait().unwrap().is_none()) {
            assert!(fs::read(place.path("model.safetensors")).unwrap() == whole, "round {round}");
        }
        for child in children {
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
    }
}

#[test]
fn links_streams_and_modes_are_kept() {
    let place = with_run();
    let export = "export run --out file.safetensors";
    place.run(export);
    let whole = fs::read(place.path("file.safetensors")).unwrap();
    // A draft that could be foretold could be a link to somewhere else.
    fs::write(place.path("precious"), "precious").unwrap();
    for planted in [".file.safetensors.draft", ".file.png.draft"] {
        symlink("precious", place.path(planted)).unwrap();
    }
    symlink("far.safetensors", place.path("near.safetensors")).unwrap();
    fs::write(place.path("far.safetensors"), "old").unwrap();
    fs::set_permissions(place.path("far.safetensors"), PermissionsExt::from_mode(0o600)).unwrap();
    place.run("export run --out near.safetensors");
    place.run(export);
    place.run("sample run --out file.png");
    assert_eq!(place.read("precious"), "precious");
    assert!(place.path("near.safetensors").is_symlink());
    assert_eq!(fs::read(place.path("far.safetensors")).unwrap(), whole);
    assert_eq!(fs::metadata(place.path("far.safetensors")).unwrap().permissions().mode() & 0o777, 0o600);
    // A device, a pipe and the shell's own file.
    for (line, file) in
        [("exec \"$0\" \"$@\" > out", "out"), ("{ echo before; \"$0\" \"$@\"; } >> out", "out"), ("\"$0\" \"$@\" | cat > out", "out")]
    {
        let output = shell(&place, line, "export run --out /dev/stdout");
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        let got = fs::read(place.path(file)).unwrap();
        assert!(got.ends_with(&whole), "{line}");
    }
    assert!(Path::new("/dev/stdout").is_symlink());
    place.run("export run --out /dev/null");
    let output = shell(&place, "exec \"$0\" \"$@\"", "export run --out /dev/full");
    assert!(output.status.code() == Some(1) && String::from_utf8_lossy(&output.stderr).contains("No space left"));
}

/// `sample` writes no numbers that are not finite.
#[test]
fn samples_that_are_not_finite_are_an_error() {
    let place = Place::new();
    fs::write(place.path("plane.ron"), "VectorFlow(flows: [ActNorm()])").unwrap();
    place.run("train plane.ron --data toy:two-moons?n=200 --steps 1 --batch 16 --out run");
    for file in ["samples.npy", "samples.png"] {
        let (code, text) = place.fail(&format!("sample run --temperature 3e38 --count 64 --out {file}"));
        assert!(code == 1 && text.contains("not finite") && !place.path(file).exists(), "{text}");
    }
}

/// These tests were themselves started so that a hangup is ignored, which their children inherit.
fn hangups_are_ignored_here() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
}

/// A terminal that goes away ends a run with its checkpoint; `nohup` holds it.
#[test]
fn a_hangup_ends_a_run_unless_it_is_ignored() {
    let inherited = hangups_are_ignored_here();
    for (line, held) in [("exec \"$0\" \"$@\"", inherited), ("trap '' HUP; exec \"$0\" \"$@\"", true)] {
        let place = Place::new();
        let arguments = train("run", "--steps 1000000 --report-every 100000");
        let mut child = Command::new("sh")
            .current_dir(place.path(""))
            .args(["-c", line])
            .arg(assert_cmd::cargo::cargo_bin("mixerflow"))
            .args(arguments.split_whitespace())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + Duration::from_mins(1);
        while !place.path("run/metrics.jsonl").exists() {
            assert!(Instant::now() < deadline && child.try_wait().unwrap().is_none(), "the run has not begun");
            std::thread::sleep(Duration::from_millis(10));
        }
        let signal = |name: &str| assert!(Command::new("kill").args([name, &child.id().to_string()]).status().unwrap().success());
        signal("-HUP");
        if held {
            std::thread::sleep(Duration::from_millis(300));
            assert!(child.try_wait().unwrap().is_none());
            Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
        }
        assert_eq!(child.wait().unwrap().code(), Some(130));
        place.run("train --resume --out run --stop-at 1");
    }
}

/// A run that works in its own data: its grids of samples are no data, and it goes on; nor is a comparison.
#[test]
fn a_run_below_its_own_data_goes_on() {
    let place = with_run();
    place.run("sample run --count 40 --out pictures/all/");
    fs::write(place.path("pictures/tiny.ron"), crate::SPEC).unwrap();
    let at = |arguments: &str| {
        let output = place.program(arguments).current_dir(place.path("pictures")).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments}: {text}");
        text
    };
    let run = "train tiny.ron --data images:. --batch 4 --report-every 2 --resume";
    at(&format!("{run} --steps 2 --out runs/1"));
    assert!(place.path("pictures/runs/1/samples/step-00000002.png").exists());
    at("compare tiny.ron --data images:all --steps 1 --batch 4 --out comparison");
    for (steps, out, left_out) in [(4, "runs/1", 2), (2, "runs/2", 2), (6, "runs/1", 3)] {
        let text = at(&format!("{run} --steps {steps} --out {out}"));
        assert!(
            text.contains("runs/1 is left out: the folder of a run") && text.contains(&format!("{left_out} files or folders")),
            "{text}"
        );
        assert!(text.contains("comparison is left out: the folder of a comparison"), "{text}");
    }
    assert!(place.read("pictures/runs/2/log").contains("36 training items"));
}
