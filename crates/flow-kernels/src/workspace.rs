//! Scratch memory that is reused, so that a kernel in steady state does not allocate.
//!
//! [`buffer`] hands out a [`Buffer`] from a pool of the current thread and its drop puts it back: no locks, no sizes to know in advance. A
//! buffer starts on a cache line (64 bytes), so that no vector load of a block whose lanes are a multiple of 16 crosses one.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};

use crate::scalar::Real;

/// Cache line, and the widest vector register there is.
const ALIGNMENT: usize = 64;
/// A pool keeps at most so many buffers. Kernels hold far fewer at a time; the limit is for threads that only ever drop what others took.
const KEPT: usize = 64;

/// The pool of the current thread: what [`Real`] needs to have one for each type.
///
/// The public can see this trait as a bound of [`Real`] but cannot name it.
#[doc(hidden)]
pub trait Pooled: Sized + 'static {
    /// Runs `f` on the pool, or returns `None` while the thread is being torn down.
    fn with_pool<R>(f: impl FnOnce(&mut Vec<Vec<Self>>) -> R) -> Option<R>;
}

macro_rules! impl_pooled {
    ($($float:ident),*) => {$(
        impl Pooled for $float {
            fn with_pool<R>(f: impl FnOnce(&mut Vec<Vec<Self>>) -> R) -> Option<R> {
                thread_local!(static POOL: RefCell<Vec<Vec<$float>>> = const { RefCell::new(Vec::new()) });
                POOL.try_with(|pool| f(&mut pool.borrow_mut())).ok()
            }
        }
    )*};
}
impl_pooled!(f32, f64);

/// Scratch memory: a slice that goes back to the pool of the dropping thread.
#[derive(Debug)]
pub struct Buffer<E: Real> {
    memory: Vec<E>,
    start: usize,
    len: usize,
}

/// Takes a buffer of `len` numbers with unspecified contents: whatever the last user left there.
///
/// ```
/// use flow_kernels::workspace::{buffer, zeroed};
/// let mut hidden = buffer::<f32>(128 * 96);
/// hidden.fill(1.0);
/// assert!(zeroed::<f32>(10).iter().all(|&x| x == 0.0));
/// ```
pub fn buffer<E: Real>(len: usize) -> Buffer<E> {
    let slack = ALIGNMENT / size_of::<E>();
    let mut memory = E::with_pool(|pool| {
        // The smallest that is large enough; failing that, the largest, which is then the one to grow.
        let fits = |memory: &Vec<E>| memory.len() >= len + slack;
        let best = (0..pool.len()).min_by_key(|&i| {
            let size = pool[i].len();
            if fits(&pool[i]) {
                (false, size)
            } else {
                (true, usize::MAX - size)
            }
        });
        best.map(|i| pool.swap_remove(i))
    })
    .flatten()
    .unwrap_or_default();
    if memory.len() < len + slack {
        // A fresh allocation instead of `resize`, which would copy the old contents.
        memory = vec![E::zero(); len + slack];
    }
    let start = memory.as_ptr().align_offset(ALIGNMENT).min(slack);
    Buffer { memory, start, len }
}

/// Takes a buffer of `len` zeros.
pub fn zeroed<E: Real>(len: usize) -> Buffer<E> {
    let mut buffer = buffer(len);
    buffer.fill(E::zero());
    buffer
}

impl<E: Real> Deref for Buffer<E> {
    type Target = [E];

    #[inline]
    fn deref(&self) -> &[E] {
        &self.memory[self.start..self.start + self.len]
    }
}

impl<E: Real> DerefMut for Buffer<E> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [E] {
        &mut self.memory[self.start..self.start + self.len]
    }
}

impl<E: Real> Drop for Buffer<E> {
    fn drop(&mut self) {
        let memory = std::mem::take(&mut self.memory);
        E::with_pool(|pool| {
            if pool.len() < KEPT {
                pool.push(memory);
            }
        });
    }
}

#[cfg(test)]
#[allow(clippy::float_cmp, reason = "results are exact")]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_reused_and_distinct() {
        std::thread::spawn(|| {
            let mut first = buffer::<f32>(1000);
            first.fill(7.0);
            let place = first.as_ptr();
            // Several live allocations: by luck alone not all of them start on a cache line.
            let held: Vec<_> = (900..916).map(buffer::<f32>).collect();
            assert!(
                held.iter()
                    .all(|held| held.as_ptr().addr() % ALIGNMENT == 0)
            );
            drop(held);
            let second = buffer::<f32>(1000);
            assert_ne!(place, second.as_ptr());
            drop(first);
            let third = buffer::<f32>(990);
            assert_eq!((place, third.len()), (third.as_ptr(), 990));
            assert_eq!(third[0], 7.0);
            drop(third);
            assert!(zeroed::<f32>(1000).iter().all(|&x| x == 0.0));
        })
        .join()
        .unwrap();
    }

    #[test]
    fn the_smallest_that_fits_is_taken_and_the_largest_grows() {
        std::thread::spawn(|| {
            let sizes = |mut sizes: Vec<usize>| {
                sizes.sort_unstable();
                sizes
            };
            let held = [100, 10_000, 1_000].map(buffer::<f64>);
            drop(held);
            drop(buffer::<f64>(500));
            drop(buffer::<f64>(20_000));
            let kept = f64::with_pool(|pool| pool.iter().map(Vec::len).collect()).unwrap();
            assert_eq!(sizes(kept), [108, 1_008, 20_008]);
        })
        .join()
        .unwrap();
    }

    #[test]
    fn a_pool_is_bounded() {
        std::thread::spawn(|| {
            let held: Vec<_> = (0..2 * KEPT).map(|_| buffer::<f32>(8)).collect();
            drop(held);
            assert_eq!(f32::with_pool(|pool| pool.len()), Some(KEPT));
        })
        .join()
        .unwrap();
    }
}
