//! Studies: specs × data × seeds at one budget, and what came of them, side by side.
//!
//! A [`Study`] is plain data, written in RON; docs/experiments/README.md says what each field does. [`run`] makes its
//! runs one by one, each in a [run folder](crate::RunFolder) of its own below that of the study, and writes
//! `results.json`, figures and `index.html` anew behind each. What is done is not done again: a study that was stopped,
//! or killed, goes on where it was.
//!
//! | entry | holds |
//! |---|---|
//! | `study.ron` | the [`Study`], its specs written out |
//! | `results.json` | [`Results`] |
//! | `index.html` | a page that shows them, with all pictures in it |
//! | `*.svg`, `*.png` | its figures: loss over steps, seconds, multiply-adds and parameters; samples, and items of the data |
//! | `runs/DATA/VARIANT/seed-N/` | the runs, with `outcome.json`, an [`Outcome`] |

mod line;
mod measures;
mod outcome;
mod results;
mod run;
mod steps;
mod table;
mod width;

pub use measures::Borders;
pub use outcome::{Asked, Outcome, Unmade};
pub use results::{DataFacts, Results, Versions};
pub use run::{Audience, run};

pub(crate) use results::Figure;
pub(crate) use table::Shown;

use crate::data::DataSource;
use crate::{Result, Settings, TrainError};
use flow_api::spec::{ModelSpec, Spec, SpecError, set_field};
use serde::{Deserialize, Serialize};

/// What begins the path of a setting among edits.
const SETTINGS: &str = "settings.";

/// A study.
///
/// ```
/// use flow_train::study::{self, Study};
/// use flow_train::Silent;
/// use std::sync::atomic::AtomicBool;
/// let study: Study = flow_api::spec::from_ron(
///     r#"(
///         title: "Is a linear map needed?",
///         data: [(name: "moons", source: "toy:two-moons?n=500")],
///         variants: [
///             (name: "scale", spec: VectorFlow(flows: [ActNorm()])),
///             (name: "linear", spec: VectorFlow(flows: [ActNorm(), LuLinear()])),
///         ],
///         seeds: [0, 1],
///         budget: Steps(3),
///     )"#,
/// )?;
/// let folder = tempfile::tempdir()?;
/// let results = study::run::<f32>(&study, folder.path(), &mut Silent, &AtomicBool::new(false))?;
/// assert_eq!(results.runs.len(), 2 * 2);
/// println!("{results}");
/// assert!(folder.path().join("index.html").exists());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Study {
    /// What it is called.
    pub title: String,
    /// What it asks.
    #[serde(default)]
    pub question: String,
    /// What the figures do not tell: what was left out, and why.
    #[serde(default)]
    pub remarks: String,
    /// What is trained on, one after the other.
    pub data: Vec<StudyData>,
    /// What is compared.
    pub variants: Vec<Variant>,
    /// Seeds: each variant is trained once with each. Default 0 alone.
    #[serde(default = "one_seed")]
    pub seeds: Vec<u64>,
    /// How long each is trained.
    pub budget: Budget,
    /// What is made equal by solving for a width.
    #[serde(default, rename = "match")]
    pub matched: Option<Match>,
    /// How each is trained; `steps` is what the budget says, and `seed` one of the seeds.
    #[serde(default)]
    pub settings: Settings,
    /// How each is tested.
    #[serde(default)]
    pub testing: Testing,
    /// Linear classifiers of frozen latents and activations, of data with classes.
    #[serde(default)]
    pub probes: Option<Probing>,
    /// The side of patches whose borders are looked at, in samples and in data.
    #[serde(default)]
    pub borders: Option<usize>,
    /// Whether samples are drawn. Default true.
    #[serde(default = "yes")]
    pub samples: bool,
    /// Figures of others, which stand in a table of their own.
    #[serde(default)]
    pub published: Vec<Published>,
    /// What is other in the shortened form.
    #[serde(default)]
    pub short: Short,
}

fn one_seed() -> Vec<u64> {
    vec![0]
}

fn yes() -> bool {
    true
}

/// Data of a study.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StudyData {
    /// What they are called.
    pub name: String,
    /// Where they are.
    pub source: DataSource,
}

/// Something that is compared: a spec with fields that are changed.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Variant {
    /// What it is called.
    pub name: String,
    /// The spec's file, or the name of one that is built in.
    pub from: Option<String>,
    /// The spec itself, in place of `from`.
    pub spec: Option<Spec<dyn ModelSpec>>,
    /// Fields of the spec that are changed, `path=value`, and of the settings, `settings.path=value`
    /// ([`set_field`]).
    pub set: Vec<String>,
    /// Paths of the fields that are one width, to be solved for.
    pub width: Vec<String>,
    /// How many parameters it shall have, as a share of those of the reference. Default 1.
    pub share: Option<f64>,
    /// Whether it may have any number of parameters.
    pub unmatched: bool,
    /// The data that it is for, by name; all where none are named.
    pub data: Vec<String>,
    /// Fields that are changed in the shortened form, as in `set`.
    pub short: Vec<String>,
}

/// How long a variant is trained.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Budget {
    /// Optimiser steps.
    Steps(u64),
    /// Passes over the training items.
    Epochs(u64),
    /// Seconds of training steps on this machine: as many steps as a few timed ones say.
    Seconds(f64),
    /// Multiply-adds of all training steps, each counted as three forward passes of its batch.
    MultiplyAdds(f64),
}

/// What is made equal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Match {
    /// Parameters, up to this share of those of the first variant.
    Parameters(f64),
    /// The same, of another reference.
    ParametersOf {
        /// Its name.
        reference: String,
        /// The share that a count may be off by.
        within: f64,
    },
}

/// How variants are tested.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Testing {
    /// Draws of dequantisation noise for each test item. Default 4.
    pub dequantisations: u64,
    /// Items in a batch. Default 128.
    pub batch: usize,
    /// The most training and validation items that are scored; test items are scored all. Default 2048.
    pub items: usize,
}

impl Default for Testing {
    fn default() -> Self {
        Self { dequantisations: 4, batch: 128, items: 2048 }
    }
}

/// What is probed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Probing {
    /// Layers, at equal distances in the model's table, besides the latents. Default none.
    pub layers: usize,
    /// Units of one hidden layer: probes that have it, beside the linear ones. Default none.
    pub hidden: Option<usize>,
}

/// A figure that others have published.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Published {
    /// Of what.
    pub of: String,
    /// The figure with its unit.
    pub figure: String,
    /// Where it stands.
    pub source: String,
}

/// What is other in a shortened form: what is not said is as in the study.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Short {
    /// Data.
    pub data: Option<Vec<StudyData>>,
    /// Seeds; the first alone where nothing is said.
    pub seeds: Option<Vec<u64>>,
    /// The budget; two steps where nothing is said.
    pub budget: Option<Budget>,
    /// Settings that are changed, `path=value`.
    pub settings: Vec<String>,
}

/// An error in a study.
fn wrong(field: &'static str, expected: impl Into<String>, got: impl Into<String>) -> TrainError {
    TrainError::Setting { field, expected: expected.into(), got: got.into() }
}

/// An error of a spec or of settings, with the variant that it is of.
fn of_variant(name: &str) -> impl Fn(SpecError) -> TrainError {
    move |error| SpecError::Text(format!("variant `{name}`: {error}")).into()
}

/// A name as part of a path.
pub(crate) fn slug(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' }).collect()
}

impl Study {
    /// Name of a run, as short as it tells runs of the study from each other.
    fn run_name(&self, data: &str, variant: &str, seed: u64) -> String {
        let data = if self.data.len() > 1 { format!("{data}: ") } else { String::new() };
        let seed = if self.seeds.len() > 1 { format!(", seed {seed}") } else { String::new() };
        format!("{data}{variant}{seed}")
    }

    /// These variants on these data with seed 0, and all else as it is where a file says nothing; trained for as many
    /// steps as default settings say.
    pub fn new(data: Vec<StudyData>, variants: Vec<Variant>) -> Self {
        let settings = Settings::default();
        Self {
            title: String::new(),
            question: String::new(),
            remarks: String::new(),
            data,
            variants,
            seeds: one_seed(),
            budget: Budget::Steps(settings.steps),
            matched: None,
            settings,
            testing: Testing::default(),
            probes: None,
            borders: None,
            samples: yes(),
            published: Vec::new(),
            short: Short::default(),
        }
    }

    /// The shortened form, which takes moments.
    ///
    /// # Errors
    /// Settings that cannot be changed so.
    pub fn shortened(mut self) -> Result<Self> {
        let short = std::mem::take(&mut self.short);
        self.data = short.data.unwrap_or(self.data);
        let known: Vec<&str> = self.data.iter().map(|data| data.name.as_str()).collect();
        // Data of the shortened form may be fewer, and so are variants that are for the others alone.
        self.variants.retain(|variant| variant.data.is_empty() || variant.data.iter().any(|name| known.contains(&name.as_str())));
        for variant in &mut self.variants {
            variant.data.retain(|name| known.contains(&name.as_str()));
            variant.set.append(&mut variant.short);
        }
        self.seeds = short.seeds.unwrap_or_else(|| self.seeds.iter().take(1).copied().collect());
        self.budget = short.budget.unwrap_or(Budget::Steps(2));
        for edit in &short.settings {
            let (path, value) = pair(edit)?;
            self.settings = set_field(&self.settings, path, value)?;
        }
        self.title.push_str(" (shortened)");
        Ok(self)
    }

    /// The same with the specs that variants name, as `read` finds them by file or name, and edits of them made.
    ///
    /// # Errors
    /// Those of `read`; a variant with both a name and a spec, or neither; fields that are not there.
    pub fn with_specs<X: From<TrainError>>(mut self, mut read: impl FnMut(&str) -> Result<Spec<dyn ModelSpec>, X>) -> Result<Self, X> {
        for variant in &mut self.variants {
            let mut spec = match (variant.from.take(), variant.spec.take()) {
                (Some(name), None) => read(&name)?,
                (None, Some(spec)) => spec,
                (Some(_), Some(_)) => return Err(wrong("variants", "`from` or `spec`", format!("both of `{}`", variant.name)).into()),
                (None, None) => return Err(wrong("variants", "`from` or `spec`", format!("neither of `{}`", variant.name)).into()),
            };
            let (settings, fields): (Vec<String>, Vec<String>) = variant.set.drain(..).partition(|edit| edit.starts_with(SETTINGS));
            for edit in &fields {
                let (path, value) = pair(edit)?;
                spec = set_field(&spec, path, value).map_err(of_variant(&variant.name))?;
            }
            (variant.spec, variant.set) = (Some(spec), settings);
        }
        Ok(self)
    }

    /// The settings of a variant, but for steps and seed.
    fn settings_of(&self, variant: &Variant) -> Result<Settings> {
        let edits = variant.set.iter().filter_map(|edit| edit.strip_prefix(SETTINGS));
        let mut settings = self.settings.clone();
        for edit in edits {
            let (path, value) = pair(edit)?;
            settings = set_field(&settings, path, value).map_err(of_variant(&variant.name))?;
        }
        Ok(settings)
    }

    /// Checks all that can be told before anything is trained.
    ///
    /// # Errors
    /// [`TrainError::Setting`] naming the field.
    pub fn check(&self) -> Result<()> {
        let distinct = |field, names: Vec<String>| {
            let twice = names.iter().enumerate().find(|(i, name)| names[..*i].contains(name));
            match twice {
                None if names.is_empty() => Err(wrong(field, "at least one", "none")),
                None if names.iter().any(String::is_empty) => Err(wrong(field, "a name", "an empty one")),
                None => Ok(()),
                Some((_, name)) => Err(wrong(field, "names that differ as parts of paths", format!("`{name}` twice"))),
            }
        };
        distinct("data", self.data.iter().map(|data| slug(&data.name)).collect())?;
        distinct("variants", self.variants.iter().map(|variant| slug(&variant.name)).collect())?;
        distinct("seeds", self.seeds.iter().map(u64::to_string).collect())?;
        let (budget, positive) = match self.budget {
            Budget::Steps(steps) | Budget::Epochs(steps) => (steps.to_string(), steps > 0),
            Budget::Seconds(amount) | Budget::MultiplyAdds(amount) => (amount.to_string(), amount > 0.0 && amount.is_finite()),
        };
        if !positive {
            return Err(wrong("budget", "a number above 0", budget));
        }
        if let Some((_, within)) = self.reference()?
            && !(within > 0.0 && within < 1.0)
        {
            return Err(wrong("match", "a share between 0 and 1", within.to_string()));
        }
        self.evaluation(0).check()?;
        if self.testing.items == 0 {
            return Err(wrong("items", "at least 1", "0"));
        }
        if self.borders.is_some_and(|side| side < 2) {
            return Err(wrong("borders", "a side of at least 2 pixels", self.borders.unwrap_or_default().to_string()));
        }
        for variant in &self.variants {
            if let Some(name) = variant.data.iter().find(|name| self.data.iter().all(|data| data.name != **name)) {
                return Err(wrong("variants", "names of data", format!("`{name}` of `{}`", variant.name)));
            }
            if variant.share.is_some_and(|share| !(share > 0.0 && share.is_finite())) {
                return Err(wrong("share", "a number above 0", variant.share.unwrap_or_default().to_string()));
            }
            if variant.spec.is_none() {
                return Err(wrong("variants", "specs that are read", format!("a name alone of `{}`", variant.name)));
            }
            self.settings_of(variant)?.check()?;
        }
        Ok(())
    }

    /// The number of the variant that others are matched with, and how near.
    fn reference(&self) -> Result<Option<(usize, f64)>> {
        Ok(match &self.matched {
            None => None,
            Some(Match::Parameters(within)) => Some((0, *within)),
            Some(Match::ParametersOf { reference, within }) => {
                let found = self.variants.iter().position(|variant| variant.name == *reference);
                Some((found.ok_or_else(|| wrong("match", "the name of a variant", reference.as_str()))?, *within))
            }
        })
    }
}

/// `path=value`.
fn pair(edit: &str) -> Result<(&str, &str)> {
    edit.split_once('=').ok_or_else(|| wrong("set", "path=value", edit))
}
