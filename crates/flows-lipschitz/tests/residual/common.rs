//! What several test files need.

use flow_api::bijector::{Cotangent, Point};
use flow_api::log_det::{LogDet, SolveReport};
use flow_api::module::{EntryMut, save, update};
use flow_api::rows::Rows;
use flow_api::{Bijector, Context, Gradients, Memory, Mode, Scalar as _, Tensor, to_host};
use flow_kernels::noise::Stream;
use flows_lipschitz::{Activation, Estimator, PowerIteration, Probe, Residual, ResidualFlow, Roulette};

pub(crate) type Flow = Rows<ResidualFlow<f64>>;

/// Reproducible normal numbers.
pub(crate) fn normal(len: usize, seed: u64) -> Vec<f64> {
    let mut values = vec![0.0; len];
    Stream::new(seed, 0, "test").row(0).gaussian(&mut values);
    values
}

/// Small, and with spectral norms as exact as differences of them need.
pub(crate) fn spec() -> Residual {
    let power_iteration = PowerIteration { tolerance: 1e-13, iterations: 2000 };
    Residual { hidden: 12, power_iteration, ..Residual::default() }
}

/// A flow whose weights but the last are so large that they are divided by their norms, and whose β are not at their
/// initial value.
pub(crate) fn flow(spec: &Residual, dim: usize) -> Flow {
    let mut flow = Rows(ResidualFlow::new(spec, dim, 5).unwrap());
    let last = last_weight(spec);
    update(&mut flow, |path, entry| {
        if let EntryMut::Parameter { values, .. } = entry {
            let noise = normal(values.len(), path.len() as u64);
            let scale = if path == last { 1.0 } else { 3.0 };
            values.iter_mut().zip(noise).for_each(|(v, n)| *v = scale * *v + 0.1 * n);
        }
    })
    .unwrap();
    flow
}

fn last_weight(spec: &Residual) -> String {
    format!("net.layers.{}.weight", spec.layers - 1)
}

/// A flow whose J has a spectral norm of about `norm` everywhere.
pub(crate) fn gentle(spec: &Residual, dim: usize, norm: f64) -> Flow {
    let mut flow = flow(spec, dim);
    let x = normal(64 * dim, 99);
    let largest = |flow: &Flow| jacobian_norms(flow, &x).into_iter().fold(0.0, f64::max);
    // J is linear in the last layer, once that is not at its bound.
    let bound = f64::min(1.0, spec.coefficient / flow.0.g().spectral_norms()[spec.layers - 1]);
    let factor = bound * norm / largest(&flow);
    let last = last_weight(spec);
    update(&mut flow, |path, entry| {
        if let EntryMut::Parameter { values, .. } = entry
            && path == last
        {
            values.iter_mut().for_each(|v| *v *= factor);
        }
    })
    .unwrap();
    assert!((largest(&flow) - norm).abs() < 1e-2 * norm, "{} instead of {norm}: the last layer is at its bound", largest(&flow));
    flow
}

/// The norm of J at every row of x, by differences of y − x and faer's singular values.
pub(crate) fn jacobian_norms(flow: &Flow, x: &[f64]) -> Vec<f64> {
    jacobians(flow, x).iter().map(|j| j.singular_values().unwrap()[0]).collect()
}

/// J at every row of x, by central differences of y − x.
pub(crate) fn jacobians(flow: &Flow, x: &[f64]) -> Vec<faer::Mat<f64>> {
    let dim = dim(flow);
    let cx = Context::new(0).without_log_det();
    let shifted = |j: usize, by: f64| {
        let moved: Vec<f64> = x.iter().enumerate().map(|(i, x)| if i % dim == j { x + by } else { *x }).collect();
        forward(flow, &moved, &cx).value
    };
    let h = 1e-5;
    let columns: Vec<(Vec<f64>, Vec<f64>)> = (0..dim).map(|j| (shifted(j, h), shifted(j, -h))).collect();
    let entry = |row: usize, i: usize, j: usize| {
        (columns[j].0[row * dim + i] - columns[j].1[row * dim + i]) / (2.0 * h) - if i == j { 1.0 } else { 0.0 }
    };
    (0..x.len() / dim).map(|row| faer::Mat::from_fn(dim, dim, |i, j| entry(row, i, j))).collect()
}

/// Every estimator, with this many exact terms and probes.
pub(crate) fn estimators(exact_terms: usize, probes: usize, distribution: Probe) -> Vec<Estimator> {
    use flows_lipschitz::{Length, Truncated};
    let roulette = |length| Roulette { length, exact_terms, probes, distribution };
    vec![
        Estimator::Truncated(Truncated { terms: exact_terms, probes, distribution }),
        Estimator::Roulette(roulette(Length::Geometric(0.5))),
        Estimator::Roulette(roulette(Length::Poisson(2.0))),
        Estimator::Neumann(roulette(Length::Geometric(0.5))),
        Estimator::Neumann(roulette(Length::Poisson(2.0))),
    ]
}

pub(crate) const ACTIVATIONS: [Activation; 4] = Activation::ALL;

/// The same weights with another estimator in evaluation.
pub(crate) fn estimating(flow: &Flow, estimator: Estimator) -> Flow {
    let mut flow = flow.clone();
    flow.0.set_estimator(Mode::Evaluate, estimator).unwrap();
    flow
}

pub(crate) fn dim(flow: &Flow) -> usize {
    flow.0.g().net().input()
}

/// A result in host memory.
pub(crate) struct Mapped {
    pub(crate) value: Vec<f64>,
    pub(crate) log_det: Vec<f64>,
    pub(crate) standard_error: Option<Vec<f64>>,
    pub(crate) report: SolveReport,
}

fn host((value, log_det, report): (Tensor<(usize, usize), f64>, LogDet<f64>, SolveReport)) -> Mapped {
    let standard_error = log_det.standard_error.as_ref().map(to_host);
    Mapped { value: to_host(&value), log_det: to_host(&log_det.value), standard_error, report }
}

pub(crate) fn tensor(flow: &Flow, x: &[f64]) -> Tensor<(usize, usize), f64> {
    f64::tensor(x.to_vec(), (x.len() / dim(flow), dim(flow)))
}

pub(crate) fn forward(flow: &Flow, x: &[f64], cx: &Context<f64>) -> Mapped {
    let m = flow.forward(tensor(flow, x), cx).unwrap();
    host((m.value, m.log_det, m.report))
}

pub(crate) fn inverse(flow: &Flow, y: &[f64], cx: &Context<f64>) -> Mapped {
    let m = flow.inverse(tensor(flow, y), cx).unwrap();
    host((m.value, m.log_det, m.report))
}

/// ∂L/∂x and all parameters' gradients of L = ⟨c, y⟩ + ⟨g, log-dets⟩, from what the memory setting leaves.
pub(crate) fn pullback(flow: &Flow, x: &[f64], c: &[f64], g: &[f64], cx: &Context<f64>) -> (Vec<f64>, Gradients<f64>) {
    let at = match cx.memory() {
        Memory::Store => Point::Kept(flow.forward_keeping(tensor(flow, x), cx).unwrap().1),
        Memory::Recompute => Point::Input(tensor(flow, x)),
        Memory::Invert => Point::Output(flow.forward(tensor(flow, x), cx).unwrap().value),
    };
    let cotangent = Cotangent { value: tensor(flow, c), log_det: f64::tensor(g.to_vec(), (g.len(),)) };
    let mut gradients = Gradients::zeros(flow);
    let pulled = flow.pullback(at, cotangent, &mut gradients, cx).unwrap();
    (to_host(&pulled.cotangent), gradients)
}

/// Overwrites the parameter at `path`.
pub(crate) fn set(flow: &mut Flow, path: &str, new: &[f64]) {
    let mut found = false;
    update(flow, |at, entry| {
        if let EntryMut::Parameter { values, .. } = entry
            && at == path
        {
            values.copy_from_slice(new);
            found = true;
        }
    })
    .unwrap();
    assert!(found, "{path} is none of {:?}", save(flow).keys());
}

pub(crate) fn assert_close(what: &str, got: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(got.len(), expected.len(), "{what}: length");
    for (i, (g, e)) in got.iter().zip(expected).enumerate() {
        // Written so that NaN fails.
        assert!((g - e).abs() <= tolerance * (1.0 + e.abs()), "{what}[{i}]: expected {e}, got {g}");
    }
}
