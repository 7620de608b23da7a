//! A spec's model with its base density.

use super::bench::{BATCH, add_noise, context_of, normal, size};
use super::{Failure, Item, Report, Subject, check, check_precision};
use crate::bases::BaseDensity;
use crate::module::{Saved, load, save};
use crate::spec::{BuildScope, Conditioner, EventShape, Given, Model, ModelSpec, Spec, SpecError, SpecScalar};
use crate::{Bijector, Conditions, Context, FlowError, Gradients, Memory, to_host};
use std::sync::{Mutex, MutexGuard};

/// Runs the suite on the model that a spec builds for events of this shape: [`check`] and [`check_precision`] on its
/// bijector, and with its base density that log p is that of the latent plus the log-det, that the gradients of the
/// negative log-likelihood are those of differences under every memory setting, that samples carry the log p that
/// scoring them gives, that every layer of the table gives its activations, and that a loaded model scores and samples
/// to the bit as the saved one.
///
/// `subject` gives the tolerances; its dimension and condition are the model's. One that is conditioned on classes or
/// numbers gets three classes, or two numbers.
///
/// ```
/// use flow_api::spec::{EventShape, ModelSpec, Spec, from_ron};
/// use flow_api::testkit::{Subject, check_model};
///
/// let spec: Spec<dyn ModelSpec> = from_ron("VectorFlow(flows: [ActNorm(), LuLinear()], base: DiagonalNormal)")?;
/// check_model(&Subject::new("a linear flow", 2), &spec, EventShape::Vector(2))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// The first [`Failure`].
pub fn check_model(subject: &Subject, spec: &Spec<dyn ModelSpec>, event: EventShape) -> Result<Report, Failure> {
    let build = |seed| built::<f64>(spec, event, seed);
    let first = build(1).map_err(|e| subject.fails("build", e.to_string()))?;
    let own = first.flow().bijector().facts().condition;
    let subject = Subject { dim: event.len(), condition: own, ..subject.clone() };
    let mut report = check(&subject, |seed| Ok(build(seed)?.into_flow().into_parts().0))?;
    check_precision(
        &subject,
        |seed| Ok(built::<f32>(spec, event, seed)?.into_flow().into_parts().0),
        |seed| Ok(build(seed)?.into_flow().into_parts().0),
    )?;
    report.add("precision", None);

    let subject = Subject { condition: first.condition(), ..subject };
    let (model, other) = (prepared(&subject, build(1), 1)?, prepared(&subject, build(2), 2)?);
    let suite = Suite { subject: &subject, model, other: Mutex::new(other) };
    let checks: [(Item, fn(&_, Item) -> Result<(), Failure>); 5] = [
        ("activations", Suite::activations),
        ("likelihood", Suite::likelihood),
        ("gradients of the likelihood", Suite::gradients),
        ("samples", Suite::samples),
        ("state of the model", Suite::state),
    ];
    for (item, check) in checks {
        check(&suite, item)?;
        report.add(item, None);
    }
    Ok(report)
}

/// Classes that a model is given, and numbers that it is conditioned on, if it is.
const CLASSES: usize = 3;
const NUMBERS: usize = 2;

fn built<E: SpecScalar>(spec: &Spec<dyn ModelSpec>, event: EventShape, seed: u64) -> Result<Model<E>, FlowError> {
    let given = Given { classes: CLASSES, conditions: NUMBERS };
    E::model(spec, event, &BuildScope::new(seed).with_given(given)).map_err(|error| match error {
        SpecError::Flow(error) => error,
        other => FlowError::Setting {
            layer: "spec".to_owned(),
            field: "model",
            expected: format!("one for events of shape {event}"),
            got: other.to_string(),
        },
    })
}

/// A model with its data-dependent initialisation done and noise on its parameters.
fn prepared(subject: &Subject, model: Result<Model<f64>, FlowError>, seed: u64) -> Result<Model<f64>, Failure> {
    let fails = |e: FlowError| subject.fails("build", e.to_string());
    let mut model = model.map_err(fails)?;
    let rows = 64;
    if let Some(conditioner) = model.conditioner_mut() {
        conditioner.fit(&normal(rows * NUMBERS, seed)).map_err(fails)?;
    }
    let cx = given(&model, subject, rows);
    model.initialise(events(subject, rows, seed), &cx).map_err(fails)?;
    add_noise(&mut model, seed, subject.shake).map_err(fails)?;
    Ok(model)
}

/// A context for so many samples: with what they are given where the model is conditioned on something, with vectors of
/// a condition where its parts see some.
fn given(model: &Model<f64>, subject: &Subject, samples: usize) -> Context<f64> {
    let cx = context_of(subject, 0..samples);
    match model.conditioner().map(Conditioner::classes) {
        None => cx,
        Some(Some(classes)) => cx.given(Conditions::Classes((0..samples).map(|i| Some(i % classes)).collect())),
        Some(None) => cx.given(Conditions::Numbers(normal(samples * NUMBERS, 84))),
    }
}

/// Reproducible events.
fn events(subject: &Subject, rows: usize, seed: u64) -> Vec<f64> {
    normal(rows * subject.dim, seed).iter().map(|x| x * subject.spread).collect()
}

struct Suite<'s> {
    subject: &'s Subject,
    model: Model<f64>,
    /// One of another seed, whose parameters may be moved.
    other: Mutex<Model<f64>>,
}

impl Suite<'_> {
    fn run<R>(&self, item: Item, result: Result<R, FlowError>) -> Result<R, Failure> {
        result.map_err(|e| self.subject.fails(item, e.to_string()))
    }

    fn other(&self) -> MutexGuard<'_, Model<f64>> {
        self.other.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn context(&self) -> Context<f64> {
        given(&self.model, self.subject, BATCH)
    }

    /// That of the model's parts.
    fn context_of_parts(&self, item: Item) -> Result<Context<f64>, Failure> {
        Ok(self.run(item, self.model.conditioned(BATCH, &self.context()))?.cx().clone())
    }

    /// log p(x) is the base density's at the latent plus the log-det.
    fn likelihood(&self, item: Item) -> Result<(), Failure> {
        let (x, cx) = (events(self.subject, BATCH, 80), self.context());
        let log_prob = self.run(item, self.model.log_prob(x.clone(), &cx))?;
        let batch = self.run(item, self.model.batch(x))?;
        let cx = self.context_of_parts(item)?;
        let mapped = self.run(item, self.model.flow().bijector().forward(batch, &cx.child("bijector")))?;
        let mut expected = vec![0.0; BATCH];
        self.run(item, self.model.flow().base().log_prob(&to_host(&mapped.value), &mut expected, &cx.child("base")))?;
        expected.iter_mut().zip(to_host(&mapped.log_det.value)).for_each(|(p, l)| *p += l);
        self.subject.close(item, "log p", &log_prob.value, &expected, 1e-11 * size(&expected), 0.0)
    }

    /// Every layer of the table gives its activations; those of the last one and of the whole are the latents, and
    /// there are none of layers that are not there.
    fn activations(&self, item: Item) -> Result<(), Failure> {
        let (x, cx) = (events(self.subject, BATCH, 83), self.context());
        let batch = self.run(item, self.model.batch(x.clone()))?;
        let parts = self.context_of_parts(item)?.child("bijector");
        let latents = to_host(&self.run(item, self.model.flow().bijector().forward(batch, &parts))?.value);
        let tolerance = self.subject.solved(1e-11) * size(&latents);
        let mut before = x.clone();
        for layer in self.run(item, self.model.describe())? {
            let after = self.run(item, self.model.activations(x.clone(), &layer.path, &cx))?;
            if after.len() != x.len() || after == before {
                return Err(self.subject.fails(item, format!("`{}` changes nothing", layer.path)));
            }
            before = after;
        }
        self.subject.close(item, "of the last layer", &before, &latents, tolerance, 0.0)?;
        let whole = self.run(item, self.model.activations(x.clone(), "bijector", &cx))?;
        self.subject.close(item, "of the whole", &whole, &latents, tolerance, 0.0)?;
        match self.model.activations(x, "bijector.nowhere", &cx) {
            Err(FlowError::Unsupported { .. }) => Ok(()),
            other => Err(self.subject.fails(item, format!("a layer that is not there gave {other:?}"))),
        }
    }

    /// The gradients of the mean negative log-likelihood under every memory setting; those of the base density and of
    /// what makes the condition are those of differences, the bijector's have been checked.
    fn gradients(&self, item: Item) -> Result<(), Failure> {
        let x = events(self.subject, BATCH, 81);
        let nll = |model: &Model<f64>, memory| -> Result<(f64, Gradients<f64>), Failure> {
            let mut gradients = Gradients::zeros(model);
            let cx = self.context().with_memory(memory);
            let loss = self.run(item, model.nll(x.clone(), &mut gradients, &cx))?;
            Ok((loss.nll, gradients))
        };
        let (loss, reference) = nll(&self.model, Memory::Store)?;
        let scored = self.run(item, self.model.log_prob(x.clone(), &self.context()))?.value;
        let mean = scored.iter().sum::<f64>() / -(BATCH as f64);
        self.subject.close(item, "the loss against the mean of log p", &[loss], &[mean], 1e-11 * size(&scored), 0.0)?;
        if let Some(path) = reference.untouched().next() {
            return Err(self.subject.fails(item, format!("parameter `{path}` receives no gradient")));
        }
        let scale = size(reference.values());
        for memory in [Memory::Recompute, Memory::Invert] {
            let gradients = nll(&self.model, memory)?.1;
            let tolerance = self.subject.inverse_tolerance.map_or(1e-8, |t| (1e3 * t).max(1e-8)) * scale;
            self.subject.close(item, &format!("{memory:?}"), gradients.values(), reference.values(), tolerance, 0.0)?;
        }
        let state = save(&self.model);
        for (path, own) in reference.iter().filter(|(path, _)| path.starts_with("base.") || path.starts_with("condition.")) {
            for at in 0..own.len().min(8) {
                let shifted = |by: f64| -> Result<f64, Failure> {
                    let mut moved = state.clone();
                    if let Some(Saved::Parameter { values, .. }) = moved.get_mut(path) {
                        values[at] += by;
                    }
                    let mut other = self.other();
                    self.run(item, load(&mut *other, &moved))?;
                    Ok(nll(&other, Memory::Store)?.0)
                };
                let step = 1e-5;
                let expected = (shifted(step)? - shifted(-step)?) / (2.0 * step);
                let tolerance = 1e-8 * loss.abs().max(1.0);
                self.subject.close(item, &format!("∂L/∂{path}[{at}]"), &[own[at]], &[expected], tolerance, 1e-5)?;
            }
        }
        Ok(())
    }

    /// Samples carry the log p that scoring them gives, are the base's mean mapped back at temperature 0, and are a
    /// function of the seed.
    fn samples(&self, item: Item) -> Result<(), Failure> {
        let (flow, cx) = (self.model.flow(), self.context());
        let parts = self.context_of_parts(item)?;
        let shape = (BATCH, self.subject.dim);
        let (x, sampled) = self.run(item, flow.sample_and_log_prob::<(usize, usize), f64>(shape, 1.0, &parts))?;
        let scored = self.run(item, flow.log_prob(x.clone(), &parts))?;
        // log p has the slope of the latent, through which the inverse's error enters.
        let tolerance = self.subject.solved(1e-9) * size(&scored.value) * size(&to_host(&x)) * scored.largest_latent.max(1.0);
        self.subject.close(item, "log p of samples", &sampled.value, &scored.value, tolerance, 0.0)?;
        let draw = |temperature, cx: &Context<f64>| self.run(item, self.model.sample(BATCH, temperature, cx));
        let tolerance = self.subject.solved(1e-12) * size(&to_host(&x));
        self.subject.close(item, "samples of the same seed", &draw(1.0, &cx)?, &to_host(&x), tolerance, 0.0)?;
        if draw(1.0, &cx.clone().at_step(1))? == to_host(&x) {
            return Err(self.subject.fails(item, "samples of two steps are the same"));
        }
        let mean = draw(0.0, &cx)?;
        if self.subject.condition.is_none() {
            let first = mean[..self.subject.dim].repeat(BATCH);
            self.subject.close(item, "samples at temperature 0", &mean, &first, self.subject.solved(1e-10) * size(&first), 0.0)?;
        }
        Ok(())
    }

    /// A model of another seed with the state loaded scores and samples to the bit as the saved one.
    fn state(&self, item: Item) -> Result<(), Failure> {
        let mut other = self.other();
        self.run(item, load(&mut *other, &save(&self.model)))?;
        let (x, cx) = (events(self.subject, BATCH, 82), self.context());
        let [own, loaded] = [&self.model, &*other].map(|model| -> Result<_, Failure> {
            Ok((self.run(item, model.log_prob(x.clone(), &cx))?.value, self.run(item, model.sample(BATCH, 0.7, &cx))?))
        });
        self.subject.same(item, "log p and samples of a loaded model", &loaded?, &own?)
    }
}
