//! Which files of a folder are pictures.

use std::fs;
use std::path::{Path, PathBuf};

use crate::data::{DataError, Found, Result, Skipped};
use crate::layout;

/// Endings of files that are taken for pictures; what they are is told by their content.
const ENDINGS: [&str; 16] =
    ["png", "jpg", "jpeg", "jpe", "jfif", "webp", "gif", "bmp", "dib", "tif", "tiff", "pbm", "pgm", "ppm", "pnm", "apng"];

/// The deepest folder that is looked into.
const DEEPEST: usize = 64;

/// Pictures in `dir` and its subfolders in alphabetical order, links followed; what is left out is counted by reason,
/// and folders of results are listed.
pub(super) fn list(dir: &Path, found: &mut Found, skipped: &mut Vec<Skipped>) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut above = Vec::new();
    walk(dir, &mut above, &mut files, found, skipped)?;
    files.sort();
    skipped.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

/// `above` holds the folders on the way here, without links in their paths: a link to one of them leads in a circle.
fn walk(dir: &Path, above: &mut Vec<PathBuf>, files: &mut Vec<PathBuf>, found: &mut Found, skipped: &mut Vec<Skipped>) -> Result<()> {
    let io = |source| DataError::Io { path: dir.to_owned(), source };
    above.push(fs::canonicalize(dir).map_err(io)?);
    for entry in fs::read_dir(dir).map_err(io)? {
        let entry = entry.map_err(io)?;
        let path = entry.path();
        if entry.file_name().to_string_lossy().starts_with('.') {
            found.leave_out("hidden", path.display());
            continue;
        }
        let Ok(what) = fs::metadata(&path) else {
            found.leave_out("a link that leads nowhere", path.display());
            continue;
        };
        if what.is_dir() {
            if fs::canonicalize(&path).is_ok_and(|folder| above.contains(&folder)) {
                found.leave_out("a link that leads back to a folder above it", path.display());
            } else if let Some(reason) = results(&path) {
                skipped.push(Skipped { path, reason: reason.to_owned() });
            } else if above.len() >= DEEPEST {
                found.leave_out(format!("a folder more than {DEEPEST} folders deep"), path.display());
            } else {
                walk(&path, above, files, found, skipped)?;
            }
            continue;
        }
        let ending = path.extension().map(|ending| ending.to_string_lossy().to_lowercase());
        match ending {
            Some(ending) if what.is_file() && ENDINGS.contains(&ending.as_str()) => files.push(path),
            Some(ending) => found.leave_out(format!("the ending .{ending} is none of a picture that is read"), path.display()),
            None => found.leave_out("no ending, such as .png", path.display()),
        }
    }
    above.pop();
    Ok(())
}

/// What a folder is that holds pictures of results, which are no data: a run's folder may lie below that of its own
/// data.
fn results(folder: &Path) -> Option<&'static str> {
    if layout::holds_run(folder) {
        Some("the folder of a run: its pictures are no data")
    } else if layout::holds_results(folder) {
        Some("the folder of a comparison or study: its pictures are no data")
    } else {
        None
    }
}
