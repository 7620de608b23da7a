//! Layer normalisation of rows, forward and back.

use flow_api::rows::RowTape;
use flow_api::{Result, Scalar};
use flow_kernels::simd::{lanewise, sum_here};
use flow_kernels::workspace::Buffer;
use flow_kernels::{Real, vectorized};

/// What is added to a variance.
const EPSILON: f64 = 1e-6;

/// y = γ ⊙ (x − μ)/√(σ² + 10⁻⁶) + β of every row, with its mean μ and its variance σ².
#[derive(Clone, Copy, Debug)]
pub(super) struct NormKernel<'a, E> {
    pub(super) scale: &'a [E],
    pub(super) shift: &'a [E],
}

/// What a pass leaves: the normalised rows, and 1/√(σ² + ε) of each.
pub(super) struct Normalised<E: Scalar> {
    values: Buffer<E>,
    steepness: Buffer<E>,
}

impl<E: Scalar> NormKernel<'_, E> {
    /// Parameters.
    pub(super) fn len(&self) -> usize {
        self.scale.len() + self.shift.len()
    }

    pub(super) fn forward(&self, x: &[E]) -> (Buffer<E>, Normalised<E>) {
        let mut steepness = Buffer::take(x.len() / self.scale.len());
        let mut values = Buffer::copy_of(x);
        normalise(&mut values, &mut steepness, E::of(EPSILON));
        let normalised = Normalised { values, steepness };
        (self.output(&normalised), normalised)
    }

    /// y again.
    pub(super) fn output(&self, normalised: &Normalised<E>) -> Buffer<E> {
        let mut y = Buffer::copy_of(&normalised.values);
        scale_and_shift_rows(&mut y, self.scale, self.shift);
        y
    }

    /// Adds ∂L/∂x to `into`, given ∂L/∂y; adds the gradients of γ and β to `sums`.
    pub(super) fn pull(&self, normalised: &Normalised<E>, cotangent: &mut [E], into: &mut [E], sums: &mut [E]) {
        let (for_scale, for_shift) = sums.split_at_mut(self.scale.len());
        pull_rows(cotangent, &normalised.values, self.scale, for_scale, for_shift);
        add_pulled(into, cotangent, &normalised.values, &normalised.steepness);
    }
}

impl<E: Scalar> Normalised<E> {
    pub(super) fn push(self, tape: &mut RowTape<E>) {
        tape.push(self.values);
        tape.push(self.steepness);
    }

    pub(super) fn pop(tape: &mut RowTape<E>) -> Result<Self> {
        let steepness = tape.pop()?;
        Ok(Self { values: tape.pop()?, steepness })
    }
}

vectorized! {
    /// Rows to (x − μ)/√(σ² + ε), and 1/√(σ² + ε) of each.
    fn normalise<E: Real>(rows: &mut [E], steepness: &mut [E], epsilon: E) {
        let width = rows.len() / steepness.len().max(1);
        let share = E::one() / E::of(width as f64);
        for (row, steepness) in rows.chunks_exact_mut(width.max(1)).zip(steepness) {
            let mean = sum_here(row) * share;
            row.iter_mut().for_each(|x| *x -= mean);
            let variance = lanewise(row, row, |x, y| x * y) * share;
            *steepness = E::one() / num_traits::Float::sqrt(variance + epsilon);
            row.iter_mut().for_each(|x| *x *= *steepness);
        }
    }

    fn scale_and_shift_rows<E: Real>(rows: &mut [E], scale: &[E], shift: &[E]) {
        for row in rows.chunks_exact_mut(scale.len().max(1)) {
            for ((x, &scale), &shift) in row.iter_mut().zip(scale).zip(shift) {
                *x = *x * scale + shift;
            }
        }
    }

    /// ∂L/∂y to ∂L/∂ normalised rows; sums of both kinds.
    fn pull_rows<E: Real>(cotangent: &mut [E], normalised: &[E], scale: &[E], for_scale: &mut [E], for_shift: &mut [E]) {
        let width = scale.len().max(1);
        for (g, x) in cotangent.chunks_exact_mut(width).zip(normalised.chunks_exact(width)) {
            for ((((g, &x), &scale), for_scale), for_shift) in g.iter_mut().zip(x).zip(scale).zip(&mut *for_scale).zip(&mut *for_shift) {
                *for_scale += *g * x;
                *for_shift += *g;
                *g *= scale;
            }
        }
    }

    /// Adds (g − mean g − x̂ mean (g x̂)) / √(σ² + ε), row by row.
    fn add_pulled<E: Real>(into: &mut [E], cotangent: &[E], normalised: &[E], steepness: &[E]) {
        let width = (cotangent.len() / steepness.len().max(1)).max(1);
        let share = E::one() / E::of(width as f64);
        let rows = into.chunks_exact_mut(width).zip(cotangent.chunks_exact(width)).zip(normalised.chunks_exact(width));
        for (((into, g), x), &steepness) in rows.zip(steepness) {
            let (mean, along) = (sum_here(g) * share, lanewise(g, x, |g, x| g * x) * share);
            for ((into, &g), &x) in into.iter_mut().zip(g).zip(x) {
                *into += (g - mean - x * along) * steepness;
            }
        }
    }
}
