//! A run as a folder: everything about it, found again by anyone.
//!
//! | entry | holds |
//! |---|---|
//! | `spec.ron`, `settings.ron`, `data.txt` | architecture, [`Settings`], and [`DataSource`] as text: what the run was begun with |
//! | `from.txt` | the run whose model it began with, if there is one |
//! | `items.txt` | which items are in which part, where items have names |
//! | `metrics.jsonl` | a line a [`Report`](crate::Report) |
//! | `samples/` | a grid of samples a report |
//! | `reference.json` | what [reference items](crate::scores::Reference) score with the model |
//! | `report.html` | a page that shows the run |
//! | `latest/`, `best/` | [checkpoints](crate::checkpoint) |
//! | `tensorboard/` | the metrics as an event file, where that is asked for ([`TensorBoard`](crate::TensorBoard)) |
//! | `lock` | is locked while a process trains here |

use crate::checkpoint::{self, read_ron, read_text};
use crate::checksums::Files;
use crate::data::{DataSource, Dataset};
use crate::error::broken;
use crate::file::{is_draft_of, remove_drafts, replace_file};
use crate::history::lines;
use crate::layout::{BEST_MODEL, LATEST, PROGRESS, RUN_DATA, SETTINGS, SPEC, holds_run, is_checkpoint, missing_of_run};
use crate::observe::{Checkpoints, Metrics, SampleGrids};
use crate::progress::{Ending, Progress, Report};
use crate::record::model_for;
use crate::replace::{present, settle};
use crate::training::{Observer, Trainer};
use crate::{Result, Settings, TrainError};
use flow_api::device::Engine;
use flow_api::spec::{ModelSpec, Spec, SpecScalar, to_ron};
use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

const METRICS: &str = "metrics.jsonl";
const SAMPLES: &str = "samples";
const LOCK: &str = "lock";
/// The run whose model it began with.
const FROM: &str = "from.txt";
/// Which items are in which part.
const ITEMS: &str = "items.txt";
/// What the command line writes of a run.
const LOG: &str = "log";
const REFERENCE: &str = "reference.json";
const REPORT: &str = "report.html";
const TENSORBOARD: &str = "tensorboard";
/// All that a run writes.
const FILES: [&str; 14] =
    [SPEC, SETTINGS, RUN_DATA, FROM, ITEMS, METRICS, LOG, LATEST, BEST_MODEL, SAMPLES, LOCK, REFERENCE, REPORT, TENSORBOARD];

/// What a run is begun with.
#[derive(Clone, Debug)]
pub struct RunPlan {
    /// The architecture.
    pub spec: Spec<dyn ModelSpec>,
    /// How it is trained.
    pub settings: Settings,
    /// What on.
    pub data: DataSource,
}

/// The folder of a run, which no other process can train in as long as this value lives.
///
/// ```
/// use flow_api::spec::from_ron;
/// use flow_train::{Ending, RunFolder, RunPlan, Settings, Silent, checkpoint};
/// use std::sync::atomic::AtomicBool;
/// # let parent = tempfile::tempdir()?;
/// # let path = parent.path().join("moons");
///
/// let spec = from_ron("VectorFlow(flows: [ActNorm(), LuLinear()])")?;
/// let plan = RunPlan { spec, settings: Settings { steps: 10, batch: 32, ..Settings::default() }, data: "toy:two-moons?n=500".parse()? };
/// let run = RunFolder::create(&path, plan)?;
/// let ending = run.train::<f32>(&run.plan().data.open(0)?.train, &mut Silent, &AtomicBool::new(false))?;
/// assert_eq!(ending, Ending::Finished);
///
/// let opened = checkpoint::open::<f32>(&path)?;
/// assert_eq!(opened.model.sample(3, 1.0, &flow_api::Context::new(1))?.len(), 3 * 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    plan: RunPlan,
    /// Whether a grid of samples is drawn at every report.
    grids: bool,
    /// Holds the lock.
    _lock: File,
}

impl RunFolder {
    /// Begins a run in a folder that is empty or not there.
    ///
    /// # Errors
    /// [`TrainError::Setting`]; [`TrainError::Checkpoint`] if there is something in the folder already;
    /// [`TrainError::Locked`]; [`TrainError::Io`].
    pub fn create(path: &Path, plan: RunPlan) -> Result<Self> {
        plan.settings.check()?;
        if Self::exists(path) && made_no_step(path) {
            // A run that failed before its first step is in nobody's way.
            let (plan, lock) = (plan.clone(), lock(path)?);
            Self { path: path.to_owned(), plan, grids: true, _lock: lock }.discard()?;
        }
        if Self::exists(path) {
            check_plan(path)?;
            return Err(broken(path, "already holds a run: continue it with --resume, or choose another folder"));
        }
        let texts = plan.texts()?;
        // Before the lock, so that what is refused stays as it was, and again behind it, where no other process can
        // begin.
        check_free(path, &texts)?;
        let lock = lock(path)?;
        check_free(path, &texts)?;
        remove_drafts(path)?;
        let run = Self { path: path.to_owned(), plan, grids: true, _lock: lock };
        run.write_plan()?;
        Ok(run)
    }

    /// Takes up a run that was begun here, by this process or another: [`RunFolder::train`] then goes on from its last
    /// checkpoint.
    ///
    /// `change` may alter the settings that a run can go on with: all but seed, batch, validation share, initial batch,
    /// weights' average and dequantisation. Steps are at least those that are made. What was altered is written down
    /// when a step will be made with it. Whether the data are those of the run is told when it trains.
    ///
    /// # Errors
    /// As [`RunFolder::create`]; [`TrainError::Checkpoint`] if there is no run.
    pub fn resume(path: &Path, change: impl FnOnce(Settings) -> Settings) -> Result<Self> {
        if !Self::exists(path) {
            let missing = missing_of_run(path);
            let are = if missing.len() == 1 { "is" } else { "are" };
            return Err(broken(path, format!("not a run folder: `{}` {are} missing", missing.join("`, `"))));
        }
        check_plan(path)?;
        let lock = lock(path)?;
        let plan = Self::read_plan(path)?;
        let settings = change(plan.settings.clone());
        settings.check()?;
        fixed(&plan.settings, &settings)?;
        check_checkpoint(path, &RunPlan { settings: settings.clone(), ..plan.clone() })?;
        Ok(Self { path: path.to_owned(), plan: RunPlan { settings, ..plan }, grids: true, _lock: lock })
    }

    /// The same run, whose data lie elsewhere or are named in another way by now: written down when a step will be made
    /// with them.
    #[must_use]
    pub fn with_data(mut self, data: DataSource) -> Self {
        self.plan.data = data;
        self
    }

    /// The same run, which draws no samples while it trains: nobody looks at those of a run among many.
    #[must_use]
    pub fn without_samples(mut self) -> Self {
        self.grids = false;
        self
    }

    /// Begins with the trained model of another run, or of a checkpoint, in place of a new one: with its weights, and
    /// what real numbers are standardised with. It is read when the run makes its first step. The plan's spec has to be
    /// the model's own.
    ///
    /// # Errors
    /// [`TrainError::Checkpoint`] for another spec; [`TrainError::Io`].
    pub fn begin_with(self, run: &Path) -> Result<Self> {
        let run = fs::canonicalize(run).map_err(TrainError::io(run))?;
        let its = checkpoint::read(&run, |files| read_ron::<Spec<dyn ModelSpec>>(files, SPEC))?;
        if to_ron(&its)? != to_ron(&self.plan.spec)? {
            return Err(broken(&run, "its model is of another spec"));
        }
        replace_file(&self.path.join(FROM), run.as_os_str().as_encoded_bytes())?;
        Ok(self)
    }

    /// Whether a run was begun at `path`: its checkpoints are one too where a file beside them is lost.
    pub fn exists(path: &Path) -> bool {
        holds_run(path)
    }

    /// What the run at `path` was begun with.
    ///
    /// # Errors
    /// [`TrainError::Io`], and [`TrainError::Checkpoint`] for files that are malformed or lost.
    pub fn read_plan(path: &Path) -> Result<RunPlan> {
        check_plan(path)?;
        let data = read_text(&path.join(RUN_DATA))?.trim().parse()?;
        let files = Files::plain(path);
        Ok(RunPlan { spec: read_ron(&files, SPEC)?, settings: read_ron(&files, SETTINGS)?, data })
    }

    /// All reports of the run at `path` so far. The last line may be cut off by a kill, and is left out then.
    ///
    /// # Errors
    /// [`TrainError::Io`], and [`TrainError::Checkpoint`] for a line that is no report.
    pub fn history(path: &Path) -> Result<Vec<Report>> {
        let path = path.join(METRICS);
        let file = File::open(&path).map_err(TrainError::io(&path))?;
        lines(file, &path, |line| serde_json::from_str(line).map_err(|e| e.to_string())).collect()
    }

    /// Removes what a run without a checkpoint has written, and its folder if that holds nothing else: the next try
    /// finds it free. One that can be resumed stays as it is.
    ///
    /// # Errors
    /// [`TrainError::Io`].
    pub fn discard_unless_begun(self) -> Result<()> {
        if is_checkpoint(&present(&self.path.join(LATEST), is_checkpoint)) { Ok(()) } else { self.discard() }
    }

    /// Writes down which items are in which part ([`list_items`](crate::data::list_items)), for sources whose items
    /// have names.
    ///
    /// # Errors
    /// [`TrainError::Io`].
    pub fn write_items(&self, list: &str) -> Result<()> {
        replace_file(&self.path.join(ITEMS), list.as_bytes())
    }

    /// What [`RunFolder::write_items`] wrote at `path`; none for other sources, and runs of versions that wrote no such
    /// list.
    ///
    /// # Errors
    /// [`TrainError::Io`].
    pub fn read_items(path: &Path) -> Result<Option<String>> {
        let path = path.join(ITEMS);
        if path.is_file() { read_text(&path).map(Some) } else { Ok(None) }
    }

    fn discard(&self) -> Result<()> {
        let gone = |result: io::Result<()>| match result {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            other => other,
        };
        for name in FILES {
            let path = self.path.join(name);
            let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            gone(removed).map_err(TrainError::io(&path))?;
        }
        // A folder that holds something else stays.
        let _ = fs::remove_dir(&self.path);
        Ok(())
    }

    /// The page that shows the run at `path`.
    pub fn report(path: &Path) -> PathBuf {
        path.join(REPORT)
    }

    /// The folder of the event file of the run at `path`.
    pub fn tensorboard(path: &Path) -> PathBuf {
        path.join(TENSORBOARD)
    }

    /// The file of the reference items of the run at `path`.
    pub fn reference(path: &Path) -> PathBuf {
        path.join(REFERENCE)
    }

    /// What the run was begun with.
    pub fn plan(&self) -> &RunPlan {
        &self.plan
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Trains on `data`, from the last checkpoint if there is one, until all steps are made, validation stops
    /// improving, or `stop` is raised. Metrics, checkpoints and samples are written as it goes.
    ///
    /// # Errors
    /// Those of [`Trainer`] and of the files. The run can be resumed from its last checkpoint whatever fails.
    pub fn train<E: SpecScalar>(
        &self,
        data: &Arc<dyn Dataset>,
        observer: &mut (dyn Observer<E> + Send),
        stop: &AtomicBool,
    ) -> Result<Ending> {
        self.run(self.trainer::<E>(data.clone())?, observer, stop)
    }

    /// As [`RunFolder::train`], with the model on a device ([`Trainer::on`]).
    ///
    /// # Errors
    /// As [`RunFolder::train`], and those of the device.
    pub fn train_on(
        &self,
        engine: &dyn Engine,
        data: &Arc<dyn Dataset>,
        observer: &mut (dyn Observer<f32> + Send),
        stop: &AtomicBool,
    ) -> Result<Ending> {
        self.run(self.trainer(data.clone())?.on(engine)?, observer, stop)
    }

    fn run<E: SpecScalar>(&self, mut trainer: Trainer<E>, observer: &mut (dyn Observer<E> + Send), stop: &AtomicBool) -> Result<Ending> {
        // A report that a kill cut off is made good in any case.
        let metrics = Metrics::new(self.path.join(METRICS));
        let mut files: Vec<Box<dyn Observer<E> + Send>> = if trainer.is_done() {
            // With these settings nothing was trained: the checkpoint keeps its own.
            settle(&self.path.join(LATEST), is_checkpoint)?;
            vec![Box::new(metrics)]
        } else {
            self.write_plan()?;
            vec![Box::new(Checkpoints::new(&self.path, self.plan.spec.clone())), Box::new(metrics)]
        };
        if self.grids {
            files.push(Box::new(SampleGrids::new(self.path.join(SAMPLES))));
        }
        trainer.run(&mut Both(&mut files, observer), stop)
    }

    /// The run as it stands: at its last checkpoint, or at its beginning.
    fn trainer<E: SpecScalar>(&self, data: Arc<dyn Dataset>) -> Result<Trainer<E>> {
        for folder in [&self.path, &self.path.join(SAMPLES)] {
            remove_drafts(folder)?;
        }
        let settings = &self.plan.settings;
        let latest = self.path.join(LATEST);
        if is_checkpoint(&present(&latest, is_checkpoint)) {
            return Ok(checkpoint::resume(&latest, data, |_| settings.clone())?.0);
        }
        let from = self.path.join(FROM);
        if from.is_file() {
            let opened = checkpoint::open::<E>(Path::new(&read_text(&from)?))?;
            opened.events.check(data.as_ref(), opened.model.event())?;
            return Trainer::new(opened.model, data, settings.clone());
        }
        let model = model_for(&self.plan.spec, data.as_ref(), settings.seed)?;
        Trainer::new(model, data, settings.clone())
    }

    fn write_plan(&self) -> Result<()> {
        self.plan.texts()?.into_iter().try_for_each(|(name, text)| replace_file(&self.path.join(name), text.as_bytes()))
    }
}

impl RunPlan {
    /// Its files.
    fn texts(&self) -> Result<[(&'static str, String); 3]> {
        let Self { spec, settings, data } = self;
        let texts = [(SPEC, to_ron(spec)?), (SETTINGS, to_ron(settings)?), (RUN_DATA, data.to_string())];
        Ok(texts.map(|(name, text)| (name, text + "\n")))
    }
}

/// One observer, then another.
struct Both<'a, E: SpecScalar>(&'a mut (dyn Observer<E> + Send), &'a mut (dyn Observer<E> + Send));

impl<E: SpecScalar> Observer<E> for Both<'_, E> {
    fn begin(&mut self, trainer: &Trainer<E>) -> Result<()> {
        self.0.begin(trainer)?;
        self.1.begin(trainer)
    }
    fn step(&mut self, step: u64, loss: f64) {
        self.0.step(step, loss);
        self.1.step(step, loss);
    }
    fn report(&mut self, report: &Report, trainer: &Trainer<E>) -> Result<()> {
        self.0.report(report, trainer)?;
        self.1.report(report, trainer)
    }
    fn end(&mut self, ending: Ending, trainer: &Trainer<E>) -> Result<()> {
        self.0.end(ending, trainer)?;
        self.1.end(ending, trainer)
    }
}

/// Whether the run at `path` is whole, stands before its first step, and has nothing of anyone else's in its folder.
fn made_no_step(path: &Path) -> bool {
    let latest = present(&path.join(LATEST), is_checkpoint);
    let before_first = if is_checkpoint(&latest) {
        Files::of(&latest).and_then(|files| read_ron::<Progress>(&files, PROGRESS)).is_ok_and(|progress| progress.step == 0)
    } else {
        [LATEST, BEST_MODEL, METRICS, SAMPLES].iter().all(|name| !path.join(name).exists())
    };
    let is_own = |entry: io::Result<fs::DirEntry>| entry.is_ok_and(|entry| FILES.iter().any(|name| entry.file_name() == *name));
    missing_of_run(path).is_empty() && before_first && fs::read_dir(path).is_ok_and(|mut entries| entries.all(is_own))
}

/// Settings that make the run what it is: with others, what is resumed would be another run.
fn fixed(begun: &Settings, now: &Settings) -> Result<()> {
    let text = |settings: &Settings| {
        let Settings { seed, batch, validation, initial_batch, ema, mutate, .. } = settings;
        [
            ("seed", seed.to_string()),
            ("batch", batch.to_string()),
            ("validation", validation.to_string()),
            ("initial_batch", initial_batch.to_string()),
            ("ema", format!("{ema:?}")),
            ("mutate", mutate.to_string()),
        ]
    };
    match text(begun).into_iter().zip(text(now)).find(|(begun, now)| begun != now) {
        None => Ok(()),
        Some(((field, begun), (_, got))) => {
            Err(TrainError::Setting { field, expected: format!("{begun}, with which the run was begun"), got })
        }
    }
}

/// Refuses a run that has lost a file of its plan.
fn check_plan(path: &Path) -> Result<()> {
    let missing = missing_of_run(path);
    if missing.is_empty() {
        return Ok(());
    }
    let copies = missing.iter().filter(|name| path.join(LATEST).join(name).is_file());
    let copies = copies.map(|name| format!("; `{LATEST}/{name}` is a copy")).collect::<Vec<_>>().concat();
    Err(broken(path, format!("this run has lost `{}`{copies}", missing.join("` and `"))))
}

/// Refuses a plan that is not the one of the checkpoint to go on from, as files may have been changed by hand, and a
/// run that has lost its checkpoint.
fn check_checkpoint(path: &Path, plan: &RunPlan) -> Result<()> {
    let place = path.join(LATEST);
    let latest = present(&place, is_checkpoint);
    // A kill leaves nothing half at the place itself.
    if place.exists() && !is_checkpoint(&place) {
        return Err(checkpoint::no_checkpoint(&place));
    }
    if !is_checkpoint(&latest) {
        // The first checkpoint is written before all of these.
        return match [BEST_MODEL, METRICS, SAMPLES].into_iter().find(|name| path.join(name).exists()) {
            Some(name) => {
                Err(broken(&place, format!("missing, though `{name}` says that steps were made: there is nothing to go on from")))
            }
            None => Ok(()),
        };
    }
    let files = Files::of(&latest)?;
    let spec: Spec<dyn ModelSpec> = read_ron(&files, SPEC)?;
    if to_ron(&spec)? != to_ron(&plan.spec)? {
        let reason = format!("expected the architecture that was trained, which is in `{}`, got another", latest.join(SPEC).display());
        return Err(broken(&path.join(SPEC), reason));
    }
    fixed(&read_ron(&files, SETTINGS)?, &plan.settings)?;
    let (made, steps) = (read_ron::<Progress>(&files, PROGRESS)?.step, plan.settings.steps);
    if steps < made {
        return Err(TrainError::Setting {
            field: "steps",
            expected: format!("at least {made}: the run has already made that many steps"),
            got: steps.to_string(),
        });
    }
    Ok(())
}

/// Refuses a folder that holds anything besides what is left of the same beginning, cut off: its lock, which is empty,
/// and files of the same plan.
fn check_free(path: &Path, plan: &[(&str, String)]) -> Result<()> {
    let locked = fs::metadata(path.join(LOCK)).is_ok_and(|lock| lock.is_file() && lock.len() == 0);
    let left = |found: &Path| {
        let of_plan = |(name, text): &(&str, String)| {
            let file = path.join(name);
            is_draft_of(found, &file) || (found == file && fs::read(found).is_ok_and(|bytes| bytes == text.as_bytes()))
        };
        locked && (found == path.join(LOCK) || plan.iter().any(of_plan))
    };
    check_holds(path, left)
}

/// Refuses a folder that holds anything.
///
/// # Errors
/// [`TrainError::Checkpoint`] naming what is in it, and [`TrainError::Io`].
pub fn check_empty(path: &Path) -> Result<()> {
    check_holds(path, |_| false)
}

/// Refuses a folder that holds anything besides what `left` says may be there.
fn check_holds(path: &Path, left: impl Fn(&Path) -> bool) -> Result<()> {
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries.and_then(Iterator::collect::<io::Result<Vec<_>>>).map_err(TrainError::io(path))?,
    };
    match entries.iter().find(|entry| !left(&entry.path())) {
        None => Ok(()),
        Some(entry) => Err(broken(path, format!("the folder is not empty: it contains `{}`", entry.file_name().to_string_lossy()))),
    }
}

/// Makes the folder if it is not there, and locks it. The system releases the lock when the process ends, however it
/// ends.
fn lock(path: &Path) -> Result<File> {
    fs::create_dir_all(path).map_err(TrainError::io(path))?;
    let name = path.join(LOCK);
    let file = File::options().create(true).append(true).open(&name).map_err(TrainError::io(&name))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(TrainError::Locked { path: path.to_owned() }),
        Err(TryLockError::Error(source)) => Err(TrainError::Io { path: name, source }),
    }
}
