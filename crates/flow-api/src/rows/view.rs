//! Which numbers of a sample form the rows of a row flow.

use crate::{FlowError, Result};

/// A sample seen as a matrix of rows: element (row, column) lies at `rows[row] + columns[column]` of the sample.
///
/// Both sides of a mixing layer are such views of one image, so neither patchify nor a transpose is ever carried out.
/// No two elements share a place, which [`RowView::new`] checks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowView {
    sample: usize,
    rows: Vec<usize>,
    columns: Vec<usize>,
}

impl RowView {
    /// The view of samples of `sample` numbers with these offsets.
    ///
    /// # Errors
    /// [`FlowError::Setting`] if an element lies outside the sample or two share a place.
    pub fn new(sample: usize, rows: Vec<usize>, columns: Vec<usize>) -> Result<Self> {
        let wrong = |got: String| FlowError::Setting {
            layer: "RowView".to_owned(),
            field: "offsets",
            expected: format!("each place of 0..{sample} at most once"),
            got,
        };
        let mut seen = vec![false; sample];
        for &row in &rows {
            for &column in &columns {
                match row.checked_add(column).and_then(|place| seen.get_mut(place)) {
                    Some(seen @ false) => *seen = true,
                    Some(_) => return Err(wrong(format!("{} twice", row + column))),
                    None => return Err(wrong(format!("{row} + {column}"))),
                }
            }
        }
        Ok(Self { sample, rows, columns })
    }

    /// Samples that are single rows of R^d.
    pub fn single(dim: usize) -> Self {
        Self { sample: dim, rows: vec![0], columns: (0..dim).collect() }
    }

    /// Numbers in a sample.
    pub fn sample_len(&self) -> usize {
        self.sample
    }

    /// Rows in a sample.
    pub fn rows(&self) -> usize {
        self.rows.len()
    }

    /// Numbers in a row.
    pub fn dim(&self) -> usize {
        self.columns.len()
    }

    /// Where every row begins within a sample.
    pub fn row_offsets(&self) -> &[usize] {
        &self.rows
    }

    /// Where every number of a row lies behind the row's beginning.
    pub fn column_offsets(&self) -> &[usize] {
        &self.columns
    }

    /// Places of all elements within a sample, row by row.
    pub fn places(&self) -> impl Iterator<Item = usize> {
        self.rows.iter().flat_map(|row| self.columns.iter().map(move |column| row + column))
    }

    /// Copies rows `first..first + lanes` of the batch into a feature-major block.
    pub fn gather<E: Copy>(&self, batch: &[E], first: usize, lanes: usize, block: &mut [E]) {
        self.for_each_part(first, lanes, |lane, bases| {
            for (&column, to) in self.columns.iter().zip(block.chunks_exact_mut(lanes)) {
                to[lane..].iter_mut().zip(bases).for_each(|(to, base)| *to = batch[base + column]);
            }
        });
    }

    /// Copies a feature-major block back to rows `first..first + lanes` of the batch.
    pub fn scatter<E: Copy>(&self, block: &[E], first: usize, lanes: usize, batch: &mut [E]) {
        self.for_each_part(first, lanes, |lane, bases| {
            for (&column, from) in self.columns.iter().zip(block.chunks_exact(lanes)) {
                from[lane..].iter().zip(bases).for_each(|(&from, base)| batch[base + column] = from);
            }
        });
    }

    /// Gives the first lane of a part of the lanes, and where the rows of that part begin.
    fn for_each_part(&self, first: usize, lanes: usize, mut f: impl FnMut(usize, &[usize])) {
        const PART: usize = 64;
        let rows = self.rows.len().max(1);
        let (mut sample, mut row) = (first / rows * self.sample, first % rows);
        let mut bases = [0; PART];
        for lane in (0..lanes).step_by(PART) {
            let part = &mut bases[..PART.min(lanes - lane)];
            for base in &mut *part {
                *base = sample + self.rows[row];
                row += 1;
                if row == rows {
                    (sample, row) = (sample + self.sample, 0);
                }
            }
            f(lane, part);
        }
    }
}
