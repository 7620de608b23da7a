//! A normalizing flow: a bijector and a base density.

use crate::base::check_temperature;
use crate::{
    BaseDensity, Bijector, Context, Cotangent, FlowError, Gradients, LogDet, Memory, Module, Point, Result, Scalar, SolveReport, Tensor,
    module_fields, to_host,
};
use dfdx::prelude::{HasShape, Shape};
use num_traits::Float;

/// log p(x) of every sample, in nats.
#[derive(Clone, Debug)]
pub struct LogProb<E> {
    /// log p(x), or its estimate.
    pub value: Vec<E>,
    /// Standard error of each, where the log-det is an estimate.
    pub standard_error: Option<Vec<E>>,
    /// The largest |z| over the batch: far out latents are the first sign of an unusual input or of a diverging flow.
    pub largest_latent: E,
    /// What iterative parts did.
    pub report: SolveReport,
}

/// A density p(x) = `p_Z(f(x))` |det ∂f/∂x|: a bijector f and a base density `p_Z` on the flattened latent.
///
/// Parameter paths are `bijector.…` and `base.…`.
///
/// ```
/// use dfdx::prelude::*;
/// use flow_api::{Scalar, layers::LuLinear, Context, Flow, Rows, StandardNormal};
/// let flow = Flow::new(Rows(LuLinear::<f64>::new(2)), StandardNormal::new(2));
/// let cx = Context::new(7);
/// let x = f64::zeros((1, 2));
/// // The linear map starts as the identity, so this is the standard normal at its mode: -ln 2π.
/// assert!((flow.log_prob(x, &cx)?.value[0] + (2.0 * std::f64::consts::PI).ln()).abs() < 1e-12);
/// # Ok::<(), flow_api::FlowError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Flow<B, P> {
    bijector: B,
    base: P,
}

impl<E: Scalar, B: Module<E>, P: Module<E>> Module<E> for Flow<B, P> {
    module_fields!(E; child bijector, child base; refresh bijector, base);
}

/// The loss of a training step.
#[derive(Clone, Debug)]
pub struct Loss<E> {
    /// Mean negative log-likelihood of the batch, in nats a sample.
    pub nll: E,
    /// log p of every sample.
    pub log_prob: Vec<E>,
    /// What iterative parts did.
    pub report: SolveReport,
}

impl<B, P> Flow<B, P> {
    /// A flow from x by `bijector` to z ~ `base`.
    pub fn new(bijector: B, base: P) -> Self {
        Self { bijector, base }
    }

    /// Bijector and base density.
    pub fn into_parts(self) -> (B, P) {
        (self.bijector, self.base)
    }

    /// The bijector.
    pub fn bijector(&self) -> &B {
        &self.bijector
    }

    /// The base density.
    pub fn base(&self) -> &P {
        &self.base
    }

    /// Data-dependent initialisation of all layers that need it.
    ///
    /// # Errors
    /// Those of [`Bijector::initialise`].
    pub fn initialise<X: Shape, E: Scalar>(&mut self, x: Tensor<X, E>, cx: &Context<E>) -> Result<()>
    where
        B: Bijector<X, E>,
    {
        self.bijector.initialise(x, &cx.child("bijector")).map(|_| ())
    }

    /// log p(x) of every sample.
    ///
    /// # Errors
    /// Those of [`Bijector::forward`], [`FlowError::NotFinite`] for an input that holds NaN or infinity, and [`FlowError::Shape`] if the base density has another size.
    pub fn log_prob<X: Shape, E: Scalar>(&self, x: Tensor<X, E>, cx: &Context<E>) -> Result<LogProb<E>>
    where
        B: Bijector<X, E>,
        P: BaseDensity<E>,
    {
        check_finite(&x, cx)?;
        let mapped = self.bijector.forward(x, &cx.child("bijector"))?;
        let z = to_host(&mapped.value);
        let value = self.add_base(&z, &mapped.log_det, cx)?;
        let largest_latent = z.iter().fold(E::zero(), |largest, z| largest.max(Float::abs(*z)));
        Ok(LogProb { value, standard_error: mapped.log_det.standard_error.as_ref().map(to_host), largest_latent, report: mapped.report })
    }

    fn check_base<E: Scalar>(&self, latents: usize, batch: usize, cx: &Context<E>) -> Result<()>
    where
        P: BaseDensity<E>,
    {
        if latents == batch * self.base.dim() {
            return Ok(());
        }
        Err(crate::shape_error(cx.child("base").path(), "density", (batch, self.base.dim()), (batch, latents / batch.max(1))))
    }

    fn add_base<E: Scalar>(&self, z: &[E], log_det: &LogDet<E>, cx: &Context<E>) -> Result<Vec<E>>
    where
        P: BaseDensity<E>,
    {
        let mut value = to_host(&log_det.value);
        self.check_base(z.len(), value.len(), cx)?;
        let mut base = vec![E::zero(); value.len()];
        self.base.log_prob(z, &mut base);
        value.iter_mut().zip(base).for_each(|(value, base)| *value += base);
        Ok(value)
    }

    /// As many samples x = f⁻¹(z) as `latent_shape` has rows, with their log p(x) (at temperature 1, whatever temperature z was drawn at).
    ///
    /// `latent_shape` is (batch, …) as the bijector gives it. The noise of sample i is a function of the context's seed, step and path, and of i.
    /// Equal contexts give equal samples: for more, use [`cx.at_step(n)`](Context::at_step).
    ///
    /// # Errors
    /// Those of [`Bijector::inverse`], [`FlowError::Setting`] for a negative temperature, and [`FlowError::Shape`] for latents of another size than the base density's.
    pub fn sample_and_log_prob<X: Shape, E: Scalar>(
        &self,
        latent_shape: B::Out,
        temperature: E,
        cx: &Context<E>,
    ) -> Result<(Tensor<X, E>, LogProb<E>)>
    where
        B: Bijector<X, E>,
        P: BaseDensity<E>,
    {
        check_temperature(temperature)?;
        let batch = latent_shape.concrete().into_iter().next().unwrap_or(1);
        self.check_base(latent_shape.num_elements(), batch, cx)?;
        let z = self.base.sample(batch, temperature, &cx.child("base").noise());
        let largest_latent = z.iter().fold(E::zero(), |largest, z| largest.max(Float::abs(*z)));
        let mut value = vec![E::zero(); batch];
        self.base.log_prob(&z, &mut value);
        let mapped = self.bijector.inverse(E::tensor(z, latent_shape), &cx.child("bijector"))?;
        value.iter_mut().zip(to_host(&mapped.log_det.value)).for_each(|(value, l)| *value -= l);
        let standard_error = mapped.log_det.standard_error.as_ref().map(to_host);
        Ok((mapped.value, LogProb { value, standard_error, largest_latent, report: mapped.report }))
    }

    /// Samples x = f⁻¹(z), as many as `latent_shape` has rows.
    ///
    /// Equal contexts give equal samples: for more, use [`cx.at_step(n)`](Context::at_step).
    ///
    /// ```
    /// use dfdx::prelude::*;
    /// use flow_api::{Context, Flow, Rows, StandardNormal, layers::LuLinear, to_host};
    /// let flow = Flow::new(Rows(LuLinear::<f64>::new(2)), StandardNormal::new(2));
    /// let draw = |step| flow.sample::<(usize, usize), f64>((5, 2), 1.0, &Context::new(7).at_step(step)).map(|x| to_host(&x));
    /// assert_eq!(draw(0)?.len(), 5 * 2);
    /// assert_eq!(draw(0)?, draw(0)?);
    /// assert_ne!(draw(0)?, draw(1)?);
    /// # Ok::<(), flow_api::FlowError>(())
    /// ```
    ///
    /// # Errors
    /// As [`Flow::sample_and_log_prob`].
    pub fn sample<X: Shape, E: Scalar>(&self, latent_shape: B::Out, temperature: E, cx: &Context<E>) -> Result<Tensor<X, E>>
    where
        B: Bijector<X, E>,
        P: BaseDensity<E>,
    {
        self.sample_and_log_prob(latent_shape, temperature, &cx.clone().without_log_det()).map(|(x, _)| x)
    }

    /// The mean negative log-likelihood of a batch, with its gradients added to `gradients`.
    ///
    /// What is kept between the two sweeps is the context's [`Memory`].
    ///
    /// # Errors
    /// As [`Flow::log_prob`]; [`FlowError::NotFinite`] names the sample whose likelihood is not a number; [`FlowError::Shape`] for a batch without samples and for gradients
    /// of another module.
    pub fn nll<X: Shape, E: Scalar>(&self, x: Tensor<X, E>, gradients: &mut Gradients<E>, cx: &Context<E>) -> Result<Loss<E>>
    where
        B: Bijector<X, E>,
        P: BaseDensity<E>,
    {
        check_finite(&x, cx)?;
        gradients.check(cx.path(), self)?;
        if x.shape().num_elements() == 0 {
            return Err(crate::shape_error(cx.layer("flow"), "nll", "at least one sample", x.shape()));
        }
        let bijector_cx = cx.child("bijector");
        let (mapped, at) = if cx.memory() == Memory::Invert && self.bijector.facts().inverse == crate::InverseKind::ClosedForm {
            let mapped = self.bijector.forward(x, &bijector_cx)?;
            let output = mapped.value.clone();
            (mapped, Point::Output(output))
        } else {
            let (mapped, kept) = self.bijector.forward_keeping(x, &bijector_cx)?;
            (mapped, Point::Kept(kept))
        };
        let z = to_host(&mapped.value);
        let log_prob = self.add_base(&z, &mapped.log_det, cx)?;
        if let Some(row) = log_prob.iter().position(|l| !Float::is_finite(*l)) {
            return Err(FlowError::NotFinite { layer: cx.child("base").path().to_owned(), what: "the log-likelihood", row });
        }
        let batch = log_prob.len();
        let weight = -E::one() / E::of(batch as f64);
        let weights = vec![weight; batch];
        let mut dz = vec![E::zero(); z.len()];
        self.base.pullback(&z, &weights, &mut dz, gradients.slice_mut(cx.child("base").path()));
        let cotangent = Cotangent { value: E::tensor(dz, *mapped.value.shape()), log_det: E::tensor(weights, (batch,)) };
        let report = mapped.report;
        drop(mapped);
        self.bijector.pullback(at, cotangent, gradients, &bijector_cx)?;
        let nll = log_prob.iter().copied().sum::<E>() * weight;
        Ok(Loss { nll, log_prob, report })
    }
}

fn check_finite<X: Shape, E: Scalar>(x: &Tensor<X, E>, cx: &Context<E>) -> Result<()> {
    let values = to_host(x);
    let row_len = values.len() / x.shape().concrete().into_iter().next().unwrap_or(1).max(1);
    match values.iter().position(|v| !Float::is_finite(*v)) {
        None => Ok(()),
        Some(at) => Err(FlowError::NotFinite { layer: cx.layer("flow").to_owned(), what: "the input", row: at / row_len.max(1) }),
    }
}
