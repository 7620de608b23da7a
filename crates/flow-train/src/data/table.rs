//! Comma-separated tables of numbers, with or without a class in one column.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;

use csv::{ErrorKind, ReaderBuilder, StringRecord, Trim};

use super::{DataError, InMemory, ItemShape, Labels, Result, Values};

/// Which column of a table holds the class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LabelColumn {
    /// None: every column is a number of the vector.
    #[default]
    None,
    /// The first.
    First,
    /// The last.
    Last,
}

/// Reads a table, one vector a line; `path` only names the source in errors. With `header`, the first line is skipped.
///
/// Spaces around fields are ignored. Classes may be any text; they are numbered in the order of their values if all are
/// numbers, otherwise in alphabetical order.
///
/// # Errors
/// [`DataError::Line`] with the line for a field that is not a finite number, a line that is longer or shorter than the first, and text that is not UTF-8;
/// [`DataError::Empty`] for a table without lines or without numbers; [`DataError::Io`].
pub fn read(path: &Path, reader: impl Read, label: LabelColumn, header: bool) -> Result<InMemory> {
    let line = |line, expected: String, got: String| DataError::Line { path: path.to_owned(), line, expected, got };
    let failed = |error: csv::Error| {
        let at = error.position().map_or(0, csv::Position::line);
        match error.into_kind() {
            ErrorKind::Io(source) => DataError::Io { path: path.to_owned(), source },
            ErrorKind::UnequalLengths { expected_len, len, .. } => {
                line(at, format!("{expected_len} fields, as the first line has"), format!("{len}"))
            }
            ErrorKind::Utf8 { err, .. } => line(at, "UTF-8 text".to_owned(), err.to_string()),
            other => line(at, "comma-separated values".to_owned(), format!("{other:?}")),
        }
    };
    let mut table = ReaderBuilder::new().has_headers(header).trim(Trim::All).from_reader(reader);
    let mut values = Vec::new();
    let mut names: Vec<Box<str>> = Vec::new();
    let mut dims = 0;
    let mut record = StringRecord::new();
    while table.read_record(&mut record).map_err(failed)? {
        let class = match label {
            LabelColumn::None => None,
            LabelColumn::First => Some(0),
            LabelColumn::Last => record.len().checked_sub(1),
        };
        dims = record.len() - usize::from(class.is_some());
        for (column, field) in record.iter().enumerate() {
            if class == Some(column) {
                names.push(field.into());
                continue;
            }
            match field.parse::<f64>() {
                Ok(value) if value.is_finite() => values.push(value),
                _ => {
                    let at = record.position().map_or(0, csv::Position::line);
                    let hint = if at == 1 && !header { "; if this line names the columns, say header=1" } else { "" };
                    let got = format!("`{}`", field.chars().take(40).collect::<String>());
                    return Err(line(at, format!("a finite number in column {}{hint}", column + 1), got));
                }
            }
        }
    }
    let labels = (label != LabelColumn::None).then(|| number_classes(&names));
    InMemory::new(path, Values::Real(values), ItemShape::Vector { dims }, None, labels)
}

fn number_classes(names: &[Box<str>]) -> Labels {
    let distinct: BTreeSet<&str> = names.iter().map(AsRef::as_ref).collect();
    let mut classes: Vec<&str> = distinct.into_iter().collect();
    let numbers: Option<Vec<f64>> = classes.iter().map(|c| c.parse().ok()).collect();
    if numbers.is_some() {
        classes.sort_by(|a, b| {
            let value = |text: &str| text.parse().unwrap_or(f64::NAN);
            value(a).total_cmp(&value(b)).then(a.cmp(b))
        });
    }
    let number: std::collections::BTreeMap<&str, u32> = classes.iter().copied().zip(0..).collect();
    Labels { of_items: names.iter().map(|n| number[n.as_ref()]).collect(), classes: classes.into_iter().map(str::to_owned).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Dataset, Draw};
    use proptest::prelude::*;

    fn parse(text: &[u8], label: LabelColumn, header: bool) -> Result<InMemory> {
        read("t.csv".as_ref(), text, label, header)
    }

    #[test]
    fn columns_and_classes_are_told_apart() -> Result<()> {
        let cases = [
            ("1, 2.5,b\r\n-3e1,0,a\r\n", LabelColumn::Last, false, vec!["a", "b"], vec![1, 0]),
            ("y,p,q\n10,1,2.5\n9,-30,0", LabelColumn::First, true, vec!["9", "10"], vec![1, 0]),
            ("1,2.5\n\n-30,0\n", LabelColumn::None, false, vec![], vec![]),
        ];
        for (text, label, header, classes, labels) in cases {
            let set = parse(text.as_bytes(), label, header)?;
            let batch = set.batch(&[0, 1].map(|index| Draw { epoch: 0, index }))?;
            assert_eq!(batch.values, Values::Real(vec![1.0, 2.5, -30.0, 0.0]), "{text}");
            assert_eq!(set.classes(), classes);
            assert_eq!(batch.labels.unwrap_or_default(), labels);
        }
        Ok(())
    }

    #[test]
    fn malformed_tables_are_typed_errors_with_the_line() {
        let cases: [(&str, &[u8], LabelColumn, &str); 8] = [
            ("nothing", b"", LabelColumn::None, "t.csv: holds no items"),
            ("only classes", b"a\nb\n", LabelColumn::Last, "t.csv: holds no items"),
            (
                "a header",
                b"x,y\n1,2\n",
                LabelColumn::None,
                "t.csv:1: expected a finite number in column 1; if this line names the columns, say header=1, got `x`",
            ),
            ("a word", b"1,2\n3,four\n", LabelColumn::None, "t.csv:2: expected a finite number in column 2, got `four`"),
            ("not finite", b"1,2\n3,nan\n", LabelColumn::None, "t.csv:2: expected a finite number in column 2, got `nan`"),
            ("overflow", b"1\n2\n1e999\n", LabelColumn::None, "t.csv:3: expected a finite number in column 1, got `1e999`"),
            ("short line", b"1,2\n3\n", LabelColumn::None, "t.csv:2: expected 2 fields, as the first line has, got 1"),
            ("not UTF-8", b"1\n\xff\n", LabelColumn::None, "t.csv:2: expected UTF-8 text, got "),
        ];
        for (case, text, label, message) in cases {
            let error = parse(text, label, false).expect_err(case).to_string();
            assert!(error.starts_with(message), "{case}: {error}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(junk in proptest::collection::vec(any::<u8>(), 0..100), text in "[0-9,.\n\" a-e-]{0,60}") {
            for label in [LabelColumn::None, LabelColumn::First, LabelColumn::Last] {
                for header in [false, true] {
                    let _ = parse(&junk, label, header);
                    let _ = parse(text.as_bytes(), label, header);
                }
            }
        }
    }
}
