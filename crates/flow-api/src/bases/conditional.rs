//! A density moved and scaled by a condition.

use super::{BaseDensity, check_sizes};
use crate::module::parameter_count;
use crate::rows::HostCondition;
use crate::{Context, FlowError, Module, Parameter, Result, Scalar, module_fields};
use num_traits::Float;

/// A density p₀ on R^d whose shift and log-scale are a linear map of the condition: with (t, s) = W c + b, log p(z |
/// c) = log p₀((z − t)e^{−s}) − Σⱼ sⱼ.
///
/// W and b start at 0, so that it starts as p₀.
///
/// # Shapes
/// `weight` W: (2d, width), the rows of the shift first; `bias` b: (2d).
///
/// ```
/// use flow_api::bases::{BaseDensity, Conditional, StandardNormal};
/// use flow_api::{Context, Scalar};
/// let base = Conditional::new(StandardNormal::new(2), 3)?;
/// let cx = Context::<f64>::new(1).with_condition(f64::zeros((1, 3)));
/// let mut log_prob = [0.0];
/// base.log_prob(&[0.0, 0.0], &mut log_prob, &cx)?;
/// assert!((log_prob[0] + (2.0 * std::f64::consts::PI).ln()).abs() < 1e-12);
/// assert!(base.log_prob(&[0.0, 0.0], &mut log_prob, &Context::new(1)).is_err()); // no condition
/// # Ok::<(), flow_api::FlowError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Conditional<P, E: Scalar> {
    base: P,
    width: usize,
    weight: Parameter<E>,
    bias: Parameter<E>,
}

/// Shift and log-scale of one row.
struct Placed<E> {
    shift: Vec<E>,
    log_scale: Vec<E>,
}

impl<E: Scalar> Placed<E> {
    /// u = (z − t)e^{−s}.
    fn standard(&self, z: &[E]) -> impl Iterator<Item = E> {
        z.iter().zip(&self.shift).zip(&self.log_scale).map(|((&z, &shift), &log_scale)| (z - shift) * Float::exp(-log_scale))
    }
}

impl<E: Scalar, P: BaseDensity<E>> Conditional<P, E> {
    /// `base`, moved by conditions of `width` numbers.
    ///
    /// # Errors
    /// [`FlowError::Setting`] if the base is a density on a box: one that moves with parameters has no gradient at
    /// its border. [`FlowError::Condition`] if the base
    /// takes conditions of another width itself.
    pub fn new(base: P, width: usize) -> Result<Self> {
        let (low, high) = base.support();
        if Float::is_finite(low) || Float::is_finite(high) {
            return Err(FlowError::Setting {
                layer: "Conditional".to_owned(),
                field: "base",
                expected: "a density on all of R^d".to_owned(),
                got: format!("{} on [{low}, {high}]", base.kind()),
            });
        }
        if let Some(other) = base.condition().filter(|other| *other != width) {
            return Err(FlowError::Condition {
                layer: "Conditional".to_owned(),
                expected: format!("(batch, {other}) of its base"),
                got: format!("(batch, {width})"),
            });
        }
        let rows = 2 * base.dim();
        let zeros = |shape: &[usize]| Parameter::new(shape, vec![E::zero(); shape.iter().product()]);
        Ok(Self { base, width, weight: zeros(&[rows, width]), bias: zeros(&[rows]) })
    }

    fn conditions(&self, rows: usize, cx: &Context<E>) -> Result<Vec<E>> {
        let condition = HostCondition::of(cx, Some(self.width), rows).map_err(|e| e.in_layer("Conditional"))?;
        Ok(condition.map(|condition| condition.values).unwrap_or_default())
    }

    fn placed(&self, condition: &[E]) -> Placed<E> {
        let weights = self.weight.values().chunks_exact(self.width.max(1));
        let mut shift: Vec<E> = self.bias.values().to_vec();
        for (sum, weights) in shift.iter_mut().zip(weights) {
            weights.iter().zip(condition).for_each(|(&weight, &c)| *sum += weight * c);
        }
        let log_scale = shift.split_off(self.base.dim());
        Placed { shift, log_scale }
    }

    /// The placement of each of `rows` rows by its condition.
    fn all_placed(&self, rows: usize, cx: &Context<E>) -> Result<Vec<Placed<E>>> {
        Ok(self.conditions(rows, cx)?.chunks_exact(self.width.max(1)).map(|condition| self.placed(condition)).collect())
    }
}

impl<E: Scalar, P: Module<E>> Module<E> for Conditional<P, E> {
    module_fields!(E; child base, parameter weight, parameter bias);
}

impl<E: Scalar, P: BaseDensity<E>> BaseDensity<E> for Conditional<P, E> {
    fn kind(&self) -> &'static str {
        "Conditional"
    }

    fn dim(&self) -> usize {
        self.base.dim()
    }

    fn condition(&self) -> Option<usize> {
        Some(self.width)
    }

    fn log_prob(&self, z: &[E], out: &mut [E], cx: &Context<E>) -> Result<()> {
        check_sizes(self, "log_prob", out.len(), &[z.len()], None, cx)?;
        let placed = self.all_placed(out.len(), cx)?;
        let u: Vec<E> = z.chunks_exact(self.dim().max(1)).zip(&placed).flat_map(|(z, placed)| placed.standard(z)).collect();
        self.base.log_prob(&u, out, &cx.child("base"))?;
        for (out, placed) in out.iter_mut().zip(&placed) {
            *out -= E::of(placed.log_scale.iter().map(|s| s.as_f64()).sum());
        }
        Ok(())
    }

    fn log_prob_by_number(&self, z: &[E], cx: &Context<E>) -> Result<Option<Vec<f64>>> {
        let dim = self.dim().max(1);
        check_sizes(self, "log_prob_by_number", z.len() / dim, &[z.len()], None, cx)?;
        let placed = self.all_placed(z.len() / dim, cx)?;
        let u: Vec<E> = z.chunks_exact(dim).zip(&placed).flat_map(|(z, placed)| placed.standard(z)).collect();
        let mut found = self.base.log_prob_by_number(&u, &cx.child("base"))?;
        for (row, placed) in found.iter_mut().flat_map(|found| found.chunks_exact_mut(dim)).zip(&placed) {
            row.iter_mut().zip(&placed.log_scale).for_each(|(log_prob, s)| *log_prob -= s.as_f64());
        }
        Ok(found)
    }

    fn sample(&self, rows: usize, temperature: E, cx: &Context<E>) -> Result<Vec<E>> {
        let placed = self.all_placed(rows, cx)?;
        let mut values = self.base.sample(rows, temperature, &cx.child("base"))?;
        for (z, placed) in values.chunks_exact_mut(self.dim().max(1)).zip(&placed) {
            for ((z, &shift), &log_scale) in z.iter_mut().zip(&placed.shift).zip(&placed.log_scale) {
                *z = shift + Float::exp(log_scale) * *z;
            }
        }
        Ok(values)
    }

    fn pullback(&self, z: &[E], weights: &[E], dz: &mut [E], gradients: &mut [E], cx: &Context<E>) -> Result<Option<Vec<E>>> {
        check_sizes(self, "pullback", weights.len(), &[z.len(), dz.len()], Some(gradients.len()), cx)?;
        let (dim, width) = (self.dim(), self.width);
        let conditions = self.conditions(weights.len(), cx)?;
        let placed: Vec<Placed<E>> = conditions.chunks_exact(width.max(1)).map(|condition| self.placed(condition)).collect();
        let u: Vec<E> = z.chunks_exact(dim.max(1)).zip(&placed).flat_map(|(z, placed)| placed.standard(z)).collect();
        let (for_base, own) = gradients.split_at_mut(parameter_count(&self.base));
        let (for_weight, for_bias) = own.split_at_mut(2 * dim * width);
        let mut for_condition =
            self.base.pullback(&u, weights, dz, for_base, &cx.child("base"))?.unwrap_or_else(|| vec![E::zero(); conditions.len()]);

        for (row, (&weight, placed)) in weights.iter().zip(&placed).enumerate() {
            let (u, dz) = (&u[row * dim..][..dim], &mut dz[row * dim..][..dim]);
            let (condition, for_condition) = (&conditions[row * width..][..width], &mut for_condition[row * width..][..width]);
            for j in 0..dim {
                let by_log_scale = -dz[j] * u[j] - weight;
                dz[j] *= Float::exp(-placed.log_scale[j]);
                for (output, slope) in [(j, -dz[j]), (dim + j, by_log_scale)] {
                    for_bias[output] += slope;
                    for k in 0..width {
                        for_weight[output * width + k] += slope * condition[k];
                        for_condition[k] += slope * self.weight.values()[output * width + k];
                    }
                }
            }
        }
        Ok(Some(for_condition))
    }
}
