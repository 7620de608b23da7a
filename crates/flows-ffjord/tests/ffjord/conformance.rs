//! The conformance suite, with the exact trace.

use crate::common::dopri5;
use flow_api::rows::Rows;
use flow_api::testkit::{Subject, assert_conforms, check_precision};
use flows_ffjord::ode::{Fixed, Solver};
use flows_ffjord::{Adjoint, ContinuousFlow, EndTime, Ffjord, Gradient, TimeInput};

#[test]
fn continuous_flows_conform() {
    let rk4 = Solver::Rk4(Fixed { steps: 64 });
    let specs = [
        ("squash, adjoint", Ffjord { hidden: 6, solver: dopri5(1e-11), end_time: EndTime::Learned(0.7), ..Ffjord::default() }),
        ("concat, discrete", Ffjord { hidden: 6, solver: rk4, gradient: Gradient::Discrete, time: TimeInput::Concat, ..Ffjord::default() }),
    ];
    for (name, spec) in specs {
        let subject = Subject { identity_start: true, inverse_tolerance: Some(1e-8), ..Subject::new(name, 4) };
        assert_conforms(&subject, |seed| Ok(Rows(ContinuousFlow::<f64>::new(&spec, 4, seed)?)));
    }
}

#[test]
fn conditional_flows_conform() {
    let rk4 = Solver::Rk4(Fixed { steps: 64 });
    let small = Ffjord { hidden: 5, condition: Some(3), zero_init: false, solver: rk4, ..Ffjord::default() };
    let adjoint = Gradient::Adjoint(Adjoint { seminorm: false });
    let learned = EndTime::Learned(0.7);
    for (name, spec) in [
        ("squash, adjoint", Ffjord { solver: dopri5(1e-11), end_time: learned, ..small.clone() }),
        (
            "concat, adjoint with all in the norm",
            Ffjord { solver: dopri5(1e-11), gradient: adjoint, time: TimeInput::Concat, ..small.clone() },
        ),
        ("squash, discrete", Ffjord { gradient: Gradient::Discrete, end_time: learned, ..small.clone() }),
        ("deep", Ffjord { gradient: Gradient::Discrete, layers: 3, time: TimeInput::Autonomous, ..small }),
    ] {
        let subject = Subject { condition: spec.condition, inverse_tolerance: Some(1e-8), ..Subject::new(name, 3) };
        assert_conforms(&subject, |seed| Ok(Rows(ContinuousFlow::<f64>::new(&spec, 3, seed)?)));
    }
}

#[test]
fn single_precision_follows_double() {
    let spec = Ffjord { hidden: 16, ..Ffjord::default() };
    let subject = Subject { inverse_tolerance: Some(1e-5), ..Subject::new("single precision", 6) };
    let result = check_precision(
        &subject,
        |seed| Ok(Rows(ContinuousFlow::<f32>::new(&spec, 6, seed)?)),
        |seed| Ok(Rows(ContinuousFlow::<f64>::new(&spec, 6, seed)?)),
    );
    assert_eq!(result, Ok(()));
}
