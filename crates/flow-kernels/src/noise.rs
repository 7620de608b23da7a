//! Random numbers that are a pure function of seed, step, layer path and row.
//!
//! A layer that is computed again for its gradient draws the same numbers again, and a row's numbers do not depend on
//! how the batch was cut into blocks or on which thread a block ran. The generator is `ChaCha8`, which is cryptographic
//! and has 2⁶⁴ streams a key: a [`Stream`] hashes (seed, step, path) to the key, and the row is the stream number.

use rand::{Rng, RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;

use crate::real::Real;

/// The noise of one layer at one step.
///
/// ```
/// use flow_kernels::noise::Stream;
///
/// let stream = Stream::new(7, 1000, "layers.3.channel.net");
/// let (mut once, mut again) = ([0.0_f32; 4], [0.0_f32; 4]);
/// stream.row(12).gaussian(&mut once);
/// stream.row(12).gaussian(&mut again);
/// assert_eq!(once, again);
/// stream.row(13).gaussian(&mut again);
/// assert_ne!(once, again);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stream {
    key: [u8; 32],
}

impl Stream {
    /// The noise of `seed` in training step (or call) `step` for the layer at `path`.
    ///
    /// The hash is written out here, so a run is reproduced by any later version too.
    pub fn new(seed: u64, step: u64, path: &str) -> Self {
        // Chained `SplitMix64` over the parts: no two of (seed, step, path) can stand in for one another.
        let mut state = [step, fnv1a(path)].into_iter().fold(mix(seed), |state, part| mix(state ^ part));
        let mut key = [0; 32];
        for word in key.as_chunks_mut::<8>().0 {
            state = mix(state);
            *word = state.to_le_bytes();
        }
        Self { key }
    }

    /// A generator for row `row` of the batch. Numbers drawn from it one after the other are independent.
    pub fn row(&self, row: u64) -> RowNoise {
        let mut rng = ChaCha8Rng::from_seed(self.key);
        rng.set_stream(row);
        RowNoise(rng)
    }
}

/// One step of `SplitMix64` (Steele, Lea and Flood 2014): a bijection of 64 bits in which every input bit reaches every
/// output bit.
fn mix(state: u64) -> u64 {
    let z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Fowler–Noll–Vo hash, 64 bits, variant 1a. Unlike the standard library's it never changes.
fn fnv1a(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// The random numbers of one row, one after the other.
#[derive(Clone, Debug)]
pub struct RowNoise(ChaCha8Rng);

/// Distributions of `rand` and `rand_distr` draw from it as well.
impl RngCore for RowNoise {
    fn next_u32(&mut self) -> u32 {
        self.0.next_u32()
    }
    fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }
    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        self.0.fill_bytes(bytes);
    }
    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), rand::Error> {
        self.0.try_fill_bytes(bytes)
    }
}

impl RowNoise {
    /// 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Fills `out` with independent signs, ±1 with equal probability: the probes of Hutchinson's trace estimator with
    /// least variance.
    pub fn rademacher<E: Real>(&mut self, out: &mut [E]) {
        for chunk in out.chunks_mut(64) {
            let mut bits = self.0.next_u64();
            for x in chunk {
                *x = if bits & 1 == 0 { E::one() } else { -E::one() };
                bits >>= 1;
            }
        }
    }

    /// Fills `out` with independent standard normal numbers; f32 gives the rounded numbers of f64.
    pub fn gaussian<E: Real>(&mut self, out: &mut [E]) {
        for x in out {
            *x = E::of(self.0.sample(StandardNormal));
        }
    }

    /// Fills `out` with independent numbers that are uniform on `[0, 1)`, on a grid of as many bits as the mantissa
    /// has.
    pub fn uniform<E: Real>(&mut self, out: &mut [E]) {
        // Drawn at the precision of E: a rounded f64 could come out as 1.
        let (_, exponent, _) = E::one().integer_decode();
        let digits = 1 + exponent.unsigned_abs();
        let steps = (1_u64 << digits) as f64;
        for x in out {
            *x = E::of((self.0.next_u64() >> (64 - digits)) as f64 / steps);
        }
    }
}

#[cfg(test)]
#[allow(clippy::float_cmp, reason = "results are exact")]
mod tests {
    use super::*;

    fn draw<E: Real>(stream: &Stream, row: u64, fill: fn(&mut RowNoise, &mut [E]), len: usize) -> Vec<E> {
        let mut out = vec![E::zero(); len];
        fill(&mut stream.row(row), &mut out);
        out
    }

    #[test]
    fn hashes_are_the_published_ones() {
        assert_eq!(fnv1a(""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a("foobar"), 0x8594_4171_f739_67e8);
        // The first output of SplitMix64 seeded with 0, from its reference implementation.
        assert_eq!(mix(0), 0xe220_a839_7b1d_cdaf);
    }

    #[test]
    fn noise_is_pinned() {
        let stream = Stream::new(7, 1000, "layers.3.channel.net");
        // All but the normal numbers were computed by another implementation of these hashes and of ChaCha8.
        assert_eq!(stream.row(12).next_u64(), 248_404_337_054_745_246);
        assert_eq!(draw::<f32>(&stream, 12, RowNoise::uniform, 2), [0.013_466_001, 0.552_546_3]);
        assert_eq!(draw::<f64>(&stream, 12, RowNoise::uniform, 2), [0.013_466_026_094_478_778, 0.552_546_327_357_605_9]);
        assert_eq!(draw::<f32>(&stream, 12, RowNoise::rademacher, 8), [1.0, -1.0, -1.0, -1.0, -1.0, 1.0, 1.0, -1.0]);
        assert_eq!(draw::<f64>(&stream, 12, RowNoise::gaussian, 2), [-1.298_168_152_128_476_3, 0.231_229_645_518_530_16]);
    }

    #[test]
    fn seed_step_path_and_row_all_matter() {
        let keys = [(7, 1000, "a"), (8, 1000, "a"), (7, 1001, "a"), (7, 1000, "b"), (1000, 7, "a"), (7, 1000, "a.a")];
        let mut seen: Vec<u64> = keys
            .iter()
            .flat_map(|&(seed, step, path)| [0, 1, u64::MAX].map(|row| Stream::new(seed, step, path).row(row).next_u64()))
            .collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 3 * keys.len());
    }

    /// Mean and variance over rows, which are separate generators; the bounds are six standard errors.
    fn check_moments<E: Real>(fill: fn(&mut RowNoise, &mut [E]), mean: f64, variance: f64, kurtosis: f64, range: (f64, f64)) {
        let stream = Stream::new(1, 2, "moments");
        let (rows, len) = (2000, 10);
        let x: Vec<f64> = (0..rows).flat_map(|row| draw(&stream, row, fill, len)).map(Real::as_f64).collect();
        let n = x.len() as f64;
        let moment = |k: i32| x.iter().map(|x| (x - mean).powi(k)).sum::<f64>() / n;
        assert!(moment(1).abs() < 6.0 * (variance / n).sqrt(), "mean off by {}", moment(1));
        let spread = variance * ((kurtosis - 1.0) / n).sqrt();
        assert!((moment(2) - variance).abs() <= 6.0 * spread + 1e-12, "variance {}", moment(2));
        assert!(x.iter().all(|&x| range.0 <= x && x < range.1));
        // Neighbouring rows and neighbouring draws are uncorrelated.
        for lag in [1, len] {
            let products = x.windows(lag + 1).map(|w| (w[0] - mean) * (w[lag] - mean)).sum::<f64>() / n;
            assert!(products.abs() < 6.0 * variance / n.sqrt(), "correlation {products} at lag {lag}");
        }
    }

    #[test]
    fn moments() {
        check_moments::<f32>(RowNoise::gaussian, 0.0, 1.0, 3.0, (-7.0, 7.0));
        check_moments::<f64>(RowNoise::gaussian, 0.0, 1.0, 3.0, (-7.0, 7.0));
        check_moments::<f32>(RowNoise::uniform, 0.5, 1.0 / 12.0, 1.8, (0.0, 1.0));
        check_moments::<f64>(RowNoise::uniform, 0.5, 1.0 / 12.0, 1.8, (0.0, 1.0));
        check_moments::<f32>(RowNoise::rademacher, 0.0, 1.0, 1.0, (-1.0, 1.5));
    }
}
