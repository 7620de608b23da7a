//! Several items of one source, such as crops of a picture, as one.

use super::measure::Measures;
use crate::data::Dataset;
use std::collections::BTreeMap;

/// How the items of one source are put together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Aggregate {
    /// Each item by itself.
    #[default]
    None,
    /// A source is as unusual as its most unusual item.
    Max,
    /// Measures are averaged, and their means are compared with those of reference sources.
    Mean,
}

/// The items of each source, sources in the order of their first items.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Groups(pub Vec<Vec<usize>>);

impl Groups {
    /// Those of a data set ([`Dataset::source`]).
    pub fn of(data: &dyn Dataset) -> Self {
        Self::of_sources((0..data.len()).map(|item| data.source(item)))
    }

    /// Those of items whose sources have these numbers.
    pub fn of_sources(sources: impl IntoIterator<Item = usize>) -> Self {
        let mut places = BTreeMap::new();
        let mut groups: Vec<Vec<usize>> = Vec::new();
        for (item, source) in sources.into_iter().enumerate() {
            let place = *places.entry(source).or_insert(groups.len());
            if place == groups.len() {
                groups.push(Vec::new());
            }
            groups[place].push(item);
        }
        Self(groups)
    }

    /// So many items that each has a source of its own.
    pub fn single(items: usize) -> Self {
        Self((0..items).map(|item| vec![item]).collect())
    }

    /// The mean of every measure over each group.
    pub(super) fn means(&self, measures: &Measures) -> Measures {
        let mean = |values: &[f64]| self.0.iter().map(|group| group.iter().map(|&i| values[i]).sum::<f64>() / group.len() as f64).collect();
        Measures(measures.0.iter().map(|(measure, values)| (*measure, mean(values))).collect())
    }

    /// Of each group the item with the least value, and that value.
    pub(super) fn least(&self, values: &[f64]) -> Vec<(usize, f64)> {
        let of = |group: &Vec<usize>| group.iter().map(|&i| (i, values[i])).min_by(|a, b| a.1.total_cmp(&b.1));
        self.0.iter().filter_map(of).collect()
    }
}
