//! From specs to models.

use super::cost::Cost;
use super::model::{EventShape, Model};
use super::preprocessing::Preprocessing;
use super::{BaseSpec, ConditionSpec, FlowSpec, ObjectiveSpec, Receiver, Receivers, SampleSpec, Spec, SpecError};
use crate::bases::BaseDensity;
use crate::module::{Entry, visit};
use crate::samples::{Grid, SampleLayer};
use crate::{Module, Result, RowFlow, Scalar};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The largest number of units or repetitions that a spec can ask for: with more, memory would run out before the
/// mistake is told.
pub const MAX_SIZE: usize = 1 << 14;

/// The most layers that a spec can ask for.
pub const MAX_LAYERS: usize = 1 << 11;

/// The most weights that one network of a spec can have: with layers and widths of up to [`MAX_SIZE`] each, there could
/// be more than any memory holds.
pub const MAX_WEIGHTS: usize = 1 << 28;

/// The most numbers that an event can have.
pub const MAX_EVENT: usize = 1 << 26;

/// The sizes from `least` to [`MAX_SIZE`], in words.
pub fn size_range(least: usize) -> String {
    format!("{least} to {MAX_SIZE}")
}

/// What of the data, besides the shape of events, a model is built for: sizes of what is given with every event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Given {
    /// Classes of the labels, 0 for data without labels.
    pub classes: usize,
    /// Numbers that an event is conditioned on.
    pub conditions: usize,
}

/// Where a flow is built: its dimension, the seed of its parameters, and its place for messages.
#[derive(Clone, Debug)]
pub struct BuildScope {
    seed: u64,
    path: String,
    given: Given,
    /// Width of the condition that the model's parts see, and which parts do.
    condition: Option<(usize, Receivers)>,
    /// How many flows that take turns stand before this one in its list, counted over layers.
    index: usize,
    /// Numbers that the flows hold that were built so far, while a whole model is built.
    numbers: Option<Arc<AtomicUsize>>,
    /// Shapes of the tensors that the model is built for, by path.
    saved: Option<Arc<BTreeMap<String, Vec<usize>>>>,
}

impl BuildScope {
    /// The root of a model.
    pub fn new(seed: u64) -> Self {
        Self { seed, path: String::new(), given: Given::default(), condition: None, index: 0, numbers: None, saved: None }
    }

    /// The same for data with so many classes and conditions.
    #[must_use]
    pub fn with_given(self, given: Given) -> Self {
        Self { given, ..self }
    }

    /// What is given with every event.
    pub fn given(&self) -> Given {
        self.given
    }

    /// The same for parts that see a condition of this width, if they are among the receivers.
    #[must_use]
    pub fn with_condition(self, width: usize, receivers: Receivers) -> Self {
        Self { condition: Some((width, receivers)), ..self }
    }

    /// The same for parts that see no condition but their own.
    #[must_use]
    pub fn without_condition(self) -> Self {
        Self { condition: None, ..self }
    }

    /// Width of the condition that a part of this kind sees, if it is to see one.
    pub fn condition(&self, receiver: Receiver) -> Option<usize> {
        self.condition.as_ref().filter(|(_, receivers)| receivers.includes(receiver)).map(|(width, _)| *width)
    }

    /// Whether a part of this kind is named as one that has to see the condition.
    pub fn names(&self, receiver: Receiver) -> bool {
        self.condition.as_ref().is_some_and(|(_, receivers)| *receivers != Receivers::All && receivers.includes(receiver))
    }

    /// The same for a model that saved tensors of these shapes are loaded into, by their paths: the first flow on rows,
    /// map of whole samples or base that holds others ends the building, so that no more is built than what is there.
    #[must_use]
    pub fn for_saved(self, shapes: BTreeMap<String, Vec<usize>>) -> Self {
        Self { saved: Some(Arc::new(shapes)), ..self }
    }

    /// The same, for whatever was saved.
    #[must_use]
    pub(super) fn for_none_saved(self) -> Self {
        Self { saved: None, ..self }
    }

    /// The scope of a part.
    #[must_use]
    pub fn child(&self, name: impl std::fmt::Display) -> Self {
        let dot = if self.path.is_empty() { "" } else { "." };
        Self { path: format!("{}{dot}{name}", self.path), ..self.clone() }
    }

    /// The same scope for the `index`-th of the flows that take turns ([`BuildRowFlow::takes_turns`]).
    #[must_use]
    pub fn at(mut self, index: usize) -> Self {
        self.index = index;
        self
    }

    /// Whose turn it is: how many flows that take turns ([`BuildRowFlow::takes_turns`]) stand before this one in its
    /// list, and in those of the layers before, whatever their kinds. Couplings move one part of the features where it
    /// is even, and the other where it is odd.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Dotted path of the part, as parameters will have it.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// A seed of this part's own, for its initial parameters and permutations: a function of the model's seed and the
    /// path.
    pub fn seed(&self) -> u64 {
        flow_kernels::noise::Stream::new(self.seed, 0, &self.path).row(0).next_u64()
    }

    /// The error for a field of this part.
    pub fn field_error(&self, field: &'static str, expected: impl Into<String>, got: impl std::fmt::Display) -> SpecError {
        SpecError::Field { path: self.path.clone(), field, expected: expected.into(), got: got.to_string() }
    }

    /// Checks that a size is at least `least` and at most [`MAX_SIZE`].
    ///
    /// # Errors
    /// [`SpecError::Field`].
    pub fn size(&self, field: &'static str, value: usize, least: usize) -> Result<usize, SpecError> {
        if (least..=MAX_SIZE).contains(&value) { Ok(value) } else { Err(self.field_error(field, size_range(least), value)) }
    }

    /// Checks that a number of layers is at least 1 and at most [`MAX_LAYERS`].
    ///
    /// # Errors
    /// [`SpecError::Field`].
    pub fn layers(&self, field: &'static str, value: usize) -> Result<usize, SpecError> {
        if (1..=MAX_LAYERS).contains(&value) { Ok(value) } else { Err(self.field_error(field, format!("1 to {MAX_LAYERS}"), value)) }
    }

    /// The same with a count of numbers of its own.
    fn of_model(&self) -> Self {
        Self { numbers: Some(Arc::default()), ..self.clone() }
    }

    /// Builds a part and counts the numbers that it holds, which a spec from elsewhere may not have told. Its own parts
    /// are built in a scope that counts for itself, so that nothing is counted twice, however many threads build.
    fn counted<M>(
        &self,
        build: impl FnOnce(&Self) -> Result<M, SpecError>,
        held: impl FnOnce(&M) -> Result<usize, SpecError>,
    ) -> Result<M, SpecError> {
        let part = build(&self.of_model())?;
        let own = held(&part)?;
        let all = own + self.numbers.as_deref().map_or(0, |so_far| so_far.fetch_add(own, Ordering::Relaxed));
        self.affordable(Cost::of_numbers(all)).map(|()| part)
    }

    /// The numbers that a part holds, once it is known to hold what was saved of it.
    fn held<E: Scalar>(&self, part: &impl Module<E>) -> Result<usize, SpecError> {
        self.is_as_saved(part)?;
        Ok(numbers_held(part))
    }

    /// Checks that a part holds what was saved of it.
    pub(super) fn is_as_saved<E: Scalar>(&self, part: &impl Module<E>) -> Result<(), SpecError> {
        let Some(saved) = &self.saved else { return Ok(()) };
        let mut other = None;
        visit(part, |inner, entry| {
            let shape = entry.shape();
            let path = self.child(inner).path;
            if other.is_none() && saved.get(&path) != Some(&shape) {
                let expected = saved.get(&path).map_or_else(|| "no such tensor".to_owned(), |shape| format!("{shape:?}"));
                other = Some(SpecError::Field {
                    path,
                    field: "shape",
                    expected: format!("{expected}, as was saved"),
                    got: format!("{shape:?}"),
                });
            }
        });
        other.map_or(Ok(()), Err)
    }

    /// Checks that a number is finite and greater than zero.
    ///
    /// # Errors
    /// [`SpecError::Field`].
    pub fn positive(&self, field: &'static str, value: f64) -> Result<f64, SpecError> {
        if value.is_finite() && value > 0.0 { Ok(value) } else { Err(self.field_error(field, "a finite number greater than 0", value)) }
    }
}

/// Parameters and other state.
pub(super) fn numbers_held<E: Scalar>(module: &(impl Module<E> + ?Sized)) -> usize {
    let mut count = 0;
    visit(module, |_, entry| {
        count += match entry {
            Entry::Parameter { values, .. } | Entry::Reals(values) => values.len(),
            Entry::Doubles(values) => values.len(),
            Entry::Indices(values) => values.len(),
            Entry::Flag(_) => 1,
        }
    });
    count
}

/// A number type that specs build models in: `f32` or `f64`.
pub trait SpecScalar: Scalar {
    /// Builds a row flow in this type.
    ///
    /// # Errors
    /// As [`BuildRowFlow::build`].
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
    /// As [`BuildModel::build`].
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

/// What the author of a row flow's spec writes; [`register_row_flow!`](crate::register_row_flow) makes a
/// [`RowFlowSpec`] of it.
///
/// The spec's fields are those of the RON text, so its type has serde's derives, and `typetag` is among the crate's
/// dependencies:
///
/// ```
/// use flow_api::spec::{BuildRowFlow, BuildScope, EventShape, ModelSpec, Spec, SpecError, SpecScalar, from_ron};
/// use flow_api::{RowFlow, layers, register_row_flow};
/// use serde::{Deserialize, Serialize};
///
/// /// Features turned round in a ring by some places.
/// #[derive(Clone, Debug, Serialize, Deserialize)]
/// #[serde(deny_unknown_fields)]
/// struct Ring {
///     /// Places.
///     by: usize,
/// }
/// register_row_flow!(Ring);
///
/// impl BuildRowFlow for Ring {
///     fn build<E: SpecScalar>(&self, dim: usize, scope: &BuildScope) -> Result<Box<dyn RowFlow<E>>, SpecError> {
///         if self.by >= dim {
///             return Err(scope.field_error("by", format!("less than {dim}"), self.by));
///         }
///         let order = (0..dim).map(|feature| (feature + self.by) % dim).collect();
///         Ok(Box::new(layers::Permutation::new(order)?))
///     }
/// }
///
/// # fn main() -> Result<(), SpecError> {
/// let spec: Spec<dyn ModelSpec> = from_ron("VectorFlow(flows: [Ring(by: 1)])")?;
/// assert_eq!(spec.build::<f64>(EventShape::Vector(3), 7)?.describe()?[0].kind, "Permutation");
/// assert_eq!(spec.build::<f64>(EventShape::Vector(1), 7).unwrap_err().to_string(), "bijector.0: by: expected less than 1, got 1");
/// # Ok(())
/// # }
/// ```
pub trait BuildRowFlow {
    /// Builds the flow on R^dim with its initial parameters.
    ///
    /// # Errors
    /// [`SpecError::Field`] for values that no flow can be built with.
    fn build<E: SpecScalar>(&self, dim: usize, scope: &BuildScope) -> Result<Box<dyn RowFlow<E>>, SpecError>;

    /// What the flow on R^dim will cost at the least, for any fields: it is asked before the flow is built, and before
    /// the fields are checked.
    fn cost(&self, dim: usize) -> Cost {
        let _ = dim;
        Cost::of_numbers(0)
    }

    /// Whether the flow leaves features as they are, which ones by its place among all flows of its list that do so:
    /// [`BuildScope::index`] counts those, and those alone. Default false.
    fn takes_turns(&self) -> bool {
        false
    }
}

/// A row flow that a spec can name.
///
/// Not implemented by hand: implement [`BuildRowFlow`] and call [`register_row_flow!`](crate::register_row_flow).
#[typetag::deserialize]
pub trait RowFlowSpec: erased_serde::Serialize + std::fmt::Debug + Send + Sync {
    /// Name of the kind, as in RON.
    fn kind(&self) -> &'static str;
    /// What it costs on R^dim.
    fn cost(&self, dim: usize) -> Cost;
    /// Builds it in f32.
    ///
    /// # Errors
    /// As [`BuildRowFlow::build`].
    fn row_flow_f32(&self, dim: usize, scope: &BuildScope) -> Result<Box<dyn RowFlow<f32>>, SpecError>;
    /// Builds it in f64.
    ///
    /// # Errors
    /// As [`BuildRowFlow::build`].
    fn row_flow_f64(&self, dim: usize, scope: &BuildScope) -> Result<Box<dyn RowFlow<f64>>, SpecError>;
    /// As [`BuildRowFlow::takes_turns`].
    fn takes_turns(&self) -> bool;
    /// A copy.
    fn boxed_clone(&self) -> Box<dyn RowFlowSpec>;
}

/// Registers a spec type, which implements [`BuildRowFlow`](crate::spec::BuildRowFlow), serde's traits, `Clone` and
/// `Debug`, under its own name.
///
/// The calling crate needs `typetag` among its dependencies. [`BuildRowFlow`](crate::spec::BuildRowFlow) has an
/// example.
#[macro_export]
macro_rules! register_row_flow {
    ($spec:ident) => {
        #[::typetag::deserialize]
        impl $crate::spec::RowFlowSpec for $spec {
            fn kind(&self) -> &'static str {
                stringify!($spec)
            }
            fn cost(&self, dim: usize) -> $crate::spec::Cost {
                $crate::spec::BuildRowFlow::cost(self, dim)
            }
            fn row_flow_f32(
                &self,
                dim: usize,
                scope: &$crate::spec::BuildScope,
            ) -> $crate::Result<Box<dyn $crate::RowFlow<f32>>, $crate::spec::SpecError> {
                $crate::spec::BuildRowFlow::build(self, dim, scope)
            }
            fn row_flow_f64(
                &self,
                dim: usize,
                scope: &$crate::spec::BuildScope,
            ) -> $crate::Result<Box<dyn $crate::RowFlow<f64>>, $crate::spec::SpecError> {
                $crate::spec::BuildRowFlow::build(self, dim, scope)
            }
            fn takes_turns(&self) -> bool {
                $crate::spec::BuildRowFlow::takes_turns(self)
            }
            fn boxed_clone(&self) -> Box<dyn $crate::spec::RowFlowSpec> {
                Box::new(self.clone())
            }
        }
    };
}

/// What the author of a model's spec writes; [`register_model!`](crate::register_model) makes a [`ModelSpec`] of it.
pub trait BuildModel {
    /// Builds the model for events of this shape.
    ///
    /// # Errors
    /// [`SpecError`] for data or fields that no model can be built for.
    fn build<E: SpecScalar>(&self, event: EventShape, scope: &BuildScope) -> Result<Model<E>, SpecError>;

    /// What the model will cost at the least, for any fields; as [`BuildRowFlow::cost`].
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{MAX_NUMBERS, from_ron};

    #[test]
    fn numbers_are_counted_over_the_model() {
        let spec: FlowSpec = from_ron("LuLinear()").unwrap();
        let root = BuildScope::new(1);
        let scope = root.of_model();
        let build = |scope: &BuildScope| f32::row_flow(&spec, 4, &scope.child("flow")).map(|flow| numbers_held(&flow));
        let one = build(&scope).unwrap();
        assert_eq!(build(&scope).unwrap(), one);
        let count = scope.numbers.as_deref().unwrap();
        assert_eq!(count.load(Ordering::Relaxed), 2 * one);
        count.store(MAX_NUMBERS - one + 1, Ordering::Relaxed);
        assert_eq!(
            build(&scope).unwrap_err().to_string(),
            "flow: numbers: expected at most 536870912 in all, parameters and other state, got 536870913"
        );
        // None is lost where two are built at the same time.
        let (scope, both) = (root.of_model(), std::sync::Barrier::new(2));
        let wait_and_build = || {
            let build = |parts: &BuildScope| {
                both.wait();
                spec.row_flow_f32(4, parts)
            };
            drop(scope.counted(build, |part| scope.held(part)));
        };
        std::thread::scope(|threads| [0, 1].map(|_| drop(threads.spawn(wait_and_build))));
        assert_eq!(scope.numbers.as_deref().unwrap().load(Ordering::Relaxed), 2 * one);
        // Others, of the same scope too, begin at nothing.
        assert!(build(&scope.of_model()).is_ok() && build(&root).is_ok());
    }
}
