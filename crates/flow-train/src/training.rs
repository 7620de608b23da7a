//! The training loop.

use crate::checkpoint::Progress;
use crate::data::{Dataset, Draw, Loader, Shuffle, Subset, TrainOrder};
use crate::evaluate::{EvaluateOptions, evaluate};
use crate::events::Events;
use crate::optimiser::{Adam, AdamConfig, AdamState, flat_weights, set_flat_weights};
use crate::{Result, Settings, TrainError};
use flow_api::spec::{Model, SpecScalar};
use flow_api::{Context, FlowError, Gradients, Mode};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Batches that are drawn ahead of the step that needs them.
const READ_AHEAD: usize = 2;

/// One line of a run's record.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Steps made.
    pub step: u64,
    /// Mean training loss since the last report, in bits/dim for discrete data and nats for continuous data.
    pub train: f64,
    /// Loss on the validation items, if there are any, in the same unit.
    pub validation: Option<f64>,
    /// Mean seconds a step since the last report, validation not counted.
    pub seconds_per_step: f64,
    /// Norm of the last step's gradient before clipping.
    pub gradient_norm: f64,
    /// Learning rate of the last step.
    pub learning_rate: f64,
}

/// Sees a run while it goes on: a progress bar, a log, a checkpoint writer.
pub trait Observer<E: SpecScalar> {
    /// After every step, with the step's loss in the unit of reports.
    fn step(&mut self, step: u64, loss: f64) {
        let _ = (step, loss);
    }

    /// After every report.
    ///
    /// # Errors
    /// Whatever the observer cannot do; it ends the run.
    fn report(&mut self, report: &Report, trainer: &Trainer<E>) -> Result<()> {
        let _ = (report, trainer);
        Ok(())
    }
}

/// Sees nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;
impl<E: SpecScalar> Observer<E> for Silent {}

/// Why a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ending {
    /// All steps were made.
    Finished,
    /// Validation did not improve for as long as the settings allow.
    Early,
    /// The stop flag was raised.
    Stopped,
}

/// The best validation so far, with its weights.
#[derive(Clone, Debug, PartialEq)]
pub struct Best<E> {
    /// Validation loss.
    pub value: f64,
    /// Steps made then.
    pub step: u64,
    /// The weights, flat.
    pub weights: Vec<E>,
}

/// A training run: model, optimiser, data and place in the run.
///
/// A run is a pure function of its seed: data order, dequantisation and estimators' noise depend on (seed, step or epoch, item) alone, so that a run of 2N steps equals one of N steps
/// that is resumed for N more, bit for bit and at any number of threads.
///
/// ```
/// use flow_api::spec::{from_ron, BuildScope, EventShape, ModelSpec, Spec, SpecScalar};
/// use flow_train::{data, Ending, Settings, Silent, Trainer};
/// use std::sync::atomic::AtomicBool;
///
/// let spec: Spec<dyn ModelSpec> = from_ron("VectorFlow(flows: [ActNorm(), LuLinear()])")?;
/// let toy: data::DataSource = "toy:two-moons?n=500".parse()?;
/// let split = toy.open(1)?;
/// let model = f64::model(spec.0.as_ref(), EventShape::Vector(2), &BuildScope::new(Default::default(), 1))?;
/// let settings = Settings { steps: 20, batch: 32, ..Settings::default() };
/// let mut trainer = Trainer::new(model, split.train, settings)?;
/// assert_eq!(trainer.run(&mut Silent, &AtomicBool::new(false))?, Ending::Finished);
/// assert!(trainer.history().last().is_some_and(|report| report.train.is_finite()));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Trainer<E: SpecScalar> {
    model: Model<E>,
    optimiser: Adam<E>,
    settings: Settings,
    events: Events,
    train: Arc<dyn Dataset>,
    validation: Option<Arc<dyn Dataset>>,
    history: Vec<Report>,
    best: Option<Best<E>>,
    /// Reports since the best one.
    stale: u32,
    since: Since,
}

/// Sums since the last report.
#[derive(Clone, Copy, Debug, Default)]
struct Since {
    loss: f64,
    steps: u64,
    seconds: f64,
    norm: f64,
}

impl<E: SpecScalar> Trainer<E> {
    /// A new run: holds out validation items and initialises the model from its first batch.
    ///
    /// # Errors
    /// Settings out of range, data that does not fit the model, and the errors of data-dependent initialisation.
    pub fn new(model: Model<E>, data: Arc<dyn Dataset>, settings: Settings) -> Result<Self> {
        let mut trainer = Self::uninitialised(model, data, settings)?;
        trainer.in_pool(Self::initialise)??;
        trainer.optimiser = Adam::new(&trainer.model, trainer.adam());
        Ok(trainer)
    }

    /// A run that goes on from a checkpoint: `model` holds its weights.
    ///
    /// # Errors
    /// As [`Trainer::new`], and a state that does not fit.
    pub fn resume(
        model: Model<E>,
        data: Arc<dyn Dataset>,
        settings: Settings,
        progress: Progress,
        optimiser: AdamState<E>,
        best: Option<Best<E>>,
    ) -> Result<Self> {
        let mut trainer = Self::uninitialised(model, data, settings)?;
        trainer.optimiser.restore(optimiser).map_err(|reason| TrainError::Setting {
            field: "checkpoint",
            expected: "the optimiser's state of this run".to_owned(),
            got: reason,
        })?;
        (trainer.history, trainer.stale, trainer.best) = (progress.history, progress.stale, best);
        Ok(trainer)
    }

    fn uninitialised(model: Model<E>, data: Arc<dyn Dataset>, settings: Settings) -> Result<Self> {
        settings.check()?;
        let events = Events::new(data.as_ref(), &settings.dequantise, settings.seed)?;
        events.check(model.event())?;
        let held_out = num_traits::cast(data.len() as f64 * settings.validation).unwrap_or(0);
        let (train, validation) = if held_out == 0 {
            (data, None)
        } else {
            let order = Shuffle { seed: settings.seed }.permutation(u64::MAX, data.len());
            let (held, kept) = order.split_at(held_out);
            (
                Arc::new(Subset::new(data.clone(), kept.to_vec())?) as Arc<dyn Dataset>,
                Some(Arc::new(Subset::new(data, held.to_vec())?) as _),
            )
        };
        let optimiser = Adam::new(&model, adam_config(&settings));
        let (history, best, stale, since) = (Vec::new(), None, 0, Since::default());
        Ok(Self { model, optimiser, settings, events, train, validation, history, best, stale, since })
    }

    fn adam(&self) -> AdamConfig {
        adam_config(&self.settings)
    }

    fn initialise(&mut self) -> Result<()> {
        let count = self.settings.initial_batch.min(self.train.len());
        let order = Shuffle { seed: self.settings.seed }.permutation(0, self.train.len());
        let draws: Vec<Draw> = order.into_iter().take(count).map(|index| Draw { epoch: 0, index }).collect();
        let (events, _) = self.events.of::<E>(&self.train.batch(&draws)?)?;
        let batch = self.model.batch(events)?;
        self.model.flow_mut().initialise(batch, &Context::new(self.settings.seed))?;
        Ok(())
    }

    /// Runs `f` on the calling thread: a model on dfdx's CUDA device cannot leave it.
    #[cfg(feature = "cuda")]
    #[expect(clippy::unnecessary_wraps, reason = "the same signature as on the CPU")]
    fn in_pool<R>(&mut self, f: impl FnOnce(&mut Self) -> R) -> Result<R> {
        Ok(f(self))
    }

    /// Runs `f` on as many threads as the settings say.
    #[cfg(not(feature = "cuda"))]
    fn in_pool<R: Send>(&mut self, f: impl FnOnce(&mut Self) -> R + Send) -> Result<R>
    where
        Self: Send,
    {
        let Some(threads) = self.settings.threads else { return Ok(f(self)) };
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().map_err(|e| TrainError::Threads(e.to_string()))?;
        Ok(pool.install(|| f(self)))
    }

    /// Trains until all steps are made, validation stops improving, or `stop` is raised; in the last case the step that runs is finished first.
    ///
    /// Where validation items are held out, the model ends with its best weights; else, with averaged weights if there are any.
    ///
    /// # Errors
    /// [`TrainError::NotFinite`] names step, layer and item, and leaves the weights as they were before the step.
    pub fn run(&mut self, observer: &mut (dyn Observer<E> + Send), stop: &AtomicBool) -> Result<Ending> {
        let ending = self.in_pool(|trainer| trainer.steps(observer, stop))??;
        if ending != Ending::Stopped {
            if let Some(best) = self.best.take() {
                set_flat_weights(&mut self.model, &best.weights)?;
                self.best = Some(best);
            } else if let Some(average) = self.optimiser.average() {
                set_flat_weights(&mut self.model, average)?;
            }
        }
        Ok(ending)
    }

    fn steps(&mut self, observer: &mut (dyn Observer<E> + Send), stop: &AtomicBool) -> Result<Ending> {
        let mut order = TrainOrder::new(Shuffle { seed: self.settings.seed }, self.train.len(), self.settings.batch)?;
        order.seek(self.optimiser.steps());
        let mut batches = Loader::new(self.train.clone(), order, READ_AHEAD)?;
        let mut gradients = Gradients::zeros(&self.model);
        while self.optimiser.steps() < self.settings.steps {
            if stop.load(Ordering::Relaxed) {
                return Ok(Ending::Stopped);
            }
            let Some(batch) = batches.next() else { break };
            let loss = self.step(&batch?, &mut gradients)?;
            let step = self.optimiser.steps();
            observer.step(step, loss);
            if step.is_multiple_of(self.settings.report_every) || step == self.settings.steps {
                let report = self.report()?;
                observer.report(&report, self)?;
                if self.settings.patience.is_some_and(|patience| self.stale >= patience) {
                    return Ok(Ending::Early);
                }
            }
        }
        Ok(Ending::Finished)
    }

    /// One step; its loss in the unit of reports.
    fn step(&mut self, batch: &crate::data::Batch, gradients: &mut Gradients<E>) -> Result<f64> {
        let began = Instant::now();
        let step = self.optimiser.steps();
        let (events, preprocessing) = self.events.of::<E>(batch)?;
        let cx = Context::new(self.settings.seed).at_step(step).in_mode(Mode::Train).with_memory(self.settings.memory);
        gradients.clear();
        let located = |source: FlowError| match source {
            FlowError::NotFinite { row, .. } => TrainError::NotFinite { step, items: items(&batch.draws, row), source: Box::new(source) },
            other => TrainError::Flow(other),
        };
        let loss = self.model.flow().nll(self.model.batch(events)?, gradients, &cx).map_err(located)?;
        if !gradients.norm().is_finite() {
            let layer = gradients.iter().find(|(_, g)| g.iter().any(|g| !num_traits::Float::is_finite(*g))).map_or("", |(path, _)| path);
            let source = FlowError::NotFinite { layer: layer.to_owned(), what: "the gradient", row: usize::MAX };
            return Err(TrainError::NotFinite { step, items: items(&batch.draws, usize::MAX), source: Box::new(source) });
        }
        let rate = self.settings.learning_rate_at(step);
        self.since.norm = self.optimiser.step(&mut self.model, gradients, rate)?;
        let preprocessing = preprocessing.iter().map(|l| l.as_f64()).sum::<f64>() / batch.draws.len().max(1) as f64;
        let loss = self.events.report(preprocessing - loss.nll.as_f64());
        self.since.loss += loss;
        self.since.steps += 1;
        self.since.seconds += began.elapsed().as_secs_f64();
        Ok(loss)
    }

    fn report(&mut self) -> Result<Report> {
        let since = std::mem::take(&mut self.since);
        let step = self.optimiser.steps();
        let validation = self.validate()?;
        if let Some(value) = validation {
            if self.best.as_ref().is_none_or(|best| value < best.value) {
                let weights = self.optimiser.average().map_or_else(|| flat_weights(&self.model), <[E]>::to_vec);
                self.best = Some(Best { value, step, weights });
                self.stale = 0;
            } else {
                self.stale += 1;
            }
        }
        let steps = since.steps.max(1) as f64;
        let report = Report {
            step,
            train: since.loss / steps,
            validation,
            seconds_per_step: since.seconds / steps,
            gradient_norm: since.norm,
            learning_rate: self.settings.learning_rate_at(step.saturating_sub(1)),
        };
        self.history.push(report);
        Ok(report)
    }

    /// Loss on the validation items with the averaged weights, if there are such items.
    fn validate(&mut self) -> Result<Option<f64>> {
        let Some(validation) = self.validation.clone() else { return Ok(None) };
        let own = flat_weights(&self.model);
        if let Some(average) = self.optimiser.average() {
            set_flat_weights(&mut self.model, average)?;
        }
        let options =
            EvaluateOptions { batch: self.settings.batch, seed: self.settings.seed, likelihood_alone: true, ..EvaluateOptions::default() };
        let result = evaluate(&self.model, validation.as_ref(), &self.events, &options);
        if self.optimiser.average().is_some() {
            set_flat_weights(&mut self.model, &own)?;
        }
        Ok(Some(result?.loss))
    }

    /// The model.
    pub fn model(&self) -> &Model<E> {
        &self.model
    }

    /// The model, at the end of a run.
    pub fn into_model(self) -> Model<E> {
        self.model
    }

    /// The settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// How items become events.
    pub fn events(&self) -> &Events {
        &self.events
    }

    /// All reports so far.
    pub fn history(&self) -> &[Report] {
        &self.history
    }

    /// The best validation so far.
    pub fn best(&self) -> Option<&Best<E>> {
        self.best.as_ref()
    }

    /// The optimiser.
    pub fn optimiser(&self) -> &Adam<E> {
        &self.optimiser
    }

    /// Place in the run, for a checkpoint.
    pub fn progress(&self) -> Progress {
        Progress {
            step: self.optimiser.steps(),
            stale: self.stale,
            best: self.best.as_ref().map(|best| (best.value, best.step)),
            history: self.history.clone(),
        }
    }
}

fn adam_config(settings: &Settings) -> AdamConfig {
    AdamConfig { clip: settings.clip, ema: settings.ema, weight_decay: settings.weight_decay, ..AdamConfig::default() }
}

/// The item of a row, or the batch's first items where the row is unknown.
fn items(draws: &[Draw], row: usize) -> String {
    if let Some(draw) = draws.get(row) {
        draw.index.to_string()
    } else {
        let first: Vec<String> = draws.iter().take(8).map(|draw| draw.index.to_string()).collect();
        let more = if draws.len() > first.len() { ", …" } else { "" };
        format!("{}{more}", first.join(", "))
    }
}
