//! The strict triangles of L and U as parameters: row by row.

use std::ops::Range;

/// Which of the two, without its diagonal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Triangle {
    Lower,
    Upper,
}

/// Places of a strict triangle in a dense d × d matrix, row by row.
pub(super) fn places(dim: usize, triangle: Triangle) -> impl Iterator<Item = usize> {
    (0..dim).flat_map(move |i| {
        let columns = match triangle {
            Triangle::Lower => 0..i,
            Triangle::Upper => i + 1..dim,
        };
        columns.map(move |j| i * dim + j)
    })
}

pub(super) fn unpack<E: Copy>(packed: &[E], dim: usize, triangle: Triangle, dense: &mut [E]) {
    places(dim, triangle).zip(packed).for_each(|(place, &value)| dense[place] = value);
}

/// Where row i of a packed triangle lies: the columns 0..i of the lower one, i + 1..d of the upper one.
pub(super) fn packed_row(dim: usize, triangle: Triangle, i: usize) -> Range<usize> {
    match triangle {
        Triangle::Lower => i * i.saturating_sub(1) / 2..i * (i + 1) / 2,
        Triangle::Upper => {
            let start = i * (2 * dim - i - 1) / 2;
            start..start + dim - 1 - i
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_lie_one_after_the_other() {
        for (dim, triangle) in [1, 2, 5].into_iter().flat_map(|dim| [(dim, Triangle::Lower), (dim, Triangle::Upper)]) {
            let dense: Vec<usize> = (0..dim * dim).collect();
            let packed: Vec<usize> = places(dim, triangle).collect();
            for i in 0..dim {
                let columns = if triangle == Triangle::Lower { 0..i } else { i + 1..dim };
                assert_eq!(packed[packed_row(dim, triangle, i)], dense[i * dim..][columns], "{triangle:?} {dim} {i}");
            }
        }
    }
}
