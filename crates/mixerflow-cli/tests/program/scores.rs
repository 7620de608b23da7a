//! Scores that find what is unusual, and the sheet that shows it.

use crate::{Place, train};
use std::fs;

/// A `.npy` file of grey pictures of 8×8 in 17 levels.
fn pictures(place: &Place, name: &str, values: &[u8]) {
    let header = format!("{{'descr': '|u1', 'fortran_order': False, 'shape': ({}, 8, 8), }}", values.len() / 64);
    let padded = format!("{header:<117}\n");
    let bytes = [b"\x93NUMPY\x01\x00".as_slice(), &u16::try_from(padded.len()).unwrap().to_le_bytes(), padded.as_bytes(), values].concat();
    fs::write(place.path(name), bytes).unwrap();
}

/// Levels that look random.
fn noise(items: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u8::try_from((state >> 33) % 17).unwrap()
    };
    (0..64 * items).map(|_| next()).collect()
}

/// Columns of a table by their heads.
fn column(table: &str, head: &str) -> Vec<String> {
    let mut lines = table.lines();
    let at = lines.next().unwrap().split(',').position(|name| name == head).unwrap_or_else(|| panic!("no {head} in {table:.200}"));
    lines.map(|line| line.split(',').nth(at).unwrap().to_owned()).collect()
}

fn numbers(table: &str, head: &str) -> Vec<f64> {
    column(table, head).iter().map(|cell| cell.parse().unwrap()).collect()
}

/// A model that has learnt something, with 300 reference items.
fn with_run() -> Place {
    let place = Place::new();
    place.run(&train("run", "--steps 150 --lr 0.01 --validation 0.2"));
    place
}

const CARDS: &str = "npy:cards.npy?layout=chw&levels=17";
const NOISE: &str = "npy:noise.npy?layout=chw&levels=17";

/// Cards of one level each, and noise.
fn odd_sets(place: &Place) {
    pictures(place, "cards.npy", &(0..17).flat_map(|level| [level; 64]).collect::<Vec<u8>>());
    pictures(place, "noise.npy", &noise(60));
}

#[test]
fn usual_items_are_usual_and_odd_ones_are_not() {
    let place = with_run();
    odd_sets(&place);
    assert!(place.path("run/reference.json").is_file());
    let table = place.run("score run --part test");
    assert_eq!(
        table.lines().next(),
        Some(
            "row,part,name,label,log_likelihood,bits_per_dim,typicality,p_likelihood,complexity_bits,p_complexity,corrected,p_corrected,unusual"
        )
    );
    // Of items that no weight was fitted to a share of about α is called unusual; four standard deviations.
    let unusual = numbers(&table, "unusual");
    for rate in [0.05, 0.2, 0.5] {
        let share = unusual.iter().filter(|unusual| 1.0 - **unusual <= rate).count() as f64 / unusual.len() as f64;
        let error = 4.0 * (rate * (1.0 - rate) * (1.0 / 297.0 + 1.0 / 300.0_f64)).sqrt();
        assert!((share - rate).abs() < error + 0.05, "{share} where {rate} is said");
    }
    for head in ["typicality", "p_likelihood", "p_complexity", "p_corrected", "unusual"] {
        assert!(numbers(&table, head).iter().all(|p| (0.0..=1.0).contains(p)), "{head}");
    }
    let (density, bits, corrected) = (numbers(&table, "log_likelihood"), numbers(&table, "complexity_bits"), numbers(&table, "corrected"));
    for ((density, bits), corrected) in density.iter().zip(&bits).zip(&corrected) {
        assert!((-density / std::f64::consts::LN_2 - bits - corrected).abs() < 1e-6);
    }
    // What the run keeps is what would be scored anew.
    let kept = fs::read(place.path("run/reference.json")).unwrap();
    fs::remove_file(place.path("run/reference.json")).unwrap();
    assert_eq!(place.run("score run/best --part test"), table);
    assert_eq!(fs::read(place.path("run/reference.json")).unwrap(), kept);
    // That of other weights is not taken.
    fs::write(place.path("run/reference.json"), String::from_utf8(kept.clone()).unwrap().replace("\"model\":\"", "\"model\":\"x")).unwrap();
    assert_eq!(place.run("score run --part test"), table);
    assert_eq!(fs::read(place.path("run/reference.json")).unwrap(), kept);

    let json: serde_json::Value =
        serde_json::from_str(&place.run(&format!("eval run --against {CARDS} --against {NOISE} --json"))).unwrap();
    let area = |set: &str, score: &str| json["against"][set][score]["separation"]["auroc"]["value"].as_f64().unwrap();
    for set in [CARDS, NOISE] {
        assert!(area(set, "unusual") > 0.95, "{set}: {}", json["against"][set]);
        assert_eq!(json["against"][set]["log_likelihood"]["separation"]["auroc"]["value"], json["auroc"][set]);
        assert!(json["against"][set]["unusual"]["separation"]["auroc"]["error"].as_f64().unwrap() < 0.05);
    }
    let text = place.run(&format!("eval run --against {NOISE}"));
    assert!(text.contains("297 items against 60 of npy:noise.npy") && text.contains("false positives at 95 %"), "{text}");
}

#[test]
fn alarms_are_as_rare_as_is_asked_for() {
    let place = with_run();
    odd_sets(&place);
    let output = place.program(&format!("score run --data {NOISE} --false-alarm 0.01 --sort --out noise.csv")).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(3) && text.contains("of 60 are unusual at a rate of false alarms of 0.01"), "{text}");
    let table = place.read("noise.csv");
    assert!(column(&table, "is_unusual").iter().filter(|flag| *flag == "yes").count() > 50, "{table}");
    assert!(numbers(&table, "unusual").is_sorted_by(|a, b| a >= b));
    let sorted = place.run("score run --part test --sort=bits_per_dim");
    assert!(numbers(&sorted, "bits_per_dim").is_sorted_by(|a, b| a >= b));
    let output = place.program("score run --part test --false-alarm 0.05").output().unwrap();
    let table = String::from_utf8(output.stdout).unwrap();
    let flags = column(&table, "is_unusual");
    let count = flags.iter().filter(|flag| *flag == "yes").count();
    assert!(flags.len() == 297 && (1..60).contains(&count), "{count}");
    // Whatever is called usual leaves the code of a program that is done.
    pictures(&place, "one.npy", &[0; 64]);
    let output = place.program("score run --data npy:one.npy?layout=chw&levels=17 --false-alarm 0.004").output().unwrap();
    let table = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code() == Some(3), column(&table, "is_unusual") == ["yes"]);
}

/// A background model, and the ratio to it.
#[test]
fn a_background_model_is_subtracted() {
    let place = with_run();
    odd_sets(&place);
    place.run(&train("background", "--steps 150 --lr 0.01 --validation 0.2 --mutate 0.3"));
    assert!(place.read("background/settings.ron").contains("mutate: 0.3") && !place.read("run/settings.ron").contains("mutate"));
    let loss = |run: &str| {
        let json: serde_json::Value = serde_json::from_str(&place.run(&format!("eval {run} --data digits --json"))).unwrap();
        json["test"]["loss"].as_f64().unwrap()
    };
    assert!(loss("background") > loss("run") + 0.1, "it knows less of the digits");
    let kept = fs::read(place.path("run/reference.json")).unwrap();
    let table = place.run("score run --minus background --part test");
    let plain = place.run("score run --part test");
    let other = place.run("score background --data digits --part test");
    let densities = numbers(&plain, "log_likelihood").into_iter().zip(numbers(&other, "log_likelihood"));
    for (ratio, (own, background)) in numbers(&table, "likelihood_ratio").iter().zip(densities) {
        assert!((ratio - (own - background)).abs() < 1e-6);
    }
    assert!(numbers(&table, "p_ratio").iter().all(|p| *p > 0.0 && *p <= 1.0));
    assert_eq!(fs::read(place.path("run/reference.json")).unwrap(), kept, "what is kept is of the model alone");
    let text = place.run(&format!("eval run --minus background --against {NOISE}"));
    assert!(text.contains("\nlikelihood_ratio "), "{text}");
    // A run goes on as it was begun.
    let (code, text) = place.fail("train --resume --out background --mutate 0.1 --steps 160");
    assert!(code == 1 && text.contains("mutate: expected 0.3, with which the run was begun, got 0.1"), "{text}");
}

/// Crops of a picture as one, and a sheet of them.
#[test]
fn crops_of_a_picture_are_put_together() {
    let place = Place::new();
    place.run(&train("digits", "--steps 40 --lr 0.01"));
    place.run("sample digits --count 30 --out pictures");
    let data = "images:pictures?size=8&crop=random&crops=3&grey=1";
    // Pictures of 8 pixels have one window: their crops are equal.
    place.run(&format!("train tiny.ron --data {data} --validation 0.3 --batch 8 --steps 4 --out run"));
    let each = place.run("score run");
    assert!(each.starts_with("row,part,name,label,x,y,log_likelihood,") && each.lines().count() == 1 + 90, "{each:.100}");
    for aggregate in ["max", "mean"] {
        let table = place.run(&format!("score run --aggregate {aggregate} --sort"));
        assert_eq!(table.lines().count(), 1 + 30, "{table}");
        let names = column(&table, "name");
        assert!(names.iter().all(|name| names.iter().filter(|other| *other == name).count() == 1), "{names:?}");
        assert!(numbers(&table, "unusual").is_sorted_by(|a, b| a >= b));
    }
    let most = place.run("score run --aggregate max");
    let (density, names) = (numbers(&each, "log_likelihood"), column(&each, "name"));
    for (name, found) in column(&most, "name").iter().zip(numbers(&most, "log_likelihood")) {
        assert!(names.iter().zip(&density).any(|(own, density)| own == name && (density - found).abs() < 1e-12));
    }
    place.run("score run --sheet sheet.png --top 5 --out scores.csv");
    let sheet = fs::read(place.path("sheet.png")).unwrap();
    let side = |at: usize| u32::from_be_bytes(sheet[at..at + 4].try_into().unwrap());
    assert!(sheet.starts_with(b"\x89PNG") && side(16) > 600 && side(20) > 250, "{}×{}", side(16), side(20));
}

/// One page that needs no other file.
#[test]
fn a_report_shows_the_run() {
    let place = with_run();
    odd_sets(&place);
    let own = place.read("run/report.html");
    assert_eq!(place.run(&format!("report run --data {NOISE} --against {CARDS} --out page.html")), "page.html\n");
    let page = place.read("page.html");
    for page in [&own, &page] {
        for text in
            ["Learning curves", "optimiser steps", "baseline: uniform", "nearest of", "The most unusual of ", "share of items", "spec.ron"]
        {
            assert!(page.contains(text), "no {text}");
        }
        let sources: Vec<&str> = page.split("src=\"").skip(1).collect();
        assert!(sources.len() > 40 && sources.iter().all(|source| source.starts_with("data:image/png;base64,")), "{}", sources.len());
        assert!(!page.contains("<link") && !page.contains("<script src"));
    }
    assert!(
        page.contains("How well scores tell npy:cards.npy") && page.contains("The most unusual of npy:noise.npy") && !own.contains("npy:")
    );
    // A table has no pictures, and a page all the same.
    fs::write(place.path("plane.ron"), "VectorFlow(flows: [ActNorm(), LuLinear()])").unwrap();
    place.run("train plane.ron --data toy:rings?n=100 --steps 4 --batch 16 --out rings");
    let rings = place.read("rings/report.html");
    assert!(rings.contains("one normal density") && !rings.contains("<img") && !rings.contains("Calibration"));
    for text in
        ["Rows beside samples", "two-sample test", "the model is", "share of rows in it", "samples in the densest region", "stroke-linecap"]
    {
        assert!(rings.contains(text), "no {text}");
    }
    // Where there are classes, whether their probabilities are what they say: of a classifier, or by Bayes' rule.
    for (name, spec, by) in [
        ("told", "VectorFlow(flows: [ActNorm()], objective: Hybrid())", "The classifier: right on "),
        ("given", "VectorFlow(flows: [ActNorm()], condition: Classes())", "Bayes&#39; rule with the densities of all classes: right on "),
    ] {
        fs::write(place.path("classes.ron"), spec).unwrap();
        place.run(&format!("train classes.ron --data toy:rings?n=100 --steps 4 --batch 16 --out {name}"));
        let page = place.read(format!("{name}/report.html")).replace("Bayes' ", "Bayes&#39; ");
        assert!(page.contains("Calibration") && page.contains(by) && page.contains("\nconfidence\n"), "{name}");
    }
    place.run("export run --out model.safetensors");
    place.run("import model.safetensors --out imported");
    let (code, text) = place.fail("report imported");
    assert!(code == 1 && text.contains("expected the folder of a run"), "{text}");
}

/// Rows of a table: the likeliest is the most usual, and what is far out is not.
#[test]
fn rows_of_tables_have_scores_without_complexity() {
    let place = Place::new();
    fs::write(place.path("plane.ron"), "VectorFlow(flows: [ActNorm(), LuLinear()])").unwrap();
    let level = |i: usize, prime: usize| f64::from(u32::try_from(i * prime % 1009).unwrap()) / 1009.0 - 0.5;
    let rows: Vec<String> = (0..400).map(|i| format!("{},{}", level(i, 7) + level(i, 11), level(i, 13) + level(i, 17))).collect();
    fs::write(place.path("t.csv"), rows.join("\n")).unwrap();
    place.run("train plane.ron --data csv:t.csv --steps 60 --lr 0.01 --batch 64 --validation 0.3 --out table");
    fs::write(place.path("odd.csv"), "0.0,0.0\n9.0,-9.0\n").unwrap();
    let table = place.run("score table --data csv:odd.csv");
    assert!(table.starts_with("row,part,name,label,log_likelihood,negative_log_likelihood,typicality,p_likelihood,unusual\n"), "{table}");
    let unusual = numbers(&table, "unusual");
    assert!(unusual[0] < 0.2 && unusual[1] > 0.99, "{table}");
    // A value that has no density is the most unusual of all.
    let (code, text) = place.fail("score table --data csv:odd.csv --sheet sheet.png");
    assert!(code == 1 && text.contains("a sheet shows pictures"), "{text}");
}

#[test]
fn what_cannot_be_scored_so_is_told() {
    let place = Place::new();
    place.run(&train("run", "--steps 2 --validation 0"));
    fs::write(place.path("flat.ron"), "VectorFlow(flows: [ActNorm()])").unwrap();
    place.run("train flat.ron --data toy:rings?n=50 --steps 1 --batch 8 --out rings");
    // Without items held out there is nothing to compare with, which is said, and the rest is there.
    let output = place.program("score run").output().unwrap();
    let (table, text) = (String::from_utf8_lossy(&output.stdout).into_owned(), String::from_utf8_lossy(&output.stderr).into_owned());
    assert!(table.starts_with("row,part,name,label,log_likelihood,bits_per_dim,complexity_bits,corrected\n"), "{table:.200}");
    assert!(text.contains("there are no reference items to compare with") && text.contains("no validation items"), "{text}");
    place.run("export run --out model.safetensors");
    place.run("import model.safetensors --out imported");
    let output = place.program("score imported --data digits").output().unwrap();
    assert!(output.status.success() && String::from_utf8_lossy(&output.stderr).contains("does not lie in the folder of a run"));
    for (arguments, code, message) in [
        ("score run --aggregate max", 1, "compare with reference items, of which there are none"),
        ("score run --false-alarm 0.1", 1, "compare with reference items, of which there are none"),
        ("score rings --false-alarm 0.01", 1, "takes at least 99 reference items, got 2"),
        ("score run --false-alarm 1", 2, "expected a share between 0 and 1"),
        ("score run --sort=nothing", 1, "--sort=nothing: expected one of log_likelihood, bits_per_dim"),
        ("score run --top 3", 2, "--sheet"),
        ("score run --sheet sheet.jpg", 2, "use .png"),
        ("score run --sheet sheet.png --top 0", 2, "expected at least 1"),
        (
            "score run --minus rings",
            1,
            "--minus rings: expected a model of (1, 8, 8) in 17 levels like the other one, got one of (2) in real numbers",
        ),
        ("score run --minus nowhere", 1, "nowhere"),
        (
            "train flat.ron --data toy:rings?n=50 --steps 1 --batch 8 --out no --mutate 0.1",
            1,
            "mutate: expected 0 for data that have no levels",
        ),
        ("train tiny.ron --data digits --steps 1 --out no --mutate 2", 1, "mutate: expected a share from 0 to 1, got 2"),
    ] {
        let (found, text) = place.fail(arguments);
        assert!(found == code && text.contains(message), "{arguments}: {found}\n{text}");
    }
    assert!(!place.path("no").exists());
}

/// What is wrong with a command is said before all items are scored: one that cannot be read would end the scoring.
#[test]
fn what_cannot_be_asked_for_is_told_before_anything_is_scored() {
    let place = Place::new();
    let album = |name: &str, count: usize| {
        fs::create_dir(place.path(name)).unwrap();
        for (i, levels) in noise(count).chunks(64).enumerate() {
            fs::write(place.path(format!("{name}/{i:02}.pnm")), [b"P5 8 8 255\n", levels].concat()).unwrap();
        }
    };
    album("album", 12);
    album("others", 9);
    place.run("train tiny.ron --data images:album --steps 2 --batch 4 --validation 0.1 --out run");
    let broken = "08.pnm";
    fs::write(place.path("others").join(broken), "P5 8 8 255\ncut").unwrap();
    for (arguments, message) in [
        ("score run --data images:others", broken),
        ("score run --data images:others --sort=nope", "--sort=nope: expected one of log_likelihood, bits_per_dim, typicality"),
        ("score run --data images:others --false-alarm 0.5", broken),
        ("score run --data images:others --false-alarm 0.01", "takes at least 99 reference items, got 1 ("),
        ("score run --data images:others --by-column", "--by-column: "),
        ("score run --data images:others --every-class", "the model is not conditioned on classes"),
        ("eval run --data images:others --every-class", "the model is not conditioned on classes"),
        ("embed run --data images:others --layer bijector.9 --out z.npy", "--layer bijector.9: the model has no such layer"),
    ] {
        let (code, text) = place.fail(arguments);
        assert!(code == 1 && text.contains(message) && (message == broken || !text.contains(broken)), "{arguments}: {code}\n{text}");
    }
    // One is one.
    let output = place.program("score run --data images:album --part test").output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("compared with 1 validation item of the run"), "{text}");
}
