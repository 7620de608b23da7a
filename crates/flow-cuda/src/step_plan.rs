//! What a training step makes of parameters, and of sums, as its kernels read it.

use crate::plan::{LAYER, Plan, SidePlan};
use flow_api::device::{AffinePiece, LinearForm, RowForm, SideForm};

/// Ints of an item, columns of a map and numbers of a layer that a block has: as in `kernels/step.cu`.
const ITEM: usize = 11;
const COLUMNS: usize = 32;
pub(crate) const NUMBERS: usize = 4096;

/// Affine maps and linear layers with their places.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct StepPlan {
    pub(crate) items: Vec<i32>,
    pub(crate) lists: Vec<i32>,
    pub(crate) constants: Vec<f32>,
    /// Numbers that maps keep on the way and leave on the way back.
    pub(crate) scratch: usize,
    /// Maps with parameters, each of which has a log-det of its own.
    pub(crate) maps: usize,
    /// Blocks an item for its weights, for the way back through its maps, and for its gradients.
    pub(crate) chunks: [usize; 3],
    /// Parameters in all.
    pub(crate) parameters: usize,
    /// Log-dets of maps without parameters.
    pub(crate) log_det: f64,
    /// Sums of all sides.
    sums: usize,
}

impl StepPlan {
    pub(crate) fn len(&self) -> usize {
        self.items.len() / ITEM
    }

    pub(crate) fn sums(&self) -> usize {
        self.sums
    }

    /// For the sides of a plan.
    ///
    /// # Errors
    /// What has no form of a step, in words.
    pub(crate) fn new(plan: &Plan, sides: &[SideForm<'_, f32>]) -> Result<Self, String> {
        let mut step = Self { chunks: [1; 3], ..Self::default() };
        for (form, side) in sides.iter().zip(&plan.sides) {
            let mut linears = Linears { side, ints: &plan.ints, at: 0 };
            for part in &form.parts {
                match part {
                    RowForm::Affine { map, parameters } => {
                        let [weights, sums] = linears.next(form, form.view.dim(), form.view.dim())?;
                        let rows = form.view.rows();
                        if *parameters == 0 {
                            step.log_det += f64::from(map.log_det()) * rows as f64;
                            continue;
                        }
                        let pieces = map.pieces().unwrap_or_default();
                        if pieces.iter().map(AffinePiece::parameters).sum::<usize>() != *parameters {
                            return Err(format!(
                                "{}: an affine map that is not made of scales, LU-linear maps and permutations",
                                form.path
                            ));
                        }
                        step.map(&pieces, [form.view.dim(), rows, weights, sums])?;
                    }
                    RowForm::Coupling(coupling) if coupling.condition > 0 => {
                        return Err(format!("{}: a condition", form.path));
                    }
                    RowForm::Coupling(coupling) => {
                        for layer in coupling.net.layers() {
                            let places = linears.next(form, layer.outputs(), layer.inputs())?;
                            step.layer(layer, places)?;
                        }
                    }
                    _ => return Err(format!("{}: a part that it has no form of", form.path)),
                }
            }
            linears.end(form)?;
            step.sums += side.pull.sums;
        }
        Ok(step)
    }

    fn layer(&mut self, layer: &LinearForm<'_, f32>, [weights, sums]: [usize; 2]) -> Result<(), String> {
        let (outputs, inputs) = (layer.outputs(), layer.inputs());
        let numbers = outputs.next_multiple_of(8) * (inputs.next_multiple_of(8) + 1);
        self.needs([numbers.div_ceil(NUMBERS), 1, (outputs * (inputs + 1)).div_ceil(NUMBERS)]);
        self.item([0, self.parameters, outputs, inputs, weights, self.sums + sums, 0, 0, 0, 0, 0])?;
        self.parameters += outputs * (inputs + 1);
        Ok(())
    }

    fn map(&mut self, pieces: &[AffinePiece<'_, f32>], [dim, rows, weights, sums]: [usize; 4]) -> Result<(), String> {
        let mut ops = Vec::new();
        let triangle = dim * dim.saturating_sub(1) / 2;
        for piece in pieces {
            let at = self.parameters;
            match piece {
                AffinePiece::Scale { middle } => {
                    ops.push([0, at, at + dim, self.constants.len()]);
                    self.constants.extend_from_slice(middle);
                }
                AffinePiece::Permutation { indices } => ops.push([1, 0, 0, self.list(indices)?]),
                AffinePiece::Lu { permutation, .. } => {
                    if let Some(indices) = permutation {
                        ops.push([1, 0, 0, self.list(indices)?]);
                    }
                    ops.push([2, at + triangle, at + 2 * triangle, 0]);
                    ops.push([3, at, at + 2 * triangle + dim, 0]);
                }
                _ => return Err("an affine map of a new kind".to_owned()),
            }
            self.parameters += piece.parameters();
        }
        let list = self.lists.len();
        for number in ops.iter().flatten() {
            self.lists.push(int(*number)?);
        }
        let size = dim * (dim + 1);
        let columns = (dim + 1).div_ceil(COLUMNS);
        self.needs([columns, columns, (dim * dim).div_ceil(NUMBERS)]);
        let places = [self.sums + sums, list, ops.len(), self.scratch, rows, self.maps];
        let [sums, list, count, scratch, rows, number] = places;
        self.item([1, 0, dim, dim, weights, sums, list, count, scratch, rows, number])?;
        // The prefixes, the identity before them, and a cotangent of all but the last.
        self.scratch += 2 * ops.len() * size;
        self.maps += 1;
        Ok(())
    }

    fn item(&mut self, item: [usize; ITEM]) -> Result<(), String> {
        for number in item {
            self.items.push(int(number)?);
        }
        Ok(())
    }

    fn list(&mut self, indices: &[usize]) -> Result<usize, String> {
        let at = self.lists.len();
        for &index in indices {
            self.lists.push(int(index)?);
        }
        Ok(at)
    }

    fn needs(&mut self, chunks: [usize; 3]) {
        self.chunks.iter_mut().zip(chunks).for_each(|(most, own)| *most = own.max(*most));
    }
}

/// The linear layers of a side, one after the other.
struct Linears<'a> {
    side: &'a SidePlan,
    ints: &'a [i32],
    at: usize,
}

impl Linears<'_> {
    /// Where the next one's weights lie among all, and its sums among the side's.
    fn next(&mut self, form: &SideForm<'_, f32>, outputs: usize, inputs: usize) -> Result<[usize; 2], String> {
        let entry = self.ints.get(self.side.pull.layers_at + self.at * LAYER..).and_then(|entry| entry.get(..LAYER));
        let place = self.side.linears.get(self.at).zip(entry);
        self.at += 1;
        let size = |n: i32| usize::try_from(n).unwrap_or(usize::MAX);
        match place {
            Some((&weights, &[_, _, own_outputs, own_inputs, _, sums, _]))
                if [size(own_outputs), size(own_inputs)] == [outputs, inputs] =>
            {
                Ok([self.side.floats_at + weights, size(sums)])
            }
            _ => Err(format!("{}: linear layers that are not those of its description", form.path)),
        }
    }

    fn end(&self, form: &SideForm<'_, f32>) -> Result<(), String> {
        if self.at == self.side.pull.layers && self.at == self.side.linears.len() {
            return Ok(());
        }
        Err(format!("{}: more linear layers than its description has", form.path))
    }
}

fn int(n: usize) -> Result<i32, String> {
    i32::try_from(n).map_err(|_| format!("{n} numbers are more than its kernels can count"))
}
