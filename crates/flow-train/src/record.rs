//! What a model remembers of the data that it was trained on.

use crate::EventKind;
use crate::data::{Column, Dataset, Draw, Values, column_names};
use crate::{Result, TrainError};
use flow_api::spec::{BuildScope, Given, Model, ModelSpec, Spec, SpecError, SpecScalar};
use serde::{Deserialize, Serialize};

/// What tells the data of a run from others, however they are written: kept in every checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DataRecord {
    /// The columns of a table, if they have names.
    pub columns: Vec<Column>,
    /// Names of the classes, by label.
    pub classes: Vec<String>,
    /// Training items of each class, those for validation among them; none in checkpoints of versions that did not
    /// count them.
    pub class_items: Vec<u64>,
    /// The numbers that items are conditioned on.
    pub conditions: Vec<Column>,
    /// Training items, those for validation among them; none in checkpoints of versions that did not count them here.
    pub items: Option<usize>,
    /// Hash of some of them.
    pub fingerprint: Option<u64>,
}

impl DataRecord {
    /// That of a training part, of which a few items are read.
    ///
    /// # Errors
    /// Items that cannot be read.
    pub fn of(train: &dyn Dataset) -> Result<Self> {
        let mut class_items = vec![0; train.classes().len()];
        if !class_items.is_empty() {
            for label in (0..train.len()).filter(|&index| !train.is_gone(index)).filter_map(|index| train.label(index)) {
                if let Some(count) = class_items.get_mut(label) {
                    *count += 1;
                }
            }
        }
        let (items, fingerprint) = (Some(train.len()), Some(fingerprint(train)?));
        Ok(Self { class_items, items, fingerprint, ..Self::without_items(train) })
    }

    /// Columns and classes alone.
    pub fn without_items(data: &dyn Dataset) -> Self {
        let named = column_names(data.columns()).is_some();
        let columns = if named { data.columns().to_vec() } else { Vec::new() };
        let (classes, conditions) = (data.classes().to_vec(), data.conditions().to_vec());
        Self { columns, classes, conditions, class_items: Vec::new(), items: None, fingerprint: None }
    }

    /// The share of the training items that each of so many classes has; equal ones where nobody counted.
    pub fn class_shares(&self, classes: usize) -> Vec<f64> {
        let total: u64 = self.class_items.iter().sum();
        if self.class_items.len() != classes || total == 0 {
            return vec![1.0 / classes.max(1) as f64; classes];
        }
        self.class_items.iter().map(|&items| items as f64 / total as f64).collect()
    }

    /// Refuses data whose numbers to be conditioned on have other names, or stand in another order.
    ///
    /// # Errors
    /// [`TrainError::Conditions`].
    pub fn check_conditions(&self, data: &dyn Dataset) -> Result<()> {
        let names = |columns: &[Column]| columns.iter().map(|column| column.name.clone()).collect::<Vec<_>>();
        let (expected, got) = (names(&self.conditions), names(data.conditions()));
        if expected == got { Ok(()) } else { Err(TrainError::Conditions { expected, got }) }
    }

    /// Sizes of what is given with every event.
    pub fn given(&self) -> Given {
        Given { classes: self.classes.len(), conditions: self.conditions.len() }
    }

    /// Whether a training part is the one that this is the record of; none if the record does not say.
    ///
    /// # Errors
    /// Items that cannot be read.
    pub fn is_of(&self, train: &dyn Dataset) -> Result<Option<bool>> {
        let (Some(items), Some(begun)) = (self.items, self.fingerprint) else { return Ok(None) };
        Ok(Some(items == train.len() && begun == fingerprint(train)?))
    }

    /// The model's number of every class of a data set, by name.
    ///
    /// # Errors
    /// [`TrainError::Class`] for one that the model was not trained on.
    pub fn class_numbers(&self, data: &dyn Dataset) -> Result<Vec<usize>> {
        let number = |class: &String| self.classes.iter().position(|own| own == class);
        let unknown = |class: &String| TrainError::Class { class: class.clone(), known: self.classes.clone() };
        data.classes().iter().map(|class| number(class).ok_or_else(|| unknown(class))).collect()
    }

    /// Names of so many classes: numbers, where a model remembers none.
    pub fn class_names(&self, classes: usize) -> Vec<String> {
        (0..classes).map(|class| self.classes.get(class).cloned().unwrap_or_else(|| class.to_string())).collect()
    }

    /// Refuses data to go on with whose classes are others, or stand in another order.
    ///
    /// # Errors
    /// [`TrainError::Classes`].
    pub fn check_classes(&self, data: &dyn Dataset) -> Result<()> {
        if self.classes == data.classes() {
            return Ok(());
        }
        Err(TrainError::Classes { expected: self.classes.clone(), got: data.classes().to_vec() })
    }

    /// Refuses data whose columns have other names, or stand in another order.
    ///
    /// # Errors
    /// [`TrainError::Columns`].
    pub fn check_columns(&self, data: &dyn Dataset) -> Result<()> {
        match (column_names(&self.columns), column_names(data.columns())) {
            (Some(expected), Some(got)) if expected != got => {
                let own = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
                Err(TrainError::Columns { expected: own(&expected), got: own(&got) })
            }
            _ => Ok(()),
        }
    }
}

/// The model of a spec for a data set, with initial parameters drawn from `seed`.
///
/// # Errors
/// As [`flow_api::spec::BuildModel::build`].
pub fn model_for<E: SpecScalar>(spec: &Spec<dyn ModelSpec>, data: &dyn Dataset, seed: u64) -> Result<Model<E>, SpecError> {
    let given = DataRecord::without_items(data).given();
    E::model(spec, EventKind::of(data).shape, &BuildScope::new(seed).with_given(given))
}

/// A hash of a few items spread over a data set, and of whether they share sources: FNV-1a of their values, item by
/// item, as one may be large.
pub(crate) fn fingerprint(data: &dyn Dataset) -> Result<u64> {
    const ITEMS: usize = 16;
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for index in (0..data.len()).step_by(data.len().div_ceil(ITEMS).max(1)).filter(|&index| !data.is_gone(index)) {
        let mut add = |byte: u8| hash = (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        // A run that held out crops of pictures one by one cannot go on: others would be held out now.
        if index + 1 < data.len() && data.source(index + 1) == data.source(index) {
            add(1);
        }
        let batch = data.batch(&[Draw { epoch: 0, index }])?;
        batch.conditions.into_iter().flat_map(f64::to_le_bytes).for_each(&mut add);
        match batch.values {
            Values::Levels(levels) => levels.into_iter().for_each(&mut add),
            Values::Real(values) => values.into_iter().flat_map(f64::to_le_bytes).for_each(&mut add),
        }
    }
    Ok(hash)
}
