//! L U x without L U: rows are multiplied by U and then by L.
//!
//! Forming L U and, from its gradient, those of L and U takes 4/3 d³ multiply-adds a step, rows with the product 3 d²
//! each. Where rows are fewer than numbers in a row that is most of the work, and here it is not done. Each triangle is
//! cut into panels of rows, whose zeros are left out but for those of the squares on the diagonal.

use super::packed::{Triangle, packed_row};
use crate::rows::{Direction, Lanes, Pull, RowKernel, RowTape};
use crate::{Result, Scalar};
use faer::linalg::triangular_solve::{solve_unit_lower_triangular_in_place, solve_upper_triangular_in_place};
use faer::{MatMut, MatRef, Par};
use flow_kernels::matmul::{Accumulate, Operand, matmul};
use flow_kernels::simd::{add, add_lanes, axpy};
use flow_kernels::workspace::Buffer;
use std::ops::Range;
use std::sync::OnceLock;

/// Dimensions from which on rows are multiplied by the factors. Below, the zeros in the squares weigh more and L U is
/// soon formed.
pub(super) const FACTORED_FROM: usize = 512;

/// Rows in a panel.
pub(super) const PANEL: usize = 64;

/// Some rows of a triangle. The columns beside its square are rows of panels before it in their order, which is from
/// the short rows to the long ones.
struct Panel {
    rows: Range<usize>,
    columns: Range<usize>,
    /// Where its square starts among the values; what is beside it follows.
    at: usize,
    /// Where the inverse of its square starts.
    inverse_at: usize,
}

impl Panel {
    fn square<'v, E>(&self, values: &'v [E]) -> Operand<'v, E> {
        let n = self.rows.len();
        Operand::new(&values[self.at..][..n * n], n, n)
    }

    fn beside<'v, E>(&self, values: &'v [E]) -> Operand<'v, E> {
        let (n, width) = (self.rows.len(), self.columns.len());
        Operand::new(&values[self.at + n * n..][..n * width], n, width)
    }
}

/// Rows `range` of a block.
fn part<'x, E>(x: &'x [E], range: &Range<usize>, lanes: usize) -> &'x [E] {
    &x[range.start * lanes..range.end * lanes]
}

fn part_mut<'x, E>(x: &'x mut [E], range: &Range<usize>, lanes: usize) -> &'x mut [E] {
    &mut x[range.start * lanes..range.end * lanes]
}

/// L or U.
struct Factor<E> {
    dim: usize,
    triangle: Triangle,
    panels: Vec<Panel>,
    values: Vec<E>,
    /// Of the squares, when a pass inverts.
    inverses: OnceLock<Vec<E>>,
}

impl<E: Scalar> Factor<E> {
    fn new(triangle: Triangle, packed: &[E], diagonal: impl Fn(usize) -> E, dim: usize, panel: usize) -> Self {
        let starts = (0..dim).step_by(panel.max(1));
        let starts: Vec<_> = if triangle == Triangle::Lower { starts.collect() } else { starts.rev().collect() };
        let (mut at, mut inverse_at) = (0, 0);
        let mut panels = Vec::with_capacity(starts.len());
        for start in starts {
            let rows = start..(start + panel).min(dim);
            let columns = if triangle == Triangle::Lower { 0..rows.start } else { rows.end..dim };
            let n = rows.len();
            let len = n * (n + columns.len());
            panels.push(Panel { rows, columns, at, inverse_at });
            (at, inverse_at) = (at + len, inverse_at + n * n);
        }
        let mut factor = Self { dim, triangle, panels, values: vec![E::zero(); at], inverses: OnceLock::new() };
        let mut values = std::mem::take(&mut factor.values);
        factor.for_each_run(|from, to| values[to..to + from.len()].copy_from_slice(&packed[from]));
        factor.for_each_diagonal(|i, at| values[at] = diagonal(i));
        factor.values = values;
        factor
    }

    /// Every run of packed numbers with the place among the values where it starts.
    fn for_each_run(&self, mut f: impl FnMut(Range<usize>, usize)) {
        for panel in &self.panels {
            let (n, width) = (panel.rows.len(), panel.columns.len());
            for (local, i) in panel.rows.clone().enumerate() {
                let packed = packed_row(self.dim, self.triangle, i);
                let (square, beside) = (panel.at + local * n, panel.at + n * n + local * width);
                match self.triangle {
                    Triangle::Lower => {
                        let cut = packed.start + width;
                        f(packed.start..cut, beside);
                        f(cut..packed.end, square);
                    }
                    Triangle::Upper => {
                        let cut = packed.end - width;
                        f(packed.start..cut, square + local + 1);
                        f(cut..packed.end, beside);
                    }
                }
            }
        }
    }

    /// Every number of the diagonal with its place among the values.
    fn for_each_diagonal(&self, mut f: impl FnMut(usize, usize)) {
        for panel in &self.panels {
            panel.rows.clone().enumerate().for_each(|(local, i)| f(i, panel.at + local * (panel.rows.len() + 1)));
        }
    }

    /// T X.
    fn apply(&self, x: &[E], lanes: usize, accumulate: Accumulate, to: &mut [E]) {
        for panel in &self.panels {
            let to = part_mut(to, &panel.rows, lanes);
            matmul(to, accumulate, panel.square(&self.values), Operand::new(part(x, &panel.rows, lanes), panel.rows.len(), lanes));
            if !panel.columns.is_empty() {
                let x = Operand::new(part(x, &panel.columns, lanes), panel.columns.len(), lanes);
                matmul(to, Accumulate::Add, panel.beside(&self.values), x);
            }
        }
    }

    /// Tᵀ G.
    fn apply_transposed(&self, g: &[E], lanes: usize, to: &mut [E]) {
        for panel in &self.panels {
            let g = Operand::new(part(g, &panel.rows, lanes), panel.rows.len(), lanes);
            matmul(part_mut(to, &panel.rows, lanes), Accumulate::Replace, panel.square(&self.values).transposed(), g);
            if !panel.columns.is_empty() {
                matmul(part_mut(to, &panel.columns, lanes), Accumulate::Add, panel.beside(&self.values).transposed(), g);
            }
        }
    }

    /// Adds G Xᵀ to sums that lie as the values do.
    fn add_outer(&self, g: &[E], x: &[E], lanes: usize, sums: &mut [E]) {
        let mut rest = sums;
        for panel in &self.panels {
            let (n, width) = (panel.rows.len(), panel.columns.len());
            let (own, behind) = rest.split_at_mut(n * (n + width));
            let (square, beside) = own.split_at_mut(n * n);
            let g = Operand::new(part(g, &panel.rows, lanes), n, lanes);
            matmul(square, Accumulate::Add, g, Operand::new(part(x, &panel.rows, lanes), n, lanes).transposed());
            if width > 0 {
                matmul(beside, Accumulate::Add, g, Operand::new(part(x, &panel.columns, lanes), width, lanes).transposed());
            }
            rest = behind;
        }
    }

    fn inverses(&self) -> &[E] {
        self.inverses.get_or_init(|| {
            let mut inverses = Vec::new();
            for panel in &self.panels {
                let n = panel.rows.len();
                let square = MatRef::from_row_major_slice(&self.values[panel.at..][..n * n], n, n);
                inverses.extend((0..n * n).map(|k| if k % (n + 1) == 0 { E::one() } else { E::zero() }));
                let identity = MatMut::from_row_major_slice_mut(&mut inverses[panel.inverse_at..], n, n);
                match self.triangle {
                    Triangle::Lower => solve_unit_lower_triangular_in_place(square, identity, Par::Seq),
                    Triangle::Upper => solve_upper_triangular_in_place(square, identity, Par::Seq),
                }
            }
            inverses
        })
    }

    /// X → T⁻¹ X in place, panel by panel.
    fn solve(&self, x: &mut [E], lanes: usize) {
        for panel in &self.panels {
            let n = panel.rows.len();
            let mut known = Buffer::copy_of(part(x, &panel.rows, lanes));
            if !panel.columns.is_empty() {
                let mut moved = Buffer::take(n * lanes);
                let solved = Operand::new(part(x, &panel.columns, lanes), panel.columns.len(), lanes);
                matmul(&mut moved, Accumulate::Replace, panel.beside(&self.values), solved);
                axpy(&mut known, -E::one(), &moved);
            }
            let inverse = Operand::new(&self.inverses()[panel.inverse_at..][..n * n], n, n);
            matmul(part_mut(x, &panel.rows, lanes), Accumulate::Replace, inverse, Operand::new(&known, n, lanes));
        }
    }
}

/// The map of one call.
pub(super) struct FactoredKernel<'a, E: Scalar> {
    lower: Factor<E>,
    upper: Factor<E>,
    diagonal: Vec<E>,
    bias: &'a [E],
    permutation: Option<&'a [usize]>,
    log_det: E,
}

impl<'a, E: Scalar> FactoredKernel<'a, E> {
    /// Of the packed triangles, L's and U's, the diagonal of U, and panels of so many rows.
    pub(super) fn new(
        [lower, upper]: [&[E]; 2],
        diagonal: Vec<E>,
        bias: &'a [E],
        permutation: Option<&'a [usize]>,
        log_det: E,
        panel: usize,
    ) -> Self {
        let dim = diagonal.len();
        let lower = Factor::new(Triangle::Lower, lower, |_| E::one(), dim, panel);
        let upper = Factor::new(Triangle::Upper, upper, |i| diagonal[i], dim, panel);
        Self { lower, upper, diagonal, bias, permutation, log_det }
    }

    /// x\[π\].
    fn permuted(&self, x: &[E], lanes: usize) -> Buffer<E> {
        let mut permuted = Buffer::take(x.len());
        match self.permutation {
            None => permuted.copy_from_slice(x),
            Some(indices) => {
                for (to, &k) in permuted.chunks_exact_mut(lanes).zip(indices) {
                    to.copy_from_slice(&x[k * lanes..][..lanes]);
                }
            }
        }
        permuted
    }

    /// The inverse of [`FactoredKernel::permuted`]; it is its adjoint too.
    fn put_back(&self, permuted: &[E], lanes: usize, x: &mut [E]) {
        match self.permutation {
            None => x.copy_from_slice(permuted),
            Some(indices) => {
                for (from, &k) in permuted.chunks_exact(lanes).zip(indices) {
                    x[k * lanes..][..lanes].copy_from_slice(from);
                }
            }
        }
    }

    /// y → U x\[π\] in place.
    fn solve_lower(&self, values: &mut [E], lanes: usize) {
        for (values, &b) in values.chunks_exact_mut(lanes).zip(self.bias) {
            values.iter_mut().for_each(|y| *y -= b);
        }
        self.lower.solve(values, lanes);
    }

    /// With u = U x\[π\]: ∂L/∂L = ∂L/∂y uᵀ, ∂L/∂u = Lᵀ ∂L/∂y, ∂L/∂U = ∂L/∂u x\[π\]ᵀ and ∂L/∂x\[π\] = Uᵀ ∂L/∂u.
    fn pull(&self, x: &[E], u: &[E], cotangent: &mut [E], lanes: usize, sums: &mut [E]) {
        let (for_lower, rest) = sums.split_at_mut(self.lower.values.len());
        let (for_upper, for_bias) = rest.split_at_mut(self.upper.values.len());
        add_lanes(for_bias, cotangent, lanes);
        self.lower.add_outer(cotangent, u, lanes, for_lower);
        let (mut for_u, mut for_x) = (Buffer::take(cotangent.len()), Buffer::take(cotangent.len()));
        self.lower.apply_transposed(cotangent, lanes, &mut for_u);
        self.upper.add_outer(&for_u, x, lanes, for_upper);
        self.upper.apply_transposed(&for_u, lanes, &mut for_x);
        self.put_back(&for_x, lanes, cotangent);
    }
}

impl<E: Scalar> RowKernel<E> for FactoredKernel<'_, E> {
    fn forward(&self, values: &mut [E], lanes: &mut Lanes<'_, E>, tape: &mut RowTape<E>) -> Result<()> {
        let x = self.permuted(values, lanes.lanes);
        let mut u = Buffer::take(x.len());
        self.upper.apply(&x, lanes.lanes, Accumulate::Replace, &mut u);
        values.chunks_exact_mut(lanes.lanes).zip(self.bias).for_each(|(values, &b)| values.fill(b));
        self.lower.apply(&u, lanes.lanes, Accumulate::Add, values);
        lanes.log_det.iter_mut().for_each(|l| *l += self.log_det);
        tape.push(x);
        tape.push(u);
        Ok(())
    }

    fn prepare_for(&self, direction: Direction) {
        if direction == Direction::Inverse {
            self.lower.inverses();
            self.upper.inverses();
        }
    }

    fn inverse(&self, values: &mut [E], lanes: &mut Lanes<'_, E>) -> Result<()> {
        self.solve_lower(values, lanes.lanes);
        self.upper.solve(values, lanes.lanes);
        let x = Buffer::copy_of(values);
        self.put_back(&x, lanes.lanes, values);
        lanes.log_det.iter_mut().for_each(|l| *l -= self.log_det);
        Ok(())
    }

    fn pullback(&self, cotangent: &mut [E], pull: &mut Pull<'_, E>, tape: &mut RowTape<E>, sums: &mut [E]) -> Result<()> {
        let u = tape.pop()?;
        let x = tape.pop()?;
        self.pull(&x, &u, cotangent, pull.lanes, sums);
        Ok(())
    }

    fn pullback_inverting(&self, values: &mut [E], cotangent: &mut [E], pull: &mut Pull<'_, E>, sums: &mut [E]) -> Result<()> {
        self.solve_lower(values, pull.lanes);
        let u = Buffer::copy_of(values);
        self.upper.solve(values, pull.lanes);
        let x = Buffer::copy_of(values);
        self.pull(&x, &u, cotangent, pull.lanes, sums);
        self.put_back(&x, pull.lanes, values);
        Ok(())
    }

    /// Those of L and of U as they lie in panels, and of the bias.
    fn sums_len(&self) -> usize {
        self.lower.values.len() + self.upper.values.len() + self.bias.len()
    }

    /// ∂L/∂s = diag(∂L/∂U) e^s + ∂L/∂log-det; what the squares have outside of their triangle is left out.
    fn finish(&self, sums: &[E], log_det: E, gradients: &mut [E]) -> Result<()> {
        let (for_lower, rest) = sums.split_at(self.lower.values.len());
        let (for_upper, for_bias) = rest.split_at(self.upper.values.len());
        let dim = self.diagonal.len();
        let packed = dim * dim.saturating_sub(1) / 2;
        let (lower, rest) = gradients.split_at_mut(packed);
        let (upper, rest) = rest.split_at_mut(packed);
        let (log_diagonal, bias) = rest.split_at_mut(dim);
        self.lower.for_each_run(|to, from| add(&mut lower[to.clone()], &for_lower[from..from + to.len()]));
        self.upper.for_each_run(|to, from| add(&mut upper[to.clone()], &for_upper[from..from + to.len()]));
        self.upper.for_each_diagonal(|i, at| log_diagonal[i] += for_upper[at] * self.diagonal[i] + log_det);
        add(bias, for_bias);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Context;
    use crate::layers::LuLinear;
    use crate::log_det::SolveReport;
    use crate::module::{EntryMut, parameter_count, update};
    use crate::rows::RowFlow;
    use flow_kernels::noise::Stream;

    const ROWS: usize = 5;

    fn noise(len: usize, name: &str) -> Vec<f64> {
        let mut x = vec![0.0; len];
        Stream::new(3, 0, name).row(0).gaussian(&mut x);
        x
    }

    fn flow(dim: usize, permuted: bool) -> LuLinear<f64> {
        let mut flow = LuLinear::new(dim);
        if permuted {
            flow = flow.with_random_permutation(1);
        }
        let scale = 0.5 / (dim as f64).sqrt();
        update(&mut flow, |path, entry| {
            if let EntryMut::Parameter { values, .. } = entry {
                let noise = noise(values.len(), path);
                values.iter_mut().zip(noise).for_each(|(to, x)| *to = scale * x);
            }
        })
        .unwrap();
        flow
    }

    /// y and log-dets, then x, ∂L/∂x and the gradients by both pullbacks, then x and log-dets of the inverse.
    fn results(kernel: &dyn RowKernel<f64>, dim: usize, parameters: usize) -> Vec<(&'static str, Vec<f64>)> {
        let x = noise(dim * ROWS, "x");
        let map = |values: &mut Vec<f64>, f: &dyn Fn(&mut [f64], &mut Lanes<'_, f64>) -> Result<()>| {
            let (mut log_det, mut variance) = (vec![0.0; ROWS], vec![0.0; ROWS]);
            let report = &mut SolveReport::default();
            let mut lanes = Lanes::new(0, &mut log_det, &mut variance, report);
            f(values, &mut lanes).unwrap();
            log_det
        };
        let (mut y, mut tape) = (x.clone(), RowTape::recording());
        let log_det = {
            let tape = std::cell::RefCell::new(&mut tape);
            map(&mut y, &|values, lanes| kernel.forward(values, lanes, &mut tape.borrow_mut()))
        };
        let mut found = vec![("y", y.clone()), ("log-det", log_det)];
        let for_log_det = noise(ROWS, "l");
        let pull = || Pull::new(0, &for_log_det);
        let mut back = y.clone();
        for inverting in [false, true] {
            let (mut cotangent, mut sums) = (noise(dim * ROWS, "g"), vec![0.0; kernel.sums_len()]);
            if inverting {
                kernel.pullback_inverting(&mut back, &mut cotangent, &mut pull(), &mut sums).unwrap();
            } else {
                kernel.pullback(&mut cotangent, &mut pull(), &mut tape, &mut sums).unwrap();
            }
            let mut gradients = vec![0.25; parameters];
            kernel.finish(&sums, for_log_det.iter().sum(), &mut gradients).unwrap();
            found.extend([("for x", cotangent), ("gradients", gradients)]);
        }
        found.push(("x again", back));
        kernel.prepare_for(Direction::Inverse);
        let log_det = map(&mut y, &|values, lanes| kernel.inverse(values, lanes));
        found.extend([("x", y), ("log-det back", log_det)]);
        found
    }

    fn check(dim: usize, flow: &LuLinear<f64>, kernel: &dyn RowKernel<f64>, what: &str) {
        let dense = flow.dense(&Context::new(0)).unwrap();
        let parameters = parameter_count(flow);
        let expected = results(&dense, dim, parameters);
        for ((name, found), (_, expected)) in results(kernel, dim, parameters).into_iter().zip(expected) {
            let off = found.iter().zip(&expected).map(|(a, b)| (a - b).abs() / (1.0 + b.abs())).fold(0.0, f64::max);
            assert!(off < 1e-12 && found.len() == expected.len(), "{what}: {name} is off by {off}");
        }
    }

    #[test]
    fn equals_the_product() {
        for (dim, panel) in [(1, 4), (4, 4), (7, 3), (8, 4), (12, 5), (9, 1), (5, 64)] {
            for permuted in [false, true] {
                let flow = flow(dim, permuted);
                let kernel = flow.factored(panel, &Context::new(0)).unwrap();
                check(dim, &flow, &kernel, &format!("{dim} in panels of {panel}"));
            }
        }
    }

    #[test]
    fn wide_maps_are_not_multiplied_out() {
        let cx = Context::new(0);
        let (narrow, wide) = (flow(FACTORED_FROM - 1, true), flow(FACTORED_FROM + 8, true));
        assert!(narrow.affine(&cx).unwrap().is_some() && wide.affine(&cx).unwrap().is_none());
        check(wide.dim(), &wide, wide.prepare(ROWS, &cx).unwrap().as_ref(), "wide");
    }
}
