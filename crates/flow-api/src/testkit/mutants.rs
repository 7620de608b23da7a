//! Bijections that are wrong on purpose: they test the suite.

use crate::bijector::{Cotangent, Mapped, Point, Pulled};
use crate::log_det::LogDet;
use crate::{Bijector, Context, Facts, Gradients, Module, Result, Tensor, module_fields};

/// How a log-det is falsified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// Its sign is flipped.
    Flipped,
    /// Half of it is reported.
    Halved,
    /// One constant term of its sum (1/8) is left out, with both directions still consistent with each other.
    Dropped,
}

/// A bijection with a wrong log-det, otherwise as it was. The suite must refuse it.
#[derive(Clone, Debug)]
pub struct Mutant<B> {
    inner: B,
    mutation: Mutation,
}

impl<B> Mutant<B> {
    /// Falsifies `inner`.
    pub fn new(inner: B, mutation: Mutation) -> Self {
        Self { inner, mutation }
    }
}

impl<B: Module<f64>> Module<f64> for Mutant<B> {
    module_fields!(f64; delegate inner);
}

impl<B: super::Flat> Mutant<B> {
    fn falsify(&self, mapped: Mapped<(usize, usize), f64>) -> Mapped<(usize, usize), f64> {
        let value = match self.mutation {
            Mutation::Flipped => mapped.log_det.value.negate(),
            Mutation::Halved => mapped.log_det.value * 0.5,
            Mutation::Dropped => mapped.log_det.value - 0.125,
        };
        Mapped { log_det: LogDet { value, ..mapped.log_det }, ..mapped }
    }
}

impl<B: super::Flat> Bijector<(usize, usize), f64> for Mutant<B> {
    type Out = (usize, usize);

    fn facts(&self) -> Facts {
        Facts::of("Mutant", [self.inner.facts()])
    }

    fn output_shape(&self, input: &(usize, usize)) -> Result<(usize, usize)> {
        self.inner.output_shape(input)
    }

    fn forward(&self, x: Tensor<(usize, usize), f64>, cx: &Context<f64>) -> Result<Mapped<(usize, usize), f64>> {
        Ok(self.falsify(self.inner.forward(x, cx)?))
    }

    fn inverse(&self, y: Tensor<(usize, usize), f64>, cx: &Context<f64>) -> Result<Mapped<(usize, usize), f64>> {
        let mapped = self.inner.inverse(y, cx)?;
        let value = match self.mutation {
            Mutation::Dropped => mapped.log_det.value + 0.125,
            Mutation::Flipped | Mutation::Halved => return Ok(self.falsify(mapped)),
        };
        Ok(Mapped { log_det: LogDet { value, ..mapped.log_det }, ..mapped })
    }

    fn pullback(
        &self,
        at: Point<(usize, usize), (usize, usize), f64>,
        cotangent: Cotangent<(usize, usize), f64>,
        gradients: &mut Gradients<f64>,
        cx: &Context<f64>,
    ) -> Result<Pulled<(usize, usize), f64>> {
        self.inner.pullback(at, cotangent, gradients, cx)
    }

    fn initialise(&mut self, x: Tensor<(usize, usize), f64>, cx: &Context<f64>) -> Result<Tensor<(usize, usize), f64>> {
        self.inner.initialise(x, cx)
    }
}
