//! A fixed permutation of the features.

use crate::rows::{AffineMap, Lanes, PlainRows, Pull, RowFlow, RowKernel, RowTape, Taped, TapedRows};
use crate::{Context, FlowDevice, FlowError, Module, Result, Scalar, Visitor, VisitorMut};
use dfdx::prelude::*;
use flow_kernels::workspace::Buffer;
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

/// `to[j] = from[π(j)]`, feature by feature.
pub(crate) fn permute<E: Copy>(indices: &[usize], from: &[E], to: &mut [E], lanes: usize) {
    for (to, &i) in to.chunks_exact_mut(lanes).zip(indices) {
        to.copy_from_slice(&from[i * lanes..][..lanes]);
    }
}

/// `to[π(j)] = from[j]`, feature by feature.
pub(crate) fn unpermute<E: Copy>(indices: &[usize], from: &[E], to: &mut [E], lanes: usize) {
    for (from, &i) in from.chunks_exact(lanes).zip(indices) {
        to[i * lanes..][..lanes].copy_from_slice(from);
    }
}

impl<E: Scalar, D: FlowDevice<E>> Module<E> for Permutation<D> {
    fn visit(&self, visitor: &mut Visitor<'_, E>) {
        visitor.indices("indices", &self.indices);
    }
    fn visit_mut(&mut self, visitor: &mut VisitorMut<'_, E>) {
        visitor.indices("indices", &mut self.indices);
    }
    fn refresh(&mut self) -> Result<()> {
        check(&self.indices)
    }
}

struct Kernel<'a>(&'a [usize]);

impl Kernel<'_> {
    fn apply<E: Scalar>(&self, values: &mut [E], lanes: usize, map: fn(&[usize], &[E], &mut [E], usize)) {
        let mut from = Buffer::take(values.len());
        from.copy_from_slice(values);
        map(self.0, &from, values, lanes);
    }
}

impl<E: Scalar> RowKernel<E> for Kernel<'_> {
    fn forward(&self, values: &mut [E], lanes: &mut Lanes<'_, E>, _: &mut RowTape<E>) -> Result<()> {
        self.apply(values, lanes.lanes, permute);
        Ok(())
    }

    fn inverse(&self, values: &mut [E], lanes: &mut Lanes<'_, E>) -> Result<()> {
        self.apply(values, lanes.lanes, unpermute);
        Ok(())
    }

    fn pullback(&self, cotangent: &mut [E], pull: &Pull<'_, E>, _: &mut RowTape<E>, _: &mut [E]) -> Result<()> {
        self.apply(cotangent, pull.lanes, unpermute);
        Ok(())
    }

    fn pullback_inverting(&self, values: &mut [E], cotangent: &mut [E], pull: &Pull<'_, E>, _: &mut [E]) -> Result<()> {
        self.apply(values, pull.lanes, unpermute);
        self.apply(cotangent, pull.lanes, unpermute);
        Ok(())
    }

    fn sums_len(&self) -> usize {
        0
    }
}

impl<E: Scalar> AffineMap<E> for Kernel<'_> {
    fn dim(&self) -> usize {
        self.0.len()
    }

    fn matrix(&self) -> Vec<E> {
        let dim = self.0.len();
        let mut matrix = vec![E::zero(); dim * dim];
        self.0.iter().enumerate().for_each(|(j, &i)| matrix[j * dim + i] = E::one());
        matrix
    }

    fn inverse_matrix(&self) -> Vec<E> {
        AffineMap::<E>::matrix(&Kernel(&inverse_indices(self.0)))
    }

    fn offset(&self) -> Vec<E> {
        vec![E::zero(); self.0.len()]
    }

    fn log_det(&self) -> E {
        E::zero()
    }

    fn finish(&self, _: &[E], _: &[E], _: E, _: &mut [E]) {}
}

impl<E: Scalar, D: FlowDevice<E>> RowFlow<E, D> for Permutation<D> {
    fn kind(&self) -> &'static str {
        "Permutation"
    }

    fn dim(&self) -> usize {
        self.indices.len()
    }

    fn prepare<'a>(&'a self, _: &Context<E, D>) -> Result<Box<dyn RowKernel<E> + 'a>> {
        Ok(Box::new(Kernel(&self.indices)))
    }

    fn affine<'a>(&'a self, _: &Context<E, D>) -> Result<Option<Box<dyn AffineMap<E> + 'a>>> {
        Ok(Some(Box::new(Kernel(&self.indices))))
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
