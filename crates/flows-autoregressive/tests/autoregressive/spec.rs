//! Autoregressive flows as text: what is accepted, what is refused and how, and round trips.

use super::common::seeded;
use flow_api::module::{Entry, visit};
use flow_api::spec::{FlowSpec, SpecError, from_ron, to_ron};

#[test]
fn refused_settings() {
    for (ron, dim, expected) in [
        ("Autoregressive()", 0, "Autoregressive: dim: expected 1 to 16384, got 0"),
        ("Autoregressive(hidden: 0)", 4, "Autoregressive: hidden: expected 1 to 16384, got 0"),
        ("Autoregressive(blocks: 0)", 4, "Autoregressive: blocks: expected 1 to 16384, got 0"),
        ("Autoregressive(condition: 0)", 4, "Autoregressive: condition: expected 1 to 16384, got 0"),
        ("Autoregressive(hidden: 16384, blocks: 16384)", 4, "Autoregressive: hidden: expected a network of at most 268435456 weights"),
        (
            "Autoregressive(transformer: Affine(bound: 0.0))",
            4,
            "Autoregressive: bound: expected a number from 1.2e-38 to 8.7e1 in f32, got 0",
        ),
        ("Autoregressive(transformer: Spline(bins: 1))", 4, "Autoregressive: bins: expected between 2 and 999, got 1"),
        ("Autoregressive(transformer: Spline(tail_bound: -1.0))", 4, "Autoregressive: tail_bound: expected a number from"),
        ("Autoregressive(inverse: Jacobi(tolerance: 0.0))", 4, "Autoregressive: tolerance: expected a finite number greater than 0, got 0"),
        (
            "Autoregressive(inverse: Jacobi(tolerance: NaN))",
            4,
            "Autoregressive: tolerance: expected a finite number greater than 0, got NaN",
        ),
    ] {
        match seeded::<f32>(ron, dim, 1) {
            Err(error @ SpecError::Field { .. }) => assert!(error.to_string().starts_with(expected), "{ron}: {error}"),
            other => panic!("{ron} on {dim}: {:?}", other.map(|_| ())),
        }
    }
    for (ron, expected) in [
        (
            "Autoregressive(hiden: 3)",
            "1:16-1:21: Unexpected field named `hiden`, expected one of `hidden`, `blocks`, `activation`, `transformer`, `order`, `inverse`, or `condition` instead",
        ),
        (
            "Autoregressive(transformer: Cubic)",
            "1:29-1:34: Unexpected enum variant named `Cubic`, expected one of `Additive`, `Affine`, `SigmoidAffine`, or `Spline` instead",
        ),
    ] {
        let error = from_ron::<FlowSpec>(ron).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
    }
}

#[test]
fn text_to_spec_to_text_to_spec() {
    for (ron, written) in [
        (
            "Autoregressive()",
            "Autoregressive(\n    hidden: 128,\n    blocks: 1,\n    activation: Relu,\n    transformer: Affine(\n        bound: 2.0,\n    ),\n    order: Identity,\n    inverse: Sequential,\n)",
        ),
        (
            "Autoregressive(transformer: Spline(bins: 4), order: Random, inverse: Jacobi(tolerance: 0.5), condition: 3)",
            "Autoregressive(\n    hidden: 128,\n    blocks: 1,\n    activation: Relu,\n    transformer: Spline(\n        bins: 4,\n        tail_bound: 3.0,\n    ),\n    order: Random,\n    inverse: Jacobi(\n        tolerance: 0.5,\n    ),\n    condition: 3,\n)",
        ),
    ] {
        let text = to_ron(&from_ron::<FlowSpec>(ron).unwrap()).unwrap();
        assert_eq!(text, written);
        assert_eq!(to_ron(&from_ron::<FlowSpec>(&text).unwrap()).unwrap(), text);
    }
}

#[test]
fn paths_and_shapes() {
    let mut seen = Vec::new();
    visit(&seeded::<f32>("Autoregressive(hidden: 8, condition: 2)", 5, 1).unwrap(), |path, entry| match entry {
        Entry::Parameter { shape, .. } => seen.push(format!("{path} {shape:?}")),
        Entry::Indices(indices) => seen.push(format!("{path} {indices:?}")),
        other => panic!("{path}: {other:?}"),
    });
    let expected = [
        "0.order.indices [0, 1, 2, 3, 4]",
        "0.net.initial.weight [8, 7]",
        "0.net.initial.bias [8]",
        "0.net.blocks.0.0.weight [8, 8]",
        "0.net.blocks.0.0.bias [8]",
        "0.net.blocks.0.1.weight [8, 8]",
        "0.net.blocks.0.1.bias [8]",
        "0.net.final.weight [10, 8]",
        "0.net.final.bias [10]",
    ];
    assert_eq!(seen, expected);
}
