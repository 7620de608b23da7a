//! Ends that come early: a stop in the middle of a validation, weights that have blown up, what a kill has left to do.

use crate::{digits, losses, model, never, settings, spec, text_of};
use flow_train::data::{Batch, DataError, Dataset, Draw, ItemShape};
use flow_train::{Ending, RunFolder, RunPlan, Settings, Silent, TrainError, Trainer, checkpoint, flat_weights};
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// A data set that raises a flag when a number of batches has been read.
#[derive(Debug)]
struct Raising {
    of: Arc<dyn Dataset>,
    read: AtomicUsize,
    at: usize,
    flag: Arc<AtomicBool>,
}

impl Dataset for Raising {
    fn len(&self) -> usize {
        self.of.len()
    }
    fn shape(&self) -> ItemShape {
        self.of.shape()
    }
    fn levels(&self) -> Option<u32> {
        self.of.levels()
    }
    fn batch(&self, draws: &[Draw]) -> Result<Batch, DataError> {
        if self.read.fetch_add(1, Ordering::Relaxed) + 1 == self.at {
            self.flag.store(true, Ordering::Relaxed);
        }
        self.of.batch(draws)
    }
}

/// Wherever a run is stopped, in a step or in a validation, it goes on to the same bits.
#[test]
fn a_stop_interrupts_a_validation_which_is_made_when_the_run_goes_on() {
    let settings = Settings { report_every: 2, validation: 0.5, ..settings(4) };
    let mut whole = Trainer::<f32>::new(model(6), digits(), settings.clone()).unwrap();
    whole.run(&mut Silent, &never()).unwrap();
    let bounds = |trainer: &Trainer<f32>| trainer.history().iter().map(|report| report.bounds_used.clone()).collect::<Vec<_>>();
    assert!(bounds(&whole).iter().all(|layers| layers.len() == 4), "{:?}", bounds(&whole));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("latest");
    // Batches of 24 make a validation of 32 of them.
    let mut interrupted = 0;
    for at in (18..100).step_by(6) {
        let flag = Arc::new(AtomicBool::new(false));
        let data = Raising { of: digits(), read: AtomicUsize::new(0), at, flag: flag.clone() };
        let mut trainer = Trainer::<f32>::new(model(6), Arc::new(data), settings.clone()).unwrap();
        if trainer.run(&mut Silent, &flag).unwrap() != Ending::Stopped {
            continue;
        }
        let step = trainer.optimiser().steps();
        let reported = trainer.history().last().map_or(0, |last| last.step);
        if step.is_multiple_of(2) && reported < step {
            interrupted += 1;
        }
        checkpoint::write(&path, &spec(), &trainer).unwrap();
        let (mut trainer, _) = checkpoint::resume::<f32>(&path, digits(), |settings| settings).unwrap();
        assert_eq!(trainer.run(&mut Silent, &never()).unwrap(), Ending::Finished);
        assert_eq!((losses(&trainer), flat_weights(trainer.model())), (losses(&whole), flat_weights(whole.model())), "stopped at {at}");
        assert_eq!(bounds(&trainer), bounds(&whole), "stopped at {at}");
    }
    assert!(interrupted >= 4, "{interrupted}");
}

/// Weights with which nothing has a likelihood are an error and no checkpoint: the run goes on from the last one,
/// more slowly.
#[test]
fn weights_that_have_blown_up_do_not_replace_the_last_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    let settings = Settings { report_every: 1, warm_up: 0, ..settings(3) };
    let run = RunFolder::create(&path, RunPlan { spec: spec(), settings: settings.clone(), data: "digits".parse().unwrap() }).unwrap();
    run.train::<f32>(&digits(), &mut Silent, &never()).unwrap();
    drop(run);
    let good = fs::read(path.join("latest/model.safetensors")).unwrap();
    let run = RunFolder::resume(&path, |settings| Settings { steps: 6, learning_rate: 1e30, ..settings }).unwrap();
    let error = run.train::<f32>(&digits(), &mut Silent, &never()).unwrap_err();
    assert!(matches!(error, TrainError::Update { step: 4, .. }), "{error}");
    drop(run);
    assert_eq!(fs::read(path.join("latest/model.safetensors")).unwrap(), good);
    let run = RunFolder::resume(&path, |settings| Settings { learning_rate: 1e-3, ..settings }).unwrap();
    assert_eq!(run.train::<f32>(&digits(), &mut Silent, &never()).unwrap(), Ending::Finished);
}

/// What stands behind a checkpoint is made again where a kill came between.
#[test]
fn a_grid_and_a_best_model_that_are_missing_are_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    let plan = RunPlan { spec: spec(), settings: settings(8), data: "digits".parse().unwrap() };
    let run = RunFolder::create(&path, plan).unwrap();
    run.train::<f32>(&digits(), &mut Silent, &never()).unwrap();
    drop(run);
    let grid = path.join("samples/step-00000008.png");
    let (picture, best) = (fs::read(&grid).unwrap(), fs::read(path.join("best/model.safetensors")).unwrap());
    for steps in [8, 9] {
        fs::remove_file(&grid).unwrap();
        if steps > 8 {
            fs::remove_dir_all(path.join("best")).unwrap();
        }
        let run = RunFolder::resume(&path, |settings| Settings { steps, ..settings }).unwrap();
        run.train::<f32>(&digits(), &mut Silent, &never()).unwrap();
        assert_eq!(fs::read(&grid).unwrap(), picture, "{steps} steps");
    }
    let kept = fs::read(path.join("best/model.safetensors")).unwrap();
    assert!(kept == best || checkpoint::open::<f32>(&path.join("best")).is_ok());
    assert_eq!(text_of(checkpoint::open::<f32>(&path).map(drop)), "no error");
}
