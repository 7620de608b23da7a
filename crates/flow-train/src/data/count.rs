//! How far the reading of pictures is, for who waits for it.

use crate::text::count;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The pictures of this process.
pub(crate) static PICTURES: Count = Count::new();

/// How many pictures were read since a wait for them began, and how many there are to be. It is for showing alone: of
/// several sets that are read at a time it counts all.
#[derive(Debug)]
pub(crate) struct Count {
    done: AtomicUsize,
    of: AtomicUsize,
}

impl Count {
    const fn new() -> Self {
        Self { done: AtomicUsize::new(0), of: AtomicUsize::new(0) }
    }

    /// A wait begins.
    pub(crate) fn begin(&self) {
        self.done.store(0, Ordering::Relaxed);
        self.of.store(0, Ordering::Relaxed);
    }

    /// So many are to be read.
    pub(super) fn expect(&self, pictures: usize) {
        self.of.fetch_add(pictures, Ordering::Relaxed);
    }

    /// One was read.
    pub(super) fn add(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
    }

    /// In words, such as `: 1234 of 10000 pictures`; nothing where none was read.
    pub(crate) fn text(&self) -> String {
        let (done, of) = (self.done.load(Ordering::Relaxed), self.of.load(Ordering::Relaxed));
        match (done, of) {
            (0, 0) => String::new(),
            (done, of) if done <= of => format!(": {done} of {}", count(of, "picture")),
            (done, _) => format!(": {}", count(done, "picture")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_counted_in_words() {
        let count = Count::new();
        assert_eq!(count.text(), "");
        count.expect(3);
        assert_eq!(count.text(), ": 0 of 3 pictures");
        (0..2).for_each(|_| count.add());
        assert_eq!(count.text(), ": 2 of 3 pictures");
        // Of a look at crops nobody knows from how many pictures they are.
        count.begin();
        count.add();
        assert_eq!(count.text(), ": 1 picture");
    }
}
