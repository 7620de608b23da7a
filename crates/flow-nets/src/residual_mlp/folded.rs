//! The linear maps behind the last activations, multiplied together.

use super::ResidualMlpConfig;
use super::linear::{Affine, Weight};
use flow_api::Scalar;
use flow_kernels::matmul::{Accumulate, Bias, Operand, matmul, matmul_with};
use flow_kernels::simd::{add, axpy};
use flow_kernels::workspace::Buffer;

/// out = V h + c without h: since h = W₀ x + b₀ + Σ (W₁ v + b₁) over the blocks, v = φ(…), it is A x + Σ P v + c′ with
/// A = V W₀, a P = V W₁ for every block, and c′ = c + V (b₀ + Σ b₁).
///
/// The last block's W₁, of hidden × hidden, then multiplies V once a call and not every row.
#[derive(Debug)]
pub(super) struct Folded<E: Scalar> {
    /// A, outputs × inputs.
    pub(super) input: Weight<E, Buffer<E>>,
    /// P of every block, outputs × hidden.
    pub(super) blocks: Vec<Weight<E, Buffer<E>>>,
    /// c′.
    pub(super) offset: Buffer<E>,
}

impl ResidualMlpConfig {
    /// Whether folding spares multiply-adds in a call of so many rows. Per row it spares W₁ v and V h for A x and the P
    /// v; once a call it costs the products A and P, and as much again in either pass of their gradients.
    pub(super) fn folds(&self, rows: usize) -> bool {
        let Self { inputs, condition, outputs, hidden, blocks, .. } = *self;
        // A network of 2²⁸ weights at most: no overflow in these.
        let [inputs, outputs, hidden, blocks, rows] = [inputs + condition, outputs, hidden, blocks, rows].map(|n| n as u128);
        let features = inputs + blocks * hidden;
        let (before, after) = (hidden * (hidden + outputs), outputs * features);
        before > after && rows * (before - after) > 2 * outputs * hidden * features
    }
}

impl<E: Scalar> Folded<E> {
    pub(super) fn new(initial: &Affine<'_, E>, blocks: &[[Affine<'_, E>; 2]], last: &Affine<'_, E>) -> Self {
        let outputs = last.bias.len();
        let behind = |layer: &Affine<'_, E>| {
            let mut product = Buffer::take(outputs * layer.weight.inputs());
            matmul(&mut product, Accumulate::Replace, last.weight.operand(), layer.weight.operand());
            Weight::new(product, outputs)
        };
        let mut biases = Buffer::copy_of(&initial.bias);
        blocks.iter().for_each(|[_, second]| add(&mut biases, &second.bias));
        let mut offset = Buffer::take(outputs);
        matmul_with(&mut offset, Accumulate::Replace, last.weight.operand(), Operand::new(&biases, biases.len(), 1), &mut Bias(&last.bias));
        Self { input: behind(initial), blocks: blocks.iter().map(|[_, second]| behind(second)).collect(), offset }
    }

    /// Length of the sums over rows that [`Folded::finish`] takes: Σ g, Σ g xᵀ, and Σ g vᵀ for every block.
    pub(super) fn sums_len(&self) -> usize {
        self.offset.len() + self.input.len() + self.blocks.iter().map(Weight::len).sum::<usize>()
    }

    /// Adds to the parameters' gradients what the sums over all rows make: those of a layer in front of V are Vᵀ Σ g xᵀ
    /// and Vᵀ Σ g, and V's own are Σ g xᵀ W₀ᵀ + Σ g b₀ᵀ, both with v, W₁ and b₁ for the blocks. `layers` are these
    /// layers in order, each with where its gradients start; V's own are apart, behind them.
    pub(super) fn finish<'l>(
        &self,
        sums: &[E],
        layers: impl Iterator<Item = (&'l Affine<'l, E>, usize)>,
        last: &Affine<'_, E>,
        (gradients, own): (&mut [E], &mut [E]),
    ) {
        let (weight, bias) = own.split_at_mut(last.weight.len());
        let (cotangent, mut parts) = sums.split_at(self.offset.len());
        add(bias, cotangent);
        let hidden = last.weight.inputs();
        let mut into_hidden = Buffer::take(hidden);
        let back = last.weight.operand().transposed();
        matmul(&mut into_hidden, Accumulate::Replace, back, Operand::new(cotangent, cotangent.len(), 1));
        for (layer, start) in layers {
            let (part, later) = parts.split_at(cotangent.len() * layer.weight.inputs());
            parts = later;
            let part = Operand::new(part, cotangent.len(), layer.weight.inputs());
            let (for_weight, for_bias) = gradients[start..][..layer.len()].split_at_mut(layer.weight.len());
            matmul(for_weight, Accumulate::Add, back, part);
            add(for_bias, &into_hidden);
            matmul(weight, Accumulate::Add, part, layer.weight.operand().transposed());
            for (weight, &g) in weight.chunks_exact_mut(hidden).zip(cotangent) {
                axpy(weight, g, &layer.bias);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Activation, ResidualMlp, ResidualMlpConfig};
    use flow_api::Scalar;
    use flow_api::module::{EntryMut, parameter_count, update};
    use flow_api::rows::RowTape;
    use flow_kernels::noise::Stream;

    const LANES: usize = 13;

    fn noise<E: Scalar>(count: usize, name: &str) -> Vec<E> {
        let mut values = vec![E::zero(); count];
        Stream::new(3, 0, name).row(0).gaussian(&mut values);
        values
    }

    /// Output, ∂L/∂input and the parameters' gradients in a call of so many rows, of which one block is run.
    fn run<E: Scalar>(net: &ResidualMlp<E>, rows: usize) -> [Vec<E>; 3] {
        let ResidualMlpConfig { inputs, condition, outputs, .. } = *net.config();
        let kernel = net.kernel(rows);
        let (x, c, g) = (noise(inputs * LANES, "x"), noise(condition * LANES, "c"), noise(outputs * LANES, "g"));
        let mut tape = RowTape::recording();
        let output = kernel.forward(&x, Some(&c), LANES, &mut tape).unwrap();
        let mut sums = vec![E::zero(); kernel.sums_len()];
        let pulled = kernel.pullback(&g, LANES, &mut tape, &mut sums).unwrap();
        // Gradients are added to what is there.
        let mut gradients = vec![E::one(); parameter_count(net)];
        kernel.finish(&sums, &mut gradients);
        [output.to_vec(), pulled.to_vec(), gradients]
    }

    fn compare<E: Scalar>(config: ResidualMlpConfig, tolerance: f64) {
        let mut net = ResidualMlp::<E>::new(config, 7).unwrap();
        update(&mut net, |path, entry| {
            if let EntryMut::Parameter { values, .. } = entry {
                let noise = noise::<E>(values.len(), path);
                values.iter_mut().zip(noise).for_each(|(value, noise)| *value = noise * E::of(0.3));
            }
        })
        .unwrap();
        for (folded, layered) in run(&net, 1 << 20).iter().zip(&run(&net, 0)) {
            assert_eq!(folded.len(), layered.len());
            let size = layered.iter().fold(1.0, |most: f64, x| most.max(x.as_f64().abs()));
            for (at, (a, b)) in folded.iter().zip(layered).enumerate() {
                let error = (a.as_f64() - b.as_f64()).abs();
                assert!(error <= tolerance * size, "{config:?} [{at}]: {a} and {b}");
            }
        }
    }

    #[test]
    fn folded_layers_are_the_layers_one_after_another() {
        let config = ResidualMlpConfig { inputs: 3, condition: 0, outputs: 6, hidden: 20, blocks: 1, activation: Activation::Relu };
        for config in [
            config,
            ResidualMlpConfig { outputs: 11, ..config },
            ResidualMlpConfig { outputs: 14, inputs: 2, condition: 3, activation: Activation::Tanh, ..config },
            ResidualMlpConfig { outputs: 2, inputs: 35, hidden: 40, activation: Activation::Silu, ..config },
            ResidualMlpConfig { outputs: 25, inputs: 1, hidden: 20, blocks: 1, activation: Activation::Gelu, ..config },
            ResidualMlpConfig { outputs: 2, blocks: 2, ..config },
            ResidualMlpConfig { outputs: 9, blocks: 3, hidden: 24, activation: Activation::Silu, ..config },
        ] {
            assert!(config.folds(1 << 20) && !config.folds(0), "{config:?}");
            compare::<f64>(config, 1e-12);
            compare::<f32>(config, 1e-5);
        }
    }

    #[test]
    fn layers_are_folded_where_it_is_less_work() {
        let config = ResidualMlpConfig { inputs: 24, condition: 0, outputs: 48, hidden: 128, blocks: 1, activation: Activation::Relu };
        for (config, rows, folds) in [
            (config, 4096, true),
            // As many as one image has.
            (config, 64, false),
            // A spline: A x would cost what W₁ v does.
            (ResidualMlpConfig { outputs: 23 * 24, ..config }, 4096, false),
            (ResidualMlpConfig { inputs: 1536, outputs: 3072, ..config }, usize::MAX, false),
        ] {
            assert_eq!(config.folds(rows), folds, "{config:?} {rows}");
        }
    }
}
