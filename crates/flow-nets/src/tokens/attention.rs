//! Multi-head self-attention of the tokens of a sample, forward and back.

use super::kernel::Part;
use crate::residual_mlp::{Affine, Shifted, add_rows};
use flow_api::rows::RowTape;
use flow_api::{Result, Scalar};
use flow_kernels::matmul::{Accumulate, Operand, matmul};
use flow_kernels::simd::{lanewise, sum_here};
use flow_kernels::workspace::Buffer;
use flow_kernels::{Real, scalar, vectorized};

/// o = W concat (softmax(q kᵀ/√δ) v) + b, with q, k and v of every head linear in the tokens, δ features a head
/// (Vaswani et al., arXiv:1706.03762, section 3.2).
#[derive(Debug)]
pub(super) struct Attention<'a, E: Scalar> {
    pub(super) heads: usize,
    /// Tokens of a sample.
    pub(super) tokens: usize,
    /// To q, k and v, one after the other, each head by head.
    pub(super) projection: Affine<'a, E>,
    pub(super) output: Affine<'a, E>,
}

/// Sizes in a call.
#[derive(Clone, Copy)]
struct Sizes {
    samples: usize,
    tokens: usize,
    heads: usize,
    /// Features of a head.
    features: usize,
}

impl Sizes {
    /// Features of a token.
    fn width(self) -> usize {
        self.heads * self.features
    }

    /// Numbers of one of a head's matrices, tokens × features.
    fn matrix(self) -> usize {
        self.tokens * self.features
    }

    /// Every head of every sample.
    fn each(self) -> impl Iterator<Item = (usize, usize)> {
        (0..self.samples).flat_map(move |sample| (0..self.heads).map(move |head| (sample, head)))
    }

    /// Where the features of a head begin in the rows of a sample, token by token, in parts of `parts` widths each.
    fn starts(self, (sample, head): (usize, usize), part: usize, parts: usize) -> impl Iterator<Item = usize> {
        let first = part * self.width() + head * self.features;
        (0..self.tokens).map(move |token| (token * self.samples + sample) * parts * self.width() + first)
    }

    /// Copies a head's features of all tokens of a sample out of rows.
    fn gather<E: Scalar>(self, rows: &[E], at: (usize, usize), part: usize, parts: usize, to: &mut [E]) {
        for (start, to) in self.starts(at, part, parts).zip(to.chunks_exact_mut(self.features)) {
            to.copy_from_slice(&rows[start..][..self.features]);
        }
    }

    /// Copies them back.
    fn scatter<E: Scalar>(self, from: &[E], at: (usize, usize), part: usize, parts: usize, rows: &mut [E]) {
        for (start, from) in self.starts(at, part, parts).zip(from.chunks_exact(self.features)) {
            rows[start..][..self.features].copy_from_slice(from);
        }
    }

    fn operand<E>(self, x: &[E]) -> Operand<'_, E> {
        Operand::new(x, self.tokens, self.features)
    }

    fn square<E>(self, x: &[E]) -> Operand<'_, E> {
        Operand::new(x, self.tokens, self.tokens)
    }
}

impl<E: Scalar> Attention<'_, E> {
    fn sizes(&self, rows: usize) -> Sizes {
        let Self { heads, tokens, .. } = *self;
        Sizes { samples: rows / tokens, tokens, heads, features: self.output.weight.inputs() / heads }
    }

    /// 1/√δ.
    fn steepness(sizes: Sizes) -> E {
        E::one() / num_traits::Float::sqrt(E::of(sizes.features as f64))
    }
}

impl<E: Scalar> Part<E> for Attention<'_, E> {
    fn len(&self) -> usize {
        self.projection.len() + self.output.len()
    }

    fn prepare_forward(&self) {
        self.projection.weight.turned();
        self.output.weight.turned();
    }

    /// Leaves q, k and v head by head, the softmax, and what the output map saw.
    fn forward(&self, x: &[E], h: &mut [E], tape: &mut RowTape<E>) {
        let sizes = self.sizes(x.len() / self.output.weight.inputs());
        let mut projected = Buffer::take(3 * x.len());
        self.projection.weight.product(x, Accumulate::Replace, &mut projected, &mut Shifted(&self.projection.bias));
        let matrix = sizes.matrix();
        let (mut heads, mut shares) = (Buffer::take(3 * x.len()), Buffer::take(sizes.samples * sizes.heads * sizes.tokens * sizes.tokens));
        let (mut mixed, mut own) = (Buffer::take(x.len()), Buffer::take(matrix));
        let parts = heads.chunks_exact_mut(3 * matrix).zip(shares.chunks_exact_mut(sizes.tokens * sizes.tokens));
        for (at, (head, shares)) in sizes.each().zip(parts) {
            for (part, to) in head.chunks_exact_mut(matrix).enumerate() {
                sizes.gather(&projected, at, part, 3, to);
            }
            let (q, kv) = head.split_at(matrix);
            let (k, v) = kv.split_at(matrix);
            matmul(shares, Accumulate::Replace, sizes.operand(q), sizes.operand(k).transposed());
            softmax(shares, sizes.tokens, Self::steepness(sizes));
            matmul(&mut own, Accumulate::Replace, sizes.square(shares), sizes.operand(v));
            sizes.scatter(&own, at, 0, 1, &mut mixed);
        }
        self.output.weight.product(&mixed, Accumulate::Add, h, &mut Shifted(&self.output.bias));
        tape.push(heads);
        tape.push(shares);
        tape.push(mixed);
    }

    fn pull(&self, x: &[E], cotangent: &[E], tape: &mut RowTape<E>, sums: &mut [E]) -> Result<Buffer<E>> {
        let width = self.output.weight.inputs();
        let sizes = self.sizes(x.len() / width);
        let (mixed, shares, heads) = (tape.pop()?, tape.pop()?, tape.pop()?);
        let (for_output, sums) = self.output.take_sums(sums);
        let (for_projection, _) = self.projection.take_sums(sums);
        let mut into_mixed = mixed;
        self.output.weight.add_outer(cotangent, &into_mixed, for_output.weight);
        add_rows(for_output.bias, cotangent);
        self.output.weight.pull(cotangent, &mut into_mixed);
        let matrix = sizes.matrix();
        let (mut into_projected, mut into_head) = (Buffer::take(3 * x.len()), Buffer::take(matrix));
        let (mut own, mut into_shares) = (Buffer::take(matrix), Buffer::take(sizes.tokens * sizes.tokens));
        let parts = heads.chunks_exact(3 * matrix).zip(shares.chunks_exact(sizes.tokens * sizes.tokens));
        for (at, (head, shares)) in sizes.each().zip(parts) {
            let (q, kv) = head.split_at(matrix);
            let (k, v) = kv.split_at(matrix);
            sizes.gather(&into_mixed, at, 0, 1, &mut own);
            let own = sizes.operand(&own);
            matmul(&mut into_head, Accumulate::Replace, sizes.square(shares).transposed(), own);
            sizes.scatter(&into_head, at, 2, 3, &mut into_projected);
            matmul(&mut into_shares, Accumulate::Replace, own, sizes.operand(v).transposed());
            pull_softmax(&mut into_shares, shares, sizes.tokens, Self::steepness(sizes));
            let into_scores = sizes.square(&into_shares);
            matmul(&mut into_head, Accumulate::Replace, into_scores, sizes.operand(k));
            sizes.scatter(&into_head, at, 0, 3, &mut into_projected);
            matmul(&mut into_head, Accumulate::Replace, into_scores.transposed(), sizes.operand(q));
            sizes.scatter(&into_head, at, 1, 3, &mut into_projected);
        }
        self.projection.weight.add_outer(&into_projected, x, for_projection.weight);
        add_rows(for_projection.bias, &into_projected);
        let mut pulled = into_mixed;
        self.projection.weight.pull(&into_projected, &mut pulled);
        Ok(pulled)
    }
}

/// Running maxima of a row.
const MAXIMA: usize = 16;

/// The largest number of a row; NaN is left out, and then found in the exponentials.
#[inline(always)]
fn largest<E: Real>(row: &[E]) -> E {
    let larger = |x: E, y: E| if y > x { y } else { x };
    let mut most = [E::neg_infinity(); MAXIMA];
    let (whole, rest) = row.as_chunks::<MAXIMA>();
    for x in whole {
        most = std::array::from_fn(|i| larger(most[i], x[i]));
    }
    most.iter().chain(rest).fold(E::neg_infinity(), |most, &x| larger(most, x))
}

vectorized! {
    /// Every row of `len` numbers, times a steepness, to its softmax.
    fn softmax<E: Real>(rows: &mut [E], len: usize, steepness: E) {
        for row in rows.chunks_exact_mut(len.max(1)) {
            let most = largest(row);
            row.iter_mut().for_each(|x| *x = scalar::exp((*x - most) * steepness));
            let share = E::one() / sum_here(row);
            row.iter_mut().for_each(|x| *x *= share);
        }
    }

    /// ∂L/∂softmax to ∂L/∂x, given the softmax.
    fn pull_softmax<E: Real>(cotangent: &mut [E], shares: &[E], len: usize, steepness: E) {
        for (g, p) in cotangent.chunks_exact_mut(len.max(1)).zip(shares.chunks_exact(len.max(1))) {
            let mean = lanewise(g, p, |g, p| g * p);
            g.iter_mut().zip(p).for_each(|(g, &p)| *g = p * (*g - mean) * steepness);
        }
    }
}
