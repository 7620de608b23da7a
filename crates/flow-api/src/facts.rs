//! What a layer says of itself, in one value that compositions combine.

use crate::log_det::LogDetKind;

/// How a bijection's inverse is computed, from the cheapest to none at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum InverseKind {
    /// In closed form: as exact as the forward map, and about as expensive.
    ClosedForm,
    /// Exactly, but in so many steps of which each waits for the one before: one a feature, in an autoregressive flow.
    Sequential(usize),
    /// By iteration or by an ODE solve, to a tolerance that is reported.
    Iterative,
    /// Not at all: [`FlowError::NoInverse`](crate::FlowError::NoInverse).
    Missing,
}

impl InverseKind {
    /// The inverse of a composition is what its worst part allows; steps add up.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Sequential(first), Self::Sequential(second)) => Self::Sequential(first.saturating_add(second)),
            _ => self.max(other),
        }
    }
}

impl std::fmt::Display for InverseKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::ClosedForm => f.write_str("closed form"),
            Self::Sequential(steps) => write!(f, "sequential, {steps} steps"),
            Self::Iterative => f.write_str("iterative"),
            Self::Missing => f.write_str("none"),
        }
    }
}

/// What a layer says of itself: its kind, how it computes log-dets and inverses, the condition that it takes, and its
/// cost.
///
/// ```
/// use flow_api::log_det::LogDetKind;
/// use flow_api::{Facts, InverseKind};
/// let residual = Facts::new("Residual").with_log_det(LogDetKind::Estimate).with_inverse(InverseKind::Iterative);
/// let linear = Facts::new("LuLinear").with_multiply_adds(9);
/// let both = Facts::of("Chain", [linear, residual.with_condition(4).with_multiply_adds(100)]);
/// assert_eq!((both.log_det, both.inverse), (LogDetKind::Estimate, InverseKind::Iterative));
/// assert_eq!((both.condition, both.multiply_adds), (Some(4), 109));
/// let steps = InverseKind::Sequential(4).and(InverseKind::ClosedForm).and(InverseKind::Sequential(3));
/// assert_eq!(steps.to_string(), "sequential, 7 steps");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Facts {
    /// Name of the kind of layer, as in specs.
    pub kind: &'static str,
    /// Exact or estimated in evaluation.
    pub log_det: LogDetKind,
    /// How the inverse is computed.
    pub inverse: InverseKind,
    /// Width of the condition that it takes, if it is conditional.
    pub condition: Option<usize>,
    /// Multiply-adds of matrix products for one row (of a row flow) or one sample forward, as the layer is written
    /// down: a kernel may do with fewer.
    pub multiply_adds: u64,
}

impl Facts {
    /// A layer of this kind with an exact log-det and an inverse in closed form, without a condition and without
    /// matrix products.
    pub fn new(kind: &'static str) -> Self {
        Self { kind, log_det: LogDetKind::Exact, inverse: InverseKind::ClosedForm, condition: None, multiply_adds: 0 }
    }

    /// Those of parts one after the other, under a name of their own.
    pub fn of(kind: &'static str, parts: impl IntoIterator<Item = Self>) -> Self {
        parts.into_iter().fold(Self::new(kind), |so_far, part| Self {
            kind,
            log_det: so_far.log_det.and(part.log_det),
            inverse: so_far.inverse.and(part.inverse),
            condition: so_far.condition.or(part.condition),
            multiply_adds: so_far.multiply_adds.saturating_add(part.multiply_adds),
        })
    }

    /// The same with another kind of log-det.
    #[must_use]
    pub fn with_log_det(self, log_det: LogDetKind) -> Self {
        Self { log_det, ..self }
    }

    /// The same with another kind of inverse.
    #[must_use]
    pub fn with_inverse(self, inverse: InverseKind) -> Self {
        Self { inverse, ..self }
    }

    /// The same with a condition of this width; of width 0, without one.
    #[must_use]
    pub fn with_condition(self, width: usize) -> Self {
        Self { condition: (width > 0).then_some(width), ..self }
    }

    /// The same with this cost.
    #[must_use]
    pub fn with_multiply_adds(self, multiply_adds: u64) -> Self {
        Self { multiply_adds, ..self }
    }

    /// Those of `rows` rows: their cost is that of all.
    #[must_use]
    pub fn for_rows(self, rows: usize) -> Self {
        Self { multiply_adds: self.multiply_adds.saturating_mul(rows as u64), ..self }
    }
}
