//! A bijection for one shape type alone.

use crate::bijector::{Cotangent, Kept, LayerInfo, Mapped, Point, Pulled};
use crate::device::SideForm;
use crate::{Bijector, Context, Facts, Gradients, Module, Result, Scalar, Tensor, module_fields, to_host};
use dfdx::prelude::Shape;
use std::marker::PhantomData;

/// `B` for inputs of shape `X` and no other.
///
/// A row flow takes rows of any dimension type, and its size is checked when a model is built. Pinned to
/// `(usize, Const<4>)`, it is a bijection of that shape alone, and to compose it with one of another shape does not
/// compile.
///
/// ```
/// use dfdx::prelude::*;
/// use flow_api::compose::{Pinned, Then};
/// use flow_api::layers::LuLinear;
/// use flow_api::rows::Rows;
/// type Four = (usize, Const<4>);
/// let linear = || Rows(LuLinear::<f32>::new(4));
/// let both = Then::new(Pinned::<Four, _>::new(linear()), Pinned::<Four, _>::new(linear()), &(1, Const));
/// assert!(both.is_ok());
/// ```
#[derive(Debug, Clone)]
pub struct Pinned<X, B> {
    inner: B,
    shape: PhantomData<X>,
}

impl<X, B> Pinned<X, B> {
    /// Pins a bijection to the shape type `X`.
    pub fn new(inner: B) -> Self {
        Self { inner, shape: PhantomData }
    }

    /// The bijection.
    pub fn into_inner(self) -> B {
        self.inner
    }
}

impl<X: Shape, E: Scalar, B: Module<E>> Module<E> for Pinned<X, B> {
    module_fields!(E; child inner);
}

impl<X: Shape, E: Scalar, B: Bijector<X, E>> Bijector<X, E> for Pinned<X, B> {
    type Out = B::Out;

    fn facts(&self) -> Facts {
        self.inner.facts()
    }

    fn output_shape(&self, input: &X) -> Result<B::Out> {
        self.inner.output_shape(input)
    }

    fn forward(&self, x: Tensor<X, E>, cx: &Context<E>) -> Result<Mapped<B::Out, E>> {
        self.inner.forward(x, &cx.child("inner"))
    }

    fn inverse(&self, y: Tensor<B::Out, E>, cx: &Context<E>) -> Result<Mapped<X, E>> {
        self.inner.inverse(y, &cx.child("inner"))
    }

    fn forward_until(&self, x: Tensor<X, E>, layer: &str, cx: &Context<E>) -> Result<Option<Vec<E>>> {
        if cx.path() == layer {
            return Ok(Some(to_host(&self.forward(x, cx)?.value)));
        }
        self.inner.forward_until(x, layer, &cx.child("inner"))
    }

    fn pullback_until(
        &self,
        x: Tensor<X, E>,
        layer: &str,
        cotangent: Vec<E>,
        gradients: &mut Gradients<E>,
        cx: &Context<E>,
    ) -> Result<Option<Pulled<X, E>>> {
        let inner = cx.child("inner");
        let layer = if cx.path() == layer { inner.path() } else { layer };
        self.inner.pullback_until(x, layer, cotangent, gradients, &inner)
    }

    fn forward_keeping(&self, x: Tensor<X, E>, cx: &Context<E>) -> Result<(Mapped<B::Out, E>, Kept)> {
        self.inner.forward_keeping(x, &cx.child("inner"))
    }

    fn pullback(
        &self,
        at: Point<X, B::Out, E>,
        cotangent: Cotangent<B::Out, E>,
        gradients: &mut Gradients<E>,
        cx: &Context<E>,
    ) -> Result<Pulled<X, E>> {
        self.inner.pullback(at, cotangent, gradients, &cx.child("inner"))
    }

    fn initialise(&mut self, x: Tensor<X, E>, cx: &Context<E>) -> Result<Tensor<B::Out, E>> {
        self.inner.initialise(x, &cx.child("inner"))
    }

    fn device_form<'a>(&'a self, cx: &Context<E>) -> Result<Vec<SideForm<'a, E>>> {
        self.inner.device_form(&cx.child("inner"))
    }

    fn describe(&self, path: &str, input: &X, table: &mut Vec<LayerInfo>) -> Result<()> {
        let path = if path.is_empty() { "inner".to_owned() } else { format!("{path}.inner") };
        self.inner.describe(&path, input, table)
    }
}
