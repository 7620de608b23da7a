//! Changing one field of a spec by its path.

use super::{SpecError, from_ron, to_ron};
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// `value` with the field at `path` replaced by the RON text `text`: what `--set path=text` does to a spec.
///
/// A path is names of fields and places in lists, separated by dots, such as `layers` or `channel.2.hidden`. In a list,
/// the name of a kind stands for all of its flows: `channel.AffineCoupling.hidden`.
///
/// ```
/// use flow_api::spec::{from_ron, set_field, to_ron, ModelSpec, Spec};
/// let spec: Spec<dyn ModelSpec> = from_ron("VectorFlow(flows: [ActNorm(), LuLinear()])")?;
/// let spec = set_field(&spec, "flows.LuLinear.permutation", "Reverse")?;
/// assert!(to_ron(&spec)?.contains("permutation: Reverse"));
/// let error = set_field(&spec, "flows.1.order", "Reverse").unwrap_err().to_string();
/// assert!(error.contains("no `order` in `flows.1`; there are: permutation"), "{error}");
/// # Ok::<(), flow_api::spec::SpecError>(())
/// ```
///
/// # Errors
/// [`SpecError::Text`] for a path that leads nowhere, naming what is there, and for a text that the field does not
/// take.
pub fn set_field<T: Serialize + for<'de> Deserialize<'de>>(value: &T, path: &str, text: &str) -> Result<T, SpecError> {
    // What is written here has every field, no comment and no raw string.
    let written = to_ron(value)?;
    let segments: Vec<&str> = path.split('.').collect();
    let mut found = Vec::new();
    Node::of(&written, 0..written.len()).locate(&segments, &mut Vec::new(), &mut found)?;
    let mut changed = written.clone();
    let mut unknown = None;
    for place in found.into_iter().rev() {
        match place {
            Place::Value(range) => changed.replace_range(range, text.trim()),
            Place::NewField { before, name, error } => {
                changed.insert_str(before, &format!("{name}: {},", text.trim()));
                unknown = Some(error);
            }
        }
    }
    from_ron(&changed).map_err(|e| unknown.unwrap_or_else(|| SpecError::Text(format!("{path}={text}: {e}"))))
}

/// Where a path leads.
enum Place {
    Value(Range<usize>),
    /// To a field that is not written because it has no value; `error` is for the case that there is no such field.
    NewField {
        before: usize,
        name: String,
        error: SpecError,
    },
}

/// A value in RON text: `Head(field: value)`, `[item, item]`, or neither.
struct Node<'a> {
    text: &'a str,
    range: Range<usize>,
    /// The name in front of the bracket, or the whole value if there is no bracket.
    head: &'a str,
    /// Parts with their names, as far as they have names.
    parts: Vec<(Option<&'a str>, Range<usize>)>,
}

impl<'a> Node<'a> {
    fn of(text: &'a str, range: Range<usize>) -> Self {
        let range = trimmed(text, range);
        let own = &text[range.clone()];
        let open = own.find(['(', '[', '{']).filter(|_| !own.starts_with(['"', '\'']));
        let Some(open) = open else { return Self { text, head: own, range, parts: Vec::new() } };
        let inside = range.start + open + 1..range.end - 1;
        let parts = split(text, inside).into_iter().map(|part| named(text, part)).collect();
        Self { text, head: own[..open].trim(), range, parts }
    }

    /// Adds the ranges that `segments` lead to; `walked` are the segments before them.
    fn locate<'s>(&self, segments: &[&'s str], walked: &mut Vec<&'s str>, found: &mut Vec<Place>) -> Result<(), SpecError> {
        let Some((&segment, rest)) = segments.split_first() else {
            found.push(Place::Value(self.range.clone()));
            return Ok(());
        };
        if let ("Some", [(None, inner)]) = (self.head, self.parts.as_slice()) {
            return Node::of(self.text, inner.clone()).locate(segments, walked, found);
        }
        let by_place = segment.parse::<usize>().ok();
        let matching = self.parts.iter().enumerate().filter(|(place, (name, part))| match name {
            Some(name) => *name == segment,
            None => by_place.map_or_else(|| Node::of(self.text, part.clone()).head == segment, |wanted| wanted == *place),
        });
        let matching: Vec<_> = matching.map(|(_, (_, part))| part.clone()).collect();
        if matching.is_empty() {
            let error = self.nowhere(segment, walked);
            let (Some((Some(_), value)), []) = (self.parts.first(), rest) else { return Err(error) };
            // In front of the first field's name.
            let before = self.text[..value.start].rfind(['(', '{']).map_or(value.start, |open| open + 1);
            found.push(Place::NewField { before, name: segment.to_owned(), error });
            return Ok(());
        }
        walked.push(segment);
        for part in matching {
            Node::of(self.text, part).locate(rest, walked, found)?;
        }
        walked.pop();
        Ok(())
    }

    fn nowhere(&self, segment: &str, walked: &[&str]) -> SpecError {
        let place = if walked.is_empty() { String::new() } else { format!(" in `{}`", walked.join(".")) };
        let there = self.parts.iter().enumerate().map(|(place, (name, part))| match name {
            Some(name) => (*name).to_owned(),
            None => format!("{place} ({})", Node::of(self.text, part.clone()).head),
        });
        let there: Vec<String> = there.collect();
        let there = if there.is_empty() { "it has no parts".to_owned() } else { format!("there are: {}", there.join(", ")) };
        SpecError::Text(format!("no `{segment}`{place}; {there}"))
    }
}

fn trimmed(text: &str, range: Range<usize>) -> Range<usize> {
    let own = &text[range.clone()];
    let start = range.start + (own.len() - own.trim_start().len());
    start..start + own.trim().len()
}

/// The parts between commas that stand in no inner bracket and no string.
fn split(text: &str, range: Range<usize>) -> Vec<Range<usize>> {
    let (mut parts, mut start, mut depth) = (Vec::new(), range.start, 0_usize);
    let mut characters = text[range.clone()].char_indices();
    let mut quote = None;
    while let Some((at, character)) = characters.next() {
        if let Some(open) = quote {
            match character {
                '\\' => drop(characters.next()),
                close if close == open => quote = None,
                _ => {}
            }
            continue;
        }
        match character {
            '"' | '\'' => quote = Some(character),
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(start..range.start + at);
                start = range.start + at + 1;
            }
            _ => {}
        }
    }
    parts.push(start..range.end);
    parts.into_iter().map(|part| trimmed(text, part)).filter(|part| !part.is_empty()).collect()
}

/// A part's name, where it is `name: value`, and its value.
fn named(text: &str, part: Range<usize>) -> (Option<&str>, Range<usize>) {
    let own = &text[part.clone()];
    match own.split_once(':') {
        Some((name, _)) if name.trim().chars().all(|c| c.is_alphanumeric() || c == '_') && !name.trim().is_empty() => {
            (Some(name.trim()), trimmed(text, part.start + name.len() + 1..part.end))
        }
        _ => (None, part),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{FlowSpec, Order};

    #[derive(Debug, Serialize, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Nested {
        text: String,
        shift: Option<(usize, usize)>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        frame: Option<usize>,
        flows: Vec<FlowSpecText>,
        order: Order,
    }

    #[derive(Debug, Serialize, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    enum FlowSpecText {
        A { width: usize },
        B { width: usize, name: String },
        Unit,
    }

    fn nested() -> Nested {
        use FlowSpecText::{A, B, Unit};
        let flows = vec![A { width: 1 }, B { width: 2, name: "a, (b".to_owned() }, A { width: 3 }, Unit];
        Nested { text: "x: [\"1\", 2".to_owned(), shift: Some((4, 2)), frame: None, flows, order: Order::Identity }
    }

    #[test]
    fn fields_are_found_by_name_place_and_kind() {
        let set = |path, text| set_field(&nested(), path, text).map_err(|e| e.to_string());
        assert_eq!(set("order", "Random"), Ok(Nested { order: Order::Random, ..nested() }));
        assert_eq!(set("shift", "None"), Ok(Nested { shift: None, ..nested() }));
        assert_eq!(set("shift.1", "7"), Ok(Nested { shift: Some((4, 7)), ..nested() }));
        assert_eq!(set("frame", "3"), Ok(Nested { frame: Some(3), ..nested() }));
        assert_eq!(set("text", "\"(\""), Ok(Nested { text: "(".to_owned(), ..nested() }));
        let widths = |nested: Nested| match nested.flows.as_slice() {
            [FlowSpecText::A { width: a }, FlowSpecText::B { width: b, .. }, FlowSpecText::A { width: c }, _] => [*a, *b, *c],
            other => panic!("{other:?}"),
        };
        assert_eq!(set("flows.A.width", "9").map(widths), Ok([9, 2, 9]));
        assert_eq!(set("flows.1.width", "9").map(widths), Ok([1, 9, 3]));
        assert_eq!(set("flows.3", "B(width: 1, name: \"\")").unwrap().flows[3], FlowSpecText::B { width: 1, name: String::new() });
    }

    #[test]
    fn what_is_not_there_is_named_with_what_is() {
        for (path, text, message) in [
            ("shape", "1", "no `shape`; there are: text, shift, flows, order"),
            ("flows.7.width", "1", "no `7` in `flows`; there are: 0 (A), 1 (B), 2 (A), 3 (Unit)"),
            ("flows.0.width.x", "1", "no `x` in `flows.0.width`; it has no parts"),
            ("flows.0.width", "many", "flows.0.width=many: "),
            ("", "1", "no ``; "),
        ] {
            let error = set_field(&nested(), path, text).unwrap_err().to_string();
            assert!(error.starts_with(message), "{path}: {error}");
        }
    }

    #[test]
    fn specs_of_every_kind_can_be_changed() {
        let flows: Vec<FlowSpec> = from_ron("[ActNorm(), LuLinear(), Permutation(order: Reverse)]").unwrap();
        let changed = set_field(&flows, "Permutation.order", "Random").unwrap();
        assert!(to_ron(&changed).unwrap().contains("order: Random"));
    }
}
