//! The error for a setting that no flow can be built with.

use flow_api::FlowError;

/// The error for a setting.
pub(crate) fn setting(field: &'static str, expected: &str, got: impl std::fmt::Display) -> FlowError {
    FlowError::Setting { layer: "Ffjord".to_owned(), field, expected: expected.to_owned(), got: got.to_string() }
}
