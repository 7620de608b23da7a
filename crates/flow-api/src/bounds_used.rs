//! What layers tell of a call besides its results.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Asks the layers of a call which share of their scales' bounds they use, with
/// [`Context::asking_for`](crate::Context::asking_for). What the layers tell of several calls is put together.
///
/// A coupling whose scale is bounded can stretch a value only so far, and n of them n times: where most of the bounds
/// is used up, more couplings or a larger bound let a model fit better. Layers without bounded scales tell nothing, and so
/// do all on a device.
///
/// ```
/// use flow_api::bounds_used::BoundsUsed;
/// let used = BoundsUsed::default();
/// let layer = used.layer("layers.0");
/// layer.add(0.5, 2); // two values
/// layer.add(1.5, 2);
/// assert_eq!(used.shares(), [("layers.0".to_owned(), 0.5)]);
/// ```
#[derive(Clone, Debug, Default)]
pub struct BoundsUsed(Arc<Mutex<BTreeMap<String, Arc<BoundUse>>>>);

/// Adds up which share of its scales' bounds a layer uses.
#[derive(Debug, Default)]
pub struct BoundUse {
    /// Σ shares in units of 2⁻³², so that the order of summation does not matter.
    sum: AtomicU64,
    /// Values.
    count: AtomicU64,
}

/// Units of a sum.
const UNITS: f64 = 4_294_967_296.0;

impl BoundsUsed {
    /// The sum of the layer with this path.
    pub fn layer(&self, path: &str) -> Arc<BoundUse> {
        let mut layers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        layers.entry(path.to_owned()).or_default().clone()
    }

    /// The mean share, 0 to 1, of every layer that told of one, by its path in alphabetical order.
    pub fn shares(&self) -> Vec<(String, f64)> {
        let layers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        layers.iter().filter_map(|(path, layer)| Some((path.clone(), layer.mean()?))).collect()
    }
}

impl BoundUse {
    /// Adds the shares of `count` values, Σ of them `sum`.
    pub fn add(&self, sum: f64, count: usize) {
        // Negative numbers and NaN are zero.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share is at most one")]
        self.sum.fetch_add((sum * UNITS) as u64, Ordering::Relaxed);
        self.count.fetch_add(count as u64, Ordering::Relaxed);
    }

    fn mean(&self) -> Option<f64> {
        let count = self.count.load(Ordering::Relaxed);
        (count > 0).then(|| self.sum.load(Ordering::Relaxed) as f64 / UNITS / count as f64)
    }
}
