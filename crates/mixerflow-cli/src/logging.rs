//! The log: warnings to standard error, and everything that happens in a run to its folder.

use crate::Result;
use jiff::Zoned;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::OnceLock;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{FilterExt, LevelFilter, filter_fn};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::layer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// The target of what the program itself tells the user: it goes to the log's file alone.
pub(crate) const FILE_ALONE: &str = "file alone";

/// Date and time of the machine's time zone.
struct Clock;

impl FormatTime for Clock {
    fn format_time(&self, to: &mut Writer<'_>) -> std::fmt::Result {
        write!(to, "{}", Zoned::now().strftime("%Y-%m-%d %H:%M:%S"))
    }
}

/// The file that a run logs to, once there is a run.
static FILE: OnceLock<File> = OnceLock::new();

/// Writes to the file, if there is one by now.
struct ToFile;

impl Write for ToFile {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        FILE.get().map_or(Ok(bytes.len()), |mut file| file.write(bytes))
    }
    fn flush(&mut self) -> std::io::Result<()> {
        FILE.get().map_or(Ok(()), |mut file| file.flush())
    }
}

/// Starts the log to standard error, at this verbosity.
pub(crate) fn start(verbose: u8) -> Result<()> {
    let level = [LevelFilter::WARN, LevelFilter::INFO].get(usize::from(verbose)).copied().unwrap_or(LevelFilter::DEBUG);
    let level = level.and(filter_fn(|metadata| metadata.target() != FILE_ALONE));
    let terminal = layer().with_writer(std::io::stderr).with_ansi(false).with_target(false).without_time().with_filter(level);
    let file = layer().with_writer(|| ToFile).with_ansi(false).with_target(false).with_timer(Clock).with_filter(LevelFilter::INFO);
    tracing_subscriber::registry().with(terminal).with(file).try_init()?;
    Ok(())
}

/// Adds all that matters from now on to the end of a file.
pub(crate) fn to_file(path: &Path) -> Result<()> {
    let file = File::options().create(true).append(true).open(path).map_err(|e| format!("{}: {e}", path.display()))?;
    // There is one run a process.
    let _ = FILE.set(file);
    Ok(())
}
