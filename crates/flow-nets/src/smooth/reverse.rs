//! The reverse passes: products with Jᵀ, the gradient, and the gradient of forward and tangent pass together.

use flow_kernels::Real;
use flow_kernels::matmul::{Accumulate, Operand, matmul};
use flow_kernels::simd::{add, add_lanes, dot};
use flow_kernels::workspace::Buffer;

use super::elementwise::{Curve, pull_cotangents, scale_rows, scaled};
use super::forward::{TangentTrace, Trace};
use super::kernel::{MlpKernel, Modulated, Stage};

/// Cotangents of something in the network, for its value and for all its tangents.
struct Cotangents<E: Real> {
    value: Buffer<E>,
    tangents: Buffer<E>,
}

impl<E: Real> Cotangents<E> {
    fn take(rows: usize, passes: Passes<'_, E>) -> Self {
        Self { value: Buffer::take(rows * passes.lanes()), tangents: Buffer::take(rows * passes.columns()) }
    }
}

/// What the passes before left.
#[derive(Clone, Copy)]
struct Passes<'b, E: Real> {
    trace: &'b Trace<E>,
    tangents: Option<&'b TangentTrace<'b, E>>,
}

impl<'b, E: Real> Passes<'b, E> {
    fn lanes(self) -> usize {
        self.trace.lanes
    }

    /// Columns of all tangents: k · lanes.
    fn columns(self) -> usize {
        self.tangents.map_or(0, TangentTrace::columns)
    }

    /// ḣ and ż of a layer: empty without tangents.
    fn tangents(self, stage: &Stage<'_, E>) -> [&'b [E]; 2] {
        self.tangents.map_or([&[][..]; 2], |t| stage.traced_tangents(t))
    }
}

impl<E: Real> Stage<'_, E> {
    /// The rows for η₁ h and those for η₂ φ(z), of something that is as wide as the layer's output.
    fn split<'b>(&self, c: &'b [E], columns: usize) -> (&'b [E], &'b [E]) {
        c.split_at(self.hidden.map_or(0, |h| h.passed) * columns)
    }

    /// h̄ = Wᵀ z̄ + η₁ c¹, where z̄ has the scale in it already; c is the cotangent of the layer's output.
    fn pull_input(&self, z: &[E], c: &[E], columns: usize, out: &mut [E]) {
        if columns == 0 {
            return;
        }
        let mut accumulate = Accumulate::Replace;
        if let Some([eta, _]) = self.hidden.and_then(|h| h.concat) {
            scaled(out, eta, self.split(c, columns).0);
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
        let mut c = Buffer::copy_of(cotangents);
        for (i, stage) in self.stages.iter().enumerate().rev() {
            let (mut z, above) = if stage.hidden.is_some() {
                let [_, _, slope] = stage.traced(trace);
                let mut z = Buffer::take(stage.output * columns);
                pull_cotangents(slope, stage.split(&c, columns).1, &mut z, trace.lanes, columns);
                (z, c)
            } else {
                (c, Buffer::take(0))
            };
            scale_rows(&mut z, columns, stage.modulation(self.scale(trace)));
            if i == 0 {
                stage.pull_input(&z, &above, columns, out);
                return;
            }
            c = Buffer::take(stage.input * columns);
            stage.pull_input(&z, &above, columns, &mut c);
        }
    }

    /// The gradient of ⟨ȳ, y⟩: `y_cotangent` is output × lanes, `x_cotangent` (input × lanes) is overwritten;
    /// `offset_cotangent` (that of the first layer's offset, its outputs × lanes) and `sums` are added to, and left out
    /// where they are empty.
    pub fn pullback(&self, trace: &Trace<E>, y_cotangent: &[E], x_cotangent: &mut [E], offset_cotangent: &mut [E], sums: &mut [E]) {
        let c = Cotangents { value: Buffer::copy_of(y_cotangent), tangents: Buffer::take(0) };
        self.reverse(Passes { trace, tangents: None }, c, x_cotangent, None, offset_cotangent, sums);
    }

    /// The gradient of S = ⟨ȳ, y⟩ + Σₖ ⟨vₖ, J uₖ⟩, with the uₖ of the tangent trace.
    ///
    /// `y_cotangent` is output × lanes, `cotangents` (the vₖ, as many as there are tangents) output × (k · lanes);
    /// `x_cotangent` (input × lanes) and, if wanted, `tangent_cotangents` (∂S/∂uₖ = Jᵀ vₖ, input × (k · lanes)) are
    /// overwritten; `offset_cotangent` and `sums` are added to, or empty as for [`pullback`](Self::pullback).
    ///
    /// S is linear in the pairs (uₖ, vₖ): many of them, as in the gradient of an exact log-det, go through best in
    /// groups whose k · lanes columns stay in the cache, with ȳ in one group and zeros in the others.
    #[allow(clippy::too_many_arguments, reason = "the pass has four inputs and four outputs")]
    pub fn pullback_dual(
        &self,
        trace: &Trace<E>,
        tangents: &TangentTrace<'_, E>,
        y_cotangent: &[E],
        cotangents: &[E],
        x_cotangent: &mut [E],
        tangent_cotangents: Option<&mut [E]>,
        offset_cotangent: &mut [E],
        sums: &mut [E],
    ) {
        let c = Cotangents { value: Buffer::copy_of(y_cotangent), tangents: Buffer::copy_of(cotangents) };
        self.reverse(Passes { trace, tangents: Some(tangents) }, c, x_cotangent, tangent_cotangents, offset_cotangent, sums);
    }

    /// Both pullbacks, from the cotangents of the output.
    fn reverse(
        &self,
        passes: Passes<'_, E>,
        mut c: Cotangents<E>,
        x_cotangent: &mut [E],
        mut tangent_cotangents: Option<&mut [E]>,
        offset_cotangent: &mut [E],
        sums: &mut [E],
    ) {
        let (lanes, columns) = (passes.lanes(), passes.columns());
        if lanes == 0 {
            return;
        }
        for (i, stage) in self.stages.iter().enumerate().rev() {
            // Past the activation; in the last layer nothing lies between.
            let (mut z, above) = if stage.hidden.is_some() {
                (self.reverse_activation(i, passes, &c, sums), c)
            } else {
                (c, Cotangents { value: Buffer::take(0), tangents: Buffer::take(0) })
            };
            let scale = stage.modulation(self.scale(passes.trace));
            if !sums.is_empty() {
                self.add_affine(stage, passes, &z, scale, sums);
            }
            scale_rows(&mut z.value, lanes, scale);
            scale_rows(&mut z.tangents, columns, scale);
            if i == 0 {
                add(offset_cotangent, &z.value[..offset_cotangent.len()]);
                stage.pull_input(&z.value, &above.value, lanes, x_cotangent);
                if let Some(out) = tangent_cotangents.take() {
                    stage.pull_input(&z.tangents, &above.tangents, columns, out);
                }
                return;
            }
            c = Cotangents::take(stage.input, passes);
            stage.pull_input(&z.value, &above.value, lanes, &mut c.value);
            stage.pull_input(&z.tangents, &above.tangents, columns, &mut c.tangents);
        }
    }

    /// z̄ and ż̄ of hidden layer i from the cotangents of its output; adds β̄, η̄₁, η̄₂.
    fn reverse_activation(&self, i: usize, passes: Passes<'_, E>, c: &Cotangents<E>, sums: &mut [E]) -> Cotangents<E> {
        let (lanes, columns) = (passes.lanes(), passes.columns());
        let stage = &self.stages[i];
        let mut bar = Cotangents::take(stage.output, passes);
        let (Some(hidden), Some(next)) = (&stage.hidden, self.stages.get(i + 1)) else { return bar };
        let [h, z, slope] = stage.traced(passes.trace);
        let [dh, dz] = passes.tangents(stage);
        let (c_passed, c_active) = stage.split(&c.value, lanes);
        let (w_passed, w_active) = stage.split(&c.tangents, columns);
        let [out, ..] = next.traced(passes.trace);
        let (_, out_active) = stage.split(out, lanes);
        if columns == 0 {
            pull_cotangents(slope, c_active, &mut bar.value, lanes, lanes);
        } else {
            hidden.phi.with(Curve {
                z,
                out: out_active,
                slope,
                c: c_active,
                w: w_active,
                dz,
                z_bar: &mut bar.value,
                dz_bar: &mut bar.tangents,
                gain: hidden.gain(),
                lanes,
                columns,
                products: &mut Buffer::take(lanes),
            });
        }
        if sums.is_empty() {
            return bar;
        }
        if let Some(beta) = stage.sums.beta {
            sums[beta] += hidden.phi.log_slope * (dot(z, &bar.value) - dot(c_active, out_active));
        }
        if let (Some(at), Some([_, eta])) = (&stage.sums.concat, hidden.concat) {
            let [dout, _] = passes.tangents(next);
            let (_, dout_active) = stage.split(dout, columns);
            sums[at.start] += dot(c_passed, h) + dot(w_passed, dh);
            sums[at.start + 1] += (dot(c_active, out_active) + dot(w_active, dout_active)) / eta;
        }
        bar
    }

    /// Adds W̄, b̄, s̄ and t̄ of one layer, from z̄ and ż̄.
    fn add_affine(&self, stage: &Stage<'_, E>, passes: Passes<'_, E>, bar: &Cotangents<E>, scale: &[E], sums: &mut [E]) {
        let (lanes, columns) = (passes.lanes(), passes.columns());
        let [h, ..] = stage.traced(passes.trace);
        let [dh, _] = passes.tangents(stage);
        let products = |out: &mut [E], first: Accumulate| {
            let transposed = |x, columns| Operand::new(x, stage.input, columns).transposed();
            matmul(out, first, Operand::new(&bar.value, stage.output, lanes), transposed(h, lanes));
            if columns > 0 {
                matmul(out, Accumulate::Add, Operand::new(&bar.tangents, stage.output, columns), transposed(dh, columns));
            }
        };
        let places = stage.modulation..stage.modulation + stage.output;
        if self.modulated != Modulated::No {
            add_lanes(&mut sums[self.shift_sums()][places.clone()], &bar.value, lanes);
        }
        if self.modulated != Modulated::ScaleShift {
            products(&mut sums[stage.sums.weight.clone()], Accumulate::Add);
            add_lanes(&mut sums[stage.sums.bias.clone()], &bar.value, lanes);
            return;
        }
        let (mut product, mut rows) = (Buffer::take(stage.weight.len()), Buffer::zeroed(stage.output));
        products(&mut product, Accumulate::Replace);
        add_lanes(&mut rows, &bar.value, lanes);
        let matrix_rows = product.chunks_exact(stage.input).zip(stage.weight.chunks_exact(stage.input));
        for (j, (sum, (m, w))) in sums[self.scale_sums()][places.clone()].iter_mut().zip(matrix_rows).enumerate() {
            *sum += dot(m, w) + stage.bias[j] * rows[j];
        }
        let offset = if stage.is_first() { self.offset(passes.trace) } else { &[] };
        let with_offset = offset.chunks_exact(lanes).zip(bar.value.chunks_exact(lanes));
        for (sum, (o, z)) in sums[self.scale_sums()][places].iter_mut().zip(with_offset) {
            *sum += dot(o, z);
        }
        scale_rows(&mut product, stage.input, scale);
        scale_rows(&mut rows, 1, scale);
        add(&mut sums[stage.sums.weight.clone()], &product);
        add(&mut sums[stage.sums.bias.clone()], &rows);
    }
}
