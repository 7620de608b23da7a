//! The residual flow.

use crate::estimator::Estimator;
use crate::inverse::{FixedPoint, MAX_DEPTH};
use crate::kernel::ResidualKernel;
use crate::network::{LipschitzConfig, LipschitzMlp};
use crate::series::Series;
use crate::setting::setting;
use crate::spec::Residual;
use flow_api::rows::RowKernel;
use flow_api::{Context, Facts, InverseKind, Mode, Module, Result, RowFlow, Scalar, module_fields};

/// A residual flow on R^d: y = x + g(x) with g a network whose Lipschitz constant is below 1 (Behrmann et al. 2019,
/// "Invertible Residual Networks", arXiv:1811.00995; Chen et al. 2019, "Residual Flows for Invertible Generative
/// Modeling", arXiv:1906.02735).
///
/// # Condition
/// g may see a condition c beside x, which is not moved: y = x + g(x, c) has an inverse in x at every c, since the
/// bound is one on the dependence on x alone ([`LipschitzMlp`]).
///
/// # Log-det
/// log|det(I + ∂g/∂x)|, found as an [`Estimator`] says: one for training and one for evaluation, by default exact in
/// evaluation. Both can be changed at any time ([`ResidualFlow::set_estimator`]); the weights know nothing of them.
///
/// # Inverse
/// By fixed-point iteration to a true residual, see [`FixedPoint`].
///
/// # Parameters and state
/// Those of [`LipschitzMlp`]. The power iteration goes on whenever the weights have changed ([`Module::refresh`]), and
/// only then: a loaded model gives the very log-probabilities, bit for bit, that it was saved with.
///
/// ```
/// use dfdx::prelude::*;
/// use flow_api::rows::Rows;
/// use flow_api::{Bijector, Context, Mode, Scalar};
/// use flows_lipschitz::{Estimator, Residual, ResidualFlow, Roulette};
///
/// let spec = Residual { hidden: 16, ..Residual::default() };
/// let mut flow = Rows(ResidualFlow::<f64>::new(&spec, 2, 7)?);
/// let x = f64::tensor(vec![0.3, -0.8, 1.1, 0.4], (2, 2));
/// let cx = Context::new(0);
/// let y = flow.forward(x.clone(), &cx)?;
/// let back = flow.inverse(y.value, &cx)?;
/// assert!((back.value - x.clone()).abs().max::<(), _>().array() < 1e-8);
/// assert!(y.log_det.standard_error.is_none() && back.report.residual <= 1e-10);
///
/// flow.0.set_estimator(Mode::Evaluate, Estimator::Roulette(Roulette { probes: 64, ..Roulette::default() }))?;
/// let estimate = flow.forward(x, &cx)?.log_det;
/// let error = estimate.standard_error.map(|e| e.as_vec()[0]).unwrap_or(0.0);
/// assert!((estimate.value.as_vec()[0] - y.log_det.value.as_vec()[0]).abs() < 5.0 * error);
/// # Ok::<(), flow_api::FlowError>(())
/// ```
#[derive(Debug, Clone)]
pub struct ResidualFlow<E: Scalar> {
    g: LipschitzMlp<E>,
    training: Estimator,
    evaluation: Estimator,
    inverse: FixedPoint,
}

impl<E: Scalar> ResidualFlow<E> {
    /// The flow on R^dim that a spec describes, with initial parameters drawn from the seed.
    ///
    /// # Errors
    /// [`FlowError::Setting`](flow_api::FlowError::Setting) for settings that no flow can be built with.
    pub fn new(spec: &Residual, dim: usize, seed: u64) -> Result<Self> {
        spec.check()?;
        if dim == 0 {
            return Err(setting("dim", "at least 1", dim));
        }
        let &Residual { hidden, layers, coefficient, activation, dense, zero_init, power_iteration, condition, .. } = spec;
        let condition = condition.unwrap_or(0);
        let config = LipschitzConfig { dim, hidden, layers, coefficient, activation, dense, zero_init, power_iteration, condition };
        let g = LipschitzMlp::new(&config, seed)?;
        Ok(Self { g, training: spec.log_det, evaluation: spec.evaluation, inverse: spec.inverse })
    }

    /// g.
    pub fn g(&self) -> &LipschitzMlp<E> {
        &self.g
    }

    /// How log-dets are found in a mode.
    pub fn estimator(&self, mode: Mode) -> Estimator {
        match mode {
            Mode::Train => self.training,
            Mode::Evaluate => self.evaluation,
        }
    }

    /// Changes how log-dets are found in a mode; the parameters stay as they are.
    ///
    /// # Errors
    /// Those of [`Estimator::check`].
    pub fn set_estimator(&mut self, mode: Mode, estimator: Estimator) -> Result<()> {
        estimator.check()?;
        match mode {
            Mode::Train => self.training = estimator,
            Mode::Evaluate => self.evaluation = estimator,
        }
        Ok(())
    }
}

impl FixedPoint {
    /// Checks the settings.
    ///
    /// # Errors
    /// [`FlowError::Setting`](flow_api::FlowError::Setting).
    pub fn check(&self) -> Result<()> {
        match self.tolerance {
            Some(tolerance) if !(tolerance.is_finite() && tolerance > 0.0) => {
                Err(setting("tolerance", "a finite number greater than 0", tolerance))
            }
            _ if self.max_iterations == 0 => Err(setting("max_iterations", "at least 1", 0)),
            _ if self.anderson > MAX_DEPTH => Err(setting("anderson", "at most 8", self.anderson)),
            _ => Ok(()),
        }
    }
}

impl<E: Scalar> Module<E> for ResidualFlow<E> {
    module_fields!(E; delegate g);
}

impl<E: Scalar> ResidualFlow<E> {
    /// Of y and the log-det of evaluation; a series of random length counts with its mean.
    fn multiply_adds(&self) -> u64 {
        let network: usize = self.g.net().layers().iter().map(|l| l.weight().values().len()).sum();
        let passes = match Series::of(self.evaluation) {
            None => self.dim() as f64,
            Some(series) => series.probes as f64 * series.mean_terms(),
        };
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a positive estimate")]
        let total = (network as f64 * (1.0 + passes)).round() as u64;
        total.saturating_add(self.g.condition().multiply_adds())
    }
}

impl<E: Scalar> RowFlow<E> for ResidualFlow<E> {
    fn facts(&self) -> Facts {
        let facts = Facts::new("Residual").with_log_det(self.evaluation.kind()).with_inverse(InverseKind::Iterative);
        facts.with_condition(self.g.condition().width()).with_multiply_adds(self.multiply_adds())
    }

    fn dim(&self) -> usize {
        self.g.net().input()
    }

    fn prepare<'a>(&'a self, _: usize, cx: &Context<E>) -> Result<Box<dyn RowKernel<E> + 'a>> {
        Ok(Box::new(ResidualKernel {
            chain_rule: self.g.chain_rule(),
            mlp: self.g.kernel()?,
            condition: self.g.condition(),
            series: Series::of(self.estimator(cx.mode())),
            inverse: self.inverse,
            noise: cx.noise(),
            wants_log_det: cx.wants_log_det(),
            parameters: flow_api::module::parameter_count(self),
        }))
    }
}
