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
}

impl Moments {
    /// Adds a value.
    pub fn add(&mut self, x: f64) {
        let before = self.count;
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

    /// Whether all values are one, but for rounding.
    pub fn is_constant(&self) -> bool {
        self.variance().sqrt() <= 4.0 * f64::EPSILON * self.mean.abs()
    }
}

/// Standardisation y = (x − mean)/scale of every number of an event, in f64: a mean and a standard deviation over all
/// items.
///
/// It is the first layer of a model of real numbers, but for its precision: values of a column like 1.7·10⁹ ± 900 are
/// all alike in f32, and their mean and spread fight in any layer that is trained. So it is applied before values
/// become those of the model, and undone in f64 behind it; it is fitted once and not trained. Its state is saved with
/// the model's, in f64.
///
/// # Log-det
/// −Σ ln scale, exact: with it, densities are those of the values as they were.
///
/// ```
/// use flow_api::spec::{Moments, Standardiser};
/// let mut column = Moments::default();
/// (0..5).for_each(|i| column.add(1.7e9 + 900.0 * f64::from(i)));
/// let standardiser = Standardiser::fit(&[column])?;
/// let mut y = [0f32];
/// let log_det = standardiser.forward(&[1.7e9 + 900.0], &mut y);
/// assert!((y[0] + 0.5f32.sqrt()).abs() < 1e-6 && (log_det + (900.0 * 2f64.sqrt()).ln()).abs() < 1e-12);
/// assert!((standardiser.inverse(&y)[0] - (1.7e9 + 900.0)).abs() < 1e-3);
/// # Ok::<(), flow_api::FlowError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Standardiser {
    mean: Vec<f64>,
    scale: Vec<f64>,
}

impl Standardiser {
    /// The identity on events of `dim` numbers, until a state is loaded.
    pub fn identity(dim: usize) -> Self {
        Self { mean: vec![0.0; dim], scale: vec![1.0; dim] }
    }

    /// That of events whose numbers have these moments.
    ///
    /// # Errors
    /// [`FlowError::ConstantFeature`] for one that does not vary, [`FlowError::NotFinite`] for one whose spread f64
    /// does not hold.
    pub fn fit(columns: &[Moments]) -> Result<Self> {
        let layer = || "preprocessing".to_owned();
        let scale = |(feature, column): (usize, &Moments)| {
            let scale = column.variance().sqrt();
            if !(scale.is_finite() && column.mean.is_finite()) {
                return Err(FlowError::NotFinite { layer: layer(), what: "the standard deviation", row: feature });
            }
            // The reciprocal of the smallest numbers overflows.
            if column.is_constant() || !scale.recip().is_finite() {
                return Err(FlowError::ConstantFeature { layer: layer(), feature });
            }
            Ok(scale)
        };
        let scale = columns.iter().enumerate().map(scale).collect::<Result<_>>()?;
        Ok(Self { mean: columns.iter().map(Moments::mean).collect(), scale })
    }

    /// Numbers of an event.
    pub fn dim(&self) -> usize {
        self.mean.len()
    }

    /// The mean of every number.
    pub fn mean(&self) -> &[f64] {
        &self.mean
    }

    /// The standard deviation of every number.
    pub fn scale(&self) -> &[f64] {
        &self.scale
    }

    /// y of one event or of several, one after the other, and log|det ∂y/∂x| of one: computed in f64, then rounded.
    pub fn forward<E: Scalar>(&self, x: &[f64], y: &mut [E]) -> f64 {
        let columns = || self.mean.iter().zip(&self.scale).cycle();
        y.iter_mut().zip(x).zip(columns()).for_each(|((y, x), (mean, scale))| *y = E::of((x - mean) / scale));
        -self.scale.iter().map(|scale| scale.ln()).sum::<f64>()
    }

    /// x of events, one after the other, in f64.
    pub fn inverse<E: Scalar>(&self, y: &[E]) -> Vec<f64> {
        let columns = self.mean.iter().zip(&self.scale).cycle();
        y.iter().zip(columns).map(|(y, (mean, scale))| mean + scale * y.as_f64()).collect()
    }
}

impl<E: Scalar> Module<E> for Standardiser {
    module_fields!(E; doubles mean, doubles scale);

    fn refresh(&mut self) -> Result<()> {
        match self.scale.iter().find(|scale| !(scale.is_finite() && **scale > 0.0)) {
            None => Ok(()),
            Some(scale) => Err(FlowError::Setting {
                layer: "preprocessing".to_owned(),
                field: "scale",
                expected: "finite numbers greater than 0".to_owned(),
                got: scale.to_string(),
            }),
        }
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
        for constant in [of(&[5.0; 3]), of(&[0.0; 3]), of(&[0.1; 1000]), of(&[1e-320, 2e-320])] {
            let error = Standardiser::fit(&[varies, constant]).unwrap_err();
            assert!(matches!(error, FlowError::ConstantFeature { feature: 1, .. }), "{error}");
        }
        let mut rare = vec![0.0; 100_000];
        rare[99_999] = 1e-9;
        assert!(Standardiser::fit(&[of(&rare), of(&[1e15, 1e15 + 2.0])]).is_ok());
        let error = Standardiser::fit(&[of(&[1e300, -1e300])]).unwrap_err();
        assert!(matches!(error, FlowError::NotFinite { row: 0, .. }), "{error}");
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
