//! Work on the threads of rayon's pool.

use rayon::ScopeFifo;
use rayon::prelude::*;

/// Works through tasks, first come first served, on all threads of the pool until none is left; a task may add further
/// ones.
pub fn work_through<T: Send + Sync>(first: impl Iterator<Item = T> + Send, run: impl Fn(T, &mut dyn FnMut(T)) + Send + Sync) {
    fn add<'scope, T: Send + Sync + 'scope>(
        scope: &ScopeFifo<'scope>,
        task: T,
        run: &'scope (impl Fn(T, &mut dyn FnMut(T)) + Send + Sync),
    ) {
        scope.spawn_fifo(move |scope| run(task, &mut |next| add(scope, next, run)));
    }
    rayon::scope_fifo(|scope| first.for_each(|task| add(scope, task, &run)));
}

/// `f(0)`, …, `f(count − 1)`, in parallel.
pub fn parallel<R: Send + Sync>(count: usize, f: impl Fn(usize) -> R + Send + Sync) -> Vec<R> {
    (0..count).into_par_iter().map(f).collect()
}
