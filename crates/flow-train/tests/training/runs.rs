//! Runs: the same bits at any number of threads and when resumed; ends and failures.

use crate::{StopAfter, build, digits, losses, model, never, settings, spec, text_of, vectors};
use dfdx::prelude::{Axis, BroadcastTo, HasShape, OwnedTape};
use flow_api::bases::StandardNormal;
use flow_api::module::{EntryMut, update};
use flow_api::rows::{MappedRows, Rows, Taped, TapedMap, TapedRows};
use flow_api::spec::{EventShape, Model, SpecScalar, from_ron};
use flow_api::{Context, Facts, FlowError, Memory, Module, Parameter, RowFlow, Scalar, Tensor, module_fields};
use flow_train::data::{Dataset, Draw, ItemShape, Shuffle};
use flow_train::{
    Checkpoints, Ending, Item, Metrics, Observer, Progress, Report, Run, Settings, Silent, TrainError, Trainer, checkpoint, flat_weights,
};
use std::sync::Arc;

#[test]
fn one_thread_and_two_give_the_same_bits() {
    let run = |threads, memory| {
        let mut trainer = Trainer::<f32>::new(model(3), digits(), Settings { threads: Some(threads), memory, ..settings(6) }).unwrap();
        assert_eq!(trainer.run(&mut Silent, &never()).unwrap(), Ending::Finished);
        (flat_weights(trainer.model()), losses(&trainer))
    };
    let stored = run(1, Memory::Store);
    assert_eq!(run(2, Memory::Store), stored);
    // Kept or computed again, a layer's input is the same.
    assert_eq!(run(2, Memory::Recompute), stored);
    let inverted = run(2, Memory::Invert).0;
    assert!(inverted.iter().zip(&stored.0).all(|(a, b)| (a - b).abs() < 1e-3));
}

fn resumes_bit_for_bit<E: SpecScalar>(stop_after: u64) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("latest");
    let mut whole = Trainer::<E>::new(model(5), digits(), settings(12)).unwrap();
    whole.run(&mut Silent, &never()).unwrap();

    let stop = never();
    let mut first = Trainer::<E>::new(model(5), digits(), settings(12)).unwrap();
    assert_eq!(first.run(&mut StopAfter(stop_after, &stop), &stop).unwrap(), Ending::Stopped);
    assert_eq!(first.optimiser().steps(), stop_after);
    checkpoint::write(&path, &spec(), &first).unwrap();

    let (mut second, _) = checkpoint::resume::<E>(&path, digits(), |settings| settings).unwrap();
    assert_eq!(second.settings(), whole.settings());
    assert_eq!(second.run(&mut Silent, &never()).unwrap(), Ending::Finished);
    assert_eq!(flow_api::module::save(second.model()), flow_api::module::save(whole.model()));
    assert_eq!(second.optimiser(), whole.optimiser());
    assert_eq!(second.best(), whole.best());
    assert_eq!(losses(&second), losses(&whole));
    assert_eq!(flow_api::module::save(&second.finish().unwrap()), flow_api::module::save(&whole.finish().unwrap()));
}

#[test]
fn a_resumed_run_is_the_run_that_never_stopped() {
    resumes_bit_for_bit::<f32>(8);
    // Between two reports, whose sums have to go on too.
    resumes_bit_for_bit::<f64>(6);
}

#[test]
fn early_stopping_returns_the_best_model_and_a_resumed_run_stays_stopped() {
    // A learning rate so large that validation gets worse.
    let settings = Settings { learning_rate: 0.3, warm_up: 1, clip: None, ema: None, patience: Some(2), report_every: 1, ..settings(60) };
    let mut trainer = Trainer::<f32>::new(model(10), digits(), settings).unwrap();
    assert_eq!(trainer.run(&mut Silent, &never()).unwrap(), Ending::Early);
    let steps = trainer.optimiser().steps();
    assert!(steps < 60);
    assert_eq!(trainer.run(&mut Silent, &never()).unwrap(), Ending::Early);
    assert_eq!(trainer.optimiser().steps(), steps);
    let best = trainer.best().unwrap().clone();
    assert_eq!(best.step, steps - 2);
    assert!(trainer.history().iter().filter_map(|r| r.validation).all(|v| best.value <= v));
    assert_ne!(flow_api::module::save(trainer.model()), best.state);
    assert_eq!(flow_api::module::save(&trainer.finish().unwrap()), best.state);
}

/// With an item that no model can score, no validation is finite: the model to use is the last one and not the first.
#[test]
fn a_validation_that_is_not_finite_is_never_the_best() {
    let folder = tempfile::tempdir().unwrap();
    let text = "VectorFlow(flows: [LuLinear()])";
    for ema in [None, Some(0.5)] {
        let settings = Settings { steps: 4, batch: 4, report_every: 2, validation: 0.5, ema, ..Settings::default() };
        let mut values: Vec<f64> = (0..32).map(|i| f64::from(i).sin()).collect();
        // One of those that are held out.
        values[2 * Shuffle { seed: 0 }.permutation(u64::MAX, 16)[0]] = 1e200;
        let mut trainer = Trainer::new(build::<f64>(text, EventShape::Vector(2), 1), vectors(values, 2), settings).unwrap();
        trainer.run(&mut Silent, &never()).unwrap();
        assert!(trainer.history().iter().all(|report| report.validation == Some(f64::INFINITY)));
        assert!(Report::none_is_valid(trainer.history()) && trainer.best().is_none());
        let expected = trainer.optimiser().average().map_or_else(|| flat_weights(trainer.model()), <[f64]>::to_vec);
        let path = folder.path().join(format!("{ema:?}"));
        checkpoint::write(&path, &from_ron(text).unwrap(), &trainer).unwrap();
        assert_eq!(flat_weights(&checkpoint::open::<f64>(&path).unwrap().model), expected);
        assert_eq!(flat_weights(&trainer.finish().unwrap()), expected);
    }
}

#[test]
fn averaged_weights_are_validated_and_the_run_goes_on_with_its_own() {
    let plain = Settings { ema: None, ..settings(8) };
    let run = |settings: Settings| {
        let mut trainer = Trainer::<f64>::new(model(4), digits(), settings).unwrap();
        trainer.run(&mut Silent, &never()).unwrap();
        trainer
    };
    let (with, without) = (run(settings(8)), run(plain.clone()));
    assert_eq!(flat_weights(with.model()), flat_weights(without.model()), "averaging only watches");
    assert_ne!(with.history()[1].validation, without.history()[1].validation);
    // An average that forgets at once is the weights themselves.
    let forgetful = run(Settings { ema: Some(1e-300), ..plain });
    assert_eq!(losses(&forgetful), losses(&without));
    // Without validation, the average is the model to use.
    let unvalidated = run(Settings { validation: 0.0, ..settings(3) });
    let average = unvalidated.optimiser().average().unwrap().to_vec();
    assert_eq!(flat_weights(&unvalidated.finish().unwrap()), average);
}

#[test]
fn a_loss_that_is_no_number_names_step_layer_and_item_and_keeps_the_run() {
    let mut poisoned = model::<f32>(11);
    let trainer = Trainer::new(model(11), digits(), settings(3)).unwrap();
    flow_api::module::load(&mut poisoned, &flow_api::module::save(trainer.model())).unwrap();
    update(&mut poisoned, |path, entry| {
        if let (true, EntryMut::Parameter { values, .. }) = (path.ends_with("layers.1.patch.2.net.final.bias"), entry) {
            values[0] = f32::NAN;
        }
    })
    .unwrap();
    let before = flat_weights(&poisoned);
    let run = Run { progress: trainer.progress(), optimiser: trainer.optimiser().state(), best: None };
    let mut trainer = Trainer::resume(poisoned, digits(), settings(3), run).unwrap();
    let error = trainer.run(&mut Silent, &never()).unwrap_err();
    let TrainError::NotFinite { step: 1, layer, item: Some(Item { name: None, .. }), .. } = &error else { panic!("{error}") };
    assert_eq!(layer, "bijector.layers.1.patch.2");
    assert!(error.to_string().starts_with("step 1: bijector.layers.1.patch.2: the log-det is not finite for item "), "{error}");
    let bits = |weights: &[f32]| weights.iter().map(|w| w.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(&flat_weights(trainer.model())), bits(&before));
    assert_eq!(trainer.optimiser().steps(), 0);
}

#[test]
fn a_trained_model_goes_on_with_other_data_as_it_was_trained() {
    let normalised = build::<f64>("VectorFlow(flows: [ActNorm(), LuLinear()])", EventShape::Vector(2), 1);
    let varied = |scale: f64| vectors((0..64).map(|i| scale * f64::from(i).sin()).collect(), 2);
    let settings = Settings { steps: 3, batch: 8, ..Settings::default() };
    let mut trainer = Trainer::new(normalised, varied(1.0), settings.clone()).unwrap();
    trainer.run(&mut Silent, &never()).unwrap();
    let trained = trainer.finish().unwrap();
    let before = flow_api::module::save(&trained);
    assert_eq!(flow_api::module::save(Trainer::new(trained, varied(9.0), settings).unwrap().model()), before);
}

/// x + shift, which no weight above 2.5 can be put into.
struct Fragile<E: Scalar> {
    shift: Parameter<E>,
}
impl<E: Scalar> Module<E> for Fragile<E> {
    module_fields!(E; parameter shift; refresh |own| {
        let bad = own.shift.values().iter().any(|w| w.as_f64().abs() > 2.5);
        if bad { Err(FlowError::NotFinite { layer: "Fragile".to_owned(), what: "the weight", row: 0 }) } else { Ok(()) }
    });
}
impl<E: Scalar> TapedRows<E> for Fragile<E> {
    fn forward_taped(&self, x: Taped<(usize, usize), E>, _: &Context<E>) -> Result<TapedMap<E>, FlowError> {
        let shape = *x.shape();
        let shift = self.shift.tensor().retaped::<OwnedTape<E, E::Device>>().broadcast_like::<_, Axis<0>>(&shape);
        Ok((x + shift, E::zeros((shape.0,)).retaped()))
    }
    fn inverse_taped(&self, y: Tensor<(usize, usize), E>, _: &Context<E>) -> Result<MappedRows<E>, FlowError> {
        let shape = *y.shape();
        let shift = self.shift.tensor().clone().broadcast_like::<_, Axis<0>>(&shape);
        Ok((y - shift, E::zeros((shape.0,))))
    }
}
impl<E: Scalar> RowFlow<E> for Fragile<E> {
    fn facts(&self) -> Facts {
        Facts::new("Fragile")
    }
    fn dim(&self) -> usize {
        2
    }
    fn taped(&self) -> Option<&dyn TapedRows<E>> {
        Some(self)
    }
}

#[test]
fn weights_that_a_layer_cannot_take_name_the_step_and_are_in_no_checkpoint() {
    let shift = Parameter::new(&[2], vec![0.0; 2]);
    let base = Box::new(StandardNormal::new(2));
    let model = Model::<f64>::new(Box::new(Rows(Fragile { shift })), base, EventShape::Vector(2)).unwrap();
    // So far away that every step goes the length of the learning rate.
    let settings = Settings { steps: 100, batch: 4, warm_up: 1, learning_rate: 1.0, report_every: 1, clip: None, ..Settings::default() };
    let mut trainer = Trainer::new(model, vectors((0..16).map(|i| 1e3 + f64::from(i)).collect(), 2), settings).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let error = trainer.run(&mut Checkpoints::new(folder.path(), spec()), &never()).unwrap_err();
    assert!(matches!(error, TrainError::Update { step: 3, .. }), "{error:?}");
    assert_eq!(error.to_string(), "step 3: the updated weights: Fragile: the weight is not finite in row 0");
    let progress = std::fs::read_to_string(folder.path().join("latest/progress.ron")).unwrap();
    assert_eq!(from_ron::<Progress>(&progress).unwrap().step, 2);
}

/// Twelve vectors with names, as files would have.
#[derive(Debug)]
struct Named(Arc<dyn Dataset>);
impl Dataset for Named {
    fn len(&self) -> usize {
        self.0.len()
    }
    fn shape(&self) -> ItemShape {
        self.0.shape()
    }
    fn levels(&self) -> Option<u32> {
        self.0.levels()
    }
    fn item_name(&self, index: usize) -> Option<String> {
        Some(format!("row-{index}.png"))
    }
    fn batch(&self, draws: &[Draw]) -> flow_train::data::Result<flow_train::data::Batch> {
        self.0.batch(draws)
    }
}

#[test]
fn the_item_of_a_bad_likelihood_or_gradient_is_named_as_the_data_set_numbers_it() {
    const BAD: usize = 5;
    // The square of 1e200 is too large for the likelihood, the square of the gradient of 1e150's square for the
    // gradient's norm.
    for (extreme, what) in [(1e200, "the log-likelihood"), (1e150, "the gradient")] {
        let mut values: Vec<f64> = (0..24).map(|i| f64::from(i).sin()).collect();
        values[2 * BAD] = extreme;
        let data = Arc::new(Named(vectors(values, 2)));
        let settings = Settings { batch: 12, validation: 0.2, ..settings(2) };
        let text = "VectorFlow(flows: [LuLinear()], base: DiagonalNormal, preprocessing: (standardise: false))";
        let flow = build::<f64>(text, EventShape::Vector(2), 1);
        let mut trainer = Trainer::new(flow, data, settings).unwrap();
        let error = trainer.run(&mut Silent, &never()).unwrap_err();
        let expected = Item { index: BAD, name: Some(format!("row-{BAD}.png")) };
        let TrainError::NotFinite { step: 1, item, what: got, .. } = &error else { panic!("{error}") };
        assert_eq!((item.as_ref(), *got), (Some(&expected), what), "{error}");
        assert!(error.to_string().ends_with("item 5 (row-5.png)"), "{error}");
    }
}

#[test]
fn observers_see_every_report_and_write_what_a_killed_run_goes_on_from() {
    struct Count(Vec<u64>);
    impl Observer<f32> for Count {
        fn report(&mut self, report: &Report, trainer: &Trainer<f32>) -> flow_train::Result<()> {
            assert_eq!(trainer.history().last(), Some(report));
            self.0.push(report.step);
            Ok(())
        }
        fn end(&mut self, ending: Ending, _: &Trainer<f32>) -> flow_train::Result<()> {
            assert_eq!((ending, self.0.as_slice()), (Ending::Finished, &[4, 8, 9][..]));
            Ok(())
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let metrics = folder.path().join("metrics.jsonl");
    let observers = || -> Vec<Box<dyn Observer<f32> + Send>> {
        vec![Box::new(Count(Vec::new())), Box::new(Metrics::new(&metrics)), Box::new(Checkpoints::new(folder.path(), spec()))]
    };
    let lines =
        || -> Vec<Report> { std::fs::read_to_string(&metrics).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect() };
    let mut trainer = Trainer::new(model(12), digits(), settings(9)).unwrap();
    trainer.run(&mut observers(), &never()).unwrap();
    assert_eq!(lines().len(), 3);
    let best = checkpoint::open::<f32>(&folder.path().join("best")).unwrap().model;
    assert_eq!(flow_api::module::save(&best), trainer.best().unwrap().state);

    // More steps, from the checkpoint; the file of metrics has a line of a report that no checkpoint knows.
    let mut text = std::fs::read_to_string(&metrics).unwrap();
    text.push_str("{\"step\":12,\"tr");
    std::fs::write(&metrics, text).unwrap();
    let latest = folder.path().join("latest");
    let (mut more, _) = checkpoint::resume::<f32>(&latest, digits(), |s| Settings { steps: 12, ..s }).unwrap();
    more.run(&mut Metrics::new(&metrics), &never()).unwrap();
    assert_eq!(lines().iter().map(|report| report.step).collect::<Vec<_>>(), [4, 8, 9, 12]);
}

#[test]
fn settings_and_data_that_do_not_fit_are_refused() {
    let of = Settings::default;
    let texts = [
        (Settings { steps: 0, ..of() }, "steps: expected at least 1, got 0"),
        (Settings { learning_rate: f64::NAN, ..of() }, "learning_rate: expected a finite number greater than 0 in f32, got NaN"),
        (Settings { betas: (0.9, 1.0), ..of() }, "betas: expected two numbers from 0 to below 1, got (0.9, 1.0)"),
        (Settings { epsilon: 0.0, ..of() }, "epsilon: expected a finite number greater than 0 in f32, got 0.0"),
        (Settings { epsilon: 1e-60, ..of() }, "epsilon: expected a finite number greater than 0 in f32, got 1e-60"),
        (Settings { learning_rate: 1e60, ..of() }, "learning_rate: expected a finite number greater than 0 in f32, got 1e60"),
        (Settings { weight_decay: -0.1, ..of() }, "weight_decay: expected a finite number greater than 0 in f32, got -0.1"),
        (Settings { clip: Some(1e-60), ..of() }, "clip: expected a finite number greater than 0 in f32, got 1e-60"),
        (Settings { ema: Some(1.0), ..of() }, "ema: expected a decay between 0 and 1, got 1"),
        (Settings { threads: Some(0), ..of() }, "threads: expected 1 to 1024, got 0"),
        (Settings { validation: 0.9, ..of() }, "validation: expected a share from 0 to 0.5, got 0.9"),
        (Settings { patience: Some(3), ..of() }, "patience: expected none where `validation` is 0, got 3"),
    ];
    for (settings, expected) in texts {
        assert_eq!(text_of(settings.check()), expected);
    }
    let flow = || build::<f64>("VectorFlow(flows: [LuLinear()])", EventShape::Vector(3), 1);
    let wrong = Trainer::new(flow(), vectors(vec![0.0; 8], 2), Settings::default());
    assert_eq!(text_of(wrong), "the model is for events of shape (3), the data has (2)");
    let conditional = build::<f64>("VectorFlow(flows: [AffineCoupling(hidden: 4, condition: 2)])", EventShape::Vector(3), 1);
    let conditional = Trainer::new(conditional, vectors(vec![0.0; 9], 3), of());
    assert!(text_of(conditional).starts_with("parts of the model see a condition of 2 numbers, and its spec does not say of what"));
    let large = Trainer::new(flow(), vectors(vec![0.0; 9], 3), Settings { batch: usize::MAX, ..of() });
    let most = flow_train::data::most_items::<f32>(3);
    let text = text_of(large);
    assert!(
        most >= 1000 && text.starts_with("batch: expected at most ") && text.ends_with(" events of shape (3), got 18446744073709551615"),
        "{text}"
    );
    let normalised = || build::<f32>("VectorFlow(flows: [ActNorm()])", EventShape::Vector(2), 1);
    let constant = "column 1 is 0.5 in all 4 training items, which has no density: drop=1 leaves it out";
    assert_eq!(text_of(Trainer::new(normalised(), vectors(vec![0.5; 8], 2), of())), constant);
    assert!(text_of(Trainer::new(normalised(), vectors(vec![0.5; 2], 2), of())).contains("column 1 is 0.5 in the only training item"));
}

#[test]
fn epochs_are_counted_in_steps_over_the_items_that_are_kept() {
    let settings = Settings { batch: 100, validation: 0.1, ..Settings::default() };
    let digits = digits();
    let steps = |epochs| settings.steps_of_epochs(epochs, digits.as_ref());
    assert_eq!((settings.held_out(1500), steps(1), steps(3)), (150, 14, 41));
    let few = vectors(vec![0.0; 7], 1);
    assert_eq!(Settings { batch: 1, validation: 0.0, ..settings }.steps_of_epochs(2, few.as_ref()), 14);
    // A small share of few items is one, unless no other is left.
    let held_out = |validation, items| Settings { validation, ..Settings::default() }.held_out(items);
    let cases = [(0.05, 19, 1), (0.05, 2, 1), (0.5, 1, 0), (0.5, 0, 0), (0.0, 19, 0), (0.5, 3, 1)];
    assert!(cases.iter().all(|&(validation, items, expected)| held_out(validation, items) == expected));
}
