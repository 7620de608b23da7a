//! A boxed bijector is a bijector.

use crate::{
    Bijector, Context, Cotangent, FlowDevice, Gradients, InverseKind, Kept, LayerInfo, LogDetKind, Mapped, Point, Pulled, Result, Scalar,
};
use dfdx::prelude::{Shape, Tensor};

impl<X: Shape, E: Scalar, D: FlowDevice<E>, B: Bijector<X, E, D> + ?Sized> Bijector<X, E, D> for Box<B> {
    type Out = B::Out;

    fn kind(&self) -> &'static str {
        (**self).kind()
    }
    fn output_shape(&self, input: &X) -> Result<Self::Out> {
        (**self).output_shape(input)
    }
    fn forward(&self, x: Tensor<X, E, D>, cx: &Context<E, D>) -> Result<Mapped<Self::Out, E, D>> {
        (**self).forward(x, cx)
    }
    fn inverse(&self, y: Tensor<Self::Out, E, D>, cx: &Context<E, D>) -> Result<Mapped<X, E, D>> {
        (**self).inverse(y, cx)
    }
    fn forward_keeping(&self, x: Tensor<X, E, D>, cx: &Context<E, D>) -> Result<(Mapped<Self::Out, E, D>, Kept)> {
        (**self).forward_keeping(x, cx)
    }
    fn forward_until(&self, x: Tensor<X, E, D>, layer: &str, cx: &Context<E, D>) -> Result<Option<Vec<E>>> {
        (**self).forward_until(x, layer, cx)
    }
    fn pullback(
        &self,
        at: Point<X, Self::Out, E, D>,
        cotangent: Cotangent<Self::Out, E, D>,
        gradients: &mut Gradients<E>,
        cx: &Context<E, D>,
    ) -> Result<Pulled<X, E, D>> {
        (**self).pullback(at, cotangent, gradients, cx)
    }
    fn initialise(&mut self, x: Tensor<X, E, D>, cx: &Context<E, D>) -> Result<Tensor<Self::Out, E, D>> {
        (**self).initialise(x, cx)
    }
    fn log_det_kind(&self) -> LogDetKind {
        (**self).log_det_kind()
    }
    fn inverse_kind(&self) -> InverseKind {
        (**self).inverse_kind()
    }
    fn condition_width(&self) -> Option<usize> {
        (**self).condition_width()
    }
    fn multiply_adds(&self, input: &X) -> u64 {
        (**self).multiply_adds(input)
    }
    fn describe(&self, path: &str, input: &X, table: &mut Vec<LayerInfo>) -> Result<()> {
        (**self).describe(path, input, table)
    }
}
