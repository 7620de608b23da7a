//! The suite tested: bijections that are wrong in one way each must fail at the property that is broken, and at no
//! other.

use dfdx::prelude::*;
use flow_api::bijector::{Cotangent, Mapped, Point, Pulled};
use flow_api::context::Kernels;
use flow_api::layers::{ActNorm, LuLinear};
use flow_api::log_det::LogDet;
use flow_api::rows::{RowChain, Rows};
use flow_api::testkit::{Mutant, Mutation, Subject, check};
use flow_api::{Bijector, Context, Facts, Gradients, Module, Result, RowFlow, Tensor, module_fields, shape_error, to_host};
use std::sync::atomic::{AtomicU64, Ordering};

type Flat = Tensor<(usize, usize), f64>;
type Cx = Context<f64>;

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    /// Nothing.
    None,
    /// One value is not a number.
    NotFinite,
    /// The inverse is off by a little.
    Inverse,
    /// The log-det of the inverse is off by a little.
    InverseLogDet,
    /// Rows are shifted by the size of their batch.
    BatchSize,
    /// Plain kernels compute something else.
    Plain,
    /// ∂L/∂x is off by a thousandth.
    Input,
    /// The parameters' gradients are off by a thousandth.
    Parameters,
    /// The parameters' gradients are not added.
    NoParameters,
    /// The log-det's cotangent is forgotten.
    ForgottenLogDet,
    /// Gradients of the first sample count twice where the batch has more than ten.
    Sums,
    /// Gradients go to the root of the paths.
    RootPath,
    /// The output is taken for the input.
    OutputForInput,
    /// The first feature passes on to another.
    Leak,
    /// Results depend on how many calls were made.
    CallCount,
    /// A number that decides the map is no state.
    HiddenState,
    /// Claims to be conditional.
    IgnoresCondition,
    /// Takes samples of any size, and cuts them.
    AnySize,
}

/// The right bijection with one fault.
struct Faulty {
    inner: Rows<RowChain<f64>>,
    fault: Fault,
    hidden: f64,
    calls: AtomicU64,
}

impl Faulty {
    fn new(fault: Fault, seed: u64) -> Result<Self> {
        let flows: Vec<Box<dyn RowFlow<f64>>> = vec![Box::new(LuLinear::new(DIM).with_random_permutation(7)), Box::new(ActNorm::new(DIM))];
        Ok(Self { inner: Rows(RowChain::new(DIM, flows)?), fault, hidden: 0.1 * seed as f64, calls: AtomicU64::new(0) })
    }

    /// What the values are shifted by, of batches of `rows`.
    fn shift(&self, rows: usize, cx: &Cx) -> f64 {
        match self.fault {
            Fault::BatchSize => 0.01 * rows as f64,
            Fault::Plain if cx.kernels() == Kernels::Taped => 1e-9,
            Fault::CallCount => 1e-15 * self.calls.fetch_add(1, Ordering::Relaxed) as f64,
            Fault::HiddenState => self.hidden,
            _ => 0.0,
        }
    }

    fn cut(&self, x: Flat) -> Flat {
        if self.fault != Fault::AnySize || x.shape().1 <= DIM {
            return x;
        }
        let (rows, columns) = *x.shape();
        let values = to_host(&x).chunks_exact(columns).flat_map(|row| row[..DIM].to_vec()).collect();
        x.device().tensor_from_vec(values, (rows, DIM))
    }
}

const DIM: usize = 3;

impl Module<f64> for Faulty {
    module_fields!(f64; delegate inner);
}

fn changed(x: &Flat, change: impl Fn(usize, f64) -> f64) -> Flat {
    let values = to_host(x).into_iter().enumerate().map(|(i, v)| change(i, v)).collect();
    x.device().tensor_from_vec(values, *x.shape())
}

impl Bijector<(usize, usize), f64> for Faulty {
    type Out = (usize, usize);

    fn facts(&self) -> Facts {
        Facts::new("Faulty").with_condition(if self.fault == Fault::IgnoresCondition { 2 } else { 0 })
    }

    fn output_shape(&self, input: &(usize, usize)) -> Result<(usize, usize)> {
        if self.fault == Fault::AnySize {
            return Ok((input.0, DIM.min(input.1)));
        }
        if input.1 == DIM { Ok(*input) } else { Err(shape_error("Faulty", "build", ("batch", DIM), input)) }
    }

    fn forward(&self, x: Flat, cx: &Cx) -> Result<Mapped<(usize, usize), f64>> {
        let x = self.cut(x);
        let shift = self.shift(x.shape().0, cx);
        let mapped = self.inner.forward(x.clone(), cx)?;
        let value = changed(&mapped.value, |i, v| if self.fault == Fault::NotFinite && i == 4 { f64::NAN } else { v + shift });
        Ok(Mapped { value, ..mapped })
    }

    fn inverse(&self, y: Flat, cx: &Cx) -> Result<Mapped<(usize, usize), f64>> {
        let y = self.cut(y);
        let shift = self.shift(y.shape().0, cx);
        let y = changed(&y, |_, v| v - shift);
        let mapped = self.inner.inverse(y, cx)?;
        let value = changed(&mapped.value, |_, v| if self.fault == Fault::Inverse { v + 1e-6 } else { v });
        let log_det = match self.fault {
            Fault::InverseLogDet => LogDet::exact(mapped.log_det.value + 1e-6),
            _ => mapped.log_det,
        };
        Ok(Mapped { value, log_det, report: mapped.report })
    }

    fn pullback(
        &self,
        at: Point<(usize, usize), (usize, usize), f64>,
        cotangent: Cotangent<(usize, usize), f64>,
        gradients: &mut Gradients<f64>,
        cx: &Cx,
    ) -> Result<Pulled<(usize, usize), f64>> {
        let at = match at {
            Point::Output(y) if self.fault == Fault::OutputForInput => Point::Input(y),
            Point::Input(x) => Point::Input(self.cut(x)),
            other => Point::Input(other.input(self, cx)?),
        };
        let mut cotangent = Cotangent { value: self.cut(cotangent.value), log_det: cotangent.log_det };
        if self.fault == Fault::ForgottenLogDet {
            cotangent.log_det = cotangent.log_det * 0.0;
        }
        if self.fault == Fault::Sums && cotangent.value.shape().0 > 10 {
            cotangent.value = changed(&cotangent.value, |i, v| if i < DIM { 2.0 * v } else { v });
        }
        let root = Context::new(0);
        let cx = if self.fault == Fault::RootPath { &root } else { cx };
        let mut own = gradients.clone();
        own.clear();
        let pulled = self.inner.pullback(at, cotangent, &mut own, cx)?;
        let factor = match self.fault {
            Fault::Parameters => 1.001,
            Fault::NoParameters => 0.0,
            _ => 1.0,
        };
        let _ = gradients.slice_mut(cx.path()); // counts as touched
        gradients.values_mut().iter_mut().zip(own.values()).for_each(|(sum, g)| *sum += factor * g);
        let factor = if self.fault == Fault::Input { 1.001 } else { 1.0 };
        let cotangent = changed(&pulled.cotangent, |_, v| factor * v);
        Ok(Pulled::new(pulled.input, cotangent).with_condition(pulled.condition))
    }

    fn initialise(&mut self, x: Flat, cx: &Cx) -> Result<Flat> {
        self.inner.initialise(x, cx)
    }
}

/// The property at which a fault is found.
fn found(fault: Fault) -> Option<&'static str> {
    let subject = Subject {
        condition: (fault == Fault::IgnoresCondition).then_some(2),
        independent: if fault == Fault::Leak { vec![(0, 1)] } else { Vec::new() },
        shake: 0.3,
        ..Subject::new(format!("{fault:?}"), DIM)
    };
    check(&subject, |seed| Faulty::new(fault, seed)).err().map(|failure| {
        assert!(failure.to_string().starts_with(&format!("{fault:?}: {}: ", failure.item)));
        failure.item
    })
}

#[test]
fn every_fault_is_found_where_it_is() {
    let cases = [
        (Fault::None, None),
        (Fault::NotFinite, Some("shapes")),
        (Fault::Inverse, Some("round trip")),
        (Fault::InverseLogDet, Some("antisymmetry")),
        (Fault::BatchSize, Some("batch independence")),
        (Fault::Leak, Some("structure")),
        (Fault::Plain, Some("fused and plain kernels")),
        (Fault::IgnoresCondition, Some("condition")),
        (Fault::Input, Some("gradients")),
        (Fault::Parameters, Some("gradients")),
        (Fault::NoParameters, Some("gradients")),
        (Fault::ForgottenLogDet, Some("gradients")),
        (Fault::OutputForInput, Some("memory settings")),
        (Fault::Sums, Some("sums over rows")),
        (Fault::CallCount, Some("threads")),
        (Fault::AnySize, Some("wrong shapes")),
        (Fault::HiddenState, Some("state")),
        (Fault::RootPath, Some("composition")),
    ];
    for (fault, expected) in cases {
        assert_eq!(found(fault), expected, "{fault:?}");
    }
}

#[test]
fn a_promised_identity_is_checked() {
    let subject = Subject { identity_start: true, ..Subject::new("a permutation", DIM) };
    let failure = check(&subject, |seed| Faulty::new(Fault::None, seed)).unwrap_err();
    assert_eq!(failure.item, "identity start", "{failure}");
}

#[test]
fn wrong_log_dets_fail_at_the_log_det() {
    for mutation in [Mutation::Flipped, Mutation::Halved, Mutation::Dropped] {
        let subject = Subject::new(format!("{mutation:?}"), DIM);
        let failure = check(&subject, |seed| Ok(Mutant::new(Faulty::new(Fault::None, seed)?, mutation))).unwrap_err();
        assert_eq!(failure.item, "log-det", "{failure}");
    }
}

#[test]
fn a_report_says_what_was_not_checked() {
    let report = check(&Subject::new("right", DIM), |seed| Faulty::new(Fault::None, seed)).unwrap();
    assert_eq!(
        report.to_string(),
        "hold: shapes, round trip, antisymmetry, log-det, batch independence, fused and plain kernels, gradients, memory settings, sums over rows, \
         threads, wrong shapes, state, determinism, composition; not checked: structure (no pairs are named); not checked: condition (not \
         conditional); not checked: identity start (not promised)"
    );
}
