//! The residual MLP on a block of rows in host memory.

use super::ResidualMlpConfig;
use super::activation::{Activation, Gelu, Nonlinear, Relu, Silu, Tanh};
use super::epilogue::{Activated, ActivatedBeside, Pulled, PulledOntoSkip, Shifted, Summed};
use flow_api::{FlowError, Result, RowTape, Scalar};
use flow_kernels::matmul::{Accumulate, Bias, Epilogue, Operand, matmul, matmul_with, transpose};
use flow_kernels::simd::{add, add_lanes, axpy};
use flow_kernels::workspace::{Buffer, fetch};
use std::marker::PhantomData;
use std::sync::OnceLock;

/// Features so few that they would leave half of a register empty.
const FEW: usize = 8;

/// Inputs so few that what follows from them alone is sooner computed again than written to memory and read back.
const FEW_INPUTS: usize = 32;

/// y = W x + b with W (outputs × inputs) row-major.
#[derive(Debug)]
pub(super) struct Affine<'a, E: Scalar> {
    weight: &'a [E],
    bias: &'a [E],
    /// Wᵀ, row-major, from the first forward pass on.
    turned: OnceLock<Buffer<E>>,
}

impl<'a, E: Scalar> Affine<'a, E> {
    pub(super) fn new(weight: &'a [E], bias: &'a [E]) -> Self {
        Self { weight, bias, turned: OnceLock::new() }
    }

    fn outputs(&self) -> usize {
        self.bias.len()
    }

    fn inputs(&self) -> usize {
        self.weight.len() / self.bias.len()
    }

    fn weight(&self) -> Operand<'_, E> {
        Operand::new(self.weight, self.outputs(), self.inputs())
    }

    /// Wᵀ as rows: turned once, not by every block's product.
    fn turned(&self) -> Operand<'_, E> {
        let turned = self.turned.get_or_init(|| {
            let mut turned = Buffer::take(self.weight.len());
            fetch(self.weight);
            transpose(&mut turned, self.weight());
            turned
        });
        Operand::new(turned, self.inputs(), self.outputs())
    }

    /// Takes this layer's sums, those of the weight and of the bias, off the end of `sums`; those in front of them.
    fn take_sums<'s>(&self, sums: &'s mut [E]) -> (Sums<'s, E>, &'s mut [E]) {
        let (before, own) = sums.split_at_mut(sums.len() - self.weight.len() - self.bias.len());
        let (weight, bias) = own.split_at_mut(self.weight.len());
        (Sums { weight, bias }, before)
    }
}

/// A layer between hidden units, whose values are row-major: the features of a lane side by side.
impl<E: Scalar> Affine<'_, E> {
    /// X Wᵀ; the epilogue adds the bias.
    fn product(&self, x: &[E], accumulate: Accumulate, y: &mut [E], epilogue: &mut impl Epilogue<E>) {
        matmul_with(y, accumulate, rows(x, self.inputs()), self.turned(), epilogue);
    }

    /// G W.
    fn pull(&self, cotangent: &[E], epilogue: &mut impl Epilogue<E>) -> Buffer<E> {
        let cotangent = rows(cotangent, self.outputs());
        let mut pulled = Buffer::take(cotangent.rows() * self.inputs());
        matmul_with(&mut pulled, Accumulate::Replace, cotangent, self.weight(), epilogue);
        pulled
    }

    /// Adds Gᵀ X to the weight's sums.
    fn add_outer(&self, cotangent: &[E], x: &[E], weight: &mut [E]) {
        matmul(weight, Accumulate::Add, rows(cotangent, self.outputs()).transposed(), rows(x, self.inputs()));
    }
}

/// Hidden values: one row a lane.
fn rows<E>(x: &[E], features: usize) -> Operand<'_, E> {
    Operand::new(x, x.len() / features, features)
}

/// Gradients of an affine map, to be added to.
struct Sums<'s, E> {
    weight: &'s mut [E],
    bias: &'s mut [E],
}

/// A [`ResidualMlp`](super::ResidualMlp) made ready for one call: its weights, borrowed.
///
/// Inputs and outputs are feature-major: feature j of lane r at `j * lanes + r`. Hidden values are row-major, feature j of lane r at `r * hidden + j`: so every product, gradients of
/// weights included, reads the large ones of its operands along the rows that they have. All scratch comes from the workspace pool.
#[derive(Debug)]
pub struct ResidualMlpKernel<'a, E: Scalar> {
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
    fn parameters(&self) -> usize {
        let len = |layer: &Affine<'_, E>| layer.weight.len() + layer.bias.len();
        len(&self.initial) + self.blocks.iter().flatten().map(len).sum::<usize>() + len(&self.last)
    }

    /// Length of the sums of [`ResidualMlpKernel::pullback`]: one a parameter, in the order of the module's visit, and more where those of the last weight are spread.
    ///
    /// That is so where inputs are few and outputs no more than hidden values: what the last layer saw, h = W₀ x + b₀ + Σ (W₁ v + b₁) over the blocks with v = φ(…), is not kept then,
    /// and its weight's gradient G hᵀ is put together of G xᵀ and one G vᵀ a block, summed over all rows. G vᵀ of the last block lies where the weight's own sums would, those of the other
    /// blocks and G xᵀ behind all parameters.
    pub fn sums_len(&self) -> usize {
        self.parameters() + if self.keeps_exit() { 0 } else { self.of_blocks_len() + self.config.outputs * self.initial.inputs() }
    }

    fn of_blocks_len(&self) -> usize {
        (self.blocks.len() - 1) * self.last.weight.len()
    }

    /// Adds to the parameters' gradients what the sums over all rows make.
    pub fn finish(&self, sums: &[E], gradients: &mut [E]) {
        if self.keeps_exit() {
            return add(gradients, sums);
        }
        let (own, behind) = sums.split_at(self.parameters());
        let (own, last) = own.split_at(own.len() - self.last.weight.len() - self.last.bias.len());
        let (of_last_block, bias) = last.split_at(self.last.weight.len());
        let (gradients, last) = gradients.split_at_mut(own.len());
        let (weight, for_bias) = last.split_at_mut(self.last.weight.len());
        add(gradients, own);
        add(for_bias, bias);
        let (of_blocks, of_input) = behind.split_at(self.of_blocks_len());
        let of_blocks = of_blocks.chunks_exact(weight.len()).chain([of_last_block]);
        let parts = of_blocks.zip(self.blocks.iter().map(|[_, second]| second)).chain([(of_input, &self.initial)]);
        for (part, layer) in parts {
            matmul(weight, Accumulate::Add, rows(part, layer.inputs()), layer.weight().transposed());
            for (weight, &g) in weight.chunks_exact_mut(self.config.hidden).zip(bias) {
                axpy(weight, g, layer.bias);
            }
        }
    }

    /// Turns the weights for [`ResidualMlpKernel::forward`], which else does it when it first needs them.
    pub fn prepare_forward(&self) {
        let last = self.turns_output().then_some(&self.last);
        for layer in std::iter::once(&self.initial).chain(self.blocks.iter().flatten()).chain(last) {
            layer.turned();
        }
    }

    /// The output (outputs × lanes) for an input (inputs × lanes) and a condition (condition × lanes).
    ///
    /// Leaves on the tape: the input with the condition, per block what either activation needs (its output for `Relu` and `Tanh`, its input for the
    /// others; not for the very first one if inputs are few), and what `final` saw, unless outputs are few too.
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

    fn run<N: Nonlinear>(&self, _: N, x: Buffer<E>, lanes: usize, tape: &mut RowTape<E>) -> Buffer<E> {
        let len = self.config.hidden * lanes;
        let activation = PhantomData::<N>;
        // Whatever writes h leaves φ(h) beside it for the block that comes next.
        let (mut h, mut u) = (Buffer::take(len), Buffer::take(len));
        self.enter(&x, lanes, &mut h, &mut ActivatedBeside { activation, bias: self.initial.bias, activated: &mut u });
        tape.push(x);
        let mut blocks = self.blocks.iter().enumerate().peekable();
        while let Some((i, [first, second])) = blocks.next() {
            let mut v = Buffer::take(len);
            let keeps = self.keeps_entry(i);
            let activated = if N::KEEPS_OUTPUT {
                first.product(&u, Accumulate::Replace, &mut v, &mut Activated { activation, bias: first.bias });
                None
            } else {
                let mut activated = Buffer::take(len);
                let mut beside = ActivatedBeside { activation, bias: first.bias, activated: &mut activated };
                first.product(&u, Accumulate::Replace, &mut v, &mut beside);
                if keeps && tape.is_recording() {
                    u.copy_from_slice(&h);
                }
                Some(activated)
            };
            if keeps {
                tape.push(u);
                u = Buffer::take(len);
            }
            let inner = activated.as_ref().unwrap_or(&v);
            if blocks.peek().is_some() {
                let mut beside = ActivatedBeside { activation, bias: second.bias, activated: &mut u };
                second.product(inner, Accumulate::Add, &mut h, &mut beside);
            } else {
                second.product(inner, Accumulate::Add, &mut h, &mut Shifted(second.bias));
            }
            tape.push(v);
        }
        let outputs = self.config.outputs;
        let mut output = Buffer::take(outputs * lanes);
        if self.turns_output() {
            let mut product = Buffer::take(output.len());
            self.last.product(&h, Accumulate::Replace, &mut product, &mut Shifted(self.last.bias));
            transpose(&mut output, rows(&product, outputs));
        } else {
            let hidden = rows(&h, self.config.hidden).transposed();
            matmul_with(&mut output, Accumulate::Replace, self.last.weight(), hidden, &mut Bias(self.last.bias));
        }
        if self.keeps_exit() {
            tape.push(h);
        }
        output
    }

    /// ∂L/∂input (inputs × lanes) with ∂L/∂condition (condition × lanes) behind, from ∂L/∂output, popping what [`ResidualMlpKernel::forward`] pushed; adds to `sums` (as long as
    /// [`ResidualMlpKernel::sums_len`]) what [`ResidualMlpKernel::finish`] makes the parameters' gradients of.
    ///
    /// # Errors
    /// An unsupported pullback if the tape holds no forward pass.
    pub fn pullback(&self, output: &[E], lanes: usize, tape: &mut RowTape<E>, sums: &mut [E]) -> Result<Buffer<E>> {
        for_activation!(self.pull(output, lanes, tape, sums))
    }

    fn pull<N: Nonlinear>(&self, _: N, output: &[E], lanes: usize, tape: &mut RowTape<E>, sums: &mut [E]) -> Result<Buffer<E>> {
        let activation = PhantomData::<N>;
        let (sums, behind) = sums.split_at_mut(self.parameters());
        let (last, rest) = self.last.take_sums(sums);
        let cotangent = Operand::new(output, self.last.outputs(), lanes);
        add_lanes(last.bias, output, lanes);
        let (mut of_blocks, mut of_input) = (Vec::new(), None);
        if self.keeps_exit() {
            matmul(last.weight, Accumulate::Add, cotangent, rows(&tape.pop()?, self.config.hidden));
        } else {
            let (blocks, input) = behind.split_at_mut(self.of_blocks_len());
            of_blocks.extend(blocks.chunks_exact_mut(last.weight.len()).chain([last.weight]));
            of_input = Some(input);
        }
        // The sums of a bias are made by whatever finishes the cotangent of the values that it was added to.
        let (mut into_h, mut rest) = self.skip_source(self.blocks.len()).take_sums(rest);
        let mut h = Buffer::take(self.config.hidden * lanes);
        matmul_with(&mut h, Accumulate::Replace, cotangent.transposed(), self.last.weight(), &mut Summed { sums: into_h.bias });
        let mut x = Buffer::take(0);
        for (i, [first, second]) in self.blocks.iter().enumerate().rev() {
            let mut inner = tape.pop()?;
            let kept = if self.keeps_entry(i) { Some(tape.pop()?) } else { None };
            if i == 0 {
                x = tape.pop()?;
            }
            let mut outer = kept.unwrap_or_else(|| self.first_kept::<N>(&x, lanes));
            let (into_v, before) = first.take_sums(rest);
            let v = second.pull(&h, &mut Pulled { activation, kept: &mut inner, sums: into_v.bias });
            second.add_outer(&h, &inner, into_h.weight);
            if let Some(of_block) = of_blocks.pop() {
                matmul(of_block, Accumulate::Add, cotangent, rows(&inner, self.config.hidden));
            }
            (into_h, rest) = self.skip_source(i).take_sums(before);
            first.pull(&v, &mut PulledOntoSkip { activation, kept: &mut outer, skip: &mut h, sums: into_h.bias });
            first.add_outer(&v, &outer, into_v.weight);
        }
        let h = rows(&h, self.config.hidden).transposed();
        let input = Operand::new(&x, self.initial.inputs(), lanes).transposed();
        matmul(into_h.weight, Accumulate::Add, h, input);
        if let Some(of_input) = of_input {
            matmul(of_input, Accumulate::Add, cotangent, input);
        }
        let mut pulled = x;
        if self.initial.inputs() > FEW {
            matmul(&mut pulled, Accumulate::Replace, self.initial.weight().transposed(), h);
        } else {
            matmul(&mut pulled, Accumulate::Replace, self.initial.turned(), h);
        }
        Ok(pulled)
    }

    /// X₀ᵀ W₀ᵀ of the input, features × lanes.
    fn enter(&self, x: &[E], lanes: usize, h: &mut [E], epilogue: &mut impl Epilogue<E>) {
        let input = Operand::new(x, self.initial.inputs(), lanes);
        matmul_with(h, Accumulate::Replace, input.transposed(), self.initial.turned(), epilogue);
    }

    /// The tape has what the first activation of this block needs; the very first one's is computed from few inputs again.
    fn keeps_entry(&self, block: usize) -> bool {
        block > 0 || self.initial.inputs() > FEW_INPUTS
    }

    /// The output is computed row by row and turned, since it is smaller than what the last layer saw; the product of few is by dots, without turning anything.
    fn turns_output(&self) -> bool {
        (FEW + 1..=self.config.hidden).contains(&self.config.outputs)
    }

    /// The tape has what the last layer saw; for few inputs and outputs [`ResidualMlpKernel::finish`] does without.
    fn keeps_exit(&self) -> bool {
        self.initial.inputs() > FEW_INPUTS || self.config.outputs > self.config.hidden
    }

    /// What the very first activation needs.
    fn first_kept<N: Nonlinear>(&self, x: &[E], lanes: usize) -> Buffer<E> {
        let (bias, activation) = (self.initial.bias, PhantomData::<N>);
        let mut kept = Buffer::take(self.config.hidden * lanes);
        if N::KEEPS_OUTPUT {
            self.enter(x, lanes, &mut kept, &mut Activated { activation, bias });
        } else {
            self.enter(x, lanes, &mut kept, &mut Shifted(bias));
        }
        kept
    }

    /// What adds to the skip connection in front of a block: the block before it, or the initial map.
    fn skip_source(&self, block: usize) -> &Affine<'_, E> {
        block.checked_sub(1).map_or(&self.initial, |before| &self.blocks[before][1])
    }
}
