//! Scratch memory that is reused, so that a kernel in steady state does not allocate.
//!
//! [`Buffer::take`] hands out memory from a pool of the process and its drop puts it back. The pool is shared by all
//! threads, since what one thread keeps of a forward pass another one may drop in the backward pass; it holds as much
//! as was ever in use at one time, until [`release`] gives it back. Each thread keeps the few buffers that it dropped
//! last for itself, so that what a kernel takes and drops block after block costs no lock. A buffer starts on a cache
//! line (64 bytes), so that no vector load of a block whose lanes are a multiple of 16 crosses one.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::{Deref, DerefMut};
use std::sync::{LazyLock, Mutex, PoisonError};

use num_traits::Zero;

/// Cache line, and the widest vector register there is.
const ALIGNMENT: usize = 64;

/// Buffers lie in the pool by length, rounded up to a multiple of this many numbers.
const STEP: usize = 64;

/// Buffers that a thread keeps for itself: about as many as one pass of a kernel over a block has in use.
const OWN: usize = 32;

/// Memory by length.
type Pool<E> = LazyLock<Mutex<HashMap<usize, Vec<Vec<E>>>>>;

/// The pool of a number type: what [`Real`](crate::Real) needs to have one for each.
///
/// The public can see this trait as a bound of [`Real`](crate::Real) but cannot name it.
#[doc(hidden)]
pub trait Pooled: Zero + Copy + 'static {
    /// Runs `f` on the pool.
    fn with_pool<R>(f: impl FnOnce(&mut HashMap<usize, Vec<Vec<Self>>>) -> R) -> R;

    /// Runs `f` on what the thread keeps for itself; not at all while the thread ends.
    fn with_own<R>(f: impl FnOnce(&mut Vec<Vec<Self>>) -> Option<R>) -> Option<R>;
}

macro_rules! impl_pooled {
    ($($float:ident),*) => {$(
        impl Pooled for $float {
            fn with_pool<R>(f: impl FnOnce(&mut HashMap<usize, Vec<Vec<Self>>>) -> R) -> R {
                static POOL: Pool<$float> = LazyLock::new(Mutex::default);
                // A panic elsewhere leaves the pool sound: its operations do not panic half-way.
                f(&mut POOL.lock().unwrap_or_else(PoisonError::into_inner))
            }

            fn with_own<R>(f: impl FnOnce(&mut Vec<Vec<Self>>) -> Option<R>) -> Option<R> {
                thread_local! {
                    static OWN_BUFFERS: RefCell<Vec<Vec<$float>>> = const { RefCell::new(Vec::new()) };
                }
                OWN_BUFFERS.try_with(|own| f(&mut own.borrow_mut())).ok().flatten()
            }
        }
    )*};
}
impl_pooled!(f32, f64);

/// Gives all memory that is in the pool, not in use, back to the system; of what threads keep for themselves that of
/// the calling one.
pub fn release<E: Pooled>() {
    E::with_own(|own| {
        own.clear();
        Some(())
    });
    E::with_pool(HashMap::clear);
}

/// Scratch memory: a slice that goes back to the pool when dropped.
#[derive(Debug)]
pub struct Buffer<E: Pooled> {
    memory: Vec<E>,
    start: usize,
    len: usize,
}

impl<E: Pooled> Buffer<E> {
    /// Takes a buffer of `len` numbers with unspecified contents: whatever the last user left there.
    ///
    /// ```
    /// use flow_kernels::workspace::Buffer;
    /// let mut hidden = Buffer::<f32>::take(128 * 96);
    /// hidden.fill(1.0);
    /// assert!(Buffer::<f32>::zeroed(10).iter().all(|&x| x == 0.0));
    /// ```
    pub fn take(len: usize) -> Self {
        if len == 0 {
            return Self { memory: Vec::new(), start: 0, len };
        }
        let slack = ALIGNMENT / size_of::<E>();
        let size = len.next_multiple_of(STEP) + slack;
        let own = E::with_own(|own| Some(own.swap_remove(own.iter().rposition(|memory| memory.len() == size)?)));
        let pooled = own.or_else(|| E::with_pool(|pool| pool.get_mut(&size).and_then(Vec::pop)));
        let memory = pooled.unwrap_or_else(|| vec![E::zero(); size]);
        let start = memory.as_ptr().align_offset(ALIGNMENT).min(slack);
        Self { memory, start, len }
    }

    /// Takes a buffer with the numbers of `x`.
    pub fn copy_of(x: &[E]) -> Self {
        let mut buffer = Self::take(x.len());
        buffer.copy_from_slice(x);
        buffer
    }

    /// Takes a buffer of `len` zeros.
    pub fn zeroed(len: usize) -> Self {
        let mut buffer = Self::take(len);
        buffer.fill(E::zero());
        buffer
    }
}

/// Brings numbers into the cache of this core: one of each cache line is read, one after the other without waiting,
/// where a kernel that reads several rows at once would wait for line after line.
pub fn fetch<E: Pooled>(x: &[E]) {
    let lines = x.iter().step_by(ALIGNMENT / size_of::<E>());
    std::hint::black_box(lines.fold(E::zero(), |sum, &x| sum + x));
}

impl<E: Pooled> Deref for Buffer<E> {
    type Target = [E];

    #[inline]
    fn deref(&self) -> &[E] {
        &self.memory[self.start..self.start + self.len]
    }
}

impl<E: Pooled> DerefMut for Buffer<E> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [E] {
        &mut self.memory[self.start..self.start + self.len]
    }
}

impl<E: Pooled> Drop for Buffer<E> {
    fn drop(&mut self) {
        let mut memory = std::mem::take(&mut self.memory);
        if memory.is_empty() {
            return;
        }
        let kept = E::with_own(|own| (own.len() < OWN).then(|| own.push(std::mem::take(&mut memory))));
        if kept.is_none() {
            E::with_pool(|pool| pool.entry(memory.len()).or_default().push(memory));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_distinct_and_reused() {
        for len in [1, 63, 64, 65, 1000, 128 * 96] {
            let mut a = Buffer::<f32>::take(len);
            let b = Buffer::<f32>::take(len);
            assert_eq!((a.len(), a.as_ptr().align_offset(ALIGNMENT), b.as_ptr().align_offset(ALIGNMENT)), (len, 0, 0));
            assert!(a.as_ptr_range().end <= b.as_ptr() || b.as_ptr_range().end <= a.as_ptr());
            a.fill(1.0);
            assert!(Buffer::<f32>::zeroed(len).iter().all(|x| *x == 0.0));
        }
        // No other test takes buffers of this length.
        let first = Buffer::<f64>::take(7_777).as_ptr();
        assert_eq!(Buffer::<f64>::take(7_777).as_ptr(), first);
    }

    #[test]
    fn an_empty_buffer_is_empty() {
        assert!(Buffer::<f64>::take(0).is_empty());
    }
}
