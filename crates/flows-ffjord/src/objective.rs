//! What training differentiates: the state, the integrated trace, and the regularisers.

use crate::field::{Evaluation, FieldKernel};
use crate::trace::{Directions, Integrals, trace_cotangents, value_cotangent};
use flow_kernels::Real;
use flow_kernels::simd::{add, dot};
use flow_kernels::workspace::Buffer;
use num_traits::Float;
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// Weights of the regularisers of Finlay et al. 2020, "How to Train Your Neural ODE" (RNODE), equation 12
/// (arXiv:2002.02798).
///
/// Along the path of a row, K = ½ ∫ ‖f‖² dt is its kinetic energy and F = ∫ ‖∂f/∂z‖² dt its Jacobian norm (Frobenius),
/// estimated with the trace's own probes as ‖Jε‖² (or exact, with the exact trace) at no further evaluation. Straight
/// paths and a tame Jacobian need few, large steps.
///
/// # In training
/// The gradient of a training step is that of the loss plus |∂L/∂log|det J|| · (`kinetic` · K + `jacobian` · F) of
/// every row. So the regularisers come with the size of the factor that the loss gives to the row's log-likelihood: for
/// the mean negative log-likelihood in nats they add their mean over the rows, and for a loss per dimension they are
/// divided by the dimension, which is how the paper normalises them (its weights are 0.01 each). The factor's sign does
/// not matter: they are a penalty too where the flow is run backwards ([`InverseOf`](flow_api::compose::InverseOf)) and
/// the loss holds its log-det with the opposite sign. The forward pass of a training step reports the plain log-det and
/// beside it the weighted sum of both over rows ([`SolveReport::penalty`](flow_api::log_det::SolveReport::penalty)),
/// evaluation ignores them, and [`ContinuousFlow::penalties`](crate::ContinuousFlow::penalties) gives their values.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Regularisation {
    /// Weight of K, at least 0. Default 0.
    pub kinetic: f64,
    /// Weight of F, at least 0. Default 0.
    pub jacobian: f64,
}

impl Regularisation {
    /// The weighted sum over rows of what was integrated; 0 where it was not.
    pub(crate) fn total<E: Real>(&self, integrals: &Integrals, values: &[E]) -> f64 {
        let sum = |range: &Range<usize>| values[range.clone()].iter().map(|x| x.as_f64()).sum::<f64>();
        self.kinetic * sum(&integrals.kinetic) + self.jacobian * sum(&integrals.jacobian)
    }
}

/// The integrand g tr J + |g| p of every row, where g = ∂L/∂log|det J| and p = `kinetic` · ½‖f‖² + `jacobian` · ‖J‖²
/// (Frobenius), with the field that it belongs to.
#[derive(Debug)]
pub(crate) struct Objective<'k, 'p, E: Real> {
    pub(crate) field: &'k FieldKernel<'p, E>,
    /// The block's offset of the field's first layer; empty without a condition.
    pub(crate) offset: &'k [E],
    pub(crate) directions: &'k Directions<E>,
    pub(crate) regularisation: Regularisation,
    pub(crate) lanes: usize,
}

impl<E: Real> Objective<'_, '_, E> {
    /// Numbers in a block.
    pub(crate) fn block(&self) -> usize {
        self.field.dim() * self.lanes
    }

    /// The field and what the passes after it need, at one time.
    pub(crate) fn evaluate(&self, t: f64, z: &[E], f: &mut [E]) -> Evaluation<E> {
        self.field.evaluate(t, z, self.offset, self.lanes, f)
    }

    /// The gradient of S = `scale` (⟨a, f⟩ + Σ (g tr J + |g| p)) (over the rows) at one evaluation, where the field's
    /// value is `f`; without g, of the first term alone.
    ///
    /// `z_bar` = ∂S/∂z and `sums` = ∂S/∂θ are overwritten, and ∂S/∂o of the offset is added to `offset_bar` (or not, if
    /// it is empty); `sums` is as long as [`FieldKernel::sums_len`], of which the parameters take the front. Returns
    /// ∂S/∂t. Where `sums` is empty, they are not found, and 0 is returned.
    #[allow(clippy::too_many_arguments, reason = "S has three factors, and its gradient four parts")]
    pub(crate) fn pull(
        &self,
        evaluation: &Evaluation<E>,
        f: &[E],
        scale: E,
        a: &[E],
        g: Option<&[E]>,
        z_bar: &mut [E],
        offset_bar: &mut [E],
        sums: &mut [E],
    ) -> f64 {
        let mlp = &self.field.mlp;
        let mut value = Buffer::take(a.len());
        sums.fill(E::zero());
        let network = mlp.sums_len().min(sums.len());
        if let Some(g) = g {
            let norm_weight = E::of(2.0 * self.regularisation.jacobian);
            value_cotangent(&mut value, scale, a, f, g, E::of(self.regularisation.kinetic));
            let mut part = Buffer::take(if self.directions.count == 0 { 0 } else { a.len() });
            self.directions.for_each_group(mlp, |range, directions| {
                let u = directions.values();
                // Only the Jacobian norm is not linear in J.
                let (mut ju, mut v) = (Buffer::take(if norm_weight == E::zero() { 0 } else { u.len() }), Buffer::take(u.len()));
                let tangents = mlp.jvp_traced(&evaluation.trace, directions, &mut ju);
                trace_cotangents(&mut v, u, &ju, g, scale * self.directions.weight(), norm_weight);
                if range.start == 0 {
                    mlp.pullback_dual(&evaluation.trace, &tangents, &value, &v, z_bar, None, offset_bar, &mut sums[..network]);
                    // The other groups add their share of the trace alone.
                    value.fill(E::zero());
                } else {
                    mlp.pullback_dual(&evaluation.trace, &tangents, &value, &v, &mut part, None, offset_bar, &mut sums[..network]);
                    add(z_bar, &part);
                }
            });
        } else {
            value.iter_mut().zip(a).for_each(|(v, &a)| *v = scale * a);
            mlp.pullback(&evaluation.trace, &value, z_bar, offset_bar, &mut sums[..network]);
        }
        if sums.is_empty() { 0.0 } else { self.field.fold_time(evaluation, sums) }
    }

    /// Σ (g tr J + |g| p) over the rows at one evaluation.
    pub(crate) fn rate(&self, evaluation: &Evaluation<E>, f: &[E], g: &[E]) -> f64 {
        let integrals = Integrals::new(self.directions, true);
        let mut rates = Buffer::take(integrals.len());
        integrals.rates(self.field, evaluation, self.directions, f, &mut rates);
        let traces = rates[integrals.log_det.clone()].chunks_exact(self.lanes);
        let trace = self.directions.weight() * traces.map(|trace| dot(g, trace)).sum::<E>();
        let sizes: Vec<E> = g.iter().map(|&g| Float::abs(g)).collect();
        let [kinetic, jacobian] = [&integrals.kinetic, &integrals.jacobian].map(|range| dot(&sizes, &rates[range.clone()]).as_f64());
        trace.as_f64() + self.regularisation.kinetic * kinetic + self.regularisation.jacobian * jacobian
    }
}
