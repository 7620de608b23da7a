//! Reading ahead of training.

use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel, sync_channel};
use std::thread::{self, JoinHandle};

use super::{Batch, Dataset, Draw, Result};
use crate::threads::alone;

/// Batches made by a thread of their own while the caller works on earlier ones; at most `ahead` wait, so memory is
/// bounded.
///
/// What is drawn is an iterator: [`TrainOrder`](super::TrainOrder) to train, [`each_once`](super::each_once) to
/// evaluate. The batches are the same, in the same order, as those of calling [`Dataset::batch`] in turn. After an
/// error there are no more. Dropping it stops the thread.
///
/// Where the system gives no thread, every batch is made when it is asked for.
///
/// ```
/// use flow_train::data::{self, Loader, Shuffle, TrainOrder};
///
/// let train = data::digits()?.train;
/// let order = TrainOrder::new(Shuffle { seed: 0 }, train.len(), 128)?;
/// for batch in Loader::new(train, order, 2).take(3) {
///     assert_eq!(batch?.draws.len(), 128);
/// }
/// # Ok::<(), flow_train::data::DataError>(())
/// ```
pub struct Loader(Source);

/// Where batches come from.
enum Source {
    /// From a thread. Both are none once the last batch was taken.
    Ahead { batches: Option<Receiver<Result<Batch>>>, thread: Option<JoinHandle<()>> },
    /// From the caller's own.
    Here(Batches),
}

/// Batches made when they are asked for, the last one being an error.
type Batches = Box<dyn Iterator<Item = Result<Batch>> + Send>;

impl Loader {
    /// Starts to draw `draws` from `set`.
    pub fn new(set: Arc<dyn Dataset>, draws: impl Iterator<Item = Vec<Draw>> + Send + 'static, ahead: usize) -> Self {
        let mut failed = false;
        let made = move |draws: Vec<Draw>| {
            let batch = (!failed).then(|| set.batch(&draws))?;
            failed = batch.is_err();
            Some(batch)
        };
        let batches: Batches = Box::new(draws.map_while(made));
        if alone() {
            return Self(Source::Here(batches));
        }
        let (hand_over, handed_over) = channel::<Batches>();
        let (sender, received) = sync_channel(ahead);
        let work = move || {
            for batch in handed_over.recv().into_iter().flatten() {
                // Fails when the loader was dropped.
                if sender.send(batch).is_err() {
                    return;
                }
            }
        };
        match thread::Builder::new().name("data-loader".to_owned()).spawn(work) {
            Ok(thread) => {
                // The thread waits for them, so it is there to take them.
                let _ = hand_over.send(batches);
                Self(Source::Ahead { batches: Some(received), thread: Some(thread) })
            }
            Err(error) => {
                tracing::warn!("no thread to read ahead ({error}): batches are made when they are needed");
                Self(Source::Here(batches))
            }
        }
    }
}

impl fmt::Debug for Loader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loader").field("ahead", &matches!(self.0, Source::Ahead { .. })).finish()
    }
}

impl Iterator for Loader {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Result<Batch>> {
        let (batches, thread) = match &mut self.0 {
            Source::Ahead { batches, thread } => (batches, thread),
            Source::Here(batches) => return batches.next(),
        };
        let next = batches.as_ref()?.recv().ok();
        if next.is_none() {
            *batches = None;
            // A panic in a user's own data set must not look like the end of the data.
            if let Some(Err(panic)) = thread.take().map(JoinHandle::join) {
                std::panic::resume_unwind(panic);
            }
        }
        next
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        if let Source::Ahead { batches, thread } = &mut self.0 {
            *batches = None;
            if let Some(thread) = thread.take() {
                // A panic was either handed on by `next` or is of a batch that nobody asked for.
                let _ = thread.join();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::DataError;
    use crate::data::{Shuffle, TrainOrder, digits, each_once};

    #[test]
    fn a_loader_changes_nothing_but_the_time() -> Result<()> {
        let set = digits()?.train;
        let order = || TrainOrder::new(Shuffle { seed: 5 }, 1500, 128).map(|o| o.take(20));
        for ahead in [0, 3] {
            let loaded: Vec<_> = Loader::new(set.clone(), order()?, ahead).collect::<Result<_>>()?;
            let direct: Vec<_> = order()?.map(|d| set.batch(&d)).collect::<Result<_>>()?;
            assert_eq!(loaded, direct);
        }
        Ok(())
    }

    #[test]
    fn an_error_is_the_last_item_and_a_drop_ends_an_endless_loader() -> Result<()> {
        let set = digits()?.test;
        let mut loader = Loader::new(set.clone(), each_once(400, 100), 1);
        assert!(loader.by_ref().take(2).all(|b| b.is_ok()));
        assert!(matches!(loader.next(), Some(Err(DataError::NoSuchItem { index: 297, len: 297 }))));
        assert!(loader.next().is_none() && loader.next().is_none());

        let watch = Arc::downgrade(&set);
        drop(Loader::new(set, TrainOrder::new(Shuffle { seed: 0 }, 297, 8)?, 1));
        assert_eq!(watch.strong_count(), 0, "the thread has let go of the set");
        Ok(())
    }
}
