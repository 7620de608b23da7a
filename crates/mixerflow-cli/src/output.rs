//! Results to standard output: unlike `println!`, a pipe that is closed or a disk that is full is an error and no
//! panic.

use std::fmt::Display;
use std::io::{Error, Result, Write};

/// Writes a text as it is.
pub(crate) fn print(text: impl Display) -> Result<()> {
    let mut out = std::io::stdout().lock();
    // The kind stays: `main` is silent about a broken pipe.
    write!(out, "{text}").and_then(|()| out.flush()).map_err(|e| Error::new(e.kind(), format!("standard output: {e}")))
}

/// Writes a line.
pub(crate) fn line(text: impl Display) -> Result<()> {
    print(format_args!("{text}\n"))
}

/// Tells the user something on standard error, and the log of a run if there is one.
pub(crate) fn say(text: impl Display) {
    // Where standard error fails there is nobody to tell.
    let text = shown(&text.to_string());
    let _ = writeln!(std::io::stderr(), "{text}");
    tracing::info!(target: crate::logging::FILE_ALONE, "{text}");
}

/// A text for a terminal: names and fields of files may hold characters that would steer it.
pub(crate) fn shown(text: &str) -> String {
    let is_plain = |c: char| !c.is_control() || c == '\n' || c == '\t';
    text.chars().map(|c| if is_plain(c) { c } else { char::REPLACEMENT_CHARACTER }).collect()
}
