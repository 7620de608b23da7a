//! Kills, interrupts, full disks and second processes leave a run that can go on, bit for bit as if nothing had
//! happened.

use crate::{Place, train};
use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// What a run amounts to, seconds left out.
pub(crate) fn essence(place: &Place, run: &str) -> Vec<Vec<u8>> {
    let file = |name: &str| fs::read(place.path(run).join(name)).unwrap();
    let metrics = place.read(format!("{run}/metrics.jsonl"));
    let losses = metrics.lines().map(|line| {
        let mut report: serde_json::Value = serde_json::from_str(line).unwrap();
        report.as_object_mut().unwrap().retain(|name, _| !name.starts_with("seconds"));
        format!("{report}\n")
    });
    let tensors = ["latest/model.safetensors", "latest/optimiser.safetensors", "latest/best.safetensors", "best/model.safetensors"];
    tensors.into_iter().map(file).chain([losses.collect::<String>().into_bytes()]).collect()
}

/// The program at work.
pub(crate) fn started(place: &Place, arguments: &str) -> Child {
    let mut program = Command::new(assert_cmd::cargo::cargo_bin("mixerflow"));
    program.current_dir(place.path("")).args(arguments.split_whitespace());
    program.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

/// The steps that a run was taken up at: a run that only ever began anew would end the same.
fn taken_up(place: &Place, run: &str) -> Vec<u64> {
    let log = place.read(format!("{run}/log"));
    let starts = log.lines().filter_map(|line| line.split_once(" at step ")?.1.split_once(" of ")?.0.parse().ok());
    starts.collect()
}

/// Everything that a run keeps: averaged weights, a best model, reports that fall between checkpoints.
const STEPS: &str = "--steps 40 --report-every 3 --set settings.ema=0.9 --validation 0.1";

#[test]
fn a_stopped_run_goes_on_as_if_it_had_not_stopped() {
    let place = Place::new();
    place.run(&train("whole", STEPS));
    place.run(&train("parts", &format!("{STEPS} --stop-at 20 --threads 1")));
    assert!(place.read("parts/log").contains("step 20: stopped"));
    place.run("train --resume --out parts");
    assert_eq!(taken_up(&place, "parts"), [0, 20]);
    assert_eq!(essence(&place, "parts"), essence(&place, "whole"));
    // A finished run has nothing more to do.
    place.run("train --resume --out parts");
    assert_eq!(essence(&place, "parts"), essence(&place, "whole"));
}

/// The seed is that of the data too, wherever it is set: generated points are the same when a run goes on, and when it
/// is begun the other way.
#[test]
fn a_stopped_run_goes_on_with_its_data() {
    const STEPS: &str = "train plane.ron --data toy:two-moons?n=200 --batch 16 --steps 8 --report-every 2 --set settings.ema=0.9";
    let place = Place::new();
    fs::write(place.path("plane.ron"), "VectorFlow(flows: [ActNorm(), AffineCoupling(hidden: 8)])").unwrap();
    place.run(&format!("{STEPS} --seed 5 --out whole"));
    place.run(&format!("{STEPS} --set settings.seed=5 --stop-at 4 --out parts"));
    place.run("train --resume --out parts");
    assert_eq!(taken_up(&place, "parts"), [0, 4]);
    assert_eq!(essence(&place, "parts"), essence(&place, "whole"));
    // A table that has grown has other items under the numbers that were held out.
    let table = |rows: usize, modulus: usize| {
        let rows: Vec<String> = (0..rows).map(|i| format!("{i},{}", i * i % modulus)).collect();
        fs::write(place.path("t.csv"), rows.join("\n")).unwrap();
    };
    table(200, 7);
    place.run("train plane.ron --data csv:t.csv --batch 16 --steps 4 --stop-at 2 --out table");
    for (rows, modulus, message) in
        [(250, 7, "the data has 225 items, where the run was begun with 180"), (200, 11, "begun with 180 others")]
    {
        table(rows, modulus);
        let (code, text) = place.fail("train --resume --out table");
        assert!(code == 1 && text.contains(message), "{text}");
    }
    let compared = |seed: &str| {
        place.run(&format!("compare plane.ron --data toy:two-moons?n=200 --batch 16 --steps 2 {seed} --out comparison"));
        let items = fs::read(place.path("comparison/items.png")).unwrap();
        fs::remove_dir_all(place.path("comparison")).unwrap();
        items
    };
    assert_eq!(compared("--set settings.seed=5"), compared("--seed 5"));
}

#[test]
fn a_kill_at_any_moment_loses_nothing() {
    const KILLS: u64 = 20;
    // A checkpoint a step: most kills that come after the start fall into the writing of one.
    const RUN: &str = "--report-every 1 --set settings.ema=0.9 --validation 0.1";
    let place = Place::new();
    let arguments = train("killed", &format!("--steps 60 {RUN} --resume"));
    // A slow machine needs longer until it makes its first step.
    let began = Instant::now();
    place.run(&train("timed", &format!("--steps 1 {RUN}")));
    let span = u64::try_from(began.elapsed().as_millis()).unwrap().max(120) * 3 / 2;
    let mut moment = 0x9e37_79b9_7f4a_7c15_u64;
    for kill in 0..KILLS {
        let mut child = started(&place, &arguments);
        moment = moment.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        std::thread::sleep(Duration::from_millis(5 + (moment >> 33) % span));
        let finished = child.try_wait().unwrap();
        child.kill().unwrap();
        let output = child.wait_with_output().unwrap();
        let failed = finished.is_some_and(|status| !status.success());
        assert!(!failed, "resume {kill}: {}", String::from_utf8_lossy(&output.stderr));
    }
    place.run(&arguments);
    let starts = taken_up(&place, "killed");
    assert!(starts.is_sorted() && starts.iter().filter(|step| **step > 0).count() >= 3, "{starts:?}");
    place.run(&train("whole", &format!("--steps 60 {RUN}")));
    assert_eq!(essence(&place, "killed"), essence(&place, "whole"));
    place.run("eval killed --data digits");
}

#[cfg(unix)]
#[test]
fn an_interrupt_finishes_the_step_and_a_second_process_is_refused() {
    for signal in ["-INT", "-TERM"] {
        is_stopped_by(signal);
    }
}

#[cfg(unix)]
fn is_stopped_by(signal: &str) {
    let place = Place::new();
    let arguments = train("run", "--steps 1000000 --report-every 100000");
    let mut child = started(&place, &arguments);
    let deadline = Instant::now() + Duration::from_mins(1);
    while !place.path("run/metrics.jsonl").exists() {
        assert!(Instant::now() < deadline && child.try_wait().unwrap().is_none(), "the run has not begun");
        std::thread::sleep(Duration::from_millis(10));
    }
    let (code, text) = place.fail("train --resume --out run");
    assert!(code == 1 && text.contains("run: another process is training here"), "{text}");

    assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{text}");
    assert!(text.contains("stopping after this step"), "{signal}: {text}");
    place.run("train --resume --out run --stop-at 1");
    place.run("eval run --data digits");
}

/// A file size limit is what a full disk is to the writer: writing fails half-way.
#[cfg(unix)]
#[test]
fn a_full_disk_leaves_the_last_checkpoint() {
    let place = Place::new();
    place.run(&train("run", &format!("{STEPS} --stop-at 20")));
    let before = essence(&place, "run");
    let script = "trap '' XFSZ; ulimit -f 8; exec \"$0\" train --resume --out run";
    let output = Command::new("sh")
        .current_dir(place.path(""))
        .args(["-c", script])
        .arg(assert_cmd::cargo::cargo_bin("mixerflow"))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("run/.latest.checkpoint-draft/") && text.contains("File too large"), "{text}");
    assert_eq!(essence(&place, "run")[..4], before[..4]);
    place.run("train --resume --out run");
    place.run(&train("whole", STEPS));
    assert_eq!(essence(&place, "run"), essence(&place, "whole"));
}

/// No folder can be made below /proc, by anyone.
#[cfg(target_os = "linux")]
#[test]
fn a_folder_that_cannot_be_written_is_an_error() {
    let place = Place::new();
    let (code, text) = place.fail(&train("/proc/run", "--steps 2"));
    assert!(code == 1 && text.contains("/proc/run: "), "{text}");
}
