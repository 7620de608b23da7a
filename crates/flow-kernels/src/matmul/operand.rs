//! What a product is of.

/// What becomes of the destination's old contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accumulate {
    /// They are overwritten, and not read: NaN there does no harm.
    Replace,
    /// The product is added to them.
    Add,
}

/// A row-major slice seen as a matrix, or as its transpose.
///
/// ```
/// use flow_kernels::matmul::Operand;
/// let w = Operand::new(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 2, 3);
/// assert_eq!((w.rows(), w.cols()), (2, 3));
/// assert_eq!((w.transposed().rows(), w.transposed().cols()), (3, 2));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Operand<'a, E> {
    pub(super) data: &'a [E],
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) transposed: bool,
}

impl<'a, E> Operand<'a, E> {
    /// `data` as `rows` × `cols`, row after row.
    ///
    /// # Panics
    /// In debug builds if the size is another; in release builds a product with it panics.
    pub fn new(data: &'a [E], rows: usize, cols: usize) -> Self {
        debug_assert_eq!(data.len(), rows * cols, "data is {rows} × {cols}");
        Self { data, rows, cols, transposed: false }
    }

    /// The transpose: another view, nothing is moved.
    #[must_use]
    pub fn transposed(self) -> Self {
        Self { rows: self.cols, cols: self.rows, transposed: !self.transposed, ..self }
    }

    /// Number of rows of this view.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns of this view.
    pub fn cols(&self) -> usize {
        self.cols
    }
}
