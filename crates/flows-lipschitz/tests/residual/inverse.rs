//! The inverse through the flow: tolerances, reports and failures.

use crate::common::{Flow, flow, forward, inverse, normal, set, spec};
use dfdx::prelude::{Cpu, TensorFromVec};
use flow_api::module::{EntryMut, update};
use flow_api::rows::Rows;
use flow_api::{Bijector, Context, FlowError, to_host};
use flows_lipschitz::{FixedPoint, Residual, ResidualFlow};

/// The default tolerances are reached, as the true residual says, and the report tells how.
#[test]
fn default_tolerances_are_reached() {
    for anderson in [0, 3] {
        let spec = Residual { inverse: FixedPoint { anderson, ..FixedPoint::default() }, ..spec() };
        let flow = flow(&spec, 6);
        // Rows of several sizes.
        let y: Vec<f64> =
            normal(40 * 6, 1).iter().enumerate().map(|(i, v)| v * 10f64.powi(i32::try_from(i / 6 % 4).unwrap() - 2)).collect();
        let cx = Context::new(0);
        let x = inverse(&flow, &y, &cx);
        let again = forward(&flow, &x.value, &cx);
        let residual = |r: usize| (0..6).map(|j| (again.value[r * 6 + j] - y[r * 6 + j]).powi(2)).sum::<f64>().sqrt();
        let largest = (0..40).map(residual).fold(0.0, f64::max);
        assert!(largest <= 1e-10 && x.report.residual <= 1e-10 && (x.report.residual - largest).abs() < 1e-12);
        assert!(x.report.iterations > 1 && x.report.evaluations == x.report.iterations);
        assert_eq!((again.report.evaluations, again.report.iterations), (1, 0));
        for (there, back) in x.log_det.iter().zip(&again.log_det) {
            assert!((there + back).abs() < 1e-12);
        }
    }
    let spec = Residual::default();
    let flow = Rows(ResidualFlow::<f32>::new(&spec, 48, 3).unwrap());
    let y: Vec<f32> = normal(200 * 48, 2).into_iter().map(flow_kernels::Real::of).collect();
    let cx = Context::new(0);
    let x = flow.inverse(Cpu::default().tensor_from_vec(y.clone(), (200, 48)), &cx).unwrap();
    let again = to_host(&flow.forward(x.value, &cx).unwrap().value);
    let largest = y
        .chunks(48)
        .zip(again.chunks(48))
        .map(|(a, b)| a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f32>().sqrt())
        .fold(0.0, f32::max);
    assert!(largest <= 2e-5 && x.report.residual <= 1e-5, "{largest}, {:?}", x.report);
}

/// What is found is as good as its report says where squares overflow, and where rounding is that of a g(x) much larger
/// than y.
#[test]
fn sizes_that_are_out_of_the_ordinary() {
    let solved = |what: &str, bias: f32, size: f32, inverse: FixedPoint| {
        let spec = Residual { hidden: 64, inverse, ..Residual::default() };
        let mut flow = Rows(ResidualFlow::<f32>::new(&spec, 48, 3).unwrap());
        update(&mut flow, |path, entry| {
            if let (EntryMut::Parameter { values, .. }, "net.layers.2.bias") = (entry, path) {
                values.fill(bias);
            }
        })
        .unwrap();
        let y = Cpu::default().tensor_from_vec(vec![size; 2 * 48], (2, 48));
        let report = flow.inverse(y, &Context::new(0)).unwrap_or_else(|error| panic!("{what}: {error}")).report;
        let rounding = 4.0 * f64::from(f32::EPSILON * size.max(bias)) * 8.0;
        assert!(report.residual <= rounding.max(1e-5), "{what}: {report:?}");
    };
    solved("large y", 0.0, 1e20, FixedPoint::default());
    solved("large g(x)", 1e4, 0.1, FixedPoint::default());
    // No number of f32, and so what any residual that is one keeps to.
    let generous = FixedPoint { tolerance: Some(1e39), ..FixedPoint::default() };
    let flow = Rows(ResidualFlow::<f32>::new(&Residual { inverse: generous, ..Residual::default() }, 2, 3).unwrap());
    let x = flow.inverse(Cpu::default().tensor_from_vec(vec![1e30, -1e30], (1, 2)), &Context::new(0)).unwrap();
    assert!(x.report.residual.is_finite() && x.report.iterations == 1, "{:?}", x.report);
}

/// Weights that have outgrown what is known of their norms: the flow is no contraction, and says so with the layer, the
/// row and what was reached.
fn expanding(anderson: usize) -> Flow {
    let spec = Residual { layers: 1, inverse: FixedPoint { anderson, max_iterations: 50, ..FixedPoint::default() }, ..spec() };
    let mut flow: Flow = Rows(ResidualFlow::new(&spec, 2, 5).unwrap());
    // A rotation that also grows.
    set(&mut flow, "net.layers.0.weight", &[0.0, -30.0, 30.0, 0.0]);
    set(&mut flow, "net.layers.0.bias", &[1.0, 1.0]);
    // The state of the power iteration says that the norm is 0: nothing is divided.
    update(&mut flow, |path, entry| {
        if let (EntryMut::Reals(values), "spectral.0.u") = (entry, path) {
            values.fill(0.0);
        }
    })
    .unwrap();
    flow
}

#[test]
fn what_is_no_contraction_is_an_error() {
    let cx = Context::new(0);
    let expanding = expanding(0);
    let y = Cpu::default().tensor_from_vec(vec![1.0, 2.0, 0.5, 0.1], (2, 2));
    let error = expanding.inverse(y, &cx).expect_err("it converged");
    let FlowError::NotConverged { iterations, residual, tolerance, .. } = &error else { panic!("{error}") };
    assert!(*iterations <= 50 && (residual.is_nan() || *residual > 1.0) && (*tolerance - 1e-10).abs() < 1e-20, "{error}");
}

#[test]
fn rows_that_are_no_numbers_are_named() {
    let flow = flow(&spec(), 3);
    let cx = Context::new(0);
    for bad in [f64::NAN, f64::INFINITY] {
        let mut x = normal(15, 3);
        x[10] = bad;
        let tensor = || Cpu::default().tensor_from_vec(x.clone(), (5, 3));
        for result in [flow.forward(tensor(), &cx), flow.inverse(tensor(), &cx)] {
            let error = result.expect_err("it was accepted");
            assert!(matches!(error, FlowError::NotFinite { row: 3, .. }), "{error}");
        }
    }
}
