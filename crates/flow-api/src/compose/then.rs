//! Static composition of two bijections whose shapes meet.

use crate::to_host;
use crate::{
    Bijector, Context, Cotangent, FlowDevice, FlowError, Gradients, InverseKind, Kept, LayerInfo, LogDetKind, Mapped, Memory, Module,
    Point, Pulled, Result, Scalar,
    bijector::{foreign_point, leads_to, one_condition},
    module_fields,
};
use dfdx::prelude::{Shape, Tensor};

/// First `A`, then `B`: a bijection only where `A::Out` is the shape that `B` takes.
///
/// log|det J| = log|det `J_A`| + log|det `J_B`|. Parameter paths are `first.…` and `second.…`.
///
/// ```
/// use flow_api::dfdx::prelude::*;
/// use flow_api::layers::{LuLinear, Permutation};
/// use flow_api::{Bijector, Context, Rows, Then, parameter_count, to_host};
/// let device = Cpu::default();
/// let linear = Rows(LuLinear::<f64, Cpu>::new(3, &device)); // starts as the identity
/// let both = Then::new(linear, Rows(Permutation::reverse(3, device.clone())), &(1, 3))?;
/// let x = device.tensor_from_vec(vec![1.0, 2.0, 3.0], (1, 3));
/// assert_eq!(to_host(&both.forward(x, &Context::new(0))?.value), [3.0, 2.0, 1.0]);
/// assert_eq!(parameter_count(&both), 3 + 3 + 3 + 3);
///
/// // Two sizes that do not meet are an error that names both layers.
/// let narrow = Rows(Permutation::reverse(2, device));
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
    /// [`FlowError::Composition`] naming both layers, [`FlowError::Condition`] for two that take conditions of different widths.
    pub fn new<X: Shape, E: Scalar, D: FlowDevice<E>>(first: A, second: B, input: &X) -> Result<Self>
    where
        A: Bijector<X, E, D>,
        B: Bijector<A::Out, E, D>,
    {
        let middle = first.output_shape(input)?;
        meets(first.kind(), &middle, &second)?;
        one_condition([(first.kind(), first.condition_width()), (second.kind(), second.condition_width())])?;
        Ok(Self { first, second })
    }
}

/// Checks that `second` takes `shape`, which comes out of `first`.
pub(super) fn meets<X: Shape, E: Scalar, D: FlowDevice<E>, B: Bijector<X, E, D> + ?Sized>(
    first: &str,
    shape: &X,
    second: &B,
) -> Result<B::Out> {
    second.output_shape(shape).map_err(|error| match error {
        FlowError::Shape { expected, got, .. } => {
            FlowError::Composition { first: first.to_owned(), second: second.kind().to_owned(), expected, got }
        }
        other => other,
    })
}

/// What a composition keeps of its forward pass, by memory setting.
enum Trace<X: Shape, Y: Shape, E: Scalar, D: FlowDevice<E>> {
    Store(Kept, Kept),
    Inputs(Tensor<X, E, D>, Tensor<Y, E, D>),
}

impl<E: Scalar, A: Module<E>, B: Module<E>> Module<E> for Then<A, B> {
    module_fields!(E; child first, child second; refresh first, second);
}

impl<X: Shape, E: Scalar, D: FlowDevice<E>, A: Bijector<X, E, D>, B: Bijector<A::Out, E, D>> Bijector<X, E, D> for Then<A, B> {
    type Out = B::Out;

    fn kind(&self) -> &'static str {
        "Then"
    }

    fn output_shape(&self, input: &X) -> Result<Self::Out> {
        meets(self.first.kind(), &self.first.output_shape(input)?, &self.second)
    }

    fn forward(&self, x: Tensor<X, E, D>, cx: &Context<E, D>) -> Result<Mapped<Self::Out, E, D>> {
        let first = self.first.forward(x, &cx.child("first"))?;
        let second = self.second.forward(first.value.clone(), &cx.child("second"))?;
        Ok(first.then(second))
    }

    fn forward_until(&self, x: Tensor<X, E, D>, layer: &str, cx: &Context<E, D>) -> Result<Option<Vec<E>>> {
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

    fn inverse(&self, y: Tensor<Self::Out, E, D>, cx: &Context<E, D>) -> Result<Mapped<X, E, D>> {
        let second = self.second.inverse(y, &cx.child("second"))?;
        let first = self.first.inverse(second.value.clone(), &cx.child("first"))?;
        Ok(second.then(first))
    }

    fn forward_keeping(&self, x: Tensor<X, E, D>, cx: &Context<E, D>) -> Result<(Mapped<Self::Out, E, D>, Kept)> {
        let (first_cx, second_cx) = (cx.child("first"), cx.child("second"));
        if cx.memory() == Memory::Store {
            let (first, a) = self.first.forward_keeping(x, &first_cx)?;
            let (second, b) = self.second.forward_keeping(first.value.clone(), &second_cx)?;
            let trace = Trace::<X, A::Out, E, D>::Store(a, b);
            Ok((first.then(second), Box::new(trace)))
        } else {
            let first = self.first.forward(x.clone(), &first_cx)?;
            let second = self.second.forward(first.value.clone(), &second_cx)?;
            let trace = Trace::Inputs(x, first.value.clone());
            Ok((first.then(second), Box::new(trace)))
        }
    }

    fn pullback(
        &self,
        at: Point<X, Self::Out, E, D>,
        cotangent: Cotangent<Self::Out, E, D>,
        gradients: &mut Gradients<E>,
        cx: &Context<E, D>,
    ) -> Result<Pulled<X, E, D>> {
        let (first_cx, second_cx) = (cx.child("first"), cx.child("second"));
        let (first_at, second_at) = match at {
            Point::Kept(kept) => match *kept.downcast::<Trace<X, A::Out, E, D>>().map_err(|_| foreign_point(cx.path()))? {
                Trace::Store(a, b) => (Some(Point::Kept(a)), Point::Kept(b)),
                Trace::Inputs(a, b) => (Some(Point::Input(a)), Point::Input(b)),
            },
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
        self.first.pullback(first_at, Cotangent { value: second.cotangent, log_det }, gradients, &first_cx)
    }

    fn initialise(&mut self, x: Tensor<X, E, D>, cx: &Context<E, D>) -> Result<Tensor<Self::Out, E, D>> {
        let middle = self.first.initialise(x, &cx.child("first"))?;
        self.second.initialise(middle, &cx.child("second"))
    }

    fn log_det_kind(&self) -> LogDetKind {
        self.first.log_det_kind().and(self.second.log_det_kind())
    }

    fn inverse_kind(&self) -> InverseKind {
        self.first.inverse_kind().and(self.second.inverse_kind())
    }

    fn condition_width(&self) -> Option<usize> {
        self.first.condition_width().or(self.second.condition_width())
    }

    fn multiply_adds(&self, input: &X) -> u64 {
        let second = self.first.output_shape(input).map_or(0, |middle| self.second.multiply_adds(&middle));
        self.first.multiply_adds(input) + second
    }

    fn describe(&self, path: &str, input: &X, table: &mut Vec<LayerInfo>) -> Result<()> {
        let join = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
        self.first.describe(&join("first"), input, table)?;
        self.second.describe(&join("second"), &self.first.output_shape(input)?, table)
    }
}
