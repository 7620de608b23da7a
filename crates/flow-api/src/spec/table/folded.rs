//! Rows of a table of layers, with layers that come again and again told once.

/// The longest sequence of layers that is looked for.
const LONGEST: usize = 16;

/// A row: the path of the layer, and its other cells.
type Row = Vec<String>;

/// Rows of one numbered layer, such as `bijector.layers.3`.
struct Block {
    /// What stands before the number, and the number.
    before: String,
    number: String,
    rows: Vec<Row>,
}

impl Block {
    /// Whether another block is the same but for its number.
    fn is_like(&self, other: &Self) -> bool {
        let tail = |block: &Self, row: &Row| {
            let path = row.first().map_or("", String::as_str).to_owned();
            path.strip_prefix(&format!("{}{}", block.before, block.number)).unwrap_or(&path).to_owned()
        };
        let same = |(a, b): (&Row, &Row)| tail(self, a) == tail(other, b) && a.get(1..) == b.get(1..);
        self.before == other.before && self.rows.len() == other.rows.len() && self.rows.iter().zip(&other.rows).all(same)
    }
}

/// The path up to its first number, and that number.
fn numbered(path: &str) -> (String, String) {
    let mut before = String::new();
    for part in path.split_inclusive('.') {
        let number = part.trim_end_matches('.');
        if !number.is_empty() && number.chars().all(|c| c.is_ascii_digit()) {
            return (before, number.to_owned());
        }
        before.push_str(part);
    }
    (before, String::new())
}

fn blocks(rows: Vec<Row>) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    for row in rows {
        let (before, number) = numbered(row.first().map_or("", String::as_str));
        match blocks.last_mut() {
            Some(block) if !number.is_empty() && block.before == before && block.number == number => block.rows.push(row),
            _ => blocks.push(Block { before, number, rows: vec![row] }),
        }
    }
    blocks
}

/// Rows in which a sequence of equal layers stands once, with a row behind it that says how often it comes.
pub(super) fn fold(rows: Vec<Row>) -> Vec<Row> {
    let width = rows.first().map_or(0, Vec::len);
    let blocks = blocks(rows);
    let mut folded = Vec::new();
    let mut at = 0;
    while at < blocks.len() {
        let repeats = |period: usize| {
            let same = |i: &usize| blocks.get(i + period).is_some_and(|later| later.is_like(&blocks[*i]));
            1 + (at..blocks.len()).take_while(same).count() / period
        };
        // The shortest of the sequences that reach furthest.
        let (period, times) = (1..=LONGEST.min(blocks.len() - at))
            .map(|period| (period, repeats(period)))
            .max_by_key(|(period, times)| (if *times > 1 { period * times } else { 0 }, std::cmp::Reverse(*period)))
            .unwrap_or((1, 1));
        let times = if times > 1 { times } else { 1 };
        let period = if times > 1 { period } else { 1 };
        blocks[at..at + period].iter().for_each(|block| folded.extend(block.rows.iter().cloned()));
        at += period * times;
        if times > 1 {
            let last = &blocks[at - 1];
            let mut row = vec![String::new(); width];
            row[0] = format!("… these {times} times, to {}{}", last.before, last.number);
            folded.push(row);
        }
    }
    folded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(paths: &[(&str, &str)]) -> Vec<Row> {
        paths.iter().map(|(path, kind)| vec![(*path).to_owned(), (*kind).to_owned()]).collect()
    }

    #[test]
    fn equal_layers_stand_once() {
        let layers = rows(&[
            ("a.pixel", "Lu"),
            ("a.layers.0.channel", "Affine"),
            ("a.layers.0.patch", "Affine"),
            ("a.layers.1.channel", "Affine"),
            ("a.layers.1.patch", "Affine"),
            ("a.layers.2.channel", "Affine"),
            ("a.layers.2.patch", "Spline"),
        ]);
        let shown: Vec<String> = fold(layers.clone()).into_iter().map(|row| row[0].clone()).collect();
        let expected = [
            "a.pixel",
            "a.layers.0.channel",
            "a.layers.0.patch",
            "… these 2 times, to a.layers.1",
            "a.layers.2.channel",
            "a.layers.2.patch",
        ];
        assert_eq!(shown, expected);
        // A sequence of flows that is repeated, each under a number of its own.
        let repeated =
            rows(&[("b.0", "Norm"), ("b.1", "Lu"), ("b.2", "Norm"), ("b.3", "Lu"), ("b.4", "Norm"), ("b.5", "Lu"), ("b.6", "Norm")]);
        let shown: Vec<String> = fold(repeated).into_iter().map(|row| row[0].clone()).collect();
        assert_eq!(shown, ["b.0", "b.1", "… these 3 times, to b.5", "b.6"]);
        let different = rows(&[("c.0", "Norm"), ("c.1", "Lu"), ("d", "Base")]);
        assert_eq!(fold(different.clone()), different);
    }
}
