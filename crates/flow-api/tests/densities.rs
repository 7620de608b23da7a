//! Base densities against closed forms, and flows whose pieces must fit together.

use dfdx::prelude::*;
use flow_api::bases::{BaseDensity, Conditional, DiagonalNormal, StandardNormal, Uniform};
use flow_api::layers::LuLinear;
use flow_api::module::{EntryMut, update};
use flow_api::rows::Rows;
use flow_api::spec::{BaseSpec, BuildScope, ModelSpec, Spec, SpecError, from_ron, set_field, to_ron};
use flow_api::testkit::check_base;
use flow_api::{Context, Flow, FlowError, Gradients, Memory, Module, Result, Tensor, module_fields};
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
    density.log_prob(z, &mut out, &Context::new(0)).unwrap();
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

/// One that passes on what another does, with one fault.
struct Faulty<P> {
    inner: P,
    fault: Fault,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    None,
    Constant,
    Spread,
    OneStream,
    AllRows,
    Temperature,
    Input,
    Overwritten,
    Condition,
    AnySize,
    Share,
    Shared,
}

impl<P: Module<f64>> Module<f64> for Faulty<P> {
    module_fields!(f64; child inner);
}

impl<P: BaseDensity<f64>> BaseDensity<f64> for Faulty<P> {
    fn kind(&self) -> &'static str {
        "Faulty"
    }
    fn dim(&self) -> usize {
        self.inner.dim()
    }
    fn condition(&self) -> Option<usize> {
        self.inner.condition()
    }
    fn log_prob(&self, z: &[f64], out: &mut [f64], cx: &Context<f64>) -> Result<()> {
        let z = if self.fault == Fault::AnySize { &z[..z.len().min(out.len() * self.dim())] } else { z };
        self.inner.log_prob(z, out, cx)?;
        if self.fault == Fault::Constant {
            out.iter_mut().for_each(|l| *l += 1e-3);
        }
        Ok(())
    }
    fn log_prob_by_number(&self, z: &[f64], cx: &Context<f64>) -> Result<Option<Vec<f64>>> {
        let mut found = self.inner.log_prob_by_number(z, cx)?;
        for (own, z) in found.iter_mut().flat_map(|found| found.chunks_exact_mut(2)).zip(z.chunks_exact(2)) {
            match self.fault {
                Fault::Share => own[1] += 1e-3,
                Fault::Shared => own.iter_mut().zip([-z[0], z[0]]).for_each(|(own, moved)| *own += 1e-3 * moved),
                _ => {}
            }
        }
        Ok(found)
    }
    fn sample(&self, rows: usize, temperature: f64, cx: &Context<f64>) -> Result<Vec<f64>> {
        let temperature = match self.fault {
            Fault::Spread => temperature * 1.1,
            Fault::Temperature => temperature.sqrt(),
            _ => temperature,
        };
        let cx = if self.fault == Fault::AllRows { &cx.clone().at_step(rows as u64) } else { cx };
        let mut z = self.inner.sample(rows, temperature, cx)?;
        if self.fault == Fault::OneStream {
            z.chunks_exact_mut(2).for_each(|z| z[1] = z[0]);
        }
        Ok(z)
    }
    fn pullback(&self, z: &[f64], weights: &[f64], dz: &mut [f64], gradients: &mut [f64], cx: &Context<f64>) -> Result<Option<Vec<f64>>> {
        if self.fault == Fault::Overwritten {
            gradients.fill(0.0);
        }
        let mut by_condition = self.inner.pullback(z, weights, dz, gradients, cx)?;
        if self.fault == Fault::Input {
            dz.iter_mut().for_each(|dz| *dz *= 1.001);
        }
        if self.fault == Fault::Condition {
            by_condition.iter_mut().flatten().for_each(|c| *c *= 1.001);
        }
        Ok(by_condition)
    }
}

#[test]
fn the_checks_of_densities_fail_at_what_is_broken() {
    for (fault, item) in [
        (Fault::None, None),
        (Fault::Constant, Some("sums to one")),
        (Fault::Spread, Some("samples")),
        (Fault::OneStream, Some("samples")),
        (Fault::AllRows, Some("rows of samples")),
        (Fault::Temperature, Some("rows of samples")),
        (Fault::Input, Some("gradients")),
        (Fault::Overwritten, Some("gradients")),
        (Fault::Condition, Some("gradients")),
        (Fault::AnySize, Some("wrong sizes")),
        (Fault::Share, Some("numbers")),
        (Fault::Shared, Some("numbers")),
    ] {
        let make = |_: u64| -> Result<_> { Ok(Faulty { inner: Conditional::new(DiagonalNormal::new(2), 3)?, fault }) };
        assert_eq!(check_base("faulty", make).err().map(|failure| failure.item), item, "{fault:?}");
    }
}

#[test]
fn densities_conform() {
    for spec in [
        "StandardNormal",
        "DiagonalNormal",
        "Logistic",
        "StudentT()",
        "StudentT(degrees: 1e4)",
        "Mixture(components: 3)",
        "Uniform(low: -1.0, high: 0.5)",
        "Conditional(base: StandardNormal, condition: 3)",
        "Conditional(base: Mixture(components: 2), condition: 1)",
        "Conditional(base: Conditional(base: Logistic, condition: 2), condition: 2)",
    ] {
        let parsed: BaseSpec = from_ron(spec).unwrap();
        for dim in [1, 2, 5] {
            let make = |seed| {
                parsed.build::<f64>(dim, &BuildScope::new(seed)).map_err(|error| match error {
                    SpecError::Flow(error) => error,
                    other => panic!("{other}"),
                })
            };
            let report = check_base(spec, make).unwrap_or_else(|failure| panic!("{failure}, dimension {dim}"));
            assert_eq!(report.skipped.is_empty(), dim < 3, "{report}");
        }
        assert!(parsed.build::<f32>(2, &BuildScope::new(1)).is_ok());
    }
}

#[test]
fn densities_have_their_texts() {
    for text in
        ["StandardNormal", "DiagonalNormal", "Logistic", "StudentT(\n    degrees: 4.0,\n)", "Uniform(\n    low: -1.0,\n    high: 1.0,\n)"]
    {
        assert_eq!(to_ron(&from_ron::<BaseSpec>(text).unwrap()).unwrap(), text);
    }
    let nested = "Conditional(\n    base: StandardNormal,\n    condition: 3,\n)";
    assert_eq!(to_ron(&from_ron::<BaseSpec>(nested).unwrap()).unwrap(), nested);
    let model: Spec<dyn ModelSpec> = from_ron("VectorFlow(flows: [ActNorm()])").unwrap();
    assert!(to_ron(&model).unwrap().contains("base: StandardNormal,"));
    let changed = set_field(&model, "base", "Mixture(components: 4)").unwrap();
    assert!(set_field(&changed, "base.components", "8").is_ok());
    let error = from_ron::<BaseSpec>("Normal").unwrap_err().to_string();
    assert!(error.contains("1:1") && error.contains("`DiagonalNormal`"), "{error}");
    for (text, expected) in [
        ("StudentT(degrees: 0.0)", "base: degrees: expected a finite number greater than 0, got 0"),
        ("Mixture(components: 0)", "base: components: expected 1 to 16384, got 0"),
        ("Uniform(low: 1.0, high: 1.0)", "base: low: expected a finite number less than a finite `high`, got 1 with high 1"),
        (
            "Conditional(base: Uniform(low: 0.0, high: 1.0), condition: 3)",
            "base: base: expected a density on all of R^d, got Uniform on [0, 1]",
        ),
        ("Conditional(base: StandardNormal, condition: 0)", "base: condition: expected 1 to 16384, got 0"),
    ] {
        let spec: BaseSpec = from_ron(text).unwrap();
        let error = spec.build::<f64>(2, &BuildScope::new(1).child("base")).err().unwrap();
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn a_latent_outside_the_box_names_its_row() {
    let flow = Flow::new(Rows(LuLinear::<f64>::new(2)), Uniform::new(2, -1.0, 1.0).unwrap());
    let x = |values: &[f64]| device().tensor_from_vec(values.to_vec(), (values.len() / 2, 2));
    let cx = Context::new(0);
    let log_prob = flow.log_prob(x(&[-1.0, 1.0, 0.2, 0.3]), &cx).unwrap().value;
    assert!(log_prob.iter().all(|l| (l + 4.0_f64.ln()).abs() < 1e-12));
    let outside = x(&[0.0, 0.0, 0.5, 1.5]);
    let error = flow.log_prob(outside.clone(), &cx).unwrap_err();
    assert_eq!(error.to_string(), "base: row 1: expected latents from -1 to 1, got 1.5");
    let mut gradients = Gradients::zeros(&flow);
    assert!(matches!(flow.nll(outside, &mut gradients, &cx), Err(FlowError::Domain { row: 1, .. })));
    let error = flow.sample::<(usize, usize), f64>((3, 2), 1.5, &cx).unwrap_err();
    assert_eq!(error.to_string(), "base: temperature: expected at most 1 for a density on a box, got 1.5");
}

#[test]
fn the_loss_has_the_gradient_of_a_condition_that_the_base_sees() {
    let mut flow = Flow::new(Rows(LuLinear::<f64>::new(2)), Conditional::new(StandardNormal::new(2), 1).unwrap());
    for at in 0..Gradients::zeros(&flow).values().len() {
        move_parameter(&mut flow, at, 0.1 * (at as f64 + 1.0));
    }
    let x: Tensor<(usize, usize), f64> = device().sample_normal_like(&(3, 2));
    let nll = |condition: [f64; 3]| {
        let cx = Context::new(0).with_condition(device().tensor_from_vec(condition.to_vec(), (3, 1)));
        flow.nll(x.clone(), &mut Gradients::zeros(&flow), &cx).unwrap()
    };
    let condition = [0.3, -0.8, 1.1];
    let got = nll(condition).condition.unwrap().as_vec();
    for at in 0..3 {
        let moved = |by: f64| {
            let mut moved = condition;
            moved[at] += by;
            nll(moved).nll
        };
        assert!((got[at] - (moved(1e-6) - moved(-1e-6)) / 2e-6).abs() < 1e-8, "{got:?}");
    }
    assert!(flow.nll(x.clone(), &mut Gradients::zeros(&flow), &Context::new(0)).is_err());
}

#[test]
fn samples_have_the_density_s_moments_and_temperature_scales_their_spread() {
    let density = diagonal();
    let noise = Context::new(3);
    let rows = 20_000;
    let samples = density.sample(rows, 1.0, &noise).unwrap();
    for (j, (mean, std)) in [(0.5, 0.3_f64.exp()), (-1.0, (-0.7_f64).exp())].into_iter().enumerate() {
        let column: Vec<f64> = samples.iter().skip(j).step_by(2).copied().collect();
        let own = column.iter().sum::<f64>() / rows as f64;
        let spread = (column.iter().map(|z| (z - own).powi(2)).sum::<f64>() / rows as f64).sqrt();
        let error = std / (rows as f64).sqrt();
        assert!((own - mean).abs() < 4.0 * error && (spread - std).abs() < 4.0 * error, "{own} {spread}");
    }
    assert_eq!(density.sample(3, 0.0, &noise).unwrap(), [0.5, -1.0].repeat(3));
    let half: Vec<f64> = density.sample(3, 0.5, &noise).unwrap();
    let centred = |values: &[f64]| values.chunks_exact(2).flat_map(|z| [z[0] - 0.5, z[1] + 1.0]).collect::<Vec<_>>();
    for (half, whole) in centred(&half).iter().zip(centred(&samples[..6])) {
        assert!((half - 0.5 * whole).abs() < 1e-14);
    }
    // Row r is a function of the stream and r alone.
    assert_eq!(density.sample(2, 1.0, &noise).unwrap(), samples[..4]);
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
        density.log_prob(&z, &mut own, &Context::new(0)).unwrap();
        exact_density.log_prob(&exact, &mut expected, &Context::new(0)).unwrap();
        // Half a unit in the last place of the result is 1/64.
        assert!((f64::from(own[0]) - expected[0]).abs() < 0.016, "{} {}", own[0], expected[0]);
    };
    value(&StandardNormal::new(DIM), &StandardNormal::new(DIM));
    value(&DiagonalNormal::<f32>::new(DIM), &DiagonalNormal::<f64>::new(DIM));
}
