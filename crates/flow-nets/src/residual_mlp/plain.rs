//! The residual MLP in dfdx operations.

use super::{Activation, Linear, ResidualMlp};
use dfdx::prelude::*;
use flow_api::{Scalar, Taped};

type Matrix<E> = Taped<(usize, usize), E>;

impl<E: Scalar> Linear<E> {
    fn forward_taped(&self, x: Matrix<E>) -> Matrix<E> {
        let &[outputs, inputs] = self.weight.shape() else { return x }; // a weight has two axes
        let weight = self.weight.tensor().retaped::<OwnedTape<E, E::Device>>().reshape_like(&(outputs, inputs));
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
    /// The output (rows, outputs) in dfdx operations, recorded on the tape of `input` (rows, inputs + condition): the input with the condition behind.
    pub fn forward_taped(&self, input: Taped<(usize, usize), E>) -> Taped<(usize, usize), E> {
        let activation = self.config.activation;
        let start = self.initial.forward_taped(input);
        let h = self.blocks.iter().fold(start, |h, [first, second]| {
            let skip = h.with_empty_tape();
            let inner = first.forward_taped(activation.apply_taped(h));
            second.forward_taped(activation.apply_taped(inner)) + skip
        });
        self.last.forward_taped(h)
    }
}
