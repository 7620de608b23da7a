//! The residual flow on a block of rows.

use crate::estimate::{Block, Pairs, estimate, pull};
use crate::exact::{Matrices, WIDE};
use crate::inverse::FixedPoint;
use crate::lanes::{multiply, pick};
use crate::network::ChainRule;
use crate::series::Series;
use flow_api::bijector::foreign_point;
use flow_api::rows::{Lanes, Pull, RowKernel, RowTape};
use flow_api::{FlowError, Result, Scalar};
use flow_kernels::matmul::{Accumulate, Operand, matmul};
use flow_kernels::noise::Stream;
use flow_kernels::simd::add;
use flow_kernels::workspace::Buffer;
use flow_nets::smooth::{ConditionInput, MlpKernel, Modulation, Trace};
use num_traits::Float;

/// Columns (unit tangents × lanes) of an exact gradient that go through the network at once, so that its layers stay in
/// the L2 cache.
const COLUMNS: usize = 768;

/// A residual flow made ready for one call.
pub(crate) struct ResidualKernel<'a, E: Scalar> {
    pub(crate) chain_rule: ChainRule<'a, E>,
    pub(crate) mlp: MlpKernel<'a, E>,
    pub(crate) condition: &'a ConditionInput<E>,
    /// None: exact.
    pub(crate) series: Option<Series>,
    pub(crate) inverse: FixedPoint,
    pub(crate) noise: Stream,
    pub(crate) wants_log_det: bool,
    pub(crate) parameters: usize,
}

impl<E: Scalar> ResidualKernel<'_, E> {
    fn trace(&self, x: &[E], offset: &[E], lanes: usize, g: &mut [E]) -> Trace<E> {
        self.mlp.forward_traced(x, lanes, Modulation { offset, ..Modulation::default() }, g)
    }

    /// log|det(I + J)| of every lane and, of an estimate, the squared standard error and what its gradient needs.
    fn log_dets(&self, block: &Block<'_, E>, first_row: u64, recording: bool) -> LogDets<E> {
        let mut log_dets = LogDets { value: Buffer::zeroed(block.lanes), variance: Buffer::zeroed(block.lanes), pairs: Vec::new() };
        match &self.series {
            _ if !self.wants_log_det => {}
            None => self.exact_log_dets(block, &mut log_dets.value),
            Some(series) => {
                let LogDets { value, variance, pairs } = &mut log_dets;
                *pairs = estimate(block, series, &self.noise, first_row, value, variance, recording);
            }
        }
        log_dets
    }

    fn exact_log_dets(&self, block: &Block<'_, E>, out: &mut [E]) {
        let (size, matrices) = self.smaller_jacobians(block);
        for (group, out) in out.chunks_mut(WIDE).enumerate() {
            let matrices = &matrices[group * WIDE * size * size..];
            let log_dets = Matrices::identity_plus(size, out.len(), |index, r| matrices[r * size * size + index]).log_dets();
            out.copy_from_slice(&log_dets[..out.len()]);
        }
    }

    /// J of every lane, or B A where J = A B through a hidden layer that is narrower: det(I + A B) = det(I + B A).
    fn smaller_jacobians(&self, block: &Block<'_, E>) -> (usize, Buffer<E>) {
        let dim = self.mlp.input();
        let Some(factors) = self.mlp.jacobian_factors(block.trace) else {
            let mut jacobians = Buffer::take(block.lanes * dim * dim);
            self.mlp.jacobian(block.trace, &mut jacobians);
            return (dim, jacobians);
        };
        let inner = factors.inner;
        let mut products = Buffer::take(block.lanes * inner * inner);
        let pairs = factors.b.chunks_exact(inner * dim).zip(factors.a.chunks_exact(inner * dim));
        for (product, (b, a)) in products.chunks_exact_mut(inner * inner).zip(pairs) {
            matmul(product, Accumulate::Replace, Operand::new(b, inner, dim), Operand::new(a, dim, inner));
        }
        (inner, products)
    }

    /// ∂L/∂y → ∂L/∂x for the exact log-det: ∇log|det(I + J)| = tr((I + J)⁻¹ ∇J) = Σₖ vₖᵀ ∇J eₖ, with vₖ the k-th row of
    /// (I + J)⁻¹ held fixed. Adds what the offset gets to its cotangent.
    fn pull_exact(&self, at: &Conditioned<'_, E>, cotangent: &mut [E], offset_cotangent: &mut [E], factors: &[E], sums: &mut [E]) {
        let (dim, lanes) = (self.mlp.input(), factors.len());
        let step = (COLUMNS / dim / WIDE).max(1) * WIDE;
        for first in (0..lanes).step_by(step) {
            let width = step.min(lanes - first);
            let part = |block: &[E]| {
                let mut part = Buffer::take(block.len() / lanes * width);
                for (part, row) in part.chunks_exact_mut(width).zip(block.chunks_exact(lanes)) {
                    part.copy_from_slice(&row[first..first + width]);
                }
                part
            };
            let mut scratch = Buffer::take(dim * width);
            let trace = self.trace(&part(at.x), &part(at.offset), width, &mut scratch);
            let columns = dim * width;
            let mut units = Buffer::zeroed(dim * columns);
            for (j, row) in units.chunks_exact_mut(columns).enumerate() {
                row[j * width..(j + 1) * width].fill(E::one());
            }
            let mut jacobians = Buffer::take(dim * columns);
            let units = self.mlp.tangents(units);
            let tangents = self.mlp.jvp_traced(&trace, &units, &mut jacobians);
            let mut cotangents = Buffer::take(dim * columns);
            for group in (0..width).step_by(WIDE) {
                let own = WIDE.min(width - group);
                let mut inverse = Matrices::identity_plus(dim, own, |index, r| jacobians[index * width + group + r]);
                inverse.invert();
                for (index, element) in inverse.elements.chunks_exact(WIDE).enumerate() {
                    let (k, i) = (index / dim, index % dim);
                    cotangents[(i * dim + k) * width + group..][..own].copy_from_slice(&element[..own]);
                }
            }
            multiply(&mut cotangents, &factors[first..first + width]);
            let (own, mut own_offset) = (part(cotangent), Buffer::zeroed(offset_cotangent.len() / lanes * width));
            self.mlp.pullback_dual(&trace, &tangents, &own, &cotangents, &mut scratch, None, &mut own_offset, sums);
            for (total, pulled) in [(&mut *cotangent, &scratch), (&mut *offset_cotangent, &own_offset)] {
                for (row, pulled) in total.chunks_exact_mut(lanes).zip(pulled.chunks_exact(width)) {
                    add(&mut row[first..first + width], pulled);
                }
            }
        }
    }

    /// ∂L/∂y → ∂L/∂x in place; adds to the cotangent of the offset and to the network's sums.
    fn pull_through(
        &self,
        at: &Conditioned<'_, E>,
        cotangent: &mut [E],
        offset_cotangent: &mut [E],
        log_det: &[E],
        tape: &mut RowTape<E>,
        sums: &mut [E],
    ) -> Result<()> {
        let (lanes, mut pulled) = (log_det.len(), Buffer::take(cotangent.len()));
        let trace = match &self.series {
            None if self.wants_log_det => {
                self.pull_exact(at, cotangent, offset_cotangent, log_det, sums);
                return Ok(());
            }
            None => self.trace(at.x, at.offset, lanes, &mut pulled),
            Some(_) => Trace::from_values(tape.pop()?, lanes),
        };
        self.mlp.pullback(&trace, cotangent, &mut pulled, offset_cotangent, sums);
        if let Some(series) = self.series.as_ref().filter(|_| self.wants_log_det) {
            let weight = E::of(1.0 / series.probes as f64);
            let factors: Vec<E> = log_det.iter().map(|&factor| weight * factor).collect();
            let block = Block { mlp: &self.mlp, x: at.x, offset: at.offset, trace: &trace, lanes };
            for _ in 0..series.probes {
                pull(&block, &Pairs::pop(tape)?, &factors, &mut pulled, offset_cotangent, sums);
            }
        }
        add(cotangent, &pulled);
        Ok(())
    }
}

/// A block's x, and its offset of the first layer.
struct Conditioned<'b, E> {
    x: &'b [E],
    offset: &'b [E],
}

struct LogDets<E: Scalar> {
    value: Buffer<E>,
    variance: Buffer<E>,
    pairs: Vec<Pairs<E>>,
}

/// Every number of the block is one.
fn check_finite<E: Scalar>(what: &'static str, values: &[E], lanes: &Lanes<'_, E>) -> Result<()> {
    match values.iter().position(|x| !Float::is_finite(*x)) {
        None => Ok(()),
        Some(at) => {
            let row = usize::try_from(lanes.first_row).unwrap_or(usize::MAX).saturating_add(at % lanes.lanes);
            Err(FlowError::NotFinite { layer: String::new(), what, row })
        }
    }
}

impl<E: Scalar> RowKernel<E> for ResidualKernel<'_, E> {
    /// Leaves on the tape: x; for an estimate also the network's trace and the pairs of every probe.
    fn forward(&self, values: &mut [E], lanes: &mut Lanes<'_, E>, tape: &mut RowTape<E>) -> Result<()> {
        check_finite("the input", values, lanes)?;
        let x = Buffer::copy_of(values);
        let mut g = Buffer::take(values.len());
        let offset = self.condition.offset(lanes.condition, lanes.lanes)?;
        let trace = self.trace(&x, &offset, lanes.lanes, &mut g);
        lanes.report.evaluations += 1;
        add(values, &g);
        let block = Block { mlp: &self.mlp, x: &x, offset: &offset, trace: &trace, lanes: lanes.lanes };
        let log_dets = self.log_dets(&block, lanes.first_row, tape.is_recording());
        add(lanes.log_det, &log_dets.value);
        add(lanes.variance, &log_dets.variance);
        if tape.is_recording() {
            if self.series.is_some() {
                log_dets.pairs.into_iter().for_each(|pairs| pairs.push(tape));
                tape.push(trace.into_values());
            }
            tape.push(x);
        }
        Ok(())
    }

    fn estimates(&self) -> bool {
        self.series.is_some()
    }

    fn inverse(&self, values: &mut [E], lanes: &mut Lanes<'_, E>) -> Result<()> {
        check_finite("the input of the inverse", values, lanes)?;
        let offset = self.condition.offset(lanes.condition, lanes.lanes)?;
        let report = self.inverse.solve(values, lanes.lanes, lanes.first_row, |x, places, g| {
            // Rows leave the iteration one after the other, and take their offsets with them.
            let offset = pick(&offset, lanes.lanes, places);
            self.mlp.forward(x, places.len(), Modulation { offset: &offset, ..Modulation::default() }, g);
        })?;
        *lanes.report = lanes.report.then(report);
        if self.wants_log_det {
            let mut g = Buffer::take(values.len());
            let trace = self.trace(values, &offset, lanes.lanes, &mut g);
            let block = Block { mlp: &self.mlp, x: values, offset: &offset, trace: &trace, lanes: lanes.lanes };
            let log_dets = self.log_dets(&block, lanes.first_row, false);
            lanes.log_det.iter_mut().zip(log_dets.value.iter()).for_each(|(sum, &own)| *sum -= own);
            add(lanes.variance, &log_dets.variance);
        }
        Ok(())
    }

    fn pullback(&self, cotangent: &mut [E], pull_of: &mut Pull<'_, E>, tape: &mut RowTape<E>, sums: &mut [E]) -> Result<()> {
        let x = tape.pop()?;
        if x.len() != cotangent.len() {
            return Err(foreign_point(""));
        }
        let lanes = pull_of.lanes;
        let (sums, for_condition) = sums.split_at_mut(self.mlp.sums_len());
        let offset = self.condition.offset(pull_of.condition, lanes)?;
        let mut through_offset = Buffer::zeroed(offset.len());
        self.pull_through(&Conditioned { x: &x, offset: &offset }, cotangent, &mut through_offset, pull_of.log_det, tape, sums)?;
        let onto_condition = pull_of.condition_cotangent.as_deref_mut();
        self.condition.pullback(pull_of.condition, &through_offset, lanes, onto_condition, for_condition)
    }

    fn sums_len(&self) -> usize {
        self.mlp.sums_len() + self.condition.sums_len()
    }

    fn finish(&self, sums: &[E], _: E, gradients: &mut [E]) -> Result<()> {
        debug_assert_eq!(gradients.len(), self.parameters);
        let (sums, of_condition) = sums.split_at(self.mlp.sums_len());
        let (gradients, for_condition) = gradients.split_at_mut(gradients.len() - of_condition.len());
        self.chain_rule.add_gradients(&self.mlp, sums, gradients);
        add(for_condition, of_condition);
        Ok(())
    }
}
