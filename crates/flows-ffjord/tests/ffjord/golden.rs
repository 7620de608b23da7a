//! FFJORD of `PyTorch` and torchdiffeq, with the exact trace.

use crate::common::{Flow, assert_close, dopri5, flow, forward, inverse, pullback, set};
use flow_api::Context;
use flows_ffjord::ode::{Fixed, Solver};
use flows_ffjord::{Adjoint, Ffjord, Gradient, TimeInput};
use safetensors::SafeTensors;
use std::path::PathBuf;

fn bytes() -> Vec<u8> {
    let bundled = || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden"));
    let path = std::env::var_os("MIXERFLOW_GOLDEN_DIR").map_or_else(bundled, PathBuf::from).join("ffjord.safetensors");
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn get(tensors: &SafeTensors<'_>, name: &str) -> Vec<f64> {
    tensors.tensor(name).unwrap().data().chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect()
}

/// Weights on z alone, and on the time, of a first layer on `[z, t]`.
fn split_time(weight: &[f64], dim: usize) -> (Vec<f64>, Vec<f64>) {
    let rows = || weight.chunks_exact(dim + 1);
    (rows().flat_map(|row| row[..dim].to_vec()).collect(), rows().map(|row| row[dim]).collect())
}

/// The file's network: the time enters the first layer alone.
fn build(tensors: &SafeTensors<'_>, spec: &Ffjord) -> Flow {
    let (dim, hidden) = (get(tensors, "b3").len(), get(tensors, "b1").len());
    let mut flow = flow(&Ffjord { hidden, layers: 2, time: TimeInput::Concat, ..spec.clone() }, dim);
    let (first, mut shift) = split_time(&get(tensors, "w1"), dim);
    shift.resize(2 * hidden + dim, 0.0);
    set(&mut flow, "field.net.layers.0.weight", &first);
    set(&mut flow, "field.time_shift", &shift);
    for (layer, weight) in [(1, "w2"), (2, "w3")] {
        set(&mut flow, &format!("field.net.layers.{layer}.weight"), &get(tensors, weight));
    }
    for (layer, bias) in ["b1", "b2", "b3"].into_iter().enumerate() {
        set(&mut flow, &format!("field.net.layers.{layer}.bias"), &get(tensors, bias));
    }
    flow
}

#[test]
fn ffjord_of_torchdiffeq() {
    let bytes = bytes();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let get = |name: &str| get(&tensors, name);
    let dim = get("b3").len();
    let rows = get("logdet").len();
    let adjoint = |seminorm| Gradient::Adjoint(Adjoint { seminorm });
    let rk4 = Solver::Rk4(Fixed { steps: 100 });
    let cases = [(dopri5(1e-10), adjoint(true)), (dopri5(1e-9), adjoint(false)), (rk4, Gradient::Discrete), (rk4, adjoint(true))];
    for (solver, gradient) in cases {
        let flow = build(&tensors, &Ffjord { solver, gradient, ..Ffjord::default() });
        // Evaluation has the exact trace.
        let cx = Context::<f64>::new(0);
        let y = forward(&flow, &get("x"), &cx);
        let log_prob: Vec<f64> = y
            .value
            .chunks_exact(dim)
            .zip(&y.log_det)
            .map(|(z, l)| l - 0.5 * z.iter().map(|z| z * z + std::f64::consts::TAU.ln()).sum::<f64>())
            .collect();
        assert_close("z", &y.value, &get("z"), 1e-7);
        assert_close("log-det", &y.log_det, &get("logdet"), 1e-7);
        assert_close("log p", &log_prob, &get("log_prob"), 1e-7);
        assert_close("x", &inverse(&flow, &y.value, &cx).value, &get("x"), 1e-6);

        // Of the mean of log p.
        let weight = 1.0 / rows as f64;
        let cotangent: Vec<f64> = y.value.iter().map(|z| -z * weight).collect();
        let (for_x, gradients) = pullback(&flow, &get("x"), &cotangent, &vec![weight; rows], &cx);
        assert_close("∂x", &for_x, &get("grad.x"), 1e-6);
        let (first, shift) = split_time(&get("grad.w1"), dim);
        let own = |path: &str| gradients.get(path).unwrap().to_vec();
        assert_close("∂w1", &own("field.net.layers.0.weight"), &first, 1e-6);
        assert_close("∂w1, time", &own("field.time_shift")[..shift.len()], &shift, 1e-6);
        for (path, name) in [("1.weight", "w2"), ("2.weight", "w3"), ("0.bias", "b1"), ("1.bias", "b2"), ("2.bias", "b3")] {
            assert_close(name, &own(&format!("field.net.layers.{path}")), &get(&format!("grad.{name}")), 1e-6);
        }
    }
}
