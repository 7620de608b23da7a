//! Groups of samples on their way through the layers, and what is kept of each for the way back.

use super::flow::{SampleKernel, SamplePoint, SamplePull, SampleTape, Samples};
use crate::context::Keep;
use crate::error::foreign_point;
use crate::log_det::SolveReport;
use crate::rows::HostCondition;
use crate::{Result, Scalar};
use flow_kernels::workspace::Buffer;

/// A flow made ready for one call.
pub(crate) struct Ready<'a, E: Scalar> {
    /// Its path, for errors and gradients.
    pub(crate) path: String,
    /// Its kernel.
    pub(crate) kernel: Box<dyn SampleKernel<E> + 'a>,
}

/// What every group of a batch has in common.
#[derive(Clone, Copy)]
pub(super) struct Batch<'a, E> {
    pub(super) condition: Option<&'a HostCondition<E>>,
    /// There are so few groups that kernels spread their own work over threads.
    pub(super) spread: bool,
}

impl<'a, E: Scalar> Batch<'a, E> {
    /// The condition of `count` samples from `first` on.
    fn condition(&self, first: usize, count: usize) -> Option<&'a [E]> {
        self.condition.map(|condition| &condition.values[first * condition.width..][..count * condition.width])
    }
}

/// A group of samples on its way.
pub(super) struct Group<'a, E: Scalar> {
    pub(super) first: usize,
    pub(super) values: &'a mut [E],
    pub(super) log_det: &'a mut [E],
    pub(super) variance: &'a mut [E],
    pub(super) estimated: bool,
    pub(super) report: SolveReport,
    /// What was kept, by layer.
    pub(super) points: Vec<LayerPoint<E>>,
}

/// Where the pullback of a layer starts.
pub(super) enum LayerPoint<E: Scalar> {
    /// The tapes of its flows.
    Tapes(Vec<SampleTape<E>>),
    /// Its input.
    Input(Vec<E>),
    /// Its output, which the layers behind recovered.
    Output,
}

impl<E: Scalar> Group<'_, E> {
    /// Takes the samples through a layer and keeps of it what is asked for, if a pullback follows.
    pub(super) fn forward(&mut self, layer: &[Ready<'_, E>], keep: Option<Keep>, batch: Batch<'_, E>) -> Result<()> {
        let input = (keep == Some(Keep::Input)).then(|| self.values.to_vec());
        let mut tapes = Vec::new();
        for flow in layer {
            let mut tape = if keep == Some(Keep::Tape) { SampleTape::recording() } else { SampleTape::idle() };
            self.run(flow, batch, |samples| flow.kernel.forward(samples, &mut tape))?;
            tapes.push(tape);
        }
        self.points.extend(keep.map(|keep| match (keep, input) {
            (Keep::Tape, _) => LayerPoint::Tapes(tapes),
            (_, Some(input)) => LayerPoint::Input(input),
            _ => LayerPoint::Output,
        }));
        Ok(())
    }

    /// Takes the samples back through a layer.
    pub(super) fn inverse(&mut self, layer: &[Ready<'_, E>], batch: Batch<'_, E>) -> Result<()> {
        layer.iter().rev().try_for_each(|flow| self.run(flow, batch, |samples| flow.kernel.inverse(samples)))
    }

    fn run(&mut self, flow: &Ready<'_, E>, batch: Batch<'_, E>, f: impl FnOnce(&mut Samples<'_, E>) -> Result<()>) -> Result<()> {
        let mut report = SolveReport::default();
        f(&mut Samples {
            first: self.first,
            values: &mut *self.values,
            condition: batch.condition(self.first, self.log_det.len()),
            log_det: &mut *self.log_det,
            variance: &mut *self.variance,
            report: &mut report,
            spread: batch.spread,
        })
        .map_err(|e| e.in_layer(&flow.path))?;
        self.estimated |= flow.kernel.estimates();
        self.report = self.report.then(report);
        Ok(())
    }
}

/// What a forward pass keeps of a group of samples.
pub(crate) struct GroupTrace<E: Scalar> {
    /// By layer.
    pub(super) points: Vec<LayerPoint<E>>,
    /// The output, and while layers are pulled back what they recover; none where all layers have tapes.
    pub(super) values: Vec<E>,
}

/// The cotangents of a group of samples on their way back.
pub(super) struct GroupPull<'a, E: Scalar> {
    pub(super) first: usize,
    pub(super) trace: GroupTrace<E>,
    pub(super) cotangent: &'a mut [E],
    pub(super) condition_cotangent: Option<&'a mut [E]>,
    pub(super) log_det: &'a [E],
}

impl<E: Scalar> GroupPull<'_, E> {
    /// Pulls the cotangents back through the layer that was run last; the sums of its flows, from last to first.
    pub(super) fn pull(&mut self, layer: &[Ready<'_, E>], batch: Batch<'_, E>) -> Result<Vec<Buffer<E>>> {
        let GroupTrace { points, mut values } = std::mem::replace(&mut self.trace, GroupTrace { points: Vec::new(), values: Vec::new() });
        let mut points = points;
        let sums = match points.pop() {
            Some(LayerPoint::Tapes(tapes)) => {
                let flows = layer.iter().zip(tapes).rev();
                flows.map(|(flow, tape)| self.pull_flow(flow, SamplePoint::Tape(tape), batch)).collect()
            }
            Some(LayerPoint::Output) => {
                layer.iter().rev().map(|flow| self.pull_flow(flow, SamplePoint::Output(&mut values), batch)).collect()
            }
            Some(LayerPoint::Input(input)) => {
                // All flows but the last run forward once more for their tapes; the last records as it goes.
                values.copy_from_slice(&input);
                let mut tapes = Vec::with_capacity(layer.len());
                for flow in &layer[..layer.len().saturating_sub(1)] {
                    let mut tape = SampleTape::recording();
                    let forward = |samples: &mut Samples<'_, E>| flow.kernel.forward(samples, &mut tape);
                    self.work(batch, &mut []).with_samples(&mut values, forward).map_err(|e| e.in_layer(&flow.path))?;
                    tapes.push(SamplePoint::Tape(tape));
                }
                tapes.push(SamplePoint::Input(&values));
                let flows = layer.iter().zip(tapes).rev();
                let sums = flows.map(|(flow, at)| self.pull_flow(flow, at, batch)).collect();
                values = input;
                sums
            }
            None => Err(foreign_point("")),
        };
        self.trace = GroupTrace { points, values };
        sums
    }

    fn pull_flow(&mut self, flow: &Ready<'_, E>, at: SamplePoint<'_, E>, batch: Batch<'_, E>) -> Result<Buffer<E>> {
        let mut sums = Buffer::zeroed(flow.kernel.sums_len());
        flow.kernel.pullback(at, &mut self.work(batch, &mut sums)).map_err(|e| e.in_layer(&flow.path))?;
        Ok(sums)
    }

    fn work<'s>(&'s mut self, batch: Batch<'s, E>, sums: &'s mut [E]) -> SamplePull<'s, E> {
        SamplePull {
            first: self.first,
            cotangent: &mut *self.cotangent,
            condition: batch.condition(self.first, self.log_det.len()),
            condition_cotangent: self.condition_cotangent.as_deref_mut(),
            log_det: self.log_det,
            sums,
            spread: batch.spread,
        }
    }
}
