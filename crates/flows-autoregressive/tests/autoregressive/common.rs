//! What the tests of this crate share: flows from RON, with parameters away from their start.

use flow_api::context::Kernels;
use flow_api::module::{EntryMut, update};
use flow_api::rows::{RowChain, Rows};
use flow_api::spec::{BuildScope, FlowSpec, SpecError, SpecScalar, from_ron};
use flow_api::{Context, Scalar, Tensor};
use flow_kernels::noise::Stream;
use flows_autoregressive as _;

pub(crate) type Flow<E> = Rows<RowChain<E>>;
pub(crate) type Batch<E> = Tensor<(usize, usize), E>;

pub(crate) fn seeded<E: SpecScalar>(ron: &str, dim: usize, seed: u64) -> Result<Flow<E>, SpecError> {
    let spec: FlowSpec = from_ron(ron)?;
    let flow = E::row_flow(&spec, dim, &BuildScope::new(seed))?;
    Ok(Rows(RowChain::new(dim, vec![flow])?))
}

/// A flow whose parameters are all moved by `amount` times a standard normal number.
pub(crate) fn build<E: SpecScalar>(ron: &str, dim: usize, amount: f64) -> Flow<E> {
    let mut flow = seeded(ron, dim, 5).unwrap();
    update(&mut flow, |path, entry| {
        if let EntryMut::Parameter { values, .. } = entry {
            let noise: Vec<f64> = normal(values.len(), path);
            values.iter_mut().zip(noise).for_each(|(value, n)| *value += E::of(amount * n));
        }
    })
    .unwrap();
    flow
}

/// Standard normal numbers that `name` decides.
pub(crate) fn normal<E: Scalar>(len: usize, name: &str) -> Vec<E> {
    let mut values = vec![0.0; len];
    Stream::new(3, 0, name).row(0).gaussian(&mut values);
    values.into_iter().map(E::of).collect()
}

pub(crate) fn batch<E: Scalar>(values: Vec<E>, dim: usize) -> Batch<E> {
    let rows = values.len() / dim;
    E::tensor(values, (rows, dim))
}

/// A context, with a condition where `width` says so.
pub(crate) fn context<E: Scalar>(rows: usize, width: Option<usize>, kernels: Kernels) -> Context<E> {
    let cx = Context::new(1).with_kernels(kernels);
    match width {
        Some(width) => cx.with_condition(batch(normal(rows * width, "condition"), width)),
        None => cx,
    }
}

/// The largest difference relative to the largest magnitude (at least 1).
pub(crate) fn difference<E: Scalar>(a: &[E], b: &[E]) -> f64 {
    assert_eq!(a.len(), b.len());
    let scale = b.iter().fold(1.0_f64, |largest, b| largest.max(b.as_f64().abs()));
    a.iter().zip(b).fold(0.0_f64, |largest, (a, b)| {
        let difference = (a.as_f64() - b.as_f64()).abs();
        if difference.is_nan() { f64::INFINITY } else { largest.max(difference) }
    }) / scale
}
