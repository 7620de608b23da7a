//! Saving, loading, seeds, threads and errors.

use super::{BATCH, Bench, Failure, Flat};
use crate::{FlowError, Saved, load, save};
use dfdx::prelude::TensorFromVec;

/// State that is saved from one instance and loaded into another, built from another seed, gives bit-equal results; a state that does not fit changes nothing.
pub(super) fn round_trip<B: Flat>(bench: &Bench<'_, B>, other: &Bench<'_, B>) -> Result<(), Failure> {
    const ITEM: &str = "state";
    let state = save(&bench.bijector);
    let mut copy = other.movable.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(path) = state.keys().next().cloned() {
        let before = save(&*copy);
        let mut wrong = state.clone();
        wrong.remove(&path);
        wrong.insert("no.such.path".to_owned(), Saved::Flag(true));
        match load(&mut *copy, &wrong) {
            Err(FlowError::State(mismatch)) if mismatch.missing == [path] && mismatch.unexpected == ["no.such.path"] => {}
            other => return Err(bench.failure(ITEM, format!("a wrong state: expected every difference, got {other:?}"))),
        }
        if save(&*copy) != before {
            return Err(bench.failure(ITEM, "a state that does not fit changed the bijection"));
        }
    }
    bench.run(ITEM, load(&mut *copy, &state))?;
    let x = bench.inputs(BATCH, 60, bench.subject.spread);
    let cx = bench.context(BATCH);
    let (y, l) = bench.forward(ITEM, &x, &cx)?;
    let loaded = bench.run(ITEM, copy.forward(bench.tensor(&x), &cx))?;
    let back = bench.run(ITEM, copy.inverse(bench.tensor(&x), &cx))?;
    let (z, m) = bench.inverse(ITEM, &x, &cx)?;
    let same = |a: &[f64], b: &[f64]| a.iter().map(|v| v.to_bits()).eq(b.iter().map(|v| v.to_bits()));
    let host = |t: &dfdx::prelude::Tensor<(usize,), f64, dfdx::prelude::Cpu>| crate::to_host(t);
    let equal = same(&y, &crate::to_host(&loaded.value))
        && same(&l, &host(&loaded.log_det.value))
        && same(&z, &crate::to_host(&back.value))
        && same(&m, &host(&back.log_det.value));
    if equal { Ok(()) } else { Err(bench.failure(ITEM, "a loaded instance differs from the saved one")) }
}

/// Two instances of one seed are one, bit for bit.
pub(super) fn determinism<B: Flat>(bench: &Bench<'_, B>, twin: &Bench<'_, B>) -> Result<(), Failure> {
    const ITEM: &str = "determinism";
    let x = bench.inputs(BATCH, 61, bench.subject.spread);
    let cx = bench.context(BATCH);
    if bench.forward(ITEM, &x, &cx)? == twin.forward(ITEM, &x, &cx)? {
        Ok(())
    } else {
        Err(bench.failure(ITEM, "two instances of one seed differ"))
    }
}

/// Four threads that share an instance see the same results, and so do thread pools of 1, 2 and 3 threads.
pub(super) fn threads<B: Flat + Send + Sync>(bench: &Bench<'_, B>) -> Result<(), Failure> {
    const ITEM: &str = "threads";
    let rows = 5 * crate::BLOCK_LANES;
    let x = bench.inputs(rows, 62, bench.subject.spread);
    let cx = bench.context(rows);
    let alone = bench.forward(ITEM, &x, &cx)?;
    let shared: Vec<_> = std::thread::scope(|scope| {
        let handles: Vec<_> = (0..4).map(|_| scope.spawn(|| bench.forward(ITEM, &x, &cx))).collect();
        handles.into_iter().map(|handle| handle.join().unwrap_or_else(|_| Err(bench.failure(ITEM, "a thread panicked")))).collect()
    });
    for result in shared {
        if result? != alone {
            return Err(bench.failure(ITEM, "a thread saw another result"));
        }
    }
    for count in [1, 2, 3] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(count).build().map_err(|e| bench.failure(ITEM, e.to_string()))?;
        if pool.install(|| bench.forward(ITEM, &x, &cx))? != alone {
            return Err(bench.failure(ITEM, format!("{count} threads give another result")));
        }
    }
    Ok(())
}

/// A sample of another size is a typed error.
pub(super) fn wrong_shapes<B: Flat>(bench: &Bench<'_, B>) -> Result<(), Failure> {
    const ITEM: &str = "wrong shapes";
    let shape = (BATCH, bench.subject.dim + 1);
    let wrong = bench.device.tensor_from_vec(vec![0.1; shape.0 * shape.1], shape);
    let cx = bench.context(BATCH);
    for (call, result) in [("forward", bench.bijector.forward(wrong.clone(), &cx)), ("inverse", bench.bijector.inverse(wrong, &cx))] {
        match result {
            Err(FlowError::Shape { .. } | FlowError::Composition { .. }) => {}
            Err(other) => return Err(bench.failure(ITEM, format!("{call}: expected a shape error, got: {other}"))),
            Ok(_) => return Err(bench.failure(ITEM, format!("{call} takes samples of {} numbers", shape.1))),
        }
    }
    Ok(())
}
