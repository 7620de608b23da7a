//! Who the rows of a result are: what joins them to the table or the folder that they come from.

use flow_train::data::{Dataset, Items};
use flow_train::{Result, TrainError};

/// Heads of the columns that [`Row::cells`] gives.
pub(super) const HEADS: [&str; 4] = ["row", "part", "name", "label"];

/// An item as its source knows it.
pub(super) struct Row {
    /// Its number in its file or folder, counted from 0.
    pub(super) number: usize,
    /// What the run uses it for; empty of data that the run has not seen.
    pub(super) part: String,
    /// Its name, if items have names.
    pub(super) name: String,
    /// Its class by name, if there are classes.
    pub(super) label: String,
}

impl Row {
    pub(super) fn cells(&self) -> [String; 4] {
        [self.number.to_string(), self.part.clone(), self.name.clone(), self.label.clone()]
    }
}

/// Every item, in order, with the labels of the items.
pub(super) fn rows(items: &Items, labels: &[Option<usize>]) -> Vec<Row> {
    let label = |index: usize| {
        let label = (*labels.get(index)?)?;
        Some(items.classes().get(label).cloned().unwrap_or_else(|| label.to_string()))
    };
    let row = |index| Row {
        number: items.row(index),
        part: items.part(index).map_or_else(String::new, |part| part.to_string()),
        name: items.item_name(index).unwrap_or_default(),
        label: label(index).unwrap_or_default(),
    };
    (0..items.len()).map(row).collect()
}

/// The labels of all items, read batch by batch.
pub(super) fn labels(items: &Items, batch: usize) -> Result<Vec<Option<usize>>, TrainError> {
    if items.classes().is_empty() {
        return Ok(vec![None; items.len()]);
    }
    let mut all = Vec::with_capacity(items.len());
    for draws in flow_train::data::each_once(items.len(), batch) {
        all.extend(items.batch(&draws)?.labels);
    }
    Ok(all)
}
