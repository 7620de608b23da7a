//! The uniform density on a box.

use super::{BaseDensity, by_number, check_sizes};
use crate::{Context, FlowError, Module, Result, Scalar, module_fields};
use num_traits::Float;
use rand::Rng;

/// The uniform density on the box [low, high]^d: log p(z) = −d ln(high − low) in the box, whose border belongs to it.
///
/// Outside it there is no log-density: such a latent is [`FlowError::Domain`], which names the row. A flow before it
/// has to map into the box, as a logistic
/// or a spline with tails of the box does. Temperatures above 1 would leave the box and are refused.
#[derive(Debug, Clone, Copy)]
pub struct Uniform<E> {
    dim: usize,
    low: E,
    high: E,
}

impl<E: Scalar> Uniform<E> {
    /// On [low, high]^dim.
    ///
    /// # Errors
    /// [`FlowError::Setting`] unless both are finite and low is less than high.
    pub fn new(dim: usize, low: E, high: E) -> Result<Self> {
        if Float::is_finite(low) && Float::is_finite(high) && low < high && Float::is_finite(high - low) {
            return Ok(Self { dim, low, high });
        }
        Err(FlowError::Setting {
            layer: "Uniform".to_owned(),
            field: "low",
            expected: "a finite number less than a finite `high`".to_owned(),
            got: format!("{low} with high {high}"),
        })
    }

    fn check_inside(&self, z: &[E], cx: &Context<E>) -> Result<()> {
        let Self { dim, low, high } = *self;
        match z.iter().position(|z| !(low..=high).contains(z)) {
            None => Ok(()),
            Some(at) => Err(FlowError::Domain {
                layer: cx.layer("Uniform").to_owned(),
                row: at / dim.max(1),
                expected: format!("latents from {low} to {high}"),
                got: z[at].to_string(),
            }),
        }
    }
}

impl<E: Scalar> Module<E> for Uniform<E> {
    module_fields!(E;);
}

impl<E: Scalar> BaseDensity<E> for Uniform<E> {
    fn kind(&self) -> &'static str {
        "Uniform"
    }

    fn dim(&self) -> usize {
        self.dim
    }

    fn support(&self) -> (E, E) {
        (self.low, self.high)
    }

    fn log_prob(&self, z: &[E], out: &mut [E], cx: &Context<E>) -> Result<()> {
        check_sizes(self, "log_prob", out.len(), &[z.len()], None, cx)?;
        self.check_inside(z, cx)?;
        out.fill(E::of(-(self.dim as f64) * (self.high - self.low).as_f64().ln()));
        Ok(())
    }

    fn log_prob_by_number(&self, z: &[E], cx: &Context<E>) -> Result<Option<Vec<f64>>> {
        let Self { dim, low, high } = *self;
        let inside = -(high - low).as_f64().ln();
        let log_prob = |z| if (low..=high).contains(&z) { inside } else { f64::NEG_INFINITY };
        by_number(self, z, std::iter::repeat_n(log_prob, dim), cx)
    }

    fn sample(&self, rows: usize, temperature: E, cx: &Context<E>) -> Result<Vec<E>> {
        if temperature > E::one() {
            return Err(FlowError::Setting {
                layer: cx.layer("Uniform").to_owned(),
                field: "temperature",
                expected: "at most 1 for a density on a box".to_owned(),
                got: temperature.to_string(),
            });
        }
        let (low, high) = (self.low.as_f64(), self.high.as_f64());
        let (centre, width, temperature, noise) = (0.5 * low + 0.5 * high, high - low, temperature.as_f64(), cx.noise());
        let mut values = Vec::with_capacity(rows * self.dim);
        for row in 0..rows {
            let mut noise = noise.row(row as u64);
            // Rounding may not leave the box.
            let mut draw = || E::of(centre + width * temperature * (noise.r#gen::<f64>() - 0.5));
            values.extend((0..self.dim).map(|_| Float::max(self.low, Float::min(self.high, draw()))));
        }
        Ok(values)
    }

    fn pullback(&self, z: &[E], weights: &[E], dz: &mut [E], gradients: &mut [E], cx: &Context<E>) -> Result<Option<Vec<E>>> {
        check_sizes(self, "pullback", weights.len(), &[z.len(), dz.len()], Some(gradients.len()), cx)?;
        self.check_inside(z, cx)?;
        dz.fill(E::zero());
        Ok(None)
    }
}
