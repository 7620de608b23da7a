//! Which features of a row pass a flow and which it transforms.

use flow_api::rows::Real;
use flow_api::{FlowError, Result};
use flow_kernels::workspace::Buffer;
use serde::{Deserialize, Serialize};

/// How a coupling cuts its features in two: by turns, all couplings of a list between the form below and the flipped
/// one, layer by layer; or always in the same way.
///
/// ```
/// use flow_nets::Split;
/// let kept = |split: Split, flipped| split.partition(5, flipped).map(|parts| parts.identity.features().collect::<Vec<_>>());
/// assert_eq!((kept(Split::Halves, false)?, kept(Split::Halves, true)?), (vec![0, 1], vec![3, 4]));
/// assert_eq!((kept(Split::First(3), false)?, kept(Split::First(3), true)?), (vec![0, 1, 2], vec![0, 1, 2]));
/// # Ok::<(), flow_api::FlowError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Split {
    /// Keeps the first ⌊d/2⌋ features and moves the rest; flipped, keeps the last ⌊d/2⌋ and moves the first d − ⌊d/2⌋.
    #[default]
    Halves,
    /// Keeps features 1, 3, 5, … and moves 0, 2, 4, …; flipped, the other way round.
    Interleaved,
    /// Always keeps so many features, the first ones.
    First(usize),
    /// Always keeps so many features, the last ones.
    Last(usize),
    /// Always keeps features 0, 2, 4, ….
    Even,
    /// Always keeps features 1, 3, 5, ….
    Odd,
}

/// Features `first`, `first + step`, … of a row, `len` of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progression {
    first: usize,
    step: usize,
    len: usize,
}

/// The two parts of a split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partition {
    /// What passes.
    pub identity: Progression,
    /// What is moved.
    pub transformed: Progression,
}

impl Split {
    /// Whether the flipped form is another one, so that couplings take turns.
    pub fn takes_turns(self) -> bool {
        matches!(self, Self::Halves | Self::Interleaved)
    }

    /// The parts of rows of R^dim.
    ///
    /// # Errors
    /// [`FlowError::Setting`] for fewer than two features, and for a part without any.
    pub fn partition(self, dim: usize, flipped: bool) -> Result<Partition> {
        let refused = |field, expected: String, got: usize| {
            Err(FlowError::Setting { layer: "Split".to_owned(), field, expected, got: got.to_string() })
        };
        if dim < 2 {
            return refused("dim", "at least 2".to_owned(), dim);
        }
        let (less, more) = (dim / 2, dim - dim / 2);
        let part = |first, step, len| Progression { first, step, len };
        let (first, last) = (|len| part(0, 1, len), |len| part(dim - len, 1, len));
        let (even, odd) = (part(0, 2, more), part(1, 2, less));
        let (identity, transformed) = match self {
            Self::First(kept) | Self::Last(kept) if kept == 0 || kept >= dim => {
                return refused("split", format!("1 to {} features that pass", dim - 1), kept);
            }
            Self::Halves if flipped => (last(less), first(more)),
            Self::Halves => (first(less), last(more)),
            Self::First(kept) => (first(kept), last(dim - kept)),
            Self::Last(kept) => (last(kept), first(dim - kept)),
            Self::Interleaved if flipped => (even, odd),
            Self::Even => (even, odd),
            Self::Interleaved | Self::Odd => (odd, even),
        };
        Ok(Partition { identity, transformed })
    }
}

impl Partition {
    /// Features of a row, d.
    pub fn dim(&self) -> usize {
        self.identity.len + self.transformed.len
    }

    /// Where every feature of a row lies when those that pass are put before those that are moved.
    pub fn places(&self) -> Vec<usize> {
        let mut places = vec![0; self.dim()];
        self.identity.features().chain(self.transformed.features()).enumerate().for_each(|(place, feature)| places[feature] = place);
        places
    }
}

impl Progression {
    /// How many features these are.
    #[allow(clippy::len_without_is_empty, reason = "a part has at least one feature")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// These features, in order.
    pub fn features(&self) -> impl Iterator<Item = usize> + use<> {
        let Self { first, step, len } = *self;
        (0..len).map(move |k| first + k * step)
    }

    /// Calls `f` with these features of a feature-major block: in place where they are neighbours.
    pub fn read<E: Real, R>(&self, values: &[E], lanes: usize, f: impl FnOnce(&[E]) -> R) -> R {
        if self.step == 1 { f(&values[self.first * lanes..][..self.len * lanes]) } else { f(&self.gather(values, lanes)) }
    }

    /// The same, to be changed.
    pub fn update<E: Real, R>(&self, values: &mut [E], lanes: usize, f: impl FnOnce(&mut [E]) -> R) -> R {
        if self.step == 1 {
            return f(&mut values[self.first * lanes..][..self.len * lanes]);
        }
        let mut part = self.gather(values, lanes);
        let result = f(&mut part);
        for (feature, from) in self.features().zip(part.chunks_exact(lanes)) {
            values[feature * lanes..][..lanes].copy_from_slice(from);
        }
        result
    }

    fn gather<E: Real>(&self, values: &[E], lanes: usize) -> Buffer<E> {
        let mut part = Buffer::take(self.len * lanes);
        for (feature, to) in self.features().zip(part.chunks_exact_mut(lanes)) {
            to.copy_from_slice(&values[feature * lanes..][..lanes]);
        }
        part
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits() {
        for (split, flipped, dim, kept, moved) in [
            (Split::Halves, false, 5, vec![0, 1], vec![2, 3, 4]),
            (Split::Halves, true, 5, vec![3, 4], vec![0, 1, 2]),
            (Split::Halves, false, 4, vec![0, 1], vec![2, 3]),
            (Split::Halves, true, 2, vec![1], vec![0]),
            (Split::Interleaved, false, 5, vec![1, 3], vec![0, 2, 4]),
            (Split::Interleaved, true, 5, vec![0, 2, 4], vec![1, 3]),
            (Split::First(1), true, 4, vec![0], vec![1, 2, 3]),
            (Split::First(3), false, 4, vec![0, 1, 2], vec![3]),
            (Split::Last(3), true, 4, vec![1, 2, 3], vec![0]),
            (Split::Last(1), false, 2, vec![1], vec![0]),
            (Split::Even, true, 5, vec![0, 2, 4], vec![1, 3]),
            (Split::Even, false, 4, vec![0, 2], vec![1, 3]),
            (Split::Odd, true, 5, vec![1, 3], vec![0, 2, 4]),
            (Split::Odd, false, 4, vec![1, 3], vec![0, 2]),
        ] {
            let partition = split.partition(dim, flipped).unwrap();
            assert_eq!(partition.identity.features().collect::<Vec<_>>(), kept, "{split:?} {flipped} {dim}");
            assert_eq!(partition.transformed.features().collect::<Vec<_>>(), moved, "{split:?} {flipped} {dim}");
            // Two lanes of features 0, 1, 2, …: what is kept before what is moved, and back by their places.
            let values: Vec<f64> = (0..dim).flat_map(|j| [j as f64, j as f64 + 0.5]).collect();
            let mut joined = partition.identity.read(&values, 2, <[f64]>::to_vec);
            partition.transformed.read(&values, 2, |moved| joined.extend(moved));
            let back: Vec<f64> = partition.places().into_iter().flat_map(|place| [joined[2 * place], joined[2 * place + 1]]).collect();
            assert_eq!(back, values);
            let mut changed = values.clone();
            partition.transformed.update(&mut changed, 2, |moved| moved.iter_mut().for_each(|x| *x = -*x));
            let expected: Vec<f64> = values.iter().enumerate().map(|(k, &x)| if moved.contains(&(k / 2)) { -x } else { x }).collect();
            assert_eq!(changed, expected);
        }
        for (split, dim, expected) in [
            (Split::Halves, 1, "Split: dim: expected at least 2, got 1"),
            (Split::Even, 1, "Split: dim: expected at least 2, got 1"),
            (Split::First(0), 4, "Split: split: expected 1 to 3 features that pass, got 0"),
            (Split::First(4), 4, "Split: split: expected 1 to 3 features that pass, got 4"),
            (Split::Last(usize::MAX), 4, "Split: split: expected 1 to 3 features that pass, got 18446744073709551615"),
        ] {
            assert_eq!(split.partition(dim, false).unwrap_err().to_string(), expected);
        }
    }
}
