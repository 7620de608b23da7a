//! The conformance suite: one call runs it on any bijection, ours or a plug-in's.
//!
//! Everything is checked against something independent of the bijection's own code: log-dets against the determinant of a Jacobian by central differences, gradients against differences of the
//! likelihood, round trips against the input. It runs in f64 on the CPU; [`check_precision`] holds the same weights in f32 against it.
//!
//! ```
//! use dfdx::prelude::Cpu;
//! use flow_api::layers::LuLinear;
//! use flow_api::testkit::{Subject, check};
//! use flow_api::Rows;
//!
//! let subject = Subject { identity_start: true, ..Subject::new("LuLinear", 4) };
//! let report = check(&subject, |_seed, device: &Cpu| Ok(Rows(LuLinear::new(4, device))))?;
//! assert!(report.items.contains(&"log-det"));
//! # Ok::<(), flow_api::testkit::Failure>(())
//! ```

mod gradients;
mod maps;
mod mutants;
mod precision;
mod state;

pub use mutants::{Mutant, Mutation};
pub use precision::check_precision;

use crate::{Bijector, Context, EntryMut, FlowError, Kernels, to_host, update};
use dfdx::prelude::{Cpu, Tensor};
use flow_kernels::noise::Stream;
use std::sync::Mutex;

/// Samples in most of the checks.
const BATCH: usize = 6;

/// What is to be checked, and what it promises.
#[derive(Clone, Debug)]
pub struct Subject {
    /// Name in reports.
    pub name: String,
    /// Numbers in a sample.
    pub dim: usize,
    /// Width of the condition, for conditional bijections.
    pub condition: Option<usize>,
    /// A freshly built (and, where needed, initialised) instance is the identity up to the scale and shift of `ActNorm` layers.
    pub identity_start: bool,
    /// Tolerance of the bijection's own inverse, for iterative ones.
    pub inverse_tolerance: Option<f64>,
    /// Pairs (output, input) of positions within a sample that must not depend on each other, exactly.
    pub independent: Vec<(usize, usize)>,
    /// Standard deviation of the noise that is put on all parameters, so that nothing is checked at its special initial values alone.
    pub shake: f64,
    /// Spread of the inputs.
    pub spread: f64,
}

impl Subject {
    /// A bijection of R^dim that promises nothing special.
    pub fn new(name: impl Into<String>, dim: usize) -> Self {
        Self {
            name: name.into(),
            dim,
            condition: None,
            identity_start: false,
            inverse_tolerance: None,
            independent: Vec::new(),
            shake: 0.2,
            spread: 1.0,
        }
    }

    /// Absolute and relative tolerance of round trips.
    fn round_trip(&self) -> f64 {
        self.inverse_tolerance.map_or(1e-8, |tolerance| (10.0 * tolerance).max(1e-8))
    }
}

/// A check that a bijection did not pass.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{subject}: {item}: {detail}")]
pub struct Failure {
    /// Name of the bijection.
    pub subject: String,
    /// The property.
    pub item: &'static str,
    /// Where, what was expected and what came.
    pub detail: String,
}

/// What was checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The properties that hold.
    pub items: Vec<&'static str>,
}

/// A bijection of flattened samples on the CPU in f64.
pub trait Flat: Bijector<(usize, usize), f64, Cpu, Out = (usize, usize)> {}
impl<B: Bijector<(usize, usize), f64, Cpu, Out = (usize, usize)>> Flat for B {}

/// One instance under test with everything that the checks need.
pub(crate) struct Bench<'s, B> {
    pub(crate) subject: &'s Subject,
    pub(crate) device: Cpu,
    pub(crate) bijector: B,
    /// A second instance, whose parameters may be moved.
    pub(crate) movable: Mutex<B>,
}

impl<B: Flat> Bench<'_, B> {
    pub(crate) fn failure(&self, item: &'static str, detail: impl Into<String>) -> Failure {
        Failure { subject: self.subject.name.clone(), item, detail: detail.into() }
    }

    /// Turns an error of the bijection into a failure of `item`.
    pub(crate) fn run<R>(&self, item: &'static str, result: Result<R, FlowError>) -> Result<R, Failure> {
        result.map_err(|error| self.failure(item, error.to_string()))
    }

    /// Reproducible inputs: normal numbers of standard deviation `spread`.
    pub(crate) fn inputs(&self, rows: usize, seed: u64, spread: f64) -> Vec<f64> {
        let mut values = normal(rows * self.subject.dim, seed);
        values.iter_mut().for_each(|x| *x *= spread);
        values
    }

    pub(crate) fn tensor(&self, values: &[f64]) -> Tensor<(usize, usize), f64, Cpu> {
        use dfdx::prelude::TensorFromVec;
        self.device.tensor_from_vec(values.to_vec(), (values.len() / self.subject.dim.max(1), self.subject.dim))
    }

    /// An evaluation context, with a condition of `rows` vectors where one is needed.
    pub(crate) fn context(&self, rows: usize) -> Context<f64, Cpu> {
        use dfdx::prelude::TensorFromVec;
        let cx = Context::new(11);
        match self.subject.condition {
            None => cx,
            Some(width) => cx.with_condition(self.device.tensor_from_vec(normal(rows * width, 77), (rows, width))),
        }
    }

    /// f(x) and its log-dets, on the host.
    pub(crate) fn forward(&self, item: &'static str, x: &[f64], cx: &Context<f64, Cpu>) -> Result<(Vec<f64>, Vec<f64>), Failure> {
        let mapped = self.run(item, self.bijector.forward(self.tensor(x), cx))?;
        Ok((to_host(&mapped.value), to_host(&mapped.log_det.value)))
    }

    /// f⁻¹(y) and its log-dets, on the host.
    pub(crate) fn inverse(&self, item: &'static str, y: &[f64], cx: &Context<f64, Cpu>) -> Result<(Vec<f64>, Vec<f64>), Failure> {
        let mapped = self.run(item, self.bijector.inverse(self.tensor(y), cx))?;
        Ok((to_host(&mapped.value), to_host(&mapped.log_det.value)))
    }

    /// Every pair of numbers agrees to `absolute` + `relative`·|expected|.
    pub(crate) fn close(
        &self,
        item: &'static str,
        what: &str,
        got: &[f64],
        expected: &[f64],
        absolute: f64,
        relative: f64,
    ) -> Result<(), Failure> {
        if got.len() != expected.len() {
            return Err(self.failure(item, format!("{what}: {} numbers where {} are expected", got.len(), expected.len())));
        }
        for (i, (g, e)) in got.iter().zip(expected).enumerate() {
            let error = (g - e).abs();
            if error.is_nan() || error > absolute + relative * e.abs() {
                return Err(self.failure(item, format!("{what}[{i}]: expected {e}, got {g}")));
            }
        }
        Ok(())
    }
}

/// `len` standard normal numbers.
pub(crate) fn normal(len: usize, seed: u64) -> Vec<f64> {
    let mut values = vec![0.0; len];
    Stream::new(seed, 0, "testkit").row(0).gaussian(&mut values);
    values
}

/// An instance with its data-dependent initialisation done and noise on its parameters.
fn prepare<'s, B: Flat>(
    subject: &'s Subject,
    seed: u64,
    shake: f64,
    make: &impl Fn(u64, &Cpu) -> Result<B, FlowError>,
) -> Result<Bench<'s, B>, Failure> {
    let fail = |item, error: FlowError| Failure { subject: subject.name.clone(), item, detail: error.to_string() };
    let device = Cpu::seed_from_u64(seed);
    let bijector = make(seed, &device).map_err(|e| fail("build", e))?;
    let movable = make(seed, &device).map_err(|e| fail("build", e))?;
    let mut bench = Bench { subject, device, bijector, movable: Mutex::new(movable) };
    let (x, cx) = (bench.inputs(64, seed + 1, subject.spread), bench.context(64));
    let x = bench.tensor(&x);
    bench.bijector.initialise(x, &cx).map_err(|e| fail("initialise", e))?;
    let noise = |path: &str, values: &mut [f64]| {
        let stream = Stream::new(seed, 1, path);
        let mut noise = vec![0.0; values.len()];
        stream.row(0).gaussian(&mut noise);
        values.iter_mut().zip(noise).for_each(|(v, n)| *v += shake * n);
    };
    update(&mut bench.bijector, |path, entry| {
        if let EntryMut::Parameter { values, .. } = entry {
            noise(path, values);
        }
    })
    .map_err(|e| fail("refresh", e))?;
    Ok(bench)
}

/// Runs the suite on the bijection that `make` builds from a seed.
///
/// # Errors
/// The first [`Failure`]: property, place, expected and got.
pub fn check<B: Flat + Send + Sync>(subject: &Subject, make: impl Fn(u64, &Cpu) -> Result<B, FlowError>) -> Result<Report, Failure> {
    let mut items = Vec::new();
    for seed in [1, 2, 3] {
        let bench = prepare(subject, seed, subject.shake, &make)?;
        maps::shapes(&bench)?;
        maps::round_trips(&bench)?;
        maps::log_dets(&bench)?;
        maps::structure(&bench)?;
        maps::batches(&bench)?;
        maps::kernels(&bench)?;
        maps::condition(&bench)?;
        gradients::gradients(&bench)?;
        if seed == 1 {
            gradients::memory_settings(&bench)?;
            state::round_trip(&bench, &prepare(subject, 40, subject.shake, &make)?)?;
            state::determinism(&bench, &prepare(subject, seed, subject.shake, &make)?)?;
            state::threads(&bench)?;
            state::wrong_shapes(&bench)?;
        }
    }
    items.extend([
        "shapes",
        "round trip",
        "log-det",
        "antisymmetry",
        "structure",
        "batch independence",
        "fused and plain kernels",
        "condition",
        "gradients",
        "memory settings",
        "state",
        "determinism",
        "threads",
        "wrong shapes",
    ]);
    if subject.identity_start {
        maps::identity_start(&prepare(subject, 5, 0.0, &make)?)?;
        items.push("identity start");
    }
    Ok(Report { items })
}

/// [`check`] for tests: panics with the failure.
///
/// # Panics
/// If a property does not hold.
pub fn assert_conforms<B: Flat + Send + Sync>(subject: &Subject, make: impl Fn(u64, &Cpu) -> Result<B, FlowError>) {
    if let Err(failure) = check(subject, make) {
        panic!("{failure}");
    }
}

/// The contexts of both kernels.
pub(crate) fn both_kernels(cx: &Context<f64, Cpu>) -> [Context<f64, Cpu>; 2] {
    [cx.clone().with_kernels(Kernels::Fused), cx.clone().with_kernels(Kernels::Plain)]
}
