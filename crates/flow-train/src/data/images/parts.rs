//! What the folders of pictures mean: parts of the set, or classes.

use crate::text::{agreeing, count};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use crate::data::{DataError, Found, Part, Result};

/// Where a picture belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// By the folder that it lies in; none where folders are no parts.
    pub(super) part: Option<Part>,
    pub(super) label: Option<usize>,
}

/// Where every picture of a folder belongs; none for one that is left out.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) places: Vec<Option<Place>>,
    pub(super) classes: Arc<[String]>,
}

/// The part that a folder of this name is.
fn part_of(folder: &str) -> Option<Part> {
    match folder.to_ascii_lowercase().as_str() {
        "train" | "training" | "train_images" | "train-images" => Some(Part::Train),
        "val" | "valid" | "validation" | "dev" => Some(Part::Validation),
        "test" | "testing" | "test_images" | "test-images" => Some(Part::Test),
        _ => None,
    }
}

/// The folders on the way to a picture inside `dir`.
fn folders(dir: &Path, path: &Path) -> Vec<String> {
    let inside = path.strip_prefix(dir).unwrap_or(path).parent().unwrap_or(Path::new(""));
    let normal = |part: Component| matches!(part, Component::Normal(_)).then(|| part.as_os_str().to_string_lossy().into_owned());
    inside.components().filter_map(normal).collect()
}

impl Parts {
    /// Tells parts and classes from the folders. With `by_folder` parts must be folders, with `Some(false)` none are.
    pub(super) fn of(dir: &Path, files: &[PathBuf], by_folder: Option<bool>, found: &mut Found) -> Result<Self> {
        let mut ways: Vec<Vec<String>> = files.iter().map(|path| folders(dir, path)).collect();
        let mut parts: Vec<Option<Part>> = vec![None; files.len()];
        let mut used: Vec<bool> = vec![true; files.len()];
        let show = |i: usize| files[i].strip_prefix(dir).unwrap_or(&files[i]).display().to_string();
        let tops: BTreeSet<&String> = ways.iter().filter_map(|way| way.first()).collect();
        let of = |part| tops.iter().any(|top| part_of(top) == Some(part));
        let are_parts = of(Part::Train) && (of(Part::Test) || of(Part::Validation)) && by_folder != Some(false);
        if by_folder == Some(true) && !are_parts {
            let expected = "folders `train` and `test`, or `train` and `val`, as split=folders says";
            return Err(DataError::Missing { path: dir.to_owned(), expected });
        }
        if are_parts {
            let others: Vec<String> = tops.iter().filter(|top| part_of(top).is_none()).map(|top| format!("`{top}`")).collect();
            if !others.is_empty() && by_folder.is_none() {
                let question = format!(
                    "holds folders named after parts beside {}: split=folders takes the parts and leaves the others out, split=every-tenth \
                     takes all folders as classes",
                    others.join(", ")
                );
                return Err(DataError::Undecided { path: dir.to_owned(), question });
            }
            let test_is_validation = !of(Part::Test);
            for (i, way) in ways.iter_mut().enumerate() {
                let part = way.first().and_then(|top| part_of(top));
                if part.is_none() {
                    used[i] = false;
                    found.leave_out("beside the folders of the parts", show(i));
                    continue;
                }
                way.remove(0);
                parts[i] = part.map(|part| if test_is_validation && part == Part::Validation { Part::Test } else { part });
            }
            if test_is_validation {
                found.notes.push(format!("{}: there is no folder `test`: the validation folder is the test part", dir.display()));
            }
        }
        // Parts without any folder of a class, such as test pictures whose classes are not told, have no labels.
        let mut by_part: BTreeMap<u8, (usize, usize)> = BTreeMap::new();
        let key = |part: Option<Part>| part.map_or(0, |part| part as u8 + 1);
        for i in (0..files.len()).filter(|&i| used[i]) {
            let counts = by_part.entry(key(parts[i])).or_default();
            if ways[i].is_empty() { counts.1 += 1 } else { counts.0 += 1 }
        }
        let classes: BTreeSet<&String> = (0..files.len()).filter(|&i| used[i]).filter_map(|i| ways[i].first()).collect();
        let classes: Vec<String> = classes.into_iter().cloned().collect();
        let strays: usize = by_part.values().filter(|(classed, _)| *classed > 0).map(|(_, strays)| strays).sum();
        let classed: usize = by_part.values().map(|(classed, _)| classed).sum();
        // A few pictures beside folders are strays; many say that the folders are no classes.
        let are_classes = strays == 0 || (classes.len() > 1 && 10 * strays <= classed);
        if !are_classes {
            let warning = format!(
                "{}: {} {} in no folder of a class and {classed} {}: the folders are not taken for classes",
                dir.display(),
                count(strays, "picture"),
                agreeing(strays, "lies", "lie"),
                agreeing(classed, "does", "do")
            );
            found.warnings.push(warning);
        }
        let mut places = Vec::with_capacity(files.len());
        for i in 0..files.len() {
            let label = ways[i].first().and_then(|name| classes.binary_search(name).ok());
            let stray = are_classes && label.is_none() && by_part.get(&key(parts[i])).is_some_and(|(classed, _)| *classed > 0);
            if used[i] && stray {
                found.leave_out("beside the folders of the classes, and so without a class", show(i));
            }
            places.push((used[i] && !stray).then_some(Place { part: parts[i], label: label.filter(|_| are_classes) }));
        }
        let classes = if are_classes { classes.into() } else { Arc::default() };
        Ok(Self { places, classes })
    }
}
