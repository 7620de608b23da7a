//! `mixerflow completions`.

use crate::Result;
use crate::arguments::{Arguments, Completions};
use clap::CommandFactory;

#[expect(clippy::unnecessary_wraps, reason = "the same signature as the other commands")]
pub(crate) fn run(arguments: &Completions) -> Result<()> {
    clap_complete::generate(arguments.shell, &mut Arguments::command(), "mixerflow", &mut std::io::stdout());
    Ok(())
}
