//! `mixerflow train`.

use super::ended::{Ended, duration};
use super::on::engine_of_new;
use super::reference::keep_reference;
use super::report;
use super::sources::{Begun, Looked, model, open, parts_line, skipping, spec};
use crate::arguments::{Device, Train};
use crate::{INTERRUPTED, Result, interrupt, logging, output};
use flow_api::device::{Engine, Precision};
use flow_api::spec::{EventShape, to_ron};
use flow_train::data::{DataError, Items, Mutated, SourceKind, Split, column_name, list_items, split_as_listed};
use flow_train::text::{agreeing, count};
use flow_train::{
    Bar, Ending, EventKind, Events, Observer, Report, RunFolder, RunPlan, Settings, Sharpness, TensorBoard, TrainError, Trainer, hold_out,
    model_for,
};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

pub(crate) fn run(arguments: &Train, threads: Option<usize>) -> Result<ExitCode> {
    let path = arguments.out.clone().unwrap_or_else(|| new_folder(arguments.spec.as_deref().or(arguments.from.as_deref())));
    if arguments.on.device == Device::Cpu
        && let Some(precision) = arguments.training.precision.filter(|precision| *precision != Precision::F32)
    {
        return Err(format!("--precision {precision}: the processor computes in f32; it is for training with --device cuda").into());
    }
    let resumed = arguments.resume && RunFolder::exists(&path);
    let begun = if resumed { resume(arguments, &path, threads)? } else { begin(arguments, &path, threads)? };
    let (run, split, Looked { told, look }, engine) = begun;
    logging::to_file(&path.join("log"))?;
    let RunPlan { settings, data, .. } = run.plan();
    told.say();
    output::say(parts_line(data, &Items::of(&split, &hold_out(&*split.train, settings).0), &split.rule));
    tracing::info!("{} of {data}: {}, {}", path.display(), count(split.train.len(), "training item"), count(settings.steps, "step"));

    let stop = interrupt::flag()?;
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let ended = Arc::new(Mutex::new(None));
    let mut observers: Vec<Box<dyn Observer<f32> + Send>> = vec![
        Box::new(Bar::new(&name)),
        Box::new(Log { sharpness: None, ended: ended.clone(), begun: 0 }),
        Box::new(StopAt { at: arguments.stop_at.unwrap_or(u64::MAX), reported: (1, 0), raised: stop.clone() }),
    ];
    // A run that has such files goes on with them.
    let events = RunFolder::tensorboard(&path);
    if arguments.tensorboard || events.is_dir() {
        observers.push(Box::new(TensorBoard::new(events)));
    }
    let rate = settings.learning_rate;
    let trained = match &engine {
        Some(engine) => run.train_on(engine.as_ref(), &split.train, &mut observers, &stop),
        None => run.train::<f32>(&split.train, &mut observers, &stop),
    };
    let ending = match trained {
        Ok(ending) => ending,
        Err(error) => {
            tracing::error!(target: logging::FILE_ALONE, "{error}");
            // What never made a step does not stand in the way of the next try; one that an item stopped can go on
            // without it.
            let is_of_an_item =
                matches!(&error, TrainError::Data(e) if !matches!(e, DataError::OutOfBounds { .. } | DataError::ConstantColumn { .. }));
            if !resumed && !is_of_an_item {
                run.discard_unless_begun()?;
            }
            return Err(with_help(error, rate));
        }
    };
    let ended = ended.lock().ok().and_then(|mut ended| ended.take());
    if let Some(ended) = ended {
        ended.tell(&path, ending, &split, &look)?;
    }
    if ending != Ending::Stopped
        && let Err(error) = shown(&path, &Items::of(&split, &hold_out(&*split.train, settings).0))
    {
        // The run is done and kept all the same.
        output::say(format_args!("warning: there is no report of the run: {error}"));
    }
    output::line(path.display())?;
    let was_interrupted = ending == Ending::Stopped && interrupt::came();
    Ok(if was_interrupted { ExitCode::from(INTERRUPTED) } else { ExitCode::SUCCESS })
}

/// Keeps what the validation items measure, to compare others with, and writes the page that shows the run.
fn shown(path: &Path, items: &Items) -> Result<()> {
    let opened = model(path)?;
    let reference = keep_reference(path, &opened, items)?;
    let shown = report::Shown { own: Some(items.clone()), sets: Vec::new(), against: Vec::new(), reference };
    let page = RunFolder::report(path);
    report::write(path, &opened, &shown, &page)?;
    output::say(format_args!("{} shows the run", page.display()));
    Ok(())
}

/// A divergence with what usually helps.
fn with_help(error: TrainError, rate: f64) -> crate::Error {
    match error {
        TrainError::NotFinite { .. } | TrainError::Step { .. } | TrainError::Update { .. } => format!(
            "{error}\nwhat usually helps: a smaller --lr (it is {rate}), a longer --set settings.warm_up, a smaller --set settings.clip, or data \
             without outliers (`mixerflow data` looks at them); --resume goes on from the last checkpoint"
        )
        .into(),
        TrainError::Data(DataError::Image { .. } | DataError::Io { .. }) => format!("{error}; --resume --skip-bad goes on without it").into(),
        other => other.into(),
    }
}

/// A run with its data, what is to be said of them, and the device that it is trained on, if it is not the processor.
type Prepared = (RunFolder, Split, Looked, Option<Box<dyn Engine>>);

fn begin(arguments: &Train, path: &Path, threads: Option<usize>) -> Result<Prepared> {
    let training = &arguments.training;
    let (file, spec, source, from) = match (&arguments.spec, &arguments.from) {
        (Some(file), _) => (file, spec(file, &training.set)?, arguments.data.clone(), None),
        (None, Some(run)) => {
            if let Some(set) = training.set.iter().find(|set| !set.starts_with("settings.")) {
                return Err(format!("--set {set}: the spec of the run that is begun with cannot be changed").into());
            }
            let opened = model(run)?;
            (run, opened.spec.clone(), arguments.data.clone().or_else(|| Begun::near(run).map(|(_, begun)| begun.data)), Some(opened))
        }
        (None, None) => {
            return Err(format!("{}: no run to resume here; to start one, give SPEC and --data", path.display()).into());
        }
    };
    let Some(source) = source else { return Err(format!("--data: `{}` does not say what data it was trained on", file.display()).into()) };
    let data = skipping(&source, arguments.skip_bad);
    let (mut settings, split) = training.begin(&data, threads)?;
    settings.patience = settings.patience.or_else(|| patience(&settings, &split));
    // A model that cannot be built leaves no folder, nor does one for other data.
    let kind = EventKind::of(split.train.as_ref());
    settings.check_batch::<f32>(kind.shape)?;
    let preprocessing = spec.preprocessing();
    Events::new(split.train.as_ref(), &preprocessing, settings.seed)?;
    if settings.mutate > 0.0 {
        Mutated::new(split.train.clone(), settings.mutate, settings.seed)?;
    }
    let built = model_for::<f32>(&spec, split.train.as_ref(), settings.seed)
        .map_err(|e| format!("{}: {e}{}", file.display(), one_column(kind.shape)))?;
    Trainer::check_model(&built)?;
    let looked = Looked::at(&split, &preprocessing)?;
    looked.refuse_errors(&data)?;
    let data = data.with_rule(&split.rule);
    if let Some(opened) = &from {
        opened.events.check(split.train.as_ref(), opened.model.event())?;
    }
    let engine = engine_of_new(built, arguments.on.device)?;
    let run = RunFolder::create(path, RunPlan { spec, settings, data })?;
    let run = match &arguments.from {
        Some(from) => run.begin_with(from)?,
        None => run,
    };
    list_items(&split).map_or(Ok(()), |list| run.write_items(&list))?;
    Ok((run, split, looked, engine))
}

fn resume(arguments: &Train, path: &Path, threads: Option<usize>) -> Result<Prepared> {
    let training = &arguments.training;
    let begun = RunFolder::read_plan(path)?;
    if let Some(file) = &arguments.spec {
        let given = spec(file, &training.set)?;
        if to_ron(&given)? != to_ron(&begun.spec)? {
            return Err(format!("{}: the run was begun with another spec than {}", path.display(), file.display()).into());
        }
    } else if let Some(set) = training.set.iter().find(|set| !set.starts_with("settings.")) {
        return Err(format!("--set {set}: the spec of an existing run cannot be changed").into());
    }
    // The same data may lie elsewhere by now, or be named in another way: what they are is compared when the run is
    // taken up.
    let given = skipping(arguments.data.as_ref().unwrap_or(&begun.data), arguments.skip_bad);
    let split = open(&given, begun.settings.seed).map_err(|error| match arguments.data {
        Some(_) => crate::Error::from(error),
        None => format!("{error}; --data says where the data of this run are now").into(),
    })?;
    let data = given.with_rule(&split.rule);
    // Items keep their parts and numbers though others are gone, which some may be where that is asked for.
    let skip_bad = matches!(&given.kind, SourceKind::Images(folder) if folder.skip_bad);
    let place = given.path().unwrap_or(path).to_owned();
    let split = match RunFolder::read_items(path)? {
        Some(list) if list_items(&split).as_ref() != Some(&list) => {
            let (split, gone) = split_as_listed(&list, split, &place, skip_bad)?;
            if !gone.is_empty() {
                output::say(format_args!(
                    "warning: {} {} left out from here on: {}",
                    count(gone.len(), "training item"),
                    agreeing(gone.len(), "is", "are"),
                    gone.join(", ")
                ));
            }
            split
        }
        _ => split,
    };
    let looked = Looked::at(&split, &begun.spec.preprocessing())?;
    let mut settings = training.apply(begun.settings, threads)?;
    settings.steps = training.steps(&settings, split.train.as_ref());
    settings.report_every = training.report_every.unwrap_or(settings.report_every);
    let engine = match arguments.on.device {
        Device::Cpu => None,
        device => engine_of_new(model_for::<f32>(&begun.spec, split.train.as_ref(), settings.seed)?, device)?,
    };
    Ok((RunFolder::resume(path, |_| settings)?.with_data(data), split, looked, engine))
}

/// What to do where there is one column alone.
fn one_column(shape: EventShape) -> &'static str {
    if shape == EventShape::Vector(1) {
        "; a coupling needs a second number: of one column Residual and Ffjord make a density, as in plane-residual and plane-ffjord"
    } else {
        ""
    }
}

/// Small sets are soon learnt by heart: training ends when validation has not improved for a while, a quarter of the
/// run at the least.
fn patience(settings: &Settings, split: &Split) -> Option<u32> {
    const FEW: usize = 5000;
    /// A run of fewer steps is over before it can learn anything by heart.
    const STEPS: u64 = 200;
    const REPORTS: u64 = 10;
    let quarter = settings.steps / 4 / settings.report_every.max(1);
    let few = settings.validation > 0.0 && split.train.len() < FEW && settings.steps >= STEPS;
    few.then(|| u32::try_from(quarter.max(REPORTS)).unwrap_or(u32::MAX))
}

/// `runs/SPEC-TIME`.
fn new_folder(spec: Option<&Path>) -> PathBuf {
    let name = spec.and_then(Path::file_stem).unwrap_or_default().to_string_lossy();
    Path::new("runs").join(format!("{name}-{}", jiff::Zoned::now().strftime("%Y%m%d-%H%M%S")))
}

/// Writes reports to the log, and to standard error where there is no terminal for a bar.
struct Log {
    /// Of a model of real numbers, until it is said to run away.
    sharpness: Option<Sharpness>,
    ended: Arc<Mutex<Option<Ended>>>,
    /// Steps that were made before.
    begun: u64,
}

impl Log {
    fn tell(text: &str) {
        if std::io::stderr().is_terminal() {
            tracing::info!("{text}");
        } else {
            output::say(text);
        }
    }
}

impl Log {
    /// Says it once when a density grows without bound.
    fn warn_if_away(&mut self, trainer: &Trainer<f32>) -> Result<(), TrainError> {
        let Some(sharpness) = &self.sharpness else { return Ok(()) };
        let Some(excess) = sharpness.excess(trainer)? else { return Ok(()) };
        let of = sharpness
            .sharpest(trainer)?
            .map_or(String::new(), |column| format!(", most of it along {}", column_name(trainer.train().columns(), column)));
        output::say(format_args!(
            "warning: log p runs away: it is {excess:.1} nats an item higher on the values of the data than beside them{of}, as happens where \
             values repeat, lie on a lattice, or determine each other; `mixerflow data` looks for such columns"
        ));
        self.sharpness = None;
        Ok(())
    }
}

impl Observer<f32> for Log {
    fn begin(&mut self, trainer: &Trainer<f32>) -> Result<(), TrainError> {
        self.begun = trainer.optimiser().steps();
        tracing::info!("at step {} of {}", self.begun, trainer.settings().steps);
        self.sharpness = Sharpness::of(trainer)?;
        if trainer.settings().validation > 0.0 && trainer.held_out() == 0 {
            output::say("warning: nothing is held out for validation: all training items come from one source");
        }
        Ok(())
    }

    fn report(&mut self, report: &Report, trainer: &Trainer<f32>) -> Result<(), TrainError> {
        let unit = trainer.unit();
        let best = trainer.best().map_or(String::new(), |best| format!(", best {:.4} at step {}", best.value, best.step));
        let validation = report.validation.map_or(String::new(), |loss| format!(", validation {loss:.4}{best}"));
        let Report { step, train, seconds_per_step, gradient_norm, .. } = report;
        let left = trainer.settings().steps.saturating_sub(*step) as f64 * seconds_per_step;
        let time = format!("{seconds_per_step:.4} s a step, {} left", duration(left));
        Self::tell(&format!(
            "step {step}: train {train:.4}{validation} {unit}{}, gradient {gradient_norm:.3}{}, {time}",
            report.terms_text(),
            report.bounds_text()
        ));
        self.warn_if_away(trainer)
    }

    fn end(&mut self, ending: Ending, trainer: &Trainer<f32>) -> Result<(), TrainError> {
        let why = match ending {
            Ending::Finished => "all steps are made",
            Ending::Early => "validation no longer improves",
            Ending::Stopped => "stopped",
        };
        tracing::info!("step {}: {why}", trainer.optimiser().steps());
        if Report::none_is_valid(trainer.history()) {
            output::say("warning: no validation was finite: there is no best model, and the last one is used");
        }
        let ended = Ended {
            begun: self.begun,
            made: trainer.optimiser().steps(),
            steps: trainer.settings().steps,
            history: trainer.history().to_vec(),
            best: trainer.best().map(|best| (best.value, best.step)),
            unit: trainer.unit(),
            scale: trainer.events().unit(),
            is_hybrid: trainer.model().head().is_some(),
            needs_numbers: trainer.model().conditioner().is_some_and(|c| c.numbers().is_some() && !c.takes_nothing()),
        };
        if let Ok(mut place) = self.ended.lock() {
            *place = Some(ended);
        }
        Ok(())
    }
}

/// Raises the stop flag when a number of steps is made, and reported where a report ends with them: a validation
/// would be interrupted.
struct StopAt {
    at: u64,
    /// Steps between reports, and of the run.
    reported: (u64, u64),
    raised: Arc<AtomicBool>,
}

impl StopAt {
    fn check(&self, made: u64) {
        if made >= self.at {
            self.raised.store(true, Ordering::Relaxed);
        }
    }
}

impl Observer<f32> for StopAt {
    fn begin(&mut self, trainer: &Trainer<f32>) -> Result<(), TrainError> {
        self.reported = (trainer.settings().report_every, trainer.settings().steps);
        self.check(trainer.optimiser().steps());
        Ok(())
    }

    fn step(&mut self, step: u64, _: f64) {
        let (every, steps) = self.reported;
        if !step.is_multiple_of(every) && step != steps {
            self.check(step);
        }
    }

    fn report(&mut self, report: &Report, _: &Trainer<f32>) -> Result<(), TrainError> {
        self.check(report.step);
        Ok(())
    }
}
