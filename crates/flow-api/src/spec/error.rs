//! What can be wrong with a spec.

use crate::FlowError;

/// Errors of specs: of their text, with its place, or of the model that they describe.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SpecError {
    /// The text is no spec: unknown kinds and fields, wrong types, syntax; `line:column` and what was expected are in
    /// the message.
    #[error("{0}")]
    Text(String),
    /// A field has a value that no layer can be built with.
    #[error("{path}: {field}: expected {expected}, got {got}")]
    Field {
        /// Where in the spec: the kind, behind the path of the layers around it.
        path: String,
        /// The field.
        field: &'static str,
        /// Which values it takes.
        expected: String,
        /// The value that it has.
        got: String,
    },
    /// Sizes that must divide do not.
    #[error("{path}: {dividend_name} {dividend} is not divisible by {divisor_name} {divisor}")]
    Indivisible {
        /// Where in the spec.
        path: String,
        /// What has to be divided.
        dividend_name: &'static str,
        /// Its size.
        dividend: usize,
        /// What has to divide it.
        divisor_name: &'static str,
        /// Its size.
        divisor: usize,
    },
    /// A model for another kind of data.
    #[error("{path}: expected {expected}, got data of shape {got}")]
    Event {
        /// Where in the spec.
        path: String,
        /// What data the model takes.
        expected: &'static str,
        /// The data's shape.
        got: String,
    },
    /// The layers do not fit together.
    #[error(transparent)]
    Flow(#[from] FlowError),
}
