//! Models that a spec file can hold.

use super::{Spec, SpecScalar};
use crate::Result;
use crate::spec::{BuildScope, ConditionSpec, Cost, EventShape, Model, ObjectiveSpec, Preprocessing, SpecError};

/// What the author of a model's spec writes; [`register_model!`](crate::register_model) makes a [`ModelSpec`] of it.
pub trait BuildModel {
    /// Builds the model for events of this shape.
    ///
    /// # Errors
    /// [`SpecError`] for data or fields that no model can be built for.
    fn build<E: SpecScalar>(&self, event: EventShape, scope: &BuildScope) -> Result<Model<E>, SpecError>;

    /// What the model will cost at the least, for any fields; as [`BuildRowFlow::cost`](super::BuildRowFlow::cost).
    fn cost(&self, event: EventShape) -> Cost {
        let _ = event;
        Cost::default()
    }

    /// The shape of events that the spec itself states, if it does.
    fn event(&self) -> Option<EventShape> {
        None
    }

    /// What the model is conditioned on, if it is on anything: who builds the model builds what makes vectors of
    /// conditions, and tells parts of their width ([`BuildScope::condition`]).
    fn condition(&self) -> Option<&ConditionSpec> {
        None
    }

    /// What happens to data before the model sees them; by default, levels are mapped to (−½, ½).
    fn preprocessing(&self) -> Preprocessing {
        Preprocessing::default()
    }

    /// What the model is trained for; by default, the likelihood alone.
    fn objective(&self) -> ObjectiveSpec {
        ObjectiveSpec::default()
    }
}

/// A model that a spec file can hold.
///
/// Not implemented by hand: implement [`BuildModel`] and call [`register_model!`](crate::register_model).
#[typetag::deserialize]
pub trait ModelSpec: erased_serde::Serialize + std::fmt::Debug + Send + Sync {
    /// Name of the kind, as in RON.
    fn kind(&self) -> &'static str;
    /// What it costs for events of this shape.
    fn cost(&self, event: EventShape) -> Cost;
    /// The shape of events that the spec itself states, if it does.
    fn event(&self) -> Option<EventShape>;
    /// What it is conditioned on.
    fn condition(&self) -> Option<&ConditionSpec>;
    /// What happens to data before the model sees them.
    fn preprocessing(&self) -> Preprocessing;
    /// What the model is trained for.
    fn objective(&self) -> ObjectiveSpec;
    /// Builds it in f32.
    ///
    /// # Errors
    /// As [`BuildModel::build`].
    fn model_f32(&self, event: EventShape, scope: &BuildScope) -> Result<Model<f32>, SpecError>;
    /// Builds it in f64.
    ///
    /// # Errors
    /// As [`BuildModel::build`].
    fn model_f64(&self, event: EventShape, scope: &BuildScope) -> Result<Model<f64>, SpecError>;
    /// A copy.
    fn boxed_clone(&self) -> Box<dyn ModelSpec>;
}

impl Spec<dyn ModelSpec> {
    /// Builds the model for events of this shape in `f32` or `f64`, with initial parameters drawn from `seed`.
    ///
    /// [`SpecScalar::model`] does the same in a scope of one's own.
    ///
    /// # Errors
    /// As [`BuildModel::build`].
    ///
    /// ```
    /// use flow_api::Context;
    /// use flow_api::spec::{EventShape, ModelSpec, Spec, from_ron};
    /// let spec: Spec<dyn ModelSpec> = from_ron("VectorFlow(flows: [LuLinear()])")?;
    /// let model = spec.build::<f64>(EventShape::Vector(2), 7)?;
    /// // The linear map starts as the identity, so this is the standard normal at its mode: −ln 2π.
    /// let density = model.log_prob(vec![0.0, 0.0], &Context::new(0))?;
    /// assert!((density.value[0] + (2.0 * std::f64::consts::PI).ln()).abs() < 1e-12);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn build<E: SpecScalar>(&self, event: EventShape, seed: u64) -> Result<Model<E>, SpecError> {
        E::model(self, event, &BuildScope::new(seed))
    }
}

/// Registers a spec type, which implements [`BuildModel`](crate::spec::BuildModel), serde's traits, `Clone` and
/// `Debug`, under its own name.
///
/// The calling crate needs `typetag` among its dependencies.
#[macro_export]
macro_rules! register_model {
    ($spec:ident) => {
        #[::typetag::deserialize]
        impl $crate::spec::ModelSpec for $spec {
            fn kind(&self) -> &'static str {
                stringify!($spec)
            }
            fn cost(&self, event: $crate::spec::EventShape) -> $crate::spec::Cost {
                $crate::spec::BuildModel::cost(self, event)
            }
            fn event(&self) -> Option<$crate::spec::EventShape> {
                $crate::spec::BuildModel::event(self)
            }
            fn condition(&self) -> Option<&$crate::spec::ConditionSpec> {
                $crate::spec::BuildModel::condition(self)
            }
            fn preprocessing(&self) -> $crate::spec::Preprocessing {
                $crate::spec::BuildModel::preprocessing(self)
            }
            fn objective(&self) -> $crate::spec::ObjectiveSpec {
                $crate::spec::BuildModel::objective(self)
            }
            fn model_f32(
                &self,
                event: $crate::spec::EventShape,
                scope: &$crate::spec::BuildScope,
            ) -> $crate::Result<$crate::spec::Model<f32>, $crate::spec::SpecError> {
                $crate::spec::BuildModel::build(self, event, scope)
            }
            fn model_f64(
                &self,
                event: $crate::spec::EventShape,
                scope: &$crate::spec::BuildScope,
            ) -> $crate::Result<$crate::spec::Model<f64>, $crate::spec::SpecError> {
                $crate::spec::BuildModel::build(self, event, scope)
            }
            fn boxed_clone(&self) -> Box<dyn $crate::spec::ModelSpec> {
                Box::new(self.clone())
            }
        }
    };
}
