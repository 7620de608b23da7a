//! Ctrl-C, SIGTERM and SIGHUP: the first finishes the step and writes, the second ends at once.

use crate::{INTERRUPTED, Result};
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

/// What the first signal raises, once there is something to finish.
static RAISED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// Whether a signal came.
static CAME: AtomicBool = AtomicBool::new(false);

/// A flag that the first interrupt raises.
pub(crate) fn flag() -> Result<Arc<AtomicBool>> {
    let raised = RAISED.get_or_init(Arc::default).clone();
    match ctrlc::set_handler(stop) {
        Err(ctrlc::Error::System(error)) => told(&error),
        taken => taken?,
    }
    Ok(raised)
}

/// A run goes on without a thread that waits for signals.
fn told(error: &std::io::Error) {
    tracing::warn!("no thread to wait for signals ({error}): one ends the program at once, and a run goes on from its last checkpoint");
}

/// Whether the program was interrupted: others may raise the flag too.
pub(crate) fn came() -> bool {
    CAME.load(Ordering::Relaxed)
}

fn stop() {
    let Some(raised) = RAISED.get().filter(|_| !CAME.swap(true, Ordering::Relaxed)) else {
        std::process::exit(i32::from(INTERRUPTED));
    };
    raised.store(true, Ordering::Relaxed);
    let text = "\nstopping after this step; what is done so far will be written (once more to stop at once)";
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Takes SIGTERM, which schedulers and containers send, and SIGHUP, which a terminal sends that goes away, as Ctrl-C
/// is taken. Before any other thread is started: those must hold the
/// signals back too.
///
/// `ctrlc` could do it, but would take a SIGHUP that `nohup` has told the program to ignore.
#[cfg(unix)]
pub(crate) fn take_termination() -> Result<()> {
    use nix::sys::signal::{SigSet, Signal};
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    if !is_ignored(Signal::SIGHUP) {
        signals.add(Signal::SIGHUP);
    }
    signals.thread_block()?;
    let wait = move || {
        while signals.wait().is_ok() {
            stop();
        }
    };
    if let Err(error) = std::thread::Builder::new().name("signals".to_owned()).spawn(wait) {
        // The signal ends the program again, as it does where nobody takes it.
        signals.thread_unblock()?;
        told(&error);
    }
    Ok(())
}

/// Whether the program was started with a signal ignored. Where there is no `/proc` to tell, it is taken for ignored,
/// and has its usual effect if it is not.
#[cfg(unix)]
fn is_ignored(signal: nix::sys::signal::Signal) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    mask.is_none_or(|mask| (mask >> (signal as i32 - 1)) & 1 == 1)
}

#[cfg(not(unix))]
#[expect(clippy::unnecessary_wraps, reason = "the same signature as where there are signals")]
pub(crate) fn take_termination() -> Result<()> {
    Ok(())
}
