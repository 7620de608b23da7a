//! The work of a pass through the layers as one list that all threads take from.

use flow_api::{FlowError, Result, Threaded, everywhere, in_pool};
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A piece of work.
#[derive(Clone, Copy)]
enum Task {
    /// Makes the kernels of a layer ready.
    Prepare(usize),
    /// Takes a group of samples through a layer.
    Run { layer: usize, group: usize },
    /// Adds up what the groups left of a layer.
    Finish(usize),
}

/// All tasks, so that each comes behind those that it waits for. A layer is prepared before the last one's groups run and finished behind those of the next one:
/// nobody waits at the border of two layers, and no more than three are ready at a time, besides those that further threads are still finishing.
fn tasks(layers: usize, groups: usize) -> Vec<Task> {
    let mut tasks = Vec::with_capacity(layers * (groups + 2));
    tasks.extend((layers > 0).then_some(Task::Prepare(0)));
    for layer in 0..layers {
        tasks.extend((layer + 1 < layers).then_some(Task::Prepare(layer + 1)));
        tasks.extend((0..groups).map(|group| Task::Run { layer, group }));
        tasks.extend(layer.checked_sub(1).map(Task::Finish));
    }
    tasks.extend(layers.checked_sub(1).map(Task::Finish));
    tasks
}

/// A layer on its way.
struct Layer<K, S> {
    kernel: Mutex<Option<Arc<K>>>,
    /// By group.
    sums: Mutex<Vec<Option<S>>>,
    groups_done: AtomicUsize,
}

struct Schedule<K, S> {
    tasks: Vec<Task>,
    next: AtomicUsize,
    layers: Vec<Layer<K, S>>,
    /// Layers that each group is through.
    through: Vec<AtomicUsize>,
    /// Someone failed: nobody waits any more.
    stopped: AtomicBool,
    /// The failure that came first in the order of the tasks.
    error: Mutex<Option<(usize, FlowError)>>,
}

/// A poisoned lock belongs to a thread that panicked, whose panic goes on to the caller.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

thread_local! {
    /// This thread is inside a task. Where a task is itself spread over threads and waits for them, rayon may hand the thread other work, a helper's part of this schedule too: it
    /// would then wait for the very task that it interrupted. So helpers do not start here.
    static WORKING: Cell<bool> = const { Cell::new(false) };
}

/// Ends a thread's work; a panic stops the others.
struct Working<'a> {
    before: bool,
    stopped: &'a AtomicBool,
}

impl Drop for Working<'_> {
    fn drop(&mut self) {
        WORKING.set(self.before);
        if std::thread::panicking() {
            self.stopped.store(true, Ordering::Release);
        }
    }
}

impl<K, S> Schedule<K, S> {
    fn new(layers: usize, groups: usize) -> Self {
        let layer =
            || Layer { kernel: Mutex::new(None), sums: Mutex::new((0..groups).map(|_| None).collect()), groups_done: AtomicUsize::new(0) };
        Self {
            tasks: tasks(layers, groups),
            next: AtomicUsize::new(0),
            layers: (0..layers).map(|_| layer()).collect(),
            through: (0..groups).map(|_| AtomicUsize::new(0)).collect(),
            stopped: AtomicBool::new(false),
            error: Mutex::new(None),
        }
    }

    /// Takes tasks until none is left. Whatever a task waits for comes before it in the list, so another thread has it in hand and itself waits for still earlier ones alone.
    fn work(&self, perform: impl Fn(Task) -> Result<()>) {
        let _working = Working { before: WORKING.replace(true), stopped: &self.stopped };
        while !self.stopped.load(Ordering::Acquire) {
            let at = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(&task) = self.tasks.get(at) else { break };
            if let Err(error) = perform(task) {
                let mut first = lock(&self.error);
                if first.as_ref().is_none_or(|(earlier, _)| at < *earlier) {
                    *first = Some((at, error));
                }
                self.stopped.store(true, Ordering::Release);
            }
        }
    }

    /// Waits for another thread; false if there is no more to wait for.
    fn wait(&self, ready: impl Fn() -> bool) -> bool {
        let mut rounds = 0_u32;
        while !ready() {
            if self.stopped.load(Ordering::Acquire) {
                return false;
            }
            rounds = rounds.saturating_add(1);
            if rounds < 100 { std::hint::spin_loop() } else { std::thread::yield_now() }
        }
        true
    }
}

/// Takes `groups` groups of samples through `layers` layers on all threads of the pool: `prepare` makes a layer's kernels, `run` takes a group through them, and `finish` is given what `run`
/// left of a layer, in the order of the groups. The results do not depend on the number of threads.
///
/// # Errors
/// That of a task; of several that failed at the same time, of the earliest.
pub(crate) fn schedule<K: Threaded, S: Threaded>(
    layers: usize,
    groups: usize,
    prepare: impl Fn(usize) -> Result<K> + Threaded,
    run: impl Fn(usize, usize, &K) -> Result<S> + Threaded,
    finish: impl Fn(&K, Vec<S>) -> Result<()> + Threaded,
) -> Result<()> {
    let schedule = Schedule::new(layers, groups);
    let kernel = |layer: usize| lock(&schedule.layers[layer].kernel).clone();
    let perform = |task| {
        match task {
            Task::Prepare(layer) => {
                let kernel = Arc::new(prepare(layer)?);
                *lock(&schedule.layers[layer].kernel) = Some(kernel);
            }
            Task::Run { layer, group } => {
                let ready = || schedule.through[group].load(Ordering::Acquire) == layer && lock(&schedule.layers[layer].kernel).is_some();
                if !schedule.wait(ready) {
                    return Ok(());
                }
                let Some(kernel) = kernel(layer) else { return Ok(()) };
                let sums = run(layer, group, &kernel)?;
                lock(&schedule.layers[layer].sums)[group] = Some(sums);
                schedule.through[group].store(layer + 1, Ordering::Release);
                schedule.layers[layer].groups_done.fetch_add(1, Ordering::Release);
            }
            Task::Finish(layer) => {
                let through = || schedule.layers[layer].groups_done.load(Ordering::Acquire) == groups;
                if !schedule.wait(|| through() && lock(&schedule.layers[layer].kernel).is_some()) {
                    return Ok(());
                }
                let sums = std::mem::take(&mut *lock(&schedule.layers[layer].sums));
                let Some(kernel) = lock(&schedule.layers[layer].kernel).take() else { return Ok(()) };
                finish(&kernel, sums.into_iter().flatten().collect())?;
            }
        }
        Ok(())
    };
    in_pool(|| {
        everywhere(|caller| {
            if caller || !WORKING.get() {
                schedule.work(perform);
            }
        });
    });
    let error = lock(&schedule.error).take();
    error.map_or(Ok(()), |(_, error)| Err(error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rayon::prelude::*;
    use std::sync::Mutex;

    fn on_threads<R: Send>(threads: usize, f: impl FnOnce() -> R + Send) -> R {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(f)
    }

    fn failure(row: usize) -> FlowError {
        FlowError::NotFinite { layer: String::new(), what: "a test", row }
    }

    #[test]
    fn every_group_goes_through_every_layer_in_order() {
        for threads in [1, 2, 3, 8] {
            for (layers, groups) in [(0, 3), (1, 1), (7, 1), (5, 4), (2, 9), (4, 0)] {
                for _ in 0..50 {
                    let (seen, finished) = (Mutex::new(vec![Vec::new(); groups]), Mutex::new(Vec::new()));
                    let run = |layer: usize, group: usize, kernel: &usize| {
                        // A task that is itself spread over threads and waits for them.
                        let sum: usize = (0..8).into_par_iter().map(std::hint::black_box).sum();
                        lock(&seen)[group].push(layer);
                        Ok(kernel + group + sum)
                    };
                    let finish = |kernel: &usize, sums: Vec<usize>| {
                        lock(&finished).push((*kernel, sums));
                        Ok(())
                    };
                    on_threads(threads, || schedule(layers, groups, |layer| Ok(100 * layer), run, finish)).unwrap();
                    assert!(seen.into_inner().unwrap().iter().all(|seen| seen.iter().copied().eq(0..layers)));
                    let mut finished = finished.into_inner().unwrap();
                    finished.sort();
                    let expected = |layer: usize| (100 * layer, (0..groups).map(|group| 100 * layer + group + 28).collect::<Vec<_>>());
                    assert_eq!(finished, (0..layers).map(expected).collect::<Vec<_>>());
                }
            }
        }
    }

    /// Counts those alive.
    struct Counted<'a>(&'a AtomicUsize);

    impl<'a> Counted<'a> {
        fn new(alive: &'a AtomicUsize, most: &AtomicUsize) -> Self {
            most.fetch_max(alive.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            Self(alive)
        }
    }

    impl Drop for Counted<'_> {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn kernels_live_no_longer_than_their_layer_is_on_its_way() {
        for threads in [1, 2, 3, 8] {
            let (alive, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
            let prepare = |_| Ok(Counted::new(&alive, &most));
            on_threads(threads, || schedule(40, 9, prepare, |_, _, _: &Counted<'_>| Ok(()), |_, _| Ok(()))).unwrap();
            assert_eq!(alive.into_inner(), 0);
            let most = most.into_inner();
            assert!((2..=threads + 2).contains(&most), "{most} on {threads} threads");
        }
    }

    #[test]
    fn a_failure_ends_it_and_nobody_waits_for_ever() {
        for threads in [1, 2, 3, 8] {
            for _ in 0..50 {
                let result = on_threads(threads, || {
                    let run = |layer, group, (): &()| if (layer, group) == (2, 1) { Err(failure(group)) } else { Ok(()) };
                    schedule(6, 3, |_| Ok(()), run, |(), _| Ok(()))
                });
                assert!(matches!(result, Err(FlowError::NotFinite { row: 1, .. })));
                let prepare = |layer| if layer == 3 { Err(failure(7)) } else { Ok(()) };
                let result = on_threads(threads, || schedule(6, 3, prepare, |_, _, ()| Ok(()), |(), _: Vec<()>| Ok(())));
                assert!(matches!(result, Err(FlowError::NotFinite { row: 7, .. })));
                let finish = |(): &(), _: Vec<()>| Err(failure(9));
                let result = on_threads(threads, || schedule(6, 3, |_| Ok(()), |_, _, ()| Ok(()), finish));
                assert!(matches!(result, Err(FlowError::NotFinite { row: 9, .. })));
            }
        }
    }

    #[test]
    fn a_panic_goes_on_to_the_caller() {
        for threads in [1, 2, 3] {
            let run = |layer, group, (): &()| {
                assert!((layer, group) != (1, 1), "this one panics");
                Ok(())
            };
            let caught = std::panic::catch_unwind(|| on_threads(threads, || schedule(4, 3, |_| Ok(()), run, |(), _| Ok(()))));
            assert!(caught.is_err());
        }
    }
}
