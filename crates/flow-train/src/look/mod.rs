//! A look at data before anything is trained on them: what they are, and what will spoil a density.

mod baselines;
mod columns;
mod dependence;
mod values;

use crate::Result;
use crate::data::{Batch, DataError, Dataset, Draw, ItemShape, Reals, Values, each_once};
use crate::text::{agreeing, count};
use flow_api::spec::Preprocessing;
use serde::Serialize;
use std::collections::HashMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

use baselines::Limits;

pub use baselines::{Baseline, baselines};
pub use columns::ColumnLook;

/// The most numbers that are looked at; of a larger set items are taken at equal distances.
const MAX_NUMBERS: usize = 50_000_000;
/// The most pictures, which may have to be decoded.
const MAX_PICTURES: usize = 1024;
/// The share of repeated items that is worth a word.
const REPEATED: f64 = 0.01;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// A density of these data is certain to be wrong, or cannot be trained at all.
    Error,
    /// It may not be what the user means.
    Warning,
}

/// Something about data that spoils a density.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What it is, where, and what helps.
    pub text: String,
}

impl Finding {
    fn error(text: String) -> Self {
        Self { severity: Severity::Error, text }
    }

    fn warning(text: String) -> Self {
        Self { severity: Severity::Warning, text }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What a look at data found, all of it computed in f64.
///
/// ```
/// use flow_train::data::{Column, Dataset, InMemory, ItemShape, Values};
/// use flow_train::{Look, Severity};
/// let values: Vec<f64> = (0..100).flat_map(|i| [f64::from(i * i % 37) / 7.0, 5.0]).collect();
/// let columns = Column::of(["a".to_owned(), "b".to_owned()], &values);
/// let set = InMemory::new("t.csv".as_ref(), Values::Real(values), ItemShape::Vector { dims: 2 }, None, None)?.with_columns(columns);
/// let look = Look::at(&set, &set)?;
/// let errors: Vec<_> = look.findings.iter().filter(|f| f.severity == Severity::Error).collect();
/// assert_eq!(errors[0].to_string(), "column `b` (2) is constant (5), which has no density: drop=b leaves it out");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Look {
    /// Training items.
    pub items: usize,
    /// How many of them were looked at.
    pub looked_at: usize,
    /// Shape of an item.
    pub shape: String,
    /// Levels of a value, if the data are discrete.
    pub levels: Option<u32>,
    /// The columns of vectors of real numbers.
    pub columns: Vec<ColumnLook>,
    /// Names of the classes, and how many training items each has.
    pub classes: Vec<(String, usize)>,
    /// What simple densities of the training items reach on the test items (on the training items where there are
    /// none).
    pub baselines: Vec<Baseline>,
    /// What may spoil a density.
    pub findings: Vec<Finding>,
}

/// The items that are looked at, item after item.
struct Sample {
    values: Values,
    labels: Vec<Option<usize>>,
    /// Numbers in an item.
    dims: usize,
    /// Number of each item in its file.
    rows: Vec<usize>,
    /// What was wrong with items that could not be read.
    unread: Vec<DataError>,
}

impl Sample {
    fn of(data: &dyn Dataset, most: usize) -> Result<Self> {
        let dims = data.shape().dims().max(1);
        let stride = data.len().div_ceil(most.max(1)).max(1);
        let items: Vec<usize> = (0..data.len()).step_by(stride).filter(|&index| !data.is_gone(index)).collect();
        let (mut kept, mut unread) = (Vec::new(), Vec::new());
        let (mut levels, mut reals, mut labels) = (Vec::new(), Vec::new(), Vec::new());
        let mut add = |batch: Batch| {
            kept.extend(batch.draws.iter().map(|draw| draw.index));
            match batch.values {
                Values::Levels(values) => levels.extend(values),
                Values::Real(values) => reals.extend(values),
            }
            labels.extend(batch.labels);
        };
        for batch in each_once(items.len(), 256) {
            let draws: Vec<Draw> = batch.iter().map(|draw| Draw { epoch: 0, index: items[draw.index] }).collect();
            match data.batch(&draws) {
                Ok(batch) => add(Batch { draws, ..batch }),
                // One by one, so that those that can be read are seen.
                Err(_) => {
                    for draw in draws {
                        match data.batch(&[draw]) {
                            Ok(batch) => add(Batch { draws: vec![draw], ..batch }),
                            Err(error) => unread.push(error),
                        }
                    }
                }
            }
        }
        if kept.is_empty() && !unread.is_empty() {
            return Err(unread.swap_remove(0).into());
        }
        let values = if data.levels().is_some() { Values::Levels(levels) } else { Values::Real(reals) };
        Ok(Self { values, labels, dims, rows: kept.iter().map(|&i| data.row(i)).collect(), unread })
    }

    fn len(&self) -> usize {
        self.rows.len()
    }

    /// A hash of the values of every item.
    fn hashes(&self) -> Vec<u64> {
        fn each<T>(values: &[T], dims: usize, hash: impl Fn(&T, &mut DefaultHasher)) -> Vec<u64> {
            let of = |item: &[T]| {
                let mut hasher = DefaultHasher::new();
                item.iter().for_each(|value| hash(value, &mut hasher));
                hasher.finish()
            };
            values.chunks_exact(dims).map(of).collect()
        }
        match &self.values {
            Values::Levels(v) => each(v, self.dims, Hash::hash),
            Values::Real(v) => each(v, self.dims, |value, hasher| value.to_bits().hash(hasher)),
        }
    }
}

impl Look {
    /// Looks at a training part, and at its test part, for any model.
    ///
    /// # Errors
    /// Items that cannot be read.
    pub fn at(train: &dyn Dataset, test: &dyn Dataset) -> Result<Self> {
        Self::for_model(train, test, &Preprocessing::default())
    }

    /// The same for a model with this preprocessing, which some findings do not matter to.
    ///
    /// # Errors
    /// As [`Look::at`], and columns of the preprocessing that are not there.
    pub fn for_model(train: &dyn Dataset, test: &dyn Dataset, preprocessing: &Preprocessing) -> Result<Self> {
        let dims = train.shape().dims().max(1);
        let is_image = matches!(train.shape(), ItemShape::Image { .. });
        let most = if is_image { MAX_PICTURES.min(MAX_NUMBERS / dims) } else { MAX_NUMBERS / dims };
        let sample = Sample::of(train, most)?;
        let tested = Sample::of(test, most)?;
        let mut findings = Vec::new();
        let unread: Vec<&DataError> = sample.unread.iter().chain(&tested.unread).collect();
        if let Some(first) = unread.first() {
            let text = format!(
                "{} cannot be read ({first}) and will end the run when {} drawn: --skip-bad leaves {} out",
                count(unread.len(), "item"),
                agreeing(unread.len(), "it is", "they are"),
                agreeing(unread.len(), "it", "them")
            );
            findings.push(Finding::warning(text));
        }
        let mut columns = Vec::new();
        match (&sample.values, is_image) {
            (Values::Real(values), false) => {
                let reals = Reals::new(preprocessing, train.columns(), train.shape(), 0)?;
                let standardised = preprocessing.standardise.unwrap_or(true);
                let of = columns::Of { rows: &sample.rows, columns: train.columns(), maps: reals.columns(), standardised };
                columns = columns::look(values, &of, sample.dims, &mut findings);
                dependence::look(values, train.columns(), sample.dims, &mut findings);
            }
            (Values::Real(values), true) => values::look_at_reals(values, train.are_whole(), &mut findings),
            (Values::Levels(values), _) => values::look_at_levels(values, train.levels().unwrap_or(256), &mut findings),
        }
        repeated(&sample, &tested, &mut findings);
        let baselines =
            baselines::of(&sample, if tested.len() == 0 { &sample } else { &tested }, train.levels(), train.shape(), Limits::LOOK);
        Ok(Self {
            items: train.len(),
            looked_at: sample.len(),
            shape: train.shape().to_string(),
            levels: train.levels(),
            columns,
            classes: classes(train, &sample.labels),
            baselines,
            findings,
        })
    }

    /// The findings that make training pointless.
    pub fn errors(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| finding.severity == Severity::Error)
    }
}

fn classes(train: &dyn Dataset, labels: &[Option<usize>]) -> Vec<(String, usize)> {
    let count = |label: usize| labels.iter().filter(|&&l| l == Some(label)).count();
    train.classes().iter().enumerate().map(|(label, name)| (name.clone(), count(label))).collect()
}

/// Items that are there twice, and test items that are trained on.
fn repeated(train: &Sample, test: &Sample, findings: &mut Vec<Finding>) {
    let mut first: HashMap<u64, usize> = HashMap::with_capacity(train.len());
    let (mut count, mut example) = (0_usize, None);
    for (i, hash) in train.hashes().into_iter().enumerate() {
        if let Some(&earlier) = first.get(&hash) {
            count += 1;
            example.get_or_insert((train.rows[i], train.rows[earlier]));
        } else {
            first.insert(hash, i);
        }
    }
    if let Some((row, earlier)) = example.filter(|_| count as f64 > REPEATED * train.len() as f64) {
        let share = 100.0 * count as f64 / train.len() as f64;
        findings.push(Finding::warning(format!(
            "{count} of {} items ({share:.1} %) repeat others (row {row} is row {earlier}, counted from 0): a density piles up on them",
            train.len()
        )));
    }
    let known = test.hashes().iter().filter(|hash| first.contains_key(hash)).count();
    if known as f64 > REPEATED * test.len() as f64 {
        findings.push(Finding::warning(format!(
            "{known} of {} test items are among the training items: the test says little; split=hash:SHARE keeps equal rows in one part",
            test.len()
        )));
    }
}
