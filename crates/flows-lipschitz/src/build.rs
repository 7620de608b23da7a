//! From the spec to the flow.

use crate::flow::ResidualFlow;
use crate::spec::Residual;
use crate::spectral::{AT_CREATION, VECTORS};
use flow_api::spec::{BuildRowFlow, BuildScope, Cost, MAX_SIZE, Receiver, SpecError, SpecScalar};
use flow_api::{FlowError, RowFlow, register_row_flow};

register_row_flow!(Residual);

impl BuildRowFlow for Residual {
    fn build<E: SpecScalar>(&self, dim: usize, scope: &BuildScope) -> Result<Box<dyn RowFlow<E>>, SpecError> {
        let condition = self.condition.or_else(|| scope.condition(Receiver::Residual));
        match ResidualFlow::<E>::new(&Residual { condition, ..self.clone() }, dim, scope.seed()) {
            Ok(flow) => Ok(Box::new(flow)),
            Err(FlowError::Setting { field, expected, got, .. }) => Err(scope.child("Residual").field_error(field, expected, got)),
            Err(other) => Err(other.into()),
        }
    }

    fn cost(&self, dim: usize) -> Cost {
        let numbers = Cost::weights(dim, self.hidden, self.layers.saturating_sub(1), dim);
        let iterations = self.power_iteration.iterations.clamp(AT_CREATION, MAX_SIZE);
        // Every vector goes through the weights and back.
        let preparation = numbers.saturating_mul(2 * VECTORS).saturating_mul(iterations);
        Cost { preparation, ..Cost::of_numbers(numbers) }
    }
}
