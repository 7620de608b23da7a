//! The log: warnings to standard error, and everything that happens in a run to its folder.

use crate::Result;
use jiff::Zoned;
use std::fs::File;
use std::io::IsTerminal;
use std::path::Path;
use std::sync::Arc;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::layer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Date and time of the machine's time zone.
struct Clock;

impl FormatTime for Clock {
    fn format_time(&self, to: &mut Writer<'_>) -> std::fmt::Result {
        write!(to, "{}", Zoned::now().strftime("%Y-%m-%d %H:%M:%S"))
    }
}

/// Starts the log: at this verbosity to standard error, and with all that matters to `file`, which is gone on with.
pub(crate) fn start(verbose: u8, file: Option<&Path>) -> Result<()> {
    let level = [LevelFilter::WARN, LevelFilter::INFO].get(usize::from(verbose)).copied().unwrap_or(LevelFilter::DEBUG);
    // https://no-color.org: set and not empty.
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()) || !std::io::stderr().is_terminal();
    let terminal = layer().with_writer(std::io::stderr).with_ansi(!plain).with_target(false).without_time().with_filter(level);
    let file = match file {
        Some(path) => {
            let file = File::options().create(true).append(true).open(path).map_err(|e| format!("{}: {e}", path.display()))?;
            let lines = layer().with_writer(Arc::new(file)).with_ansi(false).with_target(false).with_timer(Clock);
            Some(lines.with_filter(LevelFilter::INFO))
        }
        None => None,
    };
    tracing_subscriber::registry().with(terminal).with(file).try_init()?;
    Ok(())
}
