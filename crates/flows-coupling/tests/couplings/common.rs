//! What the tests of this crate share: couplings from RON, with parameters away from their start.

use dfdx::prelude::*;
use flow_api::bijector::{Cotangent, Point};
use flow_api::context::Kernels;
use flow_api::module::{EntryMut, update};
use flow_api::rows::{RowChain, Rows};
use flow_api::spec::{BuildScope, FlowSpec, SpecError, SpecScalar, from_ron};
use flow_api::{Bijector, Context, Gradients, Memory, Scalar, Tensor, to_host};
use flow_kernels::noise::Stream;
use flows_coupling as _;

pub(crate) type Flow<E> = Rows<RowChain<E>>;
pub(crate) type Batch<E> = Tensor<(usize, usize), E>;

pub(crate) fn try_build<E: SpecScalar>(ron: &str, dim: usize, index: usize) -> Result<Flow<E>, SpecError> {
    seeded(ron, dim, index, 5)
}

pub(crate) fn seeded<E: SpecScalar>(ron: &str, dim: usize, index: usize, seed: u64) -> Result<Flow<E>, SpecError> {
    let spec: FlowSpec = from_ron(ron)?;
    let flow = E::row_flow(&spec, dim, &BuildScope::new(seed).at(index))?;
    Ok(Rows(RowChain::new(dim, vec![flow])?))
}

/// A coupling whose parameters are all moved by `amount` times a standard normal number.
pub(crate) fn build<E: SpecScalar>(ron: &str, dim: usize, index: usize, amount: f64) -> Flow<E> {
    let mut flow = try_build(ron, dim, index).unwrap();
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

/// ∂L/∂y and ∂L/∂log-det of a loss with fixed random weights.
fn weights<E: Scalar>(rows: usize, dim: usize) -> Cotangent<(usize, usize), E> {
    Cotangent { value: batch(normal(rows * dim, "w"), dim), log_det: E::tensor(normal(rows, "v"), (rows,)) }
}

/// ∂L/∂x and the gradients of all parameters, from what `memory` leaves.
pub(crate) fn pull<E: SpecScalar>(flow: &Flow<E>, x: &Batch<E>, memory: Memory, cx: &Context<E>) -> (Vec<E>, Vec<E>) {
    let (rows, dim) = *x.shape();
    let at = match memory {
        Memory::Store => Point::Kept(flow.forward_keeping(x.clone(), cx).unwrap().1),
        Memory::Recompute => Point::Input(x.clone()),
        Memory::Invert => Point::Output(flow.forward(x.clone(), cx).unwrap().value),
    };
    let mut gradients = Gradients::zeros(flow);
    let pulled = flow.pullback(at, weights(rows, dim), &mut gradients, cx).unwrap();
    assert_eq!(gradients.untouched().count(), 0);
    (to_host(&pulled.cotangent), gradients.values().to_vec())
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
