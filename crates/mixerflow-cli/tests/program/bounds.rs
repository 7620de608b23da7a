//! What the system does not give, and what is asked for beyond measure.

use crate::{Place, train};
use std::fs;

/// With a stack larger than any address space no thread can be started: what the program does then is what it does
/// under a limit of processes.
const NO_THREADS: (&str, &str) = ("RUST_MIN_STACK", "1000000000000000000");

/// Every command does on its one thread what it does on several, and says so.
#[test]
fn where_no_thread_can_be_started_work_goes_on() {
    let (place, alone) = (Place::new(), Place::new());
    let commands = [
        train("run", "--steps 6"),
        train("run", "--steps 8 --resume"),
        train("limited", "--steps 4 --threads 3"),
        "inspect tiny.ron --shape 1,8,8".to_owned(),
        "eval run --data digits --json".to_owned(),
        "score run --data digits --out scores.csv".to_owned(),
        "sample run --count 4 --out samples.npy".to_owned(),
        "interpolate run --data digits --pair 0,1 --out way.png".to_owned(),
        "embed run --data digits --out latents.npy".to_owned(),
        "compare tiny.ron --data digits --steps 4 --out compared".to_owned(),
        "plot run --out curves.png".to_owned(),
        "export run --out model.safetensors".to_owned(),
        "import model.safetensors --out again".to_owned(),
    ];
    for command in &commands {
        place.run(command);
        let output = alone.program(command).env(NO_THREADS.0, NO_THREADS.1).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && errors.contains("threads could be started"), "mixerflow {command}:\n{errors}");
    }
    for file in ["scores.csv", "samples.npy", "latents.npy", "way.png", "run/latest/model.safetensors", "again/model.safetensors"] {
        assert!(fs::read(place.path(file)).unwrap() == fs::read(alone.path(file)).unwrap(), "{file}");
    }
}

/// The instruction set can be restricted, which changes results by rounding alone; a name that there is not is no
/// reason to guess.
#[test]
fn kernels_run_in_the_instruction_set_that_is_asked_for() {
    let place = Place::new();
    place.run(&train("run", "--steps 4"));
    let loss = |set: &str| {
        let output = place.program("eval run --data digits --json").env("MIXERFLOW_SIMD", set).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        found["test"]["loss"].as_f64().unwrap()
    };
    let widest = loss("");
    for set in ["baseline", "avx2", "avx512"] {
        assert!((loss(set) - widest).abs() < 1e-4 * widest.abs(), "{set}");
    }
    let output = place.program("eval run --data digits").env("MIXERFLOW_SIMD", "mmx").output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "mixerflow: MIXERFLOW_SIMD: expected baseline, neon, avx2, avx512, got mmx\n");
}

/// What a spec asks for is added up before any of it is built.
#[test]
fn what_a_spec_costs_is_refused_before_it_is_built() {
    let place = Place::new();
    let cases = [
        ("VectorFlow(repeat: 2048, flows: [Permutation(order: Random)])", "1048576", "numbers: expected at most 536870912 in all"),
        ("VectorFlow(repeat: 2048, flows: [LuLinear(), LuLinear()])", "1024", "numbers: expected at most 536870912 in all"),
        (
            "VectorFlow(repeat: 2048, flows: [ActNorm(), ActNorm(), ActNorm(), ActNorm(), ActNorm(), ActNorm(), ActNorm(), ActNorm(), ActNorm()])",
            "2",
            "flows: expected at most 16384 in all",
        ),
        (
            "VectorFlow(flows: [Residual(hidden: 8192, layers: 4, power_iteration: (iterations: 16384))])",
            "64",
            "iterations: expected at most 549755813888",
        ),
        ("VectorFlow(repeat: 2048, flows: [AffineCoupling(hidden: 4096)])", "64", "numbers: expected at most 536870912 in all"),
        ("VectorFlow(repeat: 18446744073709551615, flows: [Ffjord(hidden: 18446744073709551615)])", "64", "repeat: expected 1 to 2048"),
    ];
    for (spec, shape, message) in cases {
        fs::write(place.path("huge.ron"), spec).unwrap();
        let (code, text) = place.fail(&format!("inspect huge.ron --shape {shape}"));
        assert!(code == 1 && text.contains(message), "{spec}: {code}\n{text}");
    }
    let (code, text) = place.fail("inspect /dev/zero --shape 2");
    assert!(code == 1 && text.contains("a spec of more than 1048576 bytes"), "{text}");
}

/// A spec in a small file that asks for a large model is not built to find out that the file has no weights for it.
#[test]
fn a_file_is_measured_before_the_model_that_its_spec_asks_for_is_built() {
    let place = Place::new();
    place.run(&train("run", "--steps 2"));
    place.run("export run --out small.safetensors");
    let whole = fs::read(place.path("small.safetensors")).unwrap();
    let length = usize::try_from(u64::from_le_bytes(whole[..8].try_into().unwrap())).unwrap();
    let mut header: serde_json::Value = serde_json::from_slice(&whole[8..8 + length]).unwrap();
    let spec = header["__metadata__"]["spec.ron"].as_str().unwrap().replace("hidden: 8", "hidden: 2048");
    header["__metadata__"]["spec.ron"] = spec.clone().into();
    // Someone who lies on purpose leaves no checksum to tell.
    header["__metadata__"].as_object_mut().unwrap().remove("crc32");
    fs::remove_file(place.path("run/latest/checksums.txt")).unwrap();
    let header = serde_json::to_vec(&header).unwrap();
    let lying = [&u64::try_from(header.len()).unwrap().to_le_bytes(), &header[..], &whole[8 + length..]].concat();
    fs::write(place.path("lying.safetensors"), lying).unwrap();
    fs::write(place.path("run/latest/spec.ron"), spec).unwrap();
    for command in ["import lying.safetensors --out imported", "eval run --data digits"] {
        let (code, text) = place.fail(command);
        assert!(code == 1 && text.contains(" numbers at most, where its spec asks for at least "), "{command}: {text}");
    }
}
