//! The contract of a flow on rows.

use super::affine::AffineMap;
use super::kernel::RowKernel;
use super::taped::{TapedKernel, TapedRows};
use crate::bijector::LayerInfo;
use crate::device::RowForm;
use crate::module::parameter_count;
use crate::{Context, Facts, FlowError, Module, Result, Scalar};

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
