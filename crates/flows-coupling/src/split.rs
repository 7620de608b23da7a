//! Which features of a row a coupling keeps and which it moves.

use flow_api::{FlowError, Real, Result};
use flow_kernels::workspace::Buffer;
use serde::{Deserialize, Serialize};

/// How a coupling cuts its features in two; all couplings of a list take turns between the form
/// below and the flipped one, layer by layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Split {
    /// Keeps the first ⌊d/2⌋ features and moves the rest; flipped, keeps the last ⌊d/2⌋ and moves the first d − ⌊d/2⌋.
    #[default]
    Halves,
    /// Keeps features 1, 3, 5, … and moves 0, 2, 4, …; flipped, the other way round.
    Interleaved,
}

/// Features `first`, `first + step`, … of a row, `len` of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Progression {
    first: usize,
    step: usize,
    len: usize,
}

/// The two parts of a split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Partition {
    pub(crate) kept: Progression,
    pub(crate) moved: Progression,
}

impl Split {
    /// The parts of rows of R^dim.
    pub(crate) fn partition(self, dim: usize, flipped: bool) -> Result<Partition> {
        if dim < 2 {
            return Err(FlowError::Setting {
                layer: "Coupling".to_owned(),
                field: "dim",
                expected: "at least 2".to_owned(),
                got: dim.to_string(),
            });
        }
        let (less, more) = (dim / 2, dim - dim / 2);
        let part = |first, step, len| Progression { first, step, len };
        let (kept, moved) = match (self, flipped) {
            (Self::Halves, false) => (part(0, 1, less), part(less, 1, more)),
            (Self::Halves, true) => (part(more, 1, less), part(0, 1, more)),
            (Self::Interleaved, false) => (part(1, 2, less), part(0, 2, more)),
            (Self::Interleaved, true) => (part(0, 2, more), part(1, 2, less)),
        };
        Ok(Partition { kept, moved })
    }
}

impl Partition {
    pub(crate) fn dim(&self) -> usize {
        self.kept.len + self.moved.len
    }

    /// Where every feature of a row lies when the kept ones are put before the moved ones.
    pub(crate) fn places(&self) -> Vec<usize> {
        let mut places = vec![0; self.dim()];
        self.kept.features().chain(self.moved.features()).enumerate().for_each(|(place, feature)| places[feature] = place);
        places
    }
}

impl Progression {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn features(&self) -> impl Iterator<Item = usize> + use<> {
        let Self { first, step, len } = *self;
        (0..len).map(move |k| first + k * step)
    }

    /// Calls `f` with these features of a feature-major block: in place where they are neighbours.
    pub(crate) fn read<E: Real, R>(&self, values: &[E], lanes: usize, f: impl FnOnce(&[E]) -> R) -> R {
        if self.step == 1 { f(&values[self.first * lanes..][..self.len * lanes]) } else { f(&self.gather(values, lanes)) }
    }

    /// The same, to be changed.
    pub(crate) fn update<E: Real, R>(&self, values: &mut [E], lanes: usize, f: impl FnOnce(&mut [E]) -> R) -> R {
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
        ] {
            let partition = split.partition(dim, flipped).unwrap();
            assert_eq!(partition.kept.features().collect::<Vec<_>>(), kept, "{split:?} {flipped} {dim}");
            assert_eq!(partition.moved.features().collect::<Vec<_>>(), moved, "{split:?} {flipped} {dim}");
            // Two lanes of features 0, 1, 2, …: what is kept before what is moved, and back by their places.
            let values: Vec<f64> = (0..dim).flat_map(|j| [j as f64, j as f64 + 0.5]).collect();
            let mut joined = partition.kept.read(&values, 2, <[f64]>::to_vec);
            partition.moved.read(&values, 2, |moved| joined.extend(moved));
            let back: Vec<f64> = partition.places().into_iter().flat_map(|place| [joined[2 * place], joined[2 * place + 1]]).collect();
            assert_eq!(back, values);
            let mut changed = values.clone();
            partition.moved.update(&mut changed, 2, |moved| moved.iter_mut().for_each(|x| *x = -*x));
            let expected: Vec<f64> = values.iter().enumerate().map(|(k, &x)| if moved.contains(&(k / 2)) { -x } else { x }).collect();
            assert_eq!(changed, expected);
        }
        assert!(matches!(Split::Halves.partition(1, false), Err(FlowError::Setting { field: "dim", .. })));
    }
}
