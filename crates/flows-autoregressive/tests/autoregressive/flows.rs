//! Every variant through the conformance suite, against its plain form, and what is known of its Jacobian and its
//! costs.

use super::common::{Batch, Flow, batch, build, context, difference, normal, seeded};
use flow_api::bijector::{Cotangent, Point};
use flow_api::compose::InverseOf;
use flow_api::context::Kernels;
use flow_api::module::parameter_count;
use flow_api::spec::SpecScalar;
use flow_api::testkit::{Subject, assert_conforms, check_precision};
use flow_api::{Bijector, Context, Gradients, InverseKind, Memory, to_host};

/// Spec and features: every transformer, order, activation and inverse; one feature, networks narrower than features,
/// conditions.
const CASES: &[(&str, usize)] = &[
    ("Autoregressive(hidden: 8)", 3),
    ("Autoregressive(hidden: 7, blocks: 2, activation: Tanh, order: Reverse)", 5),
    ("Autoregressive(hidden: 9, activation: Silu, order: Random, transformer: Affine(bound: 0.7))", 6),
    ("Autoregressive(hidden: 8, activation: Gelu, transformer: Additive, order: Reverse)", 4),
    ("Autoregressive(hidden: 8, transformer: Spline(bins: 4))", 4),
    ("Autoregressive(hidden: 10, activation: Tanh, transformer: Spline(bins: 3, tail_bound: 1.5), order: Random, condition: 2)", 3),
    ("Autoregressive(hidden: 8, blocks: 2, activation: Tanh, condition: 3)", 4),
    ("Autoregressive(hidden: 4)", 1),
    ("Autoregressive(hidden: 4, transformer: Spline(bins: 4), condition: 3)", 1),
    ("Autoregressive(hidden: 3, activation: Silu)", 7),
    ("Autoregressive(hidden: 8, inverse: Jacobi(), order: Random)", 5),
    ("Autoregressive(hidden: 8, transformer: Spline(bins: 4), inverse: Jacobi(tolerance: 1e-11), condition: 2)", 4),
];

/// The width that a spec asks for.
fn condition(ron: &str) -> Option<usize> {
    let digits = ron.split_once("condition: ")?.1;
    digits.trim_end_matches(')').parse().ok()
}

fn is_spline(ron: &str) -> bool {
    ron.contains("Spline")
}

#[test]
fn flows_conform() {
    for &(ron, dim) in CASES {
        let iterative = ron.contains("Jacobi");
        let subject = Subject {
            condition: condition(ron),
            identity_start: true,
            inverse_tolerance: iterative.then_some(1e-10),
            ..Subject::new(ron, dim)
        };
        let double = |seed| Ok(seeded::<f64>(ron, dim, seed).unwrap());
        assert_conforms(&subject, double);
        check_precision(&subject, |seed| Ok(seeded::<f32>(ron, dim, seed).unwrap()), double).unwrap();
    }
}

/// The inverse autoregressive form: its pullback starts at its input, through the inner inverse.
#[test]
fn turned_round_they_conform() {
    for (ron, dim) in [
        ("Autoregressive(hidden: 8, activation: Tanh)", 3),
        ("Autoregressive(hidden: 8, activation: Tanh, order: Reverse, transformer: Spline(bins: 4), condition: 2)", 4),
    ] {
        let subject = Subject { condition: condition(ron), identity_start: true, ..Subject::new(format!("InverseOf {ron}"), dim) };
        assert_conforms(&subject, |seed| Ok(InverseOf::new(seeded::<f64>(ron, dim, seed).unwrap())));
    }
}

/// ∂L/∂x and the gradients of all parameters of a loss with fixed random weights.
fn pull<E: SpecScalar>(flow: &Flow<E>, x: &Batch<E>, dim: usize, cx: &Context<E>) -> (Vec<E>, Vec<E>) {
    let rows = to_host(x).len() / dim;
    let cotangent = Cotangent { value: batch(normal(rows * dim, "w"), dim), log_det: E::tensor(normal(rows, "v"), (rows,)) };
    let mut gradients = Gradients::zeros(flow);
    let pulled = flow.pullback(Point::Input(x.clone()), cotangent, &mut gradients, cx).unwrap();
    (to_host(&pulled.cotangent), gradients.values().to_vec())
}

/// The plain form masks its own weights and inverts by d whole passes.
#[test]
fn fused_kernels_equal_plain_operations() {
    fn check<E: SpecScalar>(tolerance: f64) {
        for &(ron, dim) in CASES.iter().filter(|(ron, _)| !is_spline(ron)) {
            let rows = 300; // several blocks, the last one short
            let flow = build::<E>(ron, dim, 0.2);
            let x = batch(normal::<E>(rows * dim, "x"), dim);
            let run = |kernels| {
                let cx = context(rows, condition(ron), kernels);
                let forward = flow.forward(x.clone(), &cx).unwrap();
                let inverse = flow.inverse(x.clone(), &cx).unwrap();
                let (for_x, for_parameters) = pull(&flow, &x, dim, &cx);
                let [(y, l), (z, m)] = [forward, inverse].map(|mapped| (to_host(&mapped.value), to_host(&mapped.log_det.value)));
                [y, l, z, m, for_x, for_parameters]
            };
            for (k, (fused, plain)) in run(Kernels::Fused).iter().zip(run(Kernels::Taped)).enumerate() {
                // Jacobi's iteration stops at its tolerance.
                let solved = if ron.contains("Jacobi") && (k == 2 || k == 3) { 2e2 * tolerance } else { tolerance };
                let difference = difference(fused, &plain);
                assert!(difference < solved, "{ron}: quantity {k} differs by {difference}");
            }
        }
    }
    check::<f64>(1e-12);
    check::<f32>(2e-5);
}

/// Feature π(p) of the output depends on π(0), …, π(p), on the condition, and on nothing else, to the bit.
#[test]
fn outputs_depend_on_what_comes_before_them() {
    for &(ron, dim) in CASES {
        let flow = build::<f64>(ron, dim, 0.3);
        let order: Vec<usize> = if ron.contains("Reverse") {
            (0..dim).rev().collect()
        } else if ron.contains("Random") {
            let mut order = Vec::new();
            flow_api::module::visit(&flow, |_, entry| {
                if let flow_api::module::Entry::Indices(indices) = entry {
                    order.extend_from_slice(indices);
                }
            });
            // One of three features may be the identity.
            assert!(dim < 4 || order != (0..dim).collect::<Vec<_>>(), "{ron}");
            order
        } else {
            (0..dim).collect()
        };
        let x: Vec<f64> = normal::<f64>(dim, "x").iter().map(|x| 0.3 * x).collect();
        let run = |x: &[f64], shift: f64| {
            let mut cx = Context::new(1);
            if let Some(width) = condition(ron) {
                cx = cx.with_condition(batch(vec![0.4 + shift; width], width));
            }
            to_host(&flow.forward(batch(x.to_vec(), dim), &cx).unwrap().value)
        };
        let before = run(&x, 0.0);
        let narrow = ron.contains("hidden: 3,");
        for (place, &changed) in order.iter().enumerate() {
            let mut other = x.clone();
            other[changed] += 0.2;
            let after = run(&other, 0.0);
            for (later, &feature) in order.iter().enumerate() {
                let moved = before[feature].to_bits() != after[feature].to_bits();
                assert!(moved == (later >= place) || narrow && !moved, "{ron}: {changed} → {feature}: {moved}");
            }
        }
        let conditioned = run(&x, 0.5);
        let moved = before.iter().zip(&conditioned).all(|(a, b)| a.to_bits() != b.to_bits());
        assert_eq!(moved, condition(ron).is_some(), "{ron}");
    }
}

#[test]
fn starts_as_the_identity_to_the_bit() {
    fn check<E: SpecScalar>() {
        for &(ron, dim) in CASES {
            let (flow, cx) = (seeded::<E>(ron, dim, 5).unwrap(), context(6, condition(ron), Kernels::Fused));
            let x = normal::<E>(6 * dim, "x");
            for mapped in [flow.forward(batch(x.clone(), dim), &cx).unwrap(), flow.inverse(batch(x.clone(), dim), &cx).unwrap()] {
                assert_eq!(to_host(&mapped.value), x, "{ron}");
                assert!(to_host(&mapped.log_det.value).iter().all(|l| *l == E::zero()), "{ron}");
            }
        }
    }
    check::<f32>();
    check::<f64>();
}

#[test]
fn extreme_inputs_and_parameters_stay_finite() {
    for &(ron, dim) in CASES.iter().filter(|(ron, _)| !ron.contains("Jacobi")) {
        for amount in [0.0, 0.3, 3.0] {
            let flow = build::<f32>(ron, dim, amount);
            let x = [0.0, -0.0, 3.0, -3.0, 1e3, -1e3, 1e-30, 17.5].iter().flat_map(|&x| vec![x; dim]).collect::<Vec<f32>>();
            let (x, cx) = (batch(x, dim), context(8, condition(ron), Kernels::Fused));
            let forward = flow.forward(x.clone(), &cx).unwrap();
            let (for_x, for_parameters) = pull(&flow, &x, dim, &cx);
            for values in [&to_host(&forward.value), &to_host(&forward.log_det.value), &for_x, &for_parameters] {
                assert!(values.iter().all(|v| v.is_finite()), "{ron} {amount}: {values:?}");
            }
        }
    }
}

/// What an inverse costs is said, and the memory setting that inverts in a training step does not take it.
#[test]
fn costs_are_told() {
    for (ron, inverse) in [
        ("Autoregressive(hidden: 8)", InverseKind::Sequential(6)),
        ("Autoregressive(hidden: 8, inverse: Jacobi())", InverseKind::Iterative),
    ] {
        let flow = seeded::<f32>(ron, 6, 1).unwrap();
        let mut table = Vec::new();
        Bijector::<(usize, usize), f32>::describe(&flow, "", &(1, 6), &mut table).unwrap();
        assert_eq!((table[0].kind.as_str(), table[0].inverse), ("Autoregressive", inverse));
        // 6 → 8, two layers of a block, 8 → 12.
        assert_eq!(table[0].multiply_adds, 8 * (6 + 2 * 8 + 12));
        assert_eq!(table[0].parameters, parameter_count(&flow));
        assert_eq!(Memory::Invert.keep(inverse), flow_api::context::Keep::Input);
    }
}

/// Jacobi's iteration is exact after as many passes as there are features, and takes fewer where features depend weakly
/// on each other.
#[test]
fn jacobi_takes_as_many_passes_as_dependence_asks_for() {
    let (ron, dim, rows) = ("Autoregressive(hidden: 24, activation: Tanh, inverse: Jacobi(tolerance: 1e-9))", 12, 40);
    let sequential = ron.replace("Jacobi(tolerance: 1e-9)", "Sequential");
    for (amount, most) in [(0.0, 1), (0.05, 8), (0.5, dim + 1)] {
        let (flow, other) = (build::<f64>(ron, dim, amount), build::<f64>(&sequential, dim, amount));
        let y = batch(normal::<f64>(rows * dim, "y"), dim);
        let x = flow.inverse(y.clone(), &Context::new(1)).unwrap();
        let report = x.report;
        assert!(report.residual <= 1e-9 && report.evaluations == report.iterations && report.iterations <= most, "{amount}: {report:?}");
        assert!(amount == 0.0 || report.iterations > 1, "{amount}: {report:?}");
        let expected = other.inverse(y.clone(), &Context::new(1)).unwrap();
        assert!(difference(&to_host(&x.value), &to_host(&expected.value)) < 1e-6, "{amount}");
        let again = to_host(&flow.forward(x.value, &Context::new(1)).unwrap().value);
        let residual = again.iter().zip(to_host(&y)).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(residual <= 1e-9, "{amount}: {residual}");
    }
}

/// A row's inverse does not depend on the rows beside it, however many passes they take.
#[test]
fn jacobi_rows_are_independent() {
    let flow = build::<f64>("Autoregressive(hidden: 16, inverse: Jacobi(tolerance: 1e-4))", 6, 0.4);
    let y = normal::<f64>(5 * 6, "y");
    let all = to_host(&flow.inverse(batch(y.clone(), 6), &Context::new(1)).unwrap().value);
    for row in 0..5 {
        let one = to_host(&flow.inverse(batch(y[row * 6..][..6].to_vec(), 6), &Context::new(1)).unwrap().value);
        assert!(difference(&one, &all[row * 6..][..6]) < 1e-12, "{row}: {one:?}");
    }
}

/// An order that is none is refused on loading, and the flow stays as it was.
#[test]
fn a_broken_order_is_refused() {
    let mut flow = build::<f64>("Autoregressive(hidden: 8, order: Random)", 4, 0.1);
    let mut state = flow_api::module::save(&flow);
    let before = state.clone();
    for saved in state.values_mut() {
        if let flow_api::module::Saved::Indices(indices) = saved {
            *indices = vec![0, 0, 1, 2];
        }
    }
    assert!(flow_api::module::load(&mut flow, &state).unwrap_err().to_string().contains("each of 0..4 once"));
    assert_eq!(flow_api::module::save(&flow), before);
}
