//! Maps of whole samples that a spec can name.

use super::SpecScalar;
use crate::samples::{Grid, SampleLayer};
use crate::spec::{BuildScope, Cost, SpecError};

/// What the author of a spec of maps of whole samples writes; [`register_sample_flow!`](crate::register_sample_flow)
/// makes a [`SampleFlowSpec`] of it.
///
/// It builds layers on a [`Grid`], the channels and places that the maps before it left, and says which grid the maps
/// behind it get. The spec's type has serde's derives, and `typetag` is among the crate's dependencies:
///
/// ```
/// use flow_api::samples::{Grid, SampleLayer, Side};
/// use flow_api::spec::{
///     BuildSampleFlow, BuildScope, EventShape, ModelSpec, Spec, SpecError, SpecScalar, from_ron, one_flow,
/// };
/// use flow_api::{layers, register_sample_flow};
/// use serde::{Deserialize, Serialize};
///
/// /// The channels of every place in the opposite order.
/// #[derive(Clone, Debug, Serialize, Deserialize)]
/// #[serde(deny_unknown_fields)]
/// struct Opposite {}
/// register_sample_flow!(Opposite);
///
/// impl BuildSampleFlow for Opposite {
///     fn build<E: SpecScalar>(&self, grid: &Grid, _: &BuildScope) -> Result<Vec<SampleLayer<E>>, SpecError> {
///         Ok(one_flow(Side::new::<E>(grid.pixels()?, layers::Permutation::reverse(grid.channels()))?))
///     }
/// }
///
/// # fn main() -> Result<(), SpecError> {
/// let spec: Spec<dyn ModelSpec> = from_ron("ImageFlow(flows: [Squeeze(), Opposite()])")?;
/// let model = spec.build::<f64>(EventShape::Image { channels: 1, height: 2, width: 2 }, 7)?;
/// let layer = &model.describe()?[0];
/// assert_eq!((layer.path.as_str(), layer.input.as_slice()), ("bijector.1", &[4][..])); // one place of four channels
/// # Ok(())
/// # }
/// ```
pub trait BuildSampleFlow {
    /// Builds the maps on this grid with their initial parameters: layers of flows, each with its path below the
    /// spec's own, which is empty for [the only one](crate::spec::one_flow).
    ///
    /// # Errors
    /// [`SpecError::Field`] for values that no map can be built with.
    fn build<E: SpecScalar>(&self, grid: &Grid, scope: &BuildScope) -> Result<Vec<SampleLayer<E>>, SpecError>;

    /// The grid that the maps behind work on: by default the same.
    ///
    /// # Errors
    /// [`SpecError`] for a grid that these maps cannot work on.
    fn output(&self, grid: &Grid, scope: &BuildScope) -> Result<Grid, SpecError> {
        let _ = scope;
        Ok(grid.clone())
    }

    /// What the maps will cost at the least, for any fields; as [`BuildRowFlow::cost`](super::BuildRowFlow::cost).
    fn cost(&self, grid: &Grid) -> Cost {
        let _ = grid;
        Cost::of_numbers(0)
    }

    /// How many of the flows leave some channels as they are, which ones by their place among all flows that do so:
    /// [`BuildScope::index`] counts those, and those alone. Default none.
    fn turns(&self) -> usize {
        0
    }
}

/// Maps of whole samples that a spec can name.
///
/// Not implemented by hand: implement [`BuildSampleFlow`] and call
/// [`register_sample_flow!`](crate::register_sample_flow).
#[typetag::deserialize]
pub trait SampleFlowSpec: erased_serde::Serialize + std::fmt::Debug + Send + Sync {
    /// Name of the kind, as in RON.
    fn kind(&self) -> &'static str;
    /// The grid that the maps behind work on.
    ///
    /// # Errors
    /// As [`BuildSampleFlow::output`].
    fn output(&self, grid: &Grid, scope: &BuildScope) -> Result<Grid, SpecError>;
    /// What the maps cost on this grid.
    fn cost(&self, grid: &Grid) -> Cost;
    /// As [`BuildSampleFlow::turns`].
    fn turns(&self) -> usize;
    /// Builds the maps in f32.
    ///
    /// # Errors
    /// As [`BuildSampleFlow::build`].
    fn sample_flow_f32(&self, grid: &Grid, scope: &BuildScope) -> Result<Vec<SampleLayer<f32>>, SpecError>;
    /// Builds the maps in f64.
    ///
    /// # Errors
    /// As [`BuildSampleFlow::build`].
    fn sample_flow_f64(&self, grid: &Grid, scope: &BuildScope) -> Result<Vec<SampleLayer<f64>>, SpecError>;
    /// A copy.
    fn boxed_clone(&self) -> Box<dyn SampleFlowSpec>;
}

/// Registers a spec type, which implements [`BuildSampleFlow`](crate::spec::BuildSampleFlow), serde's traits, `Clone`
/// and `Debug`, under its own name.
///
/// The calling crate needs `typetag` among its dependencies. [`BuildSampleFlow`](crate::spec::BuildSampleFlow) has an
/// example.
#[macro_export]
macro_rules! register_sample_flow {
    ($spec:ident) => {
        #[::typetag::deserialize]
        impl $crate::spec::SampleFlowSpec for $spec {
            fn kind(&self) -> &'static str {
                stringify!($spec)
            }
            fn output(
                &self,
                grid: &$crate::samples::Grid,
                scope: &$crate::spec::BuildScope,
            ) -> $crate::Result<$crate::samples::Grid, $crate::spec::SpecError> {
                $crate::spec::BuildSampleFlow::output(self, grid, scope)
            }
            fn cost(&self, grid: &$crate::samples::Grid) -> $crate::spec::Cost {
                $crate::spec::BuildSampleFlow::cost(self, grid)
            }
            fn turns(&self) -> usize {
                $crate::spec::BuildSampleFlow::turns(self)
            }
            fn sample_flow_f32(
                &self,
                grid: &$crate::samples::Grid,
                scope: &$crate::spec::BuildScope,
            ) -> $crate::Result<Vec<$crate::samples::SampleLayer<f32>>, $crate::spec::SpecError> {
                $crate::spec::BuildSampleFlow::build(self, grid, scope)
            }
            fn sample_flow_f64(
                &self,
                grid: &$crate::samples::Grid,
                scope: &$crate::spec::BuildScope,
            ) -> $crate::Result<Vec<$crate::samples::SampleLayer<f64>>, $crate::spec::SpecError> {
                $crate::spec::BuildSampleFlow::build(self, grid, scope)
            }
            fn boxed_clone(&self) -> Box<dyn $crate::spec::SampleFlowSpec> {
                Box::new(self.clone())
            }
        }
    };
}
