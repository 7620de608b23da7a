//! Flows against closed forms, and what they promise of blocks, threads and errors.

use crate::common::{assert_close, dopri5, flow, forward, inverse, linear, normal, set};
use dfdx::prelude::{Cpu, TensorFromVec};
use flow_api::log_det::LogDetKind;
use flow_api::rows::Rows;
use flow_api::{Bijector, Context, FlowError, RowFlow as _, to_host};
use flows_ffjord::ode::{Adaptive, Fixed, Solver};
use flows_ffjord::{ContinuousFlow, EndTime, Ffjord, TimeInput, Trace};

fn cx() -> Context<f64> {
    Context::new(1)
}

/// exp(A t) by scaling, squaring and a series.
fn matrix_exponential(a: &[f64], n: usize, t: f64) -> Vec<f64> {
    let product =
        |x: &[f64], y: &[f64]| -> Vec<f64> { (0..n * n).map(|i| (0..n).map(|k| x[i / n * n + k] * y[k * n + i % n]).sum()).collect() };
    let scaled: Vec<f64> = a.iter().map(|a| a * t / 1024.0).collect();
    let identity: Vec<f64> = (0..n * n).map(|i| f64::from(u8::from(i / n == i % n))).collect();
    let (mut sum, mut term) = (identity.clone(), identity);
    for k in 1..20 {
        term = product(&term, &scaled).iter().map(|x| x / f64::from(k)).collect();
        sum.iter_mut().zip(&term).for_each(|(s, t)| *s += t);
    }
    (0..10).for_each(|_| sum = product(&sum, &sum));
    sum
}

#[test]
fn a_linear_field_gives_the_matrix_exponential() {
    let (dim, rows, end) = (3, 5, 1.7);
    let a = normal(dim * dim, 3);
    let x = normal(rows * dim, 4);
    let exponential = matrix_exponential(&a, dim, end);
    let expected: Vec<f64> =
        (0..rows * dim).map(|i| (0..dim).map(|k| exponential[i % dim * dim + k] * x[i / dim * dim + k]).sum()).collect();
    let trace = a[0] + a[4] + a[8];
    for solver in
        [dopri5(1e-8), Solver::Rk4(Fixed { steps: 200 }), Solver::Bosh3(Adaptive { rtol: 1e-8, atol: 1e-8, ..Adaptive::default() })]
    {
        let flow = linear(&a, dim, &Ffjord { solver, end_time: EndTime::Fixed(end), ..Ffjord::default() });
        let y = forward(&flow, &x, &cx());
        assert_close("exp(A T) x", &y.value, &expected, 1e-6);
        assert_close("T tr A", &y.log_det, &vec![trace * end; rows], 1e-7);
        let back = inverse(&flow, &y.value, &cx());
        assert_close("time reversed", &back.value, &x, 1e-6);
        assert_close("log-det reversed", &back.log_det, &vec![-trace * end; rows], 1e-7);
    }
}

#[test]
fn a_rotation_keeps_norms_and_volume() {
    let a = [0.0, -2.0, 0.5, 2.0, 0.0, 1.0, -0.5, -1.0, 0.0];
    let flow = linear(&a, 3, &Ffjord { solver: dopri5(1e-9), ..Ffjord::default() });
    let x = normal(12, 8);
    let y = forward(&flow, &x, &cx());
    let norms = |v: &[f64]| v.chunks_exact(3).map(|row| row.iter().map(|x| x * x).sum::<f64>().sqrt()).collect::<Vec<_>>();
    assert_close("norms", &norms(&y.value), &norms(&x), 1e-7);
    assert_close("log-det", &y.log_det, &[0.0; 4], 1e-9);
}

#[test]
fn a_constant_field_shifts() {
    for time in [TimeInput::Autonomous, TimeInput::Concat, TimeInput::ConcatSquash] {
        let spec = Ffjord { time, hidden: 4, end_time: EndTime::Fixed(0.5), ..Ffjord::default() };
        let mut flow = flow(&spec, 2);
        set(&mut flow, "field.net.layers.2.weight", &[0.0; 8]);
        set(&mut flow, "field.net.layers.2.bias", &[1.0, -3.0]);
        if time != TimeInput::Autonomous {
            set(&mut flow, "field.time_shift", &[0.0; 10]);
        }
        if time == TimeInput::ConcatSquash {
            // σ(0) = 1/2.
            set(&mut flow, "field.time_gate", &[0.0; 10]);
            set(&mut flow, "field.time_gate_bias", &[0.0; 10]);
        }
        let gate = if time == TimeInput::ConcatSquash { 0.5 } else { 1.0 };
        let y = forward(&flow, &[0.1, 0.2, 0.3, 0.4], &cx());
        let expected: Vec<f64> = [0.1, 0.2, 0.3, 0.4].iter().zip([0.5, -1.5, 0.5, -1.5]).map(|(x, shift)| x + gate * shift).collect();
        assert_close("shifted", &y.value, &expected, 1e-12);
        assert_close("log-det", &y.log_det, &[0.0; 2], 1e-12);
    }
}

#[test]
fn evaluations_rise_as_the_tolerance_falls() {
    let evaluations = [1e-3, 1e-5, 1e-7, 1e-9].map(|tolerance| {
        let flow = flow(&Ffjord { hidden: 16, solver: dopri5(tolerance), ..Ffjord::default() }, 4);
        let report = forward(&flow, &normal(40, 2), &cx()).report;
        assert_eq!(report.evaluations, 2 + 6 * (report.iterations + report.rejected));
        report.evaluations
    });
    assert!(evaluations.is_sorted() && evaluations[0] < evaluations[3], "{evaluations:?}");
}

fn round_trip<E: flow_api::Scalar>(tolerance: f64, accept: f64) {
    for time in [TimeInput::Autonomous, TimeInput::Concat, TimeInput::ConcatSquash] {
        let spec = Ffjord { hidden: 32, time, solver: dopri5(tolerance), zero_init: false, ..Ffjord::default() };
        let flow = Rows(ContinuousFlow::<E>::new(&spec, 6, 9).unwrap());
        let x: Vec<E> = normal(200 * 6, 1).into_iter().map(E::of).collect();
        let cx = Context::new(0);
        let y = flow.forward(E::tensor(x.clone(), (200, 6)), &cx).unwrap();
        let back = flow.inverse(y.value, &cx).unwrap();
        for (b, x) in to_host(&back.value).iter().zip(&x) {
            assert!((b.as_f64() - x.as_f64()).abs() <= accept, "{time:?}: {x} came back as {b}");
        }
        for (a, b) in to_host(&y.log_det.value).iter().zip(to_host(&back.log_det.value)) {
            assert!((a.as_f64() + b.as_f64()).abs() <= 10.0 * accept, "{time:?}: log-dets {a} and {b}");
        }
    }
}

#[test]
fn round_trips() {
    round_trip::<f32>(1e-6, 1e-5);
    round_trip::<f64>(1e-11, 1e-9);
}

#[test]
fn it_starts_as_the_identity() {
    let flow = Rows(ContinuousFlow::<f64>::new(&Ffjord::default(), 3, 1).unwrap());
    let x = normal(9, 1);
    let y = forward(&flow, &x, &cx());
    assert_eq!((y.value, y.log_det), (x, vec![0.0; 3]));
}

/// Results agree within the tolerance however the batch is cut, and a row that needs small steps changes nothing in
/// other blocks.
#[test]
fn blocks_step_by_their_own_error() {
    let spec = Ffjord { hidden: 16, solver: dopri5(1e-7), ..Ffjord::default() };
    let flow = flow(&spec, 2);
    let x = normal(2 * 300, 6);
    let whole = forward(&flow, &x, &cx());
    for (i, row) in x.chunks_exact(2).enumerate().step_by(29) {
        let alone = forward(&flow, row, &cx());
        assert_close("value", &alone.value, &whole.value[2 * i..2 * i + 2], 1e-5);
        assert_close("log-det", &alone.log_det, &whole.log_det[i..=i], 1e-5);
    }
    let mut hard = x;
    hard[..2].copy_from_slice(&[300.0, -500.0]);
    let other = forward(&flow, &hard, &cx());
    assert_ne!(other.value[2..256], whole.value[2..256]);
    assert_eq!((&other.value[256..], &other.log_det[128..]), (&whole.value[256..], &whole.log_det[128..]));
}

#[test]
fn results_do_not_depend_on_threads() {
    let mut spec = Ffjord { hidden: 16, ..Ffjord::default() };
    spec.evaluation_trace = spec.trace;
    let flow = flow(&spec, 3);
    let x = normal(3 * 1000, 6);
    let with = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let y = forward(&flow, &x, &crate::common::training());
            let (dx, gradients) = crate::common::pullback(&flow, &x, &y.value, &vec![-1.0; 1000], &crate::common::training());
            (y.value, y.log_det, dx, gradients.values().to_vec())
        })
    };
    assert!(with(1) == with(3));
}

#[test]
fn what_is_not_finite_is_an_error_that_names_its_row() {
    let flow = flow(&Ffjord { hidden: 8, ..Ffjord::default() }, 2);
    let mut x = normal(2 * 200, 1);
    x[2 * 150] = f64::NAN;
    let device = Cpu::default();
    let error = flow.forward(device.tensor_from_vec(x, (200, 2)), &cx()).unwrap_err();
    assert!(matches!(error, FlowError::NotFinite { row: 150, .. }), "{error}");
}

#[test]
fn stiffness_is_an_error() {
    let limited = Solver::Dopri5(Adaptive { max_evaluations: 500, ..Adaptive::default() });
    let flow = linear(&[-1e7, 0.0, 0.0, -1.0], 2, &Ffjord { solver: limited, ..Ffjord::default() });
    let device = Cpu::default();
    let error = flow.forward(device.tensor_from_vec(vec![1.0; 4], (2, 2)), &cx().child("layers").child(3)).unwrap_err();
    assert!(matches!(&error, FlowError::TooManyEvaluations { layer, limit: 500, .. } if layer == "layers.3"), "{error}");
    // A step that vanishes is one too.
    let coarse = Solver::Dopri5(Adaptive { smallest_step: 1e-3, ..Adaptive::default() });
    let flow = linear(&[-1e7, 0.0, 0.0, -1.0], 2, &Ffjord { solver: coarse, ..Ffjord::default() });
    let error = flow.forward(device.tensor_from_vec(vec![1.0; 4], (2, 2)), &cx()).unwrap_err();
    assert!(matches!(error, FlowError::StepUnderflow { dt, .. } if dt < 1e-3), "{error}");
}

/// Sampling does not pay for a trace that nobody reads.
#[test]
fn log_dets_can_be_left_out() {
    let flow = flow(&Ffjord { hidden: 8, solver: dopri5(1e-8), ..Ffjord::default() }, 3);
    let x = normal(30, 1);
    let y = forward(&flow, &x, &cx());
    let without = cx().without_log_det();
    let bare = forward(&flow, &x, &without);
    assert_close("value", &bare.value, &y.value, 1e-6);
    assert!(y.log_det.iter().all(|l| l.abs() > 0.0) && bare.log_det.iter().all(|l| l.abs().to_bits() == 0));
    assert_close("inverse", &inverse(&flow, &y.value, &without).value, &x, 1e-6);
}

#[test]
fn rows_can_be_carried_part_of_the_way() {
    let flow = flow(&Ffjord { hidden: 8, solver: dopri5(1e-9), end_time: EndTime::Learned(0.8), ..Ffjord::default() }, 2);
    let x = normal(20, 1);
    assert!((flow.0.end_time() - 0.8).abs() < 1e-12);
    let cx = cx();
    let half = flow.0.transport(&x, 0.0, 0.3, &cx).unwrap();
    let whole = flow.0.transport(&half, 0.3, flow.0.end_time(), &cx).unwrap();
    assert_close("two parts", &whole, &forward(&flow, &x, &cx).value, 1e-7);
    assert_close("nothing", &flow.0.transport(&x, 0.4, 0.4, &cx).unwrap(), &x, 0.0);
    assert!(flow.0.transport(&x[..3], 0.0, 1.0, &cx).is_err());
    // ẋ = f(x, t).
    let (h, t) = (1e-4, 0.3);
    let ahead = flow.0.transport(&half, t, t + h, &cx).unwrap();
    let behind = flow.0.transport(&half, t, t - h, &cx).unwrap();
    let speed: Vec<f64> = ahead.iter().zip(&behind).map(|(a, b)| (a - b) / (2.0 * h)).collect();
    assert_close("velocity", &flow.0.field().evaluate(&half, t, &cx).unwrap(), &speed, 1e-5);
}

/// An Euler step of ż = −a z is x → (1 − a) x, and back (1 + a): the log-det is that of the continuous flow, −a, and
/// not ln|1 − a|, and the report tells how far the inverse is off.
#[test]
fn fixed_steps_measure_the_residual_of_their_inverse() {
    let a = 0.5;
    let x = normal(2 * 200, 3);
    let norm = |row: &[f64]| row.iter().map(|x| x * x).sum::<f64>().sqrt();
    let largest = x.chunks_exact(2).map(norm).fold(0.0, f64::max);
    let euler = |steps| linear(&[-a, 0.0, 0.0, -a], 2, &Ffjord { solver: Solver::Euler(Fixed { steps }), ..Ffjord::default() });
    for cx in [cx(), cx().without_log_det()] {
        let one = euler(1);
        let y = forward(&one, &x, &cx);
        assert_close("a step", &y.value, &x.iter().map(|x| (1.0 - a) * x).collect::<Vec<_>>(), 1e-7);
        let log_det = if cx.wants_log_det() { -2.0 * a } else { 0.0 };
        assert_close("the integrated trace", &y.log_det, &[log_det; 200], 1e-7);
        let back = inverse(&one, &x, &cx);
        assert!((back.report.residual - a * a * largest).abs() < 1e-6, "{:?}: a² · {largest}", back.report);
        assert_eq!((back.report.evaluations, back.report.iterations, y.report.residual), (2, 1, 0.0));
        let fine = inverse(&euler(1000), &x, &cx).report.residual;
        assert!(fine > 0.0 && fine < 2e-3 * back.report.residual, "{fine}");
    }
}

/// An adaptive solver's estimate of its inverse's residual is on the safe side, and falls with the tolerance.
#[test]
fn adaptive_solvers_estimate_the_residual_of_their_inverse() {
    for tolerance in [1e-4, 1e-6, 1e-8] {
        let bosh3 = Solver::Bosh3(Adaptive { rtol: tolerance, atol: tolerance, ..Adaptive::default() });
        for solver in [dopri5(tolerance), bosh3] {
            let flow = flow(&Ffjord { hidden: 16, solver, ..Ffjord::default() }, 3);
            let y = normal(3 * 100, 5);
            let back = inverse(&flow, &y, &cx());
            let exact = crate::common::flow(&Ffjord { hidden: 16, solver: dopri5(1e-12), ..Ffjord::default() }, 3);
            let again = forward(&exact, &back.value, &cx()).value;
            let squares = y.iter().zip(&again).map(|(y, again)| (y - again).powi(2)).sum::<f64>();
            let (rms, estimate) = ((squares / y.len() as f64).sqrt(), back.report.residual);
            assert!(estimate > rms && estimate < 1e3 * tolerance, "{solver:?}: estimated {estimate}, measured {rms}");
        }
    }
}

/// The error that an adaptive solver tells of its log-dets is of the order of the true one or above, against a solve at
/// a tolerance of 1e-12, and falls with the tolerance; a fixed grid says that it knows none, and a call without
/// log-dets has none.
#[test]
fn solvers_tell_the_error_of_their_log_dets() {
    let x = normal(2 * 200, 8);
    let steep = |solver| {
        let mut flow = flow(&Ffjord { hidden: 16, layers: 3, solver, trace: Trace::Exact, ..Ffjord::default() }, 2);
        flow_api::module::update(&mut flow, |path, entry| {
            if let flow_api::module::EntryMut::Parameter { values, .. } = entry {
                let noise = normal(values.len(), path.len() as u64);
                values.iter_mut().zip(noise).for_each(|(value, noise)| *value = 2.5 * *value + 0.3 * noise);
            }
        })
        .unwrap();
        flow
    };
    let truth = forward(&steep(dopri5(1e-12)), &x, &cx()).log_det;
    let bosh3 = |tolerance| Solver::Bosh3(Adaptive { rtol: tolerance, atol: tolerance, ..Adaptive::default() });
    for (name, solver) in [("dopri5", dopri5 as fn(f64) -> Solver), ("bosh3", bosh3)] {
        for tolerance in [1e-3, 1e-4, 1e-6] {
            let found = forward(&steep(solver(tolerance)), &x, &cx());
            let error = found.log_det.iter().zip(&truth).map(|(found, truth)| (found - truth).abs()).fold(0.0, f64::max);
            let told = found.report.log_det_error;
            assert!(told > 0.2 * error && told < 1e4 * tolerance, "{name}, {tolerance:e}: {told:e}, off by {error:e}");
        }
    }
    let fixed = steep(Solver::Rk4(Fixed { steps: 4 }));
    assert_eq!(fixed.0.facts().log_det, LogDetKind::Solved);
    assert!(forward(&fixed, &x, &cx()).report.log_det_error.is_infinite());
    let unasked = forward(&steep(dopri5(1e-4)), &x, &cx().without_log_det());
    assert!(unasked.report.log_det_error.abs() < f64::MIN_POSITIVE);
}
