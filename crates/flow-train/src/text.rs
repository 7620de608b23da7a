//! Tables as aligned text, lists of names, and numbers of any size.

pub use flow_api::spec::Table;

use num_traits::One;
use serde::{Deserialize, Deserializer};
use std::fmt::Display;

/// A number in as many digits as tell it from others, with an exponent where it is so large or so small that digits
/// would be zeros alone.
///
/// ```
/// use flow_train::text::number;
/// assert_eq!([0.0, -2.5, 1e6, 1e39, 1.5e-320].map(number), ["0", "-2.5", "1000000", "1e39", "1.5e-320"]);
/// ```
pub fn number(x: f64) -> String {
    let plain = x == 0.0 || !x.is_finite() || (1e-5..1e16).contains(&x.abs());
    if plain { x.to_string() } else { format!("{x:e}") }
}

/// So many of what a noun names in the singular.
///
/// ```
/// use flow_train::text::count;
/// assert_eq!([count(1, "item"), count(2, "class"), count(0, "row")], ["1 item", "2 classes", "0 rows"]);
/// ```
pub fn count<N: Copy + Display + One + PartialEq>(number: N, noun: &str) -> String {
    let plural = if noun.ends_with('s') { "es" } else { "s" };
    let ending = if number == N::one() { "" } else { plural };
    format!("{number} {noun}{ending}")
}

/// The words that agree with a number: the first for one, the second for none and more.
///
/// ```
/// use flow_train::text::agreeing;
/// assert_eq!([agreeing(1, "is", "are"), agreeing(2, "is", "are")], ["is", "are"]);
/// ```
pub fn agreeing<'a, N: Copy + One + PartialEq>(number: N, one: &'a str, more: &'a str) -> &'a str {
    if number == N::one() { one } else { more }
}

/// Names for a message: the first of many.
pub(crate) fn list<T: AsRef<str>>(names: &[T]) -> String {
    const SHOWN: usize = 12;
    let shown: Vec<&str> = names.iter().take(SHOWN).map(AsRef::as_ref).collect();
    let more = if names.len() > SHOWN { format!(", … {} in all", names.len()) } else { String::new() };
    format!("{}{more}", shown.join(", "))
}

/// JSON has no number for what is not finite: it is null there.
pub(crate) fn number_or_null<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<f64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f64::NAN))
}
