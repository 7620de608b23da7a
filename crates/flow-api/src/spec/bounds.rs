//! Maps of bounded numbers to all of ℝ.

use serde::{Deserialize, Serialize};

/// Where the values of a column can lie, and by which map they become numbers that can lie anywhere: a density of the
/// latter has none outside the bounds.
///
/// In RON `Log()`, `Log(above: 5.0)`, `Log(below: 0.0)`, `Softplus(above: 0.0)`, `Logit(low: 0.0, high: 1.0)`.
///
/// | kind | values | y | ln dy/dx |
/// |---|---|---|---|
/// | `Log(above: a)` | x > a | ln(x − a) | −ln(x − a) |
/// | `Softplus(above: a)` | x > a | ln(e^(x − a) − 1) | −ln(1 − e^(a − x)) |
/// | `Logit(low: a, high: b)` | a < x < b | ln(x − a) − ln(b − x) | ln(b − a) − ln(x − a) − ln(b − x) |
///
/// `below: b` mirrors the half-line: y is −ln(b − x), and so on. `Softplus` is the logarithm near the bound and x − a
/// far from it, with a bend one unit of the column wide: tails that fall like those of an exponential density stay so,
/// where the logarithm makes them heavier. Of a discrete column the bounds are values that it can have:
/// `Logit(low: 0, high: 1)` is one of zeros and ones.
///
/// ```
/// use flow_api::spec::Bounds;
/// let bounds: Bounds = flow_api::spec::from_ron("Logit(low: -1, high: 3)")?;
/// let (y, log_slope) = bounds.map(0.0);
/// assert!((y + 3f64.ln()).abs() < 1e-15 && (log_slope - (4.0f64 / 3.0).ln()).abs() < 1e-15);
/// assert!(bounds.inverse(y).abs() < 1e-15);
/// assert!(bounds.map(3.0).0.is_nan()); // no value has a density there
/// # Ok::<(), flow_api::spec::SpecError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Bounds {
    /// A half-line, by the logarithm; above 0 where nothing is said.
    Log {
        /// What all values lie above.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        above: Option<f64>,
        /// What all values lie below.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        below: Option<f64>,
    },
    /// A half-line, by the inverse of softplus; above 0 where nothing is said.
    Softplus {
        /// What all values lie above.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        above: Option<f64>,
        /// What all values lie below.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        below: Option<f64>,
    },
    /// An interval, by the logit.
    Logit {
        /// The lower bound.
        low: f64,
        /// The upper bound.
        high: f64,
    },
}

/// The numbers above a bound, or those below one.
#[derive(Clone, Copy)]
struct HalfLine {
    bound: f64,
    /// 1 for numbers above it, −1 for those below.
    sign: f64,
}

impl HalfLine {
    fn of(above: Option<f64>, below: Option<f64>) -> Self {
        below.map_or(Self { bound: above.unwrap_or(0.0), sign: 1.0 }, |bound| Self { bound, sign: -1.0 })
    }

    /// y and ln dy/dx by the map of a positive number.
    fn map(self, x: f64, of: impl Fn(f64) -> (f64, f64)) -> (f64, f64) {
        let x = self.sign * (x - self.bound);
        let (y, log_slope) = if x > 0.0 { of(x) } else { (f64::NAN, f64::NAN) };
        (self.sign * y, log_slope)
    }

    fn inverse(self, y: f64, of: impl Fn(f64) -> f64) -> f64 {
        self.bound + self.sign * of(self.sign * y)
    }

    fn range(self) -> (f64, f64) {
        if self.sign > 0.0 { (self.bound, f64::INFINITY) } else { (f64::NEG_INFINITY, self.bound) }
    }
}

impl Bounds {
    /// What they have to be, where they are not.
    pub fn expected(self) -> Option<&'static str> {
        match self {
            Self::Log { above: Some(_), below: Some(_) } | Self::Softplus { above: Some(_), below: Some(_) } => {
                Some("one of `above` and `below`; an interval is Logit(low: …, high: …)")
            }
            Self::Log { above, below } | Self::Softplus { above, below } => {
                (!HalfLine::of(above, below).bound.is_finite()).then_some("a finite bound")
            }
            Self::Logit { low, high } => (!(low < high && (high - low).is_finite())).then_some("finite bounds, `low` below `high`"),
        }
    }

    /// y and ln dy/dx of a number; not a number unless it lies within the bounds.
    pub fn map(self, x: f64) -> (f64, f64) {
        match self {
            Self::Log { above, below } => HalfLine::of(above, below).map(x, |x| (x.ln(), -x.ln())),
            Self::Softplus { above, below } => HalfLine::of(above, below).map(x, |x| {
                let log = (-(-x).exp_m1()).ln();
                (x + log, -log)
            }),
            Self::Logit { low, high } if low < x && x < high => {
                let (below, above) = ((x - low).ln(), (high - x).ln());
                (below - above, (high - low).ln() - below - above)
            }
            Self::Logit { .. } => (f64::NAN, f64::NAN),
        }
    }

    /// x of y, within the bounds or, by rounding, on them.
    pub fn inverse(self, y: f64) -> f64 {
        match self {
            Self::Log { above, below } => HalfLine::of(above, below).inverse(y, f64::exp),
            Self::Softplus { above, below } => HalfLine::of(above, below).inverse(y, |y| y.max(0.0) + (-y.abs()).exp().ln_1p()),
            Self::Logit { low, high } => {
                // Each half from its own bound, so that no digits are lost beside it.
                let from_bound = |y: f64| (high - low) * (y.exp() / (1.0 + y.exp()));
                if y < 0.0 { low + from_bound(y) } else { high - from_bound(-y) }
            }
        }
    }

    /// The bounds of x + u, u between 0 and 1, for whole numbers x with these bounds, which are values that x can have.
    #[must_use]
    pub fn of_dequantised(self) -> Self {
        match self {
            Self::Log { above, below } => Self::Log { above, below: below.map(|below| below + 1.0) },
            Self::Softplus { above, below } => Self::Softplus { above, below: below.map(|below| below + 1.0) },
            Self::Logit { low, high } => Self::Logit { low, high: high + 1.0 },
        }
    }

    /// The bounds themselves, infinite where there is none.
    pub fn range(self) -> (f64, f64) {
        match self {
            Self::Log { above, below } | Self::Softplus { above, below } => HalfLine::of(above, below).range(),
            Self::Logit { low, high } => (low, high),
        }
    }
}

/// `a number above 0`, `a number between 0 and 1`.
impl std::fmt::Display for Bounds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.range() {
            (low, f64::INFINITY) => write!(f, "a number above {low}"),
            (f64::NEG_INFINITY, high) => write!(f, "a number below {high}"),
            (low, high) => write!(f, "a number between {low} and {high}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{from_ron, to_ron};

    #[test]
    fn maps_have_their_slopes_and_inverses() {
        for text in [
            "Log()",
            "Log(above: -3.5)",
            "Log(below: 2)",
            "Softplus()",
            "Softplus(above: 1)",
            "Softplus(below: 4)",
            "Logit(low: 0, high: 1)",
            "Logit(low: -2, high: 9)",
        ] {
            let bounds: Bounds = from_ron(text).unwrap();
            assert_eq!(bounds, from_ron(&to_ron(&bounds).unwrap()).unwrap());
            let (low, high) = bounds.range();
            let mut last = f64::NEG_INFINITY;
            for y in [-30.0, -4.0, -0.5, 0.0, 0.7, 5.0, 20.0] {
                let x = bounds.inverse(y);
                assert!(low <= x && x <= high && x > last, "{text}: {y} is {x}");
                last = x;
                if y.abs() < 10.0 {
                    let h = 1e-6 * (x - low).abs().min((high - x).abs()).min(1.0);
                    let (found, log_slope) = bounds.map(x);
                    let slope = (bounds.map(x + h).0 - bounds.map(x - h).0) / (2.0 * h);
                    assert!(
                        (found - y).abs() < 1e-9 && (log_slope - slope.ln()).abs() < 1e-5,
                        "{text}: {y}, {found}, {log_slope}, {slope}"
                    );
                }
            }
            for outside in [low, high, low - 1.0, high + 1.0, f64::NAN] {
                assert!(outside.is_infinite() || bounds.map(outside).0.is_nan(), "{text}: {outside}");
            }
        }
    }

    #[test]
    fn bounds_that_are_none_are_told() {
        for (text, problem) in [
            ("Log(above: 0, below: 1)", "one of `above` and `below`"),
            ("Softplus(above: inf)", "a finite bound"),
            ("Logit(low: 1, high: 1)", "`low` below `high`"),
            ("Logit(low: -1e308, high: 1e308)", "`low` below `high`"),
        ] {
            let bounds: Bounds = from_ron(text).unwrap();
            assert!(bounds.expected().is_some_and(|found| found.contains(problem)), "{text}");
        }
        assert_eq!(from_ron::<Bounds>("Log()").unwrap().expected(), None);
        // Zeros and ones become numbers from 0 to 2.
        assert_eq!(from_ron::<Bounds>("Logit(low: 0, high: 1)").unwrap().of_dequantised().range(), (0.0, 2.0));
    }
}
