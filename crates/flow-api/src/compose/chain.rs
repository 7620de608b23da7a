//! Composition of any number of bijections of one shape, as specs make it.

use super::then::meets;
use crate::to_host;
use crate::{
    Bijector, BoxBijector, Context, Cotangent, FlowDevice, Gradients, InverseKind, Kept, LayerInfo, LogDetKind, Mapped, Memory, Point,
    Pulled, Result, Scalar, SolveReport,
    bijector::{foreign_point, leads_to, one_condition},
    log_det::LogDet,
    recorded::check_cotangent,
};
use crate::{Module, Visitor, VisitorMut};
use dfdx::prelude::{HasShape, Shape, Tensor};

/// Bijections of tensors of shape `X` one after the other; their paths are `0.…`, `1.…`, ….
///
/// What a training pass keeps between its two sweeps is the context's [`Memory`]: everything that layers want, their inputs, or nothing but the
/// output of the chain and the inputs of layers whose inverse is iterative.
///
/// ```
/// use flow_api::dfdx::prelude::*;
/// use flow_api::layers::{LuLinear, Permutation};
/// use flow_api::{Bijector, BoxBijector, Chain, Context, Rows, to_host};
/// type Layer = BoxBijector<(usize, usize), (usize, usize), f64, Cpu>;
/// let device = Cpu::default();
/// let layers: Vec<Layer> = vec![
///     Box::new(Rows(Permutation::new(vec![1, 2, 0], device.clone())?)),
///     Box::new(Rows(LuLinear::new(3, &device))),
///     Box::new(Rows(Permutation::new(vec![1, 2, 0], device.clone())?)),
/// ];
/// let chain = Chain::new(layers, &(1, 3))?;
/// let x = device.tensor_from_vec(vec![1.0, 2.0, 3.0], (1, 3));
/// let y = chain.forward(x, &Context::new(0))?.value;
/// assert_eq!(to_host(&y), [3.0, 1.0, 2.0]);
/// assert_eq!(to_host(&chain.inverse(y, &Context::new(0))?.value), [1.0, 2.0, 3.0]);
/// # Ok::<(), flow_api::FlowError>(())
/// ```
pub struct Chain<X: Shape, E: Scalar, D: FlowDevice<E>> {
    layers: Vec<BoxBijector<X, X, E, D>>,
}

impl<X: Shape, E: Scalar, D: FlowDevice<E>> Chain<X, E, D> {
    /// Composes `layers` and checks that their sizes meet for inputs of shape `input`.
    ///
    /// # Errors
    /// [`FlowError::Composition`](crate::FlowError::Composition) naming both layers, [`FlowError::Condition`](crate::FlowError::Condition) for two that take
    /// conditions of different widths.
    pub fn new(layers: Vec<BoxBijector<X, X, E, D>>, input: &X) -> Result<Self> {
        let mut shape = *input;
        let mut before = "the input".to_owned();
        for (i, layer) in layers.iter().enumerate() {
            shape = meets(&before, &shape, layer.as_ref())?;
            before = format!("{i} ({})", layer.kind());
        }
        one_condition(layers.iter().map(|layer| (layer.kind(), layer.condition_width())))?;
        Ok(Self { layers })
    }

    /// The layers in order.
    pub fn layers(&self) -> &[BoxBijector<X, X, E, D>] {
        &self.layers
    }
}

/// What was kept of one layer.
enum Trace<X: Shape, E: Scalar, D: FlowDevice<E>> {
    Kept(Kept),
    Input(Tensor<X, E, D>),
    /// To be inverted from the output of the layer.
    Nothing,
}

struct ChainTrace<X: Shape, E: Scalar, D: FlowDevice<E>> {
    layers: Vec<Trace<X, E, D>>,
    output: Tensor<X, E, D>,
}

impl<X: Shape, E: Scalar, D: FlowDevice<E>> Module<E> for Chain<X, E, D> {
    fn visit<'m>(&'m self, visitor: &mut Visitor<'_, 'm, E>) {
        self.layers.visit(visitor);
    }
    fn visit_mut<'m>(&'m mut self, visitor: &mut VisitorMut<'_, 'm, E>) {
        self.layers.visit_mut(visitor);
    }
    fn refresh(&mut self) -> Result<()> {
        self.layers.refresh()
    }
}

fn identity<X: Shape, E: Scalar, D: FlowDevice<E>>(x: Tensor<X, E, D>) -> Mapped<X, E, D> {
    let log_det = LogDet::zero(x.device(), x.shape().concrete()[0]);
    Mapped { value: x, log_det, report: SolveReport::default() }
}

impl<X: Shape, E: Scalar, D: FlowDevice<E>> Bijector<X, E, D> for Chain<X, E, D> {
    type Out = X;

    fn kind(&self) -> &'static str {
        "Chain"
    }

    fn output_shape(&self, input: &X) -> Result<X> {
        self.layers.iter().try_fold(*input, |shape, layer| layer.output_shape(&shape))
    }

    fn forward(&self, x: Tensor<X, E, D>, cx: &Context<E, D>) -> Result<Mapped<X, E, D>> {
        self.layers.iter().enumerate().try_fold(identity(x), |so_far, (i, layer)| {
            let next = layer.forward(so_far.value.clone(), &cx.child(i))?;
            Ok(so_far.then(next))
        })
    }

    fn forward_until(&self, mut x: Tensor<X, E, D>, layer: &str, cx: &Context<E, D>) -> Result<Option<Vec<E>>> {
        for (i, part) in self.layers.iter().enumerate() {
            let cx = cx.child(i);
            if leads_to(cx.path(), layer) {
                return part.forward_until(x, layer, &cx);
            }
            x = part.forward(x, &cx)?.value;
        }
        Ok((cx.path() == layer).then(|| to_host(&x)))
    }

    fn inverse(&self, y: Tensor<X, E, D>, cx: &Context<E, D>) -> Result<Mapped<X, E, D>> {
        self.layers.iter().enumerate().rev().try_fold(identity(y), |so_far, (i, layer)| {
            let next = layer.inverse(so_far.value.clone(), &cx.child(i))?;
            Ok(so_far.then(next))
        })
    }

    fn forward_keeping(&self, x: Tensor<X, E, D>, cx: &Context<E, D>) -> Result<(Mapped<X, E, D>, Kept)> {
        let mut traces = Vec::with_capacity(self.layers.len());
        let mut so_far = identity(x);
        for (i, layer) in self.layers.iter().enumerate() {
            let (input, cx) = (so_far.value.clone(), cx.child(i));
            let keep_nothing = layer.inverse_kind() == InverseKind::ClosedForm;
            let (next, trace) = match cx.memory() {
                Memory::Store => {
                    let (next, kept) = layer.forward_keeping(input, &cx)?;
                    (next, Trace::Kept(kept))
                }
                Memory::Invert if keep_nothing => (layer.forward(input, &cx)?, Trace::Nothing),
                Memory::Recompute | Memory::Invert => (layer.forward(input.clone(), &cx)?, Trace::Input(input)),
            };
            traces.push(trace);
            so_far = so_far.then(next);
        }
        let trace = ChainTrace { layers: traces, output: so_far.value.clone() };
        Ok((so_far, Box::new(trace)))
    }

    fn pullback(
        &self,
        at: Point<X, X, E, D>,
        cotangent: Cotangent<X, E, D>,
        gradients: &mut Gradients<E>,
        cx: &Context<E, D>,
    ) -> Result<Pulled<X, E, D>> {
        // Layers that pull back from what they kept do not recover the input.
        let given = if let Point::Input(x) = &at { Some(x.clone()) } else { None };
        let ChainTrace { layers: traces, output } = match at {
            Point::Kept(kept) => *kept.downcast().map_err(|_| foreign_point(cx.path()))?,
            Point::Input(x) => *self.forward_keeping(x, cx)?.1.downcast().map_err(|_| foreign_point(cx.path()))?,
            Point::Output(output) => ChainTrace { layers: self.layers.iter().map(|_| Trace::Nothing).collect(), output },
        };
        check_cotangent(output.shape(), &cotangent, cx.layer(self.kind()))?;
        let log_det = cotangent.log_det.clone();
        let mut pulled = Pulled { input: Some(output), cotangent: cotangent.value };
        for ((i, layer), trace) in self.layers.iter().enumerate().zip(traces).rev() {
            let at = match trace {
                Trace::Kept(kept) => Point::Kept(kept),
                Trace::Input(x) => Point::Input(x),
                Trace::Nothing => Point::Output(pulled.input.ok_or_else(|| foreign_point(cx.path()))?),
            };
            let cotangent = Cotangent { value: pulled.cotangent, log_det: log_det.clone() };
            pulled = layer.pullback(at, cotangent, gradients, &cx.child(i))?;
        }
        Ok(Pulled { input: given.or(pulled.input), ..pulled })
    }

    fn initialise(&mut self, x: Tensor<X, E, D>, cx: &Context<E, D>) -> Result<Tensor<X, E, D>> {
        self.layers.iter_mut().enumerate().try_fold(x, |x, (i, layer)| layer.initialise(x, &cx.child(i)))
    }

    fn log_det_kind(&self) -> LogDetKind {
        self.layers.iter().fold(LogDetKind::Exact, |kind, layer| kind.and(layer.log_det_kind()))
    }

    fn inverse_kind(&self) -> InverseKind {
        self.layers.iter().fold(InverseKind::ClosedForm, |kind, layer| kind.and(layer.inverse_kind()))
    }

    fn condition_width(&self) -> Option<usize> {
        self.layers.iter().find_map(super::super::bijector::Bijector::condition_width)
    }

    fn multiply_adds(&self, input: &X) -> u64 {
        self.layers.iter().map(|layer| layer.multiply_adds(input)).sum()
    }

    fn describe(&self, path: &str, input: &X, table: &mut Vec<LayerInfo>) -> Result<()> {
        let mut shape = *input;
        for (i, layer) in self.layers.iter().enumerate() {
            let path = if path.is_empty() { i.to_string() } else { format!("{path}.{i}") };
            layer.describe(&path, &shape, table)?;
            shape = layer.output_shape(&shape)?;
        }
        Ok(())
    }
}

impl<X: Shape, E: Scalar, D: FlowDevice<E>> std::fmt::Debug for Chain<X, E, D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.layers.iter().map(super::super::bijector::Bijector::kind)).finish()
    }
}
