//! What is told while something takes long.

use crate::data::PICTURES;
use crate::threads::alone;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::Write;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// Does what takes a while, such as opening or decoding pictures, and tells meanwhile what is done, for how long, and
/// how many pictures were read: on a terminal from the beginning, else a line to standard error after one second, two,
/// four and so on, and every half minute from then on.
pub fn waiting<T>(what: &str, does: impl FnOnce() -> T) -> T {
    // It takes a thread of its own.
    if alone() {
        return does();
    }
    PICTURES.begin();
    let (ended, end) = channel();
    std::thread::scope(|threads| {
        // Where there is none, nothing is told.
        let told = std::thread::Builder::new().spawn_scoped(threads, move || tell(what, &end));
        let done = does();
        drop(ended);
        drop(told.map(std::thread::ScopedJoinHandle::join));
        done
    })
}

/// Tells how far it is until the other end is dropped.
fn tell(what: &str, end: &Receiver<()>) {
    /// Between two looks on a terminal, in milliseconds.
    const TICK: u64 = 200;
    /// Seconds between two lines at the most.
    const REST: u64 = 30;
    let shown = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {elapsed}") {
        shown.set_style(style);
    }
    let began = Instant::now();
    let mut next = 1;
    let has_ended = || !matches!(end.recv_timeout(Duration::from_millis(TICK)), Err(RecvTimeoutError::Timeout));
    while !has_ended() {
        let text = format!("{what}{}", PICTURES.text());
        let seconds = began.elapsed().as_secs();
        if !shown.is_hidden() {
            shown.set_message(text);
            shown.tick();
        } else if seconds >= next {
            // Nobody is told where there is no standard error.
            let _ = writeln!(std::io::stderr(), "{text}, {seconds} s");
            next += next.min(REST);
        }
    }
    shown.finish_and_clear();
}
