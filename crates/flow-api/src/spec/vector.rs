//! A flow on vectors: row flows one after the other.

use super::{
    BaseSpec, BuildModel, BuildScope, ConditionSpec, Cost, EventShape, FlowSpec, MAX_LAYERS, Model, ObjectiveSpec, Preprocessing,
    SpecError, SpecScalar, build_flows,
};
use crate::register_model;
use crate::rows::Rows;
use serde::{Deserialize, Serialize};

/// A density on R^d: `flows`, repeated `repeat` times, and a base. For tabular data and 2-D sets.
///
/// ```
/// use flow_api::spec::{EventShape, ModelSpec, Spec, from_ron};
/// let spec: Spec<dyn ModelSpec> = from_ron("VectorFlow(repeat: 3, flows: [ActNorm(), LuLinear(permutation: Reverse)])")?;
/// let model = spec.build::<f64>(EventShape::Vector(2), 7)?;
/// assert_eq!(model.describe()?.len(), 6);
/// # Ok::<(), flow_api::spec::SpecError>(())
/// ```
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VectorFlow {
    /// The flows of one round, data to latent.
    pub flows: Vec<FlowSpec>,
    /// Rounds.
    #[serde(default = "one")]
    pub repeat: usize,
    /// The base density.
    #[serde(default)]
    pub base: BaseSpec,
    /// What happens to data before the flow sees them.
    #[serde(default)]
    pub preprocessing: Preprocessing,
    /// What the model is trained for.
    #[serde(default, skip_serializing_if = "ObjectiveSpec::is_likelihood")]
    pub objective: ObjectiveSpec,
    /// What it is conditioned on, if it is on anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<ConditionSpec>,
}
register_model!(VectorFlow);

fn one() -> usize {
    1
}

impl BuildModel for VectorFlow {
    fn build<E: SpecScalar>(&self, event: EventShape, scope: &BuildScope) -> Result<Model<E>, SpecError> {
        let EventShape::Vector(dim) = event else {
            return Err(SpecError::Event { path: "VectorFlow".to_owned(), expected: "vectors", got: event.to_string() });
        };
        let (base, scope) = (scope.child("base"), scope.child("bijector"));
        scope.layers("repeat", self.repeat)?;
        scope.size("flows", self.flows.len(), 1)?;
        let repeated: Vec<FlowSpec> = std::iter::repeat_n(&self.flows, self.repeat).flatten().cloned().collect();
        let chain = build_flows::<E>(&repeated, dim, 0, &scope)?;
        Ok(Model::new(Box::new(Rows(chain)), self.base.build::<E>(dim, &base)?, event)?)
    }

    fn condition(&self) -> Option<&ConditionSpec> {
        self.condition.as_ref()
    }

    fn preprocessing(&self) -> Preprocessing {
        self.preprocessing.clone()
    }

    fn objective(&self) -> ObjectiveSpec {
        self.objective.clone()
    }

    fn cost(&self, event: EventShape) -> Cost {
        if self.repeat > MAX_LAYERS {
            // It is refused for itself.
            return Cost::default();
        }
        let base = Cost { numbers: self.base.numbers(event.len()), ..Cost::default() };
        Cost::of_flows(&self.flows, event.len()).times(self.repeat).and(base)
    }
}
