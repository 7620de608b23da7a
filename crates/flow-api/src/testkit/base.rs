//! Base densities.

use super::bench::{add_noise, context_of, normal, size};
use super::{Failure, Item, Report, Subject};
use crate::bases::BaseDensity;
use crate::module::{Saved, load, parameter_count, save};
use crate::{Context, FlowError, Scalar, to_host};

/// Rows in most of the checks.
const ROWS: usize = 6;

/// Draws that are held against the density.
const DRAWS: usize = 20_000;

/// Checks a base density, whose kind `make` builds from a seed: that it sums to one, that its samples are of it, that
/// row r of them is a function of the stream and
/// of r alone and that the temperature scales them around one mean, that its gradients by latents, parameters and
/// condition are those of differences, that gradients
/// of parameters are added to what is there, and that wrong sizes and missing conditions are typed errors.
///
/// The first two need the density in one or two dimensions, where they are held against quadrature on its support; in
/// others they are reported as not checked.
///
/// ```
/// use flow_api::bases::Logistic;
/// use flow_api::testkit::check_base;
/// let report = check_base("logistic", |_seed| Ok(Logistic::new(2)))?;
/// assert!(report.items.contains(&"sums to one") && report.skipped.is_empty());
/// # Ok::<(), flow_api::testkit::Failure>(())
/// ```
///
/// # Errors
/// The first [`Failure`].
pub fn check_base<P: BaseDensity<f64>>(name: &str, make: impl Fn(u64) -> Result<P, FlowError>) -> Result<Report, Failure> {
    let mut report = Report::default();
    for seed in [1, 2] {
        let named = Subject::new(name, 0);
        let build = || make(seed).map_err(|e| named.fails("build", e.to_string()));
        let (mut density, mut movable) = (build()?, build()?);
        let subject = Subject { dim: density.dim(), condition: density.condition(), ..named.clone() };
        // Nothing is checked at its special initial values alone.
        add_noise(&mut density, seed, 0.3).map_err(|e| subject.fails("build", e.to_string()))?;
        load(&mut movable, &save(&density)).map_err(|e| subject.fails("state", e.to_string()))?;
        let mut bench = Bench { subject: &subject, density, movable };
        report.add("wrong sizes", bench.wrong_sizes("wrong sizes")?);
        report.add("rows of samples", bench.rows_of_samples("rows of samples")?);
        report.add("gradients", bench.gradients("gradients")?);
        if (1..=2).contains(&subject.dim) {
            for condition in 0..=usize::from(subject.condition.is_some()) {
                let cells = bench.cells("sums to one", condition)?;
                bench.samples("samples", condition, &cells)?;
            }
            report.add("sums to one", None);
            report.add("samples", None);
        } else {
            report.add("sums to one", Some("quadrature is for one or two dimensions"));
            report.add("samples", Some("quadrature is for one or two dimensions"));
        }
        if bench.numbers("numbers")? {
            report.add("numbers", None);
        }
    }
    Ok(report)
}

struct Bench<'s, P> {
    subject: &'s Subject,
    density: P,
    /// A second one, whose parameters may be moved.
    movable: P,
}

/// The support of one number of a latent, cut into cells by a map of (0, 1) onto it.
#[derive(Clone, Copy)]
struct Axis {
    low: f64,
    high: f64,
}

impl Axis {
    /// z(u), and its slope.
    fn at(self, u: f64) -> (f64, f64) {
        if self.low.is_finite() {
            return (self.low + (self.high - self.low) * u, self.high - self.low);
        }
        // A Cauchy quantile of a polynomial that is flat at both ends, so that heavy tails end smoothly too.
        let z = (std::f64::consts::PI * (u * u * (3.0 - 2.0 * u) - 0.5)).tan();
        (z, std::f64::consts::PI * (1.0 + z * z) * 6.0 * u * (1.0 - u))
    }

    /// u(z).
    fn place(self, z: f64) -> f64 {
        if self.low.is_finite() {
            return (z - self.low) / (self.high - self.low);
        }
        // The polynomial's inverse; 1 − 2p is −2 atan(z)/π.
        0.5 - ((-2.0 * z.atan() / std::f64::consts::PI).asin() / 3.0).sin()
    }
}

impl<P: BaseDensity<f64>> Bench<'_, P> {
    fn run<R>(&self, item: Item, result: Result<R, FlowError>) -> Result<R, Failure> {
        result.map_err(|e| self.subject.fails(item, e.to_string()))
    }

    /// The context of so many rows, each with a condition of its own.
    fn context(&self, rows: usize) -> Context<f64> {
        context_of(self.subject, 0..rows)
    }

    /// The context of so many rows with one condition.
    fn context_at(&self, rows: usize, condition: usize) -> Context<f64> {
        let one = context_of(self.subject, std::iter::once(condition));
        let Some(vector) = one.condition().map(to_host) else { return one };
        let width = vector.len();
        one.with_condition(f64::tensor(vector.repeat(rows), (rows, width)))
    }

    fn log_prob(&self, item: Item, z: &[f64], cx: &Context<f64>) -> Result<Vec<f64>, Failure> {
        let mut out = vec![f64::NAN; z.len() / self.subject.dim.max(1)];
        self.run(item, self.density.log_prob(z, &mut out, cx))?;
        Ok(out)
    }

    /// Where the density says of its numbers that they are independent, theirs add up to its own, and each depends on
    /// its number alone.
    fn numbers(&self, item: Item) -> Result<bool, Failure> {
        let (dim, cx) = (self.subject.dim, self.context(ROWS));
        let z = self.run(item, self.density.sample(ROWS, 1.0, &cx))?;
        let Some(found) = self.run(item, self.density.log_prob_by_number(&z, &cx))? else { return Ok(false) };
        for (row, (log_prob, own)) in self.log_prob(item, &z, &cx)?.iter().zip(found.chunks_exact(dim.max(1))).enumerate() {
            if (own.iter().sum::<f64>() - log_prob).abs() > 1e-9 * (1.0 + log_prob.abs()) {
                return Err(self.subject.fails(item, format!("row {row}: {own:?} add up to another density than {log_prob}")));
            }
        }
        // Rows one further on have another first number.
        let mut moved = z.clone();
        (0..ROWS).for_each(|row| moved[row * dim] = z[(row + 1) % ROWS * dim]);
        let others = self.run(item, self.density.log_prob_by_number(&moved, &cx))?.unwrap_or_default();
        let stays = |at: usize| at.is_multiple_of(dim) || others.get(at).is_some_and(|other| other.to_bits() == found[at].to_bits());
        match (0..found.len()).find(|&at| !stays(at)) {
            None => Ok(true),
            Some(at) => Err(self.subject.fails(item, format!("number {at} depends on the first of its row"))),
        }
    }

    fn axis(&self) -> Axis {
        let (low, high) = self.density.support();
        Axis { low, high }
    }

    /// Cells along an axis and nodes in a cell: the more, the fewer dimensions there are.
    fn grid(&self) -> (usize, usize) {
        if self.subject.dim == 1 { (64, 64) } else { (16, 32) }
    }

    /// The mass of every cell of a grid over the support, by the midpoint rule; together they are 1.
    fn cells(&self, item: Item, condition: usize) -> Result<Vec<f64>, Failure> {
        let ((cells, each), dim, axis) = (self.grid(), self.subject.dim, self.axis());
        let nodes = cells * each;
        let all = nodes.pow(u32::from(dim == 2) + 1);
        let nodes_of = |at: usize| [at % nodes, at / nodes].into_iter().take(dim);
        let place = |node: usize| axis.at((node as f64 + 0.5) / nodes as f64);
        let z: Vec<f64> = (0..all).flat_map(|at| nodes_of(at).map(|node| place(node).0)).collect();
        let log_prob = self.log_prob(item, &z, &self.context_at(all, condition))?;
        let mut masses = vec![0.0; cells.pow(u32::from(dim == 2) + 1)];
        for (at, log_prob) in log_prob.iter().enumerate() {
            let volume: f64 = nodes_of(at).map(|node| place(node).1 / nodes as f64).product();
            masses[index(nodes_of(at).map(|node| node / each), cells)] += log_prob.exp() * volume;
        }
        let mass: f64 = masses.iter().sum();
        self.subject.close(item, "the integral of p", &[mass], &[1.0], 1e-5, 0.0)?;
        Ok(masses)
    }

    /// The counts of draws in the cells differ from their masses as chance has it: χ² within six of its standard
    /// deviations.
    fn samples(&self, item: Item, condition: usize, masses: &[f64]) -> Result<(), Failure> {
        let (dim, axis, cells) = (self.subject.dim, self.axis(), self.grid().0);
        let z = self.run(item, self.density.sample(DRAWS, 1.0, &self.context_at(DRAWS, condition)))?;
        let mut counts = vec![0.0; masses.len()];
        for z in z.chunks_exact(dim) {
            let place = |z: &f64| (1..cells).filter(|edge| axis.place(*z) * cells as f64 >= *edge as f64).count();
            counts[index(z.iter().map(place), cells)] += 1.0;
        }
        // Cells that hardly a draw falls into are one.
        let (mut statistic, mut kept, mut rest) = (0.0, 0_usize, (0.0, 0.0));
        let square = |count: f64, expected: f64| (count - expected).powi(2) / expected;
        for (&count, &mass) in counts.iter().zip(masses) {
            let expected = mass * DRAWS as f64;
            if expected < 10.0 {
                rest = (rest.0 + count, rest.1 + expected);
            } else {
                statistic += square(count, expected);
                kept += 1;
            }
        }
        let pooled = square(rest.0, rest.1.max(1.0));
        let freedom = kept as f64;
        let limit = freedom + 6.0 * (2.0 * freedom).sqrt();
        if kept < 3 || statistic + pooled > limit {
            let detail = format!("χ² of {DRAWS} draws in {kept} cells: expected at most {limit}, got {}", statistic + pooled);
            return Err(self.subject.fails(item, detail));
        }
        Ok(())
    }

    /// Row r of samples is a function of the stream, its condition and r alone, and temperatures scale the spread
    /// around one mean.
    fn rows_of_samples(&self, item: Item) -> Result<Option<&'static str>, Failure> {
        let (rows, dim) = (2 * ROWS, self.subject.dim);
        let draw = |rows, temperature, cx: &Context<f64>| self.run(item, self.density.sample(rows, temperature, cx));
        let all = draw(rows, 1.0, &self.context(rows))?;
        let few = draw(ROWS, 1.0, &self.context(ROWS))?;
        self.subject.close(item, "fewer rows", &few, &all[..ROWS * dim], 0.0, 0.0)?;
        if draw(rows, 1.0, &self.context(rows).at_step(1))? == all {
            return Err(self.subject.fails(item, "samples of two steps are the same"));
        }
        if all.chunks_exact(dim.max(1)).skip(1).any(|row| *row == all[..dim]) {
            return Err(self.subject.fails(item, "two rows are the same"));
        }
        let (mean, half) = (draw(rows, 0.0, &self.context_at(rows, 0))?, draw(rows, 0.5, &self.context_at(rows, 0))?);
        let whole = draw(rows, 1.0, &self.context_at(rows, 0))?;
        let tolerance = 1e-12 * size(&whole);
        self.subject.close(item, "samples at temperature 0", &mean, &mean[..dim].repeat(rows), tolerance, 0.0)?;
        let expected: Vec<f64> = whole.iter().zip(&mean).map(|(z, mean)| mean + 0.5 * (z - mean)).collect();
        self.subject.close(item, "samples at temperature ½", &half, &expected, tolerance, 0.0)?;
        Ok(None)
    }

    /// Gradients by latents, parameters and condition against differences of Σᵣ weightᵣ log p(zᵣ).
    fn gradients(&mut self, item: Item) -> Result<Option<&'static str>, Failure> {
        let (cx, weights) = (self.context(ROWS), normal(ROWS, 91));
        let z = self.run(item, self.density.sample(ROWS, 1.0, &cx))?;
        let (mut dz, parameters) = (vec![f64::NAN; z.len()], parameter_count(&self.density));
        // What is there already is kept.
        let mut gradients = vec![1.0; parameters];
        let by_condition = self.run(item, self.density.pullback(&z, &weights, &mut dz, &mut gradients, &cx))?;
        gradients.iter_mut().for_each(|g| *g -= 1.0);

        let step = 1e-5;
        let weighted = |log_prob: Vec<f64>| log_prob.iter().zip(&weights).map(|(l, w)| l * w).sum::<f64>();
        let difference = |item, what: &str, got: f64, value: &mut dyn FnMut(f64) -> Result<f64, Failure>| {
            let expected = (value(step)? - value(-step)?) / (2.0 * step);
            self.subject.close(item, what, &[got], &[expected], 1e-7, 1e-6)
        };
        for at in 0..z.len() {
            difference(item, &format!("∂/∂z[{at}]"), dz[at], &mut |by| {
                let mut moved = z.clone();
                moved[at] += by;
                self.log_prob(item, &moved, &cx).map(&weighted)
            })?;
        }
        match (by_condition, cx.condition()) {
            (None, None) => {}
            (Some(by_condition), Some(condition)) => {
                let values = to_host(condition);
                self.subject.close(item, "∂/∂condition", &[by_condition.len() as f64], &[values.len() as f64], 0.0, 0.0)?;
                for (at, got) in by_condition.iter().enumerate() {
                    difference(item, &format!("∂/∂condition[{at}]"), *got, &mut |by| {
                        let mut moved = values.clone();
                        moved[at] += by;
                        let shape = (ROWS, values.len() / ROWS);
                        self.log_prob(item, &z, &cx.clone().with_condition(f64::tensor(moved, shape))).map(&weighted)
                    })?;
                }
                if by_condition.iter().all(|g| g.abs() < 1e-9) {
                    return Err(self.subject.fails(item, "the density does not depend on its condition"));
                }
            }
            (got, _) => return Err(self.subject.fails(item, format!("∂/∂condition is {got:?}, against what the density says"))),
        }
        let (state, mut first) = (save(&self.density), 0);
        let mut paths = Vec::new();
        crate::module::visit(&self.density, |path, entry| {
            if let crate::module::Entry::Parameter { values, .. } = entry {
                paths.push((path.to_owned(), values.len()));
            }
        });
        for (path, len) in paths {
            // Those of a large event are checked here and there.
            for at in (0..len).step_by(len.div_ceil(16).max(1)) {
                let mut value = |by: f64| -> Result<f64, Failure> {
                    let mut moved = state.clone();
                    if let Some(Saved::Parameter { values, .. }) = moved.get_mut(&path) {
                        values[at] += by;
                    }
                    let mut out = vec![0.0; ROWS];
                    load(&mut self.movable, &moved)
                        .and_then(|()| self.movable.log_prob(&z, &mut out, &cx))
                        .map_err(|e| self.subject.fails(item, e.to_string()))?;
                    Ok(weighted(out))
                };
                let expected = (value(step)? - value(-step)?) / (2.0 * step);
                self.subject.close(item, &format!("∂/∂{path}[{at}]"), &[gradients[first + at]], &[expected], 1e-7, 1e-6)?;
            }
            first += len;
        }
        Ok(None)
    }

    /// Buffers of no one number of rows, and conditions that are missing or of another shape, are typed errors.
    fn wrong_sizes(&self, item: Item) -> Result<Option<&'static str>, Failure> {
        let (cx, dim, parameters) = (self.context(ROWS), self.subject.dim, parameter_count(&self.density));
        let refused = |what: &str, result: Result<(), FlowError>| match result {
            Err(FlowError::Shape { .. } | FlowError::Condition { .. }) => Ok(()),
            other => Err(self.subject.fails(item, format!("{what}: expected an error of shape or condition, got {other:?}"))),
        };
        let z = self.run(item, self.density.sample(ROWS, 1.0, &cx))?;
        let longer = [z.clone(), vec![0.0]].concat();
        let score = |z: &[f64], rows: usize, cx: &Context<f64>| self.density.log_prob(z, &mut vec![0.0; rows], cx);
        let pull = |z: &[f64], weights: usize, dz: usize, gradients: usize| {
            let (mut dz, mut gradients) = (vec![0.0; dz], vec![0.0; gradients]);
            self.density.pullback(z, &vec![1.0; weights], &mut dz, &mut gradients, &cx).map(|_| ())
        };
        refused("log_prob of a part of a row", score(&longer, ROWS, &cx))?;
        refused("log_prob into fewer rows", score(&z, ROWS - 1, &cx))?;
        refused("pullback of a part of a row", pull(&longer, ROWS, longer.len(), parameters))?;
        refused("pullback with too few weights", pull(&z, ROWS - 1, z.len(), parameters))?;
        refused("pullback into another number of rows", pull(&z, ROWS, z.len() + dim, parameters))?;
        refused("pullback into gradients of something else", pull(&z, ROWS, z.len(), parameters + 1))?;
        if let Some(width) = self.subject.condition {
            let without = Context::new(1);
            refused("log_prob without a condition", score(&z, ROWS, &without))?;
            refused("samples without a condition", self.density.sample(ROWS, 1.0, &without).map(|_| ()))?;
            for shape in [(ROWS, width + 1), (ROWS + 1, width)] {
                let other = without.clone().with_condition(f64::zeros(shape));
                refused("a condition of another shape", score(&z, ROWS, &other))?;
            }
        }
        Ok(None)
    }
}

/// The index of the cell at these places along axes of so many cells.
fn index(places: impl Iterator<Item = usize>, cells: usize) -> usize {
    places.fold(0, |index, place| index * cells + place)
}
