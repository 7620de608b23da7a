//! The items of a source as they were: a list of their keys by part, and the same parts of the source as it is now.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;

use super::dataset::check_draws;
use super::{Batch, Column, DataError, Dataset, Draw, ItemShape, Items, Result, Split, Subset};

/// The keys of a split's items as text, one a line behind the name of its part: none for items that have no names.
///
/// Items that share a key, such as crops of a picture, are one line.
pub fn list_items(split: &Split) -> Option<String> {
    let mut text = String::new();
    for (part, set) in [("train", &split.train), ("test", &split.test)] {
        for key in keys(&**set)? {
            // A line break would begin another item.
            let _ = writeln!(text, "{part} {}", key.replace('\n', " "));
        }
    }
    (!text.is_empty()).then_some(text)
}

/// Keys in the order of the items, each once.
fn keys(set: &dyn Dataset) -> Option<Vec<String>> {
    let mut keys: Vec<String> = Vec::new();
    for index in 0..set.len() {
        let key = set.item_key(index)?;
        if keys.last() != Some(&key) {
            keys.push(key);
        }
    }
    Some(keys)
}

/// A split whose items are those of `list` again, in the parts that they were in, whatever a rule says of the items
/// that there are now.
///
/// Items that are no longer there keep their numbers where `may_lack` allows it, so that no other item changes its own:
/// [`Dataset::is_gone`] tells them.
/// Gives the split, and the keys of the training items that are gone.
///
/// # Errors
/// [`DataError::ItemsDiffer`] for items that were not there, and for those that are gone unless they may be.
pub fn split_as_listed(list: &str, split: Split, place: &Path, may_lack: bool) -> Result<(Split, Vec<String>)> {
    let all: Arc<dyn Dataset> = Arc::new(Items::unseen(&split));
    let mut now: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for index in 0..all.len() {
        let Some(key) = all.item_key(index) else { return Ok((split, Vec::new())) };
        now.entry(key.replace('\n', " ")).or_default().push(index);
    }
    let listed = |part: &str| -> Vec<&str> {
        list.lines().filter_map(|line| line.split_once(' ')).filter(|(p, _)| *p == part).map(|(_, k)| k).collect()
    };
    let (train, test) = (listed("train"), listed("test"));
    let known: BTreeSet<&str> = train.iter().chain(&test).copied().collect();
    let new: Vec<String> = now.keys().filter(|key| !known.contains(key.as_str())).cloned().collect();
    let gone: Vec<String> = known.iter().filter(|key| !now.contains_key(**key)).map(|&key| key.to_owned()).collect();
    if !new.is_empty() || (!gone.is_empty() && !may_lack) {
        return Err(DataError::ItemsDiffer { path: place.to_owned(), new, gone });
    }
    // Every key stands for as many items.
    let each = now.values().map(Vec::len).max().unwrap_or(1);
    let places = |keys: &[&str]| -> Vec<Option<usize>> {
        keys.iter().flat_map(|key| (0..each).map(|i| now.get(*key).and_then(|at| at.get(i)).copied())).collect()
    };
    let there = places(&test).into_iter().flatten().collect();
    let lost = train.iter().filter(|key| !now.contains_key(**key)).map(|&key| key.to_owned()).collect();
    let train = Arc::new(Kept { of: all.clone(), items: places(&train), held_out: split.train.held_out().to_vec() });
    Ok((Split { train, test: Arc::new(Subset::new(all, there)?), ..split }, lost))
}

/// Items by their old numbers, of which some are gone.
#[derive(Debug)]
struct Kept {
    of: Arc<dyn Dataset>,
    items: Vec<Option<usize>>,
    held_out: Vec<usize>,
}

impl Kept {
    fn inner(&self, index: usize) -> Option<usize> {
        self.items.get(index).copied().flatten()
    }
}

impl Dataset for Kept {
    fn len(&self) -> usize {
        self.items.len()
    }

    fn shape(&self) -> ItemShape {
        self.of.shape()
    }

    fn levels(&self) -> Option<u32> {
        self.of.levels()
    }

    fn are_whole(&self) -> bool {
        self.of.are_whole()
    }

    fn classes(&self) -> &[String] {
        self.of.classes()
    }

    fn conditions(&self) -> &[Column] {
        self.of.conditions()
    }

    fn columns(&self) -> &[Column] {
        self.of.columns()
    }

    fn item_name(&self, index: usize) -> Option<String> {
        self.of.item_name(self.inner(index)?)
    }

    fn label(&self, index: usize) -> Option<usize> {
        self.of.label(self.inner(index)?)
    }

    fn source(&self, index: usize) -> usize {
        // Items that are gone have sources of their own, as none of them is drawn.
        self.inner(index).map_or(usize::MAX - index, |inner| self.of.source(inner))
    }

    fn corner(&self, draw: Draw) -> Result<Option<(usize, usize)>> {
        self.inner(draw.index).map_or(Ok(None), |index| self.of.corner(Draw { index, ..draw }))
    }

    fn item_key(&self, index: usize) -> Option<String> {
        self.of.item_key(self.inner(index)?)
    }

    fn is_gone(&self, index: usize) -> bool {
        self.inner(index).is_none()
    }

    fn row(&self, index: usize) -> usize {
        self.inner(index).map_or(index, |inner| self.of.row(inner))
    }

    fn held_out(&self) -> &[usize] {
        &self.held_out
    }

    /// The `draws` of the batch have the numbers that were asked for.
    fn batch(&self, draws: &[Draw]) -> Result<Batch> {
        check_draws(draws, self.len())?;
        let there = |draw: &Draw| {
            let index = self.inner(draw.index).ok_or(DataError::NoSuchItem { index: draw.index, len: self.len() })?;
            Ok(Draw { index, ..*draw })
        };
        let inner = draws.iter().map(there).collect::<Result<Vec<_>>>()?;
        Ok(Batch { draws: draws.to_vec(), ..self.of.batch(&inner)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{DataSource, Values, each_once};

    fn first_values(set: &dyn Dataset) -> Result<Vec<f64>> {
        let draws: Vec<Draw> = each_once(set.len(), 100).flatten().filter(|draw| !set.is_gone(draw.index)).collect();
        match set.batch(&draws)?.values {
            Values::Real(values) => Ok(values),
            Values::Levels(_) => panic!("real numbers"),
        }
    }

    /// When a row is gone all others stay in their parts and keep their numbers, though every tenth would be another
    /// one.
    #[test]
    fn parts_stay_as_they_were() -> std::result::Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("t.csv");
        let open = |rows: &[usize]| -> std::result::Result<Split, Box<dyn std::error::Error>> {
            let lines: Vec<String> = rows.iter().map(|i| format!("r{i},{i}.5")).collect();
            std::fs::write(&file, format!("id,x\n{}", lines.join("\n")))?;
            Ok(format!("csv:{}?id=id", file.display()).parse::<DataSource>()?.open(0)?)
        };
        let all: Vec<usize> = (0..20).collect();
        let list = list_items(&open(&all)?).ok_or("names")?;
        assert!(list.starts_with("train r0\n") && list.ends_with("test r9\ntest r19\n"), "{list}");

        let fewer: Vec<usize> = all.iter().copied().filter(|i| *i != 7).collect();
        let (split, gone) = split_as_listed(&list, open(&fewer)?, &file, true)?;
        assert_eq!((split.train.len(), gone), (18, vec!["r7".to_owned()]));
        assert_eq!(first_values(&*split.test)?, [9.5, 19.5]);
        assert_eq!(first_values(&*split.train)?.len(), 17);
        assert!(split.train.is_gone(7) && split.train.item_name(8) == Some("r8".to_owned()));
        assert!(matches!(split.train.batch(&[Draw { epoch: 0, index: 7 }]), Err(DataError::NoSuchItem { .. })));

        let refused = split_as_listed(&list, open(&fewer)?, &file, false).unwrap_err().to_string();
        assert!(refused.contains("1 item of the run is gone (r7)"), "{refused}");
        let more: Vec<usize> = (0..21).collect();
        let refused = split_as_listed(&list, open(&more)?, &file, true).unwrap_err().to_string();
        assert!(refused.contains("1 item is new (r20)"), "{refused}");
        Ok(())
    }
}
