//! Tables of real numbers are modelled in their own units, whatever their offsets, bounds and kinds are.

use crate::Place;
use std::f64::consts::TAU;
use std::fs;

const AFFINE: &str = "VectorFlow(flows: [ActNorm()]";

/// Normal noise that is no lattice: Box and Muller's of a few digits of multiples of irrational numbers.
fn normal(i: usize, salt: usize) -> f64 {
    let uniform = |step: f64| ((i + 1) as f64 * step + salt as f64 * 0.377).fract().max(1e-9);
    (-2.0 * uniform(0.618_033_988_749_895).ln()).sqrt() * (TAU * uniform(0.754_877_666_246_693)).cos()
}

/// A table of 400 rows: a time stamp, an income, a number of visits, a share.
fn rows() -> Vec<[f64; 4]> {
    let row = |i| {
        let share = 1.0 / (1.0 + (-normal(i, 3)).exp());
        [1.7e9 + 900.0 * normal(i, 1), (0.5 * normal(i, 2)).exp(), (3.0 + 1.5 * normal(i, 4)).round().clamp(0.0, 8.0), share]
    };
    (0..400).map(row).collect()
}

fn place() -> Place {
    let place = Place::new();
    let lines = rows().iter().map(|[a, b, c, d]| format!("{a},{b},{c},{d}")).collect::<Vec<_>>();
    fs::write(place.path("t.csv"), format!("time,income,visits,share\n{}", lines.join("\n"))).unwrap();
    place
}

fn column(text: &str, index: usize) -> Vec<f64> {
    text.lines().skip(1).map(|line| line.split(',').nth(index).unwrap().parse().unwrap()).collect()
}

/// Mean and standard deviation of the training rows, and −log density of every row.
fn gaussian(values: &[f64]) -> (f64, f64, Vec<f64>) {
    let train: Vec<f64> = values.iter().copied().enumerate().filter(|(i, _)| i % 10 != 9).map(|(_, x)| x).collect();
    let n = train.len() as f64;
    let mean = train.iter().map(|x| (x - train[0]) / n).sum::<f64>() + train[0];
    let spread = (train.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n).sqrt();
    let nats = values.iter().map(|x| 0.5 * ((x - mean) / spread).powi(2) + spread.ln() + 0.5 * TAU.ln());
    (mean, spread, nats.collect())
}

/// A model that is normal in what it sees, hardly trained: its densities are known, in the units of the data, and so
/// are its samples. Through export and import too.
#[test]
fn densities_and_samples_are_in_the_units_of_the_data() {
    let place = place();
    let spec = format!(r#"{AFFINE}, preprocessing: (bounds: {{"income": Log(), "share": Logit(low: 0, high: 1)}}))"#);
    fs::write(place.path("s.ron"), spec).unwrap();
    let run = "--batch 64 --steps 1 --lr 1e-9 --validation 0 --set settings.initial_batch=360";
    place.run(&format!("train s.ron --data t.csv?drop=visits {run} --out run"));
    let scored = column(&place.run("score run"), 5);
    let rows = rows();
    let log_odds = |x: f64| (x / (1.0 - x)).ln();
    let of = |f: fn(&[f64; 4]) -> f64| rows.iter().map(f).collect::<Vec<_>>();
    let (times, incomes, shares) = (of(|row| row[0]), of(|row| row[1].ln()), of(|row| (row[3] / (1.0 - row[3])).ln()));
    let parts = [&times, &incomes, &shares].map(|values| gaussian(values));
    for (i, row) in rows.iter().enumerate() {
        let expected: f64 = parts.iter().map(|(_, _, nats)| nats[i]).sum::<f64>() + row[1].ln() + (row[3] * (1.0 - row[3])).ln();
        assert!((scored[i] - expected).abs() < 2e-4, "row {i}: {} for {expected}", scored[i]);
    }

    place.run("export run --out model.safetensors");
    place.run("import model.safetensors --out again");
    assert_eq!(column(&place.run("score again --data t.csv?drop=visits"), 5), scored);

    // 2,000 samples: means and spreads within four standard errors, no income below 0, no share outside its interval.
    place.run("sample run --count 2000 --out s.csv");
    let samples = place.read("s.csv");
    let maps: [fn(f64) -> f64; 3] = [|x| x, f64::ln, |x| (x / (1.0 - x)).ln()];
    for (index, (map, (mean, spread, _))) in maps.into_iter().zip(&parts).enumerate() {
        let values: Vec<f64> = column(&samples, index).into_iter().map(map).collect();
        let n = values.len() as f64;
        let own = values.iter().map(|x| (x - mean) / n).sum::<f64>();
        let variance = values.iter().map(|x| (x - mean - own).powi(2)).sum::<f64>() / n;
        assert!(values.iter().all(|x| x.is_finite()), "column {index}");
        assert!(own.abs() < 4.0 * spread / n.sqrt() && (variance.sqrt() / spread - 1.0).abs() < 4.0 / (2.0 * n).sqrt(), "column {index}");
    }
    // Latents lead back to the rows, digits of seconds too.
    place.run("embed run --out z.npy");
    place.run("decode run --latents z.npy --out back.csv");
    let back = column(&place.read("back.csv"), 0);
    assert!(back.iter().zip(&times).all(|(a, b)| (a - b).abs() < 0.01), "{:?}", &back[..3]);
    assert!((log_odds(column(&place.read("back.csv"), 2)[7]) - shares[7]).abs() < 1e-4);
}

/// `eval` holds rows of a table beside samples of the model.
#[test]
fn rows_are_compared_with_samples() {
    let place = place();
    let spec = format!(r#"{AFFINE}, preprocessing: (bounds: {{"income": Log(), "share": Logit(low: 0, high: 1)}}))"#);
    fs::write(place.path("s.ron"), spec).unwrap();
    let run = "--batch 64 --steps 1 --lr 1e-9 --validation 0 --set settings.initial_batch=360";
    place.run(&format!("train s.ron --data t.csv?drop=visits {run} --out run"));
    let json =
        |arguments: &str| -> serde_json::Value { serde_json::from_str(&place.run(&format!("eval run --json {arguments}"))).unwrap() };
    let found = json("--part train")["train"]["diagnostics"].clone();
    assert_eq!((found["rows"].as_u64(), found["samples"].as_u64()), (Some(360), Some(49)));
    let names: Vec<&str> = found["columns"].as_array().unwrap().iter().map(|column| column["column"].as_str().unwrap()).collect();
    assert_eq!(names, ["time", "income", "share"]);
    assert!(found["columns"].as_array().unwrap().iter().all(|column| column["pit"]["p_value"].as_f64().unwrap() > 0.05), "{found}");
    // Every column is normal, in its map; but each is a function of the others, and that the model does not know.
    let apart = &found["two_sample"];
    assert!(apart["accuracy"].as_f64().unwrap() > 0.6, "{apart}");
    let text = place.run("eval run --part train");
    assert!(text.contains("360 rows, each beside 49 samples of the model\n") && text.contains(": it tells them apart\n"), "{text}");
    for name in names {
        assert!(text.lines().any(|line| line.starts_with(name) && line.ends_with(" right")), "{name}: {text}");
    }
    // Times of half an hour later, and shares that vary less.
    let rows = rows();
    let line = |[time, income, _, share]: &[f64; 4]| format!("{},{income},{}", time + 1800.0, 0.4 + 0.2 * share);
    fs::write(place.path("later.csv"), format!("time,income,share\n{}", rows.iter().map(line).collect::<Vec<_>>().join("\n"))).unwrap();
    let text = place.run("eval run --data later.csv");
    for (name, verdict) in [("time", "too low"), ("income", "right"), ("share", "too wide")] {
        assert!(text.lines().any(|line| line.starts_with(name) && line.ends_with(verdict)), "{name}: {text}");
    }
    assert!(text.contains(": overconfident\n"), "{text}");
    let quick = place.run("eval run --no-diagnostics");
    assert!(!quick.contains("two-sample") && json("--no-diagnostics")["test"]["diagnostics"].is_null(), "{quick}");
    // Columns and pairs of columns of rows and samples, of the run's own data and of others.
    place.run("plot run --corner --part train --out corner.svg");
    place.run("plot run --corner --data later.csv --out later.svg");
    for (name, rows) in [("corner.svg", 360), ("later.svg", 400)] {
        let plot = place.read(name);
        for text in ["prefers-color-scheme", "\nsamples\n", "income", "share", "time − "] {
            assert!(plot.contains(text), "{name}: no {text}");
        }
        // Three pairs in each of the two paths, most of which are within the middle 99 % of both columns.
        let dots: Vec<usize> = plot.split("<path d=\"").skip(1).map(|path| path.matches("h0").count()).collect();
        assert!(dots.len() == 2 && dots.iter().all(|dots| (3 * rows * 9 / 10..=3 * rows).contains(dots)), "{name}: {dots:?}");
    }
    place.run("plot run --out curves.svg");
    assert!(place.read("curves.svg").contains("optimiser steps"));
    for (arguments, code, message) in [
        ("plot run run --corner --out x.svg", 1, "--corner: expected one run, got 2"),
        ("plot run --corner --out x.png", 1, "x.png: expected FILE.svg for a corner plot"),
        ("plot run --corner --dark --out x.svg", 2, "cannot be used with"),
        ("plot run --data t.csv --out x.svg", 2, "--corner"),
        ("plot run --out x.jpg", 2, "use .png or .svg"),
        ("plot run --corner --data t.csv?columns=time,share --out x.svg", 1, "columns: expected time, income, share, got time, share"),
    ] {
        let (found, text) = place.fail(arguments);
        assert!(found == code && text.contains(message) && !place.path("x.svg").exists(), "{arguments}: {text}");
    }
    // Samples of pictures are no rows.
    place.run(&crate::train("digits", "--steps 2"));
    let (code, text) = place.fail("plot digits --corner --out x.svg");
    assert!(code == 1 && text.contains("expected a run on a table of real numbers, got events of shape (1, 8, 8)"), "{text}");
    assert!(!place.run("eval digits").contains("two-sample"));
}

/// Parts of −ln p by column: in closed form of a density of single columns, by the chain rule of an autoregressive one.
#[test]
fn columns_explain_parts_of_the_density() {
    let place = place();
    let preprocessing = r#"preprocessing: (bounds: {"income": Log(), "share": Logit(low: 0, high: 1)})"#;
    let run = "--data t.csv?drop=visits --batch 64 --validation 0 --set settings.initial_batch=360";
    let train = |name: &str, more: &str, steps: &str| {
        let spec = format!("VectorFlow(flows: [ActNorm(){more}, {preprocessing})");
        fs::write(place.path("s.ron"), spec).unwrap();
        place.run(&format!("train s.ron {run} {steps} --out {name}"));
    };
    let scored = |name: &str| {
        let output = place.program(&format!("score {name} --by-column")).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let heads = ["nats_time", "nats_income", "nats_share"];
    let of = |text: &str, head: &str| column(text, text.lines().next().unwrap().split(',').position(|own| own == head).unwrap());
    let adds_up = |text: &str| {
        let parts = heads.map(|head| of(text, head));
        for (row, all) in of(text, "negative_log_likelihood").iter().enumerate() {
            let sum: f64 = parts.iter().map(|part| part[row]).sum();
            assert!((sum - all).abs() < 1e-4 * (1.0 + all.abs()), "row {row}: {sum} and {all}");
        }
    };
    train("single", "]", "--steps 1 --lr 1e-9");
    let (text, told) = scored("single");
    assert!(told.contains("each column is given those before it: time, income, share"), "{told}");
    adds_up(&text);
    let rows = rows();
    let logit = |x: f64| (x / (1.0 - x)).ln();
    let values = |f: &dyn Fn(&[f64; 4]) -> f64| rows.iter().map(f).collect::<Vec<f64>>();
    let expected: [Vec<f64>; 3] = [
        gaussian(&values(&|row| row[0])).2,
        gaussian(&values(&|row| row[1].ln())).2.iter().zip(&rows).map(|(nats, row)| nats + row[1].ln()).collect(),
        gaussian(&values(&|row| logit(row[3]))).2.iter().zip(&rows).map(|(nats, row)| nats + (row[3] * (1.0 - row[3])).ln()).collect(),
    ];
    for (head, expected) in heads.iter().zip(&expected) {
        for (row, (found, expected)) in of(&text, head).iter().zip(expected).enumerate() {
            assert!((found - expected).abs() < 2e-4, "{head}, row {row}: {found} for {expected}");
        }
    }
    // What comes first is given nothing: its part does not change with the others.
    let steps = "--steps 60 --lr 0.01";
    train("forward", ", Autoregressive(hidden: 16)]", steps);
    let (text, told) = scored("forward");
    assert!(told.contains(": time, income, share"), "{told}");
    adds_up(&text);
    let table = place.read("t.csv");
    let mixed = |line: &str| {
        let cells: Vec<&str> = line.split(',').collect();
        format!("{},1.5,{},0.5", cells[0], cells[2])
    };
    let lines: Vec<String> = table.lines().enumerate().map(|(i, line)| if i == 0 { line.to_owned() } else { mixed(line) }).collect();
    fs::write(place.path("mixed.csv"), lines.join("\n")).unwrap();
    let other = place.run("score forward --data mixed.csv?drop=visits --by-column");
    assert_eq!(of(&other, "nats_time"), of(&text, "nats_time"));
    assert_ne!(of(&other, "nats_income"), of(&text, "nats_income"));
    train("backward", ", Autoregressive(hidden: 16, order: Reverse)]", steps);
    let (text, told) = scored("backward");
    assert!(told.contains(": share, income, time"), "{told}");
    adds_up(&text);

    train("both", ", Autoregressive(hidden: 16), Autoregressive(hidden: 16, order: Reverse)]", steps);
    train("mixture", "], base: Mixture(components: 2)", "--steps 2");
    place.run(&crate::train("digits", "--steps 2"));
    for (arguments, message) in [
        ("score both --by-column", "--by-column: the model does not say what each column explains: of its columns no order was found"),
        ("score mixture --by-column", "the numbers of its base density (Mixture) are not independent"),
        ("score digits --by-column", "expected a table of real numbers, got events of shape (1, 8, 8)"),
        ("score single --by-column --aggregate max", "--by-column: expected a row an item, without --aggregate"),
    ] {
        let (code, text) = place.fail(arguments);
        assert!(code == 1 && text.contains(message), "{arguments}: {text}");
    }
}

/// Whole numbers are dequantised where that is said, and samples are whole numbers within their bounds.
#[test]
fn whole_numbers_come_back_whole() {
    let place = place();
    let spec = format!(r#"{AFFINE}, preprocessing: (discrete: ["visits"], bounds: {{"visits": Log()}}))"#);
    fs::write(place.path("s.ron"), spec).unwrap();
    let told = place.program("train s.ron --data t.csv --batch 64 --steps 2 --out run").output().unwrap();
    let told = String::from_utf8_lossy(&told.stderr).into_owned();
    assert!(!told.contains("whole numbers"), "{told}");
    place.run("sample run --count 500 --out s.csv");
    let visits = column(&place.read("s.csv"), 2);
    assert!(visits.iter().all(|v| v.fract() == 0.0 && *v >= 0.0) && visits.iter().any(|v| *v > 2.0), "{visits:?}");
    // More draws of the noise are other draws.
    let eval = |more: &str| place.run(&format!("eval run --json {more}"));
    assert_ne!(eval(""), eval("--dequantisations 3"));

    for (set, message) in [
        (r#"preprocessing.bounds={"income":Log(above:2)}"#, "column `income` (2): expected a number above 2, got "),
        (r#"preprocessing.discrete=["share"]"#, "column `share` (4): expected a whole number, got "),
        (r#"preprocessing.discrete=["age"]"#, "preprocessing.discrete: no column `age`; there are: time, income, visits, share"),
    ] {
        let output = place.program("train s.ron --data t.csv --steps 2 --out other --set").arg(set).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && text.contains(message), "{set}: {text}");
        assert!(!place.path("other").exists(), "{set}");
    }
}

/// Training begins from another run's model, on its data or others: it stands at its loss at once, with the
/// standardisation that it was fitted with.
#[test]
fn a_run_begins_with_the_model_of_another() {
    let place = place();
    fs::write(place.path("s.ron"), format!("{AFFINE})")).unwrap();
    let table = place.read("t.csv");
    let moved: Vec<String> = table.lines().enumerate().map(|(i, line)| if i == 0 { line.to_owned() } else { format!("1{line}") }).collect();
    fs::write(place.path("moved.csv"), moved.join("\n")).unwrap();
    place.run("train s.ron --data t.csv?columns=income,visits --batch 64 --steps 2 --set settings.initial_batch=360 --out first");
    let quiet = "--batch 64 --steps 1 --lr 1e-9";
    place.run(&format!("train --from first {quiet} --out second"));
    let scores = |run: &str, more: &str| column(&place.run(&format!("score {run} {more}")), 4);
    let close = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-4) && a.len() == b.len();
    assert!(close(&scores("first", ""), &scores("second", "")));
    // Other data, by a model that would be fitted to them if it were new.
    place.run(&format!("train --from first --data moved.csv?columns=income,visits {quiet} --out third"));
    assert!(close(&scores("first", ""), &scores("third", "--data t.csv?columns=income,visits")));
    for (arguments, message) in [
        ("train --from first --set repeat=2 --out x", "--set repeat=2: the spec of the run that is begun with cannot be changed"),
        ("train --from first --data t.csv?columns=time,visits --out x", "columns: expected income, visits, got time, visits"),
        ("train s.ron --from first --out x", "cannot be used with"),
    ] {
        let (code, text) = place.fail(arguments);
        assert!(code > 0 && text.contains(message) && !place.path("x").exists(), "{arguments}: {text}");
    }
}

/// A column that is constant in most batches trains with every seed.
#[test]
fn rare_columns_train_with_every_seed() {
    let place = Place::new();
    let line = |i: usize| format!("{},{}", normal(i, 1), if i % 500 == 77 { 5.0 + normal(i, 2) } else { 0.0 });
    fs::write(place.path("t.csv"), (0..4000).map(line).collect::<Vec<_>>().join("\n")).unwrap();
    fs::write(place.path("s.ron"), "VectorFlow(flows: [ActNorm(), LuLinear(), ActNorm(), AffineCoupling(hidden: 8)])").unwrap();
    for seed in 0..3 {
        place.run(&format!("train s.ron --data t.csv --batch 64 --steps 3 --seed {seed} --out run{seed}"));
    }
}

/// One outlier of 400 rows: the others have the density that they have without it, after a few steps, and samples their
/// spread. What happens is said.
#[test]
fn an_outlier_does_not_set_the_scale() {
    let place = Place::new();
    let line = |i: usize, outlier: bool| format!("{},{}", normal(i, 1), if outlier && i == 7 { 1e6 } else { normal(i, 2) });
    let table = |outlier| (0..400).map(|i| line(i, outlier)).collect::<Vec<_>>().join("\n");
    fs::write(place.path("plain.csv"), table(false)).unwrap();
    fs::write(place.path("outlier.csv"), table(true)).unwrap();
    fs::write(place.path("s.ron"), "VectorFlow(flows: [ActNorm(), LuLinear(), AffineCoupling(hidden: 8)])").unwrap();
    let loss = |name: &str| {
        let output = place.program(&format!("train s.ron --data {name}.csv --batch 64 --steps 5 --out {name}")).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{told}");
        let evaluated: serde_json::Value = serde_json::from_str(&place.run(&format!("eval {name} --json"))).unwrap();
        (evaluated["test"]["loss"].as_f64().unwrap(), told)
    };
    let ((plain, quiet), (with, told)) = (loss("plain"), loss("outlier"));
    assert!((with - plain).abs() < 0.1, "{with} for {plain}");
    let said = "column 2 has 1 outlier, such as 1000000 in row 7 (counted from 0), where half of the values lie between ";
    assert!(told.contains(said) && told.contains("; the column is standardised by its quartiles"), "{told}");
    assert!(!quiet.contains("outlier"), "{quiet}");
    place.run("sample outlier --count 500 --out s.csv");
    let samples: Vec<f64> = place.read("s.csv").lines().filter_map(|line| line.split(',').nth(1)?.parse().ok()).collect();
    let usual = samples.iter().filter(|x| x.abs() < 3.0).count();
    assert!(samples.len() == 500 && usual > 470, "{usual} of {}", samples.len());
}

/// A density that grows without bound is told while it trains, with the column, once; one of the same numbers that are
/// dequantised is not.
#[test]
fn a_density_that_runs_away_is_told() {
    let place = Place::new();
    let line = |i: usize| format!("{},{}", normal(i, 1), i * i % 3);
    fs::write(place.path("t.csv"), std::iter::once("a,b".to_owned()).chain((0..400).map(line)).collect::<Vec<_>>().join("\n")).unwrap();
    let spec = "VectorFlow(repeat: 2, flows: [ActNorm(), LuLinear(), SplineCoupling(hidden: 16)])";
    fs::write(place.path("s.ron"), spec).unwrap();
    for (set, out, times) in [(None, "away", 1), (Some(r#"preprocessing.discrete=["b"]"#), "bound", 0)] {
        let mut train = place.program(&format!("train s.ron --data t.csv --batch 64 --lr 1e-2 --steps 300 --out {out}"));
        train.args(set.into_iter().flat_map(|set| ["--set", set]));
        let output = train.output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{told}");
        assert_eq!(told.matches("warning: log p runs away").count(), times, "{told}");
        assert!(times == 0 || told.contains("most of it along column `b` (2)"), "{told}");
    }
}

/// Outside a box there is no density: such a row is scored as what it is, and the others too.
#[test]
fn a_row_outside_the_support_is_the_most_unusual() {
    let place = Place::new();
    let uniform = |i: usize, step: f64| 1.8 * (i as f64 * step).fract() - 0.9;
    let lines = (0..60).map(|i| format!("{},{}", uniform(i, 0.618_033_988_7), uniform(i, 0.754_877_666_2))).collect::<Vec<_>>();
    fs::write(place.path("t.csv"), format!("a,b\n{}", lines.join("\n"))).unwrap();
    fs::write(place.path("new.csv"), "a,b\n0.1,0.2\n0.3,5\n-0.5,0.4").unwrap();
    let spec = "VectorFlow(flows: [LuLinear()], base: Uniform(low: -1.0, high: 1.0), preprocessing: (standardise: false))";
    fs::write(place.path("s.ron"), spec).unwrap();
    place.run("train s.ron --data t.csv --steps 1 --lr 1e-9 --batch 16 --validation 0.2 --out run");
    let output = place.program("score run --data new.csv --sort --by-column").output().unwrap();
    let (table, text) = (String::from_utf8_lossy(&output.stdout).into_owned(), String::from_utf8_lossy(&output.stderr).into_owned());
    assert!(output.status.success(), "{text}");
    let inside = -2.0 * 2_f64.ln();
    let densities = column(&table, 4);
    assert!(densities[0] == f64::NEG_INFINITY && densities[1..].iter().all(|density| (density - inside).abs() < 1e-4), "{table}");
    assert!(table.lines().nth(1).is_some_and(|line| line.starts_with("1,")), "{table}");
    let heads: Vec<&str> = table.lines().next().unwrap().split(',').collect();
    let unusual = column(&table, heads.iter().position(|head| *head == "unusual").unwrap());
    assert!(unusual[0] > 0.9 && unusual[0] > unusual[1], "{table}");
    // The column that leaves the box has all of it.
    let nats = |name: &str| column(&table, heads.iter().position(|head| *head == name).unwrap());
    assert!((nats("nats_a")[0] - 2_f64.ln()).abs() < 1e-4 && nats("nats_b")[0] == f64::INFINITY, "{table}");
    let told = "1 item has no finite likelihood and counts as the most unusual; the first: item 1: base: row 0: expected latents from -1 to 1, got 5";
    assert!(text.contains(told), "{text}");
    let evaluated = place.run("eval run --data new.csv --no-diagnostics");
    assert!(evaluated.contains("33.33 %") && evaluated.contains("expected latents from -1 to 1"), "{evaluated}");
}

/// A column of the smallest numbers varies, and is not called constant.
#[test]
fn a_column_too_narrow_for_f64_is_told_as_such() {
    let place = Place::new();
    let lines = (0..60).map(|i| format!("{},{}e-310", normal(i, 1), i + 1)).collect::<Vec<_>>();
    fs::write(place.path("t.csv"), format!("a,b\n{}", lines.join("\n"))).unwrap();
    fs::write(place.path("s.ron"), format!("{AFFINE})")).unwrap();
    for arguments in ["train s.ron --data t.csv --steps 1 --out run", "data t.csv"] {
        let output = place.program(arguments).output().unwrap();
        let text = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
        assert!(
            text.contains("column `b` (2) lies from 1e-310 to 5.9e-309") && text.contains("variance is lost in f64"),
            "{arguments}: {text}"
        );
        assert!(!text.contains("constant"), "{arguments}: {text}");
    }
}
