//! A fixed permutation of the features.

use crate::device::{AffinePiece, RowForm};
use crate::rows::{AffineKernel, AffineMap, AffinePart, MappedRows, Matrix, RowFlow, RowKernel, Taped, TapedMap, TapedRows};
use crate::{Context, Facts, FlowError, Module, Result, Scalar, Tensor, module_fields};
use dfdx::prelude::*;
use rand::SeedableRng;
use rand::seq::SliceRandom;

/// y = x\[π\]: feature j of the output is feature π(j) of the input.
///
/// # Log-det
/// 0, exact: a permutation keeps volume, bit for bit. π is state, saved with the parameters.
#[derive(Debug, Clone)]
pub struct Permutation {
    indices: Vec<usize>,
}

impl Permutation {
    /// The permutation with these indices.
    ///
    /// # Errors
    /// [`FlowError::Setting`] if they are not each of 0..d once.
    pub fn new(indices: Vec<usize>) -> Result<Self> {
        check(&indices)?;
        Ok(Self { indices })
    }

    /// Features as they are.
    pub fn identity(dim: usize) -> Self {
        Self { indices: (0..dim).collect() }
    }

    /// Features in reverse order.
    pub fn reverse(dim: usize) -> Self {
        Self { indices: (0..dim).rev().collect() }
    }

    /// A permutation drawn from a seed.
    pub fn random(dim: usize, seed: u64) -> Self {
        Self { indices: random_indices(dim, seed) }
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

impl<E: Scalar> Module<E> for Permutation {
    module_fields!(E; indices indices; refresh |own| check(&own.indices));
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

    fn pieces(&self) -> Option<Vec<AffinePiece<'_, E>>> {
        Some(vec![AffinePiece::Permutation { indices: self.0 }])
    }
}

impl<E: Scalar> RowFlow<E> for Permutation {
    fn facts(&self) -> Facts {
        Facts::new("Permutation")
    }

    fn dim(&self) -> usize {
        self.indices.len()
    }

    fn prepare<'a>(&'a self, _: usize, _: &Context<E>) -> Result<Box<dyn RowKernel<E> + 'a>> {
        let part = AffinePart { map: Box::new(Map(&self.indices)), parameters: 0 };
        Ok(Box::new(AffineKernel::new(part, Vec::new())))
    }

    fn affine<'a>(&'a self, _: &Context<E>) -> Result<Option<Box<dyn AffineMap<E> + 'a>>> {
        Ok(Some(Box::new(Map(&self.indices))))
    }

    fn device_form<'a>(&'a self, _: &Context<E>) -> Result<Vec<RowForm<'a, E>>> {
        Ok(vec![RowForm::Affine { map: Box::new(Map(&self.indices)), parameters: 0 }])
    }

    fn taped(&self) -> Option<&dyn TapedRows<E>> {
        Some(self)
    }
}

/// Columns of `x` in another order, in dfdx operations.
pub(crate) fn permute_columns<E: Scalar, T: Tape<E, E::Device>>(
    x: Tensor<(usize, usize), E, T>,
    indices: &[usize],
) -> Tensor<(usize, usize), E, T> {
    let indices: dfdx::prelude::Tensor<(usize,), usize, E::Device> = E::device().tensor_from_vec(indices.to_vec(), (indices.len(),));
    x.permute::<_, Axes2<1, 0>>().gather(indices).permute::<_, Axes2<1, 0>>()
}

/// π⁻¹.
pub(crate) fn inverse_indices(indices: &[usize]) -> Vec<usize> {
    let mut inverse = vec![0; indices.len()];
    indices.iter().enumerate().for_each(|(j, &i)| inverse[i] = j);
    inverse
}

impl<E: Scalar> TapedRows<E> for Permutation {
    fn forward_taped(&self, x: Taped<(usize, usize), E>, _: &Context<E>) -> Result<TapedMap<E>> {
        let log_det = E::zeros((x.shape().0,)).retaped();
        Ok((permute_columns(x, &self.indices), log_det))
    }

    fn inverse_taped(&self, y: Tensor<(usize, usize), E>, _: &Context<E>) -> Result<MappedRows<E>> {
        let log_det = E::zeros((y.shape().0,));
        Ok((permute_columns(y, &inverse_indices(&self.indices)), log_det))
    }
}
