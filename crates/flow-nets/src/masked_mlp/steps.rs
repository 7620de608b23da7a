//! The masked network feature by feature: every hidden unit is computed once, when the last feature that it sees is
//! known.

use super::MaskedMlp;
use crate::residual_mlp::{Gelu, Linear, Nonlinear, Relu, Silu, Tanh};
use crate::{Activation, ResidualMlpConfig};
use flow_api::rows::{Real, block_condition};
use flow_api::{Result, Scalar};
use flow_kernels::matmul::{Accumulate, Bias, Operand, matmul_with};
use flow_kernels::vectorized;
use flow_kernels::workspace::Buffer;
use std::ops::Range;

/// Neighbouring rows of one layer that see the same, without what they do not see.
#[derive(Debug)]
struct Rows<'a, E: Scalar> {
    weight: Buffer<E>,
    bias: &'a [E],
}

impl<'a, E: Scalar> Rows<'a, E> {
    /// Rows `rows` of a layer; of every row the columns that `parts` names, one range after the other.
    fn of(layer: &'a Linear<E>, rows: Range<usize>, parts: &[Range<usize>]) -> Self {
        let all = layer.weight.values();
        let width = all.len() / layer.bias.values().len();
        let seen: usize = parts.iter().map(Range::len).sum();
        let mut weight = Buffer::take(rows.len() * seen);
        for (to, row) in weight.chunks_exact_mut(seen.max(1)).zip(all[rows.start * width..rows.end * width].chunks_exact(width)) {
            let columns = parts.iter().flat_map(|part| &row[part.clone()]);
            to.iter_mut().zip(columns).for_each(|(to, &from)| *to = from);
        }
        Self { weight, bias: &layer.bias.values()[rows] }
    }

    /// W x + b, or that added to what is there; x is feature-major.
    fn apply(&self, x: &[E], lanes: usize, accumulate: Accumulate, y: &mut [E]) {
        let (rows, seen) = (self.bias.len(), self.weight.len() / self.bias.len().max(1));
        let (weight, x) = (Operand::new(&self.weight, rows, seen), Operand::new(&x[..seen * lanes], seen, lanes));
        matmul_with(y, accumulate, weight, x, &mut Bias(self.bias));
    }
}

/// What is computed when the features before one are known: the units that see just these, and the outputs of the one.
#[derive(Debug)]
struct Step<'a, E: Scalar> {
    units: Range<usize>,
    /// The initial layer, then both layers of every block.
    layers: Vec<Rows<'a, E>>,
    outputs: Rows<'a, E>,
}

/// The weights of all steps.
#[derive(Debug)]
pub(super) struct StepWeights<'a, E: Scalar>(Vec<Step<'a, E>>);

impl<'a, E: Scalar> StepWeights<'a, E> {
    pub(super) fn new(net: &'a MaskedMlp<E>) -> Self {
        let ResidualMlpConfig { inputs, condition, .. } = *net.config();
        let (layers, parameters) = (net.net.layers().collect::<Vec<_>>(), net.parameters());
        let Some((&last, hidden)) = layers.split_last() else { return Self(Vec::new()) };
        let step = |feature: usize, start: usize, up_to: usize| {
            let of_units = |(place, layer): (usize, &&'a Linear<E>)| {
                // The condition comes first in a pass by steps, since it is known first.
                let first = [inputs..inputs + condition, 0..feature];
                let later = [0..up_to, 0..0];
                Rows::of(layer, start..up_to, if place == 0 { &first } else { &later })
            };
            Step {
                units: start..up_to,
                layers: hidden.iter().enumerate().map(of_units).collect(),
                outputs: Rows::of(last, feature * parameters..(feature + 1) * parameters, &[0..up_to, 0..0]),
            }
        };
        let starts = std::iter::once(0).chain(net.up_to.iter().copied());
        Self(starts.zip(&net.up_to).enumerate().map(|(feature, (start, &up_to))| step(feature, start, up_to)).collect())
    }
}

/// A pass feature by feature: [`MaskedSteps::parameters`] and [`MaskedSteps::push`] in turn.
#[derive(Debug)]
pub struct MaskedSteps<'k, E: Scalar> {
    weights: &'k [Step<'k, E>],
    activation: Activation,
    lanes: usize,
    /// The condition, then the features that are known.
    input: Buffer<E>,
    known: usize,
    features: usize,
    /// φ(h) in front of every block and φ of its first layer, unit-major; at the end h itself.
    hidden: Vec<Buffer<E>>,
}

impl<'k, E: Scalar> MaskedSteps<'k, E> {
    pub(super) fn new(net: &MaskedMlp<E>, weights: &'k StepWeights<'k, E>, condition: Option<&[E]>, lanes: usize) -> Result<Self> {
        let ResidualMlpConfig { inputs, condition: width, hidden, blocks, activation, .. } = *net.config();
        let mut input = Buffer::take((width + inputs) * lanes);
        let condition = block_condition(condition, width, lanes)?;
        input[..condition.len()].copy_from_slice(condition);
        let hidden = (0..=2 * blocks).map(|_| Buffer::take(hidden * lanes)).collect();
        Ok(Self { weights: &weights.0, activation, lanes, input, known: width * lanes, features: 0, hidden })
    }

    /// The parameters (P × lanes) of the next feature. Once all features are known, or after a call without a
    /// [`MaskedSteps::push`], those of the last one again.
    pub fn parameters(&mut self) -> Buffer<E> {
        let Some(step) = self.weights.get(self.features).or(self.weights.last()) else { return Buffer::take(0) };
        let lanes = self.lanes;
        if !step.units.is_empty() {
            let own = step.units.start * lanes..step.units.end * lanes;
            let mut h = Buffer::take(own.len());
            let mut layers = step.layers.iter();
            if let Some(initial) = layers.next() {
                initial.apply(&self.input, lanes, Accumulate::Replace, &mut h);
            }
            for (k, layer) in layers.enumerate() {
                // φ(h) in front of a block's first layer; φ of that layer's output in front of its second.
                if k % 2 == 0 {
                    activate(self.activation, &h, &mut self.hidden[k][own.clone()]);
                    let (before, behind) = self.hidden.split_at_mut(k + 1);
                    let mut v = Buffer::take(own.len());
                    layer.apply(&before[k], lanes, Accumulate::Replace, &mut v);
                    activate(self.activation, &v, &mut behind[0][own.clone()]);
                } else {
                    layer.apply(&self.hidden[k], lanes, Accumulate::Add, &mut h);
                }
            }
            if let Some(last) = self.hidden.last_mut() {
                last[own].copy_from_slice(&h);
            }
        }
        let mut parameters = Buffer::take(step.outputs.bias.len() * lanes);
        if let Some(h) = self.hidden.last() {
            step.outputs.apply(h, lanes, Accumulate::Replace, &mut parameters);
        }
        parameters
    }

    /// The value (lanes) of the feature whose parameters came last.
    pub fn push(&mut self, x: &[E]) {
        if self.features < self.weights.len() {
            self.input[self.known..self.known + self.lanes].copy_from_slice(x);
            self.known += self.lanes;
            self.features += 1;
        }
    }
}

/// φ(x) of every number.
fn activate<E: Scalar>(activation: Activation, x: &[E], to: &mut [E]) {
    match activation {
        Activation::Relu => apply(Relu, x, to),
        Activation::Silu => apply(Silu, x, to),
        Activation::Tanh => apply(Tanh, x, to),
        Activation::Gelu => apply(Gelu, x, to),
    }
}

vectorized! {
    fn apply<N: Nonlinear, E: Real>(_activation: N, x: &[E], to: &mut [E]) {
        for (to, &x) in to.iter_mut().zip(x) {
            *to = N::value(x);
        }
    }
}
