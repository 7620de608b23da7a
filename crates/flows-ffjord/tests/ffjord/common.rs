//! What several test files need.

use dfdx::prelude::{Cpu, TensorFromVec};
use flow_api::bijector::{Cotangent, Point};
use flow_api::log_det::SolveReport;
use flow_api::module::{EntryMut, update};
use flow_api::rows::Rows;
use flow_api::{Bijector, Context, Gradients, Memory, Mode, to_host};
use flow_kernels::noise::Stream;
use flows_ffjord::ode::{Adaptive, Solver};
use flows_ffjord::{ContinuousFlow, Ffjord};

pub(crate) type Flow = Rows<ContinuousFlow<f64>>;

pub(crate) fn dopri5(tolerance: f64) -> Solver {
    Solver::Dopri5(Adaptive { rtol: tolerance, atol: tolerance, ..Adaptive::default() })
}

/// Reproducible normal numbers.
pub(crate) fn normal(len: usize, seed: u64) -> Vec<f64> {
    let mut values = vec![0.0; len];
    Stream::new(seed, 0, "test").row(0).gaussian(&mut values);
    values
}

/// A flow that does not start as the identity.
pub(crate) fn flow(spec: &Ffjord, dim: usize) -> Flow {
    Rows(ContinuousFlow::new(&Ffjord { zero_init: false, ..spec.clone() }, dim, 5).unwrap())
}

pub(crate) fn training() -> Context<f64> {
    Context::new(3).in_mode(Mode::Train)
}

/// A result in host memory.
pub(crate) struct Mapped {
    pub(crate) value: Vec<f64>,
    pub(crate) log_det: Vec<f64>,
    pub(crate) standard_error: Option<Vec<f64>>,
    pub(crate) report: SolveReport,
}

impl From<flow_api::bijector::Mapped<(usize, usize), f64>> for Mapped {
    fn from(mapped: flow_api::bijector::Mapped<(usize, usize), f64>) -> Self {
        Self {
            value: to_host(&mapped.value),
            log_det: to_host(&mapped.log_det.value),
            standard_error: mapped.log_det.standard_error.as_ref().map(to_host),
            report: mapped.report,
        }
    }
}

fn dim(flow: &Flow) -> usize {
    flow.0.field().net().input()
}

pub(crate) fn forward(flow: &Flow, x: &[f64], cx: &Context<f64>) -> Mapped {
    let shape = (x.len() / dim(flow), dim(flow));
    flow.forward(Cpu::default().tensor_from_vec(x.to_vec(), shape), cx).unwrap().into()
}

pub(crate) fn inverse(flow: &Flow, y: &[f64], cx: &Context<f64>) -> Mapped {
    let shape = (y.len() / dim(flow), dim(flow));
    flow.inverse(Cpu::default().tensor_from_vec(y.to_vec(), shape), cx).unwrap().into()
}

/// ∂L/∂x and all parameters' gradients of L = ⟨c, y⟩ + ⟨g, log-dets⟩, from what the memory setting leaves.
pub(crate) fn pullback(flow: &Flow, x: &[f64], c: &[f64], g: &[f64], cx: &Context<f64>) -> (Vec<f64>, Gradients<f64>) {
    let device = Cpu::default();
    let shape = (x.len() / dim(flow), dim(flow));
    let x = device.tensor_from_vec(x.to_vec(), shape);
    let at = match cx.memory() {
        Memory::Store => Point::Kept(flow.forward_keeping(x, cx).unwrap().1),
        Memory::Recompute => Point::Input(x),
        Memory::Invert => Point::Output(flow.forward(x, cx).unwrap().value),
    };
    let cotangent = Cotangent { value: device.tensor_from_vec(c.to_vec(), shape), log_det: device.tensor_from_vec(g.to_vec(), (g.len(),)) };
    let mut gradients = Gradients::zeros(flow);
    let pulled = flow.pullback(at, cotangent, &mut gradients, cx).unwrap();
    (to_host(&pulled.cotangent), gradients)
}

/// Adds `by` to number `index` of the parameter at `path`.
pub(crate) fn nudge(flow: &mut Flow, path: &str, index: usize, by: f64) {
    update(flow, |at, entry| {
        if let EntryMut::Parameter { values, .. } = entry
            && at == path
        {
            values[index] += by;
        }
    })
    .unwrap();
}

/// Overwrites the parameter at `path`.
pub(crate) fn set(flow: &mut Flow, path: &str, new: &[f64]) {
    update(flow, |at, entry| {
        if let EntryMut::Parameter { values, .. } = entry
            && at == path
        {
            values.copy_from_slice(new);
        }
    })
    .unwrap();
}

/// The flow whose field is A z, up to terms of third order in 1e-5 z.
pub(crate) fn linear(matrix: &[f64], dim: usize, spec: &Ffjord) -> Flow {
    const SMALL: f64 = 1e-5;
    let spec = Ffjord { hidden: dim, layers: 1, time: flows_ffjord::TimeInput::Autonomous, ..spec.clone() };
    let mut flow = flow(&spec, dim);
    let identity: Vec<f64> = (0..dim * dim).map(|i| if i / dim == i % dim { SMALL } else { 0.0 }).collect();
    set(&mut flow, "field.net.layers.0.weight", &identity);
    set(&mut flow, "field.net.layers.0.bias", &vec![0.0; dim]);
    set(&mut flow, "field.net.layers.1.weight", &matrix.iter().map(|a| a / SMALL).collect::<Vec<_>>());
    set(&mut flow, "field.net.layers.1.bias", &vec![0.0; dim]);
    flow
}

pub(crate) fn assert_close(what: &str, got: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(got.len(), expected.len(), "{what}: length");
    for (i, (g, e)) in got.iter().zip(expected).enumerate() {
        // Written so that NaN fails.
        assert!((g - e).abs() <= tolerance * (1.0 + e.abs()), "{what}[{i}]: expected {e}, got {g}");
    }
}
