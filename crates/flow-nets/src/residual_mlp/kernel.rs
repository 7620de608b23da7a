//! The residual MLP on a block of rows in host memory.

use super::ResidualMlpConfig;
use super::activation::{Activation, Gelu, Nonlinear, Relu, Silu, Tanh};
use super::epilogue::{Activated, ActivatedBeside, Pulled, PulledOntoSkip, Shifted, Summed};
use super::folded::Folded;
use super::linear::{Affine, Sums, Weight, rows};
use crate::ConditionerKernel;
use flow_api::rows::{RowTape, block_condition};
use flow_api::{Result, Scalar};
use flow_kernels::matmul::{Accumulate, Bias, Epilogue, Operand, matmul, matmul_with, transpose};
use flow_kernels::simd::{add, add_lanes};
use flow_kernels::workspace::Buffer;
use std::marker::PhantomData;
use std::ops::Deref;

/// Features so few that they would leave half of a register empty.
const FEW: usize = 8;

/// Inputs so few that what follows from them alone is sooner computed again than written to memory and read back.
const FEW_INPUTS: usize = 32;

/// The cotangent of the hidden values in front of a block, so far as it came through later blocks or the last layer,
/// and the sums of what added to them last.
struct Hidden<'s, E: Scalar> {
    cotangent: Buffer<E>,
    sums: Sums<'s, E>,
}

/// A [`ResidualMlp`](super::ResidualMlp) made ready for one call: its weights, borrowed.
///
/// Inputs and outputs are feature-major: feature j of lane r at `j * lanes + r`. Hidden values are row-major, feature j
/// of lane r at `r * hidden + j`: so every product, gradients of weights included, reads the large ones of its operands
/// along the rows that they have. All scratch comes from the workspace pool.
#[derive(Debug)]
pub struct ResidualMlpKernel<'a, E: Scalar> {
    config: &'a ResidualMlpConfig,
    initial: Affine<'a, E>,
    blocks: Vec<[Affine<'a, E>; 2]>,
    last: Affine<'a, E>,
    /// The parts that the module's outputs are of, one after the other, where outputs here come feature by feature
    /// ([`super::ResidualMlp::with_parts`]).
    parts: usize,
    /// In place of the last layer and the last block's second, where that is less work.
    folded: Option<Folded<E>>,
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

impl<'a, E: Scalar> ResidualMlpKernel<'a, E> {
    pub(super) fn new(
        config: &'a ResidualMlpConfig,
        initial: Affine<'a, E>,
        blocks: Vec<[Affine<'a, E>; 2]>,
        (last, parts): (Affine<'a, E>, usize),
        rows: usize,
    ) -> Self {
        let folded = config.folds(rows).then(|| Folded::new(&initial, &blocks, &last));
        Self { config, initial, blocks, last, parts, folded }
    }

    fn parameters(&self) -> usize {
        self.initial.len() + self.blocks.iter().flatten().map(Affine::len).sum::<usize>() + self.last.len()
    }

    /// The parameters whose gradients are sums over rows as they stand: all, or those in front of the last block's
    /// second layer.
    fn direct_len(&self) -> usize {
        let folded = self.folded.as_ref().and(self.blocks.last()).map_or(0, |[_, second]| second.len() + self.last.len());
        self.parameters() - folded
    }

    /// Length of the sums of [`ResidualMlpKernel::pullback`]: one a parameter, in the order of the module's visit, and
    /// where layers are multiplied together the sums for their products in place of the last parameters.
    pub fn sums_len(&self) -> usize {
        self.direct_len() + self.folded.as_ref().map_or(0, Folded::sums_len)
    }

    /// Adds to the parameters' gradients what the sums over all rows make.
    pub fn finish(&self, sums: &[E], gradients: &mut [E]) {
        let (before, last) = gradients.split_at_mut(gradients.len() - self.last.len());
        if self.parts == 1 {
            return self.finish_in_order(sums, before, last);
        }
        let mut by_feature = Buffer::zeroed(last.len());
        self.finish_in_order(sums, before, &mut by_feature);
        let (weight, bias) = by_feature.split_at(self.last.weight.len());
        let (into_weight, into_bias) = last.split_at_mut(weight.len());
        for (from, into, width) in [(weight, into_weight, self.last.weight.inputs()), (bias, into_bias, 1)] {
            for (row, into) in into.chunks_exact_mut(width).enumerate() {
                add(into, &from[by_part(row, self.last.bias.len(), self.parts) * width..][..width]);
            }
        }
    }

    /// The same with the last layer's gradients apart, feature by feature.
    fn finish_in_order(&self, sums: &[E], before: &mut [E], last: &mut [E]) {
        let (direct, behind) = sums.split_at(self.direct_len());
        let (early, late) = direct.split_at(direct.len().min(before.len()));
        add(&mut before[..early.len()], early);
        let Some(folded) = &self.folded else { return add(last, late) };
        let blocks = self.blocks.iter().scan(self.initial.len(), |at, [first, second]| {
            let start = *at + first.len();
            *at = start + second.len();
            Some((second, start))
        });
        folded.finish(behind, std::iter::once((&self.initial, 0)).chain(blocks), &self.last, (before, last));
    }

    /// Turns the weights for [`ResidualMlpKernel::forward`], which else does it when it first needs them.
    pub fn prepare_forward(&self) {
        self.initial.weight.turned();
        self.blocks.iter().for_each(|[first, _]| {
            first.weight.turned();
        });
        self.blocks[..self.blocks_onto_hidden()].iter().for_each(|[_, second]| {
            second.weight.turned();
        });
        if self.turns_output() {
            match &self.folded {
                None => {
                    self.last.weight.turned();
                }
                Some(folded) => std::iter::once(&folded.input).chain(&folded.blocks).for_each(|weight| {
                    weight.turned();
                }),
            }
        }
    }

    /// The output (outputs × lanes) for an input (inputs × lanes) and a condition (condition × lanes).
    ///
    /// Leaves on the tape: the input with the condition, per block what either activation needs (its output for `Relu`
    /// and `Tanh`, its input for the others; not for the very first one if inputs are few), and what `final` saw,
    /// unless it is multiplied together with what is in front of it.
    ///
    /// # Errors
    /// [`FlowError::Condition`](flow_api::FlowError::Condition) if a condition is missing or has another width.
    pub fn forward(&self, input: &[E], condition: Option<&[E]>, lanes: usize, tape: &mut RowTape<E>) -> Result<Buffer<E>> {
        let ResidualMlpConfig { inputs, condition: width, .. } = *self.config;
        let mut x = Buffer::take((inputs + width) * lanes);
        x[..inputs * lanes].copy_from_slice(&input[..inputs * lanes]);
        x[inputs * lanes..].copy_from_slice(block_condition(condition, width, lanes)?);
        Ok(for_activation!(self.run(x, lanes, tape)))
    }

    fn run<N: Nonlinear>(&self, _: N, x: Buffer<E>, lanes: usize, tape: &mut RowTape<E>) -> Buffer<E> {
        let len = self.config.hidden * lanes;
        let activation = PhantomData::<N>;
        // Whatever writes h leaves φ(h) beside it for the block that comes next. A single folded block adds to no h.
        let (bias, mut u) = (&*self.initial.bias, Buffer::take(len));
        let mut h = Buffer::take(if N::KEEPS_OUTPUT && self.blocks_onto_hidden() == 0 { 0 } else { len });
        if h.is_empty() {
            self.enter(&x, lanes, &mut u, &mut Activated { activation, bias });
        } else {
            self.enter(&x, lanes, &mut h, &mut ActivatedBeside { activation, bias, activated: &mut u });
        }
        let mut output = Buffer::take(self.config.outputs * lanes);
        if let Some(folded) = &self.folded {
            let input = Operand::new(&x, folded.input.inputs(), lanes);
            if self.turns_output() {
                matmul_with(&mut output, Accumulate::Replace, input.transposed(), folded.input.turned(), &mut Shifted(&folded.offset));
            } else {
                matmul_with(&mut output, Accumulate::Replace, folded.input.operand(), input, &mut Bias(&folded.offset));
            }
        }
        tape.push(x);
        let mut blocks = self.blocks.iter().enumerate().peekable();
        while let Some((i, [first, second])) = blocks.next() {
            let mut v = Buffer::take(len);
            let keeps = self.keeps_entry(i);
            let activated = if N::KEEPS_OUTPUT {
                first.weight.product(&u, Accumulate::Replace, &mut v, &mut Activated { activation, bias: &first.bias });
                None
            } else {
                let mut activated = Buffer::take(len);
                let mut beside = ActivatedBeside { activation, bias: &first.bias, activated: &mut activated };
                first.weight.product(&u, Accumulate::Replace, &mut v, &mut beside);
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
                let mut beside = ActivatedBeside { activation, bias: &second.bias, activated: &mut u };
                second.weight.product(inner, Accumulate::Add, &mut h, &mut beside);
            } else if i < self.blocks_onto_hidden() {
                second.weight.product(inner, Accumulate::Add, &mut h, &mut Shifted(&second.bias));
            }
            if let Some(folded) = &self.folded {
                self.leave(&folded.blocks[i], inner, Accumulate::Add, &mut output, &mut (), &mut ());
            }
            tape.push(v);
        }
        if self.folded.is_none() {
            let bias = &*self.last.bias;
            self.leave(&self.last.weight, &h, Accumulate::Replace, &mut output, &mut Shifted(bias), &mut Bias(bias));
            tape.push(h);
        }
        if self.turns_output() {
            let turned = output;
            output = Buffer::take(turned.len());
            transpose(&mut output, rows(&turned, self.config.outputs));
        }
        output
    }

    /// ∂L/∂input (inputs × lanes) with ∂L/∂condition (condition × lanes) behind, from ∂L/∂output, popping what
    /// [`ResidualMlpKernel::forward`] pushed; adds to `sums` (as long as [`ResidualMlpKernel::sums_len`]) what
    /// [`ResidualMlpKernel::finish`] makes the parameters' gradients of.
    ///
    /// # Errors
    /// An unsupported pullback if the tape holds no forward pass.
    pub fn pullback(&self, output: &[E], lanes: usize, tape: &mut RowTape<E>, sums: &mut [E]) -> Result<Buffer<E>> {
        for_activation!(self.pull(output, lanes, tape, sums))
    }

    fn pull<N: Nonlinear>(&self, _: N, output: &[E], lanes: usize, tape: &mut RowTape<E>, sums: &mut [E]) -> Result<Buffer<E>> {
        let activation = PhantomData::<N>;
        let cotangent = Operand::new(output, self.last.bias.len(), lanes);
        let (mut rest, behind) = sums.split_at_mut(self.direct_len());
        // The sums of a bias are made by whatever finishes the cotangent of the values that it was added to.
        let (mut hidden, mut of_blocks) = (None, Vec::new());
        let mut of_input = None;
        if let Some(folded) = &self.folded {
            let (bias, weights) = behind.split_at_mut(folded.offset.len());
            add_lanes(bias, output, lanes);
            let (input, blocks) = weights.split_at_mut(folded.input.len());
            of_input = Some(input);
            of_blocks.extend(blocks.chunks_exact_mut(cotangent.rows() * self.config.hidden));
        } else {
            let (last, before) = self.last.take_sums(rest);
            add_lanes(last.bias, output, lanes);
            matmul(last.weight, Accumulate::Add, cotangent, rows(&tape.pop()?, self.config.hidden));
            let (sums, before) = self.skip_source(self.blocks.len()).take_sums(before);
            let mut into_hidden = Buffer::take(self.config.hidden * lanes);
            let back = self.last.weight.operand();
            matmul_with(&mut into_hidden, Accumulate::Replace, cotangent.transposed(), back, &mut Summed { sums: sums.bias });
            hidden = Some(Hidden { cotangent: into_hidden, sums });
            rest = before;
        }
        let mut x = Buffer::take(0);
        for (i, [first, second]) in self.blocks.iter().enumerate().rev() {
            let mut inner = tape.pop()?;
            let kept = if self.keeps_entry(i) { Some(tape.pop()?) } else { None };
            if i == 0 {
                x = tape.pop()?;
            }
            let mut outer = kept.unwrap_or_else(|| self.first_kept::<N>(&x, lanes));
            let (into_v, before) = first.take_sums(rest);
            let mut v = Buffer::take(self.config.hidden * lanes);
            let past_hidden = self.folded.as_ref().map(|folded| (cotangent.transposed(), folded.blocks[i].operand()));
            let through_hidden = hidden.as_ref().map(|h: &Hidden<'_, E>| (rows(&h.cotangent, self.config.hidden), second.weight.operand()));
            let mut pulled = Pulled { activation, kept: &mut inner, sums: into_v.bias };
            sum_of_products(&mut v, past_hidden.into_iter().chain(through_hidden), &mut pulled);
            if let Some(hidden) = &mut hidden {
                second.weight.add_outer(&hidden.cotangent, &inner, hidden.sums.weight);
            }
            if let Some(of_block) = of_blocks.pop() {
                matmul(of_block, Accumulate::Add, cotangent, rows(&inner, self.config.hidden));
            }
            let (sums, before) = self.skip_source(i).take_sums(before);
            rest = before;
            let (back, weight, mut through) = (rows(&v, self.config.hidden), first.weight.operand(), Buffer::take(v.len()));
            let into_hidden = match hidden.take() {
                None => {
                    let mut pulled = Pulled { activation, kept: &mut outer, sums: sums.bias };
                    matmul_with(&mut through, Accumulate::Replace, back, weight, &mut pulled);
                    through
                }
                Some(Hidden { cotangent: mut skip, .. }) => {
                    let mut pulled = PulledOntoSkip { activation, kept: &mut outer, skip: &mut skip, sums: sums.bias };
                    matmul_with(&mut through, Accumulate::Replace, back, weight, &mut pulled);
                    skip
                }
            };
            hidden = Some(Hidden { cotangent: into_hidden, sums });
            first.weight.add_outer(&v, &outer, into_v.weight);
        }
        let input = Operand::new(&x, self.initial.weight.inputs(), lanes).transposed();
        if let Some(of_input) = of_input {
            matmul(of_input, Accumulate::Add, cotangent, input);
        }
        let past_hidden = self.folded.as_ref().map(|folded| (folded.input.operand().transposed(), cotangent));
        let through_hidden = hidden.as_mut().map(|Hidden { cotangent, sums }| {
            let h = rows(cotangent, self.config.hidden).transposed();
            matmul(sums.weight, Accumulate::Add, h, input);
            let few = self.initial.weight.inputs() <= FEW;
            (if few { self.initial.weight.turned() } else { self.initial.weight.operand().transposed() }, h)
        });
        let mut pulled = x;
        sum_of_products(&mut pulled, past_hidden.into_iter().chain(through_hidden), &mut ());
        Ok(pulled)
    }

    /// X₀ᵀ W₀ᵀ of the input, features × lanes.
    fn enter(&self, x: &[E], lanes: usize, h: &mut [E], epilogue: &mut impl Epilogue<E>) {
        let input = Operand::new(x, self.initial.weight.inputs(), lanes);
        matmul_with(h, Accumulate::Replace, input.transposed(), self.initial.weight.turned(), epilogue);
    }

    /// Hidden values times a weight, as rows that are to be turned or, if not [`turns_output`](Self::turns_output),
    /// outputs × lanes; each way has an epilogue of its own.
    fn leave<W: Deref<Target = [E]>>(
        &self,
        weight: &Weight<E, W>,
        values: &[E],
        accumulate: Accumulate,
        output: &mut [E],
        of_rows: &mut impl Epilogue<E>,
        of_outputs: &mut impl Epilogue<E>,
    ) {
        if self.turns_output() {
            weight.product(values, accumulate, output, of_rows);
        } else {
            matmul_with(output, accumulate, weight.operand(), rows(values, self.config.hidden).transposed(), of_outputs);
        }
    }

    /// How many blocks, from the first on, add to the hidden values: the last one does so only for a last layer that is
    /// not folded.
    fn blocks_onto_hidden(&self) -> usize {
        self.blocks.len() - usize::from(self.folded.is_some())
    }

    /// The tape has what the first activation of this block needs; the very first one's is computed from few inputs
    /// again.
    fn keeps_entry(&self, block: usize) -> bool {
        block > 0 || self.initial.weight.inputs() > FEW_INPUTS
    }

    /// The output is computed row by row and turned, since it is smaller than what the last layer saw; the product of
    /// few is by dots, without turning anything.
    fn turns_output(&self) -> bool {
        (FEW + 1..=self.config.hidden).contains(&self.config.outputs)
    }

    /// What the very first activation needs.
    fn first_kept<N: Nonlinear>(&self, x: &[E], lanes: usize) -> Buffer<E> {
        let (bias, activation) = (&*self.initial.bias, PhantomData::<N>);
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

/// Where the kernel has row `row` of a last layer with so many outputs, of `parts` parts for every feature: part after
/// part there, feature by feature here.
pub(super) fn by_part(row: usize, outputs: usize, parts: usize) -> usize {
    let features = (outputs / parts).max(1);
    row % features * parts + row / features
}

/// Σ A B, and what the epilogue makes of it.
fn sum_of_products<'x, E: Scalar>(
    sum: &mut [E],
    products: impl IntoIterator<Item = (Operand<'x, E>, Operand<'x, E>)>,
    epilogue: &mut impl Epilogue<E>,
) {
    let (mut products, mut accumulate) = (products.into_iter().peekable(), Accumulate::Replace);
    while let Some((a, b)) = products.next() {
        match products.peek() {
            Some(_) => matmul(sum, accumulate, a, b),
            None => matmul_with(sum, accumulate, a, b, epilogue),
        }
        accumulate = Accumulate::Add;
    }
}

impl<E: Scalar> ConditionerKernel<E> for ResidualMlpKernel<'_, E> {
    fn prepare_forward(&self) {
        self.prepare_forward();
    }

    fn forward(&self, input: &[E], condition: Option<&[E]>, lanes: usize, tape: &mut RowTape<E>) -> Result<Buffer<E>> {
        self.forward(input, condition, lanes, tape)
    }

    fn pullback(&self, output: &[E], lanes: usize, tape: &mut RowTape<E>, sums: &mut [E]) -> Result<Buffer<E>> {
        self.pullback(output, lanes, tape, sums)
    }

    fn sums_len(&self) -> usize {
        self.sums_len()
    }

    fn finish(&self, sums: &[E], gradients: &mut [E]) {
        self.finish(sums, gradients);
    }
}
