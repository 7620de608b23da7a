//! The masked residual network, whose outputs see earlier inputs alone.

mod kernel;
mod steps;

pub use kernel::MaskedMlpKernel;
pub use steps::MaskedSteps;

use crate::residual_mlp::{Affine, Linear};
use crate::{Activation, ConditionerKernel, ConditionerNet, ResidualMlp, ResidualMlpConfig, TapedNet};
use flow_api::device::{LinearForm, NetForm};
use flow_api::rows::Taped;
use flow_api::{Module, Result, Scalar, module_fields};
use std::borrow::Cow;

/// Sizes of a [`MaskedMlp`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MaskedMlpConfig {
    /// Features that go in, d.
    pub features: usize,
    /// Width of the condition, 0 without one.
    pub condition: usize,
    /// Numbers that come out for every feature, P.
    pub parameters: usize,
    /// Width of the hidden layers.
    pub hidden: usize,
    /// Residual blocks of two linear layers each.
    pub blocks: usize,
    /// The nonlinearity.
    pub activation: Activation,
}

/// A [`ResidualMlp`] whose weights are masked so that the parameters of feature p are a function of the features before
/// it, and of the condition: the network of autoregressive flows.
///
/// Every hidden unit has a degree, the number of features that it sees: an input is weighted by units whose degree is
/// above its place, a unit by those of at least its degree, and the P outputs of feature p come from units of degree at
/// most p. Degrees are spread evenly over 1 to d − 1; units of a conditional network, or of a single feature, may have
/// degree 0 too, so that the first feature's parameters depend on the condition. Units are in the order of their
/// degrees, so that what a row of weights does not see is its end.
///
/// Source: Germain et al., "MADE" (arXiv:1502.03509); with residual blocks as in Durkan et al., "Neural Spline Flows"
/// (arXiv:1906.04032).
///
/// # Parameters
/// As of [`ResidualMlp`], whole matrices: numbers behind a mask have no effect and get no gradient. The condition's
/// weights are `initial.weight`'s last columns, which no mask covers. `final`'s rows are feature by feature.
///
/// ```
/// use flow_api::rows::RowTape;
/// use flow_nets::{Activation, ConditionerKernel, ConditionerNet, MaskedMlp, MaskedMlpConfig};
/// let config = MaskedMlpConfig { features: 3, condition: 0, parameters: 2, hidden: 16, blocks: 1, activation: Activation::Tanh };
/// let net = MaskedMlp::<f64>::new(config, 7)?;
/// assert_eq!((net.inputs(), net.outputs()), (3, 2 * 3));
/// // It starts as zero.
/// assert_eq!(net.kernel(1).forward(&[0.1, 0.2, 0.3], None, 1, &mut RowTape::idle())?[..], [0.0; 6]);
/// # Ok::<(), flow_api::FlowError>(())
/// ```
#[derive(Clone, Debug)]
pub struct MaskedMlp<E: Scalar> {
    net: ResidualMlp<E>,
    /// How many hidden units have a degree of at most 0, 1, …, d − 1.
    up_to: Vec<usize>,
}

impl<E: Scalar> MaskedMlp<E> {
    /// A network of these sizes with initial parameters drawn from `seed`, as those of a [`ResidualMlp`].
    ///
    /// # Errors
    /// As [`ResidualMlp::new`].
    pub fn new(config: MaskedMlpConfig, seed: u64) -> Result<Self> {
        let MaskedMlpConfig { features, condition, parameters, hidden, blocks, activation } = config;
        // Too many to be counted are refused as too many.
        let outputs = features.saturating_mul(parameters);
        let net = ResidualMlp::new(ResidualMlpConfig { inputs: features, condition, outputs, hidden, blocks, activation }, seed)?;
        let least = usize::from(condition == 0 && features > 1);
        let degrees = features - least;
        let mut up_to = vec![0; features];
        for unit in 0..hidden {
            up_to[least + ((unit + 1) * degrees - 1) / hidden] += 1;
        }
        let mut sum = 0;
        for units in &mut up_to {
            sum += *units;
            *units = sum;
        }
        Ok(Self { net, up_to })
    }

    /// Its sizes.
    pub fn config(&self) -> &ResidualMlpConfig {
        self.net.config()
    }

    /// How many hidden units see at most the first m features, for m = 0, 1, …, d − 1.
    pub fn units_up_to(&self) -> &[usize] {
        &self.up_to
    }

    /// Outputs of a feature, P.
    pub fn parameters(&self) -> usize {
        self.config().outputs / self.config().inputs
    }

    /// The kernel for one call with so many rows in all.
    pub fn kernel(&self, rows: usize) -> MaskedMlpKernel<'_, E> {
        MaskedMlpKernel::new(self, rows)
    }

    /// The layer at this place with its masked weights as zeros.
    fn masked<'a>(&self, place: usize, layer: &'a Linear<E>) -> Affine<'a, E> {
        let mut weight = layer.weight.values().to_vec();
        self.clear_masked(place, &mut weight);
        Affine::new(weight, layer.bias.values())
    }

    /// Sets what the masks of the layer at this place cover to zero.
    fn clear_masked(&self, place: usize, weight: &mut [E]) {
        let width = if place == 0 { self.config().inputs + self.config().condition } else { self.config().hidden };
        let covered = if place == 0 { self.config().inputs } else { width };
        for (row, seen) in weight.chunks_exact_mut(width).zip(self.seen(place)) {
            row[seen..covered].fill(E::zero());
        }
    }

    /// How many features, or units, each row of the layer at this place sees.
    fn seen(&self, place: usize) -> Vec<usize> {
        let degrees = self.up_to.iter().enumerate().scan(0, |before, (degree, &up_to)| {
            let units = up_to - std::mem::replace(before, up_to);
            Some((degree, units))
        });
        let last = 2 * self.config().blocks + 1;
        match place {
            0 => degrees.flat_map(|(degree, units)| std::iter::repeat_n(degree, units)).collect(),
            _ if place == last => self.up_to.iter().flat_map(|&up_to| std::iter::repeat_n(up_to, self.parameters())).collect(),
            _ => degrees.flat_map(|(degree, units)| std::iter::repeat_n(self.up_to[degree], units)).collect(),
        }
    }
}

impl<E: Scalar> Module<E> for MaskedMlp<E> {
    module_fields!(E; delegate net);
}

impl<E: Scalar> ConditionerNet<E> for MaskedMlp<E> {
    fn inputs(&self) -> usize {
        self.config().inputs
    }

    fn condition(&self) -> usize {
        self.config().condition
    }

    fn outputs(&self) -> usize {
        self.config().outputs
    }

    fn multiply_adds(&self) -> u64 {
        self.net.multiply_adds()
    }

    fn kernel<'a>(&'a self, rows: usize) -> Box<dyn ConditionerKernel<E> + 'a> {
        Box::new(self.kernel(rows))
    }

    fn device_form(&self) -> Option<NetForm<'_, E>> {
        Some(self.net.device_form_of(|place, layer| {
            let mut weight = layer.weight.values().to_vec();
            self.clear_masked(place, &mut weight);
            let mut seen = vec![E::one(); weight.len()];
            self.clear_masked(place, &mut seen);
            LinearForm {
                weight: Cow::Owned(weight),
                bias: layer.bias.values(),
                masked: seen.iter().map(|seen| *seen != E::one()).collect(),
            }
        }))
    }

    fn taped(&self) -> Option<&dyn TapedNet<E>> {
        Some(self)
    }
}

impl<E: Scalar> TapedNet<E> for MaskedMlp<E> {
    fn forward_taped(&self, input: Taped<(usize, usize), E>) -> Taped<(usize, usize), E> {
        let sizes: Vec<usize> = self.net.layers().map(|layer| layer.weight.values().len()).collect();
        self.net.forward_masked(input, |place| {
            let mut mask = vec![E::one(); sizes[place]];
            self.clear_masked(place, &mut mask);
            Some(mask)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flow_api::FlowError;
    use flow_api::module::{EntryMut, update};
    use flow_api::rows::RowTape;
    use flow_kernels::noise::Stream;

    fn noise(count: usize, name: &str) -> Vec<f64> {
        let mut values = vec![0.0; count];
        Stream::new(3, 0, name).row(0).gaussian(&mut values);
        values
    }

    fn shaken(features: usize, condition: usize, hidden: usize, blocks: usize) -> MaskedMlp<f64> {
        let config = MaskedMlpConfig { features, condition, parameters: 2, hidden, blocks, activation: Activation::Tanh };
        let mut net = MaskedMlp::new(config, 7).unwrap();
        update(&mut net, |path, entry| {
            if let EntryMut::Parameter { values, .. } = entry {
                values.iter_mut().zip(noise(1 << 12, path)).for_each(|(value, noise)| *value = 0.5 * noise);
            }
        })
        .unwrap();
        net
    }

    /// Output p changes with inputs before p, with each of them where there are units enough, and with the condition.
    #[test]
    fn outputs_see_earlier_inputs_and_the_condition() {
        for (features, condition, hidden, blocks, rows) in
            [(5, 0, 8, 1, 1), (5, 0, 16, 2, 1 << 20), (4, 2, 9, 2, 1), (1, 0, 3, 1, 1), (1, 2, 3, 1, 1), (7, 0, 3, 1, 1)]
        {
            let net = shaken(features, condition, hidden, blocks);
            let run = |input: &[f64]| {
                let (x, c) = input.split_at(features);
                net.kernel(rows).forward(x, Some(c), 1, &mut RowTape::idle()).unwrap().to_vec()
            };
            let input = noise(features + condition, "input");
            let before = run(&input);
            for changed in 0..features + condition {
                let mut other = input.clone();
                other[changed] += 1.0;
                let after = run(&other);
                for output in 0..features {
                    let moved = before[2 * output..][..2] != after[2 * output..][..2];
                    let expected = changed >= features || changed < output;
                    let enough = hidden >= features;
                    assert!(moved == expected || !enough && !moved, "{features} {condition} {hidden}: {changed} → {output}: {moved}");
                }
            }
            // However narrow the network is, the last feature sees all but itself.
            assert_eq!(net.units_up_to().last(), Some(&hidden));
        }
    }

    /// One feature after the other gives what all at once do.
    #[test]
    fn steps_are_the_network_feature_by_feature() {
        for (features, condition, hidden, blocks) in [(5, 0, 8, 1), (6, 3, 20, 2), (1, 0, 3, 1), (1, 2, 4, 2), (7, 0, 3, 3)] {
            let (net, lanes) = (shaken(features, condition, hidden, blocks), 5);
            let (x, c) = (noise(features * lanes, "x"), noise(condition * lanes, "c"));
            let kernel = net.kernel(1);
            let whole = kernel.forward(&x, Some(&c), lanes, &mut RowTape::idle()).unwrap();
            let mut steps = kernel.steps(Some(&c), lanes).unwrap();
            for (feature, x) in x.chunks_exact(lanes).enumerate() {
                let own = steps.parameters();
                for (at, (a, b)) in own.iter().zip(&whole[feature * 2 * lanes..]).enumerate() {
                    assert!((a - b).abs() < 1e-12, "{features} {condition} {hidden}: {feature}, {at}: {a} and {b}");
                }
                steps.push(x);
            }
        }
    }

    #[test]
    fn a_missing_condition_is_an_error() {
        let net = shaken(3, 2, 8, 1);
        let kernel = net.kernel(1);
        for condition in [None, Some(&[0.0; 3][..])] {
            assert!(matches!(kernel.steps(condition, 1).map(|_| ()), Err(FlowError::Condition { .. })));
            assert!(matches!(kernel.forward(&[0.0; 3], condition, 1, &mut RowTape::idle()), Err(FlowError::Condition { .. })));
        }
    }
}
