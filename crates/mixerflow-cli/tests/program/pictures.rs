//! Folders of pictures, and what is told while they are read.

use crate::Place;
use std::fs;

/// Off a terminal a line tells that something is waited for, before it comes to an end.
#[cfg(unix)]
#[test]
fn waiting_is_told_off_a_terminal() {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};
    let place = Place::new();
    let table = place.path("t.csv");
    assert!(Command::new("mkfifo").arg(&table).status().unwrap().success());
    let mut program = Command::new(assert_cmd::cargo::cargo_bin("mixerflow"));
    let mut child =
        program.current_dir(place.path("")).args(["data", "t.csv"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let rows: Vec<String> = (0..40).map(|i| format!("{}.25,{}.5", i * i % 37, i * 7 % 31)).collect();
    // The table comes when the line has come, or after so long that it never will.
    let (line_came, came) = std::sync::mpsc::channel::<()>();
    let writer = std::thread::spawn(move || {
        let _ = came.recv_timeout(std::time::Duration::from_mins(1));
        fs::write(&table, rows.join("\n")).unwrap();
    });
    let mut line = String::new();
    BufReader::new(child.stderr.take().unwrap()).read_line(&mut line).unwrap();
    line_came.send(()).unwrap();
    writer.join().unwrap();
    assert!(line.starts_with("opening the data, ") && line.ends_with(" s\n"), "{line}");
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && String::from_utf8_lossy(&output.stdout).contains("40 items"));
}

/// Pictures of 16 bits are trained on as they are where that is asked for, and samples come back as such values.
#[test]
fn sixteen_bits_go_through_a_run() {
    let place = Place::new();
    fs::create_dir(place.path("deep")).unwrap();
    for i in 0..20_usize {
        let values: Vec<u8> =
            (0..64_usize).flat_map(|at| u16::try_from((at * at + 977 * i) % 4096 * 16 + at % 16).unwrap().to_be_bytes()).collect();
        fs::write(place.path(format!("deep/{i:02}.pgm")), [b"P5 8 8 65535\n", &values[..]].concat()).unwrap();
    }
    place.run("train tiny.ron --data images:deep?grey=1&depth=16 --batch 8 --steps 4 --out run");
    assert!(place.path("run/samples/step-00000004.png").exists());
    place.run("sample run --count 5 --out s.npy");
    let bytes = fs::read(place.path("s.npy")).unwrap();
    let header = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let values: Vec<f64> = bytes[header..].as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b)).collect();
    assert!(values.len() == 5 * 64 && values.iter().all(|x| x.fract() == 0.0), "{values:?}");
    assert!(values.iter().any(|x| *x > 255.0));
    let scored = place.run("score run");
    assert_eq!(scored.lines().count(), 21);
    // Of 8 bits they are other data.
    let (code, text) = place.fail("eval run --data images:deep?grey=1");
    assert!(code == 1 && text.contains("levels"), "{text}");
}

/// A folder with broken pictures: those are named once with what is wrong, a few of many, and all in JSON; what is
/// wrong with a file is told without characters that would steer a terminal.
#[test]
fn broken_pictures_are_named() {
    let place = Place::new();
    fs::create_dir(place.path("folder")).unwrap();
    for i in 0..12 {
        fs::write(place.path(format!("folder/a{i:02}.pgm")), [b"P5 8 8 255\n", &[i; 64][..]].concat()).unwrap();
    }
    let data = "data images:folder?skip-bad=1";
    fs::write(place.path("folder/b.png"), "").unwrap();
    fs::write(place.path("folder/c.png"), "\u{1b}[31mred").unwrap();
    let output = place.program(data).output().unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(told.contains("warning: folder/b.png is left out: not a readable picture: it is empty\n"), "{told}");
    assert!(
        told.contains("c.png is left out: not a readable picture: it begins with `\\u{1b}[31mred`, as no format that is read"),
        "{told}"
    );
    (0..30).for_each(|i| fs::write(place.path(format!("folder/d{i}.png")), "x").unwrap());
    let told = String::from_utf8(place.program(data).output().unwrap().stdout).unwrap();
    assert_eq!(told.matches(" is left out: ").count(), 20, "{told}");
    assert!(told.contains("32 files or folders are left out; `mixerflow data --json` names all of them"), "{told}");
    let json = place.program(&format!("{data} --json")).output().unwrap().stdout;
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(json["skipped"].as_array().unwrap().len(), 32);
    let (_, text) = place.fail("train tiny.ron --data csv:fol\u{1b}[2Jder --out run");
    assert!(text.contains("fol\u{fffd}[2Jder"), "{text:?}");
}
