//! Kolmogorov–Arnold networks that condition couplings of rows.

mod basis;
mod kernel;

use crate::{ConditionerKernel, ConditionerNet};
use basis::Basis;
use flow_api::module::{Visitor, VisitorMut};
use flow_api::spec::{MAX_SIZE, MAX_WEIGHTS, size_range};
use flow_api::{FlowError, Module, Parameter, Result, Scalar, module_fields};
use kernel::KanKernel;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Sizes of a [`Kan`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KanConfig {
    /// Numbers that go in.
    pub inputs: usize,
    /// Width of the condition, 0 without one: it is appended to the input.
    pub condition: usize,
    /// Numbers that come out.
    pub outputs: usize,
    /// Width of the hidden layers.
    pub hidden: usize,
    /// Hidden layers.
    pub layers: usize,
    /// Intervals of the grid, G.
    pub grid: usize,
    /// Order of the B-splines, k.
    pub order: usize,
    /// Half the width of the grid, R.
    pub range: f64,
}

/// A Kolmogorov–Arnold network: every edge of its layers is a learned function of one number, and a unit adds up those
/// that lead to it,
///
/// φ(x) = b silu(x) + s Σᵢ cᵢ Bᵢ(x),
///
/// with the G + k B-splines Bᵢ of order k on a uniform grid of G intervals over [−R, R]. The grid is fixed: k intervals
/// beyond it the splines are zero, and an edge is b silu(x).
///
/// Source: Liu et al., "KAN: Kolmogorov–Arnold networks", section 2.2 (arXiv:2404.19756).
///
/// # Parameters
/// Of layer i, `{i}.base` b and `{i}.scale` s (outputs × inputs), `{i}.coefficients` c (outputs × inputs × splines),
/// row-major.
///
/// # Initialisation
/// b uniform in ±1/√inputs, c in ±0.1/√inputs, s one; in the last layer b and c zero: the network starts as zero, so
/// that a coupling starts as the identity. Values are a function of the seed and the same in every number type.
///
/// ```
/// use flow_api::module::parameter_count;
/// use flow_api::rows::RowTape;
/// use flow_nets::{ConditionerNet, Kan, KanConfig};
/// let config = KanConfig { inputs: 2, condition: 0, outputs: 3, hidden: 4, layers: 1, grid: 5, order: 3, range: 2.0 };
/// let net = Kan::<f32>::new(config, 7)?;
/// assert_eq!(parameter_count(&net), (2 * 4 + 4 * 3) * (1 + 1 + 5 + 3));
/// assert_eq!(net.kernel(1).forward(&[0.5, -0.5], None, 1, &mut RowTape::idle())?[..], [0.0; 3]);
/// # Ok::<(), flow_api::FlowError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Kan<E: Scalar> {
    config: KanConfig,
    layers: Vec<KanLayer<E>>,
}

#[derive(Clone, Debug)]
struct KanLayer<E: Scalar> {
    base: Parameter<E>,
    scale: Parameter<E>,
    coefficients: Parameter<E>,
}

/// Most intervals of a grid.
const MAX_GRID: usize = 999;

/// Highest order of splines.
const MAX_ORDER: usize = 9;

impl KanConfig {
    /// Outputs and inputs of all layers.
    fn sizes(&self) -> impl Iterator<Item = [usize; 2]> + use<> {
        let Self { inputs, condition, outputs, hidden, layers, .. } = *self;
        let width = move |at: usize| match at {
            0 => inputs.saturating_add(condition),
            _ if at > layers => outputs,
            _ => hidden,
        };
        (0..=layers).map(move |layer| [width(layer + 1), width(layer)])
    }

    fn check(&self) -> Result<()> {
        let wrong = |field, expected: String, got: String| Err(FlowError::Setting { layer: "Kan".to_owned(), field, expected, got });
        let sizes = [
            ("hidden", self.hidden, MAX_SIZE),
            ("layers", self.layers, MAX_SIZE),
            ("grid", self.grid, MAX_GRID),
            ("order", self.order, MAX_ORDER),
        ];
        for (field, value, most) in sizes {
            if value == 0 || value > most {
                return wrong(field, if most == MAX_SIZE { size_range(1) } else { format!("1 to {most}") }, value.to_string());
            }
        }
        for (field, value) in [("inputs", self.inputs), ("outputs", self.outputs)] {
            if value == 0 {
                return wrong(field, "at least 1".to_owned(), "0".to_owned());
            }
        }
        if !(1e-3..=1e3).contains(&self.range) {
            return wrong("range", "a number from 0.001 to 1000".to_owned(), self.range.to_string());
        }
        let weights = self.all_weights();
        if weights > MAX_WEIGHTS {
            return wrong("hidden", format!("a network of at most {MAX_WEIGHTS} weights"), weights.to_string());
        }
        Ok(())
    }

    fn all_weights(&self) -> usize {
        let edges = self.sizes().fold(0, |sum: usize, [outputs, inputs]| sum.saturating_add(outputs.saturating_mul(inputs)));
        edges.saturating_mul(2 + self.grid + self.order)
    }

    /// Weights of the network. None where it is refused for itself.
    pub fn weights(&self) -> usize {
        if self.check().is_ok() { self.all_weights() } else { 0 }
    }
}

impl<E: Scalar> Kan<E> {
    /// A network of these sizes with initial parameters drawn from `seed`.
    ///
    /// # Errors
    /// [`FlowError::Setting`] for a size of zero (a condition of width zero is none), for more than [`MAX_SIZE`] units
    /// or layers, 999 intervals, an order above 9, a range that is no number from 0.001 to 1000, and for more than
    /// [`MAX_WEIGHTS`] weights.
    pub fn new(config: KanConfig, seed: u64) -> Result<Self> {
        config.check()?;
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let splines = config.grid + config.order;
        let layer = |(at, [outputs, inputs]): (usize, [usize; 2])| {
            let bound = if at == config.layers { 0.0 } else { 1.0 / (inputs as f64).sqrt() };
            let mut uniform = |shape: &[usize], bound: f64| {
                let values = (0..shape.iter().product()).map(|_| E::of(rng.gen_range(-1.0..1.0) * bound)).collect();
                Parameter::new(shape, values)
            };
            let base = uniform(&[outputs, inputs], bound);
            let coefficients = uniform(&[outputs, inputs, splines], 0.1 * bound);
            KanLayer { base, scale: Parameter::new(&[outputs, inputs], vec![E::one(); outputs * inputs]), coefficients }
        };
        Ok(Self { config, layers: config.sizes().enumerate().map(layer).collect() })
    }

    /// Its sizes.
    pub fn config(&self) -> &KanConfig {
        &self.config
    }

    fn basis(&self) -> Basis<E> {
        Basis { grid: self.config.grid, order: self.config.order, range: E::of(self.config.range) }
    }
}

impl<E: Scalar> ConditionerNet<E> for Kan<E> {
    fn inputs(&self) -> usize {
        self.config.inputs
    }

    fn condition(&self) -> usize {
        self.config.condition
    }

    fn outputs(&self) -> usize {
        self.config.outputs
    }

    fn multiply_adds(&self) -> u64 {
        let edges: usize = self.config.sizes().map(|[outputs, inputs]| outputs * inputs).sum();
        (edges * self.basis().functions()) as u64
    }

    fn kernel<'a>(&'a self, _: usize) -> Box<dyn ConditionerKernel<E> + 'a> {
        Box::new(KanKernel::new(self))
    }
}

impl<E: Scalar> Module<E> for KanLayer<E> {
    module_fields!(E; parameter base, parameter scale, parameter coefficients);
}

impl<E: Scalar> Module<E> for Kan<E> {
    fn visit<'m>(&'m self, visitor: &mut Visitor<'_, 'm, E>) {
        self.layers.visit(visitor);
    }
    fn visit_mut<'m>(&'m mut self, visitor: &mut VisitorMut<'_, 'm, E>) {
        self.layers.visit_mut(visitor);
    }
}
