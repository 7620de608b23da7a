//! The conformance suite: one call runs it on any bijection, ours or a plug-in's.
//!
//! Everything is checked against something independent of the bijection's own code: log-dets against the determinant of
//! a Jacobian by central differences, gradients against differences of a loss, round trips against the input. It runs
//! in f64 on the CPU; [`check_precision`] holds the same weights in f32 against it, [`check_sizes`] runs its first half
//! over many dimensions and depths, and [`check_model`] runs everything on a spec, its base density included.
//!
//! The suite takes bijections of flattened samples: a [`RowFlow`](crate::RowFlow) in [`Rows`](crate::rows::Rows), a
//! bijection of another shape in [`Flattened`].
//!
//! ```
//! use flow_api::layers::LuLinear;
//! use flow_api::rows::Rows;
//! use flow_api::testkit::{Subject, check};
//!
//! let subject = Subject { identity_start: true, ..Subject::new("LuLinear", 4) };
//! let report = check(&subject, |_seed| Ok(Rows(LuLinear::new(4))))?;
//! assert!(report.items.contains(&"log-det"));
//! # Ok::<(), flow_api::testkit::Failure>(())
//! ```

mod base;
mod bench;
mod flattened;
mod gradients;
mod maps;
mod model;
mod mutants;
mod precision;
mod state;

pub use base::check_base;
pub use flattened::Flattened;
pub use model::check_model;
pub use mutants::{Mutant, Mutation};
pub use precision::check_precision;

use crate::{Bijector, FlowError};
use bench::{Bench, prepare};
use std::fmt;

/// What is to be checked, and what it promises.
#[derive(Clone, Debug)]
pub struct Subject {
    /// Name in reports.
    pub name: String,
    /// Numbers in a sample.
    pub dim: usize,
    /// Width of the condition, for conditional bijections.
    pub condition: Option<usize>,
    /// A freshly built (and, where needed, initialised) instance is the identity up to the scale and shift of `ActNorm`
    /// layers.
    pub identity_start: bool,
    /// Tolerance of the bijection's own inverse, for iterative ones.
    pub inverse_tolerance: Option<f64>,
    /// Pairs (output, input) of positions within a sample that must not depend on each other, exactly. A pair (i, i)
    /// says instead that number i passes untouched.
    pub independent: Vec<(usize, usize)>,
    /// Samples on which round trips are tried besides the suite's own: knots, edges of domains, neighbours of both.
    pub points: Vec<Vec<f64>>,
    /// Standard deviation of the noise that is put on all parameters, so that nothing is checked at its special initial
    /// values alone.
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
            points: Vec::new(),
            shake: 0.2,
            spread: 1.0,
        }
    }

    /// Absolute and relative tolerance of round trips.
    fn round_trip(&self) -> f64 {
        self.solved(1e-8)
    }

    /// A tolerance for what passes through the inverse: ten times its own where it iterates.
    fn solved(&self, closed_form: f64) -> f64 {
        self.inverse_tolerance.map_or(closed_form, |tolerance| (10.0 * tolerance).max(closed_form))
    }

    fn fails(&self, item: Item, detail: impl Into<String>) -> Failure {
        Failure { subject: self.name.clone(), item, detail: detail.into() }
    }
}

/// Name of a property.
type Item = &'static str;

/// A check that a bijection did not pass.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{subject}: {item}: {detail}")]
pub struct Failure {
    /// Name of the bijection.
    pub subject: String,
    /// The property.
    pub item: Item,
    /// Where, what was expected and what came.
    pub detail: String,
}

/// What was checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The properties that hold.
    pub items: Vec<&'static str>,
    /// The properties that were not checked, each with the reason.
    pub skipped: Vec<(&'static str, &'static str)>,
}

impl Report {
    fn add(&mut self, item: Item, checked: Option<&'static str>) {
        match checked {
            None if !self.items.contains(&item) => self.items.push(item),
            Some(why) if !self.skipped.contains(&(item, why)) => self.skipped.push((item, why)),
            _ => {}
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hold: {}", self.items.join(", "))?;
        self.skipped.iter().try_for_each(|(item, why)| write!(f, "; not checked: {item} ({why})"))
    }
}

/// A bijection of flattened samples on the CPU in f64.
pub trait Flat: Bijector<(usize, usize), f64, Out = (usize, usize)> {}
impl<B: Bijector<(usize, usize), f64, Out = (usize, usize)>> Flat for B {}

/// Nothing if the property holds, the reason if it does not apply.
type Checked = Result<Option<&'static str>, Failure>;

/// A property of one instance.
type Check<B> = fn(&Bench<'_, B>, Item) -> Checked;

/// Properties of the map alone.
fn maps<B: Flat>() -> [(Item, Check<B>); 5] {
    [
        ("shapes", maps::shapes),
        ("round trip", maps::round_trips),
        ("antisymmetry", maps::antisymmetry),
        ("log-det", maps::log_dets),
        ("batch independence", maps::batches),
    ]
}

/// Runs the suite on the bijection that `make` builds from a seed.
///
/// # Errors
/// The first [`Failure`]: property, place, expected and got.
pub fn check<B: Flat + Send + Sync>(subject: &Subject, make: impl Fn(u64) -> Result<B, FlowError>) -> Result<Report, Failure> {
    let every_seed: [(Item, Check<B>); 4] = [
        ("structure", maps::structure),
        ("fused and plain kernels", maps::kernels),
        ("condition", maps::condition),
        ("gradients", gradients::differences),
    ];
    let once: [(Item, Check<B>); 4] = [
        ("memory settings", gradients::memory_settings),
        ("sums over rows", gradients::sums_over_rows),
        ("threads", state::threads),
        ("wrong shapes", state::wrong_shapes),
    ];
    let mut report = Report::default();
    for seed in [1, 2, 3] {
        let bench = prepare(subject, seed, subject.shake, &make)?;
        let once = once.iter().filter(|_| seed == 1);
        for &(item, check) in maps().iter().chain(&every_seed).chain(once) {
            report.add(item, check(&bench, item)?);
        }
    }
    let bench = |seed| prepare(subject, seed, subject.shake, &make);
    report.add("state", state::round_trip(&bench(1)?, &bench(40)?, "state")?);
    report.add("determinism", state::determinism(&bench(1)?, &bench(1)?, "determinism")?);
    report.add("composition", gradients::composition(bench(1)?, bench(2)?, "composition")?);
    report.add(
        "identity start",
        if subject.identity_start {
            maps::identity_start(&prepare(subject, 5, 0.0, &make)?, "identity start")?
        } else {
            Some("not promised")
        },
    );
    Ok(report)
}

/// Runs the properties of the map on every dimension and depth: `make` builds a composition of that many flows on R^dim
/// from a seed.
///
/// `subject` gives everything but the dimension.
///
/// ```
/// use flow_api::RowFlow;
/// use flow_api::layers::LuLinear;
/// use flow_api::rows::{RowChain, Rows};
/// use flow_api::testkit::{Subject, check_sizes};
///
/// check_sizes(&Subject::new("LuLinear", 1), 1..=5, 1..=3, |dim, depth, seed| {
///     let flow = |i| Box::new(LuLinear::new(dim).with_random_permutation(seed + i)) as Box<dyn RowFlow<f64>>;
///     Ok(Rows(RowChain::new(dim, (0..depth as u64).map(flow).collect())?))
/// })?;
/// # Ok::<(), flow_api::testkit::Failure>(())
/// ```
///
/// # Errors
/// The first [`Failure`], which names dimension and depth.
pub fn check_sizes<B: Flat>(
    subject: &Subject,
    dims: impl IntoIterator<Item = usize>,
    depths: impl IntoIterator<Item = usize, IntoIter: Clone>,
    make: impl Fn(usize, usize, u64) -> Result<B, FlowError>,
) -> Result<(), Failure> {
    let depths = depths.into_iter();
    for dim in dims {
        for depth in depths.clone() {
            let name = format!("{}, dimension {dim}, depth {depth}", subject.name);
            let subject = Subject { name, dim, ..subject.clone() };
            let seed = (10 * dim + depth) as u64;
            let bench = prepare(&subject, seed, subject.shake, &|seed| make(dim, depth, seed))?;
            for (item, check) in maps() {
                check(&bench, item)?;
            }
        }
    }
    Ok(())
}

/// [`check`] for tests: panics with the failure.
///
/// # Panics
/// If a property does not hold.
pub fn assert_conforms<B: Flat + Send + Sync>(subject: &Subject, make: impl Fn(u64) -> Result<B, FlowError>) {
    if let Err(failure) = check(subject, make) {
        panic!("{failure}");
    }
}
