//! Devices: the emulated GPU, and machines that lack something.

use crate::{Place, train};
use assert_cmd::Command;

/// The program on a machine with an emulated GPU; none where that could not be built.
fn emulated(place: &Place, arguments: &str) -> Option<Command> {
    match flow_cuda_emulated::environment() {
        Ok((path, folder)) => {
            let mut program = place.program(arguments);
            program.env(path, folder);
            Some(program)
        }
        Err(reason) => {
            println!("skipped: there is no emulated device: {reason}");
            None
        }
    }
}

/// Standard output and standard error of what goes well.
fn told(mut program: Command) -> [String; 2] {
    let output = program.output().unwrap();
    let [out, errors] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    assert!(output.status.success(), "{out}\n{errors}");
    [out, errors]
}

fn numbers(table: &str, column: usize) -> Vec<f64> {
    table.lines().skip(1).map(|line| line.split(',').nth(column).unwrap().parse().unwrap()).collect()
}

fn close(a: &[f64], b: &[f64]) {
    let size = a.iter().fold(0.0, |most: f64, x| most.max(x.abs()));
    assert!(!a.is_empty() && a.len() == b.len());
    a.iter().zip(b).for_each(|(a, b)| assert!((a - b).abs() <= 1e-5 * size, "{a} and {b}"));
}

#[test]
fn a_gpu_gives_what_the_processor_gives() {
    let place = Place::new();
    place.run(&train("run", "--steps 20"));
    let score = "score run --data digits --part test";
    let Some(program) = emulated(&place, &format!("{score} --device cuda")) else { return };
    let [there, errors] = told(program);
    assert!(errors.starts_with("device: cuda:0 (emulated, compute capability 9.0, 16.0 GiB)\n"), "{errors}");
    let here = place.run(score);
    // The row, its names and its class before them.
    close(&numbers(&here, 4), &numbers(&there, 4));

    let draw = |device: &str| {
        let out = format!("{}.csv", device.replace(':', "-"));
        told(emulated(&place, &format!("sample run --count 3 --device {device} --out {out}")).unwrap());
        let table = place.read(out);
        table.lines().skip(1).flat_map(|line| line.split(',').map(|cell| cell.parse().unwrap()).collect::<Vec<f64>>()).collect::<Vec<_>>()
    };
    close(&draw("cpu"), &draw("cuda:0"));
    close(&draw("cpu"), &draw("auto"));

    for (command, out) in [
        ("embed run --data digits --part test --device cuda --out z.npy", "z.npy"),
        ("decode run --latents z.npy --device auto --out x.npy", "x.npy"),
    ] {
        told(emulated(&place, command).unwrap());
        assert!(place.path(out).is_file());
    }
    let [json, _] = told(emulated(&place, "eval run --data digits --part test --device cuda --json").unwrap());
    let found: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert!(found["test"]["inverse"]["error"].as_f64().unwrap() < 1e-4, "{json}");

    // A run begins on the device and goes on without it.
    let begins = "train tiny.ron --data digits --batch 4 --steps 2 --report-every 2 --out there --device cuda";
    let [_, errors] = told(emulated(&place, begins).unwrap());
    assert!(errors.contains("device: cuda:0 (emulated, "), "{errors}");
    let log = place.read("there/log");
    assert!(log.contains("cuda:0: a training step is one graph of") && log.contains("nodes in f32, levels up, 24 bytes back"), "{log}");
    place.run("train --resume --out there --steps 4");
    assert_eq!(place.read("there/metrics.jsonl").lines().count(), 2);

    // TF32 is for training there alone; a run that has it goes on in f32 where it is not to be had, and says so.
    let coarse = format!("{} --precision tf32", begins.replace("there", "coarse"));
    told(emulated(&place, &coarse).unwrap());
    assert!(place.read("coarse/log").contains("nodes in tf32, ") && place.read("coarse/settings.ron").contains("precision: Tf32"));
    place.run("train --resume --out coarse --steps 4");
    assert!(place.read("coarse/log").contains("precision tf32: it is that of steps that stay on a device, and these are made in f32"));
    let (code, errors) = place.fail("train tiny.ron --data digits --out none --precision tf32");
    assert!(code == 1 && errors.starts_with("mixerflow: --precision tf32: the processor computes in f32"), "{errors}");
    for refused in ["eval there --precision tf32", "score there --precision tf32", "train tiny.ron --data digits --precision bf16"] {
        assert_eq!(place.fail(refused).0, 2, "{refused}");
    }

    let [devices, _] = told(emulated(&place, "devices").unwrap());
    assert!(devices.contains("\ncuda:0   emulated, compute capability 9.0, 16.0 GiB\n         compiler NVRTC 13.0\n"), "{devices}");
}

#[test]
fn what_is_missing_is_said() {
    let place = Place::new();
    let spec = "MixerFlow(patch: 4, layers: 1, channel: [LuLinear(), SplineCoupling(network: Kan(hidden: 8))], patches: [AdditiveCoupling(network: Kan(hidden: 8))])";
    std::fs::write(place.path("tiny.ron"), spec).unwrap();
    place.run(&train("splines", "--steps 2"));
    let fails = |mut program: Command| {
        let output = program.output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let Some(program) = emulated(&place, "sample splines --device cuda --out x.npy") else { return };
    let (code, errors) = fails(program);
    assert_eq!(code, Some(1));
    let last = errors.lines().last().unwrap();
    assert_eq!(
        last,
        "mixerflow: cuda:0: these parts of the model cannot run there: bijector.layers.0.channel.1 (SplineCoupling, whose network has no form); \
         bijector.layers.0.patch.0 (AdditiveCoupling, whose network has no form); \
         --device cpu runs every model"
    );
    let [_, errors] = told(emulated(&place, "sample splines --device auto --count 1 --out x.npy").unwrap());
    assert!(
        errors.contains("device: cpu (cuda: these parts of the model cannot run there: bijector.layers.0.channel.1 (SplineCoupling, whose"),
        "{errors}"
    );

    // Before anything is made.
    let (code, errors) = fails(emulated(&place, "train tiny.ron --data digits --steps 2 --out none --device cuda").unwrap());
    assert!(
        code == Some(1)
            && errors.contains(
                "cannot run there: bijector.layers.0.channel.1 (SplineCoupling, whose network has no form); bijector.layers.0.patch.0"
            ),
        "{errors}"
    );
    assert!(!place.path("none").exists());

    let mut none = emulated(&place, "sample splines --device cuda:1 --out y.npy").unwrap();
    none.env("EMULATE_DEVICES", "0");
    assert_eq!(fails(none), (Some(1), "mixerflow: cuda:1: no such device: the driver sees none\n".to_owned()));
    let mut none = emulated(&place, "devices").unwrap();
    none.env("EMULATE_DEVICES", "0");
    assert!(told(none)[0].ends_with("\ncuda     the driver sees no GPU\n"));
    assert_eq!(place.fail("sample splines --device gpu --out y.npy").0, 2);
    assert!(!place.path("y.npy").exists());
    // Where there is no driver at all: on a machine with one this is not seen.
    let devices = place.run("devices");
    assert!(devices.starts_with("cpu      "), "{devices}");
    if devices.contains("cuda     ") {
        assert!(devices.contains("cuda     not available: cuda: libcuda.so.1 was not found: it is a part of NVIDIA's driver"), "{devices}");
        let (code, errors) = place.fail("sample splines --device cuda --out y.npy");
        assert!(code == 1 && errors.starts_with("mixerflow: cuda: libcuda.so.1 was not found"), "{errors}");
    }
}
