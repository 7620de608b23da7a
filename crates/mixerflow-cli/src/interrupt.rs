//! Ctrl-C and SIGTERM: the first finishes the step and writes, the second ends at once.

use crate::{INTERRUPTED, Result};
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

/// What the first signal raises, once there is something to finish.
static RAISED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

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

fn stop() {
    if RAISED.get().is_none_or(|raised| raised.swap(true, Ordering::Relaxed)) {
        std::process::exit(i32::from(INTERRUPTED));
    }
    let text = "\nstopping after this step; what is done so far will be written (once more to stop at once)";
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Takes SIGTERM, which schedulers and containers send, as Ctrl-C is taken. Before any other thread is started: those must hold the signal back too.
///
/// `ctrlc` could do it, but would take SIGHUP with it, and a run under `nohup` would end with its terminal.
#[cfg(unix)]
pub(crate) fn take_termination() -> Result<()> {
    let mut signals = nix::sys::signal::SigSet::empty();
    signals.add(nix::sys::signal::Signal::SIGTERM);
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

#[cfg(not(unix))]
#[expect(clippy::unnecessary_wraps, reason = "the same signature as where there are signals")]
pub(crate) fn take_termination() -> Result<()> {
    Ok(())
}
