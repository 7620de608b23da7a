//! The exact trace of a shallow field at the price of one probe.
//!
//! With one hidden layer of slopes d = φ′(z), tr(W₂ D W₁) = Σₐ dₐ (W₁ W₂)ₐₐ. With two, by the cyclic property,
//! ```text
//! tr(W₃ D₂ W₂ D₁ W₁) = Σ_ba d₂_b K_ba d₁_a,    K = W₂ ⊙ (W₁ W₃)ᵀ
//! ```
//! a bilinear form in the two layers' slopes: one product with an h × h matrix for all rows, where d directions through
//! the network would take d products. The scales of a gate multiply the weights of their layer. Deeper networks have no
//! such form.

use crate::activation::Activation;
use crate::moment::Moment;
use flow_kernels::matmul::{Accumulate, Operand, matmul};
use flow_kernels::scalar::{sigmoid_with_derivative, silu_with_derivative, softplus, tanh};
use flow_kernels::simd::add;
use flow_kernels::workspace::Buffer;
use flow_kernels::{Real, vectorized};

/// Weight (out × in) and bias of a linear layer.
pub(crate) type Linear<'a, E> = (&'a [E], &'a [E]);

/// A field with one or two hidden layers.
#[derive(Debug)]
pub(crate) struct ShallowField<'a, E: Real> {
    activation: Activation,
    /// All but the last.
    hidden: Vec<Linear<'a, E>>,
    last: Linear<'a, E>,
}

impl<'a, E: Real> ShallowField<'a, E> {
    /// The field of these layers, if it is shallow.
    pub(crate) fn new(activation: Activation, layers: impl Iterator<Item = Linear<'a, E>>) -> Option<Self> {
        let mut hidden: Vec<_> = layers.collect();
        let last = hidden.pop()?;
        (1..=2).contains(&hidden.len()).then_some(Self { activation, hidden, last })
    }

    /// f(z, t) and tr ∂f/∂z of every row: z and `out` are d × lanes, and the first layer's offset has its outputs ×
    /// lanes, or is empty.
    pub(crate) fn evaluate(&self, moment: &Moment<E>, z: &[E], offset: &[E], lanes: usize, out: &mut [E], trace: &mut [E]) {
        let mut modulation = moment.layers();
        let mut slopes: Vec<Buffer<E>> = Vec::with_capacity(2);
        let mut scales = Vec::with_capacity(2);
        let mut h = Buffer::take(0);
        for &(weight, bias) in &self.hidden {
            let (scale, shift) = modulation.next(bias.len());
            let mut next = Buffer::take(bias.len() * lanes);
            let mut slope = Buffer::take(next.len());
            let input = if slopes.is_empty() { z } else { &h[..] };
            matmul(&mut next, Accumulate::Replace, matrix(weight, bias.len()), Operand::new(input, input.len() / lanes, lanes));
            if slopes.is_empty() && !offset.is_empty() {
                add(&mut next, offset);
            }
            affine(&mut next, bias, scale, shift, lanes);
            activate(self.activation, &mut next, &mut slope);
            slopes.push(slope);
            scales.push(scale);
            h = next;
        }
        let (weight, bias) = self.last;
        let (scale, shift) = modulation.next(bias.len());
        let width = h.len() / lanes;
        matmul(out, Accumulate::Replace, matrix(weight, bias.len()), Operand::new(&h, width, lanes));
        affine(out, bias, scale, shift, lanes);

        let mut gated = Buffer::copy_of(weight);
        scale_rows(&mut gated, scale, width);
        let (first, _) = self.hidden[0];
        let inner = slopes[0].len() / lanes;
        trace.fill(E::zero());
        let [slope, rest @ ..] = &slopes[..] else { return };
        // (W₁ s₃ W₃)ᵀ: width × inner.
        let mut product = Buffer::take(width * inner);
        let transposed = matrix(&gated, bias.len()).transposed();
        matmul(&mut product, Accumulate::Replace, transposed, matrix(first, inner).transposed());
        scale_columns(&mut product, scales[0], inner);
        if let Some(second) = rest.first() {
            let (between, _) = self.hidden[1];
            scale_rows(&mut product, scales[1], inner);
            product.iter_mut().zip(between).for_each(|(k, &w)| *k *= w);
            let mut form = Buffer::take(second.len());
            matmul(&mut form, Accumulate::Replace, Operand::new(&product, width, inner), Operand::new(slope, inner, lanes));
            add_feature_products(trace, second, &form);
        } else {
            for (a, slope) in slope.chunks_exact(lanes).enumerate() {
                let diagonal = product[a * (inner + 1)];
                trace.iter_mut().zip(slope).for_each(|(t, &d)| *t += diagonal * d);
            }
        }
    }
}

fn matrix<E: Real>(weight: &[E], rows: usize) -> Operand<'_, E> {
    Operand::new(weight, rows, weight.len() / rows)
}

/// φ(z) in place, and φ′(z).
fn activate<E: Real>(activation: Activation, z: &mut [E], slope: &mut [E]) {
    match activation {
        Activation::Tanh => activate_tanh(z, slope),
        Activation::Softplus => activate_softplus(z, slope),
        Activation::Silu => activate_silu(z, slope),
    }
}

vectorized! {
    /// `out[c] += Σ_j a[j, c] b[j, c]`, with `out.len()` columns.
    pub(crate) fn add_feature_products<E: Real>(out: &mut [E], a: &[E], b: &[E]) {
        for (a, b) in a.chunks_exact(out.len()).zip(b.chunks_exact(out.len())) {
            for ((out, &a), &b) in out.iter_mut().zip(a).zip(b) {
                *out += a * b;
            }
        }
    }

    /// z = s (z + b) + t for every row; without a scale or a shift, as if they were 1 and 0.
    fn affine<E: Real>(z: &mut [E], bias: &[E], scale: &[E], shift: &[E], lanes: usize) {
        for (j, row) in z.chunks_exact_mut(lanes).enumerate() {
            let s = scale.get(j).copied().unwrap_or_else(E::one);
            let offset = s * bias[j] + shift.get(j).copied().unwrap_or_else(E::zero);
            for z in row {
                *z = s * *z + offset;
            }
        }
    }

    fn activate_tanh<E: Real>(z: &mut [E], slope: &mut [E]) {
        for (z, slope) in z.iter_mut().zip(slope) {
            *z = tanh(*z);
            *slope = E::one() - *z * *z;
        }
    }

    fn activate_softplus<E: Real>(z: &mut [E], slope: &mut [E]) {
        for (z, slope) in z.iter_mut().zip(slope) {
            (*slope, _) = sigmoid_with_derivative(*z);
            *z = softplus(*z);
        }
    }

    fn activate_silu<E: Real>(z: &mut [E], slope: &mut [E]) {
        for (z, slope) in z.iter_mut().zip(slope) {
            (*z, *slope) = silu_with_derivative(*z);
        }
    }

    /// Row j times s_j; nothing without a scale.
    fn scale_rows<E: Real>(m: &mut [E], scale: &[E], columns: usize) {
        for (row, &s) in m.chunks_exact_mut(columns).zip(scale) {
            for x in row {
                *x *= s;
            }
        }
    }

    /// Column j times s_j; nothing without a scale.
    fn scale_columns<E: Real>(m: &mut [E], scale: &[E], columns: usize) {
        for row in m.chunks_exact_mut(columns) {
            for (x, &s) in row.iter_mut().zip(scale) {
                *x *= s;
            }
        }
    }
}
