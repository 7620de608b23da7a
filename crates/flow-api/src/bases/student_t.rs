//! Student's t with independent features.

use super::{BaseDensity, by_number, check_sizes};
use crate::{Context, FlowError, Module, Parameter, Result, Scalar, module_fields};
use rand::Rng;
use statrs::function::gamma::{digamma, ln_gamma};

/// Student's t, with a learned number of degrees of freedom νⱼ for every feature, at location 0 and scale 1:
/// log p(z) = Σⱼ ln Γ(½(νⱼ+1)) − ln Γ(½νⱼ) − ½ ln(πνⱼ) − ½(νⱼ+1) ln(1 + zⱼ²/νⱼ).
///
/// The parameter is ln ν, so that ν stays above 0. Tails fall as |z|^{−(ν+1)}: a flow that is Lipschitz cannot make
/// heavy tails of a normal base
/// (Jaini et al., arXiv:1907.04481). For ν → ∞ it is N(0, I). Special functions are those of `statrs`.
#[derive(Debug, Clone)]
pub struct StudentT<E: Scalar> {
    log_degrees: Parameter<E>,
}

/// ½ν from which the asymptotic series of ln Γ(x + ½) − ln Γ(x) is better than the difference of two large numbers.
const LARGE: f64 = 1e3;

/// ln Γ(x + ½) − ln Γ(x) − ½ ln x, and its derivative.
fn log_gamma_half_step(x: f64) -> (f64, f64) {
    if x < LARGE {
        let value = ln_gamma(x + 0.5) - ln_gamma(x) - 0.5 * x.ln();
        return (value, digamma(x + 0.5) - digamma(x) - 0.5 / x);
    }
    // The next terms are of order x⁻⁵ and x⁻⁶.
    (-1.0 / (8.0 * x) + 1.0 / (192.0 * x.powi(3)), 1.0 / (8.0 * x * x) - 1.0 / (64.0 * x.powi(4)))
}

/// What the density of a feature needs of its degrees of freedom.
#[derive(Clone, Copy)]
struct Degrees {
    /// ν.
    nu: f64,
    /// log p(0), and its derivative by ν.
    peak: (f64, f64),
}

impl Degrees {
    fn new(log_degrees: f64) -> Self {
        let nu = log_degrees.exp();
        let (value, slope) = log_gamma_half_step(0.5 * nu);
        // −½ ln(πν) + ½ ln(½ν) does not depend on ν.
        Self { nu, peak: (value - 0.5 * (2.0 * std::f64::consts::PI).ln(), 0.5 * slope) }
    }

    /// log p(z).
    fn log_prob(self, z: f64) -> f64 {
        self.peak.0 - 0.5 * (self.nu + 1.0) * (z * z / self.nu).ln_1p()
    }

    /// Derivatives by z and by ln ν.
    fn slopes(self, z: f64) -> (f64, f64) {
        let nu = self.nu;
        let share = z * z / (nu + z * z);
        let by_nu = self.peak.1 - 0.5 * (z * z / nu).ln_1p() + 0.5 * (nu + 1.0) / nu * share;
        (-(nu + 1.0) * z / (nu + z * z), nu * by_nu)
    }
}

impl<E: Scalar> StudentT<E> {
    /// On R^dim, starting at ν = `degrees` for all features.
    ///
    /// # Errors
    /// [`FlowError::Setting`] if that is no finite number greater than 0.
    pub fn new(dim: usize, degrees: f64) -> Result<Self> {
        if !(degrees.is_finite() && degrees > 0.0) {
            return Err(FlowError::Setting {
                layer: "StudentT".to_owned(),
                field: "degrees",
                expected: "a finite number greater than 0".to_owned(),
                got: degrees.to_string(),
            });
        }
        Ok(Self { log_degrees: Parameter::new(&[dim], vec![E::of(degrees.ln()); dim]) })
    }

    fn degrees(&self) -> Vec<Degrees> {
        self.log_degrees.values().iter().map(|log| Degrees::new(log.as_f64())).collect()
    }
}

impl<E: Scalar> Module<E> for StudentT<E> {
    module_fields!(E; parameter log_degrees);
}

impl<E: Scalar> BaseDensity<E> for StudentT<E> {
    fn kind(&self) -> &'static str {
        "StudentT"
    }

    fn dim(&self) -> usize {
        self.log_degrees.values().len()
    }

    fn log_prob(&self, z: &[E], out: &mut [E], cx: &Context<E>) -> Result<()> {
        check_sizes(self, "log_prob", out.len(), &[z.len()], None, cx)?;
        let degrees = self.degrees();
        for (row, out) in z.chunks_exact(self.dim().max(1)).zip(out) {
            *out = E::of(row.iter().zip(&degrees).map(|(z, degrees)| degrees.log_prob(z.as_f64())).sum());
        }
        Ok(())
    }

    fn log_prob_by_number(&self, z: &[E], cx: &Context<E>) -> Result<Option<Vec<f64>>> {
        by_number(self, z, self.degrees().into_iter().map(|degrees| move |z: E| degrees.log_prob(z.as_f64())), cx)
    }

    fn sample(&self, rows: usize, temperature: E, cx: &Context<E>) -> Result<Vec<E>> {
        let distributions = self.degrees().into_iter().map(|Degrees { nu, .. }| {
            rand_distr::StudentT::new(nu).map_err(|_| FlowError::Setting {
                layer: cx.layer("StudentT").to_owned(),
                field: "degrees",
                expected: "a number greater than 0".to_owned(),
                got: nu.to_string(),
            })
        });
        let distributions = distributions.collect::<Result<Vec<_>>>()?;
        let noise = cx.noise();
        let mut values = Vec::with_capacity(rows * self.dim());
        for row in 0..rows {
            let mut noise = noise.row(row as u64);
            values.extend(distributions.iter().map(|t| temperature * E::of(noise.sample(t))));
        }
        Ok(values)
    }

    fn pullback(&self, z: &[E], weights: &[E], dz: &mut [E], gradients: &mut [E], cx: &Context<E>) -> Result<Option<Vec<E>>> {
        check_sizes(self, "pullback", weights.len(), &[z.len(), dz.len()], Some(gradients.len()), cx)?;
        let (degrees, dim) = (self.degrees(), self.dim().max(1));
        for ((z, dz), &weight) in z.chunks_exact(dim).zip(dz.chunks_exact_mut(dim)).zip(weights) {
            for (j, degrees) in degrees.iter().enumerate() {
                let (by_z, by_log_degrees) = degrees.slopes(z[j].as_f64());
                dz[j] = weight * E::of(by_z);
                gradients[j] += weight * E::of(by_log_degrees);
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_those_of_the_tables_and_the_series_meets_the_functions() {
        // Cauchy's density, and that of 2 degrees of freedom: (2 + z²)^{−3/2}.
        for z in [0.0_f64, 0.7, -30.0] {
            assert!((Degrees::new(0.0).log_prob(z) + (std::f64::consts::PI * (1.0 + z * z)).ln()).abs() < 1e-13);
            assert!((Degrees::new(2.0_f64.ln()).log_prob(z) + 1.5 * (2.0 + z * z).ln()).abs() < 1e-13);
        }
        let (below, above) = (log_gamma_half_step(LARGE * (1.0 - 1e-12)), log_gamma_half_step(LARGE));
        assert!((below.0 - above.0).abs() < 1e-11 && (below.1 - above.1).abs() < 1e-13, "{below:?} {above:?}");
        // With so many it is the normal density.
        assert!((Degrees::new(30.0).log_prob(1.5) + super::super::half_log_two_pi() + 1.125).abs() < 1e-10);
    }
}
