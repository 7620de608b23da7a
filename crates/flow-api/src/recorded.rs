//! The adapter that makes a pullback from a forward pass in taped dfdx operations.

use crate::bijector::shape_error;
use crate::rows::Taped;
use crate::{
    Bijector, Context, Cotangent, Entry, FlowDevice, FlowError, Gradients, InverseKind, Mapped, Module, Parameter, Point, Pulled, Result,
    Scalar, Visitor, VisitorMut, module,
};
use dfdx::prelude::*;
use std::any::Any;

/// What the author of a new bijection writes: a forward pass in dfdx operations and an inverse. [`Recorded`] makes a [`Bijector`] of it.
///
/// Parameters enter the forward pass by [`Parameter::tensor`] put on a tape: `self.scale.tensor().retaped()`.
pub trait TapedBijector<X: Shape, E: Scalar, D: FlowDevice<E>>: Module<E> {
    /// Shape of what comes out.
    type Out: Shape;

    /// Name of the kind of bijection, as in specs.
    fn kind(&self) -> &'static str;

    /// The output shape for an input of this shape.
    ///
    /// # Errors
    /// [`FlowError::Shape`] if this bijection was built for another size.
    fn output_shape(&self, input: &X) -> Result<Self::Out>;

    /// Checks the shape of what goes into the inverse: by default that [`TapedBijector::output_shape`] leaves it as it is, where X and Out are of one type.
    /// A bijection that gives another shape than it takes says here which ones it gives.
    ///
    /// # Errors
    /// As [`TapedBijector::output_shape`].
    fn check_output(&self, output: &Self::Out) -> Result<()> {
        let Some(input) = (output as &dyn Any).downcast_ref::<X>() else { return Ok(()) };
        let expected = self.output_shape(input)?;
        if expected == *output { Ok(()) } else { Err(shape_error(self.kind(), "inverse", expected, output)) }
    }

    /// y and log|det J| per sample, both recorded: y continues the tape of `x`.
    ///
    /// # Errors
    /// Whatever can go wrong; shapes have been checked.
    fn forward_taped(&self, x: Taped<X, E, D>, cx: &Context<E, D>) -> Result<(Taped<Self::Out, E, D>, Taped<(usize,), E, D>)>;

    /// x and log|det J⁻¹| per sample.
    ///
    /// # Errors
    /// Whatever can go wrong; shapes have been checked.
    fn inverse(&self, y: Tensor<Self::Out, E, D>, cx: &Context<E, D>) -> Result<Mapped<X, E, D>>;

    /// In closed form or by iteration.
    fn inverse_kind(&self) -> InverseKind {
        InverseKind::ClosedForm
    }

    /// Width of the condition that it takes, if it is conditional.
    fn condition_width(&self) -> Option<usize> {
        None
    }
}

/// Makes a [`Bijector`] of a [`TapedBijector`]: the pullback runs a tape over this one layer.
///
/// ```
/// use dfdx::prelude::*;
/// use flow_api::{module_fields, shape_error, Bijector, Context, FlowDevice, Mapped, Module, Parameter, Recorded, Result, Scalar, Taped, TapedBijector};
///
/// /// y = e^s x.
/// struct Scale<E: Scalar, D: FlowDevice<E>> { s: Parameter<E, D> }
/// impl<E: Scalar, D: FlowDevice<E>> Module<E> for Scale<E, D> { module_fields!(E; parameter s); }
/// impl<E: Scalar, D: FlowDevice<E>> TapedBijector<(usize, usize), E, D> for Scale<E, D> {
///     type Out = (usize, usize);
///     fn kind(&self) -> &'static str { "Scale" }
///     fn output_shape(&self, input: &(usize, usize)) -> Result<(usize, usize)> {
///         let dim = self.s.values().len();
///         if input.1 == dim { Ok(*input) } else { Err(shape_error("Scale", "build", ("batch", dim), input)) }
///     }
///     fn forward_taped(&self, x: Taped<(usize, usize), E, D>, _: &Context<E, D>) -> Result<(Taped<(usize, usize), E, D>, Taped<(usize,), E, D>)> {
///         let shape = *x.shape();
///         let s = self.s.tensor().retaped::<OwnedTape<E, D>>().broadcast_like::<_, Axis<0>>(&shape);
///         let log_det = s.with_empty_tape().sum::<(usize,), Axis<1>>();
///         Ok((x * s.exp(), log_det))
///     }
///     fn inverse(&self, y: Tensor<(usize, usize), E, D>, _: &Context<E, D>) -> Result<Mapped<(usize, usize), E, D>> {
///         let s = self.s.tensor().clone().negate().broadcast_like::<_, Axis<0>>(y.shape());
///         Ok(Mapped::exact(y * s.clone().exp(), s.sum::<(usize,), Axis<1>>()))
///     }
/// }
///
/// let device = Cpu::seed_from_u64(1);
/// let flow = Recorded(Scale { s: Parameter::new(device.clone(), &[3], vec![0.5, 0.0, -0.25]) });
/// let x: Tensor<(usize, usize), f64, Cpu> = device.sample_normal_like(&(2, 3));
/// let y = flow.forward(x, &Context::new(0))?;
/// assert!((y.log_det.value.as_vec()[0] - 0.25).abs() < 1e-12);
/// let wide: Tensor<(usize, usize), f64, Cpu> = device.zeros_like(&(2, 4));
/// assert_eq!(flow.inverse(wide, &Context::new(0)).unwrap_err().to_string(), "Scale: build: expected shape (batch, 3), got (2, 4)");
/// # Ok::<(), flow_api::FlowError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Recorded<B>(pub B);

impl<E: Scalar, B: Module<E>> Module<E> for Recorded<B> {
    fn visit<'m>(&'m self, visitor: &mut Visitor<'_, 'm, E>) {
        self.0.visit(visitor);
    }
    fn visit_mut<'m>(&'m mut self, visitor: &mut VisitorMut<'_, 'm, E>) {
        self.0.visit_mut(visitor);
    }
    fn refresh(&mut self) -> Result<()> {
        self.0.refresh()
    }
}

impl<X: Shape, E: Scalar, D: FlowDevice<E>, B: TapedBijector<X, E, D>> Bijector<X, E, D> for Recorded<B> {
    type Out = B::Out;

    fn kind(&self) -> &'static str {
        self.0.kind()
    }

    fn output_shape(&self, input: &X) -> Result<B::Out> {
        self.0.output_shape(input)
    }

    fn forward(&self, x: Tensor<X, E, D>, cx: &Context<E, D>) -> Result<Mapped<B::Out, E, D>> {
        self.0.output_shape(x.shape()).map_err(|e| e.in_layer(cx.path()))?;
        check_condition::<E, D>(self.0.condition_width(), batch(x.shape()), cx)?;
        let (y, log_det) = detach(self.0.forward_taped(x.leaky_traced(), cx)?);
        check_log_det(&log_det).map_err(|e| e.in_layer(cx.layer(self.kind())))?;
        Ok(Mapped::exact(y, log_det))
    }

    fn inverse(&self, y: Tensor<B::Out, E, D>, cx: &Context<E, D>) -> Result<Mapped<X, E, D>> {
        self.0.check_output(y.shape()).map_err(|e| e.in_layer(cx.path()))?;
        check_condition::<E, D>(self.0.condition_width(), batch(y.shape()), cx)?;
        let mapped = self.0.inverse(y, cx)?;
        check_log_det(&mapped.log_det.value).map_err(|e| e.in_layer(cx.layer(self.0.kind())))?;
        Ok(mapped)
    }

    fn pullback(
        &self,
        at: Point<X, B::Out, E, D>,
        cotangent: Cotangent<B::Out, E, D>,
        gradients: &mut Gradients<E>,
        cx: &Context<E, D>,
    ) -> Result<Pulled<X, E, D>> {
        let x = at.input(self, cx)?;
        let expected = self.0.output_shape(x.shape()).map_err(|e| e.in_layer(cx.path()))?;
        check_cotangent(&expected, &cotangent, cx.layer(self.0.kind()))?;
        check_condition::<E, D>(self.0.condition_width(), batch(x.shape()), cx)?;
        let pulled = pull_through_tape(self, &x, cotangent, gradients, cx, |x| self.0.forward_taped(x, cx))?;
        Ok(Pulled { input: Some(x), cotangent: pulled })
    }

    fn inverse_kind(&self) -> InverseKind {
        self.0.inverse_kind()
    }

    fn condition_width(&self) -> Option<usize> {
        self.0.condition_width()
    }
}

/// Samples in a batch.
pub(crate) fn batch<S: Shape>(shape: &S) -> usize {
    shape.concrete().into_iter().next().unwrap_or(1)
}

/// The cotangents are those of outputs of this shape.
pub(crate) fn check_cotangent<Y: Shape, E: Scalar, D: FlowDevice<E>>(
    expected: &Y,
    cotangent: &Cotangent<Y, E, D>,
    layer: &str,
) -> Result<()> {
    let (expected, got) = ((expected, batch(expected)), (cotangent.value.shape(), cotangent.log_det.shape().0));
    if expected == got { Ok(()) } else { Err(shape_error(layer, "pullback", expected, got)) }
}

/// A condition of width `width` for every sample, if one is needed.
pub(crate) fn check_condition<E: Scalar, D: FlowDevice<E>>(width: Option<usize>, batch: usize, cx: &Context<E, D>) -> Result<()> {
    let Some(width) = width else { return Ok(()) };
    match cx.condition().map(|c| *c.shape()) {
        Some(shape) if shape == (batch, width) => Ok(()),
        got => Err(FlowError::Condition {
            layer: cx.path().to_owned(),
            expected: format!("({batch}, {width})"),
            got: got.map_or("none".to_owned(), |shape| format!("{shape:?}")),
        }),
    }
}

/// Every log-det is a number.
pub(crate) fn check_log_det<E: Scalar, D: FlowDevice<E>>(log_det: &Tensor<(usize,), E, D>) -> Result<()> {
    match crate::to_host(log_det).iter().position(|l| !num_traits::Float::is_finite(*l)) {
        None => Ok(()),
        Some(row) => Err(FlowError::NotFinite { layer: String::new(), what: "the log-det", row }),
    }
}

/// Both outputs without their tapes.
pub(crate) fn detach<Y: Shape, E: Scalar, D: FlowDevice<E>>(
    (y, log_det): (Taped<Y, E, D>, Taped<(usize,), E, D>),
) -> (Tensor<Y, E, D>, Tensor<(usize,), E, D>) {
    (y.split_tape().0, log_det.split_tape().0)
}

/// ∂L/∂x by a tape over `forward`; adds the gradients of all parameters of `module` below the context's path.
pub(crate) fn pull_through_tape<X: Shape, Y: Shape, E: Scalar, D: FlowDevice<E>, M: Module<E> + ?Sized>(
    module: &M,
    x: &Tensor<X, E, D>,
    cotangent: Cotangent<Y, E, D>,
    gradients: &mut Gradients<E>,
    cx: &Context<E, D>,
    forward: impl FnOnce(Taped<X, E, D>) -> Result<(Taped<Y, E, D>, Taped<(usize,), E, D>)>,
) -> Result<Tensor<X, E, D>> {
    let device_error = |e: D::Err| FlowError::Device { layer: cx.path().to_owned(), message: e.to_string() };
    // The gradient of a broadcast tensor would have the size of its storage.
    let x = &x.clone().contiguous();
    let (y, log_det) = forward(x.leaky_trace())?;
    let loss = (y * cotangent.value).sum::<(), _>() + (log_det * cotangent.log_det).sum::<(), _>();
    let mut local = loss.try_backward().map_err(device_error)?;
    let mut failed = None;
    module::visit(module, |path, entry| {
        let Entry::Parameter { parameter, .. } = entry else { return };
        let Some(parameter) = parameter.downcast_ref::<Parameter<E, D>>() else { return };
        // A parameter that the pass did not use has the gradient zero.
        let added = local.try_alloc_for(parameter.tensor()).map_err(device_error).and_then(|()| {
            let gradient = crate::to_host(&local.get(parameter.tensor()));
            let path = if cx.path().is_empty() { path.to_owned() } else { format!("{}.{path}", cx.path()) };
            gradients.add(&path, &gradient)
        });
        failed = failed.take().or(added.err());
    });
    failed.map_or(Ok(()), Err)?;
    local.try_alloc_for(x).map_err(device_error)?;
    Ok(local.get(x))
}
