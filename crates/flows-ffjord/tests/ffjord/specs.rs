//! Specs: what is accepted, and what is refused with which words.
use flow_api::RowFlow;
use flow_api::spec::{BuildScope, FlowSpec, SpecError, SpecScalar, from_ron, to_ron};
use flows_ffjord as _;

fn build(ron: &str) -> Result<Box<dyn RowFlow<f64>>, SpecError> {
    let spec: FlowSpec = from_ron(ron)?;
    f64::row_flow(&spec, 4, &BuildScope::new(1).child("flows").child(2))
}

#[test]
fn specs_are_read_and_written() {
    for ron in [
        "Ffjord()",
        "Ffjord(hidden: 64, layers: 2, time: ConcatSquash, solver: Dopri5(rtol: 1e-5, atol: 1e-5), trace: Hutchinson(probes: 1))",
        "Ffjord(activation: Softplus, time: Autonomous, solver: Bosh3(rtol: 1e-3), trace: Exact, end_time: Learned(0.5))",
        "Ffjord(solver: Rk4(steps: 4), gradient: Discrete, evaluation_trace: Hutchinson(probes: 8, distribution: Gaussian))",
        "Ffjord(time: Concat, gradient: Adjoint(seminorm: false), regularisation: (kinetic: 0.01, jacobian: 0.01), zero_init: false)",
    ] {
        let spec: FlowSpec = from_ron(ron).unwrap();
        let text = to_ron(&spec).unwrap();
        let again: FlowSpec = from_ron(&text).unwrap();
        assert_eq!(to_ron(&again).unwrap(), text);
        assert_eq!(build(ron).unwrap().facts().kind, "Ffjord");
    }
}

#[test]
fn bad_settings_are_refused() {
    for (ron, expected) in [
        ("Ffjord(hidden: 0)", "flows.2.Ffjord: hidden: expected 1 to 16384, got 0"),
        ("Ffjord(condition: 0)", "flows.2.Ffjord: condition: expected 1 to 16384, got 0"),
        ("Ffjord(layers: 0)", "flows.2.Ffjord: layers: expected 1 to 16384, got 0"),
        ("Ffjord(solver: Dopri5(rtol: NaN))", "flows.2.Ffjord: rtol: expected a finite number, at least 0, got NaN"),
        ("Ffjord(solver: Dopri5(rtol: -1e-3))", "flows.2.Ffjord: rtol: expected a finite number, at least 0, got -0.001"),
        ("Ffjord(solver: Bosh3(atol: 0.0))", "flows.2.Ffjord: atol: expected a finite number greater than 0, got 0"),
        ("Ffjord(solver: Bosh3(safety: 1.5))", "flows.2.Ffjord: safety: expected a number between 0 and 1, got 1.5"),
        ("Ffjord(solver: Bosh3(growth: inf))", "flows.2.Ffjord: growth: expected a finite number, at least 1, got inf"),
        ("Ffjord(solver: Dopri5(max_evaluations: 0))", "flows.2.Ffjord: max_evaluations: expected at least 1, got 0"),
        ("Ffjord(solver: Euler(steps: 0))", "flows.2.Ffjord: steps: expected 1 to 16384, got 0"),
        ("Ffjord(solver: Rk4(steps: 18446744073709551615))", "flows.2.Ffjord: steps: expected 1 to 16384, got 18446744073709551615"),
        ("Ffjord(hidden: 16384, layers: 9)", "flows.2.Ffjord: hidden: expected a network of at most 268435456 weights, got 2147"),
        ("Ffjord(end_time: Fixed(-1.0))", "flows.2.Ffjord: end_time: expected a finite number greater than 0, got -1"),
        ("Ffjord(end_time: Learned(inf))", "flows.2.Ffjord: end_time: expected a finite number greater than 0, got inf"),
        ("Ffjord(trace: Hutchinson(probes: 0))", "flows.2.Ffjord: probes: expected 1 to 16384, got 0"),
        ("Ffjord(trace: Hutchinson(probes: 1000000000000))", "flows.2.Ffjord: probes: expected 1 to 16384, got 1000000000000"),
        ("Ffjord(regularisation: (jacobian: -0.1))", "flows.2.Ffjord: jacobian: expected a finite number, at least 0, got -0.1"),
        ("Ffjord(gradient: Discrete)", "flows.2.Ffjord: gradient: expected Adjoint with an adaptive solver"),
    ] {
        let error = build(ron).err().unwrap_or_else(|| panic!("{ron} was accepted"));
        assert!(matches!(error, SpecError::Field { .. }), "{ron}: {error:?}");
        assert!(error.to_string().starts_with(expected), "{ron}: {error}");
    }
    for (ron, expected) in [
        ("Ffjord(activation: Relu)", "Relu is not smooth: the log-det of a continuous flow integrates the trace"),
        ("Ffjord(activation: Gelu)", "Softplus"),
        ("Ffjord(hiden: 3)", "hidden"),
    ] {
        let error = build(ron).err().unwrap_or_else(|| panic!("{ron} was accepted"));
        assert!(matches!(error, SpecError::Text(_)) && error.to_string().contains(expected), "{ron}: {error}");
    }
}

/// Settings that are numbers in f64, and none or another one in f32.
#[test]
fn settings_that_f32_does_not_hold_are_refused() {
    for (ron, expected) in [
        ("Ffjord(solver: Dopri5(atol: 1e-50))", "atol: expected a number that the state's type holds at full precision, got 1e-50"),
        ("Ffjord(solver: Bosh3(atol: 1e50))", "atol: expected a number that the state's type holds at full precision, got 1e50"),
        ("Ffjord(solver: Dopri5(rtol: 1e50))", "rtol: expected a number that is finite in the state's type, got 1e50"),
        ("Ffjord(end_time: Learned(1e-100))", "end_time: expected a number whose square root f32 holds at full precision, got 1e-100"),
        ("Ffjord(end_time: Learned(1e100))", "end_time: expected a number whose square root f32 holds at full precision, got 1e100"),
    ] {
        assert!(build(ron).is_ok(), "{ron} in f64");
        let spec: FlowSpec = from_ron(ron).unwrap();
        let scope = BuildScope::new(1);
        let error = f32::row_flow(&spec, 4, &scope).err().unwrap_or_else(|| panic!("{ron} was accepted"));
        assert_eq!(error.to_string(), format!("Ffjord: {expected}"));
    }
}
