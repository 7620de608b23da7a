//! A CUDA driver and the CUDA compiler for tests on machines without a device: kernels run on the host, thread by
//! thread, under the same host code that would drive a device.
//!
//! They are libraries of the names that the real ones have, built by the machine's C++ compiler, and take their places
//! on the library path: [`environment`] says how. `emulation/` has their text, with what it notices and what not; they
//! say nothing of speed, of races within a warp's instruction and of memory ordering.

use std::ffi::OsString;
use std::process::Command;

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

/// The ignored tests of this test program, in a process of its own which finds the emulated device, with arguments and
/// variables: whether all went well, and what was printed. None, and a line that says why, where there is no emulated
/// device.
///
/// # Errors
/// Where the process cannot be started.
pub fn ignored_tests(arguments: &[&str], variables: &[(&str, &str)]) -> std::io::Result<Option<(bool, String)>> {
    let (path, folder) = match environment() {
        Ok(found) => found,
        Err(reason) => {
            println!("skipped: there is no emulated device: {reason}");
            return Ok(None);
        }
    };
    let mut program = Command::new(std::env::current_exe()?);
    let output = program.arg("--ignored").args(arguments).env(path, folder).envs(variables.iter().copied()).output()?;
    let text = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    Ok(Some((output.status.success(), text)))
}
