//! The classifier of a probe: logits of activations, and the gradient of the cross-entropy in its weights.

use crate::classify::ClassLogProbs;
use flow_api::threads::parallel;
use flow_kernels::matmul::{Accumulate, Operand, matmul};
use flow_kernels::noise::Stream;
use flow_kernels::simd;

/// Items whose logits are computed at a time: it decides the order of sums, and so does not depend on threads.
const ROWS: usize = 256;

/// Logits V x + c of rows x, or V tanh(U x + b) + c with one hidden layer. The weights are those of one layer after the
/// other, a matrix of (outputs, inputs) with its biases behind.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    pub(super) features: usize,
    pub(super) hidden: Option<usize>,
    pub(super) classes: usize,
}

impl Head {
    /// Inputs and outputs of each layer.
    fn layers(self) -> impl Iterator<Item = (usize, usize)> {
        let widths = std::iter::once(self.features).chain(self.hidden).chain([self.classes]);
        widths.clone().zip(widths.skip(1))
    }

    /// The matrix and the biases of each layer.
    fn parts(self, mut weights: &[f64]) -> impl Iterator<Item = (&[f64], &[f64])> {
        self.layers().map(move |(inputs, outputs)| {
            let (own, rest) = weights.split_at(outputs * (inputs + 1));
            weights = rest;
            own.split_at(outputs * inputs)
        })
    }

    /// Where a fit begins: at U with deviations of 1/√features, so that units differ, and all else zero.
    pub(super) fn begin(self) -> Vec<f64> {
        let mut weights = vec![0.0; self.layers().map(|(inputs, outputs)| outputs * (inputs + 1)).sum()];
        if let Some(hidden) = self.hidden {
            let u = &mut weights[..hidden * self.features];
            Stream::new(0, 0, "probe").row(0).gaussian(u);
            u.iter_mut().for_each(|u| *u /= (self.features as f64).sqrt());
        }
        weights
    }

    /// Log-probabilities of the classes of all rows.
    pub(super) fn log_probs(self, x: &[f64], weights: &[f64]) -> ClassLogProbs {
        let blocks = x.chunks(ROWS * self.features);
        ClassLogProbs::of_logits(blocks.flat_map(|x| self.outputs(x, weights).pop().unwrap_or_default()), self.classes)
    }

    /// What each layer makes of rows: the last are the logits.
    fn outputs(self, x: &[f64], weights: &[f64]) -> Vec<Vec<f64>> {
        let rows = x.len() / self.features;
        let mut outputs: Vec<Vec<f64>> = Vec::with_capacity(2);
        for ((width, height), (matrix, biases)) in self.layers().zip(self.parts(weights)) {
            let inputs = match outputs.last_mut() {
                None => x,
                Some(hidden) => {
                    hidden.iter_mut().for_each(|h| *h = h.tanh());
                    hidden
                }
            };
            let mut own = vec![0.0; rows * height];
            let matrix = Operand::new(matrix, height, width).transposed();
            matmul(&mut own, Accumulate::Replace, Operand::new(inputs, rows, width), matrix);
            own.chunks_exact_mut(height).for_each(|row| simd::add(row, biases));
            outputs.push(own);
        }
        outputs
    }

    /// Mean cross-entropy of rows with their labels + λ/2 times the squares of all matrices, and its gradient.
    pub(super) fn loss(self, x: &[f64], labels: &[usize], weights: &[f64], penalty: f64) -> (f64, Vec<f64>) {
        let blocks: Vec<(&[f64], &[usize])> = x.chunks(ROWS * self.features).zip(labels.chunks(ROWS)).collect();
        let parts = parallel(blocks.len(), |block| self.cross_entropy(blocks[block].0, blocks[block].1, weights));
        let (mut value, mut gradient) = (0.0, vec![0.0; weights.len()]);
        for (own, part) in parts {
            value += own;
            simd::add(&mut gradient, &part);
        }
        let count = labels.len() as f64;
        gradient.iter_mut().for_each(|g| *g /= count);
        value /= count;
        let mut at = 0;
        for (matrix, biases) in self.parts(weights) {
            value += 0.5 * penalty * matrix.iter().map(|w| w * w).sum::<f64>();
            gradient[at..].iter_mut().zip(matrix).for_each(|(g, w)| *g += penalty * w);
            at += matrix.len() + biases.len();
        }
        (value, gradient)
    }

    /// Sum of the cross-entropies of some rows, and its gradient.
    fn cross_entropy(self, x: &[f64], labels: &[usize], weights: &[f64]) -> (f64, Vec<f64>) {
        let mut outputs = self.outputs(x, weights);
        let mut cotangent = outputs.pop().unwrap_or_default();
        let mut value = 0.0;
        for (row, &label) in cotangent.chunks_exact_mut(self.classes).zip(labels) {
            let log_probs = ClassLogProbs::of_logits(row.iter().copied(), self.classes).values;
            value -= log_probs[label];
            row.iter_mut().zip(&log_probs).for_each(|(derivative, log_prob)| *derivative = log_prob.exp());
            row[label] -= 1.0;
        }
        let rows = labels.len();
        let mut gradient = vec![0.0; weights.len()];
        let mut end = weights.len();
        let layers: Vec<_> = self.layers().zip(self.parts(weights)).collect();
        for (number, ((width, height), (matrix, _))) in layers.into_iter().enumerate().rev() {
            let begin = end - height * (width + 1);
            let hidden = number.checked_sub(1).map(|below| &outputs[below]);
            let inputs = Operand::new(hidden.map_or(x, |hidden| hidden), rows, width);
            let (for_matrix, for_biases) = gradient[begin..end].split_at_mut(height * width);
            matmul(for_matrix, Accumulate::Replace, Operand::new(&cotangent, rows, height).transposed(), inputs);
            cotangent.chunks_exact(height).for_each(|row| simd::add(for_biases, row));
            if let Some(hidden) = hidden {
                let mut below = vec![0.0; rows * width];
                matmul(&mut below, Accumulate::Replace, Operand::new(&cotangent, rows, height), Operand::new(matrix, height, width));
                below.iter_mut().zip(hidden).for_each(|(g, h)| *g *= 1.0 - h * h);
                cotangent = below;
            }
            end = begin;
        }
        (value, gradient)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With one hidden layer and without, of rows in more than one block.
    #[test]
    fn the_gradient_equals_differences() {
        let wave = |i: usize| (1.3 * i as f64 + 0.2).sin();
        let x: Vec<f64> = (0..600).map(wave).collect();
        let labels: Vec<usize> = (0..300).map(|i| i % 3).collect();
        for hidden in [None, Some(4)] {
            let head = Head { features: 2, hidden, classes: 3 };
            let weights: Vec<f64> = head.begin().iter().enumerate().map(|(i, w)| w + (i as f64).cos()).collect();
            let (_, gradient) = head.loss(&x, &labels, &weights, 0.1);
            for (number, gradient) in gradient.iter().enumerate() {
                let moved = |by: f64| {
                    let mut weights = weights.clone();
                    weights[number] += by;
                    head.loss(&x, &labels, &weights, 0.1).0
                };
                let found = (moved(1e-5) - moved(-1e-5)) / 2e-5;
                assert!((found - gradient).abs() < 1e-9, "{hidden:?}, weight {number}: {found} and {gradient}");
            }
        }
    }
}
