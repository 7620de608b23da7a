//! Base densities against closed forms, and flows whose pieces must fit together.

use dfdx::prelude::*;
use flow_api::layers::LuLinear;
use flow_api::{BaseDensity, Context, DiagonalNormal, EntryMut, Flow, Gradients, Memory, Module, Rows, StandardNormal, Tensor, update};
use flow_kernels::noise::Stream;

fn device() -> Cpu {
    Cpu::seed_from_u64(2)
}

/// N(μ, e^{2s}) with parameters that are no special values.
fn diagonal() -> DiagonalNormal<f64> {
    let mut density = DiagonalNormal::new(2);
    update(&mut density, |path, entry| {
        if let EntryMut::Parameter { values, .. } = entry {
            values.copy_from_slice(if path == "mean" { &[0.5, -1.0] } else { &[0.3, -0.7] });
        }
    })
    .unwrap();
    density
}

fn log_prob(density: &impl BaseDensity<f64>, z: &[f64]) -> f64 {
    let mut out = [0.0];
    density.log_prob(z, &mut out);
    out[0]
}

#[test]
fn values_are_those_of_the_formula() {
    let normal = |z: f64, mean: f64, std: f64| -0.5 * ((z - mean) / std).powi(2) - (std * (2.0 * std::f64::consts::PI).sqrt()).ln();
    let z = [0.8, 1.7];
    assert!((log_prob(&StandardNormal::new(2), &z) - normal(z[0], 0.0, 1.0) - normal(z[1], 0.0, 1.0)).abs() < 1e-14);
    let expected = normal(z[0], 0.5, 0.3_f64.exp()) + normal(z[1], -1.0, (-0.7_f64).exp());
    assert!((log_prob(&diagonal(), &z) - expected).abs() < 1e-14);
}

#[test]
fn gradients_are_those_of_differences() {
    let (z, weight, step) = ([0.8_f64, 1.7], 1.3, 1e-6);
    let mut dz = [0.0_f64; 2];
    StandardNormal::new(2).pullback(&z, &[weight], &mut dz, &mut []);
    assert!(dz.iter().zip(&z).all(|(dz, z)| (dz + weight * z).abs() < 1e-15));

    let density = diagonal();
    let mut gradients = [0.0; 4];
    density.pullback(&z, &[weight], &mut dz, &mut gradients);
    for j in 0..2 {
        let moved = |by: f64| {
            let mut moved = z;
            moved[j] += by;
            log_prob(&density, &moved)
        };
        assert!((dz[j] - weight * (moved(step) - moved(-step)) / (2.0 * step)).abs() < 1e-8);
    }
    for at in 0..4 {
        let moved = |by: f64| {
            let mut moved = density.clone();
            let mut seen = 0;
            update(&mut moved, |_, entry| {
                if let EntryMut::Parameter { values, .. } = entry {
                    if (seen..seen + values.len()).contains(&at) {
                        values[at - seen] += by;
                    }
                    seen += values.len();
                }
            })
            .unwrap();
            log_prob(&moved, &z)
        };
        assert!((gradients[at] - weight * (moved(step) - moved(-step)) / (2.0 * step)).abs() < 1e-8, "parameter {at}");
    }
}

#[test]
fn samples_have_the_density_s_moments_and_temperature_scales_their_spread() {
    let density = diagonal();
    let noise = Stream::new(3, 0, "samples");
    let rows = 20_000;
    let samples = density.sample(rows, 1.0, &noise);
    for (j, (mean, std)) in [(0.5, 0.3_f64.exp()), (-1.0, (-0.7_f64).exp())].into_iter().enumerate() {
        let column: Vec<f64> = samples.iter().skip(j).step_by(2).copied().collect();
        let own = column.iter().sum::<f64>() / rows as f64;
        let spread = (column.iter().map(|z| (z - own).powi(2)).sum::<f64>() / rows as f64).sqrt();
        let error = std / (rows as f64).sqrt();
        assert!((own - mean).abs() < 4.0 * error && (spread - std).abs() < 4.0 * error, "{own} {spread}");
    }
    assert_eq!(density.sample(3, 0.0, &noise), [0.5, -1.0].repeat(3));
    let half: Vec<f64> = density.sample(3, 0.5, &noise);
    let centred = |values: &[f64]| values.chunks_exact(2).flat_map(|z| [z[0] - 0.5, z[1] + 1.0]).collect::<Vec<_>>();
    for (half, whole) in centred(&half).iter().zip(centred(&samples[..6])) {
        assert!((half - 0.5 * whole).abs() < 1e-14);
    }
    // Row r is a function of the stream and r alone.
    assert_eq!(density.sample(2, 1.0, &noise), samples[..4]);
}

/// A flow whose linear map and base are no special values.
fn flow() -> Flow<Rows<LuLinear<f64>>, DiagonalNormal<f64>> {
    let mut linear = Rows(LuLinear::new(2).with_random_permutation(1));
    update(&mut linear, |path, entry| {
        if let EntryMut::Parameter { values, .. } = entry {
            values.iter_mut().enumerate().for_each(|(i, v)| *v = 0.1 * (path.len() + i) as f64 - 0.4);
        }
    })
    .unwrap();
    Flow::new(linear, diagonal())
}

#[test]
fn samples_carry_the_log_prob_that_scoring_them_gives() {
    let (flow, cx) = (flow(), Context::new(5));
    let (x, sampled) = flow.sample_and_log_prob::<(usize, usize), f64>((7, 2), 1.0, &cx).unwrap();
    let scored = flow.log_prob(x, &cx).unwrap();
    for (a, b) in sampled.value.iter().zip(&scored.value) {
        assert!((a - b).abs() < 1e-12);
    }
    let again = flow.sample::<(usize, usize), f64>((7, 2), 1.0, &cx).unwrap();
    let other = flow.sample::<(usize, usize), f64>((7, 2), 1.0, &Context::new(6)).unwrap();
    assert_ne!(again.as_vec(), other.as_vec(), "another seed");
}

#[test]
fn the_density_integrates_to_one() {
    let (flow, cx) = (flow(), Context::new(0));
    // A grid that holds all of the mass that counts.
    let (side, reach) = (400, 30.0);
    let cell = 2.0 * reach / f64::from(side);
    let centre = |i: i32| -reach + cell * (f64::from(i) + 0.5);
    let points: Vec<f64> = (0..side).flat_map(|i| (0..side).flat_map(move |j| [centre(i), centre(j)])).collect();
    let count = points.len() / 2;
    let scored = flow.log_prob(device().tensor_from_vec(points, (count, 2)), &cx).unwrap();
    let mass: f64 = scored.value.iter().map(|l| l.exp()).sum::<f64>() * cell * cell;
    assert!((mass - 1.0).abs() < 1e-3, "{mass}");
}

#[test]
fn the_likelihood_s_gradient_is_that_of_differences_under_every_memory_setting() {
    let mut flow = flow();
    let x: Tensor<(usize, usize), f64> = device().sample_normal_like(&(5, 2));
    let mut reference = Gradients::zeros(&flow);
    let loss = flow.nll(x.clone(), &mut reference, &Context::new(0)).unwrap();
    assert_eq!(reference.untouched().count(), 0);
    let mean = flow.log_prob(x.clone(), &Context::new(0)).unwrap().value.iter().sum::<f64>() / 5.0;
    assert!((loss.nll + mean).abs() < 1e-13);
    for memory in [Memory::Recompute, Memory::Invert] {
        let mut own = Gradients::zeros(&flow);
        flow.nll(x.clone(), &mut own, &Context::new(0).with_memory(memory)).unwrap();
        for (a, b) in own.values().iter().zip(reference.values()) {
            assert!((a - b).abs() < 1e-12, "{memory:?}");
        }
    }
    let step = 1e-6;
    for at in 0..reference.values().len() {
        let mut value = |by: f64| {
            move_parameter(&mut flow, at, by);
            let value = flow.nll(x.clone(), &mut Gradients::zeros(&flow), &Context::new(0)).unwrap().nll;
            move_parameter(&mut flow, at, -by);
            value
        };
        let expected = (value(step) - value(-step)) / (2.0 * step);
        assert!((reference.values()[at] - expected).abs() < 1e-7, "parameter {at}");
    }
}

fn move_parameter<M: Module<f64>>(module: &mut M, at: usize, by: f64) {
    let mut seen = 0;
    update(module, |_, entry| {
        if let EntryMut::Parameter { values, .. } = entry {
            if (seen..seen + values.len()).contains(&at) {
                values[at - seen] += by;
            }
            seen += values.len();
        }
    })
    .unwrap();
}

/// A sum of so many squares in f32 alone is off by some nats.
#[test]
fn densities_of_large_events_are_those_of_f64() {
    const DIM: usize = 196_608;
    let mut z = vec![0.0_f32; DIM];
    Stream::new(3, 0, "large").row(0).gaussian(&mut z);
    let exact: Vec<f64> = z.iter().copied().map(f64::from).collect();
    let value = |density: &dyn BaseDensity<f32>, exact_density: &dyn BaseDensity<f64>| {
        let (mut own, mut expected) = ([0.0], [0.0]);
        density.log_prob(&z, &mut own);
        exact_density.log_prob(&exact, &mut expected);
        // Half a unit in the last place of the result is 1/64.
        assert!((f64::from(own[0]) - expected[0]).abs() < 0.016, "{} {}", own[0], expected[0]);
    };
    value(&StandardNormal::new(DIM), &StandardNormal::new(DIM));
    value(&DiagonalNormal::<f32>::new(DIM), &DiagonalNormal::<f64>::new(DIM));
}
