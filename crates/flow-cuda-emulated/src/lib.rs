//! A CUDA driver and the CUDA compiler for tests on machines without a device: kernels run on the host, thread by
//! thread, under the same host code that would drive a device.
//!
//! They are libraries of the names that the real ones have, built by the machine's C++ compiler, and take their places
//! on the library path: [`environment`] says how. `emulation/` has their text, with what it notices and what not; they
//! say nothing of speed, of races within a warp's instruction and of memory ordering.

use std::ffi::OsString;

/// The variable with which a process finds the emulated libraries in the place of the real ones, and its value; or why
/// there are none.
///
/// # Errors
/// What the C++ compiler said when this crate was built.
pub fn environment() -> Result<(&'static str, OsString), &'static str> {
    let Some(folder) = option_env!("EMULATED_CUDA") else {
        return Err(option_env!("NO_EMULATED_CUDA").unwrap_or("it was not built"));
    };
    let mut path = OsString::from(folder);
    if let Some(before) = std::env::var_os("LD_LIBRARY_PATH").filter(|before| !before.is_empty()) {
        path.push(":");
        path.push(before);
    }
    Ok(("LD_LIBRARY_PATH", path))
}
