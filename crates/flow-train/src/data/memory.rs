//! [`InMemory`]: a set that is held whole.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use super::dataset::check_draws;
use super::{Batch, Column, DataError, Dataset, Draw, ItemShape, Result, Split, SplitRule, Subset, Values};

/// The class of every item, and what the classes are called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labels {
    /// One label an item, an index into `classes`; `None` for an item without one.
    pub of_items: Vec<Option<u32>>,
    /// Names of the classes, by label.
    pub classes: Arc<[String]>,
}

impl Labels {
    /// Labels that are numbers, one list a part of a set, with the classes `0`, `1`, … up to the largest of all parts;
    /// −1 is no label.
    ///
    /// # Errors
    /// [`DataError::Value`] for a label below −1 or not below 65,536; `name` is the file.
    pub(super) fn numbered<T: Copy + Into<i64>, const PARTS: usize>(name: &Path, parts: &[Vec<T>; PARTS]) -> Result<[Self; PARTS]> {
        let mut classes = 0;
        let mut labels: [Vec<Option<u32>>; PARTS] = [const { Vec::new() }; PARTS];
        for (part, labels) in parts.iter().zip(&mut labels) {
            for (item, &label) in part.iter().enumerate() {
                let label: i64 = label.into();
                let number = u16::try_from(label).ok().map(u32::from);
                if number.is_none() && label != -1 {
                    let expected = "a label from 0 to 65535, or -1 for none".to_owned();
                    return Err(DataError::Value { path: name.to_owned(), item, expected, got: label.to_string() });
                }
                labels.push(number);
                classes = classes.max(number.map_or(0, |number| number + 1));
            }
        }
        let classes: Arc<[String]> = (0..classes).map(|c| c.to_string()).collect();
        Ok(labels.map(|of_items| Self { of_items, classes: classes.clone() }))
    }

    /// Two parts of one set whose classes were numbered apart, with the classes of both.
    pub(super) fn joined(mut a: InMemory, mut b: InMemory) -> (InMemory, InMemory) {
        if let (Some(one), Some(other)) = (&mut a.labels, &mut b.labels)
            && one.classes != other.classes
        {
            let mut classes: Vec<String> = one.classes.iter().chain(other.classes.iter()).cloned().collect();
            sort_classes(&mut classes);
            let classes: Arc<[String]> = classes.into();
            for labels in [one, other] {
                let place = |name: &String| classes.iter().position(|c| c == name).and_then(|at| u32::try_from(at).ok());
                let places: Vec<u32> = labels.classes.iter().filter_map(place).collect();
                labels.of_items.iter_mut().flatten().for_each(|label| *label = places[*label as usize]);
                labels.classes = classes.clone();
            }
        }
        (a, b)
    }
}

/// Puts names of classes in order, each once: by value if all are numbers, otherwise by the alphabet.
pub(super) fn sort_classes(classes: &mut Vec<String>) {
    classes.sort();
    classes.dedup();
    let numbers: Option<Vec<f64>> = classes.iter().map(|c| c.parse().ok()).collect();
    if numbers.is_some() {
        let value = |text: &String| text.parse().unwrap_or(f64::NAN);
        classes.sort_by(|a, b| value(a).total_cmp(&value(b)).then(a.cmp(b)));
    }
}

/// A set held whole in memory: discrete levels or continuous values, with or without labels.
///
/// ```
/// use flow_train::data::{Dataset, Draw, InMemory, ItemShape, Values};
///
/// let points = Values::Real(vec![0.0, 1.0, 2.0, 3.0]);
/// let set = InMemory::new("points".as_ref(), points, ItemShape::Vector { dims: 2 }, None, None)?;
/// assert_eq!(set.batch(&[Draw { epoch: 0, index: 1 }])?.values, Values::Real(vec![2.0, 3.0]));
/// # Ok::<(), flow_train::data::DataError>(())
/// ```
#[derive(Clone)]
pub struct InMemory {
    values: Values,
    shape: ItemShape,
    levels: Option<u32>,
    labels: Option<Labels>,
    columns: Arc<[Column]>,
    /// The numbers that items are conditioned on, item after item, and what is known of each.
    conditions: (Arc<[f64]>, Arc<[Column]>),
    /// Number of each item in its file, where items were left out.
    rows: Option<Arc<[usize]>>,
    names: Option<Arc<[Box<str>]>>,
    len: usize,
}

impl InMemory {
    /// A set of `values`, items of `shape` one after another; `name` stands in errors for where they came from.
    ///
    /// `levels` is the number of levels of discrete values and `None` for continuous ones.
    ///
    /// # Errors
    /// [`DataError::Empty`] without items, [`DataError::Size`] if the last item is not whole, [`DataError::LabelCount`]
    /// if there is not one label an item, [`DataError::Header`] if `levels` does not fit the kind of values,
    /// [`DataError::Value`] for a value of `levels` or more, a value that is not finite, or a label without a class.
    pub fn new(name: &Path, values: Values, shape: ItemShape, levels: Option<u32>, labels: Option<Labels>) -> Result<Self> {
        let path = || name.to_owned();
        let dims = shape.dims();
        if values.is_empty() || dims == 0 {
            return Err(DataError::Empty { path: path() });
        }
        let len = values.len() / dims;
        if len * dims != values.len() {
            let expected = (len + 1) * dims;
            return Err(DataError::Size { what: "values", expected, got: values.len() });
        }
        let bad = match (&values, levels) {
            (Values::Levels(v), Some(levels @ 2..=256)) => {
                let bad = v.iter().position(|&x| u32::from(x) >= levels);
                bad.map(|i| (i, format!("a level below {levels}"), v[i].to_string()))
            }
            (Values::Real(v), None) => {
                let bad = v.iter().position(|x| !x.is_finite());
                bad.map(|i| (i, "a finite number".to_owned(), v[i].to_string()))
            }
            _ => {
                let expected = "2 to 256 for discrete values, none for continuous ones".to_owned();
                return Err(DataError::Header { path: path(), field: "levels", expected, got: format!("{levels:?}") });
            }
        };
        if let Some((at, expected, got)) = bad {
            return Err(DataError::Value { path: path(), item: at / dims, expected, got });
        }
        if let Some(Labels { of_items, classes }) = &labels {
            if of_items.len() != len {
                return Err(DataError::LabelCount { path: path(), expected: len, got: of_items.len() });
            }
            let labels = of_items.iter().enumerate().filter_map(|(item, label)| Some((item, (*label)?)));
            if let Some((item, label)) = labels.into_iter().find(|&(_, l)| l as usize >= classes.len()) {
                let expected = format!("a label below {}", classes.len());
                return Err(DataError::Value { path: path(), item, expected, got: label.to_string() });
            }
        }
        Ok(Self { values, shape, levels, labels, columns: Arc::default(), conditions: Default::default(), rows: None, names: None, len })
    }

    /// The same with what is known of its columns: as many as an item has values, or none.
    #[must_use]
    pub fn with_columns(self, columns: Vec<Column>) -> Self {
        Self { columns: columns.into(), ..self }
    }

    /// The same with numbers that items are conditioned on, item after item, called by these names; `name` stands in
    /// errors for where they came from.
    ///
    /// # Errors
    /// [`DataError::Size`] if there are not as many for every item; [`DataError::Value`] for one that is not finite.
    pub fn with_conditions(self, name: &Path, values: Vec<f64>, names: Vec<String>) -> Result<Self> {
        let expected = self.len * names.len();
        if values.len() != expected {
            return Err(DataError::Size { what: "conditions", expected, got: values.len() });
        }
        if let Some(at) = values.iter().position(|c| !c.is_finite()) {
            let expected = format!("a finite number as the condition {}", names[at % names.len()]);
            return Err(DataError::Value { path: name.to_owned(), item: at / names.len(), expected, got: values[at].to_string() });
        }
        let columns = Column::of(names, &values);
        Ok(Self { conditions: (values.into(), columns.into()), ..self })
    }

    /// The same with the number that each item has in its file.
    #[must_use]
    pub(super) fn with_rows(self, rows: Vec<usize>) -> Self {
        let all = rows.len() == self.len && rows.iter().copied().eq(0..self.len);
        Self { rows: (!all && rows.len() == self.len).then(|| rows.into()), ..self }
    }

    /// The same with the name of each item.
    #[must_use]
    pub(super) fn with_names(self, names: Vec<Box<str>>) -> Self {
        Self { names: Some(names.into()).filter(|names: &Arc<[Box<str>]>| names.len() == self.len), ..self }
    }

    /// What tells an item from others whatever its number is: its name, else its values.
    fn key(&self, index: usize) -> Vec<u8> {
        if let Some(name) = self.names.as_ref().and_then(|names| names.get(index)) {
            return name.as_bytes().to_vec();
        }
        let at = index * self.shape.dims()..(index + 1) * self.shape.dims();
        match &self.values {
            Values::Levels(v) => v[at].to_vec(),
            Values::Real(v) => v[at].iter().flat_map(|x| x.to_le_bytes()).collect(),
        }
    }

    /// Splits off the test items that `rule` names; a part may be empty.
    pub(super) fn parts(self, rule: &SplitRule) -> Result<Split> {
        let n = self.len;
        let of_test: Vec<bool> = match rule {
            SplitRule::Share(share) => (0..n).map(|i| SplitRule::is_test_key(*share, &self.key(i))).collect(),
            rule => (0..n).map(|i| rule.is_test(i, n)).collect(),
        };
        self.parts_where(|i| of_test[i], rule.clone())
    }

    /// Splits off the items for which `is_test` says yes.
    pub(super) fn parts_where(self, is_test: impl Fn(usize) -> bool, rule: SplitRule) -> Result<Split> {
        let (test, train): (Vec<_>, Vec<_>) = (0..self.len).partition(|&i| is_test(i));
        let whole: Arc<dyn Dataset> = Arc::new(self);
        Split::new(Arc::new(Subset::new(whole.clone(), train)?), Arc::new(Subset::new(whole, test)?), rule)
    }
}

impl Dataset for InMemory {
    fn len(&self) -> usize {
        self.len
    }

    fn shape(&self) -> ItemShape {
        self.shape
    }

    fn levels(&self) -> Option<u32> {
        self.levels
    }

    fn classes(&self) -> &[String] {
        self.labels.as_ref().map_or(&[], |l| &l.classes)
    }

    fn conditions(&self) -> &[Column] {
        &self.conditions.1
    }

    fn columns(&self) -> &[Column] {
        &self.columns
    }

    fn item_name(&self, index: usize) -> Option<String> {
        self.names.as_ref()?.get(index).map(|name| name.clone().into())
    }

    fn label(&self, index: usize) -> Option<usize> {
        self.labels.as_ref()?.of_items.get(index).copied().flatten().map(|label| label as usize)
    }

    fn row(&self, index: usize) -> usize {
        self.rows.as_ref().and_then(|rows| rows.get(index)).copied().unwrap_or(index)
    }

    fn batch(&self, draws: &[Draw]) -> Result<Batch> {
        fn gather<T: Copy>(all: &[T], dims: usize, draws: &[Draw]) -> Vec<T> {
            let mut out = Vec::with_capacity(draws.len() * dims);
            for draw in draws {
                out.extend_from_slice(&all[draw.index * dims..][..dims]);
            }
            out
        }
        check_draws(draws, self.len)?;
        let dims = self.shape.dims();
        let values = match &self.values {
            Values::Levels(v) => Values::Levels(gather(v, dims, draws)),
            Values::Real(v) => Values::Real(gather(v, dims, draws)),
        };
        let (numbers, names) = &self.conditions;
        let batch = Batch { conditions: gather(numbers, names.len(), draws), ..Batch::new(values, draws) };
        let Some(Labels { of_items, .. }) = &self.labels else { return Ok(batch) };
        Ok(Batch { labels: gather(of_items, 1, draws).into_iter().map(|label| label.map(|l| l as usize)).collect(), ..batch })
    }
}

/// Leaves out the values, which may be millions.
impl fmt::Debug for InMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InMemory")
            .field("len", &self.len)
            .field("shape", &self.shape)
            .field("levels", &self.levels)
            .field("classes", &self.classes())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// −1 is no label, as in semi-supervised sets of scikit-learn; other negative numbers are mistakes.
    #[test]
    fn items_may_have_no_label() {
        let [train, test] = Labels::numbered("y".as_ref(), &[vec![2_i64, -1, 0], vec![-1]]).unwrap();
        assert_eq!((train.of_items, train.classes.len()), (vec![Some(2), None, Some(0)], 3));
        assert_eq!((test.of_items, test.classes.len()), (vec![None], 3));
        let error = Labels::numbered("y".as_ref(), &[vec![0_i64, -2]]).unwrap_err().to_string();
        assert_eq!(error, "y: item 1: expected a label from 0 to 65535, or -1 for none, got -2");
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let labels = |of_items: &[u32]| {
            Some(Labels { of_items: of_items.iter().copied().map(Some).collect(), classes: ["a".to_owned(), "b".to_owned()].into() })
        };
        let (bytes, reals) = (|v: &[u8]| Values::Levels(v.to_vec()), |v: &[f64]| Values::Real(v.to_vec()));
        let cases = [
            (bytes(&[]), Some(256), None, "s: holds no items"),
            (bytes(&[1, 2, 3]), Some(256), None, "values: expected 4 elements, got 3"),
            (bytes(&[1, 2, 3, 17]), Some(17), None, "s: item 1: expected a level below 17, got 17"),
            (bytes(&[1, 2]), None, None, "s: levels: expected 2 to 256 for discrete values, none for continuous ones, got None"),
            (reals(&[1.0, 2.0]), Some(2), None, "s: levels: expected 2 to 256 for discrete values, none for continuous ones, got Some(2)"),
            (reals(&[1.0, 2.0, f64::NAN, 0.0]), None, None, "s: item 1: expected a finite number, got NaN"),
            (bytes(&[1, 2]), Some(256), labels(&[0, 1]), "s: expected 1 labels, one for each item, got 2"),
            (bytes(&[1, 2]), Some(256), labels(&[2]), "s: item 0: expected a label below 2, got 2"),
        ];
        for (values, levels, labels, message) in cases {
            let set = InMemory::new("s".as_ref(), values, ItemShape::Vector { dims: 2 }, levels, labels);
            assert_eq!(set.expect_err(message).to_string(), message);
        }
        let nothing = InMemory::new("s".as_ref(), bytes(&[1]), ItemShape::Vector { dims: 0 }, Some(256), None);
        assert!(matches!(nothing, Err(DataError::Empty { .. })));
    }

    #[test]
    fn one_item_cannot_be_split() -> Result<()> {
        let set = |n| InMemory::new("s".as_ref(), Values::Real(vec![0.0; n]), ItemShape::Vector { dims: 1 }, None, None);
        for rule in [SplitRule::LastTenth, SplitRule::EveryTenth] {
            assert!(matches!(set(1)?.parts(&rule)?.of_two("s".as_ref()), Err(DataError::TooFew { got: 1, .. })));
            assert_eq!(set(2)?.parts(&rule)?.of_two("s".as_ref())?.test.len(), 1);
        }
        Ok(())
    }
}
