//! Specs of base densities.

use super::{BaseSpec, BuildBase, BuildScope, Receiver, Spec, SpecError, SpecScalar};
use crate::bases::BaseDensity;
use crate::{FlowError, bases, register_base};
use serde::{Deserialize, Serialize};

impl Default for BaseSpec {
    fn default() -> Self {
        Spec(Box::new(StandardNormal))
    }
}

impl BaseSpec {
    /// Builds the density on R^dim. Where the model's condition is to enter the base density, one that takes none
    /// itself is moved and scaled by it, as [`Conditional`] does.
    ///
    /// # Errors
    /// As [`BuildBase::build`].
    pub fn build<E: SpecScalar>(&self, dim: usize, scope: &BuildScope) -> Result<Box<dyn BaseDensity<E>>, SpecError> {
        let Some(width) = scope.condition(Receiver::Base) else { return E::base(self, dim, scope) };
        // Under which paths it is saved is known when it is known whether it is a part of another.
        let base = E::base(self, dim, &scope.clone().for_none_saved())?;
        let (low, high) = base.support();
        // A density on a box stays as it is.
        let is_boxed = (low.is_finite() || high.is_finite()) && !scope.names(Receiver::Base);
        let base: Box<dyn BaseDensity<E>> = match base.condition() {
            None if !is_boxed => Box::new(bases::Conditional::new(base, width).map_err(|e| located(scope, e))?),
            _ => base,
        };
        scope.is_as_saved(&base).map(|()| base)
    }

    /// Numbers that the density on R^dim holds at the least.
    pub fn numbers(&self, dim: usize) -> usize {
        self.0.numbers(dim)
    }
}

/// The error of a constructor, with its place in the spec.
fn located(scope: &BuildScope, error: FlowError) -> SpecError {
    match error {
        FlowError::Setting { field, expected, got, .. } => scope.field_error(field, expected, got),
        other => other.into(),
    }
}

/// [`bases::StandardNormal`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StandardNormal;
register_base!(StandardNormal);

impl BuildBase for StandardNormal {
    fn build<E: SpecScalar>(&self, dim: usize, _: &BuildScope) -> Result<Box<dyn BaseDensity<E>>, SpecError> {
        Ok(Box::new(bases::StandardNormal::new(dim)))
    }
}

/// [`bases::DiagonalNormal`], with learned mean and scale.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiagonalNormal;
register_base!(DiagonalNormal);

impl BuildBase for DiagonalNormal {
    fn build<E: SpecScalar>(&self, dim: usize, _: &BuildScope) -> Result<Box<dyn BaseDensity<E>>, SpecError> {
        Ok(Box::new(bases::DiagonalNormal::new(dim)))
    }

    fn numbers(&self, dim: usize) -> usize {
        dim.saturating_mul(2)
    }
}

/// [`bases::Logistic`], with learned location and scale.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Logistic;
register_base!(Logistic);

impl BuildBase for Logistic {
    fn build<E: SpecScalar>(&self, dim: usize, _: &BuildScope) -> Result<Box<dyn BaseDensity<E>>, SpecError> {
        Ok(Box::new(bases::Logistic::new(dim)))
    }

    fn numbers(&self, dim: usize) -> usize {
        dim.saturating_mul(2)
    }
}

/// [`bases::StudentT`], with learned degrees of freedom.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StudentT {
    /// Degrees of freedom that all features start with.
    pub degrees: f64,
}
register_base!(StudentT);

impl Default for StudentT {
    fn default() -> Self {
        Self { degrees: 5.0 }
    }
}

impl BuildBase for StudentT {
    fn build<E: SpecScalar>(&self, dim: usize, scope: &BuildScope) -> Result<Box<dyn BaseDensity<E>>, SpecError> {
        Ok(Box::new(bases::StudentT::new(dim, scope.positive("degrees", self.degrees)?)?))
    }

    fn numbers(&self, dim: usize) -> usize {
        dim
    }
}

/// [`bases::Mixture`], of normal densities.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mixture {
    /// Normal densities.
    pub components: usize,
}
register_base!(Mixture);

impl BuildBase for Mixture {
    fn build<E: SpecScalar>(&self, dim: usize, scope: &BuildScope) -> Result<Box<dyn BaseDensity<E>>, SpecError> {
        Ok(Box::new(bases::Mixture::new(dim, scope.size("components", self.components, 1)?, scope.seed())?))
    }

    fn numbers(&self, dim: usize) -> usize {
        // More components are refused for themselves.
        if self.components > super::MAX_SIZE { 0 } else { dim.saturating_mul(2).saturating_add(1).saturating_mul(self.components) }
    }
}

/// [`bases::Uniform`], on a box.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Uniform {
    /// The least that a number of a latent can be.
    pub low: f64,
    /// The most.
    pub high: f64,
}
register_base!(Uniform);

impl BuildBase for Uniform {
    fn build<E: SpecScalar>(&self, dim: usize, scope: &BuildScope) -> Result<Box<dyn BaseDensity<E>>, SpecError> {
        Ok(Box::new(bases::Uniform::new(dim, E::of(self.low), E::of(self.high)).map_err(|e| located(scope, e))?))
    }
}

/// [`bases::Conditional`]: another density, with shift and scale from the condition.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Conditional {
    /// The density that is moved and scaled.
    pub base: BaseSpec,
    /// Width of the condition; by default that of the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<usize>,
}
register_base!(Conditional);

impl BuildBase for Conditional {
    fn build<E: SpecScalar>(&self, dim: usize, scope: &BuildScope) -> Result<Box<dyn BaseDensity<E>>, SpecError> {
        let Some(condition) = self.condition.or_else(|| scope.condition(Receiver::Base)) else {
            return Err(scope.field_error("condition", format!("{}, or a model with a condition", super::size_range(1)), "none"));
        };
        let condition = scope.size("condition", condition, 1)?;
        let base = self.base.build::<E>(dim, &scope.child("base").without_condition())?;
        Ok(Box::new(bases::Conditional::new(base, condition).map_err(|e| located(scope, e))?))
    }

    fn numbers(&self, dim: usize) -> usize {
        let condition = self.condition.unwrap_or(1);
        let rows = if condition > super::MAX_SIZE { 0 } else { dim.saturating_mul(2) };
        rows.saturating_mul(condition.saturating_add(1)).saturating_add(self.base.numbers(dim))
    }
}
