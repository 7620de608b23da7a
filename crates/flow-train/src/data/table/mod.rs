//! Tables of numbers in text: rows are vectors, columns have names, one may hold classes and one the names of the rows.

mod dialect;
#[cfg(feature = "parquet")]
pub mod parquet;

use crate::text::{agreeing, count};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::Path;

use csv::{ErrorKind, StringRecord};
use flate2::read::MultiGzDecoder;

pub use dialect::Separator;
use dialect::{Dialect, Said, is_missing, number, short};

use super::memory::sort_classes;
use super::{Column, DataError, Found, InMemory, ItemShape, Labels, Result, Values, read_limit};
use crate::text::list;

/// Which column of a table holds the class.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum LabelColumn {
    /// None: every column is a number of the vector.
    #[default]
    None,
    /// The first.
    First,
    /// The last.
    Last,
    /// The one of this name, or of this number counted from 1.
    Named(String),
}

/// What happens to a row without a value in a column.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Missing {
    /// The table is refused.
    #[default]
    Refuse,
    /// The row is left out, and counted.
    Drop,
    /// A row without a class stays, as an item without a label; one without a number is refused.
    Unlabelled,
}

/// How to read a table. What is not said is told from its first lines.
///
/// Columns are named as in the header, or by their number counted from 1 where no header has that name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableOptions {
    /// What separates fields.
    pub separator: Option<Separator>,
    /// Whether the first line names the columns.
    pub header: Option<bool>,
    /// The columns of the vector, in this order; all of them if it is empty.
    pub columns: Vec<String>,
    /// Columns to leave out.
    pub drop: Vec<String>,
    /// Where the class stands.
    pub label: LabelColumn,
    /// Columns that rows are conditioned on, in this order: they are no numbers of the vector.
    pub condition: Vec<String>,
    /// The column that names the rows.
    pub id: Option<String>,
    /// What happens to rows without a value.
    pub missing: Missing,
}

/// A table that was read, and what was found on the way.
#[derive(Debug)]
pub struct Table {
    /// Its rows.
    pub rows: InMemory,
    /// What was told from the text, and how many rows were left out.
    pub found: Found,
}

/// Reads a table, plain or gzipped, one vector a line; `path` only names the source in errors.
///
/// Separator (comma, semicolon, tab, bar or blanks), decimal commas and a header are told from the first lines unless
/// `options` say them, quotes are
/// as in RFC 4180, and spaces around fields are ignored. A first column that has no name and counts or names the rows,
/// as data frames are
/// written, is left out. Classes may be any text; they are numbered in the order of their values if all are numbers,
/// otherwise in
/// alphabetical order. A field is missing if it is empty or `NA`, `N/A`, `NaN`, `null`, `None`, `?`, `-` or `.`.
///
/// ```
/// use flow_train::data::table::{self, TableOptions};
/// use flow_train::data::{Dataset, Draw, Values};
///
/// let text = "x;y\n0,5;2\n1,5;4\n";
/// let table = table::read("t.csv".as_ref(), text.as_bytes(), &TableOptions::default())?;
/// assert_eq!(table.found.notes, ["t.csv: 2 rows of 2 columns (x, y), separated by semicolons, decimal commas, with a header"]);
/// assert_eq!(table.rows.batch(&[Draw { epoch: 0, index: 1 }])?.values, Values::Real(vec![1.5, 4.0]));
/// # Ok::<(), flow_train::data::DataError>(())
/// ```
///
/// # Errors
/// [`DataError::Line`] with the line for a field that is not a finite number, a line that is longer or shorter than the
/// others, text that is not
/// UTF-8, and a first line that may be a header or not; [`DataError::TextColumns`] for columns of words;
/// [`DataError::MissingValues`];
/// [`DataError::NoColumn`] for a name that the table has not; [`DataError::Empty`] for a table without rows or without
/// numbers;
/// [`DataError::TooLarge`]; [`DataError::Compressed`]; [`DataError::Io`].
pub fn read(path: &Path, reader: impl Read, options: &TableOptions) -> Result<Table> {
    from_text(path, &read_text(path, reader, read_limit() / TEXT_SHARE)?, options, None)
}

/// Reads a Parquet file, as [`read`] reads a text.
///
/// # Errors
/// [`DataError::NotBuiltIn`] without the feature `parquet`; with it those of `table::parquet::read`.
pub fn read_parquet(path: &Path, options: &TableOptions) -> Result<Table> {
    #[cfg(feature = "parquet")]
    return parquet::read(path, std::fs::File::open(path).map_err(|source| DataError::Io { path: path.to_owned(), source })?, options);
    #[cfg(not(feature = "parquet"))]
    {
        let _ = options;
        Err(DataError::NotBuiltIn {
            path: path.to_owned(),
            format: "Parquet",
            feature: "parquet",
            instead: "pandas' `to_csv` writes a table that is read",
        })
    }
}

/// Reads a text; `written` says what it was made of, if that was no text.
fn from_text(path: &Path, text: &str, options: &TableOptions, written: Option<&'static str>) -> Result<Table> {
    let said = Said { separator: options.separator, header: options.header };
    let found =
        dialect::find(text, said).map_err(|e| DataError::Line { path: path.to_owned(), line: e.line, expected: e.expected, got: e.got })?;
    let dialect = Dialect { written, ..found };
    let names: Vec<String> = match &dialect.names {
        Some(names) => unique(names),
        None => vec![String::new(); dialect.fields],
    };
    let roles = Roles::choose(path, &names, dialect.row_names, options)?;
    let mut body = Body::new(path, &dialect, &roles, names);
    body.read(text)?;
    body.finish(options)
}

/// A text of numbers is shorter than the numbers and what is kept of them while they are read.
const TEXT_SHARE: u64 = 4;

/// The whole text, decompressed if need be, of at most so many bytes.
fn read_text(path: &Path, mut reader: impl Read, limit: u64) -> Result<String> {
    const MAGIC: [u8; 2] = [0x1f, 0x8b];
    let io = |source| DataError::Io { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    reader.by_ref().take(MAGIC.len() as u64).read_to_end(&mut bytes).map_err(io)?;
    if bytes == MAGIC {
        let whole = MultiGzDecoder::new(std::io::Cursor::new(std::mem::take(&mut bytes)).chain(reader));
        let broken = |source| DataError::Compressed { path: path.to_owned(), source };
        whole.take(limit + 1).read_to_end(&mut bytes).map_err(broken)?;
    } else {
        reader.take(limit + 1).read_to_end(&mut bytes).map_err(io)?;
    }
    let size = bytes.len() as u64;
    if size > limit {
        return Err(DataError::TooLarge { path: path.to_owned(), sizes: vec![size], limit });
    }
    if bytes.starts_with(b"\xef\xbb\xbf") {
        bytes.drain(..3);
    }
    String::from_utf8(bytes).map_err(|error| {
        let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = before.split(|byte| *byte == b'\n').count() as u64;
        let expected = "UTF-8 text".to_owned();
        DataError::Line { path: path.to_owned(), line, expected, got: error.utf8_error().to_string() }
    })
}

/// Names of columns, made different as pandas makes them: `a`, `a.1`. Those without a name are called by their number.
fn unique(names: &[String]) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let mut unique = Vec::with_capacity(names.len());
    for (column, name) in names.iter().enumerate() {
        let base = if name.is_empty() { (column + 1).to_string() } else { name.clone() };
        let numbered = (1..).map(|i| format!("{base}.{i}"));
        let name = std::iter::once(base.clone()).chain(numbered).find(|name| !seen.contains(name)).unwrap_or(base);
        seen.insert(name.clone());
        unique.push(name);
    }
    unique
}

/// What the columns of a file are for.
#[derive(Debug)]
struct Roles {
    /// Of the vector, in its order, and behind them those of the condition.
    values: Vec<usize>,
    /// How many are of the condition.
    conditions: usize,
    label: Option<usize>,
    id: Option<usize>,
    /// A first column without a name, which nothing was said about.
    index: Option<usize>,
}

impl Roles {
    fn choose(path: &Path, names: &[String], row_names: bool, options: &TableOptions) -> Result<Self> {
        let find = |option: &'static str, name: &String| {
            let by_number = || name.parse::<usize>().ok().filter(|n| (1..=names.len()).contains(n)).map(|n| n - 1);
            names.iter().position(|known| known == name).or_else(by_number).ok_or_else(|| DataError::NoColumn {
                path: path.to_owned(),
                option,
                got: name.clone(),
                known: names.iter().enumerate().map(|(i, name)| if name.is_empty() { (i + 1).to_string() } else { name.clone() }).collect(),
            })
        };
        let all = |option, list: &[String]| list.iter().map(|name| find(option, name)).collect::<Result<Vec<_>>>();
        let label = match &options.label {
            LabelColumn::None => None,
            LabelColumn::First => Some(0),
            LabelColumn::Last => names.len().checked_sub(1),
            LabelColumn::Named(name) => Some(find("label", name)?),
        };
        let id = options.id.as_ref().map(|name| find("id", name)).transpose()?;
        let (columns, dropped) = (all("columns", &options.columns)?, all("drop", &options.drop)?);
        let conditions = all("condition", &options.condition)?;
        let named = |column: &usize| {
            columns.contains(column)
                || dropped.contains(column)
                || conditions.contains(column)
                || label == Some(*column)
                || id == Some(*column)
        };
        let index = Some(0).filter(|first| row_names && !named(first) && options.columns.is_empty());
        let free = |column: &usize| {
            !dropped.contains(column)
                && !conditions.contains(column)
                && label != Some(*column)
                && id != Some(*column)
                && index != Some(*column)
        };
        let key = |column: usize| if names[column].is_empty() { (column + 1).to_string() } else { names[column].clone() };
        let roles = [("columns", &columns), ("condition", &conditions)].map(|(role, list)| list.iter().map(move |&at| (role, at)));
        let mut taken: BTreeMap<usize, &str> = dropped.iter().map(|&at| (at, "drop")).collect();
        for (role, at) in roles.into_iter().flatten().chain(label.map(|at| ("label", at))).chain(id.map(|at| ("id", at))) {
            if let Some(other) = taken.insert(at, role) {
                let (expected, got) = ("every column in one place".to_owned(), format!("`{}`, which {other}= names too", key(at)));
                return Err(DataError::BadOption { kind: "csv", option: role.to_owned(), expected, got });
            }
        }
        let mut values: Vec<usize> = if columns.is_empty() { (0..names.len()).filter(free).collect() } else { columns };
        if values.is_empty() && !taken.is_empty() {
            let expected = "a column that is left for the vectors".to_owned();
            let got = format!("none, as {} are all taken", names.iter().enumerate().map(|(at, _)| key(at)).collect::<Vec<_>>().join(", "));
            return Err(DataError::BadOption { kind: "csv", option: "columns".to_owned(), expected, got });
        }
        values.extend(&conditions);
        Ok(Self { values, conditions: conditions.len(), label, id, index })
    }
}

/// Something wrong with fields of one column: how many, and the first of them.
#[derive(Clone, Debug, Default)]
struct Fault {
    count: usize,
    line: u64,
    field: String,
}

impl Fault {
    fn add(&mut self, line: u64, field: &str) {
        if self.count == 0 {
            (self.line, self.field) = (line, short(field));
        }
        self.count += 1;
    }
}

/// The rows of a table as they are read.
struct Body<'a> {
    path: &'a Path,
    dialect: &'a Dialect,
    roles: &'a Roles,
    names: Vec<String>,
    /// Row by row; not a number where there is none.
    values: Vec<f64>,
    labels: Vec<Box<str>>,
    ids: Vec<Box<str>>,
    index: Vec<Box<str>>,
    /// By column of the vector.
    missing: Vec<Fault>,
    words: Vec<Fault>,
    infinite: Vec<Fault>,
    /// The line of each row without a value somewhere.
    incomplete: BTreeMap<usize, u64>,
    rows: usize,
}

impl<'a> Body<'a> {
    fn new(path: &'a Path, dialect: &'a Dialect, roles: &'a Roles, names: Vec<String>) -> Self {
        let faults = || vec![Fault::default(); roles.values.len()];
        let (missing, words, infinite) = (faults(), faults(), faults());
        let (values, labels, ids, index) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let incomplete = BTreeMap::new();
        Self { path, dialect, roles, names, values, labels, ids, index, missing, words, infinite, incomplete, rows: 0 }
    }

    fn line(&self, line: u64, expected: String, got: String) -> DataError {
        DataError::Line { path: self.path.to_owned(), line, expected, got }
    }

    fn read(&mut self, text: &str) -> Result<()> {
        let before = self.dialect.skipped_lines as u64;
        let mut records = dialect::records(text, self.dialect);
        let mut record = StringRecord::new();
        let mut number = 0;
        loop {
            let more = records.read_record(&mut record).map_err(|error| {
                let at = before + error.position().map_or(0, csv::Position::line);
                match error.into_kind() {
                    ErrorKind::Io(source) => DataError::Io { path: self.path.to_owned(), source },
                    other => self.line(at, "separated values".to_owned(), format!("{other:?}")),
                }
            })?;
            if !more {
                return Ok(());
            }
            number += 1;
            if number > self.dialect.header_records {
                let line = before + record.position().map_or(0, csv::Position::line);
                self.add(line, &record)?;
            }
        }
    }

    fn add(&mut self, line: u64, record: &StringRecord) -> Result<()> {
        if record.len() != self.dialect.fields {
            let expected = format!("{} fields, as the other lines have", self.dialect.fields);
            return Err(self.line(line, expected, record.len().to_string()));
        }
        let field = |column: usize| record.get(column).unwrap_or("");
        let mut complete = true;
        for (at, &column) in self.roles.values.iter().enumerate() {
            let text = field(column);
            let value = number(text, self.dialect.decimal_comma);
            match value {
                Some(value) if !value.is_finite() => self.infinite[at].add(line, text),
                Some(_) => {}
                None if is_missing(text) => {
                    complete = false;
                    self.missing[at].add(line, text);
                }
                None => self.words[at].add(line, text),
            }
            self.values.push(value.unwrap_or(f64::NAN));
        }
        let roles = self.roles;
        for (list, column) in [(&mut self.labels, roles.label), (&mut self.ids, roles.id), (&mut self.index, roles.index)] {
            list.extend(column.map(|column| Box::from(field(column))));
        }
        if roles.label.is_some_and(|column| field(column).is_empty()) {
            complete = false;
        }
        if !complete {
            self.incomplete.insert(self.rows, line);
        }
        self.rows += 1;
        Ok(())
    }

    /// How messages call a column of the vector.
    fn name(&self, at: usize) -> String {
        let column = self.roles.values[at];
        match self.names[column].as_str() {
            "" => format!("column {}", column + 1),
            name => format!("column `{name}` ({})", column + 1),
        }
    }

    /// How options call it.
    fn key(&self, at: usize) -> String {
        let column = self.roles.values[at];
        let name = &self.names[column];
        if name.is_empty() { (column + 1).to_string() } else { name.clone() }
    }

    /// Refuses what is no number.
    fn check(&self) -> Result<()> {
        let all = self.rows;
        // Most of what stands in a column of words is words.
        let is_text = |at: &usize| 2 * self.words[*at].count > all - self.missing[*at].count;
        let text: Vec<usize> = (0..self.words.len()).filter(is_text).collect();
        if !text.is_empty() {
            let column = |&at: &usize| {
                let Fault { line, field, .. } = &self.words[at];
                (self.name(at), self.key(at), format!("`{field}` in line {line}"))
            };
            let columns = text.iter().map(column).collect();
            return Err(DataError::TextColumns { path: self.path.to_owned(), columns });
        }
        let first = |faults: &[Fault]| {
            let at = (0..faults.len()).filter(|&at| faults[at].count > 0).min_by_key(|&at| faults[at].line)?;
            Some((at, faults[at].clone()))
        };
        for faults in [&self.words, &self.infinite] {
            if let Some((at, Fault { count, line, field })) = first(faults) {
                let more = if count > 1 { format!(", and {} more fields of this column", count - 1) } else { String::new() };
                return Err(self.line(line, format!("a finite number in {}", self.name(at)), format!("`{field}`{more}")));
            }
        }
        Ok(())
    }

    fn finish(mut self, options: &TableOptions) -> Result<Table> {
        let mut found = Found::default();
        found.warnings.extend(self.dialect.warning.as_ref().map(|warning| format!("{}: {warning}", self.path.display())));
        self.check()?;
        let mut kept: Vec<usize> = (0..self.roles.values.len()).collect();
        let empty = |at: usize| self.rows > 0 && self.missing[at].count == self.rows;
        // Lines that end with a separator have a last column without a name and without values.
        let last = self.names.len() - usize::from(!self.names.is_empty());
        let original = |column: usize| self.dialect.names.as_ref().is_none_or(|names| names.get(column).is_none_or(String::is_empty));
        kept.retain(|&at| !(empty(at) && self.roles.values[at] == last && original(last) && options.columns.is_empty()));
        if kept.len() < self.roles.values.len() {
            found.notes.push(format!("{}: column {} has no name and no values and is left out", self.path.display(), last + 1));
        }
        if let Some(&at) = kept.iter().find(|&&at| empty(at)) {
            let (column, key) = (self.name(at), self.key(at));
            return Err(DataError::EmptyColumn { path: self.path.to_owned(), column, key });
        }
        let ids = self.index(&mut found).or_else(|| (!self.ids.is_empty()).then(|| std::mem::take(&mut self.ids)));
        let incomplete = |at: &usize| self.missing[*at].count > 0;
        let unlabelled = self.labels.iter().filter(|label| label.is_empty()).count();
        let keeps = options.missing == Missing::Unlabelled && unlabelled > 0;
        if keeps {
            found.notes.push(format!(
                "{}: {} {} without a label",
                self.path.display(),
                count(unlabelled, "row"),
                agreeing(unlabelled, "has no class: it is an item", "have no class: they are items")
            ));
        }
        if kept.len() < self.roles.values.len() || keeps {
            let dims = self.roles.values.len();
            self.incomplete.retain(|row, _| kept.iter().any(|at| self.values[row * dims + at].is_nan()));
        }
        if !self.incomplete.is_empty() && options.missing != Missing::Drop {
            let mut columns: Vec<_> = kept.iter().copied().filter(incomplete).map(|at| (self.name(at), self.missing[at].count)).collect();
            columns.extend((unlabelled > 0 && !keeps).then(|| ("the class".to_owned(), unlabelled)));
            let line = self.incomplete.values().next().copied().unwrap_or_default();
            let (rows, all) = (self.incomplete.len(), self.rows);
            return Err(DataError::MissingValues { path: self.path.to_owned(), rows, all, line, columns });
        }
        for line in self.incomplete.values() {
            found.leave_out("rows without a value in some column", format_args!("line {line}"));
        }
        self.rows(&kept, ids, found)
    }

    /// Whether the first column, which has no name, counts or names the rows: it is left out, and names them if it does
    /// not count.
    fn index(&mut self, found: &mut Found) -> Option<Vec<Box<str>>> {
        if self.roles.index.is_none() || self.index.is_empty() {
            return None;
        }
        let index = std::mem::take(&mut self.index);
        let numbers: Option<Vec<i64>> = index.iter().map(|field| field.parse().ok()).collect();
        let counted = numbers.is_some_and(|n| n.windows(2).all(|pair| pair[1] == pair[0] + 1));
        let what = if counted { "counts the rows and is left out" } else { "names the rows and is no number of the vectors" };
        let path = self.path.display();
        found.notes.push(format!("{path}: the first column has no name: it {what}; columns= takes it all the same"));
        (!counted).then_some(index)
    }

    /// The rows that are kept, of the columns that are kept.
    fn rows(self, kept: &[usize], ids: Option<Vec<Box<str>>>, mut found: Found) -> Result<Table> {
        let dims = self.roles.values.len();
        let rows: Vec<usize> = (0..self.rows).filter(|row| !self.incomplete.contains_key(row)).collect();
        let mut values = self.values;
        if rows.len() < self.rows || kept.len() < dims {
            values = rows.iter().flat_map(|row| kept.iter().map(move |at| row * dims + at)).map(|at| values[at]).collect();
        }
        let name = |&at: &usize| self.names[self.roles.values[at]].clone();
        let mut names: Vec<String> = kept.iter().map(name).collect();
        // The last of them are of the condition.
        let wide = names.len() - self.roles.conditions.min(names.len());
        let of_conditions = names.split_off(wide);
        let by_row = |part: std::ops::Range<usize>, values: &[f64]| -> Vec<f64> {
            values.chunks_exact(kept.len().max(1)).flat_map(|row| row[part.clone()].to_vec()).collect()
        };
        let conditions = by_row(wide..kept.len(), &values);
        if !of_conditions.is_empty() {
            values = by_row(0..wide, &values);
        }
        let labels = self.roles.label.map(|_| number_classes(&pick(self.labels, &rows)));
        let mut columns = Column::of(names.clone(), &values);
        columns.iter_mut().zip(kept).for_each(|(column, &at)| column.number = self.roles.values[at] + 1);
        let shown = if self.dialect.names.is_some() { format!(" ({})", list(&names)) } else { String::new() };
        let given = if of_conditions.is_empty() { String::new() } else { format!(", conditioned on {}", list(&of_conditions)) };
        let (of, columns_of) = (count(self.rows, "row"), count(names.len(), "column"));
        found.notes.insert(0, format!("{}: {of} of {columns_of}{shown}{given}, {}", self.path.display(), self.dialect));
        let set = InMemory::new(self.path, Values::Real(values), ItemShape::Vector { dims: wide }, None, labels)?;
        let set = set.with_conditions(self.path, conditions, of_conditions)?.with_columns(columns).with_rows(rows.clone());
        let rows = match ids {
            Some(ids) => set.with_names(pick(ids, &rows)),
            None => set,
        };
        Ok(Table { rows, found })
    }
}

fn pick(all: Vec<Box<str>>, rows: &[usize]) -> Vec<Box<str>> {
    if rows.len() == all.len() { all } else { rows.iter().filter_map(|&row| all.get(row).cloned()).collect() }
}

fn number_classes(names: &[Box<str>]) -> Labels {
    let distinct: BTreeSet<&str> = names.iter().map(AsRef::as_ref).filter(|name| !name.is_empty()).collect();
    let mut classes: Vec<String> = distinct.into_iter().map(str::to_owned).collect();
    sort_classes(&mut classes);
    let number: BTreeMap<&str, u32> = classes.iter().map(String::as_str).zip(0..).collect();
    Labels { of_items: names.iter().map(|n| number.get(n.as_ref()).copied()).collect(), classes: classes.into() }
}

#[cfg(test)]
mod tests;
