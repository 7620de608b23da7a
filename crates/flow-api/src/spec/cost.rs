//! What specs cost, told and bounded before anything is built.

use super::limits::MAX_WEIGHTS;

/// The most flows that a model can have: each takes some hundred bytes, whatever it does.
pub const MAX_FLOWS: usize = 1 << 14;

/// The most numbers that a model can hold, parameters and other state: with gradients and moments 8 GiB in f32.
pub const MAX_NUMBERS: usize = 1 << 29;

/// The most multiply-adds that building a model can take: some minutes of one core.
pub const MAX_PREPARATION: usize = 1 << 39;

/// What a flow or a model costs, at the least.
///
/// ```
/// use flow_api::spec::{Cost, EventShape, ModelSpec, Spec, from_ron};
/// let spec: Spec<dyn ModelSpec> = from_ron("VectorFlow(repeat: 3, flows: [LuLinear()])")?;
/// assert_eq!(spec.cost(EventShape::Vector(10)), Cost { flows: 3, numbers: 3 * 10 * 10, preparation: 0 });
/// let huge: Spec<dyn ModelSpec> = from_ron("VectorFlow(repeat: 2048, flows: [Permutation(order: Random)])")?;
/// let error = huge.build::<f32>(EventShape::Vector(1 << 20), 7).unwrap_err();
/// assert_eq!(error.to_string(), "bijector: numbers: expected at most 536870912 in all, parameters and other state, got 2147483648");
/// # Ok::<(), flow_api::spec::SpecError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Flows.
    pub flows: usize,
    /// Numbers that are held: parameters, permutations, vectors of power iterations.
    pub numbers: usize,
    /// Multiply-adds before the first pass, such as those of spectral norms.
    pub preparation: usize,
}

impl Cost {
    /// That of one flow that holds so many numbers.
    pub const fn of_numbers(numbers: usize) -> Self {
        Self { flows: 1, numbers, preparation: 0 }
    }

    /// Both together.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self {
            flows: self.flows.saturating_add(other.flows),
            numbers: self.numbers.saturating_add(other.numbers),
            preparation: self.preparation.saturating_add(other.preparation),
        }
    }

    /// So many times.
    #[must_use]
    pub const fn times(self, times: usize) -> Self {
        Self {
            flows: self.flows.saturating_mul(times),
            numbers: self.numbers.saturating_mul(times),
            preparation: self.preparation.saturating_mul(times),
        }
    }

    /// Weights of a network with `hidden_layers` layers of `hidden` units, at the least. None for more than
    /// [`MAX_WEIGHTS`]: such a network is refused for itself, by a message that names the field.
    pub const fn weights(input: usize, hidden: usize, hidden_layers: usize, output: usize) -> usize {
        let weights = if hidden_layers == 0 {
            input.saturating_mul(output)
        } else {
            let inner = hidden.saturating_mul(hidden_layers - 1);
            hidden.saturating_mul(input.saturating_add(output).saturating_add(inner))
        };
        if weights > MAX_WEIGHTS { 0 } else { weights }
    }
}
