//! How a batch of rows is cut into groups of samples and blocks of lanes, and the condition of its samples.

use super::kernel::Lanes;
use super::view::RowView;
use crate::{Context, FlowError, Result, Scalar, to_host};

/// Most rows in a block: the activations of a layer of some hundred units then stay in the L2 cache.
pub const BLOCK_LANES: usize = 192;

/// Fewest rows that make a group worth its own sums: so few that a small batch still gives every thread some groups.
const GROUP_ROWS: usize = 64;

/// Most groups of a batch, and of a large one: enough for many threads, few enough that adding up their sums stays
/// cheap.
const MAX_GROUPS: [usize; 2] = [16, 32];

/// Rows in a group of a large batch.
const MANY_ROWS: usize = 512;

/// A condition in host memory: one vector a sample, row-major.
#[derive(Debug, Clone)]
pub struct HostCondition<E> {
    /// Width of a vector.
    pub width: usize,
    /// batch × width.
    pub values: Vec<E>,
}

impl RowView {
    /// Samples in a group, when a batch is cut for several threads.
    pub fn group_samples(&self, batch: usize) -> usize {
        let rows = batch * self.rows();
        let [few, many] = MAX_GROUPS;
        let groups = (rows / GROUP_ROWS).clamp(1, few).max((rows / MANY_ROWS).min(many));
        let samples = batch.div_ceil(groups).max(1);
        // As many as fill blocks.
        let block = (BLOCK_LANES / self.rows().max(1)).max(1);
        if samples < block { samples } else { samples / block * block }
    }
}

impl<E: Scalar> HostCondition<E> {
    /// The context's condition for a layer that takes one of width `width`, checked against the batch.
    ///
    /// # Errors
    /// [`FlowError::Condition`] for a condition that is missing or has another shape. A layer that takes none ignores
    /// it.
    pub fn of(cx: &Context<E>, width: Option<usize>, batch: usize) -> Result<Option<Self>> {
        use dfdx::prelude::HasShape;
        let Some(width) = width else { return Ok(None) };
        let wrong = |got: String| FlowError::Condition { layer: cx.path().to_owned(), expected: format!("({batch}, {width})"), got };
        let condition = cx.condition().ok_or_else(|| wrong("none".to_owned()))?;
        if *condition.shape() != (batch, width) {
            return Err(wrong(format!("{:?}", condition.shape())));
        }
        Ok(Some(Self { width, values: to_host(condition) }))
    }

    /// The condition of each of `rows` rows, which come sample by sample, as many of each sample.
    ///
    /// # Errors
    /// As [`HostCondition::of`].
    pub(super) fn of_rows(cx: &Context<E>, width: Option<usize>, rows: usize) -> Result<Option<Self>> {
        use dfdx::prelude::HasShape;
        let samples = cx.condition().map_or(rows, |condition| condition.shape().0).max(1);
        let each = rows / samples;
        let samples = if each * samples == rows { samples } else { rows };
        Ok(Self::of(cx, width, samples)?.map(|Self { width, values }| {
            let repeated = values.chunks_exact(width.max(1)).flat_map(|vector| vector.repeat(each));
            Self { width, values: repeated.collect() }
        }))
    }

    /// The condition of the rows `first..first + lanes`, feature-major, where there is one vector a row.
    pub fn block(&self, first: usize, lanes: usize) -> Vec<E> {
        let vectors = &self.values[first * self.width..][..lanes * self.width];
        (0..vectors.len()).map(|k| vectors[(k % lanes) * self.width + k / lanes]).collect()
    }
}

/// The condition of a block, feature-major (width × lanes), for a part that takes one of width `width`; empty for a
/// part that takes none.
///
/// # Errors
/// [`FlowError::Condition`] for a condition that is missing or has another width.
pub fn block_condition<E>(condition: Option<&[E]>, width: usize, lanes: usize) -> Result<&[E]> {
    if width == 0 {
        return Ok(&[]);
    }
    condition.filter(|c| c.len() == width * lanes).ok_or_else(|| FlowError::Condition {
        layer: String::new(),
        expected: format!("(rows, {width})"),
        got: condition.map_or("none".to_owned(), |c| format!("(rows, {})", c.len() / lanes.max(1))),
    })
}

/// Every log-det of the block is a number.
pub(crate) fn finite<E: Scalar>(lanes: &Lanes<'_, E>) -> Result<()> {
    match lanes.log_det.iter().position(|l| !num_traits::Float::is_finite(*l)) {
        None => Ok(()),
        Some(lane) => {
            let row = usize::try_from(lanes.first_row).unwrap_or(usize::MAX).saturating_add(lane);
            Err(FlowError::NotFinite { layer: String::new(), what: "the log-det", row })
        }
    }
}
