//! From discrete levels to continuous values that have a density, and back.
//!
//! A value x ∈ {0, …, L−1} becomes v = (x + u)/L ∈ (0, 1) with uniform noise u (uniform dequantisation: Theis, van den
//! Oord, Bethge, *A note on the evaluation of generative models*, 2016, section 3.1), and v becomes
//! - y = v − ½ (Glow's scaling), log-det 0, or
//! - y = ln s − ln(1−s) with s = α + (1−2α)v (Dinh et al., *Real NVP*, 2017, section 4.1), log-det Σ
//!   [−ln s − ln(1−s) + ln(1−2α)].
//!
//! The log-det is that of v → y. The constant −D ln L of x + u → v is the `levels` of [`bits_per_dim`], so that all of
//! it stands in one place.
//!
//! # The noise
//! u is uniform over the midpoints (k + ½)/2¹⁶ of 65,536 equal parts of a level, as a pure function of (seed, epoch,
//! item, dimension) and the same in f32 and in f64; it is other noise for training than for evaluation
//! ([`Dequantiser::for_evaluation`]). With a finer grid an f32 could round y over the edge into the next level; with
//! this one, quantising gives back every level exactly.

use std::f64::consts::LN_2;

use flow_api::device::LevelsForm;
use flow_api::spec::Preprocessing;
use num_traits::Float;
use rand::RngCore;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::random::{Purpose, stream};
use super::{DataError, Draw, ItemShape, Result};

/// Bits per dimension of discrete data: (−`log_prob`/`dims` + ln `levels`)/ln 2, for a log-density `log_prob` in nats
/// of an item on the unit cube (0, 1)^dims.
///
/// It is an upper bound on the model's discrete code length, in expectation over the noise. For a batch or a set, pass
/// the mean. Give the number of levels really modelled: [`Dequantiser::levels`], which is 32 for 5 of 8 bits.
///
/// ```
/// // The uniform density on the cube: every level is equally likely.
/// assert_eq!(flow_train::data::bits_per_dim(0.0, 3072, 256), 8.0);
/// ```
pub fn bits_per_dim(log_prob: f64, dims: usize, levels: u32) -> f64 {
    f64::from(levels).log2() - log_prob / (dims as f64 * LN_2)
}

/// Uniform dequantisation of items of one shape, and its inverse.
///
/// ```
/// use flow_api::spec::Preprocessing;
/// use flow_train::data::{self, Dequantiser, Draw, Values};
///
/// let train = data::digits()?.train;
/// let dequantiser = Dequantiser::new(&Preprocessing::default(), 17, train.shape(), 42)?;
/// let batch = train.batch(&[Draw { epoch: 0, index: 0 }])?;
/// let Values::Levels(pixels) = &batch.values else { unreachable!() };
/// let (mut y, mut log_det) = ([0f32; 64], [0f32; 1]);
/// dequantiser.dequantise(pixels, &batch.draws, &mut y, &mut log_det)?;
/// assert!(y.iter().all(|y| y.abs() < 0.5));
/// let mut back = [0; 64];
/// dequantiser.quantise(&y, &mut back)?;
/// assert_eq!(&back[..], &pixels[..]);
/// # Ok::<(), flow_train::data::DataError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Dequantiser {
    seed: u64,
    purpose: Purpose,
    dims: usize,
    /// Values in a row, the unit that a flip reverses.
    row: usize,
    /// Levels after `dropped` bits are dropped.
    levels: u32,
    dropped: u32,
    logit: Option<f64>,
    flip: bool,
}

impl Dequantiser {
    /// Checks the preprocessing against the data, items of this shape with this number of levels; `seed` is that of the
    /// noise and of the flips.
    ///
    /// # Errors
    /// [`DataError::Setting`] if `levels` is not 2 to 256 or not what is stated, `bits` is out of range or reduces
    /// other than 256 levels, α is out of range, or `flip` is for vectors.
    pub fn new(preprocessing: &Preprocessing, levels: u32, shape: ItemShape, seed: u64) -> Result<Self> {
        let bad = |what, expected, got| Err(DataError::Setting { what, expected, got });
        if let Some((what, got)) = preprocessing.of_reals() {
            return bad(what, "nothing for data that have levels", got);
        }
        let Preprocessing { levels: stated, bits, logit, flip, .. } = *preprocessing;
        if !(2..=256).contains(&levels) {
            return bad("levels", "2 to 256", levels.to_string());
        }
        if let Some(stated) = stated.filter(|stated| *stated != levels) {
            return bad("preprocessing.levels", "the data's number of levels", format!("{stated}, of data with {levels} levels"));
        }
        let dropped = match bits {
            None => 0,
            Some(bits @ 1..=8) if levels == 256 => 8 - bits,
            Some(bits) => {
                return bad("preprocessing.bits", "1 to 8, of 256 levels", format!("{bits}, of {levels} levels"));
            }
        };
        if let Some(alpha) = logit.filter(|a| !(0.0..0.5).contains(a)) {
            return bad("preprocessing.logit", "0 ≤ α < 0.5", alpha.to_string());
        }
        let row = match shape {
            ItemShape::Image { width, .. } => width,
            ItemShape::Vector { .. } if flip => {
                return bad("preprocessing.flip", "pictures", format!("vectors of {shape}"));
            }
            ItemShape::Vector { dims } => dims,
        };
        if shape.dims() == 0 {
            return bad("item shape", "at least one value", shape.to_string());
        }
        Ok(Self { seed, purpose: Purpose::Dequantise, dims: shape.dims(), row, levels: levels >> dropped, dropped, logit, flip })
    }

    /// Number of levels modelled, after bits were dropped: what [`bits_per_dim`] takes.
    pub fn levels(&self) -> u32 {
        self.levels
    }

    /// The level that is modelled of one of the data: lower where bits are dropped.
    pub fn modelled(&self, level: u8) -> u8 {
        level >> self.dropped
    }

    /// The same to evaluate with: without flips, and with noise that no training item has had.
    #[must_use]
    pub fn for_evaluation(&self) -> Self {
        Self { flip: false, purpose: Purpose::DequantiseToEvaluate, ..self.clone() }
    }

    /// y and log|det ∂y/∂v| of discrete `values`; see the module for both maps.
    ///
    /// # Shapes
    /// `values`, `y`: `[draws.len(), dims]`; `log_det`: `[draws.len()]`.
    ///
    /// # Errors
    /// [`DataError::Size`] if a length does not fit, [`DataError::Setting`] for a value that is not below the number of
    /// levels.
    pub fn dequantise<E: Float + Send + Sync>(&self, values: &[u8], draws: &[Draw], y: &mut [E], log_det: &mut [E]) -> Result<()> {
        let dims = self.dims;
        check_size("values", draws.len().checked_mul(dims), values.len())?;
        check_size("y", Some(values.len()), y.len())?;
        check_size("log_det", Some(draws.len()), log_det.len())?;
        self.check(values)?;
        let items = values.par_chunks_exact(dims).zip(draws).zip(y.par_chunks_exact_mut(dims)).zip(log_det);
        items.for_each(|(((x, &draw), y), log_det)| *log_det = cast(self.item(x, draw, y)));
        Ok(())
    }

    /// Refuses values that are no levels.
    ///
    /// # Errors
    /// [`DataError::Setting`] for a value that is not below the number of levels.
    pub(crate) fn check(&self, values: &[u8]) -> Result<()> {
        let Some(value) = values.iter().find(|&&x| u32::from(x >> self.dropped) >= self.levels) else { return Ok(()) };
        let got = format!("{value}, of {} levels", self.levels);
        Err(DataError::Setting { what: "value", expected: "less than the number of levels", got })
    }

    /// The same for a device, which gives the same numbers bit for bit; none with a logit, whose logarithms it rounds
    /// by itself.
    pub fn device_form(&self) -> Option<LevelsForm> {
        let Self { seed, purpose, row, levels, dropped, flip, .. } = *self;
        self.logit.is_none().then_some(LevelsForm { seed, purpose: purpose as u64, levels, dropped, row, mirror: flip })
    }

    /// One item: fills `y`, returns the log-det.
    fn item<E: Float>(&self, x: &[u8], draw: Draw, y: &mut [E]) -> f64 {
        let mut noise = Noise::new(stream(self.seed, self.purpose, draw));
        let flipped = self.flip && noise.bits() & 1 == 1;
        let mut log_det = 0.0;
        for (x, y) in x.chunks_exact(self.row).zip(y.chunks_exact_mut(self.row)) {
            for (i, y) in y.iter_mut().enumerate() {
                let x = if flipped { x[x.len() - 1 - i] } else { x[i] };
                let (value, slope) = self.continuous(f64::from(x >> self.dropped) + noise.uniform());
                *y = cast(value);
                log_det += slope;
            }
        }
        log_det
    }

    /// y and ln ∂y/∂v at v = `level`/L, where `level` is x + u.
    fn continuous(&self, level: f64) -> (f64, f64) {
        let levels = f64::from(self.levels);
        match self.logit {
            None => (level / levels - 0.5, 0.0),
            Some(alpha) => {
                let inner = 1.0 - 2.0 * alpha;
                let low = (alpha + inner * (level / levels)).ln();
                let high = (alpha + inner * ((levels - level) / levels)).ln();
                (low - high, inner.ln() - low - high)
            }
        }
    }

    /// The levels of `y`: ⌊vL⌋, where a `y` outside the cube's image goes to the nearest level.
    ///
    /// # Shapes
    /// `y`, `levels`: of equal length.
    ///
    /// # Errors
    /// [`DataError::Size`] if the lengths differ, [`DataError::Setting`] if a `y` is NaN.
    pub fn quantise<E: Float>(&self, y: &[E], levels: &mut [u8]) -> Result<()> {
        check_size("levels", Some(y.len()), levels.len())?;
        let count = f64::from(self.levels);
        for (y, level) in y.iter().zip(levels) {
            let y = y.to_f64().unwrap_or(f64::NAN);
            if y.is_nan() {
                return Err(DataError::Setting { what: "y", expected: "a number", got: y.to_string() });
            }
            let scaled = match self.logit {
                None => y * count + count / 2.0,
                Some(alpha) => count * (1.0 / (1.0 + (-y).exp()) - alpha) / (1.0 - 2.0 * alpha),
            };
            // In range after the clamp, and no more than 255.
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            {
                *level = scaled.floor().clamp(0.0, count - 1.0) as u8;
            }
        }
        Ok(())
    }
}

/// Sixteen bits at a time of a stream.
struct Noise {
    stream: ChaCha8Rng,
    kept: Option<u16>,
}

impl Noise {
    fn new(stream: ChaCha8Rng) -> Self {
        Self { stream, kept: None }
    }

    fn bits(&mut self) -> u16 {
        self.kept.take().unwrap_or_else(|| {
            let [a, b, c, d] = self.stream.next_u32().to_le_bytes();
            self.kept = Some(u16::from_le_bytes([c, d]));
            u16::from_le_bytes([a, b])
        })
    }

    /// Uniform over (k + ½)/2¹⁶.
    fn uniform(&mut self) -> f64 {
        midpoint(self.bits())
    }
}

fn midpoint(k: u16) -> f64 {
    (f64::from(k) + 0.5) / 65_536.0
}

fn cast<E: Float>(x: f64) -> E {
    num_traits::cast(x).unwrap_or_else(E::nan)
}

fn check_size(what: &'static str, expected: Option<usize>, got: usize) -> Result<()> {
    match expected {
        Some(expected) if expected == got => Ok(()),
        _ => Err(DataError::Size { what, expected: expected.unwrap_or(usize::MAX), got }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: [Option<f64>; 4] = [None, Some(0.0), Some(1e-6), Some(0.05)];

    fn vector(dims: usize) -> ItemShape {
        ItemShape::Vector { dims }
    }

    fn draws(n: usize) -> Vec<Draw> {
        (0..n).map(|index| Draw { epoch: 0, index }).collect()
    }

    /// Every level of every number of levels, at the noise nearest to either edge of a level, in both precisions.
    #[test]
    fn quantising_gives_back_every_level() -> Result<()> {
        fn round_trip<E: Float>(d: &Dequantiser, level: f64) -> Result<u8> {
            let mut out = [0];
            d.quantise(&[cast::<E>(d.continuous(level).0)], &mut out)?;
            Ok(out[0])
        }
        for levels in 2..=256u32 {
            for logit in SETTINGS {
                let d = Dequantiser::new(&Preprocessing { logit, ..Preprocessing::default() }, levels, vector(1), 0)?;
                for x in 0..=u8::try_from(levels - 1).expect("at most 255") {
                    for u in [midpoint(0), midpoint(1), 0.5, midpoint(u16::MAX)] {
                        assert_eq!(round_trip::<f32>(&d, f64::from(x) + u)?, x, "f32, {levels} levels, {logit:?}, u {u}");
                        assert_eq!(round_trip::<f64>(&d, f64::from(x) + u)?, x, "f64, {levels} levels, {logit:?}, u {u}");
                    }
                }
            }
        }
        Ok(())
    }

    #[test]
    fn items_come_back_and_noise_depends_on_the_visit_alone() -> Result<()> {
        let pixels: Vec<u8> = (0..=255).collect();
        for logit in SETTINGS {
            let d = Dequantiser::new(&Preprocessing { logit, ..Preprocessing::default() }, 256, vector(64), 3)?;
            let (mut y, mut log_det) = ([0f32; 256], [0f32; 4]);
            d.dequantise(&pixels, &draws(4), &mut y, &mut log_det)?;
            let mut back = [0; 256];
            d.quantise(&y, &mut back)?;
            assert_eq!(back, pixels[..]);

            let (mut alone, mut one) = ([0f64; 64], [0f64; 1]);
            d.dequantise(&pixels[128..192], &draws(4)[2..3], &mut alone, &mut one)?;
            assert!(
                alone.iter().zip(&y[128..]).all(|(a, b)| cast::<f32>(*a).to_bits() == b.to_bits()),
                "not in the batch, not in the precision"
            );
            d.dequantise(&pixels[128..192], &[Draw { epoch: 1, index: 2 }], &mut alone, &mut one)?;
            assert!(alone.iter().zip(&y[128..]).all(|(a, b)| cast::<f32>(*a).to_bits() != b.to_bits()), "other noise in another epoch");
            d.for_evaluation().dequantise(&pixels[128..192], &draws(4)[2..3], &mut alone, &mut one)?;
            assert!(alone.iter().zip(&y[128..]).all(|(a, b)| cast::<f32>(*a).to_bits() != b.to_bits()), "other noise to evaluate");
        }
        Ok(())
    }

    #[test]
    fn noise_is_uniform() -> Result<()> {
        let n = 1 << 18;
        let d = Dequantiser::new(&Preprocessing::default(), 2, vector(n), 1)?;
        let (mut y, mut log_det) = (vec![0f64; n], [0.0]);
        d.dequantise(&vec![0; n], &draws(1), &mut y, &mut log_det)?;
        let u: Vec<f64> = y.iter().map(|y| 2.0 * y + 1.0).collect();
        let mean = |f: &dyn Fn(f64) -> f64| u.iter().map(|&u| f(u)).sum::<f64>() / n as f64;
        // Four standard errors of the mean, the second moment and the lag-one product of uniforms.
        let bound = 4.0 / (n as f64).sqrt();
        assert!((mean(&|u| u) - 0.5).abs() < bound * (1.0 / 12.0f64).sqrt());
        assert!((mean(&|u| u * u) - 1.0 / 3.0).abs() < bound * (4.0 / 45.0f64).sqrt());
        let lag = u.windows(2).map(|w| (w[0] - 0.5) * (w[1] - 0.5)).sum::<f64>() / (n - 1) as f64;
        assert!(lag.abs() < bound / 12.0);
        Ok(())
    }

    /// The log-det against the slope of the inverse, by central differences over neighbouring noise.
    #[test]
    fn logit_log_det_is_the_slope() -> Result<()> {
        for alpha in [1e-6, 0.05] {
            let d = Dequantiser::new(&Preprocessing { logit: Some(alpha), ..Preprocessing::default() }, 17, vector(1), 9)?;
            for x in 0..17u8 {
                let (mut y, mut log_det) = ([0f64], [0f64]);
                d.dequantise(&[x], &draws(1), &mut y, &mut log_det)?;
                let v = |y: f64| (1.0 / (1.0 + (-y).exp()) - alpha) / (1.0 - 2.0 * alpha);
                let h = 1e-5;
                let slope = (v(y[0] + h) - v(y[0] - h)) / (2.0 * h);
                assert!((log_det[0] + slope.ln()).abs() < 1e-6, "α {alpha}, level {x}");
            }
        }
        Ok(())
    }

    #[test]
    fn bits_are_dropped_from_the_low_end_and_counted() -> Result<()> {
        let d = Dequantiser::new(&Preprocessing { bits: Some(5), ..Preprocessing::default() }, 256, vector(3), 0)?;
        let (mut y, mut log_det, mut back) = ([0f32; 3], [1f32], [9; 3]);
        d.dequantise(&[7, 8, 255], &draws(1), &mut y, &mut log_det)?;
        d.quantise(&y, &mut back)?;
        assert_eq!((d.levels(), back, log_det), (32, [0, 1, 31], [0.0]));
        // Exactly log₂ levels under the uniform density, whose log is 0 on the cube of volume 1.
        for levels in [2, 16, 32, 256] {
            assert!((bits_per_dim(0.0, 7, levels) - f64::from(levels.ilog2())).abs() < f64::EPSILON);
        }
        assert!((bits_per_dim(0.0, 64, 17) - 17f64.log2()).abs() < f64::EPSILON);
        assert!((bits_per_dim(-10.0 * LN_2, 5, 2) - 3.0).abs() < 1e-12);
        Ok(())
    }

    #[test]
    fn a_flip_mirrors_rows_about_half_the_time() -> Result<()> {
        let shape = ItemShape::Image { channels: 1, height: 2, width: 3 };
        let d = Dequantiser::new(&Preprocessing { flip: true, ..Preprocessing::default() }, 256, shape, 4)?;
        let (rows, mirrored) = ([1, 2, 3, 4, 5, 6], [3, 2, 1, 6, 5, 4]);
        let n = 400;
        let (mut y, mut log_det, mut back) = (vec![0f32; 6 * n], vec![0f32; n], vec![0; 6 * n]);
        d.dequantise(&rows.repeat(n), &draws(n), &mut y, &mut log_det)?;
        d.quantise(&y, &mut back)?;
        assert!(back.chunks(6).all(|p| p == rows || p == mirrored));
        let flips = back.chunks(6).filter(|&p| p == mirrored).count();
        assert!((160..=240).contains(&flips), "{flips} of {n}, ±4 standard deviations");
        d.for_evaluation().dequantise(&rows.repeat(n), &draws(n), &mut y, &mut log_det)?;
        d.quantise(&y, &mut back)?;
        assert!(back.chunks(6).all(|p| p == rows));
        Ok(())
    }

    #[test]
    fn what_does_not_fit_is_an_error() -> Result<()> {
        let with = |bits, logit, flip| Preprocessing { bits, logit, flip, ..Preprocessing::default() };
        let cases = [
            (with(None, None, false), 1, "levels: expected 2 to 256, got 1"),
            (with(None, None, false), 257, "levels: expected 2 to 256, got 257"),
            (with(Some(0), None, false), 256, "preprocessing.bits: expected 1 to 8, of 256 levels, got 0, of 256 levels"),
            (with(Some(4), None, false), 17, "preprocessing.bits: expected 1 to 8, of 256 levels, got 4, of 17 levels"),
            (with(None, Some(0.5), false), 256, "preprocessing.logit: expected 0 ≤ α < 0.5, got 0.5"),
            (with(None, Some(f64::NAN), false), 256, "preprocessing.logit: expected 0 ≤ α < 0.5, got NaN"),
            (with(None, None, true), 256, "preprocessing.flip: expected pictures, got vectors of 3"),
            (
                Preprocessing { levels: Some(256), ..Preprocessing::default() },
                17,
                "preprocessing.levels: expected the data's number of levels, got 256, of data with 17 levels",
            ),
        ];
        for (setting, levels, message) in cases {
            assert_eq!(Dequantiser::new(&setting, levels, vector(3), 0).expect_err(message).to_string(), message);
        }
        let d = Dequantiser::new(&Preprocessing::default(), 17, vector(2), 0)?;
        let (mut y, mut log_det) = ([0f32; 2], [0f32; 1]);
        assert!(matches!(d.dequantise(&[0; 3], &draws(1), &mut y, &mut log_det), Err(DataError::Size { what: "values", .. })));
        assert!(matches!(d.dequantise(&[0; 2], &draws(1), &mut y[..1], &mut log_det), Err(DataError::Size { what: "y", .. })));
        assert!(matches!(d.dequantise(&[0; 2], &draws(1), &mut y, &mut []), Err(DataError::Size { what: "log_det", .. })));
        assert!(d.dequantise(&[0, 17], &draws(1), &mut y, &mut log_det).is_err());
        let mut out = [0; 2];
        assert!(d.quantise(&[0.0, f64::NAN], &mut out).is_err());
        d.quantise(&[f64::INFINITY, -9.0], &mut out)?;
        assert_eq!(out, [16, 0]);
        Ok(())
    }
}
