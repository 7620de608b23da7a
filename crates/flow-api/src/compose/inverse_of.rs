//! A bijection run backwards.

use crate::bijector::{Cotangent, Mapped, Point, Pulled, batch, check_cotangent, sum_conditions};
use crate::{Bijector, Context, Facts, FlowError, Gradients, Module, Result, Scalar, Tensor, module_fields, to_host};
use dfdx::prelude::{HasShape, Shape};
use faer::linalg::solvers::{PartialPivLu, SolveCore};
use faer::{Conj, Mat};

/// The inverse of a bijection as a bijection: its forward is the inner inverse.
///
/// With u = f⁻¹(y), a cotangent ū of u and ℓ of log|det ∂u/∂y| = −log|det ∂f/∂u|, its pullback is
/// ȳ = Jᵀ⁻¹(ū − ℓ ∂log|det J|/∂u) with J = ∂f/∂u. J comes row by row from the inner pullback and is factorised for
/// every sample, so a pullback costs d + 2 inner ones: use it where samples are small, or where no gradient is needed.
///
/// # Initialisation
/// A bijection that needs data-dependent initialisation gets it before it is turned round, or its state is loaded:
/// without, `initialise` is [`FlowError::Unsupported`], since the batch holds none of the inner bijection's inputs.
///
/// ```
/// use flow_api::compose::InverseOf;
/// use flow_api::layers::Permutation;
/// use flow_api::rows::Rows;
/// use flow_api::{Bijector, Context, Scalar, to_host};
/// let back = InverseOf::new(Rows(Permutation::new(vec![1, 2, 0])?));
/// let y = f64::tensor(vec![2.0, 3.0, 1.0], (1, 3));
/// let x = back.forward(y, &Context::<f64>::new(0))?.value;
/// assert_eq!(to_host(&x), [1.0, 2.0, 3.0]);
/// # Ok::<(), flow_api::FlowError>(())
/// ```
#[derive(Debug, Clone)]
pub struct InverseOf<B> {
    inner: B,
}

impl<B> InverseOf<B> {
    /// Turns a bijection round.
    pub fn new(inner: B) -> Self {
        Self { inner }
    }

    /// The bijection whose inverse this is.
    pub fn inner(&self) -> &B {
        &self.inner
    }
}

impl<E: Scalar, B: Module<E>> Module<E> for InverseOf<B> {
    module_fields!(E; child inner);
}

impl<X: Shape, E: Scalar, B: Bijector<X, E, Out = X>> Bijector<X, E> for InverseOf<B> {
    type Out = X;

    fn facts(&self) -> Facts {
        Facts::of("InverseOf", [self.inner.facts()])
    }

    fn output_shape(&self, input: &X) -> Result<X> {
        self.inner.output_shape(input)
    }

    fn forward(&self, x: Tensor<X, E>, cx: &Context<E>) -> Result<Mapped<X, E>> {
        self.inner.inverse(x, &cx.child("inner"))
    }

    fn inverse(&self, y: Tensor<X, E>, cx: &Context<E>) -> Result<Mapped<X, E>> {
        self.inner.forward(y, &cx.child("inner"))
    }

    fn pullback(
        &self,
        at: Point<X, X, E>,
        cotangent: Cotangent<X, E>,
        gradients: &mut Gradients<E>,
        cx: &Context<E>,
    ) -> Result<Pulled<X, E>> {
        let inner = cx.child("inner");
        let y = at.input(self, cx)?;
        check_cotangent(&self.output_shape(y.shape())?, &cotangent, cx.layer("InverseOf"))?;
        let u = self.inner.inverse(y.clone(), &inner)?.value;
        let shape = *u.shape();
        let batch = batch(&shape);
        let dim = shape.num_elements() / batch.max(1);
        let pull = |value, log_det, gradients: &mut Gradients<E>| {
            let cotangent = Cotangent { value, log_det };
            self.inner.pullback(Point::Input(u.clone()), cotangent, gradients, &inner)
        };

        // The log-det's share, parameters included, then J row by row: row j of every sample from one pullback of the
        // unit vector e_j.
        let through_log_det = pull(E::zeros(shape), cotangent.log_det.negate(), gradients)?;
        let target = to_host(&(cotangent.value + through_log_det.cotangent));
        let mut rows = Vec::with_capacity(dim);
        let mut discarded = gradients.clone();
        for j in 0..dim {
            let unit = (0..batch * dim).map(|k| if k % dim == j { E::one() } else { E::zero() }).collect();
            rows.push(to_host(&pull(E::tensor(unit, shape), E::zeros((batch,)), &mut discarded)?.cotangent));
        }
        let mut solution = vec![E::zero(); batch * dim];
        for sample in 0..batch {
            let at = sample * dim;
            let jacobian_transposed = Mat::from_fn(dim, dim, |i, j| rows[j][at + i]);
            let lu = PartialPivLu::new(jacobian_transposed.as_ref());
            let mut v = Mat::from_fn(dim, 1, |i, _| target[at + i]);
            lu.solve_in_place_with_conj(Conj::No, v.as_mut());
            for (i, to) in solution[at..at + dim].iter_mut().enumerate() {
                *to = v[(i, 0)];
                if !to.as_f64().is_finite() {
                    return Err(FlowError::Singular { layer: cx.path().to_owned(), detail: format!("Jacobian of sample {sample}") });
                }
            }
        }
        let negated = solution.iter().map(|&v| -v).collect();
        let through_value = pull(E::tensor(negated, shape), E::zeros((batch,)), gradients)?;
        let condition = sum_conditions(through_log_det.condition, through_value.condition);
        Ok(Pulled::new(Some(y), E::tensor(solution, shape)).with_condition(condition))
    }

    fn initialise(&mut self, x: Tensor<X, E>, cx: &Context<E>) -> Result<Tensor<X, E>> {
        match self.forward(x, cx) {
            Err(FlowError::NotInitialised { layer }) => Err(FlowError::Unsupported {
                layer,
                operation: "initialise",
                reason: "it runs backwards, so the batch is none of its inputs; initialise the bijection before it is turned round"
                    .to_owned(),
            }),
            forward => Ok(forward?.value),
        }
    }
}
