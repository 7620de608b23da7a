//! Work on several threads, wherever the device allows it.
//!
//! dfdx's CUDA device holds a stream that no other thread may touch: with the `cuda` feature [`Threaded`] asks for nothing, and what is here runs on the calling thread.

/// `Send + Sync`; with the `cuda` feature, everything.
#[cfg(not(feature = "cuda"))]
pub trait Threaded: Send + Sync {}
#[cfg(not(feature = "cuda"))]
impl<T: Send + Sync + ?Sized> Threaded for T {}

/// `Send + Sync`; with the `cuda` feature, everything.
#[cfg(feature = "cuda")]
pub trait Threaded {}
#[cfg(feature = "cuda")]
impl<T: ?Sized> Threaded for T {}

#[cfg(not(feature = "cuda"))]
mod pool {
    use super::Threaded;
    use rayon::prelude::*;

    /// Runs `f(true)` on the calling thread and `f(false)` on every other thread of the pool, as soon as it is free; returns when all have.
    pub fn everywhere(f: impl Fn(bool) + Threaded) {
        rayon::scope(|scope| {
            for _ in 1..rayon::current_num_threads() {
                scope.spawn(|_| f(false));
            }
            f(true);
        });
    }

    /// Runs `f` on a thread of the pool, where nested parallel work starts without waking another thread first.
    pub fn in_pool<R: Threaded>(f: impl FnOnce() -> R + Threaded) -> R {
        rayon::scope(|_| f())
    }

    /// `f(0)`, …, `f(count − 1)`, in parallel.
    pub fn parallel<R: Threaded>(count: usize, f: impl Fn(usize) -> R + Threaded) -> Vec<R> {
        (0..count).into_par_iter().map(f).collect()
    }
}

#[cfg(feature = "cuda")]
mod pool {
    use super::Threaded;

    /// Runs `f(true)`.
    pub fn everywhere(f: impl Fn(bool) + Threaded) {
        f(true);
    }

    /// Runs `f`.
    pub fn in_pool<R: Threaded>(f: impl FnOnce() -> R + Threaded) -> R {
        f()
    }

    /// `f(0)`, …, `f(count − 1)`.
    pub fn parallel<R: Threaded>(count: usize, f: impl Fn(usize) -> R + Threaded) -> Vec<R> {
        (0..count).map(f).collect()
    }
}

pub use pool::{everywhere, in_pool, parallel};
