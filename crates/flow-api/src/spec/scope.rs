//! Where the parts of a model are built: their places, their seeds, and what they may be.

use super::SpecError;
use super::cost::{Cost, MAX_FLOWS, MAX_NUMBERS, MAX_PREPARATION};
use super::limits::{MAX_LAYERS, MAX_SIZE, size_range};
use super::receivers::{Receiver, Receivers};
use crate::module::{Entry, visit};
use crate::{Module, Result, Scalar};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

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

    /// The same scope for the `index`-th of the flows that take turns
    /// ([`BuildRowFlow::takes_turns`](super::BuildRowFlow::takes_turns)).
    #[must_use]
    pub fn at(mut self, index: usize) -> Self {
        self.index = index;
        self
    }

    /// Whose turn it is: how many flows that take turns
    /// ([`BuildRowFlow::takes_turns`](super::BuildRowFlow::takes_turns)) stand before this one in its list, and in
    /// those of the layers before, whatever their kinds. Couplings move one part of the features where it is even, and
    /// the other where it is odd.
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
    pub(super) fn of_model(&self) -> Self {
        Self { numbers: Some(Arc::default()), ..self.clone() }
    }

    /// Builds a part and counts the numbers that it holds, which a spec from elsewhere may not have told. Its own parts
    /// are built in a scope that counts for itself, so that nothing is counted twice, however many threads build.
    pub(super) fn counted<M>(
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
    pub(super) fn held<E: Scalar>(&self, part: &impl Module<E>) -> Result<usize, SpecError> {
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

    /// Checks that a model may cost so much.
    ///
    /// # Errors
    /// [`SpecError::Field`] for more than [`MAX_FLOWS`], [`MAX_NUMBERS`] or [`MAX_PREPARATION`].
    pub fn affordable(&self, cost: Cost) -> Result<(), SpecError> {
        let Cost { flows, numbers, preparation } = cost;
        for (field, what, most, got) in [
            ("flows", "in all, repeated ones counted", MAX_FLOWS, flows),
            ("numbers", "in all, parameters and other state", MAX_NUMBERS, numbers),
            ("iterations", "multiply-adds of power iterations in all", MAX_PREPARATION, preparation),
        ] {
            if got > most {
                return Err(self.field_error(field, format!("at most {most} {what}"), got));
            }
        }
        Ok(())
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
fn numbers_held<E: Scalar>(module: &(impl Module<E> + ?Sized)) -> usize {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{FlowSpec, SpecScalar, from_ron};

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
