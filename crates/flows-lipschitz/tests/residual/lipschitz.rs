//! The bound on the Lipschitz constant, against singular value decompositions and sampled slopes.

use crate::common::{ACTIVATIONS, Flow, assert_close, forward, inverse, normal, pullback};
use flow_api::module::{EntryMut, update};
use flow_api::rows::Rows;
use flow_api::{Context, Scalar as _};
use flow_train::{Adam, AdamConfig};
use flows_lipschitz::{LipschitzMlp, PowerIteration, Residual, ResidualFlow};

/// The largest singular value of a weight with so many rows.
fn norm(weight: &[f64], rows: usize) -> f64 {
    let columns = weight.len() / rows;
    faer::Mat::from_fn(rows, columns, |i, j| weight[i * columns + j]).singular_values().unwrap()[0]
}

/// The power iteration's norm is that of the decomposition, and every normalised layer keeps to the coefficient.
fn assert_bounded(what: &str, g: &LipschitzMlp<f64>) {
    for (i, ((layer, found), normalised)) in g.net().layers().iter().zip(g.spectral_norms()).zip(g.normalised_weights()).enumerate() {
        let rows = layer.shape().0;
        let exact = norm(layer.weight().values(), rows);
        assert!(found >= 0.99 * exact && found <= 1.001 * exact, "{what}: layer {i}: {found}, exactly {exact}");
        let after = norm(&normalised, rows);
        assert!(after <= g.coefficient() * 1.001, "{what}: layer {i}: {after} over {}", g.coefficient());
    }
}

/// ‖g(a) − g(b)‖ / ‖a − b‖ over pairs of points near and far.
fn steepest(flow: &Flow, dim: usize) -> f64 {
    steepest_in(flow, dim, &Context::new(0).without_log_det())
}

/// The same for the condition of a context.
fn steepest_in(flow: &Flow, dim: usize, cx: &Context<f64>) -> f64 {
    let (a, direction) = (normal(400 * dim, 41), normal(400 * dim, 42));
    let b: Vec<f64> = a.iter().zip(&direction).enumerate().map(|(i, (a, d))| a + d * [1e-3, 0.1, 3.0][i / dim % 3]).collect();
    let [ya, yb] = [&a, &b].map(|x| forward(flow, x, cx).value);
    let ratio = |r: usize| {
        let at = r * dim..(r + 1) * dim;
        let g: f64 = at.clone().map(|i| (ya[i] - a[i] - yb[i] + b[i]).powi(2)).sum();
        let x: f64 = at.map(|i| (a[i] - b[i]).powi(2)).sum();
        (g / x).sqrt()
    };
    (0..400).map(ratio).fold(0.0, f64::max)
}

/// However large the condition's weights are and the condition is, the flow is no steeper in x, and finds its way back.
#[test]
fn the_bound_is_one_on_the_dependence_on_x_alone() {
    let dim = 4;
    let spec = Residual { hidden: 16, condition: Some(2), ..Residual::default() };
    let mut flow: Flow = Rows(ResidualFlow::new(&spec, dim, 9).unwrap());
    let norms = flow.0.g().spectral_norms();
    update(&mut flow, |path, entry| {
        if let EntryMut::Parameter { values, .. } = entry
            && path == "condition.weight"
        {
            values.iter_mut().for_each(|w| *w *= 1e3);
        }
    })
    .unwrap();
    assert_eq!(flow.0.g().spectral_norms(), norms);
    let x = normal(400 * dim, 41);
    let at = |scale: f64| {
        let condition = normal(400 * 2, 7).iter().map(|c| scale * c).collect();
        Context::new(0).without_log_det().with_condition(f64::tensor(condition, (400, 2)))
    };
    for scale in [0.0, 1.0, 1e3] {
        let slope = steepest_in(&flow, dim, &at(scale));
        assert!(slope < 1.0, "{scale}: {slope}");
        let y = forward(&flow, &x, &at(scale)).value;
        assert_close("the way back", &inverse(&flow, &y, &at(scale)).value, &x, 1e-4);
    }
    let moved = |scale| forward(&flow, &x, &at(scale)).value.iter().zip(&x).map(|(y, x)| (y - x).abs()).fold(0.0, f64::max);
    assert!(moved(1.0) > 10.0 * moved(0.0), "{} and {}", moved(1.0), moved(0.0));
}

#[test]
fn the_bound_holds_after_every_step_of_a_large_learning_rate() {
    for (activation, dense) in ACTIVATIONS.into_iter().flat_map(|a| [(a, false), (a, true)]) {
        let what = format!("{activation:?}, dense {dense}");
        let spec = Residual { hidden: 24, activation, dense, ..Residual::default() };
        let dim = 6;
        let mut flow: Flow = Rows(ResidualFlow::new(&spec, dim, 9).unwrap());
        assert_bounded(&what, flow.0.g());
        let mut adam = Adam::new(&flow, AdamConfig::default());
        let x = normal(32 * dim, 3);
        for step in 0..200 {
            // Towards ever larger outputs and smaller log-dets: weights grow as fast as they may.
            let (_, gradients) = pullback(&flow, &x, &x.iter().map(|x| -x).collect::<Vec<_>>(), &[1.0; 32], &Context::new(0).at_step(step));
            adam.step(&mut flow, &gradients, 0.05).unwrap();
            assert_bounded(&format!("{what}, step {step}"), flow.0.g());
        }
        assert!(flow.0.g().spectral_norms().iter().any(|&norm| norm > 1.5), "{what}: no weight has grown");
        let slope = steepest(&flow, dim);
        assert!(slope < 1.0 && slope > 0.2, "{what}: {slope}");
    }
}

/// Close singular values, one that overtakes, zeros and single rows: what plain power iterations stumble over.
#[test]
fn weights_that_are_hard_for_power_iterations() {
    let spec = Residual { layers: 1, ..Residual::default() };
    let mut flow: Flow = Rows(ResidualFlow::new(&spec, 4, 9).unwrap());
    let diagonal = |d: [f64; 4]| -> Vec<f64> { (0..16).map(|i| if i % 5 == 0 { d[i / 5] } else { 0.0 }).collect() };
    for d in [[2.0, 1.999, 1.998, 1.0], [1.0, 1.0, 1.0, 5.0], [0.0; 4], [1e-3, 3.0, 0.0, 0.0], [1e8, 1.0, 1.0, 1.0], [1.0; 4]] {
        crate::common::set(&mut flow, "net.layers.0.weight", &diagonal(d));
        assert_bounded(&format!("{d:?}"), flow.0.g());
    }
}

/// A singular value that has just overtaken the one that the iteration has settled on: its residual is zero, and the
/// bound is not.
#[test]
fn a_singular_value_that_has_just_overtaken_is_seen() {
    let dim = 16;
    for iterations in [1, 3, 200] {
        let power_iteration = PowerIteration { iterations, ..PowerIteration::default() };
        let spec = Residual { layers: 1, power_iteration, ..Residual::default() };
        let mut flow: Flow = Rows(ResidualFlow::new(&spec, dim, 9).unwrap());
        for second in [1.0, 2.05, 2.5, 1.9, 2.01] {
            let entry = |i: usize| [2.0, second].get(i).copied().unwrap_or(1.0);
            let weight: Vec<f64> = (0..dim * dim).map(|at| if at % (dim + 1) == 0 { entry(at / dim) } else { 0.0 }).collect();
            crate::common::set(&mut flow, "net.layers.0.weight", &weight);
            assert_bounded(&format!("{second}, {iterations} iterations"), flow.0.g());
        }
    }
}

/// However near c is to 1, and however rough the iteration may be, no layer reaches 1.
#[test]
fn the_bound_stays_below_one() {
    let power_iteration = PowerIteration { tolerance: 0.5, iterations: 1 };
    let spec = Residual { hidden: 40, coefficient: 0.999, power_iteration, ..Residual::default() };
    let mut flow: Flow = Rows(ResidualFlow::new(&spec, 8, 9).unwrap());
    for seed in 0..20 {
        crate::common::set(&mut flow, "net.layers.1.weight", &normal(1600, seed));
        let largest = norm(&flow.0.g().normalised_weights()[1], 40);
        assert!(largest < 1.0, "seed {seed}: {largest}");
    }
}

/// Their squares are numbers, the squares of those are not.
#[test]
fn weights_of_great_size() {
    let spec = Residual { layers: 1, ..Residual::default() };
    let mut flow: Flow = Rows(ResidualFlow::new(&spec, 12, 9).unwrap());
    crate::common::set(&mut flow, "net.layers.0.weight", &normal(144, 2).iter().map(|w| w * 1e90).collect::<Vec<_>>());
    assert_bounded("1e90", flow.0.g());
}

/// A weight without a norm is named.
#[test]
fn weights_without_a_norm_are_errors() {
    for (bad, got) in [(f64::NAN, "NaN"), (f64::INFINITY, "inf"), (-1e200, "1e200")] {
        let mut flow: Flow = Rows(ResidualFlow::new(&Residual { hidden: 4, ..Residual::default() }, 4, 9).unwrap());
        let poison = |path: &str, entry: EntryMut<'_, f64>| {
            if let (EntryMut::Parameter { values, .. }, "net.layers.1.weight") = (entry, path) {
                values[3] = bad;
            }
        };
        let error = update(&mut flow, poison).unwrap_err();
        let expected = "net.layers.1: weight: expected finite numbers, and a spectral norm with a finite square, got ";
        assert_eq!(error.to_string(), format!("{expected}{got}"));
    }
}
