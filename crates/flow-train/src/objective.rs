//! What a training step differentiates: the likelihood, or a loss that has more terms than it.

use crate::evaluate::Evaluation;
use crate::event_batch::EventBatch;
use crate::events::Events;
use crate::terms::{LIKELIHOOD, Term};
use flow_api::flow::{LatentCotangent, Latents};
use flow_api::spec::{Head, Model, SpecScalar};
use flow_api::{Context, FlowError, Gradients, Tensor};

/// What an objective sees of a batch.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a, E: SpecScalar> {
    /// The model: its base density, and its classifier if it has one.
    pub model: &'a Model<E>,
    /// How items became events: the unit of what is reported.
    pub events: &'a Events,
    /// The batch, with labels and conditions.
    pub batch: &'a EventBatch<E>,
    /// Its latents and log-dets.
    pub latents: &'a Latents<(usize, usize), E>,
    /// The context that they were computed in.
    pub cx: &'a Context<E>,
}

/// The loss of a batch, and where the way back begins.
#[derive(Clone, Debug)]
pub struct Lost<E> {
    /// The loss in the unit of reports ([`Objective::unit`]).
    pub loss: f64,
    /// Its named terms.
    pub terms: Vec<Term>,
    /// ∂L/∂latents and ∂L/∂log-dets, where L is D times the loss in nats per dimension: the optimiser divides by the D
    /// numbers of an event.
    pub cotangent: LatentCotangent<E>,
}

/// The loss of a model's validation.
#[derive(Clone, Debug, PartialEq)]
pub struct Validated {
    /// The loss in the unit of reports: the best model is the one where it is smallest.
    pub loss: f64,
    /// Its named terms.
    pub terms: Vec<Term>,
}

/// What a model is trained for.
///
/// It sees latents, log-dets and the batch, and gives the loss with its named terms and the cotangents that are pulled
/// back. Its own parameters are those of the model's [`Head`]; their gradients it adds to `gradients` below `head`.
///
/// ```
/// use flow_api::spec::{EventShape, ModelSpec, Spec, from_ron};
/// use flow_api::{FlowError, Gradients};
/// use flow_train::{Lost, Objective, Seen, Settings, Silent, Term, Trainer, data::DataSource};
/// use std::sync::atomic::AtomicBool;
///
/// /// The likelihood, and a pull of latents towards zero.
/// #[derive(Debug)]
/// struct Shrunk(f64);
/// impl Objective<f64> for Shrunk {
///     fn loss(&self, seen: &Seen<'_, f64>, gradients: &mut Gradients<f64>) -> Result<Lost<f64>, FlowError> {
///         let mut lost = seen.likelihood(gradients)?;
///         let (z, items) = (seen.latents.z(), seen.batch.len() as f64);
///         let size = z.iter().map(|z| z * z).sum::<f64>() / items;
///         lost.cotangent.add_to_latents(&z.iter().map(|z| 2.0 * self.0 * z / items).collect::<Vec<_>>())?;
///         lost.terms.push(Term { name: "size".into(), unit: "".into(), value: size, items });
///         lost.loss += self.0 * size;
///         Ok(lost)
///     }
/// }
///
/// let spec: Spec<dyn ModelSpec> = from_ron("VectorFlow(flows: [ActNorm(), LuLinear()])")?;
/// let split = "toy:two-moons?n=500".parse::<DataSource>()?.open(1)?;
/// let settings = Settings { steps: 4, batch: 32, ..Settings::default() };
/// let model = spec.build::<f64>(EventShape::Vector(2), 1)?;
/// let mut trainer = Trainer::new(model, split.train, settings)?.with_objective(Box::new(Shrunk(0.1)));
/// trainer.run(&mut Silent, &AtomicBool::new(false))?;
/// let names: Vec<&str> = trainer.history()[0].terms.iter().map(|term| term.name.as_str()).collect();
/// assert_eq!(names, ["likelihood", "size"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Objective<E: SpecScalar>: std::fmt::Debug + Send + Sync {
    /// The loss of a batch; the gradients of parameters behind the latents, base density and head, are added to
    /// `gradients`.
    ///
    /// # Errors
    /// Latents or labels that there is no loss of.
    fn loss(&self, seen: &Seen<'_, E>, gradients: &mut Gradients<E>) -> Result<Lost<E>, FlowError>;

    /// Whether the loss is that of [`Likelihood`], which a device may have a form of; by default it is not.
    fn is_likelihood(&self) -> bool {
        false
    }

    /// The loss that an evaluation stands for; by default that of the likelihood alone.
    fn validation(&self, found: &Evaluation, events: &Events) -> Validated {
        Validated { loss: found.loss, terms: vec![Term::new(LIKELIHOOD, events.unit(), found.loss, found.items)] }
    }

    /// The unit of the loss; by default that of the likelihood.
    fn unit(&self, events: &Events) -> &'static str {
        events.unit()
    }
}

/// The mean negative log-likelihood: bits/dim of discrete data, nats of continuous data.
#[derive(Clone, Copy, Debug, Default)]
pub struct Likelihood;

/// The likelihood per dimension, and the weighted cross-entropy of the model's [`Head`]
/// ([`ObjectiveSpec::Hybrid`](flow_api::spec::ObjectiveSpec::Hybrid) has the formula).
#[derive(Clone, Copy, Debug)]
pub struct Hybrid {
    /// Weight of the cross-entropy.
    pub weight: f64,
}

/// The objective that a model's spec asks for.
pub fn objective_of<E: SpecScalar>(model: &Model<E>) -> Box<dyn Objective<E>> {
    match model.head() {
        Some(head) => Box::new(Hybrid { weight: head.weight() }),
        None => Box::new(Likelihood),
    }
}

impl<E: SpecScalar> Objective<E> for Likelihood {
    fn loss(&self, seen: &Seen<'_, E>, gradients: &mut Gradients<E>) -> Result<Lost<E>, FlowError> {
        seen.likelihood(gradients)
    }

    fn is_likelihood(&self) -> bool {
        true
    }
}

impl<E: SpecScalar> Seen<'_, E> {
    /// The likelihood, which other losses begin with, and beside it what layers add to the loss, such as the
    /// regularisers of ODE flows ([`flow_api::log_det::SolveReport::penalty`]).
    ///
    /// # Errors
    /// Those of [`flow_api::Flow::log_prob_of`] and [`flow_api::Flow::likelihood_cotangent`].
    pub fn likelihood(&self, gradients: &mut Gradients<E>) -> Result<Lost<E>, FlowError> {
        let flow = self.model.flow();
        let log_prob = flow.log_prob_of(self.latents, self.cx)?;
        let items = log_prob.len();
        let weight = -E::one() / E::of(items as f64);
        let cotangent = flow.likelihood_cotangent(self.latents, vec![weight; items], gradients, self.cx)?;
        let nll = log_prob.into_iter().sum::<E>() * weight;
        let preprocessing = self.batch.log_det.iter().map(|l| l.as_f64()).sum::<f64>() / items as f64;
        let likelihood = self.events.report(preprocessing - nll.as_f64());
        let mut terms = vec![Term::new(LIKELIHOOD, self.events.unit(), likelihood, items)];
        let mut loss = likelihood;
        let penalty = self.latents.report().penalty;
        if penalty > 0.0 {
            let value = penalty / items as f64 * (self.events.report(0.0) - self.events.report(1.0));
            terms.push(Term::new("regularisation", self.events.unit(), value, items));
            loss += value;
        }
        Ok(Lost { loss, terms, cotangent })
    }

    /// The cross-entropy of a classifier, its cotangents added to `cotangent`, with L's `weight`; its terms, none for a
    /// batch without labels.
    fn classify(
        &self,
        head: &Head<E>,
        weight: f64,
        cotangent: &mut LatentCotangent<E>,
        gradients: &mut Gradients<E>,
    ) -> Result<Option<CrossEntropy>, FlowError> {
        let labelled = self.batch.labels.iter().flatten().count();
        if labelled == 0 {
            return Ok(None);
        }
        let features = match head.layer() {
            None => self.latents.z().to_vec(),
            Some(layer) => self.model.activations(self.batch.values.clone(), layer, self.cx)?,
        };
        let pass = head.network().forward(features).map_err(|e| e.in_layer("head"))?;
        let (found, for_logits) = CrossEntropy::of(pass.output(), &self.batch.labels, head.classes(), weight)?;
        let for_features = head.network().pullback(&pass, for_logits, gradients.slice_mut("head"))?;
        match head.layer() {
            None => cotangent.add_to_latents(&for_features)?,
            Some(layer) => {
                let values = self.batch.values.clone();
                let pulled = self.model.pull_back_activations(values, layer, for_features, gradients, self.cx)?;
                cotangent.add_to_condition(pulled.condition.as_ref().map(flow_api::to_host).as_deref())?;
            }
        }
        Ok(Some(found))
    }
}

/// Mean over the labelled rows of a batch.
struct CrossEntropy {
    nats: f64,
    accuracy: f64,
    items: usize,
}

impl CrossEntropy {
    /// That of logits (rows, classes), and `weight` times its derivatives by them: (p − 1 of the own class)/items, and
    /// 0 in rows without a label.
    fn of<E: SpecScalar>(logits: &[E], labels: &[Option<usize>], classes: usize, weight: f64) -> Result<(Self, Vec<E>), FlowError> {
        let items = labels.iter().flatten().count();
        let mut derivatives = vec![E::zero(); logits.len()];
        let (mut nats, mut right) = (0.0, 0.0);
        let rows = logits.chunks_exact(classes).zip(derivatives.chunks_exact_mut(classes)).zip(labels).enumerate();
        for (row, ((logits, derivatives), label)) in rows {
            let Some(label) = *label else { continue };
            let largest = logits.iter().fold(f64::NEG_INFINITY, |largest, logit| largest.max(logit.as_f64()));
            let sum: f64 = logits.iter().map(|logit| (logit.as_f64() - largest).exp()).sum();
            let Some(own) = logits.get(label) else {
                let (expected, got) = (format!("a class below {classes}"), label.to_string());
                return Err(FlowError::Setting { layer: "head".to_owned(), field: "label", expected, got });
            };
            let own = largest + sum.ln() - own.as_f64();
            if !own.is_finite() {
                return Err(FlowError::NotFinite { layer: "head".to_owned(), what: "the cross-entropy", row });
            }
            nats += own;
            right += f64::from(u8::from(logits.iter().position(|logit| logit.as_f64() >= largest) == Some(label)));
            for (class, (derivative, logit)) in derivatives.iter_mut().zip(logits).enumerate() {
                let probability = (logit.as_f64() - largest).exp() / sum;
                let target = if class == label { 1.0 } else { 0.0 };
                *derivative = E::of(weight * (probability - target) / items as f64);
            }
        }
        Ok((Self { nats: nats / items as f64, accuracy: right / items as f64, items }, derivatives))
    }
}

impl Hybrid {
    /// The likelihood per dimension, in bits or nats as its unit is.
    fn per_dim(loss: f64, events: &Events) -> f64 {
        if events.levels().is_some() { loss } else { loss / events.kind().shape.len().max(1) as f64 }
    }

    /// Nats in the likelihood's unit: bits or nats.
    fn in_unit(nats: f64, events: &Events) -> (f64, &'static str) {
        if events.levels().is_some() { (nats / std::f64::consts::LN_2, "bits") } else { (nats, "nats") }
    }

    /// The named terms of a classifier.
    fn terms(label: Option<&CrossEntropy>, events: &Events) -> Vec<Term> {
        let mut terms = Vec::new();
        if let Some(found) = label {
            let (value, unit) = Self::in_unit(found.nats, events);
            terms.push(Term::new("label", unit, value, found.items));
            terms.push(Term::new("accuracy", "", found.accuracy, found.items));
        }
        terms
    }
}

impl<E: SpecScalar> Objective<E> for Hybrid {
    fn loss(&self, seen: &Seen<'_, E>, gradients: &mut Gradients<E>) -> Result<Lost<E>, FlowError> {
        let Lost { loss: likelihood, mut terms, mut cotangent } = seen.likelihood(gradients)?;
        let Some(head) = seen.model.head() else {
            let reason = "the model has no classifier: its spec has no `objective: Hybrid(…)`".to_owned();
            return Err(FlowError::Unsupported { layer: "head".to_owned(), operation: "train", reason });
        };
        let dims = seen.model.event().len() as f64;
        let label = seen.classify(head, self.weight * dims, &mut cotangent, gradients)?;
        let bits = label.as_ref().map_or(0.0, |label| Self::in_unit(label.nats, seen.events).0);
        let loss = Self::per_dim(likelihood, seen.events) + self.weight * bits;
        terms.extend(Self::terms(label.as_ref(), seen.events));
        Ok(Lost { loss, terms, cotangent })
    }

    fn validation(&self, found: &Evaluation, events: &Events) -> Validated {
        let label =
            found.classification.as_ref().map(|c| CrossEntropy { nats: c.cross_entropy_nats, accuracy: c.accuracy, items: c.items });
        let bits = label.as_ref().map_or(0.0, |label| Self::in_unit(label.nats, events).0);
        let loss = Self::per_dim(found.loss, events) + self.weight * bits;
        let Validated { mut terms, .. } = Objective::<E>::validation(&Likelihood, found, events);
        terms.extend(Self::terms(label.as_ref(), events));
        Validated { loss, terms }
    }

    fn unit(&self, _: &Events) -> &'static str {
        "loss"
    }
}

/// The loss of a batch in the unit of reports and its terms, with all gradients added to `gradients`: a training step
/// but for the optimiser. ∂L/∂condition comes with it where the model is conditional.
///
/// # Errors
/// Failures of layers, and those of the objective.
pub fn differentiate<E: SpecScalar>(
    model: &Model<E>,
    objective: &dyn Objective<E>,
    events: &Events,
    batch: &EventBatch<E>,
    gradients: &mut Gradients<E>,
    cx: &Context<E>,
) -> Result<(f64, Vec<Term>, Option<Tensor<(usize, usize), E>>), FlowError> {
    let at = model.conditioned(batch.len(), cx)?;
    let latents = model.flow().forward_training(model.batch(batch.values.clone())?, at.cx())?;
    let seen = Seen { model, events, batch, latents: &latents, cx: at.cx() };
    let Lost { loss, terms, cotangent } = objective.loss(&seen, gradients)?;
    let pulled = model.flow().pull_back(latents, cotangent, gradients, at.cx())?;
    model.pull_condition(&at, pulled.condition.as_ref(), gradients)?;
    Ok((loss, terms, pulled.condition))
}
