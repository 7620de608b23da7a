//! The contract of a fused row kernel: a bijection of R^d on a block of rows in host memory.

use super::affine::AffineMap;
use super::taped::{TapedKernel, TapedRows};
use crate::bijector::LayerInfo;
use crate::device::RowForm;
use crate::log_det::SolveReport;
use crate::module::parameter_count;
use crate::{Context, Facts, FlowError, Module, Result, Scalar};
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
        let buffer = self.buffers.pop().ok_or_else(|| crate::bijector::foreign_point(""))?;
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
    /// [`Module::visit`]. `log_det` is Σ ∂L/∂log|det J| over all rows, for log-dets that no row decides. By default the
    /// sums are the gradients.
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

/// A bijection of R^d, shared by all rows of a batch: the one plug-in that the mixing skeleton needs.
///
/// [`Rows`](crate::rows::Rows) makes a [`Bijector`](crate::Bijector) of it. It has a fused kernel on blocks of rows
/// ([`RowFlow::prepare`]), or a form in dfdx operations ([`RowFlow::taped`]), of which a kernel is made; where it has
/// both, the testkit holds one against the other.
///
/// An element-wise scale, held against finite differences by the testkit:
///
/// ```
/// use flow_api::rows::{Buffer, Lanes, Pull, RowKernel, RowTape, Rows};
/// use flow_api::testkit::{Subject, check};
/// use flow_api::{Context, Facts, Module, Parameter, Result, RowFlow, Scalar, module_fields};
///
/// /// y = e^s ⊙ x with a log-scale s for every feature; log|det J| = Σⱼ sⱼ.
/// struct Scale<E: Scalar> {
///     log_scale: Parameter<E>,
/// }
///
/// impl<E: Scalar> Module<E> for Scale<E> {
///     module_fields!(E; parameter log_scale);
/// }
///
/// /// e^s and Σⱼ sⱼ for one call.
/// struct Ready<E> {
///     scale: Vec<E>,
///     log_det: E,
/// }
///
/// impl<E: Scalar> RowKernel<E> for Ready<E> {
///     fn forward(&self, values: &mut [E], lanes: &mut Lanes<'_, E>, tape: &mut RowTape<E>) -> Result<()> {
///         for (x, &scale) in values.chunks_exact_mut(lanes.lanes).zip(&self.scale) {
///             x.iter_mut().for_each(|x| *x *= scale);
///         }
///         lanes.log_det.iter_mut().for_each(|l| *l += self.log_det);
///         tape.push(Buffer::copy_of(values)); // y, for the pullback
///         Ok(())
///     }
///
///     fn inverse(&self, values: &mut [E], lanes: &mut Lanes<'_, E>) -> Result<()> {
///         for (y, &scale) in values.chunks_exact_mut(lanes.lanes).zip(&self.scale) {
///             y.iter_mut().for_each(|y| *y /= scale);
///         }
///         lanes.log_det.iter_mut().for_each(|l| *l -= self.log_det);
///         Ok(())
///     }
///
///     /// ∂L/∂x = e^s ⊙ ∂L/∂y, and Σ yⱼ ∂L/∂yⱼ over the rows for ∂L/∂sⱼ.
///     fn pullback(&self, cotangent: &mut [E], pull: &mut Pull<'_, E>, tape: &mut RowTape<E>, sums: &mut [E]) -> Result<()> {
///         let y = tape.pop()?;
///         let features = cotangent.chunks_exact_mut(pull.lanes).zip(y.chunks_exact(pull.lanes));
///         for ((g, y), (&scale, sum)) in features.zip(self.scale.iter().zip(sums)) {
///             *sum += g.iter().zip(y).map(|(&g, &y)| g * y).sum::<E>();
///             g.iter_mut().for_each(|g| *g *= scale);
///         }
///         Ok(())
///     }
///
///     fn sums_len(&self) -> usize {
///         self.scale.len()
///     }
///
///     /// The log-det's share is the same for every row, so it is added once.
///     fn finish(&self, sums: &[E], log_det: E, gradients: &mut [E]) -> Result<()> {
///         gradients.iter_mut().zip(sums).for_each(|(gradient, &sum)| *gradient += sum + log_det);
///         Ok(())
///     }
/// }
///
/// impl<E: Scalar> RowFlow<E> for Scale<E> {
///     fn facts(&self) -> Facts {
///         Facts::new("Scale")
///     }
///     fn dim(&self) -> usize {
///         self.log_scale.values().len()
///     }
///     fn prepare<'a>(&'a self, _: usize, _: &Context<E>) -> Result<Box<dyn RowKernel<E> + 'a>> {
///         let s = self.log_scale.values();
///         Ok(Box::new(Ready { scale: s.iter().map(|s| s.exp()).collect(), log_det: s.iter().copied().sum() }))
///     }
/// }
///
/// check(&Subject::new("Scale", 3), |_| Ok(Rows(Scale::<f64> { log_scale: Parameter::new(&[3], vec![0.3, -0.2, 0.5]) })))?;
/// # Ok::<(), flow_api::testkit::Failure>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a flow on rows of R^d",
    note = "implement `RowFlow`: with a fused kernel (`prepare`), or with `TapedRows`, a form in dfdx operations (`taped`)"
)]
pub trait RowFlow<E: Scalar>: Module<E> {
    /// What it says of itself; the cost is that of a row.
    fn facts(&self) -> Facts;

    /// Features in a row, d.
    fn dim(&self) -> usize;

    /// Makes the kernel for one call: reads the context's mode and noise and this flow's path from it. `rows` is how
    /// many the call has in all, so that work on the weights is done where it spares work on the rows; passes that
    /// belong together are prepared with the same number.
    ///
    /// # Errors
    /// Use before initialisation; parameters that admit no bijection. By default the kernel is made of
    /// [`RowFlow::taped`]; without one, it is [`FlowError::Unsupported`].
    fn prepare<'a>(&'a self, rows: usize, cx: &Context<E>) -> Result<Box<dyn RowKernel<E> + 'a>> {
        let _ = rows;
        match self.taped() {
            Some(taped) => Ok(Box::new(TapedKernel::new(taped, self.dim(), self.facts(), cx))),
            None => Err(FlowError::Unsupported {
                layer: cx.layer(self.facts().kind).to_owned(),
                operation: "prepare",
                reason: "the flow has neither a fused kernel nor a form in dfdx operations".to_owned(),
            }),
        }
    }

    /// As [`RowFlow::prepare`], up to and with the part with this dotted path; none if there is no such part here. The
    /// context's path is this flow's own.
    ///
    /// # Errors
    /// As [`RowFlow::prepare`].
    fn prepare_until<'a>(&'a self, layer: &str, rows: usize, cx: &Context<E>) -> Result<Option<Box<dyn RowKernel<E> + 'a>>> {
        if cx.path() == layer { self.prepare(rows, cx).map(Some) } else { Ok(None) }
    }

    /// This flow as an affine map, if it is one: neighbours in a [`RowChain`](crate::rows::RowChain) are then
    /// multiplied together.
    ///
    /// # Errors
    /// As [`RowFlow::prepare`].
    fn affine<'a>(&'a self, cx: &Context<E>) -> Result<Option<Box<dyn AffineMap<E> + 'a>>> {
        let _ = cx;
        Ok(None)
    }

    /// What this flow is on a device, part by part in order; the context's path is its own. By default it has no form
    /// there.
    ///
    /// # Errors
    /// As [`RowFlow::prepare`].
    fn device_form<'a>(&'a self, cx: &Context<E>) -> Result<Vec<RowForm<'a, E>>> {
        Ok(vec![RowForm::missing(cx, self.facts().kind, "")])
    }

    /// The form in dfdx operations, if there is one.
    fn taped(&self) -> Option<&dyn TapedRows<E>> {
        None
    }

    /// Data-dependent initialisation from `rows` rows, feature-major (dim × rows).
    ///
    /// # Errors
    /// Too few rows, constant features.
    fn initialise(&mut self, values: &[E], rows: usize, cx: &Context<E>) -> Result<()> {
        let _ = (values, rows, cx);
        Ok(())
    }

    /// Appends this flow's lines of the model's table, for `rows` rows a sample.
    fn describe(&self, path: &str, rows: usize, table: &mut Vec<LayerInfo>) {
        let shape = if rows == 1 { vec![self.dim()] } else { vec![rows, self.dim()] };
        table.push(LayerInfo::new(path, shape, parameter_count(self), self.facts().for_rows(rows)));
    }
}
