//! The number types that specs build models in.

use super::{BaseSpec, FlowSpec, ModelSpec, SampleSpec, Spec};
use crate::bases::BaseDensity;
use crate::samples::{Grid, SampleLayer};
use crate::spec::{BuildScope, EventShape, MAX_EVENT, Model, SpecError};
use crate::{Result, RowFlow, Scalar};

/// A number type that specs build models in: `f32` or `f64`.
pub trait SpecScalar: Scalar {
    /// Builds a row flow in this type.
    ///
    /// # Errors
    /// As [`BuildRowFlow::build`](super::BuildRowFlow::build).
    fn row_flow(spec: &FlowSpec, dim: usize, scope: &BuildScope) -> Result<Box<dyn RowFlow<Self>>, SpecError>;

    /// Builds a base density in this type.
    ///
    /// # Errors
    /// As [`BuildBase::build`](super::BuildBase::build).
    fn base(spec: &BaseSpec, dim: usize, scope: &BuildScope) -> Result<Box<dyn BaseDensity<Self>>, SpecError>;

    /// Builds maps of whole samples in this type.
    ///
    /// # Errors
    /// As [`BuildSampleFlow::build`](super::BuildSampleFlow::build).
    fn sample_flow(spec: &SampleSpec, grid: &Grid, scope: &BuildScope) -> Result<Vec<SampleLayer<Self>>, SpecError>;

    /// Builds a model in this type.
    ///
    /// # Errors
    /// As [`BuildModel::build`](super::BuildModel::build).
    fn model(spec: &Spec<dyn ModelSpec>, event: EventShape, scope: &BuildScope) -> Result<Model<Self>, SpecError>;
}

macro_rules! spec_scalar {
    ($($scalar:ty, $row_flow:ident, $base:ident, $sample_flow:ident, $model:ident;)*) => { $(
        impl SpecScalar for $scalar {
            fn row_flow(spec: &FlowSpec, dim: usize, scope: &BuildScope) -> Result<Box<dyn RowFlow<Self>>, SpecError> {
                scope.counted(|parts| spec.$row_flow(dim, parts), |part| scope.held(part))
            }
            fn base(spec: &BaseSpec, dim: usize, scope: &BuildScope) -> Result<Box<dyn BaseDensity<Self>>, SpecError> {
                scope.counted(|parts| spec.$base(dim, parts), |part| scope.held(part))
            }
            fn sample_flow(spec: &SampleSpec, grid: &Grid, scope: &BuildScope) -> Result<Vec<SampleLayer<Self>>, SpecError> {
                // Each flow has its path below the spec's own, which is empty for the only one.
                let held = |(path, flow): &(String, Box<dyn crate::SampleFlow<Self>>)| {
                    if path.is_empty() { scope.held(flow) } else { scope.child(path).held(flow) }
                };
                scope.counted(|parts| spec.$sample_flow(grid, parts), |layers| layers.iter().flatten().map(held).sum())
            }
            fn model(spec: &Spec<dyn ModelSpec>, event: EventShape, scope: &BuildScope) -> Result<Model<Self>, SpecError> {
                if event.len() > MAX_EVENT {
                    return Err(SpecError::Event { path: spec.kind().to_owned(), expected: "at most 67,108,864 numbers", got: event.to_string() });
                }
                scope.child("bijector").affordable(spec.cost(event))?;
                let preprocessing = spec.preprocessing();
                let Some(condition) = spec.condition() else {
                    let model = spec.$model(event, &scope.of_model())?.with_preprocessing(preprocessing);
                    return spec.objective().add_to(model, scope);
                };
                let of_condition = scope.child("condition");
                let conditioner = condition.build::<Self>(scope.given(), &of_condition)?;
                let parts = scope.of_model().with_condition(conditioner.width(), condition.receivers().clone());
                let model = spec.$model(event, &parts)?.with_preprocessing(preprocessing);
                if model.condition().is_none() {
                    let expected = "parts that the model has, and that can see a condition";
                    return Err(of_condition.field_error("into", expected, condition.receivers()));
                }
                spec.objective().add_to(model.with_conditioner(conditioner)?, scope)
            }
        }
    )* };
}
spec_scalar! {
    f32, row_flow_f32, base_f32, sample_flow_f32, model_f32;
    f64, row_flow_f64, base_f64, sample_flow_f64, model_f64;
}
