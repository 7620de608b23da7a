//! Runs that can be trusted: the same at any number of threads, the same when resumed, stopped with a reason, saved
//! without loss, scored against what is known.

mod checkpoints;
mod diagnostics;
mod evaluation;
mod hybrid;
mod optimiser;
mod reals;
mod run_folders;
mod runs;
mod stops;
mod studies;
mod tensorboard;

use flow_api::spec::{BuildScope, EventShape, Model, ModelSpec, Spec, SpecScalar, from_ron};
use flow_train::data::{self, Dataset, InMemory, ItemShape, Values};
use flow_train::{Observer, Result, Settings, Trainer};
// Linked, so that their flows are registered.
use {flows_coupling as _, mixerflow as _};

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const SPEC: &str = "MixerFlow(patch: 2, layers: 2, shift: (every: 2), channel: [ActNorm(), LuLinear(), AffineCoupling(hidden: 8)], \
                    patches: [ActNorm(), LuLinear(permutation: Random), AffineCoupling(hidden: 8)])";
const DIGITS: EventShape = EventShape::Image { channels: 1, height: 8, width: 8 };

fn spec() -> Spec<dyn ModelSpec> {
    from_ron(SPEC).unwrap()
}

fn build<E: SpecScalar>(text: &str, event: EventShape, seed: u64) -> Model<E> {
    let spec: Spec<dyn ModelSpec> = from_ron(text).unwrap();
    E::model(&spec, event, &BuildScope::new(seed)).unwrap()
}

fn model<E: SpecScalar>(seed: u64) -> Model<E> {
    build(SPEC, DIGITS, seed)
}

fn digits() -> Arc<dyn Dataset> {
    data::digits().unwrap().train
}

fn vectors(values: Vec<f64>, dims: usize) -> Arc<dyn Dataset> {
    Arc::new(InMemory::new(Path::new("vectors"), Values::Real(values), ItemShape::Vector { dims }, None, None).unwrap())
}

/// A short run with everything on.
fn settings(steps: u64) -> Settings {
    Settings { steps, batch: 24, warm_up: 2, report_every: 4, validation: 0.1, ema: Some(0.9), initial_batch: 32, ..Settings::default() }
}

fn never() -> AtomicBool {
    AtomicBool::new(false)
}

/// Raises the flag after a number of steps.
struct StopAfter<'a>(u64, &'a AtomicBool);
impl<E: SpecScalar> Observer<E> for StopAfter<'_> {
    fn step(&mut self, step: u64, _: f64) {
        self.1.store(step >= self.0, Ordering::Relaxed);
    }
}

/// The numbers of a run that do not depend on the clock.
fn losses<E: SpecScalar>(trainer: &Trainer<E>) -> Vec<(u64, u64, Option<u64>, u64)> {
    let bits = |r: &flow_train::Report| (r.step, r.train.to_bits(), r.validation.map(f64::to_bits), r.gradient_norm.to_bits());
    trainer.history().iter().map(bits).collect()
}

fn text_of<T>(result: Result<T>) -> String {
    result.err().map_or_else(|| "no error".to_owned(), |error| error.to_string())
}
