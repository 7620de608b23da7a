//! The autoregressive flow on a block of rows.

use crate::{AutoregressiveFlow, Inverse};
use flow_api::rows::{Direction, Lanes, Pull, RowKernel, RowTape};
use flow_api::{Context, Result, Scalar};
use flow_kernels::simd::add;
use flow_kernels::workspace::Buffer;
use flow_nets::{BoundWatch, ConditionerKernel, ConditionerNet, MaskedMlpKernel};

/// The flow made ready for one call.
pub(crate) struct Kernel<'a, E: Scalar> {
    pub(crate) flow: &'a AutoregressiveFlow<E>,
    pub(crate) net: MaskedMlpKernel<'a, E>,
    /// Features are in the order of the network as they lie.
    in_order: bool,
    watch: BoundWatch,
}

impl<'a, E: Scalar> Kernel<'a, E> {
    pub(crate) fn new(flow: &'a AutoregressiveFlow<E>, rows: usize, cx: &Context<E>) -> Self {
        let in_order = flow.order().iter().enumerate().all(|(place, &feature)| place == feature);
        Self { flow, net: flow.net.kernel(rows), in_order, watch: BoundWatch::new(cx) }
    }

    /// Calls `f` with the features in the order of the network, and puts them back.
    fn ordered<R>(&self, values: &mut [E], lanes: usize, f: impl FnOnce(&mut [E]) -> Result<R>) -> Result<R> {
        if self.in_order {
            return f(values);
        }
        let mut ordered = Buffer::take(values.len());
        for (to, &feature) in ordered.chunks_exact_mut(lanes.max(1)).zip(self.flow.order()) {
            to.copy_from_slice(&values[feature * lanes..][..lanes]);
        }
        let result = f(&mut ordered)?;
        for (from, &feature) in ordered.chunks_exact(lanes.max(1)).zip(self.flow.order()) {
            values[feature * lanes..][..lanes].copy_from_slice(from);
        }
        Ok(result)
    }

    /// y → x feature by feature, each with the parameters that those before it give.
    fn invert_by_steps(&self, values: &mut [E], lanes: &mut Lanes<'_, E>) -> Result<()> {
        let mut steps = self.net.steps(lanes.condition, lanes.lanes)?;
        for value in values.chunks_exact_mut(lanes.lanes.max(1)) {
            self.flow.transformer.inverse(value, steps.parameters(), lanes.log_det, &mut RowTape::idle());
            steps.push(value);
        }
        Ok(())
    }
}

impl<E: Scalar> RowKernel<E> for Kernel<'_, E> {
    fn forward(&self, values: &mut [E], lanes: &mut Lanes<'_, E>, tape: &mut RowTape<E>) -> Result<()> {
        self.ordered(values, lanes.lanes, |x| {
            let parameters = self.net.forward(x, lanes.condition, lanes.lanes, tape)?;
            self.watch.see(&self.flow.transformer, &parameters, lanes.lanes);
            self.flow.transformer.forward(x, parameters, lanes.log_det, tape);
            Ok(())
        })
    }

    fn prepare_for(&self, direction: Direction) {
        match (direction, self.flow.inverse) {
            (Direction::Inverse, Inverse::Sequential) => self.net.prepare_steps(),
            _ => self.net.prepare_forward(),
        }
    }

    fn inverse(&self, values: &mut [E], lanes: &mut Lanes<'_, E>) -> Result<()> {
        self.ordered(values, lanes.lanes, |y| match self.flow.inverse {
            Inverse::Sequential => self.invert_by_steps(y, lanes),
            Inverse::Jacobi(jacobi) => jacobi.invert(self, y, lanes),
        })
    }

    fn pullback(&self, cotangent: &mut [E], pull: &mut Pull<'_, E>, tape: &mut RowTape<E>, sums: &mut [E]) -> Result<()> {
        let lanes = pull.lanes;
        self.ordered(cotangent, lanes, |g| {
            let for_parameters = self.flow.transformer.pullback(g, pull.log_det, tape)?;
            let through_net = self.net.pullback(&for_parameters, lanes, tape, sums)?;
            let (for_values, for_condition) = through_net.split_at(self.flow.net.inputs() * lanes);
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
