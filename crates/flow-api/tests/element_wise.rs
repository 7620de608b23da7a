//! Element-wise maps: against closed forms, through the testkit, and their errors.

use flow_api::rows::{ElementMap, ElementWise, Number, Rows};
use flow_api::spec::{EventShape, LeakyRelu, Logit, ModelSpec, SinhArcsinh, Softsign, Spec};
use flow_api::testkit::{Subject, check, check_model, check_precision};
use flow_api::{Bijector, Context, FlowError, Scalar, to_host};

/// x + x³, whose inverse is solved for.
#[derive(Clone)]
struct Cubic;
impl ElementMap for Cubic {
    const KIND: &'static str = "Cubic";

    fn map<N: Number>(&self, x: N, _: &[N]) -> (N, N) {
        (x + x * x * x, (N::of(1.0) + N::of(3.0) * x * x).ln())
    }
}

/// Two maps one after the other where the first leaves ℝ.
#[test]
fn the_flows_conform() {
    for flows in [
        "LeakyRelu(), LeakyRelu(slope: 0.3)",
        "SinhArcsinh()",
        "SinhArcsinh(skewness: 0.4, tail: 0.7), LuLinear(permutation: Reverse), SinhArcsinh()",
        "Softsign(), Logit(low: -1, high: 1)",
    ] {
        let spec: Spec<dyn ModelSpec> = format!("VectorFlow(flows: [{flows}])").parse().unwrap();
        check_model(&Subject::new(flows, 3), &spec, EventShape::Vector(3)).unwrap();
    }
    let start = Subject { identity_start: true, ..Subject::new("SinhArcsinh", 3) };
    check(&start, |_| Ok(Rows(ElementWise::new(SinhArcsinh::default(), 3)?))).unwrap();
    let solved = Subject { inverse_tolerance: Some(1e-10), ..Subject::new("Cubic", 3) };
    check(&solved, |_| Ok(Rows(ElementWise::new(Cubic, 3)?))).unwrap();
    check_precision(&solved, |_| Ok(Rows(ElementWise::new(Cubic, 3)?)), |_| Ok(Rows(ElementWise::new(Cubic, 3)?))).unwrap();
}

/// y and log|dy/dx| of one number, both ways.
fn mapped<E: Scalar>(map: impl ElementMap, x: E) -> Result<[f64; 4], FlowError> {
    let flow = Rows(ElementWise::<_, E>::new(map, 1)?);
    let y = flow.forward(E::tensor(vec![x], (1, 1)), &Context::new(0))?;
    let back = flow.inverse(y.value.clone(), &Context::new(0))?;
    let [y, log_det, x, back] =
        [to_host(&y.value)[0], to_host(&y.log_det.value)[0], to_host(&back.value)[0], to_host(&back.log_det.value)[0]];
    Ok([y, log_det, x, back].map(flow_api::rows::Real::as_f64))
}

/// Values of the formulas in the documentation, to the digits that the number type has.
#[test]
fn values_are_those_of_the_formulas() {
    let (tail, skewness) = (0.8_f64, -0.3_f64);
    let bent = |x: f64| tail * x.asinh() - skewness;
    let sinh = |x: f64| (bent(x).sinh(), (tail * bent(x).cosh() / x.hypot(1.0)).ln());
    let near = |got: [f64; 4], (y, log_det): (f64, f64), x: f64, digits: f64| {
        let expected = [y, log_det, x, -log_det];
        got.iter().zip(expected).all(|(got, expected)| (got - expected).abs() <= digits * expected.abs().max(1.0))
    };
    for x in [-3.0, -0.25, 0.5, 2.0_f64] {
        #[expect(clippy::cast_possible_truncation, reason = "the same number in f32")]
        let narrow = x as f32;
        let relu = if x < 0.0 { (0.2 * x, 0.2_f64.ln()) } else { (x, 0.0) };
        assert!(near(mapped(LeakyRelu { slope: 0.2 }, x).unwrap(), relu, x, 1e-14), "LeakyRelu at {x}");
        let own = SinhArcsinh { skewness, tail };
        assert!(near(mapped(own, x).unwrap(), sinh(x), x, 1e-13), "SinhArcsinh at {x}");
        assert!(near(mapped(own, narrow).unwrap(), sinh(x), x, 1e-5), "SinhArcsinh in f32 at {x}");
        let softsign = (x / (1.0 + x.abs()), -2.0 * (1.0 + x.abs()).ln());
        assert!(near(mapped(Softsign {}, x).unwrap(), softsign, x, 1e-14), "Softsign at {x}");
        let logit = (((x + 4.0) / (3.0 - x)).ln(), (7.0 / ((x + 4.0) * (3.0 - x))).ln());
        assert!(near(mapped(Logit { low: -4.0, high: 3.0 }, x).unwrap(), logit, x, 1e-14), "Logit at {x}");
        let cubic = (x + x.powi(3), (1.0 + 3.0 * x * x).ln());
        assert!(near(mapped(Cubic, x).unwrap(), cubic, x, 1e-14), "Cubic at {x}");
        assert!(near(mapped(Cubic, narrow).unwrap(), cubic, x, 1e-6), "Cubic in f32 at {x}");
    }
}

#[test]
fn numbers_outside_and_settings_that_are_none_are_refused() {
    let domain = |map: Rows<ElementWise<Logit, f64>>, x: f64| {
        let x = f64::tensor(vec![0.5, 0.5, 0.5, x], (2, 2));
        map.forward(x, &Context::new(0).child("flow")).map(|_| ()).unwrap_err().to_string()
    };
    let logit = || Rows(ElementWise::<_, f64>::new(Logit::default(), 2).unwrap());
    for (x, got) in [(1.0, "1"), (-0.5, "-0.5"), (0.0, "0")] {
        assert_eq!(domain(logit(), x), format!("flow: row 1: expected numbers between 0 and 1, got {got}"));
    }
    let softsign = Rows(ElementWise::<_, f64>::new(Softsign {}, 1).unwrap());
    let error = softsign.inverse(f64::tensor(vec![-1.0], (1, 1)), &Context::new(0)).map(|_| ()).unwrap_err();
    assert_eq!(error.to_string(), "Softsign: row 0: expected numbers between -1 and 1, got -1");
    for (flow, expected) in [
        ("LeakyRelu(slope: 0)", "bijector.0: slope: expected a finite number greater than 0, got 0"),
        ("SinhArcsinh(tail: -1)", "bijector.0: tail: expected a finite number greater than 0, got -1"),
        ("SinhArcsinh(skewness: inf)", "bijector.0: skewness: expected a finite number, got inf"),
        ("Logit(low: 2)", "bijector.0: high: expected a finite number greater than 2, got 1"),
    ] {
        let spec: Spec<dyn ModelSpec> = format!("VectorFlow(flows: [{flow}])").parse().unwrap();
        assert_eq!(spec.build::<f64>(EventShape::Vector(2), 1).unwrap_err().to_string(), expected);
    }
}

/// An inverse that no solver can find is an error with its row.
#[test]
fn an_inverse_that_is_not_found_is_told() {
    #[derive(Clone)]
    struct Bounded;
    impl ElementMap for Bounded {
        const KIND: &'static str = "Bounded";

        fn map<N: Number>(&self, x: N, _: &[N]) -> (N, N) {
            (x.tanh(), N::of(-2.0) * x.ln_cosh())
        }
    }
    let flow = Rows(ElementWise::<_, f64>::new(Bounded, 1).unwrap());
    let found = flow.inverse(f64::tensor(vec![0.5, 1.5], (2, 1)), &Context::new(0));
    assert!(matches!(found, Err(FlowError::NotConverged { row: 1, .. })), "{:?}", found.map(|_| ()));
}
