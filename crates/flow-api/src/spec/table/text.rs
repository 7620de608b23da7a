//! Tables as aligned text.

use std::fmt;

/// A table: heads, rows of as many cells, and how many columns from the left hold words, which are set flush left;
/// numbers are set flush right.
#[derive(Clone, Copy, Debug)]
pub struct Table<'a> {
    /// Names of the columns.
    pub heads: &'a [String],
    /// The cells.
    pub rows: &'a [Vec<String>],
    /// Columns of words.
    pub words: usize,
}

/// Columns two blanks apart, a line below the heads.
///
/// ```
/// let heads = ["layer", "parameters"].map(str::to_owned);
/// let rows = [vec!["ActNorm".to_owned(), "8".to_owned()]];
/// let table = flow_api::spec::Table { heads: &heads, rows: &rows, words: 1 };
/// assert_eq!(table.to_string(), "layer    parameters\n───────────────────\nActNorm           8\n");
/// ```
impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = || std::iter::once(self.heads).chain(self.rows.iter().map(Vec::as_slice));
        let width = |column: usize| lines().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..self.heads.len()).map(width).collect();
        for (i, line) in lines().enumerate() {
            let mut text = String::new();
            for (column, (cell, width)) in line.iter().zip(&widths).enumerate() {
                let pad = " ".repeat(width - cell.chars().count());
                let (before, behind) = if column < self.words { ("", pad.as_str()) } else { (pad.as_str(), "") };
                text.extend([if column == 0 { "" } else { "  " }, before, cell, behind]);
            }
            writeln!(f, "{}", text.trim_end())?;
            if i == 0 {
                writeln!(f, "{}", "─".repeat(widths.iter().sum::<usize>() + 2 * widths.len().saturating_sub(1)))?;
            }
        }
        Ok(())
    }
}
