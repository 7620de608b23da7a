//! Tables as aligned text, and numbers of any size.

pub use flow_api::spec::Table;

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
