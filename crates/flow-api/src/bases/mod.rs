//! Base densities: one file each.

mod conditional;
mod diagonal_normal;
mod logistic;
mod mixture;
mod standard_normal;
mod student_t;
mod uniform;

pub use conditional::Conditional;
pub use diagonal_normal::DiagonalNormal;
pub use logistic::Logistic;
pub use mixture::Mixture;
pub use standard_normal::StandardNormal;
pub use student_t::StudentT;
pub use uniform::Uniform;

use crate::device::BaseForm;
use crate::module::parameter_count;
use crate::{Context, FlowError, Module, Result, Scalar, shape_error};
use flow_kernels::Real;
use num_traits::Float;

/// A density on R^d, or on a box in it, that flows map data to.
///
/// # Shapes
/// Latents are rows of d numbers in host memory, row-major; a call has one row a sample, and the context's condition
/// one vector a row.
///
/// # Errors
/// All calls give [`FlowError::Shape`] for buffers that are not of one number of rows ([`check_sizes`] finds them),
/// and [`FlowError::Condition`] for
/// a condition that is missing or of another shape. A density on a box gives [`FlowError::Domain`] for a latent
/// outside.
///
/// ```
/// use flow_api::Context;
/// use flow_api::bases::{BaseDensity, StandardNormal};
/// let base: Box<dyn BaseDensity<f64>> = Box::new(StandardNormal::new(2));
/// let cx = Context::new(7);
/// let mut density = [0.0; 2];
/// base.log_prob(&[0.0, 0.0, 3.0, 4.0], &mut density, &cx)?; // two rows
/// assert!((density[0] + (2.0 * std::f64::consts::PI).ln()).abs() < 1e-12);
/// assert!((density[0] - density[1] - 12.5).abs() < 1e-12); // ½‖z‖²
///
/// assert_eq!(base.sample(3, 1.0, &cx)?.len(), 3 * 2);
/// assert_eq!(base.sample(1, 0.0, &cx)?, [0.0, 0.0]); // the mean
/// assert!(base.log_prob(&[0.0; 3], &mut density, &cx).is_err());
/// # Ok::<(), flow_api::FlowError>(())
/// ```
pub trait BaseDensity<E: Scalar>: Module<E> {
    /// Name of the density, as in specs.
    fn kind(&self) -> &'static str;

    /// d.
    fn dim(&self) -> usize;

    /// Width of the condition that the density depends on, if it does.
    fn condition(&self) -> Option<usize> {
        None
    }

    /// The closed interval that every number of a latent lies in: all of ℝ, unless the density is one on a box.
    fn support(&self) -> (E, E) {
        (E::neg_infinity(), E::infinity())
    }

    /// log p(z) of every row, in nats.
    ///
    /// # Errors
    /// Those of the trait.
    fn log_prob(&self, z: &[E], out: &mut [E], cx: &Context<E>) -> Result<()>;

    /// log p of every number of every row given the condition, (rows, d), in nats, of a density whose numbers are
    /// independent: they add up to [`BaseDensity::log_prob`], and are −∞ where a number has no density. None of others.
    ///
    /// # Errors
    /// Those of the trait.
    fn log_prob_by_number(&self, z: &[E], cx: &Context<E>) -> Result<Option<Vec<f64>>> {
        let _ = (z, cx);
        Ok(None)
    }

    /// Samples: row r is a function of the context's stream ([`Context::noise`]), of its condition and of r alone.
    ///
    /// The temperature scales their spread around the density's mean: 1 leaves the density as it is, 0 gives the
    /// mean. It does not enter
    /// [`BaseDensity::log_prob`].
    ///
    /// # Errors
    /// Those of the trait, and [`FlowError::Setting`] for a temperature that the density has no samples at.
    fn sample(&self, rows: usize, temperature: E, cx: &Context<E>) -> Result<Vec<E>>;

    /// weightᵣ ∂log p(zᵣ)/∂zᵣ of every row into `dz`; the parameters' share is added to `gradients`, this density's
    /// own slice. Gives
    /// weightᵣ ∂log p(zᵣ)/∂condition of every row, (rows, width), if the density is conditional.
    ///
    /// # Errors
    /// Those of the trait.
    fn pullback(&self, z: &[E], weights: &[E], dz: &mut [E], gradients: &mut [E], cx: &Context<E>) -> Result<Option<Vec<E>>>;

    /// What the density is in a training step on a device; none, the default, where the host computes it.
    fn device_form(&self) -> Option<BaseForm> {
        None
    }
}

impl<E: Scalar, P: BaseDensity<E> + ?Sized> BaseDensity<E> for Box<P> {
    fn kind(&self) -> &'static str {
        (**self).kind()
    }
    fn dim(&self) -> usize {
        (**self).dim()
    }
    fn condition(&self) -> Option<usize> {
        (**self).condition()
    }
    fn support(&self) -> (E, E) {
        (**self).support()
    }
    fn log_prob(&self, z: &[E], out: &mut [E], cx: &Context<E>) -> Result<()> {
        (**self).log_prob(z, out, cx)
    }
    fn log_prob_by_number(&self, z: &[E], cx: &Context<E>) -> Result<Option<Vec<f64>>> {
        (**self).log_prob_by_number(z, cx)
    }
    fn sample(&self, rows: usize, temperature: E, cx: &Context<E>) -> Result<Vec<E>> {
        (**self).sample(rows, temperature, cx)
    }
    fn pullback(&self, z: &[E], weights: &[E], dz: &mut [E], gradients: &mut [E], cx: &Context<E>) -> Result<Option<Vec<E>>> {
        (**self).pullback(z, weights, dz, gradients, cx)
    }
    fn device_form(&self) -> Option<BaseForm> {
        (**self).device_form()
    }
}

/// log p of every number of whole rows, in nats, by a density of each feature.
fn by_number<E: Scalar, P: BaseDensity<E>>(
    base: &P,
    z: &[E],
    features: impl Iterator<Item = impl Fn(E) -> f64>,
    cx: &Context<E>,
) -> Result<Option<Vec<f64>>> {
    let dim = base.dim().max(1);
    check_sizes(base, "log_prob_by_number", z.len() / dim, &[z.len()], None, cx)?;
    let features: Vec<_> = features.collect();
    Ok(Some(z.chunks_exact(dim).flat_map(|row| row.iter().zip(&features).map(|(&z, log_prob)| log_prob(z))).collect()))
}

/// Checks, for the authors of densities, that the buffers of a call are of `rows` rows: `latents` are the lengths of
/// those with d numbers a row, and
/// `gradients` is the length of the buffer of the parameters' gradients where the call has one.
///
/// # Errors
/// [`FlowError::Shape`].
pub fn check_sizes<E: Scalar, P: BaseDensity<E> + ?Sized>(
    base: &P,
    operation: &'static str,
    rows: usize,
    latents: &[usize],
    gradients: Option<usize>,
    cx: &Context<E>,
) -> Result<()> {
    let dim = base.dim();
    let error = |expected: (usize, usize), got: usize| Err(shape_error(cx.layer(base.kind()), operation, expected, got));
    if let Some(&len) = latents.iter().find(|len| Some(**len) != rows.checked_mul(dim)) {
        return error((rows, dim), len);
    }
    let parameters = parameter_count(base);
    gradients.filter(|len| *len != parameters).map_or(Ok(()), |len| error((parameters, 1), len))
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

/// Independent standard normal numbers: row r is a function of the context's stream and r alone.
fn standard_noise<E: Scalar>(dim: usize, rows: usize, cx: &Context<E>) -> Vec<E> {
    let noise = cx.noise();
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
