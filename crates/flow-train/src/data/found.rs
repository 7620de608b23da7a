//! What a source tells about itself: what it took for granted, and what it left out.

use std::collections::BTreeMap;
use std::fmt;

/// What was found on opening a source, for the user to read before anything is made of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// What was told from the data and not by the user, such as the separator of a table: one sentence each.
    pub notes: Vec<String>,
    /// What may not be as the user means it: one sentence each.
    pub warnings: Vec<String>,
    left_out: BTreeMap<String, Group>,
}

/// Things left out for one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Group {
    count: usize,
    first: String,
}

impl Found {
    /// Counts something that was left out; `what` names it, such as a file.
    pub fn leave_out(&mut self, reason: impl Into<String>, what: impl fmt::Display) {
        let group = self.left_out.entry(reason.into()).or_insert_with(|| Group { count: 0, first: what.to_string() });
        group.count += 1;
    }

    /// What was left out: the reason, how many, and the first of them.
    pub fn left_out(&self) -> impl Iterator<Item = (&str, usize, &str)> {
        self.left_out.iter().map(|(reason, group)| (reason.as_str(), group.count, group.first.as_str()))
    }

    /// How many things were left out.
    pub fn left_out_count(&self) -> usize {
        self.left_out.values().map(|group| group.count).sum()
    }

    /// A line for everything that was left out: `30 left out: the ending .gif is not read (gif0.gif and others)`.
    pub fn left_out_lines(&self) -> Vec<String> {
        let line = |(reason, count, first): (&str, usize, &str)| {
            let others = if count > 1 { " and others" } else { "" };
            format!("{count} left out: {reason} ({first}{others})")
        };
        self.left_out().map(line).collect()
    }

    /// Adds what another part of the same source tells.
    pub fn merge(&mut self, other: Self) {
        let Self { notes, warnings, left_out } = other;
        self.notes.extend(notes);
        self.warnings.extend(warnings);
        for (reason, group) in left_out {
            self.left_out.entry(reason).and_modify(|own| own.count += group.count).or_insert(group);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn things_left_out_are_counted_by_reason() {
        let mut found = Found::default();
        for (reason, what) in [("hidden", ".a"), ("the ending .txt is not read", "b.txt"), ("hidden", ".c")] {
            found.leave_out(reason, what);
        }
        let lines = ["2 left out: hidden (.a and others)", "1 left out: the ending .txt is not read (b.txt)"];
        assert_eq!(found.left_out_lines(), lines);
        found.merge(found.clone());
        assert_eq!(found.left_out_count(), 6);
    }
}
