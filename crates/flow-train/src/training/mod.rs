//! The training loop.

mod observer;

pub use observer::{Observer, Silent};

use crate::data::{Batch, Dataset, Draw, Loader, Mutated, Shuffle, Subset, TrainOrder, each_once, most_items};
use crate::device_steps::{DeviceSteps, Done, Elsewhere};
use crate::error::Item;
use crate::evaluate::{EvaluateOptions, evaluate_until};
use crate::event_batch::{EventBatch, Purpose};
use crate::events::Events;
use crate::history::History;
use crate::hold_out::hold_out;
use crate::objective::{Objective, Validated, differentiate, objective_of};
use crate::optimiser::{Adam, set_flat_weights};
use crate::progress::{Best, Ending, Progress, Report, Run, Since};
use crate::record::DataRecord;
use crate::terms::{ReportedTerm, Term};
use crate::threads::on_threads;
use crate::{Result, Settings, TrainError};
use flow_api::bounds_used::BoundsUsed;
use flow_api::device::{Engine, Precision};
use flow_api::module::{load, save};
use flow_api::spec::{Head, Model, Moments, SpecScalar};
use flow_api::{Context, FlowError, Gradients};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Batches that are drawn ahead of the step that needs them.
const READ_AHEAD: usize = 2;

/// A training run: model, optimiser, data and place in the run.
///
/// A run is a pure function of its seed: data order, dequantisation and estimators' noise depend on (seed, step or
/// epoch, item) alone, so that a run of 2N steps equals one of N steps that is resumed for N more, bit for bit and at
/// any number of threads; on another instruction set ([`mod@flow_kernels::simd`]) rounding differs.
///
/// ```
/// use flow_api::spec::{EventShape, ModelSpec, Spec, from_ron};
/// use flow_train::{data, Ending, Settings, Silent, Trainer};
/// use std::sync::atomic::AtomicBool;
///
/// let spec: Spec<dyn ModelSpec> = from_ron("VectorFlow(flows: [ActNorm(), LuLinear()])")?;
/// let toy: data::DataSource = "toy:two-moons?n=500".parse()?;
/// let split = toy.open(1)?;
/// let model = spec.build::<f64>(EventShape::Vector(2), 1)?;
/// let settings = Settings { steps: 20, batch: 32, ..Settings::default() };
/// let mut trainer = Trainer::new(model, split.train, settings)?;
/// assert_eq!(trainer.run(&mut Silent, &AtomicBool::new(false))?, Ending::Finished);
/// assert!(trainer.history().last().is_some_and(|report| report.train.is_finite()));
/// // A spec's model sees real numbers standardised: samples come back in the units of the data.
/// let events = trainer.events().clone();
/// let model = trainer.finish()?;
/// let samples = events.values(&model.sample(3, 1.0, &flow_api::Context::new(1))?);
/// assert_eq!(samples.len(), 3 * 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Trainer<E: SpecScalar> {
    model: Model<E>,
    objective: Box<dyn Objective<E>>,
    optimiser: Adam<E>,
    settings: Settings,
    events: Events,
    train: Arc<dyn Dataset>,
    validation: Option<Arc<dyn Dataset>>,
    /// Of both together.
    items: usize,
    fingerprint: u64,
    history: History,
    best: Option<Best<E>>,
    /// Reports since the best one.
    stale: u32,
    seconds: f64,
    since: Since,
    /// Where steps are made, if that is not here.
    elsewhere: Option<Box<dyn Elsewhere<E>>>,
    /// Steps were made there that the model and the optimiser have not seen.
    ahead: bool,
}

impl<E: SpecScalar> Trainer<E> {
    /// A new run: holds out validation items, fits the standardisation of real numbers to the others, all of them, and
    /// initialises the model from a first batch. What is fitted and layers that are initialised, such as those of a
    /// trained model, stay as they are.
    ///
    /// # Errors
    /// Settings out of range, data that does not fit the model, those of [`Trainer::check_model`], and the errors of
    /// data-dependent initialisation.
    pub fn new(model: Model<E>, data: Arc<dyn Dataset>, settings: Settings) -> Result<Self> {
        let mut trainer = Self::uninitialised(model, data, settings)?;
        let items = trainer.fit()?;
        trainer.in_pool(|trainer| trainer.initialise(items))??;
        // The average starts at the initialised weights.
        trainer.optimiser = Adam::new(&trainer.model, trainer.settings.adam(trainer.model.event().len()));
        Ok(trainer)
    }

    /// A run that goes on from a checkpoint ([`checkpoint::resume`](crate::checkpoint::resume)): `model` holds its
    /// weights and state.
    ///
    /// # Errors
    /// As [`Trainer::new`], [`TrainError::DataChanged`], and a state that does not fit.
    pub fn resume(model: Model<E>, data: Arc<dyn Dataset>, settings: Settings, run: Run<E>) -> Result<Self> {
        let Run { progress, optimiser, best } = run;
        // With other items the same numbers would be held out, and those that were could be trained on.
        let got = data.len();
        if let Some(expected) = progress.items.filter(|items| *items != got) {
            return Err(TrainError::DataChanged { expected, got });
        }
        // Where items are gone, the keys of the others were compared.
        let gone = (0..got).any(|index| data.is_gone(index));
        let mut trainer = Self::uninitialised(model, data, settings)?;
        if !gone && progress.fingerprint.is_some_and(|begun| begun != trainer.fingerprint) {
            return Err(TrainError::DataChanged { expected: got, got });
        }
        if let Some(begun) = progress.fingerprint {
            trainer.fingerprint = begun;
            let record = DataRecord { fingerprint: Some(begun), ..trainer.events.record().clone() };
            trainer.events = trainer.events.with_record(record);
        }
        trainer.optimiser.restore(optimiser)?;
        (trainer.history, trainer.stale, trainer.best) = (History::of(progress.history)?, progress.stale, best);
        (trainer.seconds, trainer.since) = (progress.seconds, progress.since);
        Ok(trainer)
    }

    /// The same run for another objective than the model's own: the likelihood, or that of its classifier.
    #[must_use]
    pub fn with_objective(self, objective: Box<dyn Objective<E>>) -> Self {
        let elsewhere = self.elsewhere.filter(|_| objective.is_likelihood());
        Self { objective, elsewhere, ..self }
    }

    /// Checks that a model can be trained from a data set.
    ///
    /// # Errors
    /// [`TrainError::Conditional`].
    pub fn check_model(model: &Model<E>) -> Result<()> {
        match model.condition() {
            Some(width) if model.conditioner().is_none() => Err(TrainError::Conditional { width }),
            _ => Ok(()),
        }
    }

    fn uninitialised(model: Model<E>, data: Arc<dyn Dataset>, settings: Settings) -> Result<Self> {
        settings.check()?;
        Self::check_model(&model)?;
        let record = DataRecord::of(data.as_ref())?;
        let (items, fingerprint) = (data.len(), record.fingerprint.unwrap_or_default());
        let events = Events::new(data.as_ref(), model.preprocessing(), settings.seed)?.with_record(record);
        let events = events.with_standardiser(model.standardiser().cloned());
        events.check(data.as_ref(), model.event())?;
        if let Some(expected) = model.head().map(Head::classes).filter(|classes| *classes != data.classes().len()) {
            return Err(TrainError::ClassCount { expected, got: data.classes().len() });
        }
        settings.check_batch::<E>(model.event())?;
        let (held, kept) = hold_out(data.as_ref(), &settings);
        let data = if settings.mutate > 0.0 { Arc::new(Mutated::new(data, settings.mutate, settings.seed)?) } else { data };
        let validation: Option<Arc<dyn Dataset>> = if held.is_empty() { None } else { Some(Arc::new(Subset::new(data.clone(), held)?)) };
        let train: Arc<dyn Dataset> = if kept.len() == items { data } else { Arc::new(Subset::new(data, kept)?) };
        let optimiser = Adam::new(&model, settings.adam(model.event().len()));
        let (history, best, stale, seconds, since) = (History::default(), None, 0, 0.0, Since::default());
        let objective = objective_of(&model);
        let trainer = Self {
            model,
            objective,
            optimiser,
            settings,
            events,
            train,
            validation,
            items,
            fingerprint,
            history,
            best,
            stale,
            seconds,
            since,
            elsewhere: None,
            ahead: false,
        };
        trainer.check_labels()?;
        Ok(trainer)
    }

    /// Fits what real numbers are standardised with, unless the model has it, and says how many items layers have to be
    /// initialised from.
    ///
    /// That are as many as the settings say, or more: over n items the standard error of ln std is √((κ − 1)/4n), with
    /// the kurtosis κ of the column with the heaviest tails, and shall be a tenth at most. Of a column that is 0 but
    /// for a small share p of the items, κ is about 1/p, so that 25/p items are taken: it is never constant in them.
    fn fit(&mut self) -> Result<usize> {
        /// 1/(4 · 0.1²).
        const ITEMS: f64 = 25.0;
        /// Numbers in a batch of such items.
        const MOST: usize = 1 << 26;
        let least = self.settings.initial_batch;
        let Some(reals) = self.events.reals() else { return Ok(least) };
        let moments = reals.moments(self.train.as_ref())?;
        if let Some(validation) = self.validation.as_ref().filter(|_| !reals.columns().is_empty()) {
            // A value that its column cannot have would be found in the first validation.
            reals.check(validation.as_ref())?;
        }
        if self.model.standardiser().is_none() && self.model.preprocessing().standardise.unwrap_or(true) {
            let quartiles = reals.quartiles(self.train.as_ref(), &moments)?;
            let fitted = Some(reals.standardiser_of(&moments, &quartiles)?);
            self.model.set_standardiser(fitted.clone())?;
            self.events = self.events.clone().with_standardiser(fitted);
        }
        let asked = |column: &Moments| num_traits::cast::<f64, usize>((ITEMS * (column.kurtosis() - 1.0)).ceil()).unwrap_or(usize::MAX);
        let asked = moments.iter().map(asked).max().unwrap_or(least);
        let most = (MOST / self.model.event().len().max(1)).min(most_items::<E>(self.model.event().len()));
        Ok(asked.min(most).max(least))
    }

    fn initialise(&mut self, items: usize) -> Result<()> {
        let count = items.min(self.train.len());
        let order = Shuffle { seed: self.settings.seed }.permutation(0, self.train.len());
        let draws: Vec<Draw> = order.into_iter().take(count).map(|index| Draw { epoch: 0, index }).collect();
        let events = self.events.of::<E>(&self.train.batch(&draws)?)?;
        self.fit_conditions()?;
        let cx = events.context(&self.model, self.settings.seed, Purpose::Map)?;
        self.model.initialise(events.values, &cx)?;
        Ok(())
    }

    /// Reads mean and spread of the numbers that items are conditioned on off all training items.
    fn fit_conditions(&mut self) -> Result<()> {
        /// Items that are read at a time.
        const AT_ONCE: usize = 1024;
        let Some(conditioner) = self.model.conditioner_mut().filter(|conditioner| conditioner.wants_fit()) else { return Ok(()) };
        let mut all = Vec::new();
        for mut draws in each_once(self.train.len(), AT_ONCE) {
            draws.retain(|draw| !self.train.is_gone(draw.index));
            all.extend(self.train.batch(&draws)?.conditions);
        }
        conditioner.fit(&all).map_err(|error| match error {
            FlowError::ConstantFeature { feature, .. } => {
                let column = self.train.conditions().get(feature).map_or_else(|| (feature + 1).to_string(), |column| column.name.clone());
                TrainError::ConstantCondition { column }
            }
            other => other.into(),
        })
    }

    /// Refuses items without a class for a model that has to be told one.
    fn check_labels(&self) -> Result<()> {
        if !self.model.conditioner().is_some_and(|conditioner| conditioner.classes().is_some() && !conditioner.takes_nothing()) {
            return Ok(());
        }
        for data in std::iter::once(&self.train).chain(&self.validation) {
            let missing = (0..data.len()).find(|&index| !data.is_gone(index) && data.label(index).is_none());
            if let Some(index) = missing {
                return Err(TrainError::NoLabel { item: Item { index: data.row(index), name: data.item_name(index) } });
            }
        }
        Ok(())
    }

    /// Runs `f` on as many threads as the settings say, or as many as there are.
    fn in_pool<R: Send>(&mut self, f: impl FnOnce(&mut Self) -> R + Send) -> Result<R>
    where
        Self: Send,
    {
        let Some(threads) = self.settings.threads else { return Ok(f(self)) };
        on_threads(threads, || f(self))
    }

    /// Trains until all steps are made, validation stops improving, or `stop` is raised; in the last case the step
    /// that runs is finished first, a validation is not: a run that goes on
    /// begins with it anew.
    ///
    /// The trainer keeps the weights of the last step, so that a checkpoint of it goes on; [`Trainer::finish`] gives
    /// the model to use.
    ///
    /// # Errors
    /// [`TrainError::NotFinite`] and [`TrainError::Step`] name the step, and leave the run as it was before it.
    /// [`TrainError::Update`] names it too, but leaves the weights that the step made and a layer could not take: the
    /// run goes on from its last checkpoint, and this trainer is of no more use.
    pub fn run(&mut self, observer: &mut (dyn Observer<E> + Send), stop: &AtomicBool) -> Result<Ending> {
        self.in_pool(|trainer| {
            if trainer.settings.precision != Precision::F32 && trainer.elsewhere.is_none() {
                let own = std::any::type_name::<E>();
                tracing::warn!(
                    "precision {}: it is that of steps that stay on a device, and these are made in {own}",
                    trainer.settings.precision
                );
            }
            observer.begin(trainer)?;
            let ended = trainer.steps(observer, stop);
            let back = trainer.bring_back();
            let ending = ended?;
            back?;
            observer.end(ending, trainer)?;
            Ok(ending)
        })?
    }

    /// The model to use: that of the best validation, else with averaged weights if there are any, else as the last
    /// step left it. Without items held out there is no best validation, nor where no validation was finite.
    ///
    /// # Errors
    /// Those of [`flow_api::Module::refresh`].
    pub fn finish(mut self) -> Result<Model<E>> {
        if let Some(best) = &self.best {
            load(&mut self.model, &best.state)?;
        } else if let Some(average) = self.optimiser.average() {
            set_flat_weights(&mut self.model, average)?;
        }
        Ok(self.model)
    }

    /// Whether the run ends before its next step.
    pub(crate) fn is_done(&self) -> bool {
        !self.is_report_due() && (self.optimiser.steps() >= self.settings.steps || self.is_stale())
    }

    /// Whether the steps made end with a report that is not made yet, as the run was stopped in it.
    fn is_report_due(&self) -> bool {
        let step = self.optimiser.steps();
        let ends = step.is_multiple_of(self.settings.report_every) || step == self.settings.steps;
        ends && self.since.steps > 0 && self.history().last().is_none_or(|last| last.step < step)
    }

    fn is_stale(&self) -> bool {
        self.settings.patience.is_some_and(|patience| self.stale >= patience)
    }

    fn steps(&mut self, observer: &mut (dyn Observer<E> + Send), stop: &AtomicBool) -> Result<Ending> {
        let mut order = TrainOrder::new(Shuffle { seed: self.settings.seed }, self.train.len(), self.settings.batch)?;
        // What of the last step is left to do where the run was stopped in its report.
        let unreported = self.is_report_due();
        order.seek(self.optimiser.steps() - u64::from(unreported));
        let mut batches = Loader::new(self.train.clone(), order, READ_AHEAD);
        let mut gradients = Gradients::zeros(&self.model);
        // The batch of the last step.
        let mut last = None;
        if unreported && let Some(batch) = batches.next() {
            let bounds = self.check_weights(last.insert(batch?))?;
            if !self.report(&bounds, observer, stop)? {
                return Ok(Ending::Stopped);
            }
        }
        while self.optimiser.steps() < self.settings.steps {
            if self.is_stale() {
                return Ok(Ending::Early);
            }
            if stop.load(Ordering::Relaxed) {
                last.as_ref().map(|batch| self.check_weights(batch)).transpose()?;
                return Ok(Ending::Stopped);
            }
            let Some(batch) = batches.next() else { break };
            let batch = last.insert(batch?);
            let loss = self.step(batch, &mut gradients)?;
            observer.step(self.optimiser.steps(), loss);
            if self.is_report_due() {
                let bounds = self.check_weights(batch)?;
                if !self.report(&bounds, observer, stop)? {
                    return Ok(Ending::Stopped);
                }
            }
        }
        Ok(Ending::Finished)
    }

    /// Refuses weights with which the batch that they come from has no finite likelihood: a checkpoint of them would
    /// replace the last one that a run can go on from. What couplings use of their scales' bounds is seen on the way.
    fn check_weights(&mut self, batch: &Batch) -> Result<BoundsUsed> {
        self.bring_back()?;
        let update = |source| TrainError::Update { step: self.optimiser.steps(), source: Box::new(source) };
        let events = self.events.of::<E>(batch)?;
        let bounds = BoundsUsed::default();
        let cx = self.context(&events)?.asking_for(&bounds);
        let found = self.model.log_prob(events.values, &cx).map_err(update)?;
        match found.value.iter().position(|density| !num_traits::Float::is_finite(*density)) {
            None => Ok(bounds),
            Some(row) => Err(update(FlowError::NotFinite { layer: "flow".to_owned(), what: "the log-likelihood", row })),
        }
    }

    /// The model and the optimiser as the last step left them, wherever it was made.
    fn bring_back(&mut self) -> Result<()> {
        let Some(elsewhere) = self.elsewhere.as_mut().filter(|_| self.ahead) else { return Ok(()) };
        elsewhere.read(&mut self.model, &mut self.optimiser)?;
        self.ahead = false;
        Ok(())
    }

    /// One step; its loss in the unit of reports.
    fn step(&mut self, batch: &Batch, gradients: &mut Gradients<E>) -> Result<f64> {
        let began = Instant::now();
        let made = self.optimiser.steps();
        if let Some(elsewhere) = &mut self.elsewhere {
            let rate = self.settings.learning_rate_at(made);
            if let Some(done) = elsewhere.step(batch, &self.events, rate, made + 1)? {
                self.optimiser.count();
                self.ahead = true;
                return Ok(self.record(began, done));
            }
            // Here is said what is not finite; if nothing is, as may be at the edge, this step is made here.
            self.bring_back()?;
        }
        let events = self.events.of::<E>(batch)?;
        gradients.clear();
        let cx = self.context(&events)?;
        let (loss, terms) = self.loss(&events, gradients, &cx).map_err(|e| self.located(e, &events.draws))?;
        let rate = self.settings.learning_rate_at(made);
        let norm = self.optimiser.step(&mut self.model, gradients, rate)?;
        if !norm.is_finite() {
            return Err(self.bad_gradient(gradients, &events));
        }
        if let Some(elsewhere) = &mut self.elsewhere {
            tracing::warn!("step {}: the device finds it not finite, and the host does not: it was made with the host's loss", made + 1);
            elsewhere.write(&self.model, &self.optimiser)?;
        }
        Ok(self.record(began, Done { loss, terms, norm }))
    }

    /// Adds a step to those since the last report; its loss.
    fn record(&mut self, began: Instant, Done { loss, terms, norm }: Done) -> f64 {
        let seconds = began.elapsed().as_secs_f64();
        let since = &mut self.since;
        (since.loss, since.steps, since.seconds, since.norm) = (since.loss + loss, since.steps + 1, since.seconds + seconds, norm);
        Term::add_up(&mut since.terms, terms);
        self.seconds += seconds;
        loss
    }

    /// The loss of events and its terms, its gradients added to `gradients`.
    fn loss(&self, events: &EventBatch<E>, gradients: &mut Gradients<E>, cx: &Context<E>) -> Result<(f64, Vec<Term>), FlowError> {
        let (loss, terms, _) = differentiate(&self.model, self.objective.as_ref(), &self.events, events, gradients, cx)?;
        Ok((loss, terms))
    }

    /// That of the next step.
    fn context(&self, events: &EventBatch<E>) -> Result<Context<E>> {
        let purpose = Purpose::Train { step: self.optimiser.steps(), memory: self.settings.memory };
        events.context(&self.model, self.settings.seed, purpose)
    }

    /// A layer's error with the step, and the item in place of the row.
    fn located(&self, error: FlowError, draws: &[Draw]) -> TrainError {
        let step = self.optimiser.steps() + 1;
        match error {
            FlowError::NotFinite { layer, what, row } => {
                TrainError::NotFinite { step, layer, what, item: draws.get(row).map(|draw| self.item(*draw)) }
            }
            source => TrainError::Step { step, source: Box::new(source) },
        }
    }

    /// The error for a gradient that is not finite: its parameter, and the first item whose gradient alone is not.
    fn bad_gradient(&self, gradients: &Gradients<E>, events: &EventBatch<E>) -> TrainError {
        // The optimiser squares them.
        let is_bad = |g: &[E]| g.iter().any(|g| !num_traits::Float::is_finite(*g * *g));
        let layer = gradients.iter().find(|(_, g)| is_bad(g)).map_or("all parameters", |(path, _)| path);
        let mut alone = Gradients::zeros(&self.model);
        let item = events.draws.iter().enumerate().find(|(row, _)| {
            alone.clear();
            let event = events.only(*row);
            let lost = self.context(&event).map(|cx| self.loss(&event, &mut alone, &cx).is_err());
            !matches!(lost, Ok(false)) || is_bad(alone.values())
        });
        TrainError::NotFinite {
            step: self.optimiser.steps() + 1,
            layer: layer.to_owned(),
            what: "the gradient",
            item: item.map(|(_, draw)| self.item(*draw)),
        }
    }

    fn item(&self, draw: Draw) -> Item {
        Item { index: self.train.row(draw.index), name: self.train.item_name(draw.index) }
    }

    /// Validates and reports, unless `stop` is raised before that is done: whether it is.
    fn report(&mut self, bounds: &BoundsUsed, observer: &mut (dyn Observer<E> + Send), stop: &AtomicBool) -> Result<bool> {
        let validation = match self.validate(stop) {
            Err(TrainError::Stopped) => return Ok(false),
            validation => validation?,
        };
        let since = std::mem::take(&mut self.since);
        let step = self.optimiser.steps();
        let steps = since.steps.max(1) as f64;
        let (validation, terms) = validation.map_or((None, Vec::new()), |Validated { loss, terms }| (Some(loss), terms));
        let report = Report {
            step,
            train: since.loss / steps,
            validation,
            seconds: self.seconds,
            seconds_per_step: since.seconds / steps,
            gradient_norm: since.norm,
            learning_rate: self.settings.learning_rate_at(step.saturating_sub(1)),
            terms: ReportedTerm::of(&since.terms, &terms),
            bounds_used: bounds.shares(),
        };
        self.history.push(report.clone())?;
        observer.report(&report, self)?;
        Ok(true)
    }

    /// Loss on the validation items, if there are such items, with the averaged weights if there are any; the best
    /// model so far is put aside.
    fn validate(&mut self, stop: &AtomicBool) -> Result<Option<Validated>> {
        let Some(validation) = self.validation.clone() else { return Ok(None) };
        let own = self.optimiser.average().is_some().then(|| save(&self.model));
        let averaged = self.optimiser.average().map_or(Ok(()), |average| set_flat_weights(&mut self.model, average));
        let Settings { batch, seed, .. } = self.settings;
        let options = EvaluateOptions { batch, seed, likelihood_alone: true, ..EvaluateOptions::default() };
        let evaluation = averaged.and_then(|()| evaluate_until(&self.model, validation.as_ref(), &self.events, &options, stop));
        let validated = evaluation.map(|found| {
            let Validated { loss, terms } = self.objective.validation(&found, &self.events);
            // A likelihood that is no number is no good one.
            Validated { loss: if found.non_finite > 0.0 { f64::INFINITY } else { loss }, terms }
        });
        if let Ok(&Validated { loss: value, .. }) = validated.as_ref() {
            // Where no loss is finite the first model, the least trained, is not the best.
            if value.is_finite() && self.best.as_ref().is_none_or(|best| value < best.value) {
                self.best = Some(Best { value, step: self.optimiser.steps(), state: save(&self.model) });
                self.stale = 0;
            } else {
                self.stale += 1;
            }
        }
        if let Some(own) = own {
            load(&mut self.model, &own)?;
        }
        validated.map(Some)
    }

    /// The model as the last step left it.
    pub fn model(&self) -> &Model<E> {
        &self.model
    }

    /// Whether steps stay on a device ([`Trainer::on`]).
    pub fn steps_stay_there(&self) -> bool {
        self.elsewhere.is_some()
    }

    /// The settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The items that are trained on, without those held out.
    pub fn train(&self) -> &dyn Dataset {
        self.train.as_ref()
    }

    /// How items become events.
    pub fn events(&self) -> &Events {
        &self.events
    }

    /// The unit of losses.
    pub fn unit(&self) -> &'static str {
        self.objective.unit(&self.events)
    }

    /// All reports so far.
    pub fn history(&self) -> &[Report] {
        self.history.reports()
    }

    /// The best validation so far.
    pub fn best(&self) -> Option<&Best<E>> {
        self.best.as_ref()
    }

    /// Number of items that are held out for validation.
    pub fn held_out(&self) -> usize {
        self.validation.as_ref().map_or(0, |validation| validation.len())
    }

    /// The optimiser.
    pub fn optimiser(&self) -> &Adam<E> {
        &self.optimiser
    }

    /// Place in the run.
    pub fn progress(&self) -> Progress {
        Progress { history: self.history().to_vec(), reports: None, ..self.place() }
    }

    /// All reports so far, as a checkpoint adds to them.
    pub(crate) fn recorded(&self) -> &History {
        &self.history
    }

    /// Place in the run, for a checkpoint: the reports stand elsewhere.
    pub(crate) fn place(&self) -> Progress {
        Progress {
            step: self.optimiser.steps(),
            items: Some(self.items),
            fingerprint: Some(self.fingerprint),
            stale: self.stale,
            best: self.best.as_ref().map(|best| (best.value, best.step)),
            seconds: self.seconds,
            since: self.since.clone(),
            reports: Some(self.history().len()),
            history: Vec::new(),
        }
    }
}

impl Trainer<f32> {
    /// The same run on a device. Where it has a form of the whole step, a step stays there, with the base density, the
    /// loss, the optimiser and, of levels without a logit, the dequantisation: parameters, moments and average are
    /// brought back before anything looks at them. Else passes and pullbacks run there, and the rest on the host. Which
    /// of the two it is, and why, is told to the log.
    ///
    /// Checkpoints are the same, so that a run may go on with another device than it was begun with; results are then
    /// equal to rounding, not to the bit. Parameters that only a layer would refuse
    /// ([`Module::refresh`](flow_api::Module::refresh)) are refused when they are brought back.
    ///
    /// # Errors
    /// Those of [`Model::on`] and [`Engine::train`], but for what has no form there.
    pub fn on(self, engine: &dyn Engine) -> Result<Self> {
        let trainer = Self { model: self.model.on(engine)?, elsewhere: None, ..self };
        let Self { model, objective, events, settings, optimiser, .. } = &trainer;
        let device = &engine.info().device;
        let steps = match DeviceSteps::new(engine, model, objective.as_ref(), events, settings, optimiser)? {
            Ok(steps) => steps,
            Err(reason) => {
                tracing::info!("{device}: the loss and the optimiser are the host's: {reason}");
                return Ok(trainer);
            }
        };
        tracing::info!("{device}: a training step is {}", steps.describe());
        Ok(Self { elsewhere: Some(Box::new(steps)), ..trainer })
    }
}
