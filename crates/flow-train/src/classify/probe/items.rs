//! What a probe is fitted to: the activations of labelled items.

use super::ProbeOptions;
use crate::data::{Dataset, each_once};
use crate::{Events, Result, TrainError, embed};
use flow_api::spec::{Model, SpecScalar};

/// The labelled items of a part: activations row by row.
pub(super) struct Labelled {
    pub(super) features: usize,
    pub(super) x: Vec<f64>,
    pub(super) labels: Vec<usize>,
    /// Which items depend on each other.
    pub(super) sources: Vec<usize>,
}

impl Labelled {
    pub(super) fn read<E: SpecScalar>(model: &Model<E>, events: &Events, data: &dyn Dataset, options: &ProbeOptions) -> Result<Self> {
        let features = model.event().len();
        let mut part = Self { features, x: Vec::new(), labels: Vec::new(), sources: Vec::new() };
        let mut labels = Vec::with_capacity(data.len());
        for draws in each_once(data.len(), options.batch) {
            labels.extend(data.batch(&draws)?.labels);
        }
        let mut item = 0;
        embed(model, data, events, &options.layer, options.batch, |rows| {
            for row in rows.chunks_exact(features) {
                if let Some(label) = labels[item] {
                    part.x.extend(row.iter().map(|x| x.as_f64()));
                    part.labels.push(label);
                    part.sources.push(data.source(item));
                }
                item += 1;
            }
            Ok(())
        })?;
        match part.x.iter().position(|x| !x.is_finite()) {
            None => Ok(part),
            Some(at) => Err(TrainError::Probe(format!("the activations of labelled item {} are not finite", at / features))),
        }
    }

    pub(super) fn known(&self) -> Vec<Option<usize>> {
        self.labels.iter().copied().map(Some).collect()
    }

    pub(super) fn extend(&mut self, other: Self) {
        self.x.extend(other.x);
        self.labels.extend(other.labels);
        self.sources.extend(other.sources);
    }
}

/// Mean and standard deviation of every feature.
pub(super) struct Scale(Vec<(f64, f64)>);

impl Scale {
    pub(super) fn of(part: &Labelled) -> Self {
        let count = part.labels.len() as f64;
        let columns = (0..part.features).map(|at| {
            let column = || part.x.iter().skip(at).step_by(part.features);
            let mean = column().sum::<f64>() / count;
            let spread = (column().map(|x| (x - mean).powi(2)).sum::<f64>() / count).sqrt();
            // What is constant here tells nothing.
            (mean, if spread > 1e-12 * mean.abs() { spread } else { f64::INFINITY })
        });
        Self(columns.collect())
    }

    pub(super) fn apply(&self, part: &mut Labelled) {
        for row in part.x.chunks_exact_mut(part.features) {
            row.iter_mut().zip(&self.0).for_each(|(x, (mean, spread))| *x = (*x - mean) / spread);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A feature that is constant over the items fitted to is no reason for numbers that are none.
    #[test]
    fn constant_features_tell_nothing() {
        let wave = |i: usize| if i % 2 == 1 { 7.0 } else { (1.3 * i as f64 + 0.2).sin() };
        let labels = (0..40).map(|i| i % 3).collect();
        let mut part = Labelled { features: 2, x: (0..80).map(wave).collect(), labels, sources: (0..40).collect() };
        Scale::of(&part).apply(&mut part);
        assert!(part.x.iter().skip(1).step_by(2).all(|x| *x == 0.0));
        let mean = part.x.iter().step_by(2).sum::<f64>() / 40.0;
        assert!(mean.abs() < 1e-12);
    }
}
