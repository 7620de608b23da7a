//! The residual block against `PyTorch`: values, the inverse, and the exact gradient of the log-det.

use super::{Golden, assert_close};
use flow_api::bijector::{Cotangent, Point};
use flow_api::module::{EntryMut, update};
use flow_api::{Gradients, Scalar as _, to_host};
use mixerflow_toolkit::lipschitz::{Residual, ResidualFlow};
use mixerflow_toolkit::prelude::*;

#[test]
fn residual_block_agrees_with_pytorch() {
    let golden = Golden::open("residual");
    let (dim, rows) = (golden.values("b3").len(), golden.values("logdet").len());
    let spec = Residual { hidden: golden.values("b1").len(), ..Residual::default() };
    let mut flow = Rows(ResidualFlow::<f64>::new(&spec, dim, 1).unwrap());
    update(&mut flow, |path, entry| {
        let EntryMut::Parameter { values, .. } = entry else { return };
        let parts: Vec<&str> = path.split('.').collect();
        let ["net", "layers", layer, kind] = parts[..] else { panic!("{path}") };
        let name = |letter: char| format!("{letter}{}", layer.parse::<usize>().unwrap() + 1);
        match kind {
            "weight" => values.copy_from_slice(&golden.values(&name('w'))),
            "bias" => values.copy_from_slice(&golden.values(&name('b'))),
            _ => values.fill(golden.number("beta_raw")),
        }
    })
    .unwrap();
    // Below the coefficient: the file's weights are used as they are.
    assert_close("norms", &flow.0.g().spectral_norms(), &[golden.number("lipschitz_per_layer"); 3], 1e-3);

    let cx = Context::new(0);
    let tensor = |values: Vec<f64>| f64::tensor(values, (rows, dim));
    let (y, kept) = flow.forward_keeping(tensor(golden.values("x")), &cx).unwrap();
    assert_close("y", &to_host(&y.value), &golden.values("y"), 1e-9);
    assert_close("log-det", &to_host(&y.log_det.value), &golden.values("logdet"), 1e-9);
    let x = flow.inverse(y.value, &cx).unwrap();
    assert_close("x", &to_host(&x.value), &golden.values("x"), 1e-9);
    for point in [Point::Kept(kept), Point::Input(tensor(golden.values("x")))] {
        let log_det = f64::tensor(vec![1.0; rows], (rows,));
        let mut gradients = Gradients::zeros(&flow);
        flow.pullback(point, Cotangent { value: tensor(vec![0.0; rows * dim]), log_det }, &mut gradients, &cx).unwrap();
        for (letter, kind) in [('w', "weight"), ('b', "bias")] {
            for layer in 0..3 {
                let name = format!("grad_logdet.{letter}{}", layer + 1);
                assert_close(&name, gradients.get(&format!("net.layers.{layer}.{kind}")).unwrap(), &golden.values(&name), 1e-9);
            }
        }
    }
}
