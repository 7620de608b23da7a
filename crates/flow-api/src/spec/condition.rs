//! What a model is conditioned on, in specs.

use super::{BuildScope, Conditioner, Cost, Given, MAX_SIZE, Mlp, Receivers, SpecError, size_range};
use crate::{FlowError, Scalar};
use serde::{Deserialize, Serialize};

/// What a model is conditioned on: p(x | c) in place of p(x).
///
/// ```
/// use flow_api::spec::{BuildScope, EventShape, Given, ModelSpec, Spec, SpecScalar, from_ron};
/// use flow_api::{Conditions, Context};
/// let spec: Spec<dyn ModelSpec> = from_ron("VectorFlow(flows: [LuLinear()], condition: Classes(embedding: 4))")?;
/// // How many classes there are is what the data say.
/// let scope = BuildScope::new(7).with_given(Given { classes: 3, conditions: 0 });
/// let model = f64::model(&spec, EventShape::Vector(2), &scope)?;
/// let density = |class| model.log_prob(vec![0.3, 0.1], &Context::new(0).given(Conditions::class(class, 1)));
/// assert!(density(2).is_ok() && density(3).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ConditionSpec {
    /// The class of an item.
    Classes(Classes),
    /// Numbers of an item.
    Vector(Vector),
}

/// A learned vector for every class of the data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Classes {
    /// Numbers in a class's vector. Default 16.
    pub embedding: usize,
    /// Widths of the layers of a dense network behind it, the last of which is that of the condition that layers see;
    /// without one they see the class's vector itself. Default none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub network: Vec<usize>,
    /// Which parts of the model see it. Default `All`.
    pub into: Receivers,
    /// Share of the items of a training step whose class is dropped, at least 0 and less than 1: with some, the model
    /// is one of p(x) too. Default 0.
    pub dropped: f64,
}

/// Numbers of the data, in units of their standard deviation over the training items.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Vector {
    /// As of [`Classes`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub network: Vec<usize>,
    /// As of [`Classes`].
    pub into: Receivers,
    /// As of [`Classes`].
    pub dropped: f64,
}

impl Default for Classes {
    fn default() -> Self {
        Self { embedding: 16, network: Vec::new(), into: Receivers::All, dropped: 0.0 }
    }
}

impl ConditionSpec {
    /// Which parts of the model see it.
    pub fn receivers(&self) -> &Receivers {
        match self {
            Self::Classes(classes) => &classes.into,
            Self::Vector(vector) => &vector.into,
        }
    }

    /// Whether data have to have class labels for it; else numbers.
    pub fn is_of_classes(&self) -> bool {
        matches!(self, Self::Classes(_))
    }

    /// Builds what makes vectors of conditions, for data with so many classes or numbers.
    ///
    /// # Errors
    /// [`SpecError::Field`] for data that have none, and for fields that nothing can be built with.
    pub fn build<E: Scalar>(&self, given: Given, scope: &BuildScope) -> Result<Conditioner<E>, SpecError> {
        let (field, has) = match self {
            Self::Classes(_) => ("Classes", given.classes),
            Self::Vector(_) => ("Vector", given.conditions),
        };
        if has == 0 {
            let expected = if self.is_of_classes() { "data with classes" } else { "data with numbers to be conditioned on" };
            return Err(scope.field_error(field, expected, "data without"));
        }
        let (Self::Classes(Classes { network, into, .. }) | Self::Vector(Vector { network, into, .. })) = self;
        if *into == Receivers::Only(Vec::new()) {
            return Err(scope.field_error("into", "at least one part of the model", "none"));
        }
        if let Some(width) = network.iter().find(|width| !(1..=MAX_SIZE).contains(*width)) {
            return Err(scope.field_error("network", format!("widths of {}", size_range(1)), width));
        }
        let numbers = |width: usize| {
            let sizes: Vec<usize> = std::iter::once(width).chain(network.iter().copied()).collect();
            Cost::of_numbers(has.saturating_mul(width).saturating_add(Mlp::<E>::numbers(&sizes)))
        };
        let seed = scope.seed();
        let built = match self {
            Self::Classes(Classes { embedding, dropped, .. }) => {
                let width = scope.size("embedding", *embedding, 1)?;
                scope.affordable(numbers(width))?;
                Conditioner::of_classes(has, width, network, *dropped, seed)
            }
            Self::Vector(Vector { dropped, .. }) => {
                let width = scope.size("Vector", has, 1)?;
                scope.affordable(numbers(width))?;
                Conditioner::of_numbers(width, network, *dropped, seed)
            }
        };
        built.map_err(|error| match error {
            FlowError::Setting { field, expected, got, .. } => scope.field_error(field, expected, got),
            other => other.into(),
        })
    }
}
