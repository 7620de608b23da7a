//! Randomness as a pure function of seed, step, path and row.

use crate::Real;
use rand::{Rng, RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;

/// The random stream of one layer in one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    key: u64,
}
/// FNV-1a then splitmix64's finaliser.
fn hash(parts: &[u64], text: &str) -> u64 {
    let mut h = 0xcbf2_9ce4_8422_2325_u64;
    for byte in parts.iter().flat_map(|p| p.to_le_bytes()).chain(text.bytes()) {
        h = (h ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    }
    h = (h ^ (h >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    h = (h ^ (h >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    h ^ (h >> 31)
}
impl Stream {
    /// The stream of this seed, step and path.
    pub fn new(seed: u64, step: u64, path: &str) -> Self {
        Self { key: hash(&[seed, step], path) }
    }
    /// The generator of one row.
    pub fn row(&self, row: u64) -> RowNoise {
        let mut rng = ChaCha8Rng::seed_from_u64(self.key);
        rng.set_stream(row);
        RowNoise(rng)
    }
}
/// The random numbers of one row.
#[derive(Clone, Debug)]
pub struct RowNoise(ChaCha8Rng);
impl RowNoise {
    /// Standard normal numbers.
    pub fn gaussian<E: Real>(&mut self, out: &mut [E]) {
        out.iter_mut().for_each(|x| *x = E::of(self.0.sample(StandardNormal)));
    }
    /// -1 or 1 with equal probability.
    pub fn rademacher<E: Real>(&mut self, out: &mut [E]) {
        out.iter_mut().for_each(|x| *x = if self.0.next_u32() & 1 == 0 { E::one() } else { -E::one() });
    }
    /// 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }
}
