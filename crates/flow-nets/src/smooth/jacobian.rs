//! The Jacobian of every row.

use std::ops::Range;

use flow_kernels::Real;
use flow_kernels::workspace::Buffer;

use super::elementwise::{push_lane_tangents, scaled};
use super::forward::Trace;
use super::kernel::MlpKernel;

/// Bytes that a chunk's widest layer may take, so that it stays in the L2 cache.
const CHUNK_BYTES: usize = 256 * 1024;

/// The Jacobian as a product J = A B through the narrowest pre-activation of the network, of width m < d.
///
/// Then det(I + J) = det(I + A B) = det(I + B A), a determinant of size m.
#[derive(Debug)]
pub struct JacobianFactors<E: Real> {
    /// m.
    pub inner: usize,
    /// A = ∂y/∂z of every row: element (i, j) of lane r at `(r * output + i) * inner + j`.
    pub a: Buffer<E>,
    /// B = ∂z/∂x of every row: element (i, j) of lane r at `(r * inner + i) * input + j`.
    pub b: Buffer<E>,
}

/// Where a derivative begins or ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// x or y.
    End,
    /// The pre-activation of this layer.
    PreActivation(usize),
}

impl<E: Real> MlpKernel<'_, E> {
    /// J of every row: element (i, j) = ∂yᵢ/∂xⱼ of lane r at `(r * output + i) * input + j`, one row-major matrix
    /// behind the other.
    pub fn jacobian(&self, trace: &Trace<E>, out: &mut [E]) {
        self.derivative(trace, Place::End, Place::End, out);
    }

    /// J = A B of every row, if a pre-activation that everything passes through is narrower than x and y.
    pub fn jacobian_factors(&self, trace: &Trace<E>) -> Option<JacobianFactors<E>> {
        let (layer, inner) = self.narrowest()?;
        let mut a = Buffer::take(trace.lanes * self.output * inner);
        let mut b = Buffer::take(trace.lanes * inner * self.input);
        self.derivative(trace, Place::PreActivation(layer), Place::End, &mut a);
        self.derivative(trace, Place::End, Place::PreActivation(layer), &mut b);
        Some(JacobianFactors { inner, a, b })
    }

    fn narrowest(&self) -> Option<(usize, usize)> {
        let split =
            |(i, stage): (usize, &super::kernel::Stage<'_, E>)| stage.hidden.filter(|h| h.concat.is_none()).map(|_| (i, stage.output));
        let narrowest = self.stages.iter().enumerate().filter_map(split).min_by_key(|&(_, width)| width)?;
        (narrowest.1 < self.input.min(self.output)).then_some(narrowest)
    }

    /// ∂to/∂from of every row, lane-major, as in [`jacobian`](Self::jacobian).
    fn derivative(&self, trace: &Trace<E>, from: Place, to: Place, out: &mut [E]) {
        let (first, size) = match from {
            Place::End => (0, self.input),
            Place::PreActivation(i) => (i, self.stages[i].output),
        };
        let last = match to {
            Place::End => self.stages.len() - 1,
            Place::PreActivation(i) => i,
        };
        let widest = self.stages[first..=last].iter().map(|s| s.output.max(s.width())).max().unwrap_or(1);
        let chunk = (CHUNK_BYTES / (widest * size * size_of::<E>())).max(1);
        let rows = self.stages[last].output;
        for start in (0..trace.lanes).step_by(chunk) {
            let lanes = start..trace.lanes.min(start + chunk);
            let z = self.unit_tangents(trace, lanes.clone(), from, (first, last), size);
            // z has the lanes' `size` columns behind each other: every matrix row is contiguous.
            let columns = lanes.len() * size;
            for (i, row) in z.chunks_exact(columns).enumerate() {
                for (lane, segment) in lanes.clone().zip(row.chunks_exact(size)) {
                    out[(lane * rows + i) * size..][..size].copy_from_slice(segment);
                }
            }
        }
    }

    /// The tangents of the last pre-activation for all unit tangents at the beginning: its width × (lanes · size), the
    /// tangents of a lane together.
    fn unit_tangents(&self, trace: &Trace<E>, lanes: Range<usize>, from: Place, (first, last): (usize, usize), size: usize) -> Buffer<E> {
        let columns = lanes.len() * size;
        let scale = self.scale(trace);
        // The tangents of the first pre-activation are the columns of s W, or units themselves, the same for every
        // lane.
        let stage = &self.stages[first];
        let mut z: Buffer<E> = Buffer::zeroed(stage.output * columns);
        for (j, row) in z.chunks_exact_mut(columns).enumerate() {
            let s = stage.modulation(scale).get(j).copied().unwrap_or_else(E::one);
            for segment in row.chunks_exact_mut(size) {
                if from == Place::End {
                    segment.iter_mut().zip(&stage.weight[j * size..]).for_each(|(z, &w)| *z = s * w);
                } else {
                    segment[j] = E::one();
                }
            }
        }
        let mut h: Buffer<E> = Buffer::take(0);
        for i in first..last {
            let stage = &self.stages[i];
            let Some(hidden) = &stage.hidden else { break };
            let [_, _, slope] = stage.traced(trace);
            let mut next: Buffer<E> = Buffer::take(stage.width() * columns);
            let (passed, activated) = next.split_at_mut(hidden.passed * columns);
            if let Some([eta, _]) = hidden.concat {
                if i == 0 {
                    passed.fill(E::zero());
                    for (j, row) in passed.chunks_exact_mut(columns).enumerate() {
                        row.iter_mut().skip(j).step_by(size).for_each(|out| *out = eta);
                    }
                } else {
                    scaled(passed, eta, &h);
                }
            }
            for (j, (active, slope)) in activated.chunks_exact_mut(columns).zip(slope.chunks_exact(trace.lanes)).enumerate() {
                let z = &z[j % stage.output * columns..][..columns];
                push_lane_tangents(&slope[lanes.clone()], z, active, size);
            }
            h = next;
            let stage = &self.stages[i + 1];
            z = Buffer::take(stage.output * columns);
            stage.pre_tangent(&h, columns, stage.modulation(scale), &mut z);
        }
        z
    }
}
