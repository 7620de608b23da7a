//! Models that are conditioned on classes and on numbers, from data to samples and scores.

use super::Place;
use std::fs;

/// Two blobs of points with a class and a temperature, of which x depends on both.
fn table(place: &Place, name: &str, rows: usize) {
    let noise = |i: usize, salt: usize| ((i * 7919 + salt * 104_729) % 1009) as f64 / 1009.0 - 0.5;
    let rows = (0..rows).map(|i| {
        let (class, shift) = if i % 3 == 0 { ("hot", 3.0) } else { ("cold", -3.0) };
        let temperature = 20.0 + 5.0 * noise(i, 3);
        format!("{:.4},{:.4},{temperature:.4},{class}", shift + noise(i, 1), noise(i * i, 2) + temperature / 2.0)
    });
    let lines: Vec<String> = std::iter::once("x,y,temperature,kind".to_owned()).chain(rows).collect();
    fs::write(place.path(name), lines.join("\n")).unwrap();
}

const LINEAR: &str = "VectorFlow(flows: [ActNorm(), LuLinear()], condition: ";

/// A run that is conditioned on the class, and one on the temperature.
fn place() -> Place {
    let place = Place::new();
    table(&place, "t.csv", 300);
    fs::write(place.path("classes.ron"), format!("{LINEAR}Classes(embedding: 4, dropped: 0.2))")).unwrap();
    fs::write(place.path("vector.ron"), format!("{LINEAR}Vector())")).unwrap();
    place
}

const OF_CLASSES: &str = "csv:t.csv?label=kind&drop=temperature";
const OF_NUMBERS: &str = "csv:t.csv?condition=temperature&drop=kind";

#[test]
fn classes_are_trained_scored_told_and_sampled() {
    let place = place();
    place.run(&format!("train classes.ron --data {OF_CLASSES} --steps 300 --lr 0.02 --batch 64 --out run"));
    // Shares are those of the training items: every third is hot.
    let told = place.run("eval run --every-class");
    for what in ["by the mixture", "accuracy", "cross-entropy", "calibration error", "by Bayes' rule"] {
        assert!(told.contains(what), "{what}:\n{told}");
    }
    let found: serde_json::Value = serde_json::from_str(&place.run("eval run --every-class --json")).unwrap();
    let every = &found["test"]["every_class"];
    assert!(every["classification"]["accuracy"].as_f64().unwrap() > 0.95, "{every}");
    assert!((every["shares"]["hot"].as_f64().unwrap() - 1.0 / 3.0).abs() < 0.02, "{every}");

    let scores = place.run("score run --every-class");
    let mut lines = scores.lines();
    let heads: Vec<&str> = lines.next().unwrap().split(',').collect();
    let at = |name: &str| heads.iter().position(|head| *head == name).unwrap_or_else(|| panic!("{name} in {heads:?}"));
    let own: Vec<Vec<String>> = place.run("score run").lines().skip(1).map(|l| l.split(',').map(str::to_owned).collect()).collect();
    for (line, own) in lines.zip(&own) {
        let cells: Vec<&str> = line.split(',').collect();
        let number = |name: &str| cells[at(name)].parse::<f64>().unwrap();
        // The density of an item's own class is that of plain scoring; p(x) is the mixture, p(class | x) Bayes' rule.
        let of_own = number(&format!("log_likelihood_{}", cells[at("label")]));
        assert_eq!(cells[at("log_likelihood")], own[at("log_likelihood")], "{line}");
        assert!((of_own - number("log_likelihood")).abs() < 1e-9);
        let share = |class: &str| every["shares"][class].as_f64().unwrap();
        let joint = |class: &str| share(class) * number(&format!("log_likelihood_{class}")).exp();
        let mixture = joint("hot") + joint("cold");
        assert!((mixture.ln() - number("log_likelihood_mixture")).abs() < 1e-6, "{line}");
        assert!((joint("hot") / mixture - number("p_hot")).abs() < 1e-6, "{line}");
    }

    // Bayes' rule answers `predict` too.
    let output = place.program("predict run").output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("by Bayes' rule"), "{output:?}");
    let predicted = String::from_utf8(output.stdout).unwrap();
    assert_eq!(predicted.lines().next(), Some("row,part,name,label,cold,hot,predicted"));
    for (line, scored) in predicted.lines().skip(1).zip(scores.lines().skip(1)) {
        let (line, scored): (Vec<&str>, Vec<&str>) = (line.split(',').collect(), scored.split(',').collect());
        let hot: f64 = line[5].parse().unwrap();
        assert_eq!((&line[..4], line[5]), (&scored[..4], scored[at("p_hot")]));
        assert_eq!(line[6], if hot > 0.5 { "hot" } else { "cold" }, "{line:?}");
    }

    let columns = |name: &str| -> Vec<Vec<f64>> {
        place.read(name).lines().skip(1).map(|line| line.split(',').map(|cell| cell.parse().unwrap()).collect()).collect()
    };
    let right = |name: &str| columns(name).iter().filter(|row| row[0] > 0.0).count();
    place.run("sample run --class hot --count 40 --out hot.csv");
    place.run("sample run --class cold --count 40 --out cold.csv");
    assert!(right("hot.csv") > 36 && right("cold.csv") < 4, "{} and {}", right("hot.csv"), right("cold.csv"));
    // Where nobody says the class, a third of the samples is hot.
    place.run("sample run --count 200 --out any.csv");
    assert!((40..95).contains(&right("any.csv")), "{}", right("any.csv"));
    fs::write(place.path("given.txt"), "class\nhot\ncold\nhot\n").unwrap();
    place.run("sample run --given given.txt --out three.csv");
    let signs: Vec<bool> = columns("three.csv").iter().map(|row| row[0] > 0.0).collect();
    assert_eq!(signs, [true, false, true]);
    place.run("sample run --given given.txt --count 2 --out six.csv");
    assert_eq!(columns("six.csv").len(), 6);
    place.run("sample run --class hot --guidance 2 --candidates 8 --count 20 --out guided.csv");
    assert!(right("guided.csv") > 17);

    // Latents find back with the class that they were found with.
    place.run("embed run --part test --out z.npz");
    let kinds: Vec<String> = place.run("score run --part test").lines().skip(1).map(|l| l.split(',').nth(3).unwrap().to_owned()).collect();
    fs::write(place.path("kinds.txt"), kinds.join("\n")).unwrap();
    place.run("decode run --latents z.npz --given kinds.txt --out back.csv");
    let hot = kinds.iter().filter(|kind| *kind == "hot").count();
    assert_eq!(right("back.csv"), hot);
    place.run("export run --out run.safetensors");
    place.run("import run.safetensors --out again");
    // An export holds the model; the items that scores are ranked among stay with the run.
    let likelihoods = |run: &str| -> Vec<String> {
        let scores = place.run(&format!("score {run} --data csv:t.csv?label=kind&drop=temperature --part all"));
        scores.lines().map(|line| line.split(',').take(6).collect::<Vec<_>>().join(",")).collect()
    };
    assert_eq!(likelihoods("again"), likelihoods("run"));
    // Training goes on from where it stopped, to the bit.
    let train = |out: &str, more: &str| format!("train classes.ron --data {OF_CLASSES} --steps 40 --batch 64 --out {out} {more}");
    place.run(&train("whole", ""));
    place.run(&train("parts", "--stop-at 17"));
    place.run("train --resume --out parts");
    assert_eq!(place.run("score whole"), place.run("score parts"));
}

/// Who is told which of two moons a point is on knows ln 2 nats more of it, and Bayes' rule tells the moons apart.
#[test]
fn two_moons_given_the_class_gain_what_the_class_tells() {
    let place = Place::new();
    let spec = |condition: &str| {
        format!(
            "VectorFlow(repeat: 4, flows: [ActNorm(), LuLinear(permutation: Reverse), SplineCoupling(hidden: 24, blocks: 1)]{condition})"
        )
    };
    for (name, condition) in [("plain", ""), ("given", ", condition: Classes(embedding: 4)")] {
        fs::write(place.path("moons.ron"), spec(condition)).unwrap();
        place.run(&format!("train moons.ron --data toy:two-moons?n=4000 --steps 400 --lr 0.01 --batch 128 --out {name}"));
    }
    let eval = |run: &str, more: &str| -> serde_json::Value {
        serde_json::from_str(&place.run(&format!("eval {run} --json --no-diagnostics {more}"))).unwrap()
    };
    let (plain, given) = (eval("plain", "")["test"].clone(), eval("given", "--every-class")["test"].clone());
    let loss = |found: &serde_json::Value| found["loss"].as_f64().unwrap();
    let gain = loss(&plain) - loss(&given);
    assert!((gain - std::f64::consts::LN_2).abs() < 0.15, "{gain} nats, of {} and {}", loss(&plain), loss(&given));
    let (mixture, accuracy) = (&given["every_class"]["mixture_loss"], &given["every_class"]["classification"]["accuracy"]);
    assert!((mixture.as_f64().unwrap() - loss(&plain)).abs() < 0.15 && accuracy.as_f64().unwrap() > 0.98, "{given}");
}

#[test]
fn numbers_are_trained_scored_and_sampled() {
    let place = place();
    place.run(&format!("train vector.ron --data {OF_NUMBERS} --steps 300 --lr 0.02 --batch 64 --out run"));
    place.run("eval run");
    fs::write(place.path("given.csv"), "id;temperature\n1;18\n2;22\n").unwrap();
    place.run("sample run --given given.csv --count 100 --out samples.csv");
    let y: Vec<f64> = place.read("samples.csv").lines().skip(1).map(|line| line.split(',').nth(1).unwrap().parse().unwrap()).collect();
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let (cold, warm) = (mean(&y[..100]), mean(&y[100..]));
    assert!((warm - cold - 2.0).abs() < 0.4, "{cold} and {warm}");
    // Labels and numbers of arrays.
    let data = "csv:t.csv?condition=temperature&drop=kind";
    assert!(place.run(&format!("score run --data {data}")).lines().count() == 301);
}

#[test]
fn wrong_conditions_are_told_by_name() {
    let place = place();
    place.run(&format!("train classes.ron --data {OF_CLASSES} --steps 2 --batch 64 --out classes"));
    place.run(&format!("train vector.ron --data {OF_NUMBERS} --steps 2 --batch 64 --out vector"));
    fs::write(place.path("plain.ron"), "VectorFlow(flows: [ActNorm(), LuLinear()])").unwrap();
    place.run("train plain.ron --data csv:t.csv?label=kind --steps 2 --batch 64 --out plain");
    fs::write(place.path("width.ron"), "VectorFlow(flows: [AffineCoupling(condition: 3)])").unwrap();
    table(&place, "other.csv", 30);
    let text = place.read("other.csv");
    fs::write(place.path("other.csv"), text.replace("hot", "tepid")).unwrap();
    fs::write(place.path("constant.csv"), "x,y,t\n1,2,3\n2,1.5,3\n0.5,4,3\n1,1,3\n2.5,0.1,3\n").unwrap();
    fs::write(place.path("wrong.csv"), "pressure\n3\n").unwrap();
    fs::write(place.path("wrong.txt"), "hot\nwarm\n").unwrap();
    fs::write(place.path("dropless.ron"), format!("{LINEAR}Classes())")).unwrap();
    place.run(&format!("train dropless.ron --data {OF_CLASSES} --steps 2 --batch 64 --out dropless"));
    for (arguments, expected) in [
        ("train classes.ron --data csv:t.csv?drop=kind --out no", "condition: Classes: expected data with classes, got data without"),
        ("train vector.ron --data csv:t.csv?drop=kind --out no", "condition: Vector: expected data with numbers to be conditioned on"),
        ("train width.ron --data csv:t.csv?drop=kind --out no", "`condition: Classes()` or `condition: Vector()` does"),
        ("train vector.ron --data csv:t.csv?condition=heat&drop=kind --out no", "no column `heat`"),
        ("train vector.ron --data csv:constant.csv?condition=t --out no", "condition `t`: the same number in all training items"),
        ("score dropless --data csv:t.csv?drop=kind,temperature", "the data have no classes"),
        ("score classes --data csv:other.csv?label=kind&drop=temperature", "the model has no class `tepid`; there are: cold, hot"),
        ("score vector --data csv:t.csv?drop=kind,temperature", "conditions: expected temperature, got none"),
        ("score plain --every-class", "the model is not conditioned on classes"),
        ("eval vector --every-class", "the model is not conditioned on classes"),
        ("predict vector", "the model has no classifier"),
        ("predict classes --data csv:t.csv?drop=kind", "columns: expected x, y, got x, y, temperature"),
        ("sample classes --class warm --out s.csv", "--class warm: expected one of the classes cold, hot"),
        ("sample vector --class hot --out s.csv", "the model is conditioned on numbers (temperature)"),
        ("sample vector --out s.csv", "the model is conditioned on temperature: nothing says what samples are given"),
        ("sample vector --given wrong.csv --out s.csv", "no column `temperature`"),
        ("sample classes --given wrong.txt --out s.csv", "line 2: expected one of the classes cold, hot, got `warm`"),
        ("sample classes --given nowhere.txt --out s.csv", "nowhere.txt"),
        ("sample plain --class hot --out s.csv", "--class: the model is not conditioned on anything"),
        ("sample dropless --class hot --guidance 1 --out s.csv", "guidance takes a model that knows p(x) too"),
        ("sample classes --class hot --guidance -1 --out s.csv", "guidance: expected a finite number, at least 0, got -1"),
    ] {
        let (code, text) = place.fail(arguments);
        assert!(code == 1 && text.contains(expected), "{arguments}: {code}\n{text}");
        assert!(!place.path("no").exists(), "{arguments} leaves a folder");
    }
    let (code, text) = place.fail("sample classes --class hot --given wrong.txt --out s.csv");
    assert!(code == 2 && text.contains("cannot be used with"), "{text}");
}

/// A grid with a row a class at every report, and one by the names of classes.
#[test]
fn pictures_have_a_row_a_class() {
    let place = Place::new();
    let spec = super::SPEC.replace("layers: 2,", "layers: 2, condition: Classes(),");
    fs::write(place.path("tiny.ron"), spec).unwrap();
    place.run(&super::train("run", "--steps 4"));
    // Width and height stand in the first chunk of a PNG.
    let of_file = |path: &std::path::Path| {
        let bytes = fs::read(path).unwrap();
        [16, 20].map(|at| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap()))
    };
    let size = |name: &str| of_file(&place.path(name));
    let grid = fs::read_dir(place.path("run/samples")).unwrap().next().unwrap().unwrap().path();
    let [width, height] = of_file(&grid);
    assert!(height > width, "ten rows of eight: {width} × {height}");
    fs::write(place.path("given.txt"), "3\n7\n").unwrap();
    place.run("sample run --given given.txt --columns 5 --out two.png");
    place.run("sample run --class 3 --count 10 --columns 5 --out three.png");
    assert_eq!(size("two.png"), size("three.png"));
    // What a row was asked for stands in a row.
    place.run("sample run --given given.txt --count 5 --out each.png");
    assert_eq!(size("each.png"), size("two.png"));
    place.run("interpolate run --pair 0,1 --steps 3 --out way.png");
    place.run("inspect tiny.ron --data digits");
}
