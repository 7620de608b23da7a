//! How much is read into memory: a share of what is at hand, whatever a file claims or unpacks to.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::{Condvar, Mutex};

use sysinfo::System;

use super::{DataError, MAX_ARRAY_BYTES, Result};

/// The memory that is at hand is this many times what one array, table or file may take of it: while it is decoded
/// there are two forms of it, and work needs room too.
const SHARE: u64 = 4;

/// Bytes of memory at hand, 0 where the system does not tell: what the system could give now, and what the process's
/// control group leaves of it.
fn memory_at_hand() -> u64 {
    let Ok(mut system) = System::new() else { return 0 };
    system.refresh_memory();
    // The group's free memory does not count what its files in the cache would give back.
    let group = system.cgroup_limits().map_or(u64::MAX, |limits| limits.total_memory.saturating_sub(limits.rss));
    system.available_memory().min(group)
}

/// The most bytes that one array, table or file may take in memory: a quarter of what is at hand, and at most
/// [`MAX_ARRAY_BYTES`].
pub fn read_limit() -> u64 {
    // Where a system tells nothing, it is not nothing that there is.
    match memory_at_hand() {
        0 => MAX_ARRAY_BYTES,
        bytes => (bytes / SHARE).min(MAX_ARRAY_BYTES),
    }
}

/// A reader that fails behind `limit` bytes, instead of filling memory.
#[derive(Debug)]
pub(super) struct Bounded<R> {
    reader: R,
    left: u64,
    limit: u64,
}

impl<R> Bounded<R> {
    pub(super) fn new(reader: R, limit: u64) -> Self {
        Self { reader, left: limit, limit }
    }
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let room = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        if room > 0 || buffer.is_empty() {
            let read = self.reader.read(&mut buffer[..room])?;
            self.left -= read as u64;
            return Ok(read);
        }
        // Whether it ends here is only known behind the end.
        if self.reader.read(&mut [0])? == 0 {
            return Ok(0);
        }
        let reason = format!("more than {} bytes, which are what the memory at hand has room for", self.limit);
        Err(io::Error::new(io::ErrorKind::FileTooLarge, reason))
    }
}

/// The bytes of a file.
///
/// # Errors
/// [`DataError::Io`], for more than [`read_limit`] too.
pub(super) fn read_file(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| Bounded::new(file, read_limit()).read_to_end(&mut bytes));
    read.map_err(|source| DataError::Io { path: path.to_owned(), source })?;
    Ok(bytes)
}

/// Room for what several threads hold at the same time: whoever comes when it is taken waits.
pub(super) struct Room {
    taken: Mutex<u64>,
    freed: Condvar,
}

impl Room {
    pub(super) const fn new() -> Self {
        Self { taken: Mutex::new(0), freed: Condvar::new() }
    }

    /// Takes so many of `all` bytes until the guard is dropped. The first one is let in whatever it takes.
    pub(super) fn take(&self, bytes: u64, all: u64) -> Taken<'_> {
        let mut taken = self.taken.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        while *taken > 0 && taken.saturating_add(bytes) > all {
            taken = self.freed.wait(taken).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
        *taken = taken.saturating_add(bytes);
        Taken { room: self, bytes }
    }
}

/// Gives its room back when it is dropped.
pub(super) struct Taken<'a> {
    room: &'a Room,
    bytes: u64,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        let mut taken = self.room.taken.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *taken = taken.saturating_sub(self.bytes);
        drop(taken);
        self.room.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[test]
    fn a_reader_ends_at_its_bound_and_not_before() {
        let read = |bytes: &[u8]| {
            let mut out = Vec::new();
            Bounded::new(bytes, 5).read_to_end(&mut out).map(|_| out)
        };
        assert_eq!(read(b"12345").unwrap(), b"12345");
        let error = read(b"123456").unwrap_err();
        assert_eq!(error.to_string(), "more than 5 bytes, which are what the memory at hand has room for");
        assert!(read(&[0; 10_000]).is_err());
    }

    #[test]
    fn the_limit_is_a_share_of_the_memory_at_hand() {
        let (limit, at_hand) = (read_limit(), memory_at_hand());
        assert!(limit > 1 << 20 && limit <= MAX_ARRAY_BYTES && limit <= at_hand / 2, "{limit} of {at_hand}");
    }

    /// Never more at a time than there is room for, unless it is one alone.
    #[test]
    fn threads_wait_for_room() {
        let (room, held, most) = (Room::new(), AtomicU64::new(0), AtomicU64::new(0));
        std::thread::scope(|threads| {
            for bytes in [3, 4, 5, 6, 100, 2, 7, 1] {
                let (room, held, most) = (&room, &held, &most);
                threads.spawn(move || {
                    for _ in 0..200 {
                        let _taken = room.take(bytes, 10);
                        let now = held.fetch_add(bytes, Ordering::SeqCst) + bytes;
                        most.fetch_max(if bytes == 100 { now - 90 } else { now }, Ordering::SeqCst);
                        std::thread::yield_now();
                        held.fetch_sub(bytes, Ordering::SeqCst);
                    }
                });
            }
        });
        assert!(most.into_inner() <= 10);
        assert_eq!(*room.taken.lock().unwrap(), 0);
    }
}
