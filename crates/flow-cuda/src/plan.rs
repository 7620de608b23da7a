//! A model in one direction as the kernels read it: sizes and lists as integers, weights as numbers in tiles.

use crate::moves::{Moves, hidden_stride, padded, snippets, stride};
use flow_api::device::{ActivationForm, LinearForm, MissingForm, RowForm, SideForm, Snippet, missing_forms};
use flow_api::rows::{AffineMap, Direction};
use flow_api::threads::parallel;

/// Ints at the beginning of a side's description, of each of its flows, and of a layer's sums: as in `kernels/`.
const HEAD: usize = 10;
const FLOW: usize = 19;
pub(crate) const LAYER: usize = 7;
/// Kinds of flows.
const LINEAR: i32 = 0;
const MOVES: i32 = 1;
/// Outputs and inputs in a tile of sums.
const SUMS_TILE: usize = 32;

/// Rows that a block works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tile {
    Rows32,
    Rows16,
}

impl Tile {
    pub(crate) fn rows(self) -> usize {
        match self {
            Self::Rows32 => 32,
            Self::Rows16 => 16,
        }
    }
}

/// A side in one direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SidePlan {
    /// Where its description begins among the ints, and its weights among the floats.
    pub(crate) ints_at: usize,
    pub(crate) floats_at: usize,
    /// Numbers in a sample.
    pub(crate) event: usize,
    /// Rows in a sample.
    pub(crate) rows: usize,
    pub(crate) tile: Tile,
    /// Width of the condition that its flows see, 0 without one.
    pub(crate) condition: usize,
    /// Bytes a block.
    pub(crate) shared_memory: usize,
    /// Where the tiles of every linear layer begin among the side's weights, in the order of the layers' sums.
    pub(crate) linears: Vec<usize>,
    pub(crate) pull: PullPlan,
}

/// What a side's pullback leaves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PullPlan {
    /// Numbers that it notes of a row, and where the condition's cotangent begins among them.
    pub(crate) notes: usize,
    pub(crate) for_condition: usize,
    /// Where the list of linear layers begins among the ints, and how many there are.
    pub(crate) layers_at: usize,
    pub(crate) layers: usize,
    /// Tiles of all layers' sums.
    pub(crate) tiles: usize,
    /// Numbers in all layers' sums: outputs × (inputs + 1) each, one after the other.
    pub(crate) sums: usize,
}

/// A model.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Plan {
    /// The text that flows bring, in the order in which the kernels have it.
    pub(crate) snippets: Vec<Snippet>,
    pub(crate) ints: Vec<i32>,
    pub(crate) floats: Vec<f32>,
    /// In the order in which they are run.
    pub(crate) sides: Vec<SidePlan>,
    /// The log-dets of affine maps, which are the same for every sample.
    pub(crate) log_det: f64,
}

/// Why a model cannot be loaded.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// These parts cannot run on the device.
    Missing(Vec<MissingForm>),
    /// So many numbers are more than the kernels can count.
    TooMany(u64),
}

impl Plan {
    /// The plan of a model for a device whose blocks have so much shared memory.
    pub(crate) fn new(sides: &[SideForm<'_, f32>], direction: Direction, shared_memory: usize) -> Result<Self, Refusal> {
        let mut missing = missing_forms(sides);
        let mut fitting = Vec::with_capacity(sides.len());
        for side in sides {
            let (tile, needed) = tile(side, shared_memory);
            fitting.extend(tile.map(|tile| (side, tile, needed)));
            if tile.is_none() {
                missing.push(MissingForm {
                    path: side.path.clone(),
                    kind: format!("rows of {}", side.view.dim()),
                    reason: format!("a block of 16 rows needs {needed} bytes of shared memory, and the device has {shared_memory}"),
                });
            }
        }
        if !missing.is_empty() {
            return Err(Refusal::Missing(missing));
        }
        if direction == Direction::Inverse {
            fitting.reverse();
        }
        let mut plan = Self { snippets: snippets(sides), ..Self::default() };
        let texts = &plan.snippets;
        for (writer, (side, tile, needed)) in
            parallel(fitting.len(), |i| Writer::new(fitting[i].0, direction, texts)).into_iter().zip(&fitting)
        {
            let Writer { ints, floats, mut pull, log_det, linears, condition, .. } = writer?;
            let (ints_at, floats_at) = (plan.ints.len(), plan.floats.len());
            pull.layers_at += ints_at;
            plan.ints.extend(ints);
            plan.floats.extend(floats);
            plan.log_det += log_det;
            let (event, rows) = (side.view.sample_len(), side.view.rows());
            plan.sides.push(SidePlan { ints_at, floats_at, event, rows, tile: *tile, condition, shared_memory: *needed, linears, pull });
        }
        Ok(plan)
    }
}

/// Writes a side.
#[derive(Default)]
struct Writer {
    ints: Vec<i32>,
    floats: Vec<f32>,
    /// The flows' own ints, and the lists behind them.
    flows: Vec<i32>,
    lists: Vec<i32>,
    lists_at: usize,
    hidden_stride: usize,
    layers: Vec<i32>,
    linears: Vec<usize>,
    pull: PullPlan,
    condition: usize,
    log_det: f64,
}

impl Writer {
    fn new(side: &SideForm<'_, f32>, direction: Direction, texts: &[Snippet]) -> Result<Self, Refusal> {
        let view = &side.view;
        let hidden_stride = hidden_stride(side);
        let mut writer = Self { lists_at: HEAD + side.parts.len() * FLOW, hidden_stride, ..Self::default() };
        let (row_offsets, column_offsets) = (writer.list(view.row_offsets())?, writer.list(view.column_offsets())?);
        let mut part = |part: &RowForm<'_, f32>| match part {
            RowForm::Affine { map, .. } => writer.affine(map.as_ref(), direction, view.rows()),
            // A part without a form was refused before.
            part => writer.moves(&Moves::of(part, view.dim()).ok_or(Refusal::Missing(Vec::new()))?, direction, view.dim(), texts),
        };
        match direction {
            Direction::Forward => side.parts.iter().try_for_each(&mut part)?,
            Direction::Inverse => side.parts.iter().rev().try_for_each(&mut part)?,
        }
        let Self { flows, lists, layers, pull, condition, .. } = &mut writer;
        pull.for_condition = pull.notes;
        pull.notes += padded(*condition);
        let head = [view.sample_len(), view.rows(), view.dim(), side.parts.len(), hidden_stride];
        let mut ints = head.into_iter().map(int).collect::<Result<Vec<_>, _>>()?;
        ints.extend([row_offsets, column_offsets, int(pull.notes)?, int(*condition)?, int(pull.for_condition)?]);
        ints.append(flows);
        ints.append(lists);
        pull.layers_at = ints.len();
        pull.layers = layers.len() / LAYER;
        ints.append(layers);
        writer.ints = ints;
        Ok(writer)
    }

    fn affine(&mut self, map: &dyn AffineMap<f32>, direction: Direction, rows: usize) -> Result<(), Refusal> {
        let (offset, log_det) = (map.offset(), f64::from(map.log_det()) * rows as f64);
        let dim = offset.len();
        let at = int(self.floats.len())?;
        match direction {
            Direction::Forward => {
                self.log_det += log_det;
                self.linear(&map.matrix().to_dense(), &offset);
            }
            Direction::Inverse => {
                self.log_det -= log_det;
                // x = W⁻¹ y − W⁻¹ b.
                let inverse = map.inverse_matrix().to_dense();
                let back = inverse.chunks_exact(dim.max(1));
                let back = back.map(|row| -row.iter().zip(&offset).map(|(&w, &b)| f64::from(w) * f64::from(b)).sum::<f64>());
                #[expect(clippy::cast_possible_truncation, reason = "the sum is rounded to f32")]
                let back: Vec<f32> = back.map(|b| b as f32).collect();
                self.linear(&inverse, &back);
            }
        }
        let note = self.pull.notes;
        self.pull.notes += 2 * padded(dim);
        self.sums([note + padded(dim), note], [dim, dim], -1)?;
        self.flows.extend([LINEAR, at]);
        self.flows.resize(self.flows.len() + FLOW - 3, 0);
        self.flows.push(int(note)?);
        Ok(())
    }

    fn moves(&mut self, moves: &Moves<'_>, direction: Direction, dim: usize, texts: &[Snippet]) -> Result<(), Refusal> {
        let at = int(self.floats.len())?;
        let (transformer, settings) = moves.transformer(texts);
        self.floats.extend(&settings);
        self.floats.resize(self.floats.len().next_multiple_of(8), 0.0);
        let phi = match moves.activation() {
            ActivationForm::Relu => 0,
            ActivationForm::Silu => 1,
            ActivationForm::Tanh => 2,
            _ => 3,
        };
        // A row's notes, as `Notes` in side.cu.
        let (hidden, blocks) = (moves.hidden(), moves.blocks());
        let (seen, numbers) = (moves.seen(), moves.numbers.all());
        let width = padded(hidden);
        let note = self.pull.notes;
        let kept_at = note + padded(dim);
        let hidden_at = kept_at + padded(seen);
        let numbers_at = hidden_at + (1 + 2 * blocks) * width;
        let for_numbers = numbers_at + padded(numbers);
        let for_h = for_numbers + padded(numbers);
        let for_z = for_h + (1 + blocks) * width;
        self.pull.notes = for_z + blocks * width;
        if let Some(net) = moves.net {
            net.layers().for_each(|LinearForm { weight, bias, .. }| self.linear(weight, bias));
            self.sums([for_h, kept_at], [hidden, seen], -1)?;
            for block in 0..blocks {
                self.sums([for_z + block * width, hidden_at + 2 * block * width], [hidden, hidden], phi)?;
                self.sums([for_h + (block + 1) * width, hidden_at + (2 * block + 1) * width], [hidden, hidden], phi)?;
            }
            self.sums([for_numbers, hidden_at + 2 * blocks * width], [numbers, hidden], -1)?;
        } else if numbers > 0 {
            self.linear(&[], moves.parameters);
            self.sums([for_numbers, numbers_at], [numbers, 0], -1)?;
        }
        self.condition = self.condition.max(moves.condition);

        let by_steps = moves.by_steps && direction == Direction::Inverse;
        let passes = if by_steps { moves.moved.len() } else { 1 };
        let part = if by_steps { moves.numbers.least_part() } else { moves.numbers.part(self.hidden_stride) };
        let (feature_step, number_step) = moves.numbers.steps();
        let sizes = [int(seen)?, int(moves.kept.len())?, int(moves.moved.len())?, self.list(&moves.kept)?, self.list(&moves.moved)?];
        self.flows.extend([MOVES, at]);
        self.flows.extend(sizes);
        self.flows.extend([int(hidden)?, int(blocks)?, phi, i32::from(direction == Direction::Inverse), int(passes)?, transformer]);
        for size in [settings.len(), moves.numbers.each, feature_step, number_step, part, note] {
            self.flows.push(int(size)?);
        }
        Ok(())
    }

    /// A layer's entry: where its g and x lie among the notes, its outputs and inputs, the activation of x.
    fn sums(&mut self, [g, x]: [usize; 2], [outputs, inputs]: [usize; 2], phi: i32) -> Result<(), Refusal> {
        let PullPlan { tiles, sums, .. } = &mut self.pull;
        let entry = [int(g)?, int(x)?, int(outputs)?, int(inputs)?, phi, int(*sums)?, int(*tiles)?];
        self.layers.extend(entry);
        // The bias is a column behind the last input.
        *sums += outputs * (inputs + 1);
        *tiles += outputs.div_ceil(SUMS_TILE) * (inputs / SUMS_TILE + 1);
        Ok(())
    }

    /// Appends a linear layer: W in tiles of 8 × 8, padded with zeros, then b.
    ///
    /// Lane l of a warp has of a tile the numbers (l / 4, l mod 4) and (l / 4, l mod 4 + 4), which lie beside each
    /// other.
    fn linear(&mut self, weight: &[f32], bias: &[f32]) {
        self.linears.push(self.floats.len());
        let outputs = bias.len();
        let inputs = weight.len() / outputs.max(1);
        for n in (0..padded(outputs)).step_by(8) {
            for k in (0..padded(inputs)).step_by(8) {
                for number in 0..64 {
                    let (lane, second) = (number / 2, number % 2);
                    let (row, column) = (n + lane / 4, k + lane % 4 + 4 * second);
                    let inside = row < outputs && column < inputs;
                    self.floats.push(if inside { weight[row * inputs + column] } else { 0.0 });
                }
            }
        }
        self.floats.extend_from_slice(bias);
        self.floats.resize(self.floats.len().next_multiple_of(8), 0.0);
    }

    /// Appends a list, and gives where it begins.
    fn list(&mut self, numbers: &[usize]) -> Result<i32, Refusal> {
        let at = int(self.lists_at + self.lists.len())?;
        for &number in numbers {
            self.lists.push(int(number)?);
        }
        Ok(at)
    }
}

fn int(n: usize) -> Result<i32, Refusal> {
    i32::try_from(n).map_err(|_| Refusal::TooMany(n as u64))
}

/// The larger tile that fits a block's shared memory, and the bytes that it needs; without one, those of the smaller.
fn tile(side: &SideForm<'_, f32>, shared_memory: usize) -> (Option<Tile>, usize) {
    let bytes = |tile: Tile| 4 * tile.rows() * (2 * stride(side.view.dim()) + 3 * hidden_stride(side) + 1);
    let fits = [Tile::Rows32, Tile::Rows16].into_iter().find(|&tile| bytes(tile) <= shared_memory);
    (fits, bytes(fits.unwrap_or(Tile::Rows16)))
}
