//! What a model is trained for, in specs.

use super::{BuildScope, Head, LastLayer, Mlp, Model, SpecError};
use crate::Scalar;
use crate::bijector::leads_to;
use serde::{Deserialize, Serialize};

/// What a model is trained for.
///
/// ```
/// use flow_api::spec::{BuildScope, EventShape, Given, ModelSpec, Spec, SpecScalar, from_ron};
/// let spec: Spec<dyn ModelSpec> = from_ron(
///     "VectorFlow(flows: [LuLinear()], objective: Hybrid(weight: 0.5, head: Mlp(hidden: 16)))",
/// )?;
/// // The head is as wide as the data have classes.
/// let scope = BuildScope::new(7).with_given(Given { classes: 3, ..Given::default() });
/// let model = f64::model(&spec, EventShape::Vector(2), &scope)?;
/// assert_eq!(model.head().map(|head| head.classes()), Some(3));
/// assert_eq!(
///     spec.build::<f64>(EventShape::Vector(2), 7).unwrap_err().to_string(),
///     "objective: head: expected data with labels of at least 2 classes, got 0 classes",
/// );
/// # Ok::<(), flow_api::spec::SpecError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum ObjectiveSpec {
    /// The likelihood alone.
    Likelihood {},
    /// The likelihood, and beside it the cross-entropy of a classifier: L = bits/dim + `weight` · bits of the label, or
    /// nats/dim + `weight` · nats of the label where the data are real numbers. Both sizes do not depend on how many
    /// numbers an event has, so neither does the weight's meaning.
    ///
    /// The bits of the label are the mean of −log₂ p(label) over those items of a batch that have one; items without
    /// a label count in the likelihood alone.
    ///
    /// Sources: Nalisnick et al. 2019, "Hybrid Models with Deep and Invertible Features" (arXiv:1902.02767), equation
    /// 3; Chen et al. 2019, "Residual Flows" (arXiv:1906.02735), section 5.3, both with a weight on the likelihood's
    /// side.
    Hybrid {
        /// Weight of the label's bits.
        #[serde(default = "one")]
        weight: f64,
        /// The classifier.
        #[serde(default)]
        head: HeadSpec,
        /// The layer whose activations the classifier sees, as `mixerflow inspect` lists them, such as
        /// `bijector.layers.3.channel`; the latents if not given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        layer: Option<String>,
    },
}

/// A classifier on latents or activations.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum HeadSpec {
    /// Logits are a linear map.
    Linear {},
    /// Logits are a dense network ([`Mlp`]).
    Mlp {
        /// Width of its hidden layers.
        hidden: usize,
        /// How many hidden layers it has.
        #[serde(default = "one_layer")]
        layers: usize,
    },
}

fn one() -> f64 {
    1.0
}

fn one_layer() -> usize {
    1
}

impl Default for ObjectiveSpec {
    fn default() -> Self {
        Self::Likelihood {}
    }
}

impl Default for HeadSpec {
    fn default() -> Self {
        Self::Linear {}
    }
}

impl ObjectiveSpec {
    /// Whether it is the likelihood alone, which specs need not name.
    pub fn is_likelihood(&self) -> bool {
        matches!(self, Self::Likelihood {})
    }

    /// The model with what it is trained for.
    pub(super) fn add_to<E: Scalar>(self, model: Model<E>, scope: &BuildScope) -> Result<Model<E>, SpecError> {
        let Self::Hybrid { weight, head, layer } = self else { return Ok(model) };
        let own = scope.child("objective");
        own.positive("weight", weight)?;
        let classes = scope.given().classes;
        if classes < 2 {
            return Err(own.field_error("head", "data with labels of at least 2 classes", format!("{classes} classes")));
        }
        if let Some(layer) = &layer {
            let is_there = layer == "bijector" || model.describe()?.iter().any(|line| leads_to(layer, &line.path));
            if !is_there {
                return Err(own.field_error("layer", "a layer of the model's table", format!("`{layer}`")));
            }
        }
        let mut sizes = vec![model.event().len()];
        if let HeadSpec::Mlp { hidden, layers } = head {
            own.size("head.hidden", hidden, 1)?;
            own.layers("head.layers", layers)?;
            sizes.extend(std::iter::repeat_n(hidden, layers));
        }
        sizes.push(classes);
        let network = Mlp::new(&sizes, LastLayer::Zero, scope.child("head").seed()).map_err(|e| e.in_layer("head"))?;
        Ok(model.with_head(Head::new(network, layer, weight)))
    }
}
