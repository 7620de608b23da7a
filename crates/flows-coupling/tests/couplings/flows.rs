//! Every coupling through the conformance suite, against its plain form, and its promises to the bit.

use super::common::{batch, build, context, difference, normal, pull, seeded, try_build};
use flow_api::context::Kernels;
use flow_api::spec::SpecScalar;
use flow_api::testkit::{Subject, assert_conforms, check_precision};
use flow_api::{Bijector, Context, FlowError, Memory, to_host};

/// Spec, features, index: every transformer, split, turn and activation, odd and even sizes.
const CASES: &[(&str, usize, usize)] = &[
    ("AdditiveCoupling(hidden: 8, blocks: 1)", 4, 0),
    ("AdditiveCoupling(hidden: 7, split: Interleaved, activation: Gelu)", 5, 1),
    ("AffineCoupling(hidden: 8, blocks: 1)", 2, 0),
    ("AffineCoupling(hidden: 6, blocks: 2)", 5, 1),
    ("AffineCoupling(hidden: 5, blocks: 1, bound: 0.7, activation: Silu, split: Interleaved)", 7, 0),
    ("AffineCoupling(hidden: 9, blocks: 3, activation: Tanh, split: Interleaved)", 6, 1),
    ("AffineCoupling(hidden: 8, blocks: 2, activation: Gelu, condition: 3)", 3, 0),
    ("SplineCoupling(hidden: 8, blocks: 1)", 5, 0),
    ("SplineCoupling(hidden: 8, blocks: 1, bins: 2, tail_bound: 1.5, split: Interleaved, activation: Tanh)", 6, 1),
    ("SplineCoupling(hidden: 8, blocks: 1, bins: 5, tail_bound: 0.8, condition: 3)", 2, 1),
    ("AffineCoupling(hidden: 6, blocks: 1, split: First(1))", 5, 1),
    ("AffineCoupling(hidden: 6, blocks: 1, split: Last(4), activation: Tanh)", 5, 0),
    ("SplineCoupling(hidden: 6, blocks: 1, bins: 3, split: Odd)", 5, 1),
    ("AdditiveCoupling(hidden: 6, blocks: 1, split: Even)", 4, 1),
    ("AffineCoupling(network: Kan(hidden: 4, layers: 2, grid: 4, range: 1.5))", 5, 1),
    ("SplineCoupling(network: Kan(hidden: 3, grid: 2, order: 2), condition: 3, bins: 3)", 4, 0),
];

/// Inputs so many that a conditioner keeps what its first activation needs.
const WIDE: &[(&str, usize, usize)] =
    &[("AffineCoupling(hidden: 6, blocks: 2, activation: Gelu)", 70, 0), ("AffineCoupling(hidden: 6, blocks: 1, condition: 3)", 63, 1)];

const ROWS: usize = 6;

/// The width that a spec asks for.
fn condition(ron: &str) -> Option<usize> {
    ron.contains("condition").then_some(3)
}

/// Whether there is a form in plain operations too.
fn has_plain_form(ron: &str) -> bool {
    !ron.starts_with("Spline") && !ron.contains("Kan")
}

#[test]
fn couplings_start_as_the_identity_to_the_bit() {
    fn check<E: SpecScalar>() {
        for (ron, dim, index) in CASES.iter().copied().chain([("AffineCoupling()", 49, 1), ("AdditiveCoupling()", 48, 0)]) {
            let (flow, cx) = (try_build::<E>(ron, dim, index).unwrap(), context(ROWS, condition(ron), Kernels::Fused));
            let x = normal::<E>(ROWS * dim, "x");
            let forward = flow.forward(batch(x.clone(), dim), &cx).unwrap();
            let inverse = flow.inverse(batch(x.clone(), dim), &cx).unwrap();
            for mapped in [forward, inverse] {
                assert_eq!(to_host(&mapped.value), x, "{ron}");
                assert!(to_host(&mapped.log_det.value).iter().all(|l| *l == E::zero()), "{ron}");
            }
        }
    }
    check::<f32>();
    check::<f64>();
}

/// Features that pass in this case.
fn kept(ron: &str, dim: usize, index: usize) -> Vec<usize> {
    let split = ron.split_once("split: ").map_or("Halves", |(_, split)| split);
    let is = |name| split.starts_with(name);
    match index {
        _ if is("First(1)") => vec![0],
        _ if is("Last(4)") => (dim - 4..dim).collect(),
        _ if is("Odd") => (1..dim).step_by(2).collect(),
        _ if is("Even") => (0..dim).step_by(2).collect(),
        0 if is("Interleaved") => (1..dim).step_by(2).collect(),
        _ if is("Interleaved") => (0..dim).step_by(2).collect(),
        0 => (0..dim / 2).collect(),
        _ => (dim - dim / 2..dim).collect(),
    }
}

#[test]
fn couplings_conform() {
    for &(ron, dim, index) in CASES {
        let kept = kept(ron, dim, index);
        let pairs = (0..dim).flat_map(|out| (0..dim).map(move |input| (out, input)));
        let independent = pairs.filter(|(out, input)| out != input && (kept.contains(out) || !kept.contains(input))).collect();
        let subject = Subject { condition: condition(ron), identity_start: true, independent, ..Subject::new(ron, dim) };
        let double = |seed| Ok(seeded::<f64>(ron, dim, index, seed).unwrap());
        assert_conforms(&subject, double);
        check_precision(&subject, |seed| Ok(seeded::<f32>(ron, dim, index, seed).unwrap()), double).unwrap();
    }
}

#[test]
fn fused_kernels_equal_plain_operations() {
    fn check<E: SpecScalar>(tolerance: f64) {
        for &(ron, dim, index) in CASES.iter().chain(WIDE).filter(|(ron, ..)| has_plain_form(ron)) {
            let rows = 300; // several blocks, the last one short
            let flow = build::<E>(ron, dim, index, 0.2);
            let x = batch(normal::<E>(rows * dim, "x"), dim);
            let run = |kernels| {
                let cx = context(rows, condition(ron), kernels);
                let forward = flow.forward(x.clone(), &cx).unwrap();
                let inverse = flow.inverse(x.clone(), &cx).unwrap();
                let (for_x, for_parameters) = pull(&flow, &x, Memory::Recompute, &cx);
                let [(y, l), (z, m)] = [forward, inverse].map(|mapped| (to_host(&mapped.value), to_host(&mapped.log_det.value)));
                [y, l, z, m, for_x, for_parameters]
            };
            for (k, (fused, plain)) in run(Kernels::Fused).iter().zip(run(Kernels::Taped)).enumerate() {
                let difference = difference(fused, &plain);
                assert!(difference < tolerance, "{ron}: quantity {k} differs by {difference}");
            }
        }
    }
    check::<f64>(1e-12);
    check::<f32>(1e-5);
}

#[test]
fn the_kept_features_and_no_others_pass_bit_for_bit() {
    for &(ron, dim, index) in CASES {
        let (flow, cx) = (build::<f32>(ron, dim, index, 0.3), context(1, condition(ron), Kernels::Fused));
        let x: Vec<f32> = normal::<f32>(dim, "x").iter().map(|x| 0.3 * x).collect(); // inside of every spline
        let y = to_host(&flow.forward(batch(x.clone(), dim), &cx).unwrap().value);
        let passed: Vec<usize> = (0..dim).filter(|&j| y[j].to_bits() == x[j].to_bits()).collect();
        assert_eq!(passed, kept(ron, dim, index), "{ron}");
    }
}

#[test]
fn extreme_inputs_and_parameters_stay_finite() {
    for &(ron, dim, index) in CASES {
        for amount in [0.0, 0.3, 30.0] {
            let flow = build::<f32>(ron, dim, index, amount);
            let x = [0.0, -0.0, 3.0, -3.0, 1e6, -1e6, 1e-30, 17.5].iter().flat_map(|&x| vec![x; dim]).collect::<Vec<f32>>();
            let (x, cx) = (batch(x, dim), context(8, condition(ron), Kernels::Fused));
            let forward = flow.forward(x.clone(), &cx).unwrap();
            let inverse = flow.inverse(x.clone(), &cx).unwrap();
            for memory in [Memory::Store, Memory::Invert] {
                let (for_x, for_parameters) = pull(&flow, &x, memory, &cx);
                for values in
                    [&to_host(&forward.value), &to_host(&forward.log_det.value), &to_host(&inverse.value), &for_x, &for_parameters]
                {
                    assert!(values.iter().all(|v| v.is_finite()), "{ron} {amount} {memory:?}: {values:?}");
                }
            }
        }
    }
}

#[test]
fn a_condition_is_used_and_its_absence_is_an_error() {
    let (ron, dim) = ("AffineCoupling(hidden: 8, condition: 3)", 4);
    let flow = build::<f64>(ron, dim, 0, 0.3);
    assert_eq!(Bijector::<(usize, usize), f64>::facts(&flow).condition, Some(3));
    let x = batch(normal::<f64>(2 * dim, "x"), dim);
    let with = |c: Vec<f64>| to_host(&flow.forward(x.clone(), &Context::new(0).with_condition(batch(c, 3))).unwrap().value);
    let (one, other) = (with(vec![0.5; 6]), with(vec![0.5, 0.5, 0.5, 0.5, 0.5, 1.5]));
    assert_eq!(one[..dim], other[..dim]);
    assert_ne!(one[dim..], other[dim..]);
    for kernels in [Kernels::Fused, Kernels::Taped] {
        let cx = Context::new(0).with_kernels(kernels);
        let missing = flow.forward(x.clone(), &cx).unwrap_err();
        assert!(matches!(&missing, FlowError::Condition { expected, got, .. } if expected == "(2, 3)" && got == "none"), "{missing}");
        let wide = flow.forward(x.clone(), &cx.with_condition(batch(vec![0.0; 8], 4))).unwrap_err();
        assert!(matches!(&wide, FlowError::Condition { got, .. } if got == "(2, 4)"), "{wide}");
    }
}
