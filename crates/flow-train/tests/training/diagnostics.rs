//! Comparisons of rows with samples: a density that is right passes, and each way to be wrong fails where it shows.

use crate::{build, vectors};
use flow_api::bases::Conditional;
use flow_api::bases::StandardNormal;
use flow_api::layers::LuLinear;
use flow_api::module::{EntryMut, update};
use flow_api::noise::Stream;
use flow_api::rows::Rows;
use flow_api::spec::{Conditioner, EventShape, Model};
use flow_train::data::{Dataset, InMemory, ItemShape, Values};
use flow_train::diagnostics::{Compared, DiagnosticOptions, Diagnostics, Shape, diagnose};
use flow_train::{DataRecord, Events};
use std::path::Path;
use std::sync::Arc;

const ROWS: usize = 1000;

fn normal(path: &str, len: usize) -> Vec<f64> {
    let mut values = vec![0.0; len];
    Stream::new(11, 0, path).row(0).gaussian(&mut values);
    values
}

fn looked_at(model: &Model<f64>, data: &Arc<dyn Dataset>) -> Diagnostics {
    let events = Events::new(data.as_ref(), model.preprocessing(), 0).unwrap().with_record(DataRecord::of(data.as_ref()).unwrap());
    diagnose(model, data.as_ref(), &events, &DiagnosticOptions::of(model)).unwrap()
}

/// What is wrong, by the check that finds it.
#[derive(Debug, PartialEq)]
struct Wrong {
    columns: Vec<Shape>,
    coverage: &'static str,
    told_apart: bool,
}

impl Wrong {
    fn of(found: &Diagnostics) -> Self {
        let ranks = &found.coverage.ranks;
        let coverage = match ranks.shape(1) {
            Shape::Uniform => "right",
            _ if ranks.mean > 0.5 => "overconfident",
            _ => "underconfident",
        };
        let columns = found.columns.iter().map(|column| column.pit.shape(found.columns.len())).collect();
        Self { columns, coverage, told_apart: found.two_sample.unwrap().tells_apart() }
    }
}

/// All but the numbers that were compared.
fn told(found: &Diagnostics) -> String {
    format!("{:?}", Diagnostics { compared: Compared::default(), ..found.clone() })
}

/// N(0, I) as a model of normal rows a + L z.
#[test]
fn a_normal_density_is_held_against_rows_of_others() {
    use Shape::{High, Low, Narrow, Uniform, Wide};
    let model = build::<f64>("VectorFlow(flows: [LuLinear()])", EventShape::Vector(2), 1);
    let cases = [
        ("right", [0.0, 0.0], [1.0, 0.0, 1.0], [Uniform, Uniform], "right", false),
        ("moved", [0.8, 0.0], [1.0, 0.0, 1.0], [Low, Uniform], "overconfident", true),
        ("moved down", [0.0, -0.8], [1.0, 0.0, 1.0], [Uniform, High], "overconfident", true),
        ("narrower", [0.0, 0.0], [0.6, 0.0, 0.6], [Wide, Wide], "underconfident", true),
        ("wider", [0.0, 0.0], [1.6, 0.0, 1.0], [Narrow, Uniform], "overconfident", true),
        // Columns alone look right.
        ("correlated", [0.0, 0.0], [1.0, 0.8, 0.6], [Uniform, Uniform], "underconfident", true),
    ];
    for (name, [a, b], [first, below, second], columns, coverage, told_apart) in cases {
        let rows = normal("rows", 2 * ROWS);
        let rows = rows.chunks_exact(2).flat_map(|z| [a + first * z[0], b + below * z[0] + second * z[1]]).collect();
        let found = looked_at(&model, &vectors(rows, 2));
        assert_eq!((found.rows, found.samples, found.left_out), (ROWS, 49, 0));
        let wrong = Wrong { columns: columns.to_vec(), coverage, told_apart };
        assert_eq!(Wrong::of(&found), wrong, "{name}: {}", told(&found));
        if name == "right" {
            for level in &found.coverage.levels {
                assert!((level.empirical - level.nominal).abs() < 4.0 * level.standard_error, "{level:?}");
            }
            let two = found.two_sample.unwrap();
            assert!((two.accuracy - 0.5).abs() < 3.0 * two.standard_error && two.rows == 500, "{two:?}");
        }
    }
    // 1.8 and 0.2 of a χ² with one degree of freedom each, beside one with two: half of the rows within −2 ln ½.
    let rows = normal("rows", 2 * ROWS).chunks_exact(2).flat_map(|z| [z[0], 0.8 * z[0] + 0.6 * z[1]]).collect::<Vec<f64>>();
    let inside = rows.chunks_exact(2).filter(|x| x[0].powi(2) + x[1].powi(2) < -2.0 * 0.5_f64.ln()).count() as f64 / ROWS as f64;
    let found = looked_at(&model, &vectors(rows, 2)).coverage.levels[4];
    assert!((found.empirical - inside).abs() < 0.04, "{found:?} and {inside}");
}

/// x given c is N(c, ½²), c itself standard normal: models of N(m c, e^{2 s}).
#[test]
fn conditional_densities_are_held_against_what_rows_are_given() {
    use Shape::{Narrow, Uniform};
    let given: Vec<f64> = normal("given", ROWS);
    let rows: Vec<f64> = given.iter().zip(normal("rows", ROWS)).map(|(c, z)| c + 0.5 * z).collect();
    let data = InMemory::new(Path::new("t"), Values::Real(rows), ItemShape::Vector { dims: 1 }, None, None).unwrap();
    let data = data.with_conditions(Path::new("t"), given.iter().map(|c| 300.0 + 10.0 * c).collect(), vec!["heat".to_owned()]).unwrap();
    let data: Arc<dyn Dataset> = Arc::new(data);
    for (name, slope, scale, columns, coverage, told_apart) in [
        ("right", 1.0, 0.5, Uniform, "right", false),
        ("too sure", 1.0, 0.25, Narrow, "overconfident", true),
        // Right among all rows: only who sees what a row was given sees it.
        ("blind to what it is given", 0.0, 1.25_f64.sqrt(), Uniform, "right", true),
    ] {
        let base = Conditional::new(StandardNormal::new(1), 1).unwrap();
        let model = Model::<f64>::new(Box::new(Rows(LuLinear::new(1))), Box::new(base), EventShape::Vector(1)).unwrap();
        let mut conditioner = Conditioner::of_numbers(1, &[], 0.0, 1).unwrap();
        conditioner.fit(&given.iter().map(|c| 300.0 + 10.0 * c).collect::<Vec<f64>>()).unwrap();
        let mut model = model.with_conditioner(conditioner).unwrap();
        // The model sees c standardised by its own spread and mean.
        let mean = given.iter().sum::<f64>() / ROWS as f64;
        let spread = (given.iter().map(|c| (c - mean).powi(2)).sum::<f64>() / ROWS as f64).sqrt();
        update(&mut model, |path, entry| {
            let new = match path {
                "base.weight" => vec![slope * spread, 0.0],
                "base.bias" => vec![slope * mean, f64::ln(scale)],
                _ => return,
            };
            if let EntryMut::Parameter { values, .. } = entry {
                values.copy_from_slice(&new);
            }
        })
        .unwrap();
        let found = looked_at(&model, &data);
        assert_eq!(Wrong::of(&found), Wrong { columns: vec![columns], coverage, told_apart }, "{name}: {}", told(&found));
    }
}

/// A row that cannot be scored is left out, and the others are compared; few rows have no two-sample test.
#[test]
fn rows_without_a_density_are_counted() {
    let spec = r#"VectorFlow(flows: [LuLinear()], preprocessing: (bounds: {"1": Log()}))"#;
    let model = build::<f64>(spec, EventShape::Vector(2), 1);
    let events = |data: &Arc<dyn Dataset>| Events::new(data.as_ref(), model.preprocessing(), 0).unwrap();
    let found = |values: Vec<f64>| {
        let data = vectors(values, 2);
        diagnose(&model, data.as_ref(), &events(&data), &DiagnosticOptions::of(&model))
    };
    let mut values = normal("rows", 30);
    values.chunks_exact_mut(2).for_each(|row| row[0] = row[0].exp());
    values[6] = -1.0;
    let some = found(values.clone()).unwrap();
    assert_eq!((some.rows, some.left_out, some.two_sample), (14, 1, None));
    assert!(some.failure.as_ref().is_some_and(|failure| failure.contains("not finite")), "{some:?}");
    // The others are ranked as they are without it.
    assert_eq!(some.compared.rows, [&values[..6], &values[8..]].concat());
    let error = found(vec![-1.0; 6]).unwrap_err();
    assert!(matches!(error, flow_train::TrainError::Flow(_)), "{error}");
    let data = vectors(values, 2);
    let options = DiagnosticOptions { samples: 0, ..DiagnosticOptions::of(&model) };
    let error = diagnose(&model, data.as_ref(), &events(&data), &options).unwrap_err().to_string();
    assert_eq!(error, "samples: expected at least 1, got 0");
    let digits = crate::digits();
    let model = crate::model::<f64>(1);
    let events = Events::new(digits.as_ref(), model.preprocessing(), 0).unwrap();
    let error = diagnose(&model, digits.as_ref(), &events, &DiagnosticOptions::of(&model)).unwrap_err().to_string();
    assert!(error.starts_with("diagnostics: expected tables of real numbers, got "), "{error}");
}
