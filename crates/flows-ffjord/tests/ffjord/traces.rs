//! Hutchinson's estimator: unbiased, with an honest standard error that falls as 1/√n; values and gradients.

use crate::common::{Flow, assert_close, dopri5, flow, forward, linear, normal, pullback, training};
use flow_api::log_det::LogDetKind;
use flow_api::{Context, Mode, RowFlow};
use flows_ffjord::ode::{Fixed, Solver};
use flows_ffjord::{Activation, Ffjord, Hutchinson, Probe, TimeInput, Trace};

const DIM: usize = 4;
const ROWS: usize = 4096;

fn estimate(probes: usize, distribution: Probe) -> Trace {
    Trace::Hutchinson(Hutchinson { probes, distribution })
}

fn spec(trace: Trace) -> Ffjord {
    Ffjord { hidden: 8, solver: dopri5(1e-6), trace, ..Ffjord::default() }
}

/// The same row, as often as there are noises.
fn repeated() -> Vec<f64> {
    normal(DIM, 7).repeat(ROWS)
}

fn mean_and_deviation(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    (mean, (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0)).sqrt())
}

fn set_trace(flow: &mut Flow, trace: Trace) {
    flow.0.set_trace(Mode::Train, trace).unwrap();
}

#[test]
fn estimates_are_unbiased_and_know_their_error() {
    let x = repeated();
    let mut flow = flow(&spec(Trace::Exact), DIM);
    let exact = forward(&flow, &x[..DIM], &training()).log_det[0];
    for distribution in [Probe::Rademacher, Probe::Gaussian] {
        let mut deviations = Vec::new();
        for probes in [1, 4, 16] {
            set_trace(&mut flow, estimate(probes, distribution));
            // The log-det of a flow that reports estimates in evaluation carries the error.
            flow.0.set_trace(Mode::Evaluate, estimate(probes, distribution)).unwrap();
            assert_eq!(flow.0.facts().log_det, LogDetKind::Estimate);
            let y = forward(&flow, &x, &training());
            let (mean, deviation) = mean_and_deviation(&y.log_det);
            let z = (mean - exact) / (deviation / (ROWS as f64).sqrt());
            assert!(z.abs() < 4.0, "{distribution:?}, {probes} probes: {z} standard errors off");
            let reported = y.standard_error.unwrap();
            let rms = (reported.iter().map(|e| e * e).sum::<f64>() / ROWS as f64).sqrt();
            if probes == 1 {
                assert!(rms >= deviation && rms < 10.0 * deviation, "{distribution:?}: bound {rms}, observed {deviation}");
            } else {
                assert!((rms / deviation - 1.0).abs() < 0.15, "{distribution:?}, {probes} probes: reported {rms}, observed {deviation}");
            }
            deviations.push(deviation);
        }
        for pair in deviations.windows(2) {
            let slope = (pair[1] / pair[0]).ln() * 2.0 / 4.0_f64.ln();
            assert!((slope + 1.0).abs() < 0.15, "{distribution:?}: the variance falls as n^{slope}");
        }
    }
}

#[test]
fn gradients_of_estimates_are_unbiased() {
    let x = repeated();
    let (zeros, ones) = (vec![0.0; x.len()], vec![1.0; ROWS]);
    let mut flow = flow(&Ffjord { solver: Solver::Rk4(Fixed { steps: 3 }), ..spec(Trace::Exact) }, DIM);
    let exact = pullback(&flow, &x[..DIM], &zeros[..DIM], &ones[..1], &training()).0;
    for distribution in [Probe::Rademacher, Probe::Gaussian] {
        let mut deviations = Vec::new();
        for probes in [1, 4] {
            set_trace(&mut flow, estimate(probes, distribution));
            let gradients = pullback(&flow, &x, &zeros, &ones, &training()).0;
            for (j, exact) in exact.iter().enumerate() {
                let own: Vec<f64> = gradients.iter().skip(j).step_by(DIM).copied().collect();
                let (mean, deviation) = mean_and_deviation(&own);
                let z = (mean - exact) / (deviation / (ROWS as f64).sqrt());
                assert!(z.abs() < 4.0, "{distribution:?}, {probes} probes, ∂x[{j}]: {z} standard errors off");
                deviations.push(deviation);
            }
        }
        for j in 0..DIM {
            let slope = (deviations[DIM + j] / deviations[j]).ln() * 2.0 / 4.0_f64.ln();
            assert!((slope + 1.0).abs() < 0.15, "{distribution:?}, ∂x[{j}]: the variance falls as n^{slope}");
        }
    }
}

#[test]
fn rademacher_is_exact_where_the_jacobian_is_diagonal() {
    let diagonal = [0.5, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 0.25];
    let mut flow = linear(&diagonal, 3, &Ffjord { solver: dopri5(1e-8), ..Ffjord::default() });
    let x = normal(3 * 10, 1);
    let exact = forward(&flow, &x, &flow_api::Context::new(0)).log_det;
    for probes in [1, 3] {
        set_trace(&mut flow, estimate(probes, Probe::Rademacher));
        flow.0.set_trace(Mode::Evaluate, estimate(probes, Probe::Rademacher)).unwrap();
        let y = forward(&flow, &x, &training());
        assert_close("log-det", &y.log_det, &exact, 1e-10);
        if probes > 1 {
            assert!(y.standard_error.unwrap().iter().all(|e| *e < 1e-10));
        }
    }
}

/// Switched on the same weights: values agree within four standard errors, and noise is a function of seed, step and
/// row.
#[test]
fn traces_can_be_switched() {
    let x = normal(64 * DIM, 3);
    let mut flow = flow(&spec(estimate(8, Probe::Rademacher)), DIM);
    flow.0.set_trace(Mode::Evaluate, estimate(8, Probe::Rademacher)).unwrap();
    let estimated = forward(&flow, &x, &training());
    let again = forward(&flow, &x, &training());
    assert_eq!(estimated.log_det, again.log_det);
    assert_ne!(estimated.log_det, forward(&flow, &x, &training().at_step(1)).log_det);
    set_trace(&mut flow, Trace::Exact);
    let exact = forward(&flow, &x, &training());
    assert_close("value", &estimated.value, &exact.value, 1e-4);
    let total = |l: &[f64]| l.iter().sum::<f64>();
    let error = estimated.standard_error.unwrap().iter().map(|e| e * e).sum::<f64>().sqrt();
    assert!((total(&estimated.log_det) - total(&exact.log_det)).abs() < 4.0 * error);
    assert!(flow.0.set_trace(Mode::Train, estimate(0, Probe::Gaussian)).is_err());
}

/// One midpoint step has the log-det T tr ∂f/∂z(x + f(x, 0) T/2, T/2): against central differences of the field.
#[test]
fn exact_traces_are_those_of_the_field() {
    let x = normal(7 * DIM, 5);
    for activation in [Activation::Tanh, Activation::Softplus, Activation::Silu] {
        for (time, layers) in [
            (TimeInput::Autonomous, 2),
            (TimeInput::Concat, 1),
            (TimeInput::ConcatSquash, 1),
            (TimeInput::ConcatSquash, 2),
            (TimeInput::ConcatSquash, 3),
        ] {
            let solver = Solver::Midpoint(Fixed { steps: 1 });
            let flow = flow(&Ffjord { activation, time, layers, solver, ..spec(Trace::Exact) }, DIM);
            let (field, cx) = (flow.0.field(), Context::new(0));
            let middle: Vec<f64> = x.iter().zip(field.evaluate(&x, 0.0, &cx).unwrap()).map(|(x, f)| x + 0.5 * f).collect();
            let mut traces = vec![0.0; 7];
            for i in 0..DIM {
                let at = |by: f64| {
                    let mut moved = middle.clone();
                    moved.iter_mut().skip(i).step_by(DIM).for_each(|z| *z += by);
                    field.evaluate(&moved, 0.5, &cx).unwrap()
                };
                let (ahead, behind) = (at(1e-5), at(-1e-5));
                traces.iter_mut().enumerate().for_each(|(r, t)| *t += (ahead[r * DIM + i] - behind[r * DIM + i]) / 2e-5);
            }
            let y = forward(&flow, &x, &training());
            assert_close(&format!("{activation:?}, {time:?}, {layers} layers"), &y.log_det, &traces, 1e-8);
        }
    }
}

/// More directions than go through the network at once.
#[test]
fn groups_of_directions_add_up() {
    let dim = 11;
    // Deep enough that the trace has no short form.
    let flow = flow(&Ffjord { layers: 3, ..spec(Trace::Exact) }, dim);
    let x = normal(100 * dim, 3);
    let whole = forward(&flow, &x, &training()).log_det;
    let (c, g) = (normal(100 * dim, 4), normal(100, 5));
    let (for_x, _) = pullback(&flow, &x, &c, &g, &training());
    // Two rows: all eleven directions at once. A hundred: five at a time.
    for (i, rows) in x.chunks_exact(2 * dim).enumerate().step_by(7) {
        assert_close("log-det", &forward(&flow, rows, &training()).log_det, &whole[2 * i..2 * i + 2], 1e-5);
        let at = 2 * i * dim..2 * (i + 1) * dim;
        let (own, _) = pullback(&flow, rows, &c[at.clone()], &g[2 * i..2 * i + 2], &training());
        assert_close("∂x", &own, &for_x[at], 1e-4);
    }
}
