//! One instance under test with everything that the checks need.

use super::{Failure, Flat, Item, Subject};
use crate::context::Kernels;
use crate::module::{EntryMut, update};
use crate::{Context, FlowError, InverseKind, Module, Scalar, Tensor, to_host};
use flow_kernels::noise::Stream;
use std::sync::Mutex;

/// Samples in most of the checks.
pub(super) const BATCH: usize = 6;

/// Seed of the contexts of all calls.
const SEED: u64 = 11;

/// One instance under test.
pub(super) struct Bench<'s, B> {
    pub(super) subject: &'s Subject,
    pub(super) bijector: B,
    /// A second instance, whose parameters may be moved.
    pub(super) movable: Mutex<B>,
}

/// One of the two maps of a bijection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Forward,
    Inverse,
}

impl Direction {
    pub(super) const BOTH: [Self; 2] = [Self::Forward, Self::Inverse];
}

impl std::fmt::Display for Direction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Forward => "f",
            Self::Inverse => "f⁻¹",
        })
    }
}

/// Values and log-dets on the host.
pub(super) type Values = (Vec<f64>, Vec<f64>);

impl<B: Flat> Bench<'_, B> {
    pub(super) fn failure(&self, item: Item, detail: impl Into<String>) -> Failure {
        self.subject.fails(item, detail)
    }

    /// Turns an error of the bijection into a failure of `item`.
    pub(super) fn run<R>(&self, item: Item, result: Result<R, FlowError>) -> Result<R, Failure> {
        result.map_err(|error| self.failure(item, error.to_string()))
    }

    /// Reproducible inputs: normal numbers of standard deviation `spread`.
    pub(super) fn inputs(&self, rows: usize, seed: u64, spread: f64) -> Vec<f64> {
        let mut values = normal(rows * self.subject.dim, seed);
        values.iter_mut().for_each(|x| *x *= spread);
        values
    }

    /// Inputs of the subject's own spread.
    pub(super) fn typical(&self, rows: usize, seed: u64) -> Vec<f64> {
        self.inputs(rows, seed, self.subject.spread)
    }

    pub(super) fn tensor(&self, values: &[f64]) -> Tensor<(usize, usize), f64> {
        let dim = self.subject.dim;
        f64::tensor(values.to_vec(), (values.len() / dim.max(1), dim))
    }

    /// An evaluation context for the first `rows` samples, with their conditions where one is needed.
    pub(super) fn context(&self, rows: usize) -> Context<f64> {
        self.context_of(0..rows)
    }

    /// An evaluation context for these samples.
    pub(super) fn context_of(&self, samples: impl ExactSizeIterator<Item = usize>) -> Context<f64> {
        context_of(self.subject, samples)
    }

    /// The maps that it has: both, or only the one forward.
    pub(super) fn directions(&self) -> &'static [Direction] {
        if self.has_inverse() { &Direction::BOTH } else { &[Direction::Forward] }
    }

    pub(super) fn has_inverse(&self) -> bool {
        self.bijector.facts().inverse != InverseKind::Missing
    }

    /// A map and its log-dets at these samples, on the host.
    pub(super) fn map(&self, direction: Direction, item: Item, values: &[f64], cx: &Context<f64>) -> Result<Values, Failure> {
        let mapped = match direction {
            Direction::Forward => self.bijector.forward(self.tensor(values), cx),
            Direction::Inverse => self.bijector.inverse(self.tensor(values), cx),
        };
        let mapped = self.run(item, mapped)?;
        Ok((to_host(&mapped.value), to_host(&mapped.log_det.value)))
    }

    /// f(x) and its log-dets, on the host.
    pub(super) fn forward(&self, item: Item, x: &[f64], cx: &Context<f64>) -> Result<Values, Failure> {
        self.map(Direction::Forward, item, x, cx)
    }

    /// f⁻¹(y) and its log-dets, on the host.
    pub(super) fn inverse(&self, item: Item, y: &[f64], cx: &Context<f64>) -> Result<Values, Failure> {
        self.map(Direction::Inverse, item, y, cx)
    }
}

impl Subject {
    /// Every pair of numbers agrees to `absolute` + `relative`·|expected|.
    pub(super) fn close(&self, item: Item, what: &str, got: &[f64], expected: &[f64], absolute: f64, relative: f64) -> Result<(), Failure> {
        if got.len() != expected.len() {
            return Err(self.fails(item, format!("{what}: {} numbers where {} are expected", got.len(), expected.len())));
        }
        for (i, (&g, &e)) in got.iter().zip(expected).enumerate() {
            if !near(g, e, absolute + relative * e.abs()) {
                return Err(self.fails(item, format!("{what}[{i}]: expected {e}, got {g}")));
            }
        }
        Ok(())
    }

    /// All bits of all numbers agree.
    pub(super) fn same(&self, item: Item, what: &str, got: &Values, expected: &Values) -> Result<(), Failure> {
        let differ = |a: &[f64], b: &[f64]| a.len() != b.len() || a.iter().zip(b).any(|(a, b)| a.to_bits() != b.to_bits());
        if differ(&got.0, &expected.0) || differ(&got.1, &expected.1) {
            return Err(self.fails(item, format!("{what}: expected the bits of {expected:?}, got {got:?}")));
        }
        Ok(())
    }
}

/// Two numbers agree; NaN agrees with nothing.
pub(super) fn near(a: f64, b: f64, tolerance: f64) -> bool {
    (a - b).abs() <= tolerance
}

/// The largest magnitude, at least 1.
pub(super) fn size<'v>(values: impl IntoIterator<Item = &'v f64>) -> f64 {
    values.into_iter().fold(1.0, |largest, v| largest.max(v.abs()))
}

/// `len` standard normal numbers.
pub(super) fn normal(len: usize, seed: u64) -> Vec<f64> {
    let mut values = vec![0.0; len];
    Stream::new(seed, 0, "testkit").row(0).gaussian(&mut values);
    values
}

/// An evaluation context for these samples in any precision: the condition of a sample is a function of its number
/// alone.
pub(super) fn context_of<E: Scalar>(subject: &Subject, samples: impl ExactSizeIterator<Item = usize>) -> Context<E> {
    let cx = Context::new(SEED);
    let Some(width) = subject.condition else { return cx };
    let shape = (samples.len(), width);
    let values = samples.flat_map(|sample| normal(width, 7000 + sample as u64)).map(E::of).collect();
    cx.with_condition(E::tensor(values, shape))
}

/// The contexts of both kernels.
pub(super) fn both_kernels(cx: &Context<f64>) -> [Context<f64>; 2] {
    [cx.clone().with_kernels(Kernels::Fused), cx.clone().with_kernels(Kernels::Taped)]
}

/// An instance with its data-dependent initialisation done and noise on its parameters.
pub(super) fn prepare<'s, B: Flat>(
    subject: &'s Subject,
    seed: u64,
    shake: f64,
    make: &impl Fn(u64) -> Result<B, FlowError>,
) -> Result<Bench<'s, B>, Failure> {
    let fail = |item, error: FlowError| subject.fails(item, error.to_string());
    let bijector = make(seed).map_err(|e| fail("build", e))?;
    let movable = make(seed).map_err(|e| fail("build", e))?;
    let mut bench = Bench { subject, bijector, movable: Mutex::new(movable) };
    let (x, cx) = (bench.typical(64, seed + 1), bench.context(64));
    let x = bench.tensor(&x);
    bench.bijector.initialise(x, &cx).map_err(|e| fail("initialise", e))?;
    if shake > 0.0 {
        add_noise(&mut bench.bijector, seed, shake).map_err(|e| fail("refresh", e))?;
    }
    Ok(bench)
}

/// Puts noise on all parameters.
pub(super) fn add_noise<M: Module<f64>>(module: &mut M, seed: u64, scale: f64) -> Result<(), FlowError> {
    update(module, |path, entry| {
        if let EntryMut::Parameter { values, .. } = entry {
            let mut noise = vec![0.0; values.len()];
            Stream::new(seed, 1, path).row(0).gaussian(&mut noise);
            values.iter_mut().zip(noise).for_each(|(v, n)| *v += scale * n);
        }
    })
}
