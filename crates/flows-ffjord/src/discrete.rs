//! Discretise, then differentiate: the gradient of the steps of a fixed grid themselves.
//!
//! With stages Yᵢ = z + h Σⱼ aᵢⱼ kⱼ and kᵢ = f(Yᵢ, tᵢ), a step takes z to z + h Σ bᵢ kᵢ and adds h Σ bᵢ tr J(Yᵢ, tᵢ) to
//! the log-det. Its reverse, with q = Σ (g tr J + |g| p) over the rows (the log-dets' factors g, regularisers p; all bᵢ
//! are at least 0, and h is greater), from the last stage to the first:
//! ```text
//! k̄ᵢ = h (bᵢ z̄⁺ + Σ_{j>i} aⱼᵢ λⱼ)          λᵢ = ∂/∂Yᵢ (⟨k̄ᵢ, f⟩ + h bᵢ q)          z̄ = z̄⁺ + Σ λᵢ
//! ∂L/∂h = Σᵢ (⟨k̄ᵢ, kᵢ⟩ / h + bᵢ q)
//! ```
//! and, for the end time, h = T / N and tᵢ = (n + cᵢ) T / N. The forward pass leaves every ⌈√N⌉-th state; a segment's
//! states are computed again when the reverse pass comes to it, so about 2 √N blocks are alive at a time.

use crate::field::{Evaluation, solve_error};
use crate::forward::FlowSystem;
use crate::objective::Objective;
use crate::ode::combine::{combine, terms};
use crate::ode::tableau::Tableau;
use crate::ode::{Grid, System, Work, advance};
use flow_api::Result;
use flow_kernels::Real;
use flow_kernels::simd::{add, axpy, dot};
use flow_kernels::workspace::Buffer;
use std::ops::Range;

/// The segments that a grid of so many steps is cut into.
fn segments(steps: usize) -> impl DoubleEndedIterator<Item = Range<usize>> + ExactSizeIterator {
    let length = steps.isqrt() + usize::from(steps.isqrt().pow(2) < steps);
    (0..steps.div_ceil(length.max(1))).map(move |i| i * length..steps.min((i + 1) * length))
}

/// A forward solve that leaves the states at the beginnings of all segments, one behind the other.
pub(crate) fn solve_with_checkpoints<E: Real>(
    tableau: &Tableau,
    system: &mut FlowSystem<'_, '_, E>,
    grid: Grid,
    state: &mut [E],
) -> (Buffer<E>, Work) {
    let block = system.layout(state.len()).coupled;
    let mut checkpoints = Buffer::take(segments(grid.steps).len() * block);
    let mut work = Work::default();
    for (segment, checkpoint) in segments(grid.steps).zip(checkpoints.chunks_exact_mut(block.max(1))) {
        checkpoint.copy_from_slice(&state[..block]);
        let part = advance(tableau, system, grid, segment, state);
        work.evaluations += part.evaluations;
        work.accepted += part.accepted;
    }
    (checkpoints, work)
}

/// The reverse of a forward solve.
pub(crate) struct Reverse<'k, 'p, E: Real> {
    pub(crate) objective: &'k Objective<'k, 'p, E>,
    pub(crate) tableau: &'static Tableau,
    pub(crate) grid: Grid,
    /// ∂L/∂log|det J| of every row.
    pub(crate) g: &'k [E],
    /// Whether ∂L/∂T is wanted.
    pub(crate) for_end: bool,
}

impl<E: Real> Reverse<'_, '_, E> {
    /// ∂L/∂z(T) → ∂L/∂x in place; adds ∂L/∂θ to `sums` and the offset's cotangent to `offset_bar`, and returns ∂L/∂T.
    pub(crate) fn pull(
        &self,
        checkpoints: &[E],
        first_row: u64,
        cotangent: &mut [E],
        offset_bar: &mut [E],
        sums: &mut [E],
    ) -> Result<(f64, Work)> {
        let block = self.objective.block();
        let lanes = self.objective.lanes;
        if checkpoints.len() != segments(self.grid.steps).len() * block {
            return Err(flow_api::bijector::foreign_point(""));
        }
        let mut field = FlowSystem { field: self.objective.field, offset: self.objective.offset, lanes, integrals: None };
        let (mut end_gradient, mut work) = (0.0, Work::default());
        for (segment, checkpoint) in segments(self.grid.steps).zip(checkpoints.chunks_exact(block.max(1))).rev() {
            let mut states: Vec<Buffer<E>> = Vec::with_capacity(segment.len());
            let mut z = Buffer::copy_of(checkpoint);
            for step in segment.clone() {
                states.push(Buffer::copy_of(&z));
                if step + 1 < segment.end {
                    work.evaluations += advance(self.tableau, &mut field, self.grid, step..step + 1, &mut z).evaluations;
                }
            }
            for (step, z) in segment.zip(&states).rev() {
                end_gradient += self.step(step, z, cotangent, offset_bar, sums);
                work.evaluations += self.tableau.nodes.len();
                work.accepted += 1;
            }
        }
        crate::ode::finite("the gradient", cotangent).map_err(|e| solve_error(e, lanes, first_row))?;
        Ok((end_gradient, work))
    }

    /// The reverse of one step, from its beginning z; returns its share of ∂L/∂T.
    fn step(&self, step: usize, z: &[E], cotangent: &mut [E], offset_bar: &mut [E], sums: &mut [E]) -> f64 {
        let Self { objective, tableau, grid, g, .. } = self;
        let h = grid.dt();
        let mut k: Vec<Buffer<E>> = Vec::with_capacity(tableau.nodes.len());
        let mut evaluations: Vec<Evaluation<E>> = Vec::with_capacity(tableau.nodes.len());
        let mut stage = Buffer::take(z.len());
        for (&node, row) in tableau.nodes.iter().zip(tableau.stages) {
            combine(&mut stage, z, &terms(h, row, &k));
            let mut slope = Buffer::take(z.len());
            evaluations.push(objective.evaluate(grid.time(step, node), &stage, &mut slope));
            k.push(slope);
        }
        let mut end_gradient = 0.0;
        // λ of the stages behind the current one, the last stage first.
        let mut later: Vec<Buffer<E>> = Vec::with_capacity(tableau.nodes.len());
        let mut k_bar = Buffer::take(z.len());
        let mut stage_g = Buffer::take(g.len());
        let mut stage_sums = Buffer::take(objective.field.sums_len());
        for (i, evaluation) in evaluations.iter().enumerate().rev() {
            let weight = tableau.weights[i];
            k_bar.iter_mut().zip(&*cotangent).for_each(|(k, &c)| *k = E::of(h * weight) * c);
            for (row, lambda) in tableau.stages.iter().rev().zip(&later) {
                axpy(&mut k_bar, E::of(h * row[i]), lambda);
            }
            stage_g.iter_mut().zip(*g).for_each(|(s, &g)| *s = E::of(h * weight) * g);
            // A stage without weight adds nothing to the log-det.
            let stage_g = (weight.abs() > 0.0).then_some(&stage_g[..]);
            let mut lambda = Buffer::take(z.len());
            let for_time = objective.pull(evaluation, &k[i], E::one(), &k_bar, stage_g, &mut lambda, offset_bar, &mut stage_sums);
            add(&mut sums[..objective.field.parameters], &stage_sums[..objective.field.parameters]);
            if self.for_end {
                let rate = if stage_g.is_some() { weight * objective.rate(evaluation, &k[i], g) } else { 0.0 };
                let for_h = dot(&k_bar, &k[i]).as_f64() / h + rate;
                end_gradient += for_h / grid.steps as f64 + for_time * grid.fraction(step, tableau.nodes[i]);
            }
            later.push(lambda);
        }
        for lambda in &later {
            add(cotangent, lambda);
        }
        end_gradient
    }
}
