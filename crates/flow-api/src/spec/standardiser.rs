//! Standardisation of real numbers: a mean and a scale for each, fitted in f64 on all items there are.

use crate::{FlowError, Module, Result, Scalar, module_fields};

/// Moments of one column, gathered in one pass: Welford's updates, up to the fourth power (Pébay, *Formulas for robust,
/// one-pass parallel computation of covariances and arbitrary-order statistical moments*, Sandia 2008-6212, section 2).
/// They keep their digits however large the mean is beside the spread.
///
/// ```
/// let mut moments = flow_api::spec::Moments::default();
/// for x in [1.7e9, 1.7e9 + 2.0, 1.7e9 + 4.0, 1.7e9 + 6.0] {
///     moments.add(x);
/// }
/// assert_eq!((moments.mean(), moments.variance()), (1.7e9 + 3.0, 5.0));
/// assert!((moments.kurtosis() - 1.64).abs() < 1e-12);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Moments {
    count: f64,
    mean: f64,
    /// Σ (x − mean)^k for k = 2, 3, 4.
    sums: [f64; 3],
    /// The least and the largest value.
    range: (f64, f64),
}

impl Moments {
    /// Adds a value.
    pub fn add(&mut self, x: f64) {
        let before = self.count;
        self.range = if before == 0.0 { (x, x) } else { (self.range.0.min(x), self.range.1.max(x)) };
        self.count += 1.0;
        let n = self.count;
        let delta = x - self.mean;
        let step = delta / n;
        let [second, third, fourth] = &mut self.sums;
        let term = delta * step * before;
        self.mean += step;
        *fourth += term * step * step * (n * n - 3.0 * n + 3.0) + 6.0 * step * step * *second - 4.0 * step * *third;
        *third += term * step * (n - 2.0) - 3.0 * step * *second;
        *second += term;
    }

    /// Number of values.
    pub fn count(&self) -> f64 {
        self.count
    }

    /// Their mean.
    pub fn mean(&self) -> f64 {
        self.mean
    }

    /// Their variance, Σ (x − mean)²/n.
    pub fn variance(&self) -> f64 {
        self.sums[0] / self.count
    }

    /// The fourth central moment over the squared variance: 3 of a normal density, 1/p of a value that is there with a
    /// small probability p. NaN of a constant.
    pub fn kurtosis(&self) -> f64 {
        self.count * self.sums[2] / (self.sums[0] * self.sums[0])
    }

    /// The least and the largest value.
    pub fn range(&self) -> (f64, f64) {
        self.range
    }

    /// Whether all values are one, but for rounding.
    pub fn is_constant(&self) -> bool {
        self.variance().sqrt() <= 4.0 * f64::EPSILON * self.mean.abs() && !self.is_narrow()
    }

    /// Whether values differ by more than rounding, and by so little that f64 does not hold the square of that: their
    /// variance is lost.
    ///
    /// ```
    /// use flow_api::spec::Moments;
    /// let mut moments = Moments::default();
    /// [1e-310, 3e-310, 2e-310].iter().for_each(|&x| moments.add(x));
    /// assert!(moments.is_narrow() && !moments.is_constant());
    /// ```
    pub fn is_narrow(&self) -> bool {
        let (low, high) = self.range;
        let width = high - low;
        width > 4.0 * f64::EPSILON * self.mean.abs() && width * width < f64::MIN_POSITIVE
    }
}

/// Standardisation y = (x − mean)/scale of every number of an event, in f64: a mean and a standard deviation over all
/// items.
///
/// Of a column with values beyond any reason, mean and spread are those of its outliers, and all that is to be learnt
/// lies within a ten-thousandth of it. Such a column is standardised by its quartiles
/// ([`Standardiser::with_quartiles`]), and what lies more than t = 4 scales off, z = (x − mean)/scale, is drawn in:
/// y = ±(t + ln(1 + t (|z| − t))/t), with a slope that is continuous and a density that falls with a power of |z|. A
/// value a million scales off has |y| = 7.8.
///
/// It is the first layer of a model of real numbers, but for its precision: values of a column like 1.7·10⁹ ± 900 are
/// all alike in f32, and their mean and spread fight in any layer that is trained. So it is applied before values
/// become those of the model, and undone in f64 behind it; it is fitted once and not trained. Its state is saved with
/// the model's, in f64.
///
/// # Log-det
/// −Σ ln scale − Σ ln(1 + t (|z| − t)), the latter over what is drawn in, exact: with it, densities are those of the
/// values as they were.
///
/// ```
/// use flow_api::spec::{Moments, Standardiser};
/// let mut column = Moments::default();
/// (0..5).for_each(|i| column.add(1.7e9 + 900.0 * f64::from(i)));
/// let standardiser = Standardiser::fit(&[column])?;
/// let (mut y, mut log_det) = ([0f32], [0.0]);
/// standardiser.forward(&[1.7e9 + 900.0], &mut y, &mut log_det);
/// assert!((y[0] + 0.5f32.sqrt()).abs() < 1e-6 && (log_det[0] + (900.0 * 2f64.sqrt()).ln()).abs() < 1e-12);
/// assert!((standardiser.inverse(&y)[0] - (1.7e9 + 900.0)).abs() < 1e-3);
/// # Ok::<(), flow_api::FlowError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Standardiser {
    mean: Vec<f64>,
    scale: Vec<f64>,
    /// From how many scales on values are drawn in; 0 where none are.
    tail: Vec<f64>,
}

/// From how many scales on the values of a column that is standardised by its quartiles are drawn in.
const TAIL: f64 = 4.0;
/// Between the quartiles of a normal density, in standard deviations.
const NORMAL_QUARTILES: f64 = 1.348_979_500_392_163_5;

/// y of z and ln dy/dz, with tails from `tail` on.
fn draw_in(z: f64, tail: f64) -> (f64, f64) {
    let beyond = z.abs() - tail;
    if tail <= 0.0 || beyond <= 0.0 {
        return (z, 0.0);
    }
    let log = (tail * beyond).ln_1p();
    ((tail + log / tail).copysign(z), -log)
}

/// z of y.
fn draw_out(y: f64, tail: f64) -> f64 {
    let beyond = y.abs() - tail;
    if tail <= 0.0 || beyond <= 0.0 { y } else { (tail + (tail * beyond).exp_m1() / tail).copysign(y) }
}

impl Standardiser {
    /// The identity on events of `dim` numbers, until a state is loaded.
    pub fn identity(dim: usize) -> Self {
        Self { mean: vec![0.0; dim], scale: vec![1.0; dim], tail: vec![0.0; dim] }
    }

    /// That of events whose numbers have these moments.
    ///
    /// # Errors
    /// [`FlowError::ConstantFeature`] for one that does not vary, [`FlowError::NarrowFeature`] for one that varies too
    /// little, [`FlowError::NotFinite`] for one whose spread f64 does not hold.
    pub fn fit(columns: &[Moments]) -> Result<Self> {
        let layer = || "preprocessing".to_owned();
        let scale = |(feature, column): (usize, &Moments)| {
            let scale = column.variance().sqrt();
            if !(scale.is_finite() && column.mean.is_finite()) {
                return Err(FlowError::NotFinite { layer: layer(), what: "the standard deviation", row: feature });
            }
            if column.is_narrow() {
                return Err(FlowError::NarrowFeature { layer: layer(), feature });
            }
            if column.is_constant() {
                return Err(FlowError::ConstantFeature { layer: layer(), feature });
            }
            Ok(scale)
        };
        let scale = columns.iter().enumerate().map(scale).collect::<Result<_>>()?;
        Ok(Self { mean: columns.iter().map(Moments::mean).collect(), scale, tail: vec![0.0; columns.len()] })
    }

    /// The same with one number standardised by the lower quartile, the median and the upper quartile of its values,
    /// and with tails that are drawn in: for a column whose spread is that of a few outliers.
    ///
    /// ```
    /// use flow_api::spec::{Moments, Standardiser};
    /// let mut column = Moments::default();
    /// [-1.0, 0.0, 1.0, 2.0, 1e6].iter().for_each(|&x| column.add(x));
    /// let standardiser = Standardiser::fit(&[column])?.with_quartiles(0, [0.0, 1.0, 2.0]);
    /// let mut y = [0f64; 3];
    /// standardiser.forward(&[1.0, 2.0, 1e6], &mut y, &mut []);
    /// assert!(y[0] == 0.0 && (y[1] - 0.674).abs() < 1e-3 && y[2] < 8.0);
    /// assert!((standardiser.inverse(&y)[2] - 1e6).abs() < 1e-6);
    /// # Ok::<(), flow_api::FlowError>(())
    /// ```
    #[must_use]
    pub fn with_quartiles(mut self, feature: usize, [lower, median, upper]: [f64; 3]) -> Self {
        let spread = (upper - lower) / NORMAL_QUARTILES;
        if let (true, Some(mean)) = (spread.is_normal() && spread.recip().is_finite(), self.mean.get_mut(feature)) {
            (*mean, self.scale[feature], self.tail[feature]) = (median, spread, TAIL);
        }
        self
    }

    /// Numbers of an event.
    pub fn dim(&self) -> usize {
        self.mean.len()
    }

    /// The mean of every number, or its median where values are drawn in.
    pub fn mean(&self) -> &[f64] {
        &self.mean
    }

    /// The standard deviation of every number, or what it would be of a normal density with its quartiles.
    pub fn scale(&self) -> &[f64] {
        &self.scale
    }

    /// Mean, scale and tail of every number.
    fn columns(&self) -> impl Iterator<Item = (f64, f64, f64)> + Clone {
        self.mean.iter().zip(&self.scale).zip(&self.tail).map(|((mean, scale), tail)| (*mean, *scale, *tail))
    }

    /// y of one event or of several, one after the other, computed in f64, then rounded, and log|det ∂y/∂x| of as many
    /// as `log_det` has room for.
    pub fn forward<E: Scalar>(&self, x: &[f64], y: &mut [E], log_det: &mut [f64]) {
        let all = -self.scale.iter().map(|scale| scale.ln()).sum::<f64>();
        log_det.fill(all);
        for (at, ((y, x), (mean, scale, tail))) in y.iter_mut().zip(x).zip(self.columns().cycle()).enumerate() {
            let (drawn, log_slope) = draw_in((x - mean) / scale, tail);
            *y = E::of(drawn);
            if let Some(log_det) = log_det.get_mut(at / self.dim()).filter(|_| tail > 0.0) {
                *log_det += log_slope;
            }
        }
    }

    /// x of events, one after the other, in f64.
    pub fn inverse<E: Scalar>(&self, y: &[E]) -> Vec<f64> {
        y.iter().zip(self.columns().cycle()).map(|(y, (mean, scale, tail))| mean + scale * draw_out(y.as_f64(), tail)).collect()
    }
}

impl<E: Scalar> Module<E> for Standardiser {
    module_fields!(E; doubles mean, doubles scale, doubles tail; refresh Self::check);
}

impl Standardiser {
    fn check(&mut self) -> Result<()> {
        let check = |field, expected: &str, bad: Option<&f64>| match bad {
            None => Ok(()),
            Some(got) => {
                let (layer, expected) = ("preprocessing".to_owned(), expected.to_owned());
                Err(FlowError::Setting { layer, field, expected, got: got.to_string() })
            }
        };
        check("scale", "finite numbers greater than 0", self.scale.iter().find(|scale| !(scale.is_finite() && **scale > 0.0)))?;
        check("tail", "finite numbers, 0 or greater", self.tail.iter().find(|tail| !(tail.is_finite() && **tail >= 0.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::module::{EntryMut, Saved, load, save, update};

    /// Moments of a few values against sums in two passes, far from the origin too.
    #[test]
    fn moments_are_those_of_two_passes() {
        let values: Vec<f64> = (0..200_u32).map(|i| f64::from(i * i % 97).sqrt() + if i == 7 { 40.0 } else { 0.0 }).collect();
        for offset in [0.0, -3.0, 1e9] {
            let mut moments = Moments::default();
            values.iter().for_each(|x| moments.add(x + offset));
            let n = values.len() as f64;
            let mean = values.iter().map(|x| (x + offset) - offset).sum::<f64>() / n;
            let central = |k: i32| values.iter().map(|x| (((x + offset) - offset) - mean).powi(k)).sum::<f64>() / n;
            let close = |got: f64, expected: f64| (got - expected).abs() < 1e-6 * expected.abs();
            assert!((moments.mean() - offset - mean).abs() < 1e-6 && close(moments.variance(), central(2)), "{offset}");
            assert!(close(moments.kurtosis(), central(4) / central(2).powi(2)), "{offset}: {}", moments.kurtosis());
        }
    }

    #[test]
    fn what_does_not_vary_is_refused_and_what_hardly_does_is_not() {
        let of = |values: &[f64]| {
            let mut moments = Moments::default();
            values.iter().for_each(|&x| moments.add(x));
            moments
        };
        let varies = of(&[1.0, 2.0]);
        for constant in [of(&[5.0; 3]), of(&[0.0; 3]), of(&[0.1; 1000])] {
            let error = Standardiser::fit(&[varies, constant]).unwrap_err();
            assert!(matches!(error, FlowError::ConstantFeature { feature: 1, .. }), "{error}");
        }
        let error = Standardiser::fit(&[varies, of(&[1e-320, 2e-320])]).unwrap_err();
        assert!(matches!(error, FlowError::NarrowFeature { feature: 1, .. }), "{error}");
        let mut rare = vec![0.0; 100_000];
        rare[99_999] = 1e-9;
        assert!(Standardiser::fit(&[of(&rare), of(&[1e15, 1e15 + 2.0])]).is_ok());
        let error = Standardiser::fit(&[of(&[1e300, -1e300])]).unwrap_err();
        assert!(matches!(error, FlowError::NotFinite { row: 0, .. }), "{error}");
    }

    /// There and back over fourteen powers of ten, with a log-det that is the slope's, continuous where tails begin.
    #[test]
    fn tails_are_drawn_in_with_their_slope() {
        let of = |values: &[f64]| {
            let mut moments = Moments::default();
            values.iter().for_each(|&x| moments.add(x));
            moments
        };
        let columns = [of(&[1.0, 2.0]), of(&[-3.0, 1.0])];
        let standardiser = Standardiser::fit(&columns).unwrap().with_quartiles(1, [9.0, 10.0, 12.0]);
        let scale = 3.0 / NORMAL_QUARTILES;
        let at = |x: f64| {
            let (mut y, mut log_det) = ([0.0_f64; 4], [0.0; 2]);
            standardiser.forward(&[1.5, 10.0, 7.0, x], &mut y, &mut log_det);
            let plain = -(0.5_f64.ln() + scale.ln());
            assert!((log_det[0] - plain).abs() < 1e-12, "the other event's own");
            (y, log_det[1])
        };
        let steps = (0..15).map(|i| 10f64.powi(i)).chain([4.0 * scale * (1.0 - 1e-9), 4.0 * scale * (1.0 + 1e-9)]);
        let mut before = 0.0;
        for off in steps.clone().flat_map(|off| [off, -off]) {
            let x = 10.0 + off;
            let (y, log_det) = at(x);
            let back = standardiser.inverse(&y);
            assert!((back[2] - 7.0).abs() < 1e-9 && (back[3] - x).abs() < 1e-8 * off.abs(), "{x}: {back:?}");
            let width = 1e-5 * off.abs();
            let slope = (at(x + width).0[3] - at(x - width).0[3]) / (2.0 * width);
            assert!((log_det - (slope.ln() - 0.5_f64.ln())).abs() < 1e-4, "{x}: {log_det}, {slope}");
            if off.abs() < 1e14 && off > 0.0 && off.fract() == 0.0 {
                assert!(y[3] > before && y[3] < 13.0, "{x}: {y:?}");
                before = y[3];
            }
        }
        // What has no spread between its quartiles stays as it was fitted.
        let same = Standardiser::fit(&columns).unwrap();
        assert_eq!(same.clone().with_quartiles(0, [1.0; 3]), same);
    }

    #[test]
    fn the_state_is_kept_in_f64_and_a_bad_one_is_refused() {
        let mut moments = Moments::default();
        [1.7e9, 1.7e9 + 1.0].iter().for_each(|&x| moments.add(x));
        let fitted = Standardiser::fit(&[moments]).unwrap();
        let state = save::<f32, _>(&fitted);
        assert_eq!(state["mean"], Saved::Doubles(vec![1.7e9 + 0.5]));
        let mut other = Standardiser::identity(1);
        load::<f32, _>(&mut other, &state).unwrap();
        assert_eq!(other, fitted);
        let change = |_: &str, entry: EntryMut<'_, f32>| {
            if let EntryMut::Doubles(values) = entry {
                values.fill(-1.0);
            }
        };
        assert!(matches!(update(&mut other, change), Err(FlowError::Setting { field: "scale", .. })));
    }
}
