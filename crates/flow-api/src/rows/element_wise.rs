//! Maps of every number of a row by itself.

use super::flow::RowFlow;
use super::kernel::{Lanes, Pull, RowKernel, RowTape};
use super::number::{Dual, Number, Plain};
use crate::device::{ElementsForm, RowForm, Snippet};
use crate::module::{Visitor, VisitorMut};
use crate::{Context, Facts, FlowError, InverseKind, Module, Parameter, Result, Scalar};
use flow_kernels::vectorized;
use flow_kernels::workspace::Buffer;

/// All of ℝ.
const REALS: (f64, f64) = (f64::NEG_INFINITY, f64::INFINITY);

/// An increasing bijection of an interval to another, which every number of a row goes through by itself.
///
/// The map is written once, over [`Number`]: its gradients, those of its log-slope and those of its parameters come by
/// themselves. [`ElementWise`] is the flow. A map that has serde's derives is a spec as it stands: it is registered
/// with [`register_row_flow!`](crate::register_row_flow), and every spec file can name it.
///
/// y = x + s tanh x with a weight s > −1 that is learned for every feature; its inverse is solved for:
///
/// ```
/// use flow_api::rows::{ElementMap, ElementWise, Number, Rows};
/// use flow_api::testkit::{Subject, check};
///
/// #[derive(Clone)]
/// struct Bump;
/// impl ElementMap for Bump {
///     const KIND: &'static str = "Bump";
///
///     fn parameters(&self) -> Vec<(&'static str, f64)> {
///         vec![("log_weight", 0.0)] // s = e^w
///     }
///
///     fn map<N: Number>(&self, x: N, parameters: &[N]) -> (N, N) {
///         let (weight, tanh) = (parameters[0].exp(), x.tanh());
///         (x + weight * tanh, (N::of(1.0) + weight * (N::of(1.0) - tanh * tanh)).ln())
///     }
/// }
/// let subject = Subject { inverse_tolerance: Some(1e-12), ..Subject::new("Bump", 3) };
/// check(&subject, |_| Ok(Rows(ElementWise::<_, f64>::new(Bump, 3)?)))?;
/// # Ok::<(), flow_api::testkit::Failure>(())
/// ```
pub trait ElementMap: Clone + Send + Sync + 'static {
    /// Name of the kind, as in specs.
    const KIND: &'static str;

    /// How [`ElementMap::inverse`] computes: in closed form where a map has one of its own.
    const INVERSE: InverseKind = InverseKind::Iterative;

    /// Names of the numbers that are learned for every feature, with the values that they start from.
    fn parameters(&self) -> Vec<(&'static str, f64)> {
        Vec::new()
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// [`FlowError::Setting`]; its layer may be empty, where it is built is named later.
    fn check(&self) -> Result<()> {
        Ok(())
    }

    /// The open interval that x lies in.
    fn domain(&self) -> (f64, f64) {
        REALS
    }

    /// The open interval that y lies in.
    fn range(&self) -> (f64, f64) {
        REALS
    }

    /// y and ln dy/dx at x, with the feature's parameters in the order of [`ElementMap::parameters`].
    fn map<N: Number>(&self, x: N, parameters: &[N]) -> (N, N);

    /// The x of y, in f64 whatever the flow computes in; by default by Newton's method within a bracket, which is cut
    /// in half where a step leaves it or gains too little.
    fn inverse(&self, y: f64, parameters: &[f64]) -> Inverted {
        let parameters: Vec<_> = parameters.iter().map(|&p| Plain(p)).collect();
        let map = |x| {
            let (y, log_slope) = self.map(Plain(x), &parameters);
            (y.0, log_slope.0)
        };
        solve(map, y, self.domain())
    }

    /// The map in CUDA C, with which it runs on a device; none by default. Parameters come in the order of
    /// [`ElementMap::parameters`].
    fn snippet(&self) -> Option<Snippet> {
        None
    }
}

/// What the inverse of an [`ElementMap`] gives.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Inverted {
    /// x.
    pub x: f64,
    /// ln dy/dx at x.
    pub log_slope: f64,
    /// Iterations that it took.
    pub iterations: usize,
    /// |f(x) − y|, as it was measured; 0 of a closed form.
    pub residual: f64,
}

impl Inverted {
    /// The result of a closed form: x, and ln dy/dx there.
    pub fn closed_form(x: f64, log_slope: f64) -> Self {
        Self { x, log_slope, iterations: 0, residual: 0.0 }
    }
}

/// Most evaluations of an inverse: a bracket doubles its way through all exponents of f64, and is then cut in half
/// until no number is left in it.
const MOST: usize = 1200;

/// The x with f(x) = y of an increasing f, from its values and log-slopes.
///
/// Numerical Recipes (Press et al., third edition, 2007), section 9.4, with an open-ended bracket.
fn solve(map: impl Fn(f64) -> (f64, f64), y: f64, (low, high): (f64, f64)) -> Inverted {
    let inside = |x: f64| x > low && x < high;
    let middle = match (low.is_finite(), high.is_finite()) {
        (true, true) => 0.5 * low + 0.5 * high,
        (true, false) => low + 1.0,
        (false, true) => high - 1.0,
        (false, false) => 0.0,
    };
    // The root lies between these, as far as is known; one of them may still be the domain's end.
    let (mut below, mut above, mut step) = (low, high, 1.0_f64);
    let mut x = if inside(y) { y } else { middle };
    let (mut before, mut best) = (f64::INFINITY, Inverted { x: f64::NAN, log_slope: f64::NAN, iterations: 0, residual: f64::INFINITY });
    for iterations in 1..=MOST {
        let (value, log_slope) = map(x);
        let error = value - y;
        if error.abs() < best.residual {
            best = Inverted { x, log_slope, iterations, residual: error.abs() };
        }
        best.iterations = iterations;
        if error < 0.0 {
            below = x;
        } else if error > 0.0 {
            above = x;
        } else {
            break; // found, or not a number
        }
        let newton = x - error * (-log_slope).exp();
        let gains = error.abs() <= 0.5 * before;
        before = error.abs();
        let cut = if below.is_finite() && above.is_finite() {
            0.5 * below + 0.5 * above
        } else {
            // The first step from a large number is one that it can take.
            let end = if above.is_finite() { above } else { below };
            step = (2.0 * step).max(4.0 * f64::EPSILON * end.abs());
            if above.is_finite() { end - step } else { end + step }
        };
        let next = if newton > below && newton < above && gains { newton } else { cut };
        if !(next > below && next < above) {
            break; // no number is left in the bracket
        }
        x = next;
    }
    best
}

/// The flow of an [`ElementMap`] on R^d: y\[j\] = f(x\[j\]), with parameters of their own for every feature.
///
/// # Log-det
/// Σⱼ ln f′(xⱼ), exact.
///
/// # Parameters
/// Those of the map under their names, (d) each.
///
/// # Errors
/// [`FlowError::Domain`] for a number outside of the map's domain, or of its range on the way back, which names the
/// row; [`FlowError::NotConverged`] of an inverse that is solved for.
#[derive(Clone, Debug)]
pub struct ElementWise<M, E: Scalar> {
    map: M,
    dim: usize,
    parameters: Vec<(&'static str, Parameter<E>)>,
}

impl<M: ElementMap, E: Scalar> ElementWise<M, E> {
    /// The map on every feature of R^dim.
    ///
    /// # Errors
    /// As [`ElementMap::check`].
    pub fn new(map: M, dim: usize) -> Result<Self> {
        map.check().map_err(|e| e.in_layer(M::KIND))?;
        let start = |(name, value)| (name, Parameter::new(&[dim], vec![E::of(value); dim]));
        Ok(Self { parameters: map.parameters().into_iter().map(start).collect(), map, dim })
    }
}

impl<M: ElementMap, E: Scalar> Module<E> for ElementWise<M, E> {
    fn visit<'m>(&'m self, visitor: &mut Visitor<'_, 'm, E>) {
        self.parameters.iter().for_each(|(name, parameter)| visitor.parameter(name, parameter));
    }
    fn visit_mut<'m>(&'m mut self, visitor: &mut VisitorMut<'_, 'm, E>) {
        self.parameters.iter_mut().for_each(|(name, parameter)| visitor.parameter(name, parameter));
    }
}

impl<M: ElementMap, E: Scalar> RowFlow<E> for ElementWise<M, E> {
    fn facts(&self) -> Facts {
        Facts::new(M::KIND).with_inverse(M::INVERSE)
    }

    fn dim(&self) -> usize {
        self.dim
    }

    fn prepare<'a>(&'a self, _: usize, _: &Context<E>) -> Result<Box<dyn RowKernel<E> + 'a>> {
        Ok(Box::new(Kernel(self)))
    }

    fn device_form<'a>(&'a self, cx: &Context<E>) -> Result<Vec<RowForm<'a, E>>> {
        let Some(map) = self.map.snippet() else { return Ok(vec![RowForm::missing(cx, M::KIND, "")]) };
        if map.parameters != self.parameters.len() {
            let (expected, got) = (self.parameters.len(), map.parameters);
            return Ok(vec![RowForm::missing(cx, M::KIND, format!("whose text has {got} parameters and not {expected}"))]);
        }
        let parameters = self.parameters.iter().flat_map(|(_, parameter)| parameter.values()).copied().collect();
        Ok(vec![RowForm::Elements(ElementsForm { map, parameters })])
    }
}

/// The flow in one call.
struct Kernel<'a, M, E: Scalar>(&'a ElementWise<M, E>);

vectorized! {
    /// x → y of one feature, with the log-slopes added up.
    fn forward<E: Scalar, M: ElementMap>(map: &M, parameters: &[Plain<E>], x: &mut [E], log_det: &mut [E]) {
        for (x, log_det) in x.iter_mut().zip(log_det) {
            let (y, log_slope) = map.map(Plain(*x), parameters);
            *x = y.0;
            *log_det += log_slope.0;
        }
    }
}

vectorized! {
    /// ∂L/∂y → ∂L/∂x of one feature.
    fn pull_value<E: Scalar, M: ElementMap>(map: &M, parameters: &[Dual<E>], x: &[E], cotangent: &mut [E], log_det: &[E]) {
        for ((x, cotangent), log_det) in x.iter().zip(cotangent).zip(log_det) {
            let (y, log_slope) = map.map(Dual::moving(*x), parameters);
            *cotangent = *cotangent * y.slope + *log_det * log_slope.slope;
        }
    }
}

vectorized! {
    /// ∂L/∂y → ∂L/∂p of every row, for the one parameter that moves.
    fn pull_parameter<E: Scalar, M: ElementMap>(map: &M, parameters: &[Dual<E>], x: &[E], cotangent: &[E], log_det: &[E], to: &mut [E]) {
        for (((x, cotangent), log_det), to) in x.iter().zip(cotangent).zip(log_det).zip(to) {
            let (y, log_slope) = map.map(Dual::fixed(*x), parameters);
            *to = *cotangent * y.slope + *log_det * log_slope.slope;
        }
    }
}

impl<M: ElementMap, E: Scalar> Kernel<'_, M, E> {
    /// The parameters of a feature.
    fn of_feature<N>(&self, feature: usize, number: impl Fn(E) -> N) -> Vec<N> {
        self.0.parameters.iter().map(|(_, parameter)| number(parameter.values()[feature])).collect()
    }

    /// The error for the first number of a feature that is not in the interval.
    fn check(values: &[E], first_row: u64, (low, high): (f64, f64)) -> Result<()> {
        let outside = |x: &E| !(x.as_f64() > low && x.as_f64() < high);
        match values.iter().position(outside).filter(|_| (low, high) != REALS) {
            None => Ok(()),
            Some(lane) => Err(FlowError::Domain {
                layer: String::new(),
                row: row_of(first_row, lane),
                expected: format!("numbers between {low} and {high}"),
                got: values[lane].to_string(),
            }),
        }
    }
}

fn row_of(first_row: u64, lane: usize) -> usize {
    usize::try_from(first_row).unwrap_or(usize::MAX).saturating_add(lane)
}

impl<M: ElementMap, E: Scalar> RowKernel<E> for Kernel<'_, M, E> {
    fn forward(&self, values: &mut [E], lanes: &mut Lanes<'_, E>, tape: &mut RowTape<E>) -> Result<()> {
        if tape.is_recording() {
            tape.push(Buffer::copy_of(values));
        }
        let map = &self.0.map;
        for (feature, x) in values.chunks_exact_mut(lanes.lanes).enumerate() {
            Self::check(x, lanes.first_row, map.domain())?;
            forward(map, &self.of_feature(feature, Plain), x, lanes.log_det);
        }
        Ok(())
    }

    fn inverse(&self, values: &mut [E], lanes: &mut Lanes<'_, E>) -> Result<()> {
        let map = &self.0.map;
        for (feature, y) in values.chunks_exact_mut(lanes.lanes).enumerate() {
            Self::check(y, lanes.first_row, map.range())?;
            let parameters = self.of_feature(feature, flow_kernels::Real::as_f64);
            for (lane, (y, log_det)) in y.iter_mut().zip(lanes.log_det.iter_mut()).enumerate() {
                let found = map.inverse(y.as_f64(), &parameters);
                // What a step of x to the next number changes, with some rounding of the map itself.
                let tolerance = 64.0 * f64::EPSILON * (1.0 + y.as_f64().abs() + found.log_slope.exp() * found.x.abs());
                if found.residual > tolerance {
                    let (iterations, residual, row) = (found.iterations, found.residual, row_of(lanes.first_row, lane));
                    return Err(FlowError::NotConverged { layer: String::new(), iterations, residual, tolerance, row });
                }
                *y = E::of(found.x);
                *log_det -= E::of(found.log_slope);
                lanes.report.iterations = lanes.report.iterations.max(found.iterations);
                lanes.report.residual = lanes.report.residual.max(found.residual);
            }
        }
        Ok(())
    }

    fn pullback(&self, cotangent: &mut [E], pull: &mut Pull<'_, E>, tape: &mut RowTape<E>, sums: &mut [E]) -> Result<()> {
        let x = tape.pop()?;
        let (map, dim) = (&self.0.map, self.0.dim);
        let mut shares = Buffer::take(pull.lanes);
        for (feature, (x, cotangent)) in x.chunks_exact(pull.lanes).zip(cotangent.chunks_exact_mut(pull.lanes)).enumerate() {
            let mut parameters = self.of_feature(feature, Dual::fixed);
            for moved in 0..parameters.len() {
                let fixed = parameters[moved];
                parameters[moved] = Dual::moving(fixed.value);
                pull_parameter(map, &parameters, x, cotangent, pull.log_det, &mut shares);
                parameters[moved] = fixed;
                sums[moved * dim + feature] += shares.iter().copied().sum::<E>();
            }
            pull_value(map, &parameters, x, cotangent, pull.log_det);
        }
        Ok(())
    }

    fn sums_len(&self) -> usize {
        self.0.parameters.len() * self.0.dim
    }
}

#[cfg(test)]
mod tests {
    use super::{REALS, solve};

    /// The root to the last bits, wherever it lies and however a map treats Newton's method.
    #[test]
    fn inverses_are_found_to_rounding() {
        type Map = fn(f64) -> (f64, f64);
        let cube: Map = |x| (x * x * x + 1e-9 * x, (3.0 * x * x + 1e-9).ln());
        let steep: Map = |x| ((40.0 * x).tanh() + 1e-3 * x, (40.0 / (40.0 * x).cosh().powi(2) + 1e-3).ln());
        let logit: Map = |x| (x.ln() - (-x).ln_1p(), -x.ln() - (-x).ln_1p());
        let log: Map = |x| (x.ln(), -x.ln());
        for (name, map, domain, roots) in [
            ("cube", cube, REALS, &[0.0, 1e-3, 0.7, -12.0, 1e90][..]),
            ("steep", steep, REALS, &[1e-4, 0.3, -0.9, 5e3]),
            ("logit", logit, (0.0, 1.0), &[1e-12, 0.4, 0.999]),
            ("logarithm", log, (0.0, f64::INFINITY), &[1e-200, 3.0, 1e200]),
        ] {
            for &root in roots {
                let y = map(root).0;
                let found = solve(map, y, domain);
                let slope = map(root).1.exp();
                let tolerance = 4.0 * f64::EPSILON * (y.abs() / slope + root.abs()) + f64::MIN_POSITIVE;
                assert!((found.x - root).abs() <= tolerance, "{name}: {root} is found as {found:?}");
            }
        }
        // What no x has: the nearest there is, with its residual.
        assert!(solve(|x| (x.tanh(), (1.0 - x.tanh().powi(2)).ln()), 2.0, REALS).residual >= 1.0);
        assert!(solve(|x| (x, 0.0), f64::NAN, REALS).x.is_nan());
    }
}
