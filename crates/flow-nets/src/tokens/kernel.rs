//! A network of tokens on a block of whole samples in host memory.

use super::TokenNetConfig;
use super::norm::{NormKernel, Normalised};
use crate::ConditionerKernel;
use crate::residual_mlp::{Affine, Shifted, Weight, add_rows};
use flow_api::rows::{RowTape, block_condition};
use flow_api::{Result, Scalar, shape_error};
use flow_kernels::matmul::Accumulate;
use flow_kernels::simd::add;
use flow_kernels::workspace::Buffer;

/// What stands in a branch beside the skip connection: attention, or an MLP.
///
/// Values are rows, the first token of every sample, then the second of every sample and so on.
pub(super) trait Part<E: Scalar>: Send + Sync {
    /// Parameters.
    fn len(&self) -> usize;

    /// Turns the weights for [`Part::forward`].
    fn prepare_forward(&self);

    /// Adds what it makes of x to h; pushes what [`Part::pull`] needs besides x.
    fn forward(&self, x: &[E], h: &mut [E], tape: &mut RowTape<E>);

    /// ∂L/∂x, given x and ∂L/∂h; adds the gradients of its parameters to `sums`.
    fn pull(&self, x: &[E], cotangent: &[E], tape: &mut RowTape<E>, sums: &mut [E]) -> Result<Buffer<E>>;
}

/// h ← h + part (norm h).
pub(super) struct Branch<'a, E: Scalar> {
    pub(super) norm: NormKernel<'a, E>,
    pub(super) part: Box<dyn Part<E> + 'a>,
}

impl<E: Scalar> Branch<'_, E> {
    fn len(&self) -> usize {
        self.norm.len() + self.part.len()
    }

    fn forward(&self, h: &mut [E], tape: &mut RowTape<E>) {
        let (x, normalised) = self.norm.forward(h);
        self.part.forward(&x, h, tape);
        normalised.push(tape);
    }

    /// ∂L/∂h behind to that in front.
    fn pull(&self, cotangent: &mut [E], tape: &mut RowTape<E>, sums: &mut [E]) -> Result<()> {
        let (for_norm, for_part) = sums.split_at_mut(self.norm.len());
        let normalised = Normalised::pop(tape)?;
        let mut into_part = self.part.pull(&self.norm.output(&normalised), cotangent, tape, for_part)?;
        self.norm.pull(&normalised, &mut into_part, cotangent, for_norm);
        Ok(())
    }
}

/// A [`TokenNet`](super::TokenNet) made ready for one call: its weights, borrowed.
pub(super) struct TokenKernel<'a, E: Scalar> {
    pub(super) config: &'a TokenNetConfig,
    pub(super) embedding: Affine<'a, E>,
    /// tokens × width, if tokens have learned positions.
    pub(super) positions: &'a [E],
    /// width × condition, of a conditional network.
    pub(super) condition: Option<Weight<E, &'a [E]>>,
    pub(super) branches: Vec<Branch<'a, E>>,
    pub(super) norm: NormKernel<'a, E>,
    pub(super) last: Affine<'a, E>,
}

impl<E: Scalar> TokenKernel<'_, E> {
    /// The rows of a token.
    fn tokens<'x>(&self, rows: &'x [E]) -> std::slice::ChunksExact<'x, E> {
        rows.chunks_exact(rows.len() / self.config.layout.tokens())
    }

    /// One vector a sample, of a block that has one a lane, where all of a sample are equal.
    fn vectors(&self, condition: &[E], width: usize, lanes: usize) -> Buffer<E> {
        let each = self.config.layout.lanes();
        let mut vectors = Buffer::take(condition.len() / each);
        for (sample, vector) in vectors.chunks_exact_mut(width.max(1)).enumerate() {
            vector.iter_mut().enumerate().for_each(|(j, to)| *to = condition[j * lanes + sample * each]);
        }
        vectors
    }

    /// W x + b, the token's position and what is made of the condition.
    fn embed(&self, x: &[E], vectors: &[E]) -> Buffer<E> {
        let (width, tokens) = (self.config.width, self.config.layout.tokens());
        let mut h = Buffer::take(x.len() / self.embedding.weight.inputs() * width);
        self.embedding.weight.product(x, Accumulate::Replace, &mut h, &mut Shifted(&self.embedding.bias));
        let token = h.len() / tokens;
        for (rows, position) in h.chunks_exact_mut(token).zip(self.positions.chunks_exact(width)) {
            rows.chunks_exact_mut(width).for_each(|row| add(row, position));
        }
        if let Some(weight) = &self.condition {
            let mut of_sample = Buffer::take(token);
            weight.product(vectors, Accumulate::Replace, &mut of_sample, &mut ());
            h.chunks_exact_mut(token).for_each(|rows| add(rows, &of_sample));
        }
        h
    }

    /// ∂L/∂x, and ∂L/∂ the vectors of the samples.
    fn pull_embedding(&self, x: &[E], vectors: &[E], cotangent: &[E], sums: &mut [E]) -> [Buffer<E>; 2] {
        let width = self.config.width;
        let (for_embedding, rest) = sums.split_at_mut(self.embedding.len());
        let (for_positions, for_condition) = rest.split_at_mut(self.positions.len());
        let (for_embedding, _) = self.embedding.take_sums(for_embedding);
        self.embedding.weight.add_outer(cotangent, x, for_embedding.weight);
        add_rows(for_embedding.bias, cotangent);
        for (sums, rows) in for_positions.chunks_exact_mut(width).zip(self.tokens(cotangent)) {
            add_rows(sums, rows);
        }
        let mut into_vectors = Buffer::take(vectors.len());
        if let Some(weight) = &self.condition {
            let mut of_sample = Buffer::zeroed(cotangent.len() / self.config.layout.tokens());
            self.tokens(cotangent).for_each(|rows| add(&mut of_sample, rows));
            weight.add_outer(&of_sample, vectors, for_condition);
            weight.pull(&of_sample, &mut into_vectors);
        }
        let mut into_x = Buffer::take(x.len());
        self.embedding.weight.pull(cotangent, &mut into_x);
        [into_x, into_vectors]
    }

    /// Parameters in front of the branches.
    fn embedding_len(&self) -> usize {
        self.embedding.len() + self.positions.len() + self.condition.as_ref().map_or(0, Weight::len)
    }
}

impl<E: Scalar> ConditionerKernel<E> for TokenKernel<'_, E> {
    fn prepare_forward(&self) {
        self.embedding.weight.turned();
        if let Some(weight) = &self.condition {
            weight.turned();
        }
        self.branches.iter().for_each(|branch| branch.part.prepare_forward());
        self.last.weight.turned();
    }

    /// Leaves the tokens and the conditions of the samples, what every branch leaves, and the last normalised rows.
    fn forward(&self, input: &[E], condition: Option<&[E]>, lanes: usize, tape: &mut RowTape<E>) -> Result<Buffer<E>> {
        let TokenNetConfig { layout, condition: width, parameters, .. } = *self.config;
        if input.len() != layout.passing() * lanes || !lanes.is_multiple_of(layout.lanes()) {
            let expected = format!("{} features of samples of {} lanes", layout.passing(), layout.lanes());
            return Err(shape_error("TokenNet", "forward", expected, (input.len(), lanes)));
        }
        let samples = lanes / layout.lanes();
        let vectors = self.vectors(block_condition(condition, width, lanes)?, width, lanes);
        let x = layout.rows(input, 1, samples);
        let mut h = self.embed(&x, &vectors);
        tape.push(x);
        tape.push(vectors);
        self.branches.iter().for_each(|branch| branch.forward(&mut h, tape));
        let (x, normalised) = self.norm.forward(&h);
        let mut output = Buffer::take(x.len() / self.config.width * self.last.bias.len());
        self.last.weight.product(&x, Accumulate::Replace, &mut output, &mut Shifted(&self.last.bias));
        normalised.push(tape);
        Ok(layout.block(&output, layout.moved(), parameters, samples))
    }

    fn pullback(&self, output: &[E], lanes: usize, tape: &mut RowTape<E>, sums: &mut [E]) -> Result<Buffer<E>> {
        let TokenNetConfig { layout, condition: width, parameters, .. } = *self.config;
        let samples = lanes / layout.lanes();
        let cotangent = layout.rows(output, parameters, samples);
        let (for_last, sums) = self.last.take_sums(sums);
        let (mut sums, for_norm) = sums.split_at_mut(sums.len() - self.norm.len());
        let normalised = Normalised::pop(tape)?;
        self.last.weight.add_outer(&cotangent, &self.norm.output(&normalised), for_last.weight);
        add_rows(for_last.bias, &cotangent);
        let len = layout.tokens() * samples * self.config.width;
        let (mut into_norm, mut hidden) = (Buffer::take(len), Buffer::zeroed(len));
        self.last.weight.pull(&cotangent, &mut into_norm);
        self.norm.pull(&normalised, &mut into_norm, &mut hidden, for_norm);
        for branch in self.branches.iter().rev() {
            let (before, own) = sums.split_at_mut(sums.len() - branch.len());
            branch.pull(&mut hidden, tape, own)?;
            sums = before;
        }
        let (vectors, x) = (tape.pop()?, tape.pop()?);
        let [into_x, into_vectors] = self.pull_embedding(&x, &vectors, &hidden, sums);
        let passing = layout.passing() * lanes;
        let mut pulled = Buffer::zeroed(passing + width * lanes);
        let (into_input, into_condition) = pulled.split_at_mut(passing);
        into_input.copy_from_slice(&layout.block(&into_x, layout.passing(), 1, samples));
        // That of a sample is the first lane's: those of its lanes are added up.
        for (sample, vector) in into_vectors.chunks_exact(width.max(1)).enumerate() {
            vector.iter().enumerate().for_each(|(j, &g)| into_condition[j * lanes + sample * layout.lanes()] = g);
        }
        Ok(pulled)
    }

    fn sums_len(&self) -> usize {
        self.embedding_len() + self.branches.iter().map(Branch::len).sum::<usize>() + self.norm.len() + self.last.len()
    }

    fn finish(&self, sums: &[E], gradients: &mut [E]) {
        add(gradients, sums);
    }
}
