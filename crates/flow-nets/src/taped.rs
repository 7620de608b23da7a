//! What flows in plain dfdx operations share: columns in another order, and the condition behind the input of a
//! network.

use dfdx::prelude::*;
use flow_api::rows::Taped;
use flow_api::{Context, FlowError, Result, Scalar};

/// The columns of a tensor (rows, features) that `features` names, in its order.
pub fn columns_at<E: Scalar, P: Tape<E, E::Device>>(
    x: dfdx::prelude::Tensor<(usize, usize), E, E::Device, P>,
    features: impl IntoIterator<Item = usize>,
) -> dfdx::prelude::Tensor<(usize, usize), E, E::Device, P> {
    let features: Vec<usize> = features.into_iter().collect();
    let count = features.len();
    let features: dfdx::prelude::Tensor<(usize,), usize, E::Device> = E::device().tensor_from_vec(features, (count,));
    x.permute::<_, Axes2<1, 0>>().gather(features).permute::<_, Axes2<1, 0>>()
}

/// A network's input (rows, inputs) with the context's condition (rows, `width`) behind it; the input as it is for a
/// width of 0.
///
/// # Errors
/// [`FlowError::Condition`] for a condition that is missing or has another shape.
pub fn with_condition<E: Scalar>(input: Taped<(usize, usize), E>, width: usize, cx: &Context<E>) -> Result<Taped<(usize, usize), E>> {
    if width == 0 {
        return Ok(input);
    }
    let rows = input.shape().0;
    let condition = cx.condition().filter(|c| *c.shape() == (rows, width)).ok_or_else(|| FlowError::Condition {
        layer: cx.path().to_owned(),
        expected: format!("({rows}, {width})"),
        got: cx.condition().map_or("none".to_owned(), |c| format!("{:?}", c.shape())),
    })?;
    Ok((input, condition.clone()).concat_along(Axis::<1>))
}
