//! The place of a run: its reports, its best model so far, and what a checkpoint of it holds.

use crate::optimiser::AdamState;
use crate::terms::{LIKELIHOOD, ReportedTerm, Term};
use crate::text::number_or_null;
use flow_api::module::State;
use serde::{Deserialize, Serialize};

/// One line of a run's record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// Steps made.
    pub step: u64,
    /// Mean training loss since the last report: the likelihood, in bits/dim for discrete data and nats for continuous
    /// data, or the loss of which `terms` are the parts.
    #[serde(deserialize_with = "number_or_null")]
    pub train: f64,
    /// Loss on the validation items, if there are any, in the same unit; infinite where an item's likelihood is not a
    /// number.
    pub validation: Option<f64>,
    /// Seconds spent in training steps so far, validation not counted.
    pub seconds: f64,
    /// Mean seconds a step since the last report.
    pub seconds_per_step: f64,
    /// Norm of the last step's gradient of the loss in nats per dimension, before clipping.
    #[serde(deserialize_with = "number_or_null")]
    pub gradient_norm: f64,
    /// Learning rate of the last step.
    pub learning_rate: f64,
    /// The named terms of a loss that is not the likelihood alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub terms: Vec<ReportedTerm>,
    /// Which share of its scales' bound every coupling uses that has one, by its path: mean of |s| / c over the values
    /// of the last batch ([`flow_api::bounds_used::BoundsUsed`]).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bounds_used: Vec<(String, f64)>,
}

impl Report {
    /// The loss, or the term of it with this name: mean over training items, and over validation items. The likelihood
    /// is the loss where that has no terms.
    pub fn term(&self, name: &str) -> (Option<f64>, Option<f64>) {
        match self.terms.iter().find(|term| term.name == name) {
            Some(term) => (term.train, term.validation),
            None if self.terms.is_empty() && name == LIKELIHOOD => (Some(self.train), self.validation),
            None => (None, None),
        }
    }

    /// Its terms in words, in brackets; empty where there are none.
    pub fn terms_text(&self) -> String {
        let terms: Vec<String> = self.terms.iter().map(ToString::to_string).collect();
        if terms.is_empty() { String::new() } else { format!(" ({})", terms.join("; ")) }
    }

    /// The coupling that uses most of its scales' bound, in words; empty where no coupling has one.
    pub fn bounds_text(&self) -> String {
        let most = self.bounds_used.iter().max_by(|(_, a), (_, b)| a.total_cmp(b));
        most.map_or(String::new(), |(layer, share)| format!(", {:.0} % of the scale's bound used by {layer}", 100.0 * share))
    }

    /// Whether there were validations and none of them finite: the run has no best model then.
    pub fn none_is_valid(history: &[Self]) -> bool {
        let mut losses = history.iter().filter_map(|report| report.validation).peekable();
        losses.peek().is_some() && !losses.any(f64::is_finite)
    }
}

/// Why a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ending {
    /// All steps were made.
    Finished,
    /// Validation did not improve for as long as the settings allow.
    Early,
    /// The stop flag was raised.
    Stopped,
}

/// The best validation so far, with its model.
#[derive(Clone, Debug, PartialEq)]
pub struct Best<E> {
    /// Validation loss, which is finite.
    pub value: f64,
    /// Steps made then.
    pub step: u64,
    /// Parameters and all other state of the model that was validated: with averaged weights if there are any.
    pub state: State<E>,
}

/// The place in a run, for a checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// Steps made.
    pub step: u64,
    /// Items of the data set, those for validation among them; none in checkpoints of versions that did not count them.
    #[serde(default)]
    pub items: Option<usize>,
    /// Hash of some of the data; none in checkpoints of versions that did not take it.
    #[serde(default)]
    pub fingerprint: Option<u64>,
    /// Reports since the best one.
    pub stale: u32,
    /// Value and step of the best validation.
    pub best: Option<(f64, u64)>,
    /// Seconds spent in training steps.
    pub seconds: f64,
    /// What the next report will tell of the steps since the last one.
    pub since: Since,
    /// Number of reports, which stand in a file of their own; none in checkpoints of versions that kept them here.
    #[serde(default)]
    pub reports: Option<usize>,
    /// All reports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<Report>,
}

impl Progress {
    /// Value and step of the best validation; versions that took infinity for the best had others.
    pub(crate) fn finite_best(&self) -> Option<(f64, u64)> {
        self.best.filter(|(value, _)| value.is_finite())
    }
}

/// Sums since the last report.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Since {
    /// Of losses.
    pub loss: f64,
    /// Of steps.
    pub steps: u64,
    /// Of seconds.
    pub seconds: f64,
    /// The last gradient's norm.
    pub norm: f64,
    /// Named terms of the loss.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub terms: Vec<Term>,
}

/// Everything that is needed to go on with a run, besides the model and the data.
#[derive(Clone, Debug)]
pub struct Run<E> {
    /// The place in the run.
    pub progress: Progress,
    /// The optimiser's state.
    pub optimiser: AdamState<E>,
    /// The best validation with its model.
    pub best: Option<Best<E>>,
}
