//! What is measured of an item.

use super::complexity::complexity_bits;
use super::ranks::Side;
use crate::data::{Batch, Dataset, ItemShape, Values};
use crate::evaluate::score_with;
use crate::events::Events;
use crate::{EvaluateOptions, Result, Scores};
use flow_api::spec::{Model, SpecScalar};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::f64::consts::LN_2;
use std::sync::atomic::AtomicBool;

/// A number that is measured of every item, and compared with those of reference items.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Measure {
    /// ln p(x), in nats.
    LogLikelihood,
    /// L(x), in bits.
    ComplexityBits,
    /// −log₂ p(x) − L(x), in bits.
    Corrected,
    /// ln p(x) − ln p₀(x), in nats.
    LikelihoodRatio,
}

/// What kind of items are scored: it decides which side of a measure is unusual.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Of many numbers that depend on each other: what is likelier than nearly all others is as unusual as what is less
    /// likely.
    Picture,
    /// A row of a table: of few numbers the likeliest is the most usual.
    Row,
}

impl Kind {
    /// That of a data set.
    pub fn of(data: &dyn Dataset) -> Self {
        if matches!(data.shape(), ItemShape::Image { .. }) { Self::Picture } else { Self::Row }
    }
}

impl Measure {
    /// The column of the measure.
    pub fn column(self) -> &'static str {
        match self {
            Self::LogLikelihood => "log_likelihood",
            Self::ComplexityBits => "complexity_bits",
            Self::Corrected => "corrected",
            Self::LikelihoodRatio => "likelihood_ratio",
        }
    }

    /// The columns of its p-values, and which values are unusual by each.
    pub(super) fn sides(self) -> &'static [(&'static str, Side)] {
        match self {
            Self::LogLikelihood => &[("typicality", Side::Both), ("p_likelihood", Side::Low)],
            Self::ComplexityBits => &[("p_complexity", Side::Both)],
            Self::Corrected => &[("p_corrected", Side::Both)],
            Self::LikelihoodRatio => &[("p_ratio", Side::Low)],
        }
    }

    /// The columns of its p-values.
    pub fn p_columns(self) -> impl Iterator<Item = &'static str> {
        self.sides().iter().map(|(column, _)| *column)
    }

    /// The p-value that takes part in `unusual`.
    pub(super) fn counts(self, kind: Kind) -> &'static str {
        match (self, kind) {
            (Self::LogLikelihood, Kind::Picture) => "typicality",
            (Self::LogLikelihood, Kind::Row) => "p_likelihood",
            (Self::ComplexityBits, _) => "p_complexity",
            (Self::Corrected, _) => "p_corrected",
            (Self::LikelihoodRatio, _) => "p_ratio",
        }
    }

    /// Whether it is high where an item is unusual: false of a complexity, which has no direction.
    pub fn is_unusual_high(self) -> bool {
        self == Self::Corrected
    }
}

/// Measures of items, each a number an item. NaN stands where there is none, which is as unusual as can be.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Measures(pub BTreeMap<Measure, Vec<f64>>);

impl Measures {
    /// The values of a measure.
    pub fn get(&self, measure: Measure) -> Option<&[f64]> {
        self.0.get(&measure).map(Vec::as_slice)
    }

    /// Number of items.
    pub fn len(&self) -> usize {
        self.0.values().next().map_or(0, Vec::len)
    }

    /// No item.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The same with the likelihood ratio to a background model's log-likelihoods of the same items.
    #[must_use]
    pub fn minus(mut self, background: &[f64]) -> Self {
        if let Some(own) = self.get(Measure::LogLikelihood) {
            let ratio = own.iter().zip(background).map(|(own, background)| own - background).collect();
            self.0.insert(Measure::LikelihoodRatio, ratio);
        }
        self
    }
}

/// Scores every item ([`score`](crate::score)) and measures it.
///
/// The log-likelihoods of the measures are those of the items as they are in the data: of discrete data the bound by
/// uniform dequantisation on the log of the probability of the levels, in nats.
///
/// # Errors
/// As [`score`](crate::score); pictures that cannot be coded.
pub fn measure<E: SpecScalar>(
    model: &Model<E>,
    data: &dyn Dataset,
    events: &Events,
    options: &EvaluateOptions,
) -> Result<(Scores, Measures)> {
    let mut complexity = (Kind::of(data) == Kind::Picture && events.levels().is_some()).then(Vec::new);
    let mut each = |batch: &Batch| -> Result<()> {
        if let (Some(complexity), Values::Levels(levels), Some(dequantiser)) = (&mut complexity, &batch.values, events.dequantiser()) {
            let modelled: Vec<u8> = levels.iter().map(|level| dequantiser.modelled(*level)).collect();
            let shape = data.shape();
            let bits = modelled.par_chunks_exact(shape.dims().max(1)).map(|picture| complexity_bits(picture, shape));
            complexity.extend(bits.collect::<Result<Vec<f64>>>()?);
        }
        Ok(())
    };
    let scores = score_with(model, data, events, options, &AtomicBool::new(false), &mut each)?;
    let unit_of_nats = events.report(0.0) - events.report(1.0);
    let log_likelihood: Vec<f64> = scores.log_likelihood.iter().map(|density| -events.report(*density) / unit_of_nats).collect();
    let mut measures = BTreeMap::new();
    if let Some(complexity) = complexity {
        let corrected = log_likelihood.iter().zip(&complexity).map(|(density, bits)| -density / LN_2 - bits).collect();
        measures.insert(Measure::Corrected, corrected);
        measures.insert(Measure::ComplexityBits, complexity);
    }
    measures.insert(Measure::LogLikelihood, log_likelihood);
    Ok((scores, Measures(measures)))
}
