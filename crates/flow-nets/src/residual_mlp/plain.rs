//! The residual MLP in dfdx operations.

use super::{Activation, Linear, ResidualMlp};
use crate::TapedNet;
use dfdx::prelude::*;
use flow_api::Scalar;
use flow_api::rows::Taped;

type Matrix<E> = Taped<(usize, usize), E>;

impl<E: Scalar> Linear<E> {
    /// `mask` is one for each weight, or none.
    fn forward_taped(&self, x: Matrix<E>, mask: Option<Vec<E>>) -> Matrix<E> {
        let &[outputs, inputs] = self.weight.shape() else { return x }; // a weight has two axes
        let weight = self.weight.tensor().retaped::<OwnedTape<E, E::Device>>().reshape_like(&(outputs, inputs));
        let weight = match mask {
            Some(mask) => weight * E::tensor(mask, (outputs, inputs)),
            None => weight,
        };
        let bias = self.bias.tensor().retaped::<OwnedTape<E, E::Device>>().broadcast_like::<_, Axis<0>>(&(x.shape().0, outputs));
        x.matmul(weight.permute::<_, Axes2<1, 0>>()) + bias
    }
}

impl Activation {
    fn apply_taped<E: Scalar>(self, x: Matrix<E>) -> Matrix<E> {
        match self {
            Self::Relu => x.relu(),
            Self::Silu => x.with_empty_tape() * x.sigmoid(),
            Self::Tanh => x.tanh(),
            Self::Gelu => x.fast_gelu(),
        }
    }
}

impl<E: Scalar> ResidualMlp<E> {
    /// The output in dfdx operations; `mask` gives those of the weights by the layer's place, where they have some.
    pub(crate) fn forward_masked(&self, input: Matrix<E>, mask: impl Fn(usize) -> Option<Vec<E>>) -> Matrix<E> {
        let activation = self.config.activation;
        let start = self.initial.forward_taped(input, mask(0));
        let h = self.blocks.iter().enumerate().fold(start, |h, (k, [first, second])| {
            let skip = h.with_empty_tape();
            let inner = first.forward_taped(activation.apply_taped(h), mask(2 * k + 1));
            second.forward_taped(activation.apply_taped(inner), mask(2 * k + 2)) + skip
        });
        let output = self.last.forward_taped(h, mask(2 * self.blocks.len() + 1));
        if self.parts == 1 {
            return output;
        }
        let &(rows, outputs) = output.shape();
        let features = outputs / self.parts;
        output.reshape_like(&(rows, self.parts, features)).permute::<_, Axes3<0, 2, 1>>().reshape_like(&(rows, outputs))
    }
}

impl<E: Scalar> TapedNet<E> for ResidualMlp<E> {
    fn forward_taped(&self, input: Taped<(usize, usize), E>) -> Taped<(usize, usize), E> {
        self.forward_masked(input, |_| None)
    }
}
