//! Training steps that stay on a device, against the host's trainer.
//!
//! `cargo test` runs them on the emulated device. On a machine with a GPU
//! `cargo test -p flow-cuda --test step -- --ignored --nocapture` runs them on it and prints the figures.

use flow_api::Gradients;
use flow_api::device::{
    AdamForm, BaseForm, DeviceError, Engine, LevelsForm, Precision, StepForm, StepSamples, TrainingSession, TrainingState,
};
use flow_api::module::{EntryMut, update};
use flow_api::noise::Stream;
use flow_api::spec::{EventShape, Model, ModelSpec, Preprocessing, Spec, from_ron};
use flow_cuda::Cuda;
use flow_train::data::{DataSource, Dequantiser, Draw, ItemShape};
use flow_train::{AdamState, Settings, Silent, TrainError, Trainer, checkpoint, flat_weights};
use flows_coupling as _;
use mixerflow as _;
use std::sync::atomic::AtomicBool;

const EVENT: EventShape = EventShape::Image { channels: 1, height: 8, width: 8 };

/// Smooth networks, maps of more columns than a block has, of several pieces and with a permutation, a layer that
/// leaves a frame alone; levels that go up as they are, mirrored ones, and a logit that the host prepares; with all
/// that the optimiser can do.
const MODELS: [&str; 3] = [
    "MixerFlow(patch: 4, layers: 2, channel: [ActNorm(), LuLinear(permutation: Random), AffineCoupling(hidden: 8, activation: Silu)], \
     patches: [ActNorm(), AdditiveCoupling(hidden: 9, activation: Tanh, blocks: 1)], preprocessing: (flip: true))",
    "MixerFlow(patch: 2, layers: 2, shift: (every: 2, frame: 1), channel: [LuLinear(), AffineCoupling(hidden: 8, activation: Gelu, blocks: 1)], \
     patches: [ActNorm(), LuLinear(), ActNorm(), Permutation(order: Reverse)], preprocessing: (logit: 0.05))",
    "MixerFlow(patch: 8, layers: 1, channel: [ActNorm(), LuLinear(), AdditiveCoupling(hidden: 8, activation: Silu)], patches: [ActNorm()])",
];

fn models() -> &'static [&'static str] {
    // Without a barrier, one shows it as well and sooner.
    if std::env::var_os("EMULATE_WITHOUT_BARRIER").is_some() { &MODELS[..1] } else { &MODELS }
}

fn device() -> Cuda {
    Cuda::open(0).unwrap_or_else(|error| panic!("{error}"))
}

fn settings(steps: u64) -> Settings {
    Settings {
        steps,
        batch: 4,
        initial_batch: 64,
        report_every: 5,
        // Steps are as smooth as the gradients are, not of one length whatever these are.
        epsilon: 1e-2,
        learning_rate: 0.05,
        warm_up: 2,
        weight_decay: 0.01,
        clip: Some(0.3),
        ema: Some(0.7),
        ..Settings::default()
    }
}

fn spec(text: &str) -> Spec<dyn ModelSpec> {
    from_ron(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn trainer(text: &str, settings: Settings) -> Trainer<f32> {
    let data = "digits".parse::<DataSource>().unwrap().open(1).unwrap().train;
    Trainer::new(spec(text).build::<f32>(EVENT, 3).unwrap(), data, settings).unwrap()
}

fn run(trainer: &mut Trainer<f32>) -> Result<(), TrainError> {
    trainer.run(&mut Silent, &AtomicBool::new(false)).map(drop)
}

/// The greatest difference, of the greatest value.
fn error(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let size = expected.iter().fold(1e-6_f32, |most, x| most.max(x.abs()));
    found.iter().zip(expected).fold(0.0_f32, |most, (f, e)| if (f - e).is_nan() { f32::INFINITY } else { most.max((f - e).abs()) }) / size
}

fn state(trainer: &Trainer<f32>) -> [Vec<f32>; 4] {
    let AdamState { first, second, average, .. } = trainer.optimiser().state();
    [flat_weights(trainer.model()), first, second, average.unwrap()]
}

/// Ten steps of the host's trainer with all of a step there: parameters, moments, average, losses and norms are those
/// on the host.
#[test]
#[ignore = "runs on the device that there is"]
fn training_is_the_hosts() {
    let device = device();
    for text in models() {
        let steps = if std::env::var_os("EMULATE_WITHOUT_BARRIER").is_some() { 3 } else { 10 };
        let (mut host, mut there) = (trainer(text, settings(steps)), trainer(text, settings(steps)).on(&device).unwrap());
        let before = flat_weights(host.model());
        assert!(there.steps_stay_there() && !host.steps_stay_there(), "{text}");
        run(&mut host).unwrap();
        run(&mut there).unwrap();
        let errors: Vec<f32> = state(&there).iter().zip(&state(&host)).map(|(a, b)| error(a, b)).collect();
        println!("after {steps} steps: θ {:.1e}, m {:.1e}, v {:.1e}, average {:.1e}; {text}", errors[0], errors[1], errors[2], errors[3]);
        assert!(errors.iter().all(|error| *error <= 2e-5), "{errors:?}: {text}");
        assert!(error(&flat_weights(there.model()), &before) > 1e-2, "nothing was trained");
        assert_eq!(there.optimiser().steps(), steps);
        for (a, b) in there.history().iter().zip(host.history()) {
            let close = |a: f64, b: f64, most: f64| (a - b).abs() <= most * b.abs();
            assert!(close(a.train, b.train, 1e-5) && close(a.gradient_norm, b.gradient_norm, 1e-4), "{a:?}, {b:?}");
            assert!(b.gradient_norm > 0.3, "nothing was clipped");
        }
    }
}

/// Two runs are bit-equal, and so is one that was stopped and went on from a checkpoint; the host goes on with the same
/// checkpoint, and the device with the host's.
#[test]
#[ignore = "runs on the device that there is"]
fn a_run_goes_on_anywhere() {
    let (device, text) = (device(), MODELS[0]);
    let [mut all, mut again] = [(); 2].map(|()| trainer(text, settings(10)).on(&device).unwrap());
    run(&mut all).unwrap();
    run(&mut again).unwrap();
    assert_eq!(state(&all), state(&again));
    let folder = tempfile::tempdir().unwrap();
    let data = "digits".parse::<DataSource>().unwrap().open(1).unwrap().train;
    // The schedule is that of ten steps; the flag is raised after six.
    let half = |mut half: Trainer<f32>, name: &str| {
        let stop = AtomicBool::new(false);
        half.run(&mut StopAt(6, &stop), &stop).unwrap();
        assert_eq!(half.optimiser().steps(), 6);
        checkpoint::write(&folder.path().join(name), &spec(text), &half).unwrap();
    };
    half(trainer(text, settings(10)).on(&device).unwrap(), "device");
    half(trainer(text, settings(10)), "host");
    let further = |name: &str, on: bool| {
        let (mut trainer, _) = checkpoint::resume::<f32>(&folder.path().join(name), data.clone(), |_| settings(10)).unwrap();
        if on {
            trainer = trainer.on(&device).unwrap();
        }
        run(&mut trainer).unwrap();
        state(&trainer)
    };
    assert_eq!(further("device", true), state(&all));
    for (name, on) in [("device", false), ("host", true)] {
        for (a, b) in further(name, on).iter().zip(&state(&all)) {
            assert!(error(a, b) <= 2e-5, "{name}: {}", error(a, b));
        }
    }
}

struct StopAt<'a>(u64, &'a AtomicBool);

impl flow_train::Observer<f32> for StopAt<'_> {
    fn step(&mut self, step: u64, _: f64) {
        if step == self.0 {
            self.1.store(true, std::sync::atomic::Ordering::Relaxed);
        }
    }
}

fn adam() -> AdamForm {
    AdamForm { gradient_scale: 1.0, betas: (0.0, 0.999), epsilon: 1e-8, weight_decay: 0.0, clip: None, ema: None }
}

fn session(model: &Model<f32>, form: StepForm) -> Box<dyn TrainingSession> {
    let mut session = device().train(model.event().len(), &model.device_form().unwrap(), &form).unwrap_or_else(|error| panic!("{error}"));
    let zeros = || vec![0.0; Gradients::zeros(model).values().len()];
    let state = TrainingState { parameters: flat_weights(model), first: zeros(), second: zeros(), average: None };
    session.write(&state).unwrap();
    session
}

/// An identity whose shift has the sample as its gradient.
fn identity(dims: usize) -> Model<f32> {
    let mut model = spec("VectorFlow(flows: [ActNorm()])").build::<f32>(EventShape::Vector(dims), 1).unwrap();
    update(&mut model, |path, entry| {
        if let EntryMut::Parameter { values, .. } = entry {
            // Anything but zeros is initialised.
            values.fill(if path.ends_with("shift") { 0.0 } else { f32::MIN_POSITIVE });
        }
    })
    .unwrap();
    model
}

/// Every number that the device makes of a level has the noise that the host gives it: in another one of 65,536 parts
/// it would be further away than the rounding of its gradient.
#[test]
#[ignore = "runs on the device that there is"]
fn noise_is_the_hosts() {
    // One block of the stream and many of them, rows that fill no word.
    let shapes = [(1, 3, 3), (1, 5, 7), (3, 20, 25)];
    let cases = [(17, None, false), (256, None, true), (256, Some(5), true)];
    for (((channels, height, width), (levels, bits, flip)), index) in shapes.into_iter().zip(cases).zip([4, 1 << 33, 9]) {
        let shape = ItemShape::Image { channels, height, width };
        let dims = channels * height * width;
        let preprocessing = Preprocessing { bits, flip, ..Preprocessing::default() };
        let dequantiser = Dequantiser::new(&preprocessing, levels, shape, 0x1234_5678_9abc).unwrap();
        let form: LevelsForm = dequantiser.device_form().unwrap();
        let form = StepForm { samples: 1, levels: Some(form), base: BaseForm::StandardNormal, adam: adam(), precision: Precision::F32 };
        let model = identity(dims);
        let x: Vec<u8> = (0..dims).map(|i| u8::try_from(i * 7 % levels as usize).unwrap()).collect();
        let mut session = session(&model, form);
        for epoch in [0, 1 << 40] {
            let (mut expected, mut log_det) = (vec![0.0_f32; dims], [0.0_f32]);
            dequantiser.dequantise(&x, &[Draw { epoch, index }], &mut expected, &mut log_det).unwrap();
            let samples = StepSamples::Levels { values: &x, items: &[[epoch, index as u64]] };
            // No step is so small as to leave the shift at 0.
            assert!(session.step(samples, 0.0, 1).unwrap().finite);
            let first = session.read().unwrap().first;
            let off = first[dims..].iter().zip(&expected).fold(0.0_f32, |most, (a, b)| most.max((a - b).abs()));
            println!("{dims} of {levels} levels, {bits:?} bits, epoch {epoch}: off by {off:.1e}");
            assert!(off <= 0.75 / 65536.0 / dequantiser.levels() as f32, "{shape:?}: {off}");
        }
    }
}

/// Batches of another size have graphs of their own; levels and numbers are told from each other.
#[test]
#[ignore = "runs on the device that there is"]
fn batches_of_any_size() {
    let model = identity(5);
    let form = |levels| StepForm { samples: 40, levels, base: BaseForm::StandardNormal, adam: adam(), precision: Precision::F32 };
    let mut session = session(&model, form(None));
    let mut x = vec![0.0; 41 * 5];
    Stream::new(5, 0, "x").row(0).gaussian(&mut x);
    for count in [40, 7, 1, 40, 7] {
        let x = &x[..count * 5];
        let report = session.step(StepSamples::Numbers(x), 0.0, 1).unwrap();
        let squares = x.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>() / count as f64;
        let nll = 0.5 * squares + 2.5 * (2.0 * std::f64::consts::PI).ln();
        assert!((report.nll - nll).abs() <= 1e-6 * nll, "{count}: {} and {nll}", report.nll);
        let mean = |j: usize| x.iter().skip(j).step_by(5).sum::<f32>() / count as f32;
        let expected: Vec<f32> = (0..5).map(mean).collect();
        assert!(error(&session.read().unwrap().first[5..], &expected) <= 1e-5);
    }
    let mut bad = x[..10].to_vec();
    bad[3] = f32::NAN;
    let before = session.read().unwrap();
    for bad in [bad, vec![1e30; 10]] {
        assert!(!session.step(StepSamples::Numbers(&bad), 1.0, 2).unwrap().finite);
        assert_eq!(session.read().unwrap(), before, "a step that is not finite changed something");
    }
    assert!(matches!(session.step(StepSamples::Numbers(&x), 0.0, 1), Err(DeviceError::Size { expected: 40, got: 41, .. })));
    assert!(session.step(StepSamples::Numbers(&x[..7]), 0.0, 1).is_err());
    assert!(session.step(StepSamples::Numbers(&[]), 0.0, 1).is_err());
    assert!(session.step(StepSamples::Levels { values: &[0; 5], items: &[[0, 0]] }, 0.0, 1).is_err());
}

/// What has no form of a step goes on with the host's loss and optimiser; a run that diverges is told of as on the
/// host, and stays as it was.
#[test]
#[ignore = "runs on the device that there is"]
fn what_has_no_step_is_the_hosts() {
    let device = device();
    let text = MODELS[2];
    let learned = text.replace("patches: [ActNorm()]", "patches: [ActNorm()], base: StudentT()");
    let (mut host, mut there) = (trainer(&learned, settings(5)), trainer(&learned, settings(5)).on(&device).unwrap());
    assert!(!there.steps_stay_there());
    run(&mut host).unwrap();
    run(&mut there).unwrap();
    let errors: Vec<f32> = state(&there).iter().zip(&state(&host)).map(|(a, b)| error(a, b)).collect();
    assert!(errors.iter().all(|error| *error <= 2e-5), "{errors:?}");
    // A likelihood that is given anew is the same loss.
    assert!(trainer(text, settings(2)).on(&device).unwrap().with_objective(Box::new(flow_train::Likelihood)).steps_stay_there());
    let wild = || Settings { learning_rate: 1e20, clip: None, ..settings(10) };
    let (mut host, mut there) = (trainer(text, wild()), trainer(text, wild()).on(&device).unwrap());
    let [host_error, there_error] = [&mut host, &mut there].map(|trainer| run(trainer).unwrap_err());
    println!("{host_error}\n{there_error}");
    assert_eq!(host.optimiser().steps(), there.optimiser().steps());
    assert!(matches!(there_error, TrainError::NotFinite { .. } | TrainError::Step { .. }), "{there_error}");
    assert!(error(&flat_weights(there.model()), &flat_weights(host.model())) <= 1e-4);
}

fn image(layers: usize, size: usize, hidden: usize) -> Model<f32> {
    let side = format!("[LuLinear(), AffineCoupling(hidden: {hidden}, blocks: 1)]");
    let text = format!("MixerFlow(patch: {}, layers: {layers}, channel: {side}, patches: {side})", size / 8 * 2);
    let channels = if size == 8 { 1 } else { 3 };
    let mut model = spec(&text).build::<f32>(EventShape::Image { channels, height: size, width: size }, 7).unwrap();
    update(&mut model, |path, entry| {
        if let EntryMut::Parameter { values, .. } = entry {
            let mut noise = vec![0.0_f32; values.len()];
            Stream::new(5, 0, path).row(0).gaussian(&mut noise);
            let scale = 0.3 / (values.len() as f32).sqrt().max(2.0);
            values.iter_mut().zip(noise).for_each(|(value, noise)| *value += scale * noise);
        }
    })
    .unwrap();
    model
}

/// The steps whose calls `a_step_is_few_calls` counts.
#[test]
#[ignore = "runs on the device that there is"]
fn thirty_layers() {
    let model = image(30, 8, 8);
    let levels = LevelsForm { seed: 1, purpose: 1, levels: 256, dropped: 0, row: 8, mirror: false };
    let form = StepForm { samples: 1, levels: Some(levels), base: BaseForm::StandardNormal, adam: adam(), precision: Precision::F32 };
    let mut session = session(&model, form);
    println!("{}", session.describe());
    for number in 1..=2 {
        session.step(StepSamples::Levels { values: &[100; 64], items: &[[0, number]] }, 1e-4, number).unwrap();
    }
}

/// Plain TF32 is another precision, and how far off it is.
#[test]
#[ignore = "runs on the device that there is"]
fn tf32_rounds() {
    let model = image(1, 32, 128);
    let mut x = vec![0.0; model.event().len()];
    Stream::new(5, 0, "x").row(0).gaussian(&mut x);
    let of = |precision| {
        let form = StepForm { samples: 1, levels: None, base: BaseForm::StandardNormal, adam: adam(), precision };
        let mut session = session(&model, form);
        let report = session.step(StepSamples::Numbers(&x), 0.0, 1).unwrap();
        (report.nll, session.read().unwrap().first)
    };
    let (exact, rough) = (of(Precision::F32), of(Precision::Tf32));
    let (nll, gradient) = ((rough.0 - exact.0).abs() / 3072.0, error(&rough.1, &exact.1));
    let norm = |x: &mut dyn Iterator<Item = f32>| x.map(|x| f64::from(x).powi(2)).sum::<f64>().sqrt();
    let off = norm(&mut rough.1.iter().zip(&exact.1).map(|(a, b)| a - b)) / norm(&mut exact.1.iter().copied());
    println!("tf32: {nll:.1e} nats/dim, gradients {gradient:.1e} of the greatest, {off:.1e} of the norm");
    assert!((1e-6..5e-2).contains(&gradient) && nll < 1e-3);
}

fn emulated(arguments: &[&str], variables: &[(&str, &str)]) -> Option<(bool, String)> {
    flow_cuda_emulated::ignored_tests(arguments, variables).unwrap()
}

#[test]
fn all_of_it_on_the_emulated_device() {
    for seed in ["0", "1"] {
        let Some((passed, text)) = emulated(&["--nocapture", "--test-threads=1"], &[("EMULATE_SEED", seed)]) else { return };
        assert!(passed && text.contains("7 passed"), "order {seed}:\n{text}");
    }
}

/// The calls that the ignored test of this name makes, with a number each; none without an emulated device.
fn calls(test: &str) -> Option<Vec<(String, usize)>> {
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("trace");
    let (passed, text) = emulated(&[test, "--exact"], &[("EMULATE_TRACE", &trace.to_string_lossy())])?;
    assert!(passed, "{text}");
    let text = std::fs::read_to_string(trace).unwrap();
    let calls = text.lines().filter_map(|line| line.split_once(' '));
    Some(calls.map(|(call, number)| (call.to_owned(), number.parse().unwrap())).collect())
}

/// The goals of a step: at most 200 nodes for 30 layers of two sides, and in a step one upload, one graph and one read
/// of at most 64 bytes, and nothing else, no allocation above all.
#[test]
fn a_step_is_few_calls() {
    let Some(all) = calls("thirty_layers") else { return };
    let all: Vec<(&str, usize)> = all.iter().map(|(call, number)| (call.as_str(), *number)).collect();
    let graphs: Vec<usize> = all.iter().filter(|(call, _)| *call == "instantiation").map(|(_, nodes)| *nodes).collect();
    assert!(matches!(graphs[..], [100..=200]), "{graphs:?}");
    // The last upload before a step is its own.
    let begin = all.iter().position(|(call, _)| *call == "graph").unwrap() - 1;
    let steps = &all[begin..];
    assert_eq!(steps.len(), 2 * 3, "{steps:?}");
    for step in steps.chunks(3) {
        assert!(matches!(step, [("upload", 96), ("graph", _), ("read", 1..=64)]), "{step:?}");
    }
    // No step of the trainer's is made with the host's loss, whose sides would be launched one by one: as many are for
    // what it looks at twice in a run.
    let Some(all) = calls("training_is_the_hosts") else { return };
    let count = |name: &str| all.iter().filter(|(call, _)| call == name).count();
    assert_eq!([count("graph"), count("instantiation")], [10 * MODELS.len(), MODELS.len()]);
    assert!(count("launch") <= 40, "{}", count("launch"));
}

/// With any barrier of the step's kernels taken away, some order of the warps gives something else.
#[test]
fn every_barrier_is_missed() {
    let lines = include_str!("../kernels/step.cu").lines().enumerate().filter(|(_, line)| line.contains("__syncthreads"));
    let lines: Vec<String> = lines.map(|(i, _)| (i + 1).to_string()).collect();
    assert!(lines.len() >= 6, "{lines:?}");
    for line in lines {
        let mut noticed = false;
        for seed in ["1", "2", "3", "4"] {
            let variables = [("EMULATE_SEED", seed), ("EMULATE_WITHOUT_BARRIER", &line), ("EMULATE_WITHOUT_BARRIER_OF", "dequantise")];
            // A step that is not finite is made by the host in the one, and an error in the other.
            let tests = ["training_is_the_hosts", "batches_of_any_size", "--exact"];
            let Some((passed, _)) = emulated(&tests, &variables) else { return };
            noticed |= !passed;
            if noticed {
                break;
            }
        }
        assert!(noticed, "line {line} of step.cu: nothing changes without this barrier");
    }
}

/// A driver without graphs is an error in words.
#[test]
fn graphs_that_are_not_there_are_named() {
    let Some((passed, text)) = emulated(&["thirty_layers", "--exact"], &[("EMULATE_GRAPHS", "0")]) else { return };
    assert!(!passed && text.contains("cuda:0: the capture of a graph failed: operation not supported (code 801)"), "{text}");
}
