//! Row flows in dfdx operations: their contract, and the kernel that is made of one.

use super::kernel::{Lanes, Pull, RowKernel, RowTape};
use super::view::RowView;
use crate::module::{Entry, parameter_count};
use crate::{Context, Facts, FlowError, Module, Parameter, Result, Scalar, Tensor, module, to_host};
use dfdx::prelude::{Backward, HasErr, OwnedTape, SplitTape, SumTo, Trace, TryAdd};
use flow_kernels::simd::add;
use flow_kernels::workspace::Buffer;

/// A tensor on a tape.
pub type Taped<S, E> = Tensor<S, E, OwnedTape<E, <E as Scalar>::Device>>;

/// What [`TapedRows::forward_taped`] gives: y, shape (rows, d), and log|det J| of every row, both recorded on the
/// tape of x.
pub type TapedMap<E> = (Taped<(usize, usize), E>, Taped<(usize,), E>);

/// What [`TapedRows::inverse_taped`] gives: x, shape (rows, d), and log|det J⁻¹| of every row.
pub type MappedRows<E> = (Tensor<(usize, usize), E>, Tensor<(usize,), E>);

/// A row flow in dfdx operations: the short way to write one, and what a fused kernel is held against.
///
/// A [`RowFlow`](crate::RowFlow) that returns itself from [`RowFlow::taped`](crate::RowFlow::taped) needs no kernel:
/// one is made of this, whose pullback runs a tape over a block of rows.
/// Parameters enter by [`Parameter::tensor`] put on a tape, `self.scale.tensor().retaped()`; the condition, where the
/// flow takes one, is that of the context, one vector a row.
///
/// ```
/// use flow_api::dfdx::prelude::*;
/// use flow_api::rows::{MappedRows, Rows, Taped, TapedMap, TapedRows};
/// use flow_api::testkit::{Subject, check};
/// use flow_api::{Context, Facts, Module, Parameter, RowFlow, Scalar, Tensor, module_fields};
///
/// /// y = e^s ⊙ x.
/// struct Scale<E: Scalar> { s: Parameter<E> }
/// impl<E: Scalar> Module<E> for Scale<E> { module_fields!(E; parameter s); }
///
/// impl<E: Scalar> TapedRows<E> for Scale<E> {
///     fn forward_taped(&self, x: Taped<(usize, usize), E>, _: &Context<E>) -> flow_api::Result<TapedMap<E>> {
///         let s = self.s.tensor().retaped::<OwnedTape<E, E::Device>>().broadcast_like::<_, Axis<0>>(x.shape());
///         let log_det = s.with_empty_tape().sum::<(usize,), Axis<1>>();
///         Ok((x * s.exp(), log_det))
///     }
///     fn inverse_taped(&self, y: Tensor<(usize, usize), E>, _: &Context<E>) -> flow_api::Result<MappedRows<E>> {
///         let s = self.s.tensor().clone().negate().broadcast_like::<_, Axis<0>>(y.shape());
///         Ok((y * s.clone().exp(), s.sum::<(usize,), Axis<1>>()))
///     }
/// }
///
/// impl<E: Scalar> RowFlow<E> for Scale<E> {
///     fn facts(&self) -> Facts { Facts::new("Scale") }
///     fn dim(&self) -> usize { self.s.values().len() }
///     fn taped(&self) -> Option<&dyn TapedRows<E>> { Some(self) }
/// }
///
/// check(&Subject::new("Scale", 3), |_| Ok(Rows(Scale::<f64> { s: Parameter::new(&[3], vec![0.5, 0.0, -0.25]) })))?;
/// # Ok::<(), flow_api::testkit::Failure>(())
/// ```
pub trait TapedRows<E: Scalar>: Module<E> {
    /// y and log|det J| of every row, recorded on the tape of `x`, shape (rows, d). Rows must not depend on each other.
    ///
    /// # Errors
    /// Whatever can go wrong; shapes and the condition have been checked.
    fn forward_taped(&self, x: Taped<(usize, usize), E>, cx: &Context<E>) -> Result<TapedMap<E>>;

    /// x and log|det J⁻¹| of every row.
    ///
    /// # Errors
    /// Whatever can go wrong; by default [`FlowError::NoInverse`], to which belong the facts
    /// `with_inverse(InverseKind::Missing)`.
    fn inverse_taped(&self, y: Tensor<(usize, usize), E>, cx: &Context<E>) -> Result<MappedRows<E>> {
        let _ = y;
        Err(FlowError::NoInverse { layer: cx.path().to_owned() })
    }
}

/// The kernel of a flow in dfdx operations.
pub(crate) struct TapedKernel<'a, E: Scalar> {
    flow: &'a dyn TapedRows<E>,
    kind: &'static str,
    view: RowView,
    parameters: usize,
    cx: Context<E>,
}

impl<'a, E: Scalar> TapedKernel<'a, E> {
    pub(crate) fn new(flow: &'a dyn TapedRows<E>, dim: usize, facts: Facts, cx: &Context<E>) -> Self {
        Self { flow, kind: facts.kind, view: RowView::single(dim), parameters: parameter_count(flow), cx: cx.clone() }
    }

    fn to_tensor(&self, block: &[E], lanes: usize) -> Tensor<(usize, usize), E> {
        let mut rows = vec![E::zero(); block.len()];
        self.view.scatter(block, 0, lanes, &mut rows);
        E::tensor(rows, (lanes, self.view.dim()))
    }

    /// The context of a block: the condition is that of its rows.
    fn context(&self, condition: Option<&[E]>, first_row: u64, lanes: usize) -> Context<E> {
        let cx = self.cx.rooted(first_row);
        match condition {
            None => cx,
            Some(condition) => {
                let width = condition.len() / lanes.max(1);
                let rows = (0..lanes * width).map(|k| condition[(k % width) * lanes + k / width]).collect();
                cx.with_condition(E::tensor(rows, (lanes, width)))
            }
        }
    }

    fn write(&self, (value, log_det): &MappedRows<E>, values: &mut [E], lanes: &mut Lanes<'_, E>) {
        self.view.gather(&to_host(value), 0, lanes.lanes, values);
        for (sum, l) in lanes.log_det.iter_mut().zip(to_host(log_det)) {
            *sum += l;
        }
    }

    /// An error of a block as one of the whole call.
    fn located(&self, error: FlowError, first_row: u64) -> FlowError {
        error.of_block(self.cx.path(), self.kind, first_row)
    }

    /// The cotangent of the rows' values, with ∂L/∂condition and the parameters' gradients added to what is given.
    fn pull(&self, x: &[E], cotangent: &[E], pull: &mut Pull<'_, E>, sums: &mut [E]) -> Result<Tensor<(usize, usize), E>> {
        let failed = |e: <E::Device as HasErr>::Err| FlowError::Device { layer: String::new(), message: e.to_string() };
        let lanes = pull.lanes;
        let cx = self.context(pull.condition, pull.first_row, lanes);
        let x = self.to_tensor(x, lanes);
        let (y, log_det) = self.flow.forward_taped(x.leaky_trace(), &cx)?;
        let through_value = (y * self.to_tensor(cotangent, lanes)).sum::<(), _>();
        let through_log_det = (log_det * E::tensor(pull.log_det.to_vec(), (lanes,))).sum::<(), _>();
        let mut local = through_value.try_add(through_log_det).and_then(Backward::try_backward).map_err(failed)?;
        let (mut at, mut error) = (0, None);
        module::visit(self.flow, |_, entry| {
            let Entry::Parameter { values, parameter, .. } = entry else { return };
            let own = &mut sums[at..at + values.len()];
            at += values.len();
            let Some(parameter) = parameter.downcast_ref::<Parameter<E>>() else { return };
            // A parameter that the pass did not use has the gradient zero.
            match local.try_alloc_for(parameter.tensor()) {
                Ok(()) => add(own, &to_host(&local.get(parameter.tensor()))),
                Err(e) => error = error.take().or(Some(failed(e))),
            }
        });
        if let Some(error) = error {
            return Err(error);
        }
        if let (Some(total), Some(condition)) = (&mut pull.condition_cotangent, cx.condition()) {
            local.try_alloc_for(condition).map_err(failed)?;
            let (rows, width) = (to_host(&local.get(condition)), condition_width(condition));
            for (k, total) in total.iter_mut().enumerate() {
                *total += rows[(k % lanes) * width + k / lanes];
            }
        }
        local.try_alloc_for(&x).map_err(failed)?;
        Ok(local.get(&x))
    }
}

fn condition_width<E: Scalar>(condition: &Tensor<(usize, usize), E>) -> usize {
    use dfdx::prelude::HasShape;
    condition.shape().1
}

impl<E: Scalar> RowKernel<E> for TapedKernel<'_, E> {
    fn forward(&self, values: &mut [E], lanes: &mut Lanes<'_, E>, tape: &mut RowTape<E>) -> Result<()> {
        if tape.is_recording() {
            tape.push(Buffer::copy_of(values));
        }
        let x = self.to_tensor(values, lanes.lanes);
        let cx = self.context(lanes.condition, lanes.first_row, lanes.lanes);
        let (y, log_det) = self.flow.forward_taped(x.leaky_traced(), &cx).map_err(|e| self.located(e, lanes.first_row))?;
        self.write(&(y.split_tape().0, log_det.split_tape().0), values, lanes);
        Ok(())
    }

    fn inverse(&self, values: &mut [E], lanes: &mut Lanes<'_, E>) -> Result<()> {
        let y = self.to_tensor(values, lanes.lanes);
        let cx = self.context(lanes.condition, lanes.first_row, lanes.lanes);
        let mapped = self.flow.inverse_taped(y, &cx).map_err(|e| self.located(e, lanes.first_row))?;
        self.write(&mapped, values, lanes);
        Ok(())
    }

    fn pullback(&self, cotangent: &mut [E], pull: &mut Pull<'_, E>, tape: &mut RowTape<E>, sums: &mut [E]) -> Result<()> {
        let x = tape.pop()?;
        let first_row = pull.first_row;
        let pulled = self.pull(&x, cotangent, pull, sums).map_err(|e| self.located(e, first_row))?;
        self.view.gather(&to_host(&pulled), 0, pull.lanes, cotangent);
        Ok(())
    }

    fn sums_len(&self) -> usize {
        self.parameters
    }
}
