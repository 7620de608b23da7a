//! The two MLPs of a mixer's block: over the features of every token, and over the tokens, for every feature.

use super::kernel::Part;
use crate::residual_mlp::{Activated, ActivatedBeside, Affine, Gelu, Nonlinear, Pulled, Shifted, add_rows, rows};
use flow_api::rows::RowTape;
use flow_api::{Result, Scalar};
use flow_kernels::Real;
use flow_kernels::matmul::{Accumulate, Bias, Epilogue, Operand, matmul, matmul_with};
use flow_kernels::simd::{add_lanes, sum_here};
use flow_kernels::workspace::Buffer;
use std::marker::PhantomData;

/// y = W₁ φ(W₀ x + b₀) + b₁ of every token x, with φ = GELU.
#[derive(Debug)]
pub(super) struct FeatureMlp<'a, E: Scalar>(pub(super) [Affine<'a, E>; 2]);

impl<E: Scalar> Part<E> for FeatureMlp<'_, E> {
    fn len(&self) -> usize {
        self.0.iter().map(Affine::len).sum()
    }

    fn prepare_forward(&self) {
        self.0.iter().for_each(|layer| {
            layer.weight.turned();
        });
    }

    /// Leaves what the activation saw.
    fn forward(&self, x: &[E], h: &mut [E], tape: &mut RowTape<E>) {
        let [first, second] = &self.0;
        let (activation, bias) = (PhantomData::<Gelu>, &*first.bias);
        let mut inner = Buffer::take(x.len() / first.weight.inputs() * bias.len());
        if tape.is_recording() {
            let mut activated = Buffer::take(inner.len());
            let mut beside = ActivatedBeside { activation, bias, activated: &mut activated };
            first.weight.product(x, Accumulate::Replace, &mut inner, &mut beside);
            second.weight.product(&activated, Accumulate::Add, h, &mut Shifted(&second.bias));
            tape.push(inner);
        } else {
            first.weight.product(x, Accumulate::Replace, &mut inner, &mut Activated { activation, bias });
            second.weight.product(&inner, Accumulate::Add, h, &mut Shifted(&second.bias));
        }
    }

    fn pull(&self, x: &[E], cotangent: &[E], tape: &mut RowTape<E>, sums: &mut [E]) -> Result<Buffer<E>> {
        let [first, second] = &self.0;
        let mut inner = tape.pop()?;
        let (for_second, sums) = second.take_sums(sums);
        let (for_first, _) = first.take_sums(sums);
        let mut into_inner = Buffer::take(inner.len());
        let mut pulled = Pulled { activation: PhantomData::<Gelu>, kept: &mut inner, sums: for_first.bias };
        let back = second.weight.operand();
        matmul_with(&mut into_inner, Accumulate::Replace, rows(cotangent, back.rows()), back, &mut pulled);
        second.weight.add_outer(cotangent, &inner, for_second.weight);
        add_rows(for_second.bias, cotangent);
        first.weight.add_outer(&into_inner, x, for_first.weight);
        let mut into_x = Buffer::take(x.len());
        first.weight.pull(&into_inner, &mut into_x);
        Ok(into_x)
    }
}

/// The same over the tokens, for every feature of every sample: the rows of a token lie together, so that all of a
/// block are one product from the left.
#[derive(Debug)]
pub(super) struct TokenMlp<'a, E: Scalar>(pub(super) [Affine<'a, E>; 2]);

impl<E: Scalar> Part<E> for TokenMlp<'_, E> {
    fn len(&self) -> usize {
        self.0.iter().map(Affine::len).sum()
    }

    /// Its weights are used as they are.
    fn prepare_forward(&self) {}

    /// Leaves what the activation saw.
    fn forward(&self, x: &[E], h: &mut [E], tape: &mut RowTape<E>) {
        let [first, second] = &self.0;
        let tokens = first.weight.inputs();
        let mut inner = Buffer::take(x.len() / tokens * first.bias.len());
        let mut activated = Buffer::take(inner.len());
        let mut beside = RowsActivatedBeside { bias: &first.bias, activated: &mut activated };
        matmul_with(&mut inner, Accumulate::Replace, first.weight.operand(), by_token(x, tokens), &mut beside);
        let activated = by_token(&activated, first.bias.len());
        matmul_with(h, Accumulate::Add, second.weight.operand(), activated, &mut Bias(&second.bias));
        tape.push(inner);
    }

    fn pull(&self, x: &[E], cotangent: &[E], tape: &mut RowTape<E>, sums: &mut [E]) -> Result<Buffer<E>> {
        let [first, second] = &self.0;
        let mut inner = tape.pop()?;
        let (for_second, sums) = second.take_sums(sums);
        let (for_first, _) = first.take_sums(sums);
        let (tokens, hidden) = (first.weight.inputs(), first.bias.len());
        add_lanes(for_second.bias, cotangent, cotangent.len() / tokens);
        let cotangent = by_token(cotangent, tokens);
        let mut into_inner = Buffer::take(inner.len());
        let mut pulled = RowsPulled { kept: &mut inner, sums: for_first.bias };
        matmul_with(&mut into_inner, Accumulate::Replace, second.weight.operand().transposed(), cotangent, &mut pulled);
        matmul(for_second.weight, Accumulate::Add, cotangent, by_token(&inner, hidden).transposed());
        let into_inner = by_token(&into_inner, hidden);
        matmul(for_first.weight, Accumulate::Add, into_inner, by_token(x, tokens).transposed());
        let mut into_x = Buffer::take(x.len());
        matmul(&mut into_x, Accumulate::Replace, first.weight.operand().transposed(), into_inner);
        Ok(into_x)
    }
}

/// One row a token: all features of all samples.
fn by_token<E>(x: &[E], tokens: usize) -> Operand<'_, E> {
    Operand::new(x, tokens, x.len() / tokens)
}

/// h = z + b for a bias of every row, and φ(h) beside it.
struct RowsActivatedBeside<'a, E> {
    bias: &'a [E],
    activated: &'a mut [E],
}

impl<E: Real> Epilogue<E> for RowsActivatedBeside<'_, E> {
    #[inline(always)]
    fn apply(&mut self, row: usize, values: &mut [E]) {
        let bias = self.bias[row];
        let activated = &mut self.activated[row * values.len()..][..values.len()];
        for (h, u) in values.iter_mut().zip(activated) {
            *h += bias;
            *u = Gelu::value(*h);
        }
    }
}

/// ∂L/∂φ(x) → ∂L/∂x, each row added up; turns what was kept into φ(x).
struct RowsPulled<'a, E> {
    kept: &'a mut [E],
    sums: &'a mut [E],
}

impl<E: Real> Epilogue<E> for RowsPulled<'_, E> {
    #[inline(always)]
    fn apply(&mut self, row: usize, cotangent: &mut [E]) {
        let kept = &mut self.kept[row * cotangent.len()..][..cotangent.len()];
        for (kept, cotangent) in kept.iter_mut().zip(&mut *cotangent) {
            let (value, slope) = Gelu::value_and_slope(*kept);
            *kept = value;
            *cotangent *= slope;
        }
        self.sums[row] += sum_here(cotangent);
    }
}
