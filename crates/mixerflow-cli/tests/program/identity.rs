//! Rows and columns keep their identity: results join the tables and folders that they come from.

use crate::Place;
use std::fs;

const PLANE: &str = "VectorFlow(flows: [ActNorm(), AffineCoupling(hidden: 8)])";

fn place() -> Place {
    let place = Place::new();
    fs::write(place.path("plane.ron"), PLANE).unwrap();
    place
}

/// A table of noise with the number of the row, the names of its columns in the order given.
fn table(place: &Place, file: &str, columns: [&str; 3], rows: usize) {
    let noise = |i: usize, salt: usize| (i * 7919 + salt * 104_729) % 1009;
    let value = |i: usize, name: &str| match name {
        "a" => format!("{}", i as f64 / 8.0),
        "b" => format!("{:.3}", noise(i, 1) as f64 / 100.0),
        _ => format!("{:.3}", noise(i, 2) as f64 / 50.0),
    };
    let lines = (0..rows).map(|i| columns.map(|name| value(i, name)).join(","));
    let text: Vec<String> = std::iter::once(columns.join(",")).chain(lines).collect();
    fs::write(place.path(file), text.join("\n")).unwrap();
}

fn cells(text: &str) -> Vec<Vec<String>> {
    text.lines().skip(1).map(|line| line.split(',').map(str::to_owned).collect()).collect()
}

/// Scores and latents stand in the order of the file with row, part and name, whatever was used for training: one row
/// alone scores as it does in the table.
#[test]
fn scores_and_latents_stand_in_the_order_of_the_file() {
    let place = place();
    table(&place, "t.csv", ["a", "b", "c"], 60);
    place.run("train plane.ron --data csv:t.csv?id=a&columns=b,c --batch 16 --steps 4 --validation 0.1 --out run");
    let rows = cells(&place.run("score run"));
    assert!(rows.iter().enumerate().all(|(i, row)| row[0] == i.to_string() && row[2] == (i as f64 / 8.0).to_string()), "{rows:?}");
    let parts = |part: &str| rows.iter().filter(|row| row[1] == part).count();
    assert_eq!((parts("train"), parts("validation"), parts("test")), (49, 5, 6));
    assert!(rows[9][1] == "test" && rows[59][1] == "test");

    place.run("embed run --out z.csv");
    place.run("embed run --out z.npy");
    place.run("embed run --out z.npz");
    let joined = cells(&place.read("z.csv"));
    let array = fs::read(place.path("z.npy")).unwrap();
    let numbers: Vec<f32> = array[128..].as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    let same = joined.iter().enumerate().all(|(i, row)| row[4].parse() == Ok(numbers[2 * i]) && row[..4] == rows[i][..4]);
    assert!(same && joined.len() == 60 && place.read("z.index.csv").lines().count() == 61);

    // The seventh row by itself: data that the run has not seen are one part without a name.
    let text = place.read("t.csv");
    let lines: Vec<&str> = text.lines().collect();
    fs::write(place.path("one.csv"), [lines[0], lines[8]].join("\n")).unwrap();
    let alone = cells(&place.run("score run --data csv:one.csv?id=a&columns=b,c"));
    let close = |a: &str, b: &str| (a.parse::<f64>().unwrap() - b.parse::<f64>().unwrap()).abs() < 1e-5;
    assert!(alone.len() == 1 && alone[0][1].is_empty() && close(&alone[0][4], &rows[7][4]), "{alone:?} {:?}", rows[7]);

    // Latents lead back to the rows.
    for latents in ["z.npy", "z.npz"] {
        place.run(&format!("decode run --latents {latents} --out back.csv"));
        let back = place.read("back.csv");
        assert!(back.starts_with("b,c\n"), "{back:.40}");
        let original: Vec<Vec<&str>> = lines[1..].iter().map(|line| line.split(',').collect()).collect();
        let near = |a: &str, b: &str| (a.parse::<f64>().unwrap() - b.parse::<f64>().unwrap()).abs() < 1e-3;
        assert!(cells(&back).iter().zip(&original).all(|(back, row)| near(&back[0], row[1]) && near(&back[1], row[2])), "{latents}");
    }
}

/// A table with the columns of the run in another order is refused with both lists, and read as it should be when told
/// so.
#[test]
fn columns_are_known_by_name() {
    let place = place();
    table(&place, "t.csv", ["a", "b", "c"], 60);
    table(&place, "swapped.csv", ["c", "b", "a"], 60);
    place.run("train plane.ron --data t.csv --batch 16 --steps 4 --out run");
    let (code, text) = place.fail("eval run --data swapped.csv");
    assert!(code == 1 && text.contains("columns: expected a, b, c, got c, b, a: columns=a,b,c takes them"), "{text}");
    let loss = |data: &str| {
        let json: serde_json::Value = serde_json::from_str(&place.run(&format!("eval run {data} --part all --json"))).unwrap();
        json["all"]["loss"].as_f64().unwrap()
    };
    assert!((loss("") - loss("--data csv:swapped.csv?columns=a,b,c")).abs() < 1e-9);
    fs::write(place.path("other.csv"), "a,b,d,e\n1.5,2,3,4\n2.5,3,4,5\n").unwrap();
    let (code, text) = place.fail("score run --data other.csv");
    assert!(code == 1 && text.contains("there is no c, and there is d, e"), "{text}");
}

/// What was told from the text, and what was left out, is said before training and written in the log.
#[test]
fn what_a_source_takes_for_granted_is_said() {
    let place = place();
    let row = |i: usize| {
        format!("{i};{};{}", format!("{}.5", i * i % 11).replace('.', ","), if i == 17 { "NA".to_owned() } else { format!("{},25", i % 7) })
    };
    let lines: Vec<String> = std::iter::once(";x;y".to_owned()).chain((0..40).map(row)).collect();
    fs::write(place.path("t.csv"), lines.join("\n")).unwrap();
    let (code, text) = place.fail("train plane.ron --data t.csv --batch 8 --steps 2 --out run");
    assert!(
        code == 1 && text.contains("t.csv: 1 of 40 rows has no value in some column, the first in line 19: column `y` (3) 1; missing=drop"),
        "{text}"
    );
    assert!(!place.path("run").exists());
    let output = place.program("train plane.ron --data csv:t.csv?missing=drop --batch 8 --steps 2 --out run").output().unwrap();
    let (text, log) = (String::from_utf8_lossy(&output.stderr).into_owned(), place.read("run/log"));
    for expected in [
        "t.csv: 40 rows of 2 columns (x, y), separated by semicolons, decimal commas, with a header",
        "the first column has no name: it counts the rows and is left out",
        "1 left out: rows without a value in some column (line 19)",
        "39 items: 35 to train on, 1 to validate on, 3 to test on (every tenth item)",
    ] {
        assert!(text.contains(expected) && log.contains(expected), "`{expected}` is not in\n{text}\nor\n{log}");
    }
    // Rows keep the numbers of the file.
    let rows = cells(&String::from_utf8(place.program("score run").output().unwrap().stdout).unwrap());
    assert_eq!((rows[16][0].as_str(), rows[17][0].as_str(), rows.len()), ("16", "18", 39));
    assert_eq!(place.read("run/data.txt").trim(), "csv:t.csv?missing=drop&split=every-tenth");
    let found = place.program("data csv:t.csv?missing=drop").output().unwrap();
    assert!(String::from_utf8_lossy(&found.stdout).contains("39 items: 35 to train on"));
}

/// Data that the run has not seen are evaluated whole, and an AUROC tells its counts.
#[test]
fn unseen_data_are_one_part() {
    let place = place();
    table(&place, "t.csv", ["a", "b", "c"], 60);
    place.run("train plane.ron --data t.csv --batch 16 --steps 4 --out run");
    table(&place, "new.csv", ["a", "b", "c"], 31);
    let json: serde_json::Value = serde_json::from_str(&place.run("eval run --data new.csv --json --against t.csv")).unwrap();
    assert_eq!((json["all"]["items"].as_u64(), json["data"]["seen"].as_bool()), (Some(31), Some(false)));
    assert_eq!(json["auroc_items"]["csv:t.csv"], serde_json::json!([31, 60]));
    let text = place.run("eval run");
    assert!(text.starts_with("test: 6 of 60 items (every tenth item)\n"), "{text}");
    assert!(place.run("eval run --data new.csv --part test").starts_with("test: 3 of 31 items of data that the run has not seen"));
    // The same table under another name is the run's own.
    fs::rename(place.path("t.csv"), place.path("moved.csv")).unwrap();
    assert!(place.run("eval run --data ./moved.csv").starts_with("test: 6 of 60 items (every tenth item)\n"));
    let (code, text) = place.fail("train --resume --out run --steps 6");
    assert!(code == 1 && text.contains("--data says where the data of this run are now"), "{text}");
    place.run("train --resume --out run --steps 6 --data csv:moved.csv");
    assert_eq!(place.read("run/data.txt").trim(), "csv:moved.csv?split=every-tenth");
}

/// A built-in spec stands for its file, and one column has specs that take it.
#[test]
fn specs_have_names_and_one_column_has_specs() {
    let place = Place::new();
    assert!(place.run("specs").contains("\nplane-residual "));
    let text: Vec<String> = (0..60).map(|i| format!("{}.5", i * i % 37)).collect();
    fs::write(place.path("one.csv"), text.join("\n")).unwrap();
    let (code, text) = place.fail("train plane-spline --data one.csv --out run");
    assert!(code == 1 && text.contains("of one column Residual and Ffjord make a density"), "{text}");
    let train = "train plane-residual.ron --set repeat=2 --data one.csv --batch 16 --steps 2 --out run";
    assert!(place.program(train).output().unwrap().status.success());
    place.run("sample run --count 3 --out samples.csv");
    assert_eq!(place.read("samples.csv").lines().count(), 4);
}

/// What is certain to be wrong is refused by name before anything is made, with the remedy; what may be wrong is said.
#[test]
fn data_are_looked_at_before_training() {
    let place = place();
    let noise = |i: usize, salt: usize| ((i * 7919 + salt * 104_729) % 1009) as f64 / 100.0;
    let write = |third: &dyn Fn(usize) -> f64| {
        let rows = (0..200).map(|i| format!("{:?},{:?},{:?}", noise(i, 1), noise(i * i, 2), third(i)));
        fs::write(place.path("t.csv"), std::iter::once("a,b,c".to_owned()).chain(rows).collect::<Vec<_>>().join("\n")).unwrap();
    };
    let refused: [(&dyn Fn(usize) -> f64, &str); 2] = [
        (&|_| 5.0, "csv:t.csv: column `c` (3) is constant (5), which has no density: drop=c leaves it out"),
        (&|i| if i == 7 { 1e39 } else { noise(i, 5) }, "column `c` (3): 1e39 in row 7 (counted from 0) is beyond what f32 holds"),
    ];
    for (third, message) in refused {
        write(third);
        let (code, text) = place.fail("train plane.ron --data t.csv --batch 16 --steps 2 --out run");
        assert!(code == 1 && text.contains(message), "{text}");
        assert!(!place.path("run").exists(), "{message}");
    }
    let said: [(&dyn Fn(usize) -> f64, &str); 5] = [
        (&|i| 2.0 * noise(i, 1), "warning: column `c` (3) is a multiple of column `a` (1)"),
        (&|i| (i % 3) as f64, "warning: column `c` (3) holds whole numbers alone (3 different ones)"),
        (&|i| if i == 7 { 1e6 } else { noise(i, 5) }, "warning: column `c` (3) has 1 outlier, such as 1000000 in row 7"),
        (&|i| if i % 50 == 7 { noise(i, 5) } else { 0.0 }, "warning: column `c` (3) is 0 in 97.8 % of the rows"),
        (&|i| i as f64, "warning: column `c` (3) counts the rows: drop=c leaves it out"),
    ];
    for (i, (third, message)) in said.into_iter().enumerate() {
        write(third);
        let found = String::from_utf8(place.program("data t.csv").output().unwrap().stdout).unwrap();
        assert!(found.contains(message), "`{message}` is not in\n{found}");
        let output = place.program(&format!("train plane.ron --data t.csv --batch 16 --steps 1 --out run{i}")).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(text.contains(message), "`{message}` is not in\n{text}");
    }
    // An offset is lost to models alone that see the column as it is.
    write(&|i| 1.7e9 + 90.0 * noise(i, 5));
    for (standardise, is_said) in [(true, false), (false, true)] {
        let train = format!(
            "train plane.ron --data t.csv --batch 16 --steps 1 --set preprocessing.standardise={standardise} --out offset{standardise}"
        );
        let text = String::from_utf8_lossy(&place.program(&train).output().unwrap().stderr).into_owned();
        assert_eq!(text.contains("has an offset that is large beside its spread"), is_said, "{text}");
    }
}

/// A picture that cannot be read ends a run; asked for, the run goes on without it, also when it is gone, and no other
/// item changes its part.
#[test]
fn a_run_goes_on_without_a_picture() {
    let place = Place::new();
    place.run(&crate::train("run", "--steps 2"));
    place.run("sample run --count 20 --out late");
    let cut = |name: &str| {
        let path = place.path(name);
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    };
    cut("late/000007.png");
    let begin = "train tiny.ron --data images:late?grey=1 --batch 4 --steps 30 --report-every 1 --out photos";
    let (code, text) = place.fail(begin);
    assert!(code == 1 && text.contains("000007.png") && text.contains("--resume --skip-bad goes on without it"), "{text}");
    let goes_on = |arguments: &str| {
        let output = place.program(arguments).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{text}");
        text
    };
    let text = goes_on("train --resume --skip-bad --out photos");
    assert!(text.contains("1 training item is left out from here on: 000007.png"), "{text}");
    fs::remove_file(place.path("late/000007.png")).unwrap();
    goes_on("train --resume --out photos --steps 40");
    // Item 9 is a test item as it was, though the tenth picture is another one now.
    let rows = cells(&String::from_utf8(place.program("score photos").output().unwrap().stdout).unwrap());
    assert_eq!(rows.len(), 19);
    fs::remove_file(place.path("late/000008.png")).unwrap();
    fs::write(place.path("photos/data.txt"), "images:late?grey=1").unwrap();
    let (code, text) = place.fail("train --resume --out photos --steps 50");
    assert!(code == 1 && text.contains("are gone (000007.png, 000008.png): --skip-bad goes on without"), "{text}");
    fs::copy(place.path("late/000009.png"), place.path("late/000021.png")).unwrap();
    let (code, text) = place.fail("train --resume --skip-bad --out photos --steps 50");
    assert!(code == 1 && text.contains("1 item is new (000021.png)"), "{text}");
}

/// Where there is no terminal every report is a line, and the end says what was reached, what it means and what to do
/// next.
#[test]
fn a_run_tells_how_it_goes_and_what_it_reached() {
    let place = Place::new();
    let told = |arguments: &str| {
        let output = place.program(arguments).output().unwrap();
        assert!(output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let text = told(&crate::train("run", "--steps 8 --report-every 2 --stop-at 4"));
    assert_eq!(text.lines().filter(|line| line.starts_with("step ") && line.contains(" left")).count(), 2, "{text}");
    assert!(text.contains("stopped after 4 of 8 steps: `mixerflow train --resume --out run` goes on"), "{text}");
    let text = told("train --resume --out run");
    for expected in [
        "8 of 8 steps in ",
        ": train ",
        ", best validation ",
        ", test ",
        " of 297 items bits/dim",
        "for scale: uniform 4.0875",
        "next: mixerflow eval run",
    ] {
        assert!(text.contains(expected), "`{expected}` is not in\n{text}");
    }
    assert!(told("train --resume --out run").contains("nothing was done: all 8 steps are made"));
}
