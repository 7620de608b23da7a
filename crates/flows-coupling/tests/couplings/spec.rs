//! Couplings as text: what is accepted, what is refused and how, and round trips.

use super::common::try_build;
use flow_api::module::{Entry, visit};
use flow_api::spec::{FlowSpec, SpecError, from_ron, to_ron};

#[test]
fn refused_settings() {
    for (ron, dim, expected) in [
        ("AffineCoupling()", 1, "AffineCoupling: dim: expected at least 2, got 1"),
        ("AffineCoupling()", 0, "AffineCoupling: dim: expected at least 2, got 0"),
        ("AffineCoupling(hidden: 0)", 4, "AffineCoupling: hidden: expected 1 to 16384, got 0"),
        ("AdditiveCoupling(blocks: 0)", 4, "AdditiveCoupling: blocks: expected 1 to 16384, got 0"),
        ("AdditiveCoupling(condition: 0)", 4, "AdditiveCoupling: condition: expected 1 to 16384, got 0"),
        ("AffineCoupling(network: Kan(grid: 0))", 4, "AffineCoupling: grid: expected 1 to 999, got 0"),
        ("SplineCoupling(network: Kan(order: 10))", 4, "SplineCoupling: order: expected 1 to 9, got 10"),
        ("AdditiveCoupling(network: Kan(range: inf))", 4, "AdditiveCoupling: range: expected a number from 0.001 to 1000, got inf"),
        ("AffineCoupling(network: Kan())", 1, "AffineCoupling: dim: expected at least 2, got 1"),
        (
            "AffineCoupling(hidden: 64, network: Kan())",
            4,
            "AffineCoupling: hidden: expected none beside a network with sizes of its own, got 64",
        ),
        ("AffineCoupling(bound: 0.0)", 4, "AffineCoupling: bound: expected a number from 1.2e-38 to 8.7e1 in f32, got 0"),
        ("AffineCoupling(bound: -1.0)", 4, "AffineCoupling: bound: expected a number from 1.2e-38 to 8.7e1 in f32, got -1"),
        ("AffineCoupling(bound: NaN)", 4, "AffineCoupling: bound: expected a number from 1.2e-38 to 8.7e1 in f32, got NaN"),
        ("AffineCoupling(bound: inf)", 4, "AffineCoupling: bound: expected a number from 1.2e-38 to 8.7e1 in f32, got inf"),
        ("AffineCoupling(bound: 1e60)", 4, "AffineCoupling: bound: expected a number from 1.2e-38 to 8.7e1 in f32, got inf"),
        ("AffineCoupling(bound: 1e-60)", 4, "AffineCoupling: bound: expected a number from 1.2e-38 to 8.7e1 in f32, got 0"),
        // Above 0, but not with a reciprocal; and finite, but not with an e^bound.
        ("AffineCoupling(bound: 1e-40)", 4, "AffineCoupling: bound: expected a number from 1.2e-38 to 8.7e1 in f32, got 0.000"),
        ("AffineCoupling(bound: 100.0)", 4, "AffineCoupling: bound: expected a number from 1.2e-38 to 8.7e1 in f32, got 100"),
        ("SplineCoupling(tail_bound: 1e-37)", 4, "SplineCoupling: tail_bound: expected a number from 1.2e-35 to 8.5e34 in f32, got 0.000"),
        ("AffineCoupling(split: First(4))", 4, "AffineCoupling: split: expected 1 to 3 features that pass, got 4"),
        ("SplineCoupling(split: Last(0))", 4, "SplineCoupling: split: expected 1 to 3 features that pass, got 0"),
        ("SplineCoupling(bins: 1)", 4, "SplineCoupling: bins: expected between 2 and 999, got 1"),
        ("SplineCoupling(bins: 1000)", 4, "SplineCoupling: bins: expected between 2 and 999, got 1000"),
        ("SplineCoupling(tail_bound: -3.0)", 4, "SplineCoupling: tail_bound: expected a number from 1.2e-35 to 8.5e34 in f32, got -3"),
        ("SplineCoupling(tail_bound: 3e38)", 4, "SplineCoupling: tail_bound: expected a number from 1.2e-35 to 8.5e34 in f32, got 3"),
    ] {
        match try_build::<f32>(ron, dim, 0) {
            Err(error @ SpecError::Field { .. }) => assert!(error.to_string().starts_with(expected), "{ron}: {error}"),
            other => panic!("{ron} on {dim}: {:?}", other.map(|_| ())),
        }
    }
    for (ron, expected) in [
        (
            "AffineCoupling(hiden: 3)",
            "1:16-1:21: Unexpected field named `hiden`, expected one of `hidden`, `blocks`, `activation`, `network`, `split`, `condition`, or `bound` instead",
        ),
        ("AffineCoupling(hidden: -3)", "1:25-1:26: Integer is out of bounds"),
        (
            "AffineCoupling(split: Thirds)",
            "1:23-1:29: Unexpected enum variant named `Thirds`, expected one of `Halves`, `Interleaved`, `First`, `Last`, `Even`, or `Odd` instead",
        ),
    ] {
        let error = from_ron::<FlowSpec>(ron).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
    }
}

#[test]
fn text_to_spec_to_text_to_spec() {
    for (ron, written) in [
        ("AdditiveCoupling()", "AdditiveCoupling(\n    hidden: 128,\n    blocks: 2,\n    activation: Relu,\n    split: Halves,\n)"),
        (
            "AffineCoupling(hidden: 16, blocks: 3, activation: Gelu, split: Interleaved, condition: 4, bound: 1.5)",
            "AffineCoupling(\n    hidden: 16,\n    blocks: 3,\n    activation: Gelu,\n    split: Interleaved,\n    condition: 4,\n    bound: 1.5,\n)",
        ),
        (
            "AdditiveCoupling(split: First(3))",
            "AdditiveCoupling(\n    hidden: 128,\n    blocks: 2,\n    activation: Relu,\n    split: First(3),\n)",
        ),
        (
            "SplineCoupling(bins: 4, tail_bound: 5.0)",
            "SplineCoupling(\n    hidden: 128,\n    blocks: 2,\n    activation: Relu,\n    split: Halves,\n    bins: 4,\n    tail_bound: 5.0,\n)",
        ),
    ] {
        let text = to_ron(&from_ron::<FlowSpec>(ron).unwrap()).unwrap();
        assert_eq!(text, written);
        assert_eq!(to_ron(&from_ron::<FlowSpec>(&text).unwrap()).unwrap(), text);
    }
}

#[test]
fn parameters_have_the_paths_and_shapes_of_the_reference_network() {
    let mut seen = Vec::new();
    visit(&try_build::<f32>("AffineCoupling(hidden: 8, blocks: 1)", 5, 0).unwrap(), |path, entry| {
        if let Entry::Parameter { shape, .. } = entry {
            seen.push(format!("{path} {shape:?}"));
        }
    });
    let expected = [
        "0.net.initial.weight [8, 2]",
        "0.net.initial.bias [8]",
        "0.net.blocks.0.0.weight [8, 8]",
        "0.net.blocks.0.0.bias [8]",
        "0.net.blocks.0.1.weight [8, 8]",
        "0.net.blocks.0.1.bias [8]",
        "0.net.final.weight [6, 8]",
        "0.net.final.bias [6]",
    ];
    assert_eq!(seen, expected);
}
