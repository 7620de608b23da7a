//! `ActNorm`: a scale and a shift per feature that start by normalising the data.

use crate::device::{AffinePiece, RowForm};
use crate::module::parameter_count;
use crate::rows::{AffineKernel, AffineMap, AffinePart, MappedRows, Matrix, RowFlow, RowKernel, Taped, TapedMap, TapedRows};
use crate::{Context, Facts, FlowError, Module, Parameter, Result, Scalar, Tensor, module_fields};
use dfdx::prelude::*;
use num_traits::Float;

/// Activation normalisation: y = e^s ⊙ (x − m) + t with a log-scale s, a shift t and a fixed middle m per feature.
///
/// The scale turns about the middle of the data, so that scale and shift do not fight: in y = e^s ⊙ x + t a step of the
/// scale moves all of the data by m times as much, and the shift has to follow, endlessly where m is large beside the
/// spread. The middle itself is not trained: a step of the optimiser is as large for every parameter, and of features
/// whose spread is small it would throw m about by many spreads; the shift is in units of what comes out.
///
/// # Log-det
/// Σⱼ sⱼ, exact.
///
/// # Initialisation
/// Data-dependent and explicit ([`Bijector::initialise`](crate::Bijector::initialise)): s = −ln std(x), m = mean(x), t
/// = 0, so that every feature leaves with mean 0 and standard deviation 1 over the batch (rows of all samples). Used
/// before that, it is an error ([`FlowError::NotInitialised`]), as are one row and a constant feature. A layer that is
/// initialised stays as it is: what was trained is not lost when training goes on with other data. Source: Kingma &
/// Dhariwal, "Glow", section 3.1 (arXiv:1807.03039). Whether it is initialised is state, saved with the parameters;
/// parameters that are set, or loaded, to anything but zeros are initialised ones.
///
/// The batch has to be large enough: over n independent rows the standard error of ln std is √((κ − 1)/4n), with the
/// kurtosis κ of the feature.
#[derive(Debug, Clone)]
pub struct ActNorm<E: Scalar> {
    log_scale: Parameter<E>,
    shift: Parameter<E>,
    middle: Vec<E>,
    initialised: bool,
}

impl<E: Scalar> ActNorm<E> {
    /// An uninitialised layer on R^dim.
    pub fn new(dim: usize) -> Self {
        let zeros = || Parameter::new(&[dim], vec![E::zero(); dim]);
        Self { log_scale: zeros(), shift: zeros(), middle: vec![E::zero(); dim], initialised: false }
    }

    fn check_initialised(&self, cx: &Context<E>) -> Result<()> {
        if self.initialised { Ok(()) } else { Err(FlowError::NotInitialised { layer: cx.path().to_owned() }) }
    }
}

impl<E: Scalar> Module<E> for ActNorm<E> {
    module_fields!(E; parameter log_scale, parameter shift, reals middle, flag initialised; refresh |own| {
        // Parameters that are not at zero any more were set by someone, which no data may overwrite.
        own.initialised |= [&own.log_scale, &own.shift].iter().any(|p| p.values().iter().any(|&v| v != E::zero()));
        Ok(())
    });
}

/// The map of one call.
struct Map<'a, E> {
    scale: Vec<E>,
    shift: &'a [E],
    middle: &'a [E],
    log_det: E,
}

impl<E: Scalar> AffineMap<E> for Map<'_, E> {
    fn matrix(&self) -> Matrix<E> {
        Matrix::diagonal(self.scale.clone())
    }

    fn inverse_matrix(&self) -> Matrix<E> {
        Matrix::diagonal(self.scale.iter().map(|&scale| E::one() / scale).collect())
    }

    fn offset(&self) -> Vec<E> {
        let about = self.scale.iter().zip(self.middle);
        self.shift.iter().zip(about).map(|(&shift, (&scale, &middle))| shift - scale * middle).collect()
    }

    fn log_det(&self) -> E {
        self.log_det
    }

    fn finish(&self, for_matrix: &Matrix<E>, for_offset: &[E], log_det: E, gradients: &mut [E]) {
        let (for_scale, for_shift) = gradients.split_at_mut(self.scale.len());
        let sums = for_matrix.entries().iter().zip(for_offset).zip(self.middle);
        for ((gradient, ((&sum, &for_offset), &middle)), &scale) in for_scale.iter_mut().zip(sums).zip(&self.scale) {
            *gradient += (sum - middle * for_offset) * scale + log_det;
        }
        for_shift.iter_mut().zip(for_offset).for_each(|(gradient, &sum)| *gradient += sum);
    }

    fn pieces(&self) -> Option<Vec<AffinePiece<'_, E>>> {
        Some(vec![AffinePiece::Scale { middle: self.middle }])
    }
}

impl<E: Scalar> ActNorm<E> {
    fn map(&self, cx: &Context<E>) -> Result<Map<'_, E>> {
        self.check_initialised(cx)?;
        let log_scale = self.log_scale.values();
        Ok(Map {
            scale: log_scale.iter().map(|s| Float::exp(*s)).collect(),
            shift: self.shift.values(),
            middle: &self.middle,
            log_det: log_scale.iter().copied().sum(),
        })
    }
}

impl<E: Scalar> RowFlow<E> for ActNorm<E> {
    fn facts(&self) -> Facts {
        Facts::new("ActNorm")
    }

    fn dim(&self) -> usize {
        self.shift.values().len()
    }

    fn prepare<'a>(&'a self, _: usize, cx: &Context<E>) -> Result<Box<dyn RowKernel<E> + 'a>> {
        let part = AffinePart { map: Box::new(self.map(cx)?), parameters: parameter_count(self) };
        Ok(Box::new(AffineKernel::new(part, Vec::new())))
    }

    fn affine<'a>(&'a self, cx: &Context<E>) -> Result<Option<Box<dyn AffineMap<E> + 'a>>> {
        Ok(Some(Box::new(self.map(cx)?)))
    }

    fn device_form<'a>(&'a self, cx: &Context<E>) -> Result<Vec<RowForm<'a, E>>> {
        Ok(vec![RowForm::Affine { map: Box::new(self.map(cx)?), parameters: parameter_count(self) }])
    }

    fn taped(&self) -> Option<&dyn TapedRows<E>> {
        Some(self)
    }

    fn initialise(&mut self, values: &[E], rows: usize, cx: &Context<E>) -> Result<()> {
        let layer = || cx.path().to_owned();
        if values.len() != rows * self.dim() {
            return Err(crate::shape_error(cx.path(), "initialise", (self.dim(), rows), values.len()));
        }
        if self.initialised {
            return Ok(());
        }
        if rows < 2 {
            return Err(FlowError::BatchTooSmall { layer: layer(), got: rows });
        }
        let count = rows as f64;
        let (mut log_scale, mut middle) = (Vec::new(), Vec::new());
        for (feature, values) in values.chunks_exact(rows).enumerate() {
            let mean = values.iter().map(|x| x.as_f64()).sum::<f64>() / count;
            let std = (values.iter().map(|x| (x.as_f64() - mean).powi(2)).sum::<f64>() / count).sqrt();
            if !std.is_finite() {
                let row = values.iter().position(|x| !Float::is_finite(*x)).unwrap_or(0);
                return Err(FlowError::NotFinite { layer: layer(), what: "the initialisation batch", row });
            }
            // Below the rounding of the values themselves there is no variance to normalise, nor where the scale would
            // overflow.
            if std <= 4.0 * <E as Float>::epsilon().as_f64() * mean.abs() || !Float::is_finite(E::of(std.recip())) {
                return Err(FlowError::ConstantFeature { layer: layer(), feature });
            }
            log_scale.push(E::of(-std.ln()));
            middle.push(E::of(mean));
        }
        self.log_scale.values_mut().copy_from_slice(&log_scale);
        self.shift.values_mut().fill(E::zero());
        self.middle = middle;
        self.initialised = true;
        Ok(())
    }
}

impl<E: Scalar> TapedRows<E> for ActNorm<E> {
    fn forward_taped(&self, x: Taped<(usize, usize), E>, cx: &Context<E>) -> Result<TapedMap<E>> {
        self.check_initialised(cx)?;
        let shape = *x.shape();
        let log_scale = self.log_scale.tensor().retaped::<OwnedTape<E, E::Device>>().broadcast_like::<_, Axis<0>>(&shape);
        let log_det = log_scale.with_empty_tape().sum::<(usize,), Axis<1>>();
        let shift = self.shift.tensor().retaped::<OwnedTape<E, E::Device>>().broadcast_like::<_, Axis<0>>(&shape);
        let middle = E::tensor(self.middle.clone(), (self.dim(),)).broadcast_like::<_, Axis<0>>(&shape);
        Ok(((x - middle) * log_scale.exp() + shift, log_det))
    }

    fn inverse_taped(&self, y: Tensor<(usize, usize), E>, cx: &Context<E>) -> Result<MappedRows<E>> {
        self.check_initialised(cx)?;
        let shape = *y.shape();
        let negative = self.log_scale.tensor().clone().negate().broadcast_like::<_, Axis<0>>(&shape);
        let shift = self.shift.tensor().clone().broadcast_like::<_, Axis<0>>(&shape);
        let middle = E::tensor(self.middle.clone(), (self.dim(),)).broadcast_like::<_, Axis<0>>(&shape);
        Ok(((y - shift) * negative.clone().exp() + middle, negative.sum::<(usize,), Axis<1>>()))
    }
}
