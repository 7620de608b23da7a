//! The contract of a fused row kernel: a bijection of R^d on a block of rows in host memory.

use crate::log_det::SolveReport;
use crate::{Result, Scalar};
use flow_kernels::workspace::{Buffer, fetch};

/// A block's bookkeeping: everything besides its values.
///
/// A block holds `lanes` rows of the batch *feature-major*: feature j of lane r lies at `j * lanes + r`. Element-wise
/// work then runs over contiguous lanes, the halves of a coupling are contiguous ranges, and a linear layer is W·X.
#[derive(Debug)]
#[non_exhaustive]
pub struct Lanes<'a, E> {
    /// Rows in the block.
    pub lanes: usize,
    /// Index of the first row within the whole call: noise is a function of it.
    pub first_row: u64,
    /// The condition, feature-major: width × lanes.
    pub condition: Option<&'a [E]>,
    /// log|det J| of every row, to be added to.
    pub log_det: &'a mut [E],
    /// Squared standard error of the log-det of every row, to be added to by estimators.
    pub variance: &'a mut [E],
    /// What iterative parts did, to be extended.
    pub report: &'a mut SolveReport,
}

/// What a pullback is told besides the cotangents of the values.
#[derive(Debug)]
#[non_exhaustive]
pub struct Pull<'a, E> {
    /// Rows in the block.
    pub lanes: usize,
    /// Index of the first row within the whole call.
    pub first_row: u64,
    /// The condition, feature-major: width × lanes.
    pub condition: Option<&'a [E]>,
    /// ∂L/∂condition, feature-major as the condition, to be added to, where somebody asks for it.
    pub condition_cotangent: Option<&'a mut [E]>,
    /// ∂L/∂log|det J| of every row.
    pub log_det: &'a [E],
}

impl<'a, E: Scalar> Pull<'a, E> {
    /// The pullback of a block without a condition.
    pub fn new(first_row: u64, log_det: &'a [E]) -> Self {
        Self { lanes: log_det.len(), first_row, condition: None, condition_cotangent: None, log_det }
    }

    /// The same with a condition, and a place for its cotangent.
    #[must_use]
    pub fn with_condition(self, condition: &'a [E], cotangent: Option<&'a mut [E]>) -> Self {
        Self { condition: Some(condition), condition_cotangent: cotangent, ..self }
    }

    /// Runs `f`, a forward pass or an inverse whose log-dets and report nobody needs, on this block.
    ///
    /// # Errors
    /// Those of `f`.
    pub fn with_lanes<R>(&self, f: impl FnOnce(&mut Lanes<'_, E>) -> Result<R>) -> Result<R> {
        let (mut log_det, mut variance) = (Buffer::zeroed(self.lanes), Buffer::zeroed(self.lanes));
        let mut report = SolveReport::default();
        f(&mut Lanes {
            lanes: self.lanes,
            first_row: self.first_row,
            condition: self.condition,
            log_det: &mut log_det,
            variance: &mut variance,
            report: &mut report,
        })
    }
}

impl<'a, E> Lanes<'a, E> {
    /// A block of as many rows as there are log-dets, without a condition.
    pub fn new(first_row: u64, log_det: &'a mut [E], variance: &'a mut [E], report: &'a mut SolveReport) -> Self {
        Self { lanes: log_det.len(), first_row, condition: None, log_det, variance, report }
    }

    /// The same with a condition.
    #[must_use]
    pub fn with_condition(self, condition: &'a [E]) -> Self {
        Self { condition: Some(condition), ..self }
    }
}

/// A stack on which kernels leave what their pullback needs: forward pushes, pullback pops in reverse.
#[derive(Debug)]
pub struct RowTape<E: Scalar> {
    recording: bool,
    buffers: Vec<Buffer<E>>,
}

impl<E: Scalar> RowTape<E> {
    /// A tape that keeps what is pushed.
    pub fn recording() -> Self {
        Self { recording: true, buffers: Vec::new() }
    }

    /// A tape that drops what is pushed, for a pass without a pullback.
    pub fn idle() -> Self {
        Self { recording: false, buffers: Vec::new() }
    }

    /// Whether a pullback will follow.
    pub fn is_recording(&self) -> bool {
        self.recording
    }

    /// Leaves a buffer for the pullback.
    pub fn push(&mut self, buffer: Buffer<E>) {
        if self.recording {
            self.buffers.push(buffer);
        }
    }

    /// Takes the buffer that was pushed last, and fetches it into the cache: it was written long ago.
    ///
    /// # Errors
    /// An unsupported pullback if the forward pass left nothing: the tape was made by another kernel.
    pub fn pop(&mut self) -> Result<Buffer<E>> {
        let buffer = self.buffers.pop().ok_or_else(|| crate::error::foreign_point(""))?;
        fetch(&buffer);
        Ok(buffer)
    }
}

/// A way through a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// x → y.
    Forward,
    /// y → x.
    Inverse,
}

/// A flow made ready for one call: its weights as the kernel wants them (products formed, norms divided out), borrowed
/// from the flow.
///
/// All methods work in place on one block and are called from several threads at once.
pub trait RowKernel<E: Scalar>: Send + Sync {
    /// x → y in place; adds log|det J| of every row; pushes on the tape what [`RowKernel::pullback`] needs.
    ///
    /// # Errors
    /// Non-finite values, failed solves.
    fn forward(&self, values: &mut [E], lanes: &mut Lanes<'_, E>, tape: &mut RowTape<E>) -> Result<()>;

    /// Does to the weights what only passes in this direction need. Optional, and once is enough: before a pass on
    /// several threads it spares them waiting for the first.
    fn prepare_for(&self, direction: Direction) {
        let _ = direction;
    }

    /// Whether its log-dets are estimates in this call: then they have a standard error, whatever the variances that it
    /// adds.
    fn estimates(&self) -> bool {
        false
    }

    /// y → x in place; adds log|det J⁻¹| of every row.
    ///
    /// # Errors
    /// As [`RowKernel::forward`], and failed iterations.
    fn inverse(&self, values: &mut [E], lanes: &mut Lanes<'_, E>) -> Result<()>;

    /// ∂L/∂y → ∂L/∂x in place, popping what `forward` pushed; adds to `sums` whatever [`RowKernel::finish`] turns into
    /// the parameters' gradients.
    ///
    /// # Errors
    /// As [`RowKernel::forward`].
    fn pullback(&self, cotangent: &mut [E], pull: &mut Pull<'_, E>, tape: &mut RowTape<E>, sums: &mut [E]) -> Result<()>;

    /// The pullback from the output: y → x and ∂L/∂y → ∂L/∂x in place.
    ///
    /// The default inverts, runs forward again and pulls back; a kernel whose forward and inverse share their work does
    /// better.
    ///
    /// # Errors
    /// As [`RowKernel::inverse`].
    fn pullback_inverting(&self, values: &mut [E], cotangent: &mut [E], pull: &mut Pull<'_, E>, sums: &mut [E]) -> Result<()> {
        let mut tape = RowTape::recording();
        pull.with_lanes(|lanes| {
            self.inverse(values, lanes)?;
            let mut again = Buffer::copy_of(values);
            self.forward(&mut again, lanes, &mut tape)
        })?;
        self.pullback(cotangent, pull, &mut tape, sums)
    }

    /// Length of `sums`: by default the number of parameters.
    fn sums_len(&self) -> usize;

    /// Turns the sums over all rows into gradients, added to `gradients`: this flow's parameters in the order of
    /// [`Module::visit`](crate::Module::visit). `log_det` is Σ ∂L/∂log|det J| over all rows, for log-dets that no row
    /// decides. By default the sums are the gradients.
    ///
    /// # Errors
    /// As [`RowKernel::forward`].
    fn finish(&self, sums: &[E], log_det: E, gradients: &mut [E]) -> Result<()> {
        let _ = log_det;
        for (gradient, &sum) in gradients.iter_mut().zip(sums) {
            *gradient += sum;
        }
        Ok(())
    }
}
