//! An invertible linear map in LU form.

use super::permutation::{check, inverse_indices, permute_columns, random_indices};
use crate::rows::{AffineKernel, AffineMap, AffinePart, Matrix, PlainRows, RowFlow, RowKernel, Taped, TapedRows};
use crate::{Context, FlowDevice, FlowError, Module, Parameter, Result, Scalar, Visitor, VisitorMut, parameter_count};
use dfdx::prelude::*;
use faer::linalg::triangular_solve::{solve_unit_lower_triangular_in_place, solve_upper_triangular_in_place};
use faer::{MatMut, MatRef, Par, reborrow::ReborrowMut};
use flow_kernels::matmul::{Operand, Part, triangular_matmul};
use flow_kernels::workspace::Buffer;
use num_traits::Float;

/// y = L U x\[π\] + b with L unit lower triangular, U upper triangular with diagonal e^s, and an optional fixed permutation π in front.
///
/// Starts as the identity (after π): L = U = I, b = 0.
///
/// # Log-det
/// Σⱼ sⱼ, exact.
///
/// # Parameters
/// `lower` (d(d−1)/2, row by row), `upper` (d(d−1)/2, row by row, without the diagonal), `log_diagonal` (d), `bias` (d). State: `permutation`.
///
/// The inverse matrix comes from two triangular solves, once a call. Sources: Kingma & Dhariwal, "Glow", section 3.2 (arXiv:1807.03039), for the LU form with the diagonal kept
/// apart; Durkan et al., "Neural Spline Flows", section 3 (arXiv:1906.04032), for the identity start.
#[derive(Debug, Clone)]
pub struct LuLinear<E: Scalar, D: FlowDevice<E>> {
    lower: Parameter<E, D>,
    upper: Parameter<E, D>,
    log_diagonal: Parameter<E, D>,
    bias: Parameter<E, D>,
    permutation: Option<Vec<usize>>,
}

impl<E: Scalar, D: FlowDevice<E>> LuLinear<E, D> {
    /// The identity on R^dim.
    pub fn new(dim: usize, device: &D) -> Self {
        let zeros = |len: usize| Parameter::new(device.clone(), &[len], vec![E::zero(); len]);
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

    /// Sets L, U and b from dense row-major matrices, as other libraries store them.
    ///
    /// # Errors
    /// [`FlowError::Shape`] for buffers of other lengths, [`FlowError::Singular`] for a diagonal of U that is not positive.
    pub fn set_dense(&mut self, lower: &[E], upper: &[E], bias: &[E]) -> Result<()> {
        let dim = self.dim();
        if lower.len() != dim * dim || upper.len() != dim * dim || bias.len() != dim {
            return Err(crate::shape_error("LuLinear", "set_dense", (dim, dim), (lower.len(), upper.len(), bias.len())));
        }
        if let Some(j) = (0..dim).find(|&j| upper[j * dim + j] <= E::zero() || !Float::is_finite(upper[j * dim + j])) {
            return Err(FlowError::Singular { layer: "LuLinear".to_owned(), detail: format!("u[{j}][{j}] = {}", upper[j * dim + j]) });
        }
        pack(lower, dim, Triangle::Lower, self.lower.values_mut());
        pack(upper, dim, Triangle::Upper, self.upper.values_mut());
        for (j, s) in self.log_diagonal.values_mut().iter_mut().enumerate() {
            *s = Float::ln(upper[j * dim + j]);
        }
        self.bias.values_mut().copy_from_slice(bias);
        Ok(())
    }

    fn factors(&self, cx: &Context<E, D>) -> Result<Factors<E>> {
        let dim = self.log_diagonal.values().len();
        let mut lower = vec![E::zero(); dim * dim];
        let mut upper = vec![E::zero(); dim * dim];
        unpack(self.lower.values(), dim, Triangle::Lower, &mut lower);
        unpack(self.upper.values(), dim, Triangle::Upper, &mut upper);
        for (j, &s) in self.log_diagonal.values().iter().enumerate() {
            lower[j * dim + j] = E::one();
            let u = Float::exp(s);
            if u == E::zero() || !Float::is_finite(u) {
                return Err(FlowError::Singular { layer: cx.path().to_owned(), detail: format!("u[{j}][{j}] = exp({s})") });
            }
            upper[j * dim + j] = u;
        }
        Ok(Factors { dim, lower, upper })
    }
}

impl<E: Scalar, D: FlowDevice<E>> Module<E> for LuLinear<E, D> {
    fn visit<'m>(&'m self, visitor: &mut Visitor<'_, 'm, E>) {
        visitor.parameter("lower", &self.lower);
        visitor.parameter("upper", &self.upper);
        visitor.parameter("log_diagonal", &self.log_diagonal);
        visitor.parameter("bias", &self.bias);
        if let Some(indices) = &self.permutation {
            visitor.indices("permutation", indices);
        }
    }
    fn visit_mut<'m>(&'m mut self, visitor: &mut VisitorMut<'_, 'm, E>) {
        visitor.parameter("lower", &mut self.lower);
        visitor.parameter("upper", &mut self.upper);
        visitor.parameter("log_diagonal", &mut self.log_diagonal);
        visitor.parameter("bias", &mut self.bias);
        if let Some(indices) = &mut self.permutation {
            visitor.indices("permutation", indices);
        }
    }
    fn refresh(&mut self) -> Result<()> {
        self.permutation.as_deref().map_or(Ok(()), check)
    }
}

#[derive(Clone, Copy)]
enum Triangle {
    Lower,
    Upper,
}

/// Places of a strict triangle in a dense d × d matrix, row by row.
fn places(dim: usize, triangle: Triangle) -> impl Iterator<Item = usize> {
    (0..dim).flat_map(move |i| {
        let columns = match triangle {
            Triangle::Lower => 0..i,
            Triangle::Upper => i + 1..dim,
        };
        columns.map(move |j| i * dim + j)
    })
}

fn unpack<E: Copy>(packed: &[E], dim: usize, triangle: Triangle, dense: &mut [E]) {
    places(dim, triangle).zip(packed).for_each(|(place, &value)| dense[place] = value);
}

fn pack<E: Copy>(dense: &[E], dim: usize, triangle: Triangle, packed: &mut [E]) {
    places(dim, triangle).zip(packed).for_each(|(place, value)| *value = dense[place]);
}

/// Dense row-major L and U.
struct Factors<E> {
    dim: usize,
    lower: Vec<E>,
    upper: Vec<E>,
}

impl<E: Scalar> Factors<E> {
    fn operands(&self) -> (Operand<'_, E>, Operand<'_, E>) {
        (Operand::new(&self.lower, self.dim, self.dim), Operand::new(&self.upper, self.dim, self.dim))
    }

    fn product(&self) -> Vec<E> {
        let mut product = vec![E::zero(); self.dim * self.dim];
        let (lower, upper) = self.operands();
        triangular_matmul(&mut product, Part::Full, (lower, Part::UnitLower), (upper, Part::Upper));
        product
    }

    /// U⁻¹ L⁻¹.
    fn inverse(&self) -> Vec<E> {
        let dim = self.dim;
        let mut values: Vec<E> = (0..dim * dim).map(|k| if k % (dim + 1) == 0 { E::one() } else { E::zero() }).collect();
        let mut x = MatMut::from_row_major_slice_mut(&mut values, dim, dim);
        solve_unit_lower_triangular_in_place(MatRef::from_row_major_slice(&self.lower, dim, dim), x.rb_mut(), Par::Seq);
        solve_upper_triangular_in_place(MatRef::from_row_major_slice(&self.upper, dim, dim), x, Par::Seq);
        values
    }
}

/// The map of one call.
struct Map<'a, E> {
    factors: Factors<E>,
    bias: &'a [E],
    permutation: Option<&'a [usize]>,
    log_det: E,
}

impl<E: Scalar> AffineMap<E> for Map<'_, E> {
    /// L U with its columns where the permutation takes them from.
    fn matrix(&self) -> Matrix<E> {
        let product = Matrix::Dense(self.factors.product());
        match self.permutation {
            None => product,
            Some(indices) => product.times(&Matrix::permutation(indices.to_vec()), self.factors.dim),
        }
    }

    /// Two triangular solves against the identity.
    fn inverse_matrix(&self) -> Matrix<E> {
        let inverse = Matrix::Dense(self.factors.inverse());
        match self.permutation {
            None => inverse,
            Some(indices) => Matrix::permutation(inverse_indices(indices)).times(&inverse, self.factors.dim),
        }
    }

    fn offset(&self) -> Vec<E> {
        self.bias.to_vec()
    }

    fn log_det(&self) -> E {
        self.log_det
    }

    /// ∂L/∂L = ∂L/∂(LU) Uᵀ and ∂L/∂U = Lᵀ ∂L/∂(LU), each on its triangle; ∂L/∂s = diag(∂L/∂U) e^s + ∂L/∂log-det.
    fn finish(&self, for_matrix: &Matrix<E>, for_offset: &[E], log_det: E, gradients: &mut [E]) {
        let dim = self.factors.dim;
        let back = self.permutation.map(|indices| for_matrix.times(&Matrix::permutation(inverse_indices(indices)), dim));
        let for_product = Operand::new(back.as_ref().unwrap_or(for_matrix).entries(), dim, dim);
        let (lower, upper) = self.factors.operands();
        let (mut for_lower, mut for_upper) = (Buffer::take(dim * dim), Buffer::take(dim * dim));
        triangular_matmul(&mut for_lower, Part::Lower, (for_product, Part::Full), (upper.transposed(), Part::Lower));
        triangular_matmul(&mut for_upper, Part::Upper, (lower.transposed(), Part::UnitUpper), (for_product, Part::Full));
        let own = places(dim, Triangle::Lower)
            .map(|place| for_lower[place])
            .chain(places(dim, Triangle::Upper).map(|place| for_upper[place]))
            .chain((0..dim).map(|j| for_upper[j * (dim + 1)] * self.factors.upper[j * (dim + 1)] + log_det))
            .chain(for_offset.iter().copied());
        gradients.iter_mut().zip(own).for_each(|(gradient, own)| *gradient += own);
    }
}

impl<E: Scalar, D: FlowDevice<E>> LuLinear<E, D> {
    fn map(&self, cx: &Context<E, D>) -> Result<Map<'_, E>> {
        Ok(Map {
            factors: self.factors(cx)?,
            bias: self.bias.values(),
            permutation: self.permutation.as_deref(),
            log_det: self.log_diagonal.values().iter().copied().sum(),
        })
    }
}

impl<E: Scalar, D: FlowDevice<E>> RowFlow<E, D> for LuLinear<E, D> {
    fn kind(&self) -> &'static str {
        "LuLinear"
    }

    fn dim(&self) -> usize {
        self.bias.values().len()
    }

    fn prepare<'a>(&'a self, cx: &Context<E, D>) -> Result<Box<dyn RowKernel<E> + 'a>> {
        let part = AffinePart { map: Box::new(self.map(cx)?), parameters: parameter_count(self) };
        Ok(Box::new(AffineKernel::new(part, Vec::new())))
    }

    fn affine<'a>(&'a self, cx: &Context<E, D>) -> Result<Option<Box<dyn AffineMap<E> + 'a>>> {
        Ok(Some(Box::new(self.map(cx)?)))
    }

    fn plain(&self) -> Option<&dyn PlainRows<E, D>> {
        Some(self)
    }

    fn multiply_adds(&self) -> u64 {
        (self.dim() as u64).pow(2)
    }
}

impl<E: Scalar, D: FlowDevice<E>> LuLinear<E, D> {
    /// A packed triangle as a dense matrix on the tape: gathered from the packed values and masked.
    fn dense_taped(&self, packed: &Parameter<E, D>, triangle: Triangle) -> Taped<(usize, usize), E, D> {
        let dim = self.dim();
        let device = packed.device();
        let (mut from, mut mask) = (vec![0; dim * dim], vec![E::zero(); dim * dim]);
        for (k, place) in places(dim, triangle).enumerate() {
            from[place] = k;
            mask[place] = E::one();
        }
        let mask = device.tensor_from_vec(mask, (dim, dim));
        if packed.values().is_empty() {
            return mask.retaped();
        }
        let from: Tensor<(usize,), usize, D> = device.tensor_from_vec(from, (dim * dim,));
        packed.tensor().retaped::<OwnedTape<E, D>>().gather(from).reshape_like(&(dim, dim)) * mask
    }

    fn identity(&self) -> Tensor<(usize, usize), E, D> {
        let dim = self.dim();
        let values = (0..dim * dim).map(|k| if k % (dim + 1) == 0 { E::one() } else { E::zero() }).collect();
        self.bias.device().tensor_from_vec(values, (dim, dim))
    }
}

impl<E: Scalar, D: FlowDevice<E>> PlainRows<E, D> for LuLinear<E, D> {
    fn forward_taped(&self, x: Taped<(usize, usize), E, D>, _: &Context<E, D>) -> Result<TapedRows<E, D>> {
        let shape = *x.shape();
        let square = (shape.1, shape.1);
        let lower = self.dense_taped(&self.lower, Triangle::Lower) + self.identity();
        let log_diagonal = self.log_diagonal.tensor().retaped::<OwnedTape<E, D>>();
        let log_det = log_diagonal.with_empty_tape().broadcast_like::<_, Axis<0>>(&shape).sum::<(usize,), Axis<1>>();
        let diagonal = log_diagonal.exp().broadcast_like::<_, Axis<0>>(&square) * self.identity();
        let upper = self.dense_taped(&self.upper, Triangle::Upper) + diagonal;
        let x = match &self.permutation {
            Some(indices) => permute_columns(x, indices, self.bias.device()),
            None => x,
        };
        let bias = self.bias.tensor().retaped::<OwnedTape<E, D>>().broadcast_like::<_, Axis<0>>(&shape);
        let y = x.matmul(upper.permute::<_, Axes2<1, 0>>()).matmul(lower.permute::<_, Axes2<1, 0>>()) + bias;
        Ok((y, log_det))
    }

    fn inverse(
        &self,
        y: Tensor<(usize, usize), E, D>,
        cx: &Context<E, D>,
    ) -> Result<(Tensor<(usize, usize), E, D>, Tensor<(usize,), E, D>)> {
        let shape = *y.shape();
        let device = self.bias.device();
        // dfdx has no triangular solve: the inverse matrix is formed on the host.
        let inverse = self.factors(cx)?.inverse();
        let inverse = device.tensor_from_vec(inverse, (shape.1, shape.1));
        let bias = self.bias.tensor().clone().broadcast_like::<_, Axis<0>>(&shape);
        let x = (y - bias).matmul(inverse.permute::<_, Axes2<1, 0>>());
        let x = match &self.permutation {
            Some(indices) => permute_columns(x, &inverse_indices(indices), device),
            None => x,
        };
        let log_det: E = self.log_diagonal.values().iter().copied().sum();
        Ok((x, device.tensor_from_vec(vec![-log_det; shape.0], (shape.0,))))
    }
}
