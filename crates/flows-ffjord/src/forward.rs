//! The flow as a system: the state z, and behind it the integrals along its path.

use crate::field::FieldKernel;
use crate::ode::{Layout, System};
use crate::trace::{Directions, Integrals};
use flow_kernels::Real;

/// dz/dt = f, and the integrands, if any are wanted. State: z (d × lanes), then the integrals.
#[derive(Debug)]
pub(crate) struct FlowSystem<'k, 'p, E: Real> {
    pub(crate) field: &'k FieldKernel<'p, E>,
    /// The block's offset of the field's first layer.
    pub(crate) offset: &'k [E],
    pub(crate) lanes: usize,
    pub(crate) integrals: Option<(&'k Directions<E>, &'k Integrals)>,
}

impl<E: Real> System<E> for FlowSystem<'_, '_, E> {
    fn derivative(&mut self, t: f64, y: &[E], derivative: &mut [E]) {
        let block = self.field.dim() * self.lanes;
        let z = &y[..block];
        let (dz, rates) = derivative.split_at_mut(block);
        match self.integrals {
            Some((directions, integrals)) if !rates.is_empty() => {
                let trace_alone = directions.is_exact() && integrals.len() == integrals.log_det.len();
                if trace_alone && self.field.value_and_trace(t, z, self.offset, self.lanes, dz, rates) {
                    return;
                }
                let evaluation = self.field.evaluate(t, z, self.offset, self.lanes, dz);
                integrals.rates(self.field, &evaluation, directions, dz, rates);
            }
            _ => self.field.value(t, z, self.offset, self.lanes, dz),
        }
    }

    /// The error of z and of the log-det is controlled; the bound on its standard error and the regularisers follow
    /// along.
    fn layout(&self, len: usize) -> Layout {
        let block = self.field.dim() * self.lanes;
        let log_det = self.integrals.map_or(0, |(_, integrals)| integrals.log_det.len());
        Layout { coupled: block.min(len), controlled: vec![0..block, block..block + log_det] }
    }
}
