//! Probes: classifiers of frozen latents or activations, linear (multinomial logistic regression) or with one hidden
//! layer.

mod fit;
mod head;
mod items;

use super::Classification;
use crate::data::{Dataset, Split, Subset};
use crate::{Events, Result, Settings, TrainError, hold_out};
use fit::fit;
use flow_api::spec::{Model, SpecScalar};
use head::Head;
use items::{Labelled, Scale};
use serde::{Deserialize, Serialize};

/// Penalties that are tried, from strong to weak.
const PENALTIES: [f64; 9] = [1.0, 0.3, 0.1, 0.03, 0.01, 1e-3, 1e-4, 1e-5, 1e-6];

/// Share of the training items that the penalty is chosen on, where the source holds none out itself.
const HELD_OUT: f64 = 0.2;

/// How to probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeOptions {
    /// The layer whose activations are classified, as [`embed`](crate::embed) takes it: `bijector` for the latents.
    pub layer: String,
    /// Units of the probe's hidden layer; none for a linear probe.
    pub hidden: Option<usize>,
    /// Items that go through the model at a time.
    pub batch: usize,
}

impl Default for ProbeOptions {
    fn default() -> Self {
        Self { layer: "bijector".to_owned(), hidden: None, batch: 128 }
    }
}

/// The held-out cross-entropy that a penalty reached.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tried {
    /// λ.
    pub penalty: f64,
    /// In nats.
    pub held_out: f64,
}

/// What a probe found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Probe {
    /// The layer whose activations were classified.
    pub layer: String,
    /// Numbers in an item's activations.
    pub features: usize,
    /// Units of the probe's hidden layer; none of a linear probe.
    #[serde(default)]
    pub hidden: Option<usize>,
    /// The λ that was chosen.
    pub penalty: f64,
    /// All that were tried, with what each reached on the held-out items.
    pub tried: Vec<Tried>,
    /// Held-out items that λ was chosen on.
    pub held_out: usize,
    /// On the items that the probe was fitted to: those to train on with those held out, by the chosen λ.
    pub train: Classification,
    /// On the test items, if any has a label.
    pub test: Option<Classification>,
}

/// Fits logits V x + c, or V tanh(U x + b) + c with a hidden layer, to the labels of `train`, where x are the
/// activations of items behind a layer, every feature scaled to mean 0 and standard deviation 1 over the items that are
/// fitted to, by minimising the mean cross-entropy + λ/2 (‖V‖² + ‖U‖²) with L-BFGS (Nocedal and Wright 2006, chapter
/// 7). λ is that of the smallest cross-entropy on `held_out`, of nine between 1 and 10⁻⁶; the probe is then fitted to
/// both parts with it. A linear fit begins where that of the penalty before it ended; one with a hidden layer, whose
/// loss has many minima, begins at the same random U for every penalty.
///
/// Items without a label are left out.
///
/// # Errors
/// Data that cannot be read or does not fit, a layer that is not there, and [`TrainError::Probe`] where fewer than two
/// classes have items to fit to, none has items to choose λ on, activations are not finite, or a hidden layer has no
/// units.
pub fn probe<E: SpecScalar>(
    model: &Model<E>,
    events: &Events,
    [train, held_out, test]: [&dyn Dataset; 3],
    options: &ProbeOptions,
) -> Result<Probe> {
    let classes = train.classes().len();
    if options.hidden == Some(0) {
        return Err(TrainError::Probe("expected a hidden layer of at least 1 unit, got 0".to_owned()));
    }
    let read = |data| Labelled::read(model, events, data, options);
    let (mut fitted, mut chosen_on, mut tested) = (read(train)?, read(held_out)?, read(test)?);
    let distinct: std::collections::BTreeSet<usize> = fitted.labels.iter().copied().collect();
    if distinct.len() < 2 {
        let count = fitted.labels.len();
        return Err(TrainError::Probe(format!("expected items of at least 2 classes to fit to, got {count} of {}", distinct.len())));
    }
    if chosen_on.labels.is_empty() {
        return Err(TrainError::Probe("expected held-out items with a label to choose the penalty on, got none".to_owned()));
    }
    let scale = Scale::of(&fitted);
    [&mut fitted, &mut chosen_on, &mut tested].into_iter().for_each(|part| scale.apply(part));
    let head = Head { features: fitted.features, hidden: options.hidden, classes };
    let mut weights = head.begin();
    let mut tried = Vec::with_capacity(PENALTIES.len());
    for penalty in PENALTIES {
        let from = if head.hidden.is_none() { weights } else { head.begin() };
        weights = fit(&fitted, head, penalty, from)?;
        let held_out = head.log_probs(&chosen_on.x, &weights).classification(&chosen_on.known(), |i| chosen_on.sources[i]);
        tried.push((Tried { penalty, held_out: held_out.map_or(f64::INFINITY, |c| c.cross_entropy_nats) }, weights.clone()));
    }
    let best = tried.iter().min_by(|(a, _), (b, _)| a.held_out.total_cmp(&b.held_out));
    let Some((penalty, weights)) = best.map(|(tried, weights)| (tried.penalty, weights.clone())) else {
        return Err(TrainError::Probe("no penalty was tried".to_owned()));
    };
    let (held_out, tried) = (chosen_on.labels.len(), tried.into_iter().map(|(tried, _)| tried).collect());
    fitted.extend(chosen_on);
    let weights = fit(&fitted, head, penalty, weights)?;
    let found = |part: &Labelled| head.log_probs(&part.x, &weights).classification(&part.known(), |i| part.sources[i]);
    let train = found(&fitted).ok_or_else(|| TrainError::Probe("no item was fitted to".to_owned()))?;
    let Head { features, hidden, .. } = head;
    Ok(Probe { layer: options.layer.clone(), features, hidden, penalty, tried, held_out, train, test: found(&tested) })
}

/// As [`probe`], of the parts of a source: λ is chosen on a fifth of the training items, where the source sets none
/// aside itself.
///
/// # Errors
/// As [`probe`].
pub fn probe_parts<E: SpecScalar>(
    model: &Model<E>,
    events: &Events,
    split: &Split,
    settings: &Settings,
    options: &ProbeOptions,
) -> Result<Probe> {
    // More than a run validates on: few items choose a penalty badly.
    let (held, kept) = hold_out(&*split.train, &Settings { validation: HELD_OUT, ..settings.clone() });
    let (held_out, kept) = (Subset::new(split.train.clone(), held)?, Subset::new(split.train.clone(), kept)?);
    probe(model, events, [&kept, &held_out, &*split.test], options)
}
