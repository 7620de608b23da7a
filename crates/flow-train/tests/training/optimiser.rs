//! Adam and its schedule against their formulas.

use crate::build;
use flow_api::spec::{EventShape, SpecScalar};
use flow_api::{FlowError, Gradients};
use flow_train::{Adam, AdamConfig, Settings, TrainError, flat_weights, set_flat_weights};

const LINEAR: &str = "VectorFlow(flows: [LuLinear()])";

/// Steps of Adam on gradients that are known, beside the formula in f64; the last weights.
fn follows_the_formula<E: SpecScalar>(config: AdamConfig, (dim, steps): (usize, i32), tolerance: f64) -> Vec<E> {
    let mut flow = build::<E>(LINEAR, EventShape::Vector(dim), 1);
    let count = flat_weights(&flow).len();
    let mut rounded: Vec<E> = (0..count).map(|i| E::of(0.1 + (i as f64).sin())).collect();
    set_flat_weights(&mut flow, &rounded).unwrap();
    let mut theta: Vec<f64> = rounded.iter().map(|w| w.as_f64()).collect();
    let mut adam = Adam::new(&flow, config);
    let (mut m, mut v, mut average) = (vec![0.0; count], vec![0.0; count], theta.clone());
    let mut gradients = Gradients::zeros(&flow);
    for t in 1..=steps {
        let rate = 0.01 / f64::from(t);
        let g: Vec<f64> = (0..count).map(|i| (f64::from(t) * 0.7 + i as f64).cos() * [0.01, 0.1, 1.0, 10.0, 100.0][i % 5]).collect();
        gradients.values_mut().iter_mut().zip(&g).for_each(|(to, g)| *to = E::of(*g));
        let norm = config.gradient_scale * g.iter().map(|g| g * g).sum::<f64>().sqrt();
        let got = adam.step(&mut flow, &gradients, rate).unwrap();
        assert!((got - norm).abs() < tolerance * norm, "norm {got}, {norm}");
        let shrink = config.gradient_scale * config.clip.map_or(1.0, |clip| (clip / norm).min(1.0));
        for i in 0..count {
            let g = g[i] * shrink;
            m[i] = config.beta1 * m[i] + (1.0 - config.beta1) * g;
            v[i] = config.beta2 * v[i] + (1.0 - config.beta2) * g * g;
            let (m_hat, v_hat) = (m[i] / (1.0 - config.beta1.powi(t)), v[i] / (1.0 - config.beta2.powi(t)));
            theta[i] -= rate * config.weight_decay * theta[i] + rate * m_hat / (v_hat.sqrt() + config.epsilon);
            average[i] += (1.0 - config.ema.unwrap()) * (theta[i] - average[i]);
        }
        rounded = flat_weights(&flow);
        for (got, expected) in rounded.iter().chain(adam.average().unwrap()).zip(theta.iter().chain(&average)) {
            assert!((got.as_f64() - expected).abs() < tolerance, "step {t}: {got} {expected}");
        }
    }
    rounded
}

#[test]
fn adam_makes_the_steps_of_its_formula() {
    let plain = AdamConfig { ema: Some(0.5), ..AdamConfig::default() };
    let full =
        AdamConfig { gradient_scale: 0.125, beta1: 0.8, beta2: 0.99, epsilon: 1e-3, weight_decay: 0.3, clip: Some(2.0), ema: Some(0.9999) };
    for config in [plain, full] {
        follows_the_formula::<f64>(config, (5, 50), 1e-14);
        follows_the_formula::<f32>(config, (5, 50), 2e-6);
        // So many parameters that the step and the norm are spread over threads.
        let on_threads = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| follows_the_formula::<f64>(config, (400, 2), 1e-12))
        };
        assert_eq!(on_threads(1), on_threads(3));
    }
}

#[test]
fn a_gradient_that_stays_zero_leaves_no_subnormal_moments() {
    let mut flow = build::<f32>(LINEAR, EventShape::Vector(2), 1);
    let mut adam = Adam::new(&flow, AdamConfig::default());
    let mut gradients = Gradients::zeros(&flow);
    gradients.values_mut().fill(1e-30);
    for _ in 0..400 {
        adam.step(&mut flow, &gradients, 1e-3).unwrap();
        gradients.clear();
    }
    assert!(adam.state().first.iter().all(|m| *m == 0.0), "{:?}", adam.state().first);
}

#[test]
fn a_gradient_that_is_not_finite_changes_nothing() {
    let mut flow = build::<f64>(LINEAR, EventShape::Vector(3), 1);
    let mut adam = Adam::new(&flow, AdamConfig::default());
    let (weights, before) = (flat_weights(&flow), adam.clone());
    let mut gradients = Gradients::zeros(&flow);
    for bad in [f64::NAN, f64::INFINITY] {
        gradients.values_mut()[2] = bad;
        assert!(!adam.step(&mut flow, &gradients, 0.1).unwrap().is_finite());
        assert_eq!((flat_weights(&flow), &adam), (weights.clone(), &before));
    }
}

#[test]
fn a_gradient_whose_square_overflows_changes_nothing_unless_it_is_clipped() {
    for (clip, moves) in [(None, false), (Some(1e25), false), (Some(1.0), true)] {
        let mut flow = build::<f32>(LINEAR, EventShape::Vector(3), 1);
        let mut adam = Adam::new(&flow, AdamConfig { clip, ..AdamConfig::default() });
        let (weights, before) = (flat_weights(&flow), adam.clone());
        let mut gradients = Gradients::zeros(&flow);
        gradients.values_mut()[2] = 1e20;
        assert_eq!(adam.step(&mut flow, &gradients, 0.1).unwrap().is_finite(), moves);
        assert_eq!((flat_weights(&flow) != weights, adam != before), (moves, moves), "{clip:?}");
        assert!(flat_weights(&flow).iter().all(|w| w.is_finite()));
    }
}

#[test]
fn another_model_or_its_gradients_are_refused() {
    let [mut three, mut four] = [3, 4].map(|dim| build::<f64>(LINEAR, EventShape::Vector(dim), 1));
    let mut adam = Adam::new(&three, AdamConfig::default());
    let gradients = [&three, &four].map(Gradients::zeros);
    let before = (flat_weights(&three), flat_weights(&four), adam.clone());
    for result in [adam.step(&mut three, &gradients[1], 0.1), adam.step(&mut four, &gradients[0], 0.1)] {
        assert!(matches!(result, Err(TrainError::Flow(FlowError::Shape { .. }))), "{result:?}");
    }
    assert_eq!((flat_weights(&three), flat_weights(&four), adam), before);
}

#[test]
fn state_that_does_not_fit_is_refused() {
    let mut flow = build::<f64>(LINEAR, EventShape::Vector(3), 1);
    let mut adam = Adam::new(&flow, AdamConfig::default());
    let mut state = adam.state();
    state.second.pop();
    state.average = Some(state.first.clone());
    let Err(TrainError::Flow(FlowError::State(mismatch))) = adam.restore(state) else { panic!("accepted") };
    assert_eq!(mismatch.unexpected, ["average"]);
    assert_eq!(mismatch.different, [("second".to_owned(), "12 numbers".to_owned(), "11 numbers".to_owned())]);
    assert!(set_flat_weights(&mut flow, &[0.0; 11]).is_err());
}

/// Values of the peer's recipe, lr·min(1, (step+1)/100)·½(1 + cos(π step/steps)), computed apart.
#[test]
fn the_schedule_warms_up_and_falls_to_zero() {
    let settings = Settings { steps: 1000, learning_rate: 1e-3, warm_up: 100, ..Settings::default() };
    let expected =
        [(0, 1e-5), (49, 4.970_437_297_777e-4), (99, 9.760_113_134_728e-4), (500, 5e-4), (999, 2.467_399_071e-9), (1000, 0.0), (5000, 0.0)];
    for (step, rate) in expected {
        assert!((settings.learning_rate_at(step) - rate).abs() < 1e-15, "{step}: {:e}", settings.learning_rate_at(step));
    }
    let sudden = Settings { warm_up: 0, ..settings };
    assert!((sudden.learning_rate_at(0) - 1e-3).abs() < 1e-18);
}
