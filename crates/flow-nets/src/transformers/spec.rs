//! Transformers in RON: a field of the specs of families that take one.

use super::{Additive, Affine, RationalQuadratic, SigmoidAffine, Transformer};
use flow_api::{Result, Scalar};
use serde::{Deserialize, Serialize};

/// A [`Transformer`] as text: `Additive`, `Affine(bound: 2.0)`, `SigmoidAffine(max_scale: 2.0)` or
/// `Spline(bins: 8, tail_bound: 3.0)`.
///
/// ```
/// use flow_api::spec::{from_ron, to_ron};
/// use flow_nets::{Transformer, TransformerSpec};
/// let spec: TransformerSpec = from_ron("Spline(bins: 4)")?;
/// assert_eq!((spec.parameters(), spec.build::<f64>()?.parameters()), (11, 11));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum TransformerSpec {
    /// [`Additive`]: y = x + t.
    Additive,
    /// [`Affine`]: y = x e^s + t.
    Affine(AffineSpec),
    /// [`SigmoidAffine`]: y = (x + t) e^s with a scale between 0 and its largest.
    SigmoidAffine(SigmoidAffineSpec),
    /// [`RationalQuadratic`]: a monotone spline on an interval.
    Spline(SplineSpec),
}

/// Settings of [`Affine`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AffineSpec {
    /// Bound c of the log-scale s = c tanh(r / c). Default 2.
    pub bound: f64,
}

/// Settings of [`SigmoidAffine`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SigmoidAffineSpec {
    /// The largest scale. Default 2.
    pub max_scale: f64,
}

/// Settings of [`RationalQuadratic`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SplineSpec {
    /// Bins of the spline, 2 to 999. Default 8.
    pub bins: usize,
    /// Half the width B of the interval \[−B, B\] that the spline acts on. Default 3.
    pub tail_bound: f64,
}

impl Default for AffineSpec {
    fn default() -> Self {
        Self { bound: 2.0 }
    }
}

impl Default for SigmoidAffineSpec {
    fn default() -> Self {
        Self { max_scale: 2.0 }
    }
}

impl Default for SplineSpec {
    fn default() -> Self {
        Self { bins: 8, tail_bound: 3.0 }
    }
}

/// An affine one with the default bound.
impl Default for TransformerSpec {
    fn default() -> Self {
        Self::Affine(AffineSpec::default())
    }
}

impl AffineSpec {
    /// The transformer.
    ///
    /// # Errors
    /// As [`Affine::new`].
    pub fn build<E: Scalar>(&self) -> Result<Affine<E>> {
        Affine::new(E::of(self.bound))
    }
}

impl SigmoidAffineSpec {
    /// The transformer.
    ///
    /// # Errors
    /// As [`SigmoidAffine::new`].
    pub fn build<E: Scalar>(&self) -> Result<SigmoidAffine<E>> {
        SigmoidAffine::new(E::of(self.max_scale))
    }
}

impl SplineSpec {
    /// The transformer.
    ///
    /// # Errors
    /// As [`RationalQuadratic::new`].
    pub fn build<E: Scalar>(&self) -> Result<RationalQuadratic<E>> {
        RationalQuadratic::new(self.bins, E::of(self.tail_bound))
    }
}

impl TransformerSpec {
    /// Parameters of a feature, for any settings.
    pub fn parameters(&self) -> usize {
        match self {
            Self::Additive => 1,
            Self::Affine(_) | Self::SigmoidAffine(_) => 2,
            Self::Spline(SplineSpec { bins, .. }) => bins.saturating_mul(3).saturating_sub(1),
        }
    }

    /// The transformer.
    ///
    /// # Errors
    /// [`FlowError::Setting`](flow_api::FlowError::Setting) for a setting out of range.
    pub fn build<E: Scalar>(&self) -> Result<Box<dyn Transformer<E>>> {
        Ok(match self {
            Self::Additive => Box::new(Additive),
            Self::Affine(affine) => Box::new(affine.build()?),
            Self::SigmoidAffine(affine) => Box::new(affine.build()?),
            Self::Spline(spline) => Box::new(spline.build()?),
        })
    }
}
