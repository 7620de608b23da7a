//! The autoregressive flow: its parts, its facts, and its form in dfdx operations.

use crate::Inverse;
use crate::kernel::Kernel;
use dfdx::prelude::*;
use flow_api::device::{CouplingForm, RowForm};
use flow_api::layers::Permutation;
use flow_api::rows::{MappedRows, RowKernel, Taped, TapedMap, TapedRows};
use flow_api::{Context, Facts, FlowError, InverseKind, Module, Result, RowFlow, Scalar, Tensor, module_fields};
use flow_nets::{ConditionerNet, MaskedMlp, TapedNet, TapedTransformer, Transformer, columns_at, with_condition};

/// An autoregressive flow on R^d: yⱼ = τ(xⱼ; θⱼ) with parameters θⱼ that a [`MaskedMlp`] makes of the features that
/// come before j in an order π, and of the condition.
///
/// It starts as the identity, because the network starts as zero.
///
/// # Log-det
/// Exact. The Jacobian is triangular in the order π, so it is Σ ln τ′.
///
/// # Cost
/// Forward and pullback are one pass of the network for all features. The inverse takes d steps, one a feature, which
/// together take the multiply-adds of the weights that are not masked, once, since what earlier features gave is kept;
/// or whole passes until the residual is small, by [`Inverse::Jacobi`]. So [`InverseKind::Sequential`] is what it says
/// of itself, and the memory setting `Invert` keeps its input.
///
/// # Parameters
/// Those of the network, below `net`, in the order of the passes: feature π(p) is the network's input p. π is state,
/// `order.indices`.
///
/// # Source
/// Papamakarios et al., "Masked Autoregressive Flow for Density Estimation" (arXiv:1705.07057), here with data to
/// latents as the fast direction; with splines Durkan et al., "Neural Spline Flows" (arXiv:1906.04032). Its inverse as
/// a flow is that of Kingma et al. (arXiv:1606.04934):
///
/// ```
/// use dfdx::prelude::*;
/// use flow_api::compose::InverseOf;
/// use flow_api::layers::Permutation;
/// use flow_api::rows::Rows;
/// use flow_api::{Bijector, Context, Scalar, to_host};
/// use flow_nets::{Activation, Affine, MaskedMlp, MaskedMlpConfig};
/// use flows_autoregressive::{AutoregressiveFlow, Inverse};
/// let sizes = MaskedMlpConfig { features: 3, condition: 0, parameters: 2, hidden: 16, blocks: 1, activation: Activation::Relu };
/// let net = MaskedMlp::new(sizes, 7)?;
/// let flow = AutoregressiveFlow::<f64>::new(net, Box::new(Affine::new(2.0)?), Permutation::reverse(3), Inverse::Sequential)?;
/// let inverse_autoregressive = InverseOf::new(Rows(flow));
/// let x = f64::tensor(vec![0.1, 0.2, 0.3], (1, Const::<3>));
/// assert_eq!(to_host(&inverse_autoregressive.forward(x, &Context::new(0))?.value), [0.1, 0.2, 0.3]);
/// # Ok::<(), flow_api::FlowError>(())
/// ```
#[derive(Debug)]
pub struct AutoregressiveFlow<E: Scalar> {
    net: MaskedMlp<E>,
    transformer: Box<dyn Transformer<E>>,
    order: Permutation,
    inverse: Inverse,
}

impl<E: Scalar> AutoregressiveFlow<E> {
    /// A flow of these parts.
    ///
    /// # Errors
    /// [`FlowError::Setting`] for a network with another number of outputs a feature than the transformer has
    /// parameters, an order of another number of features, and a tolerance that is not greater than 0.
    pub fn new(net: MaskedMlp<E>, transformer: Box<dyn Transformer<E>>, order: Permutation, inverse: Inverse) -> Result<Self> {
        let differs = |field, expected: usize, got: usize| {
            let expected = expected.to_string();
            FlowError::Setting { layer: "Autoregressive".to_owned(), field, expected, got: got.to_string() }
        };
        if net.parameters() != transformer.parameters() {
            return Err(differs("parameters", transformer.parameters(), net.parameters()));
        }
        if order.indices().len() != net.inputs() {
            return Err(differs("order", net.inputs(), order.indices().len()));
        }
        inverse.check()?;
        Ok(Self { net, transformer, order, inverse })
    }

    /// π: the feature whose parameters come from p others, for p = 0, 1, ….
    pub fn order(&self) -> &[usize] {
        self.order.indices()
    }
}

impl<E: Scalar> Module<E> for AutoregressiveFlow<E> {
    module_fields!(E; child order, child net);
}

impl<E: Scalar> RowFlow<E> for AutoregressiveFlow<E> {
    fn facts(&self) -> Facts {
        let inverse = match self.inverse {
            Inverse::Sequential => InverseKind::Sequential(self.net.inputs()),
            Inverse::Jacobi(_) => InverseKind::Iterative,
        };
        let facts = Facts::new("Autoregressive").with_inverse(inverse).with_condition(self.net.condition());
        facts.with_multiply_adds(self.net.multiply_adds())
    }

    fn dim(&self) -> usize {
        self.net.inputs()
    }

    fn prepare<'a>(&'a self, rows: usize, cx: &Context<E>) -> Result<Box<dyn RowKernel<E> + 'a>> {
        Ok(Box::new(Kernel::new(self.net.kernel(rows), self.transformer.as_ref(), self.order(), self.inverse, cx)))
    }

    fn device_form<'a>(&'a self, cx: &Context<E>) -> Result<Vec<RowForm<'a, E>>> {
        let (Some(net), Some(transformer)) = (self.net.device_form(), self.transformer.device_form()) else {
            return Ok(vec![RowForm::missing(cx, "Autoregressive", "whose transformer has no form")]);
        };
        let order = self.order().to_vec();
        let condition = self.net.condition();
        Ok(vec![RowForm::Autoregressive(CouplingForm { kept: order.clone(), moved: order, condition, net, transformer })])
    }

    fn taped(&self) -> Option<&dyn TapedRows<E>> {
        (self.transformer.taped().is_some() && self.net.taped().is_some()).then_some(self)
    }
}

impl<E: Scalar> AutoregressiveFlow<E> {
    /// The forms in dfdx operations of the transformer and the network.
    fn taped_parts(&self, cx: &Context<E>) -> Result<(&dyn TapedTransformer<E>, &dyn TapedNet<E>)> {
        self.transformer.taped().zip(self.net.taped()).ok_or_else(|| FlowError::Unsupported {
            layer: cx.path().to_owned(),
            operation: "dfdx operations",
            reason: format!("{:?} has a fused kernel alone", self.transformer),
        })
    }

    /// Where every feature stands in the order.
    fn places(&self) -> Vec<usize> {
        let mut places = vec![0; self.order().len()];
        self.order().iter().enumerate().for_each(|(place, &feature)| places[feature] = place);
        places
    }
}

impl<E: Scalar> TapedRows<E> for AutoregressiveFlow<E> {
    fn forward_taped(&self, x: Taped<(usize, usize), E>, cx: &Context<E>) -> Result<TapedMap<E>> {
        let (transformer, net) = self.taped_parts(cx)?;
        let x = columns_at(x, self.order().iter().copied());
        let parameters = net.forward_taped(with_condition(x.with_empty_tape(), self.net.condition(), cx)?);
        let (y, log_det) = transformer.forward_taped(x, parameters);
        Ok((columns_at(y, self.places()), log_det))
    }

    /// d whole passes: the p-th makes feature p right, whatever the later ones still are.
    fn inverse_taped(&self, y: Tensor<(usize, usize), E>, cx: &Context<E>) -> Result<MappedRows<E>> {
        let (transformer, net) = self.taped_parts(cx)?;
        let y = columns_at(y, self.order().iter().copied());
        let mut mapped = (y.clone(), E::zeros((y.shape().0,)));
        for _ in 0..self.net.inputs() {
            let input = with_condition(mapped.0.leaky_traced(), self.net.condition(), cx)?;
            let (parameters, _) = net.forward_taped(input).split_tape();
            mapped = transformer.inverse(y.clone(), parameters);
        }
        Ok((columns_at(mapped.0, self.places()), mapped.1))
    }
}
