//! The forward pass and the tangent pass.

use flow_kernels::Real;
use flow_kernels::matmul::{Accumulate, Operand, matmul};
use flow_kernels::workspace::Buffer;

use super::elementwise::{Activate, Affine, push_tangents, scale_rows, scaled, shift_rows};
use super::kernel::{MlpKernel, Modulated, Modulation, Stage};

/// What [`MlpKernel::forward_traced`] leaves for the passes after it: layer inputs, pre-activations, slopes φ′, and
/// what of the modulation they need.
#[derive(Debug)]
pub struct Trace<E: Real> {
    pub(super) values: Buffer<E>,
    pub(super) lanes: usize,
}

impl<E: Real> Trace<E> {
    /// Rows in the block.
    pub fn lanes(&self) -> usize {
        self.lanes
    }

    /// The one buffer that it is, to be put on a tape.
    pub fn into_values(self) -> Buffer<E> {
        self.values
    }

    /// The trace of `lanes` rows again, from what [`into_values`](Self::into_values) of a trace of the same kernel
    /// gave.
    pub fn from_values(values: Buffer<E>, lanes: usize) -> Self {
        Self { values, lanes }
    }
}

/// k tangents a row of the network's input, made ready by [`MlpKernel::tangents`] for passes at any number of points.
#[derive(Debug)]
pub struct Tangents<E: Real> {
    /// u: input × (k · lanes).
    values: Buffer<E>,
    /// W u of the first layer, which depends on nothing else.
    first: Buffer<E>,
    columns: usize,
}

impl<E: Real> Tangents<E> {
    /// The tangents themselves.
    pub fn values(&self) -> &[E] {
        &self.values
    }
}

/// What [`MlpKernel::jvp_traced`] leaves for [`MlpKernel::pullback_dual`]: the tangents of layer inputs and
/// pre-activations.
#[derive(Debug)]
pub struct TangentTrace<'b, E: Real> {
    pub(super) tangents: &'b Tangents<E>,
    /// Without the tangents of the first layer's input.
    values: Buffer<E>,
}

impl<E: Real> TangentTrace<'_, E> {
    pub(super) fn columns(&self) -> usize {
        self.tangents.columns
    }
}

impl<E: Real> Stage<'_, E> {
    pub(super) fn weight(&self) -> Operand<'_, E> {
        Operand::new(&self.weight, self.output, self.input)
    }

    /// This layer's part of a flat scale or shift, or nothing where there is none.
    pub(super) fn modulation<'b>(&self, flat: &'b [E]) -> &'b [E] {
        flat.get(self.modulation..self.modulation + self.output).unwrap_or(&[])
    }

    /// W h, and in the first layer W h + o.
    fn product(&self, h: &[E], lanes: usize, offset: &[E], z: &mut [E]) {
        let mut accumulate = Accumulate::Replace;
        if self.is_first() && !offset.is_empty() {
            z.copy_from_slice(offset);
            accumulate = Accumulate::Add;
        }
        matmul(z, accumulate, self.weight(), Operand::new(h, self.input, lanes));
    }

    /// The last layer.
    fn last(&self, h: &[E], lanes: usize, modulation: Modulation<'_, E>, y: &mut [E]) {
        self.product(h, lanes, modulation.offset, y);
        shift_rows(y, self.affine(modulation), lanes);
    }

    fn affine<'b>(&'b self, modulation: Modulation<'b, E>) -> Affine<'b, E> {
        Affine { bias: &self.bias, scale: self.modulation(modulation.scale), shift: self.modulation(modulation.shift) }
    }

    /// A hidden layer: z and the next layer's input; the slopes too, unless `slope` is empty.
    fn hidden(&self, h: &[E], lanes: usize, modulation: Modulation<'_, E>, z: &mut [E], slope: &mut [E], out: &mut [E]) {
        let Some(hidden) = &self.hidden else { return };
        self.product(h, lanes, modulation.offset, z);
        let (passed, out) = out.split_at_mut(hidden.passed * lanes);
        if let Some([eta, _]) = hidden.concat {
            scaled(passed, eta, h);
        }
        hidden.phi.with(Activate { z, affine: self.affine(modulation), out, slope, gain: hidden.gain(), lanes });
    }

    /// ż = s ⊙ (W ḣ).
    pub(super) fn pre_tangent(&self, h: &[E], columns: usize, scale: &[E], z: &mut [E]) {
        matmul(z, Accumulate::Replace, self.weight(), Operand::new(h, self.input, columns));
        scale_rows(z, columns, scale);
    }

    /// The same, where W ḣ of the first layer is known.
    fn pre_tangent_of(&self, tangents: &Tangents<E>, h: &[E], scale: &[E], z: &mut [E]) {
        if self.is_first() {
            z.copy_from_slice(&tangents.first);
            scale_rows(z, tangents.columns, scale);
        } else {
            self.pre_tangent(h, tangents.columns, scale, z);
        }
    }

    /// The next layer's input tangents from this one's and ż.
    pub(super) fn activate_tangents(&self, slope: &[E], h: &[E], z: &[E], lanes: usize, columns: usize, out: &mut [E]) {
        let Some(hidden) = &self.hidden else { return };
        let (passed, activated) = out.split_at_mut(hidden.passed * columns);
        if let Some([eta, _]) = hidden.concat {
            scaled(passed, eta, h);
        }
        push_tangents(slope, z, activated, lanes, columns);
    }

    /// Width of the next layer's input.
    pub(super) fn width(&self) -> usize {
        self.hidden.map_or(self.output, |h| h.passed + h.activated)
    }

    fn activated(&self) -> usize {
        self.hidden.map_or(0, |h| h.activated)
    }

    /// h, z and slope of this layer in a trace.
    pub(super) fn traced<'b>(&self, trace: &'b Trace<E>) -> [&'b [E]; 3] {
        let lanes = trace.lanes;
        let (h, rest) = trace.values[self.trace * lanes..].split_at(self.input * lanes);
        if self.hidden.is_none() {
            return [h, &[], &[]];
        }
        let (z, rest) = rest.split_at(self.output * lanes);
        [h, z, &rest[..self.activated() * lanes]]
    }

    /// ḣ and ż of this layer in a tangent trace.
    pub(super) fn traced_tangents<'b>(&self, trace: &'b TangentTrace<'_, E>) -> [&'b [E]; 2] {
        let columns = trace.columns();
        let (h, rest) = trace.values[self.tangent_trace * columns..].split_at(self.traced_input() * columns);
        let h = if self.is_first() { &trace.tangents.values } else { h };
        if self.hidden.is_none() { [h, &[]] } else { [h, &rest[..self.output * columns]] }
    }

    pub(super) fn is_first(&self) -> bool {
        self.trace == 0
    }

    /// Rows of ḣ in a tangent trace.
    fn traced_input(&self) -> usize {
        if self.is_first() { 0 } else { self.input }
    }
}

impl<E: Real> MlpKernel<'_, E> {
    /// y = g(x) without a trace: x is input × lanes, y output × lanes.
    pub fn forward(&self, x: &[E], lanes: usize, modulation: Modulation<'_, E>, y: &mut [E]) {
        if lanes == 0 {
            return;
        }
        let mut h = Buffer::take(0);
        for (i, stage) in self.stages.iter().enumerate() {
            let input = if i == 0 { x } else { &h[..] };
            if stage.hidden.is_none() {
                stage.last(input, lanes, modulation, y);
                continue;
            }
            let mut z = Buffer::take(stage.output * lanes);
            let mut out = Buffer::take(stage.width() * lanes);
            stage.hidden(input, lanes, modulation, &mut z, &mut [], &mut out);
            h = out;
        }
    }

    /// y = g(x), and what the other passes need.
    pub fn forward_traced(&self, x: &[E], lanes: usize, modulation: Modulation<'_, E>, y: &mut [E]) -> Trace<E> {
        let rows = self.trace_rows * lanes;
        let behind = rows + modulation.scale.len();
        // The scale's gradient alone needs the offset again.
        let offset = if self.modulated == Modulated::ScaleShift { modulation.offset } else { &[] };
        let mut values = Buffer::take(behind + offset.len());
        values[rows..behind].copy_from_slice(modulation.scale);
        values[behind..].copy_from_slice(offset);
        if lanes > 0 {
            values[..self.input * lanes].copy_from_slice(&x[..self.input * lanes]);
            for stage in &self.stages {
                let (h, rest) = values[stage.trace * lanes..].split_at_mut(stage.input * lanes);
                if stage.hidden.is_none() {
                    stage.last(h, lanes, modulation, y);
                    continue;
                }
                let (z, rest) = rest.split_at_mut(stage.output * lanes);
                let (slope, rest) = rest.split_at_mut(stage.activated() * lanes);
                stage.hidden(h, lanes, modulation, z, slope, &mut rest[..stage.width() * lanes]);
            }
        }
        Trace { values, lanes }
    }

    /// s of all layers, as the forward pass was given it.
    pub(super) fn scale<'b>(&self, trace: &'b Trace<E>) -> &'b [E] {
        let len = if self.modulated == Modulated::ScaleShift { self.modulation_len() } else { 0 };
        &trace.values[self.trace_rows * trace.lanes..][..len]
    }

    /// o, as the forward pass was given it; empty without one, and where no gradient needs it.
    pub(super) fn offset<'b>(&self, trace: &'b Trace<E>) -> &'b [E] {
        &trace.values[self.trace_rows * trace.lanes + self.scale(trace).len()..]
    }

    /// k tangents a row, input × (k · lanes), with what is the same of their pass wherever the network is evaluated.
    pub fn tangents(&self, values: Buffer<E>) -> Tangents<E> {
        let columns = values.len() / self.input;
        let stage = &self.stages[0];
        let mut first = Buffer::take(stage.output * columns);
        stage.pre_tangent(&values, columns, &[], &mut first);
        Tangents { values, first, columns }
    }

    /// J u for k tangents a row: `out` is output × (k · lanes).
    pub fn jvp(&self, trace: &Trace<E>, tangents: &Tangents<E>, out: &mut [E]) {
        let columns = tangents.columns;
        if columns == 0 || trace.lanes == 0 {
            return;
        }
        let scale = self.scale(trace);
        let mut h = Buffer::take(0);
        for stage in &self.stages {
            let input = if stage.is_first() { &tangents.values } else { &h };
            if stage.hidden.is_none() {
                stage.pre_tangent_of(tangents, input, stage.modulation(scale), out);
                continue;
            }
            let [_, _, slope] = stage.traced(trace);
            let mut z = Buffer::take(stage.output * columns);
            stage.pre_tangent_of(tangents, input, stage.modulation(scale), &mut z);
            let mut next = Buffer::take(stage.width() * columns);
            stage.activate_tangents(slope, input, &z, trace.lanes, columns, &mut next);
            h = next;
        }
    }

    /// [`jvp`](Self::jvp), and what [`pullback_dual`](Self::pullback_dual) needs of it; that alone, without the last
    /// layer's product, where `out` is empty.
    pub fn jvp_traced<'b>(&self, trace: &Trace<E>, tangents: &'b Tangents<E>, out: &mut [E]) -> TangentTrace<'b, E> {
        let columns = tangents.columns;
        let mut values = Buffer::take(self.tangent_trace_rows * columns);
        if columns > 0 && trace.lanes > 0 {
            let scale = self.scale(trace);
            for stage in &self.stages {
                let (h, rest) = values[stage.tangent_trace * columns..].split_at_mut(stage.traced_input() * columns);
                let h = if stage.is_first() { &tangents.values } else { &*h };
                if stage.hidden.is_none() {
                    if !out.is_empty() {
                        stage.pre_tangent_of(tangents, h, stage.modulation(scale), out);
                    }
                    continue;
                }
                let [_, _, slope] = stage.traced(trace);
                let (z, rest) = rest.split_at_mut(stage.output * columns);
                stage.pre_tangent_of(tangents, h, stage.modulation(scale), z);
                stage.activate_tangents(slope, h, z, trace.lanes, columns, &mut rest[..stage.width() * columns]);
            }
        }
        TangentTrace { tangents, values }
    }
}
