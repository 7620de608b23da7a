//! Random streams that are pure functions of what they are for.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::Draw;

/// What a stream is for: two purposes never share one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub(super) enum Purpose {
    Order,
    /// To train.
    Dequantise,
    Crop,
    ToyTrain,
    ToyTest,
    // The numbers above are part of what a seed means: others go behind them.
    DequantiseToEvaluate,
    Mutate,
}

/// The stream of `seed` for one visit of one item. The four numbers are the cipher's whole key, so streams cannot
/// collide.
pub(super) fn stream(seed: u64, purpose: Purpose, draw: Draw) -> ChaCha8Rng {
    let mut key = [0; 32];
    let words = [seed, purpose as u64, draw.epoch, draw.index as u64];
    for (bytes, word) in key.chunks_exact_mut(8).zip(words) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    ChaCha8Rng::from_seed(key)
}
