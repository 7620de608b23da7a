//! Hybrid models: a density and a classifier, trained together.

use crate::{digits, losses, never, settings};
use flow_api::module::{EntryMut, save, update};
use flow_api::spec::{BuildScope, EventShape, Given, Model, ModelSpec, Spec, SpecScalar, from_ron};
use flow_api::{Gradients, Memory};
use flow_train::classify::{ProbeOptions, probe};
use flow_train::data::{Dataset, Draw, InMemory, ItemShape, Labels, Split, SplitRule, Subset, Values};
use flow_train::{
    EvaluateOptions, EventBatch, EventKind, Events, Metrics, Purpose, Settings, Silent, Trainer, checkpoint, differentiate, evaluate,
    model_for, objective_of,
};
use std::path::Path;
use std::sync::Arc;

/// A model of vectors or of digits with three classes.
fn hybrid(text: &str, event: EventShape) -> Model<f64> {
    let spec: Spec<dyn ModelSpec> = from_ron(text).unwrap();
    f64::model(&spec, event, &BuildScope::new(3).with_given(Given { classes: 3, ..Given::default() })).unwrap()
}

/// Every parameter moves: initial values hide what does not reach the loss, as a head that starts as zero does.
fn shaken(mut model: Model<f64>, first: &EventBatch<f64>) -> Model<f64> {
    let cx = first.context(&model, 0, Purpose::Map).unwrap();
    let batch = model.batch(first.values.clone()).unwrap();
    model.flow_mut().initialise(batch, &cx).unwrap();
    let mut at = 0.0_f64;
    update(&mut model, |_, entry| {
        if let EntryMut::Parameter { values, .. } = entry {
            values.iter_mut().for_each(|value| {
                at += 1.0;
                *value += 0.2 * (1.7 * at).sin();
            });
        }
    })
    .unwrap();
    model
}

fn wave(len: usize) -> Vec<f64> {
    (0..len).map(|i| 1.3 * (2.1 * i as f64 + 0.4).sin()).collect()
}

/// The loss that is differentiated is the one that is reported, times the numbers of an event, for heads on latents and
/// on activations, behind every kind of place in a table, under every memory setting, with rows without a label.
#[test]
fn gradients_equal_differences_of_the_reported_loss() {
    let image = EventShape::Image { channels: 1, height: 4, width: 4 };
    let plane = EventShape::Vector(3);
    let vector = "VectorFlow(repeat: 2, flows: [ActNorm(), LuLinear(), AffineCoupling(hidden: 4)], objective: Hybrid(weight: 0.7";
    let mixer = "MixerFlow(patch: 2, layers: 2, shift: None, channel: [ActNorm(), AffineCoupling(hidden: 4)], \
                 patches: [LuLinear(), AffineCoupling(hidden: 4)], objective: Hybrid(weight: 0.7";
    let cases = [
        (format!("{vector}))"), plane),
        (format!("{vector}, head: Mlp(hidden: 5, layers: 2)))"), plane),
        (format!("{vector}, layer: \"bijector\"))"), plane),
        (format!("{vector}, layer: \"bijector.1\"))"), plane),
        (format!("{vector}, head: Mlp(hidden: 5), layer: \"bijector.5\"))"), plane),
        (format!("{mixer}, layer: \"bijector.layers.0\"))"), image),
        (format!("{mixer}, layer: \"bijector.layers.1.channel\"))"), image),
        (format!("{mixer}, layer: \"bijector.layers.1.patch.0\"))"), image),
    ];
    for (text, event) in cases {
        let rows = 5;
        let batch =
            EventBatch { labels: vec![Some(2), None, Some(0), Some(2), None], ..EventBatch::of_values(wave(rows * event.len()), rows) };
        let mut model = shaken(hybrid(&text, event), &batch);
        let events = Events::of_kind(EventKind { shape: event, levels: None }, model.preprocessing(), 0).unwrap();
        let loss = |model: &Model<f64>, memory: Memory, gradients: &mut Gradients<f64>| {
            let cx = batch.context(model, 0, Purpose::Train { step: 0, memory }).unwrap();
            differentiate(model, objective_of(model).as_ref(), &events, &batch, gradients, &cx).unwrap()
        };
        let mut gradients = Gradients::zeros(&model);
        let (whole, terms, _) = loss(&model, Memory::Store, &mut gradients);
        assert_eq!(gradients.untouched().collect::<Vec<_>>(), [""; 0], "{text}");
        let [likelihood, label, accuracy] = &terms[..] else { panic!("{text}: {terms:?}") };
        assert_eq!((likelihood.items, label.items, accuracy.name.as_str()), (5.0, 3.0, "accuracy"), "{text}");
        let dims = event.len() as f64;
        assert!((whole - likelihood.value / dims - 0.7 * label.value).abs() < 1e-12, "{text}: {whole} of {terms:?}");
        for memory in [Memory::Recompute, Memory::Invert] {
            let mut others = Gradients::zeros(&model);
            loss(&model, memory, &mut others);
            let far = gradients.values().iter().zip(others.values()).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            assert!(far < 1e-9, "{text}, {memory:?}: {far}");
        }
        let (step, mut scratch) = (1e-5, Gradients::zeros(&model));
        for at in 0..gradients.values().len() {
            let mut moved = |by: f64| {
                move_parameter(&mut model, at, by);
                let value = loss(&model, Memory::Store, &mut scratch).0;
                move_parameter(&mut model, at, -by);
                value
            };
            let expected = dims * (moved(step) - moved(-step)) / (2.0 * step);
            let got = gradients.values()[at];
            assert!((got - expected).abs() < 1e-6 * (1.0 + expected.abs()), "{text}, parameter {at}: {got} and {expected}");
        }
    }
}

fn move_parameter(model: &mut Model<f64>, at: usize, by: f64) {
    let mut seen = 0;
    update(model, |_, entry| {
        if let EntryMut::Parameter { values, .. } = entry {
            if let Some(value) = at.checked_sub(seen).and_then(|at| values.get_mut(at)) {
                *value += by;
            }
            seen += values.len();
        }
    })
    .unwrap();
}

/// Two normal densities of equal spread, at (±1, 0) and turned: Bayes' rule is linear and right with probability Φ(1).
fn gaussians(items: usize, unlabelled_every: usize) -> Split {
    let mut noise = vec![0.0; 2 * items];
    flow_api::noise::Stream::new(11, 0, "gaussians").row(0).gaussian(&mut noise);
    let label = |i: usize| u32::try_from((i + i / 2) % 2).unwrap();
    let points = (0..items).flat_map(|i| {
        let (x, y) = (noise[2 * i] + 2.0 * f64::from(label(i)) - 1.0, noise[2 * i + 1]);
        [0.6 * x - 0.8 * y + 3.0, 4.0 * (0.8 * x + 0.6 * y)]
    });
    let of_items = (0..items).map(|i| (i % unlabelled_every != 0).then(|| label(i))).collect();
    let labels = Labels { of_items, classes: ["left".to_owned(), "right".to_owned()].into() };
    let shape = ItemShape::Vector { dims: 2 };
    let all: Arc<dyn Dataset> =
        Arc::new(InMemory::new(Path::new("gaussians"), Values::Real(points.collect()), shape, None, Some(labels)).unwrap());
    let part = |range: std::ops::Range<usize>| Arc::new(Subset::new(all.clone(), range.collect()).unwrap());
    Split::new(part(0..items / 2), part(items / 2..items), SplitRule::EveryTenth).unwrap()
}

/// Φ(1).
const OPTIMUM: f64 = 0.841_344_746_068_543;

#[test]
fn hybrid_and_probe_reach_bayes_rule_of_known_densities() {
    // A third of the items has no label.
    let split = gaussians(8000, 3);
    let spec: Spec<dyn ModelSpec> = from_ron("VectorFlow(flows: [ActNorm(), LuLinear()], objective: Hybrid(weight: 1.0))").unwrap();
    let settings = Settings { steps: 400, batch: 128, learning_rate: 0.02, report_every: 100, validation: 0.1, ..Settings::default() };
    let model = model_for::<f64>(&spec, &*split.train, 1).unwrap();
    let mut trainer = Trainer::new(model, split.train.clone(), settings).unwrap();
    trainer.run(&mut Silent, &never()).unwrap();
    let events = trainer.events().clone();
    let last = trainer.history().last().unwrap().clone();
    let (label, accuracy) = (last.term("label"), last.term("accuracy"));
    assert!(label.0.is_some() && label.1.is_some() && accuracy.1.is_some_and(|share| share > 0.78), "{last:?}");
    assert_eq!((last.term("likelihood").0.is_some(), trainer.unit()), (true, "loss"));
    let (likelihood, weighted) = (last.term("likelihood").1.unwrap() / 2.0, label.1.unwrap());
    assert!((last.validation.unwrap() - likelihood - weighted).abs() < 1e-12, "{last:?}");
    let model = trainer.finish().unwrap();
    let found = evaluate(&model, &*split.test, &events, &EvaluateOptions::default()).unwrap().classification.unwrap();
    let unlabelled = (4000..8000).filter(|i| i % 3 == 0).count();
    assert_eq!((found.items, found.left_out, found.classes), (4000 - unlabelled, 0, 2));
    assert!((found.accuracy - OPTIMUM).abs() < 2.0 * found.accuracy_error, "{found:?}");
    // Logistic regression knows its own confidence here.
    assert!(found.calibration.error < 0.04 && found.cross_entropy_bits < 0.56, "{found:?}");

    let held_out = Subset::new(split.train.clone(), (0..4000).step_by(5).collect()).unwrap();
    let kept = Subset::new(split.train.clone(), (0..4000).filter(|i| i % 5 != 0).collect()).unwrap();
    let probed = probe(&model, &events, [&kept, &held_out, &*split.test], &ProbeOptions::default()).unwrap();
    let test = probed.test.unwrap();
    assert!((test.accuracy - OPTIMUM).abs() < 2.0 * test.accuracy_error, "{test:?}");
    assert!(probed.tried.iter().any(|tried| tried.held_out <= found.cross_entropy_nats * 1.1) && probed.held_out > 0);
    assert_eq!((test.items, probed.train.items), (found.items, (0..4000).filter(|i| i % 3 != 0).count()));
}

/// A hybrid run goes on, is exported and is imported to the bit, its classifier and its named terms with it.
#[test]
fn the_classifier_is_part_of_the_run() {
    let text = "MixerFlow(patch: 4, layers: 1, channel: [ActNorm(), AffineCoupling(hidden: 8)], patches: [ActNorm()], \
                objective: Hybrid(weight: 0.5, head: Mlp(hidden: 8), layer: \"bijector.layers.0.channel\"))";
    let spec: Spec<dyn ModelSpec> = from_ron(text).unwrap();
    let new = |steps| Trainer::new(model_for::<f32>(&spec, &*digits(), 5).unwrap(), digits(), settings(steps)).unwrap();
    let mut whole = new(12);
    let folder = tempfile::tempdir().unwrap();
    let metrics = folder.path().join("metrics.jsonl");
    whole.run(&mut Metrics::new(&metrics), &never()).unwrap();
    let lines = std::fs::read_to_string(metrics).unwrap();
    for part in ["\"terms\":[{\"name\":\"likelihood\",\"unit\":\"bits/dim\",\"train\":", "\"label\",\"unit\":\"bits\"", "\"accuracy\""] {
        assert!(lines.lines().all(|line| line.contains(part)), "{part} in {lines}");
    }

    let place = folder.path().join("latest");
    let mut half = new(12);
    let stop = never();
    half.run(&mut crate::StopAfter(7, &stop), &stop).unwrap();
    checkpoint::write(&place, &spec, &half).unwrap();
    let (mut resumed, _) = checkpoint::resume::<f32>(&place, digits(), |settings| settings).unwrap();
    resumed.run(&mut Silent, &never()).unwrap();
    assert_eq!(losses(&resumed), losses(&whole));
    assert_eq!(resumed.history().last().unwrap().terms, whole.history().last().unwrap().terms);

    checkpoint::write(&place, &spec, &whole).unwrap();
    let (file, imported) = (folder.path().join("model.safetensors"), folder.path().join("imported"));
    checkpoint::export::<f32>(&place, &file).unwrap();
    checkpoint::import::<f32>(&file, &imported).unwrap();
    let [own, other] = [&place, &imported].map(|place| checkpoint::open::<f32>(place).unwrap());
    assert!(save(&own.model).keys().any(|path| path == "head.layers.1.weight"));
    let draws: Vec<Draw> = (0..9).map(|index| Draw { epoch: 0, index }).collect();
    let logits = |opened: &checkpoint::Opened<f32>| {
        let batch = opened.events.of::<f32>(&digits().batch(&draws).unwrap()).unwrap();
        let cx = batch.context(&opened.model, 0, Purpose::Map).unwrap();
        opened.model.log_prob_and_logits(batch.values, &cx).unwrap().1.unwrap()
    };
    assert_eq!((logits(&own), own.events.record().classes.len()), (logits(&other), 10));
}

/// What a hybrid model cannot be trained from, or tested on, is refused by name.
#[test]
fn data_without_the_model_s_classes_are_refused() {
    let spec: Spec<dyn ModelSpec> = from_ron("VectorFlow(flows: [ActNorm()], objective: Hybrid())").unwrap();
    let split = gaussians(40, 40);
    let bare = crate::vectors(wave(40), 2);
    let error = model_for::<f32>(&spec, &*bare, 0).unwrap_err().to_string();
    assert_eq!(error, "objective: head: expected data with labels of at least 2 classes, got 0 classes");
    let model = || model_for::<f32>(&spec, &*split.train, 0).unwrap();
    let error = Trainer::new(model(), bare.clone(), settings(4)).err().unwrap().to_string();
    assert_eq!(error, "the model tells 2 classes from each other, the data has 0");
    let trainer = Trainer::new(model(), split.train.clone(), settings(4)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("run");
    checkpoint::write(&place, &spec, &trainer).unwrap();
    // As many items with other classes.
    let classes = |names: [&str; 2]| {
        let labels = Labels { of_items: vec![Some(0); 20], classes: names.map(str::to_owned).into() };
        let values = Values::Real(wave(40));
        Arc::new(InMemory::new(Path::new("other"), values, ItemShape::Vector { dims: 2 }, None, Some(labels)).unwrap())
    };
    let error = checkpoint::resume::<f32>(&place, classes(["right", "left"]), |s| s).err().unwrap().to_string();
    assert_eq!(error, "the classes of the data are right, left, where the run was begun with left, right");
    let evaluated = |names| {
        evaluate(trainer.model(), &*classes(names), trainer.events(), &EvaluateOptions::default()).map(|found| found.classification)
    };
    let error = evaluated(["left", "up"]).unwrap_err().to_string();
    assert_eq!(error, "the model has no class `up`; there are: left, right");
    // Classes are found by name: all items are of class `right` here, the second of the model's.
    let found = evaluated(["right", "left"]).unwrap().unwrap();
    assert!(found.accuracy.abs() < f64::EPSILON && (found.chance - 1.0).abs() < f64::EPSILON, "{found:?}");
    for (text, message) in [
        ("weight: -1.0", "objective: weight: expected a finite number greater than 0, got -1"),
        ("layer: \"bijector.3\"", "objective: layer: expected a layer of the model's table, got `bijector.3`"),
        ("head: Mlp(hidden: 0)", "objective: head.hidden: expected 1 to 16384, got 0"),
        ("head: Mlp(hidden: 4, layers: 0)", "objective: head.layers: expected 1 to 2048, got 0"),
    ] {
        let spec: Spec<dyn ModelSpec> = from_ron(&format!("VectorFlow(flows: [ActNorm()], objective: Hybrid({text}))")).unwrap();
        assert_eq!(model_for::<f32>(&spec, &*split.train, 0).unwrap_err().to_string(), message);
    }
}
