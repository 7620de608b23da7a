//! Regularisers of continuous flows enter the gradients and the reported loss alike.

use flow_train::{EventBatch, EventKind, Events, Purpose, Settings, Silent, Trainer, data::DataSource, differentiate, objective_of};
use mixerflow_toolkit::api::module::{EntryMut, update};
use mixerflow_toolkit::prelude::*;
use std::sync::atomic::AtomicBool;

/// The gradient of steps on a fixed grid is that of the loss that they report, the regularisers among it.
#[test]
fn the_reported_loss_is_the_one_that_is_differentiated() {
    let spec: Spec<dyn ModelSpec> = from_ron(
        "VectorFlow(repeat: 2, flows: [Ffjord(hidden: 4, zero_init: false, solver: Rk4(steps: 3), gradient: Discrete, \
         trace: Exact, regularisation: (kinetic: 0.3, jacobian: 0.2))])",
    )
    .unwrap();
    let event = EventShape::Vector(2);
    let mut model = spec.build::<f64>(event, 3).unwrap();
    let batch = EventBatch::of_values((0..10).map(|i| 1.1 * f64::from(i * i).sin()).collect(), 5);
    let events = Events::of_kind(EventKind { shape: event, levels: None }, model.preprocessing(), 0).unwrap();
    let loss = |model: &Model<f64>, gradients: &mut Gradients<f64>| {
        let cx = batch.context(model, 0, Purpose::Train { step: 0, memory: Memory::Store }).unwrap();
        differentiate(model, objective_of(model).as_ref(), &events, &batch, gradients, &cx).unwrap()
    };
    let mut gradients = Gradients::zeros(&model);
    let (whole, terms, _) = loss(&model, &mut gradients);
    let [likelihood, regularisation] = &terms[..] else { panic!("{terms:?}") };
    assert!(regularisation.name == "regularisation" && regularisation.value > 0.01, "{terms:?}");
    assert!((whole - likelihood.value - regularisation.value).abs() < 1e-12);
    let moved = |model: &mut Model<f64>, number: usize, by: f64| {
        let mut seen = 0;
        update(model, |_, entry| {
            if let EntryMut::Parameter { values, .. } = entry {
                if let Some(value) = number.checked_sub(seen).and_then(|at| values.get_mut(at)) {
                    *value += by;
                }
                seen += values.len();
            }
        })
        .unwrap();
    };
    let (step, mut scratch) = (1e-5, Gradients::zeros(&model));
    for number in 0..gradients.values().len() {
        let mut at = |by: f64| {
            moved(&mut model, number, by);
            let value = loss(&model, &mut scratch).0;
            moved(&mut model, number, -by);
            value
        };
        let (expected, got) = ((at(step) - at(-step)) / (2.0 * step), gradients.values()[number]);
        assert!((got - expected).abs() < 1e-7, "parameter {number}: {got} and {expected}");
    }
    // Reports tell of it; validation has none.
    let split = "toy:two-moons?n=60".parse::<DataSource>().unwrap().open(1).unwrap();
    let settings = Settings { steps: 2, batch: 16, report_every: 1, validation: 0.2, ..Settings::default() };
    let mut trainer = Trainer::new(model, split.train, settings).unwrap();
    trainer.run(&mut Silent, &AtomicBool::new(false)).unwrap();
    for report in trainer.history() {
        let (train, validation) = report.term("regularisation");
        let (likelihood, held_out) = report.term("likelihood");
        assert!(train.is_some_and(|value| value > 0.0) && validation.is_none(), "{report:?}");
        assert!((report.train - train.unwrap() - likelihood.unwrap()).abs() < 1e-12 && held_out == report.validation, "{report:?}");
    }
}
