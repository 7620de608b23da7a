//! Builds the emulated driver and compiler with the machine's C++ compiler; without one there is none of them.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=emulation");
    println!("cargo::rerun-if-env-changed=CXX");
    let variable = |name| std::env::var(name).unwrap_or_default();
    let (out, cxx) = (variable("OUT_DIR"), std::env::var("CXX").unwrap_or_else(|_| "c++".to_owned()));
    let emulation = format!("{}/emulation", variable("CARGO_MANIFEST_DIR"));
    let built = ["cuda:driver", "nvrtc:compiler"].into_iter().filter_map(|pair| pair.split_once(':')).try_for_each(|(library, source)| {
        let define = |name: &str, value: &str| format!("-D{name}=\"{value}\"");
        let status = Command::new(&cxx)
            .args(["-std=c++17", "-O1", "-shared", "-fPIC", "-U_FORTIFY_SOURCE"])
            .args([define("EMULATION", &emulation), define("OUT", &out), define("CXX", &cxx)])
            .arg(Path::new(&emulation).join(format!("{source}.cpp")))
            .arg("-o")
            .arg(Path::new(&out).join(format!("lib{library}.so")))
            .arg("-ldl")
            .status();
        match status {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(format!("{cxx} fails on {source}.cpp: {status}")),
            Err(error) => Err(format!("{cxx}: {error}")),
        }
    });
    match built {
        Ok(()) => println!("cargo::rustc-env=EMULATED_CUDA={out}"),
        Err(reason) => println!("cargo::rustc-env=NO_EMULATED_CUDA={reason}"),
    }
}
