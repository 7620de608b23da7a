//! The part of a row's −log p that each column explains.

use crate::data::{Dataset, Values, column_key, each_once};
use crate::diagnostics::is_table;
use crate::evaluate::{EvaluateOptions, is_of_an_item, is_outside};
use crate::event_batch::{EventBatch, Purpose};
use crate::events::Events;
use crate::{Result, TrainError};
use flow_api::spec::{Model, SpecScalar};
use flow_api::{Gradients, to_host};

/// −log p of rows, column by column.
#[derive(Clone, Debug, PartialEq)]
pub struct ByColumn {
    /// The columns in the order in which each is given those before it.
    pub order: Vec<usize>,
    /// −log p(xⱼ | columns before j, condition) in nats, (rows, columns): those of a row add up to its −log p. NaN for
    /// a row that has no density.
    pub nats: Vec<f64>,
}

/// Which latents change with which columns, as far as it was seen.
struct Pattern {
    dims: usize,
    /// Whether latent j changes with column k, at j · dims + k.
    depends: Vec<bool>,
}

impl Pattern {
    /// An order in which every latent changes with its own column and those before it alone; else a column that others
    /// depend on that depend on it.
    fn order(&self) -> std::result::Result<Vec<usize>, usize> {
        let mut order: Vec<usize> = Vec::with_capacity(self.dims);
        while order.len() < self.dims {
            let is_free = |j: &usize| (0..self.dims).all(|k| k == *j || !self.depends[j * self.dims + k] || order.contains(&k));
            let left = || (0..self.dims).filter(|j| !order.contains(j));
            match left().find(is_free) {
                Some(next) => order.push(next),
                None => return Err(left().next().unwrap_or(0)),
            }
        }
        Ok(order)
    }
}

/// Scores rows of a table column by column: with z = f(x), where zⱼ changes with xⱼ and columns before it alone and the
/// base density's numbers are independent, log p(x) = Σⱼ log p(zⱼ) + ln |∂zⱼ/∂xⱼ| is the chain rule, term by term.
///
/// That is so of autoregressive flows of one order, and of flows of every column by itself. Whether it is so is seen by
/// the Jacobian of every row, whose rows are pulled back one by one: as many passes forward and back as there are
/// columns. In a masked network what does not depend has a derivative of exactly 0.
///
/// # Errors
/// [`TrainError::NotByColumn`] for a model that does not allow it; as [`score`](crate::score).
pub fn score_by_column<E: SpecScalar>(
    model: &Model<E>,
    data: &dyn Dataset,
    events: &Events,
    options: &EvaluateOptions,
) -> Result<ByColumn> {
    options.check()?;
    let refuse = |reason: String| Err(TrainError::NotByColumn { reason });
    if !is_table(events) {
        return refuse(format!("expected a table of real numbers, got events of shape {}", model.event()));
    }
    let events = events.evaluating(data, model, options.given)?;
    let dims = model.event().len().max(1);
    let mut pattern = Pattern { dims, depends: vec![false; dims * dims] };
    let mut nats = vec![0.0; data.len() * dims];
    let draws = options.draws(&events);
    for batch in each_once(data.len(), options.batch) {
        let first = batch.first().map_or(0, |draw| draw.index);
        let mut batch = data.batch(&batch)?;
        for pass in 0..draws {
            batch.draws.iter_mut().for_each(|draw| draw.epoch = pass);
            let Values::Real(values) = &batch.values else { continue };
            let whole = options.given.to(events.of::<E>(&batch)?);
            let slopes = events.reals().map_or_else(|| Ok(vec![0.0; values.len()]), |reals| reals.log_slopes(values, &batch.draws))?;
            let mut add = |row: usize, found: &[f64]| {
                let own = &mut nats[(first + row) * dims..][..found.len()];
                own.iter_mut().zip(found).zip(&slopes[row * dims..]).for_each(|((sum, log_prob), slope)| {
                    *sum -= (log_prob + slope) / draws as f64;
                });
            };
            match log_probs(model, &whole, options.seed, &mut pattern) {
                Ok(found) => add(0, &found),
                Err(TrainError::Flow(error)) if is_of_an_item(&error) || is_outside(&error) => {
                    for row in 0..whole.len() {
                        match log_probs(model, &whole.only(row), options.seed, &mut pattern) {
                            Ok(found) => add(row, &found),
                            Err(TrainError::Flow(error)) if is_of_an_item(&error) => add(row, &vec![f64::NAN; dims]),
                            // Which column leaves the density is not known where a flow refuses the row.
                            Err(TrainError::Flow(error)) if is_outside(&error) => add(row, &vec![f64::NEG_INFINITY; dims]),
                            Err(other) => return Err(other),
                        }
                    }
                }
                Err(other) => return Err(other),
            }
        }
    }
    match pattern.order() {
        Ok(order) => Ok(ByColumn { order, nats }),
        Err(column) => {
            let name = column_key(data.columns(), column);
            refuse(format!(
                "of its columns no order was found in which each is given those before it: `{name}` depends on ones that depend on it"
            ))
        }
    }
}

/// log p(zⱼ) + ln |∂zⱼ/∂xⱼ| of every number of events.
fn log_probs<E: SpecScalar>(model: &Model<E>, batch: &EventBatch<E>, seed: u64, pattern: &mut Pattern) -> Result<Vec<f64>> {
    let (rows, dims) = (batch.len(), pattern.dims);
    let cx = batch.context(model, seed, Purpose::Evaluate { pass: 0 })?;
    let z = model.encode(batch.values.clone(), &cx)?;
    let at = model.conditioned(rows, &cx)?;
    let Some(mut found) = model.flow().base().log_prob_by_number(&z, &at.cx().child("base"))? else {
        let kind = model.flow().base().kind();
        return Err(TrainError::NotByColumn { reason: format!("the numbers of its base density ({kind}) are not independent") });
    };
    let mut gradients = Gradients::zeros(model);
    for j in 0..dims {
        let mut cotangent = vec![E::zero(); rows * dims];
        cotangent.iter_mut().skip(j).step_by(dims).for_each(|c| *c = E::one());
        let pulled = model.pull_back_activations(batch.values.clone(), "bijector", cotangent, &mut gradients, &cx)?;
        for (row, slopes) in to_host(&pulled.cotangent).chunks_exact(dims).enumerate() {
            found[row * dims + j] += slopes[j].as_f64().abs().ln();
            for (k, slope) in slopes.iter().enumerate() {
                pattern.depends[j * dims + k] |= slope.as_f64() != 0.0;
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_found_where_there_is_one() {
        let order = |depends: &[(usize, usize)], dims: usize| {
            let mut pattern = Pattern { dims, depends: vec![false; dims * dims] };
            depends.iter().for_each(|(j, k)| pattern.depends[j * dims + k] = true);
            pattern.order()
        };
        assert_eq!(order(&[], 3), Ok(vec![0, 1, 2]));
        assert_eq!(order(&[(0, 0), (0, 1), (0, 2), (2, 1)], 3), Ok(vec![1, 2, 0]));
        assert_eq!(order(&[(1, 2), (2, 1)], 3), Err(1));
    }
}
