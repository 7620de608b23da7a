//! Exact gradients of all activations against finite differences of the log-det and the output, in every memory
//! setting.

use crate::common::{ACTIVATIONS, Flow, assert_close, flow, forward, normal, pullback, set, spec};
use flow_api::{Context, Memory};
use flows_lipschitz::{Activation, FixedPoint, Residual};

/// Path and values of every parameter.
fn parameters(flow: &Flow) -> Vec<(String, Vec<f64>)> {
    flow_api::module::save(flow)
        .into_iter()
        .filter_map(|(path, saved)| match saved {
            flow_api::module::Saved::Parameter { values, .. } => Some((path, values)),
            _ => None,
        })
        .collect()
}

#[test]
fn exact_gradients_are_those_of_finite_differences() {
    let variants = ACTIVATIONS.into_iter().flat_map(|activation| [false, true].map(|dense| (activation, dense)));
    for (activation, dense) in variants {
        // With fewer hidden units than dimensions the determinant is taken on the smaller side.
        for hidden in [2, 5] {
            let inverse = FixedPoint { tolerance: Some(1e-13), ..FixedPoint::default() };
            let spec = Residual { activation, dense, hidden, inverse, ..spec() };
            check(&format!("{activation:?}, dense {dense}, hidden {hidden}"), &flow(&spec, 3), activation);
        }
    }
}

fn check(name: &str, flow: &Flow, activation: Activation) {
    let rows = 5;
    let x = normal(rows * 3, 21);
    let (c, g) = (normal(rows * 3, 22), normal(rows, 23));
    let cx = Context::new(0);
    let loss = |flow: &Flow, x: &[f64]| {
        let y = forward(flow, x, &cx);
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        dot(&y.value, &c) + dot(&y.log_det, &g)
    };
    // ELU's second derivative jumps at 0: differences straddle it in places.
    let tolerance = if activation == Activation::Elu { 2e-3 } else { 2e-6 };
    let (dx, gradients) = pullback(flow, &x, &c, &g, &cx.clone().with_memory(Memory::Store));
    for (i, &dx) in dx.iter().enumerate() {
        let shifted = |by: f64| loss(flow, &x.iter().enumerate().map(|(k, x)| if k == i { x + by } else { *x }).collect::<Vec<_>>());
        assert_close(&format!("{name}: x {i}"), &[dx], &[(shifted(1e-5) - shifted(-1e-5)) / 2e-5], tolerance);
    }
    for (path, values) in parameters(flow) {
        for i in [0, values.len() / 2] {
            let shifted = |by: f64| {
                let mut moved = flow.clone();
                set(&mut moved, &path, &values.iter().enumerate().map(|(k, v)| if k == i { v + by } else { *v }).collect::<Vec<_>>());
                loss(&moved, &x)
            };
            let expected = (shifted(1e-5) - shifted(-1e-5)) / 2e-5;
            assert_close(&format!("{name}: {path} {i}"), &[gradients.get(&path).unwrap()[i]], &[expected], tolerance);
        }
    }
    let (dx_again, again) = pullback(flow, &x, &c, &g, &cx.clone().with_memory(Memory::Recompute));
    assert_eq!((dx_again, again.values()), (dx.clone(), gradients.values()), "{name}: recomputed");
    let (dx_inverted, inverted) = pullback(flow, &x, &c, &g, &cx.with_memory(Memory::Invert));
    assert_close(&format!("{name}: inverted x"), &dx_inverted, &dx, 1e-9);
    assert_close(&format!("{name}: inverted"), inverted.values(), gradients.values(), 1e-9);
}
