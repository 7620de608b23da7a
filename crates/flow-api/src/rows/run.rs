//! Runs kernels over the rows of a batch: blocks that stay in cache, groups of samples spread over threads.
//!
//! A batch is cut into groups of whole samples, and a group into blocks of at most [`BLOCK_LANES`] rows. The cut depends on the batch alone, and sums over
//! rows are added up block by block and group by group in order, so results are bit-equal at any number of threads.

use super::kernel::{Lanes, Pull, RowKernel, RowTape};
use super::view::RowView;
use crate::bijector::{foreign_point, shape_error};
use crate::{FlowError, Result, Scalar, SolveReport};
use flow_kernels::simd::add;
use flow_kernels::workspace::Buffer;
use rayon::prelude::*;

/// Most rows in a block: the activations of a layer of some hundred units then stay in the L2 cache.
pub const BLOCK_LANES: usize = 192;

/// Fewest rows that make a group worth its own sums: so few that a small batch still gives every thread some groups.
const GROUP_ROWS: usize = 64;

/// Most groups of a batch, and of a large one: enough for many threads, few enough that adding up their sums stays cheap.
const MAX_GROUPS: [usize; 2] = [16, 32];

/// Rows in a group of a large batch.
const MANY_ROWS: usize = 512;

/// Sums of groups that are added up at a time.
const SUMS_AT_ONCE: usize = 1 << 11;

/// A condition in host memory: one vector a sample, row-major.
#[derive(Debug, Clone)]
pub struct HostCondition<E> {
    /// Width of a vector.
    pub width: usize,
    /// batch × width.
    pub values: Vec<E>,
}

/// The rows of a batch that a kernel works on.
#[derive(Clone, Copy)]
pub struct RowPass<'a, E: Scalar> {
    /// Which numbers form the rows.
    pub view: &'a RowView,
    /// The kernel.
    pub kernel: &'a dyn RowKernel<E>,
    /// Path of its flow, for errors.
    pub path: &'a str,
    /// The condition, if the call has one.
    pub condition: Option<&'a HostCondition<E>>,
    /// Spreads the blocks of a group of samples over threads, each with sums of its own: for batches of few groups.
    pub spread: bool,
}

/// What a pass over all rows gives besides the values, which it writes in place.
#[derive(Debug)]
pub struct PassResult<E: Scalar> {
    /// Per sample.
    pub log_det: Vec<E>,
    /// Squared standard error per sample.
    pub variance: Vec<E>,
    /// The kernel said that its log-dets are estimates.
    pub estimated: bool,
    /// What iterative parts did.
    pub report: SolveReport,
    /// Tapes of all blocks, if the pass recorded.
    pub tapes: RowTapes<E>,
}

/// The tapes of all blocks of a pass, group by group.
#[derive(Debug, Default)]
pub struct RowTapes<E: Scalar> {
    /// Samples of the batch that was cut into these groups.
    batch: usize,
    groups: Vec<Vec<RowTape<E>>>,
}

/// Where a pullback starts.
#[derive(Debug)]
pub enum RowPoint<'a, E: Scalar> {
    /// The tapes that a recording forward pass left.
    Tapes(RowTapes<E>),
    /// The inputs: the forward pass is run again block by block.
    Inputs(&'a [E]),
    /// The outputs, which become the inputs in place.
    Outputs(&'a mut [E]),
}

/// Where the pullback of a group of samples starts.
#[derive(Debug)]
pub enum SamplesPoint<'a, E: Scalar> {
    /// The tapes that [`RowPass::forward_samples`] left.
    Tapes(Vec<RowTape<E>>),
    /// The inputs.
    Inputs(&'a [E]),
    /// The outputs, which become the inputs in place.
    Outputs(&'a mut [E]),
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
    recovered: Option<Buffer<E>>,
}

/// One group of samples while it is worked on.
struct Group<'a, E> {
    first_row: usize,
    rows: usize,
    first_sample: usize,
    /// Rows of the condition belong to samples.
    condition: Option<&'a HostCondition<E>>,
    rows_per_sample: usize,
}

impl RowView {
    /// Samples in a group, when a batch is cut for several threads.
    pub fn group_samples(&self, batch: usize) -> usize {
        let rows = batch * self.rows();
        let [few, many] = MAX_GROUPS;
        let groups = (rows / GROUP_ROWS).clamp(1, few).max((rows / MANY_ROWS).min(many));
        let samples = batch.div_ceil(groups).max(1);
        // As many as fill blocks.
        let block = (BLOCK_LANES / self.rows().max(1)).max(1);
        if samples < block { samples } else { samples / block * block }
    }
}

impl<E: Scalar> Group<'_, E> {
    /// Blocks as (first row within the group, lanes).
    fn blocks(&self) -> impl Iterator<Item = (usize, usize)> + use<E> {
        let rows = self.rows;
        let lanes = rows.div_ceil(rows.div_ceil(BLOCK_LANES).max(1)).next_multiple_of(32).min(BLOCK_LANES);
        (0..rows).step_by(lanes.max(1)).map(move |first| (first, lanes.min(rows - first)))
    }

    /// The condition of a block, feature-major.
    fn condition(&self, first: usize, lanes: usize) -> Option<Buffer<E>> {
        let condition = self.condition?;
        Some(condition.block(lanes, |lane| self.first_sample + (first + lane) / self.rows_per_sample))
    }
}

impl<E: Scalar> HostCondition<E> {
    /// The condition of `lanes` rows, feature-major, given the sample that each belongs to.
    pub(super) fn block(&self, lanes: usize, sample: impl Fn(usize) -> usize) -> Buffer<E> {
        let mut block = Buffer::take(self.width * lanes);
        for lane in 0..lanes {
            for (j, &c) in self.values[sample(lane) * self.width..][..self.width].iter().enumerate() {
                block[j * lanes + lane] = c;
            }
        }
        block
    }
}

impl<'a, E: Scalar> RowPass<'a, E> {
    /// Samples in a batch, which has to be whole and to have a condition for each where there is one.
    fn batch(&self, operation: &'static str, values: &[E]) -> Result<usize> {
        let sample = self.view.sample_len().max(1);
        let batch = values.len() / sample;
        if values.len() != batch * sample {
            return Err(shape_error(self.path, operation, ("batch", sample), values.len()));
        }
        match self.condition {
            Some(condition) if condition.values.len() != batch * condition.width => {
                Err(shape_error(self.path, operation, (batch, condition.width), condition.values.len()))
            }
            _ => Ok(batch),
        }
    }

    /// An error with its layer named and its row counted in samples, as the caller counts.
    fn located(&self, error: FlowError) -> FlowError {
        error.in_layer(self.path).by_sample(self.view.rows())
    }

    /// A group of `samples` samples, whose `lens` numbers have to be theirs and whose condition has to be there.
    fn group(&self, operation: &'static str, first_sample: usize, samples: usize, lens: [usize; 2]) -> Result<Group<'a, E>> {
        let expected = [samples * self.view.sample_len(), samples];
        if lens != expected {
            return Err(shape_error(self.path, operation, expected, lens));
        }
        if let Some(condition) = self.condition.filter(|c| c.values.len() < (first_sample + samples) * c.width) {
            return Err(shape_error(self.path, operation, (first_sample + samples, condition.width), condition.values.len()));
        }
        let rows_per_sample = self.view.rows();
        Ok(Group {
            first_row: first_sample * rows_per_sample,
            rows: samples * rows_per_sample,
            first_sample,
            condition: self.condition,
            rows_per_sample,
        })
    }

    /// x → y in place.
    ///
    /// # Errors
    /// Those of the kernels, and [`FlowError::NotFinite`] for a log-det that is not a number.
    pub fn forward(&self, values: &mut [E], record: bool) -> Result<PassResult<E>> {
        self.map("forward", values, |values, first, sums| self.forward_samples(values, first, sums, record))
    }

    /// y → x in place.
    ///
    /// # Errors
    /// As [`RowPass::forward`].
    pub fn inverse(&self, values: &mut [E]) -> Result<PassResult<E>> {
        self.map("inverse", values, |values, first, sums| Ok((self.inverse_samples(values, first, sums)?, Vec::new())))
    }

    /// x → y in place for the samples from `first_sample` on, on this thread alone unless the pass spreads blocks; the log-dets and their variances are added to those given, one a sample.
    /// Gives the report, and a tape a block if asked to record.
    ///
    /// # Errors
    /// As [`RowPass::forward`].
    pub fn forward_samples(
        &self,
        values: &mut [E],
        first_sample: usize,
        (log_det, variance): (&mut [E], &mut [E]),
        record: bool,
    ) -> Result<(SolveReport, Vec<RowTape<E>>)> {
        let group = self.group("forward", first_sample, log_det.len(), [values.len(), variance.len()])?;
        self.map_group(&group, values, log_det, variance, |block, lanes| {
            let mut tape = if record { RowTape::recording() } else { RowTape::idle() };
            self.kernel.forward(block, lanes, &mut tape)?;
            Ok(tape)
        })
    }

    /// y → x in place, as [`RowPass::forward_samples`].
    ///
    /// # Errors
    /// As [`RowPass::forward`].
    pub fn inverse_samples(&self, values: &mut [E], first_sample: usize, (log_det, variance): (&mut [E], &mut [E])) -> Result<SolveReport> {
        let group = self.group("inverse", first_sample, log_det.len(), [values.len(), variance.len()])?;
        let run = |block: &mut [E], lanes: &mut Lanes<'_, E>| self.kernel.inverse(block, lanes).map(|()| RowTape::idle());
        Ok(self.map_group(&group, values, log_det, variance, run)?.0)
    }

    fn map(
        &self,
        operation: &'static str,
        values: &mut [E],
        run: impl Fn(&mut [E], usize, (&mut [E], &mut [E])) -> Result<(SolveReport, Vec<RowTape<E>>)> + Sync,
    ) -> Result<PassResult<E>> {
        let batch = self.batch(operation, values)?;
        let samples = self.view.group_samples(batch);
        let mut log_det = vec![E::zero(); batch];
        let mut variance = vec![E::zero(); batch];
        let groups = values
            .par_chunks_mut((samples * self.view.sample_len()).max(1))
            .zip(log_det.par_chunks_mut(samples))
            .zip(variance.par_chunks_mut(samples))
            .enumerate()
            .map(|(index, ((values, log_det), variance))| run(values, index * samples, (log_det, variance)))
            .collect::<Result<Vec<_>>>()?;
        let mut report = SolveReport::default();
        let mut tapes = Vec::with_capacity(groups.len());
        for (group_report, group_tapes) in groups {
            report = report.beside(group_report);
            tapes.push(group_tapes);
        }
        Ok(PassResult { log_det, variance, estimated: self.kernel.estimates(), report, tapes: RowTapes { batch, groups: tapes } })
    }

    fn map_group(
        &self,
        group: &Group<'_, E>,
        values: &mut [E],
        log_det: &mut [E],
        variance: &mut [E],
        run: impl Fn(&mut [E], &mut Lanes<'_, E>) -> Result<RowTape<E>> + Sync,
    ) -> Result<(SolveReport, Vec<RowTape<E>>)> {
        let mut report = SolveReport::default();
        let mut tapes = Vec::new();
        let blocks: Vec<_> = group.blocks().collect();
        for at_once in blocks.chunks(self.at_once(&blocks)) {
            let map = |&block: &(usize, usize)| self.map_block(group, block, values, &run);
            let mapped: Vec<_> = if self.spread {
                at_once.par_iter().map(map).collect::<Result<_>>()?
            } else {
                at_once.iter().map(map).collect::<Result<_>>()?
            };
            for (&(first, lanes), block) in at_once.iter().zip(mapped) {
                self.view.scatter(&block.values, first, lanes, values);
                report = report.beside(block.report);
                for (lane, (&l, &v)) in block.log_det.iter().zip(block.variance.iter()).enumerate() {
                    let sample = (first + lane) / group.rows_per_sample;
                    log_det[sample] += l;
                    variance[sample] += v;
                }
                if block.tape.is_recording() {
                    tapes.push(block.tape);
                }
            }
        }
        Ok((report, tapes))
    }

    /// How many of a group's blocks are worked on before their results are written.
    fn at_once(&self, blocks: &[(usize, usize)]) -> usize {
        if self.spread { blocks.len().max(1) } else { 1 }
    }

    fn map_block(
        &self,
        group: &Group<'_, E>,
        (first, lanes): (usize, usize),
        values: &[E],
        run: impl Fn(&mut [E], &mut Lanes<'_, E>) -> Result<RowTape<E>>,
    ) -> Result<MappedBlock<E>> {
        let mut block = Buffer::take(self.view.dim() * lanes);
        self.view.gather(values, first, lanes, &mut block);
        let (mut log_det, mut variance) = (Buffer::zeroed(lanes), Buffer::zeroed(lanes));
        let mut report = SolveReport::default();
        let condition = group.condition(first, lanes);
        let mut bookkeeping = Lanes {
            lanes,
            first_row: (group.first_row + first) as u64,
            condition: condition.as_deref(),
            log_det: &mut log_det,
            variance: &mut variance,
            report: &mut report,
        };
        let tape = run(&mut block, &mut bookkeeping).and_then(|tape| finite(&bookkeeping).map(|()| tape)).map_err(|e| self.located(e))?;
        Ok(MappedBlock { values: block, log_det, variance, report, tape })
    }

    /// ∂L/∂y → ∂L/∂x in place; `gradients` are those of the kernel's flow, to be added to.
    ///
    /// # Errors
    /// As [`RowPass::forward`], [`FlowError::Shape`] for buffers that do not belong to one batch, and [`FlowError::Unsupported`] for tapes of another.
    pub fn pullback(&self, at: RowPoint<'_, E>, cotangent: &mut [E], log_det: &[E], gradients: &mut [E]) -> Result<()> {
        let batch = self.batch("pullback", cotangent)?;
        let given = match &at {
            RowPoint::Tapes(tapes) if tapes.batch != batch => return Err(foreign_point(self.path)),
            RowPoint::Tapes(_) => cotangent.len(),
            RowPoint::Inputs(x) => x.len(),
            RowPoint::Outputs(y) => y.len(),
        };
        if (given, log_det.len()) != (cotangent.len(), batch) {
            return Err(shape_error(self.path, "pullback", (cotangent.len(), batch), (given, log_det.len())));
        }
        let samples = self.view.group_samples(batch);
        let chunk = (samples * self.view.sample_len()).max(1);
        let groups: Vec<(SamplesPoint<'_, E>, &mut [E])> = match at {
            RowPoint::Tapes(RowTapes { groups, .. }) => {
                groups.into_iter().map(SamplesPoint::Tapes).zip(cotangent.chunks_mut(chunk)).collect()
            }
            RowPoint::Inputs(x) => x.chunks(chunk).map(SamplesPoint::Inputs).zip(cotangent.chunks_mut(chunk)).collect(),
            RowPoint::Outputs(y) => y.chunks_mut(chunk).map(SamplesPoint::Outputs).zip(cotangent.chunks_mut(chunk)).collect(),
        };
        let sums = groups
            .into_par_iter()
            .zip(log_det.par_chunks(samples))
            .enumerate()
            .map(|(index, ((at, cotangent), log_det))| self.pull_samples(at, cotangent, log_det, index * samples))
            .collect::<Result<Vec<_>>>()?;
        self.finish(sums, log_det, gradients)
    }

    /// Adds the parameters' gradients to `gradients`, those of the kernel's flow, given the sums of all groups in order and ∂L/∂log|det J| of all samples.
    ///
    /// # Errors
    /// Those of the kernel.
    pub fn finish(&self, sums: impl IntoIterator<Item = Buffer<E>>, log_det: &[E], gradients: &mut [E]) -> Result<()> {
        let mut sums = sums.into_iter();
        let Some(mut total) = sums.next() else { return Ok(()) };
        let others: Vec<_> = sums.collect();
        // Part by part, so that the total stays in the first-level cache.
        for (at, total) in (0..).step_by(SUMS_AT_ONCE).zip(total.chunks_mut(SUMS_AT_ONCE)) {
            others.iter().for_each(|other| add(total, &other[at..at + total.len()]));
        }
        let log_det = log_det.iter().copied().sum::<E>() * E::of(self.view.rows() as f64);
        self.kernel.finish(&total, log_det, gradients).map_err(|e| e.in_layer(self.path))
    }

    /// ∂L/∂y → ∂L/∂x in place for the samples from `first_sample` on, on this thread alone unless the pass spreads blocks; `log_det` is that of these samples. Gives the sums that
    /// [`RowPass::finish`] takes.
    ///
    /// # Errors
    /// As [`RowPass::pullback`].
    pub fn pull_samples(&self, mut at: SamplesPoint<'_, E>, cotangent: &mut [E], log_det: &[E], first_sample: usize) -> Result<Buffer<E>> {
        let group = self.group("pullback", first_sample, log_det.len(), [cotangent.len(), log_det.len()])?;
        let given = match &at {
            SamplesPoint::Tapes(_) => cotangent.len(),
            SamplesPoint::Inputs(x) => x.len(),
            SamplesPoint::Outputs(y) => y.len(),
        };
        if given != cotangent.len() {
            return Err(shape_error(self.path, "pullback", cotangent.len(), given));
        }
        let mut tapes = match &mut at {
            SamplesPoint::Tapes(tapes) => std::mem::take(tapes).into_iter(),
            _ => Vec::new().into_iter(),
        };
        let blocks: Vec<_> = group.blocks().collect();
        let mut sums = Buffer::zeroed(self.kernel.sums_len());
        for at_once in blocks.chunks(self.at_once(&blocks)) {
            let tasks: Vec<_> = at_once.iter().map(|&block| (block, tapes.next())).collect();
            let pull = |(block, tape), sums: &mut Buffer<E>| self.pull_block(&group, block, (&at, tape), cotangent, log_det, sums);
            let pulled: Vec<_> = if self.spread {
                let own = |task| {
                    let mut sums = Buffer::zeroed(sums.len());
                    Ok((pull(task, &mut sums)?, Some(sums)))
                };
                tasks.into_par_iter().map(own).collect::<Result<_>>()?
            } else {
                tasks.into_iter().map(|task| Ok((pull(task, &mut sums)?, None))).collect::<Result<_>>()?
            };
            for (&(first, lanes), (block, own)) in at_once.iter().zip(pulled) {
                self.view.scatter(&block.cotangent, first, lanes, cotangent);
                if let (SamplesPoint::Outputs(values), Some(recovered)) = (&mut at, block.recovered) {
                    self.view.scatter(&recovered, first, lanes, values);
                }
                if let Some(own) = own {
                    add(&mut sums, &own);
                }
            }
        }
        Ok(sums)
    }

    /// Pulls one block back; its sums are added to `sums`.
    fn pull_block(
        &self,
        group: &Group<'_, E>,
        (first, lanes): (usize, usize),
        (at, tape): (&SamplesPoint<'_, E>, Option<RowTape<E>>),
        cotangent: &[E],
        log_det: &[E],
        sums: &mut [E],
    ) -> Result<PulledBlock<E>> {
        let (view, kernel) = (self.view, self.kernel);
        let gathered = |values: &[E]| {
            let mut block = Buffer::take(view.dim() * lanes);
            view.gather(values, first, lanes, &mut block);
            block
        };
        let mut pulled = gathered(cotangent);
        let mut lane_log_det = Buffer::take(lanes);
        for (lane, to) in lane_log_det.iter_mut().enumerate() {
            *to = log_det[(first + lane) / group.rows_per_sample];
        }
        let condition = group.condition(first, lanes);
        let pull = Pull { lanes, first_row: (group.first_row + first) as u64, condition: condition.as_deref(), log_det: &lane_log_det };
        let recovered = match at {
            SamplesPoint::Tapes(_) => match tape {
                Some(mut tape) => kernel.pullback(&mut pulled, &pull, &mut tape, sums).map(|()| None),
                None => Err(foreign_point(self.path)),
            },
            SamplesPoint::Inputs(x) => {
                let (mut block, mut tape) = (gathered(x), RowTape::recording());
                pull.with_lanes(|lanes| kernel.forward(&mut block, lanes, &mut tape))
                    .and_then(|()| kernel.pullback(&mut pulled, &pull, &mut tape, sums))
                    .map(|()| None)
            }
            SamplesPoint::Outputs(y) => {
                let mut block = gathered(y);
                kernel.pullback_inverting(&mut block, &mut pulled, &pull, sums).map(|()| Some(block))
            }
        };
        Ok(PulledBlock { cotangent: pulled, recovered: recovered.map_err(|e| self.located(e))? })
    }
}

/// Every log-det of the block is a number.
pub(super) fn finite<E: Scalar>(lanes: &Lanes<'_, E>) -> Result<()> {
    match lanes.log_det.iter().position(|l| !num_traits::Float::is_finite(*l)) {
        None => Ok(()),
        Some(lane) => {
            let row = usize::try_from(lanes.first_row).unwrap_or(usize::MAX).saturating_add(lane);
            Err(FlowError::NotFinite { layer: String::new(), what: "the log-det", row })
        }
    }
}
