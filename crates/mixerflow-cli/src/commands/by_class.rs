//! What a model that is conditioned on classes makes of items whose class it is not told.

use super::classified::tell_classes;
use crate::{Result, output};
use flow_train::classify::Classification;
use flow_train::data::Dataset;
use flow_train::text::count;
use flow_train::{Events, EveryClass};
use serde_json::json;

/// Density by the mixture, and classification by Bayes' rule.
pub(super) struct ByClass {
    /// Mean of −log p(x) by the mixture of all classes, in the unit of losses.
    mixture_loss: f64,
    /// Items whose mixture is not finite, which are left out.
    not_finite: usize,
    /// Shares of the training items, by class.
    shares: serde_json::Map<String, serde_json::Value>,
    /// Of labelled items; none where there are none.
    classification: Option<Classification>,
}

impl ByClass {
    pub(super) fn of(every: &EveryClass, items: &dyn Dataset, events: &Events) -> Self {
        let finite: Vec<f64> = every.log_mixture.iter().copied().filter(|density| density.is_finite()).collect();
        let names = events.record().classes.iter().cloned();
        let shares = names.zip(&every.log_prior).map(|(name, prior)| (name, prior.exp().into())).collect();
        let events = events.with_classes_of(items);
        let data_labels = every.scores.first().map_or(&[][..], |scores| &scores.labels);
        let labels: Vec<Option<usize>> = data_labels.iter().map(|label| events.class_of((*label)?)).collect();
        Self {
            mixture_loss: events.report(finite.iter().sum::<f64>() / finite.len() as f64),
            not_finite: every.log_mixture.len() - finite.len(),
            shares,
            classification: every.log_probs.classification(&labels, |item| items.source(item)),
        }
    }

    /// By Bayes' rule; none where no item has a label.
    pub(super) fn classification(&self) -> Option<&Classification> {
        self.classification.as_ref()
    }

    pub(super) fn json(&self) -> Result<serde_json::Value> {
        let Self { mixture_loss, not_finite, shares, classification } = self;
        let classification = serde_json::to_value(classification)?;
        Ok(json!({
            "mixture_loss": mixture_loss, "not_finite": not_finite, "shares": shares, "classification": classification,
        }))
    }

    pub(super) fn tell(&self, unit: &str) -> Result<()> {
        let line = |name: &str, value: String| -> Result<()> { Ok(output::line(format_args!("  {name:<18} {value}"))?) };
        line("by the mixture", format!("{:.4} {unit}", self.mixture_loss))?;
        if self.not_finite > 0 {
            line("left out of it", format!("{} without a finite likelihood", count(self.not_finite, "item")))?;
        }
        match &self.classification {
            Some(found) => {
                output::line("  by Bayes' rule:")?;
                tell_classes(found)
            }
            None => line("by Bayes' rule", "no item has a label".to_owned()),
        }
    }
}
