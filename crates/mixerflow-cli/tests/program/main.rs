//! The program, run as its users run it.

mod attacks;
mod bounds;
mod commands;
mod conditions;
mod devices;
mod errors;
mod identity;
mod labels;
mod nothing_lost;
mod pictures;
mod scores;
mod studies;
mod tables;

use assert_cmd::Command;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A model that trains in milliseconds.
const SPEC: &str = "MixerFlow(patch: 4, layers: 2, channel: [ActNorm(), LuLinear(), AffineCoupling(hidden: 8)], \
                    patches: [ActNorm(), AffineCoupling(hidden: 8)])";

/// A folder with a spec in it, where the program works.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("tiny.ron"), SPEC).unwrap();
        Self(folder)
    }

    fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.path().join(name)
    }

    /// The program with its arguments, separated by blanks.
    fn program(&self, arguments: &str) -> Command {
        let mut command = Command::cargo_bin("mixerflow").unwrap();
        command.current_dir(self.0.path()).args(arguments.split_whitespace());
        command
    }

    /// What it prints when all goes well.
    fn run(&self, arguments: &str) -> String {
        let output = self.program(arguments).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "mixerflow {arguments}: {:?}\n{errors}", output.status);
        // Training looks at the data, which are what each test makes of them.
        let warns = errors.contains("warning: ") || errors.contains(" WARN ");
        assert!(arguments.starts_with("train") || !warns, "mixerflow {arguments} warns of something:\n{errors}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Exit code and what it says when something is wrong.
    fn fail(&self, arguments: &str) -> (i32, String) {
        let output = self.program(arguments).output().unwrap();
        (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&output.stderr).into_owned())
    }

    fn read(&self, name: impl AsRef<Path>) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }
}

/// Trains a run `name` on the digits.
fn train(name: &str, more: &str) -> String {
    format!("train tiny.ron --data digits --batch 32 --out {name} {more}")
}
