//! How log-dets are found: settings.

use crate::setting::setting;
use flow_api::Result;
use flow_api::log_det::{LogDetKind, Probe};
use flow_api::spec::{MAX_SIZE, size_range};
use serde::{Deserialize, Serialize};

/// How log|det(I + J)| and its gradient are found, J = ∂g/∂x.
///
/// | | value | gradient | passes through g a row |
/// |---|---|---|---|
/// | `Exact` | exact | exact | about d |
/// | `Truncated` | biased | of the truncated series | terms · probes |
/// | `Roulette` | unbiased | unbiased, of that very estimate | about 4 · probes |
/// | `Neumann` | unbiased, as `Roulette`'s | unbiased, by one product of second order | about 4 · probes |
///
/// All but `Exact` start from the series log|det(I + J)| = Σ_{k≥1} (−1)^{k+1}/k tr Jᵏ, which converges because ‖J‖ < 1,
/// with traces by Hutchinson's probes, tr Jᵏ ≈ vᵀJᵏv (Behrmann et al. 2019, "Invertible Residual Networks",
/// arXiv:1811.00995, section 3.2; Chen et al. 2019, "Residual Flows for Invertible Generative Modeling",
/// arXiv:1906.02735, sections 3.1 and 3.2).
///
/// # Standard errors
/// With two or more probes (each with a length of its own) the standard error is that of their mean; of a single row it
/// means as much as [`LogDet::standard_error`](flow_api::log_det::LogDet::standard_error) says, at two probes little.
/// One probe tells little of its own spread, so its error is put together from formulas that hold in expectation: the
/// variance of vᵀAv for Gaussian v (for Rademacher v an upper bound, nearly reached but in few dimensions), with A the
/// weighted series as far as it was drawn, and the variance that the random length adds. Every row draws its own probes
/// and lengths, so the errors of a sample's rows are independent. The error of cutting off a `Truncated` series is not
/// in it: at most d · Σ_{k>n} Lᵏ/k, L the Lipschitz constant of g.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum Estimator {
    /// The determinant of the full Jacobian of every row.
    Exact,
    /// The first terms of the series.
    Truncated(Truncated),
    /// A series of random length whose later terms are weighted up by one over the probability of getting that far
    /// (Russian roulette).
    Roulette(Roulette),
    /// Trains on the gradient's own series, ∇log|det(I + J)| = Σ_{k≥0} (−1)ᵏ tr(Jᵏ ∇J), of random length, which needs a
    /// single product of second order (Chen et al. 2019, section 3.2, equation 8). The quantity that has this gradient
    /// is no log-det and is never reported: the value beside it is the `Roulette` estimate from the same products.
    Neumann(Roulette),
}

/// Settings of a series of fixed length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Truncated {
    /// Terms n, 1 to [`MAX_SIZE`]. Default 10.
    pub terms: usize,
    /// Probes, 1 to [`MAX_SIZE`]. Default 2.
    pub probes: usize,
    /// Their distribution. Default `Rademacher`.
    pub distribution: Probe,
}

impl Default for Truncated {
    fn default() -> Self {
        Self { terms: 10, probes: 2, distribution: Probe::default() }
    }
}

/// Settings of a series of random length.
///
/// # Heavy tails
/// The second moment of the estimate holds Σ L²ᵏ / (k² P(N ≥ k)) with L the spectral radius of J: it is infinite for a
/// geometric length where L² > 1 − p, and for a Poisson length for every L. In practice J is well below the bound on
/// it; where it is not, more exact terms help.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Roulette {
    /// Distribution of N, the number of terms behind the exact ones. Default `Geometric(0.5)`.
    pub length: Length,
    /// Terms that are always there, with weight 1; at most [`MAX_SIZE`]. Default 2.
    pub exact_terms: usize,
    /// Probes, 1 to [`MAX_SIZE`], each with a length of its own. Default 2.
    pub probes: usize,
    /// Their distribution. Default `Rademacher`.
    pub distribution: Probe,
}

impl Default for Roulette {
    fn default() -> Self {
        Self { length: Length::Geometric(0.5), exact_terms: 2, probes: 2, distribution: Probe::default() }
    }
}

/// The distribution of a series' random length N.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum Length {
    /// N = 1, 2, … with P(N ≥ j) = (1 − p)^{j−1}; p from 1/1000, so that no length is beyond reason, to 1.
    Geometric(f64),
    /// N = 0, 1, … with P(N ≥ j) = 1 − e^{−λ} Σ_{i<j} λⁱ/i!; λ in (0, 100].
    Poisson(f64),
}

impl Estimator {
    /// Exact, or an estimate.
    pub fn kind(self) -> LogDetKind {
        if self == Self::Exact { LogDetKind::Exact } else { LogDetKind::Estimate }
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// [`flow_api::FlowError::Setting`] for no terms or probes, more than [`MAX_SIZE`] of them, or a distribution that
    /// is none.
    pub fn check(self) -> Result<()> {
        let (terms, probes, length) = match self {
            Self::Exact => return Ok(()),
            Self::Truncated(Truncated { terms, probes, .. }) => (("terms", 1, terms), probes, None),
            Self::Roulette(r) | Self::Neumann(r) => (("exact_terms", 0, r.exact_terms), r.probes, Some(r.length)),
        };
        for (field, least, size) in [terms, ("probes", 1, probes)] {
            if !(least..=MAX_SIZE).contains(&size) {
                return Err(setting(field, &size_range(least), size));
            }
        }
        match length {
            Some(Length::Geometric(p)) if !(1e-3..=1.0).contains(&p) => {
                Err(setting("length", "Geometric(p) with p from 0.001 to 1", format!("Geometric({p})")))
            }
            Some(Length::Poisson(rate)) if !(rate > 0.0 && rate <= 100.0) => {
                Err(setting("length", "Poisson(λ) with λ greater than 0 and at most 100", format!("Poisson({rate})")))
            }
            _ => Ok(()),
        }
    }
}
