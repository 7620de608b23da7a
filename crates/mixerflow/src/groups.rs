//! Groups of samples on their way through the layers, and what is kept of each for the way back.

use flow_api::{HostCondition, Result, RowKernel, RowPass, RowTape, RowView, SamplesPoint, Scalar, SolveReport, foreign_point};
use flow_kernels::workspace::Buffer;

/// Fewer groups of samples than this have their blocks spread over threads too. It depends on the batch alone, so that sums are added up in one order on any number of threads.
const FEW_GROUPS: usize = 4;

/// A side made ready for one call.
pub(crate) struct ReadySide<'a, E: Scalar> {
    pub(crate) view: &'a RowView,
    pub(crate) kernel: Box<dyn RowKernel<E> + 'a>,
    pub(crate) path: String,
}

impl<E: Scalar> ReadySide<'_, E> {
    /// Work on the samples of a batch of so many groups.
    pub(crate) fn pass<'p>(&'p self, condition: Option<&'p HostCondition<E>>, groups: usize) -> RowPass<'p, E> {
        RowPass { view: self.view, kernel: self.kernel.as_ref(), path: &self.path, condition, spread: groups < FEW_GROUPS }
    }
}

/// A group of samples on its way.
pub(crate) struct Samples<'a, E> {
    pub(crate) values: &'a mut [E],
    pub(crate) first: usize,
    pub(crate) log_det: &'a mut [E],
    pub(crate) variance: &'a mut [E],
    pub(crate) estimated: bool,
    pub(crate) report: SolveReport,
}

impl<E: Scalar> Samples<'_, E> {
    pub(crate) fn forward(&mut self, pass: &RowPass<'_, E>, record: bool) -> Result<Vec<RowTape<E>>> {
        let (report, tapes) = pass.forward_samples(self.values, self.first, (self.log_det, self.variance), record)?;
        self.estimated |= pass.kernel.estimates();
        self.report = self.report.then(report);
        Ok(tapes)
    }

    pub(crate) fn inverse(&mut self, pass: &RowPass<'_, E>) -> Result<()> {
        let report = pass.inverse_samples(self.values, self.first, (self.log_det, self.variance))?;
        self.estimated |= pass.kernel.estimates();
        self.report = self.report.then(report);
        Ok(())
    }
}

/// Sums over sides.
pub(crate) struct Totals<E> {
    pub(crate) log_det: Vec<E>,
    pub(crate) variance: Vec<E>,
    /// Some kernel said that its log-dets are estimates.
    pub(crate) estimated: bool,
    pub(crate) report: SolveReport,
}

/// Where the pullback of a layer starts.
pub(crate) enum LayerPoint<E: Scalar> {
    /// The tapes of its sides.
    Tapes(Vec<Vec<RowTape<E>>>),
    /// Its input.
    Input(Vec<E>),
    /// Its output, which the layers behind recovered.
    Output,
}

/// What a forward pass keeps of a group of samples.
pub(crate) struct GroupTrace<E: Scalar> {
    /// By layer.
    pub(crate) points: Vec<LayerPoint<E>>,
    /// The output, and while layers are pulled back what they recover; none where all layers have tapes.
    pub(crate) values: Vec<E>,
}

impl<E: Scalar> GroupTrace<E> {
    /// Pulls the cotangents of these samples back through the layer that was run last; the sums of its sides, from last to first.
    pub(crate) fn pull(&mut self, sides: &[RowPass<'_, E>], pulled: &mut [E], log_det: &[E], first: usize) -> Result<Vec<Buffer<E>>> {
        match self.points.pop() {
            Some(LayerPoint::Tapes(tapes)) => {
                let sides = sides.iter().zip(tapes).rev();
                sides.map(|(side, tapes)| side.pull_samples(SamplesPoint::Tapes(tapes), pulled, log_det, first)).collect()
            }
            Some(LayerPoint::Output) => {
                let values = &mut self.values;
                sides.iter().rev().map(|side| side.pull_samples(SamplesPoint::Outputs(values), pulled, log_det, first)).collect()
            }
            Some(LayerPoint::Input(input)) => {
                // All sides but the last run forward once more for their tapes; the last records block by block.
                self.values.copy_from_slice(&input);
                let (mut unread, mut unread_variance) = (vec![E::zero(); log_det.len()], vec![E::zero(); log_det.len()]);
                let mut points = Vec::with_capacity(sides.len());
                for side in &sides[..sides.len().saturating_sub(1)] {
                    let (_, tapes) = side.forward_samples(&mut self.values, first, (&mut unread, &mut unread_variance), true)?;
                    points.push(SamplesPoint::Tapes(tapes));
                }
                points.push(SamplesPoint::Inputs(&self.values));
                let points = sides.iter().zip(points).rev();
                let sums = points.map(|(side, at)| side.pull_samples(at, pulled, log_det, first)).collect();
                self.values = input;
                sums
            }
            None => Err(foreign_point("")),
        }
    }
}
