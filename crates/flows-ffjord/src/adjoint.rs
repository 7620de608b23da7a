//! The continuous adjoint: gradients by an ODE that runs backwards with the state.

use crate::objective::Objective;
use crate::ode::{Layout, OdeError, Solver, System, Work};
use flow_kernels::Real;
use flow_kernels::simd::{axpy, dot, scale};
use flow_kernels::workspace::Buffer;
use num_traits::Float;
use serde::{Deserialize, Serialize};

/// Settings of the continuous adjoint (Pontryagin; Chen et al. 2018, arXiv:1806.07366, section 2).
///
/// With S = ⟨a, f⟩ + Σ (g tr J + |g| p), where g = ∂L/∂log|det J| is constant in time and p are the regularisers, the
/// system z' = f, a' = −∂S/∂z, θ' = −∂S/∂θ is solved from T back to 0, starting with z(T), ∂L/∂z(T) and 0. It ends with
/// x, ∂L/∂x and ∂L/∂θ, and needs of the forward pass nothing but z(T): memory does not depend on the steps. The
/// gradient is that of the exact flow up to the solver's tolerance, not that of the discrete steps.
///
/// # Tolerance
/// The cotangents of a block are divided by the largest of them before the solve, so that the absolute tolerance does
/// not depend on the loss's scale, and θ is controlled as the mean over the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Adjoint {
    /// Leave θ out of the error norm: it is a quadrature, nothing depends on it, and its error is small where z and a
    /// are smooth. Fewer evaluations (Kidger et al. 2021, "Hey, that's not an ODE", arXiv:2009.09457). Default true.
    pub seminorm: bool,
}

impl Default for Adjoint {
    fn default() -> Self {
        Self { seminorm: true }
    }
}

/// State: z and a (d × lanes each), then θ as the mean over the rows, then what the first layer's offset gets, row by
/// row.
struct AdjointSystem<'k, 'p, E: Real> {
    objective: &'k Objective<'k, 'p, E>,
    seminorm: bool,
    /// ∂L/∂log|det J| of every row.
    g: Buffer<E>,
    sums: Buffer<E>,
}

impl<E: Real> System<E> for AdjointSystem<'_, '_, E> {
    fn derivative(&mut self, t: f64, y: &[E], derivative: &mut [E]) {
        let block = self.objective.block();
        let (z, a) = y[..2 * block].split_at(block);
        let (dz, rest) = derivative.split_at_mut(block);
        let (da, rest) = rest.split_at_mut(block);
        let (dtheta, doffset) = rest.split_at_mut(self.objective.field.parameters.min(rest.len()));
        let evaluation = self.objective.evaluate(t, z, dz);
        let sums = if dtheta.is_empty() { &mut [] } else { &mut self.sums[..] };
        doffset.fill(E::zero());
        self.objective.pull(&evaluation, dz, -E::one(), a, Some(&self.g), da, doffset, sums);
        dtheta.copy_from_slice(&self.sums[..dtheta.len()]);
        scale(dtheta, E::of(1.0 / self.objective.lanes as f64));
    }

    fn layout(&self, len: usize) -> Layout {
        let block = self.objective.block();
        let mut controlled = vec![0..block, block..2 * block];
        if !self.seminorm {
            let theta = 2 * block + self.objective.field.parameters;
            controlled.extend([2 * block..theta, theta..len].into_iter().filter(|part| !part.is_empty()));
        }
        Layout { coupled: 2 * block, controlled }
    }
}

impl Adjoint {
    /// z(T) → x and ∂L/∂z(T) → ∂L/∂x in place, with g = ∂L/∂log|det J|; adds ∂L/∂θ to `sums` and the offset's cotangent
    /// to `offset_bar`, and returns ∂L/∂T if `for_end` asks for it.
    #[allow(clippy::too_many_arguments, reason = "three arguments are results")]
    pub(crate) fn pull<E: Real>(
        self,
        objective: &Objective<'_, '_, E>,
        solver: &Solver,
        end: f64,
        z: &mut [E],
        cotangent: &mut [E],
        g: &[E],
        offset_bar: &mut [E],
        sums: &mut [E],
        for_end: bool,
    ) -> Result<(f64, Work), OdeError> {
        let block = objective.block();
        let largest = cotangent.iter().chain(g).fold(E::zero(), |largest, c| largest.max(Float::abs(*c)));
        let size = if largest > E::zero() && Float::is_finite(largest) { largest } else { E::one() };
        let parameters = objective.field.parameters;
        let mut state = Buffer::zeroed(2 * block + parameters + objective.offset.len());
        state[..block].copy_from_slice(z);
        state[block..2 * block].iter_mut().zip(&*cotangent).for_each(|(a, &c)| *a = c / size);
        let mut scaled_g = Buffer::take(g.len());
        scaled_g.iter_mut().zip(g).for_each(|(scaled, &g)| *scaled = g / size);
        let mut end_gradient = 0.0;
        if for_end {
            // ∂L/∂T = ⟨a(T), f(z(T), T)⟩ + Σ (g tr J + |g| p).
            let mut f = Buffer::take(block);
            let evaluation = objective.evaluate(end, z, &mut f);
            end_gradient = dot(cotangent, &f).as_f64() + objective.rate(&evaluation, &f, g);
        }
        let sums_len = objective.field.sums_len();
        let mut system = AdjointSystem { objective, seminorm: self.seminorm, g: scaled_g, sums: Buffer::take(sums_len) };
        let mut work = solver.solve(&mut system, end, 0.0, &mut state)?;
        work.evaluations += usize::from(for_end);
        z.copy_from_slice(&state[..block]);
        cotangent.iter_mut().zip(&state[block..2 * block]).for_each(|(c, &a)| *c = size * a);
        let total = size * E::of(objective.lanes as f64);
        let (theta, offset) = state[2 * block..].split_at(parameters);
        sums.iter_mut().zip(theta).for_each(|(sum, &theta)| *sum += total * theta);
        axpy(offset_bar, size, offset);
        Ok((end_gradient, work))
    }
}
