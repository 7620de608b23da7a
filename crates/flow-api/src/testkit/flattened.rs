//! Bijections of tensors of any shape, on flattened samples.

use crate::bijector::{Cotangent, Kept, Mapped, Point, Pulled};
use crate::{Bijector, Context, Facts, Gradients, Module, Result, Scalar, Tensor, module_fields, shape_error, to_host};
use dfdx::prelude::{HasShape, Shape};

/// A bijection of tensors of shape `X` as one of samples flattened to (batch, d), so that the suite takes it.
///
/// ```
/// use dfdx::prelude::*;
/// use flow_api::layers::LuLinear;
/// use flow_api::rows::Rows;
/// use flow_api::testkit::{Flattened, Subject, check};
/// # use flow_api::compose::{Pinned, Then};
///
/// // Three features, known when compiled; of the shape, the batch axis may have any size.
/// type Three = (usize, Const<3>);
/// check(&Subject::new("typed", 3), |seed| {
///     let linear = || Rows(LuLinear::new(3).with_random_permutation(seed));
///     let both = Then::new::<Three, f64>(Pinned::<Three, _>::new(linear()), linear(), &(1, Const))?;
///     Ok(Flattened::new(both, (1, Const::<3>)))
/// })?;
/// # Ok::<(), flow_api::testkit::Failure>(())
/// ```
#[derive(Debug, Clone)]
pub struct Flattened<X, B> {
    inner: B,
    example: X,
}

impl<X: Shape, B> Flattened<X, B> {
    /// Flattens a bijection that takes inputs of shape `example`, axis 0 the batch and of any size.
    pub fn new(inner: B, example: X) -> Self {
        Self { inner, example }
    }

    /// The input shape of a batch of flattened samples.
    fn input<E: Scalar>(&self, flat: &(usize, usize), cx: &str) -> Result<X>
    where
        B: Bijector<X, E>,
    {
        let mut concrete = self.example.concrete();
        let wrong = || shape_error(cx, "flatten", self.example, flat);
        if X::NUM_DIMS == 0 {
            return Err(wrong());
        }
        concrete[0] = flat.0;
        X::from_concrete(&concrete).filter(|shape| shape.num_elements() == flat.0 * flat.1).ok_or_else(wrong)
    }

    /// The output shape of a batch of flattened samples.
    fn output<E: Scalar>(&self, flat: &(usize, usize), cx: &str) -> Result<B::Out>
    where
        B: Bijector<X, E>,
    {
        let out = self.inner.output_shape(&self.input(flat, cx)?)?;
        if out.num_elements() == flat.0 * flat.1 { Ok(out) } else { Err(shape_error(cx, "flatten", flat, out)) }
    }
}

impl<X: Shape, E: Scalar, B: Module<E>> Module<E> for Flattened<X, B> {
    module_fields!(E; delegate inner);
}

/// The same numbers in another shape.
fn reshaped<S: Shape, T: Shape, E: Scalar>(x: &Tensor<S, E>, shape: T) -> Tensor<T, E> {
    E::tensor(to_host(x), shape)
}

impl<X: Shape, E: Scalar, B: Bijector<X, E>> Bijector<(usize, usize), E> for Flattened<X, B> {
    type Out = (usize, usize);

    fn facts(&self) -> Facts {
        self.inner.facts()
    }

    fn output_shape(&self, input: &(usize, usize)) -> Result<(usize, usize)> {
        self.output::<E>(input, self.inner.facts().kind).map(|_| *input)
    }

    fn forward(&self, x: Tensor<(usize, usize), E>, cx: &Context<E>) -> Result<Mapped<(usize, usize), E>> {
        let flat = *x.shape();
        let mapped = self.inner.forward(reshaped(&x, self.input::<E>(&flat, cx.layer(self.inner.facts().kind))?), cx)?;
        Ok(Mapped { value: reshaped(&mapped.value, flat), log_det: mapped.log_det, report: mapped.report })
    }

    fn inverse(&self, y: Tensor<(usize, usize), E>, cx: &Context<E>) -> Result<Mapped<(usize, usize), E>> {
        let flat = *y.shape();
        let mapped = self.inner.inverse(reshaped(&y, self.output::<E>(&flat, cx.layer(self.inner.facts().kind))?), cx)?;
        Ok(Mapped { value: reshaped(&mapped.value, flat), log_det: mapped.log_det, report: mapped.report })
    }

    fn forward_keeping(&self, x: Tensor<(usize, usize), E>, cx: &Context<E>) -> Result<(Mapped<(usize, usize), E>, Kept)> {
        let flat = *x.shape();
        let (mapped, kept) = self.inner.forward_keeping(reshaped(&x, self.input::<E>(&flat, cx.layer(self.inner.facts().kind))?), cx)?;
        Ok((Mapped { value: reshaped(&mapped.value, flat), log_det: mapped.log_det, report: mapped.report }, kept))
    }

    fn pullback(
        &self,
        at: Point<(usize, usize), (usize, usize), E>,
        cotangent: Cotangent<(usize, usize), E>,
        gradients: &mut Gradients<E>,
        cx: &Context<E>,
    ) -> Result<Pulled<(usize, usize), E>> {
        let flat = *cotangent.value.shape();
        let layer = cx.layer(self.inner.facts().kind);
        let at = match at {
            Point::Kept(kept) => Point::Kept(kept),
            Point::Input(x) => Point::Input(reshaped(&x, self.input::<E>(x.shape(), layer)?)),
            Point::Output(y) => Point::Output(reshaped(&y, self.output::<E>(y.shape(), layer)?)),
        };
        let cotangent = Cotangent { value: reshaped(&cotangent.value, self.output::<E>(&flat, layer)?), log_det: cotangent.log_det };
        let pulled = self.inner.pullback(at, cotangent, gradients, cx)?;
        let input = pulled.input.map(|x| reshaped(&x, flat));
        Ok(Pulled::new(input, reshaped(&pulled.cotangent, flat)).with_condition(pulled.condition))
    }

    fn initialise(&mut self, x: Tensor<(usize, usize), E>, cx: &Context<E>) -> Result<Tensor<(usize, usize), E>> {
        let flat = *x.shape();
        let input = self.input::<E>(&flat, cx.layer(self.inner.facts().kind))?;
        Ok(reshaped(&self.inner.initialise(reshaped(&x, input), cx)?, flat))
    }
}
