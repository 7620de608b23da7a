//! Row flows one after the other, run block by block in one pass.

use super::blocks::{BLOCK_LANES, HostCondition, finite};
use super::flow::RowFlow;
use super::kernel::{Direction, Lanes, Pull, RowKernel, RowTape};
use super::taped::TapedKernel;
use super::{AffineKernel, AffinePart};
use crate::bijector::{LayerInfo, leads_to, one_condition};
use crate::context::Kernels;
use crate::device::RowForm;
use crate::log_det::SolveReport;
use crate::module::parameter_count;
use crate::{Context, Facts, FlowError, Module, Result, Scalar, module_fields, shape_error};
use flow_kernels::workspace::Buffer;

/// Row flows of one dimension, composed; their paths are `0.…`, `1.…`, ….
///
/// A block of rows goes through all of them while it is in cache, and neighbouring affine maps are one matrix product.
pub struct RowChain<E: Scalar> {
    dim: usize,
    flows: Vec<Box<dyn RowFlow<E>>>,
}

impl<E: Scalar> RowChain<E> {
    /// Composes flows on R^dim.
    ///
    /// # Errors
    /// [`FlowError::Composition`] for a flow of another dimension, [`FlowError::Condition`] for two that take
    /// conditions of different widths.
    pub fn new(dim: usize, flows: Vec<Box<dyn RowFlow<E>>>) -> Result<Self> {
        let mut before = "the input".to_owned();
        for (i, flow) in flows.iter().enumerate() {
            let name = format!("{i} ({})", flow.facts().kind);
            if flow.dim() != dim {
                let (expected, got) = (format!("(batch, {})", flow.dim()), format!("(batch, {dim})"));
                return Err(FlowError::Composition { first: before, second: name, expected, got });
            }
            before = name;
        }
        one_condition(flows.iter().map(|flow| (flow.facts().kind, flow.facts().condition)))?;
        Ok(Self { dim, flows })
    }

    /// The flows in order.
    pub fn flows(&self) -> &[Box<dyn RowFlow<E>>] {
        &self.flows
    }
}

impl<E: Scalar> Module<E> for RowChain<E> {
    module_fields!(E; delegate flows);
}

struct Link<'a, E: Scalar> {
    path: String,
    parameters: usize,
    kernel: Box<dyn RowKernel<E> + 'a>,
}

struct ChainKernel<'a, E: Scalar>(Vec<Link<'a, E>>);

impl<E: Scalar> ChainKernel<'_, E> {
    /// The links from last to first, each with its own range of the sums.
    fn backwards<'s>(&self, sums: &'s mut [E]) -> impl Iterator<Item = (&Link<'_, E>, &'s mut [E])> {
        let mut rest = sums;
        let mut parts = Vec::with_capacity(self.0.len());
        for link in &self.0 {
            let (own, behind) = rest.split_at_mut(link.kernel.sums_len());
            parts.push(own);
            rest = behind;
        }
        self.0.iter().zip(parts).rev()
    }
}

impl<E: Scalar> RowKernel<E> for ChainKernel<'_, E> {
    fn forward(&self, values: &mut [E], lanes: &mut Lanes<'_, E>, tape: &mut RowTape<E>) -> Result<()> {
        self.0.iter().try_for_each(|Link { path, kernel, .. }| {
            kernel.forward(values, lanes, tape).and_then(|()| finite(lanes)).map_err(|e| e.in_layer(path))
        })
    }

    fn prepare_for(&self, direction: Direction) {
        self.0.iter().for_each(|link| link.kernel.prepare_for(direction));
    }

    fn inverse(&self, values: &mut [E], lanes: &mut Lanes<'_, E>) -> Result<()> {
        self.0.iter().rev().try_for_each(|Link { path, kernel, .. }| {
            kernel.inverse(values, lanes).and_then(|()| finite(lanes)).map_err(|e| e.in_layer(path))
        })
    }

    fn estimates(&self) -> bool {
        self.0.iter().any(|link| link.kernel.estimates())
    }

    fn pullback(&self, cotangent: &mut [E], pull: &mut Pull<'_, E>, tape: &mut RowTape<E>, sums: &mut [E]) -> Result<()> {
        self.backwards(sums)
            .try_for_each(|(Link { path, kernel, .. }, sums)| kernel.pullback(cotangent, pull, tape, sums).map_err(|e| e.in_layer(path)))
    }

    fn pullback_inverting(&self, values: &mut [E], cotangent: &mut [E], pull: &mut Pull<'_, E>, sums: &mut [E]) -> Result<()> {
        self.backwards(sums).try_for_each(|(Link { path, kernel, .. }, sums)| {
            kernel.pullback_inverting(values, cotangent, pull, sums).map_err(|e| e.in_layer(path))
        })
    }

    fn sums_len(&self) -> usize {
        self.0.iter().map(|link| link.kernel.sums_len()).sum()
    }

    fn finish(&self, mut sums: &[E], log_det: E, mut gradients: &mut [E]) -> Result<()> {
        for Link { path, parameters, kernel } in &self.0 {
            let (own_sums, later_sums) = sums.split_at(kernel.sums_len());
            let (own, later) = gradients.split_at_mut(*parameters);
            kernel.finish(own_sums, log_det, own).map_err(|e| e.in_layer(path))?;
            (sums, gradients) = (later_sums, later);
        }
        Ok(())
    }
}

impl<E: Scalar> RowFlow<E> for RowChain<E> {
    fn facts(&self) -> Facts {
        Facts::of("RowChain", self.flows.iter().map(|flow| flow.facts()))
    }

    fn dim(&self) -> usize {
        self.dim
    }

    fn prepare<'a>(&'a self, rows: usize, cx: &Context<E>) -> Result<Box<dyn RowKernel<E> + 'a>> {
        let mut links: Vec<Link<'a, E>> = Vec::with_capacity(self.flows.len());
        let mut at = 0;
        while let Some(flow) = self.flows.get(at) {
            let first = cx.child(at);
            let path = first.path().to_owned();
            if let Some(taped) = flow.taped().filter(|_| cx.kernels() == Kernels::Taped) {
                let kernel = Box::new(TapedKernel::new(taped, self.dim, flow.facts(), &first));
                links.push(Link { path, parameters: parameter_count(flow), kernel });
                at += 1;
                continue;
            }
            let mut parts = Vec::new();
            while let Some(flow) = self.flows.get(at + parts.len()) {
                let cx = cx.child(at + parts.len());
                let Some(map) = flow.affine(&cx).map_err(|e| e.in_layer(cx.path()))? else { break };
                parts.push(AffinePart { map, parameters: parameter_count(flow) });
            }
            let parameters = parts.iter().map(|part| part.parameters).sum();
            let mut parts = parts.into_iter();
            if let Some(part) = parts.next() {
                at += 1 + parts.len();
                links.push(Link { path, parameters, kernel: Box::new(AffineKernel::new(part, parts.collect())) });
            } else {
                at += 1;
                let kernel = flow.prepare(rows, &first).map_err(|e| e.in_layer(&path))?;
                links.push(Link { path, parameters: parameter_count(flow), kernel });
            }
        }
        Ok(Box::new(ChainKernel(links)))
    }

    fn prepare_until<'a>(&'a self, layer: &str, rows: usize, cx: &Context<E>) -> Result<Option<Box<dyn RowKernel<E> + 'a>>> {
        if cx.path() == layer {
            return self.prepare(rows, cx).map(Some);
        }
        let mut links = Vec::new();
        for (i, flow) in self.flows.iter().enumerate() {
            let cx = cx.child(i);
            let (path, parameters) = (cx.path().to_owned(), parameter_count(flow));
            if leads_to(cx.path(), layer) {
                let last = flow.prepare_until(layer, rows, &cx).map_err(|e| e.in_layer(cx.path()))?;
                links.extend(last.map(|kernel| Link { path, parameters, kernel }));
                return Ok((links.len() > i).then(|| Box::new(ChainKernel(links)) as Box<dyn RowKernel<E> + 'a>));
            }
            let kernel = flow.prepare(rows, &cx).map_err(|e| e.in_layer(cx.path()))?;
            links.push(Link { path, parameters, kernel });
        }
        Ok(None)
    }

    /// Neighbouring affine maps are one.
    fn device_form<'a>(&'a self, cx: &Context<E>) -> Result<Vec<RowForm<'a, E>>> {
        let (mut forms, mut run) = (Vec::new(), Vec::new());
        for (i, flow) in self.flows.iter().enumerate() {
            let cx = cx.child(i);
            for form in flow.device_form(&cx).map_err(|e| e.in_layer(cx.path()))? {
                match form {
                    RowForm::Affine { map, parameters } => run.push(AffinePart { map, parameters }),
                    other => {
                        forms.extend(product(std::mem::take(&mut run)));
                        forms.push(other);
                    }
                }
            }
        }
        forms.extend(product(run));
        Ok(forms)
    }

    fn initialise(&mut self, values: &[E], rows: usize, cx: &Context<E>) -> Result<()> {
        if values.len() != self.dim * rows {
            return Err(shape_error(cx.path(), "initialise", (rows, self.dim), values.len()));
        }
        let mut so_far = Buffer::copy_of(values);
        let condition = HostCondition::of_rows(cx, self.facts().condition, rows)?;
        for (i, flow) in self.flows.iter_mut().enumerate() {
            let cx = cx.child(i);
            flow.initialise(&so_far, rows, &cx).map_err(|e| e.in_layer(cx.path()))?;
            forward_in_blocks(flow.prepare(rows, &cx)?.as_ref(), &mut so_far, rows, condition.as_ref())
                .map_err(|e| e.in_layer(cx.path()))?;
        }
        Ok(())
    }

    fn describe(&self, path: &str, rows: usize, table: &mut Vec<LayerInfo>) {
        let dot = if path.is_empty() { "" } else { "." };
        for (i, flow) in self.flows.iter().enumerate() {
            flow.describe(&format!("{path}{dot}{i}"), rows, table);
        }
    }
}

/// Affine maps one after the other as one.
fn product<E: Scalar>(parts: Vec<AffinePart<'_, E>>) -> Option<RowForm<'_, E>> {
    let parameters = parts.iter().map(|part| part.parameters).sum();
    let mut parts = parts.into_iter();
    let first = parts.next()?;
    Some(RowForm::Affine { map: Box::new(AffineKernel::new(first, parts.collect())), parameters })
}

/// Runs a kernel over feature-major values of any number of rows, block by block; the condition has one vector a row.
fn forward_in_blocks<E: Scalar>(
    kernel: &dyn RowKernel<E>,
    values: &mut [E],
    rows: usize,
    condition: Option<&HostCondition<E>>,
) -> Result<()> {
    for first in (0..rows).step_by(BLOCK_LANES) {
        let lanes = BLOCK_LANES.min(rows - first);
        let mut block = Buffer::take(values.len() / rows * lanes);
        for (to, from) in block.chunks_exact_mut(lanes).zip(values.chunks_exact(rows)) {
            to.copy_from_slice(&from[first..first + lanes]);
        }
        let (mut log_det, mut variance) = (Buffer::zeroed(lanes), Buffer::zeroed(lanes));
        let condition = condition.map(|condition| condition.block(first, lanes));
        let mut bookkeeping = Lanes {
            lanes,
            first_row: first as u64,
            condition: condition.as_deref(),
            log_det: &mut log_det,
            variance: &mut variance,
            report: &mut SolveReport::default(),
        };
        kernel.forward(&mut block, &mut bookkeeping, &mut RowTape::idle())?;
        for (from, to) in block.chunks_exact(lanes).zip(values.chunks_exact_mut(rows)) {
            to[first..first + lanes].copy_from_slice(from);
        }
    }
    Ok(())
}

impl<E: Scalar> std::fmt::Debug for RowChain<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.flows.iter().map(|flow| flow.facts().kind)).finish()
    }
}
