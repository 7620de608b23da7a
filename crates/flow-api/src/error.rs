//! What can go wrong, with the layer that it went wrong in.

use crate::device::DeviceError;

/// The result of every fallible call of this crate.
pub type Result<T, E = FlowError> = std::result::Result<T, E>;

/// Errors of flows: each names the layer by its dotted path, what was expected and what came.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum FlowError {
    // === shapes ===
    /// A tensor or buffer has another shape than the layer was built for.
    #[error("{layer}: {operation}: expected shape {expected}, got {got}")]
    Shape {
        /// Dotted path of the layer.
        layer: String,
        /// The call that was made.
        operation: &'static str,
        /// The shape that the layer takes.
        expected: String,
        /// The shape that came.
        got: String,
    },
    /// Two neighbours in a composition do not meet.
    #[error("{second} takes shape {expected}, but {first} before it gives {got}")]
    Composition {
        /// The layer whose output does not fit.
        first: String,
        /// The layer that cannot take it.
        second: String,
        /// The shape that `second` takes.
        expected: String,
        /// The shape that `first` gives.
        got: String,
    },
    /// A size or setting that no layer can be built with.
    #[error("{layer}: {field}: expected {expected}, got {got}")]
    Setting {
        /// Dotted path or kind of the layer.
        layer: String,
        /// The field's name as it stands in the spec.
        field: &'static str,
        /// What values the field takes.
        expected: String,
        /// The value that came.
        got: String,
    },

    // === condition ===
    /// A conditional layer was called without a condition, or with one of another width.
    #[error("{layer}: expected a condition of shape {expected}, got {got}")]
    Condition {
        /// Dotted path of the layer.
        layer: String,
        /// The condition that the layer takes.
        expected: String,
        /// What came: a shape, or "none".
        got: String,
    },

    // === data-dependent initialisation ===
    /// An `ActNorm` was used before `initialise`.
    #[error("{layer}: used before its data-dependent initialisation; call `initialise` with a batch of data first")]
    NotInitialised {
        /// Dotted path of the layer.
        layer: String,
    },
    /// One sample has no standard deviation.
    #[error("{layer}: data-dependent initialisation needs at least 2 rows, got {got}")]
    BatchTooSmall {
        /// Dotted path of the layer.
        layer: String,
        /// Rows that came.
        got: usize,
    },
    /// A feature that does not vary cannot be normalised to unit variance.
    #[error("{layer}: feature {feature} is constant over the initialisation batch, so it cannot be scaled to unit variance")]
    ConstantFeature {
        /// Dotted path of the layer.
        layer: String,
        /// Index of the feature.
        feature: usize,
    },

    /// A feature that varies by less than what f64 holds the square of.
    #[error("{layer}: feature {feature} varies by so little that its variance is lost in f64: it has to be rescaled")]
    NarrowFeature {
        /// Dotted path of the layer.
        layer: String,
        /// Index of the feature.
        feature: usize,
    },

    // === numbers ===
    /// NaN or infinity where a number has to be.
    #[error("{layer}: {what} is not finite in row {row}")]
    NotFinite {
        /// Dotted path of the layer.
        layer: String,
        /// Which quantity.
        what: &'static str,
        /// Row of the batch.
        row: usize,
    },
    /// A number that lies where the map or the density is not defined.
    #[error("{layer}: row {row}: expected {expected}, got {got}")]
    Domain {
        /// Dotted path of the layer.
        layer: String,
        /// Row of the batch.
        row: usize,
        /// The numbers that it takes.
        expected: String,
        /// The number that came.
        got: String,
    },
    /// A linear map that cannot be inverted.
    #[error("{layer}: the linear map is singular: {detail}")]
    Singular {
        /// Dotted path of the layer.
        layer: String,
        /// Which pivot, and its value.
        detail: String,
    },
    /// An iterative inverse did not reach its tolerance.
    #[error("{layer}: no convergence after {iterations} iterations: residual {residual:e} in row {row}, tolerance {tolerance:e}")]
    NotConverged {
        /// Dotted path of the layer.
        layer: String,
        /// Iterations spent.
        iterations: usize,
        /// The largest true residual that is left.
        residual: f64,
        /// The residual that was asked for.
        tolerance: f64,
        /// The row with the largest residual.
        row: usize,
    },
    /// The step size of an ODE solver fell below what the number format resolves.
    #[error(
        "{layer}: step size underflow at t = {t}: dt = {dt:e} after {nfe} function evaluations; the field is too stiff for this tolerance"
    )]
    StepUnderflow {
        /// Dotted path of the layer.
        layer: String,
        /// Time reached.
        t: f64,
        /// The step that would have been needed.
        dt: f64,
        /// Function evaluations spent.
        nfe: usize,
    },
    /// An ODE solve hit its limit of function evaluations.
    #[error("{layer}: {nfe} function evaluations and only at t = {t}; the limit is {limit}")]
    TooManyEvaluations {
        /// Dotted path of the layer.
        layer: String,
        /// Time reached.
        t: f64,
        /// Function evaluations spent.
        nfe: usize,
        /// The limit that was set.
        limit: usize,
    },

    // === capabilities ===
    /// The layer cannot do what was asked of it.
    #[error("{layer}: {operation} is not supported: {reason}")]
    Unsupported {
        /// Dotted path of the layer.
        layer: String,
        /// What was asked.
        operation: &'static str,
        /// Why it cannot be done.
        reason: String,
    },

    /// The layer has no inverse.
    #[error("{layer}: the layer has no inverse: it can score, but not sample")]
    NoInverse {
        /// Dotted path of the layer.
        layer: String,
    },

    // === parameters and state ===
    /// No parameter or state has this path.
    #[error("no parameter or state is called `{path}`")]
    UnknownPath {
        /// The path that was looked up.
        path: String,
    },
    /// A saved model lacks entries, has others, or has them in other shapes.
    #[error("the saved state does not fit this model: {0}")]
    State(StateMismatch),

    // === device ===
    /// The tensor library failed.
    #[error("{layer}: the tensor library failed: {message}")]
    Device {
        /// Dotted path of the layer.
        layer: String,
        /// Its own words.
        message: String,
    },
    /// An engine could not load or run a model.
    #[error("{0}")]
    Engine(DeviceError),
}

/// How a saved state differs from the model that it was loaded into.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StateMismatch {
    /// Paths that the model has and the file lacks.
    pub missing: Vec<String>,
    /// Paths that the file has and the model lacks.
    pub unexpected: Vec<String>,
    /// Path, shape or type in the model, shape or type in the file.
    pub different: Vec<(String, String, String)>,
}

impl StateMismatch {
    /// Nothing differs.
    pub fn is_empty(&self) -> bool {
        self.missing.is_empty() && self.unexpected.is_empty() && self.different.is_empty()
    }
}

impl std::fmt::Display for StateMismatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        /// A file of another architecture differs everywhere: the first few names say enough.
        const SHOWN: usize = 5;
        let mut parts = Vec::new();
        for (what, names) in [("missing", &self.missing), ("unexpected", &self.unexpected)] {
            if !names.is_empty() {
                let more = if names.len() > SHOWN { ", …" } else { "" };
                let first = names.iter().take(SHOWN).map(|n| format!("`{n}`")).collect::<Vec<_>>();
                parts.push(format!("{} {what} ({}{more})", names.len(), first.join(", ")));
            }
        }
        for (path, expected, got) in self.different.iter().take(SHOWN) {
            parts.push(format!("`{path}` is {expected} in the model and {got} in the file"));
        }
        if self.different.len() > SHOWN {
            parts.push(format!("{} more differ", self.different.len() - SHOWN));
        }
        f.write_str(&parts.join("; "))
    }
}

impl FlowError {
    /// The same error with the layer named, where the place that raised it did not know its path.
    #[must_use]
    pub fn in_layer(mut self, path: &str) -> Self {
        if let Some(layer) = self.layer_mut().filter(|layer| layer.is_empty()) {
            path.clone_into(layer);
        }
        self
    }

    /// The same error with its row counted in samples of `rows` rows.
    #[must_use]
    pub fn by_sample(mut self, rows: usize) -> Self {
        if let FlowError::NotFinite { row, .. } | FlowError::NotConverged { row, .. } | FlowError::Domain { row, .. } = &mut self {
            *row /= rows.max(1);
        }
        self
    }

    /// The same error from a layer of this path and kind that ran as a root of its own on rows from `first_row` on: its
    /// parts named within the path, its row counted from the call's first.
    pub(crate) fn of_block(mut self, path: &str, kind: &str, first_row: u64) -> Self {
        if let Some(layer) = self.layer_mut() {
            let part = if layer == kind { "" } else { layer.as_str() };
            *layer = [path, part].into_iter().filter(|name| !name.is_empty()).collect::<Vec<_>>().join(".");
        }
        if let FlowError::NotFinite { row, .. } | FlowError::NotConverged { row, .. } | FlowError::Domain { row, .. } = &mut self {
            *row = row.saturating_add(usize::try_from(first_row).unwrap_or(usize::MAX));
        }
        self
    }

    fn layer_mut(&mut self) -> Option<&mut String> {
        use FlowError::{
            BatchTooSmall, Condition, ConstantFeature, Device, Domain, NarrowFeature, NoInverse, NotConverged, NotFinite, NotInitialised,
            Setting, Shape, Singular, StepUnderflow, TooManyEvaluations, Unsupported,
        };
        match self {
            Shape { layer, .. }
            | Setting { layer, .. }
            | Condition { layer, .. }
            | NotInitialised { layer }
            | NoInverse { layer }
            | BatchTooSmall { layer, .. }
            | ConstantFeature { layer, .. }
            | NarrowFeature { layer, .. }
            | NotFinite { layer, .. }
            | Domain { layer, .. }
            | Singular { layer, .. }
            | NotConverged { layer, .. }
            | StepUnderflow { layer, .. }
            | TooManyEvaluations { layer, .. }
            | Unsupported { layer, .. }
            | Device { layer, .. } => Some(layer),
            FlowError::Composition { .. } | FlowError::UnknownPath { .. } | FlowError::State(_) | FlowError::Engine(_) => None,
        }
    }
}

/// The error for a size that a layer was not built for. Shapes are shown as by `Debug`, words in them without quotes:
/// `("batch", 5)` as (batch, 5).
pub fn shape_error(layer: &str, operation: &'static str, expected: impl std::fmt::Debug, got: impl std::fmt::Debug) -> FlowError {
    let words = |shape: String| shape.replace('"', "");
    FlowError::Shape { layer: layer.to_owned(), operation, expected: words(format!("{expected:?}")), got: words(format!("{got:?}")) }
}

/// The error for a [`Point::Kept`](crate::bijector::Point::Kept) that another layer made.
pub fn foreign_point(path: &str) -> FlowError {
    FlowError::Unsupported {
        layer: path.to_owned(),
        operation: "pullback",
        reason: "the kept forward pass is not this layer's own".to_owned(),
    }
}
