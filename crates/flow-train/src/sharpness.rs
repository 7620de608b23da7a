//! Whether a model is sharper than its data: how a density that grows without bound is told from a good one.
//!
//! Where values lie on a lattice, repeat, or determine each other, a density can be ever higher on the values and lower
//! between them: log p rises and means nothing. A density that means something does not change between a value and the
//! next one that its column has. So items are moved a part of that way, each of their numbers on its own, and log p at
//! the items is compared with log p beside them. Of n items of a density, neighbouring values lie as close as 1/n of
//! its width, and nothing is lost; of a lattice, they lie a step apart.

use crate::Result;
use crate::data::{Batch, Dataset, Draw, Values};
use crate::event_batch::Purpose;
use crate::training::Trainer;
use flow_api::spec::SpecScalar;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Items that are moved.
const ITEMS: usize = 256;
/// Numbers of the items among which neighbours are looked for.
const NUMBERS: usize = 1 << 22;
/// What one item counts at the most, in nats, so that a few cannot say it all.
const MOST: f64 = 30.0;
/// Columns of which each is moved alone to find the one that does most.
const COLUMNS: usize = 64;

/// How much log p falls between the values of training items and what lies beside them.
#[derive(Clone, Debug)]
pub struct Sharpness {
    /// Items as the data have them.
    items: Batch,
    /// How far each of their numbers is moved.
    moves: Vec<f64>,
    dims: usize,
    /// What was lost when this was made.
    at_first: f64,
}

impl Sharpness {
    /// For the training items of a run, at its beginning or where it goes on; none of levels, which are dequantised.
    ///
    /// # Errors
    /// Items that cannot be read.
    pub fn of<E: SpecScalar>(trainer: &Trainer<E>) -> Result<Option<Self>> {
        let data = trainer.train();
        let Some(reals) = trainer.events().reals() else { return Ok(None) };
        let dims = data.shape().dims();
        let Some((items, mut moves)) = items_and_moves(data, dims)? else { return Ok(None) };
        // To whole numbers noise is added as it is: what counts is whether they lie further apart.
        let discrete = (0..dims).map(|column| reals.column(column).discrete).cycle();
        moves.iter_mut().zip(discrete).filter(|(_, discrete)| *discrete).for_each(|(way, _)| *way = way.round());
        let new = Self { items, moves, dims, at_first: 0.0 };
        let is_new = trainer.history().is_empty();
        let at_first = if is_new { new.lost(trainer, None)? } else { 0.0 };
        Ok(Some(Self { at_first, ..new }))
    }

    /// Nats an item that log p is higher at the items than beside them, if that is more than a density that means
    /// something comes to, and than it was at the beginning of the run.
    ///
    /// # Errors
    /// Those of the model's density.
    pub fn excess<E: SpecScalar>(&self, trainer: &Trainer<E>) -> Result<Option<f64>> {
        /// Of a normal density with a standard deviation of one step of a lattice 1/24 nat is lost a number, of one of
        /// half a step a sixth.
        const A_NUMBER: f64 = 0.5;
        const AN_ITEM: f64 = 2.0;
        let lost = self.lost(trainer, None)?;
        Ok((lost > AN_ITEM + A_NUMBER * self.dims as f64 && lost > AN_ITEM + self.at_first).then_some(lost))
    }

    /// The number of an item, counted from 0, along which the density is sharpest; none where there are many.
    ///
    /// # Errors
    /// As [`Sharpness::excess`].
    pub fn sharpest<E: SpecScalar>(&self, trainer: &Trainer<E>) -> Result<Option<usize>> {
        if self.dims > COLUMNS {
            return Ok(None);
        }
        let lost = (0..self.dims).map(|column| self.lost(trainer, Some(column))).collect::<Result<Vec<_>>>()?;
        Ok((0..self.dims).max_by(|a, b| lost[*a].total_cmp(&lost[*b])))
    }

    /// The mean of log p at the items − log p beside them, in one column or in all.
    fn lost<E: SpecScalar>(&self, trainer: &Trainer<E>, column: Option<usize>) -> Result<f64> {
        let Values::Real(values) = &self.items.values else { return Ok(0.0) };
        let way = |at: usize| if column.is_none_or(|column| at % self.dims == column) { self.moves[at] } else { 0.0 };
        let beside = values.iter().enumerate().map(|(at, x)| x + way(at)).collect();
        let there = density(trainer, &self.items)?;
        let beside = density(trainer, &Batch { values: Values::Real(beside), ..self.items.clone() })?;
        // What has left its bounds has no density, and says nothing.
        let pairs = there.iter().zip(&beside).filter(|(there, beside)| there.is_finite() && !beside.is_nan());
        let (sum, count) = pairs.fold((0.0, 0), |(sum, count), (there, beside)| (sum + (there - beside).clamp(-MOST, MOST), count + 1));
        Ok(sum / f64::from(count.max(1)))
    }
}

/// log p of items in nats, in the units of the data; not a number of those that no model can have.
fn density<E: SpecScalar>(trainer: &Trainer<E>, items: &Batch) -> Result<Vec<f64>> {
    let model = trainer.model();
    let mut events = trainer.events().of::<E>(items)?;
    let each = events.values.chunks_exact_mut(model.event().len()).zip(&mut events.log_det);
    for (event, log_det) in each.filter(|(event, _)| event.iter().any(|x| !x.is_finite())) {
        event.fill(E::zero());
        *log_det = E::nan();
    }
    let cx = events.context(model, trainer.settings().seed, Purpose::Evaluate { pass: 0 })?;
    let found = model.log_prob(events.values, &cx)?;
    Ok(found.value.iter().zip(&events.log_det).map(|(log_prob, log_det)| log_prob.as_f64() + log_det.as_f64()).collect())
}

/// Items at equal distances, and how far each of their numbers is moved: at random, by at most half of the way to its
/// neighbours among other items, as many of them on each side as share its value, on the mean of both sides. None of
/// no items.
fn items_and_moves(data: &dyn Dataset, dims: usize) -> Result<Option<(Batch, Vec<f64>)>> {
    let spread = |most: usize| {
        let all: Vec<usize> = (0..data.len()).filter(|&index| !data.is_gone(index)).collect();
        let stride = all.len().div_ceil(most.max(1)).max(1);
        all.into_iter().step_by(stride).map(|index| Draw { epoch: 0, index }).collect::<Vec<_>>()
    };
    let (items, others) = (spread(ITEMS), spread((NUMBERS / dims.max(1)).max(ITEMS)));
    let items = data.batch(&items)?;
    let mut columns: Vec<Vec<f64>> = vec![Vec::with_capacity(others.len()); dims];
    for draws in others.chunks(1024) {
        let Values::Real(values) = data.batch(draws)?.values else { return Ok(None) };
        values.iter().enumerate().for_each(|(at, x)| columns[at % dims].push(*x));
    }
    let Values::Real(values) = &items.values else { return Ok(None) };
    columns.iter_mut().for_each(|column| column.sort_unstable_by(f64::total_cmp));
    let mut noise = ChaCha8Rng::seed_from_u64(0);
    let moves = values.iter().enumerate().map(|(at, &x)| {
        let column = &columns[at % dims];
        let below = column.partition_point(|other| *other < x);
        let above = column.partition_point(|other| *other <= x);
        // A value that many share is one of a density that is as wide as it takes to meet as many others.
        let shared = (above - below).max(1);
        let below = (below > 0).then(|| x - column[below.saturating_sub(shared)]);
        let gaps = [below, column.get(above).map(|_| column[(above + shared).min(column.len()) - 1] - x)];
        let (sum, count) = gaps.iter().flatten().fold((0.0, 0.0), |(sum, count), gap| (sum + gap, count + 1.0));
        let width = if count > 0.0 { sum / count } else { 0.0 };
        width * noise.gen_range(-0.5..0.5)
    });
    let moves = moves.collect();
    Ok((!items.draws.is_empty()).then_some((items, moves)))
}
