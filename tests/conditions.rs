//! Models that are conditioned on something: against densities that are known, and through the testkit.

use flow_api::module::{EntryMut, update};
use flow_api::spec::Conditioner;
use flow_api::testkit::{Subject, check_model};
use flow_train::data::{Batch, Column, DataError, Dataset, Draw, InMemory, ItemShape, Labels, Values};
use flow_train::{
    DataRecord, EvaluateOptions, Events, Guidance, ScoredGiven, Settings, Silent, Trainer, model_for, sample_guided, score,
    score_every_class,
};
use mixerflow_toolkit::noise::Stream;
use mixerflow_toolkit::prelude::*;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

const LN_2PI: f64 = 1.837_877_066_409_345_3;

/// Wherever the condition enters, gradients of what makes it are those of differences, and all else holds as without
/// one.
#[test]
fn conditional_models_conform() {
    let residual =
        "Residual(hidden: 5, evaluation: Exact, inverse: (tolerance: 1e-12), power_iteration: (tolerance: 1e-12, iterations: 2000))";
    let continuous = "Ffjord(hidden: 5, solver: Rk4(steps: 32), gradient: Discrete)";
    for (flows, condition, iterative) in [
        ("ActNorm(), AffineCoupling(hidden: 5)", "Classes(embedding: 3)", false),
        ("AffineCoupling(hidden: 5), LuLinear()", "Vector(network: [4, 3])", false),
        ("SplineCoupling(hidden: 5)", "Classes(embedding: 3, network: [4], into: Only([Couplings]), dropped: 0.2)", false),
        ("LuLinear()", "Vector(into: Only([Base]), dropped: 0.2)", false),
        ("Autoregressive(hidden: 6)", "Classes(embedding: 3, into: Only([Autoregressive, Base]))", false),
        (residual, "Classes(embedding: 3, dropped: 0.1)", true),
        (continuous, "Vector(into: Only([Continuous]))", true),
    ] {
        let spec: Spec<dyn ModelSpec> = from_ron(&format!("VectorFlow(flows: [{flows}], condition: {condition})")).unwrap();
        let text = to_ron(&spec).unwrap();
        assert_eq!(to_ron(&from_ron::<Spec<dyn ModelSpec>>(&text).unwrap()).unwrap(), text);
        let subject = Subject { inverse_tolerance: iterative.then_some(1e-7), ..Subject::new(format!("{flows}, {condition}"), 2) };
        let report = check_model(&subject, &spec, EventShape::Vector(2)).unwrap();
        assert!(report.items.contains(&"samples"), "{report}");
    }
}

/// Models of images see the condition at every pixel, in couplings and in the priors of what leaves between levels.
#[test]
fn conditional_models_of_images_conform() {
    let image = EventShape::Image { channels: 2, height: 4, width: 4 };
    for spec in [
        "Glow(levels: 2, steps: 1, coupling: Affine(hidden: 4), condition: Classes(embedding: 2))",
        "ImageFlow(flows: [Squeeze(), ConvCoupling(hidden: 4), FactorOut()], condition: Vector())",
        "MixerFlow(patch: 2, layers: 1, channel: [AffineCoupling(hidden: 4)], patches: [ActNorm()], condition: Classes(embedding: 2, network: [3]))",
    ] {
        let parsed: Spec<dyn ModelSpec> = from_ron(spec).unwrap();
        let subject = Subject { shake: 0.1, ..Subject::new(spec, image.len()) };
        check_model(&subject, &parsed, image).unwrap();
    }
}

/// Specs that say of a condition what cannot be.
#[test]
fn impossible_conditions_are_refused() {
    let given = Given { classes: 3, conditions: 2 };
    for (condition, given, expected) in [
        ("Classes()", Given::default(), "condition: Classes: expected data with classes, got data without"),
        (
            "Vector()",
            Given { classes: 3, conditions: 0 },
            "condition: Vector: expected data with numbers to be conditioned on, got data without",
        ),
        ("Classes(embedding: 0)", given, "condition: embedding: expected 1 to 16384, got 0"),
        ("Vector(network: [0])", given, "condition: network: expected widths of 1 to 16384, got 0"),
        ("Classes(dropped: 1.0)", given, "condition: dropped: expected a share of at least 0 and less than 1, got 1"),
        ("Classes(into: Only([]))", given, "condition: into: expected at least one part of the model, got none"),
        (
            "Classes(into: Only([Residual]))",
            given,
            "condition: into: expected parts that the model has, and that can see a condition, got residual flows",
        ),
    ] {
        let spec: Spec<dyn ModelSpec> = from_ron(&format!("VectorFlow(flows: [AffineCoupling()], condition: {condition})")).unwrap();
        let built = f32::model(&spec, EventShape::Vector(2), &BuildScope::new(1).with_given(given));
        assert_eq!(built.err().map(|e| e.to_string()).as_deref(), Some(expected), "{condition}");
    }
    // A density on a box cannot move with a condition: said by name it is an error, among all it stays as it is.
    let on_box = |into: &str| -> Spec<dyn ModelSpec> {
        let base = "Uniform(low: -9.0, high: 9.0)";
        from_ron(&format!("VectorFlow(flows: [AffineCoupling()], base: {base}, condition: Classes(into: {into}))")).unwrap()
    };
    let scope = BuildScope::new(1).with_given(given);
    assert!(f32::model(&on_box("All"), EventShape::Vector(2), &scope).is_ok());
    let error = f32::model(&on_box("Only([Base])"), EventShape::Vector(2), &scope).unwrap_err().to_string();
    assert!(error.starts_with("base: base: expected a density on all of R^d, got Uniform"), "{error}");
}

fn numbers(seed: u64, row: u64, len: usize) -> Vec<f64> {
    let mut values = vec![0.0; len];
    Stream::new(seed, 0, "data").row(row).gaussian(&mut values);
    values
}

/// x ∈ R² given c ∈ R: normal with mean (2c, c²) and the covariance of L(c) L(c)ᵀ; other numbers in every epoch, so
/// that there is no overfitting.
#[derive(Debug)]
struct Moving {
    items: usize,
    columns: [Column; 1],
}

/// L(c): its diagonal, and the number below.
fn factor(c: f64) -> ([f64; 2], f64) {
    ([(0.5 * c).exp(), (-0.4 * c).exp()], 0.8 * c)
}

impl Moving {
    fn new(items: usize) -> Self {
        let Ok([column]) = <[Column; 1]>::try_from(Column::of(["temperature".to_owned()], &[0.0])) else { unreachable!("one name") };
        Self { items, columns: [column] }
    }

    /// c in units of its own, and x.
    fn item(draw: Draw) -> (f64, [f64; 2]) {
        let [c, a, b] = numbers(77 + draw.epoch, draw.index as u64, 3)[..] else { unreachable!("three numbers") };
        let ([first, second], below) = factor(c);
        (300.0 + 10.0 * c, [2.0 * c + first * a, c * c + below * a + second * b])
    }

    fn log_density(draw: Draw) -> f64 {
        let (c, [x, y]) = Self::item(draw);
        let c = (c - 300.0) / 10.0;
        let ([first, second], below) = factor(c);
        let a = (x - 2.0 * c) / first;
        let b = (y - c * c - below * a) / second;
        -LN_2PI - first.ln() - second.ln() - 0.5 * (a * a + b * b)
    }
}

impl Dataset for Moving {
    fn len(&self) -> usize {
        self.items
    }
    fn shape(&self) -> ItemShape {
        ItemShape::Vector { dims: 2 }
    }
    fn levels(&self) -> Option<u32> {
        None
    }
    fn conditions(&self) -> &[Column] {
        &self.columns
    }
    fn batch(&self, draws: &[Draw]) -> Result<Batch, DataError> {
        let items: Vec<_> = draws.iter().map(|draw| Self::item(*draw)).collect();
        let values = items.iter().flat_map(|(_, x)| *x).collect();
        Ok(Batch { conditions: items.iter().map(|(c, _)| *c).collect(), ..Batch::new(Values::Real(values), draws) })
    }
}

fn trained(spec: &str, data: &Arc<dyn Dataset>, settings: Settings) -> (Model<f64>, Events) {
    let spec: Spec<dyn ModelSpec> = from_ron(spec).unwrap();
    let model = model_for::<f64>(&spec, data.as_ref(), settings.seed).unwrap();
    let mut trainer = Trainer::new(model, data.clone(), settings).unwrap();
    trainer.run(&mut Silent, &AtomicBool::new(false)).unwrap();
    let events = trainer.events().clone();
    (trainer.finish().unwrap(), events)
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// A conditional normal density whose mean and covariance depend on the condition: its log-likelihood within 0.01 nats
/// of the truth.
#[test]
fn a_conditional_gaussian_is_learned() {
    let data: Arc<dyn Dataset> = Arc::new(Moving::new(4096));
    let spec =
        "VectorFlow(repeat: 2, flows: [AffineCoupling(hidden: 24, blocks: 1, activation: Silu)], condition: Vector(network: [24, 8]))";
    let settings = Settings { steps: 1500, batch: 256, warm_up: 50, learning_rate: 4e-3, ema: Some(0.99), ..Settings::default() };
    let (model, events) = trained(spec, &data, settings);
    // Epoch 0 was trained on once in about a hundred.
    let found = mean(&score(&model, data.as_ref(), &events, &EvaluateOptions::default()).unwrap().log_likelihood);
    let truth = mean(&(0..data.len()).map(|index| Moving::log_density(Draw { epoch: 0, index })).collect::<Vec<_>>());
    assert!((found - truth).abs() < 0.01, "{found} nats, the truth is {truth}");
}

/// Twonorm (Breiman): two normal densities of R²⁰ around ±a, a = 2/√20 (1, …, 1), whose best classifier has the
/// accuracy Φ(2).
fn twonorm(seed: u64, items: usize, shuffled: bool) -> Arc<dyn Dataset> {
    let dims = 20;
    let label = |row: usize| u32::from(numbers(seed, row as u64, 1)[0] > 0.0);
    let told = |row: usize| if shuffled { u32::from(numbers(seed + 5, row as u64, 1)[0] > 0.0) } else { label(row) };
    let values = (0..items).flat_map(|row| {
        let mean = if label(row) == 1 { 2.0 } else { -2.0 } / (dims as f64).sqrt();
        numbers(seed + 9, row as u64, dims).into_iter().map(move |x| x + mean)
    });
    let labels =
        Labels { of_items: (0..items).map(|row| Some(told(row))).collect(), classes: ["minus".to_owned(), "plus".to_owned()].into() };
    let values = Values::Real(values.collect());
    Arc::new(InMemory::new(Path::new("twonorm"), values, ItemShape::Vector { dims }, None, Some(labels)).unwrap())
}

/// Bayes' rule with the learned densities is within two standard errors of the best classifier, and says what it knows:
/// labels that tell nothing gain nothing.
#[test]
fn bayes_rule_with_learned_densities_is_nearly_the_best() {
    let spec = "VectorFlow(flows: [LuLinear()], condition: Classes(embedding: 2, into: Only([Base])))";
    let unconditional = "VectorFlow(flows: [LuLinear()])";
    let settings = Settings { steps: 600, batch: 256, warm_up: 50, learning_rate: 1e-2, ema: Some(0.98), ..Settings::default() };
    let found = |shuffled: bool| {
        let (train, test) = (twonorm(1, 8000, shuffled), twonorm(100, 8000, shuffled));
        let (model, events) = trained(spec, &train, settings.clone());
        let every = score_every_class(&model, test.as_ref(), &events, &EvaluateOptions::default()).unwrap();
        let labels: Vec<Option<usize>> = (0..test.len()).map(|item| test.label(item)).collect();
        let own = mean(&score(&model, test.as_ref(), &events, &EvaluateOptions::default()).unwrap().log_likelihood);
        let (plain, events) = trained(unconditional, &train, settings.clone());
        let plain = mean(&score(&plain, test.as_ref(), &events, &EvaluateOptions::default()).unwrap().log_likelihood);
        (every.log_probs.classification(&labels, |item| item).unwrap(), mean(&every.log_mixture), own - plain)
    };
    let (of_classes, mixture, gain) = found(false);
    let best: f64 = 0.977_249_868;
    let error = (best * (1.0 - best) / of_classes.items as f64).sqrt();
    // What the best classifier, the sign of the sum, makes of these very items.
    let test = twonorm(100, 8000, false);
    let draws: Vec<Draw> = (0..test.len()).map(|index| Draw { epoch: 0, index }).collect();
    let batch = test.batch(&draws).unwrap();
    let Values::Real(values) = batch.values else { panic!("real numbers") };
    let told = values.chunks_exact(20).map(|x| usize::from(x.iter().sum::<f64>() > 0.0));
    let right = told.zip(&batch.labels).filter(|(told, label)| Some(*told) == **label).count();
    let here = right as f64 / batch.labels.len() as f64;
    assert!((here - best).abs() < 4.0 * error, "{here} instead of {best} ± {error}");
    assert!((of_classes.accuracy - here).abs() < 2.0 * error, "{} where the best has {here} ± {error}", of_classes.accuracy);
    // The densities are known: log p(x | c) is that of a normal one on average, and p(x) its mixture.
    let (conditional_entropy, information) = (10.0 * (LN_2PI + 1.0), 0.6327);
    assert!((mixture + conditional_entropy + information).abs() < 0.1, "{mixture}");
    assert!(gain > 0.5 && of_classes.calibration.error < 0.02, "{gain}, {}", of_classes.calibration.error);

    let (of_noise, _, gain) = found(true);
    let chance = (0.25 / of_noise.items as f64).sqrt();
    assert!((of_noise.accuracy - 0.5).abs() < 4.0 * chance && gain.abs() < 0.02, "{} and {gain} nats", of_noise.accuracy);
    assert!((of_noise.cross_entropy_nats - std::f64::consts::LN_2).abs() < 0.01, "{}", of_noise.cross_entropy_nats);
}

/// A model of one number with p(x | c) = N(m, s²) of one class and p(x) = N(0, 2²): guided, the product of powers is a
/// normal density that is known.
#[test]
fn guided_samples_are_of_the_product_of_powers() {
    let (mean_of_class, deviation, wide) = (1.0, 0.8, 2.0_f64);
    let base = flow_api::bases::Conditional::new(StandardNormal::new(1), 1).unwrap();
    let conditioner = Conditioner::of_classes(1, 1, &[], 0.5, 1).unwrap();
    let model = Model::<f64>::new(Box::new(Rows(layers::LuLinear::new(1))), Box::new(base), EventShape::Vector(1)).unwrap();
    let mut model = model.with_conditioner(conditioner).unwrap();
    // Vectors 1 of the class and 0 of nothing; shift m c, and log-scale ln(wide) + c (ln s − ln(wide)).
    let numbers = |path: &str| match path {
        "condition.embedding" => vec![1.0],
        "condition.nothing" => vec![0.0],
        "base.weight" => vec![mean_of_class, f64::ln(deviation / wide)],
        "base.bias" => vec![0.0, wide.ln()],
        _ => Vec::new(),
    };
    update(&mut model, |path, entry| {
        if let EntryMut::Parameter { values, .. } = entry {
            values.iter_mut().zip(numbers(path)).for_each(|(value, new)| *value = new);
        }
    })
    .unwrap();
    let (samples, weight) = (4000, 1.5);
    let given = Conditions::class(0, samples);
    let guided = sample_guided(&model, &given, samples, 1.0, 3, Guidance { weight, candidates: 200 }).unwrap();
    // Precisions and their products with means add up, with weights 1 + w and −w.
    let precision = (1.0 + weight) / (deviation * deviation) - weight / (wide * wide);
    let expected = (1.0 + weight) * mean_of_class / (deviation * deviation) / precision;
    let found = mean(&guided.values);
    let variance = mean(&guided.values.iter().map(|x| (x - found).powi(2)).collect::<Vec<_>>());
    let error = (1.0 / precision / samples as f64).sqrt();
    assert!((found - expected).abs() < 5.0 * error, "mean {found} instead of {expected} ± {error}");
    assert!((variance * precision - 1.0).abs() < 0.12, "variance {variance} instead of {}", 1.0 / precision);
    assert!(guided.effective > 20.0 && guided.effective < 200.0, "{}", guided.effective);
    // Without weight they are samples of the class, all of whose candidates count.
    let plain = sample_guided(&model, &given, samples, 1.0, 3, Guidance { weight: 0.0, candidates: 4 }).unwrap();
    assert!(
        (mean(&plain.values) - mean_of_class).abs() < 5.0 * deviation / (samples as f64).sqrt() && (plain.effective - 4.0).abs() < 1e-9
    );
    let again = sample_guided(&model, &given, samples, 1.0, 3, Guidance { weight, candidates: 200 }).unwrap();
    assert_eq!(again, guided);
}

/// A model of which conditions were dropped knows p(x): that of the data is the mixture of its classes.
#[test]
fn dropped_conditions_teach_the_density_of_all() {
    let data = twonorm(1, 6000, false);
    let spec = "VectorFlow(flows: [LuLinear(), AffineCoupling(hidden: 16, blocks: 1), LuLinear(permutation: Reverse), AffineCoupling(hidden: 16, blocks: 1)], condition: Classes(embedding: 2, dropped: 0.5))";
    let settings = Settings { steps: 600, batch: 256, warm_up: 50, learning_rate: 5e-3, ema: Some(0.98), ..Settings::default() };
    let (model, events) = trained(spec, &data, settings);
    let of = |given| {
        let options = EvaluateOptions { given, ..EvaluateOptions::default() };
        mean(&score(&model, data.as_ref(), &events, &options).unwrap().log_likelihood)
    };
    let (own, nothing) = (of(ScoredGiven::Own), of(ScoredGiven::Nothing));
    let mixture = mean(&score_every_class(&model, data.as_ref(), &events, &EvaluateOptions::default()).unwrap().log_mixture);
    assert!(own > nothing + 0.3 && (nothing - mixture).abs() < 0.25, "own {own}, nothing {nothing}, mixture {mixture}");
    let record = DataRecord::of(data.as_ref()).unwrap();
    assert_eq!(record.class_items.iter().sum::<u64>(), 6000);
}
