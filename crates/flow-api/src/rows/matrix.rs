//! Square matrices of affine maps, with as much structure as spares work.

use crate::Scalar;
use flow_kernels::matmul::{Accumulate, Epilogue, Operand, matmul, matmul_with};
use flow_kernels::simd::{add_lane_products, axpy};

/// A square matrix W, stored as its structure allows; a gradient ∂L/∂W is stored in the structure of its W.
#[derive(Debug, Clone, PartialEq)]
pub enum Matrix<E> {
    /// One entry a row and a column, those of scales and permutations: row j has `entries[j]` in column `columns[j]`.
    Monomial {
        /// One a row.
        entries: Vec<E>,
        /// A permutation.
        columns: Vec<usize>,
    },
    /// All entries, row-major.
    Dense(Vec<E>),
}

impl<E: Scalar> Matrix<E> {
    /// A diagonal matrix.
    pub fn diagonal(entries: Vec<E>) -> Self {
        let columns = (0..entries.len()).collect();
        Self::Monomial { entries, columns }
    }

    /// The matrix that takes x to x\[π\].
    pub fn permutation(columns: Vec<usize>) -> Self {
        Self::Monomial { entries: vec![E::one(); columns.len()], columns }
    }

    /// All entries, row-major.
    pub fn to_dense(&self) -> Vec<E> {
        match self {
            Self::Dense(entries) => entries.clone(),
            Self::Monomial { entries, columns } => {
                let mut dense = vec![E::zero(); entries.len() * entries.len()];
                for ((row, &entry), &column) in dense.chunks_exact_mut(entries.len().max(1)).zip(entries).zip(columns) {
                    row[column] = entry;
                }
                dense
            }
        }
    }

    /// The matrix of this structure with the entries of a dense one, row-major, at the places that it leaves free.
    #[must_use]
    pub fn gathered(&self, dense: &[E]) -> Self {
        match self {
            Self::Dense(_) => Self::Dense(dense.to_vec()),
            Self::Monomial { columns, .. } => {
                let rows = dense.chunks_exact(columns.len().max(1));
                self.with_entries(rows.zip(columns).map(|(row, &column)| row[column]).collect())
            }
        }
    }

    /// The numbers that the structure leaves free.
    pub fn entries(&self) -> &[E] {
        let (Self::Monomial { entries, .. } | Self::Dense(entries)) = self;
        entries
    }

    /// The matrix of the same structure with these numbers.
    pub(super) fn with_entries(&self, entries: Vec<E>) -> Self {
        match self {
            Self::Monomial { columns, .. } => Self::Monomial { entries, columns: columns.clone() },
            Self::Dense(_) => Self::Dense(entries),
        }
    }

    /// A B, both of size `dim`.
    pub(crate) fn times(&self, b: &Self, dim: usize) -> Self {
        match (self, b) {
            (Self::Monomial { entries: a, columns: from }, Self::Monomial { entries: b, columns }) => Self::Monomial {
                entries: a.iter().zip(from).map(|(&a, &k)| a * b[k]).collect(),
                columns: from.iter().map(|&k| columns[k]).collect(),
            },
            (_, Self::Dense(b)) => {
                let mut product = vec![E::zero(); dim * dim];
                self.apply(b, dim, &mut product, &mut ());
                Self::Dense(product)
            }
            (Self::Dense(a), Self::Monomial { entries, columns }) => {
                let mut product = vec![E::zero(); dim * dim];
                for (to, a) in product.chunks_exact_mut(dim).zip(a.chunks_exact(dim)) {
                    a.iter().zip(entries).zip(columns).for_each(|((&a, &b), &column)| to[column] = a * b);
                }
                Self::Dense(product)
            }
        }
    }

    /// The gradients of A and B given that of C = A B: ∂L/∂A = ∂L/∂C Bᵀ and ∂L/∂B = Aᵀ ∂L/∂C, where their structures
    /// have entries.
    pub(super) fn pull_product(a: &Self, b: &Self, for_product: &Self, dim: usize) -> (Self, Self) {
        let g = for_product.entries();
        let (mut for_a, mut for_b) = (vec![E::zero(); a.entries().len()], vec![E::zero(); b.entries().len()]);
        match (a, b) {
            (Self::Monomial { entries, columns: from }, Self::Monomial { entries: b, .. }) => {
                for (j, &k) in from.iter().enumerate() {
                    for_a[j] = g[j] * b[k];
                    for_b[k] = g[j] * entries[j];
                }
            }
            (Self::Monomial { entries, columns }, Self::Dense(b)) => {
                for (j, (&k, g)) in columns.iter().zip(g.chunks_exact(dim)).enumerate() {
                    add_lane_products(&mut for_a[j..=j], g, &b[k * dim..][..dim], dim);
                    axpy(&mut for_b[k * dim..][..dim], entries[j], g);
                }
            }
            (Self::Dense(a), Self::Monomial { entries, columns }) => {
                for ((g, a), for_a) in g.chunks_exact(dim).zip(a.chunks_exact(dim)).zip(for_a.chunks_exact_mut(dim)) {
                    for (k, &column) in columns.iter().enumerate() {
                        for_a[k] = g[column] * entries[k];
                        for_b[k] += a[k] * g[column];
                    }
                }
            }
            (Self::Dense(a), Self::Dense(b)) => {
                let (a, b, g) = (Operand::new(a, dim, dim), Operand::new(b, dim, dim), Operand::new(g, dim, dim));
                matmul(&mut for_a, Accumulate::Replace, g, b.transposed());
                matmul(&mut for_b, Accumulate::Replace, a.transposed(), g);
            }
        }
        (a.with_entries(for_a), b.with_entries(for_b))
    }

    /// W X for a block of `lanes` columns, and what the epilogue makes of it.
    pub(super) fn apply(&self, x: &[E], lanes: usize, to: &mut [E], epilogue: &mut impl Epilogue<E>) {
        match self {
            Self::Monomial { entries, columns } => {
                for (row, ((to, &entry), &k)) in to.chunks_exact_mut(lanes).zip(entries).zip(columns).enumerate() {
                    to.iter_mut().zip(&x[k * lanes..][..lanes]).for_each(|(to, &x)| *to = entry * x);
                    epilogue.apply(row, to);
                }
            }
            Self::Dense(w) => {
                matmul_with(to, Accumulate::Replace, square(w, x, lanes), Operand::new(x, x.len() / lanes, lanes), epilogue);
            }
        }
    }

    /// Wᵀ G for a block of `lanes` columns.
    pub(super) fn apply_transposed(&self, g: &[E], lanes: usize, to: &mut [E]) {
        match self {
            Self::Monomial { entries, columns } => {
                for ((g, &entry), &k) in g.chunks_exact(lanes).zip(entries).zip(columns) {
                    to[k * lanes..][..lanes].iter_mut().zip(g).for_each(|(to, &g)| *to = entry * g);
                }
            }
            Self::Dense(w) => matmul(to, Accumulate::Replace, square(w, g, lanes).transposed(), Operand::new(g, g.len() / lanes, lanes)),
        }
    }

    /// Adds ∂L/∂W = G Xᵀ to `sums`, which has the entries of W's structure.
    pub(super) fn add_outer(&self, g: &[E], x: &[E], lanes: usize, sums: &mut [E]) {
        let dim = x.len() / lanes;
        match self {
            Self::Monomial { columns, .. } => {
                for ((sum, g), &k) in sums.chunks_exact_mut(1).zip(g.chunks_exact(lanes)).zip(columns) {
                    add_lane_products(sum, g, &x[k * lanes..][..lanes], lanes);
                }
            }
            Self::Dense(_) => matmul(sums, Accumulate::Add, Operand::new(g, dim, lanes), Operand::new(x, dim, lanes).transposed()),
        }
    }
}

/// W as an operand, as large as a block's columns are long.
fn square<'w, E: Scalar>(w: &'w [E], block: &[E], lanes: usize) -> Operand<'w, E> {
    let dim = block.len() / lanes;
    Operand::new(w, dim, dim)
}
