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
    use rayon::ScopeFifo;
    use rayon::prelude::*;

    /// Works through tasks, first come first served, on all threads of the pool until none is left; a task may add further ones.
    pub fn work_through<T: Threaded>(first: impl Iterator<Item = T> + Threaded, run: impl Fn(T, &mut dyn FnMut(T)) + Threaded) {
        fn add<'scope, T: Threaded + 'scope>(scope: &ScopeFifo<'scope>, task: T, run: &'scope (impl Fn(T, &mut dyn FnMut(T)) + Threaded)) {
            scope.spawn_fifo(move |scope| run(task, &mut |next| add(scope, next, run)));
        }
        rayon::scope_fifo(|scope| first.for_each(|task| add(scope, task, &run)));
    }

    /// `f(0)`, …, `f(count − 1)`, in parallel.
    pub fn parallel<R: Threaded>(count: usize, f: impl Fn(usize) -> R + Threaded) -> Vec<R> {
        (0..count).into_par_iter().map(f).collect()
    }
}

#[cfg(feature = "cuda")]
mod pool {
    use super::Threaded;
    use std::collections::VecDeque;

    /// Works through tasks, first come first served, until none is left; a task may add further ones.
    pub fn work_through<T: Threaded>(first: impl Iterator<Item = T> + Threaded, run: impl Fn(T, &mut dyn FnMut(T)) + Threaded) {
        let mut tasks: VecDeque<T> = first.collect();
        while let Some(task) = tasks.pop_front() {
            run(task, &mut |next| tasks.push_back(next));
        }
    }

    /// `f(0)`, …, `f(count − 1)`.
    pub fn parallel<R: Threaded>(count: usize, f: impl Fn(usize) -> R + Threaded) -> Vec<R> {
        (0..count).map(f).collect()
    }
}

pub use pool::{parallel, work_through};
