//! Every command on the digits, and on other data.

use crate::{Place, SPEC, train};
use std::fs;

#[test]
fn every_command_does_its_work() {
    let place = Place::new();
    assert_eq!(place.run(&train("run", "--steps 100 --lr 0.01 --set settings.ema=0.9")), "run\n");
    for file in
        ["spec.ron", "settings.ron", "data.txt", "log", "latest/progress.ron", "best/model.safetensors", "reference.json", "report.html"]
    {
        assert!(place.path("run").join(file).is_file(), "{file}");
    }
    let lines = place.read("run/metrics.jsonl");
    assert_eq!(lines.lines().count(), 20, "a report every twentieth of the steps");
    assert!(lines.lines().all(|line| line.contains("\"validation\":") && !line.contains("\"validation\":null")));
    assert!(place.read("run/log").contains("step 100: all steps are made"));

    // The same figures as text and as JSON.
    let text = place.run("eval run --data digits --dequantisations 2");
    let json: serde_json::Value = serde_json::from_str(&place.run("eval run --data digits --dequantisations 2 --json")).unwrap();
    let found = &json["test"];
    assert_eq!((found["items"].as_u64(), found["unit"].as_str()), (Some(297), Some("bits/dim")));
    let loss = found["loss"].as_f64().unwrap();
    assert!((2.0..4.087).contains(&loss), "better than uniform: {loss}");
    assert!(text.contains(&format!("bits/dim           {loss:.4} ± ")), "{text}");
    assert!(found["inverse"]["error"].as_f64().unwrap() < 1e-4);

    // The mean of the scores is the evaluation.
    place.run("score run --data digits --dequantisations 2 --out scores.csv");
    let table = place.read("scores.csv");
    let mut lines = table.lines();
    assert!(
        lines.next().is_some_and(|heads| heads.starts_with("row,part,name,label,log_likelihood,bits_per_dim,typicality,")),
        "{table:.200}"
    );
    let rows: Vec<Vec<&str>> = lines.map(|line| line.split(',').collect()).collect();
    assert_eq!((rows.len(), rows[0][3], rows[1500][0], rows[1500][1]), (1797, "0", "1500", "test"));
    assert_eq!(rows.iter().filter(|row| row[1] == "validation").count(), 75);
    let mean = rows[1500..].iter().map(|row| row[5].parse::<f64>().unwrap()).sum::<f64>() / 297.0;
    assert!((mean - loss).abs() < 1e-6, "{mean} and {loss}");
    let sorted = place.run("score run --data digits --part test --sort=log_likelihood");
    let densities: Vec<f64> = sorted.lines().skip(1).map(|line| line.split(',').nth(4).unwrap().parse().unwrap()).collect();
    assert!(densities.len() == 297 && densities.is_sorted());

    place.run("sample run --count 6 --columns 3 --temperature 0.8 --out samples.png");
    place.run("sample run --count 6 --out samples.npy");
    place.run("sample run --count 3 --out samples");
    assert_eq!(fs::read_dir(place.path("samples")).unwrap().count(), 3);
    place.run("interpolate run --data digits --pair 0,5 --pair 7,9 --steps 5 --out way.png");
    for picture in ["samples.png", "way.png", "samples/000002.png"] {
        assert!(fs::read(place.path(picture)).unwrap().starts_with(b"\x89PNG"), "{picture}");
    }

    // Latents are the activations behind the last layer.
    place.run("embed run --data digits --out latents.npy");
    place.run("embed run --data digits --layer bijector.layers.1.patch.1 --out last.npy");
    place.run("embed run --layer bijector.layers.0.channel --part test --out first.npy");
    #[cfg(unix)]
    assert!(place.run("embed run --data digits --part test --out /dev/null").is_empty() && !fs::metadata("/dev/null").unwrap().is_file());
    let index = place.read("latents.index.csv");
    assert!(index.starts_with("row,part,name,label\n0,") && index.lines().count() == 1798, "{index:.99}");
    let array = |name: &str| fs::read(place.path(name)).unwrap();
    assert_eq!(array("latents.npy").len(), 128 + 4 * 1797 * 64);
    assert_eq!(array("first.npy").len(), 128 + 4 * 297 * 64);
    let numbers = |name: &str| array(name)[128..].as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect::<Vec<_>>();
    let difference = numbers("latents.npy").iter().zip(numbers("last.npy")).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(difference < 1e-3, "{difference}");

    // Nothing is more unusual than itself.
    let json: serde_json::Value = serde_json::from_str(&place.run("eval run --data digits --against digits --json")).unwrap();
    let area = json["auroc"]["digits"].as_f64().unwrap();
    assert!((0.4..0.6).contains(&area), "{area}");

    // One picture is enough.
    place.run("sample run --count 1 --out one");
    place.run("train tiny.ron --data images:samples?grey=1 --validation 0 --batch 2 --steps 2 --out photos");
    let scores = place.run("score photos --data images:one?grey=1");
    assert!(scores.lines().count() == 2 && scores.contains("\n0,,one/000000.png,"), "{scores}");
    place.run("sample run --count 4 --out SAMPLES.PNG");
    assert!(place.path("SAMPLES.PNG").is_file());

    place.run("plot run --out curves.png");
    fs::write(place.path("other.ron"), SPEC.replace("layers: 2", "layers: 1")).unwrap();
    let comparison = place.run("compare tiny.ron other.ron --data digits --steps 4 --batch 32");
    assert!(comparison.contains("\ntiny ") && comparison.contains("\nother "), "{comparison}");
    assert!(place.path("comparison/index.html").is_file() && place.path("curves.png").is_file());
    assert!(place.run("completions bash").contains("_mixerflow"));

    // An exported model is the same model.
    place.run("export run --out model.safetensors");
    place.run("import model.safetensors --out copy");
    place.run("score copy --data digits --dequantisations 2 --out copied.csv");
    let first = |table: &str| table.lines().map(|line| line.split(',').take(6).collect::<Vec<_>>().join(",")).collect::<Vec<_>>();
    assert_eq!(first(&place.read("copied.csv")), first(&table));
}

/// The spec of a run says what its data went through, so that a checkpoint alone is enough to score with.
#[test]
fn preprocessing_is_part_of_the_spec() {
    let place = Place::new();
    let loss_in = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap()["test"]["loss"].as_f64().unwrap();
    let loss = |run: &str| loss_in(&place.run(&format!("eval {run} --data digits --json")));
    place.run(&train("plain", "--steps 5"));
    place.run(&train("logit", "--steps 5 --set preprocessing.logit=0.05 --set preprocessing.flip=true"));
    assert!(place.read("logit/spec.ron").contains("logit: 0.05"));
    // The same weights behind another preprocessing are another density.
    let plain = loss("plain");
    for file in ["plain/spec.ron", "plain/best/spec.ron", "plain/latest/spec.ron"] {
        let text = place.read(file);
        assert!(text.contains("flip: false"), "{text}");
        fs::write(place.path(file), text.replace("flip: false", "logit: 0.05, flip: false")).unwrap();
    }
    // A checkpoint is read as it was changed where there are no checksums to tell, which is said.
    fs::remove_file(place.path("plain/latest/checksums.txt")).unwrap();
    let output = place.program("eval plain --data digits --json").output().unwrap();
    let note = String::from_utf8(output.stderr).unwrap();
    assert!(note.contains("plain/latest") && note.contains("a version that took no checksums"), "{note}");
    let changed = loss_in(&String::from_utf8(output.stdout).unwrap());
    assert!((plain - changed).abs() > 1e-3, "{plain}");
    place.run("export logit --out logit.safetensors");
    place.run("import logit.safetensors --out imported");
    assert_eq!(loss("logit").to_bits(), loss("imported").to_bits());
}

#[test]
fn inspect_shows_layers_and_memory() {
    let place = Place::new();
    let table = place.run("inspect tiny.ron --shape 1,8,8 --set layers=3 --set channel.AffineCoupling.hidden=16");
    let layer = table.lines().find(|line| line.starts_with("bijector.layers.0.channel.2 ")).unwrap();
    assert!(layer.contains(" AffineCoupling  4×16 → 4×16  exact"), "{table}");
    assert!(table.contains("… these 3 times, to bijector.layers.2") && !table.contains("layers.3"), "{table}");
    // The shape may be that of data or of a run, and equal layers stand once.
    let of_data = place.run("inspect tiny.ron --data digits");
    assert!(of_data.contains("… these 2 times, to bijector.layers.1") && !of_data.contains("bijector.layers.1."), "{of_data}");
    place.run(&train("run", "--steps 1"));
    let of_run = place.run("inspect run");
    assert!(of_run.contains("events of shape (1, 8, 8)"), "{of_run}");
    // What its last report told of every coupling.
    let (_, bounds) = of_run.split_once("share of its scale's bound that a coupling uses").unwrap();
    let last: serde_json::Value = serde_json::from_str(place.read("run/metrics.jsonl").lines().last().unwrap()).unwrap();
    let told: Vec<(String, f64)> = serde_json::from_value(last["bounds_used"].clone()).unwrap();
    assert!(!told.is_empty() && told.iter().all(|(_, share)| (0.0..0.1).contains(share)), "{told:?}");
    for (layer, share) in told {
        let line = bounds.lines().find(|line| line.starts_with(&format!("{layer} "))).unwrap();
        assert!(line.ends_with(&format!(" {:.1} %", 100.0 * share)), "{bounds}");
    }
    let json: serde_json::Value = serde_json::from_str(&place.run("inspect tiny.ron --shape 1,8,8 --json --measure")).unwrap();
    let layers = json["layers"].as_array().unwrap();
    let sum: u64 = layers.iter().map(|layer| layer["parameters"].as_u64().unwrap()).sum();
    assert_eq!(json["parameters"].as_u64(), Some(sum));
    let memory = |setting: &str| json["memory"][setting]["bytes_an_image"].as_f64().unwrap();
    assert!(memory("Store") > memory("Recompute") && memory("Recompute") > memory("Invert"), "{json}");
}

/// An event file beside the metrics, which a run that goes on goes on with.
#[test]
fn metrics_are_written_for_tensorboard_too() {
    let place = Place::new();
    let reports = || {
        let bytes = std::fs::read(place.path("run/tensorboard/events.out.tfevents.mixerflow")).unwrap();
        bytes.windows(b"loss/train".len()).filter(|window| *window == b"loss/train").count()
    };
    place.run(&train("run", "--steps 8 --report-every 4 --stop-at 4 --tensorboard"));
    assert_eq!(reports(), 1);
    place.run("train --resume --out run");
    assert_eq!((reports(), place.read("run/metrics.jsonl").lines().count()), (2, 2));
    place.run(&train("plain", "--steps 2"));
    assert!(!place.path("plain/tensorboard").exists());
}

#[test]
fn inspect_warns_of_numbers_that_no_nonlinear_flow_moves() {
    let place = Place::new();
    for (flows, repeat, shape, expected) in [
        ("SplineCoupling(hidden: 8), AffineCoupling(hidden: 8)", 1, "2", &[][..]),
        ("AdditiveCoupling(hidden: 8), LuLinear(), AffineCoupling(hidden: 8)", 1, "5", &[]),
        ("AffineCoupling(hidden: 8)", 1, "3", &[0]),
        ("ActNorm(), LuLinear()", 2, "2", &[0, 1]),
        // The order takes every turn back.
        ("SplineCoupling(hidden: 8), Permutation(order: Reverse)", 2, "2", &[0]),
        ("Residual(hidden: 8)", 1, "2", &[]),
        ("Ffjord(hidden: 8)", 1, "2", &[]),
    ] {
        fs::write(place.path("flows.ron"), format!("VectorFlow(flows: [{flows}], repeat: {repeat})")).unwrap();
        let output = place.program(&format!("inspect flows.ron --shape {shape} --json --measure")).output().unwrap();
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(json["never_moved"], serde_json::json!(expected), "{flows}");
        let said = String::from_utf8(output.stderr).unwrap();
        let warning = format!("no nonlinear flow moves {} of {shape} numbers (0", expected.len());
        assert_eq!(said.contains(&warning), !expected.is_empty(), "{flows}: {said}");
    }
}

#[test]
fn points_of_the_plane_and_tables_are_data_too() {
    let place = Place::new();
    fs::write(place.path("plane.ron"), "VectorFlow(flows: [ActNorm(), AffineCoupling(hidden: 8)], repeat: 2)").unwrap();
    place.run("train plane.ron --data toy:two-moons?n=400 --batch 64 --steps 10 --out moons");
    let text = place.run("eval moons --data toy:two-moons?n=400");
    assert!(text.contains("nats               "), "{text}");
    place.run("sample moons --count 100 --out moons.png");
    let header = place.run("score moons --data toy:two-moons?n=400");
    assert!(header.starts_with("row,part,name,label,log_likelihood,negative_log_likelihood,typicality,p_likelihood,unusual\n"), "{header}");

    // Of an estimated density the error of every item is told.
    fs::write(place.path("residual.ron"), "VectorFlow(flows: [ActNorm(), Residual(hidden: 8, evaluation: Roulette())])").unwrap();
    place.run("train residual.ron --data toy:two-moons?n=400 --batch 64 --steps 2 --validation 0 --out residual");
    let scores = place.run("score residual --data toy:two-moons?n=400");
    assert!(scores.starts_with("row,part,name,label,log_likelihood,negative_log_likelihood,standard_error\n"), "{scores:.99}");
    let error = |line: &str| line.rsplit(',').next().unwrap().parse::<f64>().unwrap();
    assert!(scores.lines().skip(1).all(|line| (0.0..5.0).contains(&error(line))), "{scores}");

    let rows: Vec<String> = (0..60).map(|i| format!("{i},{},{}", i * i % 7, ["a", "b"][i % 2])).collect();
    fs::write(place.path("table.csv"), rows.join("\n")).unwrap();
    place.run("train plane.ron --data csv:table.csv?label=last --batch 16 --steps 4 --out table --validation 0");
    let scores = place.run("score table --data csv:table.csv?label=last");
    assert!(scores.lines().skip(1).all(|line| line.split(',').nth(3).is_some_and(|label| label == "a" || label == "b")), "{scores}");
}

/// Generated points and random crops are those of the run: its own training items, and none of another seed.
#[test]
fn a_run_is_scored_on_the_data_of_its_seed() {
    let place = Place::new();
    fs::write(place.path("plane.ron"), "VectorFlow(flows: [ActNorm(), AffineCoupling(hidden: 8)])").unwrap();
    place.run("train plane.ron --data toy:rings?n=50 --seed 3 --batch 8 --steps 2 --out rings");
    let split = "toy:rings?n=50".parse::<flow_train::data::DataSource>().unwrap().open(3).unwrap();
    let labels: Vec<String> = [split.train, split.test]
        .iter()
        .flat_map(|data| data.batch(&flow_train::data::each_once(50, 50).next().unwrap()).unwrap().labels)
        .map(|label| label.expect("every point has one").to_string())
        .collect();
    let scores = place.run("score rings --data toy:rings?n=50");
    let found: Vec<&str> = scores.lines().skip(1).filter_map(|line| line.split(',').nth(3)).collect();
    assert_eq!(found, labels);
}

/// Debian's `dataset-fashion-mnist`: 28×28 pixels, 60,000 + 10,000 of them.
#[test]
fn fashion_mnist_where_it_is_installed() {
    let folder = "/usr/share/datasets/fashion-mnist";
    if !std::path::Path::new(folder).is_dir() {
        return;
    }
    let place = Place::new();
    let data = format!("idx:{folder}/train-images-idx3-ubyte.gz,{folder}/train-labels-idx1-ubyte.gz");
    place.run(&format!("train tiny.ron --data {data} --batch 64 --steps 60 --lr 0.01 --out clothes --validation 0.01"));
    let json: serde_json::Value = serde_json::from_str(&place.run(&format!("eval clothes --data {data} --json"))).unwrap();
    assert_eq!(json["test"]["items"].as_u64(), Some(10_000));
    let loss = json["test"]["loss"].as_f64().unwrap();
    assert!(loss < 8.0, "better than uniform: {loss}");
}
