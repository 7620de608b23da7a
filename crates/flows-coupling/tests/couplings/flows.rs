//! Every coupling against finite differences, its plain form, its memory settings and its promises of structure.

use super::common::{Flow, batch, build, context, difference, loss, normal, pull, try_build, weights};
use dfdx::prelude::*;
use flow_api::spec::SpecScalar;
use flow_api::{Bijector, Context, EntryMut, FlowDevice, FlowError, Kernels, Memory, to_host, update};

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
];

const ROWS: usize = 6;

/// The width that a spec asks for.
fn condition(ron: &str) -> Option<usize> {
    ron.contains("condition").then_some(3)
}

fn is_spline(ron: &str) -> bool {
    ron.starts_with("Spline")
}

#[test]
fn couplings_start_as_the_identity() {
    for (ron, dim, index) in CASES.iter().copied().chain([("AffineCoupling()", 49, 1), ("AdditiveCoupling()", 48, 0)]) {
        let (flow, cx) = (try_build::<f32>(ron, dim, index).unwrap(), context(ROWS, condition(ron), Kernels::Fused));
        let x = normal::<f32>(ROWS * dim, "x");
        let forward = flow.forward(batch(x.clone(), dim), &cx).unwrap();
        let inverse = flow.inverse(batch(x.clone(), dim), &cx).unwrap();
        for mapped in [forward, inverse] {
            assert_eq!(to_host(&mapped.value), x, "{ron}");
            assert!(to_host(&mapped.log_det.value).iter().all(|&l| l == 0.0), "{ron}");
        }
    }
}

#[test]
fn log_dets_are_those_of_finite_difference_jacobians_and_inverses_invert() {
    for &(ron, dim, index) in CASES {
        let (flow, cx) = (build::<f64>(ron, dim, index, 0.3), context(ROWS, condition(ron), Kernels::Fused));
        let x = normal::<f64>(ROWS * dim, "x");
        let at = |x: Vec<f64>| to_host(&flow.forward(batch(x, dim), &cx).unwrap().value);
        // Column j of every row's Jacobian at once.
        let columns: Vec<Vec<f64>> = (0..dim)
            .map(|j| {
                let moved = |h: f64| at(x.iter().enumerate().map(|(k, &x)| if k % dim == j { x + h } else { x }).collect());
                moved(1e-5).iter().zip(moved(-1e-5)).map(|(up, down)| (up - down) / 2e-5).collect()
            })
            .collect();
        let mapped = flow.forward(batch(x.clone(), dim), &cx).unwrap();
        let log_det = to_host(&mapped.log_det.value);
        for row in 0..ROWS {
            let jacobian = (0..dim).map(|i| (0..dim).map(|j| columns[j][row * dim + i]).collect()).collect();
            let expected = log_abs_det(jacobian);
            assert!((log_det[row] - expected).abs() < 1e-6, "{ron}: {} instead of {expected}", log_det[row]);
        }
        let back = flow.inverse(mapped.value, &cx).unwrap();
        assert!(difference(&to_host(&back.value), &x) < 1e-10, "{ron}");
        let negative: Vec<f64> = log_det.iter().map(|l| -l).collect();
        assert!(difference(&to_host(&back.log_det.value), &negative) < 1e-10, "{ron}");
    }
}

/// By elimination with row exchanges.
fn log_abs_det(mut a: Vec<Vec<f64>>) -> f64 {
    let mut sum = 0.0;
    for k in 0..a.len() {
        let pivot = (k..a.len()).max_by(|&i, &j| a[i][k].abs().total_cmp(&a[j][k].abs())).unwrap();
        a.swap(k, pivot);
        let (above, below) = a.split_at_mut(k + 1);
        let pivot = &above[k];
        sum += pivot[k].abs().ln();
        for row in below {
            let factor = row[k] / pivot[k];
            row.iter_mut().zip(pivot).for_each(|(x, p)| *x -= factor * p);
        }
    }
    sum
}

#[test]
fn gradients_are_those_of_finite_differences_at_every_memory_setting() {
    const H: f64 = 1e-6;
    for &(ron, dim, index) in CASES {
        let (mut flow, cx) = (build::<f64>(ron, dim, index, 0.3), context(ROWS, condition(ron), Kernels::Fused));
        let x = normal::<f64>(ROWS * dim, "x");
        let weights = weights(ROWS, dim);
        let at = |flow: &Flow<f64>, x: &[f64]| loss(&flow.forward(batch(x.to_vec(), dim), &cx).unwrap(), &weights);
        let (for_x, for_parameters) = pull(&flow, &batch(x.clone(), dim), Memory::Store, &cx);
        for memory in [Memory::Recompute, Memory::Invert] {
            let (again_x, again_parameters) = pull(&flow, &batch(x.clone(), dim), memory, &cx);
            assert!(difference(&again_x, &for_x) < 1e-10 && difference(&again_parameters, &for_parameters) < 1e-10, "{ron} {memory:?}");
        }
        let by_differences: Vec<f64> = (0..x.len())
            .map(|k| {
                let moved = |h: f64| x.iter().enumerate().map(|(i, &x)| if i == k { x + h } else { x }).collect::<Vec<_>>();
                (at(&flow, &moved(H)) - at(&flow, &moved(-H))) / (2.0 * H)
            })
            .collect();
        assert!(difference(&for_x, &by_differences) < 1e-7, "{ron}: x: {}", difference(&for_x, &by_differences));
        let mut by_differences = Vec::new();
        for k in 0..for_parameters.len() {
            move_parameter(&mut flow, k, H);
            let up = at(&flow, &x);
            move_parameter(&mut flow, k, -2.0 * H);
            by_differences.push((up - at(&flow, &x)) / (2.0 * H));
            move_parameter(&mut flow, k, H);
        }
        let worst = difference(&for_parameters, &by_differences);
        assert!(worst < 1e-7, "{ron}: parameters: {worst}");
    }
}

/// Adds `h` to the k-th value of all parameters.
fn move_parameter(flow: &mut Flow<f64>, k: usize, h: f64) {
    let mut before = 0;
    update(flow, |_, entry| {
        if let EntryMut::Parameter { values, .. } = entry {
            if let Some(value) = k.checked_sub(before).and_then(|k| values.get_mut(k)) {
                *value += h;
            }
            before += values.len();
        }
    })
    .unwrap();
}

#[test]
fn fused_kernels_equal_plain_operations() {
    fn check<E: SpecScalar<Device = Cpu>>(tolerance: f64)
    where
        Cpu: FlowDevice<E>,
    {
        for &(ron, dim, index) in CASES.iter().filter(|(ron, ..)| !is_spline(ron)) {
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
            for (k, (fused, plain)) in run(Kernels::Fused).iter().zip(run(Kernels::Plain)).enumerate() {
                let difference = difference(fused, &plain);
                assert!(difference < tolerance, "{ron}: quantity {k} differs by {difference}");
            }
        }
    }
    check::<f64>(1e-12);
    check::<f32>(1e-5);
}

#[test]
fn the_kept_features_pass_bit_for_bit_and_alone_decide_how_the_others_move() {
    for &(ron, dim, index) in CASES {
        let (flow, cx) = (build::<f32>(ron, dim, index, 0.3), context(1, condition(ron), Kernels::Fused));
        let x: Vec<f32> = normal::<f32>(dim, "x").iter().map(|x| 0.3 * x).collect(); // inside of every spline
        let at = |x: &[f32]| to_host(&flow.forward(batch(x.to_vec(), dim), &cx).unwrap().value);
        let y = at(&x);
        let kept: Vec<usize> = (0..dim).filter(|&j| y[j].to_bits() == x[j].to_bits()).collect();
        let less = dim / 2;
        let expected: Vec<usize> = match (ron.contains("Interleaved"), index) {
            (false, 0) => (0..less).collect(),
            (false, _) => (dim - less..dim).collect(),
            (true, 0) => (1..dim).step_by(2).collect(),
            (true, _) => (0..dim).step_by(2).collect(),
        };
        assert_eq!(kept, expected, "{ron}");
        // A moved feature decides nothing but itself.
        for j in (0..dim).filter(|j| !kept.contains(j)) {
            let mut other = x.clone();
            other[j] += 0.25;
            let z = at(&other);
            let changed: Vec<usize> = (0..dim).filter(|&i| z[i].to_bits() != y[i].to_bits()).collect();
            assert_eq!(changed, [j], "{ron}");
        }
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
    assert_eq!(Bijector::<(usize, usize), f64, Cpu>::condition_width(&flow), Some(3));
    let x = batch(normal::<f64>(2 * dim, "x"), dim);
    let with = |c: Vec<f64>| to_host(&flow.forward(x.clone(), &Context::new(0).with_condition(batch(c, 3))).unwrap().value);
    let (one, other) = (with(vec![0.5; 6]), with(vec![0.5, 0.5, 0.5, 0.5, 0.5, 1.5]));
    assert_eq!(one[..dim], other[..dim]);
    assert_ne!(one[dim..], other[dim..]);
    for kernels in [Kernels::Fused, Kernels::Plain] {
        let cx = Context::new(0).with_kernels(kernels);
        let missing = flow.forward(x.clone(), &cx).unwrap_err();
        assert!(matches!(&missing, FlowError::Condition { expected, got, .. } if expected == "(2, 3)" && got == "none"), "{missing}");
        let wide = flow.forward(x.clone(), &cx.with_condition(batch(vec![0.0; 8], 4))).unwrap_err();
        assert!(matches!(&wide, FlowError::Condition { got, .. } if got == "(2, 4)"), "{wide}");
    }
}
