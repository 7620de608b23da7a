//! Base densities.

use crate::{FlowError, Module, Parameter, Result, Scalar, Visitor, VisitorMut, module_fields};
use flow_kernels::Real;
use flow_kernels::noise::Stream;
use num_traits::Float;

/// A density on R^d that flows map data to.
///
/// Latents are rows of d numbers in host memory. Temperature scales the spread of samples around the mean (1 leaves the density as it is, 0 gives the mean);
/// it does not enter [`BaseDensity::log_prob`].
///
/// ```
/// use flow_api::{BaseDensity, StandardNormal, noise::Stream};
/// let base: Box<dyn BaseDensity<f64>> = Box::new(StandardNormal::new(2));
/// let mut density = [0.0; 2];
/// base.log_prob(&[0.0, 0.0, 3.0, 4.0], &mut density); // two rows
/// assert!((density[0] + (2.0 * std::f64::consts::PI).ln()).abs() < 1e-12);
/// assert!((density[0] - density[1] - 12.5).abs() < 1e-12); // ½‖z‖²
///
/// let noise = Stream::new(7, 0, "base");
/// assert_eq!(base.sample(3, 1.0, &noise).len(), 3 * 2);
/// assert_eq!(base.sample(1, 0.0, &noise), [0.0, 0.0]); // the mean
/// ```
pub trait BaseDensity<E: Scalar>: Module<E> {
    /// Name of the density, as in specs.
    fn kind(&self) -> &'static str;

    /// d.
    fn dim(&self) -> usize;

    /// log p(z) of every row, in nats.
    fn log_prob(&self, z: &[E], out: &mut [E]);

    /// Samples: row r is a function of the stream and r alone.
    fn sample(&self, rows: usize, temperature: E, noise: &Stream) -> Vec<E>;

    /// weightᵣ ∂log p(zᵣ)/∂zᵣ of every row into `dz`; the parameters' share is added to `gradients`, this density's own slice.
    fn pullback(&self, z: &[E], weights: &[E], dz: &mut [E], gradients: &mut [E]);
}

impl<E: Scalar, P: BaseDensity<E> + ?Sized> BaseDensity<E> for Box<P> {
    fn kind(&self) -> &'static str {
        (**self).kind()
    }
    fn dim(&self) -> usize {
        (**self).dim()
    }
    fn log_prob(&self, z: &[E], out: &mut [E]) {
        (**self).log_prob(z, out);
    }
    fn sample(&self, rows: usize, temperature: E, noise: &Stream) -> Vec<E> {
        (**self).sample(rows, temperature, noise)
    }
    fn pullback(&self, z: &[E], weights: &[E], dz: &mut [E], gradients: &mut [E]) {
        (**self).pullback(z, weights, dz, gradients);
    }
}

fn standard_noise<E: Real>(dim: usize, rows: usize, noise: &Stream) -> Vec<E> {
    let mut values = vec![E::zero(); dim * rows];
    for (row, values) in values.chunks_exact_mut(dim.max(1)).enumerate() {
        noise.row(row as u64).gaussian(values);
    }
    values
}

/// ½ ln 2π.
fn half_log_two_pi() -> f64 {
    0.5 * (2.0 * std::f64::consts::PI).ln()
}

/// Σ uⱼ², in f64: with as many numbers as an image has, sums in f32 are off by some nats.
fn sum_of_squares<E: Real>(u: impl Iterator<Item = E>) -> f64 {
    u.map(|u| u.as_f64() * u.as_f64()).sum()
}

/// N(0, I): log p(z) = −½‖z‖² − (d/2) ln 2π.
#[derive(Debug, Clone, Copy)]
pub struct StandardNormal {
    dim: usize,
}

impl StandardNormal {
    /// On R^dim.
    pub fn new(dim: usize) -> Self {
        Self { dim }
    }
}

impl<E: Scalar> Module<E> for StandardNormal {
    fn visit<'m>(&'m self, _: &mut Visitor<'_, 'm, E>) {}
    fn visit_mut<'m>(&'m mut self, _: &mut VisitorMut<'_, 'm, E>) {}
}

impl<E: Scalar> BaseDensity<E> for StandardNormal {
    fn kind(&self) -> &'static str {
        "StandardNormal"
    }

    fn dim(&self) -> usize {
        self.dim
    }

    fn log_prob(&self, z: &[E], out: &mut [E]) {
        let constant = half_log_two_pi() * self.dim as f64;
        for (row, out) in z.chunks_exact(self.dim.max(1)).zip(out) {
            *out = E::of(-(sum_of_squares(row.iter().copied()) * 0.5) - constant);
        }
    }

    fn sample(&self, rows: usize, temperature: E, noise: &Stream) -> Vec<E> {
        let mut values = standard_noise::<E>(self.dim, rows, noise);
        values.iter_mut().for_each(|z| *z *= temperature);
        values
    }

    fn pullback(&self, z: &[E], weights: &[E], dz: &mut [E], _: &mut [E]) {
        let dim = self.dim.max(1);
        for ((z, dz), &weight) in z.chunks_exact(dim).zip(dz.chunks_exact_mut(dim)).zip(weights) {
            dz.iter_mut().zip(z).for_each(|(dz, &z)| *dz = -weight * z);
        }
    }
}

/// N(μ, diag(e^s)²) with learned mean μ and log-scale s: log p(z) = Σⱼ −½((zⱼ − μⱼ)e^{−sⱼ})² − sⱼ − ½ ln 2π.
#[derive(Debug, Clone)]
pub struct DiagonalNormal<E: Scalar> {
    mean: Parameter<E>,
    log_scale: Parameter<E>,
}

impl<E: Scalar> DiagonalNormal<E> {
    /// On R^dim, starting as N(0, I).
    pub fn new(dim: usize) -> Self {
        let zeros = || Parameter::new(&[dim], vec![E::zero(); dim]);
        Self { mean: zeros(), log_scale: zeros() }
    }
}

impl<E: Scalar> Module<E> for DiagonalNormal<E> {
    module_fields!(E; parameter mean, parameter log_scale);
}

impl<E: Scalar> BaseDensity<E> for DiagonalNormal<E> {
    fn kind(&self) -> &'static str {
        "DiagonalNormal"
    }

    fn dim(&self) -> usize {
        self.mean.values().len()
    }

    fn log_prob(&self, z: &[E], out: &mut [E]) {
        let (mean, log_scale) = (self.mean.values(), self.log_scale.values());
        let constant = log_scale.iter().map(|s| s.as_f64()).sum::<f64>() + half_log_two_pi() * mean.len() as f64;
        for (row, out) in z.chunks_exact(mean.len().max(1)).zip(out) {
            let squares = sum_of_squares(row.iter().zip(mean).zip(log_scale).map(|((&z, &m), &s)| (z - m) * Float::exp(-s)));
            *out = E::of(-(squares * 0.5) - constant);
        }
    }

    fn sample(&self, rows: usize, temperature: E, noise: &Stream) -> Vec<E> {
        let dim = self.mean.values().len();
        let mut values = standard_noise::<E>(dim, rows, noise);
        for row in values.chunks_exact_mut(dim.max(1)) {
            for ((z, &m), &s) in row.iter_mut().zip(self.mean.values()).zip(self.log_scale.values()) {
                *z = m + Float::exp(s) * temperature * *z;
            }
        }
        values
    }

    fn pullback(&self, z: &[E], weights: &[E], dz: &mut [E], gradients: &mut [E]) {
        let dim = self.mean.values().len().max(1);
        let (for_mean, for_scale) = gradients.split_at_mut(self.mean.values().len());
        for ((z, dz), &weight) in z.chunks_exact(dim).zip(dz.chunks_exact_mut(dim)).zip(weights) {
            for j in 0..z.len() {
                let inverse_scale = Float::exp(-self.log_scale.values()[j]);
                let u = (z[j] - self.mean.values()[j]) * inverse_scale;
                dz[j] = -weight * u * inverse_scale;
                for_mean[j] -= dz[j];
                for_scale[j] += weight * (u * u - E::one());
            }
        }
    }
}

/// The error for a temperature that is no spread.
pub(crate) fn check_temperature<E: Scalar>(temperature: E) -> Result<()> {
    if Float::is_finite(temperature) && temperature >= E::zero() {
        return Ok(());
    }
    Err(FlowError::Setting {
        layer: "sample".to_owned(),
        field: "temperature",
        expected: "a finite number that is not negative".to_owned(),
        got: temperature.to_string(),
    })
}
