//! The threads that everything works on. Where the system gives fewer than are asked for, or none, work goes on with
//! those that there are: results are the same.

use crate::{Result, TrainError};
use rayon::{ThreadBuilder, ThreadPool, ThreadPoolBuilder};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;

/// Whether the global pool is the one thread that started it.
static ALONE: AtomicBool = AtomicBool::new(false);

/// Whether no thread could be started: whatever works in parallel works on the thread that called [`start_threads`],
/// and waiting there for another thread's work would be waiting for ever.
pub(crate) fn alone() -> bool {
    ALONE.load(Ordering::Relaxed)
}

/// Starts the global pool of threads, `wanted` of them or as many as the machine runs at a time; fewer where the system
/// gives fewer, and where it gives none, the calling thread alone. Returns how many there are, which is told in a
/// warning where it is not what was wanted.
///
/// A program that does not call this has rayon's own pool, which panics where a thread cannot be started.
///
/// # Errors
/// [`TrainError::Threads`] if the pool runs already.
pub fn start_threads(wanted: Option<usize>) -> Result<usize> {
    let wanted = wanted.unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from)).max(1);
    let Waiting { count, builders } = Waiting::start(wanted, "worker");
    let failed = |e: rayon::ThreadPoolBuildError| TrainError::Threads(e.to_string());
    if count == 0 {
        ThreadPoolBuilder::new().num_threads(1).use_current_thread().build_global().map_err(failed)?;
        ALONE.store(true, Ordering::Relaxed);
        return Ok(1);
    }
    ThreadPoolBuilder::new().num_threads(count).spawn_handler(hand_to(builders)).build_global().map_err(failed)?;
    Ok(count)
}

/// Runs `f` on a pool of its own of as many threads; on the threads that there are where the system gives fewer.
pub(crate) fn on_threads<R: Send>(wanted: usize, f: impl FnOnce() -> R + Send) -> Result<R> {
    if wanted == rayon::current_num_threads() && rayon::current_thread_index().is_some() {
        return Ok(f());
    }
    match pool(wanted)? {
        Some(pool) => Ok(pool.install(f)),
        None => Ok(f()),
    }
}

/// Runs `f` where nothing else of it runs at the same time.
pub fn on_one_thread<R: Send>(f: impl FnOnce() -> R + Send) -> Result<R> {
    on_threads(1, f)
}

/// A pool of so many threads or fewer; none if none can be started.
fn pool(wanted: usize) -> Result<Option<ThreadPool>> {
    let Waiting { count, builders } = Waiting::start(wanted, "trainer");
    if count == 0 {
        return Ok(None);
    }
    let pool = ThreadPoolBuilder::new().num_threads(count).spawn_handler(hand_to(builders)).build();
    pool.map(Some).map_err(|e| TrainError::Threads(e.to_string()))
}

/// Threads that were started before the pool was: rayon gives up all of them where one cannot be.
struct Waiting {
    count: usize,
    /// What each is to become. Those that are not needed end with the channel.
    builders: Sender<ThreadBuilder>,
}

impl Waiting {
    fn start(wanted: usize, name: &str) -> Self {
        let (builders, received) = channel::<ThreadBuilder>();
        let received = Arc::new(Mutex::new(received));
        let mut count = 0;
        while count < wanted {
            let received = received.clone();
            let work = move || {
                let builder = received.lock().ok().and_then(|received| received.recv().ok());
                if let Some(builder) = builder {
                    builder.run();
                }
            };
            if let Err(error) = thread::Builder::new().name(format!("{name}-{count}")).spawn(work) {
                tracing::warn!("{count} of {wanted} threads could be started ({error}): work goes on with {}", count.max(1));
                break;
            }
            count += 1;
        }
        Self { count, builders }
    }
}

fn hand_to(builders: Sender<ThreadBuilder>) -> impl FnMut(ThreadBuilder) -> io::Result<()> {
    move |builder| builders.send(builder).map_err(|e| io::Error::other(e.to_string()))
}
