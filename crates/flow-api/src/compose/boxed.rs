//! A boxed bijector is a bijector.

use crate::bijector::{Cotangent, Kept, LayerInfo, Mapped, Point, Pulled};
use crate::device::SideForm;
use crate::{Bijector, Context, Facts, Gradients, Result, Scalar, Tensor};
use dfdx::prelude::Shape;

impl<X: Shape, E: Scalar, B: Bijector<X, E> + ?Sized> Bijector<X, E> for Box<B> {
    type Out = B::Out;

    fn facts(&self) -> Facts {
        (**self).facts()
    }
    fn output_shape(&self, input: &X) -> Result<Self::Out> {
        (**self).output_shape(input)
    }
    fn forward(&self, x: Tensor<X, E>, cx: &Context<E>) -> Result<Mapped<Self::Out, E>> {
        (**self).forward(x, cx)
    }
    fn inverse(&self, y: Tensor<Self::Out, E>, cx: &Context<E>) -> Result<Mapped<X, E>> {
        (**self).inverse(y, cx)
    }
    fn forward_keeping(&self, x: Tensor<X, E>, cx: &Context<E>) -> Result<(Mapped<Self::Out, E>, Kept)> {
        (**self).forward_keeping(x, cx)
    }
    fn forward_until(&self, x: Tensor<X, E>, layer: &str, cx: &Context<E>) -> Result<Option<Vec<E>>> {
        (**self).forward_until(x, layer, cx)
    }
    fn pullback_until(
        &self,
        x: Tensor<X, E>,
        layer: &str,
        cotangent: Vec<E>,
        gradients: &mut Gradients<E>,
        cx: &Context<E>,
    ) -> Result<Option<Pulled<X, E>>> {
        (**self).pullback_until(x, layer, cotangent, gradients, cx)
    }
    fn pullback(
        &self,
        at: Point<X, Self::Out, E>,
        cotangent: Cotangent<Self::Out, E>,
        gradients: &mut Gradients<E>,
        cx: &Context<E>,
    ) -> Result<Pulled<X, E>> {
        (**self).pullback(at, cotangent, gradients, cx)
    }
    fn initialise(&mut self, x: Tensor<X, E>, cx: &Context<E>) -> Result<Tensor<Self::Out, E>> {
        (**self).initialise(x, cx)
    }
    fn device_form<'a>(&'a self, cx: &Context<E>) -> Result<Vec<SideForm<'a, E>>> {
        (**self).device_form(cx)
    }
    fn describe(&self, path: &str, input: &X, table: &mut Vec<LayerInfo>) -> Result<()> {
        (**self).describe(path, input, table)
    }
}
