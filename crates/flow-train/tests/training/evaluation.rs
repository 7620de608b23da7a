//! Evaluations of densities whose likelihood is known.

use crate::{build, digits, model, never, text_of, vectors};
use dfdx::prelude::HasShape;
use flow_api::bases::StandardNormal;
use flow_api::bijector::{Cotangent, Mapped, Point, Pulled};
use flow_api::module::{EntryMut, update};
use flow_api::rows::{MappedRows, Rows, Taped, TapedMap, TapedRows};
use flow_api::spec::{EventShape, Model, Preprocessing, SpecScalar};
use flow_api::{Bijector, Context, Facts, FlowError, Gradients, Mode, Module, RowFlow, Scalar, Tensor, module_fields};
use flow_train::data::{Crop, Dataset, ImageFolder, InMemory, ItemShape, Values};
use flow_train::{EvaluateOptions, Evaluation, Events, Settings, Silent, Trainer, evaluate, score};
use std::collections::HashSet;
use std::path::Path;
use std::sync::{Arc, Mutex};

/// A standard normal density of vectors.
fn standard_normal<E: SpecScalar>(dim: usize) -> Model<E> {
    build("VectorFlow(flows: [LuLinear()])", EventShape::Vector(dim), 1)
}

fn normal_values(dim: usize, items: usize) -> Vec<f64> {
    let mut values = vec![0.0; dim * items];
    flow_kernels::noise::Stream::new(1, 0, "normal").row(0).gaussian(&mut values);
    values
}

fn found<E: SpecScalar>(model: &Model<E>, data: &dyn Dataset, options: EvaluateOptions) -> Evaluation {
    let events = Events::new(data, &Preprocessing::default(), 1).unwrap();
    evaluate(model, data, &events, &options).unwrap()
}

#[test]
fn a_gaussian_scores_its_entropy() {
    let (dim, items) = (3, 4000);
    let mut values = normal_values(dim, items);
    values[5] = 1e200; // whose square is no number
    let set = vectors(values, dim);
    let evaluation = found(&standard_normal::<f64>(dim), set.as_ref(), EvaluateOptions::default());
    let entropy = 0.5 * dim as f64 * (1.0 + (2.0 * std::f64::consts::PI).ln());
    assert!((evaluation.loss - entropy).abs() < 4.0 * evaluation.standard_error, "{evaluation:?}");
    assert!((evaluation.log_likelihood + evaluation.loss).abs() < 1e-12);
    // Var(½χ²₃) = 3/2.
    assert!((evaluation.standard_error - (1.5 / items as f64).sqrt()).abs() < 2e-3);
    assert!((evaluation.non_finite - 1.0 / items as f64).abs() < 1e-12);
    assert_eq!((evaluation.unit.as_str(), evaluation.items, evaluation.evaluations), ("nats", items, 0));
    assert_eq!(evaluation.log_det_standard_error, None);
    let inverse = evaluation.inverse.unwrap();
    assert_eq!((inverse.error, inverse.failure), (0.0, None));
    assert!(inverse.sampled_per_second > 0.0 && evaluation.scored_per_second > 0.0);
}

/// With every level equally likely, N(0, σ²) on (−½, ½) with a σ that makes it flat there has a density of 1 on the
/// cube, up to what escapes it: the map z = x/σ with σ large, whose log-density on the cube is −D ln(σ√2π), so that
/// bits/dim = log₂ levels + log₂(σ√2π).
#[test]
fn uniform_noise_under_a_uniform_density_gives_the_logarithm_of_the_levels() {
    for levels in [2_u32, 17, 256] {
        let pixels: Vec<u8> = (0..50 * 6).map(|i: u32| u8::try_from(i * 7919 % levels).unwrap()).collect();
        let shape = ItemShape::Vector { dims: 6 };
        let data = InMemory::new(Path::new("noise"), Values::Levels(pixels), shape, Some(levels), None).unwrap();
        let mut flat = standard_normal::<f64>(6);
        // z = x √2π/10⁴, of density e^{−z²/2}/10⁴ at x: flat on the cube but for z² < 10⁻⁸.
        let sigma = 1e4 / (2.0 * std::f64::consts::PI).sqrt();
        update(&mut flat, |path, entry| {
            if let (true, EntryMut::Parameter { values, .. }) = (path.ends_with("log_diagonal"), entry) {
                values.fill(-f64::ln(sigma));
            }
        })
        .unwrap();
        let options = EvaluateOptions { dequantisations: 3, likelihood_alone: true, ..EvaluateOptions::default() };
        let evaluation = found(&flat, &data, options);
        let expected = f64::from(levels).log2() + 1e4_f64.log2();
        assert!((evaluation.loss - expected).abs() < 1e-7, "{levels} levels: {} {expected}", evaluation.loss);
        assert!(evaluation.standard_error < 1e-8);
        assert!((evaluation.log_likelihood + 6.0 * 2_f64.ln() * evaluation.loss).abs() < 1e-9);
        assert_eq!((evaluation.unit.as_str(), evaluation.inverse), ("bits/dim", None));
    }
}

/// The error of a mean over n items falls as 1/√n, and so does what further draws of noise add to an item's own.
#[test]
fn means_over_items_and_over_draws_of_noise_have_their_standard_errors() {
    let model = standard_normal::<f64>(64);
    let digits = digits();
    let pixels = digits.batch(&flow_train::data::each_once(200, 200).next().unwrap()).unwrap().values;
    let data = InMemory::new(Path::new("digits"), pixels, ItemShape::Vector { dims: 64 }, Some(17), None).unwrap();
    let events = Events::new(&data, &Preprocessing::default(), 1).unwrap();
    let of = |dequantisations| {
        let options = EvaluateOptions { dequantisations, batch: 33, ..EvaluateOptions::default() };
        score(&model, &data, &events, &options).unwrap().log_likelihood
    };
    let (one, many, again) = (of(1), of(64), of(64));
    assert_eq!(many, again, "the noise is fixed");
    let mean = one.iter().sum::<f64>() / 200.0;
    let variance = one.iter().map(|l| (l - mean).powi(2)).sum::<f64>() / 199.0;
    let evaluation = evaluate(&model, &data, &events, &EvaluateOptions::default()).unwrap();
    let unit = 1.0 / (64.0 * 2_f64.ln());
    assert!((evaluation.standard_error - (variance / 200.0).sqrt() * unit).abs() < 1e-12);
    let spread = |draws: u64| {
        let scores = of(draws);
        scores.iter().zip(&many).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt()
    };
    let (of_two, of_eight) = (spread(2), spread(8));
    let ratio = of_two / of_eight;
    assert!((1.5..3.5).contains(&ratio), "half the error for four times the draws, got {ratio}");
}

/// Pictures of noise, from which several crops are drawn at random.
fn crops(folder: &Path) -> Arc<dyn Dataset> {
    for number in 0..4_u8 {
        // Each picture has a brightness of its own.
        let pixel = |x: u32, y: u32| image::Luma([number * 40 + u8::try_from((x * 7919 + y * 104_729) % 97).unwrap()]);
        image::GrayImage::from_fn(40, 40, pixel).save(folder.join(format!("{number}.png"))).unwrap();
    }
    let options = ImageFolder { size: Some(4), crop: Crop::Random, crops: 25, grey: true, ..ImageFolder::new(folder) };
    options.open(3).unwrap().train
}

/// A standard normal density of the crops.
fn linear_mixer() -> Model<f64> {
    let event = EventShape::Image { channels: 1, height: 4, width: 4 };
    build("MixerFlow(patch: 2, layers: 1, channel: [LuLinear()], patches: [LuLinear()])", event, 1)
}

/// However often noise is drawn, it is drawn for the crops of epoch 0: the scores are those of the same windows held in
/// memory.
#[test]
fn random_crops_stand_still_while_noise_is_averaged_over() {
    let folder = tempfile::tempdir().unwrap();
    let train = crops(folder.path());
    let batch = train.batch(&flow_train::data::each_once(train.len(), train.len()).next().unwrap()).unwrap();
    let still = InMemory::new(Path::new("windows"), batch.values, train.shape(), train.levels(), None).unwrap();
    let model = linear_mixer();
    let options = EvaluateOptions { dequantisations: 16, likelihood_alone: true, batch: 33, ..EvaluateOptions::default() };
    let scores = |data: &dyn Dataset| {
        let events = Events::new(data, &Preprocessing::default(), 1).unwrap();
        score(&model, data, &events, &options).unwrap().log_likelihood
    };
    assert_eq!(scores(train.as_ref()), scores(&still));
}

/// Crops of one picture are alike: the error of their mean is that of a mean over pictures.
#[test]
fn the_standard_error_counts_pictures_and_not_crops() {
    let folder = tempfile::tempdir().unwrap();
    let train = crops(folder.path());
    let events = Events::new(train.as_ref(), &Preprocessing::default(), 1).unwrap();
    let options = EvaluateOptions { likelihood_alone: true, ..EvaluateOptions::default() };
    let found = evaluate(&linear_mixer(), train.as_ref(), &events, &options).unwrap();
    let scores = score(&linear_mixer(), train.as_ref(), &events, &options).unwrap().log_likelihood;
    let means: Vec<f64> = scores.chunks(25).map(|of_picture| of_picture.iter().sum::<f64>() / 25.0).collect();
    let mean = means.iter().sum::<f64>() / means.len() as f64;
    let variance = means.iter().map(|m| (m - mean).powi(2)).sum::<f64>() / (means.len() - 1) as f64;
    let expected = (variance / means.len() as f64).sqrt() / (16.0 * 2_f64.ln());
    assert!((found.standard_error / expected - 1.0).abs() < 1e-9, "{} {expected}", found.standard_error);
}

#[test]
fn one_item_has_no_standard_error() {
    let evaluation = found(&standard_normal::<f64>(3), vectors(vec![0.0; 3], 3).as_ref(), EvaluateOptions::default());
    assert!(evaluation.standard_error.is_nan());
    assert_eq!(evaluation.loss_text(3), "2.757 ± –");
    let json = serde_json::to_string(&evaluation).unwrap();
    assert!(json.contains("\"standard_error\":null"), "{json}");
    let back: Evaluation = serde_json::from_str(&json).unwrap();
    assert!(back.standard_error.is_nan() && (back.loss - evaluation.loss).abs() < 1e-12);
}

#[test]
fn an_uninitialised_model_and_foreign_data_are_errors() {
    let options = EvaluateOptions::default();
    let set = vectors(normal_values(3, 10), 3);
    let events = Events::new(set.as_ref(), &Preprocessing::default(), 1).unwrap();
    let other = vectors(normal_values(2, 10), 2);
    let got = evaluate(&standard_normal::<f32>(3), other.as_ref(), &events, &options);
    assert_eq!(text_of(got), "the model is for events of shape (3), the data has (2)");
    let empty = EvaluateOptions { batch: 0, ..options };
    assert_eq!(text_of(evaluate(&standard_normal::<f32>(3), set.as_ref(), &events, &empty)), "batch: expected at least 1, got 0");
    let images = digits();
    let of_images = Events::new(images.as_ref(), &Preprocessing::default(), 1).unwrap();
    assert!(text_of(evaluate(&model::<f32>(1), images.as_ref(), &of_images, &options)).contains("initialise"));
}

/// The identity, which claims to be inverted by an iteration that never converges.
struct Hopeless;
impl<E: Scalar> Module<E> for Hopeless {
    module_fields!(E;);
}
impl<E: Scalar> TapedRows<E> for Hopeless {
    fn forward_taped(&self, x: Taped<(usize, usize), E>, _: &Context<E>) -> Result<TapedMap<E>, FlowError> {
        let log_det = E::zeros((x.shape().0,)).retaped();
        Ok((x, log_det))
    }
    fn inverse_taped(&self, _: Tensor<(usize, usize), E>, _: &Context<E>) -> Result<MappedRows<E>, FlowError> {
        Err(FlowError::NotConverged { layer: "Hopeless".to_owned(), iterations: 9, residual: 1.0, tolerance: 1e-6, row: 0 })
    }
}
impl<E: Scalar> RowFlow<E> for Hopeless {
    fn facts(&self) -> Facts {
        Facts::new("Hopeless")
    }
    fn dim(&self) -> usize {
        3
    }
    fn taped(&self) -> Option<&dyn TapedRows<E>> {
        Some(self)
    }
}

/// The identity with an estimate for a log-det, of which half are not finite by chance, and which a 7 in the batch
/// fails.
struct Fussy(FlowError);
impl Module<f64> for Fussy {
    module_fields!(f64;);
}
type Plane = Tensor<(usize, usize), f64>;
type Cx = Context<f64>;
impl Bijector<(usize, usize), f64> for Fussy {
    type Out = (usize, usize);
    fn facts(&self) -> Facts {
        Facts::new("Fussy")
    }
    fn output_shape(&self, input: &(usize, usize)) -> Result<(usize, usize), FlowError> {
        Ok(*input)
    }
    fn forward(&self, x: Plane, cx: &Cx) -> Result<Mapped<(usize, usize), f64>, FlowError> {
        if x.as_vec().contains(&7.0) {
            return Err(self.0.clone());
        }
        let rows = x.shape().0;
        let noise = (0..rows).map(|row| cx.noise().row(row as u64).next_u64());
        let noise = noise.map(|noise| if noise.is_multiple_of(2) { (noise >> 11) as f64 } else { f64::INFINITY }).collect();
        let mut mapped = Mapped::exact(x, f64::tensor(noise, (rows,)));
        mapped.log_det.standard_error = Some(f64::tensor(vec![1.0; rows], (rows,)));
        Ok(mapped)
    }
    fn inverse(&self, y: Plane, _: &Cx) -> Result<Mapped<(usize, usize), f64>, FlowError> {
        let log_det = f64::zeros((y.shape().0,));
        Ok(Mapped::exact(y, log_det))
    }
    fn pullback(
        &self,
        _: Point<(usize, usize), (usize, usize), f64>,
        _: Cotangent<(usize, usize), f64>,
        _: &mut Gradients<f64>,
        _: &Cx,
    ) -> Result<Pulled<(usize, usize), f64>, FlowError> {
        Err(self.0.clone())
    }
}

fn fussy(dim: usize, error: FlowError) -> Model<f64> {
    let base = Box::new(StandardNormal::new(dim));
    Model::new(Box::new(Fussy(error)), base, EventShape::Vector(dim)).unwrap()
}

fn not_finite() -> FlowError {
    FlowError::NotFinite { layer: "Fussy".to_owned(), what: "the output", row: 0 }
}

/// The other items of the batch are scored, each with noise of its own.
#[test]
fn an_item_that_a_layer_fails_on_is_counted_and_named() {
    let layer = || "Fussy".to_owned();
    for error in [
        not_finite(),
        FlowError::NotConverged { layer: layer(), iterations: 9, residual: 1.0, tolerance: 1e-6, row: 0 },
        FlowError::StepUnderflow { layer: layer(), t: 0.5, dt: 1e-20, nfe: 9 },
        FlowError::TooManyEvaluations { layer: layer(), t: 0.5, nfe: 9, limit: 8 },
    ] {
        let mut values = vec![0.0; 60];
        values[2 * 4] = 7.0;
        let (set, model) = (vectors(values, 2), fussy(2, error.clone()));
        let events = Events::new(set.as_ref(), &Preprocessing::default(), 1).unwrap();
        let scores = score(&model, set.as_ref(), &events, &EvaluateOptions::default()).unwrap();
        assert_eq!(scores.failure, Some(format!("item 4: {error}")));
        let finite: HashSet<u64> = scores.log_likelihood.iter().filter(|l| l.is_finite()).map(|l| l.to_bits()).collect();
        assert!(finite.len() > 5 && finite.len() as u64 + scores.non_finite == 30, "{scores:?}");
    }
    let other = FlowError::Unsupported { layer: layer(), operation: "forward", reason: "of 7".to_owned() };
    let set = vectors(vec![7.0; 4], 2);
    let events = Events::new(set.as_ref(), &Preprocessing::default(), 1).unwrap();
    assert!(score(&fussy(2, other), set.as_ref(), &events, &EvaluateOptions::default()).is_err());
}

/// An average over n finite draws with an error of 1 each has a variance of 1/n, however many others there are.
#[test]
fn draws_that_are_not_finite_have_no_part_in_the_error_of_the_average() {
    let data = InMemory::new(Path::new("noise"), Values::Levels(vec![1; 40]), ItemShape::Vector { dims: 2 }, Some(4), None).unwrap();
    let events = Events::new(&data, &Preprocessing::default(), 1).unwrap();
    let options = EvaluateOptions { dequantisations: 16, ..EvaluateOptions::default() };
    let scores = score(&fussy(2, not_finite()), &data, &events, &options).unwrap();
    let finite: f64 = scores.log_det_variance.unwrap().iter().map(|variance| variance.recip()).sum();
    assert!(scores.non_finite > 100 && (finite + scores.non_finite as f64 - 320.0).abs() < 1e-9, "{finite} {}", scores.non_finite);
}

/// The identity, which writes down whether a pass is to train and the noise that it is given.
struct Listener(Arc<Mutex<Vec<(bool, u64)>>>);
impl<E: Scalar> Module<E> for Listener {
    module_fields!(E;);
}
impl<E: Scalar> TapedRows<E> for Listener {
    fn forward_taped(&self, x: Taped<(usize, usize), E>, cx: &Context<E>) -> Result<TapedMap<E>, FlowError> {
        self.0.lock().unwrap().push((cx.mode() == Mode::Train, cx.noise().row(0).next_u64()));
        let log_det = E::zeros((x.shape().0,)).retaped();
        Ok((x, log_det))
    }
    fn inverse_taped(&self, y: Tensor<(usize, usize), E>, _: &Context<E>) -> Result<MappedRows<E>, FlowError> {
        let log_det = E::zeros((y.shape().0,));
        Ok((y, log_det))
    }
}
impl<E: Scalar> RowFlow<E> for Listener {
    fn facts(&self) -> Facts {
        Facts::new("Listener")
    }
    fn dim(&self) -> usize {
        2
    }
    fn taped(&self) -> Option<&dyn TapedRows<E>> {
        Some(self)
    }
}

#[test]
fn estimators_have_other_noise_in_training_than_in_validation() {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let flow = Box::new(Rows(Listener(heard.clone())));
    let model = Model::<f64>::new(flow, Box::new(StandardNormal::new(2)), EventShape::Vector(2)).unwrap();
    let settings = Settings { steps: 4, batch: 4, report_every: 2, validation: 0.5, ..Settings::default() };
    let mut trainer = Trainer::new(model, vectors(normal_values(2, 32), 2), settings).unwrap();
    // Not what initialisation sees.
    heard.lock().unwrap().clear();
    trainer.run(&mut Silent, &never()).unwrap();
    let heard = heard.lock().unwrap();
    let of = |training: bool| heard.iter().filter(|(train, _)| *train == training).map(|(_, noise)| *noise).collect::<HashSet<u64>>();
    // As many batches are validated as steps are made. What is reported is seen with the noise of the next step
    // before, and there is none behind the last.
    assert_eq!((of(true).len(), of(false).len()), (4 + 1, 4));
    assert!(of(true).is_disjoint(&of(false)));
}

#[test]
fn an_inverse_that_fails_is_a_finding() {
    let set = vectors(normal_values(3, 10), 3);
    let model = Model::<f64>::new(Box::new(Rows(Hopeless)), Box::new(StandardNormal::new(3)), EventShape::Vector(3)).unwrap();
    let evaluation = found(&model, set.as_ref(), EvaluateOptions::default());
    assert!(evaluation.loss.is_finite());
    let inverse = evaluation.inverse.unwrap();
    assert!(inverse.error.is_nan() && inverse.sampled_per_second.is_nan());
    assert!(inverse.failure.unwrap().starts_with("bijector: no convergence after 9 iterations"));
}

#[test]
fn latents_that_overflow_are_counted_and_show_in_the_inverse() {
    let set = vectors(normal_values(3, 10), 3);
    let mut steep = build::<f64>("VectorFlow(repeat: 2, flows: [LuLinear()])", EventShape::Vector(3), 1);
    update(&mut steep, |path, entry| {
        if let (true, EntryMut::Parameter { values, .. }) = (path.ends_with("log_diagonal"), entry) {
            values.fill(600.0); // e^1200 in all
        }
    })
    .unwrap();
    let evaluation = found(&steep, set.as_ref(), EvaluateOptions::default());
    assert!(evaluation.loss.is_nan() && (evaluation.non_finite - 1.0).abs() < 1e-12, "{evaluation:?}");
    assert!(!evaluation.inverse.unwrap().error.is_finite());
}
