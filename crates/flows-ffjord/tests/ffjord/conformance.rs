//! The conformance suite, with the exact trace.

use crate::common::dopri5;
use dfdx::prelude::Cpu;
use flow_api::Rows;
use flow_api::testkit::{Subject, assert_conforms};
use flows_ffjord::ode::{Fixed, Solver};
use flows_ffjord::{ContinuousFlow, EndTime, Ffjord, Gradient, TimeInput};

#[test]
fn continuous_flows_conform() {
    let rk4 = Solver::Rk4(Fixed { steps: 64 });
    let specs = [
        ("squash, adjoint", Ffjord { hidden: 6, solver: dopri5(1e-11), end_time: EndTime::Learned(0.7), ..Ffjord::default() }),
        ("concat, discrete", Ffjord { hidden: 6, solver: rk4, gradient: Gradient::Discrete, time: TimeInput::Concat, ..Ffjord::default() }),
    ];
    for (name, spec) in specs {
        let subject = Subject { identity_start: true, inverse_tolerance: Some(1e-8), ..Subject::new(name, 4) };
        assert_conforms(&subject, |seed, device: &Cpu| Ok(Rows(ContinuousFlow::<f64, Cpu>::new(&spec, 4, seed, device)?)));
    }
}
