//! The residual MLP on a block of rows in host memory.

use super::ResidualMlpConfig;
use super::activation::{Activation, Gelu, Nonlinear, Relu, Silu, Tanh};
use flow_api::{FlowError, Real, Result, RowTape, Scalar};
use flow_kernels::matmul::{Accumulate, Operand, matmul};
use flow_kernels::simd::{add, add_bias, add_lanes};
use flow_kernels::vectorized;
use flow_kernels::workspace::Buffer;

/// y = W x + b with W (outputs × inputs) row-major.
#[derive(Clone, Copy, Debug)]
pub(super) struct Affine<'a, E> {
    pub(super) weight: &'a [E],
    pub(super) bias: &'a [E],
}

impl<E: Scalar> Affine<'_, E> {
    fn outputs(&self) -> usize {
        self.bias.len()
    }

    fn inputs(&self) -> usize {
        self.weight.len() / self.bias.len()
    }

    fn weight(&self) -> Operand<'_, E> {
        Operand::new(self.weight, self.outputs(), self.inputs())
    }

    /// W x, without the bias.
    fn product(&self, x: &[E], lanes: usize, accumulate: Accumulate, y: &mut [E]) {
        matmul(y, accumulate, self.weight(), Operand::new(x, self.inputs(), lanes));
    }

    /// Wᵀ g.
    fn pull(&self, cotangent: &[E], lanes: usize) -> Buffer<E> {
        let mut pulled = Buffer::take(self.inputs() * lanes);
        matmul(&mut pulled, Accumulate::Replace, self.weight().transposed(), Operand::new(cotangent, self.outputs(), lanes));
        pulled
    }

    /// Takes this layer's sums off the end of `sums` and adds g xᵀ and the row sums of g to them.
    fn add_sums<'s>(&self, x: &[E], cotangent: &[E], lanes: usize, sums: &'s mut [E]) -> &'s mut [E] {
        let (before, own) = sums.split_at_mut(sums.len() - self.weight.len() - self.bias.len());
        let (weight, bias) = own.split_at_mut(self.weight.len());
        let x = Operand::new(x, self.inputs(), lanes).transposed();
        matmul(weight, Accumulate::Add, Operand::new(cotangent, self.outputs(), lanes), x);
        add_lanes(bias, cotangent, lanes);
        before
    }
}

/// A [`ResidualMlp`](super::ResidualMlp) made ready for one call: its weights, borrowed.
///
/// Values are feature-major: feature j of lane r at `j * lanes + r`. All scratch comes from the workspace pool.
#[derive(Debug)]
pub struct ResidualMlpKernel<'a, E> {
    pub(super) config: &'a ResidualMlpConfig,
    pub(super) initial: Affine<'a, E>,
    pub(super) blocks: Vec<[Affine<'a, E>; 2]>,
    pub(super) last: Affine<'a, E>,
}

/// Compiles a call for the activation that the config names.
macro_rules! for_activation {
    ($self:ident.$method:ident($($argument:expr),*)) => {
        match $self.config.activation {
            Activation::Relu => $self.$method(Relu, $($argument),*),
            Activation::Silu => $self.$method(Silu, $($argument),*),
            Activation::Tanh => $self.$method(Tanh, $($argument),*),
            Activation::Gelu => $self.$method(Gelu, $($argument),*),
        }
    };
}

impl<E: Scalar> ResidualMlpKernel<'_, E> {
    /// Number of parameters, which is the length of the sums of [`ResidualMlpKernel::pullback`].
    pub fn sums_len(&self) -> usize {
        let len = |layer: &Affine<'_, E>| layer.weight.len() + layer.bias.len();
        len(&self.initial) + self.blocks.iter().flatten().map(len).sum::<usize>() + len(&self.last)
    }

    /// The output (outputs × lanes) for an input (inputs × lanes) and a condition (condition × lanes).
    ///
    /// Leaves on the tape: the input with the condition, per block what either activation needs (its output for `Relu` and `Tanh`, its input for the
    /// others), and what `final` saw.
    ///
    /// # Errors
    /// [`FlowError::Condition`] if a condition is missing or has another width.
    pub fn forward(&self, input: &[E], condition: Option<&[E]>, lanes: usize, tape: &mut RowTape<E>) -> Result<Buffer<E>> {
        let ResidualMlpConfig { inputs, condition: width, .. } = *self.config;
        let mut x = Buffer::take((inputs + width) * lanes);
        x[..inputs * lanes].copy_from_slice(&input[..inputs * lanes]);
        if width > 0 {
            let condition = condition.filter(|c| c.len() == width * lanes).ok_or_else(|| FlowError::Condition {
                layer: String::new(),
                expected: format!("(rows, {width})"),
                got: condition.map_or("none".to_owned(), |c| format!("(rows, {})", c.len() / lanes.max(1))),
            })?;
            x[inputs * lanes..].copy_from_slice(condition);
        }
        Ok(for_activation!(self.run(x, lanes, tape)))
    }

    fn run<N: Nonlinear>(&self, activation: N, x: Buffer<E>, lanes: usize, tape: &mut RowTape<E>) -> Buffer<E> {
        let len = self.config.hidden * lanes;
        let mut h = Buffer::take(len);
        self.initial.product(&x, lanes, Accumulate::Replace, &mut h);
        tape.push(x);
        // The bias of the layer that wrote `h` last is added in the sweep that reads it next.
        let mut pending = self.initial.bias;
        for [first, second] in &self.blocks {
            let mut u = Buffer::take(len);
            activate_bias(activation, &mut h, pending, &mut u, lanes);
            let mut v = Buffer::take(len);
            first.product(&u, lanes, Accumulate::Replace, &mut v);
            if N::KEEPS_OUTPUT {
                activate_bias_in_place(activation, &mut v, first.bias, lanes);
                tape.push(u);
                second.product(&v, lanes, Accumulate::Add, &mut h);
            } else {
                if tape.is_recording() {
                    let mut kept = Buffer::take(len);
                    kept.copy_from_slice(&h);
                    tape.push(kept);
                }
                activate_bias(activation, &mut v, first.bias, &mut u, lanes);
                second.product(&u, lanes, Accumulate::Add, &mut h);
            }
            tape.push(v);
            pending = second.bias;
        }
        add_bias(&mut h, pending, lanes);
        let mut output = Buffer::take(self.config.outputs * lanes);
        self.last.product(&h, lanes, Accumulate::Replace, &mut output);
        add_bias(&mut output, self.last.bias, lanes);
        tape.push(h);
        output
    }

    /// ∂L/∂input (inputs × lanes) with ∂L/∂condition (condition × lanes) behind, from ∂L/∂output, popping what [`ResidualMlpKernel::forward`] pushed; adds the parameters'
    /// gradients to `sums` (as long as [`ResidualMlpKernel::sums_len`]) in the order of the module's visit.
    ///
    /// # Errors
    /// An unsupported pullback if the tape holds no forward pass.
    pub fn pullback(&self, output: &[E], lanes: usize, tape: &mut RowTape<E>, sums: &mut [E]) -> Result<Buffer<E>> {
        for_activation!(self.pull(output, lanes, tape, sums))
    }

    fn pull<N: Nonlinear>(&self, activation: N, output: &[E], lanes: usize, tape: &mut RowTape<E>, sums: &mut [E]) -> Result<Buffer<E>> {
        let mut sums = self.last.add_sums(&tape.pop()?, output, lanes, sums);
        let mut h = self.last.pull(output, lanes);
        for [first, second] in self.blocks.iter().rev() {
            let (mut inner, mut outer) = (tape.pop()?, tape.pop()?);
            let mut v = second.pull(&h, lanes);
            pull_activation(activation, &mut inner, &mut v);
            sums = second.add_sums(&inner, &h, lanes, sums);
            let mut u = first.pull(&v, lanes);
            pull_activation(activation, &mut outer, &mut u);
            sums = first.add_sums(&outer, &v, lanes, sums);
            add(&mut h, &u);
        }
        self.initial.add_sums(&tape.pop()?, &h, lanes, sums);
        Ok(self.initial.pull(&h, lanes))
    }
}

vectorized! {
    /// h += b and u = φ(h).
    fn activate_bias<N: Nonlinear, E: Real>(_activation: N, h: &mut [E], bias: &[E], u: &mut [E], lanes: usize) {
        for ((h, u), &b) in h.chunks_exact_mut(lanes).zip(u.chunks_exact_mut(lanes)).zip(bias) {
            for (h, u) in h.iter_mut().zip(u) {
                *h += b;
                *u = N::value(*h);
            }
        }
    }

    /// h = φ(h + b).
    fn activate_bias_in_place<N: Nonlinear, E: Real>(_activation: N, h: &mut [E], bias: &[E], lanes: usize) {
        for (h, &b) in h.chunks_exact_mut(lanes).zip(bias) {
            for h in h {
                *h = N::value(*h + b);
            }
        }
    }

    /// Turns what was kept into φ(x), and ∂L/∂φ(x) into ∂L/∂x.
    fn pull_activation<N: Nonlinear, E: Real>(_activation: N, kept: &mut [E], cotangent: &mut [E]) {
        for (kept, cotangent) in kept.iter_mut().zip(cotangent) {
            let (value, slope) = N::value_and_slope(*kept);
            // Where the output was kept it stands there already.
            if !N::KEEPS_OUTPUT {
                *kept = value;
            }
            *cotangent *= slope;
        }
    }
}
