//! What all of the program shares: its errors, its exit codes, and the count of its memory.

use peak_alloc::PeakAlloc;

/// Counts the memory in use.
#[global_allocator]
pub(crate) static MEMORY: PeakAlloc = PeakAlloc;

/// Any error, to be told to the user.
pub(crate) type Error = Box<dyn std::error::Error + Send + Sync>;
/// What every command gives.
pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

/// The exit code of `score --false-alarm` where items are unusual.
pub(crate) const UNUSUAL: u8 = 3;

/// The exit code of a program that was interrupted.
pub(crate) const INTERRUPTED: u8 = 130;
