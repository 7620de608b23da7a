//! Specs: what is accepted, and what is refused with which words.
use flow_api::RowFlow;
use flow_api::log_det::LogDetKind;
use flow_api::spec::{BuildScope, FlowSpec, SpecError, SpecScalar, from_ron, to_ron};
use flows_lipschitz::{Residual, ResidualFlow};

fn build(ron: &str) -> Result<Box<dyn RowFlow<f64>>, SpecError> {
    let spec: FlowSpec = from_ron(ron)?;
    f64::row_flow(&spec, 4, &BuildScope::new(1).child("flows").child(2))
}

#[test]
fn specs_are_read_and_written() {
    for (ron, kind) in [
        ("Residual()", LogDetKind::Exact),
        (
            "Residual(hidden: 128, layers: 3, coefficient: 0.97, activation: LipSwish, log_det: Roulette(length: Poisson(2.0)))",
            LogDetKind::Exact,
        ),
        (
            "Residual(hidden: 8, condition: 3, activation: CLipSwish, dense: true, log_det: Neumann(exact_terms: 4, probes: 1))",
            LogDetKind::Exact,
        ),
        (
            "Residual(hidden: 8, log_det: Truncated(terms: 5, distribution: Gaussian), evaluation: Roulette(probes: 16))",
            LogDetKind::Estimate,
        ),
        (
            "Residual(layers: 1, activation: Elu, inverse: (tolerance: 1e-6, anderson: 0), power_iteration: (tolerance: 1e-4), zero_init: true)",
            LogDetKind::Exact,
        ),
    ] {
        let spec: FlowSpec = from_ron(ron).unwrap();
        let text = to_ron(&spec).unwrap();
        let again: FlowSpec = from_ron(&text).unwrap();
        assert_eq!(to_ron(&again).unwrap(), text);
        let flow = build(ron).unwrap();
        assert_eq!((flow.facts().kind, flow.facts().log_det), ("Residual", kind), "{ron}");
    }
}

#[test]
fn bad_settings_are_refused() {
    for (ron, expected) in [
        ("Residual(hidden: 0)", "hidden: expected 1 to 16384, got 0"),
        ("Residual(condition: 0)", "condition: expected 1 to 16384, got 0"),
        ("Residual(layers: 0)", "layers: expected 1 to 16384, got 0"),
        ("Residual(coefficient: 1.0)", "coefficient: expected a number greater than 0 and less than 1, got 1"),
        ("Residual(coefficient: 0.0)", "coefficient: expected a number greater than 0 and less than 1, got 0"),
        ("Residual(coefficient: NaN)", "coefficient: expected a number greater than 0 and less than 1, got NaN"),
        ("Residual(log_det: Truncated(terms: 0))", "terms: expected 1 to 16384, got 0"),
        ("Residual(log_det: Truncated(probes: 0))", "probes: expected 1 to 16384, got 0"),
        ("Residual(evaluation: Neumann(probes: 0))", "probes: expected 1 to 16384, got 0"),
        ("Residual(log_det: Truncated(terms: 18446744073709551615))", "terms: expected 1 to 16384, got 18446744073709551615"),
        ("Residual(log_det: Truncated(probes: 18446744073709551615))", "probes: expected 1 to 16384, got 18446744073709551615"),
        ("Residual(evaluation: Roulette(probes: 1000000000000000))", "probes: expected 1 to 16384, got 1000000000000000"),
        ("Residual(log_det: Neumann(exact_terms: 18446744073709551615))", "exact_terms: expected 0 to 16384, got 18446744073709551615"),
        ("Residual(hidden: 16384, layers: 16384)", "hidden: expected a network of at most 268435456 weights, got 43"),
        (
            "Residual(log_det: Roulette(length: Geometric(1e-300)))",
            "length: expected Geometric(p) with p from 0.001 to 1, got Geometric(0.000",
        ),
        ("Residual(log_det: Roulette(length: Geometric(0.0)))", "length: expected Geometric(p) with p from 0.001 to 1, got Geometric(0)"),
        (
            "Residual(log_det: Roulette(length: Poisson(-1.0)))",
            "length: expected Poisson(λ) with λ greater than 0 and at most 100, got Poisson(-1)",
        ),
        ("Residual(inverse: (tolerance: 0.0))", "tolerance: expected a finite number greater than 0, got 0"),
        ("Residual(inverse: (max_iterations: 0))", "max_iterations: expected at least 1, got 0"),
        ("Residual(inverse: (anderson: 9))", "anderson: expected at most 8, got 9"),
        ("Residual(power_iteration: (iterations: 0))", "iterations: expected 1 to 16384, got 0"),
        ("Residual(power_iteration: (tolerance: 2.0))", "tolerance: expected a number greater than 0 and less than 1, got 2"),
    ] {
        let error = build(ron).err().unwrap_or_else(|| panic!("{ron} was accepted"));
        assert!(matches!(error, SpecError::Field { .. }), "{ron}: {error:?}");
        assert!(error.to_string().starts_with(&format!("flows.2.Residual: {expected}")), "{ron}: {error}");
    }
    // Below 1 in f64, but not in f32; above 0 likewise.
    for coefficient in [0.999_999_99, 1e-60] {
        assert!(ResidualFlow::<f64>::new(&Residual { coefficient, ..Residual::default() }, 2, 1).is_ok());
        let error = ResidualFlow::<f32>::new(&Residual { coefficient, ..Residual::default() }, 2, 1).unwrap_err();
        let expected = "Residual: coefficient: expected a number greater than 0 and less than 1 in f32, got 0.";
        assert!(error.to_string().starts_with(expected), "{error}");
    }
    for (ron, expected) in
        [("Residual(activation: Relu)", "LipSwish"), ("Residual(hiden: 3)", "hidden"), ("Residual(log_det: Exakt)", "Exact")]
    {
        let error = build(ron).err().unwrap_or_else(|| panic!("{ron} was accepted"));
        assert!(matches!(error, SpecError::Text(_)) && error.to_string().contains(expected), "{ron}: {error}");
    }
}
