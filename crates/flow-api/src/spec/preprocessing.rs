//! What happens to data before a model sees them.

use super::Bounds;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// How data become the continuous events of a model: levels of pictures are dequantised, columns of real numbers
/// standardised. It is part of the spec because a density is one of preprocessed data: with another preprocessing, the
/// same weights are another model. Every part of it is counted in bits/dim or nats.
///
/// ```
/// use flow_api::spec::{from_ron, ModelSpec, Spec};
/// let spec: Spec<dyn ModelSpec> = from_ron("VectorFlow(flows: [ActNorm()], preprocessing: (bits: 5, logit: 0.05))")?;
/// assert_eq!((spec.preprocessing().bits, spec.preprocessing().flip), (Some(5), false));
/// let spec: Spec<dyn ModelSpec> = from_ron(r#"VectorFlow(flows: [ActNorm()], preprocessing: (bounds: {"income": Log()}, discrete: ["children"]))"#)?;
/// assert!(spec.preprocessing().discrete.contains("children"));
/// # Ok::<(), flow_api::spec::SpecError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Preprocessing {
    /// The data's number of levels, if the spec is to fix it; else it is what the data say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub levels: Option<u32>,
    /// Keep only the highest bits, 1 to 8, of values of 256 levels: `5` makes 32 levels. All if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bits: Option<u32>,
    /// Map to all of ℝ by the logit with this α, 0 ≤ α < ½ (usual: 0.05 for colour pictures, 1e-6 for MNIST). If not
    /// given, values are mapped to (−½, ½).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logit: Option<f64>,
    /// Mirror every picture left to right with probability ½ in training. It changes what is modelled (pictures and
    /// their mirror images), so it is left out of evaluation.
    pub flip: bool,
    /// Standardise real numbers, each column of a vector and each channel of a picture, by mean and spread over all
    /// training items ([`Standardiser`](crate::spec::Standardiser)). If not given, real numbers are standardised where
    /// a model is trained on them from the start, and are not in models of versions that did not do so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub standardise: Option<bool>,
    /// Where the values of columns can lie, by the names of columns, or by their numbers counted from 1.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub bounds: BTreeMap<String, Bounds>,
    /// Columns of whole numbers that are dequantised with uniform noise, x + u, so that in expectation the density of
    /// x + u is a lower bound on the probability of x. By names, or numbers.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub discrete: BTreeSet<String>,
}

impl Preprocessing {
    /// The first field that is set and that levels have no use for, with its value.
    pub fn of_reals(&self) -> Option<(&'static str, String)> {
        let Self { standardise, bounds, discrete, .. } = self;
        let standardise = standardise.filter(|on| *on).map(|on| ("preprocessing.standardise", on.to_string()));
        let bounds = (!bounds.is_empty()).then(|| ("preprocessing.bounds", format!("{bounds:?}")));
        let discrete = (!discrete.is_empty()).then(|| ("preprocessing.discrete", format!("{discrete:?}")));
        standardise.or(bounds).or(discrete)
    }

    /// The first field that is set and that real numbers have no use for, with its value.
    pub fn of_levels(&self) -> Option<(&'static str, String)> {
        let Self { levels, bits, logit, flip, .. } = *self;
        let levels = levels.map(|levels| ("preprocessing.levels", levels.to_string()));
        let bits = bits.map(|bits| ("preprocessing.bits", bits.to_string()));
        let logit = logit.map(|logit| ("preprocessing.logit", logit.to_string()));
        levels.or(bits).or(logit).or(flip.then(|| ("preprocessing.flip", flip.to_string())))
    }
}
