//! A model as the kernels read it: sizes and lists as integers, weights as numbers in tiles.

use flow_api::device::{ActivationForm, CouplingForm, LinearForm, MissingForm, RowForm, SideForm, TransformerForm};

/// Ints at the beginning of a side's description, and of each of its flows: as in `kernels/side.cu`.
const HEAD: usize = 7;
const FLOW: usize = 11;

/// Features of a padded width.
fn padded(n: usize) -> usize {
    n.next_multiple_of(8)
}

/// Numbers between two rows in shared memory.
fn stride(n: usize) -> usize {
    padded(n) + 4
}

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
    /// Where its description begins among the ints.
    pub(crate) at: usize,
    /// Numbers in a sample.
    pub(crate) event: usize,
    /// Rows in a sample.
    pub(crate) rows: usize,
    pub(crate) tile: Tile,
    /// Bytes a block.
    pub(crate) shared_memory: usize,
}

/// A model.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) ints: Vec<i32>,
    pub(crate) floats: Vec<f32>,
    /// In the order in which they are run.
    pub(crate) forward: Vec<SidePlan>,
    pub(crate) inverse: Vec<SidePlan>,
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

/// A flow with where its weights lie for either direction.
enum Placed<'s, 'a> {
    Affine { forward: i32, inverse: i32 },
    Coupling { form: &'s CouplingForm<'a, f32>, weights: i32 },
}

impl Plan {
    /// The plan of a model for a device whose blocks have so much shared memory.
    pub(crate) fn new(sides: &[SideForm<'_, f32>], shared_memory: usize) -> Result<Self, Refusal> {
        let mut missing = flow_api::device::missing_forms(sides);
        let mut plan = Self::default();
        for side in sides {
            let dim = side.view.dim();
            let (tile, needed) = tile(side, shared_memory);
            let Some(tile) = tile else {
                missing.push(MissingForm {
                    path: side.path.clone(),
                    kind: format!("rows of {dim}"),
                    reason: format!("a block of 16 rows needs {needed} bytes of shared memory, and the device has {shared_memory}"),
                });
                continue;
            };
            if !missing.is_empty() {
                continue;
            }
            let mut placed = Vec::with_capacity(side.parts.len());
            for part in &side.parts {
                placed.push(plan.place(part, dim, side.view.rows())?);
            }
            let mut describe = |placed: &mut dyn Iterator<Item = &Placed<'_, '_>>, inverse| {
                let at = plan.describe(side, placed, inverse)?;
                Ok(SidePlan { at, event: side.view.sample_len(), rows: side.view.rows(), tile, shared_memory: needed })
            };
            let forward = describe(&mut placed.iter(), false)?;
            let inverse = describe(&mut placed.iter().rev(), true)?;
            plan.forward.push(forward);
            plan.inverse.push(inverse);
        }
        plan.inverse.reverse();
        if missing.is_empty() { Ok(plan) } else { Err(Refusal::Missing(missing)) }
    }

    /// Puts a part's weights among the numbers.
    fn place<'s, 'a>(&mut self, part: &'s RowForm<'a, f32>, dim: usize, rows: usize) -> Result<Placed<'s, 'a>, Refusal> {
        match part {
            RowForm::Affine { map, .. } => {
                self.log_det += f64::from(map.log_det()) * rows as f64;
                let offset = map.offset();
                let forward = self.linear(&map.matrix().to_dense(), &offset, dim)?;
                // x = W⁻¹ y − W⁻¹ b.
                let inverse = map.inverse_matrix().to_dense();
                let back = inverse.chunks_exact(dim.max(1));
                let back = back.map(|row| -row.iter().zip(&offset).map(|(&w, &b)| f64::from(w) * f64::from(b)).sum::<f64>());
                #[expect(clippy::cast_possible_truncation, reason = "the sum is rounded to f32")]
                let back: Vec<f32> = back.map(|b| b as f32).collect();
                let inverse = self.linear(&inverse, &back, dim)?;
                Ok(Placed::Affine { forward, inverse })
            }
            RowForm::Coupling(form) => {
                let mut weights = None;
                for LinearForm { weight, bias } in form.net.layers() {
                    let at = self.linear(weight, bias, weight.len() / bias.len().max(1))?;
                    weights.get_or_insert(at);
                }
                Ok(Placed::Coupling { form, weights: weights.unwrap_or_default() })
            }
            // Such a part was refused before.
            _ => Err(Refusal::Missing(Vec::new())),
        }
    }

    /// Appends a linear layer: W in tiles of 8 × 8, padded with zeros, then b.
    ///
    /// Lane l of a warp has of a tile the numbers (l / 4, l mod 4) and (l / 4, l mod 4 + 4), which lie beside each other.
    fn linear(&mut self, weight: &[f32], bias: &[f32], inputs: usize) -> Result<i32, Refusal> {
        let at = int(self.floats.len())?;
        let outputs = bias.len();
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
        Ok(at)
    }

    /// Appends a side's description; where it begins.
    fn describe(
        &mut self,
        side: &SideForm<'_, f32>,
        flows: &mut dyn Iterator<Item = &Placed<'_, '_>>,
        inverse: bool,
    ) -> Result<usize, Refusal> {
        let view = &side.view;
        let flows: Vec<_> = flows.collect();
        // Offsets count from the side's own beginning.
        let mut lists = Vec::new();
        let head = HEAD + flows.len() * FLOW;
        let mut list = |numbers: &[usize]| {
            let at = int(head + lists.len())?;
            numbers.iter().try_for_each(|&number| int(number).map(|number| lists.push(number)))?;
            Ok(at)
        };
        let (row_offsets, column_offsets) = (list(view.row_offsets())?, list(view.column_offsets())?);
        let mut body = Vec::with_capacity(flows.len() * FLOW);
        for flow in &flows {
            match flow {
                Placed::Affine { forward, inverse: back } => {
                    body.extend([0, if inverse { *back } else { *forward }]);
                    body.resize(body.len() + FLOW - 2, 0);
                }
                Placed::Coupling { form, weights } => {
                    #[expect(clippy::cast_possible_truncation, reason = "the bound was an f32")]
                    let (kind, bound) = match form.transformer {
                        TransformerForm::Affine { bound } => (2, bound as f32),
                        _ => (1, 0.0),
                    };
                    let activation = match form.net.activation {
                        ActivationForm::Relu => 0,
                        ActivationForm::Silu => 1,
                        ActivationForm::Tanh => 2,
                        _ => 3,
                    };
                    let [kept, moved] = [list(&form.kept)?, list(&form.moved)?];
                    body.extend([kind, *weights, int(form.kept.len())?, int(form.moved.len())?, kept, moved]);
                    body.extend([int(form.net.initial.outputs())?, int(form.net.blocks.len())?, activation]);
                    body.extend([i32::from(inverse), bound.to_bits().cast_signed()]);
                }
            }
        }
        let at = self.ints.len();
        let hidden = int(hidden_stride(side))?;
        self.ints.extend([int(view.sample_len())?, int(view.rows())?, int(view.dim())?, int(flows.len())?]);
        self.ints.extend([hidden, row_offsets, column_offsets]);
        self.ints.extend(body);
        self.ints.extend(lists);
        Ok(at)
    }
}

fn int(n: usize) -> Result<i32, Refusal> {
    i32::try_from(n).map_err(|_| Refusal::TooMany(n as u64))
}

/// Numbers between two rows of hidden values; 0 where there is no network.
fn hidden_stride(side: &SideForm<'_, f32>) -> usize {
    let widths = side.parts.iter().filter_map(|part| match part {
        RowForm::Coupling(form) => Some(form.net.initial.outputs().max(form.kept.len()).max(form.net.last.outputs())),
        _ => None,
    });
    widths.max().map_or(0, stride)
}

/// The larger tile that fits a block's shared memory, and the bytes that it needs; without one, those of the smaller.
fn tile(side: &SideForm<'_, f32>, shared_memory: usize) -> (Option<Tile>, usize) {
    let bytes = |tile: Tile| 4 * tile.rows() * (2 * stride(side.view.dim()) + 3 * hidden_stride(side) + 1);
    let fits = [Tile::Rows32, Tile::Rows16].into_iter().find(|&tile| bytes(tile) <= shared_memory);
    (fits, bytes(fits.unwrap_or(Tile::Rows16)))
}
