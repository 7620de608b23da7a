//! What the folders of runs, checkpoints and studies hold, and what they are told by.

use crate::replace::present;
use std::path::Path;

/// The folder of a run's last checkpoint.
pub(crate) const LATEST: &str = "latest";
/// The folder of a run's best model.
pub(crate) const BEST_MODEL: &str = "best";

/// The architecture of a run or a checkpoint.
pub(crate) const SPEC: &str = "spec.ron";
/// Its settings.
pub(crate) const SETTINGS: &str = "settings.ron";
/// What a checkpoint remembers of its data.
pub(crate) const DATA: &str = "data.ron";
/// A checkpoint's weights.
pub(crate) const MODEL: &str = "model.safetensors";
/// The place of a run in its checkpoint.
pub(crate) const PROGRESS: &str = "progress.ron";
/// The source of a run's data.
pub(crate) const RUN_DATA: &str = "data.txt";

/// What a study found.
pub(crate) const RESULTS: &str = "results.json";
/// What it was to find.
pub(crate) const STUDY: &str = "study.ron";
/// What comparisons of earlier versions wrote.
const COMPARISON: &str = "comparison.json";

pub(crate) fn is_checkpoint(folder: &Path) -> bool {
    folder.join(MODEL).is_file() && folder.join(SPEC).is_file()
}

/// The files of a run's plan that are not there.
pub(crate) fn missing_of_run(path: &Path) -> Vec<&'static str> {
    [SPEC, SETTINGS, RUN_DATA].into_iter().filter(|name| !path.join(name).is_file()).collect()
}

/// Whether a run was begun in a folder: its checkpoints are one too where a file beside them is lost.
pub(crate) fn holds_run(path: &Path) -> bool {
    let kept = |name| is_checkpoint(&present(&path.join(name), is_checkpoint));
    missing_of_run(path).is_empty() || kept(LATEST) || kept(BEST_MODEL)
}

/// Whether a folder is that of a study, or of a comparison.
pub(crate) fn holds_results(path: &Path) -> bool {
    [RESULTS, STUDY].iter().all(|name| path.join(name).is_file()) || path.join(COMPARISON).is_file()
}
