//! The network as its kernels see it: effective weights, sizes, places in the buffers.

use std::borrow::Cow;
use std::fmt::Display;
use std::ops::Range;

use flow_api::{FlowError, Result};
use flow_kernels::Real;
use num_traits::Float;

use super::activation::{Activation, Prepared};

/// One layer: z = W h + b, and what follows it.
#[derive(Debug, Clone)]
pub struct Layer<'a, E: Real> {
    weight: Cow<'a, [E]>,
    bias: Cow<'a, [E]>,
    activation: Option<(Activation, E)>,
    concat: Option<[E; 2]>,
}

impl<'a, E: Real> Layer<'a, E> {
    /// The linear layer with this weight (out × in, row-major) and bias (out), borrowed or owned.
    pub fn new(weight: impl Into<Cow<'a, [E]>>, bias: impl Into<Cow<'a, [E]>>) -> Self {
        Self { weight: weight.into(), bias: bias.into(), activation: None, concat: None }
    }

    /// With φ behind it. `beta` is the raw β (before the softplus); activations without one ignore it.
    #[must_use]
    pub fn activated(mut self, activation: Activation, beta: E) -> Self {
        self.activation = Some((activation, beta));
        self
    }

    /// Densely connected: `[η₁ h ; η₂ φ(W h + b)]` instead of φ(W h + b), with η₂ ≠ 0.
    #[must_use]
    pub fn concat(mut self, eta: [E; 2]) -> Self {
        self.concat = Some(eta);
        self
    }
}

/// Which modulations a network takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Modulated {
    /// None: z = W h + b.
    #[default]
    No,
    /// z = W h + b + t.
    Shift,
    /// z = s ⊙ (W h + b) + t.
    ScaleShift,
}

/// The modulation of one block: for all layers one behind the other, a scale s and a shift t per output of the layer's
/// linear map; and of the first layer an offset o of every row, z = s ⊙ (W h + o + b) + t.
///
/// Scale and shift are of length [`MlpKernel::modulation_len`], or empty where the network takes none.
#[derive(Debug, Clone, Copy)]
pub struct Modulation<'a, E> {
    /// s.
    pub scale: &'a [E],
    /// t.
    pub shift: &'a [E],
    /// o: the first layer's outputs × lanes, such as a condition gives it
    /// ([`ConditionInput`](crate::smooth::ConditionInput)); or empty.
    pub offset: &'a [E],
}

impl<E> Default for Modulation<'_, E> {
    fn default() -> Self {
        Self { scale: &[], shift: &[], offset: &[] }
    }
}

/// Where the sums of one layer lie, see [`MlpKernel`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerSums {
    /// W̄: out × in, row-major.
    pub weight: Range<usize>,
    /// b̄.
    pub bias: Range<usize>,
    /// β̄ (with respect to the raw β), if the activation has one.
    pub beta: Option<usize>,
    /// η̄₁, η̄₂ of a densely connected layer.
    pub concat: Option<Range<usize>>,
}

/// A layer made ready, with its places.
#[derive(Debug)]
pub(super) struct Stage<'a, E: Real> {
    pub(super) weight: Cow<'a, [E]>,
    pub(super) bias: Cow<'a, [E]>,
    /// Width of h.
    pub(super) input: usize,
    /// Width of z.
    pub(super) output: usize,
    /// None in the last layer.
    pub(super) hidden: Option<HiddenStage<E>>,
    /// Place of this layer's scale and shift in a modulation.
    pub(super) modulation: usize,
    pub(super) sums: LayerSums,
    /// Place of h in a trace, in blocks' rows.
    pub(super) trace: usize,
    /// Place of ḣ in a tangent trace; of the first layer, of ż.
    pub(super) tangent_trace: usize,
}

/// What follows the pre-activation.
#[derive(Debug, Clone, Copy)]
pub(super) struct HiddenStage<E> {
    pub(super) phi: Prepared<E>,
    pub(super) concat: Option<[E; 2]>,
    /// Rows of φ(z): the outputs times the activation's branches.
    pub(super) activated: usize,
    /// Rows of η₁ h in front of them.
    pub(super) passed: usize,
}

impl<E: Real> HiddenStage<E> {
    /// η₂.
    pub(super) fn gain(&self) -> E {
        self.concat.map_or_else(E::one, |[_, eta]| eta)
    }
}

/// An MLP with its effective weights, ready to compute on blocks; see [the module](crate::smooth) for formulas and
/// layouts.
///
/// # Sums
/// The pullbacks *add* gradients, summed over rows, to one flat buffer of length [`sums_len`](Self::sums_len): for
/// every layer W̄ (out × in), b̄ (out), `[β̄]`, `[η̄₁, η̄₂]`; behind all layers, the gradients of the modulation:
/// `[s̄]` of all layers, then `[t̄]` of all layers. What is in brackets is there only if the network has it.
/// [`layer_sums`](Self::layer_sums) and [`scale_sums`](Self::scale_sums) name the places.
///
/// The modulation's gradients belong to one call. A family whose modulation depends on a time multiplies them on into
/// its own parameters and clears them.
///
/// # Lengths
/// Slices must have the lengths that their documentation gives: they are the caller's own buffers, and a shorter one
/// panics.
///
/// ```
/// use flow_nets::smooth::{Activation, Layer, MlpKernel, Modulated, Modulation};
/// // y = w₂ tanh(w₁ x) on two rows.
/// let layers = vec![Layer::new(vec![2.0], vec![0.0]).activated(Activation::Tanh, 0.0), Layer::new(vec![3.0], vec![0.0])];
/// let mlp = MlpKernel::<f64>::new(1, layers, Modulated::No)?;
/// let (x, mut y, mut slope) = ([0.0, 0.5], [0.0; 2], [0.0; 2]);
/// let trace = mlp.forward_traced(&x, 2, Modulation::default(), &mut y);
/// mlp.vjp(&trace, &[1.0, 1.0], &mut slope);
/// assert!((y[1] - 3.0 * 1.0_f64.tanh()).abs() < 1e-14);
/// assert!((slope[0] - 6.0).abs() < 1e-14);
/// # Ok::<(), flow_api::FlowError>(())
/// ```
#[derive(Debug)]
pub struct MlpKernel<'a, E: Real> {
    pub(super) stages: Vec<Stage<'a, E>>,
    pub(super) input: usize,
    pub(super) output: usize,
    pub(super) modulated: Modulated,
    modulation_len: usize,
    layer_sums_len: usize,
    /// Rows of a trace, and of a tangent trace.
    pub(super) trace_rows: usize,
    pub(super) tangent_trace_rows: usize,
}

impl<'a, E: Real> MlpKernel<'a, E> {
    /// The network of these layers on R^`input`: every layer but the last has an activation.
    ///
    /// # Errors
    /// [`FlowError::Setting`] for a network without layers, a hidden layer without activation, a last one with, η₂ = 0;
    /// [`FlowError::Shape`] for a weight that is not out × in.
    pub fn new(input: usize, layers: Vec<Layer<'a, E>>, modulated: Modulated) -> Result<Self> {
        let count = layers.len();
        if count == 0 {
            return Err(setting("layers", "at least 1", 0));
        }
        let (mut width, mut sums, mut modulation, mut trace, mut tangent_trace) = (input, 0, 0, 0, 0);
        let mut stages = Vec::with_capacity(count);
        for (i, layer) in layers.into_iter().enumerate() {
            let output = layer.bias.len();
            if output == 0 || width == 0 || layer.weight.len() != output * width {
                return Err(flow_api::shape_error("Mlp", "new", (i, "weight", output, width), layer.weight.len()));
            }
            if let Some([_, eta]) = layer.concat
                && !Float::is_normal(eta)
            {
                return Err(setting("concat", "a finite η₂ other than 0", eta));
            }
            let is_last = i + 1 == count;
            let hidden = match layer.activation {
                Some((kind, beta)) if !is_last => {
                    let passed = if layer.concat.is_some() { width } else { 0 };
                    let activated = output * kind.branches();
                    Some(HiddenStage { phi: Prepared::new(kind, beta), concat: layer.concat, activated, passed })
                }
                None if is_last && layer.concat.is_none() => None,
                _ => return Err(setting("activation", "one on every layer but the last", i)),
            };
            let mut take = |len: usize| {
                sums += len;
                sums - len..sums
            };
            let weight = take(output * width);
            let bias = take(output);
            let beta = hidden.filter(|h| h.phi.kind.has_beta()).map(|_| take(1).start);
            let concat = layer.concat.map(|_| take(2));
            stages.push(Stage {
                weight: layer.weight,
                bias: layer.bias,
                input: width,
                output,
                hidden,
                modulation,
                sums: LayerSums { weight, bias, beta, concat },
                trace,
                tangent_trace,
            });
            modulation += output;
            // The tangents of the input are not the trace's own.
            let traced_input = if i == 0 { 0 } else { width };
            if let Some(hidden) = hidden {
                trace += width + output + hidden.activated;
                tangent_trace += traced_input + output;
                width = hidden.passed + hidden.activated;
            } else {
                trace += width;
                tangent_trace += traced_input;
                width = output;
            }
        }
        Ok(Self {
            stages,
            input,
            output: width,
            modulated,
            modulation_len: modulation,
            layer_sums_len: sums,
            trace_rows: trace,
            tangent_trace_rows: tangent_trace,
        })
    }

    /// Width of x.
    pub fn input(&self) -> usize {
        self.input
    }

    /// Width of y.
    pub fn output(&self) -> usize {
        self.output
    }

    /// Number of layers.
    pub fn layers(&self) -> usize {
        self.stages.len()
    }

    /// Multiply-adds of the matrix products of one row forward.
    pub fn multiply_adds(&self) -> u64 {
        self.stages.iter().map(|s| (s.input * s.output) as u64).sum()
    }

    /// Length of a scale or a shift: the outputs of all layers.
    pub fn modulation_len(&self) -> usize {
        self.modulation_len
    }

    /// Length of the sums.
    pub fn sums_len(&self) -> usize {
        self.shift_sums().end
    }

    /// Places of one layer's sums.
    pub fn layer_sums(&self, layer: usize) -> &LayerSums {
        &self.stages[layer].sums
    }

    /// Place of s̄ of all layers: empty unless the network takes a scale.
    pub fn scale_sums(&self) -> Range<usize> {
        let len = if self.modulated == Modulated::ScaleShift { self.modulation_len } else { 0 };
        self.layer_sums_len..self.layer_sums_len + len
    }

    /// Place of t̄ of all layers: empty unless the network takes a shift.
    pub fn shift_sums(&self) -> Range<usize> {
        let start = self.scale_sums().end;
        let len = if self.modulated == Modulated::No { 0 } else { self.modulation_len };
        start..start + len
    }
}

fn setting(field: &'static str, expected: &str, got: impl Display) -> FlowError {
    FlowError::Setting { layer: "Mlp".to_owned(), field, expected: expected.to_owned(), got: got.to_string() }
}
