//! A fixed permutation of the features.

use crate::rows::{AffineKernel, AffineMap, AffinePart, Matrix, PlainRows, RowFlow, RowKernel, Taped, TapedRows};
use crate::{Context, FlowDevice, FlowError, Module, Result, Scalar, Visitor, VisitorMut};
use dfdx::prelude::*;
use rand::SeedableRng;
use rand::seq::SliceRandom;

/// y = x\[π\]: feature j of the output is feature π(j) of the input.
///
/// # Log-det
/// 0, exact: a permutation keeps volume, bit for bit. π is state, saved with the parameters.
#[derive(Debug, Clone)]
pub struct Permutation<D> {
    indices: Vec<usize>,
    device: D,
}

impl<D> Permutation<D> {
    /// The permutation with these indices.
    ///
    /// # Errors
    /// [`FlowError::Setting`] if they are not each of 0..d once.
    pub fn new(indices: Vec<usize>, device: D) -> Result<Self> {
        check(&indices)?;
        Ok(Self { indices, device })
    }

    /// Features in reverse order.
    pub fn reverse(dim: usize, device: D) -> Self {
        Self { indices: (0..dim).rev().collect(), device }
    }

    /// A permutation drawn from a seed.
    pub fn random(dim: usize, seed: u64, device: D) -> Self {
        Self { indices: random_indices(dim, seed), device }
    }

    /// π.
    pub fn indices(&self) -> &[usize] {
        &self.indices
    }
}

/// A permutation of 0..dim drawn from a seed.
pub(crate) fn random_indices(dim: usize, seed: u64) -> Vec<usize> {
    let mut indices: Vec<usize> = (0..dim).collect();
    indices.shuffle(&mut rand_chacha::ChaCha8Rng::seed_from_u64(seed));
    indices
}

/// Each of 0..d stands in `indices` once.
pub(crate) fn check(indices: &[usize]) -> Result<()> {
    let mut seen = vec![false; indices.len()];
    for &i in indices {
        match seen.get_mut(i) {
            Some(seen @ false) => *seen = true,
            _ => {
                return Err(FlowError::Setting {
                    layer: "Permutation".to_owned(),
                    field: "indices",
                    expected: format!("each of 0..{} once", indices.len()),
                    got: format!("{indices:?}"),
                });
            }
        }
    }
    Ok(())
}

impl<E: Scalar, D: FlowDevice<E>> Module<E> for Permutation<D> {
    fn visit<'m>(&'m self, visitor: &mut Visitor<'_, 'm, E>) {
        visitor.indices("indices", &self.indices);
    }
    fn visit_mut<'m>(&'m mut self, visitor: &mut VisitorMut<'_, 'm, E>) {
        visitor.indices("indices", &mut self.indices);
    }
    fn refresh(&mut self) -> Result<()> {
        check(&self.indices)
    }
}

/// The map of one call.
struct Map<'a>(&'a [usize]);

impl<E: Scalar> AffineMap<E> for Map<'_> {
    fn matrix(&self) -> Matrix<E> {
        Matrix::permutation(self.0.to_vec())
    }

    fn inverse_matrix(&self) -> Matrix<E> {
        Matrix::permutation(inverse_indices(self.0))
    }

    fn offset(&self) -> Vec<E> {
        vec![E::zero(); self.0.len()]
    }

    fn log_det(&self) -> E {
        E::zero()
    }

    fn finish(&self, _: &Matrix<E>, _: &[E], _: E, _: &mut [E]) {}
}

impl<E: Scalar, D: FlowDevice<E>> RowFlow<E, D> for Permutation<D> {
    fn kind(&self) -> &'static str {
        "Permutation"
    }

    fn dim(&self) -> usize {
        self.indices.len()
    }

    fn prepare<'a>(&'a self, _: usize, _: &Context<E, D>) -> Result<Box<dyn RowKernel<E> + 'a>> {
        let part = AffinePart { map: Box::new(Map(&self.indices)), parameters: 0 };
        Ok(Box::new(AffineKernel::new(part, Vec::new())))
    }

    fn affine<'a>(&'a self, _: &Context<E, D>) -> Result<Option<Box<dyn AffineMap<E> + 'a>>> {
        Ok(Some(Box::new(Map(&self.indices))))
    }

    fn plain(&self) -> Option<&dyn PlainRows<E, D>> {
        Some(self)
    }

    fn multiply_adds(&self) -> u64 {
        0
    }
}

/// Columns of `x` in another order, in dfdx operations.
pub(crate) fn permute_columns<E: Scalar, D: FlowDevice<E>, T: Tape<E, D>>(
    x: Tensor<(usize, usize), E, D, T>,
    indices: &[usize],
    device: &D,
) -> Tensor<(usize, usize), E, D, T> {
    let indices: Tensor<(usize,), usize, D> = device.tensor_from_vec(indices.to_vec(), (indices.len(),));
    x.permute::<_, Axes2<1, 0>>().gather(indices).permute::<_, Axes2<1, 0>>()
}

/// π⁻¹.
pub(crate) fn inverse_indices(indices: &[usize]) -> Vec<usize> {
    let mut inverse = vec![0; indices.len()];
    indices.iter().enumerate().for_each(|(j, &i)| inverse[i] = j);
    inverse
}

impl<E: Scalar, D: FlowDevice<E>> PlainRows<E, D> for Permutation<D> {
    fn forward_taped(&self, x: Taped<(usize, usize), E, D>, _: &Context<E, D>) -> Result<TapedRows<E, D>> {
        let log_det = self.device.zeros_like(&(x.shape().0,)).retaped();
        Ok((permute_columns(x, &self.indices, &self.device), log_det))
    }

    fn inverse(
        &self,
        y: Tensor<(usize, usize), E, D>,
        _: &Context<E, D>,
    ) -> Result<(Tensor<(usize, usize), E, D>, Tensor<(usize,), E, D>)> {
        let log_det = self.device.zeros_like(&(y.shape().0,));
        Ok((permute_columns(y, &inverse_indices(&self.indices), &self.device), log_det))
    }
}
