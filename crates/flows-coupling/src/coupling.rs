//! The coupling: one mechanism for every transformer.

use crate::Split;
use crate::split::Partition;
use crate::transformer::{PlainTransformer, Transformer};
use dfdx::prelude::*;
use flow_api::{
    Context, Direction, FlowDevice, FlowError, Lanes, Module, PlainRows, Pull, Result, RowFlow, RowKernel, RowTape, Scalar, Taped,
    TapedRows, module_fields,
};
use flow_kernels::simd::add;
use flow_nets::{Activation, ResidualMlp, ResidualMlpConfig, ResidualMlpKernel};

/// Sizes of a coupling's conditioner, a [`ResidualMlp`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Conditioner {
    /// Width of the hidden layers.
    pub hidden: usize,
    /// Residual blocks.
    pub blocks: usize,
    /// The nonlinearity.
    pub activation: Activation,
    /// Width of the condition, 0 without one.
    pub condition: usize,
}

/// A coupling on R^d: some features pass unchanged, a residual MLP of them (and of the condition) gives the numbers with which `T` moves the others one by one.
///
/// The Jacobian is triangular, so the log-det is the sum of the log-slopes of the moved features. The inverse costs what the forward map does, and a pullback from the output
/// runs the conditioner once, as one from the input does. Starts as the identity, because the conditioner starts as zero.
///
/// # Parameters
/// Those of the conditioner, below `net`.
///
/// ```
/// use flow_api::{Bijector, Context, Rows, to_host};
/// use flow_nets::Activation;
/// use flows_coupling::{Affine, Conditioner, Coupling, Split};
/// use dfdx::prelude::*;
/// let device = Cpu::default();
/// let net = Conditioner { hidden: 16, blocks: 1, activation: Activation::Relu, condition: 0 };
/// let coupling = Rows(Coupling::<_, f64, Cpu>::new(4, Split::Halves, false, Affine::new(2.0)?, net, 7, &device)?);
/// let x = device.tensor_from_vec(vec![0.1, 0.2, 0.3, 0.4], (1, Const::<4>));
/// let mapped = coupling.forward(x.clone(), &Context::new(0))?;
/// assert_eq!(to_host(&mapped.value), to_host(&x));
/// assert_eq!(to_host(&mapped.log_det.value), [0.0]);
/// # Ok::<(), flow_api::FlowError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Coupling<T, E: Scalar, D: FlowDevice<E>> {
    partition: Partition,
    net: ResidualMlp<E, D>,
    transformer: T,
}

impl<T: Transformer<E>, E: Scalar, D: FlowDevice<E>> Coupling<T, E, D> {
    /// A coupling on R^dim with initial parameters drawn from `seed`.
    ///
    /// # Errors
    /// [`FlowError::Setting`] for fewer than two features, or a conditioner of size zero.
    pub fn new(dim: usize, split: Split, flipped: bool, transformer: T, conditioner: Conditioner, seed: u64, device: &D) -> Result<Self> {
        let partition = split.partition(dim, flipped)?;
        let Conditioner { hidden, blocks, activation, condition } = conditioner;
        let outputs = transformer.numbers() * partition.moved.len();
        let config = ResidualMlpConfig { inputs: partition.kept.len(), condition, outputs, hidden, blocks, activation };
        let net = ResidualMlp::new(config, seed, device).map_err(|error| match error {
            FlowError::Setting { field, expected, got, .. } => {
                FlowError::Setting { layer: transformer.kind().to_owned(), field, expected, got }
            }
            other => other,
        })?;
        Ok(Self { partition, net, transformer })
    }
}

impl<T: Send + Sync, E: Scalar, D: FlowDevice<E>> Module<E> for Coupling<T, E, D> {
    module_fields!(E; child net);
}

struct Kernel<'a, T, E: Scalar> {
    partition: Partition,
    net: ResidualMlpKernel<'a, E>,
    transformer: &'a T,
}

impl<T: Transformer<E>, E: Scalar> RowKernel<E> for Kernel<'_, T, E> {
    fn forward(&self, values: &mut [E], lanes: &mut Lanes<'_, E>, tape: &mut RowTape<E>) -> Result<()> {
        let Partition { kept, moved } = self.partition;
        let numbers = kept.read(values, lanes.lanes, |kept| self.net.forward(kept, lanes.condition, lanes.lanes, tape))?;
        moved.update(values, lanes.lanes, |x| self.transformer.forward(x, numbers, lanes.log_det, tape));
        Ok(())
    }

    /// The conditioner runs forward in both.
    fn prepare_for(&self, _: Direction) {
        self.net.prepare_forward();
    }

    fn inverse(&self, values: &mut [E], lanes: &mut Lanes<'_, E>) -> Result<()> {
        self.inverse_keeping(values, lanes, &mut RowTape::idle())
    }

    fn pullback(&self, cotangent: &mut [E], pull: &Pull<'_, E>, tape: &mut RowTape<E>, sums: &mut [E]) -> Result<()> {
        let Partition { kept, moved } = self.partition;
        let numbers = moved.update(cotangent, pull.lanes, |g| self.transformer.pullback(g, pull.log_det, tape))?;
        let through_net = self.net.pullback(&numbers, pull.lanes, tape, sums)?;
        kept.update(cotangent, pull.lanes, |g| add(g, &through_net[..g.len()]));
        Ok(())
    }

    fn pullback_inverting(&self, values: &mut [E], cotangent: &mut [E], pull: &Pull<'_, E>, sums: &mut [E]) -> Result<()> {
        // The conditioner sees the same features from either side, so the inverse leaves the tape of the forward pass.
        let mut tape = RowTape::recording();
        pull.with_lanes(|lanes| self.inverse_keeping(values, lanes, &mut tape))?;
        self.pullback(cotangent, pull, &mut tape, sums)
    }

    fn sums_len(&self) -> usize {
        self.net.sums_len()
    }

    fn finish(&self, sums: &[E], _: E, gradients: &mut [E]) -> Result<()> {
        self.net.finish(sums, gradients);
        Ok(())
    }
}

impl<T: Transformer<E>, E: Scalar> Kernel<'_, T, E> {
    fn inverse_keeping(&self, values: &mut [E], lanes: &mut Lanes<'_, E>, tape: &mut RowTape<E>) -> Result<()> {
        let Partition { kept, moved } = self.partition;
        let numbers = kept.read(values, lanes.lanes, |kept| self.net.forward(kept, lanes.condition, lanes.lanes, tape))?;
        moved.update(values, lanes.lanes, |y| self.transformer.inverse(y, numbers, lanes.log_det, tape));
        Ok(())
    }
}

impl<T: Transformer<E>, E: Scalar, D: FlowDevice<E>> RowFlow<E, D> for Coupling<T, E, D> {
    fn kind(&self) -> &'static str {
        self.transformer.kind()
    }

    fn dim(&self) -> usize {
        self.partition.dim()
    }

    fn prepare<'a>(&'a self, rows: usize, _: &Context<E, D>) -> Result<Box<dyn RowKernel<E> + 'a>> {
        Ok(Box::new(Kernel { partition: self.partition, net: self.net.kernel(rows), transformer: &self.transformer }))
    }

    fn plain(&self) -> Option<&dyn PlainRows<E, D>> {
        self.transformer.plain::<D>().is_some().then_some(self)
    }

    fn condition_width(&self) -> Option<usize> {
        let width = self.net.config().condition;
        (width > 0).then_some(width)
    }

    fn multiply_adds(&self) -> u64 {
        self.net.multiply_adds()
    }
}

type Matrix<E, D, T> = Tensor<(usize, usize), E, D, T>;

impl<T: Transformer<E>, E: Scalar, D: FlowDevice<E>> Coupling<T, E, D> {
    fn plain_transformer(&self, cx: &Context<E, D>) -> Result<&dyn PlainTransformer<E, D>> {
        self.transformer.plain::<D>().ok_or_else(|| FlowError::Unsupported {
            layer: cx.path().to_owned(),
            operation: "plain kernels",
            reason: format!("{} runs on host row blocks alone", self.transformer.kind()),
        })
    }

    /// The columns that are kept and those that are moved.
    fn cut<P: Tape<E, D>>(&self, x: Matrix<E, D, P>) -> (Matrix<E, D, P>, Matrix<E, D, P>) {
        let Partition { kept, moved } = self.partition;
        let columns = x.permute::<_, Axes2<1, 0>>();
        (columns_at(columns.with_empty_tape(), kept.features()), columns_at(columns, moved.features()))
    }

    /// Both parts as they lie in a row.
    fn join<P: Tape<E, D> + Merge<P>>(&self, kept: Matrix<E, D, P>, moved: Matrix<E, D, P>) -> Matrix<E, D, P> {
        columns_at((kept, moved).concat_along(Axis::<1>).permute::<_, Axes2<1, 0>>(), self.partition.places().into_iter())
    }

    /// The conditioner's output for the kept columns.
    fn numbers(&self, kept: Taped<(usize, usize), E, D>, cx: &Context<E, D>) -> Result<Taped<(usize, usize), E, D>> {
        let Some(width) = RowFlow::<E, D>::condition_width(self) else { return Ok(self.net.forward_taped(kept)) };
        let rows = kept.shape().0;
        let condition = cx.condition().filter(|c| *c.shape() == (rows, width)).ok_or_else(|| FlowError::Condition {
            layer: cx.path().to_owned(),
            expected: format!("({rows}, {width})"),
            got: cx.condition().map_or("none".to_owned(), |c| format!("{:?}", c.shape())),
        })?;
        Ok(self.net.forward_taped((kept, condition.clone()).concat_along(Axis::<1>)))
    }
}

/// Rows of a transposed matrix as columns.
fn columns_at<E: Scalar, D: FlowDevice<E>, P: Tape<E, D>>(
    columns: Matrix<E, D, P>,
    features: impl Iterator<Item = usize>,
) -> Matrix<E, D, P> {
    let features: Vec<usize> = features.collect();
    let count = features.len();
    let features: Tensor<(usize,), usize, D> = columns.device().tensor_from_vec(features, (count,));
    columns.gather(features).permute::<_, Axes2<1, 0>>()
}

impl<T: Transformer<E>, E: Scalar, D: FlowDevice<E>> PlainRows<E, D> for Coupling<T, E, D> {
    fn forward_taped(&self, x: Taped<(usize, usize), E, D>, cx: &Context<E, D>) -> Result<TapedRows<E, D>> {
        let transformer = self.plain_transformer(cx)?;
        let (kept, moved) = self.cut(x);
        let numbers = self.numbers(kept.with_empty_tape(), cx)?;
        let (moved, log_det) = transformer.forward_taped(moved, numbers);
        Ok((self.join(kept, moved), log_det))
    }

    fn inverse(
        &self,
        y: Tensor<(usize, usize), E, D>,
        cx: &Context<E, D>,
    ) -> Result<(Tensor<(usize, usize), E, D>, Tensor<(usize,), E, D>)> {
        let transformer = self.plain_transformer(cx)?;
        let (kept, moved) = self.cut(y);
        let (numbers, _) = self.numbers(kept.clone().leaky_traced(), cx)?.split_tape();
        let (moved, log_det) = transformer.inverse(moved, numbers);
        Ok((self.join(kept, moved), log_det))
    }
}
