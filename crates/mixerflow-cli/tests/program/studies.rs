//! Studies: each of those that come with the toolkit runs in its shortened form, and one that is stopped or killed goes
//! on.

use crate::Place;
use crate::nothing_lost::started;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

const STUDIES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../specs/experiments");

fn results(place: &Place, folder: &str) -> serde_json::Value {
    serde_json::from_str(&place.read(format!("{folder}/results.json"))).unwrap()
}

/// When each file below a folder was written.
fn written(folder: &Path) -> Vec<(PathBuf, SystemTime)> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { all.extend(written(&path)) } else { all.push((path.clone(), fs::metadata(&path).unwrap().modified().unwrap())) }
    }
    all.sort();
    all
}

#[test]
fn every_study_runs_in_its_shortened_form() {
    let mut studies: Vec<PathBuf> = fs::read_dir(STUDIES).unwrap().map(|entry| entry.unwrap().path()).collect();
    studies.sort();
    assert!(studies.len() >= 5, "{studies:?}");
    let place = Place::new();
    for study in studies {
        let name = study.file_stem().unwrap().to_string_lossy().into_owned();
        place.run(&format!("experiment {} --short --out {name}", study.display()));
        let found = results(&place, &name);
        let runs = found["runs"].as_array().unwrap();
        let variants = found["study"]["variants"].as_array().unwrap();
        assert!(runs.len() >= variants.len(), "{name}: {} runs of {} variants", runs.len(), variants.len());
        assert!(runs.iter().all(|run| run["test"]["loss"].is_number() && run["peak_bytes"].is_number()), "{name}: {runs:?}");
        let page = place.read(format!("{name}/index.html"));
        assert!(page.contains("data:image/png;base64,") && page.contains("<svg") && !page.contains(".png\""), "{name}");
    }
    // What is asked to have as many parameters has as many.
    let kinds = results(&place, "kinds");
    let parameters: Vec<f64> = kinds["runs"].as_array().unwrap().iter().map(|run| run["parameters"].as_f64().unwrap()).collect();
    assert!(parameters.len() == 9 && parameters.iter().all(|count| (count / parameters[0] - 1.0).abs() < 0.1), "{parameters:?}");
}

/// A study of two variants and two seeds, that takes a moment or, with many steps, longer.
fn write_study(place: &Place, steps: u64) {
    let text = format!(
        r#"(
            title: "a study", data: [(name: "some digits", source: "digits:?take=200,40")],
            variants: [
                (name: "affine", from: "tiny.ron"),
                (name: "wider", from: "tiny.ron", set: ["channel.AffineCoupling.hidden=3"], width: ["patches.AffineCoupling.hidden"]),
            ],
            match: Parameters(0.1), seeds: [3, 4], budget: Steps({steps}), settings: (batch: 16, report_every: 5, validation: 0.1),
            probes: (layers: 1, hidden: 4), borders: 4, published: [(of: "nobody", figure: "9.99 bits/dim", source: "nowhere")],
        )"#
    );
    fs::write(place.path("study.ron"), text).unwrap();
}

#[test]
fn what_is_done_is_not_done_again() {
    let place = Place::new();
    write_study(&place, 10);
    let table = place.run("experiment study.ron --out study");
    for line in
        ["spec ", "affine ", "wider ", "baseline: uniform", "baseline: one normal density", "baseline: one PNG", "latents", "nobody"]
    {
        assert!(table.lines().any(|found| found.contains(line)), "{line}: {table}");
    }
    // Published figures stand in no column of ours.
    assert!(!table.lines().take_while(|line| !line.is_empty()).any(|line| line.contains("affine") && line.contains("9.99")));
    let before = written(&place.path("study/runs"));
    let first = results(&place, "study");
    // Classifiers of a layer and of the latents, with a hidden layer and without.
    let probes = first["runs"][0]["probes"].as_array().unwrap();
    let kinds: Vec<(&str, Option<u64>)> = probes.iter().map(|one| (one["layer"].as_str().unwrap(), one["hidden"].as_u64())).collect();
    let layer = kinds[0].0;
    assert_eq!(kinds, [(layer, Some(4)), ("bijector", Some(4)), (layer, None), ("bijector", None)]);
    assert_eq!(place.run("experiment study.ron --out study"), table);
    assert_eq!(written(&place.path("study/runs")), before);
    assert_eq!(results(&place, "study"), first);
    // Another wish is tested and not trained.
    let text = place.read("study.ron").replace("borders: 4", "borders: 2");
    fs::write(place.path("study.ron"), text).unwrap();
    place.run("experiment study.ron --out study");
    let again = results(&place, "study");
    assert_eq!(again["runs"][0]["borders"]["patch"], 2);
    assert_eq!(again["runs"][3]["history"], first["runs"][3]["history"]);
    // Another plan is not mixed with what is there.
    write_study(&place, 12);
    let (code, text) = place.fail("experiment study.ron --out study");
    assert!(code == 1 && text.contains("begun with other settings: take another folder"), "{text}");
    let text = place.read("study.ron").replace("hidden=3", "hidden=2").replace("Steps(12)", "Steps(10)");
    fs::write(place.path("study.ron"), text).unwrap();
    let (code, text) = place.fail("experiment study.ron --out study");
    assert!(code == 1 && text.contains("begun with another spec"), "{text}");
}

/// Killed or stopped in the middle it goes on from the last checkpoint, and finds what it would have found.
#[test]
fn a_study_goes_on_where_it_was() {
    let whole = Place::new();
    write_study(&whole, 120);
    whole.run("experiment study.ron --out study");
    let essence = |place: &Place| -> Vec<serde_json::Value> {
        let found = results(place, "study");
        let runs = found["runs"].as_array().unwrap().clone();
        runs.into_iter().map(|run| serde_json::json!([run["variant"], run["seed"], run["parameters"], run["test"]["loss"]])).collect()
    };
    let place = Place::new();
    write_study(&place, 120);
    let mut interrupted = 0;
    for round in 0..40 {
        let mut child = started(&place, "experiment study.ron --out study");
        let run = place.path(format!("study/runs/some-digits/{}/seed-3/metrics.jsonl", if round == 0 { "affine" } else { "wider" }));
        let begun = Instant::now();
        while !run.exists() && child.try_wait().unwrap().is_none() && begun.elapsed() < Duration::from_mins(1) {
            std::thread::sleep(Duration::from_millis(2));
        }
        if round < 2 {
            // First gently, then by force.
            let signal = if round == 0 { "-TERM" } else { "-KILL" };
            std::process::Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
        }
        let status = child.wait().unwrap();
        if status.success() {
            break;
        }
        interrupted += 1;
        if round == 0 {
            assert_eq!(status.code(), Some(130));
            assert!(results(&place, "study")["unfinished"]["reason"].as_str().unwrap().contains("stopped"));
        }
    }
    assert_eq!(interrupted, 2);
    assert_eq!(essence(&place), essence(&whole));
}

#[test]
fn studies_that_make_no_sense_are_refused() {
    let place = Place::new();
    let data = r#"data: [(name: "d", source: "digits")]"#;
    let affine = r#"(name: "a", from: "tiny.ron")"#;
    for (study, message) in [
        (format!(r#"(title: "t", {data}, variants: [{affine}], budget: Steps(0))"#), "budget: expected a number above 0, got 0"),
        (format!(r#"(title: "t", {data}, variants: [], budget: Steps(1))"#), "variants: expected at least one, got none"),
        (format!(r#"(title: "t", {data}, variants: [{affine}, {affine}], budget: Steps(1))"#), "`a` twice"),
        (format!(r#"(title: "t", {data}, variants: [(name: "a")], budget: Steps(1))"#), "expected `from` or `spec`, got neither of `a`"),
        (format!(r#"(title: "t", {data}, variants: [(name: "a", from: "none.ron")], budget: Steps(1))"#), "none.ron: No such file"),
        (format!(r#"(title: "t", {data}, variants: [{affine}], budget: Steps(1), match: Parameters(2.0))"#), "a share between 0 and 1"),
        (format!(r#"(title: "t", {data}, variants: [{affine}], budget: Steps(1), seed: 2)"#), "study.ron:1:"),
        (
            format!(r#"(title: "t", {data}, variants: [(name: "a", from: "tiny.ron", set: ["layer=3"])], budget: Steps(1))"#),
            "variant `a`: no `layer`",
        ),
    ] {
        fs::write(place.path("study.ron"), &study).unwrap();
        let (code, text) = place.fail("experiment study.ron --out out");
        assert!(code == 1 && text.contains(message), "{study}: {text}");
        assert!(!place.path("out").exists(), "{study}");
    }
    let other = format!(
        r#"(title: "t", {data}, variants: [{affine}, (name: "b", from: "tiny.ron", set: ["channel.AffineCoupling.hidden=80"])], budget: Steps(1), match: Parameters(0.1))"#
    );
    fs::write(place.path("study.ron"), other).unwrap();
    let output = place.program("experiment study.ron --out out").output().unwrap();
    let table = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.code() == Some(1) && table.contains("b: failed: match: expected "), "{table}");
    let (_, text) = place.fail("experiment study.ron --data e=digits");
    assert!(text.contains("the study has no data `e`; there are: d"), "{text}");
}
