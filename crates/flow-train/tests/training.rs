//! Runs that can be trusted: the same at any number of threads, the same when resumed, stopped with a reason, saved without loss.

use flow_api::spec::{BuildScope, EventShape, Model, ModelSpec, Spec, SpecScalar, from_ron};
use flow_api::{Context, EntryMut, FlowError, Gradients, update};
use flow_train::data::{self, Dataset, InMemory, ItemShape, Values};
use flow_train::{
    Adam, AdamConfig, Ending, EvaluateOptions, Events, Observer, Report, Settings, Silent, TrainError, Trainer, checkpoint, evaluate,
    flat_weights,
};
use flows_coupling as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const SPEC: &str = "MixerFlow(patch: 2, layers: 2, shift: (every: 2), channel: [ActNorm(), LuLinear(), AffineCoupling(hidden: 8)], \
                    patches: [ActNorm(), LuLinear(permutation: Random), AffineCoupling(hidden: 8)])";
const DIGITS: EventShape = EventShape::Image { channels: 1, height: 8, width: 8 };

fn spec() -> Spec<dyn ModelSpec> {
    let _ = mixerflow::ImageShape::of(DIGITS, "test");
    from_ron(SPEC).unwrap()
}

fn model(seed: u64) -> Model<f32> {
    f32::model(spec().0.as_ref(), DIGITS, &BuildScope::new(flow_api::DefaultDevice::default(), seed)).unwrap()
}

fn digits() -> Arc<dyn Dataset> {
    data::digits().unwrap().train
}

fn settings(steps: u64) -> Settings {
    Settings { steps, batch: 24, warm_up: 2, report_every: 4, validation: 0.1, ema: Some(0.9), initial_batch: 32, ..Settings::default() }
}

fn never() -> AtomicBool {
    AtomicBool::new(false)
}

#[test]
fn adam_makes_the_steps_of_its_formula() {
    let mut flow = model(1);
    let images = vec![0.25_f32; 2 * 64].iter().enumerate().map(|(i, x)| x + (i as f32).sin()).collect::<Vec<_>>();
    let batch = flow.batch(images.clone()).unwrap();
    flow.flow_mut().initialise(batch, &Context::new(1)).unwrap();
    let config = AdamConfig { clip: Some(0.5), ema: Some(0.75), weight_decay: 0.1, ..AdamConfig::default() };
    let mut adam = Adam::new(&flow, config);
    let start: Vec<f64> = flat_weights(&flow).into_iter().map(f64::from).collect();
    let (mut theta, mut m, mut v, mut average) = (start.clone(), vec![0.0; start.len()], vec![0.0; start.len()], start);
    for t in 1..=3 {
        let mut gradients = Gradients::zeros(&flow);
        flow.flow().nll(flow.batch(images.clone()).unwrap(), &mut gradients, &Context::new(1)).unwrap();
        let norm = gradients.norm();
        let shrink = (0.5 / norm).min(1.0);
        assert!(shrink < 1.0, "clipping takes part");
        let rate = 0.01 / f64::from(t);
        assert!((adam.step(&mut flow, &gradients, rate).unwrap() - norm).abs() < 1e-12);
        for (i, g) in gradients.values().iter().enumerate() {
            let g = f64::from(*g) * shrink;
            m[i] = 0.9 * m[i] + 0.1 * g;
            v[i] = 0.999 * v[i] + 0.001 * g * g;
            let corrected = m[i] / (1.0 - 0.9_f64.powi(t)) / ((v[i] / (1.0 - 0.999_f64.powi(t))).sqrt() + 1e-8);
            theta[i] = theta[i] * (1.0 - rate * 0.1) - rate * corrected;
            average[i] = 0.75 * average[i] + 0.25 * theta[i];
        }
        for (got, expected) in flat_weights(&flow).iter().zip(&theta).chain(adam.average().unwrap().iter().zip(&average)) {
            assert!((f64::from(*got) - expected).abs() < 2e-4 * rate.max(expected.abs()), "step {t}: {got} {expected}");
        }
    }
}

#[test]
fn the_schedule_warms_up_and_falls_to_zero() {
    let settings = Settings { steps: 1000, learning_rate: 1e-3, warm_up: 100, ..Settings::default() };
    let cosine = |step: f64| 0.5 * (1.0 + (std::f64::consts::PI * step / 1000.0).cos());
    for (step, expected) in [(0, 1e-5), (49, 5e-4 * cosine(49.0)), (99, 1e-3 * cosine(99.0)), (500, 5e-4), (999, 1e-3 * cosine(999.0))] {
        assert!((settings.learning_rate_at(step) - expected).abs() < 1e-10, "{step}");
    }
}

#[test]
fn one_thread_and_two_give_the_same_bits() {
    let run = |threads| {
        let mut trainer = Trainer::new(model(3), digits(), Settings { threads: Some(threads), ..settings(6) }).unwrap();
        assert_eq!(trainer.run(&mut Silent, &never()).unwrap(), Ending::Finished);
        flat_weights(trainer.model())
    };
    assert_eq!(run(1), run(2));
}

/// Raises the flag after a number of steps.
struct StopAfter<'a>(u64, &'a AtomicBool);
impl Observer<f32> for StopAfter<'_> {
    fn step(&mut self, step: u64, _: f64) {
        self.1.store(step >= self.0, Ordering::Relaxed);
    }
}

#[test]
fn a_resumed_run_is_the_run_that_never_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("latest");
    let mut whole = Trainer::new(model(5), digits(), settings(12)).unwrap();
    whole.run(&mut Silent, &never()).unwrap();

    let stop = never();
    let mut first = Trainer::new(model(5), digits(), settings(12)).unwrap();
    assert_eq!(first.run(&mut StopAfter(8, &stop), &stop).unwrap(), Ending::Stopped);
    checkpoint::write(&path, &spec(), &first).unwrap();

    assert_eq!(flow_api::spec::to_ron(&checkpoint::read_spec(&path).unwrap()).unwrap(), flow_api::spec::to_ron(&spec()).unwrap());
    let mut again = model(99);
    checkpoint::read_model(&path, &mut again).unwrap();
    let run = checkpoint::read_run::<f32>(&path, flow_api::parameter_count(&again)).unwrap();
    let settings = checkpoint::read_settings(&path).unwrap();
    let mut second = Trainer::resume(again, digits(), settings, run.progress, run.optimiser, run.best).unwrap();
    assert_eq!(second.run(&mut Silent, &never()).unwrap(), Ending::Finished);

    assert_eq!(flat_weights(second.model()), flat_weights(whole.model()));
    assert_eq!(second.optimiser(), whole.optimiser());
    assert_eq!(second.best(), whole.best());
    let losses = |trainer: &Trainer<f32>| {
        trainer.history().iter().map(|r| (r.step, r.train.to_bits(), r.validation.map(f64::to_bits))).collect::<Vec<_>>()
    };
    assert_eq!(losses(&second), losses(&whole));
}

#[test]
fn a_loaded_model_scores_bit_for_bit_and_another_architecture_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model");
    let trainer = Trainer::new(model(6), digits(), settings(1)).unwrap();
    checkpoint::write_model(&path, &spec(), trainer.model()).unwrap();
    let mut loaded = model(7);
    checkpoint::read_model(&path, &mut loaded).unwrap();
    let images = vec![0.1_f32; 64];
    let score = |model: &Model<f32>| model.log_prob(images.clone(), &Context::new(0)).unwrap().value;
    assert_eq!(score(&loaded), score(trainer.model()));

    let wider = SPEC.replace("hidden: 8", "hidden: 9");
    let wider: Spec<dyn ModelSpec> = from_ron(&wider).unwrap();
    let mut wider = f32::model(wider.0.as_ref(), DIGITS, &BuildScope::new(flow_api::DefaultDevice::default(), 1)).unwrap();
    let before = flat_weights(&wider);
    let error = checkpoint::read_model(&path, &mut wider).unwrap_err();
    assert!(matches!(error, TrainError::Flow(FlowError::State(_))), "{error}");
    assert_eq!(flat_weights(&wider), before);
}

#[test]
fn broken_checkpoints_are_typed_errors() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    let trainer = Trainer::new(model(8), digits(), settings(1)).unwrap();
    checkpoint::write(&path, &spec(), &trainer).unwrap();
    let file = path.join("model.safetensors");
    let good = std::fs::read(&file).unwrap();
    let cut = good[..good.len() / 2].to_vec();
    let lying = [u64::MAX.to_le_bytes().as_slice(), &good[8..]].concat();
    let noise: Vec<u8> = good.iter().map(|b| b ^ 0x5a).collect();
    for (name, bytes) in [("empty", Vec::new()), ("cut off", cut), ("lying header", lying), ("noise", noise)] {
        std::fs::write(&file, bytes).unwrap();
        let error = checkpoint::read_model(&path, &mut model(8)).unwrap_err();
        assert!(matches!(error, TrainError::Checkpoint { .. }), "{name}: {error}");
    }
    // A file far larger than the model needs is refused before it is read.
    std::fs::File::create(&file).unwrap().set_len(1 << 40).unwrap();
    let error = checkpoint::read_model(&path, &mut model(8)).unwrap_err().to_string();
    assert!(error.contains("1099511627776 bytes where at most"), "{error}");
    std::fs::write(path.join("progress.json"), "{\"step\": 1").unwrap();
    assert!(matches!(checkpoint::read_run::<f32>(&path, 10).unwrap_err(), TrainError::Checkpoint { .. }));
    assert!(matches!(checkpoint::read_spec(Path::new("no/such/folder")).unwrap_err(), TrainError::Io { .. }));
}

#[test]
fn a_kill_at_any_moment_leaves_a_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("latest");
    let beside = |suffix: &str| folder.path().join(format!("latest.{suffix}"));
    let trainer = Trainer::new(model(9), digits(), settings(1)).unwrap();
    checkpoint::write(&path, &spec(), &trainer).unwrap();
    let readable = || checkpoint::read_model(&path, &mut model(9)).is_ok();
    // Killed while the new one was a draft; between the two renames; before the old one was removed.
    std::fs::create_dir(beside("draft")).unwrap();
    assert!(readable());
    checkpoint::write(&path, &spec(), &trainer).unwrap();
    std::fs::rename(&path, beside("old")).unwrap();
    assert!(readable(), "the old one counts where the new one is not in place");
    checkpoint::write(&path, &spec(), &trainer).unwrap();
    std::fs::rename(&path, beside("new")).unwrap();
    assert!(readable(), "so does a new one that is not in place");
    checkpoint::write(&path, &spec(), &trainer).unwrap();
    assert!(readable() && !beside("old").exists() && !beside("new").exists() && !beside("draft").exists());
}

#[test]
fn early_stopping_returns_the_best_weights() {
    // A learning rate so large that validation gets worse.
    let settings = Settings { learning_rate: 0.3, warm_up: 1, clip: None, ema: None, patience: Some(2), report_every: 1, ..settings(60) };
    let mut trainer = Trainer::new(model(10), digits(), settings).unwrap();
    let ending = trainer.run(&mut Silent, &never());
    let best = trainer.best().unwrap().clone();
    match ending {
        Ok(ending) => {
            assert_eq!(ending, Ending::Early);
            assert_eq!(flat_weights(trainer.model()), best.weights);
            assert!(trainer.history().iter().filter_map(|r| r.validation).all(|v| best.value <= v));
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_loss_that_is_no_number_names_step_layer_and_item_and_keeps_the_weights() {
    struct Poison;
    impl Observer<f32> for Poison {}
    let mut poisoned = model(11);
    let trainer = Trainer::new(model(11), digits(), settings(3)).unwrap();
    flow_api::load(&mut poisoned, &flow_api::save(trainer.model())).unwrap();
    update(&mut poisoned, |path, entry| {
        if let (true, EntryMut::Parameter { values, .. }) = (path.ends_with("layers.1.patch.2.net.final.bias"), entry) {
            values[0] = f32::NAN;
        }
    })
    .unwrap();
    let before = flat_weights(&poisoned);
    let run = trainer.optimiser().state();
    let mut trainer = Trainer::resume(poisoned, digits(), settings(3), trainer.progress(), run, None).unwrap();
    let error = trainer.run(&mut Poison, &never()).unwrap_err();
    let TrainError::NotFinite { step: 0, source, items } = &error else { panic!("{error}") };
    assert!(matches!(source.as_ref(), FlowError::NotFinite { layer, row: 0, .. } if layer == "bijector.layers.1.patch.2"), "{source}");
    assert!(items.parse::<usize>().is_ok(), "{items}");
    let bits = |weights: &[f32]| weights.iter().map(|w| w.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(&flat_weights(trainer.model())), bits(&before));
}

/// A standard normal model of vectors that nothing is trained in.
fn standard_normal(dim: usize) -> Model<f64> {
    let spec: Spec<dyn ModelSpec> = from_ron("VectorFlow(flows: [LuLinear()])").unwrap();
    f64::model(spec.0.as_ref(), EventShape::Vector(dim), &BuildScope::new(flow_api::DefaultDevice::default(), 1)).unwrap()
}

#[test]
fn an_evaluation_finds_the_entropy_of_a_known_density() {
    let (dim, items) = (3, 4000);
    let mut values = vec![0.0; dim * items];
    flow_kernels::noise::Stream::new(1, 0, "normal").row(0).gaussian(&mut values);
    values[5] = 1e200; // whose square is no number
    let set = InMemory::new(Path::new("normal"), Values::Real(values), ItemShape::Vector { dims: dim }, None, None).unwrap();
    let events = Events::new(&set, &data::Dequantise::default(), 1).unwrap();
    let evaluation = evaluate(&standard_normal(dim), &set, &events, &EvaluateOptions::default()).unwrap();
    let entropy = 0.5 * dim as f64 * (1.0 + (2.0 * std::f64::consts::PI).ln());
    assert!((evaluation.loss - entropy).abs() < 4.0 * evaluation.standard_error, "{evaluation:?}");
    // Var(½χ²₃) = 3/2.
    assert!((evaluation.standard_error - (1.5 / items as f64).sqrt()).abs() < 2e-3);
    assert!((evaluation.non_finite - 1.0 / items as f64).abs() < 1e-12);
    assert_eq!(evaluation.unit, "nats");
}

#[test]
fn reports_reach_the_observer_and_settings_are_checked() {
    struct Count(Vec<u64>);
    impl Observer<f32> for Count {
        fn report(&mut self, report: &Report, trainer: &Trainer<f32>) -> flow_train::Result<()> {
            assert_eq!(trainer.history().last(), Some(report));
            self.0.push(report.step);
            Ok(())
        }
    }
    let mut count = Count(Vec::new());
    Trainer::new(model(12), digits(), settings(9)).unwrap().run(&mut count, &never()).unwrap();
    assert_eq!(count.0, [4, 8, 9]);

    let texts = [
        (Settings { steps: 0, ..Settings::default() }, "steps: expected at least 1, got 0"),
        (Settings { learning_rate: f64::NAN, ..Settings::default() }, "learning_rate: expected a finite number greater than 0, got NaN"),
        (Settings { ema: Some(1.0), ..Settings::default() }, "ema: expected a decay between 0 and 1, got 1"),
        (Settings { validation: 0.9, ..Settings::default() }, "validation: expected a share from 0 to 0.5, got 0.9"),
    ];
    for (settings, expected) in texts {
        assert_eq!(settings.check().unwrap_err().to_string(), expected);
    }
    let wrong = Trainer::new(
        standard_normal(3),
        Arc::new(InMemory::new(Path::new("x"), Values::Real(vec![0.0; 8]), ItemShape::Vector { dims: 2 }, None, None).unwrap()),
        Settings::default(),
    );
    assert_eq!(wrong.err().unwrap().to_string(), "the model is for events of shape (3), the data has (2)");
}
