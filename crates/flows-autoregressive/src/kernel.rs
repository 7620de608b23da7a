//! The autoregressive flow on a block of rows.

use crate::{Inverse, Jacobi};
use flow_api::log_det::SolveReport;
use flow_api::rows::{Direction, Lanes, Pull, RowKernel, RowTape};
use flow_api::{Context, Result, Scalar};
use flow_kernels::simd::add;
use flow_kernels::workspace::Buffer;
use flow_nets::{BoundWatch, ConditionerKernel, MaskedMlpKernel, Transformer};

/// The flow made ready for one call.
pub(crate) struct Kernel<'a, E: Scalar> {
    net: MaskedMlpKernel<'a, E>,
    transformer: &'a dyn Transformer<E>,
    /// The feature at each place of the network.
    order: &'a [usize],
    inverse: Inverse,
    /// Features are in the order of the network as they lie.
    in_order: bool,
    watch: BoundWatch,
}

impl<'a, E: Scalar> Kernel<'a, E> {
    pub(crate) fn new(
        net: MaskedMlpKernel<'a, E>,
        transformer: &'a dyn Transformer<E>,
        order: &'a [usize],
        inverse: Inverse,
        cx: &Context<E>,
    ) -> Self {
        let in_order = order.iter().enumerate().all(|(place, &feature)| place == feature);
        Self { net, transformer, order, inverse, in_order, watch: BoundWatch::new(cx) }
    }

    /// Calls `f` with the features in the order of the network, and puts them back.
    fn ordered<R>(&self, values: &mut [E], lanes: usize, f: impl FnOnce(&mut [E]) -> Result<R>) -> Result<R> {
        if self.in_order {
            return f(values);
        }
        let mut ordered = Buffer::take(values.len());
        for (to, &feature) in ordered.chunks_exact_mut(lanes.max(1)).zip(self.order) {
            to.copy_from_slice(&values[feature * lanes..][..lanes]);
        }
        let result = f(&mut ordered)?;
        for (from, &feature) in ordered.chunks_exact(lanes.max(1)).zip(self.order) {
            values[feature * lanes..][..lanes].copy_from_slice(from);
        }
        Ok(result)
    }

    /// y → x feature by feature, each with the parameters that those before it give.
    fn invert_by_steps(&self, values: &mut [E], lanes: &mut Lanes<'_, E>) -> Result<()> {
        let mut steps = self.net.steps(lanes.condition, lanes.lanes)?;
        for value in values.chunks_exact_mut(lanes.lanes.max(1)) {
            self.transformer.inverse(value, steps.parameters(), lanes.log_det, &mut RowTape::idle());
            steps.push(value);
        }
        Ok(())
    }

    /// y → x for all features at once until nothing changes; adds the log-dets and the report.
    fn invert_at_once(&self, jacobi: Jacobi, values: &mut [E], lanes: &mut Lanes<'_, E>) -> Result<()> {
        let count = lanes.lanes;
        let dim = values.len() / count.max(1);
        let tolerance = jacobi.tolerance.unwrap_or(if size_of::<E>() == 4 { 1e-5 } else { 1e-10 });
        let y = Buffer::copy_of(values);
        let mut report = SolveReport::default();
        let mut open = vec![true; count];
        while open.contains(&true) {
            let parameters = self.net.forward(values, lanes.condition, count, &mut RowTape::idle())?;
            report.iterations += 1;
            let (mut back, mut log_slopes) = (Buffer::copy_of(values), Buffer::zeroed(count));
            self.transformer.forward(&mut back, Buffer::copy_of(&parameters), &mut log_slopes, &mut RowTape::idle());
            for (lane, open) in open.iter_mut().enumerate().filter(|(_, open)| **open) {
                let residual = (0..dim).map(|j| (back[j * count + lane] - y[j * count + lane]).as_f64().abs()).fold(0.0, largest);
                if residual <= tolerance || report.iterations > dim {
                    *open = false;
                    report.residual = largest(report.residual, residual);
                    lanes.log_det[lane] -= log_slopes[lane];
                }
            }
            if open.contains(&true) {
                let mut next = Buffer::copy_of(&y);
                self.transformer.inverse(&mut next, parameters, &mut log_slopes, &mut RowTape::idle());
                for (x, next) in values.chunks_exact_mut(count).zip(next.chunks_exact(count)) {
                    x.iter_mut().zip(next).zip(&open).filter(|(_, open)| **open).for_each(|((x, &next), _)| *x = next);
                }
            }
        }
        report.evaluations = report.iterations;
        *lanes.report = lanes.report.then(report);
        Ok(())
    }
}

/// The larger number; one that is none is the largest.
fn largest(a: f64, b: f64) -> f64 {
    if a.is_nan() || a > b { a } else { b }
}

impl<E: Scalar> RowKernel<E> for Kernel<'_, E> {
    fn forward(&self, values: &mut [E], lanes: &mut Lanes<'_, E>, tape: &mut RowTape<E>) -> Result<()> {
        self.ordered(values, lanes.lanes, |x| {
            let parameters = self.net.forward(x, lanes.condition, lanes.lanes, tape)?;
            self.watch.see(self.transformer, &parameters, lanes.lanes);
            self.transformer.forward(x, parameters, lanes.log_det, tape);
            Ok(())
        })
    }

    fn prepare_for(&self, direction: Direction) {
        match (direction, self.inverse) {
            (Direction::Inverse, Inverse::Sequential) => self.net.prepare_steps(),
            _ => self.net.prepare_forward(),
        }
    }

    fn inverse(&self, values: &mut [E], lanes: &mut Lanes<'_, E>) -> Result<()> {
        self.ordered(values, lanes.lanes, |y| match self.inverse {
            Inverse::Sequential => self.invert_by_steps(y, lanes),
            Inverse::Jacobi(jacobi) => self.invert_at_once(jacobi, y, lanes),
        })
    }

    fn pullback(&self, cotangent: &mut [E], pull: &mut Pull<'_, E>, tape: &mut RowTape<E>, sums: &mut [E]) -> Result<()> {
        let lanes = pull.lanes;
        self.ordered(cotangent, lanes, |g| {
            let for_parameters = self.transformer.pullback(g, pull.log_det, tape)?;
            let through_net = self.net.pullback(&for_parameters, lanes, tape, sums)?;
            let (for_values, for_condition) = through_net.split_at(self.order.len() * lanes);
            add(g, for_values);
            if let Some(total) = pull.condition_cotangent.as_deref_mut().filter(|_| !for_condition.is_empty()) {
                add(total, for_condition);
            }
            Ok(())
        })
    }

    fn sums_len(&self) -> usize {
        self.net.sums_len()
    }

    fn finish(&self, sums: &[E], _: E, gradients: &mut [E]) -> Result<()> {
        self.net.finish(sums, gradients);
        Ok(())
    }
}
