//! Fits by L-BFGS.

use super::head::Head;
use super::items::Labelled;
use crate::{Result, TrainError};
use argmin::core::{CostFunction, Executor, Gradient, State as _};
use argmin::solver::linesearch::MoreThuenteLineSearch;
use argmin::solver::quasinewton::LBFGS;
use std::cell::RefCell;

/// The regularised cross-entropy of items, with the last place that it was computed at: L-BFGS asks for value and
/// gradient one after the other.
struct Regression<'a> {
    items: &'a Labelled,
    head: Head,
    penalty: f64,
    last: RefCell<Option<(Vec<f64>, f64, Vec<f64>)>>,
}

impl Regression<'_> {
    fn at<R>(&self, weights: &[f64], get: impl FnOnce(f64, &[f64]) -> R) -> R {
        let mut last = self.last.borrow_mut();
        let (_, value, gradient) = match last.take() {
            Some(last_one) if last_one.0 == weights => last.insert(last_one),
            _ => {
                let (value, gradient) = self.head.loss(&self.items.x, &self.items.labels, weights, self.penalty);
                last.insert((weights.to_vec(), value, gradient))
            }
        };
        get(*value, gradient)
    }
}

impl CostFunction for &Regression<'_> {
    type Param = Vec<f64>;
    type Output = f64;

    fn cost(&self, weights: &Vec<f64>) -> Result<f64, argmin::core::Error> {
        Ok(self.at(weights, |value, _| value))
    }
}

impl Gradient for &Regression<'_> {
    type Param = Vec<f64>;
    type Gradient = Vec<f64>;

    fn gradient(&self, weights: &Vec<f64>) -> Result<Vec<f64>, argmin::core::Error> {
        Ok(self.at(weights, |_, gradient| gradient.to_vec()))
    }
}

/// The weights where the loss is smallest, found from some.
pub(super) fn fit(items: &Labelled, head: Head, penalty: f64, from: Vec<f64>) -> Result<Vec<f64>> {
    /// Pairs of steps that the Hessian is known from.
    const MEMORY: usize = 10;
    const ITERATIONS: u64 = 500;
    let failed = |error: argmin::core::Error| TrainError::Probe(format!("L-BFGS failed at penalty {penalty}: {error}"));
    let regression = Regression { items, head, penalty, last: RefCell::default() };
    let begun = from.clone();
    let solver = LBFGS::new(MoreThuenteLineSearch::new(), MEMORY).with_tolerance_grad(1e-6).map_err(failed)?;
    let solver = solver.with_tolerance_cost(1e-12).map_err(failed)?;
    let found = Executor::new(&regression, solver).configure(|state| state.param(from).max_iters(ITERATIONS)).run().map_err(failed)?;
    Ok(found.state().get_best_param().cloned().unwrap_or(begun))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gradient_vanishes_at_the_end() {
        let wave = |i: usize| (1.3 * i as f64 + 0.2).sin();
        let labels = (0..40).map(|i| i % 3).collect();
        let items = Labelled { features: 2, x: (0..80).map(wave).collect(), labels, sources: (0..40).collect() };
        for hidden in [None, Some(3)] {
            let head = Head { features: 2, hidden, classes: 3 };
            let fitted = fit(&items, head, 0.1, head.begin()).unwrap();
            let (_, gradient) = head.loss(&items.x, &items.labels, &fitted, 0.1);
            assert!(gradient.iter().all(|g| g.abs() < 1e-5), "{hidden:?}: {gradient:?}");
        }
    }
}
