//! How a table is written: what separates its fields, its decimal sign, and whether a line names the columns.

use std::borrow::Cow;
use std::fmt;

use csv::{ReaderBuilder, StringRecord, Trim};

/// What stands between the fields of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Separator {
    /// One character.
    Byte(u8),
    /// Any number of blanks and tabs.
    Blanks,
}

impl Separator {
    /// In the order in which they are preferred where nothing else decides.
    const CANDIDATES: [Self; 5] = [Self::Byte(b','), Self::Byte(b';'), Self::Byte(b'\t'), Self::Byte(b'|'), Self::Blanks];

    /// The name in a source, `comma`, or the character itself; none for what no table is separated by.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "comma" => Self::Byte(b','),
            "semicolon" => Self::Byte(b';'),
            "tab" | "\\t" => Self::Byte(b'\t'),
            "bar" => Self::Byte(b'|'),
            "blank" | " " => Self::Blanks,
            _ => match text.as_bytes() {
                [byte] if byte.is_ascii_punctuation() && !b"\".-+_".contains(byte) || *byte == b'\t' => Self::Byte(*byte),
                _ => return None,
            },
        })
    }

    /// The name in a source, which [`parse`](Self::parse) reads.
    pub fn name(self) -> String {
        match self {
            Self::Byte(b',') => "comma".to_owned(),
            Self::Byte(b';') => "semicolon".to_owned(),
            Self::Byte(b'\t') => "tab".to_owned(),
            Self::Byte(b'|') => "bar".to_owned(),
            Self::Byte(other) => char::from(other).to_string(),
            Self::Blanks => "blank".to_owned(),
        }
    }

    /// The records of a text, and lines to add to their numbers.
    fn records(self, text: &str) -> csv::Reader<std::io::Cursor<Cow<'_, [u8]>>> {
        let (separator, text) = match self {
            Self::Byte(byte) => (byte, Cow::Borrowed(text.as_bytes())),
            Self::Blanks => (b'\t', Cow::Owned(blanks_as_tabs(text).into_bytes())),
        };
        let mut builder = ReaderBuilder::new();
        builder.has_headers(false).flexible(true).trim(Trim::All).delimiter(separator);
        builder.from_reader(std::io::Cursor::new(text))
    }
}

/// Every run of blanks between fields as one tab, line by line; what stands in quotes stays.
fn blanks_as_tabs(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let (mut quoted, mut pending) = (false, false);
        for c in line.trim().chars() {
            quoted ^= c == '"';
            if !quoted && (c == ' ' || c == '\t') {
                pending = true;
                continue;
            }
            if std::mem::take(&mut pending) {
                out.push('\t');
            }
            out.push(c);
        }
        out.push('\n');
    }
    out
}

/// How a table is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Dialect {
    pub(super) separator: Separator,
    pub(super) decimal_comma: bool,
    /// Names of the columns, empty for one that has none; `None` without a header.
    pub(super) names: Option<Vec<String>>,
    /// Whether the header has no name for the first column, which then names the rows.
    pub(super) row_names: bool,
    /// Fields of a line.
    pub(super) fields: usize,
    /// Lines before the body, which are not read: a line `sep=;`, or comments.
    pub(super) skipped_lines: usize,
    pub(super) comments: usize,
    /// Records at the start of the body that are not data: the header.
    pub(super) header_records: usize,
    pub(super) warning: Option<String>,
    /// What a text was made of that the user has never seen.
    pub(super) written: Option<&'static str>,
}

/// What a user says of it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Said {
    pub(super) separator: Option<Separator>,
    pub(super) header: Option<bool>,
}

/// What cannot be told without the user.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ambiguous {
    pub(super) line: u64,
    pub(super) expected: String,
    pub(super) got: String,
}

/// The records of the body with their line numbers; the header's are among them.
pub(super) fn records<'a>(text: &'a str, dialect: &Dialect) -> csv::Reader<std::io::Cursor<Cow<'a, [u8]>>> {
    dialect.separator.records(body(text, dialect.skipped_lines))
}

fn body(text: &str, skipped_lines: usize) -> &str {
    let mut rest = text;
    for _ in 0..skipped_lines {
        rest = rest.split_once('\n').map_or("", |(_, rest)| rest);
    }
    rest
}

/// A number as this table writes it; infinite where f64 cannot hold it.
pub(super) fn number(field: &str, decimal_comma: bool) -> Option<f64> {
    let is_digit = |c: Option<char>| c.is_some_and(|c| c.is_ascii_digit());
    // Words that Rust reads as numbers are none in a table.
    if !field.chars().any(|c| c.is_ascii_digit()) {
        return None;
    }
    if !decimal_comma {
        return field.parse().ok();
    }
    match field.split_once(',') {
        None if field.contains('.') => None,
        None => field.parse().ok(),
        Some((whole, rest)) if is_digit(whole.chars().last()) && is_digit(rest.chars().next()) && !whole.contains('.') => {
            field.replacen(',', ".", 1).parse().ok()
        }
        Some(_) => None,
    }
}

/// Whether a field says that there is no value.
pub(super) fn is_missing(field: &str) -> bool {
    const MARKS: [&str; 10] = ["", "na", "n/a", "nan", "null", "none", "?", "-", ".", "#n/a"];
    MARKS.iter().any(|mark| field.eq_ignore_ascii_case(mark))
}

/// Tells from the beginning of a text how it is written.
pub(super) fn find(text: &str, said: Said) -> Result<Dialect, Ambiguous> {
    let mut skipped_lines = 0;
    let mut separator = said.separator;
    let mut comments = Vec::new();
    // Spreadsheets write this line for themselves.
    if let Some(sep) = text.lines().next().and_then(|line| line.trim().strip_prefix("sep=")).and_then(Separator::parse) {
        separator = separator.or(Some(sep));
        skipped_lines = 1;
    }
    for line in text.lines().skip(skipped_lines).take_while(|line| line.starts_with('#')) {
        comments.push(line.trim_start_matches('#').trim());
        skipped_lines += 1;
    }
    let sample = sample(body(text, skipped_lines));
    let candidates = separator.map_or_else(|| Separator::CANDIDATES.to_vec(), |one| vec![one]);
    let readings: Vec<Reading> = candidates.into_iter().map(|one| Reading::of(sample, one)).collect();
    let best = readings.into_iter().reduce(|best, other| if other.score() > best.score() { other } else { best });
    let mut reading = best.unwrap_or_else(|| Reading::of(sample, Separator::Byte(b',')));
    if separator.is_none() && !reading.is_table() {
        reading = Reading::of(sample, Separator::Byte(b','));
    }
    let mut dialect = Dialect {
        separator: reading.separator,
        decimal_comma: reading.decimal_comma,
        names: None,
        row_names: false,
        fields: reading.fields,
        skipped_lines,
        comments: comments.len(),
        header_records: 0,
        warning: None,
        written: None,
    };
    // numpy writes the header as a comment.
    if said.header != Some(false)
        && let Some(names) = comments.last().map(|line| fields(line, reading.separator)).filter(|names| names.len() == reading.fields)
        && names.iter().all(|name| !name.is_empty() && number(name, false).is_none())
    {
        dialect.names = Some(names);
        dialect.comments -= 1;
        return Ok(dialect);
    }
    let first_line = skipped_lines as u64 + 1;
    let is_header = match said.header {
        Some(header) => header,
        None => reading.has_header(first_line, &mut dialect.warning)?,
    };
    if is_header {
        let mut names = reading.records.first().cloned().unwrap_or_default();
        if names.len() + 1 == reading.fields {
            names.insert(0, String::new());
            dialect.row_names = true;
        }
        dialect.row_names |= names.first().is_some_and(|name| name.is_empty() || name.starts_with("Unnamed: 0"));
        dialect.names = Some(names);
        dialect.header_records = 1;
    }
    Ok(dialect)
}

/// The first lines, whole ones.
fn sample(text: &str) -> &str {
    const LINES: usize = 200;
    const BYTES: usize = 1 << 18;
    let end = text.split_inclusive('\n').take(LINES).map(str::len).sum::<usize>();
    if end <= BYTES {
        return text.get(..end).unwrap_or(text);
    }
    let cut = (0..=BYTES).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    text.get(..cut).and_then(|part| part.rsplit_once('\n')).map_or(text, |(whole, _)| whole)
}

fn fields(line: &str, separator: Separator) -> Vec<String> {
    let mut record = StringRecord::new();
    let found = separator.records(line).read_record(&mut record);
    found.map_or_else(|_| Vec::new(), |_| record.iter().map(str::to_owned).collect())
}

/// A sample read with one separator.
struct Reading {
    separator: Separator,
    decimal_comma: bool,
    records: Vec<Vec<String>>,
    /// Fields that most records have.
    fields: usize,
    /// Share of records that have as many.
    consistent: f64,
    /// Share of fields behind the first record that are numbers or missing.
    numeric: f64,
}

impl Reading {
    fn of(sample: &str, separator: Separator) -> Self {
        let records: Vec<Vec<String>> =
            separator.records(sample).records().map_while(Result::ok).map(|r| r.iter().map(str::to_owned).collect()).collect();
        // The header may have a field less.
        let rows = if records.len() > 1 { &records[1..] } else { &records[..] };
        let mut counts = std::collections::BTreeMap::new();
        rows.iter().for_each(|row| *counts.entry(row.len()).or_insert(0_usize) += 1);
        let (fields, same) = counts.into_iter().max_by_key(|&(_, count)| count).unwrap_or((0, 0));
        let share = |rows: &[Vec<String>], comma| {
            let numeric = rows.iter().flatten().filter(|f| is_missing(f) || number(f, comma).is_some()).count();
            numeric as f64 / rows.iter().map(Vec::len).sum::<usize>().max(1) as f64
        };
        let decimal_comma = separator != Separator::Byte(b',') && share(&records, true) > share(&records, false);
        let numeric = share(rows, decimal_comma);
        let consistent = same as f64 / rows.len().max(1) as f64;
        Self { separator, decimal_comma, records, fields, consistent, numeric }
    }

    fn is_table(&self) -> bool {
        self.fields > 1 && self.consistent >= 0.9
    }

    fn score(&self) -> (bool, f64) {
        (self.is_table(), self.numeric)
    }

    /// Whether the first record names the columns: where it has words, the rows below have numbers.
    fn has_header(&self, line: u64, warning: &mut Option<String>) -> Result<bool, Ambiguous> {
        let Some((first, rows)) = self.records.split_first() else { return Ok(false) };
        if rows.is_empty() {
            // A table of one line is data if it can be.
            return Ok(!first.iter().any(|field| number(field, self.decimal_comma).is_some()));
        }
        if first.len() + 1 == self.fields {
            return Ok(true);
        }
        let is_number = |field: &String| number(field, self.decimal_comma).is_some();
        let numeric_below = |column: usize| {
            let below: Vec<&String> = rows.iter().filter_map(|row| row.get(column)).filter(|field| !is_missing(field)).collect();
            let numbers = below.iter().filter(|field| is_number(field)).count();
            !below.is_empty() && 2 * numbers > below.len()
        };
        let (mut words, mut numbers) = (Vec::new(), 0);
        for (column, field) in first.iter().enumerate().filter(|(column, _)| numeric_below(*column)) {
            if is_number(field) {
                numbers += 1;
            } else if !is_missing(field) {
                words.push(column);
            }
        }
        let unnamed_first = first.len() > 1 && first[0].is_empty() && first[1..].iter().all(|field| !field.is_empty());
        match (words.first(), numbers) {
            (Some(_), 0) => Ok(true),
            (Some(&column), _) if !unnamed_first => Err(Ambiguous {
                line,
                expected: "numbers, or names of columns; header=1 says that this line is the header, header=0 that it is not".to_owned(),
                got: format!("`{}` above numbers beside numbers above numbers", short(&first[column])),
            }),
            _ if counts(if unnamed_first { &first[1..] } else { first }) => {
                let fraction = |f: &String| number(f, self.decimal_comma).is_some_and(|v| v.fract() != 0.0);
                let certain = unnamed_first || rows.iter().flatten().any(fraction);
                *warning = Some(if certain {
                    "the first line counts the columns and is taken for their names; header=0 makes it a row".to_owned()
                } else {
                    "the first line counts the columns and may be their names, but is taken for a row; header=1 makes it the header"
                        .to_owned()
                });
                Ok(certain)
            }
            _ => Ok(unnamed_first),
        }
    }
}

/// Whether fields count from 0 or from 1, as a header without names does.
fn counts(fields: &[String]) -> bool {
    let from = |start: usize| fields.iter().enumerate().all(|(i, field)| *field == (start + i).to_string());
    fields.len() > 1 && (from(0) || from(1))
}

/// The beginning of a field, for messages.
pub(super) fn short(field: &str) -> String {
    field.chars().take(40).collect()
}

/// `separated by semicolons, decimal commas, with a header`.
impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(written) = self.written {
            return f.write_str(written);
        }
        match self.separator {
            _ if self.fields < 2 => f.write_str("one a line")?,
            Separator::Byte(b',') => f.write_str("separated by commas")?,
            Separator::Byte(b';') => f.write_str("separated by semicolons")?,
            Separator::Byte(b'\t') => f.write_str("separated by tabs")?,
            Separator::Byte(b'|') => f.write_str("separated by bars")?,
            Separator::Byte(other) => write!(f, "separated by `{}`", char::from(other))?,
            Separator::Blanks => f.write_str("separated by blanks")?,
        }
        if self.decimal_comma {
            f.write_str(", decimal commas")?;
        }
        f.write_str(if self.names.is_some() { ", with a header" } else { ", without a header" })?;
        if self.comments > 0 {
            write!(f, ", {} lines of comment before it", self.comments)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn separator_decimal_sign_and_header_are_found() {
        let cases = [
            ("1,2\n3,4\n", "separated by commas, without a header"),
            ("a,b\n1,2\n3,4\n", "separated by commas, with a header"),
            ("a;b;c\n1.5;2;3\n1;2;3\n", "separated by semicolons, with a header"),
            ("0,1257;-0,1321\n1,25;2,5\n", "separated by semicolons, decimal commas, without a header"),
            ("x\ty\n0,5\t1,5\n1,25\t2\n", "separated by tabs, decimal commas, with a header"),
            ("1.0e+00 2.0e+00\n3.0e+00  4.0e+00\n", "separated by blanks, without a header"),
            ("# a b\n1 2\n3 4\n", "separated by blanks, with a header"),
            ("# made by hand\n# a,b\n1,2\n3,4\n", "separated by commas, with a header, 1 lines of comment before it"),
            ("sep=;\na;b\n1;2\n", "separated by semicolons, with a header"),
            ("a|b\n1|2\n", "separated by bars, with a header"),
            ("x\n1.5\n2.5\n", "one a line, with a header"),
            ("1.5\n2.5\n", "one a line, without a header"),
            // A column of words, which says nothing about the header.
            ("5.1,3.5,setosa\n4.9,3.0,setosa\n", "separated by commas, without a header"),
            ("name,x,colour\nitem 0,1.5,red\nitem 1,2.5,blue\n", "separated by commas, with a header"),
            (",a,b\n0,1.5,2\n1,2.5,3\n", "separated by commas, with a header"),
            ("\"a\" \"b\"\n\"1\" 0.5 1.5\n\"2\" 0.5 2.5\n", "separated by blanks, with a header"),
            ("0,1,2\n0.5,1.5,2.5\n0.25,1,2\n", "separated by commas, with a header"),
            ("0,1,2\n3,4,5\n6,7,8\n", "separated by commas, without a header"),
            ("x,\n1,\n2,\n", "separated by commas, with a header"),
            ("\"a, b\",c\n\"1\",2\n3,4\n", "separated by commas, with a header"),
            ("x y,z\n1,2\n", "separated by commas, with a header"),
        ];
        for (text, expected) in cases {
            let found = find(text, Said::default()).map(|dialect| dialect.to_string());
            assert_eq!(found.as_deref(), Ok(expected), "{text}");
        }
        // A word above numbers beside a number above numbers may be a broken row.
        let ambiguous = find("1,abc,3\n1,2,3\n4,5,6\n", Said::default()).expect_err("ambiguous");
        assert_eq!((ambiguous.line, ambiguous.got.starts_with("`abc`")), (1, true));
        assert_eq!(find("1,2\n3,4\n", Said { header: Some(true), separator: None }).map(|d| d.header_records), Ok(1));
    }

    #[test]
    fn numbers_are_those_of_the_table() {
        let cases = [("1,5", true, Some(1.5)), ("1.5", true, None), ("1,", true, None), ("-0,5e3", true, Some(-500.0))];
        for (field, comma, value) in cases.into_iter().chain([("1.5", false, Some(1.5)), ("nan", false, None), ("inf", false, None)]) {
            assert_eq!(number(field, comma), value, "{field}");
        }
    }
}
