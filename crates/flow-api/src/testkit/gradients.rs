//! Gradients against finite differences, and under all memory settings.

use super::{BATCH, Bench, Failure, Flat, both_kernels};
use crate::{Context, Cotangent, Entry, EntryMut, Gradients, Memory, Point, update, visit};
use dfdx::prelude::{Cpu, TensorFromVec};

/// Coordinates of each parameter and of x that are compared with differences.
const PROBED: usize = 6;

/// A loss that sees all of y and the log-det: L = Σ wᵢ yᵢ + ½ yᵢ² sin(i) + Σ vᵦ log|det J|ᵦ.
struct Loss {
    weights: Vec<f64>,
    log_det: Vec<f64>,
}

impl Loss {
    fn new(len: usize, batch: usize) -> Self {
        Self { weights: super::normal(len, 50), log_det: super::normal(batch, 51) }
    }

    fn curvature(i: usize) -> f64 {
        (i as f64).sin()
    }

    fn value(&self, y: &[f64], log_det: &[f64]) -> f64 {
        let values: f64 = y.iter().zip(&self.weights).enumerate().map(|(i, (y, w))| w * y + 0.5 * y * y * Self::curvature(i)).sum();
        values + log_det.iter().zip(&self.log_det).map(|(l, v)| l * v).sum::<f64>()
    }

    fn cotangent(&self, y: &[f64], device: &Cpu, shape: (usize, usize)) -> Cotangent<(usize, usize), f64, Cpu> {
        let value = y.iter().zip(&self.weights).enumerate().map(|(i, (y, w))| w + y * Self::curvature(i)).collect();
        Cotangent { value: device.tensor_from_vec(value, shape), log_det: device.tensor_from_vec(self.log_det.clone(), (shape.0,)) }
    }
}

/// Parameter gradients and ∂L/∂x at one point.
fn pull<B: Flat>(
    bench: &Bench<'_, B>,
    item: &'static str,
    x: &[f64],
    cx: &Context<f64, Cpu>,
    point: Memory,
) -> Result<(Vec<f64>, Gradients<f64>), Failure> {
    let loss = Loss::new(x.len(), BATCH);
    let mut gradients = Gradients::zeros(&bench.bijector);
    let (mapped, kept) = bench.run(item, bench.bijector.forward_keeping(bench.tensor(x), cx))?;
    let y = crate::to_host(&mapped.value);
    let cotangent = loss.cotangent(&y, &bench.device, (BATCH, bench.subject.dim));
    let at = match point {
        Memory::Store => Point::Kept(kept),
        Memory::Recompute => Point::Input(bench.tensor(x)),
        Memory::Invert => Point::Output(mapped.value),
    };
    let pulled = bench.run(item, bench.bijector.pullback(at, cotangent, &mut gradients, cx))?;
    if pulled.input.is_none() && point != Memory::Store {
        return Err(bench.failure(item, "a pullback from the input or the output gives no input"));
    }
    if let Some(input) = pulled.input {
        bench.close(item, "the recovered input", &crate::to_host(&input), x, bench.subject.round_trip() * 10.0, 0.0)?;
    }
    Ok((crate::to_host(&pulled.cotangent), gradients))
}

/// Every parameter receives a gradient, and gradients are those of differences, the log-det's share included.
pub(super) fn gradients<B: Flat>(bench: &Bench<'_, B>) -> Result<(), Failure> {
    const ITEM: &str = "gradients";
    let x = bench.inputs(BATCH, 52, bench.subject.spread);
    let cx = bench.context(BATCH);
    let loss = Loss::new(x.len(), BATCH);
    let (dx, gradients) = pull(bench, ITEM, &x, &cx, Memory::Store)?;
    if let Some(path) = gradients.untouched().next() {
        return Err(bench.failure(ITEM, format!("parameter `{path}` receives no gradient")));
    }
    if let Some((path, _)) = gradients.iter().find(|(_, g)| g.iter().any(|g| !g.is_finite())) {
        return Err(bench.failure(ITEM, format!("gradient of `{path}` is not finite")));
    }
    let value = |bijector: &B, x: &[f64]| -> Result<f64, Failure> {
        let mapped = bench.run(ITEM, bijector.forward(bench.tensor(x), &cx))?;
        Ok(loss.value(&crate::to_host(&mapped.value), &crate::to_host(&mapped.log_det.value)))
    };
    // A tolerance for what differences of this loss can resolve.
    let size = value(&bench.bijector, &x)?.abs().max(1.0);
    let step = 1e-5;
    let tolerance = 1e-5_f64.max(2e-10 * size / step);
    for at in spread_over(x.len()) {
        let shifted = |sign: f64| {
            let mut moved = x.clone();
            moved[at] += sign * step;
            value(&bench.bijector, &moved)
        };
        let expected = (shifted(1.0)? - shifted(-1.0)?) / (2.0 * step);
        bench.close(ITEM, &format!("∂L/∂x[{at}]"), &[dx[at]], &[expected], tolerance, 1e-5)?;
    }
    parameters(bench, &gradients, &value, &x, step, tolerance)
}

/// Indices spread evenly over `0..len`.
fn spread_over(len: usize) -> Vec<usize> {
    let count = PROBED.min(len);
    (0..count).map(|k| k * len / count).collect()
}

/// Differences in single parameters of a copy whose state is written and put back.
fn parameters<B: Flat>(
    bench: &Bench<'_, B>,
    gradients: &Gradients<f64>,
    value: &impl Fn(&B, &[f64]) -> Result<f64, Failure>,
    x: &[f64],
    step: f64,
    tolerance: f64,
) -> Result<(), Failure> {
    let mut copy = bench.movable.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let state = crate::save(&bench.bijector);
    bench.run("gradients", crate::load(&mut *copy, &state))?;
    let mut names = Vec::new();
    visit(&bench.bijector, |path, entry| {
        if let Entry::Parameter { values, .. } = entry {
            names.push((path.to_owned(), values.len()));
        }
    });
    for (path, len) in names {
        let own = bench.run("gradients", gradients.get(&path))?;
        for at in spread_over(len) {
            let mut shifted = |by: f64| -> Result<f64, Failure> {
                let moved = update(&mut *copy, |name, entry| {
                    if let (true, EntryMut::Parameter { values, .. }) = (name == path, entry) {
                        values[at] += by;
                    }
                });
                bench.run("gradients", moved)?;
                value(&copy, x)
            };
            let up = shifted(step)?;
            let down = shifted(-2.0 * step)?;
            shifted(step)?;
            let expected = (up - down) / (2.0 * step);
            bench.close("gradients", &format!("∂L/∂{path}[{at}]"), &[own[at]], &[expected], tolerance, 1e-5)?;
        }
    }
    Ok(())
}

/// From what was kept, from the input and from the output, with fused and with plain kernels: the same gradients.
pub(super) fn memory_settings<B: Flat>(bench: &Bench<'_, B>) -> Result<(), Failure> {
    const ITEM: &str = "memory settings";
    let x = bench.inputs(BATCH, 53, bench.subject.spread);
    let cx = bench.context(BATCH);
    let (dx, reference) = pull(bench, ITEM, &x, &cx, Memory::Store)?;
    let size = reference.values().iter().chain(&dx).fold(1.0_f64, |m, v| m.max(v.abs()));
    let tolerance = bench.subject.inverse_tolerance.map_or(1e-8, |t| (1e3 * t).max(1e-8)) * size;
    for kernels in both_kernels(&cx) {
        for memory in [Memory::Store, Memory::Recompute, Memory::Invert] {
            for point in [Memory::Store, Memory::Recompute, Memory::Invert] {
                let (own, gradients) = pull(bench, ITEM, &x, &kernels.clone().with_memory(memory), point)?;
                let what = format!("{memory:?}, from {}", ["what was kept", "the input", "the output"][point as usize]);
                bench.close(ITEM, &format!("∂L/∂x, {what}"), &own, &dx, tolerance, 0.0)?;
                bench.close(ITEM, &format!("parameters' gradients, {what}"), gradients.values(), reference.values(), tolerance, 0.0)?;
            }
        }
    }
    Ok(())
}
