//! Element-wise maps, each of which is its own spec.

use super::{BuildRowFlow, BuildScope, Cost, SpecError, SpecScalar};
use crate::device::Snippet;
use crate::rows::{ElementMap, ElementWise, Inverted, Number};
use crate::{FlowError, InverseKind, Result, RowFlow, register_row_flow};
use serde::{Deserialize, Serialize};

/// An element-wise map is a spec of its flow.
impl<M: ElementMap> BuildRowFlow for M {
    fn build<E: SpecScalar>(&self, dim: usize, scope: &BuildScope) -> Result<Box<dyn RowFlow<E>>, SpecError> {
        self.check().map_err(|e| e.in_layer(scope.path()))?;
        Ok(Box::new(ElementWise::new(self.clone(), dim)?))
    }

    fn cost(&self, dim: usize) -> Cost {
        Cost::of_numbers(self.parameters().len().saturating_mul(dim))
    }
}

/// The error for a setting that is no finite number greater than `above`.
fn check_above(field: &'static str, value: f64, above: f64) -> Result<()> {
    if value.is_finite() && value > above {
        return Ok(());
    }
    let expected = if above.is_finite() { format!("a finite number greater than {above}") } else { "a finite number".to_owned() };
    Err(FlowError::Setting { layer: String::new(), field, expected, got: value.to_string() })
}

/// y = x for x ≥ 0, and y = a x below with a slope a > 0: the rectifier of networks as a bijection (Maas, Hannun & Ng,
/// "Rectifier nonlinearities improve neural network acoustic models", 2013).
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LeakyRelu {
    /// a.
    pub slope: f64,
}
register_row_flow!(LeakyRelu);

impl Default for LeakyRelu {
    fn default() -> Self {
        Self { slope: 0.01 }
    }
}

impl ElementMap for LeakyRelu {
    const KIND: &'static str = "LeakyRelu";
    const INVERSE: InverseKind = InverseKind::ClosedForm;

    fn check(&self) -> Result<()> {
        check_above("slope", self.slope, 0.0)
    }
    fn map<N: Number>(&self, x: N, _: &[N]) -> (N, N) {
        let slope = N::of(if x < N::of(0.0) { self.slope } else { 1.0 });
        (slope * x, slope.ln())
    }
    fn inverse(&self, y: f64, _: &[f64]) -> Inverted {
        let slope = if y < 0.0 { self.slope } else { 1.0 };
        Inverted::closed_form(y / slope, slope.ln())
    }
    fn snippet(&self) -> Option<Snippet> {
        Some(Snippet {
            kind: Self::KIND,
            text: include_str!("element_maps/leaky_relu.cu").into(),
            parameters: 0,
            settings: vec![self.slope],
            inverse: true,
        })
    }
}

/// y = sinh(δ sinh⁻¹(x) − ε) with a skewness ε and a weight δ > 0 of the tails, both learned for every feature (Jones &
/// Pewsey, "Sinh-arcsinh distributions", Biometrika 96, 2009, section 2). As it starts, it is the identity.
///
/// # Parameters
/// `skewness` ε and `log_tail` ln δ, (d) each.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SinhArcsinh {
    /// Where ε starts.
    pub skewness: f64,
    /// Where δ starts: data have heavier tails than the latents below 1, lighter ones above.
    pub tail: f64,
}
register_row_flow!(SinhArcsinh);

impl Default for SinhArcsinh {
    fn default() -> Self {
        Self { skewness: 0.0, tail: 1.0 }
    }
}

impl ElementMap for SinhArcsinh {
    const KIND: &'static str = "SinhArcsinh";
    const INVERSE: InverseKind = InverseKind::ClosedForm;

    fn parameters(&self) -> Vec<(&'static str, f64)> {
        vec![("skewness", self.skewness), ("log_tail", self.tail.ln())]
    }
    fn check(&self) -> Result<()> {
        check_above("skewness", self.skewness, f64::NEG_INFINITY).and(check_above("tail", self.tail, 0.0))
    }
    fn map<N: Number>(&self, x: N, parameters: &[N]) -> (N, N) {
        let (skewness, log_tail, arc) = (parameters[0], parameters[1], x.asinh());
        let bent = log_tail.exp() * arc - skewness;
        (bent.sinh(), log_tail + bent.ln_cosh() - arc.ln_cosh())
    }
    fn inverse(&self, y: f64, parameters: &[f64]) -> Inverted {
        let bent = y.asinh();
        let arc = (bent + parameters[0]) / parameters[1].exp();
        Inverted::closed_form(arc.sinh(), parameters[1] + ln_cosh(bent) - ln_cosh(arc))
    }
    fn snippet(&self) -> Option<Snippet> {
        let text = include_str!("element_maps/sinh_arcsinh.cu").into();
        Some(Snippet { kind: Self::KIND, text, parameters: 2, settings: Vec::new(), inverse: true })
    }
}

fn ln_cosh(x: f64) -> f64 {
    x.abs() + (-2.0 * x.abs()).exp().ln_1p() - std::f64::consts::LN_2
}

/// y = x / (1 + |x|), from ℝ to (−1, 1) with tails of 1/|x|.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Softsign {}
register_row_flow!(Softsign);

impl ElementMap for Softsign {
    const KIND: &'static str = "Softsign";
    const INVERSE: InverseKind = InverseKind::ClosedForm;

    fn range(&self) -> (f64, f64) {
        (-1.0, 1.0)
    }
    fn map<N: Number>(&self, x: N, _: &[N]) -> (N, N) {
        let size = N::of(1.0) + x.abs();
        (x / size, N::of(-2.0) * size.ln())
    }
    fn inverse(&self, y: f64, _: &[f64]) -> Inverted {
        let rest = 1.0 - y.abs();
        Inverted::closed_form(y / rest, 2.0 * rest.ln())
    }
    fn snippet(&self) -> Option<Snippet> {
        let text = include_str!("element_maps/softsign.cu").into();
        Some(Snippet { kind: Self::KIND, text, parameters: 0, settings: Vec::new(), inverse: true })
    }
}

/// y = ln(x − low) − ln(high − x), from an interval to ℝ: the inverse of the logistic function, which latents of an
/// interval are brought to ℝ with.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Logit {
    /// The lower end of the interval.
    pub low: f64,
    /// The upper one.
    pub high: f64,
}
register_row_flow!(Logit);

impl Default for Logit {
    fn default() -> Self {
        Self { low: 0.0, high: 1.0 }
    }
}

impl ElementMap for Logit {
    const KIND: &'static str = "Logit";
    const INVERSE: InverseKind = InverseKind::ClosedForm;

    fn check(&self) -> Result<()> {
        check_above("low", self.low, f64::NEG_INFINITY).and(check_above("high", self.high, self.low))
    }
    fn domain(&self) -> (f64, f64) {
        (self.low, self.high)
    }
    fn map<N: Number>(&self, x: N, _: &[N]) -> (N, N) {
        let (below, above) = ((x - N::of(self.low)).ln(), (N::of(self.high) - x).ln());
        (below - above, N::of((self.high - self.low).ln()) - below - above)
    }
    fn inverse(&self, y: f64, _: &[f64]) -> Inverted {
        let (width, small) = (self.high - self.low, (-y.abs()).exp());
        let part = width * small / (1.0 + small);
        let x = if y < 0.0 { self.low + part } else { self.high - part };
        Inverted::closed_form(x, y.abs() + 2.0 * small.ln_1p() - width.ln())
    }
    fn snippet(&self) -> Option<Snippet> {
        let text = include_str!("element_maps/logit.cu").into();
        Some(Snippet { kind: Self::KIND, text, parameters: 0, settings: vec![self.low, self.high], inverse: true })
    }
}
