//! How the inverse is found: feature by feature, or all features at once until nothing changes.

use crate::kernel::Kernel;
use flow_api::log_det::SolveReport;
use flow_api::rows::{Lanes, RowTape};
use flow_api::{FlowError, Result, Scalar};
use flow_kernels::workspace::Buffer;
use flow_nets::ConditionerKernel;
use serde::{Deserialize, Serialize};

/// How the inverse of an autoregressive flow is found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum Inverse {
    /// Feature by feature: exact to rounding, in d steps that together take one pass of the network.
    #[default]
    Sequential,
    /// All features at once, pass after pass.
    Jacobi(Jacobi),
}

/// Jacobi's iteration for a triangular system: x ← τ⁻¹(y; θ(x)) for all features at once, from x = y on.
///
/// The p-th pass makes feature p exact, whatever the later ones still are, so d passes are exact to rounding; where
/// features depend on each other weakly, fewer are enough. A pass is a whole network and a step of
/// [`Inverse::Sequential`] is a small part of one, so this pays where passes are few beside d and blocks are small.
///
/// # Stopping
/// By the true residual maxⱼ |τ(xⱼ; θⱼ(x)) − yⱼ| of every row, in units of the data, evaluated at the very x that is
/// returned; a row that is done stays as it is. After d passes a row is done whatever its residual, which is then of
/// rounding alone. The report has the largest.
///
/// Source: Song et al., "Accelerating Feedforward Computation via Parallel Nonlinear Equation Solving"
/// (arXiv:2002.03629), section 3.2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Jacobi {
    /// The largest residual. Default: 1e-5 in f32 and 1e-10 in f64.
    pub tolerance: Option<f64>,
}

impl Inverse {
    /// Checks the settings.
    ///
    /// # Errors
    /// [`FlowError::Setting`].
    pub(crate) fn check(&self) -> Result<()> {
        match *self {
            Self::Jacobi(Jacobi { tolerance: Some(tolerance) }) if !(tolerance.is_finite() && tolerance > 0.0) => {
                let expected = "a finite number greater than 0".to_owned();
                Err(FlowError::Setting { layer: "Autoregressive".to_owned(), field: "tolerance", expected, got: tolerance.to_string() })
            }
            _ => Ok(()),
        }
    }
}

impl Jacobi {
    /// y → x in place, features in the order of the network; adds the log-dets and the report.
    pub(crate) fn invert<E: Scalar>(self, kernel: &Kernel<'_, E>, values: &mut [E], lanes: &mut Lanes<'_, E>) -> Result<()> {
        let count = lanes.lanes;
        let dim = values.len() / count.max(1);
        let tolerance = self.tolerance.unwrap_or(if size_of::<E>() == 4 { 1e-5 } else { 1e-10 });
        let y = Buffer::copy_of(values);
        let mut report = SolveReport::default();
        let mut open = vec![true; count];
        while open.contains(&true) {
            let parameters = kernel.net.forward(values, lanes.condition, count, &mut RowTape::idle())?;
            report.iterations += 1;
            let (mut back, mut log_slopes) = (Buffer::copy_of(values), Buffer::zeroed(count));
            kernel.flow.transformer.forward(&mut back, Buffer::copy_of(&parameters), &mut log_slopes, &mut RowTape::idle());
            for (lane, open) in open.iter_mut().enumerate().filter(|(_, open)| **open) {
                let residual = (0..dim).map(|j| (back[j * count + lane] - y[j * count + lane]).as_f64().abs()).fold(0.0, largest);
                if residual <= tolerance || report.iterations > dim {
                    *open = false;
                    report.residual = largest(report.residual, residual);
                    lanes.log_det[lane] -= log_slopes[lane];
                }
            }
            if open.contains(&true) {
                let mut next = Buffer::copy_of(&y);
                kernel.flow.transformer.inverse(&mut next, parameters, &mut log_slopes, &mut RowTape::idle());
                for (x, next) in values.chunks_exact_mut(count).zip(next.chunks_exact(count)) {
                    x.iter_mut().zip(next).zip(&open).filter(|(_, open)| **open).for_each(|((x, &next), _)| *x = next);
                }
            }
        }
        report.evaluations = report.iterations;
        *lanes.report = lanes.report.then(report);
        Ok(())
    }
}

/// The larger number; one that is none is the largest.
fn largest(a: f64, b: f64) -> f64 {
    if a.is_nan() || a > b { a } else { b }
}
