//! The contract of a bijection of whole samples.

use crate::bijector::LayerInfo;
use crate::device::SideForm;
use crate::log_det::SolveReport;
use crate::module::parameter_count;
use crate::rows::{Direction, RowTape};
use crate::{Context, Facts, Module, Result, Scalar};
use flow_kernels::workspace::Buffer;

/// A group of whole samples while a kernel works on it.
#[derive(Debug)]
#[non_exhaustive]
pub struct Samples<'a, E> {
    /// Index of the first sample within the whole call: noise is a function of it.
    pub first: usize,
    /// The samples, one after the other, which the kernel changes in place.
    pub values: &'a mut [E],
    /// The condition of every sample, one vector after the other.
    pub condition: Option<&'a [E]>,
    /// log|det J| of every sample, to be added to.
    pub log_det: &'a mut [E],
    /// Squared standard error of the log-det of every sample, to be added to by estimators.
    pub variance: &'a mut [E],
    /// What iterative parts did, to be extended.
    pub report: &'a mut SolveReport,
    /// The batch has few groups: a kernel may spread its work over threads.
    pub spread: bool,
}

/// What the pullback of a group of samples works on.
#[derive(Debug)]
#[non_exhaustive]
pub struct SamplePull<'a, E> {
    /// Index of the first sample within the whole call.
    pub first: usize,
    /// ∂L/∂y of every sample, which becomes ∂L/∂x in place.
    pub cotangent: &'a mut [E],
    /// The condition of every sample, one vector after the other.
    pub condition: Option<&'a [E]>,
    /// ∂L/∂condition of every sample, to be added to, where somebody asks for it.
    pub condition_cotangent: Option<&'a mut [E]>,
    /// ∂L/∂log|det J| of every sample.
    pub log_det: &'a [E],
    /// What [`SampleKernel::finish`] turns into the parameters' gradients, to be added to.
    pub sums: &'a mut [E],
    /// The batch has few groups: a kernel may spread its work over threads.
    pub spread: bool,
}

impl<E: Scalar> SamplePull<'_, E> {
    /// Runs `f`, a forward pass or an inverse whose log-dets and report nobody needs, on these samples.
    ///
    /// # Errors
    /// Those of `f`.
    pub fn with_samples<R>(&self, values: &mut [E], f: impl FnOnce(&mut Samples<'_, E>) -> Result<R>) -> Result<R> {
        let count = self.log_det.len();
        let (mut log_det, mut variance) = (Buffer::zeroed(count), Buffer::zeroed(count));
        f(&mut Samples {
            first: self.first,
            values,
            condition: self.condition,
            log_det: &mut log_det,
            variance: &mut variance,
            report: &mut SolveReport::default(),
            spread: self.spread,
        })
    }
}

/// What a pass of a group of samples through a layer leaves for its pullback: stacks of buffers, as many as the
/// kernel likes.
#[derive(Debug)]
pub struct SampleTape<E: Scalar> {
    recording: bool,
    parts: Vec<RowTape<E>>,
}

impl<E: Scalar> SampleTape<E> {
    /// A tape that keeps what is pushed.
    pub fn recording() -> Self {
        Self { recording: true, parts: Vec::new() }
    }

    /// A tape that drops what is pushed, for a pass without a pullback.
    pub fn idle() -> Self {
        Self { recording: false, parts: Vec::new() }
    }

    /// Whether a pullback will follow.
    pub fn is_recording(&self) -> bool {
        self.recording
    }

    /// A stack for a part of the samples, to be given back by [`SampleTape::push`].
    pub fn part(&self) -> RowTape<E> {
        if self.recording { RowTape::recording() } else { RowTape::idle() }
    }

    /// Leaves a part's stack for the pullback.
    pub fn push(&mut self, part: RowTape<E>) {
        if self.recording {
            self.parts.push(part);
        }
    }

    /// All parts, in the order in which they were pushed.
    pub fn into_parts(self) -> Vec<RowTape<E>> {
        self.parts
    }
}

/// Where the pullback of a group of samples starts.
#[derive(Debug)]
pub enum SamplePoint<'a, E: Scalar> {
    /// What the forward pass left.
    Tape(SampleTape<E>),
    /// The inputs: the forward pass is run again.
    Input(&'a [E]),
    /// The outputs, which become the inputs in place.
    Output(&'a mut [E]),
}

/// A map of whole samples made ready for one call: its weights as the kernel wants them, borrowed from the flow.
///
/// All methods are called from several threads at once, each with a group of samples of its own.
pub trait SampleKernel<E: Scalar>: Send + Sync {
    /// x → y in place; adds log|det J| of every sample; pushes on the tape what [`SampleKernel::pullback`] needs.
    ///
    /// # Errors
    /// Non-finite values, failed solves.
    fn forward(&self, samples: &mut Samples<'_, E>, tape: &mut SampleTape<E>) -> Result<()>;

    /// y → x in place; adds log|det J⁻¹| of every sample.
    ///
    /// # Errors
    /// As [`SampleKernel::forward`], and failed iterations.
    fn inverse(&self, samples: &mut Samples<'_, E>) -> Result<()>;

    /// ∂L/∂y → ∂L/∂x in place, given what the forward pass left; adds to the sums, and ∂L/∂condition where it is
    /// asked for.
    ///
    /// # Errors
    /// As [`SampleKernel::forward`].
    fn pull_tape(&self, tape: SampleTape<E>, pull: &mut SamplePull<'_, E>) -> Result<()>;

    /// The pullback from whatever the memory setting left.
    ///
    /// By default it inverts and runs forward again where it has to; a kernel whose passes share their work does
    /// better.
    ///
    /// # Errors
    /// As [`SampleKernel::inverse`].
    fn pullback(&self, at: SamplePoint<'_, E>, pull: &mut SamplePull<'_, E>) -> Result<()> {
        let again = |x: &[E], pull: &SamplePull<'_, E>| {
            let (mut values, mut tape) = (Buffer::copy_of(x), SampleTape::recording());
            pull.with_samples(&mut values, |samples| self.forward(samples, &mut tape))?;
            Ok(tape)
        };
        let tape = match at {
            SamplePoint::Tape(tape) => tape,
            SamplePoint::Input(x) => again(x, pull)?,
            SamplePoint::Output(y) => {
                pull.with_samples(y, |samples| self.inverse(samples))?;
                again(y, pull)?
            }
        };
        self.pull_tape(tape, pull)
    }

    /// Does to the weights what only passes in this direction need. Optional, and once is enough: before a pass on
    /// several threads it spares them waiting for the first.
    fn prepare_for(&self, direction: Direction) {
        let _ = direction;
    }

    /// Whether its log-dets are estimates in this call: then they have a standard error, whatever the variances that
    /// it adds.
    fn estimates(&self) -> bool {
        false
    }

    /// Length of the sums of a pullback: by default the number of parameters.
    fn sums_len(&self) -> usize;

    /// Turns the sums over all samples into gradients, added to `gradients`: this flow's parameters in the order of
    /// [`Module::visit`].
    /// `log_det` is Σ ∂L/∂log|det J| over all samples, for log-dets that no sample decides. By default the sums are
    /// the gradients.
    ///
    /// # Errors
    /// As [`SampleKernel::forward`].
    fn finish(&self, sums: &[E], log_det: E, gradients: &mut [E]) -> Result<()> {
        let _ = log_det;
        for (gradient, &sum) in gradients.iter_mut().zip(sums) {
            *gradient += sum;
        }
        Ok(())
    }
}

/// A bijection of whole samples of a fixed number of values: what a [`Skeleton`](crate::samples::Skeleton) is made of.
///
/// A [`Side`](crate::samples::Side) is one, a row flow on a view; so is a coupling whose conditioner sees all patches
/// or all pixels. The order of the values is the event's own: an image is channel by channel, row by row.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a bijection of whole samples",
    note = "implement `SampleFlow`; or give a row flow a view with `Side::new`"
)]
pub trait SampleFlow<E: Scalar>: Module<E> {
    /// What it says of itself; costs are those of a sample.
    fn facts(&self) -> Facts;

    /// Values in a sample.
    fn event(&self) -> usize;

    /// Makes the kernel for one call on `batch` samples: reads the context's mode and noise and this flow's path from
    /// it.
    ///
    /// # Errors
    /// Use before initialisation; parameters that admit no bijection.
    fn prepare<'a>(&'a self, batch: usize, cx: &Context<E>) -> Result<Box<dyn SampleKernel<E> + 'a>>;

    /// As [`SampleFlow::prepare`], up to and with the part with this dotted path; none if there is no such part here.
    /// The context's path is this flow's own.
    ///
    /// # Errors
    /// As [`SampleFlow::prepare`].
    fn prepare_until<'a>(&'a self, layer: &str, batch: usize, cx: &Context<E>) -> Result<Option<Box<dyn SampleKernel<E> + 'a>>> {
        if cx.path() == layer { self.prepare(batch, cx).map(Some) } else { Ok(None) }
    }

    /// What this flow is on a device, side by side in order; the context's path is its own. By default it has no form
    /// there.
    ///
    /// # Errors
    /// As [`SampleFlow::prepare`].
    fn device_form<'a>(&'a self, cx: &Context<E>) -> Result<Vec<SideForm<'a, E>>> {
        Ok(vec![SideForm::missing(cx, self.facts().kind, "")])
    }

    /// Samples in a group, when a batch is cut for several threads: a function of the batch alone, so that results do
    /// not depend on the number of threads.
    fn group_samples(&self, batch: usize) -> usize {
        const GROUPS: usize = 16;
        batch.div_ceil(GROUPS).max(1)
    }

    /// Data-dependent initialisation from a batch, one sample after the other.
    ///
    /// # Errors
    /// Too few samples, constant features.
    fn initialise(&mut self, values: &[E], batch: usize, cx: &Context<E>) -> Result<()> {
        let _ = (values, batch, cx);
        Ok(())
    }

    /// Appends this flow's lines of the model's table.
    fn describe(&self, path: &str, table: &mut Vec<LayerInfo>) {
        table.push(LayerInfo::new(path, vec![self.event()], parameter_count(self), self.facts()));
    }
}
