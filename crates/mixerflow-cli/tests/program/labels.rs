//! Labels: hybrid models, class probabilities, probes, and what is refused.

use crate::{Place, train};
use serde_json::Value;
use std::fs;

const HYBRID: &str = "--set objective=Hybrid(weight:0.5,head:Mlp(hidden:32))";

fn json(place: &Place, arguments: &str) -> Value {
    serde_json::from_str(&place.run(arguments)).unwrap()
}

#[test]
fn a_hybrid_model_tells_digits_apart() {
    let place = Place::new();
    place.run(&train("run", &format!("--steps 300 --lr 0.01 {HYBRID}")));
    let spec = place.read("run/spec.ron");
    assert!(spec.contains("objective: Hybrid(") && spec.contains("hidden: 32"), "{spec}");
    let last: Value = serde_json::from_str(place.read("run/metrics.jsonl").lines().last().unwrap()).unwrap();
    let term = |name: &str| last["terms"].as_array().unwrap().iter().find(|term| term["name"] == name).unwrap().clone();
    let validation = |name: &str| term(name)["validation"].as_f64().unwrap();
    let loss = last["validation"].as_f64().unwrap();
    assert!((loss - validation("likelihood") - 0.5 * validation("label")).abs() < 1e-9, "{last}");
    assert!(place.read("run/log").contains(" loss (likelihood "), "the terms are told");

    // Text, JSON and the table of predictions are the same figures.
    let text = place.run("eval run");
    let found = json(&place, "eval run --json")["test"]["classification"].clone();
    let accuracy = found["accuracy"].as_f64().unwrap();
    assert!(accuracy > 0.7 && found["items"] == 297, "{found}");
    let (bits, nats) = (found["cross_entropy_bits"].as_f64().unwrap(), found["cross_entropy_nats"].as_f64().unwrap());
    assert!((bits * 2.0_f64.ln() - nats).abs() < 1e-12);
    for line in
        [format!("accuracy           {accuracy:.4} ± "), format!("cross-entropy      {bits:.4} ± "), "calibration error  ".to_owned()]
    {
        assert!(text.contains(&line), "{line} in {text}");
    }
    let bins = found["calibration"]["bins"].as_array().unwrap();
    assert_eq!((bins.len(), bins.iter().map(|bin| bin["items"].as_u64().unwrap()).sum::<u64>()), (15, 297));

    place.run("predict run --part test --out classes.csv");
    let table = place.read("classes.csv");
    assert_eq!(table.lines().next(), Some("row,part,name,label,0,1,2,3,4,5,6,7,8,9,predicted"));
    let rows: Vec<Vec<&str>> = table.lines().skip(1).map(|line| line.split(',').collect()).collect();
    let right = rows.iter().filter(|row| row[3] == row[14]).count();
    assert!((right as f64 / 297.0 - accuracy).abs() < 1e-12, "{right} of {}", rows.len());
    for row in &rows {
        let probabilities: Vec<f64> = row[4..14].iter().map(|cell| cell.parse().unwrap()).collect();
        let largest = probabilities.iter().copied().fold(0.0, f64::max);
        assert!((probabilities.iter().sum::<f64>() - 1.0).abs() < 1e-6, "{row:?}");
        let predicted: usize = row[14].parse().unwrap();
        assert!((probabilities[predicted] - largest).abs() < f64::EPSILON, "{row:?}");
    }
    // All of the run's own data by default, on standard output.
    let all = place.run("predict run");
    assert_eq!(all.lines().count(), 1798);
    assert!(all.lines().nth(1).unwrap().starts_with("0,train,,0,"), "{all:.99}");

    // Figures, pictures and files know the classifier.
    place.run(&train("density", "--steps 4"));
    place.run("plot run density --out curves.png");
    place.run("export run --out run.safetensors");
    place.run("import run.safetensors --out again");
    assert_eq!(place.run("predict again --data digits --part test"), table);
    assert!(place.run("inspect run").contains("parameters"));
    place.run("train --resume --out run --steps 310");
    assert_eq!(place.read("run/metrics.jsonl").lines().count(), 21);
    let (code, error) = place.fail("predict run --part test --dequantisations 0");
    assert!(code == 1 && error.contains("dequantisations: expected at least 1"), "{error}");
}

#[test]
fn a_probe_tells_what_frozen_latents_know() {
    let place = Place::new();
    place.run(&train("run", "--steps 40 --lr 0.01"));
    let found = json(&place, "probe run --json");
    let (train, test) = (&found["train"], &found["test"]);
    assert_eq!((train["items"].as_u64(), test["items"].as_u64(), found["held_out"].as_u64()), (Some(1500), Some(297), Some(300)));
    // The test items are of other writers: logistic regression of scikit-learn has 0.88 on these latents.
    assert!(test["accuracy"].as_f64().unwrap() > 0.82 && train["accuracy"].as_f64() >= test["accuracy"].as_f64(), "{test}");
    let text = place.run("probe run --layer bijector.layers.0.channel");
    for part in
        ["a linear probe of 64 numbers behind bijector.layers.0.channel, digits", "chosen on 300 held-out items", "accuracy", "test"]
    {
        assert!(text.contains(part), "{part} in {text}");
    }
    // Other data, with their own test items, and none held out.
    fs::write(place.path("plane.ron"), "VectorFlow(flows: [ActNorm(), AffineCoupling(hidden: 8)])").unwrap();
    place.run("train plane.ron --data toy:two-moons?n=400 --batch 32 --steps 4 --validation 0 --out moons");
    let found = json(&place, "probe moons --json");
    assert!(found["held_out"].as_u64() == Some(80) && found["test"]["accuracy"].as_f64().unwrap() > 0.7, "{found}");
    // No line parts the moons, and one hidden layer does.
    place.run("train plane.ron --data toy:two-moons?n=2000 --batch 32 --steps 1 --validation 0 --out many");
    let [linear, hidden] = ["", " --hidden 16"].map(|more| json(&place, &format!("probe many --json{more}")));
    let accuracy = |found: &serde_json::Value| found["test"]["accuracy"].as_f64().unwrap();
    assert!(hidden["hidden"] == 16 && linear["hidden"].is_null(), "{hidden}");
    assert!(accuracy(&linear) < 0.95 && accuracy(&hidden) > 0.98, "{linear} {hidden}");
    assert!(place.run("probe many --hidden 2").starts_with("a probe with 2 hidden units of 2 numbers behind bijector, toy:"));
}

#[test]
fn what_has_no_classes_is_refused() {
    let place = Place::new();
    place.run(&train("plain", "--steps 4"));
    place.run(&train("hybrid", "--steps 4 --set objective=Hybrid()"));
    let plane = |objective: &str| format!("VectorFlow(flows: [ActNorm()], objective: {objective})");
    fs::write(place.path("plane.ron"), plane("Hybrid()")).unwrap();
    fs::write(place.path("typo.ron"), plane("Hybrid(wieght: 1.0)")).unwrap();
    fs::write(place.path("unknown.ron"), plane("Hybird()")).unwrap();
    // Five classes of pictures, of which one is new to a model of digits.
    let cases = [
        (
            "predict plain",
            1,
            "plain: the model has no classifier: its spec has neither `objective: Hybrid(…)` nor `condition: Classes(…)`; `mixerflow probe`",
        ),
        ("predict nowhere", 1, "nowhere: there is no such folder"),
        ("predict hybrid --part some", 2, "possible values: train, validation, test, all"),
        ("predict hybrid --data toy:two-moons", 1, "the model is for events of shape (1, 8, 8) in 17 levels"),
        (
            "train plane.ron --data toy:checkerboard?n=50 --out x",
            1,
            "plane.ron: objective: head: expected data with labels of at least 2 classes",
        ),
        ("train typo.ron --data toy:rings?n=50 --out x", 1, "wieght"),
        ("train unknown.ron --data toy:rings?n=50 --out x", 1, "Hybird"),
        (
            "train plane.ron --data toy:rings?n=50 --set objective.weight=0 --out x",
            1,
            "objective: weight: expected a finite number greater",
        ),
        ("train plane.ron --data toy:rings?n=50 --set objective.head=Mlp(hidden:0) --out x", 1, "head.hidden: expected 1 to 16384, got 0"),
        (
            "train plane.ron --data toy:rings?n=50 --set objective.layer=\"bijector.9\" --out x",
            1,
            "objective: layer: expected a layer of the model's table, got `bijector.9`",
        ),
        ("inspect plane.ron --shape 2", 1, "plane.ron: objective: head: expected data with labels of at least 2 classes"),
        ("probe plain --layer bijector.9", 1, "--layer bijector.9: the model has no such layer"),
        ("probe plain --batch 0", 2, "expected at least 1"),
        ("probe plain --hidden 0", 2, "expected at least 1"),
        ("probe nowhere", 1, "nowhere: there is no such folder"),
    ];
    for (arguments, code, message) in cases {
        let (found, errors) = place.fail(arguments);
        assert!(found == code && errors.contains(message), "mixerflow {arguments}: {found}\n{errors}");
        assert!(!place.path("x").exists(), "mixerflow {arguments}");
    }
    place.run("train tiny.ron --data digits --batch 32 --steps 2 --set objective=Likelihood() --out same");
    assert!(!place.read("same/spec.ron").contains("objective"));
    // A spec with a classifier is inspected with its data.
    assert_eq!(place.fail("inspect plane.ron --data toy:rings?n=50").0, 0);
    // A table without labels is no data for a probe, and has no class figures.
    place.run("train tiny.ron --data digits --batch 32 --steps 2 --out digits");
    let noise: Vec<String> = (0..60).map(|i| format!("{}.5,{}.25\n", i * 7 % 13, i * 5 % 11)).collect();
    fs::write(place.path("noise.csv"), noise.concat()).unwrap();
    fs::write(place.path("bare.ron"), "VectorFlow(flows: [ActNorm()])").unwrap();
    place.run("train bare.ron --data noise.csv --batch 8 --steps 2 --out bare");
    let (code, errors) = place.fail("probe bare");
    assert!(code == 1 && errors.contains("noise.csv?split=every-tenth: the items have no labels to fit a probe to"), "{errors}");
    // Of classes that the model does not know, and of classes under other numbers.
    let rows = |names: [&str; 3]| (0..30).map(|i| format!("{}.5,{}.25,{}\n", i % 7, i % 5, names[i % 3])).collect::<Vec<_>>().concat();
    fs::write(place.path("known.csv"), rows(["a", "b", "c"])).unwrap();
    fs::write(place.path("new.csv"), rows(["a", "b", "zebra"])).unwrap();
    place.run("train plane.ron --data csv:known.csv?label=last --batch 8 --steps 2 --out named");
    let (code, errors) = place.fail("eval named --data csv:new.csv?label=last");
    assert!(code == 1 && errors.contains("the model has no class `zebra`; there are: a, b, c"), "{errors}");
    // The numbers are those that the run was trained on, whatever their classes are called.
    let table = place.run("predict named --data csv:new.csv?label=last");
    assert!(table.starts_with("row,part,name,label,a,b,c,predicted\n0,train,,a,"), "{table:.99}");
    // Rows without a class count in the likelihood alone, where the spec and the table say so.
    fs::write(place.path("some.csv"), rows(["a", "b", ""])).unwrap();
    let (code, errors) = place.fail("train plane.ron --data csv:some.csv?label=last --batch 8 --steps 2 --out some");
    assert!(code == 1 && errors.contains("the class 10"), "{errors}");
    place.run("train plane.ron --data csv:some.csv?label=last&missing=unlabelled --batch 8 --steps 2 --out some");
    let eval = json(&place, "eval some --part all --json");
    assert_eq!((eval["all"]["items"].as_u64(), eval["all"]["classification"]["items"].as_u64()), (Some(30), Some(20)), "{eval}");
    assert!(place.run("predict some").contains("\n2,train,,,0."), "a row without a class is predicted too");
}
