//! What a data set knows of one column of a table.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What the values of a column are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ColumnKind {
    /// Real numbers.
    #[default]
    Real,
    /// Whole numbers, every one of them.
    Integer,
    /// 0 and 1 alone.
    Binary,
}

/// `real`, `integer`, `0 or 1`.
impl fmt::Display for ColumnKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Real => "real",
            Self::Integer => "integer",
            Self::Binary => "0 or 1",
        })
    }
}

/// A column of a table: its name, what its values are, and their range over all rows that were read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Column {
    /// The name in the header; empty where there is none.
    pub name: String,
    /// Its number in the file, counted from 1.
    pub number: usize,
    /// What its values are.
    pub kind: ColumnKind,
    /// The smallest value.
    pub low: f64,
    /// The largest value.
    pub high: f64,
}

impl Column {
    /// One column a name, of `values` that stand row by row, numbered from 1.
    pub fn of(names: impl IntoIterator<Item = String>, values: &[f64]) -> Vec<Self> {
        let names: Vec<String> = names.into_iter().collect();
        let new = |(name, number)| Self { name, number, kind: ColumnKind::Binary, low: f64::INFINITY, high: f64::NEG_INFINITY };
        let mut columns: Vec<Self> = names.into_iter().zip(1..).map(new).collect();
        for row in values.chunks_exact(columns.len().max(1)) {
            columns.iter_mut().zip(row).for_each(|(column, &value)| column.add(value));
        }
        columns
    }

    fn add(&mut self, value: f64) {
        (self.low, self.high) = (self.low.min(value), self.high.max(value));
        let is_bit = value.to_bits() == 0f64.to_bits() || value.to_bits() == 1f64.to_bits();
        self.kind = match self.kind {
            ColumnKind::Binary if is_bit => ColumnKind::Binary,
            ColumnKind::Binary | ColumnKind::Integer if value.fract() == 0.0 => ColumnKind::Integer,
            _ => ColumnKind::Real,
        };
    }
}

/// How messages call column `index` of a set, counted from 0: by its name, and by its number as the user counts.
///
/// ```
/// use flow_train::data::{Column, column_name};
/// let columns = Column::of(["age".to_owned(), String::new()], &[1.0, 2.0]);
/// assert_eq!(column_name(&columns, 0), "column `age` (1)");
/// assert_eq!(column_name(&columns, 1), "column 2");
/// ```
pub fn column_name(columns: &[Column], index: usize) -> String {
    match columns.get(index) {
        Some(Column { name, number, .. }) if !name.is_empty() => format!("column `{name}` ({number})"),
        Some(Column { number, .. }) => format!("column {number}"),
        None => format!("column {}", index + 1),
    }
}

/// How options call column `index` of a set, counted from 0: by its name, or by its number where it has none.
///
/// ```
/// use flow_train::data::{Column, column_key};
/// let columns = Column::of(["age".to_owned(), String::new()], &[1.0, 2.0]);
/// assert_eq!((column_key(&columns, 0), column_key(&columns, 1)), ("age".to_owned(), "2".to_owned()));
/// ```
pub fn column_key(columns: &[Column], index: usize) -> String {
    match columns.get(index) {
        Some(Column { name, .. }) if !name.is_empty() => name.clone(),
        column => column.map_or(index + 1, |column| column.number).to_string(),
    }
}

/// The names, if every column has one.
pub fn column_names(columns: &[Column]) -> Option<Vec<&str>> {
    let names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
    (!names.is_empty() && names.iter().all(|name| !name.is_empty())).then_some(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kind_and_range_are_those_of_all_rows() {
        let names = ["bit", "count", "real", "sign"].map(str::to_owned);
        let columns = Column::of(names, &[0.0, 3.0, 0.5, -1.0, 1.0, -7.0, 2.0, 1.0]);
        let found: Vec<_> = columns.iter().map(|c| (c.kind, c.low, c.high)).collect();
        let expected = [
            (ColumnKind::Binary, 0.0, 1.0),
            (ColumnKind::Integer, -7.0, 3.0),
            (ColumnKind::Real, 0.5, 2.0),
            (ColumnKind::Integer, -1.0, 1.0),
        ];
        assert_eq!(found, expected);
        assert_eq!(column_names(&columns), Some(vec!["bit", "count", "real", "sign"]));
        assert_eq!(column_names(&Column::of(["a".to_owned(), String::new()], &[])), None);
    }
}
