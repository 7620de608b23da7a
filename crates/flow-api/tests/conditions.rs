//! What makes vectors of classes and numbers: gradients, shares that are dropped, digits that are kept, errors.

use flow_api::bases::{Conditional, StandardNormal};
use flow_api::layers::LuLinear;
use flow_api::module::{EntryMut, Saved, load, save, update};
use flow_api::rows::Rows;
use flow_api::spec::{Conditioner, EventShape, Model};
use flow_api::{Conditions, Context, FlowError, Gradients, Mode, Module};

const ROWS: usize = 24;

/// A linear map, and a base density that moves with the vectors of `conditioner`; no parameter is at its initial value.
fn model(conditioner: Conditioner<f64>) -> Model<f64> {
    let base = Conditional::new(StandardNormal::new(2), conditioner.width()).unwrap();
    let model = Model::new(Box::new(Rows(LuLinear::new(2))), Box::new(base), EventShape::Vector(2)).unwrap();
    let mut model = model.with_conditioner(conditioner).unwrap();
    let mut salt = 0.0;
    update(&mut model, |_, entry| {
        if let EntryMut::Parameter { values, .. } = entry {
            for value in values {
                salt += 1.0;
                *value += 0.3 * f64::sin(salt * 1.7);
            }
        }
    })
    .unwrap();
    model
}

fn of_classes(dropped: f64) -> Conditioner<f64> {
    Conditioner::of_classes(3, 4, &[5, 3], dropped, 7).unwrap()
}

fn of_numbers(dropped: f64) -> Conditioner<f64> {
    let mut conditioner = Conditioner::of_numbers(2, &[4, 3], dropped, 7).unwrap();
    conditioner.fit(&numbers(50)).unwrap();
    conditioner
}

fn numbers(rows: usize) -> Vec<f64> {
    (0..2 * rows).map(|i| 20.0 + 3.0 * (1.3 * i as f64).sin()).collect()
}

fn classes() -> Conditions {
    Conditions::Classes((0..ROWS).map(|row| (row % 4 < 3).then_some(row % 3)).collect())
}

/// In a training step a part of the conditions is dropped, a few classes are not known, and every gradient is that of
/// differences.
#[test]
fn gradients_of_a_training_step_are_those_of_differences() {
    for (name, model, conditions) in [
        ("classes", model(of_classes(0.3)), classes()),
        ("numbers", model(of_numbers(0.3)), Conditions::Numbers(numbers(ROWS))),
        ("nothing", model(of_numbers(0.3)), Conditions::Nothing),
    ] {
        let x: Vec<f64> = (0..2 * ROWS).map(|i| (0.7 * i as f64).cos()).collect();
        let cx = Context::new(5).at_step(3).in_mode(Mode::Train).given(conditions);
        let mut gradients = Gradients::zeros(&model);
        model.nll(x.clone(), &mut gradients, &cx).unwrap();
        assert_eq!(gradients.untouched().next(), None);
        let (state, mut moved) = (save(&model), model);
        let paths: Vec<(String, usize)> = gradients.iter().map(|(path, values)| (path.to_owned(), values.len())).collect();
        let mut largest = 0.0_f64;
        for (path, len) in paths.iter().filter(|(path, _)| path.starts_with("condition.")) {
            for at in 0..*len {
                let mut loss = |by: f64| {
                    let mut state = state.clone();
                    if let Some(Saved::Parameter { values, .. }) = state.get_mut(path) {
                        values[at] += by;
                    }
                    load(&mut moved, &state).unwrap();
                    moved.nll(x.clone(), &mut Gradients::zeros(&moved), &cx).unwrap().nll
                };
                let expected = (loss(1e-5) - loss(-1e-5)) / 2e-5;
                let got = gradients.get(path).unwrap()[at];
                largest = largest.max(got.abs());
                assert!((got - expected).abs() < 1e-8, "{name}: {path}[{at}]: {got}, expected {expected}");
            }
        }
        assert!(largest > 1e-3, "{name}: {largest}");
    }
}

/// The share that is dropped is drawn anew every step, in training alone, and equal contexts drop the same.
#[test]
fn shares_are_dropped_in_training() {
    let conditioner = of_classes(0.25);
    let rows = 4000;
    let cx = |step| Context::<f64>::new(5).at_step(step).given(Conditions::class(1, rows));
    let vectors = |cx: &Context<f64>| conditioner.forward(rows, cx).unwrap().output().to_vec();
    let evaluated = vectors(&cx(0));
    let own = &evaluated[..3];
    assert!(evaluated.chunks_exact(3).all(|vector| vector == own));
    let training = |step| vectors(&cx(step).in_mode(Mode::Train));
    let dropped = training(0).chunks_exact(3).filter(|vector| *vector != own).count() as f64 / rows as f64;
    assert!((dropped - 0.25).abs() < 5.0 * (0.25 * 0.75 / rows as f64).sqrt(), "{dropped}");
    assert_eq!(training(0), training(0));
    assert_ne!(training(0), training(1));
    // What is not known is what was dropped; where nothing ever was, it has to be known.
    let unknown = conditioner.forward(1, &Context::new(0).given(Conditions::Classes(vec![None]))).unwrap();
    let nothing = conditioner.forward(1, &Context::new(0)).unwrap();
    assert_eq!(unknown.output(), nothing.output());
    assert!(training(0).chunks_exact(3).any(|vector| vector == nothing.output()));
}

/// Differences of large numbers keep their digits in f32: a clock in seconds.
#[test]
fn numbers_are_standardised_in_f64() {
    let clock = |i: usize| 1.7e9 + 10.0 * i as f64;
    let mut conditioner = Conditioner::<f32>::of_numbers(1, &[], 0.0, 1).unwrap();
    assert!(matches!(
        conditioner.forward(1, &Context::new(0).given(Conditions::Numbers(vec![1.0]))),
        Err(FlowError::NotInitialised { .. })
    ));
    conditioner.fit(&(0..100).map(clock).collect::<Vec<_>>()).unwrap();
    let mut loaded = Conditioner::<f32>::of_numbers(1, &[], 0.0, 2).unwrap();
    load(&mut loaded, &save::<f32, _>(&conditioner)).unwrap();
    let found = loaded.forward(100, &Context::new(0).given(Conditions::Numbers((0..100).map(clock).collect()))).unwrap();
    let deviation = 10.0 * ((100.0_f64 * 100.0 - 1.0) / 12.0).sqrt();
    for (i, &c) in found.output().iter().enumerate() {
        let expected = 10.0 * (i as f64 - 49.5) / deviation;
        assert!((f64::from(c) - expected).abs() < 1e-6, "{i}: {c}, expected {expected}");
    }
}

#[test]
fn wrong_conditions_are_typed_errors() {
    let text = |conditioner: &Conditioner<f64>, conditions: Option<Conditions>| {
        let cx = conditions.into_iter().fold(Context::new(0), Context::given);
        conditioner.forward(2, &cx).unwrap_err().to_string()
    };
    let (classes, numbers) = (of_classes(0.0), of_numbers(0.0));
    for (conditioner, conditions, expected) in [
        (&classes, None, "condition: expected a condition of shape (2) classes, got none"),
        (&classes, Some(Conditions::class(1, 3)), "condition: expected a condition of shape (2) classes, got (3) classes"),
        (&classes, Some(Conditions::class(3, 2)), "condition: row 0: expected a class below 3, got 3"),
        (&classes, Some(Conditions::Classes(vec![Some(0), None])), "condition: row 1: expected a class below 3, got none"),
        (&classes, Some(Conditions::Numbers(vec![0.0; 2])), "condition: expected a condition of shape (2) classes, got 2 numbers"),
        (&numbers, None, "condition: expected a condition of shape (2, 2) numbers, got none"),
        (&numbers, Some(Conditions::Numbers(vec![0.0; 3])), "condition: expected a condition of shape (2, 2) numbers, got 3 numbers"),
        (&numbers, Some(Conditions::class(0, 2)), "condition: expected a condition of shape (2, 2) numbers, got (2) classes"),
        (&numbers, Some(Conditions::Numbers(vec![0.0, 0.0, 0.0, f64::NAN])), "condition: row 1: expected finite numbers, got NaN"),
    ] {
        assert_eq!(text(conditioner, conditions.clone()), expected, "{conditions:?}");
    }
    let mut numbers = Conditioner::<f64>::of_numbers(2, &[], 0.0, 1).unwrap();
    assert!(matches!(numbers.fit(&[1.0, 5.0, 2.0, 5.0]), Err(FlowError::ConstantFeature { feature: 1, .. })));
    assert!(matches!(numbers.fit(&[1.0, 5.0, 2.0]), Err(FlowError::Shape { .. })));
    assert!(matches!(numbers.fit(&[1.0, f64::INFINITY]), Err(FlowError::NotFinite { row: 0, .. })));
    assert!(numbers.wants_fit());
    // A condition that no part of a flow sees.
    let plain = Model::<f64>::new(Box::new(Rows(LuLinear::new(2))), Box::new(StandardNormal::new(2)), EventShape::Vector(2)).unwrap();
    assert!(matches!(plain.with_conditioner(of_classes(0.0)), Err(FlowError::Condition { .. })));
    assert_eq!(flow_api::module::parameter_count(&of_classes(0.5)), 3 * 4 + 4 + (4 + 1) * 5 + (5 + 1) * 3);
    let _: &dyn Module<f64> = &numbers;
}
