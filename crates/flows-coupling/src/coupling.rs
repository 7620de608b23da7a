//! The coupling: one mechanism for every transformer.

use crate::Split;
use crate::split::Partition;
use crate::transformer::{TapedTransformer, Transformer};
use dfdx::prelude::*;
use flow_api::{
    Context, Direction, Facts, FlowError, Lanes, MappedRows, Module, Pull, Result, RowFlow, RowKernel, RowTape, Scalar, Taped, TapedMap,
    TapedRows, Tensor, module_fields,
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
/// use flow_api::{Scalar, Bijector, Context, Rows, to_host};
/// use flow_nets::Activation;
/// use flows_coupling::{Affine, Conditioner, Coupling, Split};
/// use dfdx::prelude::*;
/// let net = Conditioner { hidden: 16, blocks: 1, activation: Activation::Relu, condition: 0 };
/// let coupling = Rows(Coupling::<_, f64>::new(4, Split::Halves, false, Affine::new(2.0)?, net, 7)?);
/// let x = f64::tensor(vec![0.1, 0.2, 0.3, 0.4], (1, Const::<4>));
/// let mapped = coupling.forward(x.clone(), &Context::new(0))?;
/// assert_eq!(to_host(&mapped.value), to_host(&x));
/// assert_eq!(to_host(&mapped.log_det.value), [0.0]);
/// # Ok::<(), flow_api::FlowError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Coupling<T, E: Scalar> {
    partition: Partition,
    net: ResidualMlp<E>,
    transformer: T,
}

impl<T: Transformer<E>, E: Scalar> Coupling<T, E> {
    /// A coupling on R^dim with initial parameters drawn from `seed`.
    ///
    /// # Errors
    /// [`FlowError::Setting`] for fewer than two features, or a conditioner of size zero.
    pub fn new(dim: usize, split: Split, flipped: bool, transformer: T, conditioner: Conditioner, seed: u64) -> Result<Self> {
        let partition = split.partition(dim, flipped)?;
        let Conditioner { hidden, blocks, activation, condition } = conditioner;
        let outputs = transformer.numbers() * partition.moved.len();
        let config = ResidualMlpConfig { inputs: partition.kept.len(), condition, outputs, hidden, blocks, activation };
        let net = ResidualMlp::new(config, seed).map_err(|error| match error {
            FlowError::Setting { field, expected, got, .. } => {
                FlowError::Setting { layer: transformer.kind().to_owned(), field, expected, got }
            }
            other => other,
        })?;
        Ok(Self { partition, net, transformer })
    }
}

impl<T: Send + Sync, E: Scalar> Module<E> for Coupling<T, E> {
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

    fn pullback(&self, cotangent: &mut [E], pull: &mut Pull<'_, E>, tape: &mut RowTape<E>, sums: &mut [E]) -> Result<()> {
        let Partition { kept, moved } = self.partition;
        let numbers = moved.update(cotangent, pull.lanes, |g| self.transformer.pullback(g, pull.log_det, tape))?;
        let through_net = self.net.pullback(&numbers, pull.lanes, tape, sums)?;
        let (for_kept, for_condition) = through_net.split_at(kept.len() * pull.lanes);
        kept.update(cotangent, pull.lanes, |g| add(g, for_kept));
        if let Some(total) = pull.condition_cotangent.as_deref_mut().filter(|_| !for_condition.is_empty()) {
            add(total, for_condition);
        }
        Ok(())
    }

    fn pullback_inverting(&self, values: &mut [E], cotangent: &mut [E], pull: &mut Pull<'_, E>, sums: &mut [E]) -> Result<()> {
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

impl<T: Transformer<E>, E: Scalar> RowFlow<E> for Coupling<T, E> {
    fn facts(&self) -> Facts {
        let facts = Facts::new(self.transformer.kind()).with_condition(self.net.config().condition);
        facts.with_multiply_adds(self.net.multiply_adds())
    }

    fn dim(&self) -> usize {
        self.partition.dim()
    }

    fn prepare<'a>(&'a self, rows: usize, _: &Context<E>) -> Result<Box<dyn RowKernel<E> + 'a>> {
        Ok(Box::new(Kernel { partition: self.partition, net: self.net.kernel(rows), transformer: &self.transformer }))
    }

    fn taped(&self) -> Option<&dyn TapedRows<E>> {
        self.transformer.taped().is_some().then_some(self)
    }
}

type Matrix<E, T> = Tensor<(usize, usize), E, T>;

impl<T: Transformer<E>, E: Scalar> Coupling<T, E> {
    fn taped_transformer(&self, cx: &Context<E>) -> Result<&dyn TapedTransformer<E>> {
        self.transformer.taped().ok_or_else(|| FlowError::Unsupported {
            layer: cx.path().to_owned(),
            operation: "dfdx operations",
            reason: format!("{} has a fused kernel alone", self.transformer.kind()),
        })
    }

    /// The columns that are kept and those that are moved.
    fn cut<P: Tape<E, E::Device>>(&self, x: Matrix<E, P>) -> (Matrix<E, P>, Matrix<E, P>) {
        let Partition { kept, moved } = self.partition;
        let columns = x.permute::<_, Axes2<1, 0>>();
        (columns_at(columns.with_empty_tape(), kept.features()), columns_at(columns, moved.features()))
    }

    /// Both parts as they lie in a row.
    fn join<P: Tape<E, E::Device> + Merge<P>>(&self, kept: Matrix<E, P>, moved: Matrix<E, P>) -> Matrix<E, P> {
        columns_at((kept, moved).concat_along(Axis::<1>).permute::<_, Axes2<1, 0>>(), self.partition.places().into_iter())
    }

    /// The conditioner's output for the kept columns.
    fn numbers(&self, kept: Taped<(usize, usize), E>, cx: &Context<E>) -> Result<Taped<(usize, usize), E>> {
        let Some(width) = RowFlow::<E>::facts(self).condition else { return Ok(self.net.forward_taped(kept)) };
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
fn columns_at<E: Scalar, P: Tape<E, E::Device>>(columns: Matrix<E, P>, features: impl Iterator<Item = usize>) -> Matrix<E, P> {
    let features: Vec<usize> = features.collect();
    let count = features.len();
    let features: dfdx::prelude::Tensor<(usize,), usize, E::Device> = E::device().tensor_from_vec(features, (count,));
    columns.gather(features).permute::<_, Axes2<1, 0>>()
}

impl<T: Transformer<E>, E: Scalar> TapedRows<E> for Coupling<T, E> {
    fn forward_taped(&self, x: Taped<(usize, usize), E>, cx: &Context<E>) -> Result<TapedMap<E>> {
        let transformer = self.taped_transformer(cx)?;
        let (kept, moved) = self.cut(x);
        let numbers = self.numbers(kept.with_empty_tape(), cx)?;
        let (moved, log_det) = transformer.forward_taped(moved, numbers);
        Ok((self.join(kept, moved), log_det))
    }

    fn inverse_taped(&self, y: Tensor<(usize, usize), E>, cx: &Context<E>) -> Result<MappedRows<E>> {
        let transformer = self.taped_transformer(cx)?;
        let (kept, moved) = self.cut(y);
        let (numbers, _) = self.numbers(kept.clone().leaky_traced(), cx)?.split_tape();
        let (moved, log_det) = transformer.inverse(moved, numbers);
        Ok((self.join(kept, moved), log_det))
    }
}
