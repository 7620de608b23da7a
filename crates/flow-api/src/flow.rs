//! A normalizing flow: a bijector and a base density.

use crate::bases::{BaseDensity, check_temperature};
use crate::bijector::{Cotangent, Kept, Mapped, Point, Pulled, sum_conditions};
use crate::log_det::{LogDet, SolveReport};
use crate::{Bijector, Context, FlowError, Gradients, Module, Result, Scalar, Tensor, module_fields, to_host};
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
/// use flow_api::bases::StandardNormal;
/// use flow_api::layers::LuLinear;
/// use flow_api::rows::Rows;
/// use flow_api::{Context, Flow, Scalar};
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
    module_fields!(E; child bijector, child base);
}

/// The loss of a training step.
#[derive(Clone, Debug)]
pub struct Loss<E: Scalar> {
    /// Mean negative log-likelihood of the batch, in nats a sample.
    pub nll: E,
    /// log p of every sample.
    pub log_prob: Vec<E>,
    /// What iterative parts did.
    pub report: SolveReport,
    /// ∂nll/∂condition of every sample, shape (batch, width), of a flow whose bijector or base is conditional.
    pub condition: Option<Tensor<(usize, usize), E>>,
}

/// The latents of a training batch: what a loss sees, and what its pullback needs.
pub struct Latents<Z: Shape, E: Scalar> {
    shape: Z,
    z: Vec<E>,
    log_det: LogDet<E>,
    report: SolveReport,
    kept: Kept,
}

impl<Z: Shape, E: Scalar> Latents<Z, E> {
    /// z of all samples, one after the other.
    pub fn z(&self) -> &[E] {
        &self.z
    }

    /// log|det ∂z/∂x| of every sample.
    pub fn log_det(&self) -> &LogDet<E> {
        &self.log_det
    }

    /// What iterative parts did.
    pub fn report(&self) -> SolveReport {
        self.report
    }
}

impl<Z: Shape, E: Scalar> std::fmt::Debug for Latents<Z, E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Latents").field("shape", &self.shape).field("report", &self.report).finish_non_exhaustive()
    }
}

/// Derivatives of a loss with respect to latents and log-dets, where a pullback through the flow starts.
#[derive(Clone, Debug, PartialEq)]
pub struct LatentCotangent<E> {
    /// ∂L/∂z of all samples, one after the other.
    pub z: Vec<E>,
    /// ∂L/∂log|det ∂z/∂x| of every sample.
    pub log_det: Vec<E>,
    /// ∂L/∂condition of all samples, (batch, width), as far as the loss sees the condition beside the latents: a
    /// conditional base density does.
    pub condition: Option<Vec<E>>,
}

impl<E: Scalar> LatentCotangent<E> {
    /// Adds another loss's cotangent of the latents.
    ///
    /// # Errors
    /// [`FlowError::Shape`] for another number of values.
    pub fn add_to_latents(&mut self, z: &[E]) -> Result<()> {
        if z.len() != self.z.len() {
            return Err(crate::shape_error("flow", "train", self.z.len(), z.len()));
        }
        self.z.iter_mut().zip(z).for_each(|(sum, &own)| *sum += own);
        Ok(())
    }

    /// Adds another loss's cotangent of the condition, if it has one.
    ///
    /// # Errors
    /// [`FlowError::Shape`] for another number of values.
    pub fn add_to_condition(&mut self, condition: Option<&[E]>) -> Result<()> {
        let Some(condition) = condition else { return Ok(()) };
        let own = self.condition.get_or_insert_with(|| vec![E::zero(); condition.len()]);
        if condition.len() != own.len() {
            return Err(crate::shape_error("flow", "train", own.len(), condition.len()));
        }
        own.iter_mut().zip(condition).for_each(|(sum, &own)| *sum += own);
        Ok(())
    }
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

    /// z = f(x) and log|det ∂z/∂x|: the latents of data.
    ///
    /// ```
    /// use flow_api::bases::StandardNormal;
    /// use flow_api::layers::LuLinear;
    /// use flow_api::rows::Rows;
    /// use flow_api::{Context, Flow, Scalar, to_host};
    /// let flow = Flow::new(Rows(LuLinear::<f64>::new(2)), StandardNormal::new(2));
    /// let (x, cx) = (f64::tensor(vec![1.0, -2.0], (1, 2)), Context::new(0));
    /// let latents = flow.encode(x.clone(), &cx)?;
    /// assert_eq!(to_host(&flow.decode(latents.value, &cx)?.value), to_host(&x));
    /// # Ok::<(), flow_api::FlowError>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`Bijector::forward`], and [`FlowError::NotFinite`] for an input that holds NaN or infinity.
    pub fn encode<X: Shape, E: Scalar>(&self, x: Tensor<X, E>, cx: &Context<E>) -> Result<Mapped<B::Out, E>>
    where
        B: Bijector<X, E>,
    {
        check_finite(&x, cx)?;
        self.bijector.forward(x, &cx.child("bijector"))
    }

    /// x = f⁻¹(z) and log|det ∂x/∂z|: the data of latents.
    ///
    /// # Errors
    /// Those of [`Bijector::inverse`], and [`FlowError::NotFinite`] for latents that hold NaN or infinity.
    pub fn decode<X: Shape, E: Scalar>(&self, z: Tensor<B::Out, E>, cx: &Context<E>) -> Result<Mapped<X, E>>
    where
        B: Bijector<X, E>,
    {
        check_finite(&z, cx)?;
        self.bijector.inverse(z, &cx.child("bijector"))
    }

    /// log p(x) of every sample.
    ///
    /// # Errors
    /// Those of [`Bijector::forward`], [`FlowError::NotFinite`] for an input that holds NaN or infinity, and
    /// [`FlowError::Shape`] if the base density has another size.
    pub fn log_prob<X: Shape, E: Scalar>(&self, x: Tensor<X, E>, cx: &Context<E>) -> Result<LogProb<E>>
    where
        B: Bijector<X, E>,
        P: BaseDensity<E>,
    {
        self.log_prob_of_mapped(&self.encode(x, cx)?, cx)
    }

    /// log p(x) of every sample whose latents and log-dets are these, as [`Flow::encode`] gives them.
    ///
    /// # Errors
    /// [`FlowError::Shape`] if the base density has another size.
    pub fn log_prob_of_mapped<Z: Shape, E: Scalar>(&self, mapped: &Mapped<Z, E>, cx: &Context<E>) -> Result<LogProb<E>>
    where
        P: BaseDensity<E>,
    {
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
        self.base.log_prob(z, &mut base, &cx.child("base"))?;
        value.iter_mut().zip(base).for_each(|(value, base)| *value += base);
        Ok(value)
    }

    /// As many samples x = f⁻¹(z) as `latent_shape` has rows, with their log p(x) (at temperature 1, whatever
    /// temperature z was drawn at).
    ///
    /// `latent_shape` is (batch, …) as the bijector gives it. The noise of sample i is a function of the context's
    /// seed, step and path, and of i.
    /// Equal contexts give equal samples: for more, use [`cx.at_step(n)`](Context::at_step).
    ///
    /// # Errors
    /// Those of [`Bijector::inverse`], [`FlowError::Setting`] for a negative temperature, and [`FlowError::Shape`]
    /// for latents of another size than the base density's.
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
        let base_cx = cx.child("base");
        let z = self.base.sample(batch, temperature, &base_cx)?;
        let largest_latent = z.iter().fold(E::zero(), |largest, z| largest.max(Float::abs(*z)));
        let mut value = vec![E::zero(); batch];
        self.base.log_prob(&z, &mut value, &base_cx)?;
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
    /// use flow_api::bases::StandardNormal;
    /// use flow_api::layers::LuLinear;
    /// use flow_api::rows::Rows;
    /// use flow_api::{Context, Flow, to_host};
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

    /// The pass to the latents of a training step, with whatever the context's [`Memory`](crate::Memory) keeps for
    /// [`Flow::pull_back`].
    ///
    /// # Errors
    /// As [`Flow::encode`]; [`FlowError::Shape`] for a batch without samples.
    pub fn forward_training<X: Shape, E: Scalar>(&self, x: Tensor<X, E>, cx: &Context<E>) -> Result<Latents<B::Out, E>>
    where
        B: Bijector<X, E>,
    {
        check_finite(&x, cx)?;
        if x.shape().num_elements() == 0 {
            return Err(crate::shape_error(cx.layer("flow"), "train", "at least one sample", x.shape()));
        }
        let (mapped, kept) = self.bijector.forward_keeping(x, &cx.child("bijector"))?;
        Ok(Latents { shape: *mapped.value.shape(), z: to_host(&mapped.value), log_det: mapped.log_det, report: mapped.report, kept })
    }

    /// log p(x) of every sample, given its latents.
    ///
    /// # Errors
    /// [`FlowError::NotFinite`] names the sample whose likelihood is not a number; [`FlowError::Shape`] if the base
    /// density has another size.
    pub fn log_prob_of<Z: Shape, E: Scalar>(&self, latents: &Latents<Z, E>, cx: &Context<E>) -> Result<Vec<E>>
    where
        P: BaseDensity<E>,
    {
        let log_prob = self.add_base(&latents.z, &latents.log_det, cx)?;
        match log_prob.iter().position(|l| !Float::is_finite(*l)) {
            None => Ok(log_prob),
            Some(row) => Err(FlowError::NotFinite { layer: cx.child("base").path().to_owned(), what: "the log-likelihood", row }),
        }
    }

    /// The cotangents of latents that a weighted sum Σ wᵢ log p(xᵢ) has, with the base density's share added to
    /// `gradients`.
    ///
    /// # Errors
    /// [`FlowError::Shape`] for as many weights as there are no samples, and for gradients of another module.
    pub fn likelihood_cotangent<Z: Shape, E: Scalar>(
        &self,
        latents: &Latents<Z, E>,
        weights: Vec<E>,
        gradients: &mut Gradients<E>,
        cx: &Context<E>,
    ) -> Result<LatentCotangent<E>>
    where
        P: BaseDensity<E>,
    {
        let batch = to_host(&latents.log_det.value).len();
        self.check_base(latents.z.len(), batch, cx)?;
        if weights.len() != batch {
            return Err(crate::shape_error(cx.layer("flow"), "train", batch, weights.len()));
        }
        gradients.check(cx.child("base").path(), &self.base)?;
        let mut z = vec![E::zero(); latents.z.len()];
        let base_cx = cx.child("base");
        let condition = self.base.pullback(&latents.z, &weights, &mut z, gradients.slice_mut(base_cx.path()), &base_cx)?;
        Ok(LatentCotangent { z, log_det: weights, condition })
    }

    /// Pulls cotangents of latents and log-dets back through the bijector: adds its parameters' gradients to
    /// `gradients`, and gives ∂L/∂x and ∂L/∂condition.
    ///
    /// # Errors
    /// As [`Bijector::pullback`].
    pub fn pull_back<X: Shape, E: Scalar>(
        &self,
        latents: Latents<B::Out, E>,
        cotangent: LatentCotangent<E>,
        gradients: &mut Gradients<E>,
        cx: &Context<E>,
    ) -> Result<Pulled<X, E>>
    where
        B: Bijector<X, E>,
    {
        let Latents { shape, z, log_det, kept, .. } = latents;
        let batch = to_host(&log_det.value).len();
        if (cotangent.z.len(), cotangent.log_det.len()) != (z.len(), batch) {
            let got = (cotangent.z.len(), cotangent.log_det.len());
            return Err(crate::shape_error(cx.layer("flow"), "pullback", (z.len(), batch), got));
        }
        drop((z, log_det));
        let own = match (cotangent.condition, cx.condition()) {
            (None, _) => None,
            (Some(values), Some(condition)) if values.len() == condition.shape().num_elements() => {
                Some(E::tensor(values, *condition.shape()))
            }
            (Some(values), condition) => {
                return Err(crate::shape_error(cx.layer("flow"), "pullback", condition.map(|c| *c.shape()), values.len()));
            }
        };
        let cotangent = Cotangent { value: E::tensor(cotangent.z, shape), log_det: E::tensor(cotangent.log_det, (batch,)) };
        let mut pulled = self.bijector.pullback(Point::Kept(kept), cotangent, gradients, &cx.child("bijector"))?;
        pulled.condition = sum_conditions(pulled.condition.take(), own);
        Ok(pulled)
    }

    /// The mean negative log-likelihood of a batch, with its gradients added to `gradients`.
    ///
    /// It is [`Flow::forward_training`], [`Flow::likelihood_cotangent`] and [`Flow::pull_back`] one after the other:
    /// a loss that is not the likelihood alone puts its own cotangents between them.
    ///
    /// # Errors
    /// As [`Flow::log_prob`]; [`FlowError::NotFinite`] names the sample whose likelihood is not a number;
    /// [`FlowError::Shape`] for a batch without samples and for gradients
    /// of another module.
    pub fn nll<X: Shape, E: Scalar>(&self, x: Tensor<X, E>, gradients: &mut Gradients<E>, cx: &Context<E>) -> Result<Loss<E>>
    where
        B: Bijector<X, E>,
        P: BaseDensity<E>,
    {
        gradients.check(cx.child("bijector").path(), &self.bijector)?;
        gradients.check(cx.child("base").path(), &self.base)?;
        let latents = self.forward_training(x, cx)?;
        let log_prob = self.log_prob_of(&latents, cx)?;
        let batch = log_prob.len();
        let weight = -E::one() / E::of(batch as f64);
        let cotangent = self.likelihood_cotangent(&latents, vec![weight; batch], gradients, cx)?;
        let report = latents.report;
        let condition = self.pull_back(latents, cotangent, gradients, cx)?.condition;
        let nll = log_prob.iter().copied().sum::<E>() * weight;
        Ok(Loss { nll, log_prob, report, condition })
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
