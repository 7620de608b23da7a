//! The coupling: one mechanism for every transformer and every conditioner.

use crate::CouplingTransformer;
use dfdx::prelude::*;
use flow_api::device::{CouplingForm, RowForm};
use flow_api::rows::{MappedRows, RowKernel, Taped, TapedMap, TapedRows};
use flow_api::{Context, Facts, FlowError, Module, Result, RowFlow, Scalar, Tensor, module_fields, shape_error};
use flow_nets::{
    Activation, ConditionerNet, CouplingKernel, Partition, ResidualMlp, ResidualMlpConfig, Split, TapedNet, TapedTransformer, columns_at,
    with_condition,
};

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

/// A coupling on R^d: some features pass unchanged, a network `N` of them (and of the condition) gives the parameters
/// with which `T` moves the others one by one.
///
/// The Jacobian is triangular, so the log-det is the sum of the log-slopes of the moved features. The inverse costs
/// what the forward map does, and a pullback from the output runs the conditioner once, as one from the input does.
/// With a [`ResidualMlp`] it starts as the identity, because that starts as zero.
///
/// # Parameters
/// Those of the conditioner, below `net`.
///
/// ```
/// use flow_api::rows::Rows;
/// use flow_api::{Bijector, Context, Scalar, to_host};
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
pub struct Coupling<T, E: Scalar, N = ResidualMlp<E>> {
    partition: Partition,
    net: N,
    transformer: T,
    element: std::marker::PhantomData<E>,
}

impl<T: CouplingTransformer<E>, E: Scalar> Coupling<T, E> {
    /// A coupling on R^dim with initial parameters drawn from `seed`.
    ///
    /// # Errors
    /// [`FlowError::Setting`] for fewer than two features, or a conditioner of size zero.
    pub fn new(dim: usize, split: Split, flipped: bool, transformer: T, conditioner: Conditioner, seed: u64) -> Result<Self> {
        let in_coupling = |error| match error {
            FlowError::Setting { field, expected, got, .. } => FlowError::Setting { layer: T::KIND.to_owned(), field, expected, got },
            other => other,
        };
        let partition = split.partition(dim, flipped).map_err(in_coupling)?;
        let Conditioner { hidden, blocks, activation, condition } = conditioner;
        let outputs = transformer.parameters() * partition.transformed.len();
        let config = ResidualMlpConfig { inputs: partition.identity.len(), condition, outputs, hidden, blocks, activation };
        let net = ResidualMlp::new(config, seed).and_then(|net| net.with_parts(T::PARTS)).map_err(in_coupling)?;
        Self::with_net(partition, transformer, net)
    }
}

impl<T: CouplingTransformer<E>, E: Scalar, N: ConditionerNet<E>> Coupling<T, E, N> {
    /// A coupling with a network of one's own, from the features that pass to the parameters of the others, feature by
    /// feature.
    ///
    /// # Errors
    /// [`FlowError::Shape`] for a network of other sizes.
    pub fn with_net(partition: Partition, transformer: T, net: N) -> Result<Self> {
        let expected = (partition.identity.len(), transformer.parameters() * partition.transformed.len());
        let got = (net.inputs(), net.outputs());
        if got == expected {
            Ok(Self { partition, net, transformer, element: std::marker::PhantomData })
        } else {
            Err(shape_error(T::KIND, "build", ("inputs, outputs", expected), ("inputs, outputs", got)))
        }
    }
}

impl<T: Send + Sync, E: Scalar, N: Module<E>> Module<E> for Coupling<T, E, N> {
    module_fields!(E; child net);
}

impl<T: CouplingTransformer<E>, E: Scalar, N: ConditionerNet<E>> RowFlow<E> for Coupling<T, E, N> {
    fn facts(&self) -> Facts {
        let facts = Facts::new(T::KIND).with_condition(self.net.condition());
        facts.with_multiply_adds(self.net.multiply_adds())
    }

    fn dim(&self) -> usize {
        self.partition.dim()
    }

    fn prepare<'a>(&'a self, rows: usize, cx: &Context<E>) -> Result<Box<dyn RowKernel<E> + 'a>> {
        Ok(Box::new(CouplingKernel::new(self.partition, self.net.kernel(rows), &self.transformer, cx)))
    }

    fn device_form<'a>(&'a self, cx: &Context<E>) -> Result<Vec<RowForm<'a, E>>> {
        let Some(net) = self.net.device_form().filter(|net| [1, self.transformer.parameters()].contains(&net.parts)) else {
            return Ok(vec![RowForm::missing(cx, T::KIND, "whose network has no form")]);
        };
        let Some(transformer) = self.transformer.device_form() else {
            return Ok(vec![RowForm::missing(cx, T::KIND, "whose transformer has no form")]);
        };
        let Partition { identity, transformed } = self.partition;
        let (kept, moved, condition) = (identity.features().collect(), transformed.features().collect(), self.net.condition());
        Ok(vec![RowForm::Coupling(CouplingForm { kept, moved, condition, net, transformer })])
    }

    fn taped(&self) -> Option<&dyn TapedRows<E>> {
        (self.transformer.taped().is_some() && self.net.taped().is_some()).then_some(self)
    }
}

type Matrix<E, T> = Tensor<(usize, usize), E, T>;

impl<T: CouplingTransformer<E>, E: Scalar, N: ConditionerNet<E>> Coupling<T, E, N> {
    /// The forms in dfdx operations of the transformer and the network.
    fn taped_parts(&self, cx: &Context<E>) -> Result<(&dyn TapedTransformer<E>, &dyn TapedNet<E>)> {
        self.transformer.taped().zip(self.net.taped()).ok_or_else(|| FlowError::Unsupported {
            layer: cx.path().to_owned(),
            operation: "dfdx operations",
            reason: format!("{} has a fused kernel alone", T::KIND),
        })
    }

    /// The columns that pass and those that are moved.
    fn cut<P: Tape<E, E::Device>>(&self, x: Matrix<E, P>) -> (Matrix<E, P>, Matrix<E, P>) {
        let Partition { identity, transformed } = self.partition;
        (columns_at(x.with_empty_tape(), identity.features()), columns_at(x, transformed.features()))
    }

    /// Both parts as they lie in a row.
    fn join<P: Tape<E, E::Device> + Merge<P>>(&self, kept: Matrix<E, P>, moved: Matrix<E, P>) -> Matrix<E, P> {
        columns_at((kept, moved).concat_along(Axis::<1>), self.partition.places())
    }
}

impl<T: CouplingTransformer<E>, E: Scalar, N: ConditionerNet<E>> TapedRows<E> for Coupling<T, E, N> {
    fn forward_taped(&self, x: Taped<(usize, usize), E>, cx: &Context<E>) -> Result<TapedMap<E>> {
        let (transformer, net) = self.taped_parts(cx)?;
        let (kept, moved) = self.cut(x);
        let parameters = net.forward_taped(with_condition(kept.with_empty_tape(), self.net.condition(), cx)?);
        let (moved, log_det) = transformer.forward_taped(moved, parameters);
        Ok((self.join(kept, moved), log_det))
    }

    fn inverse_taped(&self, y: Tensor<(usize, usize), E>, cx: &Context<E>) -> Result<MappedRows<E>> {
        let (transformer, net) = self.taped_parts(cx)?;
        let (kept, moved) = self.cut(y);
        let input = with_condition(kept.clone().leaky_traced(), self.net.condition(), cx)?;
        let (parameters, _) = net.forward_taped(input).split_tape();
        let (moved, log_det) = transformer.inverse(moved, parameters);
        Ok((self.join(kept, moved), log_det))
    }
}
