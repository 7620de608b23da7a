//! What can go wrong in training, evaluation and checkpoints.

use crate::data::DataError;
use crate::text::list;
use flow_api::FlowError;
use flow_api::module::StateMismatch;
use flow_api::spec::SpecError;
use std::io;
use std::path::{Path, PathBuf};

/// A result with a [`TrainError`].
pub type Result<T, E = TrainError> = std::result::Result<T, E>;

/// Errors of training, evaluation, checkpoints and reports.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// Data could not be read or drawn.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The architecture could not be built.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// A layer failed.
    #[error(transparent)]
    Flow(#[from] FlowError),
    /// A loss, a layer's result or a gradient is not finite: training has stopped, and the model is as it was before
    /// the step.
    #[error("step {step}: {layer}: {what} is not finite{}", item.as_ref().map_or_else(String::new, |item| format!(" for {item}")))]
    NotFinite {
        /// The step that failed, counted from 1 as in reports.
        step: u64,
        /// Dotted path of the layer, or of the parameter whose gradient it is.
        layer: String,
        /// Which quantity.
        what: &'static str,
        /// The item of the data set; none where no item alone is the cause.
        item: Option<Item>,
    },
    /// A layer failed in a training step.
    #[error("step {step}: {source}")]
    Step {
        /// The step that failed, counted from 1 as in reports.
        step: u64,
        /// What failed.
        source: Box<FlowError>,
    },
    /// A layer cannot take the weights that a step has given it, or with them the batch of that step has no finite
    /// likelihood any more: training has stopped, and the trainer holds those
    /// weights. A checkpoint from before the step goes on, and is not replaced.
    #[error("step {step}: the updated weights: {source}")]
    Update {
        /// The step that failed, counted from 1 as in reports.
        step: u64,
        /// What failed.
        source: Box<FlowError>,
    },
    /// A setting that nothing can be trained with.
    #[error("{field}: expected {expected}, got {got}")]
    Setting {
        /// The setting.
        field: &'static str,
        /// Its allowed values.
        expected: String,
        /// Its value.
        got: String,
    },
    /// The data has another shape than the model.
    #[error("the model is for events of shape {model}, the data has {data}")]
    Shape {
        /// The model's.
        model: String,
        /// The data's.
        data: String,
    },
    /// The columns of a table are not those of the model.
    #[error("columns: expected {}, got {}{}", list(expected), list(got), column_hint(expected, got))]
    Columns {
        /// The names of the model's columns, in order.
        expected: Vec<String>,
        /// Those of the table.
        got: Vec<String>,
    },
    /// Parts of the model see a condition, and nothing says what makes it of the data.
    #[error(
        "parts of the model see a condition of {width} numbers, and its spec does not say of what: `condition: Classes()` or `condition: Vector()` does"
    )]
    Conditional {
        /// Width of the condition.
        width: usize,
    },
    /// The data has another number of classes than the classifier of the model.
    #[error("the model tells {expected} classes from each other, the data has {got}")]
    ClassCount {
        /// The model's.
        expected: usize,
        /// The data's.
        got: usize,
    },
    /// A class of the data is none of those that the model was trained on.
    #[error("the model has no class `{class}`; there are: {}", list(known))]
    Class {
        /// The data's.
        class: String,
        /// The model's, by label.
        known: Vec<String>,
    },
    /// A run cannot go on: the data has other classes than it was begun with.
    #[error("the classes of the data are {}, where the run was begun with {}", list(got), list(expected))]
    Classes {
        /// The run's, by label.
        expected: Vec<String>,
        /// The data's.
        got: Vec<String>,
    },
    /// The model is conditioned on the class of an item, and the data have no classes.
    #[error("the model is conditioned on the class of an item, and the data have no classes")]
    NoLabels,
    /// An item of a model that is conditioned on classes has none.
    #[error("{item}: the model is conditioned on the class of an item, and this one has none")]
    NoLabel {
        /// The item.
        item: Item,
    },
    /// The numbers that items are conditioned on are not those of the model.
    #[error("conditions: expected {}, got {}", list(expected), list_or_none(got))]
    Conditions {
        /// The names of the model's, in order.
        expected: Vec<String>,
        /// Those of the data.
        got: Vec<String>,
    },
    /// A model whose density does not fall into parts of single columns is asked for them.
    #[error("the model does not say what each column explains: {reason}")]
    NotByColumn {
        /// Why not.
        reason: String,
    },
    /// Samples of a model that is conditioned on numbers need some.
    #[error("the model is conditioned on {}: nothing says what samples are given", list(names))]
    NothingGiven {
        /// The names of the numbers.
        names: Vec<String>,
    },
    /// A model that has no classes is asked for them.
    #[error("the model is not conditioned on classes")]
    NoClasses,
    /// A model that does not know p(x) cannot be guided.
    #[error(
        "guidance takes a model that knows p(x) too: one of whose conditions a share was dropped in training, as by `condition: Classes(dropped: 0.1)`"
    )]
    Unguided,
    /// A number that items are conditioned on is the same in all of them.
    #[error("condition `{column}`: the same number in all training items, which cannot be conditioned on")]
    ConstantCondition {
        /// Its name.
        column: String,
    },
    /// A run cannot go on: the data has more or fewer items than it was begun with, or as many others.
    #[error("the data has {got} items, where the run was begun with {expected}{}", if got == expected { " others" } else { "" })]
    DataChanged {
        /// Items that the run was begun with.
        expected: usize,
        /// Items that there are now.
        got: usize,
    },
    /// A file or folder could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file of a checkpoint is not what it should be.
    #[error("{}: {reason}", path.display())]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A file holds the state of another model.
    #[error("{}: the saved state does not fit this model: {mismatch}", path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// Every difference in names, types and shapes.
        mismatch: StateMismatch,
    },
    /// A probe could not be fitted.
    #[error("probe: {0}")]
    Probe(String),
    /// Another process trains in this folder.
    #[error("{}: another process is training here", path.display())]
    Locked {
        /// The folder of the run.
        path: PathBuf,
    },
    /// A picture could not be drawn.
    #[error("{}: {reason}", path.display())]
    Picture {
        /// The file.
        path: PathBuf,
        /// What the library said.
        reason: String,
    },
    /// What was asked for was stopped before it was done.
    #[error("stopped")]
    Stopped,
    /// The threads could not be started.
    #[error("threads: {0}")]
    Threads(String),
}

/// What is missing, what is too much, and how to read the table all the same.
fn column_hint(expected: &[String], got: &[String]) -> String {
    let without = |names: &[String], others: &[String]| names.iter().filter(|name| !others.contains(name)).cloned().collect::<Vec<_>>();
    let (missing, further) = (without(expected, got), without(got, expected));
    if !missing.is_empty() {
        let further = if further.is_empty() { String::new() } else { format!(", and there is {}", list(&further)) };
        return format!(": there is no {}{further}", list(&missing));
    }
    format!(": columns={} takes them in the order of the model", expected.join(","))
}

/// Names for a message, or that there are none.
fn list_or_none(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { list(names) }
}

/// An item of a data set, named as well as its set can.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Its number in the file or folder that it comes from, counted from 0.
    pub index: usize,
    /// Its name, such as its file.
    pub name: Option<String>,
}

/// `item 17`, or `item 17 (cats/3.png)`.
impl std::fmt::Display for Item {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "item {}", self.index)?;
        self.name.as_ref().map_or(Ok(()), |name| write!(f, " ({name})"))
    }
}

impl TrainError {
    /// An error of the file system, with its file.
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }
}

/// The error for a file of a run or a checkpoint that is not as it has to be.
#[expect(clippy::needless_pass_by_value, reason = "it takes errors where they arise")]
pub(crate) fn broken(path: &Path, reason: impl ToString) -> TrainError {
    TrainError::Checkpoint { path: path.to_owned(), reason: reason.to_string() }
}
