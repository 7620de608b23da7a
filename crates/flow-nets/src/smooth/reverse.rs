//! The reverse passes: products with Jᵀ, the gradient, and the gradient of forward and tangent pass together.

use flow_kernels::Real;
use flow_kernels::matmul::{Accumulate, Operand, matmul};
use flow_kernels::workspace::Buffer;

use super::elementwise::{Curve, add_row_sums, dot, pull_cotangents, scale_rows, total};
use super::forward::{TangentTrace, Trace};
use super::kernel::{MlpKernel, Modulated, Stage};

/// Cotangents of a layer's inputs or outputs, for the values and for all tangents.
struct Cotangents<E: Real> {
    values: Buffer<E>,
    tangents: Buffer<E>,
}

fn copy<E: Real>(values: &[E]) -> Buffer<E> {
    let mut buffer = Buffer::take(values.len());
    buffer.copy_from_slice(values);
    buffer
}

fn add<E: Real>(sums: &mut [E], values: &[E]) {
    sums.iter_mut().zip(values).for_each(|(sum, &value)| *sum += value);
}

impl<E: Real> Stage<'_, E> {
    /// c for η₁ h, and c for η₂ φ(z).
    fn split<'b>(&self, c: &'b [E], columns: usize) -> (&'b [E], &'b [E]) {
        c.split_at(self.hidden.map_or(0, |h| h.passed) * columns)
    }

    /// h̄ = Wᵀ z̄ + η₁ c¹, where z̄ has the scale in it already; c is the cotangent of the layer's output.
    fn pull_input(&self, z: &[E], c: &[E], columns: usize, out: &mut [E]) {
        let mut accumulate = Accumulate::Replace;
        if let Some([eta, _]) = self.hidden.and_then(|h| h.concat) {
            let (passed, _) = self.split(c, columns);
            out.iter_mut().zip(passed).for_each(|(out, &c)| *out = eta * c);
            accumulate = Accumulate::Add;
        }
        matmul(out, accumulate, self.weight().transposed(), Operand::new(z, self.output, columns));
    }
}

impl<E: Real> MlpKernel<'_, E> {
    /// Jᵀ v for k cotangents a row: `cotangents` is output × (k · lanes), `out` input × (k · lanes).
    pub fn vjp(&self, trace: &Trace<E>, cotangents: &[E], out: &mut [E]) {
        let columns = cotangents.len() / self.output;
        if columns == 0 || trace.lanes == 0 {
            return;
        }
        let scale = self.scale(trace);
        let mut c = Buffer::take(0);
        for (i, stage) in self.stages.iter().enumerate().rev() {
            let above = if stage.hidden.is_none() { cotangents } else { &c[..] };
            let scale = stage.modulation(scale);
            let scratch;
            let z = if stage.hidden.is_none() && scale.is_empty() {
                above
            } else {
                let mut z = if stage.hidden.is_none() { copy(above) } else { Buffer::take(stage.output * columns) };
                if stage.hidden.is_some() {
                    let [_, _, slope] = stage.traced(trace);
                    pull_cotangents(slope, stage.split(above, columns).1, &mut z, trace.lanes, columns);
                }
                scale_rows(&mut z, columns, scale);
                scratch = z;
                &scratch[..]
            };
            if i == 0 {
                stage.pull_input(z, above, columns, out);
            } else {
                let mut below = Buffer::take(stage.input * columns);
                stage.pull_input(z, above, columns, &mut below);
                c = below;
            }
        }
    }

    /// The gradient of ⟨ȳ, y⟩: `y_cotangent` is output × lanes, `x_cotangent` (input × lanes) is overwritten, `sums` is added to.
    pub fn pullback(&self, trace: &Trace<E>, y_cotangent: &[E], x_cotangent: &mut [E], sums: &mut [E]) {
        self.reverse(trace, None, y_cotangent, &[], x_cotangent, None, sums);
    }

    /// The gradient of S = ⟨ȳ, y⟩ + Σₖ ⟨vₖ, J uₖ⟩, with the uₖ of the tangent trace.
    ///
    /// `y_cotangent` is output × lanes, `cotangents` (the vₖ, as many as there are tangents) output × (k · lanes); `x_cotangent` (input × lanes) and, if
    /// wanted, `tangent_cotangents` (∂S/∂uₖ = Jᵀ vₖ, input × (k · lanes)) are overwritten; `sums` is added to.
    #[allow(clippy::too_many_arguments, reason = "the pass has three inputs and three outputs")]
    pub fn pullback_dual(
        &self,
        trace: &Trace<E>,
        tangents: &TangentTrace<E>,
        y_cotangent: &[E],
        cotangents: &[E],
        x_cotangent: &mut [E],
        tangent_cotangents: Option<&mut [E]>,
        sums: &mut [E],
    ) {
        self.reverse(trace, Some(tangents), y_cotangent, cotangents, x_cotangent, tangent_cotangents, sums);
    }

    #[allow(clippy::too_many_arguments, reason = "as `pullback_dual`")]
    fn reverse(
        &self,
        trace: &Trace<E>,
        tangents: Option<&TangentTrace<E>>,
        y_cotangent: &[E],
        cotangents: &[E],
        x_cotangent: &mut [E],
        mut tangent_cotangents: Option<&mut [E]>,
        sums: &mut [E],
    ) {
        let lanes = trace.lanes;
        let columns = tangents.map_or(0, |t| t.columns);
        if lanes == 0 {
            return;
        }
        let mut c = Cotangents { values: copy(&y_cotangent[..self.output * lanes]), tangents: copy(&cotangents[..self.output * columns]) };
        for (i, stage) in self.stages.iter().enumerate().rev() {
            let [h, ..] = stage.traced(trace);
            let [dh, dz] = tangents.map_or([&[][..]; 2], |t| stage.traced_tangents(t));
            // Past the activation; in the last layer nothing lies between.
            let inner = (stage.hidden.is_some()).then(|| self.reverse_activation(stage, trace, dz, dh, &c, columns, sums));
            let (mut inner, above) = match inner {
                Some(inner) => (inner, Some(c)),
                None => (c, None),
            };
            let scale = stage.modulation(self.scale(trace));
            self.add_affine(stage, h, dh, &inner, scale, (lanes, columns), sums);
            scale_rows(&mut inner.values, lanes, scale);
            if columns > 0 {
                scale_rows(&mut inner.tangents, columns, scale);
            }
            let (above_values, above_tangents) = above.as_ref().map_or((&[][..], &[][..]), |c| (&c.values[..], &c.tangents[..]));
            if i == 0 {
                stage.pull_input(&inner.values, above_values, lanes, x_cotangent);
                if let Some(out) = tangent_cotangents.take().filter(|_| columns > 0) {
                    stage.pull_input(&inner.tangents, above_tangents, columns, out);
                }
                return;
            }
            let mut below = Cotangents { values: Buffer::take(stage.input * lanes), tangents: Buffer::take(stage.input * columns) };
            stage.pull_input(&inner.values, above_values, lanes, &mut below.values);
            if columns > 0 {
                stage.pull_input(&inner.tangents, above_tangents, columns, &mut below.tangents);
            }
            c = below;
        }
    }

    /// z̄ and ż̄ from the cotangents of the layer's output; adds β̄, η̄₁, η̄₂.
    #[allow(clippy::too_many_arguments, reason = "everything that the two passes left")]
    fn reverse_activation(
        &self,
        stage: &Stage<'_, E>,
        trace: &Trace<E>,
        dz: &[E],
        dh: &[E],
        c: &Cotangents<E>,
        columns: usize,
        sums: &mut [E],
    ) -> Cotangents<E> {
        let lanes = trace.lanes;
        let [h, z, slope] = stage.traced(trace);
        let mut inner = Cotangents { values: Buffer::take(stage.output * lanes), tangents: Buffer::take(stage.output * columns) };
        let Some(hidden) = &stage.hidden else { return inner };
        let (c_passed, c_active) = stage.split(&c.values, lanes);
        let (w_passed, w_active) = stage.split(&c.tangents, columns);
        if columns > 0 {
            pull_cotangents(slope, w_active, &mut inner.tangents, lanes, columns);
        }
        if columns == 0 && stage.sums.beta.is_none() && stage.sums.concat.is_none() {
            pull_cotangents(slope, c_active, &mut inner.values, lanes, lanes);
            return inner;
        }
        let mut rows = Buffer::zeroed(3 * lanes);
        let (q, rest) = rows.split_at_mut(lanes);
        let (b_sum, gain_sum) = rest.split_at_mut(lanes);
        hidden.phi.with(Curve {
            z,
            c: c_active,
            w: w_active,
            dz,
            zbar: &mut inner.values,
            gain: hidden.gain(),
            b: hidden.phi.b,
            lanes,
            columns,
            q,
            b_sum: &mut *b_sum,
            gain_sum: &mut *gain_sum,
        });
        if let Some(beta) = stage.sums.beta {
            sums[beta] += hidden.phi.b_slope * total(b_sum);
        }
        if let Some(concat) = &stage.sums.concat {
            sums[concat.start] += dot(c_passed, h) + dot(w_passed, dh);
            sums[concat.start + 1] += total(gain_sum);
        }
        inner
    }

    /// Adds W̄, b̄, s̄ and t̄ of one layer, from z̄ and ż̄.
    #[allow(clippy::too_many_arguments, reason = "values, tangents and their cotangents")]
    fn add_affine(
        &self,
        stage: &Stage<'_, E>,
        h: &[E],
        dh: &[E],
        inner: &Cotangents<E>,
        scale: &[E],
        (lanes, columns): (usize, usize),
        sums: &mut [E],
    ) {
        let products = |out: &mut [E], first: Accumulate| {
            let transposed = |x, columns| Operand::new(x, stage.input, columns).transposed();
            matmul(out, first, Operand::new(&inner.values, stage.output, lanes), transposed(h, lanes));
            if columns > 0 {
                matmul(out, Accumulate::Add, Operand::new(&inner.tangents, stage.output, columns), transposed(dh, columns));
            }
        };
        let mut row_sums = Buffer::zeroed(stage.output);
        add_row_sums(&inner.values, lanes, &mut row_sums);
        if self.modulated != Modulated::No {
            add(&mut sums[self.shift_sums()][stage.modulation..], &row_sums);
        }
        if self.modulated != Modulated::ScaleShift {
            products(&mut sums[stage.sums.weight.clone()], Accumulate::Add);
            add(&mut sums[stage.sums.bias.clone()], &row_sums);
            return;
        }
        let mut product = Buffer::take(stage.weight.len());
        products(&mut product, Accumulate::Replace);
        let scale_sums = self.scale_sums().start + stage.modulation;
        for (j, (m, w)) in product.chunks_exact_mut(stage.input).zip(stage.weight.chunks_exact(stage.input)).enumerate() {
            sums[scale_sums + j] += dot(m, w) + stage.bias[j] * row_sums[j];
        }
        scale_rows(&mut product, stage.input, scale);
        scale_rows(&mut row_sums, 1, scale);
        add(&mut sums[stage.sums.weight.clone()], &product);
        add(&mut sums[stage.sums.bias.clone()], &row_sums);
    }
}
