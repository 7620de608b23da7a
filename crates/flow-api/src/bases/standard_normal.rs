//! The standard normal density.

use super::{BaseDensity, by_number, check_sizes, half_log_two_pi, standard_noise, sum_of_squares};
use crate::device::BaseForm;
use crate::{Context, Module, Result, Scalar, module_fields};

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
    module_fields!(E;);
}

impl<E: Scalar> BaseDensity<E> for StandardNormal {
    fn kind(&self) -> &'static str {
        "StandardNormal"
    }

    fn dim(&self) -> usize {
        self.dim
    }

    fn log_prob(&self, z: &[E], out: &mut [E], cx: &Context<E>) -> Result<()> {
        check_sizes(self, "log_prob", out.len(), &[z.len()], None, cx)?;
        let constant = half_log_two_pi() * self.dim as f64;
        for (row, out) in z.chunks_exact(self.dim.max(1)).zip(out) {
            *out = E::of(-(sum_of_squares(row.iter().copied()) * 0.5) - constant);
        }
        Ok(())
    }

    fn log_prob_by_number(&self, z: &[E], cx: &Context<E>) -> Result<Option<Vec<f64>>> {
        let feature = |z: E| -0.5 * z.as_f64().powi(2) - half_log_two_pi();
        by_number(self, z, std::iter::repeat_n(feature, self.dim), cx)
    }

    fn sample(&self, rows: usize, temperature: E, cx: &Context<E>) -> Result<Vec<E>> {
        let mut values = standard_noise(self.dim, rows, cx);
        values.iter_mut().for_each(|z| *z *= temperature);
        Ok(values)
    }

    fn pullback(&self, z: &[E], weights: &[E], dz: &mut [E], gradients: &mut [E], cx: &Context<E>) -> Result<Option<Vec<E>>> {
        check_sizes(self, "pullback", weights.len(), &[z.len(), dz.len()], Some(gradients.len()), cx)?;
        let dim = self.dim.max(1);
        for ((z, dz), &weight) in z.chunks_exact(dim).zip(dz.chunks_exact_mut(dim)).zip(weights) {
            dz.iter_mut().zip(z).for_each(|(dz, &z)| *dz = -weight * z);
        }
        Ok(None)
    }
    fn device_form(&self) -> Option<BaseForm> {
        Some(BaseForm::StandardNormal)
    }
}
