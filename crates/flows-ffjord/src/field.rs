//! The vector field f(z, t): the smooth MLP with the time in it.

use crate::activation::Activation;
use crate::moment::Moment;
use crate::shallow::ShallowField;
use flow_api::rows::HostCondition;
use flow_api::{Context, FlowError, Module, Parameter, Result, Scalar, module_fields};
use flow_kernels::Real;
use flow_kernels::scalar::sigmoid;
use flow_kernels::simd::dot;
use flow_kernels::workspace::Buffer;
use flow_nets::smooth::{ConditionInput, Mlp, MlpConfig, MlpKernel, Modulated, Trace};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// How the time t enters every layer of the field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum TimeInput {
    /// Not at all: z ↦ W z + b.
    Autonomous,
    /// As one more input: W z + b + w t.
    Concat,
    /// As a gate and a shift: (W z + b) ⊙ σ(g t + c) + w t. The default, as in the tabular models of Grathwohl et al.
    /// 2019 (arXiv:1810.01367).
    #[default]
    ConcatSquash,
}

/// The sizes of a [`Field`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FieldConfig {
    pub(crate) dim: usize,
    pub(crate) hidden: usize,
    pub(crate) layers: usize,
    pub(crate) activation: Activation,
    pub(crate) time: TimeInput,
    pub(crate) zero_init: bool,
    /// Width of the condition, 0 without one.
    pub(crate) condition: usize,
}

/// The vector field f: R^d × R → R^d of a continuous flow, with its parameters.
///
/// Layer i computes zᵢ = sᵢ(t) ⊙ (Wᵢ hᵢ + bᵢ) + tᵢ(t), followed by the activation on all layers but the last; s and t
/// by [`TimeInput`]. A condition c is a further input of the first layer, W₀ z + C c + b₀ ([`ConditionInput`]): it
/// stays the same along a path, and the trace is that of ∂f/∂z.
///
/// # Parameters
/// `net.layers.{i}.weight` (out × in) and `net.layers.{i}.bias` (out); and, with one number for every output of every
/// layer, first layer first: `time_shift` (w; `Concat` and `ConcatSquash`), `time_gate` and `time_gate_bias` (g and c;
/// `ConcatSquash`); and `condition.weight` (C).
#[derive(Debug, Clone)]
pub struct Field<E: Scalar> {
    net: Mlp<E>,
    activation: Activation,
    time: TimeInput,
    shift: Option<Parameter<E>>,
    gate: Option<Parameter<E>>,
    gate_bias: Option<Parameter<E>>,
    condition: ConditionInput<E>,
}

impl<E: Scalar> Field<E> {
    pub(crate) fn new(config: &FieldConfig, seed: u64) -> Result<Self> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let &FieldConfig { dim, hidden, layers, activation, time, zero_init, condition } = config;
        let sizes = MlpConfig { activation: activation.into(), zero_last: zero_init, ..MlpConfig::new(dim, vec![hidden; layers], dim) };
        let net = Mlp::new(&sizes, rng.r#gen())?;
        // As linear layers of torch start: uniform in ±1/√(fan-in), where the time is one of d + 1 inputs, or the only
        // one.
        let mut draw = |squash: bool, zero_last: bool| {
            let layers = net.layers().len();
            let mut values = Vec::new();
            for (i, layer) in net.layers().iter().enumerate() {
                let (output, input) = layer.shape();
                let bound = if squash { 1.0 } else { 1.0 / ((input + 1) as f64).sqrt() };
                let bound = if zero_last && i + 1 == layers { 0.0 } else { bound };
                values.extend((0..output).map(|_| E::of(bound * rng.gen_range(-1.0..1.0))));
            }
            Some(Parameter::new(&[values.len()], values))
        };
        let (shift, gate, gate_bias) = match time {
            TimeInput::Autonomous => (None, None, None),
            TimeInput::Concat => (draw(false, zero_init), None, None),
            TimeInput::ConcatSquash => (draw(true, zero_init), draw(true, false), draw(true, false)),
        };
        let condition = ConditionInput::new(hidden, condition, seed)?;
        Ok(Self { net, activation, time, shift, gate, gate_bias, condition })
    }

    /// The network without the time.
    pub fn net(&self) -> &Mlp<E> {
        &self.net
    }

    /// How the time enters.
    pub fn time(&self) -> TimeInput {
        self.time
    }

    /// How the condition enters.
    pub fn condition(&self) -> &ConditionInput<E> {
        &self.condition
    }

    /// f(z, t) of rows, at the context's conditions: `rows` is row-major, as many rows of d numbers as wanted.
    ///
    /// # Errors
    /// [`FlowError::Shape`] for numbers that are not whole rows, [`FlowError::Condition`] for a condition that does not
    /// fit.
    pub fn evaluate(&self, rows: &[E], t: f64, cx: &Context<E>) -> Result<Vec<E>> {
        let dim = self.net.input();
        if !rows.len().is_multiple_of(dim) {
            return Err(flow_api::shape_error("Ffjord", "evaluate", ("rows", dim), rows.len()));
        }
        let lanes = rows.len() / dim;
        let block: Vec<E> = (0..rows.len()).map(|i| rows[i % lanes * dim + i / lanes]).collect();
        let mut out = vec![E::zero(); rows.len()];
        let offset = self.offset(self.conditions(lanes, cx)?.as_ref(), 0, lanes)?;
        self.kernel()?.value(t, &block, &offset, lanes, &mut out);
        Ok((0..rows.len()).map(|i| out[i % dim * lanes + i / dim]).collect())
    }

    /// The context's conditions of so many rows, if the field takes some.
    pub(crate) fn conditions(&self, rows: usize, cx: &Context<E>) -> Result<Option<HostCondition<E>>> {
        HostCondition::of(cx, Some(self.condition.width()).filter(|width| *width > 0), rows).map_err(|e| e.in_layer("Ffjord"))
    }

    /// The first layer's offset of the rows `first..first + lanes`.
    pub(crate) fn offset(&self, conditions: Option<&HostCondition<E>>, first: usize, lanes: usize) -> Result<Buffer<E>> {
        let block = conditions.map(|conditions| conditions.block(first, lanes));
        self.condition.offset(block.as_deref(), lanes)
    }

    pub(crate) fn kernel(&self) -> Result<FieldKernel<'_, E>> {
        let weights = self.net.layers().iter().map(|layer| layer.weight().values().into());
        let modulated = match self.time {
            TimeInput::Autonomous => Modulated::No,
            TimeInput::Concat => Modulated::Shift,
            TimeInput::ConcatSquash => Modulated::ScaleShift,
        };
        let mlp = self.net.kernel_with(weights, &[], modulated)?;
        let [shift, gate, gate_bias] = [&self.shift, &self.gate, &self.gate_bias].map(|p| p.as_ref().map_or(&[][..], Parameter::values));
        if let Some(got) = [shift, gate, gate_bias].into_iter().map(<[E]>::len).find(|&len| len != 0 && len != mlp.modulation_len()) {
            return Err(flow_api::shape_error("Ffjord", "time", mlp.modulation_len(), got));
        }
        let parameters = mlp.layer_sums(mlp.layers() - 1).bias.end + shift.len() + gate.len() + gate_bias.len();
        let shallow = ShallowField::new(self.activation, self.net.layers().iter().map(|l| (l.weight().values(), l.bias().values())));
        Ok(FieldKernel { mlp, shallow, shift, gate, gate_bias, parameters })
    }
}

impl<E: Scalar> Module<E> for Field<E> {
    module_fields!(E;
        child net, parameter shift as "time_shift", parameter gate as "time_gate", parameter gate_bias as "time_gate_bias",
        child condition
    );
}

/// A field made ready for one call.
#[derive(Debug)]
pub(crate) struct FieldKernel<'a, E: Real> {
    pub(crate) mlp: MlpKernel<'a, E>,
    shallow: Option<ShallowField<'a, E>>,
    shift: &'a [E],
    gate: &'a [E],
    gate_bias: &'a [E],
    /// Numbers in all parameters but the condition's.
    pub(crate) parameters: usize,
}

/// One evaluation of the field on a block, from which its Jacobian products and gradients can be had.
#[derive(Debug)]
pub(crate) struct Evaluation<E: Real> {
    pub(crate) trace: Trace<E>,
    moment: Moment<E>,
}

/// `offset` is the block's offset of the first layer, C c; empty without a condition.
impl<E: Real> FieldKernel<'_, E> {
    pub(crate) fn dim(&self) -> usize {
        self.mlp.input()
    }

    fn moment(&self, t: f64) -> Moment<E> {
        let time = E::of(t);
        let (mut scale, mut shift) = (Buffer::take(self.gate.len()), Buffer::take(self.shift.len()));
        for ((s, &g), &c) in scale.iter_mut().zip(self.gate).zip(self.gate_bias) {
            *s = sigmoid(g * time + c);
        }
        for (s, &w) in shift.iter_mut().zip(self.shift) {
            *s = w * time;
        }
        Moment { t, scale, shift }
    }

    /// f(z, t).
    pub(crate) fn value(&self, t: f64, z: &[E], offset: &[E], lanes: usize, out: &mut [E]) {
        self.mlp.forward(z, lanes, self.moment(t).modulation(offset), out);
    }

    /// f(z, t) and the exact tr ∂f/∂z of every row, if the field is shallow enough for its short form; else nothing is
    /// written.
    pub(crate) fn value_and_trace(&self, t: f64, z: &[E], offset: &[E], lanes: usize, out: &mut [E], trace: &mut [E]) -> bool {
        let Some(shallow) = &self.shallow else { return false };
        shallow.evaluate(&self.moment(t), z, offset, lanes, out, trace);
        true
    }

    /// f(z, t), and what the passes after it need.
    pub(crate) fn evaluate(&self, t: f64, z: &[E], offset: &[E], lanes: usize, out: &mut [E]) -> Evaluation<E> {
        let moment = self.moment(t);
        let trace = self.mlp.forward_traced(z, lanes, moment.modulation(offset), out);
        Evaluation { trace, moment }
    }

    /// Length of the buffer that the network's pullbacks add to, and that [`fold_time`](Self::fold_time) turns into
    /// gradients.
    pub(crate) fn sums_len(&self) -> usize {
        self.parameters.max(self.mlp.sums_len())
    }

    /// Turns the gradients of the modulation, which a pullback of the network left in `sums`, into those of the time's
    /// parameters, in place. Returns ∂S/∂t.
    ///
    /// With s = σ(g t + c) and shift w t: w̄ = t · shift-bar, c̄ = s(1 − s) s̄, ḡ = t c̄, and ∂S/∂t = ⟨shift-bar, w⟩ +
    /// ⟨c̄, g⟩.
    pub(crate) fn fold_time(&self, evaluation: &Evaluation<E>, sums: &mut [E]) -> f64 {
        let Moment { t, scale, .. } = &evaluation.moment;
        let time = E::of(*t);
        let len = self.shift.len();
        let start = self.parameters - len - 2 * scale.len();
        let own = &mut sums[start..];
        if scale.is_empty() {
            let for_time = dot(&own[..len], self.shift).as_f64();
            own[..len].iter_mut().for_each(|w| *w *= time);
            return for_time;
        }
        // In: s̄, shift-bar. Out: w̄, ḡ, c̄.
        let mut for_time = E::zero();
        for j in 0..len {
            let (s_bar, shift_bar) = (own[j], own[len + j]);
            let c_bar = s_bar * scale[j] * (E::one() - scale[j]);
            for_time += shift_bar * self.shift[j] + c_bar * self.gate[j];
            (own[j], own[len + j], own[2 * len + j]) = (time * shift_bar, time * c_bar, c_bar);
        }
        for_time.as_f64()
    }
}

/// The error of a solve in the terms of the flow: what is not finite is a row of the block.
pub(crate) fn solve_error(error: crate::ode::OdeError, lanes: usize, first_row: u64) -> FlowError {
    use crate::ode::OdeError;
    let layer = String::new();
    match error {
        OdeError::Setting { field, expected, got } => FlowError::Setting { layer, field, expected: expected.to_owned(), got },
        OdeError::StepUnderflow { t, dt, nfe } => FlowError::StepUnderflow { layer, t, dt, nfe },
        OdeError::TooManyEvaluations { t, nfe, limit } => FlowError::TooManyEvaluations { layer, t, nfe, limit },
        OdeError::NotFinite { what, index } => {
            let row = usize::try_from(first_row).unwrap_or(usize::MAX).saturating_add(index % lanes.max(1));
            FlowError::NotFinite { layer, what, row }
        }
    }
}
