//! The network as a module: parameters by path, and their initial values.

use std::borrow::Cow;

use flow_api::spec::{MAX_SIZE, MAX_WEIGHTS, size_range};
use flow_api::{FlowError, Module, Parameter, Result, Scalar, module_fields};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::activation::Activation;
use super::kernel::{Layer, MlpKernel, Modulated};

/// The sizes of an [`Mlp`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MlpConfig {
    /// Width of x.
    pub input: usize,
    /// Outputs of every hidden layer's linear map. The next layer sees twice as many with [`Activation::CLipSwish`].
    pub hidden: Vec<usize>,
    /// Width of y.
    pub output: usize,
    /// φ.
    pub activation: Activation,
    /// Hidden layers are densely connected: each one's output is its input, followed by what it computed.
    pub concat: bool,
    /// The last layer starts as zero, so that the network starts as y = 0.
    pub zero_last: bool,
}

impl MlpConfig {
    /// Input, hidden and output widths; everything else as it usually is: `LipSwish`, no dense connections, no layer of
    /// zeros.
    pub fn new(input: usize, hidden: impl Into<Vec<usize>>, output: usize) -> Self {
        Self { input, hidden: hidden.into(), output, activation: Activation::default(), concat: false, zero_last: false }
    }
}

/// The parameters of one layer.
#[derive(Debug, Clone)]
pub struct MlpLayer<E: Scalar> {
    weight: Parameter<E>,
    bias: Parameter<E>,
    beta: Option<Parameter<E>>,
}

impl<E: Scalar> MlpLayer<E> {
    /// out × in.
    pub fn weight(&self) -> &Parameter<E> {
        &self.weight
    }

    /// out.
    pub fn bias(&self) -> &Parameter<E> {
        &self.bias
    }

    /// The raw β of a hidden layer whose activation has one, shape (1).
    pub fn beta(&self) -> Option<&Parameter<E>> {
        self.beta.as_ref()
    }

    /// Outputs and inputs of the linear map.
    pub fn shape(&self) -> (usize, usize) {
        let output = self.bias.values().len();
        (output, self.weight.values().len() / output)
    }
}

impl<E: Scalar> Module<E> for MlpLayer<E> {
    module_fields!(E; parameter weight, parameter bias, parameter beta);
}

/// A smooth multilayer perceptron with its parameters; [`MlpKernel`] computes.
///
/// # Parameters
/// `layers.{i}.weight` (out × in), `layers.{i}.bias` (out) and, on hidden layers whose activation has one,
/// `layers.{i}.beta` (1): visited in the order of the kernel's sums.
///
/// ```
/// use flow_api::module::parameter_count;
/// use flow_nets::smooth::{Mlp, MlpConfig, Modulation};
/// let mlp = Mlp::<f32>::new(&MlpConfig::new(2, [16, 16], 2), 7)?;
/// let kernel = mlp.kernel()?;
/// assert_eq!(kernel.sums_len(), parameter_count(&mlp));
/// let mut y = [0.0; 2];
/// kernel.forward(&[0.3, -0.2], 1, Modulation::default(), &mut y);
/// # Ok::<(), flow_api::FlowError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Mlp<E: Scalar> {
    input: usize,
    activation: Activation,
    layers: Vec<MlpLayer<E>>,
}

impl<E: Scalar> Mlp<E> {
    /// The network of these sizes, with weights and biases drawn from the seed, uniform in ±1/√(fan-in): what
    /// `torch.nn.Linear` does.
    ///
    /// # Errors
    /// [`FlowError::Setting`] for a width of 0, more than [`MAX_SIZE`] layers or hidden units, and more than
    /// [`MAX_WEIGHTS`] weights.
    pub fn new(config: &MlpConfig, seed: u64) -> Result<Self> {
        let widths = [("input", config.input), ("output", config.output)];
        let mut sizes = [("layers", config.hidden.len().max(1))].into_iter().chain(config.hidden.iter().map(|&width| ("hidden", width)));
        if let Some((field, got)) = sizes.find(|(_, size)| !(1..=MAX_SIZE).contains(size)) {
            return Err(FlowError::Setting { layer: "Mlp".to_owned(), field, expected: size_range(1), got: got.to_string() });
        }
        if let Some((field, got)) = widths.into_iter().find(|(_, width)| *width == 0) {
            return Err(FlowError::Setting { layer: "Mlp".to_owned(), field, expected: "at least 1".to_owned(), got: got.to_string() });
        }
        let mut width = config.input;
        let inputs = config.hidden.iter().map(|output| {
            let next = (output * config.activation.branches()).saturating_add(if config.concat { width } else { 0 });
            std::mem::replace(&mut width, next)
        });
        let mut inputs: Vec<usize> = inputs.collect();
        inputs.push(width);
        let shapes = || config.hidden.iter().chain([&config.output]).copied().zip(inputs.iter().copied());
        let weights = shapes().map(|(output, width)| output.saturating_mul(width)).fold(0, usize::saturating_add);
        if weights > MAX_WEIGHTS {
            let expected = format!("a network of at most {MAX_WEIGHTS} weights");
            return Err(FlowError::Setting { layer: "Mlp".to_owned(), field: "hidden", expected, got: weights.to_string() });
        }
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut layers = Vec::with_capacity(config.hidden.len() + 1);
        for (i, (output, width)) in shapes().enumerate() {
            let is_last = i == config.hidden.len();
            let (weight, bias) = if is_last && config.zero_last {
                (vec![E::zero(); output * width], vec![E::zero(); output])
            } else {
                uniform(output, width, &mut rng)
            };
            let beta = (!is_last && config.activation.has_beta()).then(|| Parameter::new(&[1], vec![E::of(Activation::INITIAL_BETA)]));
            layers.push(MlpLayer { weight: Parameter::new(&[output, width], weight), bias: Parameter::new(&[output], bias), beta });
        }
        Ok(Self { input: config.input, activation: config.activation, layers })
    }

    /// Width of x.
    pub fn input(&self) -> usize {
        self.input
    }

    /// φ.
    pub fn activation(&self) -> Activation {
        self.activation
    }

    /// The layers, first to last.
    pub fn layers(&self) -> &[MlpLayer<E>] {
        &self.layers
    }

    /// The kernel with the weights as they are, for a network without dense connections and modulation.
    ///
    /// # Errors
    /// Those of [`MlpKernel::new`], for a network with dense connections.
    pub fn kernel(&self) -> Result<MlpKernel<'_, E>> {
        self.kernel_with(self.layers.iter().map(|layer| layer.weight.values().into()), &[], Modulated::No)
    }

    /// The kernel with effective weights of the caller's, η₁ and η₂ of every hidden layer (none without dense
    /// connections), and a modulation.
    ///
    /// # Errors
    /// Those of [`MlpKernel::new`]; [`FlowError::Shape`] for another number of weights.
    pub fn kernel_with<'a>(
        &'a self,
        weights: impl IntoIterator<Item = Cow<'a, [E]>>,
        eta: &[[E; 2]],
        modulated: Modulated,
    ) -> Result<MlpKernel<'a, E>> {
        let weights: Vec<_> = weights.into_iter().collect();
        if weights.len() != self.layers.len() {
            return Err(flow_api::shape_error("Mlp", "kernel_with", self.layers.len(), weights.len()));
        }
        let last = self.layers.len() - 1;
        let prepare = |i: usize, layer: &'a MlpLayer<E>, weight: Cow<'a, [E]>| {
            let made = Layer::new(weight, layer.bias.values());
            if i == last {
                return made;
            }
            let beta = layer.beta.as_ref().and_then(|beta| beta.values().first().copied()).unwrap_or_else(E::zero);
            let made = made.activated(self.activation, beta);
            match eta.get(i) {
                Some(&eta) => made.concat(eta),
                None => made,
            }
        };
        let layers = self.layers.iter().zip(weights).enumerate().map(|(i, (layer, weight))| prepare(i, layer, weight)).collect();
        MlpKernel::new(self.input, layers, modulated)
    }
}

impl<E: Scalar> Module<E> for Mlp<E> {
    flow_api::module_fields!(E; child layers);
}

/// Weight and bias of a linear layer.
fn uniform<E: Scalar>(output: usize, input: usize, rng: &mut ChaCha8Rng) -> (Vec<E>, Vec<E>) {
    let bound = 1.0 / (input as f64).sqrt();
    let mut draw = |len| (0..len).map(|_| E::of(rng.gen_range(-bound..bound))).collect();
    (draw(output * input), draw(output))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smooth::Modulation;
    use flow_api::module::{Entry, EntryMut, update, visit};

    type Net = Mlp<f64>;

    fn net(config: &MlpConfig, seed: u64) -> Net {
        Mlp::new(config, seed).unwrap()
    }

    fn numbers(net: &Net) -> (Vec<String>, Vec<f64>) {
        let (mut names, mut numbers) = (Vec::new(), Vec::new());
        visit(net, |path, entry| {
            if let Entry::Parameter { values, .. } = entry {
                names.push(path.to_owned());
                numbers.extend_from_slice(values);
            }
        });
        (names, numbers)
    }

    #[test]
    fn gradients_come_in_the_order_of_the_parameters() {
        let mut mlp = net(&MlpConfig::new(2, [3, 2], 2), 5);
        let (x, c) = ([0.4, -0.7], [1.0, 0.3]);
        let s = |mlp: &Net| {
            let mut y = [0.0; 2];
            mlp.kernel().unwrap().forward(&x, 1, Modulation::default(), &mut y);
            y[0] * c[0] + y[1] * c[1]
        };
        let gradient = {
            let kernel = mlp.kernel().unwrap();
            let mut sums = vec![0.0; kernel.sums_len()];
            let trace = kernel.forward_traced(&x, 1, Modulation::default(), &mut [0.0; 2]);
            kernel.pullback(&trace, &c, &mut [0.0; 2], &mut [], &mut sums);
            sums
        };
        let (names, start) = numbers(&mlp);
        let layer = |i: usize| ["weight", "bias", "beta"].map(|name| format!("layers.{i}.{name}"));
        assert_eq!(names, [&layer(0)[..], &layer(1)[..], &layer(2)[..2]].concat());
        assert_eq!(gradient.len(), start.len());
        for (i, &expected) in gradient.iter().enumerate() {
            let mut moved = |h: f64| {
                let mut at = 0;
                let set = |_: &str, entry: EntryMut<'_, f64>| {
                    if let EntryMut::Parameter { values, .. } = entry {
                        values.copy_from_slice(&start[at..at + values.len()]);
                        if (at..at + values.len()).contains(&i) {
                            values[i - at] += h;
                        }
                        at += values.len();
                    }
                };
                update(&mut mlp, set).unwrap();
                s(&mlp)
            };
            let slope = (moved(1e-5) - moved(-1e-5)) / 2e-5;
            assert!((slope - expected).abs() < 1e-9, "number {i}: {expected} instead of {slope}");
        }
    }

    #[test]
    fn initial_values() {
        let config = MlpConfig::new(100, [200], 3);
        let mlp = net(&MlpConfig { zero_last: true, ..config.clone() }, 1);
        let [first, last] = mlp.layers() else { panic!("two layers") };
        for (values, tolerance) in [(first.weight().values(), 0.05), (first.bias().values(), 0.2)] {
            let mean_square = values.iter().map(|v| v * v).sum::<f64>() / values.len() as f64;
            assert!((300.0 * mean_square - 1.0).abs() < tolerance, "{mean_square}");
        }
        assert!(last.weight().values().iter().chain(last.bias().values()).all(|&v| v == 0.0));
        let bound = net(&config, 1).layers()[0].weight().values().iter().fold(0.0_f64, |a, b| a.max(b.abs()));
        assert!((0.0999..=0.1).contains(&bound));
        assert_eq!(numbers(&net(&config, 1)), numbers(&net(&config, 1)));
        assert_ne!(numbers(&net(&config, 1)), numbers(&net(&config, 2)));
    }

    #[test]
    fn dense_networks_want_their_etas_and_every_layer_a_weight() {
        let config = MlpConfig { concat: true, activation: Activation::CLipSwish, ..MlpConfig::new(3, [4, 2], 3) };
        let mlp = net(&config, 1);
        assert_eq!(mlp.layers().iter().map(MlpLayer::shape).collect::<Vec<_>>(), [(4, 3), (2, 11), (3, 15)]);
        let weights = || mlp.layers().iter().map(|l| l.weight().values().into());
        assert!(mlp.kernel_with(weights(), &[[0.6, 0.8]; 2], Modulated::No).is_ok());
        assert!(mlp.kernel().is_err());
        assert!(mlp.kernel_with(weights().take(2), &[[0.6, 0.8]; 2], Modulated::No).is_err());
        let huge = [MlpConfig::new(usize::MAX, [4], 3), MlpConfig::new(3, [MAX_SIZE; 2], 3), MlpConfig::new(3, [MAX_SIZE], usize::MAX)];
        for config in [MlpConfig::new(0, [4], 3), MlpConfig::new(3, [0], 3), MlpConfig::new(3, [4], 0)].into_iter().chain(huge) {
            assert!(Net::new(&config, 1).is_err(), "{config:?}");
        }
    }
}
