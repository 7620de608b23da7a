//! Whether a density is that of rows which it has not seen: three questions that a likelihood does not answer.
//!
//! For every row x, given c if the model is conditioned on something, samples x₁, …, xₘ are drawn from the model's own
//! p(· | c). Where the density is right, x is one more of them, and so
//!
//! - every column's **PIT** (probability integral transform; Dawid 1984), the rank of xⱼ among the samples' j-th
//!   numbers, is uniform: it is that of the column's predictive distribution given c;
//! - the rank of p(x | c) among the samples' densities is uniform, and the densest region that holds a share α of
//!   the samples holds the same share of rows: **expected coverage** of highest-density regions (Hyndman 1996; as a
//!   test of conditional densities Hermans et al. 2022, arXiv:2110.06581);
//! - no classifier tells rows from samples: **C2ST** (Lopez-Paz and Oquab 2017, arXiv:1610.06545).
//!
//! Ranks u = (k + v (t + 1))/(m + 1), where k samples are smaller, t equal, and v is uniform noise, are uniform
//! exactly, of whole numbers too.

mod two_sample;
mod uniformity;

pub use two_sample::TwoSample;
pub use uniformity::{BINS, Shape, Uniformity};

use crate::data::{Dataset, Draw, Values, column_key};
use crate::evaluate::{is_of_an_item, is_outside};
use crate::event_batch::{EventBatch, Purpose, ScoredGiven};
use crate::events::Events;
use crate::{Result, TrainError, plots};
use flow_api::noise::Stream;
use flow_api::spec::{Conditioner, EventShape, Model, SpecScalar};
use flow_api::{FlowError, InverseKind};
use serde::Serialize;

/// How thoroughly to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiagnosticOptions {
    /// Rows that are looked at, at the most: of more, some at equal distances.
    pub rows: usize,
    /// Samples that each of them is ranked among.
    pub samples: usize,
    /// Samples that are drawn at a time, at the least those of one row.
    pub batch: usize,
    /// Seed of samples, of ties and of the classifier.
    pub seed: u64,
}

impl DiagnosticOptions {
    /// As much as takes a moment: fewer samples where an inverse is found by iteration.
    pub fn of<E: SpecScalar>(model: &Model<E>) -> Self {
        let (rows, samples) = if model.flow().bijector().facts().inverse < InverseKind::Iterative { (1000, 49) } else { (500, 9) };
        Self { rows, samples, batch: 2048, seed: 0 }
    }

    fn check(&self) -> Result<()> {
        for (field, value) in [("rows", self.rows), ("samples", self.samples)] {
            if value == 0 {
                return Err(TrainError::Setting { field, expected: "at least 1".to_owned(), got: "0".to_owned() });
            }
        }
        Ok(())
    }
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Diagnostics {
    /// Rows that were looked at.
    pub rows: usize,
    /// Rows that were left out, as they cannot be scored, or no samples can be drawn that they could be compared with.
    pub left_out: usize,
    /// Why the first of them was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// Samples that each row was ranked among.
    pub samples: usize,
    /// Of every column.
    pub columns: Vec<ColumnPit>,
    /// Of the densities.
    pub coverage: Coverage,
    /// Whether a classifier tells rows from samples; none of fewer than 20 rows.
    pub two_sample: Option<TwoSample>,
    /// The rows' own numbers, (rows, columns), and one sample of each.
    #[serde(skip)]
    pub compared: Compared,
}

/// Rows, and a sample of the model for each, given the same.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Compared {
    /// (rows, columns), in the units of the data.
    pub rows: Vec<f64>,
    /// The same of samples.
    pub samples: Vec<f64>,
}

/// The probability integral transform of a column.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ColumnPit {
    /// The column's name, or its number where it has none.
    pub column: String,
    /// Whether it is uniform. Its mean is above ½ where the model's numbers are too small; its outer bins are too
    /// full where the model is too narrow, its inner ones where it is too wide.
    pub pit: Uniformity,
}

/// Expected coverage of highest-density regions.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Coverage {
    /// The share of rows within the densest region that holds a share of the samples, for shares from 0.1 to 0.9.
    pub levels: Vec<Level>,
    /// Whether the share of samples that are denser than a row is uniform over rows. Its mean is above ½ where the
    /// model is overconfident: rows lie where few of its samples do.
    pub ranks: Uniformity,
}

/// The coverage of one region.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Level {
    /// The share of the samples that it holds.
    pub nominal: f64,
    /// The share of the rows that it was found to hold.
    pub empirical: f64,
    /// The standard error of that share, if it is `nominal`.
    pub standard_error: f64,
}

impl Diagnostics {
    /// At most so many columns, those whose PIT is least uniform, in the order of the table.
    pub fn least_uniform(&self, most: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.columns.len()).collect();
        order.sort_by(|&a, &b| self.columns[a].pit.p_value.total_cmp(&self.columns[b].pit.p_value));
        order.truncate(most);
        order.sort_unstable();
        order
    }

    /// A corner plot of the rows and of a sample for each, as an SVG file that follows the reader's light or dark:
    /// every column by itself and every pair of columns, of the eight that are least uniform where there are more.
    ///
    /// # Errors
    /// What the plotting library cannot draw.
    pub fn corner_plot(&self) -> Result<String> {
        Ok(crate::picture::standalone(&self.corner_svg()?))
    }

    /// The same for a page.
    pub(crate) fn corner_svg(&self) -> Result<String> {
        let names: Vec<String> = self.columns.iter().map(|column| column.column.clone()).collect();
        let Compared { rows, samples } = &self.compared;
        plots::corner_svg(
            &plots::Sets { columns: &names, sets: [("rows", rows), ("samples", samples)] },
            &self.least_uniform(plots::MOST_COLUMNS),
        )
    }

    /// Histograms of the PIT of at most so many columns, and of the ranks of densities.
    pub(crate) fn ranks_svg(&self, most: usize) -> Result<String> {
        let columns = self.least_uniform(most).into_iter().map(|at| (self.columns[at].column.clone(), &self.columns[at].pit));
        let all = columns.chain([("density".to_owned(), &self.coverage.ranks)]);
        let panels: Vec<(String, &[f64])> = all.map(|(name, found)| (name, found.bins.as_slice())).collect();
        plots::ranks_svg(&panels, self.rows)
    }

    /// Coverage found over coverage said.
    pub(crate) fn coverage_svg(&self) -> Result<String> {
        let place =
            |level: &Level| plots::Place { said: level.nominal, found: level.empirical, error: 2.0 * level.standard_error, share: 0.05 };
        let places: Vec<plots::Place> = self.coverage.levels.iter().map(place).collect();
        plots::diagonal_svg(&places, "share of samples in the densest region", "share of rows in it")
    }
}

/// Whether a model can be looked at so: one of tables of real numbers.
pub fn is_table(events: &Events) -> bool {
    events.reals().is_some() && matches!(events.kind().shape, EventShape::Vector(_))
}

/// Compares rows of a table, which the model was not fitted to, with samples of the model.
///
/// ```
/// use flow_api::spec::{EventShape, ModelSpec, Spec, from_ron};
/// use flow_train::data::DataSource;
/// use flow_train::diagnostics::{DiagnosticOptions, diagnose};
/// use flow_train::Events;
/// let spec: Spec<dyn ModelSpec> = from_ron("VectorFlow(flows: [LuLinear()])")?; // a standard normal, until it is trained
/// let model = spec.build::<f64>(EventShape::Vector(2), 7)?;
/// let source: DataSource = "toy:two-moons?n=500".parse()?;
/// let test = source.open(1)?.test;
/// let events = Events::new(test.as_ref(), model.preprocessing(), 0)?;
/// let found = diagnose(&model, test.as_ref(), &events, &DiagnosticOptions::of(&model))?;
/// assert!(found.columns[0].pit.p_value < 0.001, "two moons are no normal density");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// As [`score`](crate::score); [`TrainError::Setting`] for options of 0 and for a model of anything but tables; where
/// not one row can be compared, what the first failed on.
pub fn diagnose<E: SpecScalar>(model: &Model<E>, data: &dyn Dataset, events: &Events, options: &DiagnosticOptions) -> Result<Diagnostics> {
    options.check()?;
    if !is_table(events) {
        let (expected, got) = ("tables of real numbers".to_owned(), model.event().to_string());
        return Err(TrainError::Setting { field: "diagnostics", expected, got });
    }
    let events = events.evaluating(data, model, ScoredGiven::Own)?;
    let every = data.len().div_ceil(options.rows).max(1);
    let chosen: Vec<usize> = (0..data.len()).step_by(every).filter(|&index| !data.is_gone(index)).collect();
    let mut looked = Looked::new(model, &events, options);
    for (number, rows) in chosen.chunks((options.batch / options.samples).max(1)).enumerate() {
        let draws: Vec<Draw> = rows.iter().map(|&index| Draw { epoch: 0, index }).collect();
        let batch = data.batch(&draws)?;
        let Values::Real(values) = &batch.values else { continue };
        let whole = events.of::<E>(&batch)?;
        match looked.add(&whole, values, number as u64) {
            // One row that cannot be scored must not hide the others.
            Err(TrainError::Flow(error)) if is_of_an_item(&error) || is_outside(&error) => {
                let width = model.event().len().max(1);
                for (i, values) in values.chunks_exact(width).enumerate() {
                    match looked.add(&whole.only(i), values, (1 << 32) + rows[i] as u64) {
                        Err(TrainError::Flow(error)) if is_of_an_item(&error) || is_outside(&error) => looked.leave_out(error),
                        other => other?,
                    }
                }
            }
            other => other?,
        }
    }
    looked.finish(data)
}

/// The ranks of rows, so far.
struct Looked<'a, E: SpecScalar> {
    model: &'a Model<E>,
    events: &'a Events,
    options: &'a DiagnosticOptions,
    /// Of every column, over rows.
    pits: Vec<Vec<f64>>,
    /// Of the densities.
    densities: Vec<f64>,
    compared: Compared,
    /// What rows and samples were given, as features of the classifier: (rows, …).
    given: Vec<f64>,
    left_out: usize,
    failure: Option<FlowError>,
}

impl<'a, E: SpecScalar> Looked<'a, E> {
    fn new(model: &'a Model<E>, events: &'a Events, options: &'a DiagnosticOptions) -> Self {
        Self {
            model,
            events,
            options,
            pits: vec![Vec::new(); model.event().len()],
            densities: Vec::new(),
            compared: Compared::default(),
            given: Vec::new(),
            left_out: 0,
            failure: None,
        }
    }

    fn leave_out(&mut self, error: FlowError) {
        self.left_out += 1;
        self.failure.get_or_insert(error);
    }

    /// Adds rows, events and numbers of the data; `pass` is the number of the draw.
    fn add(&mut self, rows: &EventBatch<E>, values: &[f64], pass: u64) -> Result<()> {
        let Self { model, events, options, .. } = *self;
        let DiagnosticOptions { samples, seed, .. } = *options;
        let width = model.event().len().max(1);
        // Densities are compared as the model sees rows: noise of whole numbers and slopes of bounds are alike in both.
        let log_prob = |batch: &EventBatch<E>, pass| -> Result<Vec<E>> {
            let cx = batch.context(model, seed, Purpose::Evaluate { pass })?;
            Ok(model.log_prob(batch.values.clone(), &cx)?.value)
        };
        let own = log_prob(rows, 2 * pass)?;
        let given = each(rows, samples);
        let cx = given.context(model, seed, Purpose::Evaluate { pass: 2 * pass + 1 })?;
        let drawn = EventBatch { values: model.sample(given.len(), E::one(), &cx)?, ..given };
        let others = log_prob(&drawn, 2 * pass + 1)?;
        let numbers = events.values(&drawn.values);
        let not_finite = |what, row| FlowError::NotFinite { layer: "flow".to_owned(), what, row };
        if let Some(at) = numbers.iter().position(|x| !x.is_finite()) {
            return Err(not_finite("the sample", at / width / samples).into());
        }
        if let Some(row) = own.iter().position(|l| !num_traits::Float::is_finite(*l)) {
            return Err(not_finite("the log-likelihood", row).into());
        }
        let ties = Stream::new(seed, pass, "ranks");
        for (row, value) in values.chunks_exact(width).enumerate() {
            let samples_of_row = &numbers[row * samples * width..][..samples * width];
            let mut noise = vec![0.0; width + 1];
            ties.row(row as u64).uniform(&mut noise);
            for (column, pit) in self.pits.iter_mut().enumerate() {
                let column_of_samples = samples_of_row.iter().skip(column).step_by(width).copied();
                pit.push(rank(value[column], column_of_samples, noise[column]));
            }
            // The denser come first.
            let densities = others[row * samples..][..samples].iter().map(|l| -l.as_f64());
            self.densities.push(rank(-own[row].as_f64(), densities, noise[width]));
            self.compared.rows.extend_from_slice(value);
            self.compared.samples.extend_from_slice(&samples_of_row[..width]);
        }
        self.given.extend(given_features(model, rows));
        Ok(())
    }

    fn finish(self, data: &dyn Dataset) -> Result<Diagnostics> {
        let rows = self.densities.len();
        if let (0, Some(failure)) = (rows, &self.failure) {
            return Err(failure.clone().into());
        }
        let columns = self.pits.iter().enumerate();
        let pit =
            |(column, ranks): (usize, &Vec<f64>)| ColumnPit { column: column_key(data.columns(), column), pit: Uniformity::of(ranks) };
        let level = |tenths: u32| {
            let nominal = f64::from(tenths) / 10.0;
            let inside = self.densities.iter().filter(|&&rank| rank <= nominal).count();
            let standard_error = (nominal * (1.0 - nominal) / rows as f64).sqrt();
            Level { nominal, empirical: inside as f64 / rows as f64, standard_error }
        };
        Ok(Diagnostics {
            rows,
            left_out: self.left_out,
            failure: self.failure.map(|error| error.to_string()),
            samples: self.options.samples,
            columns: columns.map(pit).collect(),
            coverage: Coverage { levels: (1..10).map(level).collect(), ranks: Uniformity::of(&self.densities) },
            two_sample: two_sample::test(&self.compared, &self.given, rows, self.options.seed)?,
            compared: self.compared,
        })
    }
}

/// Every event so many times, without its values: the samples to be drawn for it.
fn each<E: SpecScalar>(rows: &EventBatch<E>, times: usize) -> EventBatch<E> {
    let width = rows.conditions.len() / rows.len().max(1);
    let conditions = rows.conditions.chunks_exact(width.max(1)).flat_map(|row| row.repeat(times)).collect();
    let labels = rows.labels.iter().flat_map(|&label| vec![label; times]).collect();
    EventBatch { labels, conditions, ..EventBatch::of_values(Vec::new(), rows.len() * times) }
}

/// What rows are given as numbers: a number a class, of which that of the row is 1, or the conditions themselves.
fn given_features<E: SpecScalar>(model: &Model<E>, rows: &EventBatch<E>) -> Vec<f64> {
    match model.conditioner().map(Conditioner::classes) {
        None => Vec::new(),
        Some(None) => rows.conditions.clone(),
        Some(Some(classes)) => {
            let one_hot = |label: &Option<usize>| (0..classes).map(|class| f64::from(u8::from(*label == Some(class)))).collect::<Vec<_>>();
            rows.labels.iter().flat_map(one_hot).collect()
        }
    }
}

/// The share of all numbers, x among them, that lie below x; equal ones count by `noise` from 0 to 1.
fn rank(x: f64, others: impl Iterator<Item = f64>, noise: f64) -> f64 {
    let (mut below, mut equal, mut all) = (0.0, 1.0, 1.0);
    for other in others {
        all += 1.0;
        match other.total_cmp(&x) {
            std::cmp::Ordering::Less => below += 1.0,
            std::cmp::Ordering::Equal => equal += 1.0,
            std::cmp::Ordering::Greater => {}
        }
    }
    (below + noise * equal) / all
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of whole numbers, most of which are equal, too.
    #[test]
    fn ranks_of_what_is_drawn_alike_are_uniform() {
        let mut noise = vec![0.0; 4000 * 11];
        Stream::new(5, 0, "rank").row(0).uniform(&mut noise);
        for levels in [2.0, 5.0, f64::INFINITY] {
            let draw = |x: &f64| if levels.is_finite() { (x * levels).floor() } else { *x };
            let ranks: Vec<f64> = noise.chunks_exact(11).map(|x| rank(draw(&x[0]), x[1..10].iter().map(draw), x[10])).collect();
            let found = Uniformity::of(&ranks);
            assert!(found.p_value > 0.01, "{levels}: {found:?}");
        }
    }
}
