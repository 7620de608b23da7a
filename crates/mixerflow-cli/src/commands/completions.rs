//! `mixerflow completions`.

use crate::arguments::{Arguments, Completions};
use crate::{Result, output};
use clap::CommandFactory;

pub(crate) fn run(arguments: &Completions) -> Result<()> {
    // What clap cannot write it panics about.
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Arguments::command(), "mixerflow", &mut script);
    Ok(output::print(String::from_utf8(script)?)?)
}
