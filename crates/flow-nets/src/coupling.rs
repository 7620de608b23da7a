//! What a coupling does to a block: one mechanism for every partition, transformer and conditioner.

use crate::{BoundWatch, ConditionerKernel, Partition, Transformer};
use flow_api::rows::{Direction, Lanes, Pull, RowKernel, RowTape};
use flow_api::{Context, Result, Scalar};
use flow_kernels::simd::add;

/// A coupling made ready for one call: some features pass, a network of them, and of the condition, gives the
/// parameters with which a transformer moves the others one by one.
///
/// The inverse costs what the forward map does, and a pullback from the output runs the conditioner once, as one from
/// the input does. Lanes may belong together, as the pixels of an image do for a convolutional conditioner: what is
/// done to them here is done lane by lane.
pub struct CouplingKernel<'a, T, E: Scalar> {
    partition: Partition,
    net: Box<dyn ConditionerKernel<E> + 'a>,
    transformer: &'a T,
    watch: BoundWatch,
}

impl<'a, T: Transformer<E>, E: Scalar> CouplingKernel<'a, T, E> {
    /// A coupling whose conditioner has as many inputs as features pass, and [`Transformer::parameters`] outputs for
    /// every other one, feature by feature; the context is the coupling's.
    pub fn new(partition: Partition, net: Box<dyn ConditionerKernel<E> + 'a>, transformer: &'a T, cx: &Context<E>) -> Self {
        Self { partition, net, transformer, watch: BoundWatch::new(cx) }
    }

    fn inverse_keeping(&self, values: &mut [E], lanes: &mut Lanes<'_, E>, tape: &mut RowTape<E>) -> Result<()> {
        let Partition { identity, transformed } = self.partition;
        let parameters = identity.read(values, lanes.lanes, |kept| self.net.forward(kept, lanes.condition, lanes.lanes, tape))?;
        transformed.update(values, lanes.lanes, |y| self.transformer.inverse(y, parameters, lanes.log_det, tape));
        Ok(())
    }
}

impl<T: Transformer<E>, E: Scalar> RowKernel<E> for CouplingKernel<'_, T, E> {
    fn forward(&self, values: &mut [E], lanes: &mut Lanes<'_, E>, tape: &mut RowTape<E>) -> Result<()> {
        let Partition { identity, transformed } = self.partition;
        let parameters = identity.read(values, lanes.lanes, |kept| self.net.forward(kept, lanes.condition, lanes.lanes, tape))?;
        self.watch.see(self.transformer, &parameters, lanes.lanes);
        transformed.update(values, lanes.lanes, |x| self.transformer.forward(x, parameters, lanes.log_det, tape));
        Ok(())
    }

    /// The conditioner runs forward in both.
    fn prepare_for(&self, _: Direction) {
        self.net.prepare_forward();
    }

    fn inverse(&self, values: &mut [E], lanes: &mut Lanes<'_, E>) -> Result<()> {
        self.inverse_keeping(values, lanes, &mut RowTape::idle())
    }

    fn pullback(&self, cotangent: &mut [E], pull: &mut Pull<'_, E>, tape: &mut RowTape<E>, sums: &mut [E]) -> Result<()> {
        let Partition { identity, transformed } = self.partition;
        let parameters = transformed.update(cotangent, pull.lanes, |g| self.transformer.pullback(g, pull.log_det, tape))?;
        let through_net = self.net.pullback(&parameters, pull.lanes, tape, sums)?;
        let (for_kept, for_condition) = through_net.split_at(identity.len() * pull.lanes);
        identity.update(cotangent, pull.lanes, |g| add(g, for_kept));
        if let Some(total) = pull.condition_cotangent.as_deref_mut().filter(|_| !for_condition.is_empty()) {
            add(total, for_condition);
        }
        Ok(())
    }

    fn pullback_inverting(&self, values: &mut [E], cotangent: &mut [E], pull: &mut Pull<'_, E>, sums: &mut [E]) -> Result<()> {
        // The conditioner sees the same features from either side, so the inverse leaves the tape of the forward pass.
        let mut tape = RowTape::recording();
        pull.with_lanes(|lanes| self.inverse_keeping(values, lanes, &mut tape))?;
        self.pullback(cotangent, pull, &mut tape, sums)
    }

    fn sums_len(&self) -> usize {
        self.net.sums_len()
    }

    fn finish(&self, sums: &[E], _: E, gradients: &mut [E]) -> Result<()> {
        self.net.finish(sums, gradients);
        Ok(())
    }
}

impl<T: std::fmt::Debug, E: Scalar> std::fmt::Debug for CouplingKernel<'_, T, E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CouplingKernel").field("partition", &self.partition).field("transformer", &self.transformer).finish_non_exhaustive()
    }
}
