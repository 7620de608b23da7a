//! Means over items with their standard errors.

use std::collections::BTreeMap;

/// A mean over items of several sources, and its standard error.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Mean {
    /// NaN of no items.
    pub(crate) value: f64,
    /// Items of one source ([`Dataset::source`](crate::data::Dataset::source)) counted as dependent (Liang and Zeger
    /// 1986, *Longitudinal data analysis using generalized linear models*, with the factor G/(G − 1) of G sources); NaN
    /// of a single source.
    pub(crate) error: f64,
}

impl Mean {
    /// Of pairs of a source and a value.
    pub(crate) fn of(items: impl Iterator<Item = (usize, f64)> + Clone) -> Self {
        let count = items.clone().count() as f64;
        let value = items.clone().map(|(_, value)| value).sum::<f64>() / count;
        // Deviations of one source are added before they are squared; where every item has its own, this is the
        // variance of items.
        let mut of_sources = BTreeMap::<usize, f64>::new();
        items.for_each(|(source, own)| *of_sources.entry(source).or_default() += own - value);
        let sources = of_sources.len() as f64;
        let variance = of_sources.values().map(|sum| sum.powi(2)).sum::<f64>() / (sources - 1.0) * (sources / count);
        Self { value, error: (variance / count).sqrt() }
    }
}
