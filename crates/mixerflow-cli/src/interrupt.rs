//! Ctrl-C: the first finishes the step and writes, the second ends at once.

use crate::{INTERRUPTED, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A flag that the first interrupt raises.
pub(crate) fn flag() -> Result<Arc<AtomicBool>> {
    let raised = Arc::new(AtomicBool::new(false));
    let flag = raised.clone();
    ctrlc::set_handler(move || {
        if flag.swap(true, Ordering::Relaxed) {
            std::process::exit(i32::from(INTERRUPTED));
        }
        eprintln!("\nstopping after this step; what is done so far will be written (once more to stop at once)");
    })?;
    Ok(raised)
}
