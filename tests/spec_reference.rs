//! `docs/specs.md` lists every kind of model and flow, every field, and the default that it has.
//!
//! A heading such as `Residual(inverse: (…))` says where the fields of the table below it stand: … is where they are
//! written.

use flow_train::Settings;
use mixerflow_toolkit::prelude::*;
use std::path::Path;

/// A table of the page: where its fields stand, and (field, default or none) of each row.
struct Table {
    place: String,
    rows: Vec<(String, Option<String>)>,
}

fn tables() -> Vec<Table> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/specs.md");
    let mut tables: Vec<Table> = Vec::new();
    for line in std::fs::read_to_string(path).unwrap().lines() {
        if let Some(place) = line.trim_start_matches('#').trim().strip_prefix('`').filter(|_| line.starts_with("###")) {
            tables.push(Table { place: place.trim_end_matches('`').to_owned(), rows: Vec::new() });
        } else if line.starts_with("| `") {
            let cells: Vec<&str> = line.split('|').map(|cell| cell.trim().trim_matches('`')).collect();
            let default = (cells[3] != "–").then(|| cells[3].to_owned());
            tables.last_mut().unwrap().rows.push((cells[1].to_owned(), default));
        }
    }
    tables
}

/// Values of fields that have no default.
const REQUIRED: [(&str, &str); 17] = [
    ("hidden", "16"),
    ("patch", "2"),
    ("layers", "2"),
    ("channel", "[]"),
    ("patches", "[]"),
    ("flows", "[ActNorm()]"), // of rows, and of whole samples
    ("every", "4"),
    ("times", "2"),
    ("levels", "1"),
    ("count", "2"),
    ("between", "[Squeeze()]"),
    ("order", "Reverse"),
    ("steps", "3"),
    ("components", "4"),
    ("low", "-1.0"),
    ("high", "1.0"),
    ("base", "StandardNormal"),
];

/// The text with all fields that `place` takes, as the code writes it.
fn written(place: &str, fields: &str) -> Result<String, SpecError> {
    let text = place.replace('…', fields);
    if place.starts_with('(') {
        return to_ron(&from_ron::<Settings>(&text)?);
    }
    // A kind of one sort is unknown to all others.
    let unknown = |error: &SpecError| error.to_string().contains(&format!("unknown variant `{}`", place.split('(').next().unwrap()));
    let flow = from_ron::<FlowSpec>(&text).and_then(|spec| to_ron(&spec));
    let map = || from_ron::<SampleSpec>(&text).and_then(|spec| to_ron(&spec));
    let base = || from_ron::<BaseSpec>(&text).and_then(|spec| to_ron(&spec));
    let model = || from_ron::<Spec<dyn ModelSpec>>(&text).and_then(|spec| to_ron(&spec));
    let sorts: [&dyn Fn() -> Result<String, SpecError>; 3] = [&map, &base, &model];
    sorts.into_iter().fold(flow, |read, next| if read.as_ref().is_err_and(unknown) { next() } else { read })
}

/// Names in the part of a message that says what would have been right.
fn expected(message: &str) -> Vec<String> {
    let (_, names) = message.split_once(" expected ").or_else(|| message.split_once(" but has ")).unwrap_or(("", ""));
    let mut names: Vec<String> = names.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    names.sort();
    names
}

#[test]
fn every_kind_has_a_section() {
    let mut kinds = expected(&from_ron::<FlowSpec>("Nothing()").unwrap_err().to_string());
    kinds.extend(expected(&from_ron::<Spec<dyn ModelSpec>>("Nothing()").unwrap_err().to_string()));
    assert!(kinds.len() >= 10, "{kinds:?}");
    let maps = expected(&from_ron::<SampleSpec>("Nothing()").unwrap_err().to_string());
    assert!(maps.len() >= 5, "{maps:?}");
    kinds.extend(maps);
    let bases = expected(&from_ron::<BaseSpec>("Nothing()").unwrap_err().to_string());
    assert!(bases.len() >= 7, "{bases:?}");
    kinds.extend(bases);
    let places: Vec<String> = tables().into_iter().map(|table| table.place).collect();
    for kind in kinds {
        assert!(places.contains(&format!("{kind}(…)")) || places.contains(&kind), "docs/specs.md has no section of {kind}");
    }
}

#[test]
fn every_field_stands_there_with_its_default() {
    // A kind whose name stands alone has no fields, and no table.
    for Table { place, rows } in tables().into_iter().filter(|table| table.place.contains('…')) {
        // Of a model's own part, what it takes besides.
        let place = match place.split_once('(') {
            Some((kind, inside)) if inside != "…)" => {
                let required = if kind == "MixerFlow" { "patch: 2, layers: 2, channel: [], patches: [], " } else { "" };
                let required = if kind == "VectorFlow" { "flows: [ActNorm()], " } else { required };
                let required = if kind == "Glow" { "levels: 1, steps: 1, " } else { required };
                format!("{kind}({required}{inside}")
            }
            _ => place,
        };
        let value = |field: &str| {
            let found = REQUIRED.iter().find(|(name, _)| *name == field);
            found.map_or_else(|| panic!("{place}: a value for `{field}`"), |(_, value)| format!("{field}: {value}, "))
        };
        let required = |but: &str| -> String {
            rows.iter().filter(|(field, default)| default.is_none() && field != but).map(|(field, _)| value(field)).collect()
        };
        let default = written(&place, &required("")).unwrap_or_else(|e| panic!("{place}: {e}"));
        for (field, stated) in &rows {
            let without = required(field);
            match stated {
                Some(value) => {
                    let text = written(&place, &format!("{without}{field}: {value}")).unwrap_or_else(|e| panic!("{place}, {field}: {e}"));
                    assert_eq!(text, default, "{place}: default of `{field}`");
                }
                None => assert!(written(&place, &without).is_err(), "{place}: `{field}` has a default"),
            }
        }
        let mut names: Vec<String> = rows.into_iter().map(|(field, _)| field).collect();
        names.sort();
        let message = written(&place, "nothing: 0").unwrap_err().to_string();
        assert_eq!(expected(&message), names, "{place}: {message}");
    }
}
