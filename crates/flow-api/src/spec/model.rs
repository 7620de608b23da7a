//! What a spec builds: a flow on events of a known shape.

use super::conditioner::{Conditioner, ConditionerPass};
use super::event::{EventBijector, EventFlow, EventShape};
use super::head::Head;
use super::latents::LatentLevel;
use super::preprocessing::Preprocessing;
use super::standardiser::Standardiser;
use super::table::LayerTable;
use crate::bases::BaseDensity;
use crate::bijector::{LayerInfo, Pulled, one_condition};
use crate::device::{Engine, OnDevice, SideForm};
use crate::flow::{LogProb, Loss};
use crate::{Bijector, Context, Flow, FlowError, Gradients, Module, Result, Scalar, Tensor, module_fields};
use dfdx::prelude::HasShape;

fn no_layer(layer: &str) -> FlowError {
    FlowError::Unsupported {
        layer: layer.to_owned(),
        operation: "activations",
        reason: "the model's table has no layer with this path".to_owned(),
    }
}

/// A built model: the flow with the shape of its events.
///
/// [`Spec::build`](super::Spec::build) makes one of a spec, [`Model::new`] of parts composed in Rust:
///
/// ```
/// use flow_api::Context;
/// use flow_api::bases::StandardNormal;
/// use flow_api::layers::{ActNorm, LuLinear};
/// use flow_api::rows::{RowChain, Rows};
/// use flow_api::spec::{EventShape, Model};
/// let chain = RowChain::new(2, vec![Box::new(ActNorm::new(2)), Box::new(LuLinear::new(2))])?;
/// let base = Box::new(StandardNormal::new(2));
/// let mut model = Model::<f64>::new(Box::new(Rows(chain)), base, EventShape::Vector(2))?;
/// assert_eq!(model.describe()?[0].path, "bijector.0");
///
/// // Three points of the plane. `ActNorm` takes its scale and shift from them.
/// let points = vec![4.0, 9.0, 5.0, 11.0, 6.0, 13.0];
/// let cx = Context::new(1);
/// let batch = model.batch(points.clone())?;
/// model.flow_mut().initialise(batch, &cx)?;
/// let density = model.log_prob(points, &cx)?.value;
/// assert!(density[1] > density[0] && (density[0] - density[2]).abs() < 1e-12);
/// // Equal contexts give equal samples.
/// assert_eq!(model.sample(3, 1.0, &cx)?, model.sample(3, 1.0, &cx)?);
/// assert_ne!(model.sample(3, 1.0, &cx)?, model.sample(3, 1.0, &cx.clone().at_step(1))?);
/// # Ok::<(), flow_api::FlowError>(())
/// ```
pub struct Model<E: Scalar> {
    flow: EventFlow<E>,
    event: EventShape,
    preprocessing: Preprocessing,
    pub(super) levels: Vec<LatentLevel>,
    head: Option<Head<E>>,
    standardiser: Option<Standardiser>,
    conditioner: Option<Conditioner<E>>,
}

/// The context of a call of a model's parts, with the vectors that they see in place of what samples are conditioned
/// on.
#[derive(Clone, Debug)]
pub struct Conditioned<E: Scalar> {
    cx: Context<E>,
    pass: Option<ConditionerPass<E>>,
}

impl<E: Scalar> Conditioned<E> {
    /// The context for the model's flow.
    pub fn cx(&self) -> &Context<E> {
        &self.cx
    }
}

impl<E: Scalar> Model<E> {
    /// A model on events of this shape, composed in Rust. Levels are mapped to (−½, ½) as a spec's are by default; real
    /// numbers stay as they are, where a spec's models standardise them ([`Model::with_preprocessing`] says otherwise).
    ///
    /// It can be trained, scored and sampled as any other. Checkpoints and run folders hold the text of a spec, from
    /// which the model is built again: for them implement [`BuildModel`](super::BuildModel), and
    /// [`register_model!`](crate::register_model).
    ///
    /// # Errors
    /// [`FlowError::Shape`] if the bijector does not take flattened events of this shape, the base density has another
    /// size, or an event holds no number; [`FlowError::Condition`] if bijector and base take conditions of two widths.
    pub fn new(bijector: EventBijector<E>, base: Box<dyn BaseDensity<E>>, event: EventShape) -> Result<Self> {
        let latent = bijector.output_shape(&(1, event.len()))?;
        if event.is_empty() {
            return Err(crate::shape_error("model", "build", "at least one number", event));
        }
        if latent.1 != base.dim() {
            return Err(crate::shape_error("base", "build", ("batch", latent.1), ("batch", base.dim())));
        }
        one_condition([("bijector", bijector.facts().condition), ("base", base.condition())])?;
        let preprocessing = Preprocessing { standardise: Some(false), ..Preprocessing::default() };
        let flow = Flow::new(bijector, base);
        Ok(Self { flow, event, preprocessing, levels: Vec::new(), head: None, standardiser: None, conditioner: None })
    }

    /// The same with other preprocessing of data, for a model composed in Rust; a spec's models have the spec's own
    /// ([`BuildModel::preprocessing`](super::BuildModel::preprocessing)). Its ranges are checked where data meet the
    /// model: when training begins.
    ///
    /// ```
    /// use flow_api::bases::StandardNormal;
    /// use flow_api::layers::LuLinear;
    /// use flow_api::rows::Rows;
    /// use flow_api::spec::{EventShape, Model, Preprocessing};
    /// let (event) = (EventShape::Image { channels: 3, height: 2, width: 2 });
    /// let flow = Rows(LuLinear::<f32>::new(event.len()));
    /// let model = Model::<f32>::new(Box::new(flow), Box::new(StandardNormal::new(event.len())), event)?;
    /// let model = model.with_preprocessing(Preprocessing { bits: Some(5), flip: true, ..Preprocessing::default() });
    /// assert_eq!(model.preprocessing().bits, Some(5));
    /// # Ok::<(), flow_api::FlowError>(())
    /// ```
    #[must_use]
    pub fn with_preprocessing(mut self, preprocessing: Preprocessing) -> Self {
        self.preprocessing = preprocessing;
        self
    }

    /// The same with a classifier beside the density: a hybrid model.
    #[must_use]
    pub fn with_head(self, head: Head<E>) -> Self {
        Self { head: Some(head), ..self }
    }

    /// The classifier of a hybrid model.
    pub fn head(&self) -> Option<&Head<E>> {
        self.head.as_ref()
    }

    /// The same with what makes of the classes or numbers of samples the condition that its parts see: a context then
    /// says what samples are given ([`Context::given`]). A spec's models have what the spec says
    /// ([`BuildModel::condition`](super::BuildModel::condition)).
    ///
    /// ```
    /// use flow_api::bases::{Conditional, StandardNormal};
    /// use flow_api::layers::LuLinear;
    /// use flow_api::rows::Rows;
    /// use flow_api::spec::{Conditioner, EventShape, Model};
    /// use flow_api::{Conditions, Context};
    /// let base = Box::new(Conditional::new(StandardNormal::new(2), 4)?);
    /// let model = Model::<f64>::new(Box::new(Rows(LuLinear::new(2))), base, EventShape::Vector(2))?
    ///     .with_conditioner(Conditioner::of_classes(3, 4, &[], 0.0, 7)?)?;
    /// let samples = model.sample(5, 1.0, &Context::new(1).given(Conditions::class(2, 5)))?;
    /// assert_eq!(samples.len(), 5 * 2);
    /// assert!(model.sample(5, 1.0, &Context::new(1)).is_err()); // of which class?
    /// # Ok::<(), flow_api::FlowError>(())
    /// ```
    ///
    /// # Errors
    /// [`FlowError::Condition`] if the model's parts see no condition, or one of another width.
    pub fn with_conditioner(mut self, conditioner: Conditioner<E>) -> Result<Self> {
        if self.condition() != Some(conditioner.width()) {
            let expected = self.condition().map_or("none".to_owned(), |width| format!("(batch, {width})"));
            return Err(FlowError::Condition { layer: "the flow".to_owned(), expected, got: format!("(batch, {})", conditioner.width()) });
        }
        self.conditioner = Some(conditioner);
        Ok(self)
    }

    /// What makes of classes or numbers the condition that its parts see, if it is conditioned on them.
    pub fn conditioner(&self) -> Option<&Conditioner<E>> {
        self.conditioner.as_ref()
    }

    /// The same, to be fitted.
    pub fn conditioner_mut(&mut self) -> Option<&mut Conditioner<E>> {
        self.conditioner.as_mut()
    }

    /// The context for calls of the model's parts with so many samples, where the model's own methods take the context
    /// as it is. One that has the vectors of a condition already ([`Context::with_condition`]), and does not say what
    /// samples are given, stays as it is.
    ///
    /// # Errors
    /// As [`Conditioner::forward`].
    pub fn conditioned(&self, samples: usize, cx: &Context<E>) -> Result<Conditioned<E>> {
        let vectors_alone = cx.condition().is_some() && cx.conditions().is_none();
        let Some(conditioner) = self.conditioner.as_ref().filter(|_| !vectors_alone) else {
            return Ok(Conditioned { cx: cx.clone(), pass: None });
        };
        let pass = conditioner.forward(samples, cx)?;
        let vectors = E::tensor(pass.output().to_vec(), (samples, conditioner.width()));
        Ok(Conditioned { cx: cx.clone().with_condition(vectors), pass: Some(pass) })
    }

    /// Adds to `gradients` those of what makes the condition, from ∂L/∂condition
    /// ([`Pulled::condition`](crate::bijector::Pulled::condition)).
    ///
    /// # Errors
    /// As [`Conditioner::pullback`].
    pub fn pull_condition(
        &self,
        at: &Conditioned<E>,
        cotangent: Option<&Tensor<(usize, usize), E>>,
        gradients: &mut Gradients<E>,
    ) -> Result<()> {
        let (Some(conditioner), Some(pass), Some(cotangent)) = (&self.conditioner, &at.pass, cotangent) else { return Ok(()) };
        conditioner.pullback(pass, cotangent, gradients.slice_mut(at.cx.child("condition").path()))
    }

    /// Data-dependent initialisation of all layers that need it, from a batch of flattened events.
    ///
    /// # Errors
    /// As [`Flow::initialise`], and [`Model::conditioned`].
    pub fn initialise(&mut self, values: Vec<E>, cx: &Context<E>) -> Result<()> {
        let batch = self.batch(values)?;
        let at = self.conditioned(samples_of(&batch), cx)?;
        self.flow.initialise(batch, at.cx())
    }

    /// The mean negative log-likelihood of a batch of flattened events, with its gradients added to `gradients`.
    ///
    /// # Errors
    /// As [`Flow::nll`], and [`Model::conditioned`].
    pub fn nll(&self, values: Vec<E>, gradients: &mut Gradients<E>, cx: &Context<E>) -> Result<Loss<E>> {
        let batch = self.batch(values)?;
        let at = self.conditioned(samples_of(&batch), cx)?;
        let loss = self.flow.nll(batch, gradients, at.cx())?;
        self.pull_condition(&at, loss.condition.as_ref(), gradients)?;
        Ok(loss)
    }

    /// The flow, on events flattened to (batch, d).
    pub fn flow(&self) -> &EventFlow<E> {
        &self.flow
    }

    /// The flow itself.
    pub fn into_flow(self) -> EventFlow<E> {
        self.flow
    }

    /// The flow, to be initialised.
    pub fn flow_mut(&mut self) -> &mut EventFlow<E> {
        &mut self.flow
    }

    /// Shape of one event.
    pub fn event(&self) -> EventShape {
        self.event
    }

    /// Width of the condition that the bijector or the base density sees, if one does.
    pub fn condition(&self) -> Option<usize> {
        self.flow.bijector().facts().condition.or_else(|| self.flow.base().condition())
    }

    /// What happens to data before the flow sees them.
    pub fn preprocessing(&self) -> &Preprocessing {
        &self.preprocessing
    }

    /// What real numbers are standardised with before the flow sees them, once it is fitted: its state is saved with
    /// the flow's. Those who train and score apply it; what the methods of this type take and give are events behind
    /// it.
    pub fn standardiser(&self) -> Option<&Standardiser> {
        self.standardiser.as_ref()
    }

    /// Sets what real numbers are standardised with.
    ///
    /// # Errors
    /// [`FlowError::Shape`](crate::FlowError::Shape) for one of events of another size.
    pub fn set_standardiser(&mut self, standardiser: Option<Standardiser>) -> Result<()> {
        if let Some(other) = standardiser.as_ref().map(Standardiser::dim).filter(|dim| *dim != self.event.len()) {
            return Err(crate::shape_error("preprocessing", "build", self.event.len(), other));
        }
        self.standardiser = standardiser;
        Ok(())
    }

    /// A batch of flattened events on the model's device.
    ///
    /// # Errors
    /// [`FlowError::Shape`] if the values are not whole events.
    pub fn batch(&self, values: Vec<E>) -> Result<Tensor<(usize, usize), E>> {
        let dim = self.event.len();
        if dim == 0 || !values.len().is_multiple_of(dim) {
            return Err(crate::shape_error("model", "batch", ("batch", dim), values.len()));
        }
        let shape = (values.len() / dim, dim);
        Ok(E::tensor(values, shape))
    }

    /// The latents z = f(x) of flattened events, flattened.
    ///
    /// # Errors
    /// As [`Flow::encode`].
    pub fn encode(&self, values: Vec<E>, cx: &Context<E>) -> Result<Vec<E>> {
        let batch = self.batch(values)?;
        let at = self.conditioned(samples_of(&batch), cx)?;
        Ok(crate::to_host(&self.flow.encode(batch, at.cx())?.value))
    }

    /// The flattened events x = f⁻¹(z) of latents, the way back from [`Model::encode`].
    ///
    /// # Errors
    /// As [`Flow::decode`].
    pub fn decode(&self, latents: Vec<E>, cx: &Context<E>) -> Result<Vec<E>> {
        let batch = self.batch(latents)?;
        let at = self.conditioned(samples_of(&batch), cx)?;
        Ok(crate::to_host(&self.flow.decode(batch, at.cx())?.value))
    }

    /// log p of a batch of flattened events.
    ///
    /// # Errors
    /// As [`Flow::log_prob`].
    pub fn log_prob(&self, values: Vec<E>, cx: &Context<E>) -> Result<LogProb<E>> {
        let batch = self.batch(values)?;
        let at = self.conditioned(samples_of(&batch), cx)?;
        self.flow.log_prob(batch, at.cx())
    }

    /// log p of a batch of flattened events and, of a hybrid model, the logits of their classes, (batch, classes).
    ///
    /// # Errors
    /// As [`Flow::log_prob`] and [`Model::activations`].
    pub fn log_prob_and_logits(&self, values: Vec<E>, cx: &Context<E>) -> Result<(LogProb<E>, Option<Vec<E>>)> {
        let Some(head) = &self.head else { return Ok((self.log_prob(values, cx)?, None)) };
        let behind = head.layer().map(|layer| self.activations(values.clone(), layer, cx)).transpose()?;
        let mapped = self.flow.encode(self.batch(values)?, cx)?;
        let log_prob = self.flow.log_prob_of_mapped(&mapped, cx)?;
        let features = behind.unwrap_or_else(|| crate::to_host(&mapped.value));
        let pass = head.network().forward(features).map_err(|e| e.in_layer("head"))?;
        Ok((log_prob, Some(pass.output().to_vec())))
    }

    /// The activations of flattened events behind the layer with this path of the table ([`Model::describe`]),
    /// flattened: where the layer works on a part of the event or on rows of it, the rest is as the layers before left
    /// it. `bijector` itself gives the latents z.
    ///
    /// # Errors
    /// As [`Bijector::forward`](crate::Bijector::forward), and [`FlowError::Unsupported`] for a path of no layer.
    pub fn activations(&self, values: Vec<E>, layer: &str, cx: &Context<E>) -> Result<Vec<E>> {
        let batch = self.batch(values)?;
        let at = self.conditioned(samples_of(&batch), cx)?;
        let found = self.flow.bijector().forward_until(batch, layer, &at.cx().child("bijector"))?;
        found.ok_or_else(|| no_layer(layer))
    }

    /// Pulls a cotangent of the activations behind a layer ([`Model::activations`]) back to flattened events; the
    /// gradients of the layers up to it are added to `gradients`.
    ///
    /// # Errors
    /// As [`Model::activations`] and [`Bijector::pullback`](crate::Bijector::pullback).
    pub fn pull_back_activations(
        &self,
        values: Vec<E>,
        layer: &str,
        cotangent: Vec<E>,
        gradients: &mut Gradients<E>,
        cx: &Context<E>,
    ) -> Result<Pulled<(usize, usize), E>> {
        let batch = self.batch(values)?;
        let at = self.conditioned(samples_of(&batch), cx)?;
        let found = self.flow.bijector().pullback_until(batch, layer, cotangent, gradients, &at.cx().child("bijector"))?;
        found.ok_or_else(|| no_layer(layer))
    }

    /// `count` samples, flattened: (count, d). Temperature scales the base density's spread; 1 samples the model.
    ///
    /// Equal contexts give equal samples: for more, use [`cx.at_step(n)`](Context::at_step).
    ///
    /// # Errors
    /// As [`Flow::sample`].
    pub fn sample(&self, count: usize, temperature: E, cx: &Context<E>) -> Result<Vec<E>> {
        let at = self.conditioned(count, cx)?;
        let x = self.flow.sample((count, self.event.len()), temperature, at.cx())?;
        Ok(crate::to_host(&x))
    }

    /// The layer table.
    ///
    /// # Errors
    /// Those of [`Bijector::describe`](crate::Bijector::describe).
    pub fn describe(&self) -> Result<Vec<LayerInfo>> {
        let mut table = Vec::new();
        self.flow.bijector().describe("bijector", &(1, self.event.len()), &mut table)?;
        Ok(table)
    }
}

impl<E: Scalar> Model<E> {
    /// What the bijector is on a device.
    ///
    /// # Errors
    /// Use before initialisation; parameters that admit no bijection.
    pub fn device_form(&self) -> Result<Vec<SideForm<'_, E>>> {
        self.flow.bijector().device_form(&Context::new(0).child("bijector"))
    }
}

impl Model<f32> {
    /// The same model with its bijector on a device: its passes and pullbacks run there, the base density on the host.
    /// Parameters and their paths stay as they are, and it can be trained, scored, sampled and embedded as any other.
    ///
    /// # Errors
    /// Those of [`Engine::load`], and use before initialisation.
    pub fn on(self, engine: &dyn Engine) -> Result<Self> {
        let (bijector, base) = self.flow.into_parts();
        let bijector = OnDevice::new(bijector, self.event.len(), engine, &Context::new(0).child("bijector"))?;
        Ok(Self { flow: Flow::new(Box::new(bijector), base), ..self })
    }
}

/// Samples of a batch.
fn samples_of<E: Scalar>(batch: &Tensor<(usize, usize), E>) -> usize {
    batch.shape().0
}

/// The flow's own paths, and `preprocessing.…`.
impl<E: Scalar> Module<E> for Model<E> {
    module_fields!(E; delegate flow, child head, child conditioner as "condition", child standardiser as "preprocessing");
}

impl<E: Scalar> std::fmt::Debug for Model<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Model")
            .field("bijector", &self.flow.bijector().facts().kind)
            .field("base", &self.flow.base().kind())
            .field("event", &self.event)
            .field("head", &self.head.is_some())
            .field("condition", &self.conditioner.as_ref().map(Conditioner::width))
            .finish_non_exhaustive()
    }
}

/// Its table of layers ([`Model::describe`]).
///
/// ```
/// use flow_api::spec::{EventShape, Model, ModelSpec, Spec};
/// let spec: Spec<dyn ModelSpec> = "VectorFlow(flows: [ActNorm(), Permutation(order: Reverse)])".parse()?;
/// let model: Model<f32> = spec.build(EventShape::Vector(3), 7)?;
/// let table = model.to_string();
/// assert!(table.lines().next().is_some_and(|heads| heads.starts_with("layer       kind         in → out")));
/// assert!(table.contains("bijector.1  Permutation  3 → 3     exact    closed form"), "{table}");
/// # Ok::<(), flow_api::spec::SpecError>(())
/// ```
impl<E: Scalar> std::fmt::Display for Model<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.describe() {
            Ok(layers) => LayerTable(&layers).fmt(f),
            // Of shapes that do not meet; no model is built of those.
            Err(error) => error.fmt(f),
        }
    }
}
