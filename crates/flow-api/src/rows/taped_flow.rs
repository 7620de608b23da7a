//! The row flow of a form in dfdx operations.

use super::flow::RowFlow;
use super::taped::TapedRows;
use crate::{Facts, Module, Scalar, module_fields};

/// The row flow of a form in dfdx operations, with what the form does not say of itself. The paths of parameters are
/// the form's own.
///
/// ```
/// use flow_api::dfdx::prelude::*;
/// use flow_api::rows::{MappedRows, Rows, Taped, TapedFlow, TapedMap, TapedRows};
/// use flow_api::testkit::{Subject, check};
/// use flow_api::{Context, Facts, Module, Parameter, Scalar, Tensor, module_fields};
///
/// /// y = x + t.
/// struct Shift<E: Scalar>(Parameter<E>);
/// impl<E: Scalar> Module<E> for Shift<E> { module_fields!(E; parameter 0 as "shift"); }
/// impl<E: Scalar> TapedRows<E> for Shift<E> {
///     fn forward_taped(&self, x: Taped<(usize, usize), E>, _: &Context<E>) -> flow_api::Result<TapedMap<E>> {
///         let shape = *x.shape();
///         let shift = self.0.tensor().retaped::<OwnedTape<E, E::Device>>().broadcast_like::<_, Axis<0>>(&shape);
///         Ok((x + shift, E::zeros((shape.0,)).retaped()))
///     }
///     fn inverse_taped(&self, y: Tensor<(usize, usize), E>, _: &Context<E>) -> flow_api::Result<MappedRows<E>> {
///         let shape = *y.shape();
///         Ok((y - self.0.tensor().clone().broadcast_like::<_, Axis<0>>(&shape), E::zeros((shape.0,))))
///     }
/// }
/// let flow = || TapedFlow::new(Facts::new("Shift"), 3, Shift(Parameter::<f64>::new(&[3], vec![0.5, 0.0, -0.25])));
/// check(&Subject::new("Shift", 3), |_| Ok(Rows(flow())))?;
/// # Ok::<(), flow_api::testkit::Failure>(())
/// ```
#[derive(Clone, Debug)]
pub struct TapedFlow<F> {
    facts: Facts,
    dim: usize,
    form: F,
}

impl<F> TapedFlow<F> {
    /// The flow on R^dim of a form.
    pub fn new(facts: Facts, dim: usize, form: F) -> Self {
        Self { facts, dim, form }
    }
}

impl<E: Scalar, F: Module<E>> Module<E> for TapedFlow<F> {
    module_fields!(E; delegate form);
}

impl<E: Scalar, F: TapedRows<E>> RowFlow<E> for TapedFlow<F> {
    fn facts(&self) -> Facts {
        self.facts
    }

    fn dim(&self) -> usize {
        self.dim
    }

    fn taped(&self) -> Option<&dyn TapedRows<E>> {
        Some(&self.form)
    }
}
