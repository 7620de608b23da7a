//! The work of a pass through the layers, in tasks that any thread takes as soon as what they need is there. Nobody
//! waits: a task that was last to give another one what it needs hands it on.

use crate::Result;
use crate::threads::work_through;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Most layers that are ready at a time: one whose sums are added up, one that groups go through, and the next.
const READY: usize = 3;

/// A piece of work. Their order is that in which errors are reported.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Task {
    /// Makes the kernels of a layer ready: needs the end of the layer [`READY`] before it.
    Prepare { layer: usize },
    /// Takes a group of samples through a layer: needs the kernels, and the group to be through the layer before.
    Run { layer: usize, group: usize },
    /// Adds up what the groups left of a layer: needs all of them to be through.
    Finish { layer: usize },
}

/// Counts what a task still needs.
struct Needs(AtomicUsize);

impl Needs {
    fn new(count: usize) -> Self {
        Self(AtomicUsize::new(count))
    }

    /// One more thing is there; true if it was the last.
    fn meet(&self) -> bool {
        self.0.fetch_sub(1, Ordering::AcqRel) == 1
    }
}

/// A layer on its way.
struct Layer<K, S> {
    kernel: Mutex<Option<Arc<K>>>,
    /// By group.
    sums: Mutex<Vec<Option<S>>>,
    /// By group.
    run: Vec<Needs>,
    finish: Needs,
}

/// A poisoned lock belongs to a thread that panicked, whose panic goes on to the caller.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes `groups` groups of samples through `layers` layers on all threads of the pool: `prepare` makes a layer's
/// kernels, `run` takes a group through them, and `finish` is given what `run`
/// left of a layer, in the order of the groups. No more than three layers are ready at a time. The results do not
/// depend on the number of threads.
///
/// # Errors
/// That of a task; of several that failed at the same time, of the first in order.
pub(crate) fn schedule<K: Send + Sync, S: Send + Sync>(
    layers: usize,
    groups: usize,
    prepare: impl Fn(usize) -> Result<K> + Send + Sync,
    run: impl Fn(usize, usize, &K) -> Result<S> + Send + Sync,
    finish: impl Fn(&K, Vec<S>) -> Result<()> + Send + Sync,
) -> Result<()> {
    let layer = |layer| Layer {
        kernel: Mutex::new(None),
        sums: Mutex::new((0..groups).map(|_| None).collect()),
        run: (0..groups).map(|_| Needs::new(if layer == 0 { 1 } else { 2 })).collect(),
        finish: Needs::new(groups + 1),
    };
    let on_their_way: Vec<Layer<K, S>> = (0..layers).map(layer).collect();
    let perform = |task, then: &mut dyn FnMut(Task)| {
        match task {
            Task::Prepare { layer } => {
                let kernel = Arc::new(prepare(layer)?);
                let own = &on_their_way[layer];
                *lock(&own.kernel) = Some(kernel);
                (0..groups).filter(|&group| own.run[group].meet()).for_each(|group| then(Task::Run { layer, group }));
                if own.finish.meet() {
                    then(Task::Finish { layer });
                }
            }
            Task::Run { layer, group } => {
                let own = &on_their_way[layer];
                let Some(kernel) = lock(&own.kernel).clone() else { return Ok(()) };
                let sums = run(layer, group, &kernel)?;
                drop(kernel);
                lock(&own.sums)[group] = Some(sums);
                if on_their_way.get(layer + 1).is_some_and(|next| next.run[group].meet()) {
                    then(Task::Run { layer: layer + 1, group });
                }
                if own.finish.meet() {
                    then(Task::Finish { layer });
                }
            }
            Task::Finish { layer } => {
                let own = &on_their_way[layer];
                let Some(kernel) = lock(&own.kernel).take() else { return Ok(()) };
                let sums = std::mem::take(&mut *lock(&own.sums));
                finish(&kernel, sums.into_iter().flatten().collect())?;
                drop(kernel);
                if layer + READY < layers {
                    then(Task::Prepare { layer: layer + READY });
                }
            }
        }
        Ok(())
    };
    let (stopped, error) = (AtomicBool::new(false), Mutex::new(None));
    work_through((0..layers.min(READY)).map(|layer| Task::Prepare { layer }), |task, then| {
        if stopped.load(Ordering::Relaxed) {
            return;
        }
        if let Err(failure) = perform(task, then) {
            stopped.store(true, Ordering::Relaxed);
            let mut first = lock(&error);
            if first.as_ref().is_none_or(|(earlier, _)| task < *earlier) {
                *first = Some((task, failure));
            }
        }
    });
    let error = lock(&error).take();
    error.map_or(Ok(()), |(_, error)| Err(error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FlowError;
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
                        // A task that is itself spread over threads and waits for them, long enough to be.
                        let sum: usize = (0..8).into_par_iter().map(|i| (0..5_000).fold(i, |i, _| std::hint::black_box(i))).sum();
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
            assert!((1..=READY).contains(&most), "{most} on {threads} threads");
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
