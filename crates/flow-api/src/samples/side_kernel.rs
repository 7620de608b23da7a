//! Runs a row kernel on the rows of a group of samples: in blocks that stay in cache.
//!
//! The cut into blocks depends on the group alone, and sums over rows are added up block by block in order, so
//! results are bit-equal at any number of threads.

use super::{SampleKernel, SamplePoint, SamplePull, SampleTape, Samples};
use crate::bijector::foreign_point;
use crate::log_det::SolveReport;
use crate::rows::{BLOCK_LANES, Direction, Lanes, Pull, RowKernel, RowTape, RowView, finite};
use crate::{FlowError, Result, Scalar, shape_error};
use flow_kernels::simd::add;
use flow_kernels::workspace::Buffer;
use rayon::prelude::*;
use std::borrow::Cow;

/// A row kernel on the rows of a view, block by block: what a [`Side`](crate::samples::Side) prepares.
///
/// It is public for maps of whole samples whose kernel works on the rows of a view too, but needs all rows of a sample
/// together, such as a convolutional coupling: [`SideKernel::in_whole_samples`] gives it blocks of whole samples, their
/// rows one after the other.
pub struct SideKernel<'a, E: Scalar> {
    /// Which values form the rows.
    view: Cow<'a, RowView>,
    /// The kernel of the flow that the rows share.
    kernel: Box<dyn RowKernel<E> + 'a>,
    /// Path of the flow, for errors.
    path: String,
    /// Blocks have a multiple of so many rows.
    unit: usize,
}

/// What a block became.
struct MappedBlock<E: Scalar> {
    values: Buffer<E>,
    log_det: Buffer<E>,
    variance: Buffer<E>,
    report: SolveReport,
    tape: RowTape<E>,
}

/// What the cotangents of a block became, and its inputs where it was pulled back from its outputs.
struct PulledBlock<E: Scalar> {
    cotangent: Buffer<E>,
    condition: Option<Buffer<E>>,
    recovered: Option<Buffer<E>>,
}

/// Where the pullback of a block starts.
enum BlockPoint<'a, E: Scalar> {
    Tape(RowTape<E>),
    Input(&'a [E]),
    Output(&'a [E]),
}

/// Blocks of a group's rows as (first row within the group, lanes): a multiple of `unit` rows each.
fn blocks(rows: usize, unit: usize) -> Vec<(usize, usize)> {
    let most = (BLOCK_LANES / unit).max(1) * unit;
    let even = rows.div_ceil(rows.div_ceil(most).max(1));
    let lanes = even.next_multiple_of(if unit == 1 { 32 } else { unit }).min(most);
    (0..rows).step_by(lanes.max(1)).map(|first| (first, lanes.min(rows - first))).collect()
}

/// The vectors of the samples that `lanes` rows belong to, feature-major.
fn by_row<E: Scalar>(vectors: &[E], width: usize, lanes: usize, sample: impl Fn(usize) -> usize) -> Buffer<E> {
    let mut block = Buffer::take(width * lanes);
    for lane in 0..lanes {
        for (j, &c) in vectors[sample(lane) * width..][..width].iter().enumerate() {
            block[j * lanes + lane] = c;
        }
    }
    block
}

impl<'a, E: Scalar> SideKernel<'a, E> {
    /// A kernel on the rows of a view; `path` names the flow in errors.
    pub fn new(view: Cow<'a, RowView>, kernel: Box<dyn RowKernel<E> + 'a>, path: impl Into<String>) -> Self {
        Self { view, kernel, path: path.into(), unit: 1 }
    }

    /// The same in blocks of whole samples, as many as make a block of [`BLOCK_LANES`] rows, and at least one: the rows
    /// of a sample, in the order of the view, are neighbouring lanes of one block.
    #[must_use]
    pub fn in_whole_samples(self) -> Self {
        Self { unit: self.view.rows().max(1), ..self }
    }

    /// An error with its layer named and its row counted in samples, as the caller counts.
    fn located(&self, error: FlowError) -> FlowError {
        error.in_layer(&self.path).by_sample(self.view.rows())
    }

    /// The group has whole samples, `values` of them in every buffer.
    fn check(&self, operation: &'static str, samples: usize, lens: &[usize]) -> Result<()> {
        let expected = samples * self.view.sample_len();
        match lens.iter().find(|len| **len != expected) {
            None => Ok(()),
            Some(&len) => Err(shape_error(&self.path, operation, (samples, self.view.sample_len()), len)),
        }
    }

    /// The condition of a block, feature-major.
    fn condition(&self, vectors: Option<&[E]>, samples: usize, (first, lanes): (usize, usize)) -> Option<Buffer<E>> {
        let vectors = vectors?;
        let (width, rows) = (vectors.len() / samples.max(1), self.view.rows());
        Some(by_row(vectors, width, lanes, |lane| (first + lane) / rows))
    }

    fn first_row(&self, first_sample: usize, first: usize) -> u64 {
        (first_sample * self.view.rows() + first) as u64
    }

    fn map(
        &self,
        samples: &mut Samples<'_, E>,
        tape: &mut SampleTape<E>,
        run: impl Fn(&mut [E], &mut Lanes<'_, E>, &mut RowTape<E>) -> Result<()> + Sync,
    ) -> Result<()> {
        let (count, rows) = (samples.log_det.len(), self.view.rows());
        self.check("map", count, &[samples.values.len()])?;
        let mut report = SolveReport::default();
        let blocks = blocks(count * rows, self.unit);
        for at_once in blocks.chunks(if samples.spread { blocks.len().max(1) } else { 1 }) {
            let map = |&block: &(usize, usize)| self.map_block(samples, block, tape.part(), &run);
            let mapped: Vec<_> = if samples.spread {
                at_once.par_iter().map(map).collect::<Result<_>>()?
            } else {
                at_once.iter().map(map).collect::<Result<_>>()?
            };
            for (&(first, lanes), block) in at_once.iter().zip(mapped) {
                self.view.scatter(&block.values, first, lanes, samples.values);
                report = report.beside(block.report);
                for (lane, (&l, &v)) in block.log_det.iter().zip(block.variance.iter()).enumerate() {
                    let sample = (first + lane) / rows;
                    samples.log_det[sample] += l;
                    samples.variance[sample] += v;
                }
                tape.push(block.tape);
            }
        }
        *samples.report = samples.report.then(report);
        Ok(())
    }

    fn map_block(
        &self,
        samples: &Samples<'_, E>,
        (first, lanes): (usize, usize),
        mut tape: RowTape<E>,
        run: impl Fn(&mut [E], &mut Lanes<'_, E>, &mut RowTape<E>) -> Result<()>,
    ) -> Result<MappedBlock<E>> {
        let mut block = Buffer::take(self.view.dim() * lanes);
        self.view.gather(samples.values, first, lanes, &mut block);
        let (mut log_det, mut variance) = (Buffer::zeroed(lanes), Buffer::zeroed(lanes));
        let mut report = SolveReport::default();
        let condition = self.condition(samples.condition, samples.log_det.len(), (first, lanes));
        let mut bookkeeping = Lanes {
            lanes,
            first_row: self.first_row(samples.first, first),
            condition: condition.as_deref(),
            log_det: &mut log_det,
            variance: &mut variance,
            report: &mut report,
        };
        run(&mut block, &mut bookkeeping, &mut tape).and_then(|()| finite(&bookkeeping)).map_err(|e| self.located(e))?;
        Ok(MappedBlock { values: block, log_det, variance, report, tape })
    }

    /// Pulls one block back; its sums are added to `sums`.
    fn pull_block(
        &self,
        pull: &SamplePull<'_, E>,
        (first, lanes): (usize, usize),
        at: BlockPoint<'_, E>,
        sums: &mut [E],
    ) -> Result<PulledBlock<E>> {
        let (view, kernel, rows) = (&*self.view, self.kernel.as_ref(), self.view.rows());
        let gathered = |values: &[E]| {
            let mut block = Buffer::take(view.dim() * lanes);
            view.gather(values, first, lanes, &mut block);
            block
        };
        let mut cotangent = gathered(pull.cotangent);
        let mut log_det = Buffer::take(lanes);
        for (lane, to) in log_det.iter_mut().enumerate() {
            *to = pull.log_det[(first + lane) / rows];
        }
        let condition = self.condition(pull.condition, pull.log_det.len(), (first, lanes));
        let mut through =
            condition.as_ref().filter(|_| pull.condition_cotangent.is_some()).map(|condition| Buffer::zeroed(condition.len()));
        let mut block_pull = Pull {
            lanes,
            first_row: self.first_row(pull.first, first),
            condition: condition.as_deref(),
            condition_cotangent: through.as_deref_mut(),
            log_det: &log_det,
        };
        let recovered = match at {
            BlockPoint::Tape(mut tape) => kernel.pullback(&mut cotangent, &mut block_pull, &mut tape, sums).map(|()| None),
            BlockPoint::Input(x) => {
                let (mut block, mut tape) = (gathered(x), RowTape::recording());
                block_pull
                    .with_lanes(|lanes| kernel.forward(&mut block, lanes, &mut tape))
                    .and_then(|()| kernel.pullback(&mut cotangent, &mut block_pull, &mut tape, sums))
                    .map(|()| None)
            }
            BlockPoint::Output(y) => {
                let mut block = gathered(y);
                kernel.pullback_inverting(&mut block, &mut cotangent, &mut block_pull, sums).map(|()| Some(block))
            }
        };
        Ok(PulledBlock { cotangent, condition: through, recovered: recovered.map_err(|e| self.located(e))? })
    }

    /// Adds what a block's pullback gave to the group's.
    fn write_back(&self, pull: &mut SamplePull<'_, E>, (first, lanes): (usize, usize), block: &PulledBlock<E>) {
        self.view.scatter(&block.cotangent, first, lanes, pull.cotangent);
        if let (Some(total), Some(own)) = (&mut pull.condition_cotangent, &block.condition) {
            let width = own.len() / lanes.max(1);
            for lane in 0..lanes {
                let sample = (first + lane) / self.view.rows();
                for (j, total) in total[sample * width..][..width].iter_mut().enumerate() {
                    *total += own[j * lanes + lane];
                }
            }
        }
    }
}

impl<E: Scalar> SampleKernel<E> for SideKernel<'_, E> {
    fn forward(&self, samples: &mut Samples<'_, E>, tape: &mut SampleTape<E>) -> Result<()> {
        self.map(samples, tape, |block, lanes, tape| self.kernel.forward(block, lanes, tape))
    }

    fn inverse(&self, samples: &mut Samples<'_, E>) -> Result<()> {
        self.map(samples, &mut SampleTape::idle(), |block, lanes, _| self.kernel.inverse(block, lanes))
    }

    fn pull_tape(&self, tape: SampleTape<E>, pull: &mut SamplePull<'_, E>) -> Result<()> {
        self.pullback(SamplePoint::Tape(tape), pull)
    }

    fn pullback(&self, mut at: SamplePoint<'_, E>, pull: &mut SamplePull<'_, E>) -> Result<()> {
        let count = pull.log_det.len();
        let given = match &at {
            SamplePoint::Tape(_) => pull.cotangent.len(),
            SamplePoint::Input(x) => x.len(),
            SamplePoint::Output(y) => y.len(),
        };
        self.check("pullback", count, &[pull.cotangent.len(), given])?;
        let blocks = blocks(count * self.view.rows(), self.unit);
        let mut tapes = match &mut at {
            SamplePoint::Tape(tape) => std::mem::replace(tape, SampleTape::idle()).into_parts().into_iter(),
            _ => Vec::new().into_iter(),
        };
        for at_once in blocks.chunks(if pull.spread { blocks.len().max(1) } else { 1 }) {
            let task = |&block: &(usize, usize)| {
                let point = match &at {
                    SamplePoint::Tape(_) => BlockPoint::Tape(tapes.next().ok_or_else(|| foreign_point(&self.path))?),
                    SamplePoint::Input(x) => BlockPoint::Input(x),
                    SamplePoint::Output(y) => BlockPoint::Output(y),
                };
                Ok((block, point))
            };
            let tasks: Vec<_> = at_once.iter().map(task).collect::<Result<_>>()?;
            let pulled: Vec<_> = if pull.spread {
                let len = pull.sums.len();
                let own = |(block, point)| {
                    let mut sums = Buffer::zeroed(len);
                    Ok((self.pull_block(pull, block, point, &mut sums)?, Some(sums)))
                };
                tasks.into_par_iter().map(own).collect::<Result<_>>()?
            } else {
                let sums = std::mem::take(&mut pull.sums);
                let one = |(block, point)| Ok((self.pull_block(pull, block, point, &mut *sums)?, None));
                let pulled: Result<Vec<_>> = tasks.into_iter().map(one).collect();
                pull.sums = sums;
                pulled?
            };
            for (&block, (pulled, own)) in at_once.iter().zip(pulled) {
                self.write_back(pull, block, &pulled);
                if let (SamplePoint::Output(values), Some(recovered)) = (&mut at, pulled.recovered) {
                    self.view.scatter(&recovered, block.0, block.1, values);
                }
                if let Some(own) = own {
                    add(pull.sums, &own);
                }
            }
        }
        Ok(())
    }

    fn prepare_for(&self, direction: Direction) {
        self.kernel.prepare_for(direction);
    }

    fn estimates(&self) -> bool {
        self.kernel.estimates()
    }

    fn sums_len(&self) -> usize {
        self.kernel.sums_len()
    }

    fn finish(&self, sums: &[E], log_det: E, gradients: &mut [E]) -> Result<()> {
        self.kernel.finish(sums, log_det * E::of(self.view.rows() as f64), gradients)
    }
}

impl<E: Scalar> std::fmt::Debug for SideKernel<'_, E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SideKernel").field("view", &self.view).field("path", &self.path).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::blocks;

    #[test]
    fn blocks_hold_whole_units() {
        for (rows, unit, expected) in [
            (400, 1, vec![(0, 160), (160, 160), (320, 80)]),
            (400, 16, vec![(0, 144), (144, 144), (288, 112)]),
            (600, 200, vec![(0, 200), (200, 200), (400, 200)]),
            (49, 49, vec![(0, 49)]),
            (0, 16, vec![]),
        ] {
            assert_eq!(blocks(rows, unit), expected, "{rows} rows by {unit}");
        }
    }
}
