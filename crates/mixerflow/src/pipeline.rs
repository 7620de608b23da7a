//! Steps one after the other, with what surrounds each of them beside its neighbours.

use flow_api::{Result, Threaded, in_pool, join};

/// Prepares, runs and finishes every item in order. While one runs, the one before is finished and the one behind prepared, on another thread if one is idle:
/// these are work on weights alone, which does not split over rows. So at most three items are ready at a time.
///
/// # Errors
/// The first of any step.
pub(crate) fn pipeline<T: Threaded, K: Threaded, S: Threaded>(
    items: impl IntoIterator<Item = T, IntoIter: Threaded>,
    prepare: impl Fn(&T) -> Result<K> + Threaded,
    mut run: impl FnMut(T, &K) -> Result<S> + Threaded,
    mut finish: impl FnMut(&K, S) -> Result<()> + Threaded,
) -> Result<()> {
    let mut items = items.into_iter();
    in_pool(move || {
        let prepared = |item: Option<T>| item.map(|item| prepare(&item).map(|kernel| (item, kernel))).transpose();
        let mut next = prepared(items.next())?;
        let mut last: Option<(K, S)> = None;
        while let Some((item, kernel)) = next {
            let (before, behind) = (last.take(), items.next());
            let (ran, (finished, ready)) =
                join(|| run(item, &kernel), || (before.map_or(Ok(()), |(kernel, sums)| finish(&kernel, sums)), prepared(behind)));
            finished?;
            last = Some((kernel, ran?));
            next = ready?;
        }
        last.map_or(Ok(()), |(kernel, sums)| finish(&kernel, sums))
    })
}
