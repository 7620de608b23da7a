//! The continuous flow.

use crate::adjoint::Adjoint;
use crate::discrete::{Reverse, solve_with_checkpoints};
use crate::field::{Field, FieldConfig, FieldKernel, solve_error};
use crate::forward::FlowSystem;
use crate::objective::{Objective, Regularisation};
use crate::ode::{Adaptive, Grid, OdeError, Solver, Steps, Work, finite};
use crate::setting::setting;
use crate::spec::{EndTime, Ffjord, Gradient};
use crate::trace::{Directions, Integrals, Trace};
use flow_api::log_det::{LogDetKind, SolveReport};
use flow_api::rows::{BLOCK_LANES, Lanes, Pull, RowKernel, RowTape, RowView};
use flow_api::{Context, Facts, InverseKind, Mode, Module, Parameter, Result, RowFlow, Scalar, module_fields};
use flow_kernels::noise::Stream;
use flow_kernels::workspace::Buffer;
use flow_nets::smooth::ConditionInput;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A continuous normalizing flow on R^d (FFJORD; Grathwohl et al. 2019, arXiv:1810.01367): x = z(0) is carried along
/// dz/dt = f(z, t) to y = z(T).
///
/// # Condition
/// The field may see a condition beside z, which is not moved ([`Field`]). Its gradient comes through the solver: that
/// of the first layer's offset is integrated with the adjoint, or added up over the discrete steps.
///
/// # Log-det
/// log|det ∂y/∂x| = ∫₀ᵀ tr ∂f/∂z dt, solved together with z. Its trace is exact or an estimate ([`Trace`]), with one
/// choice for training and one for evaluation, which can be changed at any time. An estimate carries its standard
/// error. A log-det with an exact trace is [`LogDetKind::Solved`]: it has no standard error, but is that of the
/// continuous flow up to the solver's error, not up to rounding: to the tolerance of an adaptive [`Solver`], and as
/// good as the grid of a fixed one, which may be no likelihood of the map that its steps make.
/// [`SolveReport::log_det_error`] has what an adaptive solver estimates to have left: the sum of its steps' errors in
/// root mean square over a block, at the tolerance of the largest |z| or |log-det|, as if all of it were one row's. It
/// is of the order of the worst row's true error, or above, but no bound on it.
///
/// # Inverse
/// The same solve from T to 0, with an error of the same size. Its residual in [`SolveReport`]:
/// - adaptive: the solver's own estimate, the sum of its steps' errors in root mean square over a block, at the
///   tolerance of the block's largest |z|; on the safe side, and more so the tighter the tolerance. Nothing is
///   measured, so that sampling costs no further solve;
/// - fixed grid: ‖f(x) − y‖₂ of the worst row, measured by one more solve forward (without the trace), whose
///   evaluations count. The inverse within a pullback is spared it.
///
/// # Solves
/// Every block of at most [`BLOCK_LANES`] rows is a solve of its own with its own steps, so one stiff sample does not
/// slow the batch, and results are bit-equal at any number of threads. [`SolveReport`] has the evaluations, accepted
/// steps (as iterations) and rejected steps of the block that needed most.
///
/// # Parameters
/// `field.…` ([`Field`]), and `sqrt_end_time` (1) where the end time T = s² is learned (Grathwohl et al. learn it in
/// the same form).
///
/// ```
/// use dfdx::prelude::*;
/// use flow_api::rows::Rows;
/// use flow_api::{Bijector, Context, Scalar};
/// use flows_ffjord::{ContinuousFlow, Ffjord};
///
/// let spec = Ffjord { hidden: 16, zero_init: false, ..Ffjord::default() };
/// let flow = Rows(ContinuousFlow::<f64>::new(&spec, 2, 7)?);
/// let x = f64::tensor(vec![0.3, -0.8, 1.1, 0.4], (2, 2));
/// let cx = Context::new(0);
/// let y = flow.forward(x.clone(), &cx)?;
/// let back = flow.inverse(y.value, &cx)?;
/// assert!((back.value - x).abs().max::<(), _>().array() < 1e-4);
/// assert!(y.report.evaluations > 0 && y.log_det.standard_error.is_none());
/// # Ok::<(), flow_api::FlowError>(())
/// ```
#[derive(Debug, Clone)]
pub struct ContinuousFlow<E: Scalar> {
    field: Field<E>,
    end_time: f64,
    sqrt_end_time: Option<Parameter<E>>,
    solver: Solver,
    gradient: Gradient,
    trace: Trace,
    evaluation_trace: Trace,
    regularisation: Regularisation,
    pullbacks: Tally,
}

/// The most that any block's solve took since it was last asked for.
#[derive(Debug, Default)]
struct Tally([AtomicUsize; 3]);

impl Tally {
    fn record(&self, work: Work) {
        for (most, own) in self.0.iter().zip([work.accepted, work.evaluations, work.rejected]) {
            most.fetch_max(own, Ordering::Relaxed);
        }
    }

    fn take(&self) -> SolveReport {
        let [iterations, evaluations, rejected] = [0, 1, 2].map(|i: usize| self.0[i].swap(0, Ordering::Relaxed));
        // Gradients are no inverse.
        SolveReport { iterations, evaluations, rejected, ..SolveReport::default() }
    }
}

/// A copy begins its own count.
impl Clone for Tally {
    fn clone(&self) -> Self {
        Self::default()
    }
}

/// The regularisers along the path of one row, see [`Regularisation`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Penalty<E> {
    /// ½ ∫ ‖f‖² dt.
    pub kinetic: E,
    /// ∫ ‖∂f/∂z‖² dt in the Frobenius norm, or its estimate by the probes.
    pub jacobian: E,
}

impl<E: Scalar> ContinuousFlow<E> {
    /// The flow on R^dim that a spec describes, with initial parameters drawn from the seed.
    ///
    /// # Errors
    /// [`FlowError::Setting`](flow_api::FlowError::Setting) for settings that no flow can be built with.
    pub fn new(spec: &Ffjord, dim: usize, seed: u64) -> Result<Self> {
        spec.check_in::<E>()?;
        if dim == 0 {
            return Err(setting("dim", "at least 1", dim));
        }
        let &Ffjord { hidden, layers, activation, time, zero_init, condition, .. } = spec;
        let condition = condition.unwrap_or(0);
        let field = Field::new(&FieldConfig { dim, hidden, layers, activation, time, zero_init, condition }, seed)?;
        let (end_time, learned) = match spec.end_time {
            EndTime::Fixed(end) => (end, false),
            EndTime::Learned(start) => (start, true),
        };
        Ok(Self {
            field,
            end_time,
            sqrt_end_time: learned.then(|| Parameter::new(&[1], vec![E::of(end_time.sqrt())])),
            solver: spec.solver,
            gradient: spec.gradient,
            trace: spec.trace,
            evaluation_trace: spec.evaluation_trace,
            regularisation: spec.regularisation,
            pullbacks: Tally::default(),
        })
    }

    /// The vector field.
    pub fn field(&self) -> &Field<E> {
        &self.field
    }

    /// T.
    pub fn end_time(&self) -> f64 {
        match self.sqrt_end_time.as_ref().and_then(|s| s.values().first()) {
            Some(s) => s.as_f64().powi(2),
            None => self.end_time,
        }
    }

    /// How the trace is found in a mode.
    pub fn trace(&self, mode: Mode) -> Trace {
        match mode {
            Mode::Train => self.trace,
            Mode::Evaluate => self.evaluation_trace,
        }
    }

    /// Changes how the trace is found in a mode; the parameters stay as they are.
    ///
    /// # Errors
    /// [`FlowError::Setting`](flow_api::FlowError::Setting) for an estimate with no probes.
    pub fn set_trace(&mut self, mode: Mode, trace: Trace) -> Result<()> {
        trace.check()?;
        match mode {
            Mode::Train => self.trace = trace,
            Mode::Evaluate => self.evaluation_trace = trace,
        }
        Ok(())
    }

    /// What the pullbacks since the last call of this method took: the most of any block. (A pullback has no report of
    /// its own.)
    pub fn take_pullback_report(&self) -> SolveReport {
        self.pullbacks.take()
    }

    /// Carries rows (row-major) along the field from one time to another, forwards or backwards, at the context's
    /// conditions and without their log-dets: for pictures of the flow.
    ///
    /// # Errors
    /// [`FlowError::Shape`](flow_api::FlowError::Shape) for numbers that are not whole rows,
    /// [`FlowError::Condition`](flow_api::FlowError::Condition) for a condition that does not
    /// fit; failed solves.
    pub fn transport(&self, rows: &[E], from: f64, to: f64, cx: &Context<E>) -> Result<Vec<E>> {
        let kernel = self.field.kernel()?;
        let mut moved = rows.to_vec();
        self.for_each_block(rows, cx, |view, first, lanes, offset, block| {
            let mut system = FlowSystem { field: &kernel, offset, lanes, integrals: None };
            self.solver.solve(&mut system, from, to, block).map_err(|e| solve_error(e, lanes, first as u64))?;
            view.scatter(block, first, lanes, &mut moved);
            Ok(())
        })?;
        Ok(moved)
    }

    /// The regularisers of rows (row-major), each along its own path, with the trace's probes of the context's mode.
    ///
    /// # Errors
    /// As [`ContinuousFlow::transport`].
    pub fn penalties(&self, rows: &[E], cx: &Context<E>) -> Result<Vec<Penalty<E>>> {
        let field = self.field.kernel()?;
        let noise = cx.noise();
        let mut penalties = Vec::with_capacity(rows.len() / self.dim());
        self.for_each_block(rows, cx, |_, first, lanes, offset, block| {
            let directions = Directions::new(self.trace(cx.mode()), &field.mlp, lanes, &noise, first as u64);
            let integrals = Integrals::new(&directions, true);
            let mut state = Buffer::zeroed(block.len() + integrals.len());
            state[..block.len()].copy_from_slice(block);
            let mut system = FlowSystem { field: &field, offset, lanes, integrals: Some((&directions, &integrals)) };
            self.solver.solve(&mut system, 0.0, self.end_time(), &mut state).map_err(|e| solve_error(e, lanes, first as u64))?;
            let values = &state[block.len()..];
            let pairs = values[integrals.kinetic.clone()].iter().zip(&values[integrals.jacobian.clone()]);
            penalties.extend(pairs.map(|(&kinetic, &jacobian)| Penalty { kinetic, jacobian }));
            Ok(())
        })?;
        Ok(penalties)
    }

    /// Runs `f` on the blocks of some rows: first row, lanes, the offset of the first layer, and the block.
    fn for_each_block(
        &self,
        rows: &[E],
        cx: &Context<E>,
        mut f: impl FnMut(&RowView, usize, usize, &[E], &mut [E]) -> Result<()>,
    ) -> Result<()> {
        let dim = self.dim();
        if !rows.len().is_multiple_of(dim) {
            return Err(flow_api::shape_error("Ffjord", "rows", ("rows", dim), rows.len()));
        }
        let view = RowView::single(dim);
        let count = rows.len() / dim;
        let conditions = self.field.conditions(count, cx)?;
        (0..count).step_by(BLOCK_LANES).try_for_each(|first| {
            let lanes = BLOCK_LANES.min(count - first);
            let mut block = Buffer::take(dim * lanes);
            view.gather(rows, first, lanes, &mut block);
            f(&view, first, lanes, &self.field.offset(conditions.as_ref(), first, lanes)?, &mut block)
        })
    }
}

impl<E: Scalar> Module<E> for ContinuousFlow<E> {
    module_fields!(E; child field, parameter sqrt_end_time);
}

impl<E: Scalar> ContinuousFlow<E> {
    /// Of the shortest solve that the method can make ([`Solver::least_evaluations`]), with the trace of evaluation: an
    /// adaptive solve takes what the field asks for. The exact trace of a field with at most two hidden layers counts
    /// as one direction.
    fn multiply_adds(&self) -> u64 {
        let layer = |(output, input): (usize, usize)| (output * input) as u64;
        let network: u64 = self.field.net().layers().iter().map(|l| layer(l.shape())).sum();
        let directions = match self.evaluation_trace {
            Trace::Exact if self.field.net().layers().len() <= 3 => 1,
            Trace::Exact => self.dim(),
            Trace::Hutchinson(settings) => settings.probes,
        };
        let solve = network.saturating_mul(1 + directions as u64).saturating_mul(self.solver.least_evaluations() as u64);
        solve.saturating_add(self.field.condition().multiply_adds())
    }
}

impl<E: Scalar> RowFlow<E> for ContinuousFlow<E> {
    fn facts(&self) -> Facts {
        let log_det = match self.evaluation_trace {
            Trace::Exact => LogDetKind::Solved,
            Trace::Hutchinson(_) => LogDetKind::Estimate,
        };
        let facts = Facts::new("Ffjord").with_log_det(log_det).with_inverse(InverseKind::Iterative);
        facts.with_condition(self.field.condition().width()).with_multiply_adds(self.multiply_adds())
    }

    fn dim(&self) -> usize {
        self.field.net().input()
    }

    fn prepare<'a>(&'a self, _: usize, cx: &Context<E>) -> Result<Box<dyn RowKernel<E> + 'a>> {
        let end = self.end_time();
        if !end.is_finite() {
            return Err(setting("sqrt_end_time", "a finite number", end.sqrt()));
        }
        // ∂T/∂s = 2 s.
        let end_slope = self.sqrt_end_time.as_ref().and_then(|s| s.values().first()).map(|s| 2.0 * s.as_f64());
        let regularisation = if cx.mode() == Mode::Train { self.regularisation } else { Regularisation::default() };
        Ok(Box::new(Kernel {
            field: self.field.kernel()?,
            condition: self.field.condition(),
            end,
            end_slope,
            solver: self.solver,
            gradient: self.gradient,
            trace: self.trace(cx.mode()),
            regularisation,
            wants_log_det: cx.wants_log_det(),
            noise: cx.noise(),
            pullbacks: &self.pullbacks,
        }))
    }
}

/// The flow made ready for one call.
struct Kernel<'a, E: Scalar> {
    field: FieldKernel<'a, E>,
    condition: &'a ConditionInput<E>,
    end: f64,
    end_slope: Option<f64>,
    solver: Solver,
    gradient: Gradient,
    trace: Trace,
    regularisation: Regularisation,
    wants_log_det: bool,
    noise: Stream,
    pullbacks: &'a Tally,
}

impl<E: Scalar> Kernel<'_, E> {
    fn directions(&self, lanes: usize, first_row: u64) -> Directions<E> {
        Directions::new(self.trace, &self.field.mlp, lanes, &self.noise, first_row)
    }

    /// Solves from one end to the other with `solve`, adds the log-dets, and returns what `solve` leaves besides, and
    /// its work.
    fn run<R>(
        &self,
        values: &mut [E],
        lanes: &mut Lanes<'_, E>,
        regularisation: Regularisation,
        solve: impl FnOnce(&mut FlowSystem<'_, '_, E>, &mut [E]) -> Result<(R, Work), OdeError>,
    ) -> Result<(R, Work)> {
        let directions = self.directions(lanes.lanes, lanes.first_row);
        let integrals = Integrals::new(&directions, regularisation != Regularisation::default());
        let wanted = self.wants_log_det.then_some((&directions, &integrals));
        let mut state = Buffer::zeroed(values.len() + wanted.map_or(0, |(_, integrals)| integrals.len()));
        state[..values.len()].copy_from_slice(values);
        let offset = self.condition.offset(lanes.condition, lanes.lanes)?;
        let mut system = FlowSystem { field: &self.field, offset: &offset, lanes: lanes.lanes, integrals: wanted };
        let (rest, work) = solve(&mut system, &mut state).map_err(|e| solve_error(e, lanes.lanes, lanes.first_row))?;
        values.copy_from_slice(&state[..values.len()]);
        if wanted.is_some() {
            integrals.add_log_dets(&state[values.len()..], lanes.log_det, lanes.variance);
        }
        let penalty = wanted.map_or(0.0, |_| regularisation.total(&integrals, &state[values.len()..]));
        let Work { evaluations, accepted, rejected, .. } = work;
        // Log-dets inherit the errors of z, and are held to the same tolerance; what is small in root mean square may
        // all be one row's.
        let worst = (lanes.lanes as f64).sqrt();
        let log_det_error = wanted.map_or(0.0, |_| self.estimated_error(work, &state).map_or(f64::INFINITY, |rms| worst * rms));
        *lanes.report =
            lanes.report.then(SolveReport { iterations: accepted, evaluations, rejected, residual: 0.0, log_det_error, penalty });
        Ok((rest, work))
    }

    fn solve_back(&self, values: &mut [E], lanes: &mut Lanes<'_, E>) -> Result<Work> {
        let ((), work) = self.run(values, lanes, Regularisation::default(), |system, state| {
            self.solver.solve(system, self.end, 0.0, state).map(|work| ((), work))
        })?;
        Ok(work)
    }

    /// What an adaptive solve has left by its own estimate: the errors of its steps at the tolerance of the largest
    /// number of a state. A fixed grid has no estimate.
    fn estimated_error(&self, work: Work, state: &[E]) -> Option<f64> {
        let (_, Steps::Adaptive(Adaptive { atol, rtol, .. })) = self.solver.parts() else { return None };
        let largest = state.iter().fold(0.0, |largest, z| f64::max(largest, z.as_f64().abs()));
        Some(work.error * (atol + rtol * largest))
    }

    /// What the solve back from y to x has left, as the flow's documentation says.
    fn residual(&self, y: &[E], x: &[E], work: Work, lanes: &mut Lanes<'_, E>) -> Result<f64> {
        if let (Some(at_y), Some(at_x)) = (self.estimated_error(work, y), self.estimated_error(work, x)) {
            return Ok(f64::max(at_y, at_x));
        }
        let mut again = Buffer::copy_of(x);
        let offset = self.condition.offset(lanes.condition, lanes.lanes)?;
        let mut system = FlowSystem { field: &self.field, offset: &offset, lanes: lanes.lanes, integrals: None };
        let solved = self.solver.solve(&mut system, 0.0, self.end, &mut again);
        lanes.report.evaluations += solved.map_err(|e| solve_error(e, lanes.lanes, lanes.first_row))?.evaluations;
        let mut squares = vec![0.0; lanes.lanes];
        for (again, y) in again.chunks_exact(lanes.lanes).zip(y.chunks_exact(lanes.lanes)) {
            squares.iter_mut().zip(again).zip(y).for_each(|((s, a), y)| *s += (a.as_f64() - y.as_f64()).powi(2));
        }
        Ok(squares.into_iter().fold(0.0, f64::max).sqrt())
    }

    /// The fixed grid of the method, which the discrete gradient is of.
    fn grid(&self) -> Result<(&'static crate::ode::tableau::Tableau, Grid)> {
        match self.solver.parts() {
            (tableau, Steps::Fixed(steps)) => Ok((tableau, Grid { from: 0.0, to: self.end, steps })),
            (_, Steps::Adaptive(_)) => Err(setting("gradient", "Adjoint with an adaptive solver", "Discrete")),
        }
    }

    /// y → x and ∂L/∂y → ∂L/∂x by the adjoint; adds to `sums`.
    fn pull_adjoint(&self, settings: Adjoint, values: &mut [E], cotangent: &mut [E], pull: &mut Pull<'_, E>, sums: &mut [E]) -> Result<()> {
        let directions = self.directions(pull.lanes, pull.first_row);
        let offset = self.condition.offset(pull.condition, pull.lanes)?;
        let mut offset_bar = Buffer::zeroed(offset.len());
        let objective = self.objective(&directions, &offset, pull.lanes);
        let for_end = self.end_slope.is_some();
        let pulled = settings.pull(&objective, &self.solver, self.end, values, cotangent, pull.log_det, &mut offset_bar, sums, for_end);
        let (end_gradient, work) = pulled.map_err(|e| solve_error(e, pull.lanes, pull.first_row))?;
        self.add_end(end_gradient, sums);
        self.pullbacks.record(work);
        self.pull_condition(&offset_bar, pull, sums)
    }

    fn objective<'k>(&'k self, directions: &'k Directions<E>, offset: &'k [E], lanes: usize) -> Objective<'k, 'k, E> {
        Objective { field: &self.field, offset, directions, regularisation: self.regularisation, lanes }
    }

    /// Adds what the offset's cotangent makes of the condition's, and of the sums behind the field's other parameters.
    fn pull_condition(&self, offset_bar: &[E], pull: &mut Pull<'_, E>, sums: &mut [E]) -> Result<()> {
        let own = &mut sums[self.field.parameters..][..self.condition.sums_len()];
        self.condition.pullback(pull.condition, offset_bar, pull.lanes, pull.condition_cotangent.as_deref_mut(), own)
    }

    /// ∂L/∂s = ∂L/∂T · 2 s, behind the field's sums.
    fn add_end(&self, end_gradient: f64, sums: &mut [E]) {
        if let (Some(slope), Some(sum)) = (self.end_slope, sums.get_mut(self.field.parameters + self.condition.sums_len())) {
            *sum += E::of(slope * end_gradient);
        }
    }
}

impl<E: Scalar> RowKernel<E> for Kernel<'_, E> {
    fn forward(&self, values: &mut [E], lanes: &mut Lanes<'_, E>, tape: &mut RowTape<E>) -> Result<()> {
        if tape.is_recording() && self.gradient == Gradient::Discrete {
            let (tableau, grid) = self.grid()?;
            let (checkpoints, _) = self.run(values, lanes, self.regularisation, |system, state| {
                finite("the initial state", state)?;
                let result = solve_with_checkpoints(tableau, system, grid, state);
                finite("the state", state).map(|()| result)
            })?;
            tape.push(checkpoints);
            return Ok(());
        }
        self.run(values, lanes, self.regularisation, |system, state| {
            self.solver.solve(system, 0.0, self.end, state).map(|work| ((), work))
        })?;
        if tape.is_recording() {
            tape.push(Buffer::copy_of(values));
        }
        Ok(())
    }

    fn estimates(&self) -> bool {
        self.trace != Trace::Exact
    }

    fn inverse(&self, values: &mut [E], lanes: &mut Lanes<'_, E>) -> Result<()> {
        let y = Buffer::copy_of(values);
        let work = self.solve_back(values, lanes)?;
        lanes.report.residual = lanes.report.residual.max(self.residual(&y, values, work, lanes)?);
        Ok(())
    }

    fn pullback(&self, cotangent: &mut [E], pull: &mut Pull<'_, E>, tape: &mut RowTape<E>, sums: &mut [E]) -> Result<()> {
        let mut kept = tape.pop()?;
        let Gradient::Adjoint(settings) = self.gradient else {
            let (tableau, grid) = self.grid()?;
            let directions = self.directions(pull.lanes, pull.first_row);
            let offset = self.condition.offset(pull.condition, pull.lanes)?;
            let mut offset_bar = Buffer::zeroed(offset.len());
            let objective = self.objective(&directions, &offset, pull.lanes);
            // At T = 0 a learned end time has the gradient 0, since ∂T/∂s = 0.
            let for_end = self.end_slope.is_some() && self.end > 0.0;
            let reverse = Reverse { objective: &objective, tableau, grid, g: pull.log_det, for_end };
            let (end_gradient, work) = reverse.pull(&kept, pull.first_row, cotangent, &mut offset_bar, sums)?;
            self.add_end(end_gradient, sums);
            self.pullbacks.record(work);
            return self.pull_condition(&offset_bar, pull, sums);
        };
        if kept.len() != cotangent.len() {
            return Err(flow_api::bijector::foreign_point(""));
        }
        self.pull_adjoint(settings, &mut kept, cotangent, pull, sums)
    }

    fn pullback_inverting(&self, values: &mut [E], cotangent: &mut [E], pull: &mut Pull<'_, E>, sums: &mut [E]) -> Result<()> {
        if let Gradient::Adjoint(settings) = self.gradient {
            return self.pull_adjoint(settings, values, cotangent, pull, sums);
        }
        let mut tape = RowTape::recording();
        pull.with_lanes(|lanes| {
            self.solve_back(values, lanes)?;
            let mut again = Buffer::copy_of(values);
            self.forward(&mut again, lanes, &mut tape)
        })?;
        self.pullback(cotangent, pull, &mut tape, sums)
    }

    fn sums_len(&self) -> usize {
        self.field.parameters + self.condition.sums_len() + usize::from(self.end_slope.is_some())
    }
}
