//! Gradients against central differences, and against each other.

use crate::common::{Flow, assert_close, dopri5, flow, forward, normal, nudge, pullback, training};
use flow_api::{Context, Memory};
use flows_ffjord::ode::{Adaptive, Fixed, Solver};
use flows_ffjord::{Activation, Adjoint, EndTime, Ffjord, Gradient, Hutchinson, Probe, Regularisation, TimeInput, Trace};

const ROWS: usize = 4;
const DIM: usize = 3;

struct Case {
    x: Vec<f64>,
    c: Vec<f64>,
    g: Vec<f64>,
}

fn case() -> Case {
    Case { x: normal(ROWS * DIM, 1), c: normal(ROWS * DIM, 2), g: vec![-0.9, 0.6, -0.3, 1.2] }
}

impl Case {
    /// What training differentiates: ⟨c, y⟩ + ⟨g, log-det⟩ + ⟨|g|, regularisers⟩: whatever the sign of a log-det's
    /// factor, regularisers are penalties.
    fn loss(&self, flow: &Flow, x: &[f64], weights: Regularisation, cx: &Context<f64>) -> f64 {
        let y = forward(flow, x, cx);
        let penalties = flow.0.penalties(x, cx).unwrap();
        let rows = self.g.iter().zip(&y.log_det).zip(&penalties);
        y.value.iter().zip(&self.c).map(|(y, c)| y * c).sum::<f64>()
            + rows.map(|((g, l), p)| g * l + g.abs() * (weights.kinetic * p.kinetic + weights.jacobian * p.jacobian)).sum::<f64>()
    }

    /// Compares the pullback with central differences in every number of x and in some of every parameter.
    fn check(&self, name: &str, spec: &Ffjord, cx: &Context<f64>, tolerance: f64) {
        const STEP: f64 = 1e-5;
        let mut flow = flow(spec, DIM);
        let (for_x, gradients) = pullback(&flow, &self.x, &self.c, &self.g, cx);
        let weights = if cx.mode() == flow_api::Mode::Train { spec.regularisation } else { Regularisation::default() };
        let differences: Vec<f64> = (0..self.x.len())
            .map(|i| {
                let at = |by: f64| {
                    let mut x = self.x.clone();
                    x[i] += by;
                    self.loss(&flow, &x, weights, cx)
                };
                (at(STEP) - at(-STEP)) / (2.0 * STEP)
            })
            .collect();
        assert_close(&format!("{name}: ∂x"), &for_x, &differences, tolerance);
        let own: Vec<(String, Vec<f64>)> = gradients.iter().map(|(path, values)| (path.to_owned(), values.to_vec())).collect();
        assert_eq!(own.iter().any(|(path, _)| path == "sqrt_end_time"), matches!(spec.end_time, EndTime::Learned(_)));
        for (path, values) in own {
            for index in (0..values.len()).step_by(values.len().div_ceil(4)) {
                let mut at = |by: f64| {
                    nudge(&mut flow, &path, index, by);
                    let loss = self.loss(&flow, &self.x, weights, cx);
                    nudge(&mut flow, &path, index, -by);
                    loss
                };
                let difference = (at(STEP) - at(-STEP)) / (2.0 * STEP);
                assert_close(&format!("{name}: {path} {index}"), &[values[index]], &[difference], tolerance);
            }
        }
    }
}

fn estimate(probes: usize, distribution: Probe) -> Trace {
    Trace::Hutchinson(Hutchinson { probes, distribution })
}

/// The gradient of the discrete map is exact: coarse grids, every method, every way the time enters.
#[test]
fn discrete_gradients_are_exact() {
    let base = Ffjord { hidden: 5, gradient: Gradient::Discrete, end_time: EndTime::Learned(0.9), ..Ffjord::default() };
    let regularisation = Regularisation { kinetic: 0.3, jacobian: 0.2 };
    let cases = [
        ("rk4", Ffjord { solver: Solver::Rk4(Fixed { steps: 3 }), trace: Trace::Exact, ..base.clone() }),
        ("midpoint", Ffjord { solver: Solver::Midpoint(Fixed { steps: 5 }), activation: Activation::Softplus, ..base.clone() }),
        (
            "euler",
            Ffjord { solver: Solver::Euler(Fixed { steps: 7 }), time: TimeInput::Concat, activation: Activation::Silu, ..base.clone() },
        ),
        ("one step", Ffjord { solver: Solver::Rk4(Fixed { steps: 1 }), time: TimeInput::Autonomous, layers: 1, ..base.clone() }),
        ("probes", Ffjord { solver: Solver::Rk4(Fixed { steps: 2 }), trace: estimate(3, Probe::Gaussian), regularisation, ..base.clone() }),
        ("exact, regularised", Ffjord { solver: Solver::Rk4(Fixed { steps: 2 }), trace: Trace::Exact, regularisation, layers: 3, ..base }),
    ];
    for (name, spec) in cases {
        case().check(name, &spec, &training(), 1e-8);
    }
}

/// The adjoint's gradient is that of the exact flow, up to the tolerance.
#[test]
fn adjoint_gradients_are_those_of_the_flow() {
    let base = Ffjord { hidden: 5, solver: dopri5(1e-11), end_time: EndTime::Learned(0.9), ..Ffjord::default() };
    let regularisation = Regularisation { kinetic: 0.3, jacobian: 0.2 };
    let bosh3 = Solver::Bosh3(Adaptive { rtol: 1e-9, atol: 1e-9, max_evaluations: 100_000, ..Adaptive::default() });
    let full = Gradient::Adjoint(Adjoint { seminorm: false });
    let cases = [
        ("squash", Ffjord { trace: Trace::Exact, ..base.clone() }),
        ("concat", Ffjord { time: TimeInput::Concat, activation: Activation::Softplus, gradient: full, ..base.clone() }),
        ("bosh3", Ffjord { solver: bosh3, time: TimeInput::Autonomous, activation: Activation::Silu, ..base.clone() }),
        ("regularised", Ffjord { trace: estimate(2, Probe::Rademacher), regularisation, ..base.clone() }),
        ("fixed end", Ffjord { end_time: EndTime::Fixed(0.9), ..base }),
    ];
    for (name, spec) in cases {
        case().check(name, &spec, &training(), 1e-6);
    }
}

/// Regularisers belong to training.
#[test]
fn evaluation_ignores_regularisers() {
    let regularisation = Regularisation { kinetic: 5.0, jacobian: 5.0 };
    let spec = Ffjord { hidden: 5, solver: dopri5(1e-10), regularisation, ..Ffjord::default() };
    case().check("evaluation", &spec, &Context::new(3), 1e-6);
}

/// Two ways to a gradient, whatever is kept between the sweeps; on the scale of the loss or of a mean over a million
/// rows.
#[test]
fn gradients_agree_with_each_other() {
    let Case { x, c, g } = case();
    let adjoint = Ffjord { hidden: 6, solver: dopri5(1e-10), trace: Trace::Exact, ..Ffjord::default() };
    let steps = Solver::Rk4(Fixed { steps: 100 });
    let discrete = Ffjord { solver: steps, gradient: Gradient::Discrete, ..adjoint.clone() };
    let (for_x, gradients) = pullback(&flow(&adjoint, DIM), &x, &c, &g, &training());
    for (spec, tolerance) in [(&adjoint, 1e-8), (&discrete, 1e-7)] {
        for memory in [Memory::Store, Memory::Recompute, Memory::Invert] {
            let (other_x, other) = pullback(&flow(spec, DIM), &x, &c, &g, &training().with_memory(memory));
            assert_close("∂x", &other_x, &for_x, tolerance);
            assert_close("∂θ", other.values(), gradients.values(), tolerance);
        }
    }
    let tiny = |values: &[f64]| values.iter().map(|v| v * 1e-6).collect::<Vec<_>>();
    let loose = Ffjord { solver: dopri5(1e-5), ..adjoint };
    let (tiny_x, tiny_gradients) = pullback(&flow(&loose, DIM), &x, &tiny(&c), &tiny(&g), &training());
    assert_close("∂x", &tiny_x.iter().map(|v| v * 1e6).collect::<Vec<_>>(), &for_x, 1e-3);
    assert_close("∂θ", &tiny_gradients.values().iter().map(|v| v * 1e6).collect::<Vec<_>>(), gradients.values(), 1e-3);
}

#[test]
fn pullbacks_are_counted() {
    let Case { x, c, g } = case();
    let flow = flow(&Ffjord { hidden: 6, ..Ffjord::default() }, DIM);
    pullback(&flow, &x, &c, &g, &training());
    let report = flow.0.take_pullback_report();
    assert_eq!(report.evaluations, 2 + 6 * (report.iterations + report.rejected));
    assert!(report.iterations > 0);
    assert_eq!(flow.0.take_pullback_report(), flow_api::log_det::SolveReport::default());
}
