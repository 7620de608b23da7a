//! Cutting a batch into blocks, and spreading them over threads with bit-equal results at any number of threads.
//!
//! The rows are cut into blocks of at most `L` lanes, and consecutive blocks form *groups*. A group is worked off on one thread, block after
//! block, so it can add up its share of the parameters' gradients in place; the shares are then added up in the order of the groups. The number
//! of groups depends on the batch and not on the threads, and so does the result.

use std::ops::Range;

use rayon::prelude::*;

/// How many groups a large batch forms: enough that a few threads are balanced, few enough that adding up their gradients is cheap.
const GROUPS: usize = 16;
/// Lanes come in multiples of a cache line of f32, which is also the widest vector register.
const LANE_MULTIPLE: usize = 16;

/// How a batch of rows is cut into blocks and groups.
///
/// ```
/// use flow_kernels::blocks::BlockPlan;
///
/// let plan = BlockPlan::new(1000, 128);
/// // 7 blocks of 128 rows and one of 104, each a group of its own.
/// assert_eq!((plan.lanes(), plan.groups()), (128, 8));
/// let sums = plan.map_groups(|group| group.blocks().map(|rows| rows.len()).sum::<usize>());
/// assert_eq!(sums, [128, 128, 128, 128, 128, 128, 128, 104]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockPlan {
    rows: usize,
    lanes: usize,
}

/// One group: consecutive blocks, worked off on one thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Which group of the plan.
    pub index: usize,
    /// Its rows of the batch.
    pub rows: Range<usize>,
    lanes: usize,
}

impl BlockPlan {
    /// Cuts `rows` rows into blocks of at most `max_lanes` lanes, as equal in size as multiples of 16 allow.
    ///
    /// `max_lanes` is rounded up to a multiple of 16.
    pub fn new(rows: usize, max_lanes: usize) -> Self {
        let max_lanes = max_lanes.max(1).next_multiple_of(LANE_MULTIPLE);
        let blocks = rows.div_ceil(max_lanes).max(1);
        let lanes = rows.div_ceil(blocks).max(1).next_multiple_of(LANE_MULTIPLE);
        Self { rows, lanes }
    }

    /// Number of rows of the batch.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Largest number of lanes of any block: what scratch memory is sized by.
    pub fn lanes(&self) -> usize {
        self.lanes
    }

    /// Number of blocks.
    pub fn blocks(&self) -> usize {
        self.rows.div_ceil(self.lanes)
    }

    /// Number of groups.
    pub fn groups(&self) -> usize {
        self.blocks().min(GROUPS)
    }

    /// Group `index` of [`groups`](Self::groups); an index beyond gives an empty one.
    pub fn group(&self, index: usize) -> Group {
        let first_row = |index: usize| {
            (self.blocks() * index / self.groups().max(1) * self.lanes).min(self.rows)
        };
        Group {
            index,
            rows: first_row(index)..first_row(index + 1),
            lanes: self.lanes,
        }
    }

    /// Runs `f` on all groups in parallel on the current rayon pool, and returns the results in the order of the groups.
    pub fn map_groups<R: Send>(&self, f: impl Fn(Group) -> R + Sync) -> Vec<R> {
        self.map_groups_with(vec![(); self.groups()], |group, ()| f(group))
    }

    /// Like [`map_groups`](Self::map_groups), where the `i`th group also gets the `i`th of `items`, such as its part of an output that
    /// [`split_mut`](Self::split_mut) made.
    ///
    /// # Panics
    /// In debug builds if there are not as many items as groups.
    pub fn map_groups_with<T: Send, R: Send>(
        &self,
        items: Vec<T>,
        f: impl Fn(Group, T) -> R + Sync,
    ) -> Vec<R> {
        debug_assert_eq!(items.len(), self.groups(), "one item for each group");
        let run = |(index, item)| f(self.group(index), item);
        // One group is one task: a kernel takes far longer than rayon's bookkeeping.
        items
            .into_par_iter()
            .enumerate()
            .with_max_len(1)
            .map(run)
            .collect()
    }

    /// Cuts a row-major tensor of `rows` × `row_len` into the groups' parts.
    ///
    /// # Panics
    /// If `tensor` is shorter than that.
    pub fn split_mut<'a, T>(&self, mut tensor: &'a mut [T], row_len: usize) -> Vec<&'a mut [T]> {
        let cut = |index| {
            let (part, rest) =
                std::mem::take(&mut tensor).split_at_mut(self.group(index).rows.len() * row_len);
            tensor = rest;
            part
        };
        (0..self.groups()).map(cut).collect()
    }
}

impl Group {
    /// The rows of each block of this group, in order.
    pub fn blocks(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let (rows, lanes) = (self.rows.clone(), self.lanes);
        rows.clone()
            .step_by(lanes)
            .map(move |start| start..(start + lanes).min(rows.end))
    }
}

#[cfg(test)]
#[allow(clippy::float_cmp, reason = "results are exact")]
mod tests {
    use super::*;

    const SIZES: [(usize, usize); 9] = [
        (0, 64),
        (1, 64),
        (15, 0),
        (64, 64),
        (65, 64),
        (130, 128),
        (1000, 100),
        (4096, 128),
        (100_003, 96),
    ];

    #[test]
    fn blocks_cover_all_rows_once_and_in_order() {
        for (rows, max_lanes) in SIZES {
            let plan = BlockPlan::new(rows, max_lanes);
            let blocks: Vec<_> = (0..plan.groups())
                .flat_map(|index| plan.group(index).blocks())
                .collect();
            assert_eq!(blocks.len(), plan.blocks());
            assert!(
                plan.lanes() <= max_lanes.next_multiple_of(16).max(16)
                    && plan.lanes().is_multiple_of(16)
            );
            let mut next = 0;
            for block in blocks {
                assert_eq!(block.start, next, "{rows} rows by {max_lanes}");
                assert!((1..=plan.lanes()).contains(&block.len()));
                next = block.end;
            }
            assert_eq!(next, rows);
            let sizes: Vec<_> = (0..plan.groups())
                .map(|index| plan.group(index).blocks().count())
                .collect();
            if let (Some(least), Some(most)) = (sizes.iter().min(), sizes.iter().max()) {
                assert!(
                    *least >= 1 && most - least <= 1,
                    "groups are balanced: {sizes:?}"
                );
            }
        }
        assert_eq!(BlockPlan::new(130, 128).lanes(), 80);
    }

    #[test]
    fn results_come_in_order_and_do_not_depend_on_the_threads() {
        let run = |threads, (rows, max_lanes)| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            let plan = BlockPlan::new(rows, max_lanes);
            let mut out = vec![0.0_f32; rows * 2];
            let parts = plan.split_mut(&mut out, 2);
            let sums = pool.install(|| {
                plan.map_groups_with(parts, |group, part| {
                    let mut sum = 0.0_f32;
                    for block in group.blocks() {
                        for row in block {
                            let value = (row as f32).sin();
                            part[(row - group.rows.start) * 2..][..2].fill(value);
                            sum += value;
                        }
                    }
                    (group.index, sum)
                })
            });
            (out, sums)
        };
        for size in SIZES {
            let (out, sums) = run(1, size);
            assert!(sums.iter().enumerate().all(|(i, &(index, _))| i == index));
            assert!((0..size.0).all(|row| out[2 * row + 1] == (row as f32).sin()));
            for threads in [2, 3] {
                assert_eq!(run(threads, size), (out.clone(), sums.clone()));
            }
        }
    }
}
