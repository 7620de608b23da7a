//! Which numbers of a sample form the rows of a row flow.

use crate::{FlowError, Result};

/// A sample seen as a matrix of rows: element (row, column) lies at `rows[row] + columns[column]` of the sample.
///
/// Both sides of a mixing layer are such views of one image, so neither patchify nor a transpose is ever carried out. No two elements share
/// a place, which [`RowView::new`] checks.
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
                match seen.get_mut(row + column) {
                    Some(seen @ false) => *seen = true,
                    Some(_) => return Err(wrong(format!("{} twice", row + column))),
                    None => return Err(wrong(format!("{}", row + column))),
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

    /// Places of all elements within a sample, row by row.
    pub fn places(&self) -> impl Iterator<Item = usize> {
        self.rows.iter().flat_map(|row| self.columns.iter().map(move |column| row + column))
    }

    /// Copies rows `first..first + lanes` of the batch into a feature-major block.
    pub fn gather<E: Copy>(&self, batch: &[E], first: usize, lanes: usize, block: &mut [E]) {
        self.for_each_run(first, lanes, |lane, base, len, rows| {
            for (j, &column) in self.columns.iter().enumerate() {
                let to = &mut block[j * lanes + lane..][..len];
                let from = &batch[base + column..];
                match rows {
                    Run::Contiguous => to.copy_from_slice(&from[..len]),
                    Run::Strided(stride) => to.iter_mut().zip(from.iter().step_by(stride)).for_each(|(t, &f)| *t = f),
                }
            }
        });
    }

    /// Copies a feature-major block back to rows `first..first + lanes` of the batch.
    pub fn scatter<E: Copy>(&self, block: &[E], first: usize, lanes: usize, batch: &mut [E]) {
        self.for_each_run(first, lanes, |lane, base, len, rows| {
            for (j, &column) in self.columns.iter().enumerate() {
                let from = &block[j * lanes + lane..][..len];
                let to = &mut batch[base + column..];
                match rows {
                    Run::Contiguous => to[..len].copy_from_slice(from),
                    Run::Strided(stride) => to.iter_mut().step_by(stride).zip(from).for_each(|(t, &f)| *t = f),
                }
            }
        });
    }

    /// Cuts lanes into runs of rows that lie one constant stride apart: neighbouring patches, neighbouring pixels.
    fn for_each_run(&self, first: usize, lanes: usize, mut f: impl FnMut(usize, usize, usize, Run)) {
        let place = |row: usize| (row / self.rows.len()) * self.sample + self.rows[row % self.rows.len()];
        let mut lane = 0;
        while lane < lanes {
            let base = place(first + lane);
            let mut len = 1;
            let mut stride = 1;
            if lane + 1 < lanes && place(first + lane + 1) > base {
                stride = place(first + lane + 1) - base;
                len = 2;
                while lane + len < lanes && place(first + lane + len) == base + len * stride {
                    len += 1;
                }
            }
            f(lane, base, len, if stride == 1 { Run::Contiguous } else { Run::Strided(stride) });
            lane += len;
        }
    }
}

enum Run {
    Contiguous,
    Strided(usize),
}
