//! f32 against f64 with the same weights.

use super::{BATCH, Failure, Subject, normal};
use crate::{Bijector, Context, FlowError, Saved, Scalar, State, load, save, to_host};
use dfdx::prelude::{Cpu, Device, TensorFromVec};

/// Runs the same weights in f32 and in f64: values and log-dets must agree to 10⁻³ of their size, and a round trip in f32 must come back to within 10⁻³.
///
/// # Errors
/// The first [`Failure`].
pub fn check_precision<A, B>(
    subject: &Subject,
    single: impl Fn(u64, &Cpu) -> Result<A, FlowError>,
    double: impl Fn(u64, &Cpu) -> Result<B, FlowError>,
) -> Result<(), Failure>
where
    A: Bijector<(usize, usize), f32, Cpu, Out = (usize, usize)>,
    B: super::Flat,
{
    const ITEM: &str = "precision";
    let fail = |detail: String| Failure { subject: subject.name.clone(), item: ITEM, detail };
    let wide = super::prepare(subject, 1, subject.shake, &double)?;
    let mut narrow = single(1, &Cpu::seed_from_u64(1)).map_err(|e| fail(e.to_string()))?;
    load(&mut narrow, &rounded(&save(&wide.bijector))).map_err(|e| fail(e.to_string()))?;

    let x = normal(BATCH * subject.dim, 70);
    let (y, log_det) = wide.forward(ITEM, &x, &wide.context(BATCH))?;
    let (mapped, back) = run::<f32, A>(&narrow, &x, subject).map_err(|e| fail(e.to_string()))?;
    let size = |values: &[f64]| 1e-3 * values.iter().fold(1.0_f64, |m, v| m.max(v.abs()));
    wide.close(ITEM, "f(x) in f32", &mapped.0, &y, size(&y), 0.0)?;
    wide.close(ITEM, "log-det in f32", &mapped.1, &log_det, size(&log_det), 0.0)?;
    wide.close(ITEM, "round trip in f32", &back, &x, size(&x).max(size(&y)), 0.0)
}

/// f(x), log-dets and f⁻¹(f(x)) in another precision, as f64.
fn run<E: Scalar, A>(bijector: &A, x: &[f64], subject: &Subject) -> Result<((Vec<f64>, Vec<f64>), Vec<f64>), FlowError>
where
    Cpu: Device<E>,
    A: Bijector<(usize, usize), E, Cpu, Out = (usize, usize)>,
{
    let device = Cpu::default();
    let narrow = |values: &[f64]| values.iter().map(|&v| E::of(v)).collect::<Vec<E>>();
    let widen = |values: Vec<E>| values.into_iter().map(flow_kernels::Real::as_f64).collect::<Vec<f64>>();
    let mut cx = Context::new(11);
    if let Some(width) = subject.condition {
        cx = cx.with_condition(device.tensor_from_vec(narrow(&normal(BATCH * width, 77)), (BATCH, width)));
    }
    let mapped = bijector.forward(device.tensor_from_vec(narrow(x), (BATCH, subject.dim)), &cx)?;
    let values = (widen(to_host(&mapped.value)), widen(to_host(&mapped.log_det.value)));
    let back = bijector.inverse(mapped.value, &cx)?;
    Ok((values, widen(to_host(&back.value))))
}

/// The state in f32.
fn rounded(state: &State<f64>) -> State<f32> {
    let narrow = |values: &[f64]| values.iter().map(|&v| <f32 as flow_kernels::Real>::of(v)).collect();
    let entry = |saved: &Saved<f64>| match saved {
        Saved::Parameter { shape, values } => Saved::Parameter { shape: shape.clone(), values: narrow(values) },
        Saved::Reals(values) => Saved::Reals(narrow(values)),
        Saved::Indices(values) => Saved::Indices(values.clone()),
        Saved::Flag(value) => Saved::Flag(*value),
    };
    state.iter().map(|(path, saved)| (path.clone(), entry(saved))).collect()
}
