//! What values of options have to be, told before anything is computed.

use flow_train::data::DataSource;
use std::path::{Path, PathBuf};

/// A number of things that cannot be none.
pub(super) fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|number| *number > 0).ok_or_else(|| "expected at least 1".to_owned())
}

/// A file that can be written, which is told before anything is computed.
pub(super) fn file(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if path.is_dir() {
        return Err("expected a file, got a folder".to_owned());
    }
    match path.parent().filter(|folder| !folder.as_os_str().is_empty() && !folder.is_dir()) {
        Some(folder) => Err(format!("there is no folder {}", folder.display())),
        None => Ok(path),
    }
}

/// Pictures are written as PNG.
pub(super) fn png(text: &str) -> Result<PathBuf, String> {
    file(text).and_then(|path| if has_ending(&path, &["png"]) { Ok(path) } else { Err("use .png".to_owned()) })
}

/// Latents are written as arrays or tables; what has no ending, such as a pipe, gets an array.
pub(super) fn embedding(text: &str) -> Result<PathBuf, String> {
    let expected = || Err("use .npy, .npz or .csv".to_owned());
    file(text).and_then(|path| if path.extension().is_none() || has_ending(&path, &["npy", "npz", "csv"]) { Ok(path) } else { expected() })
}

fn has_ending(path: &Path, known: &[&str]) -> bool {
    path.extension().is_some_and(|ending| known.iter().any(|known| ending.eq_ignore_ascii_case(known)))
}

/// Plots are written as PNG or SVG.
pub(super) fn png_or_svg(text: &str) -> Result<PathBuf, String> {
    let expected = || Err("use .png or .svg".to_owned());
    file(text).and_then(|path| if has_ending(&path, &["png", "svg"]) { Ok(path) } else { expected() })
}

/// A share between 0 and 1.
pub(super) fn rate(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|rate| *rate > 0.0 && *rate < 1.0).ok_or_else(|| "expected a share between 0 and 1, such as 0.01".to_owned())
}

/// Two items, numbered from 0.
pub(super) fn pair(text: &str) -> Result<(usize, usize), String> {
    let parse = |number: &str| number.trim().parse::<usize>().map_err(|e| format!("`{number}`: {e}"));
    let (i, j) = text.split_once(',').ok_or("two numbers with a comma between them, such as 3,17")?;
    Ok((parse(i)?, parse(j)?))
}

/// Data of a study by their name: `NAME=SOURCE`.
pub(super) fn named_source(text: &str) -> Result<(String, DataSource), String> {
    let (name, source) = text.split_once('=').ok_or("expected NAME=SOURCE")?;
    Ok((name.to_owned(), source.parse().map_err(|e| format!("{e}"))?))
}
