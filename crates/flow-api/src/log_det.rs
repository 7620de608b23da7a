//! Log-determinants that know whether they are exact, and reports of what a solve cost.

use crate::{Scalar, Tensor};
use flow_kernels::Real;
use flow_kernels::noise::RowNoise;

/// Whether a layer's log-det is computed, solved for or estimated, from the best to the worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LogDetKind {
    /// Exact up to rounding.
    Exact,
    /// That of an ODE's solution, up to the error of its solver ([`SolveReport::log_det_error`]), which is no matter of
    /// chance.
    Solved,
    /// An estimate with a standard error.
    Estimate,
}

impl LogDetKind {
    /// A composition is as good as the worse of the two.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        self.max(other)
    }
}

impl std::fmt::Display for LogDetKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Exact => "exact",
            Self::Solved => "solved",
            Self::Estimate => "estimate",
        })
    }
}

/// The distribution of the numbers of a probe v of Hutchinson's trace estimator, tr A ≈ vᵀAv: of mean 0 and variance 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Probe {
    /// ±1 with equal probability: the least variance, 2 Σ_{i≠j} S²ᵢⱼ with S the symmetric part of A; exact where A is
    /// diagonal.
    #[default]
    Rademacher,
    /// Standard normal: variance 2 ‖S‖² (Frobenius).
    Gaussian,
}

impl Probe {
    /// Draws a probe.
    pub fn draw<E: Real>(self, noise: &mut RowNoise, probe: &mut [E]) {
        match self {
            Self::Rademacher => noise.rademacher(probe),
            Self::Gaussian => noise.gaussian(probe),
        }
    }
}

/// log|det J| of every sample, in nats, shape (batch).
#[derive(Clone, Debug)]
pub struct LogDet<E: Scalar> {
    /// The value, or its estimate.
    pub value: Tensor<(usize,), E>,
    /// Standard error of the estimate of every sample; `None` where the value is exact.
    ///
    /// Its square is unbiased, so that it is right over many samples or layers. Of a single sample it knows as much as
    /// the estimator's n probes do: an interval of twice its size holds the truth as often as Student's t with (n − 1)
    /// · layers degrees of freedom says, 70 % at two probes in one layer, 95 % at many; and where probes can agree by
    /// chance, as Rademacher's do in few dimensions, it can be 0.
    pub standard_error: Option<Tensor<(usize,), E>>,
}

impl<E: Scalar> LogDet<E> {
    /// An exact value.
    pub fn exact(value: Tensor<(usize,), E>) -> Self {
        Self { value, standard_error: None }
    }

    /// Zero for a batch: the log-det of a volume-preserving map.
    pub fn zero(batch: usize) -> Self {
        Self::exact(E::zeros((batch,)))
    }

    /// The log-det of a composition: values add up, independent standard errors in quadrature.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        let standard_error = match (self.standard_error, other.standard_error) {
            (Some(a), Some(b)) => Some((a.square() + b.square()).sqrt()),
            (a, b) => a.or(b),
        };
        Self { value: self.value + other.value, standard_error }
    }
}

/// What the iterative parts of a call did: zero everywhere for closed forms.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SolveReport {
    /// Most iterations that any row of any layer took (fixed-point iterations, accepted ODE steps).
    pub iterations: usize,
    /// Most evaluations of a residual branch or vector field that any row block took, summed over layers.
    pub evaluations: usize,
    /// Most ODE steps that any row block rejected, summed over layers.
    pub rejected: usize,
    /// The largest residual that an iterative inverse left, in units of the data: measured, but of an adaptive ODE
    /// solver its own estimate.
    pub residual: f64,
    /// What ODE solvers left of error in a row's log-det, in nats, as they estimate it: that of the worst block, summed
    /// over layers; beside the standard error of an estimated trace. Its order is right, it is no bound. Infinite where
    /// a solver has no estimate, which is so on a fixed grid.
    pub log_det_error: f64,
    /// What layers add to the loss of a training step beside the likelihood, such as the regularisers of ODE flows,
    /// summed over rows and layers: nats where every sample's log-det has the cotangent −1; 0 in evaluation.
    pub penalty: f64,
}

impl SolveReport {
    /// The report of two layers one after the other.
    #[must_use]
    pub fn then(self, next: Self) -> Self {
        Self {
            iterations: self.iterations.max(next.iterations),
            evaluations: self.evaluations + next.evaluations,
            rejected: self.rejected + next.rejected,
            residual: self.residual.max(next.residual),
            log_det_error: self.log_det_error + next.log_det_error,
            penalty: self.penalty + next.penalty,
        }
    }

    /// The report of two row blocks side by side in one layer.
    #[must_use]
    pub fn beside(self, other: Self) -> Self {
        Self {
            iterations: self.iterations.max(other.iterations),
            evaluations: self.evaluations.max(other.evaluations),
            rejected: self.rejected.max(other.rejected),
            residual: self.residual.max(other.residual),
            log_det_error: self.log_det_error.max(other.log_det_error),
            penalty: self.penalty + other.penalty,
        }
    }
}
