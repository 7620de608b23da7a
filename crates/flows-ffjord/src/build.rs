//! From the spec to the flow.

use crate::flow::ContinuousFlow;
use crate::spec::Ffjord;
use flow_api::spec::{BuildRowFlow, BuildScope, Cost, Receiver, SpecError, SpecScalar};
use flow_api::{FlowError, RowFlow, register_row_flow};

register_row_flow!(Ffjord);

impl BuildRowFlow for Ffjord {
    fn build<E: SpecScalar>(&self, dim: usize, scope: &BuildScope) -> Result<Box<dyn RowFlow<E>>, SpecError> {
        let condition = self.condition.or_else(|| scope.condition(Receiver::Continuous));
        match ContinuousFlow::<E>::new(&Ffjord { condition, ..self.clone() }, dim, scope.seed()) {
            Ok(flow) => Ok(Box::new(flow)),
            Err(FlowError::Setting { field, expected, got, .. }) => Err(scope.child("Ffjord").field_error(field, expected, got)),
            Err(other) => Err(other.into()),
        }
    }

    fn cost(&self, dim: usize) -> Cost {
        Cost::of_numbers(Cost::weights(dim, self.hidden, self.layers, dim))
    }
}
