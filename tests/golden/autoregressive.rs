//! Autoregressive flows against nflows' masked transforms: values, log-dets, gradients, inverses.

use super::{Golden, assert_close};
use flow_api::bijector::{Cotangent, Point};
use flow_api::module::{EntryMut, update};
use flow_api::{Gradients, to_host};
use mixerflow_toolkit::coupling::RationalQuadratic;
use mixerflow_toolkit::prelude::*;

/// Of the biases of a spline's slopes the toolkit's differ by an offset: their rows in the last layer.
fn slope_offset(golden: &Golden, row: usize) -> f64 {
    let Some(bins) = golden.meta["bins"].as_u64().map(|bins| usize::try_from(bins).unwrap()) else { return 0.0 };
    if row % (3 * bins - 1) < 2 * bins {
        0.0
    } else {
        RationalQuadratic::<f64>::new(bins, golden.number("tail_bound")).unwrap().slope_offset()
    }
}

fn agrees(name: &str, transformer: &str) {
    let golden = Golden::open(name);
    let (dim, hidden, blocks) = (golden.size("dim"), golden.size("hidden"), golden.size("blocks"));
    for inverse in ["Sequential", "Jacobi(tolerance: 1e-11)"] {
        let text = format!("Autoregressive(hidden: {hidden}, blocks: {blocks}, transformer: {transformer}, inverse: {inverse})");
        let spec: FlowSpec = from_ron(&text).unwrap();
        let flow = f64::row_flow(&spec, dim, &BuildScope::new(0)).unwrap();
        let mut flow = Rows(RowChain::new(dim, vec![flow]).unwrap());
        update(&mut flow, |path, entry| {
            if let EntryMut::Parameter { values, .. } = entry {
                let path = path.strip_prefix("0.").unwrap();
                let from = golden.values(path);
                assert_eq!(values.len(), from.len(), "{path}");
                values.copy_from_slice(&from);
                if path == "net.final.bias" {
                    values.iter_mut().enumerate().for_each(|(row, bias)| *bias -= slope_offset(&golden, row));
                }
            }
        })
        .unwrap();
        let x = golden.values("x");
        let (rows, cx) = (x.len() / dim, Context::new(0));
        let tensor = |values: Vec<f64>| f64::tensor(values, (rows, dim));
        let mapped = flow.forward(tensor(x.clone()), &cx).unwrap();
        assert_close("y", &to_host(&mapped.value), &golden.values("y"), 1e-9);
        assert_close("log-det", &to_host(&mapped.log_det.value), &golden.values("logdet"), 1e-9);

        let back = flow.inverse(tensor(golden.values("y")), &cx).unwrap();
        assert_close("x from y", &to_host(&back.value), &x, 1e-9);
        let negative: Vec<f64> = to_host(&back.log_det.value).iter().map(|l| -l).collect();
        assert_close("log-det of the inverse", &negative, &golden.values("logdet"), 1e-9);

        // `meta.grad_of`: ⟨linspace(−1, 1), y⟩ + Σ logdet.
        let last = (x.len() - 1) as f64;
        let value = tensor((0..x.len()).map(|k| 2.0 * k as f64 / last - 1.0).collect());
        let mut gradients = Gradients::zeros(&flow);
        let cotangent = Cotangent { value, log_det: f64::tensor(vec![1.0; rows], (rows,)) };
        let pulled = flow.pullback(Point::Input(tensor(x)), cotangent, &mut gradients, &cx).unwrap();
        assert_close("grad.x", &to_host(&pulled.cotangent), &golden.values("grad.x"), 1e-9);
        let mut compared = 0;
        for (path, gradient) in gradients.iter() {
            let path = path.strip_prefix("0.").unwrap();
            assert_close(&format!("grad.{path}"), gradient, &golden.values(&format!("grad.{path}")), 1e-9);
            compared += 1;
        }
        assert_eq!(compared, golden.names().iter().filter(|name| name.starts_with("grad.net.")).count());
    }
}

#[test]
fn affine_autoregressive_flows_agree_with_nflows() {
    agrees("autoregressive_affine", "Affine(bound: 2.0)");
}

#[test]
fn spline_autoregressive_flows_agree_with_nflows() {
    let golden = Golden::open("autoregressive_spline");
    agrees("autoregressive_spline", &format!("Spline(bins: {}, tail_bound: {:?})", golden.size("bins"), golden.number("tail_bound")));
}
