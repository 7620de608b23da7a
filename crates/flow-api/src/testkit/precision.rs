//! f32 against f64 with the same weights.

use super::bench::{BATCH, context_of, prepare, size};
use super::gradients::Loss;
use super::{Failure, Item, Subject};
use crate::bijector::{Cotangent, Point};
use crate::context::Kernels;
use crate::module::{Saved, State, load, save};
use crate::rows::{BLOCK_LANES, Real};
use crate::{Bijector, Context, FlowError, Gradients, Scalar, Tensor, to_host};

/// Runs the same weights in f32 and in f64.
///
/// Values, log-dets and gradients must agree to 10⁻³ of their size, fused and plain kernels in f32 to 10⁻⁵, and a round
/// trip in f32 must come back: to 10⁻⁴ on normal numbers, to 10⁻³ from ten standard deviations out (or ten times the
/// inverse's own tolerance), and what rounding f(x) alone moves x by.
///
/// # Errors
/// The first [`Failure`].
pub fn check_precision<A, B>(
    subject: &Subject,
    single: impl Fn(u64) -> Result<A, FlowError>,
    double: impl Fn(u64) -> Result<B, FlowError>,
) -> Result<(), Failure>
where
    A: Bijector<(usize, usize), f32, Out = (usize, usize)>,
    B: super::Flat,
{
    const ITEM: Item = "precision";
    let fails = |e: FlowError| subject.fails(ITEM, e.to_string());
    let mut wide = prepare(subject, 1, subject.shake, &double)?;
    let mut narrow = single(1).map_err(fails)?;
    let state: State<f32> = converted(&save(&wide.bijector));
    load(&mut narrow, &state).map_err(fails)?;
    load(&mut wide.bijector, &converted(&state)).map_err(fails)?;

    // Enough rows for a full block and a short one.
    let rows = if subject.dim > BLOCK_LANES { BATCH } else { BLOCK_LANES + 7 };
    let x = wide.typical(rows, 70);
    let reference = everything::<f64, B>(&wide.bijector, &x, subject, Kernels::Fused).map_err(fails)?;
    let [fused, plain] = [Kernels::Fused, Kernels::Taped].map(|kernels| everything::<f32, A>(&narrow, &x, subject, kernels));
    let (fused, plain) = (fused.map_err(fails)?, plain.map_err(fails)?);
    for (((what, expected), (_, fused)), (_, plain)) in reference.iter().zip(&fused).zip(&plain) {
        subject.close(ITEM, &format!("{what} in f32"), fused, expected, 1e-3 * size(expected), 0.0)?;
        let tolerance = subject.inverse_tolerance.map_or(1e-5, |t| t.max(1e-5));
        subject.close(ITEM, &format!("{what} in f32, plain against fused kernels"), plain, fused, tolerance * size(expected), 0.0)?;
    }
    for (spread, tolerance) in [(1.0, 1e-4), (10.0, 1e-3)] {
        let x = wide.inputs(BATCH, 71, spread);
        let (y, back) = round_trip::<A>(&narrow, &x, subject).map_err(fails)?;
        let what = format!("f⁻¹(f(x)) in f32, {spread} standard deviations out");
        // Where f is flat, rounding y alone moves x: as far as the inverse in f64 says.
        let moved = wide.inverse(ITEM, &y, &wide.context(BATCH))?.0;
        let flatness = moved.iter().zip(&x).map(|(moved, x)| (moved - x).abs()).fold(0.0, f64::max);
        let allowed = subject.solved(tolerance) * size(x.iter().chain(&y)) + 8.0 * flatness;
        subject.close(ITEM, &what, &back, &x, allowed, 0.0)?;
    }
    Ok(())
}

/// Numbers in this precision as a tensor.
fn tensor<E: Scalar>(values: &[f64], columns: usize) -> Tensor<(usize, usize), E> {
    let values: Vec<E> = values.iter().map(|&v| E::of(v)).collect();
    let shape = (values.len() / columns.max(1), columns);
    E::tensor(values, shape)
}

fn host<S: dfdx::prelude::Shape, E: Scalar>(x: &Tensor<S, E>) -> Vec<f64> {
    to_host(x).into_iter().map(Real::as_f64).collect()
}

/// f(x) and f⁻¹(x) with their log-dets, and the gradients of a loss.
fn everything<E: Scalar, A>(
    bijector: &A,
    x: &[f64],
    subject: &Subject,
    kernels: Kernels,
) -> Result<Vec<(&'static str, Vec<f64>)>, FlowError>
where
    A: Bijector<(usize, usize), E, Out = (usize, usize)>,
{
    let rows = x.len() / subject.dim.max(1);
    let cx: Context<E> = context_of(subject, 0..rows).with_kernels(kernels);
    let x = tensor(x, subject.dim);
    let forward = bijector.forward(x.clone(), &cx)?;
    let inverse = bijector.inverse(x.clone(), &cx)?;
    let value = host(&forward.value);
    let loss = Loss::new(value.len(), rows);
    // The mean over rows, as in training: sums over many rows have errors of their own.
    let mean = |values: &[f64]| values.iter().map(|v| v / rows as f64).collect::<Vec<_>>();
    let log_det = mean(&loss.log_det).into_iter().map(E::of).collect();
    let cotangent = Cotangent { value: tensor(&mean(&loss.for_value(&value)), subject.dim), log_det: E::tensor(log_det, (rows,)) };
    let mut gradients = Gradients::zeros(bijector);
    let pulled = bijector.pullback(Point::Input(x), cotangent, &mut gradients, &cx)?;
    Ok(vec![
        ("f(x)", value),
        ("log|det ∂f/∂x|", host(&forward.log_det.value)),
        ("f⁻¹(x)", host(&inverse.value)),
        ("log|det ∂f⁻¹/∂x|", host(&inverse.log_det.value)),
        ("∂L/∂x", host(&pulled.cotangent)),
        ("gradients of the parameters", gradients.values().iter().map(|g| Real::as_f64(*g)).collect()),
    ])
}

/// f(x) and f⁻¹(f(x)).
fn round_trip<A>(bijector: &A, x: &[f64], subject: &Subject) -> Result<(Vec<f64>, Vec<f64>), FlowError>
where
    A: Bijector<(usize, usize), f32, Out = (usize, usize)>,
{
    let cx = context_of(subject, 0..x.len() / subject.dim.max(1));
    let y = bijector.forward(tensor(x, subject.dim), &cx)?.value;
    let back = bijector.inverse(y.clone(), &cx)?.value;
    Ok((host(&y), host(&back)))
}

/// The state with every number in another precision.
fn converted<A: Scalar, B: Scalar>(state: &State<A>) -> State<B> {
    let convert = |values: &[A]| values.iter().map(|v| B::of(v.as_f64())).collect();
    let entry = |saved: &Saved<A>| match saved {
        Saved::Parameter { shape, values } => Saved::Parameter { shape: shape.clone(), values: convert(values) },
        Saved::Reals(values) => Saved::Reals(convert(values)),
        Saved::Doubles(values) => Saved::Doubles(values.clone()),
        Saved::Indices(values) => Saved::Indices(values.clone()),
        Saved::Flag(value) => Saved::Flag(*value),
    };
    state.iter().map(|(path, saved)| (path.clone(), entry(saved))).collect()
}
