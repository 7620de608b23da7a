//! Saving, loading, seeds, threads and errors.

use super::bench::{BATCH, Bench, Values};
use super::gradients::{Derivatives, Loss, pull};
use super::{Checked, Failure, Flat, Item};
use crate::bijector::{Cotangent, Point};
use crate::log_det::LogDetKind;
use crate::module::{EntryMut, Saved, State, load, save, update, visit};
use crate::rows::BLOCK_LANES;
use crate::{FlowError, Gradients, Memory, Scalar as _, to_host};

/// State that is saved from one instance and loaded into another, built from another seed, is that very state there and
/// gives bit-equal results; a state that does not fit changes nothing; no two entries share a path; what is derived
/// from parameters follows those that are loaded.
pub(super) fn round_trip<B: Flat>(bench: &Bench<'_, B>, other: &Bench<'_, B>, item: Item) -> Checked {
    let state = save(&bench.bijector);
    let mut entries = 0;
    visit(&bench.bijector, |_, _| entries += 1);
    if entries != state.len() {
        return Err(bench.failure(item, format!("{entries} entries under {} paths", state.len())));
    }
    let mut copy = other.movable.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(path) = state.keys().next().cloned() {
        let before = save(&*copy);
        let mut wrong = state.clone();
        wrong.remove(&path);
        wrong.insert("no.such.path".to_owned(), Saved::Flag(true));
        match load(&mut *copy, &wrong) {
            Err(FlowError::State(mismatch)) if mismatch.missing == [path] && mismatch.unexpected == ["no.such.path"] => {}
            other => return Err(bench.failure(item, format!("a wrong state: expected every difference, got {other:?}"))),
        }
        if save(&*copy) != before {
            return Err(bench.failure(item, "a state that does not fit changed the bijection"));
        }
    }
    bench.run(item, load(&mut *copy, &state))?;
    if save(&*copy) != state {
        return Err(bench.failure(item, "loading does not leave the state that was loaded"));
    }
    let (x, cx) = (bench.typical(BATCH, 60), bench.context(BATCH));
    let loaded = bench.run(item, copy.forward(bench.tensor(&x), &cx))?;
    let host = |mapped: crate::bijector::Mapped<(usize, usize), f64>| -> Values {
        (crate::to_host(&mapped.value), crate::to_host(&mapped.log_det.value))
    };
    bench.subject.same(item, "f(x) of a loaded instance", &host(loaded), &bench.forward(item, &x, &cx)?)?;
    if bench.has_inverse() {
        let back = bench.run(item, copy.inverse(bench.tensor(&x), &cx))?;
        bench.subject.same(item, "f⁻¹(x) of a loaded instance", &host(back), &bench.inverse(item, &x, &cx)?)?;
    }
    derived_state_follows(bench, &mut *copy, &save(&other.bijector), item)?;
    Ok(None)
}

/// Parameters that are loaded beside what was derived from others leave the same state as those that are set in the
/// running instance.
fn derived_state_follows<B: Flat>(bench: &Bench<'_, B>, copy: &mut B, other: &State<f64>, item: Item) -> Result<(), Failure> {
    let state = save(&*copy);
    let foreign = |path: &str| match other.get(path) {
        Some(Saved::Parameter { values, .. }) => Some(values),
        _ => None,
    };
    let set = update(copy, |path, entry| {
        if let (EntryMut::Parameter { values, .. }, Some(new)) = (entry, foreign(path)) {
            values.copy_from_slice(new);
        }
    });
    bench.run(item, set)?;
    let expected = save(&*copy);
    let mut edited = state.clone();
    for (path, entry) in &mut edited {
        if let (Saved::Parameter { values, .. }, Some(new)) = (entry, foreign(path)) {
            values.clone_from(new);
        }
    }
    bench.run(item, load(copy, &state))?;
    bench.run(item, load(copy, &edited))?;
    if save(&*copy) != expected {
        return Err(bench.failure(item, "loaded parameters beside state of others: the state is not that of the parameters"));
    }
    Ok(())
}

/// Everything that a call gives, for comparisons to the bit: f(x), f⁻¹(x), and the gradients of a loss.
fn everything<B: Flat>(bench: &Bench<'_, B>, rows: usize, item: Item) -> Result<[Values; 3], Failure> {
    let (x, cx) = (bench.typical(rows, 61), bench.context(rows));
    let Derivatives { input, condition, gradients } = pull(bench, item, &Loss::new(x.len(), rows), &x, &cx, Memory::Store)?;
    let inverse = if bench.has_inverse() { bench.inverse(item, &x, &cx)? } else { (Vec::new(), Vec::new()) };
    Ok([bench.forward(item, &x, &cx)?, inverse, ([input, condition].concat(), gradients.values().to_vec())])
}

/// All results agree to the bit.
fn same<B: Flat>(bench: &Bench<'_, B>, item: Item, what: &str, got: &[Values; 3], expected: &[Values; 3]) -> Result<(), Failure> {
    for ((got, expected), part) in got.iter().zip(expected).zip(["f(x)", "f⁻¹(x)", "gradients"]) {
        bench.subject.same(item, &format!("{what}: {part}"), got, expected)?;
    }
    Ok(())
}

/// Two instances of one seed are one, bit for bit, as are two calls; estimates of two seeds differ.
pub(super) fn determinism<B: Flat>(bench: &Bench<'_, B>, twin: &Bench<'_, B>, item: Item) -> Checked {
    let first = everything(bench, BATCH, item)?;
    same(bench, item, "a second call", &everything(bench, BATCH, item)?, &first)?;
    same(bench, item, "a second instance", &everything(twin, BATCH, item)?, &first)?;
    if bench.bijector.facts().log_det == LogDetKind::Estimate {
        let x = bench.typical(BATCH, 61);
        let at = |step| bench.run(item, bench.bijector.forward(bench.tensor(&x), &bench.context(BATCH).at_step(step)));
        let [here, later] = [at(1)?.log_det, at(2)?.log_det];
        // In one dimension an estimate can be exact, and say so.
        let spread = here.standard_error.as_ref().map(to_host).unwrap_or_default().into_iter().fold(0.0, f64::max);
        if spread > 1e-9 && to_host(&here.value) == to_host(&later.value) {
            return Err(bench.failure(item, "estimates of two steps have the same noise"));
        }
    }
    Ok(None)
}

/// Four threads that share an instance see the same results, and so do thread pools of 1, 2 and 3 threads.
pub(super) fn threads<B: Flat + Send + Sync>(bench: &Bench<'_, B>, item: Item) -> Checked {
    // Enough for several groups of blocks.
    let rows = if bench.subject.dim > BLOCK_LANES { BATCH } else { 5 * BLOCK_LANES };
    let alone = everything(bench, rows, item)?;
    let shared: Vec<_> = std::thread::scope(|scope| {
        let handles: Vec<_> = (0..4).map(|_| scope.spawn(|| everything(bench, rows, item))).collect();
        handles.into_iter().map(|handle| handle.join().unwrap_or_else(|_| Err(bench.failure(item, "a thread panicked")))).collect()
    });
    for result in shared {
        same(bench, item, "in one of four threads", &result?, &alone)?;
    }
    for count in [1, 2, 3] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(count).build().map_err(|e| bench.failure(item, e.to_string()))?;
        same(bench, item, &format!("with {count} threads"), &pool.install(|| everything(bench, rows, item))?, &alone)?;
    }
    Ok(None)
}

/// A sample of another size is a typed error, and so is a pullback of which any part is of another size or batch.
pub(super) fn wrong_shapes<B: Flat>(bench: &Bench<'_, B>, item: Item) -> Checked {
    let [right, wide, more] = [(0, 0), (0, 1), (1, 0)].map(|(rows, numbers)| (BATCH + rows, bench.subject.dim + numbers));
    let tensor = |shape: (usize, usize)| f64::tensor(vec![0.1; shape.0 * shape.1], shape);
    let cx = bench.context(BATCH);
    let mut calls = vec![
        ("output_shape", bench.bijector.output_shape(&wide).err()),
        ("forward", bench.bijector.forward(tensor(wide), &cx).err()),
        ("inverse", bench.bijector.inverse(tensor(wide), &cx).err()),
    ];
    let mut gradients = Gradients::zeros(&bench.bijector);
    for point in [Point::Input, Point::Output] {
        for (what, x, value, samples) in [
            ("pullback of wide samples", wide, wide, BATCH),
            ("pullback at wide samples", wide, right, BATCH),
            ("pullback of wide ∂L/∂y", right, wide, BATCH),
            ("pullback at samples of another batch", more, right, BATCH),
            ("pullback of ∂L/∂y of another batch", right, more, BATCH),
            ("pullback of ∂L/∂log|det J| of another batch", right, right, BATCH + 1),
        ] {
            let cotangent = Cotangent { value: tensor(value), log_det: f64::tensor(vec![0.1; samples], (samples,)) };
            calls.push((what, bench.bijector.pullback(point(tensor(x)), cotangent, &mut gradients, &cx).err()));
        }
    }
    for (call, error) in calls {
        match error {
            Some(FlowError::Shape { .. } | FlowError::Composition { .. }) => {}
            // The condition is that of the right batch.
            Some(FlowError::Condition { .. }) if bench.subject.condition.is_some() => {}
            Some(other) => return Err(bench.failure(item, format!("{call}: expected a shape error, got: {other}"))),
            None => return Err(bench.failure(item, format!("{call}: taken without an error"))),
        }
    }
    Ok(None)
}
