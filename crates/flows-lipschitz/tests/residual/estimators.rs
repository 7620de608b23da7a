//! Estimates of log-dets against exact ones: means, standard errors, gradients.

use crate::common::{Flow, assert_close, dim, estimating, estimators, flow, forward, gentle, jacobians, normal, pullback, spec};
use dfdx::prelude::{Cpu, TensorFromVec};
use flow_api::module::{load, save};
use flow_api::rows::Rows;
use flow_api::{Bijector, Context, Mode};
use flows_lipschitz::{Activation, Estimator, Probe, Residual, ResidualFlow, Roulette, Truncated};

const DRAWS: usize = 16_384;

/// A row, many times over: every copy draws its own probes and lengths.
fn copies(dim: usize, count: usize) -> Vec<f64> {
    normal(dim, 4).repeat(count)
}

fn mean_and_deviation(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    (mean, (values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / (n - 1.0)).sqrt())
}

fn gentle_spec() -> Residual {
    Residual { activation: Activation::Tanh, layers: 2, ..spec() }
}

/// The spectral norm of its Jacobian is at most 0.38 around.
fn contraction() -> Flow {
    gentle(&gentle_spec(), 4, 0.38)
}

/// The sum of the first `terms` terms of the series at a row, from its Jacobian by differences.
fn series(flow: &Flow, x: &[f64], terms: usize) -> f64 {
    let j = &jacobians(flow, x)[0];
    let mut power = j.clone();
    let mut sum = 0.0;
    for k in 1..=terms {
        let trace: f64 = (0..j.nrows()).map(|i| power[(i, i)]).sum();
        sum += if k % 2 == 1 { trace } else { -trace } / k as f64;
        power = &power * j;
    }
    sum
}

/// The mean is the exact log-det (for a truncated series, that series), the standard error is what the estimates
/// scatter by.
#[test]
fn estimates_are_unbiased_and_know_their_error() {
    let flow = contraction();
    let x = copies(dim(&flow), DRAWS);
    let row = &x[..dim(&flow)];
    let exact = forward(&flow, row, &Context::new(0)).log_det[0];
    assert!((series(&flow, row, 60) - exact).abs() < 1e-7, "the series of the finite differences' Jacobian is not the log-det");
    for distribution in [Probe::Rademacher, Probe::Gaussian] {
        for probes in [1, 4] {
            for estimator in estimators(4, probes, distribution) {
                let expected = match estimator {
                    Estimator::Truncated(_) => series(&flow, row, 4),
                    _ => exact,
                };
                let found = forward(&estimating(&flow, estimator), &x, &Context::new(1));
                let (mean, deviation) = mean_and_deviation(&found.log_det);
                let z = (mean - expected) / deviation * (DRAWS as f64).sqrt();
                assert!(z.abs() < 4.0, "{estimator:?}: the mean {mean} is {z} standard errors from {expected}");
                let reported = found.standard_error.unwrap();
                let reported = (reported.iter().map(|e| e * e).sum::<f64>() / DRAWS as f64).sqrt();
                let ratio = reported / deviation;
                // For Rademacher probes the error of one alone is an upper bound.
                let most = if probes == 1 && distribution == Probe::Rademacher { 1.5 } else { 1.15 };
                assert!(ratio > 0.85 && ratio < most, "{estimator:?}: standard error {reported}, observed {deviation}");
            }
        }
    }
}

/// The slope of log variance over log probes is −1.
#[test]
fn variance_falls_with_probes() {
    let flow = contraction();
    let x = copies(dim(&flow), DRAWS);
    for estimator in estimators(4, 1, Probe::Gaussian) {
        let deviation = |probes| {
            let more = match estimator {
                Estimator::Truncated(own) => Estimator::Truncated(Truncated { probes, ..own }),
                Estimator::Roulette(own) => Estimator::Roulette(Roulette { probes, ..own }),
                Estimator::Neumann(own) => Estimator::Neumann(Roulette { probes, ..own }),
                Estimator::Exact => Estimator::Exact,
            };
            mean_and_deviation(&forward(&estimating(&flow, more), &x, &Context::new(2)).log_det).1
        };
        let slope = 2.0 * (deviation(16) / deviation(1)).ln() / 16f64.ln();
        assert!((slope + 1.0).abs() < 0.15, "{estimator:?}: {slope}");
    }
}

/// Gradients of unbiased estimates are unbiased, and so is Neumann's: means over batches of draws against the exact
/// gradient, by parameters and x.
#[test]
fn gradients_are_unbiased() {
    const BATCHES: usize = 64;
    const ROWS: usize = 256;
    let flow = contraction();
    let dim = dim(&flow);
    let x = copies(dim, ROWS);
    let pull = |flow: &Flow, x: &[f64], seed: u64| {
        let rows = x.len() / dim;
        let (dx, gradients) = pullback(flow, x, &vec![0.0; x.len()], &vec![1.0 / rows as f64; rows], &Context::new(seed));
        // ∂/∂x of one row, from as many as there are copies.
        let dx = (0..dim).map(|j| dx.iter().skip(j).step_by(dim).sum::<f64>());
        dx.chain(gradients.values().iter().copied()).collect::<Vec<f64>>()
    };
    let exact = pull(&flow, &x[..dim], 0);
    for estimator in estimators(4, 1, Probe::Rademacher).into_iter().chain(estimators(2, 2, Probe::Gaussian)) {
        if matches!(estimator, Estimator::Truncated(_)) {
            continue;
        }
        let estimated = estimating(&flow, estimator);
        let batches: Vec<Vec<f64>> = (0..BATCHES).map(|b| pull(&estimated, &x, b as u64 + 1)).collect();
        let mut squares = Vec::new();
        for (i, &expected) in exact.iter().enumerate() {
            let values: Vec<f64> = batches.iter().map(|batch| batch[i]).collect();
            let (mean, deviation) = mean_and_deviation(&values);
            if deviation < 1e-12 {
                assert!((mean - expected).abs() < 1e-12, "{estimator:?}: derivative {i}");
                continue;
            }
            let z = (mean - expected) / deviation * (BATCHES as f64).sqrt();
            assert!(z.abs() < 5.0, "{estimator:?}: derivative {i} is {z} standard errors from {expected}");
            squares.push(z * z);
        }
        // A bias that hides in single numbers shows in all of them together.
        let mean_square = squares.iter().sum::<f64>() / squares.len() as f64;
        assert!(squares.len() > 100 && mean_square < 1.6, "{estimator:?}: mean z² is {mean_square}");
    }
}

/// With its draws held fixed, a series' estimate is a function of the parameters like any other: its gradient against
/// central differences.
#[test]
fn the_gradient_of_a_series_is_that_of_its_value() {
    let flow = flow(&spec(), 3);
    let x = normal(7 * 3, 8);
    let weights: Vec<f64> = (0..7).map(|r| 1.0 - 0.3 * f64::from(r)).collect();
    let cx = Context::new(3);
    for estimator in estimators(2, 2, Probe::Gaussian) {
        if matches!(estimator, Estimator::Neumann(_)) {
            continue;
        }
        let flow = estimating(&flow, estimator);
        let value = |x: &[f64]| forward(&flow, x, &cx).log_det.iter().zip(&weights).map(|(l, w)| l * w).sum::<f64>();
        let (dx, _) = pullback(&flow, &x, &vec![0.0; x.len()], &weights, &cx);
        let differences: Vec<f64> = (0..x.len())
            .map(|i| {
                let shifted = |by: f64| value(&x.iter().enumerate().map(|(k, x)| if k == i { x + by } else { *x }).collect::<Vec<_>>());
                (shifted(1e-5) - shifted(-1e-5)) / 2e-5
            })
            .collect();
        assert_close(&format!("{estimator:?}"), &dx, &differences, 1e-6);
    }
}

/// A loaded model has the exact log-dets that were saved, to the bit, and any estimator can be switched on.
#[test]
fn estimators_are_switched_on_loaded_weights() {
    let flow = contraction();
    let state = save(&flow);
    let other = Residual { log_det: Estimator::Neumann(Roulette::default()), ..gentle_spec() };
    let mut loaded: Flow = Rows(ResidualFlow::new(&other, 4, 77).unwrap());
    load(&mut loaded, &state).unwrap();
    assert!(save(&loaded) == state);
    let x = normal(40, 12);
    let cx = Context::new(0);
    let exact = forward(&loaded, &x, &cx);
    assert!(exact.standard_error.is_none());
    assert_eq!(exact.log_det, forward(&flow, &x, &cx).log_det);
    for estimator in estimators(40, 32, Probe::Rademacher) {
        loaded.0.set_estimator(Mode::Evaluate, estimator).unwrap();
        let found = forward(&loaded, &x, &cx);
        for ((value, error), exact) in found.log_det.iter().zip(found.standard_error.unwrap()).zip(&exact.log_det) {
            assert!((value - exact).abs() < 4.5 * error, "{estimator:?}: {value} ± {error}, exactly {exact}");
        }
    }
    loaded.0.set_estimator(Mode::Evaluate, Estimator::Exact).unwrap();
    assert_eq!(forward(&loaded, &x, &cx).log_det, exact.log_det);
    assert!(loaded.0.set_estimator(Mode::Train, Estimator::Truncated(Truncated { terms: 0, ..Truncated::default() })).is_err());
}

/// In one dimension two probes agree: the error that they tell is zero, but a series that is cut off stays an estimate.
#[test]
fn estimates_of_training_are_estimates_whatever_their_spread() {
    let spec = Residual { log_det: Estimator::Truncated(Truncated::default()), ..spec() };
    let flow = flow(&spec, 1);
    let x = Cpu::default().tensor_from_vec(vec![0.3, -1.0], (2, 1));
    for (mode, is_estimate) in [(Mode::Train, true), (Mode::Evaluate, false)] {
        let log_det = flow.forward(x.clone(), &Context::new(0).in_mode(mode)).unwrap().log_det;
        assert_eq!(log_det.standard_error.is_some(), is_estimate, "{mode:?}");
    }
}
