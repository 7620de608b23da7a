//! Models on a device against the host, in f32 and f64.
//!
//! `cargo test` runs them on the emulated device. On a machine with a GPU
//! `cargo test -p flow-cuda --test device -- --ignored --nocapture` runs them on it and prints the figures.

use flow_api::bijector::{Cotangent, Point};
use flow_api::device::{DeviceError, Engine, Snippet};
use flow_api::module::{EntryMut, update};
use flow_api::noise::Stream;
use flow_api::rows::{ElementMap, Number, Real};
use flow_api::spec::{EventShape, Model, ModelSpec, Spec, SpecScalar, from_ron};
use flow_api::{Bijector, Context, FlowError, Gradients, Memory, Scalar};
use flow_cuda::Cuda;
use flow_train::data::DataSource;
use flow_train::{Settings, Silent, Trainer, checkpoint};
use flows_autoregressive as _;
use flows_coupling as _;
use flows_ffjord as _;
use mixerflow as _;
use std::sync::atomic::AtomicBool;

/// What the device may be off by, of the greatest value.
const TOLERANCE: f64 = 1e-5;

/// Networks of every activation and of widths that fill no tile, rows that do not either, one sample and a last partial
/// tile.
const MODELS: [(&str, EventShape, &[usize]); 12] = [
    ("VectorFlow(flows: [ActNorm(), LuLinear(), AffineCoupling(hidden: 8, blocks: 1)])", EventShape::Vector(5), &[1, 37]),
    (
        "VectorFlow(flows: [AffineCoupling(hidden: 12, activation: Silu, bound: 0.7), LuLinear(), ActNorm(), \
         AdditiveCoupling(hidden: 9, activation: Tanh, blocks: 1, split: Interleaved)])",
        EventShape::Vector(3),
        &[33],
    ),
    (
        "VectorFlow(flows: [LuLinear(), AffineCoupling(hidden: 24, activation: Gelu, split: Interleaved), ActNorm()])",
        EventShape::Vector(17),
        &[32],
    ),
    // Of the last layer, eight features' numbers are computed at a time.
    (
        "VectorFlow(flows: [SplineCoupling(hidden: 8, blocks: 1, tail_bound: 1.5), LuLinear(), SplineCoupling(hidden: 20, activation: Silu)])",
        EventShape::Vector(21),
        &[17],
    ),
    ("VectorFlow(flows: [AffineCoupling(hidden: 256, blocks: 1)])", EventShape::Vector(20), &[3]),
    // A bin of a spline is as narrow as it may be, and others have many; a last layer of 1,498 numbers.
    (
        "VectorFlow(flows: [SplineCoupling(hidden: 12, bins: 2, activation: Tanh), ActNorm(), SplineCoupling(hidden: 33, bins: 25, activation: Gelu)])",
        EventShape::Vector(40),
        &[18],
    ),
    // So wide that a block takes 16 rows.
    ("VectorFlow(flows: [ActNorm(), AffineCoupling(hidden: 600, blocks: 1)])", EventShape::Vector(6), &[17]),
    (
        "MixerFlow(patch: 2, layers: 4, channel: [ActNorm(), LuLinear(), AffineCoupling(hidden: 16)], \
         patches: [ActNorm(), LuLinear(), AdditiveCoupling(hidden: 10, blocks: 1)])",
        EventShape::Image { channels: 3, height: 6, width: 6 },
        &[1, 5],
    ),
    (
        "MixerFlow(patch: 2, layers: 2, channel: [LuLinear(), SplineCoupling(hidden: 16, bins: 5, condition: 2)], \
         patches: [ActNorm(), SplineCoupling(hidden: 10, condition: 2)])",
        EventShape::Image { channels: 3, height: 4, width: 4 },
        &[3],
    ),
    (
        "VectorFlow(flows: [AffineCoupling(hidden: 8, blocks: 1, condition: 3), LuLinear(), AdditiveCoupling(hidden: 9, condition: 3)])",
        EventShape::Vector(7),
        &[1, 19],
    ),
    // A feature's numbers come of those before it: the inverse goes feature by feature.
    (
        "VectorFlow(flows: [Autoregressive(hidden: 12, transformer: Spline(bins: 4)), LuLinear(), Autoregressive(hidden: 10, \
         transformer: SigmoidAffine(max_scale: 3.0), order: Reverse, activation: Tanh, condition: 2)])",
        EventShape::Vector(5),
        &[1, 18],
    ),
    // Maps of single numbers, which bring text; the first without an inverse of its own.
    (
        "VectorFlow(flows: [Bump(), LeakyRelu(slope: 0.4), LuLinear(), SinhArcsinh(tail: 0.8), Softsign(), Logit(low: -1.0, high: 1.0)])",
        EventShape::Vector(5),
        &[1, 33],
    ),
];

/// x → x + e^w tanh x with a weight w for every feature, as a flow of one's own.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
struct Bump {}
flow_api::register_row_flow!(Bump);

impl ElementMap for Bump {
    const KIND: &'static str = "Bump";

    fn parameters(&self) -> Vec<(&'static str, f64)> {
        vec![("log_weight", -0.5)]
    }

    fn map<N: Number>(&self, x: N, parameters: &[N]) -> (N, N) {
        let (weight, tanh) = (parameters[0].exp(), x.tanh());
        (x + weight * tanh, (N::of(1.0) + weight * (N::of(1.0) - tanh * tanh)).ln())
    }

    fn snippet(&self) -> Option<Snippet> {
        let text = "
            __device__ float forward(float x, const float* p, const float*, float& log_slope) {
                const float weight = expf(p[0]), tanh = tanhf(x);
                log_slope = log1pf(weight * (1.0f - tanh * tanh));
                return x + weight * tanh;
            }
            __device__ float pullback(float x, const float* p, const float*, float for_y, float for_log_slope, float* for_p) {
                const float weight = expf(p[0]), tanh = tanhf(x), steep = 1.0f - tanh * tanh, slope = 1.0f + weight * steep;
                for_p[0] = weight * (for_y * tanh + for_log_slope * steep / slope);
                return for_y * slope - 2.0f * for_log_slope * weight * tanh * steep / slope;
            }";
        Some(Snippet { kind: Self::KIND, text: text.into(), parameters: 1, settings: Vec::new(), inverse: false })
    }
}

/// A flow whose text no compiler takes.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
struct Faulty {}
flow_api::register_row_flow!(Faulty);

impl ElementMap for Faulty {
    const KIND: &'static str = "Faulty";

    fn map<N: Number>(&self, x: N, _: &[N]) -> (N, N) {
        (x, N::of(0.0))
    }

    fn snippet(&self) -> Option<Snippet> {
        let text = "\n__device__ float forward(float x, const float*, const float*, float&) { return x + unheard_of; }".into();
        Some(Snippet { kind: Self::KIND, text, parameters: 0, settings: Vec::new(), inverse: false })
    }
}

/// A context with the condition that the model sees, if it does.
fn context<E: SpecScalar>(model: &Model<E>, batch: usize) -> Context<E> {
    let Some(width) = model.condition() else { return Context::new(0) };
    Context::new(0).with_condition(E::tensor(noise(batch * width, "c"), (batch, width)))
}

fn mixer() -> (&'static str, EventShape) {
    let (spec, event, _) = MODELS.into_iter().find(|(spec, ..)| spec.starts_with("MixerFlow")).unwrap();
    (spec, event)
}

/// Without a barrier, small ones with several flows and blocks show it as well and sooner.
fn models() -> &'static [(&'static str, EventShape, &'static [usize])] {
    if std::env::var_os("EMULATE_WITHOUT_BARRIER").is_some() { &MODELS[1..4] } else { &MODELS }
}

fn noise<E: SpecScalar>(count: usize, name: &str) -> Vec<E> {
    let mut values = vec![0.0_f64; count];
    Stream::new(5, 0, name).row(0).gaussian(&mut values);
    values.into_iter().map(E::of).collect()
}

/// A model whose parameters are not those that it starts with: moved by as much as `scale`, a part of what a weight of
/// the path has.
fn model<E: SpecScalar>(spec: &str, event: EventShape) -> Model<E> {
    let spec: Spec<dyn ModelSpec> = from_ron(spec).unwrap();
    let mut model = spec.build::<E>(event, 7).unwrap();
    moved(&mut model, "");
    model
}

fn moved<E: SpecScalar>(model: &mut Model<E>, salt: &str) {
    update(model, |path, entry| {
        if let EntryMut::Parameter { values, .. } = entry {
            let scale = 0.5 / (values.len() as f64).sqrt().max(2.0);
            let noise = noise::<E>(values.len(), &format!("{path}{salt}"));
            values.iter_mut().zip(noise).for_each(|(value, noise)| *value = E::of(value.as_f64() + scale * noise.as_f64()));
        }
    })
    .unwrap();
}

/// The greatest difference, of the greatest value.
fn error(found: &[f32], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let size = expected.iter().fold(1e-3_f64, |most, x| most.max(x.abs()));
    let differences = found.iter().zip(expected).map(|(f, e)| (f64::from(*f) - e).abs());
    differences.fold(0.0, |most: f64, difference| if difference.is_nan() { f64::INFINITY } else { most.max(difference) }) / size
}

fn doubles(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&value| f64::from(value)).collect()
}

fn device() -> Cuda {
    Cuda::open(0).unwrap_or_else(|error| panic!("{error}"))
}

fn on(model: Model<f32>, device: &Cuda) -> Model<f32> {
    model.on(device).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
#[ignore = "runs on the device that there is"]
fn values_and_log_dets_are_the_hosts() {
    let device = device();
    for &(spec, event, batches) in models() {
        let (exact, there) = (model::<f64>(spec, event), on(model(spec, event), &device));
        for &batch in batches {
            let cx = (context(&exact, batch), context(&there, batch));
            let x = noise::<f32>(batch * event.len(), "x");
            let map = |values: &[f32], inverse: bool| {
                let (a, b) = (exact.batch(doubles(values)).unwrap(), there.batch(values.to_vec()).unwrap());
                let (a, b) = if inverse {
                    (exact.flow().bijector().inverse(a, &cx.0).unwrap(), there.flow().bijector().inverse(b, &cx.1).unwrap())
                } else {
                    (exact.flow().bijector().forward(a, &cx.0).unwrap(), there.flow().bijector().forward(b, &cx.1).unwrap())
                };
                (error(&b.value.as_vec(), &a.value.as_vec()), error(&b.log_det.value.as_vec(), &a.log_det.value.as_vec()))
            };
            let errors = [map(&x, false), map(&x, true)];
            println!(
                "{batch} × {event}: forward {:.1e}, log-det {:.1e}; inverse {:.1e}, log-det {:.1e}; {spec}",
                errors[0].0, errors[0].1, errors[1].0, errors[1].1
            );
            assert!(errors.iter().all(|(value, log_det)| value.max(*log_det) <= TOLERANCE), "{spec}, {batch}: {errors:?}");
            // And the host's own f32 is no nearer by more than that.
            let (host, found) = (model::<f32>(spec, event).log_prob(x.clone(), &cx.1).unwrap(), there.log_prob(x.clone(), &cx.1).unwrap());
            assert!(error(&found.value, &doubles(&host.value)) <= TOLERANCE, "{spec}, {batch}");
            // There and back.
            let back = there.decode(there.encode(x.clone(), &cx.1).unwrap(), &cx.1).unwrap();
            assert!(error(&back, &doubles(&x)) <= TOLERANCE, "{spec}, {batch}");
        }
    }
}

/// ∂L/∂x and the gradients of all parameters of L = Σ gᵀ z + Σ h log|det|, from what was kept, from inputs and from
/// outputs.
#[test]
#[ignore = "runs on the device that there is"]
fn gradients_are_the_hosts() {
    let device = device();
    for &(spec, event, batches) in models() {
        let (exact, there) = (model::<f64>(spec, event), on(model(spec, event), &device));
        for &batch in batches {
            let shape = (batch, event.len());
            let x = noise::<f32>(batch * event.len(), "x");
            let (g, h) = (noise::<f64>(x.len(), "g"), noise::<f64>(batch, "h"));
            let (mut expected, cx) = (Gradients::zeros(&exact), context(&exact, batch).child("bijector"));
            let cotangent = Cotangent { value: f64::tensor(g.clone(), shape), log_det: f64::tensor(h.clone(), (batch,)) };
            let at = Point::Input(f64::tensor(doubles(&x), shape));
            let pulled = exact.flow().bijector().pullback(at, cotangent, &mut expected, &cx).unwrap();
            let (dx, dc) = (pulled.cotangent.as_vec(), pulled.condition.map(|condition| condition.as_vec()).unwrap_or_default());
            assert_eq!(dc.len(), batch * exact.condition().unwrap_or(0));

            let singles = |values: &[f64]| values.iter().map(|&value| f32::of(value)).collect::<Vec<_>>();
            let store = context(&there, batch).child("bijector");
            let recompute = store.clone().with_memory(Memory::Recompute);
            let bijector = there.flow().bijector();
            let (mapped, kept) = bijector.forward_keeping(f32::tensor(x.clone(), shape), &store).unwrap();
            let (_, forgotten) = bijector.forward_keeping(f32::tensor(x.clone(), shape), &recompute).unwrap();
            let mut all = Vec::new();
            for (name, at) in [
                ("kept", Point::Kept(kept)),
                ("recomputed", Point::Kept(forgotten)),
                ("input", Point::Input(f32::tensor(x.clone(), shape))),
                ("output", Point::Output(mapped.value)),
            ] {
                let cotangent = Cotangent { value: f32::tensor(singles(&g), shape), log_det: f32::tensor(singles(&h), (batch,)) };
                let mut found = Gradients::zeros(&there);
                let pulled = bijector.pullback(at, cotangent, &mut found, &store).unwrap();
                let condition = pulled.condition.map(|condition| condition.as_vec()).unwrap_or_default();
                let errors = [error(&pulled.cotangent.as_vec(), &dx), error(found.values(), expected.values()), error(&condition, &dc)];
                println!("{batch} × {event}, {name}: ∂x {:.1e}, ∂θ {:.1e}, ∂c {:.1e}; {spec}", errors[0], errors[1], errors[2]);
                assert!(errors.iter().all(|error| *error <= TOLERANCE), "{spec}, {batch}, {name}: {errors:?}");
                for ((path, found), (_, expected)) in found.iter().zip(expected.iter()) {
                    assert!(
                        error(found, expected) <= 10.0 * TOLERANCE,
                        "{spec}, {batch}, {name}: {path}: {found:?}, expected {expected:?}"
                    );
                }
                all.push(found.values().to_vec());
            }
            assert!(all[0] == all[1] && all[0] == all[2], "{spec}, {batch}: what was kept and what is computed again are not the same");
        }
    }
}

/// Ten steps of the host's trainer with the model on the device: losses and weights are those on the host; a checkpoint
/// of either goes on with the other.
#[test]
#[ignore = "runs on the device that there is"]
fn training_is_the_hosts() {
    let spec: Spec<dyn ModelSpec> = from_ron(
        "MixerFlow(patch: 4, layers: 2, channel: [ActNorm(), LuLinear(), AffineCoupling(hidden: 8, activation: Silu)], \
         patches: [ActNorm(), AdditiveCoupling(hidden: 8, activation: Tanh, blocks: 1)])",
    )
    .unwrap();
    let data = "digits".parse::<DataSource>().unwrap().open(1).unwrap().train;
    let event = EventShape::Image { channels: 1, height: 8, width: 8 };
    let settings = |steps| Settings { steps, batch: 4, initial_batch: 64, report_every: 5, ..Settings::default() };
    let trainer = |steps| Trainer::new(spec.build::<f32>(event, 3).unwrap(), data.clone(), settings(steps)).unwrap();
    let stop = AtomicBool::new(false);
    let (mut host, mut there) = (trainer(10), trainer(10).on(&device()).unwrap());
    for trainer in [&mut host, &mut there] {
        trainer.run(&mut Silent, &stop).unwrap();
    }
    let losses = |trainer: &Trainer<f32>| trainer.history().iter().map(|report| report.train).collect::<Vec<_>>();
    println!("losses {:?} and {:?}", losses(&host), losses(&there));
    losses(&host).iter().zip(losses(&there)).for_each(|(a, b)| assert!((a - b).abs() <= 1e-4 * a.abs(), "{a} and {b}"));
    let weights = |model: &Model<f32>| {
        let mut all = Vec::new();
        flow_api::module::visit(model, |_, entry| {
            if let flow_api::module::Entry::Parameter { values, .. } = entry {
                all.extend_from_slice(values);
            }
        });
        all
    };
    let (a, b) = (weights(host.model()), weights(there.model()));
    assert!(error(&b, &doubles(&a)) <= 1e-3, "{}", error(&b, &doubles(&a)));
    assert_ne!(weights(trainer(10).model()), b, "nothing was trained");

    // Written on the device, read on the host, and the other way round.
    let folder = tempfile::tempdir().unwrap();
    for (name, from) in [("host", &host), ("device", &there)] {
        checkpoint::write(&folder.path().join(name), &spec, from).unwrap();
    }
    let further = |name: &str, on: bool| {
        let (mut trainer, _) = checkpoint::resume::<f32>(&folder.path().join(name), data.clone(), |_| settings(12)).unwrap();
        if on {
            trainer = trainer.on(&device()).unwrap();
        }
        trainer.run(&mut Silent, &stop).unwrap();
        weights(trainer.model())
    };
    let (a, b) = (further("device", false), further("host", true));
    assert!(error(&b, &doubles(&a)) <= 1e-3, "{}", error(&b, &doubles(&a)));
}

/// A call twice, and a sample alone, are the same to the bit; a sample is the one that the host draws.
#[test]
#[ignore = "runs on the device that there is"]
fn results_do_not_depend_on_the_call() {
    let (spec, event) = mixer();
    let (host, there) = (model::<f32>(spec, event), on(model(spec, event), &device()));
    let cx = Context::new(3);
    let x = noise::<f32>(3 * event.len(), "x");
    let [all, again] = [(); 2].map(|()| there.log_prob(x.clone(), &cx).unwrap().value);
    assert_eq!(all, again);
    for (sample, expected) in x.chunks_exact(event.len()).zip(&all) {
        assert_eq!(there.log_prob(sample.to_vec(), &cx).unwrap().value, [*expected]);
    }
    let samples = there.sample(2, 0.8, &cx).unwrap();
    assert!(error(&samples, &doubles(&host.sample(2, 0.8, &cx).unwrap())) <= TOLERANCE);
}

/// Parameters that change on the host are brought to the device before the next call.
#[test]
#[ignore = "runs on the device that there is"]
fn new_parameters_are_brought() {
    let (spec, event, _) = MODELS[0];
    let (mut host, mut there) = (model::<f32>(spec, event), on(model(spec, event), &device()));
    let (cx, x) = (Context::new(0), noise::<f32>(4 * event.len(), "x"));
    let before = there.encode(x.clone(), &cx).unwrap();
    for model in [&mut host, &mut there] {
        moved(model, "again");
    }
    let after = there.encode(x.clone(), &cx).unwrap();
    assert!(error(&after, &doubles(&before)) > 1e-2);
    assert!(error(&after, &doubles(&host.encode(x, &cx).unwrap())) <= TOLERANCE);
    assert_eq!(flow_api::module::save(&there), flow_api::module::save(&host));
}

#[test]
#[ignore = "runs on the device that there is"]
fn what_cannot_run_is_named() {
    let device = device();
    let spec = "VectorFlow(flows: [SplineCoupling(network: Kan()), LuLinear(), AffineCoupling(hidden: 8), Ffjord()])";
    let spec: Spec<dyn ModelSpec> = from_ron(spec).unwrap();
    let Err(FlowError::Engine(DeviceError::Missing { parts, .. })) = spec.build::<f32>(EventShape::Vector(4), 7).unwrap().on(&device)
    else {
        panic!("loaded")
    };
    let names: Vec<String> = parts.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["bijector.0 (SplineCoupling, whose network has no form)", "bijector.3 (Ffjord)"]);
    // A text with a fault: the flow, and the compiler's line of it.
    let spec: Spec<dyn ModelSpec> = from_ron("VectorFlow(flows: [Bump(), LuLinear(), Faulty()])").unwrap();
    let Err(FlowError::Engine(DeviceError::Snippet { kind, log, .. })) = spec.build::<f32>(EventShape::Vector(4), 7).unwrap().on(&device)
    else {
        panic!("compiled")
    };
    assert!(kind == "Faulty" && log.contains("unheard_of") && log.contains("Faulty"), "{kind}: {log}");
    // A row that no block holds.
    let spec: Spec<dyn ModelSpec> = from_ron("VectorFlow(flows: [LuLinear()])").unwrap();
    let refused = spec.build::<f32>(EventShape::Vector(2000), 7).unwrap().on(&device).unwrap_err().to_string();
    assert!(
        refused.starts_with("cuda:0: these parts of the model cannot run there: bijector (rows of 2000, a block of 16 rows needs"),
        "{refused}"
    );
    // A batch with a value that is none is an error that names the sample; the session is good for more.
    let (spec, event, _) = MODELS[0];
    let there = on(model(spec, event), &device);
    let (cx, mut x) = (Context::new(0), noise::<f32>(3 * event.len(), "x"));
    let good = there.encode(x.clone(), &cx).unwrap();
    let extreme = x.clone();
    x[event.len() + 1] = f32::MAX;
    assert!(matches!(there.encode(x, &cx), Err(FlowError::NotFinite { row: 1, .. })));
    assert_eq!(there.encode(extreme, &cx).unwrap(), good);
    assert_eq!(device.info().device, "cuda:0");
}

fn emulated(arguments: &[&str], variables: &[(&str, &str)]) -> Option<(bool, String)> {
    flow_cuda_emulated::ignored_tests(arguments, variables).unwrap()
}

/// Warps side by side, and in two drawn orders.
#[test]
fn all_of_it_on_the_emulated_device() {
    for seed in ["0", "1", "2"] {
        let Some((passed, text)) = emulated(&["--nocapture", "--test-threads=1"], &[("EMULATE_SEED", seed)]) else { return };
        assert!(passed && text.contains("6 passed"), "order {seed}:\n{text}");
    }
}

/// With any barrier of the kernels taken away, some order of the warps gives something else.
#[test]
fn every_barrier_is_missed() {
    let side = concat!(include_str!("../kernels/transformers.cu"), include_str!("../kernels/side.cu"));
    let (all, back) = (side.lines().count(), side.lines().position(|line| line.contains("The way back")).unwrap());
    // What the pullback shares with the passes is taken away there, and what is its own here.
    let programs = [
        ("values_and_log_dets_are_the_hosts", [side, include_str!("../kernels/map.cu")].concat(), back..all),
        ("gradients_are_the_hosts", [side, include_str!("../kernels/pull.cu")].concat(), 0..back),
    ];
    let barriers = programs.iter().flat_map(|(test, text, other)| {
        let lines = text.lines().enumerate().filter(|(i, line)| line.contains("__syncthreads") && !other.contains(i));
        lines.map(move |(i, _)| (*test, (i + 1).to_string()))
    });
    let barriers: Vec<_> = barriers.collect();
    assert!(barriers.len() >= 16, "{barriers:?}");
    for (test, line) in barriers {
        let mut noticed = false;
        for seed in ["1", "2", "3", "4"] {
            let Some((passed, _)) = emulated(&[test, "--exact"], &[("EMULATE_SEED", seed), ("EMULATE_WITHOUT_BARRIER", &line)]) else {
                return;
            };
            noticed |= !passed;
            if noticed {
                break;
            }
        }
        assert!(noticed, "{test}, line {line} of its kernels: nothing changes without this barrier");
    }
}

/// A machine without a driver, a device, enough memory or a new enough device gets an error in words.
#[test]
fn what_is_not_there_is_named() {
    for (variable, value, expected) in [
        ("EMULATE_DEVICES", "0", "cuda:0: no such device: the driver sees none"),
        ("EMULATE_CAPABILITY", "75", "cuda:0: emulated has compute capability 7.5, and the kernels need 8.0 at the least"),
        ("EMULATE_MEMORY", "1000", "cuda:0: no memory for the model's parameters of"),
    ] {
        let Some((passed, text)) = emulated(&["new_parameters_are_brought", "--exact"], &[(variable, value)]) else { return };
        assert!(!passed && text.contains(expected), "{variable}={value}:\n{text}");
    }
}
