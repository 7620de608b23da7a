//! An invertible linear map in LU form.

mod dense;
mod factored;
mod packed;

use self::dense::{Factors, Map};
use self::factored::{FACTORED_FROM, FactoredKernel, PANEL};
use self::packed::{Triangle, places, unpack};
use super::permutation::{check, inverse_indices, permute_columns, random_indices};
use crate::device::RowForm;
use crate::module::parameter_count;
use crate::rows::{AffineKernel, AffineMap, AffinePart, MappedRows, RowFlow, RowKernel, Taped, TapedMap, TapedRows};
use crate::{Context, Facts, FlowError, Module, Parameter, Result, Scalar, Tensor, module_fields};
use dfdx::prelude::*;
use num_traits::Float;

/// y = L U x\[π\] + b with L unit lower triangular, U upper triangular with diagonal e^s, and an optional fixed
/// permutation π in front.
///
/// Starts as the identity (after π): L = U = I, b = 0.
///
/// # Log-det
/// Σⱼ sⱼ, exact.
///
/// # Parameters
/// `lower` (d(d−1)/2, row by row), `upper` (d(d−1)/2, row by row, without the diagonal), `log_diagonal` (d), `bias`
/// (d). State: `permutation`.
///
/// Up to 511 dimensions L U is formed once a call, as one matrix with the affine maps beside it, and its inverse by two
/// triangular solves. From 512 on, where that is more work than the rows of a few images, rows are multiplied by U and
/// by L, and solved for. Sources: Kingma & Dhariwal, "Glow", section 3.2 (arXiv:1807.03039), for the LU form with the
/// diagonal kept apart; Durkan et al., "Neural Spline Flows", section 3 (arXiv:1906.04032), for the identity start.
#[derive(Debug, Clone)]
pub struct LuLinear<E: Scalar> {
    lower: Parameter<E>,
    upper: Parameter<E>,
    log_diagonal: Parameter<E>,
    bias: Parameter<E>,
    permutation: Option<Vec<usize>>,
}

impl<E: Scalar> LuLinear<E> {
    /// The identity on R^dim.
    pub fn new(dim: usize) -> Self {
        let zeros = |len: usize| Parameter::new(&[len], vec![E::zero(); len]);
        let triangle = dim * dim.saturating_sub(1) / 2;
        Self { lower: zeros(triangle), upper: zeros(triangle), log_diagonal: zeros(dim), bias: zeros(dim), permutation: None }
    }

    /// The same behind a fixed permutation.
    ///
    /// # Errors
    /// [`FlowError::Setting`] if the indices are not each of 0..d once.
    pub fn with_permutation(mut self, indices: Vec<usize>) -> Result<Self> {
        check(&indices)?;
        if indices.len() != self.dim() {
            return Err(FlowError::Setting {
                layer: "LuLinear".to_owned(),
                field: "permutation",
                expected: format!("{} indices", self.dim()),
                got: format!("{}", indices.len()),
            });
        }
        self.permutation = Some(indices);
        Ok(self)
    }

    /// The same behind a fixed permutation drawn from a seed.
    #[must_use]
    pub fn with_random_permutation(mut self, seed: u64) -> Self {
        self.permutation = Some(random_indices(self.dim(), seed));
        self
    }

    /// e^s.
    fn diagonal(&self, cx: &Context<E>) -> Result<Vec<E>> {
        let entry = |(j, &s): (usize, &E)| {
            let u = Float::exp(s);
            if u == E::zero() || !Float::is_finite(u) {
                return Err(FlowError::Singular { layer: cx.path().to_owned(), detail: format!("u[{j}][{j}] = exp({s})") });
            }
            Ok(u)
        };
        self.log_diagonal.values().iter().enumerate().map(entry).collect()
    }

    fn factors(&self, cx: &Context<E>) -> Result<Factors<E>> {
        let dim = self.dim();
        let mut lower = vec![E::zero(); dim * dim];
        let mut upper = vec![E::zero(); dim * dim];
        unpack(self.lower.values(), dim, Triangle::Lower, &mut lower);
        unpack(self.upper.values(), dim, Triangle::Upper, &mut upper);
        for (j, u) in self.diagonal(cx)?.into_iter().enumerate() {
            lower[j * (dim + 1)] = E::one();
            upper[j * (dim + 1)] = u;
        }
        Ok(Factors { dim, lower, upper })
    }

    fn log_det(&self) -> E {
        self.log_diagonal.values().iter().copied().sum()
    }
}

impl<E: Scalar> Module<E> for LuLinear<E> {
    module_fields!(E; parameter lower, parameter upper, parameter log_diagonal, parameter bias, indices permutation; refresh |own| {
        own.permutation.as_deref().map_or(Ok(()), check)
    });
}

impl<E: Scalar> LuLinear<E> {
    fn map(&self, cx: &Context<E>) -> Result<Map<'_, E>> {
        Ok(Map { factors: self.factors(cx)?, bias: self.bias.values(), permutation: self.permutation.as_deref(), log_det: self.log_det() })
    }

    fn dense(&self, cx: &Context<E>) -> Result<AffineKernel<'_, E>> {
        Ok(AffineKernel::new(AffinePart { map: Box::new(self.map(cx)?), parameters: parameter_count(self) }, Vec::new()))
    }

    fn factored(&self, panel: usize, cx: &Context<E>) -> Result<FactoredKernel<'_, E>> {
        let triangles = [self.lower.values(), self.upper.values()];
        Ok(FactoredKernel::new(triangles, self.diagonal(cx)?, self.bias.values(), self.permutation.as_deref(), self.log_det(), panel))
    }
}

impl<E: Scalar> RowFlow<E> for LuLinear<E> {
    fn facts(&self) -> Facts {
        Facts::new("LuLinear").with_multiply_adds((self.bias.values().len() as u64).pow(2))
    }

    fn dim(&self) -> usize {
        self.bias.values().len()
    }

    fn prepare<'a>(&'a self, _: usize, cx: &Context<E>) -> Result<Box<dyn RowKernel<E> + 'a>> {
        if self.dim() >= FACTORED_FROM {
            return Ok(Box::new(self.factored(PANEL, cx)?));
        }
        Ok(Box::new(self.dense(cx)?))
    }

    fn affine<'a>(&'a self, cx: &Context<E>) -> Result<Option<Box<dyn AffineMap<E> + 'a>>> {
        if self.dim() >= FACTORED_FROM {
            return Ok(None);
        }
        Ok(Some(Box::new(self.map(cx)?)))
    }

    fn device_form<'a>(&'a self, cx: &Context<E>) -> Result<Vec<RowForm<'a, E>>> {
        Ok(vec![RowForm::Affine { map: Box::new(self.map(cx)?), parameters: parameter_count(self) }])
    }

    fn taped(&self) -> Option<&dyn TapedRows<E>> {
        Some(self)
    }
}

impl<E: Scalar> LuLinear<E> {
    /// A packed triangle as a dense matrix on the tape: gathered from the packed values and masked.
    fn dense_taped(&self, packed: &Parameter<E>, triangle: Triangle) -> Taped<(usize, usize), E> {
        let dim = self.dim();
        let (mut from, mut mask) = (vec![0; dim * dim], vec![E::zero(); dim * dim]);
        for (k, place) in places(dim, triangle).enumerate() {
            from[place] = k;
            mask[place] = E::one();
        }
        let mask = E::tensor(mask, (dim, dim));
        if packed.values().is_empty() {
            return mask.retaped();
        }
        let from: dfdx::prelude::Tensor<(usize,), usize, E::Device> = E::device().tensor_from_vec(from, (dim * dim,));
        packed.tensor().retaped::<OwnedTape<E, E::Device>>().gather(from).reshape_like(&(dim, dim)) * mask
    }

    fn identity(&self) -> Tensor<(usize, usize), E> {
        let dim = self.dim();
        let values = (0..dim * dim).map(|k| if k % (dim + 1) == 0 { E::one() } else { E::zero() }).collect();
        E::tensor(values, (dim, dim))
    }
}

impl<E: Scalar> TapedRows<E> for LuLinear<E> {
    fn forward_taped(&self, x: Taped<(usize, usize), E>, _: &Context<E>) -> Result<TapedMap<E>> {
        let shape = *x.shape();
        let square = (shape.1, shape.1);
        let lower = self.dense_taped(&self.lower, Triangle::Lower) + self.identity();
        let log_diagonal = self.log_diagonal.tensor().retaped::<OwnedTape<E, E::Device>>();
        let log_det = log_diagonal.with_empty_tape().broadcast_like::<_, Axis<0>>(&shape).sum::<(usize,), Axis<1>>();
        let diagonal = log_diagonal.exp().broadcast_like::<_, Axis<0>>(&square) * self.identity();
        let upper = self.dense_taped(&self.upper, Triangle::Upper) + diagonal;
        let x = match &self.permutation {
            Some(indices) => permute_columns(x, indices),
            None => x,
        };
        let bias = self.bias.tensor().retaped::<OwnedTape<E, E::Device>>().broadcast_like::<_, Axis<0>>(&shape);
        let y = x.matmul(upper.permute::<_, Axes2<1, 0>>()).matmul(lower.permute::<_, Axes2<1, 0>>()) + bias;
        Ok((y, log_det))
    }

    fn inverse_taped(&self, y: Tensor<(usize, usize), E>, cx: &Context<E>) -> Result<MappedRows<E>> {
        let shape = *y.shape();
        // dfdx has no triangular solve: the inverse matrix is formed on the host.
        let inverse = self.factors(cx)?.inverse();
        let inverse = E::tensor(inverse, (shape.1, shape.1));
        let bias = self.bias.tensor().clone().broadcast_like::<_, Axis<0>>(&shape);
        let x = (y - bias).matmul(inverse.permute::<_, Axes2<1, 0>>());
        let x = match &self.permutation {
            Some(indices) => permute_columns(x, &inverse_indices(indices)),
            None => x,
        };
        let log_det = self.log_det();
        Ok((x, E::tensor(vec![-log_det; shape.0], (shape.0,))))
    }
}
