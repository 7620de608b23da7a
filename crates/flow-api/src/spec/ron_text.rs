//! Specs and other values as RON text.

use super::{Kind, Spec, SpecError};
use serde::{Deserialize, Serialize};
use std::str::FromStr;

fn options() -> ron::Options {
    use ron::extensions::Extensions;
    ron::Options::default().with_default_extension(Extensions::UNWRAP_VARIANT_NEWTYPES | Extensions::IMPLICIT_SOME)
}

/// Reads a value from RON text, which may begin with a byte-order mark.
///
/// # Errors
/// [`SpecError::Text`] with line, column and what was expected.
pub fn from_ron<T: for<'de> Deserialize<'de>>(text: &str) -> Result<T, SpecError> {
    options().from_str(text.strip_prefix('\u{feff}').unwrap_or(text)).map_err(|e| SpecError::Text(e.to_string()))
}

/// Writes a value as RON text that [`from_ron`] reads back.
///
/// # Errors
/// [`SpecError::Text`] for values that RON cannot hold.
pub fn to_ron<T: Serialize>(value: &T) -> Result<String, SpecError> {
    let pretty = ron::ser::PrettyConfig::new().struct_names(false).compact_arrays(false).indentor("    ");
    options().to_string_pretty(value, pretty).map_err(|e| SpecError::Text(e.to_string()))
}

impl<T: Kind + ?Sized> FromStr for Spec<T>
where
    Self: for<'de> Deserialize<'de>,
{
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        from_ron(text)
    }
}

/// By what is written of them: fields that have their default are the same whether a text named them or not.
impl<T: Kind + ?Sized> PartialEq for Spec<T> {
    fn eq(&self, other: &Self) -> bool {
        matches!((to_ron(self), to_ron(other)), (Ok(own), Ok(its)) if own == its)
    }
}
