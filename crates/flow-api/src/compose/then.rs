//! Static composition of two bijections whose shapes meet.

use crate::bijector::{Cotangent, Kept, LayerInfo, Mapped, Point, Pulled, leads_to, one_condition, sum_conditions};
use crate::context::Keep;
use crate::device::SideForm;
use crate::error::foreign_point;
use crate::{Bijector, Context, Facts, FlowError, Gradients, Module, Result, Scalar, Tensor, module_fields, to_host};
use dfdx::prelude::{HasShape, Shape};

/// First `A`, then `B`: a bijection only where `A::Out` is the shape that `B` takes.
///
/// log|det J| = log|det `J_A`| + log|det `J_B`|. Parameter paths are `first.…` and `second.…`.
///
/// ```
/// use flow_api::compose::Then;
/// use flow_api::layers::{LuLinear, Permutation};
/// use flow_api::module::parameter_count;
/// use flow_api::rows::Rows;
/// use flow_api::{Bijector, Context, Scalar, to_host};
/// let linear = Rows(LuLinear::<f64>::new(3)); // starts as the identity
/// let both = Then::new(linear, Rows(Permutation::reverse(3)), &(1, 3))?;
/// let x = f64::tensor(vec![1.0, 2.0, 3.0], (1, 3));
/// assert_eq!(to_host(&both.forward(x, &Context::new(0))?.value), [3.0, 2.0, 1.0]);
/// assert_eq!(parameter_count(&both), 3 + 3 + 3 + 3);
///
/// // Two sizes that do not meet are an error that names both layers.
/// let narrow = Rows(Permutation::reverse(2));
/// assert!(Then::new(both, narrow, &(1, 3)).unwrap_err().to_string().contains("Permutation"));
/// # Ok::<(), flow_api::FlowError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Then<A, B> {
    first: A,
    second: B,
}

impl<A, B> Then<A, B> {
    /// Composes two bijections and checks that their run-time sizes meet for inputs of shape `input`.
    ///
    /// # Errors
    /// [`FlowError::Composition`] naming both layers, [`FlowError::Condition`] for two that take conditions of
    /// different widths.
    pub fn new<X: Shape, E: Scalar>(first: A, second: B, input: &X) -> Result<Self>
    where
        A: Bijector<X, E>,
        B: Bijector<A::Out, E>,
    {
        let middle = first.output_shape(input)?;
        meets(first.facts().kind, &middle, &second)?;
        one_condition([first.facts(), second.facts()].map(|facts| (facts.kind, facts.condition)))?;
        Ok(Self { first, second })
    }
}

/// Checks that `second` takes `shape`, which comes out of `first`.
pub(super) fn meets<X: Shape, E: Scalar, B: Bijector<X, E> + ?Sized>(first: &str, shape: &X, second: &B) -> Result<B::Out> {
    second.output_shape(shape).map_err(|error| match error {
        FlowError::Shape { expected, got, .. } => {
            FlowError::Composition { first: first.to_owned(), second: second.facts().kind.to_owned(), expected, got }
        }
        other => other,
    })
}

/// What a composition keeps of its forward pass: of each part what the memory setting says, and the output where the
/// second part is to be inverted.
struct Trace<Y: Shape, E: Scalar> {
    first: Option<Kept>,
    second: Option<Kept>,
    output: Option<Tensor<Y, E>>,
}

/// The forward pass of a part, with what it keeps, if it keeps anything.
fn forward_part<X: Shape, E: Scalar, B: Bijector<X, E>>(
    part: &B,
    x: Tensor<X, E>,
    cx: &Context<E>,
) -> Result<(Mapped<B::Out, E>, Option<Kept>)> {
    if cx.memory().keep(part.facts().inverse) == Keep::Nothing {
        return Ok((part.forward(x, cx)?, None));
    }
    part.forward_keeping(x, cx).map(|(mapped, kept)| (mapped, Some(kept)))
}

impl<E: Scalar, A: Module<E>, B: Module<E>> Module<E> for Then<A, B> {
    module_fields!(E; child first, child second);
}

impl<X: Shape, E: Scalar, A: Bijector<X, E>, B: Bijector<A::Out, E>> Bijector<X, E> for Then<A, B> {
    type Out = B::Out;

    fn facts(&self) -> Facts {
        Facts::of("Then", [self.first.facts(), self.second.facts()])
    }

    fn output_shape(&self, input: &X) -> Result<Self::Out> {
        meets(self.first.facts().kind, &self.first.output_shape(input)?, &self.second)
    }

    fn forward(&self, x: Tensor<X, E>, cx: &Context<E>) -> Result<Mapped<Self::Out, E>> {
        let first = self.first.forward(x, &cx.child("first"))?;
        let second = self.second.forward(first.value.clone(), &cx.child("second"))?;
        Ok(first.then(second))
    }

    fn forward_until(&self, x: Tensor<X, E>, layer: &str, cx: &Context<E>) -> Result<Option<Vec<E>>> {
        if cx.path() == layer {
            return Ok(Some(to_host(&self.forward(x, cx)?.value)));
        }
        let (first, second) = (cx.child("first"), cx.child("second"));
        if leads_to(first.path(), layer) {
            return self.first.forward_until(x, layer, &first);
        }
        if !leads_to(second.path(), layer) {
            return Ok(None);
        }
        self.second.forward_until(self.first.forward(x, &first)?.value, layer, &second)
    }

    fn pullback_until(
        &self,
        x: Tensor<X, E>,
        layer: &str,
        cotangent: Vec<E>,
        gradients: &mut Gradients<E>,
        cx: &Context<E>,
    ) -> Result<Option<Pulled<X, E>>> {
        let (first, second) = (cx.child("first"), cx.child("second"));
        if leads_to(first.path(), layer) {
            return self.first.pullback_until(x, layer, cotangent, gradients, &first);
        }
        let layer = if cx.path() == layer { second.path() } else { layer };
        if !leads_to(second.path(), layer) {
            return Ok(None);
        }
        let middle = self.first.forward(x.clone(), &first)?.value;
        let Some(pulled) = self.second.pullback_until(middle, layer, cotangent, gradients, &second)? else { return Ok(None) };
        let log_det = E::zeros((crate::bijector::batch(x.shape()),));
        let cotangent = Cotangent { value: pulled.cotangent, log_det };
        let before = self.first.pullback(Point::Input(x), cotangent, gradients, &first)?;
        let condition = sum_conditions(before.condition.clone(), pulled.condition);
        Ok(Some(before.with_condition(condition)))
    }

    fn inverse(&self, y: Tensor<Self::Out, E>, cx: &Context<E>) -> Result<Mapped<X, E>> {
        let second = self.second.inverse(y, &cx.child("second"))?;
        let first = self.first.inverse(second.value.clone(), &cx.child("first"))?;
        Ok(second.then(first))
    }

    fn forward_keeping(&self, x: Tensor<X, E>, cx: &Context<E>) -> Result<(Mapped<Self::Out, E>, Kept)> {
        let (first, a) = forward_part(&self.first, x, &cx.child("first"))?;
        let (second, b) = forward_part(&self.second, first.value.clone(), &cx.child("second"))?;
        let output = b.is_none().then(|| second.value.clone());
        Ok((first.then(second), Box::new(Trace { first: a, second: b, output })))
    }

    fn pullback(
        &self,
        at: Point<X, Self::Out, E>,
        cotangent: Cotangent<Self::Out, E>,
        gradients: &mut Gradients<E>,
        cx: &Context<E>,
    ) -> Result<Pulled<X, E>> {
        let (first_cx, second_cx) = (cx.child("first"), cx.child("second"));
        let (first_at, second_at) = match at {
            Point::Kept(kept) => {
                let foreign = || foreign_point(cx.path());
                let Trace { first, second, output } = *kept.downcast::<Trace<B::Out, E>>().map_err(|_| foreign())?;
                let second = second.map(Point::Kept).or_else(|| output.map(Point::Output));
                (first.map(Point::Kept), second.ok_or_else(foreign)?)
            }
            Point::Input(x) => {
                let middle = self.first.forward(x.clone(), &first_cx)?.value;
                (Some(Point::Input(x)), Point::Input(middle))
            }
            Point::Output(y) => (None, Point::Output(y)),
        };
        let log_det = cotangent.log_det.clone();
        let second = self.second.pullback(second_at, cotangent, gradients, &second_cx)?;
        let first_at = match (first_at, second.input) {
            (Some(at), _) => at,
            (None, Some(middle)) => Point::Output(middle),
            (None, None) => return Err(foreign_point(cx.path())),
        };
        let first = self.first.pullback(first_at, Cotangent { value: second.cotangent, log_det }, gradients, &first_cx)?;
        let condition = sum_conditions(first.condition.clone(), second.condition);
        Ok(first.with_condition(condition))
    }

    fn initialise(&mut self, x: Tensor<X, E>, cx: &Context<E>) -> Result<Tensor<Self::Out, E>> {
        let middle = self.first.initialise(x, &cx.child("first"))?;
        self.second.initialise(middle, &cx.child("second"))
    }

    fn device_form<'a>(&'a self, cx: &Context<E>) -> Result<Vec<SideForm<'a, E>>> {
        let mut sides = self.first.device_form(&cx.child("first"))?;
        sides.extend(self.second.device_form(&cx.child("second"))?);
        Ok(sides)
    }

    fn describe(&self, path: &str, input: &X, table: &mut Vec<LayerInfo>) -> Result<()> {
        let join = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
        self.first.describe(&join("first"), input, table)?;
        self.second.describe(&join("second"), &self.first.output_shape(input)?, table)
    }
}
