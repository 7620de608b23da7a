//! The conformance suite.

use crate::common::{estimators, spec};
use flow_api::rows::Rows;
use flow_api::testkit::{Subject, assert_conforms};
use flows_lipschitz::{Activation, FixedPoint, Probe, Residual, ResidualFlow};

fn subject(name: impl Into<String>, dim: usize) -> Subject {
    Subject { inverse_tolerance: Some(1e-13), ..Subject::new(name, dim) }
}

fn tight(spec: &Residual) -> Residual {
    Residual { inverse: FixedPoint { tolerance: Some(1e-13), ..FixedPoint::default() }, ..spec.clone() }
}

#[test]
fn exact_flows_conform() {
    for (name, dim, spec) in [
        ("three layers", 5, spec()),
        ("the smaller side", 6, Residual { hidden: 3, ..spec() }),
        ("linear", 3, Residual { layers: 1, ..spec() }),
        ("dense CLipSwish", 4, Residual { dense: true, hidden: 5, activation: Activation::CLipSwish, ..spec() }),
        ("tanh", 3, Residual { activation: Activation::Tanh, layers: 2, ..spec() }),
    ] {
        let spec = tight(&spec);
        assert_conforms(&subject(name, dim), |seed| Ok(Rows(ResidualFlow::<f64>::new(&spec, dim, seed)?)));
    }
}

#[test]
fn conditional_flows_conform() {
    let conditional = Residual { condition: Some(3), ..spec() };
    for (name, dim, spec) in [
        ("three layers", 5, conditional.clone()),
        ("linear", 3, Residual { layers: 1, ..conditional.clone() }),
        ("dense CLipSwish", 4, Residual { dense: true, hidden: 5, activation: Activation::CLipSwish, ..conditional.clone() }),
    ] {
        let (subject, spec) = (Subject { condition: Some(3), ..subject(name, dim) }, tight(&spec));
        assert_conforms(&subject, |seed| Ok(Rows(ResidualFlow::<f64>::new(&spec, dim, seed)?)));
    }
    for estimator in estimators(100, 2, Probe::Rademacher) {
        let spec = tight(&Residual { evaluation: estimator, hidden: 5, coefficient: 0.8, ..conditional.clone() });
        let subject = Subject { condition: Some(3), ..subject(format!("{estimator:?}"), 1) };
        assert_conforms(&subject, |seed| Ok(Rows(ResidualFlow::<f64>::new(&spec, 1, seed)?)));
    }
}

/// In one dimension a Rademacher probe finds the very trace, and a hundred terms the whole series: every estimator has
/// to be exact, value and gradient.
#[test]
fn estimators_conform_where_they_are_exact() {
    for estimator in estimators(100, 2, Probe::Rademacher) {
        let spec = tight(&Residual { evaluation: estimator, hidden: 5, coefficient: 0.8, ..spec() });
        let subject = subject(format!("{estimator:?}"), 1);
        assert_conforms(&subject, |seed| Ok(Rows(ResidualFlow::<f64>::new(&spec, 1, seed)?)));
    }
}

#[test]
fn starts_as_the_identity_if_wanted() {
    let spec = tight(&Residual { zero_init: true, ..spec() });
    let subject = Subject { identity_start: true, ..subject("zero_init", 4) };
    assert_conforms(&subject, |seed| Ok(Rows(ResidualFlow::<f64>::new(&spec, 4, seed)?)));
}
