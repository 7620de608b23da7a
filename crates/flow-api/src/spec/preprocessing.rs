//! What happens to data before a model sees them.

use serde::{Deserialize, Serialize};

/// How discrete levels become the continuous events of a model. It is part of the spec because a density is one of preprocessed data: with another preprocessing, the same weights are another model.
/// Every part of it is counted in bits/dim.
///
/// ```
/// use flow_api::spec::{from_ron, ModelSpec, Spec};
/// let spec: Spec<dyn ModelSpec> = from_ron("VectorFlow(flows: [ActNorm()], preprocessing: (bits: 5, logit: 0.05))")?;
/// assert_eq!((spec.0.preprocessing().bits, spec.0.preprocessing().flip), (Some(5), false));
/// # Ok::<(), flow_api::spec::SpecError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Preprocessing {
    /// The data's number of levels, if the spec is to fix it; else it is what the data say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub levels: Option<u32>,
    /// Keep only the highest bits, 1 to 8, of values of 256 levels: `5` makes 32 levels. All if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bits: Option<u32>,
    /// Map to all of ℝ by the logit with this α, 0 ≤ α < ½ (usual: 0.05 for colour pictures, 1e-6 for MNIST). If not given, values are mapped to (−½, ½).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logit: Option<f64>,
    /// Mirror every picture left to right with probability ½ in training. It changes what is modelled (pictures and their mirror images), so it is left out of evaluation.
    pub flip: bool,
}
