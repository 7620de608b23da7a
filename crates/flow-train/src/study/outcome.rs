//! What came of one run of a study.

use super::measures::Borders;
use super::{Probing, Testing};
use crate::classify::Probe;
use crate::file::replace_file;
use crate::progress::{Ending, Report};
use crate::text::count;
use crate::{Evaluation, Result, Settings, TrainError};
use flow_api::bijector::LayerInfo;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Its file in the folder of the run.
pub(super) const FILE: &str = "outcome.json";

/// What a run was asked for besides training: with other wishes it is tested again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// How it is tested.
    pub testing: Testing,
    /// What is probed.
    pub probes: Option<Probing>,
    /// The side of patches whose borders are looked at.
    pub borders: Option<usize>,
    /// Whether samples are drawn.
    pub samples: bool,
}

/// One run of a study: a variant on data with a seed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Name of the data.
    pub data: String,
    /// Name of the variant.
    pub variant: String,
    /// Its seed.
    pub seed: u64,
    /// The spec as RON text.
    pub spec: String,
    /// The settings that it was trained with.
    pub settings: Settings,
    /// What it was asked for.
    pub asked: Asked,
    /// Hash of the data.
    pub hash: String,
    /// Kinds of flows in it, linear and normalising layers left out.
    pub flows: String,
    /// Trainable values.
    pub parameters: usize,
    /// Multiply-adds of matrix products for an event forward; of adaptive ODE solves those of the shortest.
    pub multiply_adds: u64,
    /// The same of all training steps, each counted as three passes forward.
    pub training_multiply_adds: f64,
    /// Steps made.
    pub steps: u64,
    /// Why training ended.
    pub ending: Ending,
    /// Seconds in training steps.
    pub seconds: f64,
    /// The most bytes that were held at a time in training and test beyond those held before, where they are counted.
    pub peak_bytes: Option<u64>,
    /// On training items.
    pub train: Option<Evaluation>,
    /// On validation items, if there are any.
    pub validation: Option<Evaluation>,
    /// On the test items.
    pub test: Evaluation,
    /// Probes of layers and of the latents; the last is the linear one of the latents.
    pub probes: Vec<Probe>,
    /// Borders of patches.
    pub borders: Option<Borders>,
    /// Learning curve.
    pub history: Vec<Report>,
    /// Whether its samples were pictured.
    pub pictured: bool,
}

impl Outcome {
    /// Mean seconds a training step.
    pub fn seconds_per_step(&self) -> f64 {
        self.seconds / self.steps.max(1) as f64
    }

    /// The linear probe of the latents.
    pub fn latents(&self) -> Option<&Probe> {
        self.probes.last()
    }

    /// Reads what was written of a run; none where there is nothing that this version can read.
    pub(super) fn read(run: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(run.join(FILE)).ok()?).ok()
    }

    pub(super) fn write(&self, run: &Path) -> Result<()> {
        write_json(&run.join(FILE), self)
    }

    /// What the figures do not tell, a line each.
    pub(super) fn notes(&self, name: &str) -> Vec<String> {
        let (mut notes, test) = (Vec::new(), &self.test);
        if self.ending != Ending::Finished {
            notes.push(format!("{name}: validation no longer improved after {} of {}", self.steps, count(self.settings.steps, "step")));
        }
        if Report::none_is_valid(&self.history) {
            notes.push(format!("{name}: no validation was finite: tested with the last weights"));
        }
        if test.non_finite > 0.0 {
            let why = test.failure.as_ref().map_or(String::new(), |failure| format!(": {failure}"));
            notes.push(format!("{name}: {:.2} % of likelihoods are not finite and are left out{why}", 100.0 * test.non_finite));
        }
        if let Some(error) = test.log_det_standard_error {
            notes.push(format!("{name}: log-determinants are estimates with a standard error of {error:.2} nats an item"));
        }
        if let Some(failure) = test.inverse.as_ref().and_then(|inverse| inverse.failure.as_ref()) {
            notes.push(format!("{name}: the inverse failed: {failure}"));
        }
        notes
    }
}

/// A run that could not be made, or that the study was stopped at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Unmade {
    /// Name of the data.
    pub data: String,
    /// Name of the variant.
    pub variant: String,
    /// Its seed.
    pub seed: u64,
    /// Why.
    pub reason: String,
    /// Its learning curve, as far as it came.
    pub history: Vec<Report>,
}

/// Kinds of flows of a model's table, each once, in order.
pub(super) fn flow_kinds(table: &[LayerInfo]) -> String {
    const PLUMBING: [&str; 3] = ["ActNorm", "LuLinear", "Permutation"];
    let mut kinds: Vec<&str> = Vec::new();
    for layer in table {
        if !PLUMBING.contains(&layer.kind.as_str()) && !kinds.contains(&layer.kind.as_str()) {
            kinds.push(&layer.kind);
        }
    }
    if kinds.is_empty() { "linear".to_owned() } else { kinds.join(" + ") }
}

/// Writes a value as JSON.
pub(super) fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let json = serde_json::to_vec_pretty(value).map_err(|e| TrainError::Io { path: path.to_owned(), source: e.into() })?;
    replace_file(path, &json)
}
