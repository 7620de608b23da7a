//! Small dense networks on whole batches: heads on latents, and networks in front of conditions.

use super::{MAX_WEIGHTS, size_range};
use crate::module::parameter_count;
use crate::{FlowError, Module, Parameter, Result, Scalar, module_fields, shape_error};
use flow_kernels::matmul::{Accumulate, Operand, matmul};
use flow_kernels::scalar::silu_with_derivative;
use flow_kernels::{simd, vectorized};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// How the last layer of an [`Mlp`] starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LastLayer {
    /// As zero, so that the network does: a classifier begins with equal probabilities.
    Zero,
    /// As the others do.
    Uniform,
}

/// A dense network: h ← φ(W h + b) for every hidden layer, V h + c for the last, φ(x) = x σ(x) ("`SiLU`", Hendrycks and
/// Gimpel, arXiv:1606.08415). Without hidden layers it is the linear map V x + c.
///
/// # Shapes
/// Batches are row-major, (rows, inputs) and (rows, outputs).
///
/// # Parameters
/// `layers.{k}.weight`, (outputs, inputs) row-major, and `layers.{k}.bias`.
///
/// # Initialisation
/// Weights and biases uniform in ±1/√inputs (`PyTorch`'s default); the last layer as [`LastLayer`] says. Values are a
/// function of the seed and the same in every number type.
///
/// ```
/// use flow_api::module::parameter_count;
/// use flow_api::spec::{LastLayer, Mlp};
/// let net = Mlp::<f64>::new(&[3, 8, 2], LastLayer::Zero, 7)?;
/// assert_eq!(parameter_count(&net), (3 + 1) * 8 + (8 + 1) * 2);
/// let pass = net.forward(vec![0.5; 4 * 3])?; // four rows
/// assert_eq!(pass.output(), [0.0; 4 * 2]);
/// let mut gradients = vec![0.0; parameter_count(&net)];
/// let for_input = net.pullback(&pass, vec![1.0; 4 * 2], &mut gradients)?;
/// assert_eq!(for_input.len(), 4 * 3);
/// assert_eq!(gradients[gradients.len() - 2..], [4.0, 4.0]); // of the last bias: one a row
/// # Ok::<(), flow_api::FlowError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Mlp<E: Scalar> {
    layers: Vec<Dense<E>>,
}

/// W x + b.
#[derive(Clone, Debug)]
struct Dense<E: Scalar> {
    weight: Parameter<E>,
    bias: Parameter<E>,
}

/// What a forward pass of an [`Mlp`] gives, and keeps for its pullback.
#[derive(Clone, Debug)]
pub struct MlpPass<E> {
    /// Of every layer, (rows, inputs).
    inputs: Vec<Vec<E>>,
    /// φ′ of every hidden layer, (rows, outputs).
    slopes: Vec<Vec<E>>,
    output: Vec<E>,
}

impl<E> MlpPass<E> {
    /// The network's output, (rows, outputs).
    pub fn output(&self) -> &[E] {
        &self.output
    }
}

vectorized! {
    /// x ← φ(x), and φ′(x).
    fn activate<E: Scalar>(x: &mut [E], slopes: &mut [E]) {
        for (x, slope) in x.iter_mut().zip(slopes) {
            (*x, *slope) = silu_with_derivative(*x);
        }
    }
}

vectorized! {
    fn multiply<E: Scalar>(x: &mut [E], by: &[E]) {
        for (x, by) in x.iter_mut().zip(by) {
            *x *= *by;
        }
    }
}

impl<E: Scalar> Dense<E> {
    fn outputs(&self) -> usize {
        self.bias.values().len()
    }

    fn weight(&self) -> Operand<'_, E> {
        Operand::new(self.weight.values(), self.weight.shape()[0], self.weight.shape()[1])
    }

    fn forward(&self, x: &[E], rows: usize) -> Vec<E> {
        let mut y = vec![E::zero(); rows * self.outputs()];
        matmul(&mut y, Accumulate::Replace, Operand::new(x, rows, self.weight().cols()), self.weight().transposed());
        y.chunks_exact_mut(self.outputs()).for_each(|y| simd::add(y, self.bias.values()));
        y
    }
}

impl<E: Scalar> Mlp<E> {
    /// A network with layers between these sizes, from the inputs over hidden layers to the outputs, with initial
    /// parameters drawn from `seed`.
    ///
    /// # Errors
    /// [`FlowError::Setting`] for fewer than two sizes, a size of zero, and more than [`MAX_WEIGHTS`] weights.
    pub fn new(sizes: &[usize], last: LastLayer, seed: u64) -> Result<Self> {
        let refuse = |field, expected: String, got: String| Err(FlowError::Setting { layer: "Mlp".to_owned(), field, expected, got });
        if sizes.len() < 2 {
            return refuse("sizes", "those of inputs and outputs at least".to_owned(), format!("{sizes:?}"));
        }
        if sizes.contains(&0) {
            return refuse("sizes", size_range(1), "0".to_owned());
        }
        let weights = Self::numbers(sizes);
        if weights > MAX_WEIGHTS {
            return refuse("sizes", format!("a network of at most {MAX_WEIGHTS} weights"), weights.to_string());
        }
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let count = sizes.len();
        let layers = sizes.windows(2).enumerate().map(|(k, sizes)| {
            let (inputs, outputs) = (sizes[0], sizes[1]);
            let is_zero = last == LastLayer::Zero && k + 2 == count;
            let bound = if is_zero { 0.0 } else { 1.0 / (inputs as f64).sqrt() };
            let mut uniform = |len: usize| (0..len).map(|_| E::of(rng.gen_range(-1.0..1.0) * bound)).collect();
            Dense {
                weight: Parameter::new(&[outputs, inputs], uniform(outputs * inputs)),
                bias: Parameter::new(&[outputs], uniform(outputs)),
            }
        });
        Ok(Self { layers: layers.collect() })
    }

    /// How many parameters a network of these sizes has.
    pub fn numbers(sizes: &[usize]) -> usize {
        let layer = |sizes: &[usize]| sizes[0].saturating_add(1).saturating_mul(sizes[1]);
        sizes.windows(2).map(layer).fold(0, usize::saturating_add)
    }

    /// Numbers in a row that goes in.
    pub fn inputs(&self) -> usize {
        self.layers.first().map_or(0, |layer| layer.weight().cols())
    }

    /// Numbers in a row that comes out.
    pub fn outputs(&self) -> usize {
        self.layers.last().map_or(0, Dense::outputs)
    }

    /// The outputs of rows, with what their pullback needs.
    ///
    /// # Errors
    /// [`FlowError::Shape`] for values that are not whole rows.
    pub fn forward(&self, x: Vec<E>) -> Result<MlpPass<E>> {
        let rows = x.len() / self.inputs();
        if rows == 0 || rows * self.inputs() != x.len() {
            return Err(shape_error("Mlp", "forward", ("rows", self.inputs()), x.len()));
        }
        let (mut inputs, mut slopes, mut x) = (Vec::new(), Vec::new(), x);
        for (k, layer) in self.layers.iter().enumerate() {
            let mut y = layer.forward(&x, rows);
            if k + 1 < self.layers.len() {
                let mut slope = vec![E::zero(); y.len()];
                activate(&mut y, &mut slope);
                slopes.push(slope);
            }
            inputs.push(std::mem::replace(&mut x, y));
        }
        Ok(MlpPass { inputs, slopes, output: x })
    }

    /// ∂L/∂x of a pass from ∂L/∂output; the parameters' gradients are added to `gradients`, which are those below this
    /// network's path ([`Gradients::slice_mut`](crate::Gradients::slice_mut)).
    ///
    /// # Errors
    /// [`FlowError::Shape`] for a cotangent or gradients of another size.
    pub fn pullback(&self, pass: &MlpPass<E>, cotangent: Vec<E>, gradients: &mut [E]) -> Result<Vec<E>> {
        let sizes = (pass.output.len(), parameter_count(self));
        if sizes != (cotangent.len(), gradients.len()) {
            return Err(shape_error("Mlp", "pullback", sizes, (cotangent.len(), gradients.len())));
        }
        let (mut cotangent, mut rest) = (cotangent, gradients);
        for (k, layer) in self.layers.iter().enumerate().rev() {
            let (x, weight) = (&pass.inputs[k], layer.weight());
            let rows = x.len() / weight.cols();
            if let Some(slopes) = pass.slopes.get(k) {
                multiply(&mut cotangent, slopes);
            }
            let (before, own) = rest.split_at_mut(rest.len() - layer.weight.values().len() - layer.outputs());
            let (for_weight, for_bias) = own.split_at_mut(layer.weight.values().len());
            let by_row = Operand::new(&cotangent, rows, layer.outputs());
            matmul(for_weight, Accumulate::Add, by_row.transposed(), Operand::new(x, rows, weight.cols()));
            cotangent.chunks_exact(layer.outputs()).for_each(|row| simd::add(for_bias, row));
            let mut for_input = vec![E::zero(); x.len()];
            matmul(&mut for_input, Accumulate::Replace, by_row, weight);
            (cotangent, rest) = (for_input, before);
        }
        Ok(cotangent)
    }
}

impl<E: Scalar> Module<E> for Dense<E> {
    module_fields!(E; parameter weight, parameter bias);
}

impl<E: Scalar> Module<E> for Mlp<E> {
    module_fields!(E; child layers);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Gradients;
    use crate::module::{EntryMut, update};

    /// Gradients of parameters and inputs against central differences of L = Σ output · cotangent.
    #[test]
    fn gradients_equal_differences() {
        for sizes in [&[3, 2][..], &[3, 5, 2], &[3, 4, 6, 1]] {
            let net = Mlp::<f64>::new(sizes, LastLayer::Uniform, 3).unwrap();
            let rows = 4;
            let wave = |len: usize| (0..len).map(|i| (1.7 * i as f64 + 0.3).sin()).collect::<Vec<f64>>();
            let (x, cotangent) = (wave(rows * net.inputs()), wave(rows * net.outputs()));
            let loss = |net: &Mlp<f64>, x: &[f64]| {
                let pass = net.forward(x.to_vec()).unwrap();
                pass.output().iter().zip(&cotangent).map(|(y, c)| y * c).sum::<f64>()
            };
            let mut gradients = Gradients::zeros(&net);
            let pass = net.forward(x.clone()).unwrap();
            let for_input = net.pullback(&pass, cotangent.clone(), gradients.slice_mut("")).unwrap();
            let step = 1e-5;
            let moved = |number: usize, by: f64| {
                let (mut net, mut seen) = (net.clone(), 0);
                update(&mut net, |_, entry| {
                    if let EntryMut::Parameter { values, .. } = entry {
                        if let Some(value) = number.checked_sub(seen).and_then(|at| values.get_mut(at)) {
                            *value += by;
                        }
                        seen += values.len();
                    }
                })
                .unwrap();
                loss(&net, &x)
            };
            for (number, gradient) in gradients.values().iter().enumerate() {
                let found = (moved(number, step) - moved(number, -step)) / (2.0 * step);
                assert!((found - gradient).abs() < 1e-8, "{sizes:?}, parameter {number}: {found} and {gradient}");
            }
            for (at, gradient) in for_input.iter().enumerate() {
                let moved = |by: f64| {
                    let mut x = x.clone();
                    x[at] += by;
                    loss(&net, &x)
                };
                let found = (moved(step) - moved(-step)) / (2.0 * step);
                assert!((found - gradient).abs() < 1e-8, "{sizes:?}, input {at}: {found} and {gradient}");
            }
        }
    }

    #[test]
    fn sizes_that_make_no_network_are_refused() {
        let error = |sizes: &[usize]| Mlp::<f32>::new(sizes, LastLayer::Zero, 0).unwrap_err().to_string();
        assert_eq!(error(&[3]), "Mlp: sizes: expected those of inputs and outputs at least, got [3]");
        assert_eq!(error(&[3, 0]), "Mlp: sizes: expected 1 to 16384, got 0");
        assert_eq!(error(&[1 << 26, 1 << 26]), "Mlp: sizes: expected a network of at most 268435456 weights, got 4503599694479360");
        let net = Mlp::<f32>::new(&[3, 2], LastLayer::Zero, 0).unwrap();
        assert!(net.forward(vec![0.0; 4]).is_err() && net.forward(Vec::new()).is_err());
        let pass = net.forward(vec![0.0; 3]).unwrap();
        assert!(net.pullback(&pass, vec![0.0; 3], &mut [0.0; 8]).is_err() && net.pullback(&pass, vec![0.0; 2], &mut [0.0; 7]).is_err());
    }
}
