//! The contract of a bijection of typed tensors.

use crate::{Context, FlowDevice, FlowError, Gradients, LogDet, LogDetKind, Module, Result, Scalar, SolveReport};
use dfdx::prelude::{Shape, Tensor};
use std::any::Any;

/// A value with the log-det of the map that made it.
#[derive(Clone, Debug)]
pub struct Mapped<S: Shape, E: Scalar, D: FlowDevice<E>> {
    /// The mapped batch.
    pub value: Tensor<S, E, D>,
    /// log|det J| per sample, of the map in the direction that was computed.
    pub log_det: LogDet<E, D>,
    /// What iterative parts did.
    pub report: SolveReport,
}

impl<S: Shape, E: Scalar, D: FlowDevice<E>> Mapped<S, E, D> {
    /// A closed-form result with an exact log-det.
    pub fn exact(value: Tensor<S, E, D>, log_det: Tensor<(usize,), E, D>) -> Self {
        Self { value, log_det: LogDet::exact(log_det), report: SolveReport::default() }
    }

    /// The composition with the map that was applied to this value and gave `next`.
    pub fn then<T: Shape>(self, next: Mapped<T, E, D>) -> Mapped<T, E, D> {
        Mapped { value: next.value, log_det: self.log_det.plus(next.log_det), report: self.report.then(next.report) }
    }
}

/// Derivatives of a scalar loss with respect to a layer's two outputs.
#[derive(Clone, Debug)]
pub struct Cotangent<S: Shape, E: Scalar, D: FlowDevice<E>> {
    /// ∂L/∂y.
    pub value: Tensor<S, E, D>,
    /// ∂L/∂log|det J| per sample.
    pub log_det: Tensor<(usize,), E, D>,
}

/// Whatever a layer kept of its forward pass for its pullback.
pub type Kept = Box<dyn Any>;

/// The point at which a pullback is taken: what the memory setting left of the forward pass.
#[derive(Debug)]
pub enum Point<X: Shape, Y: Shape, E: Scalar, D: FlowDevice<E>> {
    /// What [`Bijector::forward_keeping`] kept.
    Kept(Kept),
    /// The layer's input.
    Input(Tensor<X, E, D>),
    /// The layer's output, to be inverted.
    Output(Tensor<Y, E, D>),
}

impl<X: Shape, Y: Shape, E: Scalar, D: FlowDevice<E>> Point<X, Y, E, D> {
    /// The layer's input: as it was given, as the default [`Bijector::forward_keeping`] kept it, or by inverting the output.
    ///
    /// # Errors
    /// Those of the inverse.
    pub fn input<B>(self, bijector: &B, cx: &Context<E, D>) -> Result<Tensor<X, E, D>>
    where
        B: Bijector<X, E, D, Out = Y> + ?Sized,
    {
        match self {
            Self::Input(x) => Ok(x),
            Self::Output(y) => Ok(bijector.inverse(y, cx)?.value),
            Self::Kept(kept) => match kept.downcast::<Tensor<X, E, D>>() {
                Ok(x) => Ok(*x),
                Err(_) => Err(foreign_point(cx.path())),
            },
        }
    }
}

/// The error for a [`Point::Kept`] that another layer made.
pub fn foreign_point(path: &str) -> FlowError {
    FlowError::Unsupported {
        layer: path.to_owned(),
        operation: "pullback",
        reason: "the kept forward pass is not this layer's own".to_owned(),
    }
}

/// The result of a pullback.
#[derive(Clone, Debug)]
pub struct Pulled<X: Shape, E: Scalar, D: FlowDevice<E>> {
    /// The layer's input, which the layer before needs as its output where the pass inverts its way back: present unless the point was [`Point::Kept`].
    pub input: Option<Tensor<X, E, D>>,
    /// ∂L/∂x.
    pub cotangent: Tensor<X, E, D>,
}

/// Whether `layer` is the part with the path `part`, or within it.
pub fn leads_to(part: &str, layer: &str) -> bool {
    layer.strip_prefix(part).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// The error for a size that a layer was not built for. Shapes are shown as by `Debug`, words in them without quotes: `("batch", 5)` as (batch, 5).
pub fn shape_error(layer: &str, operation: &'static str, expected: impl std::fmt::Debug, got: impl std::fmt::Debug) -> FlowError {
    let words = |shape: String| shape.replace('"', "");
    FlowError::Shape { layer: layer.to_owned(), operation, expected: words(format!("{expected:?}")), got: words(format!("{got:?}")) }
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

/// How a bijection's inverse is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum InverseKind {
    /// In closed form: as exact as the forward map.
    ClosedForm,
    /// By iteration or by an ODE solve, to a tolerance that is reported.
    Iterative,
}

impl InverseKind {
    /// A composition has a closed form where both have.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        if self == Self::ClosedForm && other == Self::ClosedForm { Self::ClosedForm } else { Self::Iterative }
    }
}

impl std::fmt::Display for InverseKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::ClosedForm => "closed form",
            Self::Iterative => "iterative",
        })
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

/// A bijection between tensors of shape `X` and of shape [`Bijector::Out`], axis 0 the batch.
///
/// Value and log-det are computed together. The sign convention is x (data) → z (latent) forward, so that
/// log p(x) = log `p_Z(forward(x))` + log|det J|.
///
/// The trait is object-safe with `Out` named ([`BoxBijector`]), and composes statically with [`Then`](crate::Then): two whose shapes do not meet do not compile.
/// Authors of a new flow mostly implement one of two smaller traits: [`TapedBijector`](crate::TapedBijector), a forward pass in dfdx operations and an inverse, from which the pullback is
/// derived; or [`RowFlow`](crate::RowFlow), for flows on R^d that plug into the mixing skeleton.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a bijection of tensors of shape `{X}`",
    label = "its input shape does not meet `{X}`",
    note = "the output shape of one bijection must be the input shape of the next; axis 0 is the batch",
    note = "implement `TapedBijector` and wrap the flow in `Recorded`, or implement `RowFlow`, to get a `Bijector`"
)]
pub trait Bijector<X: Shape, E: Scalar, D: FlowDevice<E>>: Module<E> {
    /// Shape of what comes out.
    type Out: Shape;

    /// Name of the kind of bijection, as in specs.
    fn kind(&self) -> &'static str;

    /// The output shape for an input of this shape: the check that composition makes once, when a model is built.
    ///
    /// # Errors
    /// [`FlowError::Shape`] if this bijection was built for another size; the batch axis may have any size.
    fn output_shape(&self, input: &X) -> Result<Self::Out>;

    /// y = f(x) and log|det ∂f/∂x|.
    ///
    /// # Errors
    /// Wrong shapes, missing conditions, use before initialisation, failed solves.
    fn forward(&self, x: Tensor<X, E, D>, cx: &Context<E, D>) -> Result<Mapped<Self::Out, E, D>>;

    /// x = f⁻¹(y) and log|det ∂f⁻¹/∂y|.
    ///
    /// # Errors
    /// As [`Bijector::forward`], and [`FlowError::NotConverged`] from iterative inverses.
    fn inverse(&self, y: Tensor<Self::Out, E, D>, cx: &Context<E, D>) -> Result<Mapped<X, E, D>>;

    /// The forward map of a training step, with whatever the layer wants to keep for its pullback. By default that is its input.
    ///
    /// # Errors
    /// As [`Bijector::forward`].
    fn forward_keeping(&self, x: Tensor<X, E, D>, cx: &Context<E, D>) -> Result<(Mapped<Self::Out, E, D>, Kept)> {
        let mapped = self.forward(x.clone(), cx)?;
        Ok((mapped, Box::new(x)))
    }

    /// The activations behind the part with this dotted path, one sample after the other; none if there is no such part here. The context's path is this bijector's own.
    ///
    /// Paths are those of the model's table ([`Bijector::describe`]), and those of compositions around them.
    ///
    /// # Errors
    /// As [`Bijector::forward`].
    fn forward_until(&self, x: Tensor<X, E, D>, layer: &str, cx: &Context<E, D>) -> Result<Option<Vec<E>>> {
        if cx.path() != layer {
            return Ok(None);
        }
        Ok(Some(crate::to_host(&self.forward(x, cx)?.value)))
    }

    /// ∂L/∂x from ∂L/∂y and ∂L/∂log|det J|; adds the gradients of this layer's parameters to `gradients`, below the context's path.
    ///
    /// # Errors
    /// As [`Bijector::forward`], and those of the inverse if `at` is the output.
    fn pullback(
        &self,
        at: Point<X, Self::Out, E, D>,
        cotangent: Cotangent<Self::Out, E, D>,
        gradients: &mut Gradients<E>,
        cx: &Context<E, D>,
    ) -> Result<Pulled<X, E, D>>;

    /// Data-dependent initialisation: layers that need it read their statistics off `x`, in order, each seeing what the ones before it make of the batch; those that are initialised
    /// stay as they are. Returns f(x).
    ///
    /// # Errors
    /// As [`Bijector::forward`], and those of the layers' initialisation.
    fn initialise(&mut self, x: Tensor<X, E, D>, cx: &Context<E, D>) -> Result<Tensor<Self::Out, E, D>> {
        Ok(self.forward(x, cx)?.value)
    }

    /// Exact or estimated in evaluation.
    fn log_det_kind(&self) -> LogDetKind {
        LogDetKind::Exact
    }

    /// In closed form or by iteration.
    fn inverse_kind(&self) -> InverseKind {
        InverseKind::ClosedForm
    }

    /// Width of the condition that it takes, if it is conditional.
    fn condition_width(&self) -> Option<usize> {
        None
    }

    /// Multiply-adds of matrix products for one sample of this shape.
    fn multiply_adds(&self, input: &X) -> u64 {
        let _ = input;
        0
    }

    /// Appends this layer's lines of the model's table: one, or one a part.
    ///
    /// # Errors
    /// As [`Bijector::output_shape`].
    fn describe(&self, path: &str, input: &X, table: &mut Vec<LayerInfo>) -> Result<()> {
        let sample = |shape: Vec<usize>| shape.into_iter().skip(1).collect();
        table.push(LayerInfo {
            path: path.to_owned(),
            kind: self.kind().to_owned(),
            input: sample(input.concrete().into()),
            output: sample(self.output_shape(input)?.concrete().into()),
            parameters: crate::parameter_count(self),
            log_det: self.log_det_kind(),
            inverse: self.inverse_kind(),
            multiply_adds: self.multiply_adds(input),
        });
        Ok(())
    }
}

/// A boxed bijection from shape `X` to shape `Y`: what specs compose.
pub type BoxBijector<X, Y, E, D> = Box<dyn Bijector<X, E, D, Out = Y>>;
