//! The contract of a bijection of typed tensors.

use crate::device::SideForm;
pub use crate::error::foreign_point;
use crate::log_det::{LogDet, LogDetKind, SolveReport};
use crate::{Context, Facts, FlowError, Gradients, InverseKind, Module, Result, Scalar, Tensor, shape_error};
use dfdx::prelude::{HasShape, Shape};
use std::any::Any;

/// A value with the log-det of the map that made it.
#[derive(Clone, Debug)]
pub struct Mapped<S: Shape, E: Scalar> {
    /// The mapped batch.
    pub value: Tensor<S, E>,
    /// log|det J| per sample, of the map in the direction that was computed.
    pub log_det: LogDet<E>,
    /// What iterative parts did.
    pub report: SolveReport,
}

/// Samples in a batch of this shape.
pub(crate) fn batch<S: Shape>(shape: &S) -> usize {
    shape.concrete().into_iter().next().unwrap_or(1)
}

/// Checks that cotangents are those of outputs of this shape.
pub(crate) fn check_cotangent<Y: Shape, E: Scalar>(expected: &Y, cotangent: &Cotangent<Y, E>, layer: &str) -> Result<()> {
    let (expected, got) = ((expected, batch(expected)), (cotangent.value.shape(), cotangent.log_det.shape().0));
    if expected == got { Ok(()) } else { Err(shape_error(layer, "pullback", expected, got)) }
}

impl<S: Shape, E: Scalar> Mapped<S, E> {
    /// A closed-form result with an exact log-det.
    pub fn exact(value: Tensor<S, E>, log_det: Tensor<(usize,), E>) -> Self {
        Self { value, log_det: LogDet::exact(log_det), report: SolveReport::default() }
    }

    /// The composition with the map that was applied to this value and gave `next`.
    pub fn then<T: Shape>(self, next: Mapped<T, E>) -> Mapped<T, E> {
        Mapped { value: next.value, log_det: self.log_det.plus(next.log_det), report: self.report.then(next.report) }
    }
}

/// Derivatives of a scalar loss with respect to a layer's two outputs.
#[derive(Clone, Debug)]
pub struct Cotangent<S: Shape, E: Scalar> {
    /// ∂L/∂y.
    pub value: Tensor<S, E>,
    /// ∂L/∂log|det J| per sample.
    pub log_det: Tensor<(usize,), E>,
}

/// Whatever a layer kept of its forward pass for its pullback.
pub type Kept = Box<dyn Any>;

/// The point at which a pullback is taken: what the memory setting left of the forward pass.
#[derive(Debug)]
pub enum Point<X: Shape, Y: Shape, E: Scalar> {
    /// What [`Bijector::forward_keeping`] kept.
    Kept(Kept),
    /// The layer's input.
    Input(Tensor<X, E>),
    /// The layer's output, to be inverted.
    Output(Tensor<Y, E>),
}

impl<X: Shape, Y: Shape, E: Scalar> Point<X, Y, E> {
    /// The layer's input: as it was given, as the default [`Bijector::forward_keeping`] kept it, or by inverting the
    /// output.
    ///
    /// # Errors
    /// Those of the inverse.
    pub fn input<B>(self, bijector: &B, cx: &Context<E>) -> Result<Tensor<X, E>>
    where
        B: Bijector<X, E, Out = Y> + ?Sized,
    {
        match self {
            Self::Input(x) => Ok(x),
            Self::Output(y) => Ok(bijector.inverse(y, cx)?.value),
            Self::Kept(kept) => match kept.downcast::<Tensor<X, E>>() {
                Ok(x) => Ok(*x),
                Err(_) => Err(foreign_point(cx.path())),
            },
        }
    }
}

/// The result of a pullback.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Pulled<X: Shape, E: Scalar> {
    /// The layer's input, which the layer before needs as its output where the pass inverts its way back: present
    /// unless the point was [`Point::Kept`].
    pub input: Option<Tensor<X, E>>,
    /// ∂L/∂x.
    pub cotangent: Tensor<X, E>,
    /// ∂L/∂condition of every sample, shape (batch, width), of a conditional bijection.
    pub condition: Option<Tensor<(usize, usize), E>>,
}

impl<X: Shape, E: Scalar> Pulled<X, E> {
    /// What a pullback at this input gives, without a condition.
    pub fn new(input: Option<Tensor<X, E>>, cotangent: Tensor<X, E>) -> Self {
        Self { input, cotangent, condition: None }
    }

    /// The same with ∂L/∂condition.
    #[must_use]
    pub fn with_condition(self, condition: Option<Tensor<(usize, usize), E>>) -> Self {
        Self { condition, ..self }
    }
}

/// The sum of two cotangents of one condition, where a part may not have seen it.
pub(crate) fn sum_conditions<E: Scalar>(
    a: Option<Tensor<(usize, usize), E>>,
    b: Option<Tensor<(usize, usize), E>>,
) -> Option<Tensor<(usize, usize), E>> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a + b),
        (a, b) => a.or(b),
    }
}

/// Whether `layer` is the part with the path `part`, or within it.
pub fn leads_to(part: &str, layer: &str) -> bool {
    layer.strip_prefix(part).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Checks that all conditional parts of a composition, given with their names, take conditions of one width.
///
/// # Errors
/// [`FlowError::Condition`] naming both parts.
pub(crate) fn one_condition<'a>(parts: impl IntoIterator<Item = (&'a str, Option<usize>)>) -> Result<()> {
    let mut conditional = parts.into_iter().filter_map(|(name, width)| width.map(|width| (name, width)));
    let Some((first, width)) = conditional.next() else { return Ok(()) };
    match conditional.find(|(_, other)| *other != width) {
        None => Ok(()),
        Some((name, other)) => Err(FlowError::Condition {
            layer: name.to_owned(),
            expected: format!("(batch, {other})"),
            got: format!("the (batch, {width}) of {first}"),
        }),
    }
}

/// One line of a model's table.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerInfo {
    /// Dotted path.
    pub path: String,
    /// Name of the kind of layer, as in specs.
    pub kind: String,
    /// Shape of a sample that goes in.
    pub input: Vec<usize>,
    /// Shape of a sample that comes out.
    pub output: Vec<usize>,
    /// Trainable values.
    pub parameters: usize,
    /// Exact or estimated in evaluation.
    pub log_det: LogDetKind,
    /// How the inverse is computed.
    pub inverse: InverseKind,
    /// Multiply-adds of matrix products for one sample forward.
    pub multiply_adds: u64,
}

impl LayerInfo {
    /// The line of a layer that leaves the shape of a sample as it is.
    pub fn new(path: &str, shape: Vec<usize>, parameters: usize, facts: Facts) -> Self {
        let Facts { kind, log_det, inverse, multiply_adds, .. } = facts;
        Self {
            path: path.to_owned(),
            kind: kind.to_owned(),
            input: shape.clone(),
            output: shape,
            parameters,
            log_det,
            inverse,
            multiply_adds,
        }
    }
}

/// A bijection between tensors of shape `X` and of shape [`Bijector::Out`], axis 0 the batch.
///
/// Value and log-det are computed together. The sign convention is x (data) → z (latent) forward, so that
/// log p(x) = log `p_Z(forward(x))` + log|det J|.
///
/// The trait is object-safe with `Out` named ([`BoxBijector`]), and composes statically with
/// [`Then`](crate::compose::Then): two whose shapes do not meet do not compile. Authors of a new flow mostly implement
/// a smaller trait: [`RowFlow`](crate::RowFlow), for flows on R^d that all rows share, by a fused kernel or in dfdx
/// operations ([`TapedRows`](crate::rows::TapedRows)); or [`SampleFlow`](crate::SampleFlow), for maps of whole samples.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a bijection of tensors of shape `{X}`",
    label = "its input shape does not meet `{X}`",
    note = "the output shape of one bijection must be the input shape of the next; axis 0 is the batch",
    note = "implement `RowFlow` and wrap the flow in `Rows` to get a `Bijector`"
)]
pub trait Bijector<X: Shape, E: Scalar>: Module<E> {
    /// Shape of what comes out.
    type Out: Shape;

    /// What it says of itself; costs are those of a sample.
    fn facts(&self) -> Facts;

    /// The output shape for an input of this shape: the check that composition makes once, when a model is built.
    ///
    /// # Errors
    /// [`FlowError::Shape`] if this bijection was built for another size; the batch axis may have any size.
    fn output_shape(&self, input: &X) -> Result<Self::Out>;

    /// y = f(x) and log|det ∂f/∂x|.
    ///
    /// # Errors
    /// Wrong shapes, missing conditions, use before initialisation, failed solves.
    fn forward(&self, x: Tensor<X, E>, cx: &Context<E>) -> Result<Mapped<Self::Out, E>>;

    /// x = f⁻¹(y) and log|det ∂f⁻¹/∂y|.
    ///
    /// # Errors
    /// As [`Bijector::forward`], and [`FlowError::NotConverged`] from iterative inverses.
    fn inverse(&self, y: Tensor<Self::Out, E>, cx: &Context<E>) -> Result<Mapped<X, E>>;

    /// The forward map of a training step, with whatever the layer wants to keep for its pullback. By default that is
    /// its input.
    ///
    /// # Errors
    /// As [`Bijector::forward`].
    fn forward_keeping(&self, x: Tensor<X, E>, cx: &Context<E>) -> Result<(Mapped<Self::Out, E>, Kept)> {
        let mapped = self.forward(x.clone(), cx)?;
        Ok((mapped, Box::new(x)))
    }

    /// The activations behind the part with this dotted path, one sample after the other; none if there is no such part
    /// here. The context's path is this bijector's own.
    ///
    /// Paths are those of the model's table ([`Bijector::describe`]), and those of compositions around them.
    ///
    /// # Errors
    /// As [`Bijector::forward`].
    fn forward_until(&self, x: Tensor<X, E>, layer: &str, cx: &Context<E>) -> Result<Option<Vec<E>>> {
        if cx.path() != layer {
            return Ok(None);
        }
        Ok(Some(crate::to_host(&self.forward(x, cx)?.value)))
    }

    /// ∂L/∂x from the cotangent of the activations behind the part with this dotted path
    /// ([`Bijector::forward_until`]); the gradients of what is in front of it are added to `gradients`. None if there
    /// is no such part here.
    ///
    /// # Errors
    /// As [`Bijector::pullback`].
    fn pullback_until(
        &self,
        x: Tensor<X, E>,
        layer: &str,
        cotangent: Vec<E>,
        gradients: &mut Gradients<E>,
        cx: &Context<E>,
    ) -> Result<Option<Pulled<X, E>>> {
        if cx.path() != layer {
            return Ok(None);
        }
        let shape = self.output_shape(x.shape())?;
        if shape.num_elements() != cotangent.len() {
            return Err(shape_error(cx.layer(self.facts().kind), "pullback", shape, cotangent.len()));
        }
        let log_det = E::zeros((batch(&shape),));
        let cotangent = Cotangent { value: E::tensor(cotangent, shape), log_det };
        self.pullback(Point::Input(x), cotangent, gradients, cx).map(Some)
    }

    /// ∂L/∂x from ∂L/∂y and ∂L/∂log|det J|; adds the gradients of this layer's parameters to `gradients`, below the
    /// context's path.
    ///
    /// # Errors
    /// As [`Bijector::forward`], and those of the inverse if `at` is the output.
    fn pullback(
        &self,
        at: Point<X, Self::Out, E>,
        cotangent: Cotangent<Self::Out, E>,
        gradients: &mut Gradients<E>,
        cx: &Context<E>,
    ) -> Result<Pulled<X, E>>;

    /// Data-dependent initialisation: layers that need it read their statistics off `x`, in order, each seeing what the
    /// ones before it make of the batch; those that are initialised stay as they are. Returns f(x).
    ///
    /// # Errors
    /// As [`Bijector::forward`], and those of the layers' initialisation.
    fn initialise(&mut self, x: Tensor<X, E>, cx: &Context<E>) -> Result<Tensor<Self::Out, E>> {
        Ok(self.forward(x, cx)?.value)
    }

    /// What this bijector is on a device, side by side in order; the context's path is its own. By default it has no
    /// form there.
    ///
    /// # Errors
    /// Use before initialisation; parameters that admit no bijection.
    fn device_form<'a>(&'a self, cx: &Context<E>) -> Result<Vec<SideForm<'a, E>>> {
        Ok(vec![SideForm::missing(cx, self.facts().kind, "")])
    }

    /// Appends this layer's lines of the model's table: one, or one a part.
    ///
    /// # Errors
    /// As [`Bijector::output_shape`].
    fn describe(&self, path: &str, input: &X, table: &mut Vec<LayerInfo>) -> Result<()> {
        let sample = |shape: Vec<usize>| shape.into_iter().skip(1).collect();
        let shape = sample(input.concrete().into());
        let output = sample(self.output_shape(input)?.concrete().into());
        table.push(LayerInfo { output, ..LayerInfo::new(path, shape, crate::module::parameter_count(self), self.facts()) });
        Ok(())
    }
}

/// A boxed bijection from shape `X` to shape `Y`: what specs compose.
pub type BoxBijector<X, Y, E> = Box<dyn Bijector<X, E, Out = Y>>;
