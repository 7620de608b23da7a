//! Gradients: against finite differences, under all memory settings, as sums over rows, in a composition.

use super::bench::{BATCH, Bench, both_kernels, normal, size};
use super::maps::agrees_with_differences;
use super::{Checked, Failure, Flat, Item};
use crate::bijector::{Cotangent, Point};
use crate::compose::{InverseOf, Then};
use crate::log_det::LogDetKind;
use crate::module::{Entry, EntryMut, Saved, State, VisitorMut, load, save, visit};
use crate::rows::BLOCK_LANES;
use crate::{Bijector, Context, FlowError, Gradients, Memory, Module, Scalar as _, Tensor, to_host};

/// Coordinates of each parameter and of x that are compared with differences.
const PROBED: usize = 6;

/// A loss that sees all of y and the log-det: L = Σ wᵢ yᵢ + ½ cᵢ yᵢ² + Σ vᵦ log|det J|ᵦ.
pub(super) struct Loss {
    linear: Vec<f64>,
    curvature: Vec<f64>,
    /// ∂L/∂log|det J|.
    pub(super) log_det: Vec<f64>,
}

impl Loss {
    pub(super) fn new(len: usize, batch: usize) -> Self {
        let curvature = (0..len).map(|i| (i as f64).sin()).collect();
        Self { linear: normal(len, 50), curvature, log_det: normal(batch, 51) }
    }

    /// The share of these samples.
    fn share(&self, samples: std::ops::Range<usize>, dim: usize) -> Self {
        let numbers = samples.start * dim..samples.end * dim;
        Self {
            linear: self.linear[numbers.clone()].to_vec(),
            curvature: self.curvature[numbers].to_vec(),
            log_det: self.log_det[samples].to_vec(),
        }
    }

    fn value(&self, y: &[f64], log_det: &[f64]) -> f64 {
        let values: f64 = y.iter().zip(&self.linear).zip(&self.curvature).map(|((y, w), c)| w * y + 0.5 * c * y * y).sum();
        values + log_det.iter().zip(&self.log_det).map(|(l, v)| l * v).sum::<f64>()
    }

    /// ∂L/∂y.
    pub(super) fn for_value(&self, y: &[f64]) -> Vec<f64> {
        y.iter().zip(&self.linear).zip(&self.curvature).map(|((y, w), c)| w + c * y).collect()
    }

    fn cotangent<B: Flat>(&self, bench: &Bench<'_, B>, y: &[f64]) -> Cotangent<(usize, usize), f64> {
        Cotangent { value: bench.tensor(&self.for_value(y)), log_det: f64::tensor(self.log_det.clone(), (self.log_det.len(),)) }
    }
}

/// What a pullback gives.
pub(super) struct Derivatives {
    /// ∂L/∂x.
    pub(super) input: Vec<f64>,
    /// ∂L/∂condition; none of a bijection that is not conditional.
    pub(super) condition: Vec<f64>,
    /// Those of the parameters.
    pub(super) gradients: Gradients<f64>,
}

/// All derivatives of a loss, from what `point` says.
pub(super) fn pull<B: Flat>(
    bench: &Bench<'_, B>,
    item: Item,
    loss: &Loss,
    x: &[f64],
    cx: &Context<f64>,
    point: Memory,
) -> Result<Derivatives, Failure> {
    let mut gradients = Gradients::zeros(&bench.bijector);
    let (mapped, kept) = bench.run(item, bench.bijector.forward_keeping(bench.tensor(x), cx))?;
    let cotangent = loss.cotangent(bench, &to_host(&mapped.value));
    let at = match point {
        Memory::Store => Point::Kept(kept),
        Memory::Recompute => Point::Input(bench.tensor(x)),
        Memory::Invert => Point::Output(mapped.value),
    };
    let pulled = bench.run(item, bench.bijector.pullback(at, cotangent, &mut gradients, cx))?;
    match pulled.input {
        Some(input) => {
            let tolerance = bench.subject.round_trip() * size(x);
            bench.subject.close(item, "the input that a pullback gives back", &to_host(&input), x, tolerance, 0.0)?;
        }
        None if point == Memory::Store => {}
        None => return Err(bench.failure(item, "a pullback from the input or the output gives no input back")),
    }
    let condition = pulled.condition.as_ref().map(to_host).unwrap_or_default();
    Ok(Derivatives { input: to_host(&pulled.cotangent), condition, gradients })
}

/// Every parameter receives a gradient, and gradients are those of differences, the log-det's share included.
pub(super) fn differences<B: Flat>(bench: &Bench<'_, B>, item: Item) -> Checked {
    let x = bench.typical(BATCH, 52);
    let cx = bench.context(BATCH);
    let mut loss = Loss::new(x.len(), BATCH);
    let estimated = bench.bijector.facts().log_det == LogDetKind::Estimate;
    if estimated {
        // An unbiased estimate of the gradient need not be the gradient of the estimate.
        loss.log_det.fill(0.0);
    }
    let Derivatives { input: dx, condition, gradients } = pull(bench, item, &loss, &x, &cx, Memory::Store)?;
    if let Some(path) = gradients.untouched().next() {
        return Err(bench.failure(item, format!("parameter `{path}` receives no gradient")));
    }
    if let Some((path, _)) = gradients.iter().find(|(_, g)| g.iter().any(|g| !g.is_finite())) {
        return Err(bench.failure(item, format!("the gradient of `{path}` is not finite")));
    }
    let value_in = |bijector: &B, x: &[f64], cx: &Context<f64>| -> Result<f64, Failure> {
        let mapped = bench.run(item, bijector.forward(bench.tensor(x), cx))?;
        Ok(loss.value(&to_host(&mapped.value), &to_host(&mapped.log_det.value)))
    };
    let value = |bijector: &B, x: &[f64]| value_in(bijector, x, &cx);
    // What differences of this loss can resolve; a solver's own error is divided by the step.
    let resolved = if bench.subject.inverse_tolerance.is_some() { 2e-5 } else { 1e-7 };
    let tolerance = resolved * value(&bench.bijector, &x)?.abs().max(1.0);
    let judge = |what: String, own: f64, difference: &dyn Fn(f64) -> Result<f64, Failure>| {
        agrees_with_differences(difference, |expected| bench.subject.close(item, &what, &[own], &[expected], tolerance, 1e-5))
    };
    for at in spread_over(x.len()) {
        let shifted = |by: f64| {
            let mut moved = x.clone();
            moved[at] += by;
            value(&bench.bijector, &moved)
        };
        judge(format!("∂L/∂x[{at}]"), dx[at], &|step| Ok((shifted(step)? - shifted(-step)?) / (2.0 * step)))?;
    }

    let width = bench.subject.condition.unwrap_or(0);
    if condition.len() != BATCH * width {
        return Err(bench.failure(item, format!("∂L/∂condition has {} values where {} are expected", condition.len(), BATCH * width)));
    }
    let given = cx.condition().map(to_host).unwrap_or_default();
    for at in spread_over(condition.len()) {
        let shifted = |by: f64| {
            let mut moved = given.clone();
            moved[at] += by;
            value_in(&bench.bijector, &x, &cx.clone().with_condition(f64::tensor(moved, (BATCH, width))))
        };
        judge(format!("∂L/∂condition[{at}]"), condition[at], &|step| Ok((shifted(step)? - shifted(-step)?) / (2.0 * step)))?;
    }

    let state = save(&bench.bijector);
    let mut names = Vec::new();
    visit(&bench.bijector, |path, entry| {
        if let Entry::Parameter { values, .. } = entry {
            names.push((path.to_owned(), values.len()));
        }
    });
    for (path, len) in names {
        let own = bench.run(item, gradients.get(&path))?;
        // Single coordinates, and a direction that moves all of them.
        let unit = |at: usize| (0..len).map(|i| if i == at { 1.0 } else { 0.0 }).collect::<Vec<f64>>();
        let probes = spread_over(len).into_iter().map(|at| (format!("∂L/∂{path}[{at}]"), unit(at)));
        let everywhere = (len > 0).then(|| (format!("∂L/∂{path} in a random direction"), normal(len, 54)));
        for (what, direction) in probes.chain(everywhere) {
            let shifted = |by: f64| {
                let mut copy = bench.movable.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                bench.run(item, load(&mut *copy, &moved(&state, &path, &direction, by)))?;
                hold(&mut *copy, &state);
                value(&copy, &x)
            };
            let own = own.iter().zip(&direction).map(|(g, d)| g * d).sum();
            judge(what, own, &|step| Ok((shifted(step)? - shifted(-step)?) / (2.0 * step)))?;
        }
    }
    Ok(estimated.then_some("without the log-det, which is an estimate"))
}

/// Puts state that is not trained back as it was: a derivative takes it as constant, and what is derived anew (the
/// vectors of a power iteration) is so to a tolerance alone.
fn hold<M: Module<f64>>(module: &mut M, state: &State<f64>) {
    module.visit_mut(&mut VisitorMut::new(&mut |path, entry| match (entry, state.get(path)) {
        (EntryMut::Reals(values), Some(Saved::Reals(kept))) | (EntryMut::Doubles(values), Some(Saved::Doubles(kept))) => {
            values.copy_from_slice(kept);
        }
        (EntryMut::Indices(values), Some(Saved::Indices(kept))) => values.copy_from_slice(kept),
        (EntryMut::Flag(value), Some(Saved::Flag(kept))) => *value = *kept,
        _ => {}
    }));
}

/// A state with one parameter moved along a direction.
fn moved(state: &State<f64>, path: &str, direction: &[f64], by: f64) -> State<f64> {
    let mut moved = state.clone();
    if let Some(Saved::Parameter { values, .. }) = moved.get_mut(path) {
        values.iter_mut().zip(direction).for_each(|(v, d)| *v += by * d);
    }
    moved
}

/// Indices spread evenly over `0..len`.
fn spread_over(len: usize) -> Vec<usize> {
    let count = PROBED.min(len);
    (0..count).map(|k| k * len / count).collect()
}

/// From what was kept, from the input and from the output, with fused and with plain kernels: the same gradients.
pub(super) fn memory_settings<B: Flat>(bench: &Bench<'_, B>, item: Item) -> Checked {
    let x = bench.typical(BATCH, 53);
    let cx = bench.context(BATCH);
    let loss = Loss::new(x.len(), BATCH);
    let Derivatives { input: dx, condition: dc, gradients: reference } = pull(bench, item, &loss, &x, &cx, Memory::Store)?;
    let scale = size(reference.values().iter().chain(&dx));
    for kernels in both_kernels(&cx) {
        for memory in [Memory::Store, Memory::Recompute, Memory::Invert] {
            for (point, from) in [(Memory::Store, "what was kept"), (Memory::Recompute, "the input"), (Memory::Invert, "the output")] {
                if point == Memory::Invert && !bench.has_inverse() {
                    continue;
                }
                // What was inverted on the way carries the inverse's error, which derivatives enlarge.
                let inverted = point == Memory::Invert || memory == Memory::Invert;
                let tolerance =
                    if inverted { bench.subject.inverse_tolerance.map_or(1e-8, |t| (1e3 * t).max(1e-8)) } else { 1e-11 } * scale;
                let Derivatives { input: own, condition, gradients } =
                    pull(bench, item, &loss, &x, &kernels.clone().with_memory(memory), point)?;
                let what = format!("{memory:?}, from {from}");
                bench.subject.close(item, &format!("∂L/∂x, {what}"), &own, &dx, tolerance, 0.0)?;
                bench.subject.close(item, &format!("∂L/∂condition, {what}"), &condition, &dc, tolerance, 0.0)?;
                bench.subject.close(
                    item,
                    &format!("parameters' gradients, {what}"),
                    gradients.values(),
                    reference.values(),
                    tolerance,
                    0.0,
                )?;
            }
        }
    }
    Ok(None)
}

/// The gradients of a batch of several blocks are the sums of those of its two parts.
pub(super) fn sums_over_rows<B: Flat>(bench: &Bench<'_, B>, item: Item) -> Checked {
    if bench.bijector.facts().log_det == LogDetKind::Estimate {
        return Ok(Some("log-dets are estimates, whose noise depends on the row"));
    }
    let dim = bench.subject.dim;
    let rows = if dim > BLOCK_LANES { BATCH } else { 4 * BLOCK_LANES + 5 };
    let cut = rows / 3;
    let x = bench.typical(rows, 55);
    let loss = Loss::new(x.len(), rows);
    let Derivatives { input: dx, gradients: whole, .. } = pull(bench, item, &loss, &x, &bench.context(rows), Memory::Store)?;
    let part = |samples: std::ops::Range<usize>| {
        let (numbers, cx) = (samples.start * dim..samples.end * dim, bench.context_of(samples.clone()));
        pull(bench, item, &loss.share(samples, dim), &x[numbers], &cx, Memory::Store)
    };
    let Derivatives { input: first_dx, gradients: first, .. } = part(0..cut)?;
    let Derivatives { input: second_dx, gradients: second, .. } = part(cut..rows)?;
    let tolerance = bench.subject.solved(1e-11) * size(whole.values());
    bench.subject.close(item, "∂L/∂x", &[first_dx, second_dx].concat(), &dx, bench.subject.solved(1e-11) * size(&dx), 0.0)?;
    let sums: Vec<f64> = first.values().iter().zip(second.values()).map(|(a, b)| a + b).collect();
    bench.subject.close(item, "parameters' gradients of two parts of a batch", &sums, whole.values(), tolerance, 0.0)?;
    Ok(None)
}

/// ∂L/∂x and all parameters' gradients at an input.
fn pull_at<B: Flat>(
    bijector: &B,
    x: Tensor<(usize, usize), f64>,
    cotangent: Cotangent<(usize, usize), f64>,
    cx: &Context<f64>,
) -> Result<(Vec<f64>, Vec<f64>), FlowError> {
    let mut gradients = Gradients::zeros(bijector);
    let pulled = bijector.pullback(Point::Input(x), cotangent, &mut gradients, cx)?;
    Ok((to_host(&pulled.cotangent), gradients.values().to_vec()))
}

/// One instance behind another: values compose, log-dets add up, and below another path every parameter still receives
/// its own gradient. The inverse of the inverse is the bijection.
pub(super) fn composition<B: Flat>(first: Bench<'_, B>, second: Bench<'_, B>, item: Item) -> Checked {
    let subject = first.subject;
    if first.bijector.facts().log_det == LogDetKind::Estimate {
        return Ok(Some("estimates draw other noise below another path"));
    }
    let cx = first.context(BATCH);
    let values = first.typical(BATCH, 56);
    let (y, mut log_det) = first.forward(item, &values, &cx)?;
    let (z, own) = second.forward(item, &y, &cx)?;
    log_det.iter_mut().zip(own).for_each(|(sum, own)| *sum += own);
    let cotangent = Loss::new(values.len(), BATCH).cotangent(&second, &z);
    let (x, y_tensor) = (first.tensor(&values), first.tensor(&y));
    let (dy, for_second) = second.run(item, pull_at(&second.bijector, y_tensor, cotangent.clone(), &cx))?;
    let through = Cotangent { value: first.tensor(&dy), log_det: cotangent.log_det.clone() };
    let (dx, for_first) = first.run(item, pull_at(&first.bijector, x.clone(), through, &cx))?;

    let fails = |error: FlowError| subject.fails(item, error.to_string());
    let mut again = first.movable.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    load(&mut again, &save(&first.bijector)).map_err(fails)?;
    let twice = InverseOf::new(InverseOf::new(again)).forward(x.clone(), &cx).map_err(fails)?;
    let tolerance = subject.solved(1e-11);
    subject.close(item, "the inverse of the inverse", &to_host(&twice.value), &y, tolerance * size(&y), 0.0)?;

    let both = Then::new(first.bijector, second.bijector, &(1_usize, subject.dim)).map_err(fails)?;
    let mapped = both.forward(x.clone(), &cx).map_err(fails)?;
    subject.close(item, "value of two", &to_host(&mapped.value), &z, tolerance * size(&z), 0.0)?;
    subject.close(item, "log-det of two", &to_host(&mapped.log_det.value), &log_det, tolerance * size(&log_det), 0.0)?;
    let (own_dx, own) = pull_at(&both, x, cotangent, &cx).map_err(fails)?;
    let gradients = [for_first, for_second].concat();
    subject.close(item, "∂L/∂x through two", &own_dx, &dx, tolerance * size(&dx), 0.0)?;
    subject.close(item, "gradients of the parameters of two", &own, &gradients, tolerance * size(&gradients), 0.0)?;
    Ok(None)
}
