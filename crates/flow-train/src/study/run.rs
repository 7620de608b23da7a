//! The runs of a study, one after the other.

use super::measures::{self, Borders};
use super::outcome::{Asked, Outcome, Unmade, flow_kinds};
use super::results::{DataFacts, Results, items_file, samples_file};
use super::{Study, StudyData, Variant, of_variant, slug, steps, width, wrong};
use crate::checkpoint::{self, Opened};
use crate::data::{DataSource, Split};
use crate::error::broken;
use crate::evaluate::evaluate_until;
use crate::file::replace_file;
use crate::layout::STUDY;
use crate::progress::{Ending, Report};
use crate::record::model_for;
use crate::run_folder::{RunFolder, RunPlan};
use crate::samples::{Drawing, given_numbers, half_side, picture_items, try_draw_samples};
use crate::training::{Observer, Silent};
use crate::{EvaluateOptions, Events, Result, Settings, TrainError};
use flow_api::module::parameter_count;
use flow_api::spec::{Model, ModelSpec, Spec, SpecError, SpecScalar, to_ron};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// Who follows a study.
pub trait Audience<E: SpecScalar> {
    /// Data are opened, which runs with these settings are made on.
    fn opened(&mut self, source: &DataSource, split: &Split, settings: &Settings) {
        let _ = (source, split, settings);
    }

    /// A run begins, or goes on: who observes it.
    fn begins(&mut self, run: &str) -> Box<dyn Observer<E> + Send> {
        let _ = run;
        Box::new(Silent)
    }

    /// A run is done, now or before.
    fn done(&mut self, run: &str, outcome: &Outcome) {
        let _ = (run, outcome);
    }

    /// Counts bytes held from now on: those that are held now.
    fn held_bytes(&mut self) -> Option<u64> {
        None
    }

    /// The most bytes that were held at a time since then.
    fn most_bytes(&mut self) -> Option<u64> {
        None
    }
}

impl<E: SpecScalar> Audience<E> for Silent {}

/// Makes all runs of a study whose specs are read ([`Study::with_specs`]), those that are done aside, and writes its
/// folder anew behind each.
///
/// A run that fails is listed with its reason, and the others go on; it is tried again when the study is run again.
/// When `stop` is raised, the run in training ends with a checkpoint after its step, one that is being tested at once:
/// it is named in [`Results::unfinished`], and goes on when the study is run again.
///
/// # Errors
/// Fields out of range, data that cannot be read, files that cannot be written, and a folder that holds a run of the
/// same name with another spec, other settings or data.
pub fn run<E: SpecScalar>(study: &Study, folder: &Path, audience: &mut dyn Audience<E>, stop: &AtomicBool) -> Result<Results> {
    // What is wrong must not come to light after hours of training.
    study.check()?;
    fs::create_dir_all(folder).map_err(TrainError::io(folder))?;
    let mut results = Results::begun(study, folder);
    for data in &study.data {
        let mut last: Option<(Split, String)> = None;
        for (number, &seed) in study.seeds.iter().enumerate() {
            let is_first = number == 0;
            let known = last.take().filter(|_| !data.source.is_random());
            let (opened, hash) = known.map_or_else(|| open(data, seed), Ok)?;
            if is_first {
                audience.opened(&data.source, &opened, &Settings { seed, ..study.settings.clone() });
                let items = folder.join(items_file(study, data));
                let pictured = picture_items(&items, opened.test.as_ref())?;
                results.take_data(DataFacts::of(data, &opened, &hash, pictured))?;
                if results.data.len() == 1 {
                    replace_file(&folder.join(STUDY), (to_ron(study)? + "\n").as_bytes())?;
                }
            }
            for variant in study.variants.iter().filter(|variant| variant.is_for(data)) {
                let job = Job { study, data, split: &opened, hash: &hash, variant, seed, folder, is_first };
                let mut history = Vec::new();
                match job.run(audience, stop, &mut history) {
                    Ok(outcome) => {
                        audience.done(&job.name(), &outcome);
                        results.runs.push(outcome);
                    }
                    Err(TrainError::Stopped) => results.unfinished = Some(job.unmade("stopped before its end".to_owned(), history)),
                    Err(error) if is_of_the_study(&error) => return Err(error),
                    Err(error) => results.failed.push(job.unmade(error.to_string(), history)),
                }
                results.stopped = stop.load(Ordering::Relaxed);
                results.write(folder)?;
                if results.stopped {
                    return Ok(results);
                }
            }
            last = Some((opened, hash));
        }
    }
    Ok(results)
}

/// The data with their hash.
fn open(data: &StudyData, seed: u64) -> Result<(Split, String)> {
    let opened = data.source.open(seed)?;
    let hash = measures::hash(&opened)?;
    Ok((opened, hash))
}

/// Whether an error is none of one run alone.
fn is_of_the_study(error: &TrainError) -> bool {
    use TrainError::{Checkpoint, Io, Locked, Picture};
    matches!(error, Io { .. } | Picture { .. } | Locked { .. } | Checkpoint { .. })
}

impl Variant {
    fn is_for(&self, data: &StudyData) -> bool {
        self.data.is_empty() || self.data.contains(&data.name)
    }
}

/// A run to be made.
struct Job<'a> {
    study: &'a Study,
    data: &'a StudyData,
    split: &'a Split,
    /// Of the data.
    hash: &'a str,
    variant: &'a Variant,
    seed: u64,
    folder: &'a Path,
    /// Of the seeds.
    is_first: bool,
}

impl Job<'_> {
    fn name(&self) -> String {
        self.study.run_name(&self.data.name, &self.variant.name, self.seed)
    }

    fn unmade(&self, reason: String, history: Vec<Report>) -> Unmade {
        Unmade { data: self.data.name.clone(), variant: self.variant.name.clone(), seed: self.seed, reason, history }
    }

    /// Its folder.
    fn path(&self) -> PathBuf {
        let path = self.folder.join("runs").join(slug(&self.data.name)).join(slug(&self.variant.name));
        path.join(format!("seed-{}", self.seed))
    }

    fn model<E: SpecScalar>(&self, spec: &Spec<dyn ModelSpec>) -> Result<Model<E>, SpecError> {
        model_for(spec, self.split.train.as_ref(), self.seed)
    }

    fn asked(&self) -> Asked {
        let Study { testing, probes, borders, samples, .. } = self.study;
        Asked { testing: testing.clone(), probes: probes.clone(), borders: *borders, samples: *samples && self.is_first }
    }

    /// The spec with its width solved for.
    fn spec<E: SpecScalar>(&self) -> Result<Spec<dyn ModelSpec>> {
        let Variant { name, width: paths, share, .. } = self.variant;
        let own = spec_of(self.variant)?;
        let Some((reference, within)) = self.study.reference()? else {
            if let [path, ..] = paths.as_slice() {
                return Err(wrong("width", "`match` in the study", path.as_str()));
            }
            return Ok(own.clone());
        };
        let reference = &self.study.variants[reference];
        let count = |spec: &Spec<dyn ModelSpec>| Ok(parameter_count(&self.model::<E>(spec).map_err(of_variant(name))?));
        if reference.name == *name || self.variant.unmatched {
            return Ok(own.clone());
        }
        let wanted = count(spec_of(reference)?)? as f64 * share.unwrap_or(1.0);
        let rounded = num_traits::cast::<f64, usize>(wanted.round()).unwrap_or(usize::MAX);
        let (spec, parameters) =
            if paths.is_empty() { (own.clone(), count(own)?) } else { width::solve(name, own, paths, rounded, &count)? };
        if (parameters as f64 - wanted).abs() > within * wanted {
            let expected = format!("{rounded} parameters ± {} %", 100.0 * within);
            return Err(wrong("match", expected, format!("{parameters} of `{name}`")));
        }
        Ok(spec)
    }

    /// Makes the run, as far as it is not done. How far it came is told whatever becomes of it.
    fn run<E: SpecScalar>(&self, audience: &mut dyn Audience<E>, stop: &AtomicBool, history: &mut Vec<Report>) -> Result<Outcome> {
        let (path, spec) = (self.path(), self.spec::<E>()?);
        let run = self.take_up::<E>(&path, spec, stop)?.without_samples();
        let (settings, asked) = (run.plan().settings.clone(), self.asked());
        let hash = self.hash.to_owned();
        let spec = to_ron(&run.plan().spec)?;
        if let Some(outcome) = Outcome::read(&path)
            && (&outcome.spec, same(&outcome.settings), &outcome.asked, &outcome.hash) == (&spec, same(&settings), &asked, &hash)
        {
            return Ok(outcome);
        }
        let held = audience.held_bytes();
        let mut observer = audience.begins(&self.name());
        let ending = run.train::<E>(&self.split.train, observer.as_mut(), stop);
        *history = RunFolder::history(&path).unwrap_or_default();
        let ending = match ending {
            Ok(Ending::Stopped) => return Err(TrainError::Stopped),
            Ok(ending) => ending,
            Err(error) => {
                run.discard_unless_begun()?;
                return Err(error);
            }
        };
        let Opened { model, events, .. } = checkpoint::open::<E>(&path)?;
        let test = evaluate_until(&model, self.split.test.as_ref(), &events, &self.study.evaluation(self.seed), stop)?;
        let [train, validation] = measures::parts(&model, &events, &self.split.train, &settings, &asked.testing, stop)?;
        let peak_bytes = audience.most_bytes().zip(held).map(|(most, held)| most.saturating_sub(held));
        let probing = asked.probes.as_ref();
        let probes = probing.map(|probing| measures::probes(probing, &model, &events, self.split, &settings)).transpose()?;
        let borders = asked.borders.map(|side| Borders::of(side, &model, &events, self.split.test.as_ref(), self.seed)).transpose()?;
        // Samples of some flows take their time.
        if stop.load(Ordering::Relaxed) {
            return Err(TrainError::Stopped);
        }
        let pictured = asked.samples && self.picture(&model, &events)?;
        let table = model.describe()?;
        let multiply_adds = steps::multiply_adds(&table);
        let last = history.last();
        let made = last.map_or(0, |report| report.step);
        let outcome = Outcome {
            data: self.data.name.clone(),
            variant: self.variant.name.clone(),
            seed: self.seed,
            spec,
            flows: flow_kinds(&table),
            parameters: parameter_count(&model),
            multiply_adds,
            training_multiply_adds: steps::of_step(multiply_adds, settings.batch) * made as f64,
            settings,
            asked,
            hash,
            steps: made,
            ending,
            seconds: last.map_or(0.0, |report| report.seconds),
            peak_bytes,
            train,
            validation,
            test,
            probes: probes.unwrap_or_default(),
            borders: borders.flatten(),
            history: std::mem::take(history),
            pictured,
        };
        outcome.write(&path)?;
        Ok(outcome)
    }

    /// The run's folder: a new one, or the one that was begun with the same plan.
    fn take_up<E: SpecScalar>(&self, path: &Path, spec: Spec<dyn ModelSpec>, stop: &AtomicBool) -> Result<RunFolder> {
        let mut settings = Settings { seed: self.seed, ..self.study.settings_of(self.variant)? };
        let begun = if RunFolder::exists(path) { Some(RunFolder::read_plan(path)?) } else { None };
        settings.steps = match (&begun, self.study.budget) {
            // What was timed once stands.
            (Some(begun), super::Budget::Seconds(_)) => begun.settings.steps,
            (_, budget) => {
                let model = self.model::<E>(&spec)?;
                let multiply_adds = steps::multiply_adds(&model.describe()?);
                steps::of(budget, &settings, &self.split.train, multiply_adds, || Ok(model), stop)?
            }
        };
        settings.report_every = settings.report_every.min(settings.steps);
        let data = self.data.source.with_rule(&self.split.rule);
        let Some(begun) = begun else { return RunFolder::create(path, RunPlan { spec, settings, data }) };
        let differs = |what: &str| Err(broken(path, format!("this run was begun with {what}: take another folder, or remove this one")));
        if to_ron(&begun.spec)? != to_ron(&spec)? {
            return differs("another spec");
        }
        if same(&begun.settings) != same(&settings) {
            return differs("other settings");
        }
        Ok(RunFolder::resume(path, |_| settings)?.with_data(data))
    }

    /// Draws samples of the model, if they can be pictured.
    fn picture<E: SpecScalar>(&self, model: &Model<E>, events: &Events) -> Result<bool> {
        let test = self.split.test.as_ref();
        let half_side = if events.levels().is_none() { Some(half_side(test)?) } else { None };
        let drawing = Drawing { seed: self.seed, half_side, ..Drawing::default() };
        let file = samples_file(self.study, &self.data.name, &self.variant.name);
        // The table tells of samples that fail.
        let given = given_numbers(model, test, events)?;
        try_draw_samples(&self.folder.join(file), model, events, &drawing, given.as_ref())
    }
}

/// What of settings makes a run what it is.
fn same(settings: &Settings) -> Settings {
    Settings { threads: None, ..settings.clone() }
}

fn spec_of(variant: &Variant) -> Result<&Spec<dyn ModelSpec>> {
    variant.spec.as_ref().ok_or_else(|| wrong("variants", "specs that are read", format!("a name alone of `{}`", variant.name)))
}

impl Study {
    /// How test items are scored.
    pub(super) fn evaluation(&self, seed: u64) -> EvaluateOptions {
        let super::Testing { dequantisations, batch, .. } = self.testing;
        EvaluateOptions { batch, dequantisations, seed, ..EvaluateOptions::default() }
    }
}
